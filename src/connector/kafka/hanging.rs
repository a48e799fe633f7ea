//! Transactions of a sink that its brokers have let hang.
//!
//! `init_transactions` answers when the coordinator holds all that was begun under the id for
//! ended. One that has just started may hold a transaction for ended whose markers it never wrote:
//! while it does not know the leaders of partitions yet, it takes them for deleted (Kafka 4.3.1,
//! killed and started again, logs "likely deleted already and hence can be skipped"). Messages of
//! that transaction are neither committed nor aborted then. Nobody who reads what is committed gets
//! past them, and the next commit under the id would bring them to light, beside their second copy.
//!
//! So what is open after `init_transactions`, and stays open, is touched by a transaction that is
//! aborted: its markers end everything of the id in these partitions. What was open of somebody
//! else is not concerned.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::config::Context;
use super::control::{Control, REQUEST_TIMEOUT};
use crate::error::Result;

/// How long transactions of others are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// A partition of a topic.
pub(super) type Partition = (String, i32);

/// The partitions of the sink's topic and of the topic of accounts in which something is open, and
/// stays so; `on` says whether to go on.
pub(super) fn find(
    control: &Control,
    topic: &str,
    on: &mut dyn FnMut() -> bool,
) -> Result<Vec<Partition>> {
    let all = control.consumer("read_uncommitted")?;
    let stable = control.consumer("read_committed")?;
    let mut open = Vec::new();
    for topic in [topic, control.topic.as_str()] {
        let found = all.fetch_metadata(Some(topic), REQUEST_TIMEOUT);
        let found = found.map_err(|e| control.failed(&e.to_string(), false))?;
        let partitions = found.topics().iter().flat_map(|topic| topic.partitions());
        open.extend(partitions.map(|partition| (topic.to_owned(), partition.id())));
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut left = Vec::new();
        for partition in open {
            // The stable end first: what comes in between is not taken for open.
            let end = end_of(control, &stable, &partition)?;
            if end < end_of(control, &all, &partition)? {
                left.push(partition);
            }
        }
        if left.is_empty() || Instant::now() > deadline || !on() {
            return Ok(left);
        }
        open = left;
        std::thread::sleep(PAUSE);
    }
}

/// Where a partition ends for a consumer.
fn end_of(
    control: &Control,
    consumer: &BaseConsumer<Context>,
    (topic, partition): &Partition,
) -> Result<i64> {
    let found = consumer.fetch_watermarks(topic, *partition, REQUEST_TIMEOUT);
    found.map(|(_, end)| end).map_err(|e| control.failed(&e.to_string(), false))
}
