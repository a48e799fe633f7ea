//! The workers as one: a single one works on the coordinator's thread, so that an epoch costs no
//! hand-over; several have a thread each, and the coordinator cuts the next epoch while they work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::coordinator::Event;
use super::graph::{NodeId, NodeSpec};
use super::identity::TablePlace;
use super::links::{Links, Message};
use super::worker::{Counters, Image, Report, Step, TableChanges, TableSize, Worker};
use crate::checkpoint::Image as Checkpoint;
use crate::config::{EVALUATION_STACK_BYTES, STEP_SLICE};
use crate::error::{Error, Result};
use crate::time::{Epoch, Watermark};

/// All workers of an engine.
pub struct Team {
    members: Members,
    /// The slice of time that a step gets, in microseconds.
    slice_us: Arc<AtomicU64>,
    check: bool,
}

enum Members {
    /// One, here.
    Here(Box<Worker>),
    /// Several, with a thread each.
    Threads(Vec<Sender<Message>>),
}

impl Team {
    /// Starts a number of workers, which report to `events`.
    pub fn start(workers: usize, check: bool, events: &Sender<Event>) -> Result<Self> {
        let slice_us = Arc::new(AtomicU64::new(STEP_SLICE.as_micros() as u64));
        let mut made = Links::between(workers.max(1));
        let members = match made.pop() {
            Some((links, _, inbox)) if made.is_empty() => {
                Members::Here(Box::new(Worker::new(check, links, inbox)))
            }
            last => {
                let threads = made.into_iter().chain(last).map(|(links, sender, inbox)| {
                    let worker = Worker::new(check, links, inbox);
                    spawn(worker, Arc::clone(&slice_us), events.clone()).map(|()| sender)
                });
                Members::Threads(threads.collect::<Result<_>>()?)
            }
        };
        Ok(Self { members, slice_us, check })
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        match &self.members {
            Members::Here(_) => 1,
            Members::Threads(threads) => threads.len(),
        }
    }

    /// Runs something on every worker, between two slices of its work, and gathers the results in
    /// the workers' order.
    fn all<T: Send + 'static>(
        &mut self,
        mut task: impl FnMut(usize) -> Box<dyn FnOnce(&mut Worker) -> T + Send>,
    ) -> Vec<T> {
        match &mut self.members {
            Members::Here(worker) => vec![task(0)(worker)],
            Members::Threads(threads) => {
                let receivers = threads.iter().enumerate().map(|(i, worker)| {
                    let (sender, receiver) = channel();
                    let task = task(i);
                    let call = Box::new(move |w: &mut Worker| drop(sender.send(task(w))));
                    drop(worker.send(Message::Call(call)));
                    receiver
                });
                let receivers: Vec<Receiver<T>> = receivers.collect();
                let results = receivers.into_iter();
                results.map(|r| r.recv().expect("a worker thread never ends before us")).collect()
            }
        }
    }

    /// Runs the same on every worker, between two slices of its work, and gathers the results.
    pub fn each<T: Send + 'static>(
        &mut self,
        task: impl FnOnce(&mut Worker) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        self.all(|_| Box::new(task.clone()))
    }

    /// Runs something on every worker, between two slices of its work, without waiting for it.
    pub fn tell(&mut self, task: impl FnOnce(&mut Worker) + Clone + Send + 'static) {
        match &mut self.members {
            Members::Here(worker) => task(worker),
            Members::Threads(threads) => {
                for worker in threads {
                    drop(worker.send(Message::Call(Box::new(task.clone()))));
                }
            }
        }
    }

    /// Sets the slice of time that a step gets.
    pub fn set_slice(&self, slice: Duration) {
        self.slice_us.store(slice.as_micros() as u64, Ordering::Relaxed);
    }

    /// Begins an epoch.
    pub fn begin(&mut self, steps: Vec<Step>) {
        match &mut self.members {
            Members::Here(worker) => steps.into_iter().for_each(|step| worker.admit(step)),
            Members::Threads(threads) => {
                for (worker, step) in threads.iter().zip(steps) {
                    drop(worker.send(Message::Begin(Box::new(step))));
                }
            }
        }
    }

    /// Gives all steps or one of them a slice of time, where the workers have no threads of their
    /// own; what is reported of those that are done.
    pub fn work(&mut self, only: Option<Epoch>) -> Vec<(Epoch, Report)> {
        let slice = Duration::from_micros(self.slice_us.load(Ordering::Relaxed));
        match &mut self.members {
            Members::Here(worker) => worker.work_in_turn(only, slice),
            Members::Threads(_) => Vec::new(),
        }
    }

    /// How long an epoch has run on the worker that it has run on for longest, and the node that
    /// keeps it from its end.
    pub fn culprit(&mut self, epoch: Epoch) -> (Duration, Option<NodeId>) {
        let all = self.all(|_| Box::new(move |w: &mut Worker| w.culprit(epoch)));
        let (spent, nodes): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        // Who waits may wait for one further down the graph, which others are still at.
        let held = nodes.into_iter().flatten().min();
        (spent.into_iter().max().unwrap_or_default(), held.map(|(_, node)| node))
    }

    /// Makes a node fail that keeps an epoch from its end.
    pub fn fail_step(&mut self, epoch: Epoch, node: NodeId, error: &Error) {
        self.all(|_| {
            let error = error.clone();
            Box::new(move |w: &mut Worker| w.fail_step(epoch, node, &error))
        });
    }

    /// Builds nodes on every worker.
    pub fn install(&mut self, nodes: Vec<NodeSpec>, held: bool) -> Result<()> {
        let nodes = Arc::new(nodes);
        let results = self.all(|_| {
            let nodes = nodes.clone();
            Box::new(move |w| w.install(&nodes, held))
        });
        results.into_iter().collect()
    }

    /// Removes nodes from every worker.
    pub fn remove(&mut self, nodes: &[NodeId]) {
        self.all(|_| {
            let nodes = nodes.to_vec();
            Box::new(move |w| w.remove(&nodes))
        });
    }

    /// Begins or ends collecting a node's output.
    pub fn tap(&mut self, node: NodeId, on: bool) {
        self.all(|_| Box::new(move |w: &mut Worker| w.tap(node, on)));
    }

    /// Sizes of all state tables, by worker.
    pub fn sizes(&mut self) -> Vec<Vec<TableSize>> {
        self.all(|_| Box::new(|w| w.sizes()))
    }

    /// What windows are kept for, by worker.
    pub fn waits(&mut self) -> Vec<Vec<(NodeId, Vec<i64>, Watermark)>> {
        self.all(|_| Box::new(|w| w.waits()))
    }

    /// What every node has done, by worker.
    pub fn counters(&mut self) -> Vec<Vec<(NodeId, Counters)>> {
        self.all(|_| Box::new(|w| w.counters()))
    }

    /// Begins or ends logging what changes of state tables.
    pub fn set_capture(&mut self, on: bool) {
        self.all(|_| Box::new(move |w: &mut Worker| w.set_capture(on)));
    }

    /// Takes what state tables have logged, by worker, of `failed` nodes as it was at an epoch, and
    /// nothing of those that are being `built`.
    pub fn take_changes(
        &mut self,
        failed: &BTreeMap<NodeId, Epoch>,
        built: &BTreeSet<NodeId>,
    ) -> Vec<Vec<TableChanges>> {
        self.all(|_| {
            let (failed, built) = (failed.clone(), built.clone());
            Box::new(move |w: &mut Worker| w.take_changes(&failed, &built))
        })
    }

    /// The bytes of what state tables have logged and nobody has taken, by worker.
    pub fn logged_bytes(&mut self, built: &BTreeSet<NodeId>) -> Vec<usize> {
        self.all(|_| {
            let built = built.clone();
            Box::new(move |w: &mut Worker| w.logged_bytes(&built))
        })
    }

    /// What each state table is; the same on every worker.
    pub fn places(&mut self) -> Vec<TablePlace> {
        let all = self.all(|_| Box::new(|w| w.places()));
        all.into_iter().take(1).flatten().map(|(place, _)| place).collect()
    }

    /// All state tables as bytes, by worker.
    pub fn snapshot(&mut self) -> Result<Vec<Image>> {
        self.all(|_| Box::new(|w| w.snapshot())).into_iter().collect()
    }

    /// Replaces all state by what the images hold.
    pub fn restore(&mut self, images: Vec<Image>, epoch: Epoch) -> Result<()> {
        let images = Arc::new(images);
        let results = self.all(|_| {
            let images = images.clone();
            Box::new(move |w| w.restore(&images, epoch))
        });
        results.into_iter().collect()
    }

    /// Gives tables of nodes the state of a checkpoint, as far as there is `room` in bytes.
    pub fn load(
        &mut self,
        image: Arc<Checkpoint>,
        tables: Vec<(NodeId, Vec<u32>)>,
        room: Option<usize>,
        epoch: Epoch,
    ) -> Result<()> {
        let tables = Arc::new(tables);
        let room = room.map(|room| room / self.workers());
        let results = self.all(|_| {
            let (image, tables) = (image.clone(), tables.clone());
            Box::new(move |w| w.load(&image, &tables, room, epoch))
        });
        results.into_iter().collect()
    }

    /// Whether operators are checked.
    pub fn checks(&self) -> bool {
        self.check
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if let Members::Threads(threads) = &self.members {
            // They know one another, so their inboxes do not close by themselves.
            threads.iter().for_each(|worker| drop(worker.send(Message::Stop)));
        }
    }
}

fn spawn(worker: Worker, slice_us: Arc<AtomicU64>, events: Sender<Event>) -> Result<()> {
    let index = worker.index();
    let thread = std::thread::Builder::new().name(format!("worker-{index}"));
    thread.stack_size(EVALUATION_STACK_BYTES).spawn(move || {
        let tell = |epoch, report| drop(events.send(Event::Report(index, epoch, report)));
        worker.run(&slice_us, tell);
    })?;
    Ok(())
}
