//! Result table: the multi-version rows of a table or view, written by the workers and read by
//! everybody.
//!
//! A row slot carries `(begin, end)` epochs and a weight ([`Versions`], [`Weights`]); a snapshot is
//! an epoch number held as a pin, so nothing is copied for readers. A slot is visible at epoch `e`
//! when `begin <= e < end`.
//! Slots that ended at or before the oldest epoch anybody may read are given back, in slices.
//!
//! A table has one shard per worker, each behind its own lock: the worker holds it while it applies
//! a delta, a reader while it gathers one slice of rows. Rows are found by key: the stream key of a
//! view, the primary key of a table, or the whole row.

mod cold;
mod entries;
mod lease;
mod probe;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};

use self::cold::Scans;
pub use self::cold::{Rows, Scan};
pub use self::lease::IndexLease;
use self::lease::Wanted;
use super::chains::Chains;
use super::changes::Changes;
use super::cold::Cold;
use super::column::PageColumn;
use super::pages::Pages;
use super::rows::hashes_of;
use super::secondary::Secondary;
use super::slot_index::READ_AHEAD_MAX;
use super::versions::Versions;
use super::weights::Weights;
use crate::config::{BATCH_BYTES_MAX, BATCH_ROWS};
use crate::delta::{DeltaBatch, Keys, Weight, worker_of};
use crate::error::{Error, Result};
use crate::time::Epoch;

/// Slots that are added to a new index under one lock.
const INDEX_SLICE: usize = 16 * BATCH_ROWS;

/// The layout of a result table.
#[derive(Debug, Clone)]
pub struct ResultSpec {
    /// The columns.
    pub schema: SchemaRef,
    /// The key columns; with none, the whole row is the key and rows are a multiset.
    pub key: Vec<usize>,
    /// Where a row with a given key lives: by its key's hash, or on whichever worker made it.
    pub keyed_placement: bool,
    /// Rows are kept with their arrivals, for views that are built from them later. Of equal rows
    /// the one that arrived last is retracted first.
    pub arrivals: bool,
}

/// All shards of a table.
#[derive(Debug)]
pub struct ResultTable {
    spec: ResultSpec,
    shards: Vec<RwLock<ResultShard>>,
    /// The indexes that are kept.
    wanted: Wanted,
}

impl ResultTable {
    /// An empty table with one shard per worker.
    pub fn new(spec: ResultSpec, workers: usize) -> Arc<Self> {
        let shards = (0..workers).map(|_| RwLock::new(ResultShard::new(&spec))).collect();
        Arc::new(Self { spec, shards, wanted: Wanted::default() })
    }

    /// Whether values of a type can be kept.
    pub fn can_hold(data_type: &DataType) -> bool {
        PageColumn::new(data_type).is_ok()
    }

    /// The layout.
    pub fn spec(&self) -> &ResultSpec {
        &self.spec
    }

    /// The number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// A shard for reading. A poisoned lock is taken all the same: a shard is consistent for every
    /// published epoch, whatever a failing epoch left in it.
    pub fn read(&self, shard: usize) -> RwLockReadGuard<'_, ResultShard> {
        self.shards[shard].read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A shard for writing.
    pub fn write(&self, shard: usize) -> RwLockWriteGuard<'_, ResultShard> {
        self.shards[shard].write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows with one of some values of the key, or of the columns of a secondary index, visible
    /// at an epoch. `values` has an array per column.
    pub fn find(&self, columns: &[usize], values: &[ArrayRef], epoch: Epoch) -> Result<Found> {
        self.find_within(columns, values, epoch, (usize::MAX, usize::MAX))
    }

    /// The same unless these are more than a number of rows, or bytes of values of variable length;
    /// a row counts as often as its values are asked for.
    pub fn find_within(
        &self,
        columns: &[usize],
        values: &[ArrayRef],
        epoch: Epoch,
        (rows_max, bytes_max): (usize, usize),
    ) -> Result<Found> {
        let keys = Keys::encode(values, values.first().map_or(0, |v| v.len()))?;
        let by_key = self.spec.key == columns;
        let (mut batches, mut weights) = (Vec::new(), Vec::new());
        let (mut slots, mut bytes) = (Vec::new(), 0_usize);
        for worker in 0..self.shards.len() {
            let placed = by_key && self.spec.keyed_placement;
            let here = |row: &usize| !placed || worker_of(keys.hash(*row), self.shards()) == worker;
            if !(0..keys.len()).any(|row| here(&row)) {
                continue;
            }
            slots.clear();
            let shard = match by_key {
                true => self.read_keys(worker, || of_rows(&keys, here))?,
                false => self.read(worker),
            };
            let index = shard.secondary.iter().find(|s| s.columns() == columns && s.is_whole());
            let visible = |s: &u32| shard.versions.visible(*s, epoch);
            for row in (0..keys.len()).filter(here) {
                let hash = keys.hash(row);
                let room = rows_max.saturating_sub(weights.len() + slots.len()).saturating_add(1);
                match index {
                    _ if by_key => {
                        let chain = shard.chain(values, row, hash);
                        slots.extend(chain.filter(visible).take(room));
                    }
                    Some(index) => {
                        let chain = index.find(&shard.pages, values, row, hash);
                        slots.extend(chain.filter(visible).take(room));
                    }
                    None => return Ok(Found::NoIndex),
                }
                if weights.len() + slots.len() > rows_max {
                    return Ok(Found::TooMany);
                }
            }
            // Values may be asked for twice.
            slots.sort_unstable();
            slots.dedup();
            if bytes_max < usize::MAX {
                bytes += slots.iter().map(|s| shard.pages.variable_bytes(*s)).sum::<usize>();
                if bytes > bytes_max {
                    return Ok(Found::TooMany);
                }
            }
            weights.extend(slots.iter().map(|s| shard.weights.get(*s)));
            batches.push(shard.pages.gather_batch(&slots)?);
        }
        let rows = match batches.len() {
            1 => batches.swap_remove(0),
            _ => arrow::compute::concat_batches(&self.spec.schema, &batches)?,
        };
        let ones = weights.iter().all(|w| *w == 1);
        let weights = (!ones).then(|| weights.into());
        Ok(Found::Rows(DeltaBatch::with_weights(rows, weights)))
    }

    /// The rows visible at an epoch that have one of some keys; `key` has an array per key column.
    pub fn rows_with_keys(
        &self,
        key: &[ArrayRef],
        keys: &Keys,
        epoch: Epoch,
    ) -> Result<DeltaBatch> {
        let mut batches = Vec::new();
        for worker in 0..self.shards.len() {
            let here = |row: &usize| worker_of(keys.hash(*row), self.shards.len()) == worker;
            let shard = self.read_keys(worker, || of_rows(keys, here))?;
            let mut slots = Vec::new();
            for row in (0..keys.len()).filter(here) {
                slots.extend(shard.visible_with_key(key, row, keys.hash(row), epoch));
            }
            // A key may be asked for twice.
            slots.sort_unstable();
            slots.dedup();
            batches.push(shard.pages.gather_batch(&slots)?);
        }
        let rows = arrow::compute::concat_batches(&self.spec.schema, &batches)?;
        Ok(DeltaBatch::inserts(rows))
    }

    /// Whether every row that a change retracts is visible at an epoch, as often as it is
    /// retracted. The change is consolidated; rows live where their keys say.
    pub fn holds(&self, change: &DeltaBatch, epoch: Epoch) -> Result<bool> {
        let columns = change.rows().columns();
        let all: Vec<usize> = (0..columns.len()).collect();
        let numbers = if self.spec.key.is_empty() { &all } else { &self.spec.key };
        let key: Vec<ArrayRef> = numbers.iter().map(|c| columns[*c].clone()).collect();
        let keys = change.keys(numbers)?;
        // A shard is locked for a slice of them at a time.
        let rows: Vec<usize> = (0..change.len()).filter(|row| change.weight(*row) < 0).collect();
        for rows in rows.chunks(BATCH_ROWS) {
            for worker in 0..self.shards() {
                let here = |row: &&usize| worker_of(keys.hash(**row), self.shards()) == worker;
                let hashes = || rows.iter().filter(here).map(|row| keys.hash(*row)).collect();
                let shard = self.read_keys(worker, hashes)?;
                for row in rows.iter().filter(here) {
                    let slots = shard.visible_with_key(&key, *row, keys.hash(*row), epoch);
                    let equal = slots.filter(|s| shard.pages.equals(*s, &all, columns, *row));
                    let held: Weight = equal.map(|s| shard.weights.get(s)).sum();
                    if held < -change.weight(*row) {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// How many rows are visible at an epoch with the key of each of some rows of `key`. A shard is
    /// locked for a slice of them at a time, so that its worker is not kept waiting.
    pub fn count_keys(
        &self,
        key: &[ArrayRef],
        keys: &Keys,
        rows: &[u32],
        epoch: Epoch,
    ) -> Result<Vec<Weight>> {
        let mut counts = vec![0; rows.len()];
        for (rows, counts) in rows.chunks(BATCH_ROWS).zip(counts.chunks_mut(BATCH_ROWS)) {
            for worker in 0..self.shards() {
                let here = |row: &usize| worker_of(keys.hash(*row), self.shards()) == worker;
                let wanted = || rows.iter().map(|row| *row as usize).filter(here);
                let hashes = || wanted().map(|row| keys.hash(row)).collect();
                let shard = self.read_keys(worker, hashes)?;
                for (row, count) in rows.iter().zip(counts.iter_mut()) {
                    let hash = keys.hash(*row as usize);
                    if worker_of(hash, self.shards()) == worker {
                        let slots = shard.visible_with_key(key, *row as usize, hash, epoch);
                        *count = slots.map(|s| shard.weights.get(s)).sum();
                    }
                }
            }
        }
        Ok(counts)
    }

    /// Rows visible at an epoch, weights counted.
    pub fn count(&self, epoch: Epoch) -> u64 {
        let count = |i| self.read(i).count(epoch);
        (0..self.shards.len()).map(count).sum()
    }

    /// Rows that have not ended, weights counted: about what the newest epoch shows.
    pub fn live_rows(&self) -> u64 {
        let live = |shard: &ResultShard| shard.live.unsigned_abs() + shard.rows_out() as u64;
        (0..self.shards.len()).map(|i| live(&self.read(i))).sum()
    }

    /// Bytes of row versions that have ended and are still there, about.
    pub fn ended_bytes(&self) -> usize {
        (0..self.shards.len()).map(|i| self.read(i).ended_bytes()).sum()
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> usize {
        (0..self.shards.len()).map(|i| self.read(i).bytes()).sum()
    }
}

/// The hashes of some rows of keys.
fn of_rows(keys: &Keys, which: impl Fn(&usize) -> bool) -> Vec<u64> {
    (0..keys.len()).filter(which).map(|row| keys.hash(row)).collect()
}

/// What a look-up finds.
#[derive(Debug)]
pub enum Found {
    /// The rows with their weights.
    Rows(DeltaBatch),
    /// More rows than were wanted.
    TooMany,
    /// There is no index by these columns, or it is not filled yet.
    NoIndex,
}

/// One worker's part of a table.
#[derive(Debug)]
pub struct ResultShard {
    spec: ResultSpec,
    key: Vec<usize>,
    pages: Pages,
    /// By key.
    index: Chains,
    versions: Versions,
    weights: Weights,
    /// Empty unless they are kept.
    arrivals: Vec<i64>,
    /// Indexes by other columns than the key.
    secondary: Vec<Secondary>,
    /// The weight of all rows that have not ended.
    live: Weight,
    /// The log of changes, and slots whose weights have changed since it was written to.
    changes: Option<(Changes, Vec<(u32, Weight)>)>,
    /// What is known of rows that are not in memory, where some may leave it.
    cold: Option<Box<Cold>>,
    scans: Scans,
}

/// A change with what its rows are found by, made once for all of them.
struct Change<'a> {
    delta: &'a DeltaBatch,
    key: Vec<ArrayRef>,
    keys: Arc<Keys>,
    /// The numbers of all columns.
    all: Vec<usize>,
}

impl ResultShard {
    fn new(spec: &ResultSpec) -> Self {
        let all = 0..spec.schema.fields().len();
        Self {
            key: if spec.key.is_empty() { all.collect() } else { spec.key.clone() },
            pages: Pages::new(spec.schema.clone()),
            spec: spec.clone(),
            index: Chains::new(),
            versions: Versions::default(),
            weights: Weights::default(),
            arrivals: Vec::new(),
            secondary: Vec::new(),
            live: 0,
            changes: None,
            cold: None,
            scans: Scans::default(),
        }
    }

    /// Applies a consolidated delta at an epoch: retractions first, then inserts. Retracting a row
    /// that is not there is a broken contract of the operator before, and an error.
    pub fn apply(&mut self, delta: &DeltaBatch, epoch: Epoch) -> Result<()> {
        let key = self.key_columns(delta.rows().columns());
        let keys = delta.keys(&self.key)?;
        let all = (0..delta.rows().num_columns()).collect();
        let change = Change { delta, key, keys, all };
        if !delta.is_insert_only() {
            for row in 0..delta.len() {
                self.read_ahead(&change.keys, row);
                if delta.weight(row) < 0 {
                    self.retract(&change, row, epoch)?;
                }
            }
        }
        let inserts: Vec<u32> =
            (0..delta.len() as u32).filter(|r| delta.weight(*r as usize) > 0).collect();
        self.insert(&change, &inserts, epoch)?;
        match self.changes {
            Some(_) => self.log_changes(),
            None => Ok(()),
        }
    }

    /// Reads ahead, now and then, what looking for the keys of rows from one on will read.
    #[inline]
    fn read_ahead(&self, keys: &Keys, row: usize) {
        if row.is_multiple_of(READ_AHEAD_MAX) {
            let hashes = keys.hashes()[row..].iter().take(READ_AHEAD_MAX).copied();
            let peek = |slot| self.key.first().map_or(0, |column| self.pages.peek(slot, *column));
            self.index.read_ahead(hashes, peek);
        }
    }

    /// Notes that the weight of a slot has changed, where changes are logged.
    #[inline]
    fn note(&mut self, slot: u32, weight: Weight) {
        if let Some((_, noted)) = &mut self.changes {
            noted.push((slot, weight));
        }
    }

    fn key_columns(&self, columns: &[ArrayRef]) -> Vec<ArrayRef> {
        self.key.iter().map(|c| columns[*c].clone()).collect()
    }

    fn insert(&mut self, change: &Change<'_>, rows: &[u32], epoch: Epoch) -> Result<()> {
        let d = change.delta;
        let mut slots = Vec::with_capacity(rows.len());
        let mut fresh = Vec::with_capacity(rows.len());
        // Without a key equal rows are one row with a weight.
        for row in rows {
            match self.merge_weight(change, *row as usize, epoch) {
                true => {}
                false => fresh.push(*row),
            }
        }
        self.pages.insert(d.rows().columns(), &fresh, &mut slots)?;
        for (slot, row) in slots.iter().zip(&fresh) {
            let row = *row as usize;
            if d.is_insert_only() {
                self.read_ahead(&change.keys, row);
            }
            let hash = change.keys.hash(row);
            self.place(*slot, hash, &change.key, row, (epoch, d.weight(row)));
            self.set_arrival(*slot, d.arrivals().map_or(i64::MIN, |a| a.value(row)));
        }
        self.index_slots(&slots)
    }

    fn set_arrival(&mut self, slot: u32, arrival: i64) {
        if self.spec.arrivals {
            let slots = self.arrivals.len().max(slot as usize + 1);
            self.arrivals.resize(slots, i64::MIN);
            self.arrivals[slot as usize] = arrival;
        }
    }

    fn index_slots(&mut self, slots: &[u32]) -> Result<()> {
        self.secondary.iter_mut().try_for_each(|s| s.add(&self.pages, slots))
    }

    /// Begins an index by some columns, unless there is one.
    pub(super) fn begin_index(&mut self, columns: &[usize]) {
        if self.secondary.iter().all(|s| s.columns() != columns) {
            self.secondary.push(Secondary::unfilled(columns.to_vec()));
        }
    }

    /// Adds the next slots to an index that was begun; true when there are more.
    pub(super) fn fill_index(&mut self, columns: &[usize], limit: usize) -> Result<bool> {
        let found = self.secondary.iter_mut().find(|s| s.columns() == columns && !s.is_whole());
        let Some(index) = found else { return Ok(false) };
        let to = index.covered().saturating_add(limit).min(self.pages.slots());
        // Freed slots are of no epoch.
        let stored: Vec<u32> = (index.covered()..to)
            .map(|s| s as u32)
            .filter(|s| !self.versions.is_free(*s))
            .collect();
        let rest = Some(to).filter(|to| *to < self.pages.slots());
        index.fill(&self.pages, &stored, rest)?;
        Ok(rest.is_some())
    }

    /// Adds the weight of an equal live row instead of storing it twice. Rows of one batch that are
    /// equal to each other are consolidated before, unless all are inserts: then they stay apart.
    fn merge_weight(&mut self, change: &Change<'_>, row: usize, epoch: Epoch) -> bool {
        let d = change.delta;
        if !self.spec.key.is_empty() || d.is_insert_only() {
            return false;
        }
        let Some(slot) = self.find_live(change, row) else { return false };
        let arrival = d.arrivals().map_or(i64::MIN, |a| a.value(row));
        if self.spec.arrivals && self.arrivals[slot as usize] != arrival {
            return false;
        }
        let weight = self.weights.get(slot) + d.weight(row);
        self.reweigh(slot, weight, epoch)
    }

    /// Gives a live row another weight: in place when it is of this epoch, else as a new version.
    fn reweigh(&mut self, slot: u32, weight: Weight, epoch: Epoch) -> bool {
        let added = weight - self.weights.get(slot);
        if self.versions.is_new(slot, epoch) {
            self.live += added;
            self.weights.set(slot, weight);
            self.note(slot, added);
            return true;
        }
        let Ok(columns) = self.pages.gather(&[slot]) else { return false };
        let key = self.key_columns(&columns);
        let Ok(keys) = Keys::encode(&key, 1) else { return false };
        self.finish(slot, epoch);
        let mut slots = Vec::with_capacity(1);
        if self.pages.insert(&columns, &[0], &mut slots).is_err() {
            return false;
        }
        self.place(slots[0], keys.hash(0), &key, 0, (epoch, weight));
        self.set_arrival(slots[0], self.arrivals.get(slot as usize).copied().unwrap_or(i64::MIN));
        self.index_slots(&slots).is_ok()
    }

    fn retract(&mut self, change: &Change<'_>, row: usize, epoch: Epoch) -> Result<()> {
        let mut rest = -change.delta.weight(row);
        while rest > 0 {
            let slot = self.find_live(change, row).ok_or_else(|| {
                Error::internal("a change retracts a row that the relation does not have")
            })?;
            let have = self.weights.get(slot);
            let taken = have.min(rest);
            rest -= taken;
            match have - taken {
                0 => self.finish(slot, epoch),
                left => {
                    self.reweigh(slot, left, epoch);
                }
            }
        }
        Ok(())
    }

    fn place(&mut self, slot: u32, hash: u64, key: &[ArrayRef], row: usize, at: (Epoch, Weight)) {
        self.versions.begin(slot, at.0);
        self.weights.set(slot, at.1);
        self.live += at.1;
        self.note(slot, at.1);
        self.index.link(hash, slot, |s| self.pages.equals(s, &self.key, key, row));
    }

    fn finish(&mut self, slot: u32, epoch: Epoch) {
        self.versions.end(slot, epoch);
        let weight = self.weights.get(slot);
        self.live -= weight;
        self.note(slot, -weight);
    }

    /// The live slot of a row that is equal in all columns; the one that arrived last.
    fn find_live(&self, change: &Change<'_>, row: usize) -> Option<u32> {
        let columns = change.delta.rows().columns();
        let mut equal = self
            .chain(&change.key, row, change.keys.hash(row))
            .filter(|s| self.versions.is_live(*s))
            .filter(|s| self.pages.equals(*s, &change.all, columns, row));
        match self.spec.arrivals {
            false => equal.next(),
            true => equal.max_by_key(|s| self.arrivals[*s as usize]),
        }
    }

    fn chain(&self, key: &[ArrayRef], row: usize, hash: u64) -> impl Iterator<Item = u32> {
        self.index.of(hash, move |s| self.pages.equals(s, &self.key, key, row))
    }

    /// Slots with a key that are visible at an epoch.
    fn visible_with_key(
        &self,
        key: &[ArrayRef],
        row: usize,
        hash: u64,
        epoch: Epoch,
    ) -> impl Iterator<Item = u32> {
        self.chain(key, row, hash).filter(move |s| self.versions.visible(*s, epoch))
    }

    /// For each row of key columns, the live row with that key: `(probing row, slot)`.
    pub fn live_with_keys(&self, key: &[ArrayRef], keys: &Keys) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        for row in 0..keys.len() {
            self.read_ahead(keys, row);
            let live = self.chain(key, row, keys.hash(row)).find(|s| self.versions.is_live(*s));
            found.extend(live.map(|slot| (row as u32, slot)));
        }
        found
    }

    /// The rows of some slots.
    pub fn gather(&self, slots: &[u32]) -> Result<RecordBatch> {
        self.pages.gather_batch(slots)
    }

    /// Slots with visible rows from a place on, at most `limit` looked at, fewer where rows are
    /// wide; and where to go on, `None` at the end.
    fn visible_slots(&self, epoch: Epoch, from: usize, limit: usize) -> (Vec<u32>, Option<usize>) {
        let end = from.saturating_add(limit).min(self.pages.slots());
        let (mut slots, mut bytes, mut to) = (Vec::new(), 0, from);
        while to < end && bytes <= BATCH_BYTES_MAX {
            if self.versions.visible(to as u32, epoch) {
                bytes += self.pages.variable_bytes(to as u32);
                slots.push(to as u32);
            }
            to += 1;
        }
        (slots, (to < self.pages.slots()).then_some(to))
    }

    /// The rows of some slots with their weights, and arrivals where they are kept.
    fn rows_of(&self, slots: &[u32]) -> Result<DeltaBatch> {
        let rows = self.pages.gather_batch(slots)?;
        let weights: Vec<Weight> = slots.iter().map(|s| self.weights.get(*s)).collect();
        let weights = weights.iter().any(|w| *w != 1).then(|| weights.into());
        let arrivals = self
            .spec
            .arrivals
            .then(|| slots.iter().map(|s| self.arrivals[*s as usize]).collect::<Vec<_>>().into());
        Ok(DeltaBatch::with_weights(rows, weights).with_arrivals(arrivals))
    }

    fn count(&self, epoch: Epoch) -> u64 {
        let slots = (0..self.pages.slots() as u32).filter(|s| self.versions.visible(*s, epoch));
        let there = slots.map(|s| self.weights.get(s).unsigned_abs()).sum::<u64>();
        // Everybody sees what is not in memory.
        there + self.rows_out() as u64
    }

    /// Gives back at most `limit` slots that ended at or before `oldest`; how many there were.
    pub fn vacuum(&mut self, oldest: Epoch, limit: usize) -> Result<usize> {
        let gone = self.versions.take_ended(oldest, limit);
        let hashes = hashes_of(&self.pages, &self.key, &gone)?;
        gone.iter().zip(hashes).for_each(|(slot, hash)| self.index.unlink(hash, *slot));
        self.secondary.iter_mut().try_for_each(|s| s.remove(&self.pages, &gone))?;
        gone.iter().for_each(|slot| self.pages.free(*slot));
        Ok(gone.len())
    }

    fn ended_bytes(&self) -> usize {
        match self.versions.ended() {
            0 => 0,
            ended => self.bytes() / self.pages.slots().max(1) * ended,
        }
    }

    /// Row versions held.
    pub fn rows(&self) -> usize {
        self.pages.rows()
    }

    /// Bytes of pages, versions and index.
    pub fn bytes(&self) -> usize {
        self.pages.bytes()
            + self.index.bytes()
            + self.versions.bytes()
            + self.weights.bytes()
            + self.arrivals.capacity() * 8
            + self.secondary.iter().map(Secondary::bytes).sum::<usize>()
            + self.cold.as_ref().map_or(0, |cold| cold.bytes())
    }
}
