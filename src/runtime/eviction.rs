//! Keys leave memory when it gets scarce: the coordinator says when and how many, workers choose.
//!
//! What leaves has to be in a decided checkpoint, so nothing does without a data directory. From
//! [`BEGIN`] hundredths of the limit on workers note which keys are asked for, and a checkpoint is
//! cut; when it is decided keys leave, a piece at a time between two steps, until [`END`]
//! hundredths are held. That goes on for the life of the engine: whoever was out of memory once
//! will be again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::coordinator::Coordinator;
use super::graph::NodeId;
use super::memory::bytes_above;
use super::shared::RelationStatus;
use super::worker::Worker;
use crate::checkpoint::{Image, RunName, TableName, TableRows};
use crate::state::TableId;
use crate::time::Epoch;

/// Hundredths of the limit from which on keys leave, and down to which.
const BEGIN: usize = 75;
const END: usize = 65;

/// Pieces in which nothing leaves after which it is believed that nothing can: the first sweep over
/// a table passes over what was in use.
const BARREN: u32 = 64;

/// State of which the files have so many hundredths of the limit may not fit: in memory it is up to
/// twice as large.
const LARGE: usize = 40;

/// Bytes that leave on all workers between two steps: some ten milliseconds.
const PIECE_BYTES: usize = 4 << 20;

/// Keys that leave.
#[derive(Debug, Default)]
pub(super) struct Eviction {
    stage: Stage,
    /// Down to the lower bound.
    goes_on: bool,
    /// Pieces in which nothing could leave, one after the other, and the epoch of the last one.
    barren: (u32, Epoch),
    /// After each epoch everything leaves that can: for tests.
    always: bool,
    /// The epoch after which it has.
    at: Epoch,
}

impl Eviction {
    pub(super) fn new(always: bool) -> Self {
        Self { always, ..Self::default() }
    }
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// There is room.
    #[default]
    Off,
    /// Keys that are asked for are noted; a checkpoint has to be decided.
    Waiting,
    /// Keys may leave.
    On,
}

/// The state of a decided checkpoint, with what its tables are.
#[derive(Debug, Clone)]
pub(super) struct Decided {
    pub(super) image: Arc<Image>,
    pub(super) numbers: Arc<BTreeMap<TableName, u32>>,
}

impl Coordinator {
    /// Whether checkpoints are read from.
    pub(super) fn reads_checkpoints(&self) -> bool {
        self.eviction.stage != Stage::Off
    }

    /// Begins, goes on or ends having keys leave, between two steps.
    pub(super) fn evict_if_due(&mut self) {
        if !self.flights.is_empty() {
            return;
        }
        if self.eviction.always {
            self.evict_checked();
            return;
        }
        if self.checkpointer.is_none() {
            return;
        }
        let memory = self.memory();
        let (begins, left) = (bytes_above(memory, BEGIN) > 0, bytes_above(memory, END));
        match self.eviction.stage {
            Stage::Off if begins => self.begin_evicting(),
            Stage::On if (begins || self.eviction.goes_on) && !self.is_all_evicted() => {
                self.eviction.goes_on = left > 0;
                if left > 0 {
                    self.evict_piece(left);
                }
            }
            _ => {}
        }
    }

    /// Whether more keys are to leave at once.
    pub(super) fn goes_on_evicting(&self) -> bool {
        let Eviction { stage, goes_on, .. } = self.eviction;
        stage == Stage::On && goes_on && self.flights.is_empty() && !self.is_all_evicted()
    }

    /// From here on keys may leave.
    pub(super) fn begin_evicting(&mut self) {
        tracing::info!("memory gets scarce: keys that were not asked for lately leave it");
        self.eviction.stage = Stage::Waiting;
        let limit = self.memory().whole_limit();
        self.team.each(move |worker| worker.state.begin_evicting(limit));
        self.hurry_checkpoint();
    }

    /// A life begins with the state in some runs: where that may be more than there is room for,
    /// keys stay on the disk from the beginning.
    pub(super) fn begin_evicting_at(&mut self, runs: &[RunName]) {
        let bytes = runs.iter().map(|run| run.bytes).sum::<u64>();
        if bytes > (self.memory().whole_limit() / 100 * LARGE) as u64 {
            tracing::info!(bytes, "the state may not fit into memory: some keys stay on the disk");
            self.eviction.stage = Stage::On;
            let limit = self.memory().whole_limit();
            self.team.each(move |worker| worker.state.begin_evicting(limit));
        }
    }

    /// Bytes of state that may be loaded at once, where some can stay on the disk.
    pub(super) fn room_for_state(&mut self) -> Option<usize> {
        if !self.reads_checkpoints() {
            return None;
        }
        self.count_memory();
        let memory = self.memory();
        Some((memory.whole_limit() / 100 * END).saturating_sub(memory.total()))
    }

    fn evict_piece(&mut self, bytes: usize) {
        let (bytes, workers) = (bytes.min(PIECE_BYTES), self.team.workers());
        let (oldest, frozen) = (self.shared.oldest(), Arc::new(self.frozen_nodes()));
        let evicted =
            self.team.each(move |worker| worker.evict(bytes.div_ceil(workers), oldest, &frozen));
        self.count_memory();
        let (count, _) = self.eviction.barren;
        let none = evicted.into_iter().sum::<usize>() == 0;
        self.eviction.barren = (if none { count + 1 } else { 0 }, self.epoch);
        if none && count == BARREN && self.expects_checkpoint() {
            // What is in no decided checkpoint yet may leave when it is.
            self.eviction.stage = Stage::Waiting;
        }
    }

    /// Whether all has left that can, as things stand.
    pub(super) fn is_all_evicted(&self) -> bool {
        let Eviction { stage, barren: (count, epoch), .. } = self.eviction;
        // A checkpoint may let more of it go.
        let ended = stage != Stage::Waiting && count > BARREN && epoch == self.epoch;
        self.checkpointer.is_none() || ended
    }

    /// A checkpoint is decided, or could not be written or read: then it is found that nothing can
    /// leave.
    pub(super) fn checkpoint_decided(&mut self, decided: Option<Decided>) {
        if let Some(decided) = decided {
            self.team.tell(move |worker| worker.decided(&decided));
        }
        if self.eviction.stage != Stage::Off {
            self.eviction.stage = Stage::On;
            self.eviction.barren = (0, self.epoch);
        }
    }

    /// Nodes that have failed: what they have is read as it was.
    fn frozen_nodes(&self) -> BTreeSet<NodeId> {
        let relations = self.shared.relations();
        let failed = relations.values();
        let failed = failed.filter(|r| matches!(r.status(), RelationStatus::Quarantined(..)));
        failed.flat_map(|relation| self.graph.nodes_of(relation.id)).collect()
    }

    /// Everything leaves that can, where that is asked for in tests.
    fn evict_checked(&mut self) {
        if std::mem::replace(&mut self.eviction.at, self.epoch) == self.epoch {
            return;
        }
        if self.eviction.stage == Stage::Off {
            self.eviction.stage = Stage::On;
            let limit = self.memory().whole_limit();
            self.team.each(move |worker| worker.state.begin_evicting(limit));
        }
        let (oldest, frozen) = (self.shared.oldest(), Arc::new(self.frozen_nodes()));
        self.team.each(move |worker| worker.evict_checked(oldest, &frozen));
    }
}

impl Worker {
    /// The tables of nodes that have not failed.
    fn evictable(&self, frozen: &BTreeSet<NodeId>) -> Vec<TableId> {
        let nodes = self.nodes.iter().flatten();
        let sound = nodes.filter(|node| !node.failed && !frozen.contains(&node.spec.id));
        sound.flat_map(|node| node.tables.iter().copied()).collect()
    }

    /// Has about so many bytes of tables leave; how many have. Readers read at `oldest` or later.
    fn evict(&mut self, bytes: usize, oldest: Epoch, frozen: &BTreeSet<NodeId>) -> usize {
        let mut tables = self.evictable(frozen);
        tables.retain(|table| self.state.can_evict(*table));
        let held: Vec<usize> = tables.iter().map(|table| self.state.held_bytes(*table)).collect();
        let all = held.iter().sum::<usize>().max(1);
        let mut evicted = 0;
        for (table, held) in tables.into_iter().zip(held) {
            let share = (bytes as u128 * held as u128 / all as u128) as usize;
            let row = held / self.state.table(table).rows().max(1);
            let mut left = share / row.max(1);
            while left > 0 {
                match self.state.evict(table, left, oldest) {
                    Ok(0) => break,
                    Ok(rows) => {
                        evicted += rows * row;
                        left = left.saturating_sub(rows);
                    }
                    // They stay.
                    Err(error) => {
                        tracing::error!(%error, "keys could not leave memory");
                        break;
                    }
                }
            }
        }
        evicted
    }

    fn decided(&mut self, decided: &Decided) {
        for (place, table) in self.places() {
            let version = self.state.spec(table).version;
            if let Some(number) = decided.numbers.get(&place.name(version)) {
                let rows = TableRows::new(Arc::clone(&decided.image), *number);
                self.state.decided(table, Arc::new(rows));
            }
        }
    }

    fn evict_checked(&mut self, oldest: Epoch, frozen: &BTreeSet<NodeId>) {
        for table in self.evictable(frozen) {
            if let Err(error) = self.state.evict_checked(table, oldest) {
                tracing::error!(%error, "keys could not leave memory");
            }
        }
    }
}
