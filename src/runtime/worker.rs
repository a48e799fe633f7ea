//! A worker: one thread's instances of all nodes. What makes them run is in `step`.
//!
//! It alone merges watermarks, makes keys resident, moves rows along edges and catches what an
//! operator breaks. Rows go depth-first along local edges, batch by batch, so that a batch is still
//! in cache when the next operator sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::exchange::partition;
use super::graph::{NodeId, NodeKind, NodeSpec, Outlet};
use super::identity::TablePlace;
use super::step::{RunningStep, Task};
use crate::checkpoint::Image as Checkpoint;
use crate::delta::{DeltaBatch, KEY_GROUPS};
use crate::error::{Error, Result, too_many_bytes};
use crate::expr::is_overflow;
use crate::operator::{Checked, Context, Operator, Output, Placement, Progress};
use crate::state::{Bound, Entries, KeyRequest, ResultTable, StateStore, TableId, TableKind};
use crate::time::{Epoch, Watermark, WatermarkMerge};

/// What the workers send one another within an epoch.
pub enum Message {
    /// Rows for a port of a node.
    Data(Epoch, NodeId, usize, DeltaBatch),
    /// The sender has flushed the node before this exchange; with its watermarks by column.
    Mark(Epoch, NodeId, usize, usize, Vec<(usize, Watermark)>),
}

/// A part of the stored rows of an import's relation.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// The import.
    pub node: NodeId,
    /// The epoch to read at.
    pub epoch: Epoch,
    /// How many rows at most.
    pub rows: usize,
}

/// One epoch's work for one worker.
#[derive(Default)]
pub struct Step {
    /// The epoch.
    pub epoch: Epoch,
    /// Its clock, in microseconds.
    pub now_us: i64,
    /// Rows for input and import nodes.
    pub inputs: Vec<(NodeId, DeltaBatch)>,
    /// Watermarks of input nodes.
    pub watermarks: Vec<(NodeId, usize, Watermark)>,
    /// Stored rows that imports are to feed.
    pub slices: Vec<Slice>,
    /// Imports that let go what they held back.
    pub attach: Vec<NodeId>,
    /// What the inputs of a view that is built have brought is what they hold at this epoch;
    /// `None`: at the one before.
    pub before: Option<Epoch>,
    /// A view is built, and not yet attached.
    pub building: bool,
    /// The nodes that run, ascending.
    pub active: Arc<Vec<NodeId>>,
}

/// What a worker says after an epoch.
#[derive(Default)]
pub struct Report {
    /// Output of tapped nodes.
    pub taps: Vec<(NodeId, DeltaBatch)>,
    /// Nodes that failed, and why.
    pub failures: Vec<(NodeId, Error)>,
    /// Imports whose stored rows have all been fed.
    pub fed: Vec<NodeId>,
    /// Watermarks that came out of tracked nodes.
    pub watermarks: Vec<(NodeId, usize, Watermark)>,
}

/// Rows and bytes of one state table.
#[derive(Debug, Clone)]
pub struct TableSize {
    /// The node that it belongs to.
    pub node: NodeId,
    /// Its name.
    pub name: &'static str,
    /// Rows held.
    pub rows: usize,
    /// Bytes held.
    pub bytes: usize,
}

/// What a node has done on one worker.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// Changes that it was given.
    pub rows_in: u64,
    /// Changes that it has made.
    pub rows_out: u64,
    /// The time that it has run.
    pub busy: Duration,
}

/// The bytes of state tables.
pub type Image = BTreeMap<TablePlace, Vec<u8>>;

/// What a state table has logged.
#[derive(Debug)]
pub struct TableChanges {
    /// What it is.
    pub place: TablePlace,
    /// The version of its form.
    pub version: u16,
    /// Of a table whose parts go when a watermark passes them: those with times below are gone,
    /// without having been logged.
    pub expired_below: Option<i64>,
    /// In the order in which it was logged: [`Entries::compact`] makes a run of it.
    pub log: Entries,
}

struct OutEdge {
    to: NodeId,
    port: usize,
    exchange: Option<Vec<usize>>,
    outlet: Outlet,
}

/// An import's door.
struct Import {
    columns: Vec<usize>,
    schema: SchemaRef,
    arrivals: bool,
    table: Option<Arc<ResultTable>>,
    /// Deltas held back; `None` once the view has caught up.
    held: Option<Vec<DeltaBatch>>,
    cursor: usize,
}

enum Kind {
    Input,
    Import(Import),
    Operator(Box<dyn Operator>),
}

pub(super) struct Node {
    pub(super) spec: NodeSpec,
    kind: Kind,
    pub(super) tables: Vec<TableId>,
    outs: Vec<OutEdge>,
    pub(super) marks: usize,
    tapped: bool,
    pub(super) failed: bool,
    /// The last epoch that it took part in.
    pub(super) begun: Epoch,
    counted: Counters,
    merges: BTreeMap<(usize, usize), WatermarkMerge>,
    /// Watermarks put out since the last mark.
    pub(super) watermarks: BTreeMap<usize, Watermark>,
    /// The last watermark of every output column.
    latest: BTreeMap<usize, Watermark>,
}

/// One worker.
pub struct Worker {
    index: usize,
    pub(super) workers: usize,
    check: bool,
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) state: StateStore,
    peers: Vec<Option<Sender<Message>>>,
    pub(super) inbox: Receiver<Message>,
    /// The step that runs.
    pub(super) now: RunningStep,
    /// Steps that wait for their next slice of time.
    pub(super) suspended: BTreeMap<Epoch, RunningStep>,
}

impl Worker {
    /// A worker without nodes. `peers` holds the other workers' inboxes by index.
    pub fn new(
        index: usize,
        check: bool,
        peers: Vec<Option<Sender<Message>>>,
        inbox: Receiver<Message>,
    ) -> Self {
        Self {
            index,
            workers: peers.len(),
            check,
            nodes: Vec::new(),
            state: StateStore::new(check).of_worker(index),
            peers,
            inbox,
            now: RunningStep::default(),
            suspended: BTreeMap::new(),
        }
    }

    /// Builds nodes. `held`: imports hold back deltas until they are attached.
    pub fn install(&mut self, specs: &[NodeSpec], held: bool) -> Result<()> {
        for spec in specs {
            let mut tables = Vec::new();
            let kind = match &spec.kind {
                NodeKind::Input { .. } => Kind::Input,
                NodeKind::Import { columns, schema, arrivals, table } => Kind::Import(Import {
                    arrivals: *arrivals,
                    columns: columns.clone(),
                    schema: schema.clone(),
                    table: table.clone(),
                    held: held.then(Vec::new),
                    cursor: 0,
                }),
                NodeKind::Operator(operator) => {
                    tables.extend(operator.tables().into_iter().map(|t| self.state.create(t)));
                    Kind::Operator(self.build(operator.as_ref(), &tables)?)
                }
            };
            for edge in &spec.inputs {
                let out = OutEdge {
                    to: spec.id,
                    port: edge.port,
                    exchange: edge.exchange.as_ref().map(|e| e.columns.clone()),
                    outlet: edge.outlet,
                };
                self.node(edge.from)?.outs.push(out);
            }
            let at = spec.id.0 as usize;
            self.nodes.resize_with(self.nodes.len().max(at + 1), || None);
            self.nodes[at] = Some(Node {
                spec: spec.clone(),
                kind,
                tables,
                outs: Vec::new(),
                marks: 0,
                tapped: false,
                failed: false,
                begun: Epoch::ZERO,
                counted: Counters::default(),
                merges: BTreeMap::new(),
                watermarks: BTreeMap::new(),
                latest: BTreeMap::new(),
            });
        }
        Ok(())
    }

    fn build(
        &self,
        spec: &dyn crate::operator::OperatorSpec,
        tables: &[TableId],
    ) -> Result<Box<dyn Operator>> {
        let place = Placement { worker: self.index, workers: self.workers };
        let operator = spec.build(tables, place)?;
        Ok(if self.check { Box::new(Checked::new(operator, spec)) } else { operator })
    }

    pub(super) fn node(&mut self, id: NodeId) -> Result<&mut Node> {
        self.nodes
            .get_mut(id.0 as usize)
            .and_then(Option::as_mut)
            .ok_or_else(|| Error::internal(format!("node {} is not installed", id.0)))
    }

    /// Removes nodes, their state and the edges to them.
    pub fn remove(&mut self, ids: &[NodeId]) {
        for id in ids {
            let node = self.nodes.get_mut(id.0 as usize).and_then(Option::take);
            node.into_iter().flat_map(|n| n.tables).for_each(|t| self.state.drop_table(t));
        }
        for node in self.nodes.iter_mut().flatten() {
            node.outs.retain(|edge| !ids.contains(&edge.to));
        }
    }

    /// Begins or ends collecting a node's output for reports.
    pub fn tap(&mut self, id: NodeId, on: bool) {
        if let Ok(node) = self.node(id) {
            node.tapped = on;
        }
    }

    /// Rows from outside: for an import they come from its own replay and are not held back.
    pub(super) fn enter(&mut self, id: NodeId, delta: DeltaBatch) {
        let Ok(node) = self.node(id) else { return };
        match &mut node.kind {
            Kind::Import(import) => match import.project(&delta) {
                Ok(delta) => self.forward(id, &delta, Outlet::Rows),
                Err(error) => self.fail(id, error),
            },
            _ => self.forward(id, &delta, Outlet::Rows),
        }
    }

    pub(super) fn feed_slice(&mut self, Slice { node: id, epoch, rows }: Slice) {
        let shard = self.index;
        let Ok(node) = self.node(id) else { return };
        let Kind::Import(import) = &mut node.kind else { return };
        let Some(table) = import.table.clone() else {
            self.now.report.fed.push(id);
            return;
        };
        let from = import.cursor;
        let slice = table.read(shard).scan(epoch, from, rows);
        match slice {
            Ok(slice) => {
                match slice.next {
                    Some(next) => import.cursor = next,
                    None => {
                        // Asked again, it has nothing more to give.
                        import.cursor = usize::MAX;
                        self.now.report.fed.push(id);
                    }
                }
                if !slice.rows.is_empty() {
                    self.enter(id, slice.rows);
                }
            }
            Err(error) => self.fail(id, error),
        }
    }

    pub(super) fn attach(&mut self, id: NodeId) {
        let Ok(node) = self.node(id) else { return };
        let Kind::Import(import) = &mut node.kind else { return };
        let held = import.held.take().unwrap_or_default();
        let upstream = node.spec.inputs.first().map(|e| (e.from, e.port));
        if let Some((from, port)) = upstream {
            // What the relation has promised before this view was there holds for it too; marks
            // that came meanwhile were only noted.
            let latest = self.node(from).map(|n| n.latest.clone()).unwrap_or_default();
            let marks: Vec<(usize, Watermark)> = latest.into_iter().collect();
            self.advance(id, port, self.index, &marks);
            if let Ok(node) = self.node(id)
                && let Kind::Import(import) = &node.kind
            {
                let noted = node.merges.iter().filter_map(|((_, column), merge)| {
                    let position = import.columns.iter().position(|c| c == column)?;
                    Some((position, merge.merged()))
                });
                let known: Vec<_> = noted.filter(|(_, w)| *w != Watermark::MIN).collect();
                node.watermarks.extend(known);
            }
        }
        // One by one, so that what they become is in cache.
        self.now.stack.extend(held.into_iter().rev().map(|delta| Task::Forward(id, delta)));
    }

    pub(super) fn process(&mut self, id: NodeId, port: usize, delta: DeltaBatch) {
        let Some(node) = self.nodes.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        if node.failed {
            return;
        }
        match &mut node.kind {
            Kind::Input => self.forward(id, &delta, Outlet::Rows),
            Kind::Import(import) => match import.project(&delta) {
                Ok(delta) => match &mut import.held {
                    Some(held) => held.push(delta),
                    None => self.forward(id, &delta, Outlet::Rows),
                },
                Err(error) => self.fail(id, error),
            },
            Kind::Operator(_) => self.process_operator(id, port, delta),
        }
    }

    fn process_operator(&mut self, id: NodeId, port: usize, delta: DeltaBatch) {
        if self.state.checks_residency() {
            let mut request = KeyRequest::default();
            let asked = self.call(id, |operator, _, _| {
                operator.keys(port, &delta, &mut request)?;
                Ok(Progress::Done)
            });
            if asked.is_none() {
                return;
            }
            self.state.make_resident(&request);
        }
        if let Ok(node) = self.node(id) {
            node.counted.rows_in += delta.len() as u64;
        }
        self.call(id, |operator, cx, out| operator.process(cx, port, delta, out));
    }

    /// Calls a verb, catches its panic, and hands on what it made; where more is to come, that is
    /// a task below: a piece goes down the edges before the next one is made. `None`: the node has
    /// failed.
    pub(super) fn call(
        &mut self,
        id: NodeId,
        verb: impl FnOnce(&mut dyn Operator, &mut Context<'_>, &mut Output) -> Result<Progress>,
    ) -> Option<Progress> {
        let node = self.nodes.get_mut(id.0 as usize).and_then(Option::as_mut)?;
        let Kind::Operator(operator) = &mut node.kind else { return Some(Progress::Done) };
        let mut out = Output::default();
        let RunningStep { epoch, now_us, before, building, .. } = self.now;
        let mut cx = Context { state: &mut self.state, epoch, now_us, before, building };
        let began = Instant::now();
        // The node is not used again after a panic, so a broken operator is never looked at.
        let result = catch_unwind(AssertUnwindSafe(|| verb(operator.as_mut(), &mut cx, &mut out)));
        let progress = match result {
            Ok(Ok(progress)) => progress,
            Ok(Err(error)) => {
                self.fail(id, error);
                return None;
            }
            Err(panic) => {
                // Kernels of the library that would make a column with more bytes than its offsets
                // can count end so.
                let error = match is_overflow(panic.as_ref()) {
                    true => too_many_bytes(),
                    false => Error::internal(format!("operator panicked: {}", text_of(&panic))),
                };
                self.fail(id, error);
                return None;
            }
        };
        node.counted.busy += began.elapsed();
        node.counted.rows_out += out.rows.iter().map(|d| d.len() as u64).sum::<u64>();
        for (column, w) in out.watermarks {
            node.watermarks.insert(column, w);
        }
        if progress == Progress::More {
            self.now.stack.push(Task::Resume(id));
        }
        // Pushed last first, so that they run in the order in which they were made.
        for delta in out.late.iter().rev() {
            self.forward(id, delta, Outlet::Late);
        }
        for delta in out.errors.iter().rev() {
            self.forward(id, delta, Outlet::Errors);
        }
        for delta in out.rows.iter().rev() {
            self.forward(id, delta, Outlet::Rows);
        }
        Some(progress)
    }

    /// Sends rows along a node's edges.
    pub(super) fn forward(&mut self, id: NodeId, delta: &DeltaBatch, outlet: Outlet) {
        let Some(node) = self.nodes.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        if node.tapped && outlet == Outlet::Rows {
            self.now.report.taps.push((id, delta.clone().with_arrivals(None)));
        }
        let mut failure = None;
        for edge in node.outs.iter().filter(|e| e.outlet == outlet) {
            let Some(columns) = edge.exchange.as_ref().filter(|_| self.workers > 1) else {
                self.now.stack.push(Task::Rows(edge.to, edge.port, delta.clone()));
                continue;
            };
            match partition(delta, columns, self.workers) {
                Ok(parts) => {
                    for (worker, part) in parts.into_iter().enumerate() {
                        let Some(part) = part else { continue };
                        match &self.peers[worker] {
                            // A worker that is gone takes the engine with it.
                            Some(peer) => {
                                let epoch = self.now.epoch;
                                let data = Message::Data(epoch, edge.to, edge.port, part);
                                drop(peer.send(data));
                            }
                            None => self.now.stack.push(Task::Rows(edge.to, edge.port, part)),
                        }
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            self.fail(id, error);
        }
    }

    fn fail(&mut self, id: NodeId, error: Error) {
        if let Ok(node) = self.node(id) {
            node.failed = true;
        }
        self.now.report.failures.push((id, error));
    }

    /// Watermarks of one sender reach a port of a node.
    pub(super) fn advance(
        &mut self,
        to: NodeId,
        port: usize,
        sender: usize,
        marks: &[(usize, Watermark)],
    ) {
        let workers = self.workers;
        for (column, w) in marks {
            let Ok(node) = self.node(to) else { return };
            let exchanged = node.spec.inputs.iter().any(|e| e.port == port && e.exchange.is_some());
            let inputs = if exchanged { workers } else { 1 };
            let merge =
                node.merges.entry((port, *column)).or_insert_with(|| WatermarkMerge::new(inputs));
            let advanced = merge.advance(if exchanged { sender } else { 0 }, *w);
            let Some(w) = advanced else { continue };
            match &node.kind {
                Kind::Operator(_) => {
                    self.call(to, |operator, _, out| {
                        operator.on_watermark(port, *column, w, out);
                        Ok(Progress::Done)
                    });
                }
                Kind::Import(import) => {
                    let position = import.columns.iter().position(|c| c == column);
                    if let (Some(position), None) = (position, &import.held) {
                        node.watermarks.insert(position, w);
                    }
                }
                Kind::Input => {
                    node.watermarks.insert(*column, w);
                }
            }
        }
    }

    pub(super) fn send_marks(&mut self, id: NodeId) {
        let Ok(node) = self.node(id) else { return };
        let marks: Vec<(usize, Watermark)> =
            std::mem::take(&mut node.watermarks).into_iter().collect();
        node.latest.extend(marks.iter().copied());
        // A node that does not run in this step waits for no marks.
        let active = Arc::clone(&self.now.active);
        let Ok(node) = self.node(id) else { return };
        let running = node.outs.iter().filter(|e| active.binary_search(&e.to).is_ok());
        let edges: Vec<(NodeId, usize, bool, Outlet)> =
            running.map(|e| (e.to, e.port, e.exchange.is_some(), e.outlet)).collect();
        self.now.report.watermarks.extend(marks.iter().map(|(c, w)| (id, *c, *w)));
        let mine = self.index;
        for (to, port, exchanged, outlet) in edges {
            let marks = if outlet == Outlet::Rows { marks.as_slice() } else { &[] };
            if exchanged {
                for peer in self.peers.iter().flatten() {
                    drop(peer.send(Message::Mark(self.now.epoch, to, port, mine, marks.to_vec())));
                }
            }
            self.advance(to, port, mine, marks);
        }
    }

    /// The times of what windows are kept for, by node, with the watermark that closes them.
    pub fn waits(&self) -> Vec<(NodeId, Vec<i64>, Watermark)> {
        let nodes = self.nodes.iter().flatten();
        let tables = nodes.flat_map(|node| node.tables.iter().map(move |table| (node, *table)));
        let waits = tables.filter_map(|(node, table)| {
            let NodeKind::Operator(spec) = &node.spec.kind else { return None };
            let table_spec = self.state.spec(table);
            let merged = |by: (usize, usize)| {
                node.merges.get(&by).map_or(Watermark::MIN, WatermarkMerge::merged)
            };
            match spec.closed_by(table_spec).into_iter().map(merged).min() {
                Some(w) => Some((node.spec.id, self.state.table(table).open_times(), w)),
                // It is freed, but not by window.
                None => matches!(table_spec.bound, Bound::Behind { .. }).then_some((
                    node.spec.id,
                    Vec::new(),
                    Watermark::MIN,
                )),
            }
        });
        waits.collect()
    }

    /// Sizes of all state tables.
    pub fn sizes(&self) -> Vec<TableSize> {
        let nodes = self.nodes.iter().flatten();
        nodes
            .flat_map(|node| node.tables.iter().map(|t| (node.spec.id, *t)))
            // The rows of relations are counted where they are read.
            .filter(|(_, id)| !matches!(self.state.spec(*id).kind, TableKind::Result(_)))
            .map(|(node, id)| {
                let table = self.state.table(id);
                let name = self.state.spec(id).name;
                TableSize { node, name, rows: table.rows(), bytes: table.bytes() }
            })
            .collect()
    }

    /// What every node has done since it was made.
    pub fn counters(&self) -> Vec<(NodeId, Counters)> {
        self.nodes.iter().flatten().map(|node| (node.spec.id, node.counted)).collect()
    }

    /// Gives tables of nodes the state of a checkpoint, as far as this worker owns it.
    pub fn load(
        &mut self,
        image: &Checkpoint,
        tables: &[(NodeId, Vec<u32>)],
        epoch: Epoch,
    ) -> Result<()> {
        let owned = self.owned();
        let mut nodes = std::mem::take(&mut self.nodes);
        let mut loaded = Ok(());
        for node in nodes.iter_mut().flatten() {
            let Some((_, numbers)) = tables.iter().find(|(id, _)| *id == node.spec.id) else {
                continue;
            };
            loaded = self.load_node(node, image, (numbers, &owned), epoch);
            if loaded.is_err() {
                break;
            }
        }
        self.nodes = nodes;
        self.state.evict_all();
        loaded
    }

    fn load_node(
        &mut self,
        node: &mut Node,
        image: &Checkpoint,
        (numbers, owned): (&[u32], &std::ops::Range<usize>),
        epoch: Epoch,
    ) -> Result<()> {
        let NodeKind::Operator(spec) = &node.spec.kind else { return Ok(()) };
        for (table, number) in node.tables.iter().zip(numbers) {
            self.state.restore_from(*table, image.entries(*number, owned), epoch)?;
        }
        node.kind = Kind::Operator(self.build(spec.as_ref(), &node.tables)?);
        Ok(())
    }

    /// The key groups of this worker.
    fn owned(&self) -> std::ops::Range<usize> {
        // The groups g with g * workers / KEY_GROUPS == index.
        let first = |index: usize| (index * KEY_GROUPS).div_ceil(self.workers);
        first(self.index)..first(self.index + 1)
    }

    /// All state tables as bytes.
    pub fn snapshot(&mut self) -> Result<Image> {
        let mut image = Image::new();
        for (place, table) in self.places() {
            let entries = self.state.snapshot(table)?;
            image.insert(place, entries.to_bytes(self.state.spec(table).version));
        }
        Ok(image)
    }

    /// Begins or ends logging what changes of state tables, between two epochs.
    pub fn set_capture(&mut self, on: bool) {
        self.state.set_capture(on);
    }

    /// Takes what state tables have logged, between two epochs: those that have logged something,
    /// and those that expire. The last epoch of `failed` nodes is left out, and nothing is taken of
    /// those that are being `built`.
    pub fn take_changes(
        &mut self,
        failed: &BTreeMap<NodeId, Epoch>,
        built: &BTreeSet<NodeId>,
    ) -> Vec<TableChanges> {
        let mut all = Vec::new();
        for node in self.nodes.iter().flatten().filter(|node| !built.contains(&node.spec.id)) {
            for table in &node.tables {
                let failed = failed.get(&node.spec.id).is_some_and(|last| node.begun > *last);
                let log = self.state.take_changes(*table, failed);
                let expired_below = self.state.expired_below(*table);
                if !log.is_empty() || expired_below.is_some() {
                    let (place, version) =
                        (self.place(node, *table), self.state.spec(*table).version);
                    all.push(TableChanges { place, version, expired_below, log });
                }
            }
        }
        all
    }

    /// The bytes of what state tables have logged and nobody has taken, but for those of nodes that
    /// are being `built`.
    pub fn logged_bytes(&mut self, built: &BTreeSet<NodeId>) -> usize {
        let mut bytes = 0;
        for node in self.nodes.iter().flatten().filter(|node| !built.contains(&node.spec.id)) {
            bytes += node.tables.iter().map(|t| self.state.changes_bytes(*t)).sum::<usize>();
        }
        bytes
    }

    /// What each state table is.
    pub fn places(&self) -> Vec<(TablePlace, TableId)> {
        let nodes = self.nodes.iter().flatten();
        nodes.flat_map(|node| node.tables.iter().map(|t| (self.place(node, *t), *t))).collect()
    }

    fn place(&self, node: &Node, table: TableId) -> TablePlace {
        let table = self.state.spec(table).name.to_owned();
        TablePlace { relation: node.spec.relation, node: node.spec.key, table }
    }

    /// Replaces all state by what this worker owns of the images of some workers, with new
    /// operators over it. Rows that readers see are there from `epoch` on.
    pub fn restore(&mut self, images: &[Image], epoch: Epoch) -> Result<()> {
        let known: BTreeSet<TablePlace> = self.places().into_iter().map(|(p, _)| p).collect();
        if let Some(place) = images.iter().flat_map(Image::keys).find(|p| !known.contains(p)) {
            return Err(Error::corrupted(format!("nobody has the state table {place}")));
        }
        let owned = self.owned();
        let mut nodes = std::mem::take(&mut self.nodes);
        for node in nodes.iter_mut().flatten() {
            let NodeKind::Operator(spec) = &node.spec.kind else { continue };
            for table in &node.tables {
                let (version, place) = (self.state.spec(*table).version, self.place(node, *table));
                let parts = images.iter().filter_map(|image| image.get(&place));
                let parts = parts.map(|bytes| Entries::from_bytes(bytes, version));
                let parts = parts.collect::<Result<Vec<_>>>();
                let restored = parts.and_then(|p| self.state.restore(*table, &p, &owned, epoch));
                restored.map_err(|e| e.context(&place))?;
            }
            node.kind = Kind::Operator(self.build(spec.as_ref(), &node.tables)?);
        }
        self.nodes = nodes;
        self.state.evict_all();
        Ok(())
    }
}

impl Import {
    fn project(&self, delta: &DeltaBatch) -> Result<DeltaBatch> {
        let columns = self.columns.iter().map(|c| delta.rows().column(*c).clone()).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(delta.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        let arrivals = delta.arrivals().filter(|_| self.arrivals).cloned();
        Ok(delta.with_rows(rows).with_arrivals(arrivals))
    }
}

fn text_of(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
