//! The run loop of a step: one worker's part of an epoch.
//!
//! THE run loop: rows that arrived, slices of stored rows, what imports had held back, then each
//! node in the order of their numbers: its marks, its flush, its own marks. A step runs for a slice
//! of time; what it has not done by then is kept as it is (its stack, the node that it is at) and
//! goes on in a later slice. Steps whose nodes are disjoint can take turns, since a node's state
//! belongs to the one step that it is part of; messages carry their epoch, so that those of a step
//! that is not running wait for it. An operator that hands out its output in pieces is interrupted
//! between two pieces, any other one between two batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Instant;

use super::graph::{NodeId, Outlet};
use super::worker::{Message, Report, Slice, Step, Worker};
use crate::delta::DeltaBatch;
use crate::error::Error;
use crate::time::{Epoch, Watermark};

/// Something that a step is to do.
pub(super) enum Task {
    /// Rows for a port of a node.
    Rows(NodeId, usize, DeltaBatch),
    /// The next piece of a node's output.
    Resume(NodeId),
    /// Rows that come out of a node.
    Forward(NodeId, DeltaBatch),
}

impl Task {
    fn node(&self) -> NodeId {
        match self {
            Self::Rows(id, ..) | Self::Resume(id) | Self::Forward(id, _) => *id,
        }
    }
}

/// A step on its way.
#[derive(Default)]
pub(super) struct RunningStep {
    pub(super) epoch: Epoch,
    pub(super) now_us: i64,
    pub(super) before: Epoch,
    pub(super) building: bool,
    inputs: VecDeque<(NodeId, DeltaBatch)>,
    slices: VecDeque<Slice>,
    attach: VecDeque<NodeId>,
    watermarks: Vec<(NodeId, usize, Watermark)>,
    pub(super) active: Arc<Vec<NodeId>>,
    /// What is to be done first, the next at the end.
    pub(super) stack: Vec<Task>,
    /// The position in `active` of the node that is to be finished next.
    next: usize,
    /// That node has been flushed.
    flushed: bool,
    /// Messages that came while another step ran.
    inbox: VecDeque<Message>,
    pub(super) report: Report,
}

impl From<Step> for RunningStep {
    fn from(step: Step) -> Self {
        Self {
            epoch: step.epoch,
            now_us: step.now_us,
            before: step.before.unwrap_or(Epoch(step.epoch.0.saturating_sub(1))),
            building: step.building,
            inputs: step.inputs.into(),
            slices: step.slices.into(),
            attach: step.attach.into(),
            watermarks: step.watermarks,
            active: step.active,
            ..Self::default()
        }
    }
}

/// What came of waiting for a message.
enum Received {
    Message,
    /// The slice is over.
    TimeOut,
    /// The other workers are gone: the engine is shutting down.
    Gone,
}

impl Worker {
    /// Begins a step; its report when it is done before the deadline.
    pub fn begin(&mut self, step: Step, deadline: Instant) -> Option<Report> {
        self.now = step.into();
        let active = Arc::clone(&self.now.active);
        for id in active.iter() {
            let Some(Some(node)) = self.nodes.get_mut(id.0 as usize) else { continue };
            node.begun = self.now.epoch;
            self.state.begin_epoch(&node.tables);
        }
        self.run_until(deadline)
    }

    /// Goes on with a step; its report when it is done before the deadline. Nothing when this
    /// worker has done its part.
    pub fn proceed(&mut self, epoch: Epoch, deadline: Instant) -> Option<Report> {
        self.now = self.suspended.remove(&epoch)?;
        self.run_until(deadline)
    }

    /// Makes the node that a suspended step is at fail, here and on all other workers the same.
    pub fn fail_step(&mut self, epoch: Epoch, node: NodeId, error: &Error) {
        if let Ok(node) = self.node(node) {
            node.failed = true;
        }
        if let Some(step) = self.suspended.get_mut(&epoch) {
            step.report.failures.push((node, error.clone()));
        }
    }

    /// The node that keeps a suspended step from its end: the one that has more output to give, or
    /// the one that is next.
    pub fn culprit(&self, epoch: Epoch) -> Option<NodeId> {
        let step = self.suspended.get(&epoch)?;
        let more = step.stack.iter().find(|task| matches!(task, Task::Resume(_)));
        let waits = step.active.get(step.next).copied();
        more.or_else(|| step.stack.last()).map(Task::node).or(waits)
    }

    fn run_until(&mut self, deadline: Instant) -> Option<Report> {
        let done = self.work(deadline);
        let step = std::mem::take(&mut self.now);
        if done {
            // What others have asked for is still needed.
            if self.suspended.is_empty() {
                self.state.evict_all();
            }
            let mut report = step.report;
            if self.state.checks_residency() {
                report.failures.extend(self.check_changes(&step.active));
            }
            return Some(report);
        }
        self.suspended.insert(step.epoch, step);
        None
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

    /// Works until the step is done or the slice is over; whether it is done. At least one task is
    /// done in each slice.
    fn work(&mut self, deadline: Instant) -> bool {
        loop {
            while let Some(task) = self.now.stack.pop() {
                self.perform(task);
                if Instant::now() >= deadline {
                    return false;
                }
            }
            if let Some((node, delta)) = self.now.inputs.pop_front() {
                self.enter(node, delta);
            } else if let Some(slice) = self.now.slices.pop_front() {
                self.feed_slice(slice);
            } else if let Some(node) = self.now.attach.pop_front() {
                self.attach(node);
            } else {
                for (node, column, w) in std::mem::take(&mut self.now.watermarks) {
                    if let Ok(node) = self.node(node) {
                        node.watermarks.insert(column, w);
                    }
                }
                let Some(id) = self.now.active.get(self.now.next).copied() else { return true };
                if !self.now.flushed && !self.has_marks(id) {
                    match self.receive(deadline) {
                        Received::Message => continue,
                        Received::TimeOut => return false,
                        Received::Gone => return true,
                    }
                }
                self.finish(id);
            }
        }
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Rows(id, port, delta) => self.process(id, port, delta),
            Task::Forward(id, delta) => self.forward(id, &delta, Outlet::Rows),
            Task::Resume(id) => {
                let failed = self.node(id).is_ok_and(|node| node.failed);
                if !failed {
                    self.call(id, |operator, cx, out| operator.resume(cx, out));
                }
            }
        }
    }

    /// Whether the marks of all senders that run in this step are in.
    fn has_marks(&self, id: NodeId) -> bool {
        let Some(node) = self.nodes.get(id.0 as usize).and_then(Option::as_ref) else {
            return true;
        };
        // An exchange whose sender does not run in this step brings no marks.
        let exchanges = node.spec.inputs.iter().filter(|e| e.exchange.is_some());
        let active = &self.now.active;
        let running = exchanges.filter(|e| active.binary_search(&e.from).is_ok()).count();
        node.marks >= running * (self.workers - 1)
    }

    /// Ends a node's epoch: flushes it, and when what that made has gone down its edges, sends its
    /// marks.
    fn finish(&mut self, id: NodeId) {
        if !std::mem::replace(&mut self.now.flushed, true) {
            let Ok(node) = self.node(id) else { return };
            node.marks = 0;
            if !node.failed {
                self.call(id, |operator, cx, out| operator.flush(cx, out));
            }
            return;
        }
        self.send_marks(id);
        self.now.flushed = false;
        self.now.next += 1;
    }

    /// Takes a message of this step; those of others wait for their steps.
    fn receive(&mut self, deadline: Instant) -> Received {
        if let Some(message) = self.now.inbox.pop_front() {
            self.take(message);
            return Received::Message;
        }
        let wait = deadline.saturating_duration_since(Instant::now());
        match self.inbox.recv_timeout(wait) {
            Ok(message) => {
                let epoch = message.epoch();
                if epoch == self.now.epoch {
                    self.take(message);
                } else if let Some(step) = self.suspended.get_mut(&epoch) {
                    step.inbox.push_back(message);
                }
                // Otherwise it is for a node that its step ended without.
                Received::Message
            }
            Err(RecvTimeoutError::Timeout) => Received::TimeOut,
            Err(RecvTimeoutError::Disconnected) => Received::Gone,
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Data(_, to, port, delta) => self.now.stack.push(Task::Rows(to, port, delta)),
            Message::Mark(_, to, port, sender, watermarks) => {
                if let Ok(node) = self.node(to) {
                    node.marks += 1;
                }
                self.advance(to, port, sender, &watermarks);
            }
        }
    }
}

impl Message {
    fn epoch(&self) -> Epoch {
        match self {
            Self::Data(epoch, ..) | Self::Mark(epoch, ..) => *epoch,
        }
    }
}
