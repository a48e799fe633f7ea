//! Rows that leave memory with their key, and come back: see [`crate::state::cold`].
//!
//! Only a row that every reader sees leaves, so that it is as good as one that was always there
//! when it comes back. Nothing leaves a shard while it is scanned ([`Scan`]), and what comes back
//! meanwhile is noted; a table by other columns of which there is an index stays in memory.

mod scan;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, RwLockReadGuard};

pub use self::scan::{Rows, Scan};
use super::{ResultShard, ResultTable};
use crate::delta::{DeltaBatch, Keys};
use crate::error::{Error, Result, sqlstate};
use crate::state::chains::NONE;
use crate::state::cold::{Cold, ColdRows, TOGETHER, holds};
use crate::state::entry::Entries;
use crate::state::rows::hashes_of;
use crate::time::Epoch;

/// What a row is taken to be at least, where few are in memory to tell.
const ROW_BYTES_MIN: usize = 64;

/// What a shard has to know of those who scan it.
#[derive(Debug, Default)]
pub(super) struct Scans {
    /// How many there are.
    running: usize,
    /// Hashes whose rows have come back since the first of them began, with when.
    came: HashMap<u64, u64>,
    now: u64,
}

/// Keys that are to be fetched, and from where.
struct Missing {
    hashes: Vec<u64>,
    rows: Arc<dyn ColdRows>,
    turns: u64,
}

impl ResultTable {
    /// Whether its keys can leave: rows of a key are of one shard.
    fn can_leave(&self) -> bool {
        self.spec.keyed_placement || self.shards() == 1
    }

    /// A shard with all rows in memory that have one of some hashes.
    pub fn read_keys(
        &self,
        shard: usize,
        hashes: impl Fn() -> Vec<u64>,
    ) -> Result<RwLockReadGuard<'_, ResultShard>> {
        let mut looked_for = HashSet::new();
        let mut turns = None;
        loop {
            let guard = self.read(shard);
            let Some(mut missing) = guard.missing(&hashes) else { return Ok(guard) };
            if turns.replace(missing.turns) != Some(missing.turns) {
                looked_for.clear();
            }
            // What was looked for and not found is not there.
            missing.hashes.retain(|hash| !looked_for.contains(hash));
            if missing.hashes.is_empty() {
                return Ok(guard);
            }
            drop(guard);
            let entries = missing.rows.with_hashes(&missing.hashes)?;
            let mut guard = self.write(shard);
            if guard.cold.as_ref().is_some_and(|cold| cold.turns == missing.turns) {
                guard.bring_back(&missing.hashes, &entries)?;
                looked_for.extend(missing.hashes);
            }
        }
    }

    /// Has all rows in memory that a change of a shard is about; by who makes it.
    pub fn warm(&self, shard: usize, change: &DeltaBatch) -> Result<()> {
        let key = {
            let shard = self.read(shard);
            if shard.cold.is_none() {
                return Ok(());
            }
            shard.key.clone()
        };
        let keys = change.keys(&key)?;
        let missing = self.write(shard).ask(keys.hashes());
        let Some(Missing { hashes, rows, .. }) = missing else { return Ok(()) };
        let entries = rows.with_hashes(&hashes);
        let mut guard = self.write(shard);
        let came = entries.and_then(|entries| guard.bring_back(&hashes, &entries));
        if came.is_err()
            && let Some(cold) = &mut guard.cold
        {
            cold.unask(&hashes);
        }
        came
    }

    /// Rows that are not in memory, weights counted.
    pub fn rows_out(&self) -> usize {
        (0..self.shards()).map(|shard| self.read(shard).rows_out()).sum()
    }

    /// Has everything in memory of a table with indexes. Blocks; the table may change meanwhile.
    ///
    /// # Errors
    ///
    /// 53200 when what is not in memory would take half of what everything may hold.
    pub(super) fn bring_all_back(&self) -> Result<()> {
        let (mut bytes, mut limit) = (0, usize::MAX);
        for shard in (0..self.shards()).map(|shard| self.read(shard)) {
            let Some(cold) = &shard.cold else { continue };
            let row = shard.pages.bytes() / shard.pages.slots().max(1);
            bytes += cold.out() * row.max(ROW_BYTES_MIN);
            limit = limit.min(cold.limit / 2);
        }
        if bytes > limit {
            let message = "the rows that an index leads to do not fit into memory";
            let detail =
                format!("{} MB are on the disk; an index needs all in memory.", bytes >> 20);
            return Err(Error::user(sqlstate::OUT_OF_MEMORY, message)
                .with_detail(detail)
                .with_hint("Join and look up by the key, or raise --memory-limit."));
        }
        for shard in 0..self.shards() {
            let rows = self.read(shard).cold.as_ref().and_then(|cold| cold.rows().cloned());
            for piece in rows.iter().flat_map(|rows| rows.pieces()) {
                let mut hashes: Vec<u64> =
                    rows.iter().try_fold(Vec::new(), |mut all, rows| -> Result<_> {
                        all.extend(rows.in_groups(&piece)?.iter().map(|entry| entry.hash));
                        Ok(all)
                    })?;
                hashes.dedup();
                for some in hashes.chunks(TOGETHER) {
                    drop(self.read_keys(shard, || some.to_vec())?);
                }
            }
            self.write(shard).cold = None;
        }
        Ok(())
    }
}

impl ResultShard {
    /// Makes a shard one whose keys can leave, between two epochs.
    pub(in crate::state) fn let_leave(&mut self, table: &ResultTable, limit: usize, check: bool) {
        if table.can_leave() && self.secondary.is_empty() && self.cold.is_none() {
            self.cold = Some(Box::new(Cold::new(limit, check)));
        }
    }

    /// What it knows of keys that are not in memory.
    pub(in crate::state) fn cold(&mut self) -> Option<&mut Cold> {
        self.cold.as_deref_mut()
    }

    /// Why its rows stay in memory, in words.
    pub(in crate::state) fn why_it_stays(&self, table: &ResultTable) -> Option<&'static str> {
        match () {
            () if !self.secondary.is_empty() => Some("an index by other columns leads to its rows"),
            () if !table.can_leave() => Some("equal rows lie on several workers"),
            () => None,
        }
    }

    /// Rows that are not in memory, weights counted.
    pub(in crate::state) fn rows_out(&self) -> usize {
        self.cold.as_ref().map_or(0, |cold| cold.out())
    }

    /// Whether there are rows under a hash, of any epoch.
    pub(in crate::state) fn holds(&self, hash: u64) -> bool {
        holds(&self.index, &self.pages, &self.key, hash)
    }

    fn missing(&self, hashes: impl Fn() -> Vec<u64>) -> Option<Missing> {
        let cold = self.cold.as_ref()?;
        let rows = Arc::clone(cold.rows()?);
        let hashes = cold.missing(&hashes(), |hash| self.holds(hash));
        (!hashes.is_empty()).then_some(Missing { hashes, rows, turns: cold.turns })
    }

    fn ask(&mut self, hashes: &[u64]) -> Option<Missing> {
        let mut cold = self.cold.take()?;
        let hashes = cold.ask(hashes, |hash| self.holds(hash));
        let rows = cold.rows().cloned();
        let turns = cold.turns;
        self.cold = Some(cold);
        let missing = rows.map(|rows| Missing { hashes, rows, turns });
        missing.filter(|missing| !missing.hashes.is_empty())
    }

    /// Rows come back under keys of some hashes, as far as there are none.
    fn bring_back(&mut self, hashes: &[u64], entries: &Entries) -> Result<()> {
        let absent: HashSet<u64> = hashes.iter().copied().filter(|h| !self.holds(*h)).collect();
        let (changes, live) = (self.changes.take(), self.live);
        let coming = entries.iter().filter(|entry| absent.contains(&entry.hash));
        let loaded = self.load(coming, Epoch::ZERO);
        self.changes = changes;
        loaded?;
        let rows = (self.live - live).unsigned_abs() as usize;
        let absent: Vec<u64> = absent.into_iter().collect();
        if let Some(cold) = &mut self.cold {
            cold.came(&absent, rows);
        }
        if self.scans.running > 0 {
            self.scans.now += 1;
            let now = self.scans.now;
            self.scans.came.extend(absent.into_iter().map(|hash| (hash, now)));
        }
        Ok(())
    }

    /// Has about so many rows leave that everybody sees who reads at `oldest` or later, between two
    /// epochs; how many slots have become free.
    pub(in crate::state) fn evict(&mut self, most: usize, oldest: Epoch) -> Result<usize> {
        if self.scans.running > 0 || !self.secondary.is_empty() {
            return Ok(0);
        }
        let Some(mut cold) = self.cold.take() else { return Ok(0) };
        let evicted = self.evict_into(&mut cold, most, oldest);
        self.cold = Some(cold);
        evicted
    }

    fn evict_into(&mut self, cold: &mut Cold, most: usize, oldest: Epoch) -> Result<usize> {
        if !cold.is_ready() {
            return Ok(0);
        }
        let all = self.pages.slots() as u32;
        cold.begin_sweep(self.rows());
        let (mut evicted, mut looks) = (0, cold.looks(most, all));
        while looks > 0 && evicted < most {
            let together = looks.min(TOGETHER);
            looks -= together;
            let slots = (0..together).map(|_| cold.next_of(all));
            let slots: Vec<u32> = slots.filter(|slot| self.may_leave(*slot, oldest)).collect();
            let going = cold.going(&self.pages, &self.key, &slots)?;
            evicted += self.evict_hashes(cold, &going, oldest)?;
        }
        self.index.shrink();
        while self.condense(cold)? {}
        Ok(evicted)
    }

    /// Moves the rows of the next page that has few, and gives its memory back; false when there is
    /// none. Nobody reads meanwhile, and nobody remembers slots.
    fn condense(&mut self, cold: &mut Cold) -> Result<bool> {
        let Some(sparse) = self.pages.take_sparse(&mut cold.sparse) else { return Ok(false) };
        if !sparse.slots.iter().all(|slot| self.versions.is_live(*slot)) {
            // Some are read by nobody but those of older epochs, and go soon.
            self.pages.keep(sparse);
            return Ok(true);
        }
        let (columns, slots) = self.pages.move_rows(&sparse)?;
        let key = self.key_columns(&columns);
        let keys = Keys::encode(&key, slots.len())?;
        for (row, (old, new)) in sparse.slots.iter().zip(&slots).enumerate() {
            let hash = keys.hash(row);
            self.index.unlink(hash, *old);
            self.index.link(hash, *new, |s| self.pages.equals(s, &self.key, &key, row));
            self.versions.begin(*new, self.versions.begun(*old));
            self.versions.forget(*old);
            self.weights.set(*new, self.weights.get(*old));
            let arrival = self.arrivals.get(*old as usize).copied();
            self.set_arrival(*new, arrival.unwrap_or(i64::MIN));
        }
        self.versions.give_back(sparse.page);
        self.pages.give_back(sparse);
        Ok(true)
    }

    /// Whether a row is there for all who read.
    fn may_leave(&self, slot: u32, oldest: Epoch) -> bool {
        self.versions.is_live(slot) && self.versions.visible(slot, oldest)
    }

    fn evict_hashes(&mut self, cold: &mut Cold, going: &[u64], oldest: Epoch) -> Result<usize> {
        let heads = going.iter().flat_map(|hash| self.index.candidates(*hash));
        let chain = |head| {
            let all = std::iter::successors(Some(head), |slot| Some(self.index.next(*slot)));
            all.take_while(|slot| *slot != NONE)
        };
        let mut slots: Vec<u32> = heads.flat_map(chain).collect();
        slots.sort_unstable();
        slots.dedup();
        let hashes = hashes_of(&self.pages, &self.key, &slots)?;
        let mut by_hash: HashMap<u64, Vec<u32>> = HashMap::with_capacity(going.len());
        for (slot, hash) in slots.into_iter().zip(hashes) {
            if going.binary_search(&hash).is_ok() {
                by_hash.entry(hash).or_default().push(slot);
            }
        }
        // A key of which somebody sees something else stays as a whole.
        by_hash.retain(|_, slots| slots.iter().all(|slot| self.may_leave(*slot, oldest)));
        let mut evicted = 0;
        for (hash, slots) in by_hash {
            let mut weight = 0;
            for slot in &slots {
                self.index.unlink(hash, *slot);
                weight += self.weights.get(*slot);
                self.versions.forget(*slot);
                self.pages.free(*slot);
            }
            self.live -= weight;
            evicted += slots.len();
            cold.left(hash, weight.unsigned_abs() as usize);
        }
        Ok(evicted)
    }
}
