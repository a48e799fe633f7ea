//! An arrangement as entries: under the hash of its key each row, ADD of its weight, and where
//! matches are counted of these. Where rows expire they begin with their time.
//!
//! What an epoch has changed is logged when it is sealed: rows are read back in batches from where
//! they lie, and a row that came and went is not there to be logged.

use super::Arrangement;
use crate::delta::{DeltaBatch, Weight};
use crate::error::Result;
use crate::state::changes::Changes;
use crate::state::entry::{Entries, Entry, Op, push_sum, time_bytes};
use crate::state::expiry::NEVER;
use crate::state::rows::{ReadRows, RowReader, each_row};
use crate::time::event_times;

/// A slot with what is added to its weight and matches.
type Added = (u32, Weight, Weight);

impl Arrangement {
    /// Begins or ends logging changes, between two epochs.
    pub(in crate::state) fn set_capture(&mut self, on: bool) {
        self.changes = on.then(Changes::default);
    }

    /// The log of changes.
    pub(in crate::state) fn changes(&mut self) -> Option<&mut Changes> {
        self.changes.as_mut()
    }

    /// What has expired has times below.
    pub(in crate::state) fn expired(&self) -> Option<i64> {
        self.expiry.as_ref().map(|_| self.expired)
    }

    /// Logs what the epoch has changed; not what goes at once, by the watermark.
    #[cold]
    pub(super) fn capture(&mut self, watermark: i64) -> Result<()> {
        let Some(mut changes) = self.changes.take() else { return Ok(()) };
        let stays = |slot: u32| self.expiry.as_ref().is_none_or(|(_, e)| e.time(slot) >= watermark);
        let mut changed = self.changed_slots();
        changed.retain(|(slot, weight, matches)| (*weight, *matches) != (0, 0) && stays(*slot));
        let done = self.each_entry(&changed, |entry| changes.push(entry));
        self.changes = Some(changes);
        done
    }

    fn changed_slots(&self) -> Vec<Added> {
        if self.counts.is_some() {
            let added = self.changed().into_iter().map(|c| {
                // The matches of a row that is gone are gone.
                let matches = if c.after.0 == 0 { 0 } else { c.after.1 };
                let before = if c.before.0 == 0 { 0 } else { c.before.1 };
                (c.slot, c.after.0 - c.before.0, matches - before)
            });
            return added.collect();
        }
        let Some(state) = &self.retractable else {
            return (self.sealed_slots..self.pages.slots() as u32).map(|s| (s, 1, 0)).collect();
        };
        let mut touched = state.touched.clone();
        touched.sort_unstable();
        touched.dedup();
        let added = |slot: u32| {
            let (before, after) = state.weights.get(slot);
            (slot, after - before, 0)
        };
        touched.into_iter().map(added).collect()
    }

    fn each_entry(&self, added: &[Added], mut each: impl FnMut(Entry<'_>)) -> Result<()> {
        let slots: Vec<u32> = added.iter().map(|(slot, ..)| *slot).collect();
        let (mut sub, mut value) = (Vec::new(), Vec::new());
        each_row(&self.pages, &self.spec.key, &slots, |at, (hash, _), row| {
            let (slot, weight, matches) = added[at];
            sub.clear();
            sub.extend(self.expiry.iter().flat_map(|(_, e)| time_bytes(e.time(slot))));
            sub.extend_from_slice(row);
            value.clear();
            push_sum(&[weight], &mut value);
            if self.counts.is_some() {
                push_sum(&[matches], &mut value);
            }
            each(Entry { hash, key: b"", sub: &sub, op: Op::Add, value: &value });
        })
    }

    /// Appends the rows of sealed epochs.
    pub(in crate::state) fn entries(&self, out: &mut Entries) -> Result<()> {
        let matches = |slot: u32| self.counts.as_ref().map_or(0, |c| c.matches[slot as usize].0);
        let rows: Vec<Added> = match &self.retractable {
            None => (0..self.sealed_slots).map(|slot| (slot, 1, matches(slot))).collect(),
            Some(state) => {
                let all = state.weights.iter().filter(|(_, (before, _))| *before != 0);
                all.map(|(slot, (before, _))| (slot, before, matches(slot))).collect()
            }
        };
        self.each_entry(&rows, |entry| out.push(entry))
    }

    /// Adds rows.
    pub(in crate::state) fn load<'a>(
        &mut self,
        entries: impl Iterator<Item = Entry<'a>>,
    ) -> Result<()> {
        let mut reader = RowReader::new(&self.spec.schema, &self.spec.key);
        for entry in entries {
            let (weight, matches) = match self.counts {
                Some(_) => entry.counts::<2>().map(|[weight, matches]| (weight, matches))?,
                None => (entry.counts::<1>()?[0], 0),
            };
            let (mut time, mut row) = (NEVER, entry.sub);
            if self.expiry.is_some() {
                (time, row) = entry.timed()?;
            }
            let matches = match self.spec.append_only {
                false => matches,
                // Equal rows lie apart, and have the same matches.
                true if matches % weight == 0 => matches / weight,
                true => return Err(entry.damaged("equal rows have different matches")),
            };
            if let Some(rows) = reader.push(entry, row, (weight, matches, time, entry))? {
                self.load_rows(rows)?;
            }
        }
        if let Some(rows) = reader.finish()? {
            self.load_rows(rows)?;
        }
        self.seal()
    }

    fn load_rows(
        &mut self,
        (rows, keys, with): ReadRows<(Weight, Weight, i64, Entry<'_>)>,
    ) -> Result<()> {
        if let Some(times) =
            self.expiry.as_ref().and_then(|(column, _)| event_times(rows.column(*column)))
        {
            for (row, (.., time, entry)) in with.iter().enumerate() {
                let own = times(row);
                if *time != if own == NEVER { self.null_time } else { own } {
                    return Err(entry.damaged("its row has another time"));
                }
            }
        }
        let weights = with.iter().map(|(weight, ..)| *weight).collect::<Vec<_>>().into();
        let selection: Vec<u32> = (0..rows.num_rows() as u32).collect();
        self.residency.add(keys.hashes());
        let delta = DeltaBatch::new(rows, weights);
        if self.counts.is_none() {
            return self.update(&delta, &keys, &selection);
        }
        for (row, slot) in self.update_counted(&delta, &keys, &selection)? {
            self.set_matches(slot, with[row as usize].1);
        }
        Ok(())
    }
}
