//! Where a source begins: `scan.startup.mode`, resolved to one offset per partition.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{IsError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::config::Context;
use super::trouble::{failed, metadata, request_error};
use crate::connector::options::invalid;
use crate::connector::{Options, Position, Positions, SplitId};
use crate::error::{Error, Result, sqlstate};

/// How long one request may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The startup options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Startup {
    Earliest,
    Latest,
    /// The first message at or after a time, in milliseconds since the Unix epoch.
    Timestamp(i64),
    Offsets(Positions),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Earliest,
    Latest,
    Timestamp,
    Offsets,
}

impl Startup {
    pub(super) fn read(options: &mut Options<'_>) -> Result<Self> {
        const OFFSETS: &str = "scan.startup.offsets";
        const MILLIS: &str = "scan.startup.timestamp.millis";
        let modes = [
            ("earliest", Mode::Earliest),
            ("latest", Mode::Latest),
            ("timestamp", Mode::Timestamp),
            ("offsets", Mode::Offsets),
        ];
        let mode = options.one_of("scan.startup.mode", &modes)?;
        let millis = match options.integer(MILLIS)? {
            Some(millis) => Some(millis),
            None => options.integer("timestamp_millis")?,
        };
        let offsets = options.string(OFFSETS);
        let mode = match (mode, millis, offsets) {
            (None, None, None) => Mode::Earliest,
            (None, Some(_), None) => Mode::Timestamp,
            (None, None, Some(_)) => Mode::Offsets,
            (Some(mode @ Mode::Timestamp), _, None) | (Some(mode @ Mode::Offsets), None, _) => mode,
            (Some(mode), None, None) => mode,
            _ => return Err(contradiction()),
        };
        match mode {
            Mode::Earliest => Ok(Startup::Earliest),
            Mode::Latest => Ok(Startup::Latest),
            Mode::Timestamp => {
                let millis = millis.ok_or_else(|| options.missing(MILLIS))?;
                if millis < 0 {
                    return Err(invalid(MILLIS, &millis.to_string(), "zero or more"));
                }
                Ok(Startup::Timestamp(millis))
            }
            Mode::Offsets => {
                let text = offsets.ok_or_else(|| options.missing(OFFSETS))?;
                let wanted = "partition:offset pairs, such as '0:123,1:0'";
                parse_offsets(text).ok_or_else(|| invalid(OFFSETS, text, wanted))
            }
        }
    }

    /// Asks the brokers for the first offset of every partition.
    pub(super) fn resolve(&self, client: &BaseConsumer<Context>, topic: &str) -> Result<Positions> {
        let partitions = partitions(client, topic, REQUEST_TIMEOUT)?;
        match self {
            Startup::Earliest => query(client, topic, &partitions, Offset::Beginning),
            Startup::Latest => query(client, topic, &partitions, Offset::End),
            Startup::Timestamp(millis) => {
                let mut found = query(client, topic, &partitions, Offset::Offset(*millis))?;
                let missing: Vec<_> =
                    partitions.into_iter().filter(|p| !found.contains_key(&split(*p))).collect();
                if !missing.is_empty() {
                    found.extend(query(client, topic, &missing, Offset::End)?);
                }
                Ok(found)
            }
            Startup::Offsets(given) => {
                if let Some(unknown) = given.keys().find(|s| !partitions.contains(&partition(**s)))
                {
                    return Err(Error::user(
                        sqlstate::INVALID_PARAMETER_VALUE,
                        format!("topic \"{topic}\" has no partition {unknown}"),
                    )
                    .with_hint("Correct the option scan.startup.offsets."));
                }
                let mut found = query(client, topic, &partitions, Offset::Beginning)?;
                found.extend(given);
                Ok(found)
            }
        }
    }
}

fn contradiction() -> Error {
    Error::user(
        sqlstate::INVALID_PARAMETER_VALUE,
        "the options scan.startup.* say more than one place to begin at",
    )
    .with_hint(
        "Give one of scan.startup.mode, scan.startup.timestamp.millis, scan.startup.offsets.",
    )
}

/// The first offsets of some partitions.
pub(super) fn starts(
    client: &BaseConsumer<Context>,
    topic: &str,
    partitions: &[i32],
) -> Result<Positions> {
    query(client, topic, partitions, Offset::Beginning)
}

fn parse_offsets(text: &str) -> Option<Startup> {
    let mut offsets = Positions::new();
    for pair in text.split(',') {
        let (split, offset) = pair.split_once(':')?;
        let split: SplitId = split.trim().parse().ok()?;
        let offset: Position = offset.trim().parse().ok().filter(|offset| *offset >= 0)?;
        i32::try_from(split).ok()?;
        offsets.insert(split, offset);
    }
    Some(Startup::Offsets(offsets))
}

/// The split of a partition.
pub(super) fn split(partition: i32) -> SplitId {
    SplitId::try_from(partition).unwrap_or(0)
}

/// The partition of a split.
pub(super) fn partition(split: SplitId) -> i32 {
    i32::try_from(split).unwrap_or(i32::MAX)
}

/// The partitions of a topic, all with a leader.
pub(super) fn partitions(
    client: &BaseConsumer<Context>,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<i32>> {
    let what = format!("read the partitions of topic \"{topic}\"");
    let metadata = metadata(client, topic, &what, timeout)?;
    let Some(found) = metadata.topics().first() else {
        return Err(Error::external(sqlstate::CONNECTION_EXCEPTION, format!("could not {what}")));
    };
    let code = found.error().filter(IsError::is_error).map(RDKafkaErrorCode::from);
    match code {
        None if found.partitions().is_empty() => return Err(no_topic(topic)),
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            return Err(no_topic(topic));
        }
        Some(code) => {
            return Err(failed(&what, &code.to_string(), client.context().servers()));
        }
    }
    if let Some(headless) = found.partitions().iter().find(|p| p.leader() < 0) {
        return Err(Error::external(
            sqlstate::CONNECTION_EXCEPTION,
            format!("partition {} of topic \"{topic}\" has no leader", headless.id()),
        ));
    }
    Ok(found.partitions().iter().map(|p| p.id()).collect())
}

fn no_topic(topic: &str) -> Error {
    Error::user(
        sqlstate::INVALID_PARAMETER_VALUE,
        format!("Kafka topic \"{topic}\" does not exist"),
    )
    .with_hint("Create the topic first, or correct the option topic.")
}

/// The offsets that stand for `wanted` (a time when it is a number), where there is one.
fn query(
    client: &BaseConsumer<Context>,
    topic: &str,
    partitions: &[i32],
    wanted: Offset,
) -> Result<Positions> {
    let what = format!("read the offsets of topic \"{topic}\"");
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(topic, *partition, wanted)
            .map_err(|e| request_error(&what, &e, client))?;
    }
    let answer = client
        .offsets_for_times(list, REQUEST_TIMEOUT)
        .map_err(|e| request_error(&what, &e, client))?;
    let mut found = Positions::new();
    for element in answer.elements() {
        element.error().map_err(|e| request_error(&what, &e, client))?;
        if let Offset::Offset(offset) = element.offset() {
            found.insert(split(element.partition()), offset);
        }
    }
    Ok(found)
}
