//! Repairs of a source: messages that were rejected and have been decoded again become rows, and
//! leave its `$errors` in the same epoch; what is read again leaves it ahead of that; its format is
//! another one from here on.

use std::ops::ControlFlow;

use arrow::array::{Int64Array, RecordBatch};
use tokio::sync::oneshot;

use super::coordinator::{Coordinator, RunningSource};
use super::definitions::relaxed;
use super::rejects::{Kept, Retried};
use super::shared::RelationStatus;
use super::source_task::{FeedKind, SourceFeed};
use super::steps::Inputs;
use crate::catalog::{Relation, RelationId};
use crate::delta::{DeltaBatch, batch_of};
use crate::error::{Error, Result, sqlstate};

/// What a repair sends: no task has read it.
pub(super) fn repair(relation: RelationId, kind: FeedKind) -> SourceFeed {
    SourceFeed { relation, task: 0, kind }
}

impl Coordinator {
    /// The rejected messages that are kept of a source; its reason when rows can't come into it.
    pub fn rejects_of(&self, id: RelationId) -> Result<Vec<Kept>> {
        let running = self.sources.get(&id).ok_or_else(dropped)?;
        self.check_repairable(id, running.errors)?;
        Ok(running.rejects.kept())
    }

    /// Takes messages that were decoded again with the next epochs; `done` is told how many have
    /// become rows, and how many have not, before they are visible.
    pub fn retried(
        &mut self,
        id: RelationId,
        retried: Vec<Retried>,
        done: oneshot::Sender<Result<(usize, usize)>>,
    ) {
        self.feeds.push_back(repair(id, FeedKind::Retried(retried, done)));
    }

    /// Reads a source in another format from where it stands.
    pub fn reformat_source(
        &mut self,
        id: RelationId,
        source: std::sync::Arc<dyn crate::connector::Source>,
        relation: &Relation,
    ) -> Result<()> {
        let running = self.sources.get_mut(&id).ok_or_else(dropped)?;
        running.source = source;
        let (definition, connector) = (relation.definition.clone(), relation.connector.clone());
        self.shared.change(|catalog, _| catalog.reconnect(id, definition, connector));
        match self.resume_source(id, None) {
            true => Ok(()),
            false => Err(dropped()),
        }
    }

    /// Whether rejected messages have been kept for long enough, and can go now.
    pub(super) fn has_old_rejects(&self) -> bool {
        let now = self.shared.clock.now_us();
        let due = |running: &RunningSource| running.rejects.is_due(now);
        self.sources.values().any(|running| due(running) && self.input_is_free(running.errors))
    }

    /// Lets rejected messages go that were kept for long enough.
    pub(super) fn expire_rejects(&mut self, inputs: &mut Inputs) {
        let now = self.shared.clock.now_us();
        let due = self.sources.values().filter(|source| source.rejects.is_due(now));
        let due: Vec<RelationId> = due.map(|source| source.errors).collect();
        for errors in due.into_iter().filter(|id| self.input_is_free(*id)).collect::<Vec<_>>() {
            let source = self.sources.values_mut().find(|source| source.errors == errors);
            let changes = source.map(|source| source.rejects.expire(now)).unwrap_or_default();
            changes.into_iter().for_each(|change| self.enter(errors, (change, None), now, inputs));
        }
    }

    fn check_repairable(&self, id: RelationId, errors: RelationId) -> Result<()> {
        let relations = self.shared.relations();
        for id in [id, errors] {
            let status = relations.get(&id).ok_or_else(dropped)?.status();
            if let RelationStatus::Quarantined(_, error) = status {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes a repair, and breaks with the rows that it has brought; goes on with what is none.
    pub(super) fn take_repair(
        &mut self,
        feed: SourceFeed,
        inputs: &mut Inputs,
    ) -> ControlFlow<usize, SourceFeed> {
        let id = feed.relation;
        match feed.kind {
            FeedKind::Retried(retried, done) => {
                let taken = self.take_retried(id, retried, inputs);
                let rows = taken.as_ref().map_or(0, |(rows, _)| *rows);
                // Whoever asked may be gone.
                let _ = done.send(taken);
                ControlFlow::Break(rows + 1)
            }
            FeedKind::Forgotten(changes) => {
                let now = self.shared.clock.now_us();
                if let Some(errors) = self.sources.get(&id).map(|running| running.errors) {
                    changes.into_iter().for_each(|c| self.enter(errors, (c, None), now, inputs));
                }
                ControlFlow::Break(1)
            }
            kind => ControlFlow::Continue(SourceFeed { kind, ..feed }),
        }
    }

    fn take_retried(
        &mut self,
        id: RelationId,
        retried: Vec<Retried>,
        inputs: &mut Inputs,
    ) -> Result<(usize, usize)> {
        let running = self.sources.get(&id).ok_or_else(dropped)?;
        let errors = running.errors;
        self.check_repairable(id, errors)?;
        let now = self.shared.clock.now_us();
        let (mut decoded, mut left) = (0, 0);
        for some in retried {
            let Some(running) = self.sources.get_mut(&id) else { break };
            let (changes, rows) = running.rejects.retried(some)?;
            decoded += rows.num_rows();
            left += changes.last().map_or(0, DeltaBatch::len);
            changes.into_iter().for_each(|change| self.enter(errors, (change, None), now, inputs));
            self.enter_late(id, &rows, inputs)?;
        }
        Ok((decoded, left))
    }

    /// Rows that come out of their turn: nothing of them came before the merged watermark, and they
    /// move none.
    fn enter_late(
        &mut self,
        id: RelationId,
        rows: &RecordBatch,
        inputs: &mut Inputs,
    ) -> Result<()> {
        let Some(route) = self.inputs.get_mut(&id) else { return Ok(()) };
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let (schema, count) = (relaxed(&rows.schema()), rows.num_rows());
        let rows = DeltaBatch::inserts(batch_of(schema, rows.columns().to_vec(), count)?);
        let arrivals = || Int64Array::from_value(i64::MIN, count);
        let arrivals = route.watermark.as_ref().map(|_| arrivals());
        let rows = route.admit(rows.with_arrivals(arrivals));
        let node = route.node;
        let routed = route.route((rows, None), inputs, self.cutter.as_mut());
        self.shared.count_rows_in(count);
        if let Err(error) = routed {
            // Without these rows everything behind it would be wrong.
            self.quarantine(node, &error, self.epoch.next());
        }
        Ok(())
    }
}

fn dropped() -> Error {
    Error::user(sqlstate::UNDEFINED_TABLE, "the table was dropped meanwhile")
}
