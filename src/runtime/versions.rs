//! Old row versions: what nobody can read any more is given back by the workers, and readers that
//! hold back too much are cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::coordinator::Coordinator;
use super::shared::{RelationState, RelationStatus};
use crate::catalog::RelationId;
use crate::config::{Config, OLD_VERSIONS_INTERVAL, VACUUM_ROWS};
use crate::state::ResultTable;
use crate::time::Epoch;

/// What those who read may hold.
pub(super) struct ReaderLimits {
    /// Changes that wait for one subscriber.
    pub(super) subscriber_bytes: usize,
    /// Row versions that readers hold back.
    pub(super) old_versions_bytes: usize,
    /// When the latter was measured.
    measured: Option<Instant>,
}

impl ReaderLimits {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            subscriber_bytes: config.subscriber_queue_bytes,
            old_versions_bytes: config.old_versions_bytes,
            measured: None,
        }
    }
}

impl Coordinator {
    /// Has the workers give back row versions that nobody can read. What has failed is read as it
    /// was.
    pub(super) fn vacuum(&mut self, oldest: Epoch, of: &BTreeSet<RelationId>) {
        let relations = self.shared.relations();
        let read_at = self.read_in_flight();
        let tables = of.iter().filter_map(|id| relations.get(id));
        let tables = tables.filter(|r| !matches!(r.status(), RelationStatus::Quarantined(..)));
        let tables = tables.filter_map(|r| {
            let oldest = read_at.get(&r.id).map_or(oldest, |epoch| oldest.min(*epoch));
            Some((r.table.clone()?, oldest))
        });
        let tables: Vec<_> = tables.collect();
        if !tables.is_empty() {
            let tables = Arc::new(tables);
            self.team.tell(move |worker| worker.vacuum(&tables));
        }
    }

    /// The oldest epochs at which steps in flight read what they change: joins read the rows that
    /// are stored as of the epoch before.
    fn read_in_flight(&self) -> BTreeMap<RelationId, Epoch> {
        let mut read_at = BTreeMap::new();
        for flight in &self.flights {
            let before = Epoch(flight.epoch.0.saturating_sub(1));
            for id in self.owners_of(&flight.active) {
                let at = read_at.entry(id).or_insert(before);
                *at = before.min(*at);
            }
        }
        read_at
    }

    /// Lets go the oldest epochs that readers hold while row versions that they hold back are too
    /// many.
    pub(super) fn cut_off_readers(&mut self, newest: Epoch) {
        let now = Instant::now();
        let measured = self.readers.measured;
        if measured.is_some_and(|at| now.duration_since(at) < OLD_VERSIONS_INTERVAL) {
            return;
        }
        self.readers.measured = Some(now);
        let relations = self.shared.relations();
        let moving = self.read_in_flight();
        let still = |r: &&Arc<RelationState>| !moving.contains_key(&r.id);
        let tables = || relations.values().filter(still).filter_map(|r| r.table.as_ref());
        let held = || tables().map(|table| table.ended_bytes()).sum::<usize>();
        while held() > self.readers.old_versions_bytes {
            let Some(oldest) = self.shared.cut_off_oldest(newest) else { return };
            tracing::warn!(%oldest, "readers of an old epoch were cut off");
            for table in tables() {
                (0..table.shards()).for_each(|shard| vacuum(table, shard, oldest));
            }
        }
    }
}

/// Gives back row versions of a part of a table that nobody can read, in pieces between which it
/// can be read.
pub(super) fn vacuum(table: &ResultTable, shard: usize, oldest: Epoch) {
    loop {
        match table.write(shard).vacuum(oldest, VACUUM_ROWS) {
            Ok(VACUUM_ROWS..) => {}
            Ok(_) => return,
            // They are seen by nobody, and stay.
            Err(error) => {
                tracing::error!(%error, "old row versions could not be given back");
                return;
            }
        }
    }
}
