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
        self.fill(columns)
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
        self.stay()?;
        for shard in 0..self.shards() {
            self.write(shard).begin_index(columns);
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
    use arrow::datatypes::{DataType, Field, Schema};

    use super::super::ResultSpec;
    use super::*;

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
}
