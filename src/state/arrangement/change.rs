//! What changes an arrangement: rows of a delta come, or change their weights; what an epoch has
//! left without weight goes.

use arrow::array::{ArrayRef, RecordBatch};

use super::{Arrangement, plain_i64};
use crate::delta::{DeltaBatch, Keys, Weight};
use crate::error::Result;
use crate::state::chains::NONE;
use crate::state::expiry::NEVER;
use crate::state::rows::hashes_of;
use crate::state::slot_index::{READ_AHEAD_MAX, SlotIndex};
use crate::time::event_times;

/// Rows of a chain that are compared before an index of whole rows is made.
const COMPARED_MAX: usize = 16;

/// Rows that get slots of their own, as `(row, slot)`, where somebody wants to know.
type Fresh = Option<Vec<(u32, u32)>>;

/// A delta with what its rows are found by, made once for all of them.
struct Change<'a> {
    delta: &'a DeltaBatch,
    keys: &'a Keys,
    key: &'a [ArrayRef],
    fast: Option<&'a [i64]>,
    /// The columns that are not of the key, here and in the table.
    rest: Vec<usize>,
    rest_columns: Vec<ArrayRef>,
    /// The keys that whole rows are, once they are needed.
    whole: Option<Keys>,
}

impl Change<'_> {
    /// The hash of a whole row.
    fn hash(&mut self, row: usize) -> Result<u64> {
        if let Some(whole) = &self.whole {
            return Ok(whole.hash(row));
        }
        let whole = Keys::encode(self.delta.rows().columns(), self.delta.len())?;
        Ok(self.whole.insert(whole).hash(row))
    }

    fn head(&self, table: &Arrangement, row: usize) -> Option<u32> {
        table.find_head((self.keys.hash(row), self.key, self.fast), row)
    }
}

impl Arrangement {
    /// Adds a delta to the current epoch. `keys` are those of all rows; rows whose key has a NULL
    /// are left out by the caller through `selection`.
    pub fn update(&mut self, delta: &DeltaBatch, keys: &Keys, selection: &[u32]) -> Result<()> {
        self.update_rows(delta, keys, selection, &mut None)
    }

    /// As `update`; says which rows got slots of their own, as `(row, slot)`. The others are equal
    /// to rows that are there.
    pub fn update_counted(
        &mut self,
        delta: &DeltaBatch,
        keys: &Keys,
        selection: &[u32],
    ) -> Result<Vec<(u32, u32)>> {
        let mut fresh = Some(Vec::new());
        self.update_rows(delta, keys, selection, &mut fresh)?;
        if let Some(counts) = &mut self.counts {
            counts.matches.resize(self.pages.slots(), (0, 0));
        }
        Ok(fresh.unwrap_or_default())
    }

    fn update_rows(
        &mut self,
        delta: &DeltaBatch,
        keys: &Keys,
        selection: &[u32],
        fresh: &mut Fresh,
    ) -> Result<()> {
        self.residency.check_rows(keys, selection);
        let columns = delta.rows().columns();
        let key: Vec<ArrayRef> = self.spec.key.iter().map(|c| columns[*c].clone()).collect();
        let rest: Vec<usize> = (0..columns.len()).filter(|c| !self.spec.key.contains(c)).collect();
        let change = Change {
            delta,
            keys,
            key: &key,
            fast: plain_i64(&key),
            rest_columns: rest.iter().map(|c| columns[*c].clone()).collect(),
            rest,
            whole: None,
        };
        match self.spec.append_only {
            true => self.append(&change, selection, fresh),
            false => self.change(change, selection, fresh),
        }
    }

    fn append(&mut self, change: &Change<'_>, selection: &[u32], fresh: &mut Fresh) -> Result<()> {
        let delta = change.delta;
        let repeated: Vec<u32>;
        let rows = if delta.is_insert_only() {
            selection
        } else {
            let copies = |row: &u32| vec![*row; delta.weight(*row as usize).max(0) as usize];
            repeated = selection.iter().flat_map(copies).collect();
            &repeated
        };
        let slots = self.store(delta, rows)?;
        let times = self.times(delta.rows());
        for (at, (slot, row)) in slots.iter().zip(rows).enumerate() {
            if at.is_multiple_of(READ_AHEAD_MAX) {
                self.read_ahead(change.keys, &rows[at..]);
            }
            let row = *row as usize;
            if let Some(state) = &mut self.retractable {
                state.weights.set(*slot, (0, 1));
                state.touched.push(*slot);
            }
            let head = change.head(self, row);
            self.index.link_before(change.keys.hash(row), *slot, head);
            self.set_time(*slot, times.as_ref().map(|time| time(row)));
        }
        if let Some(fresh) = fresh {
            fresh.extend(rows.iter().copied().zip(slots));
        }
        Ok(())
    }

    /// Rows that are there change their weights; the others are stored all at once.
    fn change(
        &mut self,
        mut change: Change<'_>,
        selection: &[u32],
        fresh: &mut Fresh,
    ) -> Result<()> {
        let delta = change.delta;
        let mut new = Vec::new();
        for (at, row) in selection.iter().enumerate() {
            if at.is_multiple_of(READ_AHEAD_MAX) {
                self.read_ahead(change.keys, &selection[at..]);
            }
            match self.find_row(&mut change, *row as usize, &[])? {
                (_, Some(slot)) => self.touch(slot, delta.weight(*row as usize)),
                (_, None) => new.push(*row),
            }
        }
        let slots = self.store(delta, &new)?;
        let times = self.times(delta.rows());
        for (at, row) in new.into_iter().enumerate() {
            let (slot, weight) = (slots[at], delta.weight(row as usize));
            let head = match self.find_row(&mut change, row as usize, &slots[at..])? {
                // Equal to a row before it.
                (_, Some(stored)) => {
                    self.touch(stored, weight);
                    self.pages.free(slot);
                    continue;
                }
                (head, None) => head,
            };
            self.index.link_before(change.keys.hash(row as usize), slot, head);
            if let Some(rows) = self.retractable.as_mut().and_then(|state| state.rows.as_mut()) {
                rows.insert(change.hash(row as usize)?, slot);
            }
            self.touch(slot, weight);
            self.set_time(slot, times.as_ref().map(|time| time(row as usize)));
            if let Some(fresh) = fresh {
                fresh.push((row, slot));
            }
        }
        Ok(())
    }

    /// Writes rows of a delta, which nothing leads to yet; their slots.
    fn store(&mut self, delta: &DeltaBatch, rows: &[u32]) -> Result<Vec<u32>> {
        let mut slots = Vec::with_capacity(rows.len());
        self.pages.insert(delta.rows().columns(), rows, &mut slots)?;
        if let Some(state) = &mut self.retractable {
            state.weights.reserve(self.pages.slots());
        }
        Ok(slots)
    }

    /// The head of the chain of a row's key, and the slot of the row itself. `unlinked` are slots
    /// that nothing leads to yet.
    fn find_row(
        &mut self,
        change: &mut Change<'_>,
        row: usize,
        unlinked: &[u32],
    ) -> Result<(Option<u32>, Option<u32>)> {
        let Some(head) = change.head(self, row) else { return Ok((None, None)) };
        let is = |pages: &super::Pages, slot, change: &Change<'_>| {
            pages.equals(slot, &change.rest, &change.rest_columns, row)
        };
        let rows = self.retractable.as_ref().and_then(|state| state.rows.as_ref());
        let mut slot = head;
        for _ in 0..if rows.is_some() { 1 } else { COMPARED_MAX } {
            if is(&self.pages, slot, change) {
                return Ok((Some(head), Some(slot)));
            }
            slot = self.index.next(slot);
            if slot == NONE {
                return Ok((Some(head), None));
            }
        }
        let hash = change.hash(row)?;
        self.index_rows(unlinked)?;
        let rows = self.retractable.as_ref().and_then(|state| state.rows.as_ref());
        let columns = change.delta.rows().columns();
        let equal = |slot| {
            self.pages.equals(slot, &self.spec.key, change.key, row)
                && self.pages.equals(slot, &change.rest, &change.rest_columns, row)
        };
        debug_assert_eq!(columns.len(), change.rest.len() + self.spec.key.len());
        Ok((Some(head), rows.and_then(|rows| rows.find(hash, equal))))
    }

    /// Makes the index of whole rows, unless there is one.
    fn index_rows(&mut self, unlinked: &[u32]) -> Result<()> {
        let Some(state) = self.retractable.as_mut().filter(|state| state.rows.is_none()) else {
            return Ok(());
        };
        let slots = self.pages.used(unlinked);
        let all: Vec<usize> = (0..self.spec.schema.fields().len()).collect();
        let mut rows = SlotIndex::new();
        for (slot, hash) in slots.iter().zip(hashes_of(&self.pages, &all, &slots)?) {
            rows.insert(hash, *slot);
        }
        state.rows = Some(rows);
        Ok(())
    }

    fn touch(&mut self, slot: u32, weight: Weight) {
        let state = self.retractable.as_mut().expect("rows can be retracted");
        let (before, now) = state.weights.get(slot);
        if before == now {
            state.touched.push(slot);
        }
        state.weights.set(slot, (before, now + weight));
    }

    /// Takes rows without weight out and gives their slots back.
    pub(super) fn unlink(&mut self, slots: &[u32]) -> Result<()> {
        self.unlink_only(slots)?;
        slots.iter().for_each(|slot| self.pages.free(*slot));
        Ok(())
    }

    /// Takes slots out of what leads to them.
    pub(super) fn unlink_only(&mut self, slots: &[u32]) -> Result<()> {
        if let Some((_, expiry)) = &mut self.expiry {
            slots.iter().for_each(|slot| expiry.clear(*slot));
        }
        let hashes = hashes_of(&self.pages, &self.spec.key, slots)?;
        slots.iter().zip(hashes).for_each(|(slot, hash)| self.index.unlink(hash, *slot));
        if let Some(rows) = self.retractable.as_mut().and_then(|state| state.rows.as_mut()) {
            let all: Vec<usize> = (0..self.spec.schema.fields().len()).collect();
            let hashes = hashes_of(&self.pages, &all, slots)?;
            slots.iter().zip(hashes).for_each(|(slot, hash)| rows.remove(hash, *slot));
        }
        Ok(())
    }

    /// The times of rows, where they go by them.
    fn times<'a>(&self, rows: &'a RecordBatch) -> Option<impl Fn(usize) -> i64 + use<'a>> {
        let (column, _) = self.expiry.as_ref()?;
        event_times(rows.column(*column))
    }

    /// Says when a row that got its slot just now goes.
    fn set_time(&mut self, slot: u32, time: Option<i64>) {
        if let (Some((_, expiry)), Some(time)) = (&mut self.expiry, time) {
            expiry.set(slot, if time == NEVER { self.null_time } else { time });
        }
    }
}
