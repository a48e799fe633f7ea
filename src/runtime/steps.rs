//! Steps in flight: epochs that are under way on the workers.
//!
//! Nearly every epoch is done within its first slice of time and is published at once. One that is
//! not (a join that explodes, a backlog) stays in flight and gets a slice in turn with others:
//! meanwhile an epoch can be cut from inputs that reach none of its nodes, so that a long step
//! delays those alone who write into it or build upon it.
//!
//! What is read meanwhile: relations that a step in flight may change are *behind*, they are read
//! as of the epoch that was published when it began, and all others as of the newest one. Both
//! belong to one serial order, in which the long step comes last; so when it ends it is published
//! under a new number.
//!
//! Each view that is being built takes steps of its own. They feed what nobody else reads, so that
//! a view over its own inputs holds up nobody until it is attached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::coordinator::{Commit, Coordinator};
use super::graph::NodeId;
use super::shared::{RelationStatus, lock};
use super::worker::{Report, Step};
use crate::catalog::{RelationId, RelationKind};
use crate::config::{STATE_CHECK_INTERVAL, STATE_CHECK_SHARE, STEP_SLICE, STEP_SLICE_BULK};
use crate::delta::DeltaBatch;
use crate::error::{Error, sqlstate};
use crate::store::Lsn;
use crate::time::Epoch;

/// Rows by worker.
pub(super) type Inputs = Vec<Vec<(NodeId, DeltaBatch)>>;

/// An epoch that is under way.
pub(super) struct InFlight {
    epoch: Epoch,
    now_us: i64,
    /// By worker, as far as they have done their part.
    reports: Vec<Option<Report>>,
    /// Who waits for it.
    commits: Vec<Commit>,
    /// What has to be on the disk before it is published.
    lsn: Option<Lsn>,
    /// The nodes that run.
    active: Arc<Vec<NodeId>>,
    /// Those of them that no other step may touch.
    taken: BTreeSet<NodeId>,
    /// The view that it builds, by its first member.
    builds: Option<RelationId>,
    /// Rows of sources in it.
    rows: usize,
    /// The time that it has run.
    spent: Duration,
    /// When the size of its state was looked at.
    measured: Instant,
    /// It has outlasted a slice.
    suspended: bool,
}

impl InFlight {
    /// The nodes that run.
    pub(super) fn active(&self) -> &[NodeId] {
        &self.active
    }
}

/// Something that has to wait until no step in flight touches some relations.
pub struct Waiting {
    pub(super) needs: Needs,
    pub(super) call: Box<dyn FnOnce(&mut Coordinator) + Send>,
}

/// The relations that a call needs to be at rest.
#[derive(Debug, Clone)]
pub enum Needs {
    /// These.
    Relations(Vec<RelationId>),
    /// All.
    Everything,
}

impl Coordinator {
    /// Cuts an epoch from what waits in all inputs, as far as no step in flight is in the way.
    pub(super) fn begin_epoch(&mut self) {
        self.tell_time();
        let mut inputs = vec![Vec::new(); self.team.workers()];
        let commits = std::mem::take(&mut self.commits);
        let (commits, later) = self.split_commits(commits);
        self.commits = later;
        let (commits, lsn) = self.take_commits(commits, &mut inputs);
        let rows = self.take_feeds(&mut inputs);
        let mut from: BTreeSet<NodeId> = inputs.iter().flatten().map(|(n, _)| *n).collect();
        let watermarks = self.take_free_watermarks();
        from.extend(watermarks.iter().map(|(n, ..)| *n));
        from.extend(self.take_free_wakes());
        if from.is_empty() && commits.is_empty() {
            return;
        }
        let active = self.active(from, None);
        let taken = active.iter().copied().collect();
        let step = Step { watermarks, active, ..Step::default() };
        let flight = InFlight { commits, lsn, rows, ..self.flight(&step, taken) };
        self.launch(flight, step, inputs);
    }

    /// Begins the next step of every build that can take one.
    pub(super) fn begin_builds(&mut self) {
        for build in 0..self.builds.len() {
            let Some(first) = self.builds.get(build).map(|b| b.first_member()) else { return };
            if self.flights.iter().any(|f| f.builds == Some(first)) {
                continue;
            }
            self.begin_build(build, first);
        }
    }

    fn begin_build(&mut self, build: usize, first: RelationId) {
        let held = self.held_nodes();
        let plan = self.builds[build].plan(self.slice_rows, &held);
        let Some((slices, attach)) = plan else { return };
        let attaches = attach.is_some();
        let members = self.builds[build].members().to_vec();
        let from = members.iter().flat_map(|m| self.graph.nodes_of(*m)).collect();
        let active = self.active(from, Some(first));
        let mut taken: BTreeSet<NodeId> = active.iter().copied().collect();
        if !attaches {
            // Until then its imports only hold back what others send them.
            self.builds[build].import_nodes().for_each(|node| {
                taken.remove(&node);
            });
        }
        if self.is_taken(&taken) {
            return;
        }
        let inputs = self.builds[build].begin(attaches, self.team.workers());
        self.tell_time();
        let attach = attach.unwrap_or_default();
        let (before, building) = (Some(self.builds[build].pinned()), !attaches);
        let step = Step { slices, attach, active, before, building, ..Step::default() };
        let flight = InFlight { builds: Some(first), ..self.flight(&step, taken) };
        self.launch(flight, step, inputs);
    }

    fn next_epoch(&mut self) {
        self.epoch = self.epoch.next();
        self.count_epochs();
    }

    fn flight(&mut self, step: &Step, taken: BTreeSet<NodeId>) -> InFlight {
        self.next_epoch();
        InFlight {
            epoch: self.epoch,
            now_us: self.now_us,
            reports: (0..self.team.workers()).map(|_| None).collect(),
            commits: Vec::new(),
            lsn: None,
            active: Arc::clone(&step.active),
            taken,
            builds: None,
            rows: 0,
            spent: Duration::ZERO,
            measured: Instant::now(),
            suspended: false,
        }
    }

    fn launch(&mut self, mut flight: InFlight, step: Step, inputs: Inputs) {
        let began = Instant::now();
        let (epoch, now_us) = (flight.epoch, flight.now_us);
        let steps = inputs.into_iter().map(|inputs| Step {
            epoch,
            now_us,
            inputs,
            watermarks: step.watermarks.clone(),
            slices: step.slices.clone(),
            attach: step.attach.clone(),
            before: step.before,
            building: step.building,
            active: step.active.clone(),
        });
        let deadline = began + self.slice();
        flight.reports = self.team.begin(steps.collect(), deadline);
        flight.spent += began.elapsed();
        self.land_or_keep(flight);
    }

    fn slice(&self) -> Duration {
        if self.somebody_waits() { STEP_SLICE } else { STEP_SLICE_BULK }
    }

    /// Gives every step in flight a slice of time.
    pub(super) fn proceed(&mut self) {
        for mut flight in std::mem::take(&mut self.flights) {
            let began = Instant::now();
            let deadline = began + self.slice();
            let reports = self.team.proceed(flight.epoch, deadline);
            for (slot, report) in flight.reports.iter_mut().zip(reports) {
                if report.is_some() {
                    *slot = report;
                }
            }
            flight.spent += began.elapsed();
            self.check_limits(&mut flight);
            self.land_or_keep(flight);
        }
        if self.flights.is_empty() && self.waiting.is_empty() {
            return;
        }
        for waiting in std::mem::take(&mut self.waiting) {
            self.call_when_free(waiting);
        }
    }

    fn land_or_keep(&mut self, mut flight: InFlight) {
        if flight.reports.iter().all(Option::is_some) {
            self.land(flight);
            return;
        }
        if !flight.suspended {
            flight.suspended = true;
            self.set_behind(&flight);
        }
        self.flights.push(flight);
    }

    /// A step is done: publishes it and answers those who wait for it.
    fn land(&mut self, flight: InFlight) {
        let mut epoch = flight.epoch;
        if flight.suspended {
            // Others have been published since; it comes behind them.
            self.next_epoch();
            epoch = self.epoch;
        }
        if let Err(error) = self.wait_for_log(flight.lsn) {
            flight.commits.into_iter().for_each(|c| drop(c.done.send(Err(error.clone()))));
            return;
        }
        let reports = flight.reports.into_iter().flatten().collect();
        self.publish((epoch, flight.now_us), reports, &flight.active, flight.builds);
        for commit in flight.commits {
            drop(commit.done.send(self.commit_result(&commit.writes, epoch)));
        }
        self.steer(flight.spent, flight.rows);
        self.check_sizes(&flight.active, epoch);
    }

    /// Quarantines the views of a step that have outgrown their limit, however little each step has
    /// added. Looks at them from time to time, and less often where looking takes long.
    fn check_sizes(&mut self, active: &[NodeId], epoch: Epoch) {
        let began = Instant::now();
        if began < self.sizes_due {
            return;
        }
        let mut state = BTreeMap::<RelationId, usize>::new();
        for table in self.team.sizes().into_iter().flatten() {
            if let Some(owner) = self.graph.owner(table.node) {
                *state.entry(owner).or_default() += table.bytes;
            }
        }
        let catalog = self.shared.catalog();
        for id in self.owners_of(active) {
            let Some(view) = catalog.by_id(id) else { continue };
            let bytes = state.get(&id).copied().unwrap_or(0) + self.row_bytes(id);
            if view.kind != RelationKind::MaterializedView || bytes <= self.limits.state_bytes {
                continue;
            }
            let name = format!("{} \"{}\"", view.kind.noun(), view.name);
            if let Some(output) = self.graph.output(id) {
                // This epoch is the last one that it shows.
                self.quarantine(output, &self.outgrown(&name, bytes), epoch.next());
            }
        }
        let took = began.elapsed();
        self.sizes_due = began + STATE_CHECK_INTERVAL.max(took * STATE_CHECK_SHARE);
    }

    /// From now on the relations of a step are read as they were before it.
    fn set_behind(&self, flight: &InFlight) {
        let owners: BTreeSet<RelationId> =
            flight.taken.iter().filter_map(|n| self.graph.owner(*n)).collect();
        self.shared.fall_behind(&owners);
    }

    /// The relations that steps in flight may change.
    pub(super) fn owners_of(&self, active: &[NodeId]) -> BTreeSet<RelationId> {
        active.iter().filter_map(|n| self.graph.owner(*n)).collect()
    }

    /// A step that takes too long or makes too much is ended by quarantining what holds it up.
    fn check_limits(&mut self, flight: &mut InFlight) {
        if flight.reports.iter().all(Option::is_some) {
            return;
        }
        let outlasts = flight.spent >= self.limits.step_timeout;
        let measure = flight.measured.elapsed() >= STATE_CHECK_INTERVAL;
        if !outlasts && !measure {
            return;
        }
        let Some(node) = self.team.culprit(flight.epoch) else { return };
        let Some(owner) = self.graph.owner(node) else { return };
        let name = self
            .shared
            .catalog()
            .by_id(owner)
            .map_or_else(String::new, |r| format!("{} \"{}\"", r.kind.noun(), r.name));
        let error = match outlasts {
            true => Some(self.outlasted(&name)),
            false => self.too_large(owner, &name),
        };
        flight.measured = Instant::now();
        if let Some(error) = error {
            tracing::warn!(%error, "a step was ended");
            // What is left of it gets its own time.
            flight.spent = Duration::ZERO;
            self.team.fail_step(flight.epoch, node, &error);
        }
    }

    fn outlasted(&self, name: &str) -> Error {
        let limit = self.limits.step_timeout.as_millis();
        Error::user(sqlstate::QUERY_CANCELED, format!("{name} was stopped by step_timeout"))
            .with_detail(format!("Taking in one change took more than {limit} ms."))
            .with_hint(
                "EXPLAIN MATERIALIZED VIEW shows joins without an equality, which read all rows \
                 for each change. Start with a larger --step-timeout, or DROP the view.",
            )
    }

    fn too_large(&mut self, owner: RelationId, name: &str) -> Option<Error> {
        let bytes = self.bytes_of(owner);
        (bytes > self.limits.state_bytes).then(|| self.outgrown(name, bytes))
    }

    fn outgrown(&self, name: &str, bytes: usize) -> Error {
        let limit = self.limits.state_bytes;
        Error::user(sqlstate::OUT_OF_MEMORY, format!("{name} has outgrown its state limit"))
            .with_detail(format!("It holds {} MB, of at most {}.", bytes >> 20, limit >> 20))
            .with_hint("DROP it, or start with a larger --state-limit.")
    }

    /// Bytes of a relation: its operators' state and its rows.
    fn bytes_of(&mut self, id: RelationId) -> usize {
        let nodes: BTreeSet<NodeId> = self.graph.nodes_of(id).into_iter().collect();
        let sizes = self.team.sizes();
        let state = sizes.iter().flatten().filter(|t| nodes.contains(&t.node)).map(|t| t.bytes);
        state.sum::<usize>() + self.row_bytes(id)
    }

    /// Bytes of the rows that are read of a relation.
    fn row_bytes(&self, id: RelationId) -> usize {
        let relations = self.shared.relations();
        let table = relations.get(&id).and_then(|r| r.table.as_ref());
        table.map_or(0, |t| (0..t.shards()).map(|shard| t.read(shard).bytes()).sum())
    }

    /// Runs a call as soon as no step in flight touches what it needs.
    pub(super) fn call_when_free(&mut self, waiting: Waiting) {
        let busy = match &waiting.needs {
            Needs::Everything => !self.flights.is_empty(),
            Needs::Relations(ids) => ids.iter().any(|id| {
                let nodes = self.graph.nodes_of(*id);
                self.flights.iter().any(|f| nodes.iter().any(|n| f.taken.contains(n)))
            }),
        };
        match busy {
            true => self.waiting.push(waiting),
            false => (waiting.call)(self),
        }
    }

    fn is_taken(&self, nodes: &BTreeSet<NodeId>) -> bool {
        self.flights.iter().any(|flight| !flight.taken.is_disjoint(nodes))
    }

    /// Whether nothing in flight is in the way of what a node reaches.
    pub(super) fn is_free(&self, node: NodeId) -> bool {
        self.flights.is_empty() || !self.is_taken(&self.active_set([node].into(), None))
    }

    /// Whether rows of an input can be taken.
    pub(super) fn input_is_free(&self, id: RelationId) -> bool {
        self.flights.is_empty() || self.inputs.get(&id).is_none_or(|r| self.is_free(r.node))
    }

    /// Commits that can be taken, and those that wait for a step in flight.
    fn split_commits(&self, commits: Vec<Commit>) -> (Vec<Commit>, Vec<Commit>) {
        if self.flights.is_empty() {
            return (commits, Vec::new());
        }
        commits.into_iter().partition(|commit| self.commit_is_free(commit))
    }

    /// Whether no step in flight is in the way of a commit. One without writes asks for everything
    /// that was there before it, so that it comes behind all of them: that is how who moves the
    /// clock knows that it has moved.
    fn commit_is_free(&self, commit: &Commit) -> bool {
        let writes = &commit.writes;
        let empty_behind_others = writes.is_empty() && !self.flights.is_empty();
        !empty_behind_others && writes.iter().all(|(id, _)| self.input_is_free(*id))
    }

    fn take_free_watermarks(&mut self) -> Vec<(NodeId, usize, crate::time::Watermark)> {
        let all = std::mem::take(&mut self.watermarks);
        if self.flights.is_empty() {
            return all;
        }
        let (free, later) = all.into_iter().partition(|(node, ..)| self.is_free(*node));
        self.watermarks = later;
        free
    }

    fn take_free_wakes(&mut self) -> BTreeSet<NodeId> {
        let all = std::mem::take(&mut self.wake);
        if self.flights.is_empty() {
            return all;
        }
        let (free, later) = all.into_iter().partition(|node| self.is_free(*node));
        self.wake = later;
        free
    }

    /// Whether something waits that a new epoch could take.
    pub(super) fn has_free_work(&self) -> bool {
        if self.flights.is_empty() {
            return self.has_work();
        }
        let held = self.held_nodes();
        self.feeds.iter().any(|f| !self.is_feed_held(f, &held) && self.feed_is_free(f))
            || self.commits.iter().any(|commit| self.commit_is_free(commit))
            || self.wake.iter().any(|node| self.is_free(*node))
            || self.watermarks.iter().any(|(node, ..)| self.is_free(*node))
    }

    /// The nodes that run: all that can be reached, without those that have failed and those of
    /// views that are being built, which have steps of their own.
    fn active(&self, from: BTreeSet<NodeId>, build: Option<RelationId>) -> Arc<Vec<NodeId>> {
        Arc::new(self.active_set(from, build).into_iter().collect())
    }

    fn active_set(&self, from: BTreeSet<NodeId>, build: Option<RelationId>) -> BTreeSet<NodeId> {
        let mut active = self.graph.reachable(from);
        for other in self.builds.iter().filter(|b| Some(b.first_member()) != build) {
            let imports: BTreeSet<NodeId> = other.import_nodes().collect();
            let nodes = other.members().iter().flat_map(|m| self.graph.nodes_of(*m));
            nodes.filter(|n| !imports.contains(n)).for_each(|n| {
                active.remove(&n);
            });
        }
        let owners: BTreeSet<RelationId> =
            active.iter().filter_map(|n| self.graph.owner(*n)).collect();
        let relations = self.shared.relations();
        let failed = |id: &RelationId| {
            let state = relations.get(id);
            state.is_some_and(|r| {
                matches!(lock(&r.progress).status, RelationStatus::Quarantined(..))
            })
        };
        let failed: BTreeSet<RelationId> = owners.into_iter().filter(failed).collect();
        active.retain(|n| self.graph.owner(*n).is_some_and(|r| !failed.contains(&r)));
        active
    }
}

/// What a step may not exceed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How long one step may run.
    pub(super) step_timeout: Duration,
    /// Bytes that one relation may hold.
    pub(super) state_bytes: usize,
}
