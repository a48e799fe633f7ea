//! What the coordinator alone knows and the next life needs: where sources and splits stand,
//! clocks, and what is quarantined. All else that has to survive is in state tables, or follows
//! from both.
//!
//! It is taken out and put back as one piece of plain data: a field of the coordinator that is not
//! in it starts anew.

use std::collections::BTreeMap;

use super::coordinator::Coordinator;
use super::rejects::RejectMark;
use super::shared::{RelationStatus, lock};
use super::worker::{Image, TableChanges};
use crate::catalog::RelationId;
use crate::connector::{Positions, SplitId};
use crate::error::{Error, Result};
use crate::time::{Epoch, Lateness, Watermark};

/// What has to survive beside definitions and state tables.
#[derive(Debug, Clone, Default)]
pub struct EngineState {
    /// The last epoch.
    pub epoch: Epoch,
    /// Its clock, in microseconds.
    pub now_us: i64,
    /// Sources that are read.
    pub sources: BTreeMap<RelationId, SourceProgress>,
    /// What rows come into.
    pub inputs: BTreeMap<RelationId, InputProgress>,
    /// Relations whose dataflow has failed: the epoch whose answer they keep, and why.
    pub quarantined: BTreeMap<RelationId, (Epoch, Error)>,
}

/// Where a source stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceProgress {
    /// Where every reader of it begins.
    pub start: Option<Positions>,
    /// The next position that the engine has not taken.
    pub taken: Positions,
    /// What these are positions of, where the system tells.
    pub identity: Option<String>,
    /// Messages that could not be decoded; the newest are in its `$errors`.
    pub rejected: u64,
    /// When those came.
    pub rejected_at: Vec<RejectMark>,
    /// It is bounded, and all of it has been taken.
    pub ended: bool,
}

/// Where an input stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InputProgress {
    /// Its splits.
    pub splits: BTreeMap<SplitId, SplitProgress>,
    /// The watermark of all of them together.
    pub merged: Watermark,
    /// Batches that have gone to workers in turn.
    pub batches: usize,
    /// How far the rows of all of them were behind.
    pub lateness: Lateness,
}

/// Where a split stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitProgress {
    /// Its watermark.
    pub watermark: Watermark,
    /// The time on the clock of its last row, or of its beginning.
    pub since: i64,
    /// Silent for so long that it is not waited for.
    pub idle: bool,
}

/// What a checkpoint is made of: everything between two epochs, as what has changed since the cut
/// before.
#[derive(Debug)]
pub struct Cut {
    /// What is no table.
    pub state: EngineState,
    /// What tables have logged, by worker.
    pub changes: Vec<Vec<TableChanges>>,
}

impl Coordinator {
    /// Begins or ends logging what changes of state tables. What they hold already is not in the
    /// log: the first cut of tables that are not empty needs an image of them.
    pub fn set_capture(&mut self, on: bool) {
        self.team.set_capture(on);
    }

    /// Takes what has changed since the last cut, while no step is in flight. What a failed epoch
    /// has changed is left out; what is being built keeps its log until it is complete.
    pub fn cut(&mut self) -> Cut {
        let state = self.state();
        let nodes = |(id, (last, _)): (&RelationId, &(Epoch, Error))| {
            let last = *last;
            self.graph.nodes_of(*id).into_iter().map(move |node| (node, last))
        };
        let failed = state.quarantined.iter().flat_map(nodes).collect();
        let built = self.built_nodes();
        Cut { state, changes: self.team.take_changes(&failed, &built) }
    }

    /// Everything that state tables hold, by worker, while no step is in flight.
    pub fn image(&mut self) -> Result<Vec<Image>> {
        self.team.snapshot()
    }

    /// What has to survive, between two epochs.
    pub fn state(&self) -> EngineState {
        let source = |running: &super::coordinator::RunningSource| SourceProgress {
            start: running.start.clone(),
            taken: running.taken.clone(),
            identity: running.identity.clone(),
            rejected: lock(&running.state).rejected,
            rejected_at: running.rejects.marks(),
            ended: running.ended,
        };
        let relations = self.shared.relations();
        let failed = relations.values().filter_map(|relation| match relation.status() {
            RelationStatus::Quarantined(epoch, error) => Some((relation.id, (epoch, error))),
            _ => None,
        });
        EngineState {
            epoch: self.epoch,
            now_us: self.now_us,
            sources: self.sources.iter().map(|(id, running)| (*id, source(running))).collect(),
            inputs: self.inputs.iter().map(|(id, route)| (*id, route.progress())).collect(),
            quarantined: failed.collect(),
        }
    }

    /// Puts back what has survived, between two epochs, when state tables have what they held: they
    /// tell the newest rejected messages.
    pub fn put_state(&mut self, state: EngineState) -> Result<()> {
        (self.epoch, self.now_us) = (state.epoch, state.now_us);
        let relations = self.shared.relations();
        for (id, running) in &mut self.sources {
            let of = state.sources.get(id);
            let of =
                of.ok_or_else(|| Error::corrupted(format!("nothing is known of source {id}")))?;
            running.start.clone_from(&of.start);
            running.taken.clone_from(&of.taken);
            running.identity.clone_from(&of.identity);
            running.ended = of.ended;
            {
                let mut shown = lock(&running.state);
                shown.rejected = of.rejected;
                shown.positions.clone_from(&of.taken);
            }
            let table = relations.get(&running.errors).and_then(|r| r.table.as_ref());
            running.rejects.forget();
            if let Some(table) = table {
                let (marks, now) = (of.rejected_at.clone(), self.shared.clock.now_us());
                running.rejects.take_from(table, self.epoch, marks, now)?;
            }
        }
        for (id, route) in &mut self.inputs {
            let of = state.inputs.get(id);
            let of =
                of.ok_or_else(|| Error::corrupted(format!("nothing is known of input {id}")))?;
            route.put_progress(of.clone());
        }
        for (id, (epoch, error)) in state.quarantined {
            let relation = relations.get(&id);
            let relation = relation
                .ok_or_else(|| Error::corrupted(format!("no relation {id} can be quarantined")))?;
            // Its rows are as of the epoch at which they were read back.
            let epoch = epoch.max(self.epoch);
            lock(&relation.progress).status = RelationStatus::Quarantined(epoch, error);
        }
        // Every other watermark follows from those of the inputs.
        let merged = self.inputs.values().filter_map(|r| r.merged().map(|(c, w)| (r.node, c, w)));
        self.watermarks = merged.collect();
        self.wake.extend(self.watermarks.iter().map(|(node, ..)| *node));
        Ok(())
    }

    /// Forgets what [`Self::put_state`] puts back.
    pub(super) fn forget_state(&mut self) {
        (self.epoch, self.now_us) = (Epoch::ZERO, i64::MIN);
        for running in self.sources.values_mut() {
            (running.start, running.ended) = (None, false);
            (running.taken, running.identity) = (Positions::new(), None);
            running.rejects.forget();
            let mut shown = lock(&running.state);
            (shown.rejected, shown.positions) = (0, Positions::new());
        }
        self.inputs.values_mut().for_each(|route| route.put_progress(InputProgress::default()));
        for relation in self.shared.relations().values() {
            let mut progress = lock(&relation.progress);
            if matches!(progress.status, RelationStatus::Quarantined(..)) {
                progress.status = RelationStatus::Running;
            }
        }
    }
}
