//! Connectors: where rows come from and go to. A connector moves bytes and positions; what the
//! bytes mean is a format's business, what the rows mean an operator's.
//!
//! Connectors are found by name in [`SOURCES`] and [`SINKS`]; adding one is one file and one line.

mod again;
pub mod blackhole;
mod carrier;
mod computed;
pub mod datagen;
mod delivery;
pub mod file;
pub mod kafka;
mod key;
pub mod memory;
pub mod nexmark;
mod options;
mod pace;
mod postgres;
mod stdout;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;

pub use again::Again;
pub use carrier::{Account, Carrier, Guarantee, KeptSink, Load, MakeCarrier, SinkId, Watch};
pub use computed::{computing, without_computed};
pub use delivery::{Delivery, Failure, Receiver, Refused, Sink};
use key::sink_key;
pub use options::Options;

use crate::error::{Error, Result};
use crate::format::FormatSpec;

/// A part of a source with an order of its own: a Kafka partition, a file. Numbers are stable for
/// the life of the source.
pub type SplitId = u32;

/// The position of the next message of a split: a Kafka offset, a byte of a file, an event number.
pub type Position = i64;

/// The next position of every split.
pub type Positions = BTreeMap<SplitId, Position>;

/// What the DDL says of a source or sink.
#[derive(Debug, Clone)]
pub struct ConnectorSpec {
    /// The name of the relation, for messages.
    pub relation: String,
    /// The value of `connector`, lower case.
    pub connector: String,
    /// The other options of the WITH clause, as written.
    pub options: BTreeMap<String, String>,
    /// All columns of the relation.
    pub schema: SchemaRef,
    /// Indexes of the primary key columns; empty without one.
    pub key: Vec<usize>,
    /// The FORMAT .. ENCODE .. clause.
    pub format: FormatSpec,
    /// INCLUDE columns, which are the last of `schema`.
    pub include: Vec<Included>,
}

impl ConnectorSpec {
    /// The number of columns that are read from messages: the first of `schema`.
    pub fn message_columns(&self) -> usize {
        self.schema.fields().len().saturating_sub(self.include.len())
    }
}

/// A column that holds something about a message instead of something in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Included {
    /// Its index in the schema.
    pub column: usize,
    /// What it holds.
    pub what: Metadata,
}

/// What is known of a message beside its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata {
    /// The partition, an `integer`.
    Partition,
    /// The offset, a `bigint`.
    Offset,
    /// The message's time, a `timestamptz`.
    Timestamp,
    /// The key, a `bytea` or `text`.
    Key,
    /// The last header of a name, a `bytea` or `text`.
    Header(String),
}

/// A source as the catalog knows it: cheap to keep, can open any number of readers.
///
/// Contract: (1) `start` is asked once, at CREATE, and recorded: every reader of the source begins
/// there or later; (2) two readers with the same start and columns deliver the same rows per split
/// in the same order; (3) a bounded source ends.
pub trait Source: Send + Sync {
    /// The splits and their first positions, by the startup options. Talks to the external system;
    /// an error here is retried by the caller when it is retriable.
    fn start(&self) -> Result<Positions>;

    /// Opens a reader of all splits in `from`, which decodes only `columns` (indexes into the
    /// schema, ascending). With `until`, a split ends when its position has reached that bound.
    fn reader(
        &self,
        from: &Positions,
        until: Option<&Positions>,
        columns: &[usize],
    ) -> Result<Box<dyn SplitReader>>;

    /// The first positions that can still be read, or those behind the last rows, where the system
    /// knows such places. Talks to it.
    fn edge(&self, _edge: Edge) -> Result<Option<Positions>> {
        Ok(None)
    }

    /// Where a reader goes on that wants `from` next, of what was known by `identity` when that was
    /// said. Talks to the external system. Where that is gone, options of the source say whether it
    /// is an error.
    fn go_on(&self, from: &Positions, _identity: Option<&str>) -> Result<Continuation> {
        Ok(Continuation { from: from.clone(), identity: None, moved: None })
    }

    /// Whether the source ends by itself (a file), so that its watermark becomes plus infinity.
    fn is_bounded(&self) -> bool;

    /// Decodes messages of a split again that were rejected, into all columns. Of changelogs
    /// without keys alone, where the order of messages does not matter.
    fn decode_again(&self, _split: SplitId, _messages: &[Rejected]) -> Result<Again> {
        Err(Error::unsupported("the messages of this connector are not decoded again"))
    }
}

/// A place that a source has by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// The first rows that are there.
    Earliest,
    /// Behind the last ones.
    Latest,
}

/// Where a source goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// The next positions.
    pub from: Positions,
    /// By what the system knows what is read, where it does: another thing of the same name has
    /// other rows at the same positions.
    pub identity: Option<String>,
    /// Why it is not where it should go on.
    pub moved: Option<String>,
}

/// Reads the splits that it was opened for; lives on a thread of its own and may block.
pub trait SplitReader: Send {
    /// Waits up to `timeout` for something and returns it, at most `max_rows` rows. Connection
    /// troubles are reported as [`Read::Unavailable`] and mended by calling again; an `Err` ends
    /// the reader.
    fn read(&mut self, max_rows: usize, timeout: Duration) -> Result<Read>;

    /// The positions where the splits end by now, where the system tells; asked while nobody reads.
    fn ends(&mut self) -> Option<Positions> {
        None
    }

    /// Tells the external system how far rows have come that nobody will ask for again, where it
    /// has people who look there. Nothing hangs on it, so it neither waits nor fails.
    fn tell(&mut self, _next: &Positions) {}
}

/// What a call of [`SplitReader::read`] brings.
#[derive(Debug)]
pub enum Read {
    /// Rows or rejected messages of one split.
    Batch(SourceBatch),
    /// Nothing arrived in time.
    Idle,
    /// The external system can't be reached; the text says why. The reader goes on trying.
    Unavailable(String),
    /// Every split has ended.
    End,
}

/// Decoded messages of one split.
#[derive(Debug)]
pub struct SourceBatch {
    /// The split that they are from.
    pub split: SplitId,
    /// The decoded rows: the wanted columns in schema order.
    pub rows: RecordBatch,
    /// FORMAT UPSERT and DEBEZIUM: true where the row deletes its key (other columns are NULL).
    /// `None` means that there is no deletion.
    pub deletes: Option<BooleanArray>,
    /// Messages that could not be decoded.
    pub rejected: Vec<Rejected>,
    /// The position after the last message of the batch.
    pub next: Position,
    /// Messages known to wait behind `next`, where the system tells.
    pub lag: Option<u64>,
}

/// A message that did not become a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its position in its split.
    pub position: Position,
    /// Its bytes, as they came; it may have no value.
    pub payload: Option<Vec<u8>>,
    /// Its key's bytes, where it has one.
    pub key: Option<Vec<u8>>,
    /// The column, where it is known.
    pub column: Option<String>,
    /// Why.
    pub reason: String,
}

/// What a sink can take; checked against the view at CREATE SINK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkMode {
    /// Inserts alone; a view that retracts is refused.
    AppendOnly,
    /// The latest row of a key, and deletions of keys; columns are indexes into the schema.
    Upsert {
        /// The key columns.
        key: Vec<usize>,
    },
    /// Any change, with its weight.
    Changelog,
}

/// One entry of the registry of sources.
pub struct SourceConnector {
    /// The value of the `connector` option.
    pub name: &'static str,
    /// Checks the options and makes the source; does not talk to the external system.
    pub create: fn(&ConnectorSpec) -> Result<Arc<dyn Source>>,
    /// Whether its messages have what INCLUDE asks for.
    pub metadata: bool,
    /// Whether a second reader can begin at the start again, as CREATE SOURCE needs.
    pub replays: bool,
}

/// One entry of the registry of sinks.
pub struct SinkConnector {
    /// The value of the `connector` option.
    pub name: &'static str,
    /// What the sink will take, by its options.
    pub mode: fn(&ConnectorSpec) -> Result<SinkMode>,
    /// Makes the sink.
    pub create: fn(&ConnectorSpec) -> Result<Box<dyn Sink>>,
    /// Makes one whose messages are kept in a data directory until they have arrived, by the
    /// guarantee that is asked for, or the best that it can give; `None`: it delivers from memory.
    pub keep: Option<Keep>,
    /// Whether a FORMAT .. ENCODE .. says what its messages are.
    pub formats: bool,
}

/// How a connector makes a sink whose messages are kept; `None` where its receiver is of a kind for
/// which that makes no sense.
pub type Keep = fn(&ConnectorSpec, SinkId, Option<Guarantee>) -> Result<Option<KeptSink>>;

/// A column that is computed from those that are read.
#[derive(Debug, Clone)]
pub struct ComputedColumn {
    /// Its index in the schema.
    pub column: usize,
    /// Its value, over columns that are qualified by the name of the relation.
    pub expr: Expr,
}

/// Every source connector, sorted by name.
pub const SOURCES: &[SourceConnector] = &[
    datagen::SOURCE,
    file::SOURCE,
    kafka::SOURCE,
    memory::SOURCE,
    nexmark::SOURCE,
    file::stdin::STDIN,
];

/// Every sink connector, sorted by name.
pub const SINKS: &[SinkConnector] =
    &[blackhole::SINK, file::SINK, kafka::SINK, postgres::SINK, stdout::SINK];
