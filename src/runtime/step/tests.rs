//! Steps of several workers, whose messages and turns come in any order.

use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::catalog::RelationId;
use crate::error::Result;
use crate::operator::{Context, Folder, Operator, OperatorSpec, Output, Placement, Progress};
use crate::plan::Exchange;
use crate::runtime::graph::{Edge, NodeKind, NodeSpec};
use crate::runtime::identity::NodeKey;
use crate::runtime::links::Links;
use crate::state::{KeyRequest, TableId, TableSpec};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

/// Hands rows on; when it is `broken`, what folds them on the way panics. It ends an epoch in
/// `pieces`.
#[derive(Debug, Clone)]
struct Passes {
    broken: bool,
    pieces: usize,
    left: usize,
}

fn passes(broken: bool, pieces: usize) -> NodeKind {
    NodeKind::Operator(Arc::new(Passes { broken, pieces, left: 0 }))
}

impl OperatorSpec for Passes {
    fn name(&self) -> &'static str {
        "Passes"
    }
    fn describe(&self) -> String {
        String::new()
    }
    fn schema(&self) -> SchemaRef {
        schema()
    }
    fn append_only(&self) -> bool {
        true
    }
    fn tables(&self) -> Vec<TableSpec> {
        Vec::new()
    }
    fn folder(&self, _port: usize, _check: bool) -> Result<Option<Box<dyn Folder>>> {
        Ok(self.broken.then(|| Box::new(Breaks) as Box<dyn Folder>))
    }
    fn build(&self, _: &[TableId], _: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }
}

impl Operator for Passes {
    fn keys(&self, _: usize, _: &DeltaBatch, _: &mut KeyRequest) -> Result<()> {
        Ok(())
    }
    fn process(
        &mut self,
        _: &mut Context<'_>,
        _: usize,
        delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress> {
        out.emit(delta);
        Ok(Progress::Done)
    }
    fn on_watermark(&mut self, _: usize, _: usize, _: Watermark, _: &mut Output) {}
    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        self.left = self.pieces;
        self.resume(cx, out)
    }
    fn resume(&mut self, _: &mut Context<'_>, _: &mut Output) -> Result<Progress> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(Progress::Done) };
        self.left = left;
        Ok(Progress::More)
    }
}

struct Breaks;

impl Folder for Breaks {
    fn fold(&mut self, _: &DeltaBatch) -> Result<Option<DeltaBatch>> {
        panic!("a folder that breaks")
    }
    fn take(&mut self, _: usize) -> Result<Vec<Option<Folded>>> {
        panic!("a folder that breaks")
    }
}

fn node(id: u32, kind: NodeKind, from: Option<u32>) -> NodeSpec {
    let exchange = Some(Exchange { columns: vec![0] });
    let edge = |from| Edge { from: NodeId(from), port: 0, exchange, outlet: Outlet::Rows };
    let inputs = from.map(edge).into_iter().collect();
    NodeSpec { id: NodeId(id), kind, inputs, relation: RelationId(id), key: NodeKey(0), step: None }
}

/// One input, and behind it an operator that breaks and one that does not.
fn team(workers: usize, reports: &Sender<(usize, Epoch, Report)>) -> Vec<Sender<Message>> {
    let nodes = [
        node(0, NodeKind::Input { schema: schema() }, None),
        node(1, passes(true, 0), Some(0)),
        node(2, passes(false, 0), Some(0)),
    ];
    let start = |(links, inbox, messages)| {
        let mut worker = Worker::new(false, links, messages);
        worker.install(&nodes, false).expect("installs");
        worker.tap(NodeId(2), true);
        let (index, reports) = (worker.index(), reports.clone());
        std::thread::spawn(move || {
            let tell = |epoch, report| drop(reports.send((index, epoch, report)));
            worker.run(&AtomicU64::new(10_000), tell);
        });
        inbox
    };
    Links::between(workers).into_iter().map(start).collect()
}

fn step(epoch: u64, rows: i64, shared: &SharedInputs) -> Step {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let rows = RecordBatch::try_from_iter_with_nullable([("n", numbers, true)]);
    Step {
        epoch: Epoch(epoch),
        after: (1..epoch).map(Epoch).collect(),
        inputs: vec![(NodeId(0), DeltaBatch::inserts(rows.expect("one column")))],
        shared: Arc::clone(shared),
        active: Arc::new(vec![NodeId(0), NodeId(1), NodeId(2)]),
        ..Step::default()
    }
}

/// Would find a panic that ends a worker, or keeps the others waiting for its marks; and epochs
/// that get in one another's way when they are begun before those before them are done.
#[test]
fn a_panic_ends_its_node_and_nothing_else() {
    let (sender, reports) = channel();
    let workers = team(3, &sender);
    for epoch in 1..=4 {
        let shared = SharedInputs::default();
        let more = step(epoch, 1_000, &shared).inputs;
        lock(&shared).extend(more);
        for (index, worker) in workers.iter().enumerate() {
            // Of very different lengths, so that some are far ahead of others.
            let step = step(epoch, 100_000 >> (4 * index), &shared);
            worker.send(Message::Begin(Box::new(step))).expect("it runs");
        }
    }
    let mut rows = [0; 5];
    for _ in 0..4 * workers.len() {
        let report = reports.recv_timeout(Duration::from_secs(60)).expect("nobody hangs");
        let (_, epoch, report) = report;
        rows[epoch.0 as usize] += report.taps.iter().map(|(_, d)| d.len()).sum::<usize>();
        assert!(report.failures.iter().all(|(node, _)| *node == NodeId(1)), "only that one");
        assert!(epoch.0 > 1 || !report.failures.is_empty(), "it has failed");
    }
    assert_eq!(rows, [0, 107_640, 107_640, 107_640, 107_640]);
    workers.iter().for_each(|worker| drop(worker.send(Message::Stop)));
}

/// Workers without threads, whose messages and turns come in the order that a test says.
struct Stage {
    workers: Vec<Worker>,
    doors: Vec<Sender<Message>>,
    /// What the coordinator has not sent yet, by worker.
    posted: Vec<VecDeque<Message>>,
    /// Who has done his part of what.
    done: Vec<(usize, Epoch)>,
    /// Rows that have come out of the tapped nodes, by epoch.
    rows: BTreeMap<Epoch, usize>,
    /// How often each in a row had a turn in which others were to catch up first.
    held_up: Vec<usize>,
}

/// What may happen next.
#[derive(Debug, Clone, Copy)]
enum Move {
    /// A message of the coordinator comes to a worker.
    Post(usize),
    /// A worker has a turn.
    Turn(usize),
}

impl Stage {
    /// Two chains of an input and, behind an exchange, an operator that ends epochs in `pieces`;
    /// the operators are tapped. `most` rows may lie in front of a worker.
    fn new(workers: usize, pieces: usize, most: usize) -> Self {
        let input = || NodeKind::Input { schema: schema() };
        let nodes = [
            node(0, input(), None),
            node(1, passes(false, pieces), Some(0)),
            node(2, input(), None),
            node(3, passes(false, pieces), Some(2)),
        ];
        let (mut stage, posted) = (Vec::new(), (0..workers).map(|_| VecDeque::new()));
        for (links, door, inbox) in Links::bounded(workers, (most, usize::MAX)) {
            let mut worker = Worker::new(false, links, inbox);
            worker.install(&nodes, false).expect("installs");
            [1, 3].into_iter().for_each(|id| worker.tap(NodeId(id), true));
            stage.push((worker, door));
        }
        let (posted, held_up) = (posted.collect(), vec![0; workers]);
        let (workers, doors) = stage.into_iter().unzip();
        Self { workers, doors, posted, done: Vec::new(), rows: BTreeMap::new(), held_up }
    }

    /// The coordinator begins an epoch of one of the chains.
    fn begin(&mut self, epoch: u64, chain: u32, after: &[u64]) {
        for (index, posted) in self.posted.iter_mut().enumerate() {
            let shared = SharedInputs::default();
            let mut step = step(epoch, 8 + index as i64, &shared);
            step.after = after.iter().copied().map(Epoch).collect();
            step.inputs.iter_mut().for_each(|(node, _)| *node = NodeId(chain));
            step.active = Arc::new(vec![NodeId(chain), NodeId(chain + 1)]);
            posted.push_back(Message::Begin(Box::new(step)));
        }
    }

    /// The coordinator removes the nodes of a chain, whatever is under way.
    fn remove(&mut self, chain: u32) {
        for posted in &mut self.posted {
            let gone = [NodeId(chain), NodeId(chain + 1)];
            posted.push_back(Message::Call(Box::new(move |worker| worker.remove(&gone))));
        }
    }

    /// What may happen next: a worker that would wait has no turn, nor one all of whose steps are
    /// held up, before something else has happened.
    fn moves(&mut self) -> Vec<Move> {
        let posts = self.posted.iter().enumerate().filter(|(_, posted)| !posted.is_empty());
        let mut moves: Vec<Move> = posts.map(|(index, _)| Move::Post(index)).collect();
        for (index, worker) in self.workers.iter_mut().enumerate() {
            worker.poll();
            let held_up = self.held_up[index] > worker.steps.len();
            if !worker.calls.is_empty() || (!held_up && worker.next_turn().is_some()) {
                moves.push(Move::Turn(index));
            }
        }
        moves
    }

    fn happen(&mut self, next: Move) {
        match next {
            Move::Post(index) => {
                let message = self.posted[index].pop_front().expect("it is there");
                self.doors[index].send(message).expect("it lives");
                self.held_up.fill(0);
            }
            // One task is done in it.
            Move::Turn(index) => {
                let worker = &mut self.workers[index];
                let done = worker.turn(Duration::ZERO);
                match worker.steps.get(&worker.last).is_some_and(|step| step.held_up.is_some()) {
                    true => self.held_up[index] += 1,
                    false => self.held_up.fill(0),
                }
                let Some((epoch, report)) = done else { return };
                self.done.push((index, epoch));
                let rows = report.taps.iter().map(|(_, delta)| delta.len()).sum::<usize>();
                *self.rows.entry(epoch).or_default() += rows;
                assert!(report.failures.is_empty(), "nothing fails here");
            }
        }
    }

    /// Lets everything happen in an order that is chosen from so many moves each time.
    fn play(&mut self, mut choose: impl FnMut(usize) -> usize) {
        let mut moves = Vec::new();
        loop {
            let next = self.moves();
            if next.is_empty() {
                break;
            }
            moves.push(next[choose(next.len())]);
            self.happen(moves[moves.len() - 1]);
        }
        let steps = self.workers.iter().flat_map(|worker| worker.steps.keys());
        let waiting: Vec<_> = steps.collect();
        assert!(waiting.is_empty(), "{waiting:?} wait for good after {moves:?}");
    }
}

/// Tries the orders in which something can happen, one after the other as far as there are no more
/// than `most`, and then some; how many they were.
fn in_all_orders(most: usize, play: impl Fn(&mut dyn FnMut(usize) -> usize)) -> usize {
    let mut script: Vec<(usize, usize)> = Vec::new();
    for tried in 1..=most {
        let mut at = 0;
        play(&mut |moves| {
            if at == script.len() {
                script.push((0, moves));
            }
            at += 1;
            script[at - 1].0
        });
        while script.pop_if(|(chosen, moves)| *chosen + 1 == *moves).is_some() {}
        match script.last_mut() {
            Some((chosen, _)) => *chosen += 1,
            None => return tried,
        }
    }
    let mut random = SmallRng::seed_from_u64(most as u64);
    for _ in 0..most {
        play(&mut |moves| random.random_range(0..moves));
    }
    2 * most
}

/// Would find a worker that waits for good for the marks of a node that was dropped while others
/// were still at it: a step that has outlasted its slice keeps nobody from dropping what it reads.
#[test]
fn what_is_dropped_under_a_step_keeps_nobody_waiting() {
    let tried = in_all_orders(3_000, |choose| {
        let mut stage = Stage::new(2, 0, usize::MAX);
        stage.begin(1, 0, &[]);
        stage.remove(0);
        stage.begin(2, 2, &[]);
        stage.play(choose);
        let mut done = std::mem::take(&mut stage.done);
        done.sort_unstable();
        assert_eq!(done, [(0, Epoch(1)), (0, Epoch(2)), (1, Epoch(1)), (1, Epoch(2))]);
        assert_eq!(stage.rows[&Epoch(2)], 17);
    });
    assert!(tried > 1_000, "{tried}");
}

/// Would find epochs of the same nodes that get in one another's way, and steps of others that are
/// kept waiting by them; and, where hardly anything may lie in front of a worker, two that wait for
/// one another because a third one has gone ahead.
#[test]
fn epochs_end_in_their_order_whatever_comes_first() {
    for (workers, pieces, most) in [(2, 0, 0), (3, 0, usize::MAX), (3, 2, 0)] {
        let tried = in_all_orders(1_500, |choose| {
            let mut stage = Stage::new(workers, pieces, most);
            stage.begin(1, 0, &[]);
            stage.begin(2, 0, &[1]);
            stage.begin(3, 2, &[]);
            stage.begin(4, 0, &[1, 2]);
            stage.play(choose);
            let all: usize = (0..workers).map(|index| 8 + index).sum();
            assert_eq!(stage.rows.values().copied().collect::<Vec<_>>(), vec![all; 4]);
            for worker in 0..workers {
                let of_chain = |(who, epoch): &&(usize, Epoch)| *who == worker && epoch.0 != 3;
                let ended: Vec<u64> = stage.done.iter().filter(of_chain).map(|d| d.1.0).collect();
                assert_eq!(ended, [1, 2, 4]);
            }
        });
        assert!(tried > 1_000, "{tried}");
    }
}
