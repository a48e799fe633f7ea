//! Arrangement: a multimap from key to rows, the state of a join side.
//!
//! Rows lie in [`Pages`]; an index leads from a key to the first slot of a chain of all rows with
//! that key ([`Chains`]). The slot of a row that is retracted is looked for in its chain; from the
//! first chain on that is too long for it, a second index over the hash of the whole row finds it.
//!
//! Epochs: every slot has its weight as of the last sealed epoch and its weight now. A probe says
//! which it wants ([`When::Before`] or [`When::After`] the current epoch's delta);
//! [`Arrangement::seal`] ends the epoch. Self joins over one shared arrangement are right only
//! through this distinction (McSherry et al., "Shared Arrangements", VLDB 2020). Weights may be
//! negative inside an epoch (a retraction can arrive before its insert from another worker), never
//! after a seal.
//!
//! Append-only arrangements keep no weights and no row index: slots ascend, so "before" is a slot
//! number.
//!
//! A counted arrangement keeps for every row how many rows of the other side of a join match it.
//! The join counts; the arrangement keeps the counts by slot, tells at the end of an epoch which
//! rows changed, and writes the counts with the rows.

mod change;
mod cold;
mod entries;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};

use super::Residency;
use super::chains::{Chains, NONE};
use super::changes::Changes;
use super::expiry::{Expiry, NEVER};
use super::negative_weight;
use super::pages::Pages;
use super::slot_index::{READ_AHEAD_MAX, SlotIndex};
use super::weights::TwoWeights;
use crate::delta::{Keys, Weight};
use crate::error::Result;

/// The layout of an arrangement.
#[derive(Debug, Clone)]
pub struct ArrangementSpec {
    /// The columns that are kept.
    pub schema: SchemaRef,
    /// Indexes of the key columns in it.
    pub key: Vec<usize>,
    /// No row is ever retracted.
    pub append_only: bool,
    /// Rows have a count of matches.
    pub counted: bool,
}

/// Which version of an arrangement a probe sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// As of the last sealed epoch.
    Before,
    /// With everything of the current epoch so far.
    After,
    /// As `After`, and with rows whose weight is zero now but was not, or may not be at the end of
    /// the epoch.
    Any,
}

/// Rows that look for matches.
#[derive(Debug, Clone, Copy)]
pub struct Probing<'a> {
    /// The keys of a batch.
    pub keys: &'a Keys,
    /// The same as columns.
    pub columns: &'a [ArrayRef],
    /// The rows that probe.
    pub selection: &'a [u32],
}

/// Where a probe goes on: a place in the selection, and a slot in the chain of its key (the next
/// one of an arrangement, the last one of a result table).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The place in the selection; its length at the end.
    pub position: usize,
    pub(super) slot: Option<u32>,
}

impl Cursor {
    /// The begin.
    pub const START: Self = Self { position: 0, slot: None };

    /// The end of a selection.
    pub fn behind(selection: &[u32]) -> Self {
        Self { position: selection.len(), slot: None }
    }
}

/// A row that changed in the epoch: its weight and how many rows match it, as of the last sealed
/// epoch and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// Its slot.
    pub slot: u32,
    /// Weight and matches before the epoch.
    pub before: (Weight, Weight),
    /// Weight and matches now.
    pub after: (Weight, Weight),
}

/// Matches of a probe: parallel vectors.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    /// The probing row.
    pub rows: Vec<u32>,
    /// The matching slot.
    pub slots: Vec<u32>,
    /// The weight of the slot; empty when all are +1.
    pub weights: Vec<Weight>,
}

/// Key to rows.
#[derive(Debug)]
pub struct Arrangement {
    name: &'static str,
    spec: ArrangementSpec,
    pages: Pages,
    /// By key.
    index: Chains,
    retractable: Option<Retractable>,
    counts: Option<Counts>,
    /// Append-only: slots below this are of sealed epochs.
    sealed_slots: u32,
    /// The time column and when rows go, where they do.
    expiry: Option<(usize, Expiry)>,
    /// The time of a row that has none.
    null_time: i64,
    /// What has expired has times below.
    expired: i64,
    changes: Option<Changes>,
    residency: Residency,
}

/// What only arrangements keep whose rows can go.
#[derive(Debug, Default)]
struct Retractable {
    /// By the hash of the whole row, from the first long chain on.
    rows: Option<SlotIndex>,
    /// As of the last seal, and now.
    weights: TwoWeights,
    touched: Vec<u32>,
}

/// Matches of rows, by slot.
#[derive(Debug, Default)]
struct Counts {
    /// As of the last seal, and now.
    matches: Vec<(Weight, Weight)>,
    touched: Vec<u32>,
}

impl Counts {
    fn add(&mut self, slot: u32, weight: Weight) {
        let matches = &mut self.matches[slot as usize];
        if matches.0 == matches.1 {
            self.touched.push(slot);
        }
        matches.1 += weight;
    }
}

impl Arrangement {
    /// An arrangement for one epoch, which is of no store.
    pub fn of_epoch(spec: ArrangementSpec) -> Self {
        Self::new("epoch", spec, None)
    }

    /// With `closes`, rows go when a watermark passes that column of theirs, those with a NULL
    /// there at the time given with it.
    pub(super) fn new(
        name: &'static str,
        spec: ArrangementSpec,
        closes: Option<(usize, Expiry, i64)>,
    ) -> Self {
        let stays = spec.append_only && closes.is_none();
        let retractable = (!stays).then(Retractable::default);
        Self {
            name,
            pages: Pages::new(spec.schema.clone()),
            counts: spec.counted.then(Counts::default),
            spec,
            index: Chains::new(),
            retractable,
            sealed_slots: 0,
            null_time: closes.as_ref().map_or(NEVER, |(.., time)| *time),
            expiry: closes.map(|(column, expiry, _)| (column, expiry)),
            expired: i64::MIN,
            changes: None,
            residency: Residency::default(),
        }
    }

    /// The rows with times below a cut, oldest first, with their weights as of the last seal:
    /// [`Self::seal_and_expire`] frees them.
    pub fn passed(&self, cut: i64) -> Vec<(u32, Weight)> {
        let Some((_, expiry)) = &self.expiry else { return Vec::new() };
        let Some(state) = &self.retractable else { return Vec::new() };
        let weights = |slot: u32| (slot, state.weights.get(slot).0);
        expiry.below(cut).map(weights).collect()
    }

    /// The oldest rows, so many where there are, with all that are as old as the last of them;
    /// their weights as of the last seal.
    pub fn oldest(&self, rows: Weight) -> Vec<(u32, Weight)> {
        let Some((_, expiry)) = &self.expiry else { return Vec::new() };
        let Some(state) = &self.retractable else { return Vec::new() };
        let (mut found, mut sum, mut last) = (Vec::new(), 0, NEVER);
        for slot in expiry.below(NEVER) {
            if sum >= rows && expiry.time(slot) != last {
                break;
            }
            let weight = state.weights.get(slot).0;
            (sum, last) = (sum + weight, expiry.time(slot));
            found.push((slot, weight));
        }
        found
    }

    /// Frees the rows with times below a watermark, between two epochs.
    fn expire(&mut self, watermark: i64) -> Result<()> {
        let Some((_, expiry)) = &mut self.expiry else { return Ok(()) };
        self.expired = self.expired.max(watermark);
        let slots = expiry.take_below(watermark);
        if let Some(state) = &mut self.retractable {
            slots.iter().for_each(|slot| state.weights.set(*slot, (0, 0)));
        }
        self.unlink(&slots)
    }

    /// Adds to the matches of a row.
    pub fn add_matches(&mut self, slot: u32, weight: Weight) {
        self.counts.as_mut().expect("matches are counted").add(slot, weight);
    }

    /// Sets the matches of a row that got its slot just now.
    pub fn set_matches(&mut self, slot: u32, weight: Weight) {
        let counts = self.counts.as_mut().expect("matches are counted");
        counts.matches[slot as usize] = (0, weight);
        counts.touched.push(slot);
    }

    /// The rows of a counted arrangement that changed in this epoch, by slot: their weight, or
    /// whether anything matches them.
    pub fn changed(&self) -> Vec<Changed> {
        let Some(counts) = &self.counts else { return Vec::new() };
        let mut slots = counts.touched.clone();
        match &self.retractable {
            Some(state) => slots.extend_from_slice(&state.touched),
            None => slots.extend(self.sealed_slots..self.pages.slots() as u32),
        }
        slots.sort_unstable();
        slots.dedup();
        let change = |slot: u32| {
            let weights = match &self.retractable {
                Some(state) => state.weights.get(slot),
                None => (Weight::from(slot < self.sealed_slots), 1),
            };
            let matches = counts.matches[slot as usize];
            Changed { slot, before: (weights.0, matches.0), after: (weights.1, matches.1) }
        };
        slots.into_iter().map(change).collect()
    }

    /// Ends the epoch: what is now becomes what was before.
    pub fn seal(&mut self) -> Result<()> {
        self.seal_above(i64::MIN)
    }

    /// Ends the epoch and frees the rows with times below a watermark.
    pub fn seal_and_expire(&mut self, watermark: i64) -> Result<()> {
        self.seal_above(watermark)?;
        self.expire(watermark)
    }

    /// Ends the epoch; below the watermark a row that has been freed may be retracted.
    pub fn seal_above(&mut self, watermark: i64) -> Result<()> {
        if self.changes.is_some() {
            self.capture(watermark)?;
        }
        self.sealed_slots = self.pages.slots() as u32;
        if let Some(counts) = &mut self.counts {
            for slot in std::mem::take(&mut counts.touched) {
                let matches = &mut counts.matches[slot as usize];
                matches.0 = matches.1;
            }
        }
        let Some(state) = &mut self.retractable else { return Ok(()) };
        let mut touched = std::mem::take(&mut state.touched);
        // A slot is listed again when its weight came back to the sealed one in between.
        touched.sort_unstable();
        touched.dedup();
        let mut gone = Vec::new();
        for slot in touched {
            let (_, weight) = state.weights.get(slot);
            let passed = || self.expiry.as_ref().is_some_and(|(_, e)| e.time(slot) < watermark);
            if weight < 0 && !passed() {
                return Err(negative_weight(self.name, weight));
            }
            state.weights.set(slot, (weight, weight));
            if weight == 0 {
                gone.push(slot);
            }
        }
        self.unlink(&gone)
    }

    /// Finds the matches of probing rows from a place on, until `limit` matches were found or the
    /// rows end; returns where to go on.
    pub fn probe(
        &self,
        probing: Probing<'_>,
        when: When,
        from: Cursor,
        limit: usize,
        out: &mut Probe,
    ) -> Cursor {
        let fast = plain_i64(probing.columns);
        let mut held = from.slot;
        for (position, row) in probing.selection.iter().enumerate().skip(from.position) {
            if position.is_multiple_of(READ_AHEAD_MAX) || position == from.position {
                self.read_ahead(probing.keys, &probing.selection[position..]);
            }
            if out.slots.len() >= limit {
                return Cursor { position, slot: held };
            }
            let mut slot = match held.take() {
                Some(slot) => slot,
                None => self.head(probing, fast, *row as usize),
            };
            while slot != NONE {
                if out.slots.len() >= limit {
                    return Cursor { position, slot: Some(slot) };
                }
                self.visit(slot, *row, when, out);
                slot = self.index.next(slot);
            }
        }
        Cursor { position: probing.selection.len(), slot: None }
    }

    /// Reads ahead what looking for the keys of the next rows will read.
    #[inline]
    fn read_ahead(&self, keys: &Keys, rows: &[u32]) {
        let next = &rows[..rows.len().min(READ_AHEAD_MAX)];
        let hashes = next.iter().map(|row| keys.hash(*row as usize));
        let column = self.spec.key.first().copied();
        self.index.read_ahead(hashes, |s| column.map_or(0, |column| self.pages.peek(s, column)));
    }

    /// The first slot of the chain of a probing row's key.
    #[inline]
    fn head(&self, probing: Probing<'_>, fast: Option<&[i64]>, row: usize) -> u32 {
        let hash = probing.keys.hash(row);
        self.residency.check(hash);
        self.find_head((hash, probing.columns, fast), row).unwrap_or(NONE)
    }

    /// The first slot of the chain of a key with this hash, in row `row` of key columns.
    #[inline]
    fn find_head(
        &self,
        (hash, key, fast): (u64, &[ArrayRef], Option<&[i64]>),
        row: usize,
    ) -> Option<u32> {
        match fast {
            Some(values) => {
                let (column, value) = (self.spec.key[0], values[row]);
                self.index.head(hash, |s| self.pages.is_i64(s, column, value))
            }
            None => self.index.head(hash, |s| self.pages.equals(s, &self.spec.key, key, row)),
        }
    }

    #[inline]
    fn visit(&self, slot: u32, row: u32, when: When, out: &mut Probe) {
        match &self.retractable {
            None if when == When::Before && slot >= self.sealed_slots => return,
            None => {}
            Some(state) => {
                let (before, after) = state.weights.get(slot);
                let weight = if when == When::Before { before } else { after };
                if weight == 0 && when != When::Any {
                    return;
                }
                out.weights.push(weight);
            }
        }
        out.rows.push(row);
        out.slots.push(slot);
    }

    /// One column of matched slots.
    pub fn gather_column(&self, column: usize, slots: &[u32]) -> Result<ArrayRef> {
        self.pages.gather_column(column, slots)
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.pages.rows()
    }

    /// The times of rows, oldest first, each once.
    pub fn open_times(&self) -> Vec<i64> {
        self.expiry.iter().flat_map(|(_, expiry)| expiry.times()).collect()
    }

    /// Bytes of pages and indexes.
    pub fn bytes(&self) -> usize {
        let state = self
            .retractable
            .as_ref()
            .map_or(0, |s| s.rows.as_ref().map_or(0, SlotIndex::bytes) + s.weights.bytes());
        let state = state + self.expiry.as_ref().map_or(0, |(_, expiry)| expiry.bytes());
        let counts = self.counts.as_ref().map_or(0, |c| c.matches.capacity() * 16);
        self.pages.bytes() + self.index.bytes() + state + counts
    }

    pub(super) fn residency_mut(&mut self) -> &mut Residency {
        &mut self.residency
    }
}

/// The values of a key that is one column of 64-bit integers or timestamps without a NULL: the key
/// of most joins, compared without a look at types.
pub(super) fn plain_i64(key: &[ArrayRef]) -> Option<&[i64]> {
    let [one] = key else { return None };
    if one.null_count() > 0 {
        return None;
    }
    if let Some(values) = one.as_primitive_opt::<Int64Type>() {
        return Some(values.values());
    }
    one.as_primitive_opt::<TimestampMicrosecondType>().map(|values| values.values().as_ref())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::delta::DeltaBatch;

    fn rows(keys: &[i64], names: &[&str]) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, true),
            Field::new("s", DataType::Utf8, true),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(keys.to_vec())),
            Arc::new(StringArray::from(names.to_vec())),
        ];
        RecordBatch::try_new(schema, columns).expect("columns fit the schema")
    }

    fn update(table: &mut Arrangement, delta: &DeltaBatch) {
        let keys = Keys::encode(&delta.rows().columns()[..1], delta.len()).expect("keys");
        let all: Vec<u32> = (0..delta.len() as u32).collect();
        table.update(delta, &keys, &all).expect("updates");
    }

    /// The matches of key 1 as `weight name`, sorted.
    fn probe(table: &Arrangement, when: When) -> Vec<String> {
        let key: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1]))];
        let keys = Keys::encode(&key, 1).expect("keys");
        let mut out = Probe::default();
        let probing = Probing { keys: &keys, columns: &key, selection: &[0] };
        // In pieces, as a join with a long chain does.
        let mut cursor = Cursor::START;
        while cursor.position < 1 {
            let limit = out.slots.len() + 7;
            cursor = table.probe(probing, when, cursor, limit, &mut out);
        }
        let names = table.gather_column(1, &out.slots).expect("short names");
        let text = |i: usize| crate::delta::text::display_value(&names, i).unwrap_or_default();
        let weight = |i: usize| out.weights.get(i).copied().unwrap_or(1);
        let mut found: Vec<String> =
            (0..out.slots.len()).map(|i| format!("{} {}", weight(i), text(i))).collect();
        found.sort();
        found
    }

    fn table(append_only: bool) -> Arrangement {
        let schema = rows(&[], &[]).schema();
        let spec = ArrangementSpec { schema, key: vec![0], append_only, counted: false };
        Arrangement::new("rows", spec, None)
    }

    #[test]
    fn a_probe_sees_the_epoch_that_it_asks_for() {
        let mut table = table(false);
        update(&mut table, &DeltaBatch::inserts(rows(&[1, 1, 2], &["a", "b", "c"])));
        assert!(probe(&table, When::Before).is_empty());
        assert_eq!(probe(&table, When::After), ["1 a", "1 b"]);
        table.seal().expect("seals");
        update(&mut table, &DeltaBatch::retractions(rows(&[1], &["a"])));
        update(&mut table, &DeltaBatch::inserts(rows(&[1, 1], &["b", "d"])));
        assert_eq!(probe(&table, When::Before), ["1 a", "1 b"]);
        assert_eq!(probe(&table, When::After), ["1 d", "2 b"]);
        table.seal().expect("seals");
        assert_eq!(probe(&table, When::Before), ["1 d", "2 b"]);
        assert_eq!(table.rows(), 3);
    }

    #[test]
    fn append_only_tables_tell_epochs_apart_by_slot() {
        let mut table = table(true);
        update(&mut table, &DeltaBatch::inserts(rows(&[1], &["a"])));
        table.seal().expect("seals");
        update(&mut table, &DeltaBatch::inserts(rows(&[1], &["b"])));
        assert_eq!(probe(&table, When::Before), ["1 a"]);
        assert_eq!(probe(&table, When::After), ["1 a", "1 b"]);
    }

    /// Would find equal rows of one batch stored apart, and rows that are lost when the index of
    /// whole rows is made in the middle of a batch.
    #[test]
    fn equal_rows_of_one_batch_are_one() {
        for distinct in [3, 30] {
            let mut table = table(false);
            let names: Vec<String> = (0..60).map(|i| (i % distinct).to_string()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let all = rows(&[1; 60], &names);
            update(&mut table, &DeltaBatch::inserts(all.clone()));
            table.seal().expect("seals");
            assert_eq!(table.rows(), distinct);
            let copies = 60 / distinct;
            let found = probe(&table, When::After);
            assert_eq!(found.len(), distinct);
            assert!(found.iter().all(|row| row.starts_with(&format!("{copies} "))), "{found:?}");
            // Comes and goes, and comes again.
            update(&mut table, &DeltaBatch::retractions(all.clone()));
            update(&mut table, &DeltaBatch::inserts(all.slice(0, 2)));
            table.seal().expect("seals");
            assert_eq!(probe(&table, When::Before), ["1 0", "1 1"]);
            update(&mut table, &DeltaBatch::retractions(all.slice(0, 2)));
            table.seal().expect("seals");
            assert_eq!(table.rows(), 0);
        }
    }

    #[test]
    fn the_row_of_a_hot_key_is_found_and_freed_slots_are_used_again() {
        let mut table = table(false);
        let names: Vec<String> = (0..5_000).map(|i| i.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let hot = rows(&vec![1; names.len()], &names);
        update(&mut table, &DeltaBatch::inserts(hot.clone()));
        table.seal().expect("seals");
        update(&mut table, &DeltaBatch::retractions(hot.slice(10, 4_980)));
        table.seal().expect("seals");
        assert_eq!(table.rows(), 20);
        let before = table.pages.slots();
        update(&mut table, &DeltaBatch::inserts(rows(&[1, 3], &["x", "y"])));
        assert_eq!(table.pages.slots(), before);
        assert_eq!(probe(&table, When::After).len(), 21);
    }
}
