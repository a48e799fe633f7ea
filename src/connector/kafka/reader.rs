//! Reading partitions: batches of messages, given to their splits, decoded in place, handed out one
//! split at a time; and telling a quiet topic from a broker that is away.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use super::consume::{Fetcher, Messages};
use super::gone::{OnGone, made_anew};
use super::group::Group;
use super::rows::Rows;
use super::startup;
use super::topic_id::topic_id;
use crate::connector::{Position, Positions, Read, SourceBatch, SplitReader};
use crate::error::{Error, Result, Retry, sqlstate};

/// How often a broker that can't be reached is asked whether it is back, at most.
const PROBE_PAUSE: Duration = Duration::from_millis(200);

/// How often a silent topic is looked for.
const TOPIC_LOOK: Duration = Duration::from_secs(1);

/// How long brokers must say that there is no topic before it is believed: one that has just been
/// started may not know of it yet.
const GONE_AFTER: Duration = Duration::from_secs(3);

/// How long a broker may take to say where a partition ends.
const END_TIMEOUT: Duration = Duration::from_millis(300);

/// One partition of a reader.
pub(super) struct Split {
    pub(super) partition: i32,
    pub(super) next: Position,
    pub(super) until: Option<Position>,
    pub(super) ended: bool,
    /// Indexes of its messages in the current batch.
    pub(super) messages: Vec<u32>,
}

/// Reads some partitions of a topic.
pub(super) struct KafkaReader {
    topic: String,
    on_gone: OnGone,
    /// The topic's id, as far as it was looked for.
    id: Option<String>,
    tells_ids: bool,
    fetcher: Fetcher,
    /// Who is told how far it has come.
    group: Option<Group>,
    rows: Rows,
    /// Ascending by partition.
    splits: Vec<Split>,
    /// Batches that are decoded and not handed out yet.
    ready: VecDeque<SourceBatch>,
    trouble: Option<Trouble>,
    /// When it was last looked whether the topic is there, and since when it is not.
    looked: Instant,
    missing: Option<Instant>,
    discovery: Option<Discovery>,
}

/// When to look for new partitions.
pub(super) struct Discovery {
    every: Duration,
    last: Instant,
}

impl Discovery {
    /// How long a look may hold up reading.
    const TIMEOUT: Duration = Duration::from_millis(500);

    pub(super) fn new(every: Duration) -> Self {
        Self { every, last: Instant::now() }
    }

    fn is_due(&mut self) -> bool {
        let due = self.last.elapsed() >= self.every;
        if due {
            self.last = Instant::now();
        }
        due
    }
}

/// Why nothing comes.
struct Trouble {
    reason: String,
    asked: Option<Instant>,
}

impl SplitReader for KafkaReader {
    fn read(&mut self, max_rows: usize, timeout: Duration) -> Result<Read> {
        if let Some(batch) = self.ready.pop_front() {
            return Ok(Read::Batch(batch));
        }
        if self.splits.iter().all(|split| split.ended) {
            return Ok(Read::End);
        }
        if self.trouble.is_none() && self.discovery.as_mut().is_some_and(Discovery::is_due) {
            self.discover()?;
        }
        let messages = self.fetcher.fetch(max_rows, timeout);
        let nothing_came = messages.is_empty();
        let reported = distribute(&messages, &self.topic, &mut self.splits);
        // Where it goes on by itself, the next reader finds out where.
        let mended = |e: Error| if self.on_gone == OnGone::Fail { e } else { e.temporary() };
        let reported = reported.map_err(mended)?;
        for split in &mut self.splits {
            if let Some(batch) = self.rows.decode(&messages, split)? {
                self.ready.push_back(batch);
            }
        }
        drop(messages);
        if let Some(reason) = reported {
            self.trouble = Some(Trouble { reason, asked: None });
        }
        self.stop_ended();
        for batch in &mut self.ready {
            let high = self.fetcher.high_watermark(startup::partition(batch.split));
            batch.lag = high.map(|high| u64::try_from(high - batch.next).unwrap_or(0));
        }
        self.serve_client();
        match self.ready.pop_front() {
            Some(batch) => Ok(Read::Batch(batch)),
            None if nothing_came => self.explain_silence(timeout),
            None => Ok(Read::Idle),
        }
    }

    fn ends(&mut self) -> Option<Positions> {
        let client = self.fetcher.client();
        let mut ends = Positions::new();
        for split in &self.splits {
            let asked = client.fetch_watermarks(&self.topic, split.partition, END_TIMEOUT);
            ends.insert(startup::split(split.partition), asked.ok()?.1);
        }
        Some(ends)
    }

    fn tell(&mut self, next: &Positions) {
        self.group.iter_mut().for_each(|group| group.commit(next));
    }
}

impl KafkaReader {
    /// A reader of partitions that have been started, ascending.
    pub(super) fn new(
        (topic, on_gone): (String, OnGone),
        (fetcher, group): (Fetcher, Option<Group>),
        rows: Rows,
        splits: Vec<Split>,
        discovery: Option<Discovery>,
    ) -> Self {
        let ready = VecDeque::new();
        let (trouble, looked, missing) = (None, Instant::now(), None);
        let (id, tells_ids) = (None, true);
        Self {
            topic,
            on_gone,
            id,
            tells_ids,
            fetcher,
            group,
            rows,
            splits,
            ready,
            trouble,
            looked,
            missing,
            discovery,
        }
    }

    /// Begins to read partitions that were not there before, from their start. When the brokers do
    /// not answer, the next look finds them.
    fn discover(&mut self) -> Result<()> {
        let client = self.fetcher.client();
        if self.tells_ids {
            match topic_id(client, &self.topic, Discovery::TIMEOUT) {
                Ok(Some(id)) if self.id.get_or_insert_with(|| id.clone()) != &id => {
                    let error = made_anew(&self.topic);
                    let fails = self.on_gone == OnGone::Fail;
                    return Err(if fails { error } else { error.temporary() });
                }
                Ok(Some(_)) => {}
                // Brokers that never told one are not asked again.
                Ok(None) | Err(_) => self.tells_ids = self.id.is_some(),
            }
        }
        let Ok(found) = startup::partitions(client, &self.topic, Discovery::TIMEOUT) else {
            return Ok(());
        };
        let known = |partition: &i32| {
            self.splits.binary_search_by_key(partition, |split| split.partition).is_ok()
        };
        let new: Vec<i32> = found.into_iter().filter(|partition| !known(partition)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let Ok(starts) = startup::starts(client, &self.topic, &new) else { return Ok(()) };
        for (split, next) in starts {
            let partition = startup::partition(split);
            tracing::info!(topic = self.topic, partition, "found a new partition");
            self.fetcher.start(partition, next)?;
            let (until, ended, messages) = (None, false, Vec::new());
            self.splits.push(Split { partition, next, until, ended, messages });
        }
        self.splits.sort_by_key(|split| split.partition);
        Ok(())
    }

    /// Lets the client deliver its errors and logs; a call delivers one at most.
    fn serve_client(&self) {
        const EVENTS_PER_READ: usize = 4;
        for _ in 0..EVENTS_PER_READ {
            drop(self.fetcher.client().poll(Duration::ZERO));
        }
    }

    fn stop_ended(&mut self) {
        for split in self.splits.iter().filter(|split| split.ended) {
            self.fetcher.stop(split.partition);
        }
    }

    /// Nothing came: because there is nothing, or because the brokers can't be reached, or because
    /// the topic is gone? Errors of single connections pass by themselves, so what counts is
    /// whether a request is answered.
    fn explain_silence(&mut self, timeout: Duration) -> Result<Read> {
        let client = self.fetcher.client();
        if let Some(reason) = client.context().take_trouble() {
            let asked = self.trouble.take().and_then(|trouble| trouble.asked);
            self.trouble = Some(Trouble { reason, asked });
        }
        let due = match &self.trouble {
            Some(trouble) => trouble.asked.is_none_or(|asked| asked.elapsed() >= PROBE_PAUSE),
            None => self.looked.elapsed() >= TOPIC_LOOK,
        };
        if due {
            let wait = timeout.clamp(Duration::from_millis(50), Duration::from_millis(500));
            self.looked = Instant::now();
            match startup::partitions(client, &self.topic, wait) {
                Ok(_) => (self.trouble, self.missing) = (None, None),
                Err(e) if e.retry() == Retry::Never => {
                    let missing = *self.missing.get_or_insert_with(Instant::now);
                    if missing.elapsed() >= GONE_AFTER {
                        return Err(topic_gone(&self.topic));
                    }
                    let reason = e.message().to_owned();
                    self.trouble = Some(Trouble { reason, asked: Some(self.looked) });
                }
                // A request that was not answered says less than the error before it.
                Err(_) => {
                    if let Some(trouble) = &mut self.trouble {
                        trouble.asked = Some(self.looked);
                    }
                }
            }
        }
        Ok(match &self.trouble {
            Some(trouble) => Read::Unavailable(trouble.reason.clone()),
            None => Read::Idle,
        })
    }
}

/// Gives each split the indexes of its messages. Returns the last error of a partition that time
/// may mend; an offset that is gone is an `Err`.
fn distribute(
    messages: &Messages<'_>,
    topic: &str,
    splits: &mut [Split],
) -> Result<Option<String>> {
    for split in splits.iter_mut() {
        split.messages.clear();
    }
    let mut trouble = None;
    let mut last = 0;
    for index in 0..messages.len() {
        let message = messages.get(index);
        // Messages come in runs of one partition.
        if splits.get(last).is_none_or(|split| split.partition != message.partition) {
            match splits.binary_search_by_key(&message.partition, |split| split.partition) {
                Ok(found) => last = found,
                Err(_) => continue,
            }
        }
        let Some(split) = splits.get_mut(last) else { continue };
        match message.error {
            None | Some(RDKafkaErrorCode::PartitionEOF) => split.messages.push(index as u32),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                return Err(offset_gone(topic, split, &messages.error_text(index)));
            }
            Some(code) => {
                let (partition, text) = (message.partition, messages.error_text(index));
                let text = if text.is_empty() { code.to_string() } else { text };
                trouble = Some(format!("partition {partition} of topic \"{topic}\": {text}"));
            }
        }
    }
    Ok(trouble)
}

fn topic_gone(topic: &str) -> Error {
    Error::external(
        sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("Kafka topic \"{topic}\" is not there any more"),
    )
    .permanent()
    .with_detail("It has been deleted. What was read of it stays.")
    .with_hint("Create the topic, and then the source again.")
}

fn offset_gone(topic: &str, split: &Split, text: &str) -> Error {
    let (partition, offset) = (split.partition, split.next);
    Error::external(
        sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("offset {offset} of partition {partition} of Kafka topic \"{topic}\" is not there"),
    )
    .permanent()
    .with_detail(format!(
        "Its retention has removed it, or the topic was made anew. librdkafka: {text}."
    ))
    .with_hint(
        "ALTER SOURCE .. RESUME AT EARLIEST; goes on with the first message that is there, and \
         on_offset_gone = 'earliest' does so by itself. A longer retention.ms of the topic keeps \
         messages.",
    )
}
