//! What has happened and what was measured, as relations of the schema `headwater`: `events` and
//! `metrics`. They have rows in a server; who keeps them is the engine.

use serde::{Deserialize, Serialize};

use super::{Cell, Facts, Rows, SystemTable, cells};

pub(super) const TABLES: &[SystemTable] = &[
    SystemTable {
        schema: "headwater",
        name: "events",
        columns: "id:i at:z severity:t kind:t object:t message:t",
        rows: events,
    },
    SystemTable {
        schema: "headwater",
        name: "metrics",
        columns: "at:z name:t object:t value:d",
        rows: metrics,
    },
];

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// Grows with each event, over restarts where they are kept.
    pub id: i64,
    /// When, in microseconds since 1970 by the clock on the wall.
    pub at_us: i64,
    /// `info`, `warning`, `error`.
    pub severity: String,
    /// What it is about: `server`, `definition`, `relation`, `source`, `sink`, `checkpoint`,
    /// `login`, `statement`.
    pub kind: String,
    /// The name of what it has happened to.
    pub object: String,
    /// What has happened.
    pub message: String,
}

/// A figure of a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricLine {
    /// When, in microseconds since 1970 by the clock on the wall.
    pub at_us: i64,
    /// Its name, as Prometheus is told.
    pub name: &'static str,
    /// The relation, source, sink or kind of memory; empty for the whole engine.
    pub object: String,
    /// The figure.
    pub value: f64,
}

/// What is kept of the past.
pub trait Past {
    /// Events, the oldest first.
    fn events(&self) -> Vec<EventLine>;
    /// Figures, the oldest first.
    fn metrics(&self) -> Vec<MetricLine>;
}

fn events(facts: &Facts<'_>) -> Rows {
    let row =
        |e: EventLine| cells![e.id, Cell::Time(e.at_us), e.severity, e.kind, e.object, e.message];
    facts.past.events().into_iter().map(row).collect()
}

fn metrics(facts: &Facts<'_>) -> Rows {
    let row = |m: MetricLine| cells![Cell::Time(m.at_us), m.name, m.object, Cell::Double(m.value)];
    facts.past.metrics().into_iter().map(row).collect()
}
