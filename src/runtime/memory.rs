//! What the engine holds in memory: counted by who holds it, and bounded.
//!
//! Rows of tables and views, operators' state, what waits for sinks, subscribers and checkpoints
//! are counted here, the memory of reads where it is taken (`sql/memory.rs`). Nothing is asked of
//! the allocator. Batches on their way between operators are not counted: they are few and bounded.
//!
//! Near the limit sources wait and rows that are added are refused (53200), until something was
//! deleted or dropped. A view that is being built, or whose step makes more than there is room for,
//! is ended alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::coordinator::Coordinator;
use crate::catalog::RelationId;
use crate::error::{Error, sqlstate};
use crate::expr::show_bytes;
use crate::sql::memory::{Memory, memory_is_full};
use crate::time::Epoch;

/// How often is measured while nothing else does, and when little is held.
const MEASURE: Duration = Duration::from_millis(25);
const MEASURE_SELDOM: Duration = Duration::from_secs(1);

/// When what is held was counted last.
pub(super) struct Measured {
    at: Instant,
    epoch: Epoch,
    memory: Arc<Memory>,
}

/// Somebody who holds memory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Bytes.
    pub bytes: usize,
    /// Rows that are on the disk instead.
    pub out: usize,
    /// What is held: `rows`, `state`, `queue`.
    pub kind: &'static str,
    /// The relation, or what else it is.
    pub name: String,
}

/// A step may bring so many hundredths of the limit into memory where keys can leave it again.
const STEP_MAX: usize = 150;

/// Bytes that are held above so many hundredths of the limit.
pub(super) fn bytes_above(memory: &Memory, hundredths: usize) -> usize {
    memory.total().saturating_sub(memory.whole_limit() / 100 * hundredths)
}

impl Measured {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self { at: Instant::now(), epoch: Epoch::ZERO, memory }
    }
}

impl Coordinator {
    /// The bytes of all operators' state are known: those of a step's report.
    pub(super) fn note_state_bytes(&mut self, state: usize) {
        let bytes = state + self.all_row_bytes() + self.waiting_bytes();
        self.measured.memory.note_engine(bytes);
        (self.measured.at, self.measured.epoch) = (Instant::now(), self.epoch);
    }

    /// Counts now and then what is held, where no step does.
    pub(super) fn measure_memory(&mut self) {
        if !self.flights.is_empty() {
            // Steps say it when they end, and those that last are looked at.
            return;
        }
        let Measured { at, epoch, memory } = &self.measured;
        let (full, changed) = (memory.is_full(), *epoch != self.epoch);
        let pause = if full || changed && memory.is_near() { MEASURE } else { MEASURE_SELDOM };
        if at.elapsed() < pause || !(full || changed) {
            return;
        }
        self.count_memory();
        self.make_room();
    }

    /// What is held, as it was counted last.
    pub(super) fn memory(&self) -> &Memory {
        &self.measured.memory
    }

    pub(super) fn count_memory(&mut self) {
        let sizes = self.team.sizes();
        self.note_state_bytes(sizes.iter().flatten().map(|table| table.bytes).sum());
    }

    /// Where more is held than may be, the youngest of the views that are not there yet ends.
    fn make_room(&mut self) {
        if !self.measured.memory.is_exceeded() || !self.is_all_evicted() {
            return;
        }
        let youngest = self.builds.last().map(|build| build.first_member());
        if let Some((id, output)) = youngest.and_then(|id| Some((id, self.graph.output(id)?))) {
            let error = self.out_of_memory(id);
            self.quarantine(output, &error, self.epoch.next());
        }
    }

    /// Why a view has to end that makes more than there is room for: one that is being built, or
    /// the one that holds the most.
    pub(super) fn exceeds_memory(&mut self, owner: RelationId) -> Option<Error> {
        self.count_memory();
        if !self.measured.memory.is_exceeded() {
            return None;
        }
        let building = self.builds.iter().any(|build| build.members().contains(&owner));
        // At the end of the step keys leave.
        if !building && !self.is_all_evicted() && bytes_above(self.memory(), STEP_MAX) == 0 {
            return None;
        }
        let held = if building { BTreeMap::new() } else { self.held_by_relation() };
        let most = held.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(id, _)| id);
        (building || most == Some(owner)).then(|| self.out_of_memory(owner))
    }

    /// Rows and state of each relation.
    fn held_by_relation(&mut self) -> BTreeMap<RelationId, usize> {
        let mut held = BTreeMap::new();
        for (id, table) in self.state_sizes() {
            *held.entry(id).or_default() += table.bytes;
        }
        let relations = self.shared.relations();
        let stored = relations.iter().filter_map(|(id, r)| Some((*id, r.table.as_ref()?)));
        let built = self.rebuilt.iter().map(|(id, table)| (*id, table));
        for (id, table) in stored.chain(built) {
            *held.entry(id).or_default() += table.bytes();
        }
        held
    }

    fn out_of_memory(&self, id: RelationId) -> Error {
        let catalog = self.shared.catalog();
        let named = catalog.by_id(id).map(|r| format!("{} \"{}\"", r.kind.noun(), r.name));
        let memory = &self.measured.memory;
        let message = format!("{} was stopped by the memory limit", named.unwrap_or_default());
        Error::user(sqlstate::OUT_OF_MEMORY, message)
            .with_detail(format!(
                "{} are held, of at most {}.",
                show_bytes(memory.total()),
                show_bytes(memory.whole_limit())
            ))
            .with_hint("SHOW MEMORY; says by whom. DROP something, or raise --memory-limit.")
    }

    /// Whether sources wait until there is room.
    pub(super) fn is_memory_full(&self) -> bool {
        self.measured.memory.is_full()
    }

    /// Why they wait, in words.
    pub(super) fn memory_detail(&self) -> Option<String> {
        let memory = &self.measured.memory;
        let (held, limit) = (show_bytes(memory.total()), show_bytes(memory.whole_limit()));
        memory.is_full().then(|| format!("memory ({held} of {limit} are held, see SHOW MEMORY)"))
    }

    /// The same as an error, for who waits for sources; none while keys leave memory.
    pub(super) fn memory_obstacle(&self) -> Option<Error> {
        let memory = &self.measured.memory;
        let stuck = memory.is_full() && self.is_all_evicted();
        stuck.then(|| memory_is_full("sources wait", memory))
    }

    fn all_row_bytes(&self) -> usize {
        let relations = self.shared.relations();
        let stored = relations.values().filter_map(|r| r.table.as_ref());
        let built = self.rebuilt.values();
        stored.chain(built).map(|table| table.bytes()).sum()
    }

    /// What waits for sinks, subscribers and checkpoints.
    fn waiting_bytes(&self) -> usize {
        let sinks = self.sinks.values().map(|(_, sink)| sink.waiting_bytes());
        let subscribers = self.subscribers.values().flatten().map(|s| s.waiting_bytes());
        let imports = self.builds.iter().flat_map(|build| build.import_nodes());
        let held_back = imports.map(|node| self.graph.held_back(node));
        sinks.chain(subscribers).chain(held_back).sum::<usize>() + self.backlog_bytes()
    }

    /// Who holds what, the most first.
    pub fn memory_holders(&mut self) -> Vec<Holder> {
        self.count_memory();
        let catalog = self.shared.catalog();
        let name = |id: RelationId| catalog.by_id(id).map_or_else(String::new, |r| r.name.clone());
        let mut all: BTreeMap<(String, &'static str), (usize, usize)> = BTreeMap::new();
        let mut add = |name: String, kind, bytes, out| {
            let holder = all.entry((name, kind)).or_default();
            *holder = (holder.0 + bytes, holder.1 + out);
        };
        for (id, table) in self.state_sizes() {
            add(name(id), "state", table.bytes, table.out);
        }
        for (id, relation) in self.shared.relations().iter() {
            if let Some(table) = &relation.table {
                add(name(*id), "rows", table.bytes(), table.rows_out());
            }
        }
        for (id, table) in &self.rebuilt {
            add(name(*id), "rows", table.bytes(), table.rows_out());
        }
        for (id, (_, sink)) in &self.sinks {
            add(name(*id), "queue", sink.waiting_bytes(), 0);
        }
        for build in &self.builds {
            let held_back = build.import_nodes().map(|node| self.graph.held_back(node)).sum();
            add(name(build.first_member()), "queue", held_back, 0);
        }
        let subscribers = self.subscribers.values().flatten().map(|s| s.waiting_bytes()).sum();
        add("subscriptions".to_owned(), "queue", subscribers, 0);
        add("checkpoints".to_owned(), "queue", self.backlog_bytes(), 0);
        let held = all.into_iter().filter(|(_, (bytes, out))| bytes + out > 0);
        let mut held: Vec<Holder> =
            held.map(|((name, kind), (bytes, out))| Holder { bytes, out, kind, name }).collect();
        held.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        held
    }
}
