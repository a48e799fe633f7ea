//! The run loop of a step: one worker's part of an epoch.
//!
//! THE run loop: rows that arrived, slices of stored rows, what imports had held back, then each
//! node in the order of their numbers: its marks, its flush, its own marks. A step runs for a slice
//! of time; what it has not done by then is kept as it is (its stack, the node that it is at) and
//! goes on in a later slice. Steps whose nodes are disjoint take turns, since a node's state
//! belongs to the one step that it is part of. Those of the same nodes run in the order of their
//! epochs: a worker that is done with its part of one goes on with its part of the next while
//! others are not. Messages carry their epoch, so that those of a step that is not running wait
//! for it. An operator that hands out its output in pieces is interrupted between two pieces, any
//! other one between two batches.
//!
//! Whether a step can go on is never noted, only looked up: from what there is to do, the messages
//! that have come, and the nodes, which calls between two slices may have removed.
//!
//! A recursion is gone round (`rounds`): the nodes of its step are finished again for each round.
//!
//! What panics fails the node that it was about, and nothing else: the others have their marks.

mod rounds;

use std::collections::VecDeque;
use std::ops::Bound::{Excluded, Unbounded};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::rounds::Rounds;
use super::graph::{NodeId, Outlet};
use super::links::Message;
use super::shared::lock;
use super::worker::{Node, Report, SharedInputs, Slice, Step, Worker, panicked};
use crate::config::EXCHANGE_PAUSE;
use crate::delta::DeltaBatch;
use crate::error::Error;
use crate::operator::Folded;
use crate::time::{Epoch, Watermark};

/// Something that a step is to do.
pub(super) enum Task {
    /// Rows for a port of a node.
    Rows(NodeId, usize, DeltaBatch),
    /// Rows for a port of a node that were folded by key.
    Folded(NodeId, usize, Box<Folded>),
    /// The next piece of a node's output.
    Resume(NodeId),
    /// Rows that come out of a node.
    Forward(NodeId, DeltaBatch),
}

impl Task {
    fn node(&self) -> NodeId {
        match self {
            Self::Rows(id, ..) | Self::Folded(id, ..) => *id,
            Self::Resume(id) | Self::Forward(id, _) => *id,
        }
    }
}

/// A step on its way.
#[derive(Default)]
pub(super) struct RunningStep {
    pub(super) epoch: Epoch,
    pub(super) now_us: i64,
    after: Vec<Epoch>,
    pub(super) before: Epoch,
    pub(super) building: bool,
    inputs: VecDeque<(NodeId, DeltaBatch)>,
    shared: SharedInputs,
    slices: VecDeque<Slice>,
    attach: VecDeque<NodeId>,
    watermarks: Vec<(NodeId, usize, Watermark)>,
    pub(super) active: Arc<Vec<NodeId>>,
    measure: bool,
    /// It has had its first turn.
    begun: bool,
    /// What is to be done first, the next at the end.
    pub(super) stack: Vec<Task>,
    /// The position in `active` of the node that is to be finished next.
    next: usize,
    /// That node has been flushed.
    flushed: bool,
    /// Messages that were not taken yet.
    inbox: VecDeque<Message>,
    /// The marks that have come for each node of `active` and were not waited for yet.
    marks: Vec<usize>,
    rounds: Rounds,
    /// The node whose rows wait for others to catch up.
    held_up: Option<NodeId>,
    spent: Duration,
    pub(super) report: Report,
}

impl From<Step> for RunningStep {
    fn from(step: Step) -> Self {
        Self {
            epoch: step.epoch,
            now_us: step.now_us,
            after: step.after,
            before: step.before.unwrap_or(Epoch(step.epoch.0.saturating_sub(1))),
            building: step.building,
            inputs: step.inputs.into(),
            shared: step.shared,
            slices: step.slices.into(),
            attach: step.attach.into(),
            watermarks: step.watermarks,
            marks: vec![0; step.active.len()],
            active: step.active,
            measure: step.measure,
            ..Self::default()
        }
    }
}

impl RunningStep {
    /// Whether there is something to do before the next node is looked at.
    fn has_tasks(&self) -> bool {
        !self.stack.is_empty() || !self.inbox.is_empty() || self.input().is_some()
    }

    /// The node that rows come into next. All come ahead of what is flushed.
    fn input(&self) -> Option<NodeId> {
        if self.next > 0 || self.flushed {
            return None;
        }
        let more = self.inputs.front().map(|(id, _)| *id);
        let more = more.or_else(|| self.slices.front().map(|slice| slice.node));
        let more = more.or_else(|| self.attach.front().copied());
        more.or_else(|| lock(&self.shared).front().map(|(id, _)| *id))
    }
}

/// How a node keeps a step from its end; who works comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// The worker is at it.
    Works,
    /// The worker waits until others have done their part of it.
    Waits,
}

/// Where a turn of a step has ended.
#[derive(PartialEq, Eq)]
enum Turn {
    Done,
    /// The slice is over.
    TimeOut,
    /// It needs a message.
    Waits,
    /// Others have to catch up before rows of a node are taken in.
    HeldUp(NodeId),
}

impl Worker {
    /// Works until there is nothing more to do; `tell` is given the reports.
    pub fn run(mut self, slice_us: &AtomicU64, tell: impl Fn(Epoch, Report)) {
        while !self.stopped {
            let next = self.next_turn();
            match next.map(|epoch| self.steps.get(&epoch).and_then(|step| step.held_up)) {
                None if self.calls.is_empty() => match self.inbox.recv() {
                    Ok(message) => self.sort(message),
                    Err(_) => return,
                },
                Some(Some(node)) => self.hold_up(node),
                _ => {}
            }
            let slice = Duration::from_micros(slice_us.load(Ordering::Relaxed));
            if let Some((epoch, report)) = self.turn(slice) {
                tell(epoch, report);
            }
        }
    }

    /// Takes the messages and makes the calls that are there, and gives the step whose turn it is a
    /// slice of time; its report when it is done.
    fn turn(&mut self, slice: Duration) -> Option<(Epoch, Report)> {
        self.poll();
        while let Some(call) = self.calls.pop_front() {
            call(self);
        }
        let epoch = self.next_turn()?;
        Some((epoch, self.take_turn(epoch, Instant::now() + slice)?))
    }

    /// Gives all steps or one of them a slice of time; the reports of those that are done.
    pub fn work_in_turn(&mut self, only: Option<Epoch>, slice: Duration) -> Vec<(Epoch, Report)> {
        let all = self.steps.keys().copied();
        let epochs: Vec<Epoch> = all.filter(|epoch| only.is_none_or(|o| o == *epoch)).collect();
        let mut reports = Vec::new();
        for epoch in epochs {
            let report = self.take_turn(epoch, Instant::now() + slice);
            reports.extend(report.map(|report| (epoch, report)));
        }
        reports
    }

    /// Takes a step in.
    pub fn admit(&mut self, step: Step) {
        let mut step = RunningStep::from(step);
        step.inbox = self.early.remove(&step.epoch).unwrap_or_default();
        self.newest = step.epoch;
        self.steps.insert(step.epoch, step);
    }

    /// The step whose turn it is: those that can go on take turns.
    fn next_turn(&self) -> Option<Epoch> {
        let ready = |(_, step): &(&Epoch, &RunningStep)| {
            let before = step.after.iter().any(|epoch| self.steps.contains_key(epoch));
            !before && (step.has_tasks() || self.has_marks(step))
        };
        let behind = self.steps.range((Excluded(self.last), Unbounded));
        let mut all = behind.chain(self.steps.range(..=self.last));
        all.find(ready).map(|(epoch, _)| *epoch)
    }

    /// Waits a moment for others to catch up.
    fn hold_up(&mut self, node: NodeId) {
        let began = Instant::now();
        if let Ok(message) = self.inbox.recv_timeout(EXCHANGE_PAUSE) {
            self.sort(message);
        }
        if let Ok(node) = self.node(node) {
            node.counted.held_up += began.elapsed();
        }
    }

    /// Takes the messages that are there.
    fn poll(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            self.sort(message);
        }
    }

    /// Puts a message where it belongs.
    fn sort(&mut self, message: Message) {
        let epoch = message.epoch().unwrap_or_default();
        match message {
            Message::Begin(step) => self.admit(*step),
            Message::Call(call) => self.calls.push_back(call),
            Message::Stop => self.stopped = true,
            rows if epoch == self.now.epoch => self.now.inbox.push_back(rows),
            rows => match self.steps.get_mut(&epoch) {
                Some(step) => step.inbox.push_back(rows),
                None if epoch > self.newest => {
                    self.early.entry(epoch).or_default().push_back(rows);
                }
                // It is for a node that its step ended without.
                None => {}
            },
        }
    }

    /// Makes the node that a step is at fail, here and on all other workers the same.
    pub fn fail_step(&mut self, epoch: Epoch, node: NodeId, error: &Error) {
        if let Ok(node) = self.node(node) {
            node.failed = true;
        }
        if let Some(step) = self.steps.get_mut(&epoch) {
            step.report.failures.push((node, error.clone()));
        }
    }

    /// How long a step has run here, and the node that keeps it from its end, with whether it is at
    /// work: the one that has more output to give, or the one that is next.
    pub fn culprit(&self, epoch: Epoch) -> (Duration, Option<(Hold, NodeId)>) {
        let Some(step) = self.steps.get(&epoch) else { return (Duration::ZERO, None) };
        let more = step.stack.iter().find(|task| matches!(task, Task::Resume(_)));
        let works = more.or_else(|| step.stack.last()).map(|task| (Hold::Works, task.node()));
        let waits = step.active.get(step.next).map(|node| (Hold::Waits, *node));
        (step.spent, works.or(waits))
    }

    /// Runs a step for a slice of time; its report when it is done.
    fn take_turn(&mut self, epoch: Epoch, deadline: Instant) -> Option<Report> {
        self.now = self.steps.remove(&epoch)?;
        self.last = epoch;
        let began = Instant::now();
        if !std::mem::replace(&mut self.now.begun, true) {
            let active = Arc::clone(&self.now.active);
            for node in active.iter().filter_map(|id| self.nodes.get(id.0 as usize)?.as_ref()) {
                self.state.begin_epoch(epoch, &node.tables);
            }
        }
        let turn = self.work(deadline);
        let mut step = std::mem::take(&mut self.now);
        step.spent += began.elapsed();
        step.held_up = if let Turn::HeldUp(node) = turn { Some(node) } else { None };
        if turn != Turn::Done {
            self.steps.insert(epoch, step);
            return None;
        }
        // What others have asked for is still needed.
        if self.steps.is_empty() {
            self.state.evict_all();
        }
        let mut report = step.report;
        report.spent = step.spent;
        report.sizes = step.measure.then(|| self.sizes());
        if self.state.checks() {
            report.failures.extend(self.check_changes(&step.active));
        }
        Some(report)
    }

    /// Compares what the tables of nodes have logged with what they hold.
    fn check_changes(&mut self, active: &[NodeId]) -> Vec<(NodeId, Error)> {
        let mut failures = Vec::new();
        for id in active {
            let Some(node) = self.nodes.get_mut(id.0 as usize).and_then(Option::as_mut) else {
                continue;
            };
            if !node.failed
                && let Err(error) = self.state.check_changes(&node.tables)
            {
                node.failed = true;
                failures.push((*id, error));
            }
        }
        failures
    }

    /// Works until the step is done or can't go on, or the slice is over. At least one task is done
    /// in each slice.
    fn work(&mut self, deadline: Instant) -> Turn {
        loop {
            while let Some(task) = self.now.stack.pop() {
                if let Task::Resume(id) = task
                    && self.is_held_up()
                {
                    self.now.stack.push(task);
                    if !self.take_message() {
                        return Turn::HeldUp(id);
                    }
                    continue;
                }
                let id = task.node();
                self.about(id, |worker| worker.perform(task));
                if Instant::now() >= deadline || self.has_newcomer() {
                    return Turn::TimeOut;
                }
            }
            // What others have sent comes first, so that little of it lies about.
            if self.take_message() {
                continue;
            }
            match self.next_input() {
                Some(Entry::Wait(id)) => return Turn::HeldUp(id),
                Some(Entry::Rows(id, rows)) => self.about(id, |worker| worker.enter(id, rows)),
                Some(Entry::Slice(slice)) => {
                    self.about(slice.node, |worker| worker.feed_slice(slice));
                }
                Some(Entry::Attach(id)) => self.about(id, |worker| worker.attach(id)),
                None => {
                    for (node, column, w) in std::mem::take(&mut self.now.watermarks) {
                        if let Ok(node) = self.node(node) {
                            node.watermarks.insert(column, w);
                        }
                    }
                    let Some(id) = self.now.active.get(self.now.next).copied() else {
                        return Turn::Done;
                    };
                    if !self.has_marks(&self.now) {
                        return Turn::Waits;
                    }
                    self.finish(id);
                }
            }
        }
    }

    /// Whether something has come that does not wait for the step that runs. Most steps are short:
    /// they do not wait for the end of a slice.
    fn has_newcomer(&mut self) -> bool {
        if self.links.workers() > 1 {
            self.poll();
        }
        let newest = self.steps.last_key_value();
        let waits = |epoch: &Epoch| *epoch == self.now.epoch || self.steps.contains_key(epoch);
        let new = newest.filter(|(_, step)| !step.begun && !step.after.iter().any(waits));
        new.is_some() || !self.calls.is_empty()
    }

    /// Whether others have to catch up.
    fn is_held_up(&mut self) -> bool {
        if !self.links.are_full(self.now.epoch) {
            return false;
        }
        self.poll();
        true
    }

    /// What comes in next, ahead of all that is to be flushed.
    fn next_input(&mut self) -> Option<Entry> {
        let into = self.now.input()?;
        if self.is_held_up() {
            return Some(Entry::Wait(into));
        }
        let now = &mut self.now;
        if let Some((id, rows)) = now.inputs.pop_front() {
            return Some(Entry::Rows(id, rows));
        }
        if let Some((id, rows)) = lock(&now.shared).pop_front() {
            return Some(Entry::Rows(id, rows));
        }
        let slice = now.slices.pop_front().map(Entry::Slice);
        slice.or_else(|| now.attach.pop_front().map(Entry::Attach))
    }

    /// Does something that is about a node; when it panics, the node has failed.
    fn about(&mut self, id: NodeId, what: impl FnOnce(&mut Self)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| what(self))) {
            self.fail(id, panicked("a worker", &panic));
        }
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Rows(id, port, delta) => self.process(id, port, delta),
            Task::Folded(id, port, folded) => self.process_folded(id, port, *folded),
            Task::Forward(id, delta) => self.forward(id, &delta, Outlet::Rows),
            Task::Resume(id) => {
                let failed = self.node(id).is_ok_and(|node| node.failed);
                if !failed {
                    self.call(id, |operator, cx, out| operator.resume(cx, out));
                }
            }
        }
    }

    /// Whether a step can finish its next node: the marks of all senders that run in it are in, and
    /// where it is a recursion, the rounds.
    fn has_marks(&self, step: &RunningStep) -> bool {
        let Some(id) = step.active.get(step.next).filter(|_| !step.flushed) else { return true };
        // Nobody sends what a node that is gone would wait for.
        let Some(Some(node)) = self.nodes.get(id.0 as usize) else { return true };
        let others = self.links.workers() - 1;
        step.rounds.are_in(*id, others) && step.marks[step.next] >= self.expected(step, node)
    }

    /// How many marks come for a node.
    fn expected(&self, step: &RunningStep, node: &Node) -> usize {
        // An exchange whose sender does not run in this step brings no marks; in a later round, one
        // from outside of what is repeated.
        let runs =
            |id: &NodeId| step.active.binary_search(id).is_ok() && step.rounds.is_repeated(*id);
        let exchanges = node.spec.inputs.iter().filter(|edge| edge.exchange.is_some());
        exchanges.filter(|edge| runs(&edge.from)).count() * (self.links.workers() - 1)
    }

    /// Ends a node's epoch: flushes it, and when what that made has gone down its edges, sends its
    /// marks.
    fn finish(&mut self, id: NodeId) {
        if self.goes_round(id) {
            return;
        }
        if !std::mem::replace(&mut self.now.flushed, true) {
            let Ok(node) = self.node(id) else { return };
            if !node.failed {
                self.call(id, |operator, cx, out| operator.flush(cx, out));
            }
            return;
        }
        self.now.flushed = false;
        self.leave(id);
        self.about(id, |worker| worker.send_marks(id));
    }

    /// Takes a message of this step, when there is one; those of others wait for their steps.
    fn take_message(&mut self) -> bool {
        if self.now.inbox.is_empty() && self.links.workers() > 1 {
            self.poll();
        }
        let Some(message) = self.now.inbox.pop_front() else { return false };
        match message {
            Message::Data(_, to, port, rows) => {
                self.now.stack.push(Task::Rows(to, port, rows.open()));
            }
            Message::Folded(_, to, port, folded) => {
                self.now.stack.push(Task::Folded(to, port, Box::new(folded.open())));
            }
            Message::Mark(_, to, port, sender, watermarks) => {
                if let Ok(at) = self.now.active.binary_search(&to) {
                    self.now.marks[at] += 1;
                }
                self.about(to, |worker| worker.advance(to, port, sender, &watermarks));
            }
            Message::Round(_, node, sender, least) => self.now.rounds.note(node, sender, least),
            Message::Begin(_) | Message::Call(_) | Message::Stop => {}
        }
        true
    }
}

/// What comes in ahead of all that is flushed.
enum Entry {
    Rows(NodeId, DeltaBatch),
    Slice(Slice),
    Attach(NodeId),
    /// It has to wait until others have caught up.
    Wait(NodeId),
}

#[cfg(test)]
mod tests;
