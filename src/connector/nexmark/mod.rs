//! The `nexmark` connector: the auction site of the Nexmark benchmark, made on the fly.
//!
//! | option | meaning |
//! |---|---|
//! | `nexmark.table` (or `nexmark.table.type`) | `person`, `auction`, `bid`; else all events |
//! | `nexmark.event.num` | events of all tables until the end; -1 (default): no end |
//! | `nexmark.event.rate` | events of all tables a second; 0 (default): as fast as possible |
//! | `nexmark.min.event.gap.in.ns` | the same as a pause between two events |
//!
//! Columns are found by name, in any case, among the fields of the table (Flink's names:
//! `dateTime`, `itemName`, ...) and must be `bigint`, `text` or `timestamp` as the field is. Those
//! of all events are `event_type` (0, 1, 2) and `person`, `auction` and `bid`, of type `ROW<..>` or
//! `jsonb`. `nexmark.split.num` is taken and has no effect.
//!
//! One split; its position is the number of an event among those of all tables, of which 1 in 50 is
//! a person, 3 are auctions and 46 are bids. Event n happens n * 100 us after 2024-01-01 00:00:00.

mod event;
mod generator;
mod source;
mod table;

pub use generator::{Batches, Events, batches, events, write_json_line};
pub use table::Table;

use super::SourceConnector;

/// The entry in the registry of sources.
pub const SOURCE: SourceConnector =
    SourceConnector { name: "nexmark", create: source::create, metadata: false, replays: true };
