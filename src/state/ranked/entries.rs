//! Ranked rows as entries: under the hash of its partition each row, ADD of its weight. Where
//! partitions expire it begins with the time of its own.
//!
//! Weights are noted by slot as they change, also of rows that can't move the top, and logged when
//! the epoch is sealed: the rows are read back from where they lie, those that went among them.

use super::Ranked;
use crate::delta::{DeltaBatch, Weight};
use crate::error::Result;
use crate::state::changes::Changes;
use crate::state::entry::{Entries, Entry, Op, push_sum, time_bytes};
use crate::state::expiry::NEVER;
use crate::state::rows::{ReadRows, RowReader, each_row};
use crate::time::event_times;

/// A slot, its partition, and what is added to its weight.
type Noted = (u32, u32, Weight);

/// What a table that captures has beside its state.
#[derive(Debug, Default)]
pub(super) struct Capture {
    changes: Changes,
    /// What this epoch has changed.
    pub(super) noted: Vec<Noted>,
}

impl Ranked {
    /// Begins or ends logging changes, between two epochs.
    pub(in crate::state) fn set_capture(&mut self, on: bool) {
        self.noting.capture = on.then(Capture::default);
    }

    /// The log of changes.
    pub(in crate::state) fn changes(&mut self) -> Option<&mut Changes> {
        self.noting.capture.as_mut().map(|c| &mut c.changes)
    }

    /// What has expired has times below.
    pub(in crate::state) fn expired(&self) -> Option<i64> {
        self.expiry.as_ref().map(|_| self.expired)
    }

    #[cold]
    pub(super) fn log_changes(&mut self) -> Result<()> {
        let Some(mut capture) = self.noting.capture.take() else { return Ok(()) };
        let mut noted = std::mem::take(&mut capture.noted);
        noted.sort_unstable_by_key(|(slot, ..)| *slot);
        noted.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.2 += next.2;
            }
            same
        });
        noted.retain(|(.., weight)| *weight != 0);
        let done = self.each_entry(&noted, |entry| capture.changes.push(entry));
        self.noting.capture = Some(capture);
        done
    }

    fn each_entry(&self, rows: &[Noted], mut each: impl FnMut(Entry<'_>)) -> Result<()> {
        let slots: Vec<u32> = rows.iter().map(|(slot, ..)| *slot).collect();
        let (mut sub, mut value) = (Vec::new(), Vec::new());
        each_row(&self.pages, &self.spec.partition, &slots, |at, (hash, _), row| {
            let (_, partition, weight) = rows[at];
            sub.clear();
            sub.extend(self.expiry.iter().flat_map(|(_, e)| time_bytes(e.time(partition))));
            sub.extend_from_slice(row);
            value.clear();
            push_sum(&[weight], &mut value);
            each(Entry { hash, key: b"", sub: &sub, op: Op::Add, value: &value });
        })
    }

    /// Appends all rows, between two epochs.
    pub(in crate::state) fn entries(&self, out: &mut Entries) -> Result<()> {
        let partitions = (0_u32..).zip(self.partitions.iter());
        let rows: Vec<Noted> = partitions
            .flat_map(|(id, p)| p.entries.iter().map(move |e| (e.slot, id, e.weight)))
            .collect();
        self.each_entry(&rows, |entry| out.push(entry))
    }

    /// Adds rows.
    pub(in crate::state) fn load<'a>(
        &mut self,
        entries: impl Iterator<Item = Entry<'a>>,
    ) -> Result<()> {
        let mut reader = RowReader::new(&self.spec.schema, &self.spec.partition);
        for entry in entries {
            let [weight] = entry.counts()?;
            let (time, row) = match self.expiry {
                Some(_) => entry.timed()?,
                None => (NEVER, entry.sub),
            };
            if let Some(rows) = reader.push(entry, row, (weight, time, entry))? {
                self.load_rows(rows)?;
            }
        }
        if let Some(rows) = reader.finish()? {
            self.load_rows(rows)?;
        }
        // Nothing of this is a change.
        let mut top = Vec::new();
        for touched in 0..self.touched() {
            self.after(touched, &mut top);
            top.clear();
        }
        self.seal()
    }

    fn load_rows(&mut self, (rows, keys, with): ReadRows<(Weight, i64, Entry<'_>)>) -> Result<()> {
        if let Some(times) =
            self.expiry.as_ref().and_then(|(column, _)| event_times(rows.column(*column)))
            && let Some(row) = (0..with.len()).find(|row| times(*row) != with[*row].1)
        {
            return Err(with[row].2.damaged("its row has another time"));
        }
        let weights = with.iter().map(|(weight, ..)| *weight).collect::<Vec<_>>().into();
        self.residency.add(keys.hashes());
        self.update(&DeltaBatch::new(rows, weights), &keys)
    }
}
