//! Rows that leave memory with their key, and come back.
//!
//! Rows that come back get slots between others, so slots do not tell any more what the current
//! epoch has brought: an arrangement whose rows are never retracted keeps weights as soon as they
//! may leave.

use arrow::array::ArrayRef;

use super::{Arrangement, Retractable};
use crate::delta::{Keys, Weight};
use crate::error::Result;
use crate::state::chains::NONE;
use crate::state::cold::{Cold, TOGETHER, holds};
use crate::state::entry::{Entries, Entry};
use crate::state::rows::{RowReader, hashes_of};

impl Arrangement {
    /// Makes an arrangement one whose keys can leave, between two epochs; false where something
    /// else than the key leads to rows.
    pub(in crate::state) fn let_leave(&mut self) -> bool {
        if self.expiry.is_some() {
            return false;
        }
        self.retractable.get_or_insert_with(|| {
            let mut state = Retractable::default();
            state.weights.reserve(self.pages.slots());
            // None of the rows has ever left.
            (0..self.sealed_slots).for_each(|slot| state.weights.set(slot, (1, 1)));
            state
        });
        true
    }

    /// Whether there are rows under a hash.
    pub(in crate::state) fn holds(&self, hash: u64) -> bool {
        holds(&self.index, &self.pages, &self.spec.key, hash)
    }

    /// Brings rows back, of keys that have none; how many they are.
    pub(in crate::state) fn bring_back(&mut self, entries: &Entries) -> Result<usize> {
        let mut reader = RowReader::new(&self.spec.schema, &self.spec.key);
        let mut rows = 0;
        for entry in entries.iter() {
            let (weight, matches) = match self.counts {
                Some(_) => entry.counts::<2>().map(|[weight, matches]| (weight, matches))?,
                None => (entry.counts::<1>()?[0], 0),
            };
            // Where rows are only added equal ones lie apart.
            let (copies, weight) = match self.spec.append_only {
                true if matches % weight == 0 => (weight, 1),
                true => return Err(entry.damaged("equal rows have different matches")),
                false => (1, weight),
            };
            rows += copies as usize;
            for _ in 0..copies {
                if let Some((batch, keys, with)) =
                    reader.push(entry, entry.sub, (weight, matches / copies))?
                {
                    self.put_back(batch.columns(), &keys, &with)?;
                }
            }
        }
        if let Some((batch, keys, with)) = reader.finish()? {
            self.put_back(batch.columns(), &keys, &with)?;
        }
        Ok(rows)
    }

    /// Rows that an entry is.
    pub(in crate::state) fn rows_of(&self, entry: &Entry<'_>) -> Result<usize> {
        match self.spec.append_only {
            true => Ok(entry.sum()?.first().copied().unwrap_or(0).unsigned_abs() as usize),
            false => Ok(1),
        }
    }

    /// Takes slots out of what leads to them, and forgets what is said of them.
    fn forget(&mut self, slots: &[u32]) -> Result<()> {
        if let Some(state) = &mut self.retractable {
            slots.iter().for_each(|slot| state.weights.set(*slot, (0, 0)));
        }
        if let Some(counts) = &mut self.counts {
            slots.iter().for_each(|slot| counts.matches[*slot as usize] = (0, 0));
        }
        self.unlink_only(slots)
    }

    fn put_back(
        &mut self,
        columns: &[ArrayRef],
        keys: &Keys,
        with: &[(Weight, Weight)],
    ) -> Result<()> {
        self.residency.add(keys.hashes());
        let all: Vec<u32> = (0..with.len() as u32).collect();
        let mut slots = Vec::with_capacity(with.len());
        self.pages.insert(columns, &all, &mut slots)?;
        let key: Vec<_> = self.spec.key.iter().map(|c| columns[*c].clone()).collect();
        self.lead_to(&slots, (&key, keys), with)
    }

    /// Makes what leads to rows that are new, with what is said of them: weights and matches.
    fn lead_to(
        &mut self,
        slots: &[u32],
        (key, keys): (&[ArrayRef], &Keys),
        with: &[(Weight, Weight)],
    ) -> Result<()> {
        for (row, slot) in slots.iter().enumerate() {
            let hash = keys.hash(row);
            let head = self.index.head(hash, |s| self.pages.equals(s, &self.spec.key, key, row));
            self.index.link_before(hash, *slot, head);
        }
        let columns: Vec<usize> = (0..self.spec.schema.fields().len()).collect();
        let state = self.retractable.get_or_insert_default();
        state.weights.reserve(self.pages.slots());
        let weights = slots.iter().zip(with);
        weights.for_each(|(slot, (weight, _))| state.weights.set(*slot, (*weight, *weight)));
        if let Some(rows) = &mut state.rows {
            let hashes = hashes_of(&self.pages, &columns, slots)?;
            slots.iter().zip(hashes).for_each(|(slot, hash)| rows.insert(hash, *slot));
        }
        if let Some(counts) = &mut self.counts {
            counts.matches.resize(self.pages.slots(), (0, 0));
            for (slot, (_, matches)) in slots.iter().zip(with) {
                counts.matches[*slot as usize] = (*matches, *matches);
            }
        }
        Ok(())
    }

    /// Has about so many rows leave, between two epochs; how many have.
    pub(in crate::state) fn evict(&mut self, cold: &mut Cold, most: usize) -> Result<usize> {
        let all = self.pages.slots() as u32;
        let (mut evicted, mut looks) = (0, cold.looks(most, all));
        while looks > 0 && evicted < most {
            let together = looks.min(TOGETHER);
            looks -= together;
            let state = self.retractable.get_or_insert_default();
            let slots = (0..together).map(|_| cold.next_of(all));
            let slots: Vec<u32> = slots.filter(|slot| state.weights.get(*slot).0 > 0).collect();
            let going = cold.going(&self.pages, &self.spec.key, &slots)?;
            evicted += self.evict_hashes(cold, &going)?;
        }
        self.index.shrink();
        while self.condense(cold)? {}
        Ok(evicted)
    }

    /// Moves the rows of the next page that has few, and gives its memory back; false when there is
    /// none.
    fn condense(&mut self, cold: &mut Cold) -> Result<bool> {
        let Some(sparse) = self.pages.take_sparse(&mut cold.sparse) else { return Ok(false) };
        let with = sparse.slots.iter().map(|slot| {
            let weight = self.retractable.as_ref().map_or(1, |state| state.weights.get(*slot).0);
            let matches = self.counts.as_ref().map_or(0, |counts| counts.matches[*slot as usize].0);
            (weight, matches)
        });
        let with: Vec<(Weight, Weight)> = with.collect();
        let (columns, slots) = self.pages.move_rows(&sparse)?;
        // What leads to them is made anew, behind what led to them before.
        self.forget(&sparse.slots)?;
        let key: Vec<_> = self.spec.key.iter().map(|c| columns[*c].clone()).collect();
        let keys = Keys::encode(&key, slots.len())?;
        self.lead_to(&slots, (&key, &keys), &with)?;
        self.pages.give_back(sparse);
        Ok(true)
    }

    fn evict_hashes(&mut self, cold: &mut Cold, going: &[u64]) -> Result<usize> {
        let heads = going.iter().flat_map(|hash| self.index.candidates(*hash));
        let mut heads: Vec<u32> = heads.collect();
        // Some are candidates for two hashes.
        heads.sort_unstable();
        heads.dedup();
        let hashes = hashes_of(&self.pages, &self.spec.key, &heads)?;
        let mut gone = Vec::new();
        for (head, hash) in heads.into_iter().zip(hashes) {
            if going.binary_search(&hash).is_err() {
                continue;
            }
            let chain = std::iter::successors(Some(head), |slot| Some(self.index.next(*slot)));
            let before = gone.len();
            gone.extend(chain.take_while(|slot| *slot != NONE));
            cold.left(hash, gone.len() - before);
        }
        self.forget(&gone)?;
        gone.iter().for_each(|slot| self.pages.free(*slot));
        Ok(gone.len())
    }
}
