//! Ranked table: partition key to rows in an order, the state of top-N and deduplication.
//!
//! Rows lie in pages; a partition is a list of slots in order ([`Sorted`]), compared by 128-bit
//! prefixes of their sort keys and, where these leave it open, column by column. Behind the order's
//! columns stand all others, ascending with NULLs last: equal rows are one entry with a weight, and
//! the order is total, so it depends on neither arrival nor batches.
//!
//! Of an append-only input a partition keeps no more than its top: a row that sorts behind the last
//! of a full top is turned away by one comparison with `bound`. Under retractions it keeps all
//! rows, and `bound` tells which changes can't move the top.
//!
//! The current epoch is kept apart as [`Ranked::before`]: the top of a partition as it was ahead of
//! its first change that could move it. Slots of rows that went stay readable until
//! [`Ranked::seal`].
//!
//! Where partitions belong to windows, every partition has a time and goes when a watermark passes
//! it.

mod cold;
mod entries;
mod runs;
mod stretches;

use std::cmp::Ordering;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};

use super::Residency;
use super::cell::{Cell, comparable};
use super::expiry::{Expiry, NEVER};
use super::negative_weight;
use super::order_prefix::{ABOVE_ALL, Prefix, order_prefixes};
use super::paged::Paged;
use super::pages::Pages;
use super::slot_index::{READ_AHEAD_MAX, SlotIndex};
use super::sorted::{Entry, Place, Sorted};
use crate::delta::{DeltaBatch, Keys, Weight};
use crate::error::Result;
use crate::time::event_times;

use self::entries::Capture;
use self::runs::Leads;
pub use self::runs::{Lead, Reach, Run, RunRow, Runs, Sides};
use self::stretches::Changed;
pub use self::stretches::Stretch;

/// A column of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderBy {
    /// The column.
    pub column: usize,
    /// Greatest first.
    pub descending: bool,
    /// NULLs ahead of all values.
    pub nulls_first: bool,
}

/// How rows are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranking {
    /// One by one: `row_number`.
    RowNumber,
    /// Equal rows of the order share the number of the first of them: `rank`.
    Rank,
    /// Equal rows of the order are counted once: `dense_rank`.
    DenseRank,
}

/// The rows of a partition that are wanted: those with numbers in `skip + 1 ..= skip + limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Top {
    /// How rows are counted.
    pub ranking: Ranking,
    /// Numbers left out at the beginning.
    pub skip: u64,
    /// Numbers wanted; `None` for all the rest.
    pub limit: Option<u64>,
}

impl Top {
    /// The last number that is wanted.
    fn end(self) -> i64 {
        let end = self.limit.and_then(|limit| self.skip.checked_add(limit));
        end.and_then(|end| i64::try_from(end).ok()).unwrap_or(i64::MAX)
    }
}

/// The layout of a ranked table.
#[derive(Debug, Clone)]
pub struct RankedSpec {
    /// Its rows.
    pub schema: SchemaRef,
    /// The columns of the partition key.
    pub partition: Vec<usize>,
    /// The order inside of a partition.
    pub order: Vec<OrderBy>,
    /// The wanted rows.
    pub top: Top,
    /// No row is ever retracted.
    pub append_only: bool,
    /// What an epoch changes is kept row by row ([`Ranked::stretches`]), in the place of tops as
    /// they were.
    pub follows: bool,
}

/// A row of a top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    prefix: Prefix,
    /// Its slot.
    pub slot: u32,
    /// How often it is in the top.
    pub weight: Weight,
    /// Its number: the first of its numbers where rows are counted one by one.
    pub number: i64,
}

/// Bytes of a key that lies in its partition.
const INLINE_KEY_BYTES: usize = 24;

#[derive(Debug)]
struct Partition {
    hash: u64,
    key: [u8; INLINE_KEY_BYTES],
    /// A row with a greater prefix is not in the top and can't move it.
    bound: Prefix,
    entries: Sorted,
    /// The weight of all entries.
    weight: Weight,
    /// Its place in `touched`, plus one.
    touched: u32,
    /// Some slots are rows of the batch that is being taken in.
    pending: bool,
    /// What is known of the rows in front of the last run, until one of them may be gone.
    leads: Option<Box<Leads>>,
}

/// Marks a slot that is a row of the batch that is being taken in.
const PENDING: u32 = 1 << 31;

/// A partition that changed in this epoch.
#[derive(Debug, Clone, Copy)]
struct Touched {
    partition: u32,
    /// Where its old top ends in `before`.
    end: u32,
}

/// Partition key to rows in an order.
#[derive(Debug)]
pub struct Ranked {
    name: &'static str,
    // Layout.
    spec: RankedSpec,
    /// The order's columns and behind them all others.
    columns: Vec<OrderBy>,
    inline: bool,
    // Rows.
    pages: Pages,
    index: SlotIndex,
    partitions: Paged<Partition>,
    free: Vec<u32>,
    /// Keys that do not fit their partition.
    long_keys: Vec<Box<[u8]>>,
    // The current epoch.
    touched: Vec<Touched>,
    before: Vec<Member>,
    /// Slots of rows that went.
    dead: Vec<u32>,
    /// Rows whose weight is below zero.
    negative: usize,
    /// The time column and when partitions go, where they do.
    expiry: Option<(usize, Expiry)>,
    /// What has expired has times below.
    expired: i64,
    noting: Noting,
    residency: Residency,
}

/// Who wants to know what changes.
#[derive(Debug, Default)]
struct Noting {
    capture: Option<Capture>,
    /// What this epoch has changed, where that is followed.
    changed: Option<Vec<Changed>>,
}

/// Rows of pages and of the batch at hand, to be compared.
struct Rows<'a> {
    pages: &'a Pages,
    batch: &'a [ArrayRef],
    columns: &'a [OrderBy],
}

impl Rows<'_> {
    fn cell(&self, slot: u32, column: usize) -> Cell<'_> {
        match slot & PENDING {
            0 => self.pages.cell(slot, column),
            _ => Cell::of_array(&self.batch[column], (slot ^ PENDING) as usize),
        }
    }

    fn compare(&self, a: u32, b: u32) -> Ordering {
        let one = |by: &OrderBy| {
            let (a, b) = (self.cell(a, by.column), self.cell(b, by.column));
            a.compare(b, by.descending, by.nulls_first)
        };
        if a == b {
            return Ordering::Equal;
        }
        self.columns.iter().map(one).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }

    fn order(&self, entry: &Entry, prefix: Prefix, slot: u32) -> Ordering {
        entry.prefix.cmp(&prefix).then_with(|| self.compare(entry.slot, slot))
    }
}

impl Ranked {
    /// With `closes`, partitions go when a watermark passes that column of theirs.
    pub(super) fn new(name: &'static str, spec: RankedSpec, closes: Option<usize>) -> Self {
        let rest = (0..spec.schema.fields().len())
            .filter(|c| !spec.order.iter().any(|by| by.column == *c))
            .map(|column| OrderBy { column, descending: false, nulls_first: false });
        let types: Vec<DataType> =
            spec.partition.iter().map(|c| spec.schema.field(*c).data_type().clone()).collect();
        Self {
            name,
            columns: spec.order.iter().copied().chain(rest).collect(),
            inline: Keys::fixed_width(&types).is_some_and(|w| w <= INLINE_KEY_BYTES),
            pages: Pages::new(spec.schema.clone()),
            index: SlotIndex::new(),
            partitions: Paged::default(),
            free: Vec::new(),
            long_keys: Vec::new(),
            touched: Vec::new(),
            before: Vec::new(),
            dead: Vec::new(),
            negative: 0,
            expiry: closes.map(|column| (column, Expiry::default())),
            expired: i64::MIN,
            noting: Noting { capture: None, changed: spec.follows.then(Vec::new) },
            residency: Residency::default(),
            spec,
        }
    }

    /// Adds a delta to the current epoch; `keys` are the partition keys of its rows.
    pub fn update(&mut self, delta: &DeltaBatch, keys: &Keys) -> Result<()> {
        let columns = delta.rows().columns();
        let batch = &comparable(columns);
        let prefixes = order_prefixes(batch, &self.spec.order, delta.len());
        let times = self.expiry.as_ref().and_then(|(column, _)| event_times(&columns[*column]));
        let mut pending = Vec::new();
        for (row, prefix) in prefixes.into_iter().enumerate() {
            if row.is_multiple_of(READ_AHEAD_MAX) {
                let ahead = keys.hashes()[row..].iter().take(READ_AHEAD_MAX).copied();
                self.index.read_ahead(ahead, |p| self.partitions[p as usize].hash);
            }
            let time = || times.as_ref().map_or(NEVER, |time| time(row));
            let partition = self.intern(keys.key(row), keys.hash(row), time);
            let entry = Entry { prefix, weight: delta.weight(row), slot: PENDING | row as u32 };
            let added = match (self.spec.append_only, self.spec.top.ranking) {
                (true, Ranking::RowNumber) => self.compete(partition, entry, batch),
                (true, _) => self.append(partition, entry, batch),
                (false, _) => self.change(partition, entry, batch),
            };
            let home = &mut self.partitions[partition as usize];
            if added && home.entries.is_large() {
                self.write_now(partition, entry, columns, batch)?;
            } else if added && !home.pending {
                home.pending = true;
                pending.push(partition);
            }
        }
        self.write_pending(&pending, columns)
    }

    /// Of an append-only input counted row by row: keeps the row if it is in the top, and lets go
    /// of those that it pushes out.
    fn compete(&mut self, partition: u32, new: Entry, batch: &[ArrayRef]) -> bool {
        if new.prefix > self.partitions[partition as usize].bound {
            return false;
        }
        let need = self.spec.top.end();
        self.touch(partition);
        let home = &mut self.partitions[partition as usize];
        let rows = Rows { pages: &self.pages, batch, columns: &self.columns };
        while let Some(last) = home.entries.last().copied() {
            let order = rows.order(&last, new.prefix, new.slot);
            if order != Ordering::Greater {
                if home.weight >= need {
                    return false;
                }
                break;
            }
            if home.weight + new.weight - last.weight < need {
                break;
            }
            home.entries.pop();
            home.weight -= last.weight;
            if last.slot & PENDING == 0 {
                self.dead.push(last.slot);
                note(&mut self.noting, partition, &last, -last.weight);
            }
        }
        home.weight += new.weight;
        let added = match home.entries.search(|e| rows.order(e, new.prefix, new.slot)) {
            Ok(place) => {
                let entry = home.entries.get_mut(place);
                entry.weight += new.weight;
                note(&mut self.noting, partition, entry, new.weight);
                false
            }
            Err(place) => {
                home.entries.insert(place, new);
                true
            }
        };
        if home.weight >= need
            && let Some(last) = home.entries.last()
        {
            home.bound = last.prefix;
        }
        added
    }

    /// Of an append-only input counted by peers: what falls out of the top is found when it is next
    /// walked.
    fn append(&mut self, partition: u32, new: Entry, batch: &[ArrayRef]) -> bool {
        new.prefix <= self.partitions[partition as usize].bound
            && self.change(partition, new, batch)
    }

    /// Changes the weight of a row; true when it is new.
    fn change(&mut self, partition: u32, new: Entry, batch: &[ArrayRef]) -> bool {
        if new.prefix <= self.partitions[partition as usize].bound {
            self.touch(partition);
        }
        let home = &mut self.partitions[partition as usize];
        let rows = Rows { pages: &self.pages, batch, columns: &self.columns };
        home.weight += new.weight;
        match home.entries.search(|e| rows.order(e, new.prefix, new.slot)) {
            Ok(place) => {
                let entry = home.entries.get_mut(place);
                let was_negative = entry.weight < 0;
                entry.weight += new.weight;
                note(&mut self.noting, partition, entry, new.weight);
                self.negative -= usize::from(was_negative);
                self.negative += usize::from(entry.weight < 0);
                if entry.weight == 0 {
                    self.remove(partition, place);
                }
                false
            }
            Err(place) => {
                self.negative += usize::from(new.weight < 0);
                home.entries.insert(place, new);
                true
            }
        }
    }

    fn remove(&mut self, partition: u32, place: Place) {
        let home = &mut self.partitions[partition as usize];
        home.leads = None;
        let gone = home.entries.remove(place);
        if gone.slot & PENDING == 0 {
            self.dead.push(gone.slot);
        }
    }

    /// Writes the row of an entry just added to a large partition.
    fn write_now(
        &mut self,
        partition: u32,
        new: Entry,
        columns: &[ArrayRef],
        batch: &[ArrayRef],
    ) -> Result<()> {
        let mut slot = Vec::with_capacity(1);
        self.pages.insert(columns, &[new.slot ^ PENDING], &mut slot)?;
        let home = &mut self.partitions[partition as usize];
        let rows = Rows { pages: &self.pages, batch, columns: &self.columns };
        // The row itself is pending still, and equal to nothing but its own entry.
        if let Ok(place) = home.entries.search(|e| rows.order(e, new.prefix, new.slot)) {
            let entry = home.entries.get_mut(place);
            entry.slot = slot[0];
            note(&mut self.noting, partition, entry, entry.weight);
        }
        Ok(())
    }

    /// Writes the rows of the batch that are still wanted, all at once.
    fn write_pending(&mut self, pending: &[u32], columns: &[ArrayRef]) -> Result<()> {
        let mut rows = Vec::new();
        let is_pending = |e: &&mut Entry| e.slot & PENDING != 0;
        for partition in pending {
            let entries = &mut self.partitions[*partition as usize].entries;
            rows.extend(entries.iter_mut().filter(is_pending).map(|e| e.slot ^ PENDING));
        }
        let mut slots = Vec::with_capacity(rows.len());
        self.pages.insert(columns, &rows, &mut slots)?;
        let mut slots = slots.into_iter();
        for partition in pending {
            let home = &mut self.partitions[*partition as usize];
            home.pending = false;
            for (entry, slot) in home.entries.iter_mut().filter(is_pending).zip(&mut slots) {
                entry.slot = slot;
                note(&mut self.noting, *partition, entry, entry.weight);
            }
        }
        Ok(())
    }

    fn intern(&mut self, key: &[u8], hash: u64, time: impl FnOnce() -> i64) -> u32 {
        self.residency.check(hash);
        let mut inline = [0; INLINE_KEY_BYTES];
        if self.inline {
            inline[..key.len()].copy_from_slice(key);
        }
        let found = self.index.find(hash, |partition| {
            let home = &self.partitions[partition as usize];
            match self.inline {
                true => home.key == inline,
                false => home.hash == hash && *self.long_keys[partition as usize] == *key,
            }
        });
        if let Some(partition) = found {
            return partition;
        }
        let new = Partition {
            hash,
            key: inline,
            bound: ABOVE_ALL,
            entries: Sorted::Empty,
            weight: 0,
            touched: 0,
            pending: false,
            leads: None,
        };
        let partition = match self.free.pop() {
            Some(partition) => {
                self.partitions[partition as usize] = new;
                partition
            }
            None => {
                self.partitions.push(new);
                self.partitions.len() as u32 - 1
            }
        };
        if !self.inline {
            self.long_keys.resize(self.partitions.len(), Box::default());
            self.long_keys[partition as usize] = key.into();
        }
        self.index.insert(hash, partition);
        if let Some((_, expiry)) = &mut self.expiry {
            expiry.set(partition, time());
        }
        partition
    }

    /// Gives the place of a partition without rows back.
    fn free_partition(&mut self, partition: u32) {
        self.index.remove(self.partitions[partition as usize].hash, partition);
        self.free.push(partition);
        if !self.inline {
            self.long_keys[partition as usize] = Box::default();
        }
        if let Some((_, expiry)) = &mut self.expiry {
            expiry.clear(partition);
        }
    }

    /// Frees the partitions with times below a watermark, between two epochs.
    pub fn expire(&mut self, watermark: i64) {
        let Some((_, expiry)) = &mut self.expiry else { return };
        self.expired = self.expired.max(watermark);
        for partition in expiry.take_below(watermark) {
            let entries = &mut self.partitions[partition as usize].entries;
            let entries = std::mem::replace(entries, Sorted::Empty);
            self.partitions[partition as usize].leads = None;
            entries.iter().for_each(|e| self.pages.free(e.slot));
            self.free_partition(partition);
        }
    }

    /// The times of partitions, oldest first.
    pub fn open_times(&self) -> Vec<i64> {
        self.expiry.iter().flat_map(|(_, expiry)| expiry.times()).collect()
    }

    /// Keeps the top of a partition as it is ahead of its first change.
    fn touch(&mut self, partition: u32) {
        if self.partitions[partition as usize].touched != 0 {
            return;
        }
        if !self.spec.follows {
            let mut before = std::mem::take(&mut self.before);
            self.walk(partition, &mut before);
            self.before = before;
        }
        self.touched.push(Touched { partition, end: self.before.len() as u32 });
        self.partitions[partition as usize].touched = self.touched.len() as u32;
    }

    /// Appends the top of a partition to `out`; the prefix of its last row and the number of
    /// entries in front of the end, when it is full.
    fn walk(&self, partition: u32, out: &mut Vec<Member>) -> Option<(Prefix, usize)> {
        let top = self.spec.top;
        let (skip, end) = (top.skip as i64, top.end());
        let home = &self.partitions[partition as usize];
        let peers = Rows { pages: &self.pages, batch: &[], columns: &self.spec.order };
        let (mut rows, mut number) = (0_i64, 0_i64);
        let mut last: Option<&Entry> = None;
        for (walked, entry) in home.entries.iter().enumerate() {
            let same = last.is_some_and(|l| {
                top.ranking != Ranking::RowNumber
                    && l.prefix == entry.prefix
                    && peers.compare(l.slot, entry.slot).is_eq()
            });
            let next = match top.ranking {
                _ if same => number,
                Ranking::RowNumber | Ranking::Rank => rows + 1,
                Ranking::DenseRank => number + 1,
            };
            if next > end {
                return last.map(|l| (l.prefix, walked));
            }
            number = next;
            rows += entry.weight;
            last = Some(entry);
            let (from, to) = match top.ranking {
                Ranking::RowNumber => (number.max(skip + 1), rows.min(end)),
                _ => (1, entry.weight),
            };
            if to >= from {
                let (weight, slot) = (to - from + 1, entry.slot);
                let number = if top.ranking == Ranking::RowNumber { from } else { number };
                out.push(Member { prefix: entry.prefix, slot, weight, number });
            }
        }
        let full = top.ranking == Ranking::RowNumber && rows >= end;
        last.filter(|_| full).map(|l| (l.prefix, usize::MAX))
    }

    /// The number of partitions that changed in this epoch.
    pub fn touched(&self) -> usize {
        self.touched.len()
    }

    /// The top of a changed partition ahead of this epoch.
    pub fn before(&self, touched: usize) -> &[Member] {
        let start = touched.checked_sub(1).map_or(0, |t| self.touched[t].end);
        &self.before[start as usize..self.touched[touched].end as usize]
    }

    /// Appends the top of a changed partition as it stands to `out`. What an append-only input has
    /// pushed out of it goes.
    pub fn after(&mut self, touched: usize, out: &mut Vec<Member>) {
        let partition = self.touched[touched].partition;
        let full = self.walk(partition, out);
        let home = &mut self.partitions[partition as usize];
        home.bound = full.map_or(ABOVE_ALL, |(bound, _)| bound);
        if let (true, Some((_, kept))) = (self.spec.append_only, full)
            && kept != usize::MAX
        {
            let surplus = home.entries.iter().skip(kept).count();
            for _ in 0..surplus {
                let Some(gone) = home.entries.pop() else { break };
                self.dead.push(gone.slot);
                note(&mut self.noting, partition, &gone, -gone.weight);
            }
        }
    }

    /// The order of two members of one partition, of this epoch or the one before; equal rows are
    /// equal.
    pub fn compare(&self, a: &Member, b: &Member) -> Ordering {
        let rows = Rows { pages: &self.pages, batch: &[], columns: &self.columns };
        a.prefix.cmp(&b.prefix).then_with(|| rows.compare(a.slot, b.slot))
    }

    /// One column of the given slots.
    pub fn gather_column(&self, column: usize, slots: &[u32]) -> Result<ArrayRef> {
        self.pages.gather_column(column, slots)
    }

    /// Ends the epoch: what is now becomes what was before.
    pub fn seal(&mut self) -> Result<()> {
        if self.negative > 0 {
            let entries = self.partitions.iter().flat_map(|p| p.entries.iter());
            let least = entries.map(|e| e.weight).min();
            return Err(negative_weight(self.name, least.unwrap_or(-1)));
        }
        if self.noting.capture.is_some() {
            self.log_changes()?;
        }
        self.noting.changed.iter_mut().for_each(Vec::clear);
        self.dead.drain(..).for_each(|slot| self.pages.free(slot));
        self.before.clear();
        for Touched { partition, .. } in std::mem::take(&mut self.touched) {
            let home = &mut self.partitions[partition as usize];
            home.touched = 0;
            if home.entries.is_empty() {
                self.free_partition(partition);
            }
        }
        Ok(())
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.pages.rows()
    }

    /// Bytes of pages, lists and index.
    pub fn bytes(&self) -> usize {
        let lists: usize = self.partitions.iter().map(|p| p.entries.bytes()).sum();
        let lists = lists + self.expiry.as_ref().map_or(0, |(_, expiry)| expiry.bytes());
        let keys: usize = self.long_keys.iter().map(|k| k.len() + 16).sum();
        self.pages.bytes() + self.index.bytes() + self.partitions.bytes() + lists + keys
    }

    pub(super) fn residency_mut(&mut self) -> &mut Residency {
        &mut self.residency
    }
}

/// Notes that the weight of a row has changed, where somebody wants to know; what is not written
/// yet is noted when it is.
#[inline]
fn note(noting: &mut Noting, partition: u32, entry: &Entry, weight: Weight) {
    if entry.slot & PENDING != 0 {
        return;
    }
    if let Some(capture) = &mut noting.capture {
        capture.noted.push((entry.slot, partition, weight));
    }
    if let Some(changed) = &mut noting.changed {
        changed.push(Changed { partition, prefix: entry.prefix, slot: entry.slot, weight });
    }
}
