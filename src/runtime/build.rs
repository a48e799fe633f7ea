//! Builds: views on their way from an empty table to their place in every epoch.
//!
//! A new view pins its inputs at one epoch; its imports hold back the deltas of later epochs while
//! slices of the pinned rows are fed between two epochs (for a source without stored rows: while a
//! reader of its own replays the source up to the positions of that epoch). When everything has
//! been fed, one epoch lets go what was held back, and with it the view is published. The right
//! side of a temporal join is fed first: the rows of the left find it complete.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::sync::oneshot;

use super::coordinator::Coordinator;
use super::graph::NodeId;
use super::shared::{Pin, RelationStatus, lock};
use super::source_task::{FeedKind, SourceFeed, SourceTask, SourceTaskSpec};
use super::steps::Inputs;
use super::worker::Slice;
use crate::catalog::RelationId;
use crate::delta::DeltaBatch;
use crate::error::{Error, Result};
use crate::time::Epoch;

/// A view that is being built.
pub struct Build {
    /// Everything that belongs to it: the view and its `$errors`.
    members: Vec<RelationId>,
    imports: BTreeMap<NodeId, Import>,
    pin: Pin,
    /// Rows of replays for its next step.
    replayed: VecDeque<(NodeId, DeltaBatch)>,
    /// The step that attaches it has begun.
    attaching: bool,
    done: Option<oneshot::Sender<Result<()>>>,
    /// Why it can't go on.
    failed: Option<Error>,
}

/// How an import gets its old rows.
pub(super) struct Import {
    pub(super) feed: Feeding,
    /// Whether others wait until it has them.
    pub(super) first: bool,
}

/// Where an import's old rows come from.
pub(super) enum Feeding {
    /// From stored rows; the workers that still have some.
    Stored(BTreeSet<usize>),
    /// From a replay of the source that is to begin.
    Later(Box<SourceTaskSpec>),
    /// From a replay of the source.
    Replay(SourceTask),
    /// Nothing is missing.
    Complete,
}

impl Build {
    pub(super) fn new(
        members: Vec<RelationId>,
        imports: BTreeMap<NodeId, Import>,
        pin: Pin,
        done: oneshot::Sender<Result<()>>,
    ) -> Self {
        let mut build = Self {
            members,
            imports,
            pin,
            replayed: VecDeque::new(),
            attaching: false,
            done: Some(done),
            failed: None,
        };
        build.begin_replays();
        build
    }

    fn is_fed(&self) -> bool {
        self.imports.values().all(Import::is_fed)
    }

    /// The imports whose turn it is: those that others wait for, or all.
    fn in_turn(&self) -> impl Fn(&Import) -> bool + use<> {
        let waiting = self.imports.values().any(|i| i.first && !i.is_fed());
        move |import| import.first || !waiting
    }

    /// The imports that can be fed from stored rows now.
    fn stored(&self) -> impl Iterator<Item = NodeId> {
        let in_turn = self.in_turn();
        let ready = move |i: &Import| matches!(i.feed, Feeding::Stored(_)) && in_turn(i);
        self.imports.iter().filter(move |(_, i)| ready(i)).map(|(node, _)| *node)
    }

    fn begin_replays(&mut self) {
        let in_turn = self.in_turn();
        for import in self.imports.values_mut().filter(|i| in_turn(i)) {
            import.feed = match std::mem::replace(&mut import.feed, Feeding::Complete) {
                Feeding::Later(spec) => match SourceTask::start(*spec) {
                    Ok(task) => Feeding::Replay(task),
                    Err(error) => {
                        self.failed = Some(error);
                        Feeding::Complete
                    }
                },
                other => other,
            };
        }
    }

    /// The relation that stands for all that belong to it.
    pub(super) fn first_member(&self) -> RelationId {
        self.members[0]
    }

    /// Everything that belongs to it.
    pub(super) fn members(&self) -> &[RelationId] {
        &self.members
    }

    /// The epoch as of which its inputs are fed.
    pub(super) fn pinned(&self) -> Epoch {
        self.pin.epoch
    }

    /// The nodes through which its inputs reach it.
    pub(super) fn import_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.imports.keys().copied()
    }

    /// Whether a step would bring it forward.
    /// `held`: nodes that lead to a sink without room.
    pub(super) fn has_work(&self, held: &BTreeSet<NodeId>) -> bool {
        let stored = self.stored().any(|node| !held.contains(&node));
        !self.attaching && (self.is_fed() || stored || self.has_replayed())
    }

    fn has_replayed(&self) -> bool {
        !self.replayed.is_empty()
    }

    /// What its next step does: slices to feed, or the imports that it attaches (none, where a view
    /// reads nothing).
    pub(super) fn plan(
        &self,
        rows: usize,
        held: &BTreeSet<NodeId>,
    ) -> Option<(Vec<Slice>, Option<Vec<NodeId>>)> {
        if !self.has_work(held) {
            return None;
        }
        if self.is_fed() && !self.has_replayed() {
            return Some((Vec::new(), Some(self.import_nodes().collect())));
        }
        let epoch = self.pin.epoch;
        let stored = self.stored().filter(|node| !held.contains(node));
        let slices = stored.map(|node| Slice { node, epoch, rows });
        Some((slices.collect(), None))
    }

    /// Begins a step: the rows of replays that are in it.
    pub(super) fn begin(&mut self, attaches: bool, workers: usize) -> Inputs {
        self.attaching = attaches;
        Inputs { shared: std::mem::take(&mut self.replayed), ..Inputs::new(workers) }
    }

    /// Whether it needs a step of the nodes that its inputs come from.
    pub(super) fn wants_to_attach(&self) -> bool {
        !self.attaching && self.is_fed() && !self.has_replayed()
    }

    pub(super) fn replays(&self, task: u64) -> bool {
        self.replays_into(task).is_some()
    }

    /// The import that a task replays rows into.
    pub(super) fn replays_into(&self, task: u64) -> Option<NodeId> {
        let mine = |i: &Import| matches!(&i.feed, Feeding::Replay(t) if t.number == task);
        self.imports.iter().find(|(_, import)| mine(import)).map(|(node, _)| *node)
    }

    /// Takes a batch of a replay; returns the rows taken.
    pub(super) fn take_replay(&mut self, feed: SourceFeed) -> usize {
        let task = feed.task;
        for (node, import) in &mut self.imports {
            let Feeding::Replay(replay) = &mut import.feed else { continue };
            if replay.number != task {
                continue;
            }
            replay.give_back();
            match feed.kind {
                FeedKind::End => {
                    import.feed = Feeding::Complete;
                    self.begin_replays();
                }
                FeedKind::Failed(error) => self.failed = Some(error),
                // It has an end among what was read.
                FeedKind::GoesOn(_) | FeedKind::Retried(..) | FeedKind::Forgotten(_) => {}
                FeedKind::Rows { rows, .. } => {
                    // The messages that can't be decoded are in `$errors` since they were first
                    // read.
                    let count = rows.len();
                    if count > 0 {
                        self.replayed.push_back((*node, rows));
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
            let Some(import) = self.imports.get_mut(node) else { continue };
            if let Feeding::Stored(workers) = &mut import.feed {
                workers.remove(&worker);
                if workers.is_empty() {
                    import.feed = Feeding::Complete;
                }
            }
        }
        self.begin_replays();
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

impl Import {
    fn is_fed(&self) -> bool {
        matches!(self.feed, Feeding::Complete)
    }
}

impl Coordinator {
    /// Gives up builds whose replay has failed; whoever waits for them removes them.
    pub(super) fn fail_builds(&mut self) {
        for build in self.builds.extract_if(.., |b| b.failed.is_some()) {
            if let Some((done, error)) = build.done.zip(build.failed) {
                drop(done.send(Err(error)));
            }
        }
    }

    /// Publishes the view that the last step has attached.
    pub(super) fn finish_builds(&mut self, landed: Option<RelationId>, epoch: Epoch) {
        let relations = self.shared.relations();
        let complete = |b: &mut Build| b.attaching && Some(b.first_member()) == landed;
        let complete: Vec<Build> = self.builds.extract_if(.., complete).collect();
        for mut build in complete {
            if let Err(error) = self.note_complete(&build.members) {
                // Whoever waits for it removes it.
                if let Some(done) = build.done.take() {
                    drop(done.send(Err(error)));
                }
                continue;
            }
            self.put_rebuilt(&build.members, epoch);
            for relation in build.members.iter().filter_map(|id| relations.get(id)) {
                let mut progress = lock(&relation.progress);
                if matches!(progress.status, RelationStatus::Building) {
                    progress.status = RelationStatus::Running;
                    progress.since = epoch;
                }
            }
            if let Some(done) = build.done {
                drop(done.send(Ok(())));
            }
        }
    }
}
