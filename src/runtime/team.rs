//! The workers as one: worker 0 on the coordinator's thread, the others on threads of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::graph::{NodeId, NodeSpec};
use super::identity::TablePlace;
use super::worker::{Counters, Image, Message, Report, Step, TableChanges, TableSize, Worker};
use crate::checkpoint::Image as Checkpoint;
use crate::config::{Config, EVALUATION_STACK_BYTES};
use crate::error::{Error, Result};
use crate::time::{Epoch, Watermark};

type Task = Box<dyn FnOnce(&mut Worker) + Send>;

/// All workers of an engine.
pub struct Team {
    first: Worker,
    others: Vec<Sender<Task>>,
    check: bool,
}

impl Team {
    /// Starts the threads.
    pub fn start(config: &Config) -> Result<Self> {
        Self::with_workers(config.workers.max(1), config.check_contracts)
    }

    /// Starts a number of workers.
    pub fn with_workers(workers: usize, check: bool) -> Result<Self> {
        let (senders, inboxes): (Vec<Sender<Message>>, Vec<Receiver<Message>>) =
            (0..workers).map(|_| channel()).unzip();
        let peers = |index: usize| {
            let others = senders.iter().enumerate();
            others.map(|(i, s)| (i != index).then(|| s.clone())).collect()
        };
        let mut workers = inboxes
            .into_iter()
            .enumerate()
            .map(|(index, inbox)| Worker::new(index, check, peers(index), inbox));
        let first = workers.next().ok_or_else(|| Error::internal("an engine without workers"))?;
        let others = workers.enumerate().map(|(i, worker)| spawn(i + 1, worker));
        Ok(Self { first, others: others.collect::<Result<_>>()?, check })
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.others.len() + 1
    }

    /// Runs something on every worker and gathers the results in their order.
    fn all<T: Send + 'static>(
        &mut self,
        mut task: impl FnMut(usize) -> Box<dyn FnOnce(&mut Worker) -> T + Send>,
    ) -> Vec<T> {
        let receivers: Vec<Receiver<T>> = self
            .others
            .iter()
            .enumerate()
            .map(|(i, worker)| {
                let (sender, receiver) = channel();
                let task = task(i + 1);
                drop(worker.send(Box::new(move |w| drop(sender.send(task(w))))));
                receiver
            })
            .collect();
        let mut results = vec![task(0)(&mut self.first)];
        results.extend(
            receivers.into_iter().map(|r| r.recv().expect("a worker thread never ends before us")),
        );
        results
    }

    /// Begins an epoch; the reports of the workers that have done their part by the deadline.
    pub fn begin(&mut self, steps: Vec<Step>, deadline: Instant) -> Vec<Option<Report>> {
        let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
        self.all(|worker| {
            let step = steps[worker].take().unwrap_or_default();
            Box::new(move |w| w.begin(step, deadline))
        })
    }

    /// Goes on with an epoch; the reports of the workers that have done their part since.
    pub fn proceed(&mut self, epoch: Epoch, deadline: Instant) -> Vec<Option<Report>> {
        self.all(|_| Box::new(move |w| w.proceed(epoch, deadline)))
    }

    /// The node that keeps an epoch from its end.
    pub fn culprit(&mut self, epoch: Epoch) -> Option<NodeId> {
        // Everybody else waits for the least of them.
        self.all(|_| Box::new(move |w: &mut Worker| w.culprit(epoch))).into_iter().flatten().min()
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
    pub fn places(&self) -> Vec<TablePlace> {
        self.first.places().into_iter().map(|(place, _)| place).collect()
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

    /// Gives tables of nodes the state of a checkpoint.
    pub fn load(
        &mut self,
        image: Arc<Checkpoint>,
        tables: Vec<(NodeId, Vec<u32>)>,
        epoch: Epoch,
    ) -> Result<()> {
        let tables = Arc::new(tables);
        let results = self.all(|_| {
            let (image, tables) = (image.clone(), tables.clone());
            Box::new(move |w| w.load(&image, &tables, epoch))
        });
        results.into_iter().collect()
    }

    /// Whether operators are checked.
    pub fn checks(&self) -> bool {
        self.check
    }
}

fn spawn(index: usize, mut worker: Worker) -> Result<Sender<Task>> {
    let (tasks, inbox) = channel::<Task>();
    let thread = std::thread::Builder::new().name(format!("worker-{index}"));
    thread.stack_size(EVALUATION_STACK_BYTES).spawn(move || {
        while let Ok(task) = inbox.recv() {
            task(&mut worker);
        }
    })?;
    Ok(tasks)
}
