//! What an engine is doing at one moment, in figures: what `/metrics` shows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Engine;
use super::status::EngineStatus;
use crate::catalog::RelationKind;
use crate::checkpoint::Made;
use crate::error::Result;
use crate::runtime::{Holder, NodeActivity, SinkState, SourceState};
use crate::store::Requests;

/// The figures.
#[derive(Debug)]
pub struct Figures {
    /// The relations at a glance.
    pub status: EngineStatus,
    /// Microseconds since 1970 by the engine's clock.
    pub now_us: i64,
    /// The operators of each relation, from its inputs to its output.
    pub operators: Vec<(String, NodeActivity)>,
    /// The connectors that bring rows, by relation.
    pub sources: Vec<(String, SourceState)>,
    /// Sinks by name.
    pub sinks: Vec<(String, SinkState)>,
    /// Who holds memory, reads included.
    pub memory: Vec<Holder>,
    /// Bytes that may be held in all.
    pub memory_limit: usize,
    /// The newest checkpoint, with a data directory.
    pub checkpoint: Option<Made>,
    /// How often the next checkpoint has failed, 0 while it has not.
    pub checkpoint_failures: u64,
    /// Why, where it has.
    pub checkpoint_error: Option<String>,
    /// What was asked of the object store that the data directory is in.
    pub object_store: Option<Arc<Requests>>,
}

impl Figures {
    /// Bytes that are held, by kind.
    pub fn memory_by_kind(&self) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        for holder in &self.memory {
            *kinds.entry(holder.kind).or_default() += holder.bytes;
        }
        kinds
    }
}

impl Engine {
    /// Whether the state of an earlier life is still being loaded.
    pub fn is_recovering(&self) -> bool {
        !self.core.recovering.is_over()
    }

    /// What it is doing now.
    pub async fn figures(&self) -> Result<Figures> {
        let core = &self.core;
        let status = self.status();
        let catalog = core.shared.catalog();
        let read = catalog.relations().filter(|r| r.connector.is_some());
        let (sinks, sources): (Vec<_>, Vec<_>) =
            read.map(|r| (r.id, r.name.clone(), r.kind)).partition(|r| r.2 == RelationKind::Sink);
        let seen = core.coordinator.call(move |c| {
            let operators = c.activities(|_| true);
            let sources: Vec<_> = sources
                .into_iter()
                .map(|(id, name, _)| (name, c.source_state(id).unwrap_or_default()))
                .collect();
            let sinks: Vec<_> = sinks
                .into_iter()
                .map(|(id, name, _)| (name, c.sink_state(id).unwrap_or_default()))
                .collect();
            (operators, sources, sinks, c.memory_holders(), c.checkpoints())
        });
        let (operators, sources, sinks, mut memory, history) = seen.await?;
        let name = |id| catalog.by_id(id).map(|r| r.name.clone());
        let operators = operators.into_iter();
        let operators = operators.filter_map(|(id, activity)| Some((name(id)?, activity)));
        let (made, failure) = history.map(|history| history.shown()).unwrap_or_default();
        let bytes = core.memory.used();
        memory.push(Holder { bytes, out: 0, kind: "reads", name: String::new() });
        Ok(Figures {
            status,
            now_us: core.shared.clock.now_us(),
            operators: operators.collect(),
            sources,
            sinks,
            memory,
            memory_limit: core.memory.whole_limit(),
            checkpoint: made.last().cloned(),
            checkpoint_error: failure.as_ref().map(|failure| failure.error.to_string()),
            object_store: core.kept.as_ref().and_then(|kept| kept.disk.requests()),
            checkpoint_failures: failure.map_or(0, |failure| failure.tries),
        })
    }
}
