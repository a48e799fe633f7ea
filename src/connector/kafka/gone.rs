//! Going on: whether a topic still has what a reader that was away wants next, and what becomes of
//! it where not (`on_offset_gone`).

use rdkafka::consumer::BaseConsumer;

use super::config::Context;
use super::startup::{REQUEST_TIMEOUT, Startup};
use super::topic_id::topic_id;
use crate::connector::{Continuation, Options, Positions};
use crate::error::{Error, Result, sqlstate};

/// Where a source goes on whose next messages are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnGone {
    /// Nowhere: that is an error.
    Fail,
    /// At the first message that is there.
    Earliest,
    /// At the end.
    Latest,
}

impl OnGone {
    pub(super) fn read(options: &mut Options<'_>) -> Result<Self> {
        let words = [("fail", Self::Fail), ("earliest", Self::Earliest), ("latest", Self::Latest)];
        Ok(options.one_of("on_offset_gone", &words)?.unwrap_or(Self::Fail))
    }

    fn startup(self) -> Option<Startup> {
        match self {
            Self::Fail => None,
            Self::Earliest => Some(Startup::Earliest),
            Self::Latest => Some(Startup::Latest),
        }
    }

    /// Where to go on behind `from`, in the topic that was `identity`.
    pub(super) fn go_on(
        self,
        client: &BaseConsumer<Context>,
        topic: &str,
        (from, identity): (&Positions, Option<&str>),
    ) -> Result<Continuation> {
        let is = topic_id(client, topic, REQUEST_TIMEOUT)?;
        if let (Some(was), Some(is)) = (identity, &is)
            && was != is
        {
            let Some(startup) = self.startup() else { return Err(made_anew(topic)) };
            return Ok(Continuation {
                from: startup.resolve(client, topic)?,
                identity: Some(is.clone()),
                moved: Some(format!("topic \"{topic}\" was made anew: {}", self.words())),
            });
        }
        let identity = is.or_else(|| identity.map(str::to_owned));
        let stays = Continuation { from: from.clone(), identity, moved: None };
        let Some(startup) = self.startup() else { return Ok(stays) };
        let low = Startup::Earliest.resolve(client, topic)?;
        let high = Startup::Latest.resolve(client, topic)?;
        let there = |split: &u32, at: i64| {
            let bounds = low.get(split).zip(high.get(split));
            bounds.is_none_or(|(low, high)| (*low..=*high).contains(&at))
        };
        let gone: Vec<u32> = from
            .iter()
            .filter(|(split, at)| !there(split, **at))
            .map(|(split, _)| *split)
            .collect();
        if gone.is_empty() {
            return Ok(stays);
        }
        let places = startup.resolve(client, topic)?;
        let mut from = from.clone();
        from.extend(places.into_iter().filter(|(split, _)| gone.contains(split)));
        let splits: Vec<String> = gone.iter().map(u32::to_string).collect();
        let moved = format!(
            "offsets of partition {} of topic \"{topic}\" are gone: {}",
            splits.join(", "),
            self.words()
        );
        Ok(Continuation { from, moved: Some(moved), ..stays })
    }

    fn words(self) -> &'static str {
        match self {
            Self::Latest => "it goes on at the end",
            _ => "it goes on at the first message that is there",
        }
    }
}

/// The error of a topic that is another one by now.
pub(super) fn made_anew(topic: &str) -> Error {
    Error::external(
        sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("Kafka topic \"{topic}\" is not the one that was read: it was made anew"),
    )
    .permanent()
    .with_detail("Its offsets are those of other messages. What was read of the old one stays.")
    .with_hint("ALTER SOURCE .. RESUME AT EARLIEST; reads the new one from its first message.")
}
