//! Indexes of a result table and who they are kept for: those that a CREATE INDEX has asked for,
//! until it is dropped, and those that operators read, as long as one of them has a lease. An index
//! by some columns is there once, whoever wants it; the key's own needs none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{INDEX_SLICE, ResultTable};
use crate::error::Result;
use crate::state::secondary::Secondary;

/// For whom each index is kept.
#[derive(Debug, Default)]
pub(super) struct Wanted(Mutex<BTreeMap<Vec<usize>, By>>);

#[derive(Debug, Default)]
struct By {
    /// A definition.
    declared: bool,
    /// This many leases.
    leases: usize,
}

impl Wanted {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<usize>, By>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows of a table by the values of some columns: the index is there as long as this is.
#[derive(Debug)]
pub struct IndexLease {
    table: Arc<ResultTable>,
    columns: Vec<usize>,
}

impl IndexLease {
    /// The table.
    pub fn table(&self) -> &Arc<ResultTable> {
        &self.table
    }

    /// The columns.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }
}

impl Drop for IndexLease {
    fn drop(&mut self) {
        self.table.give_up(&self.columns, |by| by.leases = by.leases.saturating_sub(1));
    }
}

impl ResultTable {
    /// Keeps an index by the values of some columns until it is dropped. Blocks; the table may
    /// change meanwhile.
    pub fn add_index(&self, columns: &[usize]) -> Result<()> {
        self.wanted.lock().entry(columns.to_vec()).or_default().declared = true;
        // One that can't be filled is wanted by nobody.
        self.fill(columns).inspect_err(|_| self.drop_index(columns))
    }

    /// Forgets an index that a definition has asked for; it stays while somebody reads it.
    pub fn drop_index(&self, columns: &[usize]) {
        self.give_up(columns, |by| by.declared = false);
    }

    /// An index by the values of some columns for somebody who reads it: the one that is there, or
    /// a new one. Blocks while that is filled; the table may change meanwhile.
    pub fn lease(self: &Arc<Self>, columns: &[usize]) -> Result<IndexLease> {
        let lease = IndexLease { table: Arc::clone(self), columns: columns.to_vec() };
        if self.spec.key == columns {
            return Ok(lease);
        }
        self.wanted.lock().entry(columns.to_vec()).or_default().leases += 1;
        self.fill(columns).map(|()| lease)
    }

    /// Bytes of the index by some columns, beside those of the rows.
    pub fn index_bytes(&self, columns: &[usize]) -> usize {
        let shards = (0..self.shards()).map(|shard| self.read(shard));
        let indexes = shards.map(|shard| {
            let found = shard.secondary.iter().find(|s| s.columns() == columns);
            found.map_or(0, Secondary::bytes)
        });
        indexes.sum()
    }

    /// Fills an index as far as nobody else does.
    fn fill(&self, columns: &[usize]) -> Result<()> {
        // From here on no row leaves memory.
        (0..self.shards()).for_each(|shard| self.write(shard).begin_index(columns));
        self.bring_all_back()?;
        for shard in 0..self.shards() {
            while self.write(shard).fill_index(columns, INDEX_SLICE)? {}
        }
        Ok(())
    }

    fn give_up(&self, columns: &[usize], change: impl FnOnce(&mut By)) {
        let mut wanted = self.wanted.lock();
        let Some(by) = wanted.get_mut(columns) else { return };
        change(by);
        if by.declared || by.leases > 0 {
            return;
        }
        wanted.remove(columns);
        for shard in 0..self.shards() {
            self.write(shard).secondary.retain(|s| s.columns() != columns);
        }
    }

    /// Keeps the indexes that definitions have asked for of another table. This one is empty.
    pub fn copy_indexes(&self, of: &Self) {
        let declared = of.wanted.lock();
        let declared = declared.iter().filter(|(_, by)| by.declared);
        let declared: Vec<Vec<usize>> = declared.map(|(columns, _)| columns.clone()).collect();
        let mut wanted = self.wanted.lock();
        for columns in declared {
            for shard in 0..self.shards() {
                let mut shard = self.write(shard);
                if shard.secondary.iter().all(|s| s.columns() != columns) {
                    shard.secondary.push(Secondary::whole(columns.clone()));
                }
            }
            wanted.entry(columns).or_default().declared = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::super::{Found, ResultSpec};
    use super::*;
    use crate::delta::{DeltaBatch, batch_of};
    use crate::state::cold::KeptRows;
    use crate::state::entry::Entries;
    use crate::time::Epoch;

    /// Would find an index that goes while somebody needs it, and one that stays when nobody does.
    #[test]
    fn an_index_is_there_as_long_as_somebody_wants_it() {
        let fields = ["k", "a", "b"].map(|name| Field::new(name, DataType::Int64, true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let spec = ResultSpec { schema, key: vec![0], keyed_placement: true, arrivals: false };
        let table = ResultTable::new(spec.clone(), 2);
        let indexes = |table: &ResultTable| -> Vec<Vec<usize>> {
            table.read(1).secondary.iter().map(|s| s.columns().to_vec()).collect()
        };
        let leases = [[1], [1], [0]].map(|by| table.lease(&by).expect("leases"));
        assert_eq!(indexes(&table), [[1]], "the key has its own, and one is for both");
        table.add_index(&[2]).expect("adds");
        table.add_index(&[1]).expect("adds");
        let [first, second, _key] = leases;
        drop(first);
        table.drop_index(&[1]);
        assert_eq!(indexes(&table), [[1], [2]], "the second lease reads it");
        let other = ResultTable::new(spec, 2);
        other.copy_indexes(&table);
        assert_eq!(indexes(&other), [[2]], "whoever reads has a lease of its own");
        drop(second);
        assert_eq!(indexes(&table), [[2]]);
        table.drop_index(&[2]);
        assert!(indexes(&table).is_empty());
    }

    /// Would find an index that is left behind where it does not fit, one that lacks rows which
    /// were on the disk, and a table that stays in memory for an index that is gone.
    #[test]
    fn an_index_has_all_rows_in_memory_or_is_not_begun() {
        let fields = ["k", "a"].map(|name| Field::new(name, DataType::Int64, true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let spec = ResultSpec { schema, key: vec![0], keyed_placement: true, arrivals: false };
        let numbers = |to| -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..to)) };
        let rows = batch_of(spec.schema.clone(), vec![numbers(500), numbers(500)], 500);
        let rows = DeltaBatch::inserts(rows.expect("a batch"));
        for (limit, fits) in [(1 << 10, false), (1 << 20, true)] {
            let table = ResultTable::new(spec.clone(), 1);
            table.write(0).apply(&rows, Epoch(1)).expect("rows");
            let mut entries = Entries::default();
            table.read(0).entries(&mut entries).expect("entries");
            let entries = Entries::of_walk(&entries).expect("a run");
            let leave = || {
                let mut shard = table.write(0);
                shard.let_leave(&table, limit, true);
                if let Some(cold) = shard.cold() {
                    cold.cut();
                    cold.decided(Arc::new(KeptRows(entries.clone())));
                }
                for _ in 0..4 {
                    shard.evict(1_000, Epoch(1)).expect("keys leave");
                }
                shard.rows_out()
            };
            assert_eq!(leave(), 500);
            assert_eq!(table.add_index(&[1]).is_ok(), fits);
            let found = table.find(&[1], &[numbers(500)], Epoch(1)).expect("looks");
            assert_eq!(matches!(&found, Found::Rows(all) if all.len() == 500), fits);
            assert_eq!(leave(), if fits { 0 } else { 500 });
            table.drop_index(&[1]);
            assert_eq!((leave(), table.wanted.lock().len()), (500, 0));
        }
    }
}
