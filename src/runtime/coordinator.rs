//! The coordinator: cuts epochs, hands them to the workers, publishes them.
//!
//! It is the one sequencer of the engine: everything that changes state comes to it as an
//! [`Event`]. Definitions change between two slices of work (`steps`). A single worker runs on its
//! thread, so that an epoch costs no hand-over; of several it only coordinates the work.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::build::Build;
use super::checkpoint::Checkpointer;
use super::eviction::Eviction;
use super::graph::{GraphBuilder, NodeId};
use super::ingest::{Cutter, InputRoute, Parts};
use super::journal::Journal;
use super::keeping::Keeping;
use super::memory::Measured;
use super::rebuild::Rebuilt;
use super::rejects::Rejects;
use super::restoring::Restoring;
use super::running_sink::RunningSink;
use super::shared::{Pin, RelationState, RelationStatus, Shared, WriteTicket, lock};
use super::source_task::{FeedKind, SourceFeed, SourceState, SourceTask};
use super::steps::{InFlight, Inputs, Limits, Needs, Waiting};
use super::subscribers::Subscriber;
use super::team::Team;
use super::versions::ReaderLimits;
use super::worker::Report;
use crate::catalog::RelationId;
use crate::config::{
    BATCH_ROWS, Config, EPOCH_BYTES_PER_ROW, EPOCH_ROWS_MAX, EPOCH_TARGET_BULK,
    EPOCH_TARGET_INTERACTIVE, EVALUATION_STACK_BYTES, SinkLimits,
};
use crate::connector::{Positions, Source};
use crate::delta::DeltaBatch;
use crate::error::{Error, Result, sqlstate};
use crate::sql::memory::Memory;
use crate::store::Lsn;
use crate::time::{Epoch, Watermark};

/// Writes to tables that become visible in one epoch.
pub struct Commit {
    /// Changes by relation.
    pub writes: Vec<(RelationId, DeltaBatch)>,
    /// Those of them that were split already, by place.
    pub parts: Vec<Option<Parts>>,
    /// Told the epoch once it is published.
    pub done: oneshot::Sender<Result<Epoch>>,
    /// The write tickets of tables that it was made from. They belong to the write, not to who
    /// waits for it: they are given back when it is published or refused.
    pub tickets: Vec<WriteTicket>,
    /// The clock that they were taken at in an earlier life; `None`: now.
    pub at_us: Option<i64>,
}

/// What comes to the coordinator.
pub enum Event {
    /// Writes.
    Commit(Commit),
    /// Rows of a source.
    Source(SourceFeed),
    /// Something to do between two slices of work.
    Call(Box<dyn FnOnce(&mut Coordinator) + Send>),
    /// The same, when no step in flight touches what it needs.
    CallWhenFree(Waiting),
    /// A worker has done its part of an epoch.
    Report(usize, Epoch, Report),
    /// Ends the thread.
    Stop,
}

/// How the rest of the engine reaches the coordinator.
#[derive(Clone)]
pub struct CoordinatorHandle {
    events: Sender<Event>,
}

fn stopped() -> Error {
    Error::external(sqlstate::ADMIN_SHUTDOWN, "the engine has stopped").permanent()
}

impl CoordinatorHandle {
    /// Commits writes and waits until they are visible. They are with the coordinator when the
    /// future has been polled once, and happen whether or not it is polled again.
    pub async fn commit(
        &self,
        writes: Vec<(RelationId, DeltaBatch)>,
        parts: Vec<Option<Parts>>,
        tickets: Vec<WriteTicket>,
    ) -> Result<Epoch> {
        let (done, published) = oneshot::channel();
        let commit = Commit { writes, parts, done, tickets, at_us: None };
        self.events.send(Event::Commit(commit)).map_err(|_| stopped())?;
        published.await.map_err(|_| stopped())?
    }

    /// Runs something between two epochs and waits for its result.
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Coordinator) -> T + Send + 'static,
    ) -> Result<T> {
        let (done, result) = oneshot::channel();
        let call = move |coordinator: &mut Coordinator| drop(done.send(call(coordinator)));
        self.events.send(Event::Call(Box::new(call))).map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())
    }

    /// Runs something when no step in flight touches what it needs, and waits for its result.
    pub async fn call_when_free<T: Send + 'static>(
        &self,
        needs: Needs,
        call: impl FnOnce(&mut Coordinator) -> T + Send + 'static,
    ) -> Result<T> {
        let (done, result) = oneshot::channel();
        let call = Box::new(move |c: &mut Coordinator| drop(done.send(call(c))));
        let waiting = Event::CallWhenFree(Waiting { needs, call });
        self.events.send(waiting).map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())
    }

    /// Hands writes of an earlier life in; the receiver is told when they are visible.
    pub async fn commit_again(
        &self,
        commit: crate::store::log::Commit,
    ) -> Result<Result<oneshot::Receiver<Result<Epoch>>>> {
        self.call(move |c| c.commit_again(commit)).await
    }

    /// Runs something between two epochs without waiting for it.
    pub fn send(&self, call: impl FnOnce(&mut Coordinator) + Send + 'static) {
        drop(self.events.send(Event::Call(Box::new(call))));
    }

    /// Asks the coordinator to end.
    pub fn stop(&self) {
        drop(self.events.send(Event::Stop));
    }
}

/// A source relation as the coordinator runs it.
pub(super) struct RunningSource {
    pub(super) source: Arc<dyn Source>,
    /// Where every reader of this source begins.
    pub(super) start: Option<Positions>,
    pub(super) task: Option<SourceTask>,
    /// The next position that the engine has not taken.
    pub(super) taken: Positions,
    /// What these are positions of, where the system tells.
    pub(super) identity: Option<String>,
    pub(super) state: Arc<Mutex<SourceState>>,
    pub(super) errors: RelationId,
    /// The rows of `$errors`, oldest first.
    pub(super) rejects: Rejects,
    pub(super) ended: bool,
}

/// The one sequencer of an engine.
pub struct Coordinator {
    pub(super) shared: Arc<Shared>,
    pub(super) team: Team,
    pub(super) graph: GraphBuilder,
    pub(super) epoch: Epoch,
    /// The clock of the last epoch, in microseconds.
    pub(super) now_us: i64,
    pub(super) events: Sender<Event>,
    inbox: Receiver<Event>,
    pub(super) inputs: BTreeMap<RelationId, InputRoute>,
    pub(super) sources: BTreeMap<RelationId, RunningSource>,
    pub(super) builds: Vec<Build>,
    pub(super) subscribers: BTreeMap<NodeId, Vec<Subscriber>>,
    pub(super) sinks: BTreeMap<RelationId, (NodeId, RunningSink)>,
    pub(super) sink_limits: SinkLimits,
    pub(super) next_task: u64,
    pub(super) commits: Vec<Commit>,
    /// No commit is taken for now.
    pub(super) sealed: bool,
    /// Relations that nobody should write to, since a sink has no room.
    pub(super) held: BTreeSet<RelationId>,
    pub(super) feeds: VecDeque<SourceFeed>,
    /// Nodes that have to run in the next epoch though nothing arrived for them.
    pub(super) wake: BTreeSet<NodeId>,
    /// Watermarks of input nodes for the next epoch.
    pub(super) watermarks: Vec<(NodeId, usize, Watermark)>,
    /// Rows that an epoch takes from sources, steered by step time.
    budget: usize,
    /// The last time that a session waited for a write.
    interactive: Option<Instant>,
    flushes: Vec<oneshot::Sender<Result<()>>>,
    pub(super) cutter: Option<Cutter>,
    /// Stored rows that a worker feeds to a new view between two epochs.
    pub(super) slice_rows: usize,
    pub(super) readers: ReaderLimits,
    pub(super) stopping: bool,
    /// Cuts checkpoints, when there is a data directory.
    pub(super) checkpointer: Option<Checkpointer>,
    /// What is kept for the next life, when there is a data directory; it lets go of that last.
    pub(super) journal: Option<Journal>,
    /// The messages of sinks, when there is a data directory.
    pub(super) keeping: Option<Keeping>,
    /// The checkpoint that this life begins with.
    pub(super) restoring: Option<Restoring>,
    /// Relations of which it had not all.
    pub(super) void: BTreeSet<u32>,
    /// Tables of views that are built anew.
    pub(super) rebuilt: Rebuilt,
    /// Epochs that are under way.
    pub(super) flights: Vec<InFlight>,
    /// The epoch that is being cut comes behind all of them.
    pub(super) follows: bool,
    /// What waits for them.
    pub(super) waiting: Vec<Waiting>,
    pub(super) limits: Limits,
    /// When the state of views is measured next.
    pub(super) sizes_due: Instant,
    pub(super) measured: Measured,
    pub(super) eviction: Eviction,
}

impl Coordinator {
    /// Starts the coordinator and the workers.
    pub fn start(
        config: &Config,
        (shared, memory): (Arc<Shared>, Arc<Memory>),
    ) -> Result<(CoordinatorHandle, std::thread::JoinHandle<()>)> {
        let (events, inbox) = channel();
        let handle = CoordinatorHandle { events: events.clone() };
        let team = Team::start(config.workers, config.check_contracts, &events)?;
        let coordinator = Self {
            shared,
            team,
            graph: GraphBuilder::default(),
            epoch: Epoch::ZERO,
            now_us: i64::MIN,
            events,
            inbox,
            inputs: BTreeMap::new(),
            sources: BTreeMap::new(),
            builds: Vec::new(),
            subscribers: BTreeMap::new(),
            sinks: BTreeMap::new(),
            sink_limits: config.sink_limits,
            next_task: 0,
            commits: Vec::new(),
            sealed: false,
            held: BTreeSet::new(),
            feeds: VecDeque::new(),
            wake: BTreeSet::new(),
            watermarks: Vec::new(),
            budget: BATCH_ROWS,
            interactive: None,
            flushes: Vec::new(),
            cutter: config.cuts.map(Cutter::new),
            slice_rows: config.slice_rows.max(1),
            readers: ReaderLimits::new(config),
            stopping: false,
            journal: None,
            checkpointer: None,
            keeping: None,
            restoring: None,
            void: BTreeSet::new(),
            rebuilt: Rebuilt::new(),
            flights: Vec::new(),
            follows: false,
            waiting: Vec::new(),
            sizes_due: Instant::now(),
            measured: Measured::new(memory),
            eviction: Eviction::new(config.evicts_always),
            limits: Limits {
                held_back_bytes: config.held_back_bytes,
                step_timeout: config.step_timeout,
                state_bytes: config.state_limit_bytes,
            },
        };
        let thread = std::thread::Builder::new()
            .name("coordinator".into())
            .stack_size(EVALUATION_STACK_BYTES)
            .spawn(move || coordinator.run())?;
        Ok((handle, thread))
    }

    fn run(mut self) {
        let mut goes_on = false;
        while !self.stopping {
            self.tell_held();
            self.wait(goes_on);
            while let Ok(event) = self.inbox.try_recv() {
                self.take(event);
            }
            if self.stopping {
                break;
            }
            if self.is_loading() {
                // Nothing runs over tables without their rows.
                goes_on = false;
                continue;
            }
            self.proceed();
            self.measure_memory();
            self.cut_if_due();
            self.evict_if_due();
            self.check_clock();
            goes_on = self.begin_builds();
            goes_on |= self.begin_epoch();
            goes_on |= self.goes_on_evicting();
            self.answer_flushes();
        }
        self.end_sinks();
    }

    pub(super) fn has_work(&self) -> bool {
        let (held, blocked) = (self.held_nodes(), self.blocked_nodes());
        let builds = self.builds.iter().any(|build| build.has_work(&blocked));
        let fed = self.feeds.iter().any(|feed| held.is_empty() || !self.is_feed_held(feed, &held));
        !self.commits.is_empty()
            || fed
            || builds
            || !self.wake.is_empty()
            || !self.watermarks.is_empty()
            || self.has_old_rejects()
    }

    /// Waits for an event, unless there is something to do: it `goes_on`, or works here.
    fn wait(&mut self, goes_on: bool) {
        if goes_on || (self.team.workers() == 1 && !self.flights.is_empty()) {
            return;
        }
        // Full sinks tell nobody when they have room again; steps in flight tell their end.
        let fed = !self.feeds.is_empty() && self.flights.is_empty();
        let nothing_held = !fed && self.held.is_empty();
        let pause = match (nothing_held, self.watches_clock()) {
            (false, _) => 2,
            (true, true) => 100,
            (true, false) => 500,
        };
        let pause = self.until_checkpoint().min(Duration::from_millis(pause));
        let pause = pause.min(self.until_slice_ends());
        match self.inbox.recv_timeout(pause) {
            Ok(event) => self.take(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.stopping = true,
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Commit(commit) => {
                self.interactive = Some(Instant::now());
                self.commits.push(commit);
            }
            Event::Source(feed) => self.feeds.push_back(feed),
            Event::Call(call) => self.call_when_free(Waiting { needs: Needs::Suspended, call }),
            Event::CallWhenFree(waiting) => self.call_when_free(waiting),
            Event::Report(worker, epoch, report) => self.take_report(worker, epoch, report),
            Event::Stop => self.stopping = true,
        }
    }

    /// Answers when everything that bounded sources have is in the published answers.
    pub fn flush(&mut self, done: oneshot::Sender<Result<()>>) {
        self.flushes.push(done);
    }

    /// Lets commits wait, or go on: what is acknowledged meanwhile would be in no state.
    pub fn seal(&mut self, sealed: bool) {
        self.sealed = sealed;
    }

    /// Whether a bounded source has not been read to its end.
    pub fn reads_bounded(&self) -> bool {
        self.sources.values().any(|s| {
            s.task.is_some()
                && s.source.is_bounded()
                && !s.ended
                && lock(&s.state).state != "failed"
        })
    }

    fn answer_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        let working = !self.builds.is_empty() || !self.flights.is_empty();
        let waits = self.reads_bounded() || self.has_work() || working;
        // What waits for a sink that does not deliver would be waited for without end.
        let answer = match self.obstacle() {
            Some(error) if waits => Err(error),
            _ if waits => return,
            _ => Ok(()),
        };
        for done in self.flushes.drain(..) {
            // Whoever asked may be gone.
            let _ = done.send(answer.clone());
        }
    }

    pub(super) fn take_commits(
        &mut self,
        commits: Vec<Commit>,
        inputs: &mut Inputs,
    ) -> (Vec<Commit>, Option<Lsn>) {
        // A table can be dropped between a statement's binding and its commit.
        let inputs_of =
            |commit: &Commit| commit.writes.iter().all(|(id, _)| self.inputs.contains_key(id));
        let (commits, gone): (Vec<_>, Vec<_>) = commits.into_iter().partition(inputs_of);
        for commit in gone {
            let error = Error::user(sqlstate::UNDEFINED_TABLE, "the table was dropped meanwhile");
            drop(commit.done.send(Err(error)));
        }
        let (commits, lsn) = self.log_commits(commits);
        let mut commits = commits;
        for commit in &mut commits {
            let now_us = commit.at_us.unwrap_or_else(|| self.shared.clock.now_us());
            let mut parts = std::mem::take(&mut commit.parts).into_iter();
            for (id, rows) in &mut commit.writes {
                // Many rows are not kept until they are published.
                let empty = DeltaBatch::empty(rows.schema());
                let rows = std::mem::replace(rows, empty);
                self.enter(*id, (rows, parts.next().flatten()), now_us, inputs);
            }
        }
        (commits, lsn)
    }

    /// Rows written by a statement or by the engine itself.
    pub(super) fn enter(
        &mut self,
        id: RelationId,
        (rows, parts): (DeltaBatch, Option<Parts>),
        now_us: i64,
        inputs: &mut Inputs,
    ) {
        let Some(route) = self.inputs.get_mut(&id) else { return };
        self.shared.count_rows_in(rows.len());
        // The arrivals of a table's rows are told in the order of all of them.
        let parts = parts.filter(|_| route.watermark.is_none());
        let (rows, advanced) = route.observe(rows, now_us);
        if let Some((column, w)) = advanced {
            self.watermarks.push((route.node, column, w));
        }
        let node = route.node;
        if let Err(error) = route.route((rows, parts), inputs, self.cutter.as_mut()) {
            // Without these rows everything behind it would be wrong.
            self.quarantine(node, &error, self.epoch.next());
        }
    }

    pub(super) fn commit_result(
        &self,
        writes: &[(RelationId, DeltaBatch)],
        epoch: Epoch,
    ) -> Result<Epoch> {
        let relations = self.shared.relations();
        for (id, _) in writes {
            if let Some(RelationStatus::Quarantined(_, error)) =
                relations.get(id).map(|r| r.status())
            {
                return Err(error);
            }
        }
        Ok(epoch)
    }

    /// Takes batches of sources up to the budget; returns the rows taken.
    pub(super) fn take_feeds(&mut self, inputs: &mut Inputs) -> usize {
        let mut rows = 0;
        let held = self.held_nodes();
        while rows < self.budget {
            let Some(feed) = self.next_feed(&held) else { break };
            rows += match self.take_repair(feed, inputs) {
                ControlFlow::Break(rows) => rows,
                ControlFlow::Continue(feed) => self.take_feed(feed, inputs),
            };
        }
        rows
    }

    /// Whether no step in flight is in the way of a batch of a source.
    pub(super) fn feed_is_free(&self, feed: &SourceFeed) -> bool {
        let errors = self.sources.get(&feed.relation).map(|running| running.errors);
        self.input_is_free(feed.relation) && errors.is_none_or(|id| self.input_is_free(id))
    }

    fn take_feed(&mut self, feed: SourceFeed, inputs: &mut Inputs) -> usize {
        if let Some(build) = self.builds.iter_mut().find(|b| b.replays(feed.task)) {
            return build.take_replay(feed);
        }
        let Some(running) = self.sources.get_mut(&feed.relation) else { return 0 };
        let Some(task) = running.task.as_ref().filter(|t| t.number == feed.task) else { return 0 };
        if let FeedKind::GoesOn(on) = feed.kind {
            self.source_goes_on(feed.relation, on);
            return 1;
        }
        task.give_back();
        let Some(route) = self.inputs.get_mut(&feed.relation) else { return 0 };
        let advanced = match feed.kind {
            FeedKind::GoesOn(_) | FeedKind::Retried(..) | FeedKind::Forgotten(_) => None,
            FeedKind::End => {
                running.ended = true;
                route.end()
            }
            // What was read before stays, and who reads it is told.
            FeedKind::Failed(error) => {
                self.shared.note_failed_source(feed.relation, Some(error));
                None
            }
            FeedKind::Rows { split, next, rows, parts, rejected, watermark, lateness } => {
                running.taken.insert(split, next);
                if let Some(start) = &mut running.start {
                    // A split that was found later begins with its first message.
                    start.entry(split).or_insert(0);
                }
                let errors = running.errors;
                {
                    let mut state = lock(&running.state);
                    state.positions.insert(split, next);
                    state.rejected += rejected.len() as u64;
                }
                // As they are ahead of the watermark behind them.
                let parts = parts.map(|parts| parts.admit(route));
                let rows = route.admit(rows);
                let now = self.shared.clock.now_us();
                let advanced = watermark.and_then(|w| route.advance(split, w, now));
                route.count_late(split, &lateness);
                let count = rows.len();
                if let Some((column, w)) = advanced {
                    self.watermarks.push((route.node, column, w));
                }
                let node = route.node;
                let routed = route.route((rows, parts), inputs, self.cutter.as_mut());
                let rejects = match rejected.is_empty() {
                    true => Ok(Vec::new()),
                    false => running.rejects.add(split, &rejected, now),
                };
                self.shared.count_rows_in(count);
                if let Err(error) = routed {
                    self.quarantine(node, &error, self.epoch.next());
                }
                self.enter_rejects(errors, rejects, now, inputs);
                return count + 1;
            }
        };
        if let Some((column, w)) = advanced {
            let node = route.node;
            self.watermarks.push((node, column, w));
        }
        1
    }

    /// What messages that could not be decoded change in the `$errors` of their source.
    fn enter_rejects(
        &mut self,
        errors: RelationId,
        rejects: Result<Vec<DeltaBatch>>,
        now_us: i64,
        inputs: &mut Inputs,
    ) {
        match rejects {
            Ok(changes) => {
                changes.into_iter().for_each(|c| self.enter(errors, (c, None), now_us, inputs));
            }
            Err(error) => {
                if let Some(node) = self.inputs.get(&errors).map(|route| route.node) {
                    self.quarantine(node, &error, self.epoch.next());
                }
            }
        }
    }

    /// Publishes what a flight has done under an epoch, and answers those who wait for it.
    pub(super) fn publish(&mut self, epoch: Epoch, flight: InFlight, reports: Vec<Report>) {
        let InFlight { epoch: own, now_us, active, commits, builds: build, .. } = flight;
        let relations = self.shared.relations();
        let mut taps: BTreeMap<NodeId, Vec<DeltaBatch>> = BTreeMap::new();
        let (mut failures, mut sizes) = (Vec::new(), Vec::new());
        let mut watermarks: BTreeMap<(NodeId, usize), Watermark> = BTreeMap::new();
        for (worker, report) in reports.into_iter().enumerate() {
            for (node, delta) in report.taps {
                taps.entry(node).or_default().push(delta);
            }
            failures.extend(report.failures);
            for (node, column, w) in report.watermarks {
                let slot = watermarks.entry((node, column)).or_insert(w);
                *slot = slot.meet(w);
            }
            self.builds.iter_mut().for_each(|b| b.fed(worker, &report.fed));
            sizes.extend(report.sizes);
        }
        for (node, error) in failures {
            // What it has written has the number that it was cut with.
            self.quarantine(node, &error, own);
        }
        self.note_progress(epoch, &relations, &active, &watermarks);
        let owners = self.owners_of(&active);
        let behind = self.still_behind(own, &owners);
        let oldest = self.shared.publish(epoch, now_us, &owners, &behind);
        // A view becomes readable with the epoch that completes it, not before.
        self.finish_builds(build, epoch);
        self.fail_builds();
        self.deliver(epoch, &taps, &active);
        self.answer(commits, epoch);
        self.vacuum(oldest, &owners);
        if oldest < epoch {
            self.cut_off_readers(epoch);
        }
        if !sizes.is_empty() {
            // Where the next step is at it already, this epoch has the number that it was cut with.
            let shown = |id| behind.get(&id).copied().unwrap_or(epoch);
            self.note_state_bytes(sizes.iter().flatten().map(|table| table.bytes).sum());
            self.check_sizes(&active, sizes.into_iter().flatten(), shown);
        }
    }

    fn note_progress(
        &self,
        epoch: Epoch,
        relations: &BTreeMap<RelationId, Arc<RelationState>>,
        active: &[NodeId],
        watermarks: &BTreeMap<(NodeId, usize), Watermark>,
    ) {
        for relation in self.owners_of(active).iter().filter_map(|id| relations.get(id)) {
            let mut progress = lock(&relation.progress);
            progress.changed = epoch;
            progress.updated = Some(Instant::now());
            let Some(output) = self.graph.output(relation.id) else { continue };
            for ((_, column), w) in watermarks.range((output, 0)..=(output, usize::MAX)) {
                let slot = progress.watermarks.entry(*column).or_insert(*w);
                *slot = slot.join(*w);
            }
        }
    }

    /// Freezes a failed node's relation and everything that depends on it.
    pub(super) fn quarantine(&mut self, node: NodeId, error: &Error, epoch: Epoch) {
        let last = Epoch(epoch.0.saturating_sub(1));
        let relations = self.shared.relations();
        let owners: BTreeSet<RelationId> =
            self.graph.reachable([node]).iter().filter_map(|n| self.graph.owner(*n)).collect();
        for relation in owners.iter().filter_map(|id| relations.get(id)) {
            let mut progress = lock(&relation.progress);
            let failed = match &progress.status {
                // An epoch that was under way when what comes behind it could not be taken in.
                RelationStatus::Quarantined(old, first) if *old > last => {
                    Some((last, first.clone()))
                }
                RelationStatus::Quarantined(..) => None,
                // One that was to be built anew keeps its old answer.
                RelationStatus::Rebuilding(old, _) => Some((*old, error.clone())),
                RelationStatus::Building | RelationStatus::Running => Some((last, error.clone())),
            };
            if let Some((last, error)) = failed {
                tracing::error!(relation = %relation.id, %error, "quarantined");
                progress.status = RelationStatus::Quarantined(last, error);
            }
            drop(progress);
            self.builds.retain_mut(|b| !b.fail(relation.id, error));
            if let Some(output) = self.graph.output(relation.id) {
                let subscribers = self.subscribers.remove(&output).unwrap_or_default();
                subscribers.iter().for_each(|s| s.fail(error.clone()));
            }
        }
    }

    /// Whether a session waited for a write a moment ago.
    pub(super) fn somebody_waits(&self) -> bool {
        self.interactive.is_some_and(|at| at.elapsed() < Duration::from_secs(1))
    }

    /// Steers the size of the next epoch by the time that this one took.
    pub(super) fn steer(&mut self, took: Duration, rows: usize) {
        let target =
            if self.somebody_waits() { EPOCH_TARGET_INTERACTIVE } else { EPOCH_TARGET_BULK };
        if took > target {
            self.budget = (self.budget / 2).max(BATCH_ROWS);
        } else if rows >= self.budget && took < target / 2 {
            self.budget = (self.budget * 2).min(EPOCH_ROWS_MAX);
        }
        // What an epoch brings into memory leaves it at its end at the earliest.
        let room = self.memory().whole_limit() / EPOCH_BYTES_PER_ROW;
        self.budget = self.budget.min(room.max(BATCH_ROWS));
    }

    /// The definitions as they are between two epochs.
    pub fn catalog(&self) -> Arc<crate::catalog::Catalog> {
        self.shared.catalog()
    }

    /// A pin of the last published epoch.
    pub fn pin(&self) -> Pin {
        self.shared.pin()
    }
}
