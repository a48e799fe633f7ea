//! Steps in flight: epochs that are under way on the workers.
//!
//! With several workers an epoch is cut while the one before it on the same nodes still runs, so
//! that a worker that is done with its part goes on. Each worker runs the epochs of a node in their
//! order, and they are published in it.
//!
//! Nearly every epoch is done within its first slice of time and is published at once. One that is
//! not (a join that explodes, a backlog) is *suspended*: nothing is cut behind it, it gets a slice
//! in turn with others, and meanwhile epochs can be cut from inputs that reach none of its nodes,
//! so that a long step delays those alone who write into it or build upon it.
//!
//! What is read meanwhile: relations that a suspended step may change are *behind*, they are read
//! as of the epoch that was published when it was suspended, and all others as of the newest one.
//! Both belong to one serial order, in which the long step comes last; so when it ends it is
//! published under a new number. What has a number below one that is published is suspended: that
//! is why all steps in flight are when one of them is.
//!
//! Each view that is being built takes steps of its own. They feed what nobody else reads, so that
//! a view over its own inputs holds up nobody until it is attached.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::build::Build;
use super::coordinator::{Commit, Coordinator};
use super::graph::NodeId;
use super::shared::{RelationStatus, lock};
use super::source_task::SourceFeed;
use super::worker::{Report, SharedInputs, Step, TableSize};
use crate::catalog::{RelationId, RelationKind};
use crate::config::{
    EPOCHS_AHEAD, SOURCE_QUEUE_BATCHES, STATE_CHECK_INTERVAL, STEP_SLICE, STEP_SLICE_BULK,
};
use crate::delta::DeltaBatch;
use crate::error::{Error, sqlstate};
use crate::store::Lsn;
use crate::time::Epoch;

/// Rows on their way into a step.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Those that belong to one worker.
    pub own: Vec<Vec<(NodeId, DeltaBatch)>>,
    /// Those that any may take.
    pub shared: VecDeque<(NodeId, DeltaBatch)>,
}

impl Inputs {
    pub(super) fn new(workers: usize) -> Self {
        Self { own: vec![Vec::new(); workers], shared: VecDeque::new() }
    }

    /// The nodes that they come into.
    fn nodes(&self) -> BTreeSet<NodeId> {
        self.own.iter().flatten().chain(&self.shared).map(|(node, _)| *node).collect()
    }
}

/// An epoch that is under way.
pub(super) struct InFlight {
    pub(super) epoch: Epoch,
    pub(super) now_us: i64,
    /// By worker, as far as they have done their part.
    reports: Vec<Option<Report>>,
    /// Who waits for it.
    pub(super) commits: Vec<Commit>,
    /// What has to be on the disk before it is published.
    lsn: Option<Lsn>,
    /// The nodes that run.
    pub(super) active: Arc<Vec<NodeId>>,
    /// Those of them that no other step may touch.
    taken: BTreeSet<NodeId>,
    /// The view that it builds, by its first member.
    pub(super) builds: Option<RelationId>,
    /// Rows of sources in it.
    rows: usize,
    /// When it was cut.
    begun: Instant,
    /// The time that it had run when it was last given more of it.
    forgiven: Duration,
    /// When it was looked at.
    measured: Instant,
    /// It has outlasted a slice.
    suspended: bool,
}

impl InFlight {
    fn is_done(&self) -> bool {
        self.reports.iter().all(Option::is_some)
    }

    fn shares(&self, nodes: &BTreeSet<NodeId>) -> bool {
        !self.taken.is_disjoint(nodes)
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
    /// None: every step is done or suspended.
    Suspended,
}

/// The epochs that relations are read at while steps in flight change them.
pub(super) type Behind = BTreeMap<RelationId, Epoch>;

impl Coordinator {
    /// Cuts an epoch from what waits in all inputs, as far as no step in flight is in the way;
    /// false when there is none.
    pub(super) fn begin_epoch(&mut self) -> bool {
        // Told once, for all that is cut.
        self.follows = self.can_follow();
        let begun = self.has_free_work() && self.cut_epoch();
        self.follows = false;
        begun
    }

    fn cut_epoch(&mut self) -> bool {
        self.tell_time();
        let mut inputs = Inputs::new(self.team.workers());
        let commits = std::mem::take(&mut self.commits);
        let (commits, later) = self.split_commits(commits);
        self.commits = later;
        let (commits, lsn) = self.take_commits(commits, &mut inputs);
        let rows = self.take_feeds(&mut inputs);
        self.expire_rejects(&mut inputs);
        let mut from = inputs.nodes();
        let watermarks = self.take_free_watermarks();
        from.extend(watermarks.iter().map(|(n, ..)| *n));
        from.extend(self.take_free_wakes());
        if from.is_empty() && commits.is_empty() {
            // What there was has come from a task that has ended.
            return true;
        }
        let active = self.active(from, None);
        let taken = active.iter().copied().collect();
        let step = Step { watermarks, active, ..Step::default() };
        let flight = InFlight { commits, lsn, rows, ..self.flight(&step, taken) };
        self.launch(flight, step, inputs);
        true
    }

    /// Begins the next step of every build that can take one; whether there was one.
    pub(super) fn begin_builds(&mut self) -> bool {
        let mut begun = false;
        for build in 0..self.builds.len() {
            let Some(first) = self.builds.get(build).map(|b| b.first_member()) else { break };
            if !self.flights.iter().any(|f| f.builds == Some(first)) {
                begun |= self.begin_build(build, first);
            }
        }
        begun
    }

    fn begin_build(&mut self, build: usize, first: RelationId) -> bool {
        let blocked = self.blocked_nodes();
        let plan = self.builds[build].plan(self.slice_rows, &blocked);
        let Some((slices, attach)) = plan else { return false };
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
            return false;
        }
        let inputs = self.builds[build].begin(attaches, self.team.workers());
        self.tell_time();
        let attach = attach.unwrap_or_default();
        let (before, building) = (Some(self.builds[build].pinned()), !attaches);
        let step = Step { slices, attach, active, before, building, ..Step::default() };
        let flight = InFlight { builds: Some(first), ..self.flight(&step, taken) };
        self.launch(flight, step, inputs);
        true
    }

    pub(super) fn next_epoch(&mut self) {
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
            begun: Instant::now(),
            forgiven: Duration::ZERO,
            measured: Instant::now(),
            suspended: false,
        }
    }

    fn launch(&mut self, flight: InFlight, step: Step, inputs: Inputs) {
        let (epoch, now_us) = (flight.epoch, flight.now_us);
        let before = self.flights.iter().filter(|f| f.shares(&flight.taken));
        let after: Vec<Epoch> = before.map(|f| f.epoch).collect();
        if after.is_empty() {
            // It can be done before those that run: they come behind it.
            self.suspend_all();
        }
        let measure = self.sizes_due <= flight.begun;
        if measure {
            self.sizes_due = flight.begun + STATE_CHECK_INTERVAL;
        }
        let shared: SharedInputs = Arc::new(Mutex::new(inputs.shared));
        let steps = inputs.own.into_iter().map(|inputs| Step {
            epoch,
            now_us,
            after: after.clone(),
            inputs,
            shared: Arc::clone(&shared),
            watermarks: step.watermarks.clone(),
            slices: step.slices.clone(),
            attach: step.attach.clone(),
            before: step.before,
            building: step.building,
            active: step.active.clone(),
            measure,
        });
        self.team.set_slice(self.slice());
        self.team.begin(steps.collect());
        self.flights.push(flight);
        self.collect(Some(epoch));
    }

    fn slice(&self) -> Duration {
        if self.somebody_waits() { STEP_SLICE } else { STEP_SLICE_BULK }
    }

    /// A worker has done its part of an epoch.
    pub(super) fn take_report(&mut self, worker: usize, epoch: Epoch, report: Report) {
        let mut flights = self.flights.iter_mut();
        let flight = flights.find(|flight| flight.epoch == epoch);
        if let Some(slot) = flight.and_then(|flight| flight.reports.get_mut(worker)) {
            *slot = Some(report);
        }
    }

    /// Goes on with what is in flight: publishes what is done, looks after what lasts.
    pub(super) fn proceed(&mut self) {
        if !self.flights.is_empty() {
            self.collect(None);
        }
        let epochs: Vec<Epoch> = self.flights.iter().map(|flight| flight.epoch).collect();
        epochs.into_iter().for_each(|epoch| self.check_limits(epoch));
        self.run_waiting();
    }

    /// Publishes what is done. Where the workers have no threads, all steps (or only one) get a
    /// slice of time.
    fn collect(&mut self, only: Option<Epoch>) {
        for (epoch, report) in self.team.work(only) {
            self.take_report(0, epoch, report);
        }
        while let Some(done) = self.flights.iter().position(InFlight::is_done) {
            if done > 0 {
                self.suspend_all();
            }
            let flight = self.flights.remove(done);
            self.land(flight);
        }
        let slice = self.slice();
        let threads = self.team.workers() > 1;
        let outlasts = |f: &InFlight| !f.suspended && (!threads || f.begun.elapsed() >= slice);
        if self.flights.iter().any(outlasts) {
            self.suspend_all();
        }
    }

    /// From now on the relations of all steps in flight are read as they are now.
    fn suspend_all(&mut self) {
        let mut owners = BTreeSet::new();
        for flight in self.flights.iter_mut().filter(|flight| !flight.suspended) {
            flight.suspended = true;
            owners.extend(flight.taken.iter().filter_map(|n| self.graph.owner(*n)));
        }
        if !owners.is_empty() {
            self.shared.fall_behind(&owners);
        }
    }

    /// How long nothing needs to be looked at while steps run.
    pub(super) fn until_slice_ends(&self) -> Duration {
        let left = |f: &InFlight| match f.suspended {
            true => STEP_SLICE_BULK,
            false => self.slice().saturating_sub(f.begun.elapsed()),
        };
        self.flights.iter().map(left).min().unwrap_or(Duration::MAX)
    }

    /// A step is done: publishes it and answers those who wait for it.
    fn land(&mut self, mut flight: InFlight) {
        let mut epoch = flight.epoch;
        if flight.suspended {
            // Others have been published since; it comes behind them, and all that are in flight
            // behind it.
            self.suspend_all();
            self.next_epoch();
            epoch = self.epoch;
        }
        if let Err(error) = self.wait_for_log(flight.lsn) {
            flight.commits.into_iter().for_each(|c| drop(c.done.send(Err(error.clone()))));
            return;
        }
        let reports: Vec<Report> = flight.reports.drain(..).flatten().collect();
        let spent = reports.iter().map(|report| report.spent).max().unwrap_or_default();
        self.steer(spent, flight.rows);
        let begun = flight.begun;
        self.publish(epoch, flight, reports);
        self.shared.count_epoch(begun.elapsed());
    }

    /// Answers those who wait for an epoch.
    pub(super) fn answer(&self, commits: Vec<Commit>, epoch: Epoch) {
        for commit in commits {
            drop(commit.done.send(self.commit_result(&commit.writes, epoch)));
        }
    }

    /// The relations that are changed by steps in flight, and had a number before they were
    /// published: they stay behind.
    pub(super) fn still_behind(&self, landed: Epoch, of: &BTreeSet<RelationId>) -> Behind {
        let flying = self.flights.iter().filter(|flight| flight.suspended);
        let flying: BTreeSet<RelationId> = flying.flat_map(|f| self.owners_of(&f.active)).collect();
        of.intersection(&flying).map(|id| (*id, landed)).collect()
    }

    /// Quarantines the views of a step that have outgrown their limit, however little each step has
    /// added. They are looked at from time to time.
    pub(super) fn check_sizes(
        &mut self,
        active: &[NodeId],
        sizes: impl Iterator<Item = TableSize>,
        shown: impl Fn(RelationId) -> Epoch,
    ) {
        let mut state = BTreeMap::<RelationId, usize>::new();
        for table in sizes {
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
                // What it shows now is the last that it shows.
                self.quarantine(output, &self.outgrown(&name, bytes), shown(id).next());
            }
        }
    }

    /// The relations that steps in flight may change.
    pub(super) fn owners_of(&self, active: &[NodeId]) -> BTreeSet<RelationId> {
        active.iter().filter_map(|n| self.graph.owner(*n)).collect()
    }

    /// A step that takes too long or makes too much is ended by quarantining what holds it up.
    fn check_limits(&mut self, epoch: Epoch) {
        let mut flights = self.flights.iter_mut();
        let Some(flight) = flights.find(|f| f.epoch == epoch) else { return };
        let interval = STATE_CHECK_INTERVAL.min(self.limits.step_timeout);
        if flight.measured.elapsed() < interval {
            return;
        }
        flight.measured = Instant::now();
        let forgiven = flight.forgiven;
        let (spent, Some(node)) = self.team.culprit(epoch) else { return };
        let outlasts = spent.saturating_sub(forgiven) >= self.limits.step_timeout;
        let Some(owner) = self.graph.owner(node) else { return };
        let catalog = self.shared.catalog();
        let relation = catalog.by_id(owner);
        let is_view = relation.is_some_and(|r| r.kind == RelationKind::MaterializedView);
        let name =
            relation.map_or_else(String::new, |r| format!("{} \"{}\"", r.kind.noun(), r.name));
        let error = match outlasts {
            true => Some(self.outlasted(&name)),
            // What comes into a table is not its own doing.
            false if !is_view => None,
            false => self.too_large(owner, &name).or_else(|| self.exceeds_memory(owner)),
        };
        let Some(error) = error else { return };
        tracing::warn!(%error, "a step was ended");
        self.team.fail_step(epoch, node, &error);
        // What is left of it gets its own time.
        let mut flights = self.flights.iter_mut();
        flights.find(|f| f.epoch == epoch).into_iter().for_each(|f| f.forgiven = spent);
    }

    fn outlasted(&self, name: &str) -> Error {
        let limit = self.limits.step_timeout.as_millis();
        Error::user(sqlstate::QUERY_CANCELED, format!("{name} was stopped by step_timeout"))
            .with_detail(format!("Taking in one change took more than {limit} ms."))
            .with_hint(
                "EXPLAIN MATERIALIZED VIEW shows joins without an equality, which read all rows \
                 for each change, and recursions, which end over a cycle with UNION and not with \
                 UNION ALL. Start with a larger --step-timeout, or DROP the view.",
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
            Needs::Suspended => self.flights.iter().any(|flight| !flight.suspended),
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

    /// The calls that can be made now, in their order.
    pub(super) fn run_waiting(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            self.call_when_free(waiting);
        }
    }

    /// Whether an epoch may be cut behind a step in flight on the same nodes: there is something to
    /// cut, and nobody waits until nothing is in flight.
    fn can_follow(&self) -> bool {
        let Some(last) = self.flights.last() else { return false };
        let normal = |f: &InFlight| f.builds.is_none() && !f.suspended;
        if self.team.workers() == 1
            || self.flights.len() >= EPOCHS_AHEAD
            || !self.flights.iter().all(normal)
            || !self.waiting.is_empty()
            || self.until_checkpoint().is_zero()
            || self.builds.iter().any(Build::wants_to_attach)
            // What others have stored is read when they are done with all epochs before.
            || self.flights.iter().any(|f| self.graph.any_reads_wide(&f.active))
        {
            return false;
        }
        // While it runs, what arrives is gathered: work is less in few large epochs than in many
        // small ones.
        let waiting = self.feeds.iter().map(SourceFeed::rows).sum::<usize>();
        self.feeds.len() >= SOURCE_QUEUE_BATCHES || (last.rows > 0 && waiting >= 2 * last.rows)
    }

    /// Whether steps in flight are in the way of what reaches some nodes.
    fn is_taken(&self, nodes: &BTreeSet<NodeId>) -> bool {
        self.flights.iter().any(|flight| flight.shares(nodes))
    }

    /// Whether nothing in flight is in the way of the epoch that is cut.
    pub(super) fn all_is_free(&self) -> bool {
        self.follows || self.flights.is_empty()
    }

    /// Whether nothing in flight is in the way of what a node reaches.
    pub(super) fn is_free(&self, node: NodeId) -> bool {
        self.all_is_free() || !self.is_taken(&self.active_set([node].into(), None))
    }

    /// Whether rows of an input can be taken.
    pub(super) fn input_is_free(&self, id: RelationId) -> bool {
        self.all_is_free() || self.inputs.get(&id).is_none_or(|r| self.is_free(r.node))
    }

    /// Commits that can be taken, and those that wait for a step in flight.
    fn split_commits(&self, commits: Vec<Commit>) -> (Vec<Commit>, Vec<Commit>) {
        commits.into_iter().partition(|commit| self.commit_is_free(commit))
    }

    /// Whether no step in flight is in the way of a commit. One without writes asks for everything
    /// that was there before it, so that it comes behind all of them: that is how who moves the
    /// clock knows that it has moved.
    fn commit_is_free(&self, commit: &Commit) -> bool {
        if self.sealed {
            return false;
        }
        let writes = &commit.writes;
        let empty_behind_others = writes.is_empty() && !self.flights.is_empty();
        !empty_behind_others && writes.iter().all(|(id, _)| self.input_is_free(*id))
    }

    fn take_free_watermarks(&mut self) -> Vec<(NodeId, usize, crate::time::Watermark)> {
        let all = std::mem::take(&mut self.watermarks);
        if self.all_is_free() {
            return all;
        }
        let (free, later) = all.into_iter().partition(|(node, ..)| self.is_free(*node));
        self.watermarks = later;
        free
    }

    fn take_free_wakes(&mut self) -> BTreeSet<NodeId> {
        let all = std::mem::take(&mut self.wake);
        if self.all_is_free() {
            return all;
        }
        let (free, later) = all.into_iter().partition(|node| self.is_free(*node));
        self.wake = later;
        free
    }

    /// Whether something waits that a new epoch could take.
    pub(super) fn has_free_work(&self) -> bool {
        let held = self.held_nodes();
        let mut known = BTreeMap::new();
        let mut free = |f: &SourceFeed| {
            (held.is_empty() || !self.is_feed_held(f, &held))
                && *known.entry(f.relation).or_insert_with(|| self.feed_is_free(f))
        };
        self.feeds.iter().any(&mut free)
            || self.commits.iter().any(|commit| self.commit_is_free(commit))
            || self.wake.iter().any(|node| self.is_free(*node))
            || self.watermarks.iter().any(|(node, ..)| self.is_free(*node))
            || self.has_old_rejects()
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
    /// Bytes of changes that an input of a view which is being built may hold back.
    pub(super) held_back_bytes: usize,
}
