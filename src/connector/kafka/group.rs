//! A consumer group by which Kafka's tools see how far a source has come (`properties.group.id`):
//! offsets are committed in its name. Nobody joins it, and nothing goes on from there; where to go
//! on is the engine's own to know.

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::config::{Context, Settings};
use super::startup;
use crate::connector::Positions;
use crate::error::Result;

/// Commits offsets of a topic.
pub(super) struct Group {
    name: String,
    topic: String,
    client: BaseConsumer<Context>,
    committed: Positions,
    /// Why it did not work the last time; each reason is logged once.
    trouble: Option<String>,
}

impl Group {
    /// The group that the options name.
    pub(super) fn of(settings: &Settings) -> Result<Option<Self>> {
        let Some(name) = settings.group.clone() else { return Ok(None) };
        let (topic, client) = (settings.topic.clone(), settings.create_member(&name)?);
        Ok(Some(Self { name, topic, client, committed: Positions::new(), trouble: None }))
    }

    /// Commits the next offsets of partitions, without waiting: those that can't be committed are
    /// replaced by later ones.
    pub(super) fn commit(&mut self, positions: &Positions) {
        // The outcome of what was sent before.
        drop(self.client.poll(std::time::Duration::ZERO));
        self.note_trouble();
        let new = positions.iter().filter(|(split, at)| self.committed.get(split) != Some(at));
        let mut offsets = TopicPartitionList::new();
        let mut failed = None;
        for (split, at) in new {
            let partition = startup::partition(*split);
            let added = offsets.add_partition_offset(&self.topic, partition, Offset::Offset(*at));
            failed = failed.or(added.err());
        }
        if offsets.count() == 0 {
            return;
        }
        failed = failed.or(self.client.commit(&offsets, CommitMode::Async).err());
        match failed {
            Some(error) => self.client.client().context().failed(&error),
            None => self.committed.clone_from(positions),
        }
    }

    fn note_trouble(&mut self) {
        let trouble = self.client.client().context().take_trouble();
        if trouble.is_some() {
            // Once more with the next ones.
            self.committed.clear();
        }
        if let Some(why) = trouble.filter(|why| self.trouble.as_ref() != Some(why)) {
            let (group, topic) = (&self.name, &self.topic);
            tracing::warn!(%group, %topic, %why, "offsets could not be committed");
            self.trouble = Some(why);
        }
    }
}
