//! Builds: views on their way from an empty table to their place in every epoch.
//!
//! A new view pins its inputs at one epoch; its imports hold back the deltas of later epochs while
//! slices of the pinned rows are fed between two epochs (for a source without stored rows: while a
//! reader of its own replays the source up to the positions of that epoch). When everything has
//! been fed, one epoch lets go what was held back, and with it the view is published.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use super::coordinator::Coordinator;
use super::graph::NodeId;
use super::shared::{Pin, RelationStatus, lock};
use super::source_task::{FeedKind, SourceFeed, SourceTask};
use crate::catalog::RelationId;
use crate::delta::DeltaBatch;
use crate::error::{Error, Result};
use crate::time::Epoch;

/// A view that is being built.
pub struct Build {
    /// Everything that belongs to it: the view and its `$errors`.
    members: Vec<RelationId>,
    imports: BTreeMap<NodeId, Feeding>,
    pin: Pin,
    /// The epoch that attaches it has been handed out.
    attaching: bool,
    done: Option<oneshot::Sender<Result<()>>>,
    /// Why it can't go on.
    failed: Option<Error>,
}

/// Where an import's old rows come from.
pub(super) enum Feeding {
    /// From stored rows; the workers that still have some.
    Stored(BTreeSet<usize>),
    /// From a replay of the source.
    Replay(SourceTask),
    /// Nothing is missing.
    Complete,
}

impl Build {
    pub(super) fn new(
        members: Vec<RelationId>,
        imports: BTreeMap<NodeId, Feeding>,
        pin: Pin,
        done: oneshot::Sender<Result<()>>,
    ) -> Self {
        Self { members, imports, pin, attaching: false, done: Some(done), failed: None }
    }

    fn is_fed(&self) -> bool {
        self.imports.values().all(|f| matches!(f, Feeding::Complete))
    }

    /// Whether an epoch would bring it forward.
    pub(super) fn has_work(&self) -> bool {
        self.is_fed() || self.imports.values().any(|f| matches!(f, Feeding::Stored(_)))
    }

    pub(super) fn replays(&self, task: u64) -> bool {
        self.imports.values().any(|f| matches!(f, Feeding::Replay(t) if t.number == task))
    }

    /// Takes a batch of a replay; returns the rows taken.
    pub(super) fn take_replay(
        &mut self,
        feed: SourceFeed,
        inputs: &mut [Vec<(NodeId, DeltaBatch)>],
    ) -> usize {
        let task = feed.task;
        for (node, feeding) in &mut self.imports {
            let Feeding::Replay(replay) = feeding else { continue };
            if replay.number != task {
                continue;
            }
            replay.give_back();
            match feed.kind {
                FeedKind::End => *feeding = Feeding::Complete,
                FeedKind::Failed(error) => self.failed = Some(error),
                FeedKind::Rows { rows, next, .. } => {
                    // The messages that can't be decoded are in `$errors` since they were first
                    // read.
                    let count = rows.len();
                    if count > 0 {
                        let workers = inputs.len();
                        inputs[next as usize % workers].push((*node, rows));
                    }
                    return count + 1;
                }
            }
            return 1;
        }
        0
    }

    /// A worker has fed all stored rows of some imports.
    pub(super) fn fed(&mut self, worker: usize, nodes: &[NodeId]) {
        for node in nodes {
            let Some(feeding) = self.imports.get_mut(node) else { continue };
            if let Feeding::Stored(workers) = feeding {
                workers.remove(&worker);
                if workers.is_empty() {
                    *feeding = Feeding::Complete;
                }
            }
        }
    }

    /// Ends the build with an error when it is one of this relation; true when it was.
    pub(super) fn fail(&mut self, relation: RelationId, error: &Error) -> bool {
        let mine = self.members.contains(&relation);
        if mine && let Some(done) = self.done.take() {
            drop(done.send(Err(error.clone())));
        }
        mine
    }
}

impl Coordinator {
    /// What the builds do in the next epoch: slices to feed, imports to attach.
    pub(super) fn plan_builds(&mut self) -> (Vec<(NodeId, Epoch)>, Vec<NodeId>) {
        let (mut slices, mut attach) = (Vec::new(), Vec::new());
        for build in &mut self.builds {
            for member in &build.members {
                self.wake.extend(self.graph.nodes_of(*member));
            }
            if build.is_fed() {
                build.attaching = true;
                attach.extend(build.imports.keys());
                continue;
            }
            let stored = build.imports.iter().filter(|(_, f)| matches!(f, Feeding::Stored(_)));
            slices.extend(stored.map(|(node, _)| (*node, build.pin.epoch)));
        }
        (slices, attach)
    }

    /// Gives up builds whose replay has failed; whoever waits for them removes them.
    pub(super) fn fail_builds(&mut self) {
        for build in self.builds.extract_if(.., |b| b.failed.is_some()) {
            if let Some((done, error)) = build.done.zip(build.failed) {
                drop(done.send(Err(error)));
            }
        }
    }

    /// Publishes the views that the last epoch has attached.
    pub(super) fn finish_builds(&mut self) {
        let relations = self.shared.relations();
        for build in self.builds.extract_if(.., |b| b.attaching) {
            for relation in build.members.iter().filter_map(|id| relations.get(id)) {
                let mut progress = lock(&relation.progress);
                if matches!(progress.status, RelationStatus::Building) {
                    progress.status = RelationStatus::Running;
                }
            }
            if let Some(done) = build.done {
                drop(done.send(Ok(())));
            }
        }
    }
}
