//! Arrangement: a multimap from key to rows, the state of a join side.
//!
//! Rows lie in [`Pages`]; an index leads from a key to the first slot of a chain of all rows with
//! that key. Where rows can be retracted, a second index over the hash of the whole row finds the
//! slot to retract without walking the chain of a hot key.
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

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};

use super::Residency;
use super::blob::{BlobReader, BlobWriter};
use super::pages::Pages;
use super::slot_index::SlotIndex;
use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Keys, Weight, decode_keys, key_group};
use crate::error::Result;

const NONE: u32 = u32::MAX;

/// The layout of an arrangement.
#[derive(Debug, Clone)]
pub struct ArrangementSpec {
    /// The columns that are kept.
    pub schema: SchemaRef,
    /// Indexes of the key columns in it.
    pub key: Vec<usize>,
    /// No row is ever retracted.
    pub append_only: bool,
}

/// Which version of an arrangement a probe sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// As of the last sealed epoch.
    Before,
    /// With everything of the current epoch so far.
    After,
}

/// Matches of a probe: parallel vectors.
#[derive(Debug, Default)]
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
    spec: ArrangementSpec,
    pages: Pages,
    index: SlotIndex,
    next: Vec<u32>,
    retractable: Option<Retractable>,
    /// Append-only: slots below this are of sealed epochs.
    sealed_slots: u32,
    residency: Residency,
}

/// What only retractable arrangements keep, by slot.
#[derive(Debug)]
struct Retractable {
    rows: SlotIndex,
    row_hash: Vec<u64>,
    key_hash: Vec<u64>,
    prev: Vec<u32>,
    /// Weight as of the last seal, and now.
    weights: Vec<(Weight, Weight)>,
    touched: Vec<u32>,
}

impl Arrangement {
    pub(super) fn new(spec: ArrangementSpec) -> Self {
        let retractable = (!spec.append_only).then(|| Retractable {
            rows: SlotIndex::new(),
            row_hash: Vec::new(),
            key_hash: Vec::new(),
            prev: Vec::new(),
            weights: Vec::new(),
            touched: Vec::new(),
        });
        Self {
            pages: Pages::new(spec.schema.clone()),
            spec,
            index: SlotIndex::new(),
            next: Vec::new(),
            retractable,
            sealed_slots: 0,
            residency: Residency::default(),
        }
    }

    /// Adds a delta to the current epoch. `keys` are those of all rows; rows whose key has a NULL
    /// are left out by the caller through `selection`.
    pub fn update(&mut self, delta: &DeltaBatch, keys: &Keys, selection: &[u32]) -> Result<()> {
        for row in selection {
            self.residency.check(keys.hash(*row as usize));
        }
        match self.retractable.is_some() {
            false => self.append(delta, keys, selection),
            true => self.change(delta, keys, selection),
        }
    }

    fn append(&mut self, delta: &DeltaBatch, keys: &Keys, selection: &[u32]) -> Result<()> {
        let repeated: Vec<u32>;
        let rows = if delta.is_insert_only() {
            selection
        } else {
            let copies = |row: &u32| vec![*row; delta.weight(*row as usize).max(0) as usize];
            repeated = selection.iter().flat_map(copies).collect();
            &repeated
        };
        let mut slots = Vec::with_capacity(rows.len());
        self.pages.insert(delta.rows().columns(), rows, &mut slots)?;
        self.next.resize(self.pages.slots(), NONE);
        let key_columns = self.key_columns(delta.rows());
        for (slot, row) in slots.iter().zip(rows) {
            let row = *row as usize;
            self.link(*slot, keys.hash(row), &key_columns, row);
        }
        Ok(())
    }

    fn change(&mut self, delta: &DeltaBatch, keys: &Keys, selection: &[u32]) -> Result<()> {
        let whole = Keys::encode(delta.rows().columns(), delta.len())?;
        let key_columns = self.key_columns(delta.rows());
        let mut slots = Vec::with_capacity(1);
        for row in selection {
            let weight = delta.weight(*row as usize);
            let hash = whole.hash(*row as usize);
            if let Some(slot) = self.find_row(delta.rows().columns(), *row as usize, hash) {
                self.touch(slot, weight);
                continue;
            }
            slots.clear();
            self.pages.insert(delta.rows().columns(), &[*row], &mut slots)?;
            let slot = slots[0];
            self.next.resize(self.pages.slots(), NONE);
            let key_hash = keys.hash(*row as usize);
            let state = self.retractable.as_mut().expect("rows can be retracted");
            state.reserve(self.pages.slots());
            state.rows.insert(hash, slot);
            state.row_hash[slot as usize] = hash;
            state.key_hash[slot as usize] = key_hash;
            state.weights[slot as usize] = (0, 0);
            self.touch(slot, weight);
            self.link(slot, key_hash, &key_columns, *row as usize);
        }
        Ok(())
    }

    fn key_columns(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.spec.key.iter().map(|c| rows.column(*c).clone()).collect()
    }

    fn find_row(&self, columns: &[ArrayRef], row: usize, hash: u64) -> Option<u32> {
        let state = self.retractable.as_ref()?;
        let all: Vec<usize> = (0..columns.len()).collect();
        state.rows.find(hash, |slot| {
            state.row_hash[slot as usize] == hash && self.pages.equals(slot, &all, columns, row)
        })
    }

    fn touch(&mut self, slot: u32, weight: Weight) {
        let state = self.retractable.as_mut().expect("rows can be retracted");
        let weights = &mut state.weights[slot as usize];
        if weights.0 == weights.1 {
            state.touched.push(slot);
        }
        weights.1 += weight;
    }

    /// Puts a new slot at the head of its key's chain.
    fn link(&mut self, slot: u32, hash: u64, key: &[ArrayRef], row: usize) {
        let head = self.index.find(hash, |s| self.pages.equals(s, &self.spec.key, key, row));
        match head {
            Some(head) => {
                self.index.replace(hash, head, slot);
                self.next[slot as usize] = head;
                if let Some(state) = &mut self.retractable {
                    state.prev[head as usize] = slot;
                }
            }
            None => {
                self.index.insert(hash, slot);
                self.next[slot as usize] = NONE;
            }
        }
        if let Some(state) = &mut self.retractable {
            state.prev[slot as usize] = NONE;
        }
    }

    fn unlink(&mut self, slot: u32) {
        let state = self.retractable.as_mut().expect("rows can be retracted");
        let (prev, next) = (state.prev[slot as usize], self.next[slot as usize]);
        let hash = state.key_hash[slot as usize];
        if next != NONE {
            state.prev[next as usize] = prev;
        }
        match (prev, next) {
            (NONE, NONE) => self.index.remove(hash, slot),
            (NONE, next) => self.index.replace(hash, slot, next),
            (prev, next) => self.next[prev as usize] = next,
        }
        state.rows.remove(state.row_hash[slot as usize], slot);
        self.pages.free(slot);
    }

    /// Ends the epoch: what is now becomes what was before.
    pub fn seal(&mut self) {
        self.sealed_slots = self.pages.slots() as u32;
        let Some(state) = &mut self.retractable else { return };
        let mut touched = std::mem::take(&mut state.touched);
        // A slot is listed again when its weight came back to the sealed one in between.
        touched.sort_unstable();
        touched.dedup();
        let mut gone = Vec::new();
        for slot in touched {
            let weights = &mut state.weights[slot as usize];
            debug_assert!(weights.1 >= 0, "the weight of a row is not negative at an epoch's end");
            weights.0 = weights.1;
            if weights.1 == 0 {
                gone.push(slot);
            }
        }
        gone.into_iter().for_each(|slot| self.unlink(slot));
    }

    /// Finds the matches of probing rows from `start` on, until at least `limit` matches were found
    /// or the rows end; returns the row to go on with.
    pub fn probe(
        &self,
        keys: &Keys,
        key_columns: &[ArrayRef],
        selection: &[u32],
        when: When,
        limits: (usize, usize),
        out: &mut Probe,
    ) -> usize {
        let (start, limit) = limits;
        for (position, row) in selection.iter().enumerate().skip(start) {
            if out.slots.len() >= limit {
                return position;
            }
            let hash = keys.hash(*row as usize);
            self.residency.check(hash);
            let is = |s| self.pages.equals(s, &self.spec.key, key_columns, *row as usize);
            let mut slot = self.index.find(hash, is).unwrap_or(NONE);
            while slot != NONE {
                self.visit(slot, *row, when, out);
                slot = self.next[slot as usize];
            }
        }
        selection.len()
    }

    #[inline]
    fn visit(&self, slot: u32, row: u32, when: When, out: &mut Probe) {
        match &self.retractable {
            None if when == When::Before && slot >= self.sealed_slots => return,
            None => {}
            Some(state) => {
                let (before, after) = state.weights[slot as usize];
                let weight = if when == When::Before { before } else { after };
                if weight == 0 {
                    return;
                }
                out.weights.push(weight);
            }
        }
        out.rows.push(row);
        out.slots.push(slot);
    }

    /// One column of matched slots.
    pub fn gather_column(&self, column: usize, slots: &[u32]) -> ArrayRef {
        self.pages.gather_column(column, slots)
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.pages.rows()
    }

    /// Bytes of pages and indexes.
    pub fn bytes(&self) -> usize {
        let state = self
            .retractable
            .as_ref()
            .map_or(0, |s| s.rows.bytes() + s.row_hash.capacity() * 16 + s.prev.capacity() * 20);
        self.pages.bytes() + self.index.bytes() + self.next.capacity() * 4 + state
    }

    pub(super) fn residency_mut(&mut self) -> &mut Residency {
        &mut self.residency
    }

    fn live_slots(&self) -> Vec<u32> {
        let all = 0..self.pages.slots() as u32;
        match &self.retractable {
            None => all.collect(),
            Some(state) => all.filter(|s| state.weights[*s as usize].0 != 0).collect(),
        }
    }

    /// Writes all rows of sealed epochs: weight and the row's bytes, by the key group of its key.
    pub(super) fn write(&self, out: &mut BlobWriter) -> Result<()> {
        for slots in self.live_slots().chunks(BATCH_ROWS) {
            let columns = self.pages.gather(slots);
            let whole = Keys::encode_exact(&columns, slots.len())?;
            let key: Vec<ArrayRef> = self.spec.key.iter().map(|c| columns[*c].clone()).collect();
            let keys = Keys::encode(&key, slots.len())?;
            for (row, slot) in slots.iter().enumerate() {
                let weight = self.retractable.as_ref().map_or(1, |s| s.weights[*slot as usize].0);
                let mut entry = weight.to_le_bytes().to_vec();
                entry.extend_from_slice(whole.key(row));
                out.entry(key_group(keys.hash(row)), entry);
            }
        }
        Ok(())
    }

    /// Adds the rows of a blob.
    pub(super) fn read(&mut self, input: &BlobReader) -> Result<()> {
        let types: Vec<DataType> =
            self.spec.schema.fields().iter().map(|f| f.data_type().clone()).collect();
        let entries: Vec<(Weight, &[u8])> = input
            .entries()
            .filter_map(|e| e.split_first_chunk::<8>())
            .map(|(weight, row)| (Weight::from_le_bytes(*weight), row))
            .collect();
        for chunk in entries.chunks(BATCH_ROWS) {
            let columns = decode_keys(&types, chunk.iter().map(|(_, row)| *row))?;
            let rows = RecordBatch::try_new(self.spec.schema.clone(), columns)?;
            let weights = chunk.iter().map(|(w, _)| *w).collect::<Vec<_>>().into();
            let keys = Keys::encode(&self.key_columns(&rows), rows.num_rows())?;
            let selection: Vec<u32> = (0..rows.num_rows() as u32).collect();
            self.residency.add(keys.hashes());
            self.update(&DeltaBatch::new(rows, weights), &keys, &selection)?;
        }
        self.seal();
        Ok(())
    }
}

impl Retractable {
    fn reserve(&mut self, slots: usize) {
        self.row_hash.resize(slots, 0);
        self.key_hash.resize(slots, 0);
        self.prev.resize(slots, NONE);
        self.weights.resize(slots, (0, 0));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

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
        let keys = Keys::encode(&table.key_columns(delta.rows()), delta.len()).expect("keys");
        let all: Vec<u32> = (0..delta.len() as u32).collect();
        table.update(delta, &keys, &all).expect("updates");
    }

    /// The matches of key 1 as `weight name`, sorted.
    fn probe(table: &Arrangement, when: When) -> Vec<String> {
        let key: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1]))];
        let keys = Keys::encode(&key, 1).expect("keys");
        let mut out = Probe::default();
        table.probe(&keys, &key, &[0], when, (0, usize::MAX), &mut out);
        let names = table.gather_column(1, &out.slots);
        let text = |i: usize| crate::delta::text::display_value(&names, i).unwrap_or_default();
        let weight = |i: usize| out.weights.get(i).copied().unwrap_or(1);
        let mut found: Vec<String> =
            (0..out.slots.len()).map(|i| format!("{} {}", weight(i), text(i))).collect();
        found.sort();
        found
    }

    fn table(append_only: bool) -> Arrangement {
        let schema = rows(&[], &[]).schema();
        Arrangement::new(ArrangementSpec { schema, key: vec![0], append_only })
    }

    #[test]
    fn a_probe_sees_the_epoch_that_it_asks_for() {
        let mut table = table(false);
        update(&mut table, &DeltaBatch::inserts(rows(&[1, 1, 2], &["a", "b", "c"])));
        assert!(probe(&table, When::Before).is_empty());
        assert_eq!(probe(&table, When::After), ["1 a", "1 b"]);
        table.seal();
        update(&mut table, &DeltaBatch::retractions(rows(&[1], &["a"])));
        update(&mut table, &DeltaBatch::inserts(rows(&[1, 1], &["b", "d"])));
        assert_eq!(probe(&table, When::Before), ["1 a", "1 b"]);
        assert_eq!(probe(&table, When::After), ["1 d", "2 b"]);
        table.seal();
        assert_eq!(probe(&table, When::Before), ["1 d", "2 b"]);
        assert_eq!(table.rows(), 3);
    }

    #[test]
    fn append_only_tables_tell_epochs_apart_by_slot() {
        let mut table = table(true);
        update(&mut table, &DeltaBatch::inserts(rows(&[1], &["a"])));
        table.seal();
        update(&mut table, &DeltaBatch::inserts(rows(&[1], &["b"])));
        assert_eq!(probe(&table, When::Before), ["1 a"]);
        assert_eq!(probe(&table, When::After), ["1 a", "1 b"]);
    }

    #[test]
    fn the_row_of_a_hot_key_is_found_and_freed_slots_are_used_again() {
        let mut table = table(false);
        let names: Vec<String> = (0..5_000).map(|i| i.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let hot = rows(&vec![1; names.len()], &names);
        update(&mut table, &DeltaBatch::inserts(hot.clone()));
        table.seal();
        update(&mut table, &DeltaBatch::retractions(hot.slice(10, 4_980)));
        table.seal();
        assert_eq!(table.rows(), 20);
        let before = table.pages.slots();
        update(&mut table, &DeltaBatch::inserts(rows(&[1, 3], &["x", "y"])));
        assert_eq!(table.pages.slots(), before);
        assert_eq!(probe(&table, When::After).len(), 21);
    }
}
