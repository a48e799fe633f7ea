//! Secondary index of a shard of a result table: from the values of some columns to the slots of
//! the rows that hold them, for point reads.
//!
//! It holds every slot that is stored, whatever epochs see it, so that a reader at any pinned epoch
//! finds its rows; the caller looks at the epochs. It follows from the rows, so the byte form of a
//! table does not have it: restoring the rows makes it again.
//!
//! An index of a table that has rows is filled in slices, between which the table may change: slots
//! below `covered` are in it, the others are added when the filling gets there.

use arrow::array::ArrayRef;

use super::chains::Chains;
use super::pages::Pages;
use super::rows::hashes_of;
use crate::delta::Keys;
use crate::error::Result;

/// Values of columns to chains of slots.
#[derive(Debug)]
pub(super) struct Secondary {
    columns: Vec<usize>,
    index: Chains,
    covered: usize,
}

impl Secondary {
    /// An index that takes all slots from now on.
    pub(super) fn whole(columns: Vec<usize>) -> Self {
        Self { covered: usize::MAX, ..Self::unfilled(columns) }
    }

    /// An index of a table that has rows.
    pub(super) fn unfilled(columns: Vec<usize>) -> Self {
        Self { columns, index: Chains::new(), covered: 0 }
    }

    pub(super) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Whether readers may rely on it.
    pub(super) fn is_whole(&self) -> bool {
        self.covered == usize::MAX
    }

    /// Where the filling is.
    pub(super) fn covered(&self) -> usize {
        self.covered
    }

    /// Adds the stored slots of the range that begins at `covered` and moves it to `to`; with
    /// `None` the filling is complete.
    pub(super) fn fill(&mut self, pages: &Pages, stored: &[u32], to: Option<usize>) -> Result<()> {
        self.covered = to.unwrap_or(usize::MAX);
        self.add(pages, stored)
    }

    /// Adds slots whose rows are in the pages.
    pub(super) fn add(&mut self, pages: &Pages, slots: &[u32]) -> Result<()> {
        let mine = self.covered_of(slots);
        let columns = self.columns.iter().map(|c| pages.gather_column(*c, &mine));
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let keys = Keys::encode(&columns, mine.len())?;
        for (row, slot) in mine.iter().enumerate() {
            let is = |s| pages.equals(s, &self.columns, &columns, row);
            self.index.link(keys.hash(row), *slot, is);
        }
        Ok(())
    }

    /// Takes slots out, before their rows are freed.
    pub(super) fn remove(&mut self, pages: &Pages, slots: &[u32]) -> Result<()> {
        let mine = self.covered_of(slots);
        let hashes = hashes_of(pages, &self.columns, &mine)?;
        mine.iter().zip(hashes).for_each(|(slot, hash)| self.index.unlink(hash, *slot));
        Ok(())
    }

    /// Those of some slots that are in the index.
    fn covered_of(&self, slots: &[u32]) -> Vec<u32> {
        slots.iter().copied().filter(|s| (*s as usize) < self.covered).collect()
    }

    /// The slots with the values in row `row` of `values`.
    pub(super) fn find(
        &self,
        pages: &Pages,
        values: &[ArrayRef],
        row: usize,
        hash: u64,
    ) -> impl Iterator<Item = u32> {
        self.index.of(hash, move |s| pages.equals(s, &self.columns, values, row))
    }

    /// The chains of slots by value.
    pub(super) fn chains(&self) -> &Chains {
        &self.index
    }

    pub(super) fn bytes(&self) -> usize {
        self.index.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use crate::delta::{DeltaBatch, Order, consolidate};
    use crate::state::{Found, ResultSpec, ResultTable};
    use crate::time::Epoch;

    /// A row: `id`, `k`.
    type Row = (i64, Option<i64>);

    /// Would find a slot that is used again for another value, a row that was stored while the
    /// index was filled, and a row that an older epoch still sees.
    #[test]
    fn finds_what_a_scan_finds_at_every_pinned_epoch() {
        let field = |name| Field::new(name, DataType::Int64, true);
        let schema = Arc::new(Schema::new(vec![field("id"), field("k")]));
        let spec = ResultSpec {
            schema: Arc::clone(&schema),
            key: vec![0],
            keyed_placement: true,
            arrivals: false,
        };
        let table = ResultTable::new(spec, 1);
        let mut random = SmallRng::seed_from_u64(11);
        let mut live: Vec<Row> = Vec::new();
        let mut history = Vec::new();
        for epoch in 1..200_u64 {
            let mut changes = Vec::new();
            for _ in 0..random.random_range(0..6) {
                if live.len() > 20 && random.random_bool(0.5) {
                    let gone = live.swap_remove(random.random_range(0..live.len()));
                    changes.push((gone, -1));
                } else {
                    let id = i64::try_from(epoch).expect("small") * 10 + changes.len() as i64;
                    let new = (id, Some(random.random_range(0..7)).filter(|k| *k > 0));
                    live.push(new);
                    changes.push((new, 1));
                }
            }
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_iter_values(changes.iter().map(|((id, _), _)| *id))),
                Arc::new(Int64Array::from_iter(changes.iter().map(|((_, k), _)| *k))),
            ];
            let rows = RecordBatch::try_new(Arc::clone(&schema), columns).expect("two columns");
            let weights: Vec<i64> = changes.iter().map(|(_, w)| *w).collect();
            let delta = consolidate(&DeltaBatch::new(rows, weights.into()), Order::Input);
            table.write(0).apply(&delta.expect("consolidates"), Epoch(epoch)).expect("applies");
            if epoch == 100 {
                // Filled in slices, with changes between them.
                table.write(0).begin_index(&[1]);
            }
            if epoch > 100 {
                table.write(0).fill_index(&[1], 16).expect("fills");
            }
            history.push((Epoch(epoch), live.clone()));
            history.drain(..history.len().saturating_sub(5));
            table.write(0).vacuum(history[0].0, 8).expect("vacuums");
            if epoch > 150 {
                check(&table, &history);
            }
        }
    }

    fn check(table: &ResultTable, history: &[(Epoch, Vec<Row>)]) {
        for (epoch, rows) in history {
            for wanted in 1..7_i64 {
                let value: ArrayRef = Arc::new(Int64Array::from(vec![wanted, wanted]));
                let naive = rows.iter().filter(|(_, k)| *k == Some(wanted)).count();
                let twice = [Arc::clone(&value)];
                let found = table.find(&[1], &twice, *epoch).expect("finds");
                let Found::Rows(found) = found else { panic!("the index is whole") };
                assert_eq!(found.len(), naive, "k = {wanted} at {epoch:?}");
                let once = [value.slice(0, 1)];
                let within = |most| {
                    table.find_within(&[1], &once, *epoch, (most, usize::MAX)).expect("finds")
                };
                assert!(matches!(within(naive), Found::Rows(rows) if rows.len() == naive));
                if naive > 0 {
                    assert!(matches!(within(naive - 1), Found::TooMany), "k = {wanted}");
                }
            }
        }
    }
}
