//! The `kafka` connector, on librdkafka.
//!
//! Options of sources and sinks:
//!
//! | option | meaning |
//! |---|---|
//! | `topic` | the topic |
//! | `properties.bootstrap.servers` (or `properties.bootstrap.server`) | brokers to begin with |
//! | `properties.*` | any other property of librdkafka, such as `properties.security.protocol` |
//!
//! Options of sources:
//!
//! | option | meaning |
//! |---|---|
//! | `scan.startup.mode` | `earliest` (default), `latest`, `timestamp`, `offsets` |
//! | `scan.startup.timestamp.millis` (or `timestamp_millis`) | begin with messages of this time |
//! | `scan.partition.discovery.interval` | pause between looks for new ones, `10 s`; `0 s`: none |
//! | `scan.startup.offsets` | `'0:123,1:0'`; partitions that are not named begin at their start |
//!
//! Options of sinks: `primary_key = 'a,b'`, the columns of the messages' key, which FORMAT UPSERT
//! needs. With the other formats they give messages their key, and so their partition, and tell
//! which changes are one update.
//!
//! A split is a partition and a position an offset. Partitions are assigned by us, at exactly the
//! offsets that the engine asks for; there is no consumer group and nothing is committed. A source
//! reads `read_committed`. What messages mean is the business of [`crate::format`]; FORMAT UPSERT
//! takes the message's key for a JSON object with the key columns, or for a key of one column its
//! bare value. INCLUDE columns are in `include.rs`. A sink delivers in order for each key. From
//! memory (`sink.rs`) it does so at least once, and an epoch has arrived when the broker has
//! acknowledged all its messages; with a data directory (`carrier.rs`) exactly once, by
//! transactions that hold messages and how far they have come.
//!
//! [`EmbeddedBroker`] is a broker inside the process, for tests and demonstrations; [`probe`] is a
//! small producer and consumer of its own to look at topics with.

mod carrier;
mod config;
mod consume;
mod control;
mod embedded;
mod failure;
mod gone;
mod group;
mod hanging;
mod include;
mod outlook;
pub mod probe;
mod reader;
mod reports;
mod rows;
mod sink;
mod source;
mod startup;
#[cfg(test)]
mod tests;
mod topic_id;
mod trouble;

pub use embedded::EmbeddedBroker;

use super::{SinkConnector, SourceConnector};

/// The entry in the registry of sources.
pub const SOURCE: SourceConnector =
    SourceConnector { name: "kafka", create: source::create, metadata: true, replays: true };

/// The entry in the registry of sinks.
pub const SINK: SinkConnector = SinkConnector {
    name: "kafka",
    mode: sink::mode,
    create: sink::create,
    keep: Some(carrier::keep),
    formats: true,
};
