//! Result rows as entries. With a key: PUT of weight, arrival and row under the key, DELETE when it
//! is gone, so an update is one entry. Without: under the hash of the row the row and its arrival,
//! ADD of the weight.
//!
//! Slots whose weights an `apply` changes are noted, and logged at its end: the rows are read back
//! from where they lie, those that ended among them.

use std::collections::HashSet;
use std::sync::Arc;

use super::{ResultShard, ResultSpec, ResultTable};
use crate::delta::{DeltaBatch, Weight};
use crate::error::Result;
use crate::state::changes::Changes;
use crate::state::entry::{Entries, Entry, Op, push_sum, split_sum, split_time, time_bytes};
use crate::state::rows::{ReadRows, RowReader, each_row};
use crate::state::secondary::Secondary;
use crate::time::Epoch;

impl ResultTable {
    /// A table of some of the rows of another one, as entries have them.
    pub fn of_entries(spec: ResultSpec, entries: &Entries, epoch: Epoch) -> Result<Arc<Self>> {
        let table = Self::new(spec, 1);
        table.write(0).load(entries.iter(), epoch)?;
        Ok(table)
    }
}

impl ResultShard {
    /// Begins or ends logging changes, between two epochs.
    pub(in crate::state) fn set_capture(&mut self, on: bool) {
        self.changes = on.then(Default::default);
    }

    /// The log of changes.
    pub(in crate::state) fn changes(&mut self) -> Option<&mut Changes> {
        self.changes.as_mut().map(|(changes, _)| changes)
    }

    #[cold]
    pub(super) fn log_changes(&mut self) -> Result<()> {
        let Some((mut changes, mut noted)) = self.changes.take() else { return Ok(()) };
        let done = match self.spec.key.is_empty() {
            true => self.each_added(&noted, |entry| changes.push(entry)),
            false => self.log_keyed(&noted, &mut changes),
        };
        noted.clear();
        self.changes = Some((changes, noted));
        done
    }

    fn log_keyed(&self, noted: &[(u32, Weight)], changes: &mut Changes) -> Result<()> {
        let mut slots: Vec<u32> = noted.iter().map(|(slot, _)| *slot).collect();
        slots.sort_unstable();
        slots.dedup();
        let (live, ended): (Vec<u32>, Vec<u32>) =
            slots.iter().partition(|s| self.versions.is_live(**s));
        let mut put: HashSet<Vec<u8>> = HashSet::with_capacity(live.len());
        self.each_put(&live, |entry| {
            put.insert(entry.key.to_vec());
            changes.push(entry);
        })?;
        self.each_put(&ended, |entry| {
            if !put.contains(entry.key) {
                changes.push(Entry { op: Op::Delete, value: b"", ..entry });
            }
        })
    }

    /// The entries of rows under their keys.
    fn each_put(&self, slots: &[u32], mut each: impl FnMut(Entry<'_>)) -> Result<()> {
        let mut value = Vec::new();
        each_row(&self.pages, &self.key, slots, |at, (hash, key), row| {
            let slot = slots[at];
            value.clear();
            push_sum(&[self.weights.get(slot)], &mut value);
            if self.spec.arrivals {
                value.extend_from_slice(&time_bytes(self.arrivals[slot as usize]));
            }
            value.extend_from_slice(row);
            each(Entry { hash, key, sub: b"", op: Op::Put, value: &value });
        })
    }

    /// The entries of rows with what is added to their weights.
    fn each_added(&self, rows: &[(u32, Weight)], mut each: impl FnMut(Entry<'_>)) -> Result<()> {
        let slots: Vec<u32> = rows.iter().map(|(slot, _)| *slot).collect();
        let (mut sub, mut value) = (Vec::new(), Vec::new());
        each_row(&self.pages, &self.key, &slots, |at, (hash, _), row| {
            sub.clear();
            sub.extend_from_slice(row);
            if self.spec.arrivals {
                sub.extend_from_slice(&time_bytes(self.arrivals[slots[at] as usize]));
            }
            value.clear();
            push_sum(&[rows[at].1], &mut value);
            each(Entry { hash, key: b"", sub: &sub, op: Op::Add, value: &value });
        })
    }

    /// Appends the rows that have not ended.
    pub(in crate::state) fn entries(&self, out: &mut Entries) -> Result<()> {
        // The places of freed slots have ended, too.
        let live: Vec<u32> =
            (0..self.pages.slots() as u32).filter(|slot| self.versions.is_live(*slot)).collect();
        if !self.spec.key.is_empty() {
            return self.each_put(&live, |entry| out.push(entry));
        }
        let rows: Vec<_> = live.iter().map(|s| (*s, self.weights.get(*s))).collect();
        self.each_added(&rows, |entry| out.push(entry))
    }

    /// Forgets all rows; the indexes stay, without them.
    pub(in crate::state) fn clear(&mut self) {
        let indexes = self.secondary.iter().map(|s| Secondary::whole(s.columns().to_vec()));
        *self = Self { secondary: indexes.collect(), ..Self::new(&self.spec) };
    }

    /// Adds rows as of an epoch.
    pub(in crate::state) fn load<'a>(
        &mut self,
        entries: impl Iterator<Item = Entry<'a>>,
        epoch: Epoch,
    ) -> Result<()> {
        let mut reader = RowReader::new(&self.spec.schema, &self.key);
        for entry in entries {
            let (weight, arrival, row) = self.parts(&entry)?;
            if let Some(rows) = reader.push(entry, row, (weight, arrival, entry))? {
                self.load_rows(rows, epoch)?;
            }
        }
        match reader.finish()? {
            Some(rows) => self.load_rows(rows, epoch),
            None => Ok(()),
        }
    }

    /// How often the row of an entry is there.
    pub(in crate::state) fn weight_of(&self, entry: &Entry<'_>) -> Result<usize> {
        self.parts(entry).map(|(weight, ..)| weight.unsigned_abs() as usize)
    }

    /// Weight, arrival and row of an entry.
    fn parts<'a>(&self, entry: &Entry<'a>) -> Result<(Weight, i64, &'a [u8])> {
        let damaged = || entry.damaged("its row has no weight or arrival");
        if self.spec.key.is_empty() {
            let [weight] = entry.counts()?;
            if !self.spec.arrivals {
                return Ok((weight, i64::MIN, entry.sub));
            }
            let at = entry.sub.len().checked_sub(8).ok_or_else(damaged)?;
            let (row, arrival) = entry.sub.split_at(at);
            return Ok((weight, split_time(arrival).ok_or_else(damaged)?.0, row));
        }
        let (weight, row) = split_sum(entry.put()?).filter(|(w, _)| *w > 0).ok_or_else(damaged)?;
        match self.spec.arrivals {
            true => split_time(row).map(|(time, row)| (weight, time, row)).ok_or_else(damaged),
            false => Ok((weight, i64::MIN, row)),
        }
    }

    fn load_rows(
        &mut self,
        (rows, keys, with): ReadRows<(Weight, i64, Entry<'_>)>,
        epoch: Epoch,
    ) -> Result<()> {
        if !self.spec.key.is_empty()
            && let Some(row) = (0..with.len()).find(|row| keys.key(*row) != with[*row].2.key)
        {
            return Err(with[row].2.damaged("its row has another key"));
        }
        let weights = with.iter().map(|(weight, ..)| *weight).collect::<Vec<_>>().into();
        let arrivals = with.iter().map(|(_, arrival, _)| *arrival).collect::<Vec<_>>().into();
        let rows = DeltaBatch::new(rows, weights).with_arrivals(Some(arrivals));
        self.apply(&rows, epoch)
    }
}
