//! A worker: one thread's instances of all nodes. What makes them run is in `step`.
//!
//! It alone merges watermarks, makes keys resident, moves rows along edges and catches what an
//! operator breaks. Rows go depth-first along local edges, batch by batch, so that a batch is still
//! in cache when the next operator sees it.

mod state;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::exchange::partition;
use super::graph::{NodeId, NodeKind, NodeSpec, Outlet};
use super::identity::TablePlace;
use super::links::{Call, Links, Message};
use super::step::{RunningStep, Task};
use super::versions::vacuum;
use crate::delta::DeltaBatch;
use crate::error::{Error, Result, too_many_bytes};
use crate::expr::is_overflow;
use crate::operator::{Checked, Context, Folded, Folder, Operator, Output, Placement, Progress};
use crate::state::{Entries, KeyRequest, ResultTable, Scan, StateStore, TableId};
use crate::time::{Epoch, Watermark, WatermarkMerge};

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
    /// Epochs that have to be done before, since they are of the same nodes.
    pub after: Vec<Epoch>,
    /// Rows for input and import nodes.
    pub inputs: Vec<(NodeId, DeltaBatch)>,
    /// Rows that any worker may take, so that nobody is idle while another has more than he can
    /// do: the same list for all workers.
    pub shared: SharedInputs,
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
    /// Whether the report is to say how large state is.
    pub measure: bool,
}

/// Rows that any worker may take.
pub type SharedInputs = Arc<Mutex<VecDeque<(NodeId, DeltaBatch)>>>;

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
    /// The time that it has worked on it.
    pub spent: Duration,
    /// Sizes of all state tables, where that was asked for.
    pub sizes: Option<Vec<TableSize>>,
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
    /// Those of them that are not in memory.
    pub out: usize,
    /// Bytes held in memory.
    pub bytes: usize,
    /// Why all of it stays there, in words; nothing where it may leave.
    pub stays: Option<&'static str>,
}

impl TableSize {
    /// What it holds on another worker, too.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.out += other.out;
        self.bytes += other.bytes;
    }
}

impl fmt::Display for TableSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rows, out, bytes, stays, .. } = self;
        write!(f, "{name}: {rows} rows, {bytes} bytes")?;
        if *out > 0 {
            write!(f, ", {out} of the rows on the disk")?;
        }
        stays.map_or(Ok(()), |why| write!(f, ", all in memory: {why}"))
    }
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
    /// The time that rows of it have waited for workers that had too much in front of them.
    pub held_up: Duration,
}

impl Counters {
    /// What it has done on another worker, too.
    pub fn add(&mut self, other: &Self) {
        self.rows_in += other.rows_in;
        self.rows_out += other.rows_out;
        self.busy += other.busy;
        self.held_up += other.held_up;
    }
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
    /// Folds rows by key ahead of the exchange, where what it goes to takes that.
    folder: Option<Box<dyn Folder>>,
}

/// An import's door.
pub(super) struct Import {
    columns: Vec<usize>,
    schema: SchemaRef,
    arrivals: bool,
    table: Option<Arc<ResultTable>>,
    /// Deltas held back; `None` once the view has caught up.
    held: Option<Vec<DeltaBatch>>,
    /// Their bytes, with those of other workers.
    held_back: Arc<AtomicUsize>,
    scan: Option<Scan>,
    /// All stored rows have been fed.
    is_fed: bool,
}

pub(super) enum Kind {
    Input,
    Import(Box<Import>),
    Operator(Box<dyn Operator>),
}

pub(super) struct Node {
    pub(super) spec: NodeSpec,
    pub(super) kind: Kind,
    pub(super) tables: Vec<TableId>,
    outs: Vec<OutEdge>,
    tapped: bool,
    pub(super) failed: bool,
    pub(super) counted: Counters,
    merges: BTreeMap<(usize, usize), WatermarkMerge>,
    /// Watermarks put out since the last mark.
    pub(super) watermarks: BTreeMap<usize, Watermark>,
    /// The last watermark of every output column.
    latest: BTreeMap<usize, Watermark>,
}

/// One worker.
pub struct Worker {
    check: bool,
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) state: StateStore,
    pub(super) links: Links,
    pub(super) inbox: Receiver<Message>,
    /// The step that runs.
    pub(super) now: RunningStep,
    /// Steps that wait: for their turn, for others, for those before them.
    pub(super) steps: BTreeMap<Epoch, RunningStep>,
    /// The newest step that has come, and messages of those that have not.
    pub(super) newest: Epoch,
    pub(super) early: BTreeMap<Epoch, VecDeque<Message>>,
    /// The step that had the last turn.
    pub(super) last: Epoch,
    /// What is to be done between two slices.
    pub(super) calls: VecDeque<Call>,
    pub(super) stopped: bool,
}

impl Worker {
    /// A worker without nodes.
    pub fn new(check: bool, links: Links, inbox: Receiver<Message>) -> Self {
        Self {
            check,
            nodes: Vec::new(),
            state: StateStore::new(check).of_worker(links.index),
            links,
            inbox,
            now: RunningStep::default(),
            steps: BTreeMap::new(),
            newest: Epoch::ZERO,
            early: BTreeMap::new(),
            last: Epoch::ZERO,
            calls: VecDeque::new(),
            stopped: false,
        }
    }

    /// Its number.
    pub fn index(&self) -> usize {
        self.links.index
    }

    /// Builds nodes. `held`: imports hold back deltas until they are attached.
    pub fn install(&mut self, specs: &[NodeSpec], held: bool) -> Result<()> {
        for spec in specs {
            let mut tables = Vec::new();
            let kind = match &spec.kind {
                NodeKind::Input { .. } => Kind::Input,
                NodeKind::Import { columns, schema, arrivals, table, held_back } => {
                    Kind::Import(Box::new(Import {
                        held_back: Arc::clone(held_back),
                        arrivals: *arrivals,
                        columns: columns.clone(),
                        schema: schema.clone(),
                        table: table.clone(),
                        held: held.then(Vec::new),
                        scan: None,
                        is_fed: false,
                    }))
                }
                NodeKind::Operator(operator) => {
                    tables.extend(operator.tables().into_iter().map(|t| self.state.create(t)));
                    Kind::Operator(self.build(operator.as_ref(), &tables)?)
                }
            };
            for edge in &spec.inputs {
                let folds = edge.exchange.is_some() && self.links.workers() > 1;
                let folder = match &spec.kind {
                    NodeKind::Operator(operator) if folds => {
                        operator.folder(edge.port, self.check)?
                    }
                    _ => None,
                };
                let out = OutEdge {
                    to: spec.id,
                    port: edge.port,
                    exchange: edge.exchange.as_ref().map(|e| e.columns.clone()),
                    outlet: edge.outlet,
                    folder,
                };
                self.node(edge.from)?.outs.push(out);
            }
            let feedback = spec.step.as_ref().map(|step| OutEdge {
                to: step.head,
                port: 0,
                exchange: None,
                outlet: Outlet::Feedback,
                folder: None,
            });
            let at = spec.id.0 as usize;
            self.nodes.resize_with(self.nodes.len().max(at + 1), || None);
            self.nodes[at] = Some(Node {
                spec: spec.clone(),
                kind,
                tables,
                outs: feedback.into_iter().collect(),
                tapped: false,
                failed: false,
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
        let place = Placement { worker: self.index(), workers: self.links.workers() };
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
        let shard = self.index();
        let Ok(node) = self.node(id) else { return };
        let Kind::Import(import) = &mut node.kind else { return };
        let Some(table) = import.table.as_ref().filter(|_| !import.is_fed) else {
            self.now.report.fed.push(id);
            return;
        };
        let scan = import.scan.get_or_insert_with(|| table.scan(shard, epoch));
        let next = scan.next(rows);
        if scan.is_done() || matches!(next, Ok(None)) {
            import.scan = None;
            import.is_fed = true;
            self.now.report.fed.push(id);
        }
        match next {
            Ok(Some(rows)) if !rows.is_empty() => self.enter(id, rows),
            Ok(_) => {}
            Err(error) => self.fail(id, error),
        }
    }

    pub(super) fn attach(&mut self, id: NodeId) {
        let Ok(node) = self.node(id) else { return };
        let Kind::Import(import) = &mut node.kind else { return };
        let held = import.held.take().unwrap_or_default();
        let bytes = held.iter().map(DeltaBatch::bytes).sum();
        import.held_back.fetch_sub(bytes, Ordering::Relaxed);
        let upstream = node.spec.inputs.first().map(|e| (e.from, e.port));
        if let Some((from, port)) = upstream {
            // What the relation has promised before this view was there holds for it too; marks
            // that came meanwhile were only noted.
            let latest = self.node(from).map(|n| n.latest.clone()).unwrap_or_default();
            let marks: Vec<(usize, Watermark)> = latest.into_iter().collect();
            self.advance(id, port, self.index(), &marks);
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
                    Some(held) => {
                        import.held_back.fetch_add(delta.bytes(), Ordering::Relaxed);
                        held.push(delta);
                    }
                    None => self.forward(id, &delta, Outlet::Rows),
                },
                Err(error) => self.fail(id, error),
            },
            Kind::Operator(_) => self.process_operator(id, port, delta),
        }
    }

    fn process_operator(&mut self, id: NodeId, port: usize, delta: DeltaBatch) {
        if self.state.wants_keys() {
            let asked = self.call(id, |operator, cx, _| {
                let mut request = KeyRequest::default();
                operator.keys(port, &delta, &mut request)?;
                cx.state.make_resident(&request)?;
                Ok(Progress::Done)
            });
            if asked.is_none() {
                return;
            }
        }
        if let Ok(node) = self.node(id) {
            node.counted.rows_in += delta.len() as u64;
        }
        self.call(id, |operator, cx, out| operator.process(cx, port, delta, out));
    }

    /// Rows that were folded by key on the worker that had them.
    pub(super) fn process_folded(&mut self, id: NodeId, port: usize, folded: Folded) {
        let failed = self.node(id).map_or(true, |node| {
            node.counted.rows_in += folded.parts() as u64;
            node.failed
        });
        if !failed {
            self.call(id, |operator, cx, _| {
                operator.process_folded(cx, port, folded)?;
                Ok(Progress::Done)
            });
        }
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
                self.fail(id, panicked("operator", &panic));
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
        for delta in out.feedback.iter().rev() {
            self.forward(id, delta, Outlet::Feedback);
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
        let workers = self.links.workers();
        let mut failures = Vec::new();
        for edge in node.outs.iter_mut().filter(|e| e.outlet == outlet) {
            let Some(columns) = edge.exchange.as_ref().filter(|_| workers > 1) else {
                self.now.stack.push(Task::Rows(edge.to, edge.port, delta.clone()));
                continue;
            };
            // What fails here fails who gets the rows: others are fed by this node, too.
            let folder = &mut edge.folder;
            let parts = guarded(|| {
                let rest = match folder {
                    Some(folder) => folder.fold(delta)?,
                    None => Some(delta.clone()),
                };
                rest.map_or(Ok(Vec::new()), |rest| partition(&rest, columns, workers))
            });
            let to = (self.now.epoch, edge.to, edge.port);
            let parts = parts.unwrap_or_else(|error| {
                failures.push((edge.to, error));
                Vec::new()
            });
            for (worker, part) in parts.into_iter().enumerate() {
                let Some(part) = part else { continue };
                if let Some(own) = self.links.send_rows(worker, to, part) {
                    self.now.stack.push(Task::Rows(edge.to, edge.port, own));
                }
            }
        }
        failures.into_iter().for_each(|(node, error)| self.fail(node, error));
    }

    pub(super) fn fail(&mut self, id: NodeId, error: Error) {
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
        let workers = self.links.workers();
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

    /// Sends what has been folded of a node's rows.
    fn send_folded(&mut self, id: NodeId) {
        let workers = self.links.workers();
        let Some(node) = self.nodes.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let mut failures = Vec::new();
        for edge in &mut node.outs {
            let Some(folder) = &mut edge.folder else { continue };
            let to = (self.now.epoch, edge.to, edge.port);
            let parts = guarded(|| folder.take(workers)).unwrap_or_else(|error| {
                failures.push((edge.to, error));
                Vec::new()
            });
            for (worker, part) in parts.into_iter().enumerate() {
                let Some(part) = part else { continue };
                if let Some(own) = self.links.send_folded(worker, to, part) {
                    self.now.stack.push(Task::Folded(edge.to, edge.port, Box::new(own)));
                }
            }
        }
        failures.into_iter().for_each(|(node, error)| self.fail(node, error));
    }

    pub(super) fn send_marks(&mut self, id: NodeId) {
        self.send_folded(id);
        let Ok(node) = self.node(id) else { return };
        let marks: Vec<(usize, Watermark)> =
            std::mem::take(&mut node.watermarks).into_iter().collect();
        node.latest.extend(marks.iter().copied());
        // A node that does not run in this step waits for no marks.
        let active = Arc::clone(&self.now.active);
        let Ok(node) = self.node(id) else { return };
        let onward = node.outs.iter().filter(|e| e.outlet != Outlet::Feedback);
        let running = onward.filter(|e| active.binary_search(&e.to).is_ok());
        let edges: Vec<(NodeId, usize, bool, Outlet)> =
            running.map(|e| (e.to, e.port, e.exchange.is_some(), e.outlet)).collect();
        self.now.report.watermarks.extend(marks.iter().map(|(c, w)| (id, *c, *w)));
        // The others' first: nothing that happens here may keep them waiting.
        let of_rows = |outlet| if outlet == Outlet::Rows { marks.as_slice() } else { &[] };
        for (to, port, _, outlet) in edges.iter().filter(|(_, _, exchanged, _)| *exchanged) {
            self.links.send_mark((self.now.epoch, *to, *port), of_rows(*outlet));
        }
        for (to, port, _, outlet) in &edges {
            self.advance(*to, *port, self.index(), of_rows(*outlet));
        }
    }

    /// Gives back row versions of this worker's that nobody can read.
    pub fn vacuum(&self, tables: &[(Arc<ResultTable>, Epoch)]) {
        let shard = self.index();
        let mine = tables.iter().filter(|(table, _)| shard < table.shards());
        mine.for_each(|(table, oldest)| vacuum(table, shard, *oldest));
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

/// Does something that must not end the worker.
fn guarded<T>(what: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = catch_unwind(AssertUnwindSafe(what));
    done.unwrap_or_else(|panic| Err(panicked("an exchange", &panic)))
}

/// The error of what has panicked.
pub(super) fn panicked(what: &str, panic: &Box<dyn std::any::Any + Send>) -> Error {
    // Kernels of the library that would make a column with more bytes than its offsets can count
    // end so.
    if is_overflow(panic.as_ref()) {
        return too_many_bytes();
    }
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Error::internal(format!("{what} panicked: {text}"))
}
