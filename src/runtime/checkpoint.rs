//! Checkpoints at work: cutting between two epochs, and a thread that writes.
//!
//! A cut takes what all tables have logged, which swaps buffers and waits for nobody; sorting,
//! merging and writing are the thread's. A view that is being built keeps its log until it is
//! complete: of it there is nothing in a checkpoint before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::backlog::Backlog;
use super::coordinator::{Coordinator, Event};
use super::eviction::Decided;
use super::graph::{NodeId, NodeKind};
use super::identity::TablePlace;
use super::journal::Journal;
use super::keeping::{SinksCut, SinksDecided, write_outbox};
use super::running_sink::SinkCut;
use super::shared::RelationStatus;
use super::sink_queue::Size;
use super::state::{Cut, EngineState, SplitProgress};
use super::worker::TableChanges;
use crate::catalog::access::Acl;
use crate::catalog::{Definition, RelationId, RelationKind};
use crate::checkpoint::{
    Checkpoints, Cost, History, LogEnd, Made, Manifest, OutFile, Part, QuarantineMark, RunReader,
    SinksGo, SourceMark, TableName,
};
use crate::error::{Error, Result, sqlstate};
use crate::store::Disk;
use crate::store::log;
use crate::time::Epoch;

/// Tables of nodes, by their numbers in a checkpoint.
pub type NumberedTables = Vec<(NodeId, Vec<u32>)>;

/// Cuts checkpoints of a life.
#[derive(Debug)]
pub struct Checkpointer {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    interval: Duration,
    /// A cut is being written.
    busy: bool,
    /// Who waits for a cut that is still to be made, and for the one that is being written.
    asked: Vec<oneshot::Sender<Result<()>>>,
    waiting: Vec<oneshot::Sender<Result<()>>>,
    cut_at: Instant,
    /// The next one is made as soon as possible.
    hurried: bool,
    /// The epoch of the last cut, and the record of the log behind it.
    last: (Epoch, u64),
    /// The number of the next one.
    next: u64,
    /// Numbers of tables by what they are.
    numbers: BTreeMap<TableName, u32>,
    next_number: u32,
    /// What is shown of them.
    history: Arc<History>,
    /// What is not on the disk yet.
    pub(super) backlog: Backlog,
}

/// What the thread is to do.
enum Order {
    Write(Box<Written>),
    /// Something else with the checkpoints, between two that are written.
    Call(Box<dyn FnOnce(&mut Checkpoints) + Send>),
}

/// What is to be written of a cut.
struct Written {
    manifest: Manifest,
    parts: Vec<Part>,
    /// How long the cut has taken.
    pause: Duration,
    sinks: SinksCut,
    /// It will be read from.
    is_read: bool,
}

impl Checkpointer {
    /// Starts the thread behind the newest checkpoint of a directory: one is cut when `interval`
    /// has passed, or when tables have logged more bytes than `early`.
    pub fn start(
        mut checkpoints: Checkpoints,
        disk: Arc<dyn Disk>,
        log_dir: PathBuf,
        (interval, early): (Duration, usize),
        c: &Coordinator,
    ) -> Result<Self> {
        let told = c.events.clone();
        checkpoints.on_merged(move || {
            let hurry = Event::Call(Box::new(Coordinator::hurry_checkpoint));
            // Whoever would cut it may be gone.
            drop(told.send(hurry));
        });
        let newest = checkpoints.newest();
        let mut tables = newest.map(|m| m.tables.clone()).unwrap_or_default();
        tables.retain(|_, name| !c.void.contains(&name.relation));
        let events = c.events.clone();
        let next_number = newest.map_or(1, |m| m.next_table);
        let (orders, inbox) = channel();
        let history = Arc::new(History::default());
        checkpoints.kept()?.iter().for_each(|manifest| history.made(Made::of(manifest, None)));
        let next = checkpoints.next_number();
        let backlog = Backlog::new(early);
        let mut writer = Writer {
            checkpoints,
            disk,
            log_dir,
            events,
            parts: Vec::new(),
            sinks: Vec::new(),
            opened: Vec::new(),
            open: BTreeMap::new(),
            bytes: Arc::clone(&backlog.cut),
            history: Arc::clone(&history),
        };
        let run = move || writer.run(&inbox);
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(run)?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
            interval,
            busy: false,
            asked: Vec::new(),
            waiting: Vec::new(),
            cut_at: Instant::now(),
            hurried: false,
            last: (Epoch::ZERO, 0),
            next,
            numbers: tables.into_iter().map(|(number, name)| (name, number)).collect(),
            next_number,
            history,
            backlog,
        })
    }

    /// Whether the thread will do something.
    fn order(&self, order: Order) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok())
    }

    fn number(&mut self, name: TableName) -> u32 {
        let Self { numbers, next_number, .. } = self;
        *numbers.entry(name).or_insert_with(|| {
            *next_number += 1;
            *next_number - 1
        })
    }
}

impl Drop for Checkpointer {
    /// The directory is another process's when we are gone: so nothing is written any more.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // What it could not write, it has said.
            let _ = thread.join();
        }
    }
}

/// The thread that writes.
struct Writer {
    checkpoints: Checkpoints,
    disk: Arc<dyn Disk>,
    log_dir: PathBuf,
    events: Sender<Event>,
    /// What was cut and could not be written yet, the oldest first.
    parts: Vec<Vec<Part>>,
    /// The same of sinks, and their first rows, which are in files.
    sinks: Vec<SinkCut>,
    opened: Vec<OutFile>,
    /// Runs that are open, of the newest checkpoint that was to be read from.
    open: BTreeMap<u64, Arc<RunReader>>,
    /// Bytes of what was cut and is not written.
    bytes: Arc<AtomicUsize>,
    history: Arc<History>,
}

impl Writer {
    fn run(&mut self, inbox: &Receiver<Order>) {
        while let Ok(order) = inbox.recv() {
            let Written { manifest, parts, sinks, pause, is_read } = match order {
                Order::Write(written) => *written,
                Order::Call(call) => {
                    call(&mut self.checkpoints);
                    continue;
                }
            };
            self.parts.push(parts);
            self.sinks.extend(sinks.cuts);
            self.opened.extend(sinks.opened);
            let began = Instant::now();
            let runs = self.checkpoints.newest().into_iter().flat_map(|m| &m.runs);
            let before: BTreeSet<u64> = runs.map(|run| run.id).collect();
            let written = self.write(manifest);
            match &written {
                Ok(_) => {
                    self.parts.clear();
                    self.sinks.clear();
                    self.opened.clear();
                    self.bytes.store(0, Ordering::Relaxed);
                    self.note(&before, pause, began.elapsed());
                    if let Err(error) = self.clean_and_regain() {
                        tracing::warn!(%error, "old checkpoints could not be removed");
                    }
                }
                // What was cut is kept and written with the next one.
                Err(error) => {
                    tracing::warn!(%error, "a checkpoint could not be written");
                    self.history.failed(error.clone());
                }
            }
            let decided = is_read.then(|| self.decided()).flatten().filter(|_| written.is_ok());
            let done = move |c: &mut Coordinator| {
                c.checkpoint_decided(decided);
                c.checkpoint_written(written);
            };
            if self.events.send(Event::Call(Box::new(done))).is_err() {
                return;
            }
        }
    }

    /// The newest one, to be read from.
    fn decided(&mut self) -> Option<Decided> {
        let tables = &self.checkpoints.newest()?.tables;
        let numbers = tables.iter().map(|(number, name)| (name.clone(), *number)).collect();
        match self.checkpoints.image_with(&mut self.open) {
            Ok(image) => Some(Decided { image: Arc::new(image), numbers: Arc::new(numbers) }),
            Err(error) => {
                tracing::warn!(%error, "a checkpoint can't be read");
                None
            }
        }
    }

    /// Notes what the newest one has cost; runs of `before` were there.
    fn note(&self, before: &BTreeSet<u64>, pause: Duration, write: Duration) {
        let Some(manifest) = self.checkpoints.newest() else { return };
        let new = manifest.runs.iter().filter(|run| !before.contains(&run.id));
        let cost = Cost { pause, write, written: new.map(|run| run.bytes).sum() };
        let trouble = self.checkpoints.merge_trouble().cloned();
        self.history.made(Made { trouble, ..Made::of(manifest, Some(cost)) });
    }

    /// Writes a checkpoint; on a full disk what can be given up is, piece by piece.
    fn write(&mut self, manifest: Manifest) -> Result<SinksDecided> {
        loop {
            match self.try_write(manifest.clone()) {
                Err(error)
                    if error.sqlstate() == sqlstate::DISK_FULL && self.checkpoints.make_room() =>
                {
                    self.clean()?;
                }
                written => return written,
            }
        }
    }

    fn try_write(&mut self, manifest: Manifest) -> Result<SinksDecided> {
        let number = self.checkpoints.next_number();
        let (marks, sources) = (manifest.sinks.clone(), manifest.sources.clone());
        let mut files = self.opened.clone();
        files.extend(write_outbox(self.checkpoints.outboxes(), number, &self.sinks)?);
        self.checkpoints.write(manifest, &self.parts, &files)?;
        let mut released = BTreeMap::new();
        for cut in &self.sinks {
            let (size, _) = released.entry(cut.relation).or_insert((Size::default(), cut.since));
            (size.rows, size.bytes) = (size.rows + cut.size.rows, size.bytes + cut.size.bytes);
        }
        Ok(SinksDecided { number, marks, files, sources, released })
    }

    /// Removes what nobody needs, and more as long as there is no room for a ballast.
    fn clean_and_regain(&mut self) -> Result<()> {
        self.clean()?;
        self.checkpoints.regain_room();
        if self.checkpoints.is_short() {
            self.clean()?;
            self.checkpoints.regain_room();
        }
        Ok(())
    }

    fn clean(&self) -> Result<()> {
        let needed = self.checkpoints.clean()?;
        log::clean(self.disk.as_ref(), &self.log_dir, needed)
    }
}

impl Coordinator {
    /// What a checkpoint had of relations is not theirs any more: their tables get new numbers.
    pub(super) fn forget_numbers(&mut self, ids: &BTreeSet<RelationId>) {
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.numbers.retain(|name, _| !ids.contains(&RelationId(name.relation)));
        }
    }

    /// From here on checkpoints are cut.
    pub fn checkpoint_with(&mut self, checkpointer: Checkpointer) {
        self.checkpointer = Some(checkpointer);
        self.memory().evicts();
    }

    /// The tables of a relation's nodes, in order.
    pub(super) fn table_names(&self, id: RelationId) -> Vec<(NodeId, Vec<TableName>)> {
        let nodes = self.graph.nodes_of(id).into_iter();
        let specs = nodes.filter_map(|node| self.graph.spec(node));
        let named = specs.filter_map(|node| {
            let NodeKind::Operator(spec) = &node.kind else { return None };
            let names = spec.tables().into_iter().map(|table| {
                let place =
                    TablePlace { relation: id, node: node.key, table: table.name.to_owned() };
                place.name(table.version)
            });
            Some((node.id, names.collect()))
        });
        named.filter(|(_, names): &(_, Vec<_>)| !names.is_empty()).collect()
    }

    /// Cuts a checkpoint when it is time and there is something new.
    pub(super) fn cut_if_due(&mut self) {
        self.measure_backlog();
        let Some(journal) = &self.journal else { return };
        let Some(checkpointer) = &self.checkpointer else { return };
        let now = (self.epoch, journal.next_lsn());
        if !checkpointer.busy && self.flights.is_empty() && self.until_checkpoint().is_zero() {
            self.cut_now(now);
        }
    }

    /// How long it is until the next checkpoint can be cut, as things stand.
    pub(super) fn until_checkpoint(&self) -> Duration {
        let (Some(journal), Some(checkpointer)) = (&self.journal, &self.checkpointer) else {
            return Duration::MAX;
        };
        if checkpointer.busy {
            // Its thread tells.
            return Duration::MAX;
        }
        let Checkpointer { backlog, hurried, .. } = checkpointer;
        let (waits, soon) = self.sinks_wait();
        if soon || *hurried || backlog.is_large() || !checkpointer.asked.is_empty() {
            return Duration::ZERO;
        }
        // What could not be written is tried again, though nothing may have changed since.
        let now = (self.epoch, journal.next_lsn());
        match checkpointer.last != now || waits || backlog.failing.is_some() {
            true => checkpointer.interval.saturating_sub(checkpointer.cut_at.elapsed()),
            false => Duration::MAX,
        }
    }

    /// The log has no room: a checkpoint lets go what is behind it, and older ones go with theirs.
    pub(super) fn press_checkpoint(&mut self) {
        let Some(checkpointer) = &mut self.checkpointer else { return };
        if checkpointer.cut_at.elapsed() >= checkpointer.interval {
            checkpointer.hurried |= checkpointer.order(Order::Call(Box::new(Checkpoints::press)));
        }
    }

    /// Whether there will be another checkpoint at once: one is being written, or something has
    /// changed since the last cut.
    pub(super) fn expects_checkpoint(&mut self) -> bool {
        let Some(checkpointer) = &mut self.checkpointer else { return false };
        checkpointer.hurried |= checkpointer.last.0 != self.epoch;
        checkpointer.busy || checkpointer.hurried
    }

    /// The next checkpoint is cut as soon as no step is in flight.
    pub(super) fn hurry_checkpoint(&mut self) {
        self.checkpointer.iter_mut().for_each(|checkpointer| checkpointer.hurried = true);
    }

    fn cut_now(&mut self, now: (Epoch, u64)) {
        let began = Instant::now();
        let Cut { state, changes } = self.cut();
        let (Some(journal), Some(mut checkpointer)) =
            (self.journal.take(), self.checkpointer.take())
        else {
            return;
        };
        let mut manifest = self.manifest(now, &state, &journal);
        for id in self.complete() {
            for name in self.table_names(id).into_iter().flat_map(|(_, names)| names) {
                manifest.tables.insert(checkpointer.number(name.clone()), name);
            }
        }
        let mut parts = Vec::new();
        for TableChanges { place, version, expired_below, log } in changes.into_iter().flatten() {
            let number = checkpointer.number(place.name(version));
            if !manifest.tables.contains_key(&number) {
                // Of a view that has failed.
                continue;
            }
            if let Some(below) = expired_below {
                let least = manifest.expired_below.entry(number).or_insert(below);
                *least = (*least).min(below);
            }
            parts.push((number, log));
        }
        let sinks = self.cut_sinks(checkpointer.next, &mut manifest);
        checkpointer.numbers.retain(|_, number| manifest.tables.contains_key(number));
        manifest.next_table = checkpointer.next_number;
        checkpointer.last = now;
        checkpointer.backlog.taken();
        checkpointer.hurried = false;
        let bytes = parts.iter().map(|(_, log): &Part| log.bytes()).sum();
        checkpointer.backlog.cut.fetch_add(bytes, Ordering::Relaxed);
        let pause = began.elapsed();
        let is_read = self.reads_checkpoints();
        let cut = Order::Write(Box::new(Written { manifest, parts, sinks, pause, is_read }));
        checkpointer.busy = checkpointer.order(cut);
        checkpointer.cut_at = Instant::now();
        checkpointer.waiting.append(&mut checkpointer.asked);
        tracing::debug!(?pause, epoch = %now.0, "cut a checkpoint");
        self.journal = Some(journal);
        self.checkpointer = Some(checkpointer);
    }

    /// What the thread is done with, written or not.
    fn checkpoint_written(&mut self, mut written: Result<SinksDecided>) {
        match &mut written {
            Ok(decided) => self.sinks_decided(decided),
            // What another process has is not ours to write.
            Err(error) if error.sqlstate() == sqlstate::OBJECT_IN_USE => {
                let error = error.clone();
                self.fail_engine(&error);
            }
            Err(error) => self.sinks_not_decided(error),
        }
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.busy = false;
            checkpointer.backlog.failing = written.as_ref().err().cloned();
            checkpointer.next += u64::from(written.is_ok());
            for waiting in checkpointer.waiting.drain(..) {
                // Whoever asked may be gone.
                let _ = waiting.send(written.as_ref().map(drop).map_err(Clone::clone));
            }
        }
    }

    /// Cuts a checkpoint as soon as no step is in flight; `done` is told when it is decided.
    pub fn checkpoint(&mut self, done: oneshot::Sender<Result<()>>) {
        match &mut self.checkpointer {
            Some(checkpointer) => checkpointer.asked.push(done),
            // There is nothing to keep.
            None => drop(done.send(Ok(()))),
        }
    }

    /// Does something with the checkpoints, between two that are written; the receiver has its
    /// result, and ends without one where there is no data directory.
    pub fn with_checkpoints<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Checkpoints) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, result) = oneshot::channel();
        // Whoever asked may be gone.
        let call = move |checkpoints: &mut Checkpoints| drop(done.send(call(checkpoints)));
        if let Some(checkpointer) = &self.checkpointer {
            checkpointer.order(Order::Call(Box::new(call)));
        }
        result
    }

    /// Makes an older checkpoint the newest and ends the engine: the next life begins with it. It
    /// waits for the thread, so that nothing is acknowledged that would come behind it.
    pub fn go_back(&mut self, older: Manifest, sinks: Option<SinksGo>) -> Result<u64> {
        let journal = self.journal.as_ref();
        let journal = journal.ok_or_else(|| Error::internal("the engine keeps no log"))?;
        let end = LogEnd {
            lsn: journal.next_lsn(),
            life: journal.life(),
            epochs: journal.epochs(),
            greatest_relation: self.shared.catalog().greatest().0,
        };
        let restore = move |checkpoints: &mut Checkpoints| checkpoints.restore(&older, sinks, end);
        let went = self.with_checkpoints(restore);
        let went = went.blocking_recv();
        let number = went.map_err(|_| Error::internal("the thread of checkpoints has ended"))??;
        self.fail_engine(&begins_again());
        Ok(number)
    }

    /// What is shown of checkpoints; nothing where there is no data directory.
    pub fn checkpoints(&self) -> Option<Arc<History>> {
        self.checkpointer.as_ref().map(|checkpointer| Arc::clone(&checkpointer.history))
    }

    /// The relations whose state a checkpoint has: those that are complete, or were until they
    /// failed.
    fn complete(&self) -> Vec<RelationId> {
        let catalog = self.shared.catalog();
        let relations = self.shared.relations();
        let sound = |id: RelationId| match relations.get(&id).map(|r| r.status()) {
            Some(RelationStatus::Running) => true,
            // As it was when it failed; but what it has of an attempt to build it anew is nothing.
            Some(RelationStatus::Quarantined(..)) => {
                let sink = catalog.by_id(id).is_none_or(|r| r.kind == RelationKind::Sink);
                !sink && !self.rebuilt.contains_key(&id)
            }
            _ => false,
        };
        let kept = |id: &RelationId| {
            catalog.by_id(*id).is_some_and(|relation| match relation.kind {
                RelationKind::System => relation.depends_on.iter().all(|of| sound(*of)),
                // What it has of a query is of no use without what it has delivered.
                RelationKind::Sink => self.sinks.get(id).is_some_and(|(_, s)| s.kept().is_some()),
                _ => true,
            })
        };
        relations.keys().copied().filter(|id| sound(*id) && kept(id)).collect()
    }

    /// Why a relation has failed, where its state is kept.
    fn quarantine_mark(
        &self,
        (id, (epoch, error)): (&RelationId, &(Epoch, Error)),
    ) -> Option<(u32, QuarantineMark)> {
        self.graph.output(*id).filter(|_| !self.rebuilt.contains_key(id))?;
        let mark = QuarantineMark {
            epoch: epoch.0,
            sqlstate: error.sqlstate().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        };
        Some((id.0, mark))
    }

    fn manifest(
        &self,
        (epoch, lsn): (Epoch, u64),
        state: &EngineState,
        journal: &Journal,
    ) -> Manifest {
        let catalog = self.shared.catalog();
        let access = Some(catalog.access().changes()).filter(|changes| !changes.is_empty());
        let access = access.and_then(|all| serde_json::to_value(Definition::Access(all)).ok());
        let definitions = journal.live().filter_map(|creation| {
            let mut creation = creation.clone();
            // Names may have changed since.
            let relation = catalog.by_id(creation.ids.relation)?;
            creation.name.clone_from(&relation.name);
            creation.text.clone_from(&relation.definition);
            creation.acl = Some(relation.acl.clone()).filter(|acl| *acl != Acl::default());
            serde_json::to_value(Definition::Create(Box::new(creation))).ok()
        });
        let sources = state.inputs.iter().map(|(id, input)| {
            let source = state.sources.get(id).cloned().unwrap_or_default();
            let split =
                |(split, at): (&u32, &SplitProgress)| (*split, (at.watermark.us(), at.idle));
            let mark = SourceMark {
                start: source.start,
                taken: source.taken,
                identity: source.identity,
                ended: source.ended,
                splits: input.splits.iter().map(split).collect(),
                merged: input.merged.us(),
                batches: input.batches,
                lateness: input.lateness.buckets().clone(),
                rejected: source.rejected,
                rejected_at: source.rejected_at,
            };
            (id.0, mark)
        });
        Manifest {
            life: journal.life(),
            epochs: journal.epochs(),
            epoch: epoch.0,
            now_us: state.now_us,
            lsn,
            definitions: access.into_iter().chain(definitions).collect(),
            greatest_relation: catalog.greatest().0,
            clock: self.shared.clock.manual_us(),
            sources: sources.collect(),
            quarantined: state.quarantined.iter().filter_map(|q| self.quarantine_mark(q)).collect(),
            ..Manifest::default()
        }
    }
}

/// Why an engine ends that has gone back to an older state.
pub fn begins_again() -> Error {
    Error::user(sqlstate::ADMIN_SHUTDOWN, "the engine begins again with a restored state")
        .with_hint("Connect again.")
}

/// A definition of a manifest.
pub fn definition_of(value: &serde_json::Value) -> Result<Definition> {
    serde_json::from_value(value.clone())
        .map_err(|e| Error::corrupted(format!("a definition of the manifest can't be read: {e}")))
}
