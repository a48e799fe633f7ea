//! A summary of the engine at one moment, for status lines.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Engine;
use crate::runtime::{RelationState, RelationStatus};
use crate::time::{Epoch, Watermark};

/// The engine at a glance.
#[derive(Debug, Clone)]
pub struct EngineStatus {
    /// The published epoch.
    pub epoch: Epoch,
    /// Rows taken from all inputs since the start.
    pub rows_in_total: u64,
    /// Time from the cut of epochs until they were published, of all since the start: how long
    /// rows have waited for answers with them.
    pub epoch_time: Duration,
    /// Every relation, in order of creation.
    pub relations: Vec<RelationStatusLine>,
}

/// One relation at a glance.
#[derive(Debug, Clone)]
pub struct RelationStatusLine {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: &'static str,
    /// `running`, `building`, `quarantined`, `rebuilding`.
    pub state: &'static str,
    /// Why it stands still, where it does.
    pub why: Option<String>,
    /// Rows that it holds.
    pub rows_total: u64,
    /// The least of its watermarks.
    pub watermark: Option<Watermark>,
    /// When an epoch last changed it.
    pub updated_at: Option<Instant>,
}

impl Engine {
    /// The engine at a glance.
    pub fn status(&self) -> EngineStatus {
        let shared = &self.core.shared;
        let pin = shared.pin();
        let line = |relation: &std::sync::Arc<crate::catalog::Relation>| {
            let state = pin.relations.get(&relation.id)?;
            let (watermark, updated_at) = state.pulse();
            Some(RelationStatusLine {
                name: relation.name.clone(),
                kind: relation.kind.noun(),
                rows_total: state.table.as_ref().map_or(0, |t| t.live_rows()),
                state: state_word(state),
                why: match state.status() {
                    RelationStatus::Quarantined(_, error) => Some(error.to_string()),
                    _ => None,
                },
                watermark,
                updated_at,
            })
        };
        EngineStatus {
            epoch: pin.epoch,
            rows_in_total: shared.rows_in.load(Ordering::Relaxed),
            epoch_time: shared.epoch_time(),
            relations: pin.catalog.relations().filter_map(line).collect(),
        }
    }
}

impl Engine {
    /// Every relation with the names of its columns, in order of creation.
    pub fn columns(&self) -> Vec<(String, Vec<String>)> {
        let catalog = self.core.shared.catalog();
        let columns = |relation: &std::sync::Arc<crate::catalog::Relation>| {
            relation.schema.fields().iter().map(|field| field.name().clone()).collect()
        };
        catalog.relations().map(|r| (r.name.clone(), columns(r))).collect()
    }
}

/// The word for a relation's status.
pub(super) fn state_word(state: &RelationState) -> &'static str {
    match state.status() {
        RelationStatus::Building => "building",
        RelationStatus::Running => "running",
        RelationStatus::Quarantined(..) => "quarantined",
        RelationStatus::Rebuilding(..) => "rebuilding",
    }
}
