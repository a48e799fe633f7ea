//! Statements that were planned before, by their texts and the types of their parameters, for all
//! sessions.
//!
//! What is kept is a plan and no answer: an execution pins its own epoch, and what depends on the
//! time, on values of parameters or on the session is computed by each. A plan is of a version of
//! the catalog; all go when definitions change. A statement is kept when it comes for the second
//! time, so that texts with values in them, of which no two are alike, do not drive out the others.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::DataType;
use hashbrown::HashTable;

use super::outcome::Prepared;
use crate::catalog::Catalog;
use crate::config::{PLANS_BYTES_MAX, PLANS_MAX};

/// Places for hashes of statements that have come once; a later one takes the place of another.
const SEEN: usize = 4 * PLANS_MAX;

/// Bytes of a syntax tree for a byte of its text, about.
const TREE_BYTES: usize = 32;

/// Plans of statements.
#[derive(Debug, Default)]
pub(crate) struct PlanCache {
    // Held for a look at a table, or for a walk over its entries when one has to go.
    plans: Mutex<Plans>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Plans {
    catalog: Arc<Catalog>,
    entries: HashTable<Entry>,
    bytes: usize,
    /// Counts the uses.
    clock: u64,
    seen: Vec<u64>,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    declared: Vec<Option<DataType>>,
    prepared: Prepared,
    bytes: usize,
    used: u64,
}

impl Default for Plans {
    fn default() -> Self {
        Self {
            catalog: Arc::default(),
            entries: HashTable::new(),
            bytes: 0,
            clock: 0,
            seen: vec![0; SEEN],
        }
    }
}

impl PlanCache {
    /// The plan of a statement with some declared types of parameters, for a version of the
    /// catalog.
    pub(crate) fn get(
        &self,
        catalog: &Arc<Catalog>,
        text: &str,
        declared: &[Option<DataType>],
    ) -> Option<Prepared> {
        let hash = self.hasher.hash_one((text, declared));
        let mut plans = self.plans();
        plans.follow(catalog);
        plans.clock += 1;
        let now = plans.clock;
        let entry = plans.entries.find_mut(hash, |e| e.is(text, declared))?;
        entry.used = now;
        Some(entry.prepared.clone())
    }

    /// Keeps a plan that was made with a version of the catalog, if it is worth it.
    pub(crate) fn add(
        &self,
        catalog: &Arc<Catalog>,
        declared: &[Option<DataType>],
        prepared: &Prepared,
    ) {
        let (Some(statement), Some((bound, of))) = (&prepared.statement, &prepared.bound) else {
            return;
        };
        let text = statement.text.as_str();
        let bytes = bound.bytes().saturating_add(text.len().saturating_mul(TREE_BYTES));
        let fits = bytes <= PLANS_BYTES_MAX / 16 && bound.is_shareable();
        if !Arc::ptr_eq(of, catalog) || !fits {
            return;
        }
        let hash = self.hasher.hash_one((text, declared));
        let mut plans = self.plans();
        plans.follow(catalog);
        let seen = &mut plans.seen[hash as usize % SEEN];
        if std::mem::replace(seen, hash) != hash
            || plans.entries.find(hash, |e| e.is(text, declared)).is_some()
        {
            return;
        }
        plans.make_room(bytes);
        plans.bytes += bytes;
        plans.clock += 1;
        let (declared, prepared, used) = (declared.to_vec(), prepared.clone(), plans.clock);
        let entry = Entry { hash, declared, prepared, bytes, used };
        plans.entries.insert_unique(hash, entry, |e| e.hash);
    }

    fn plans(&self) -> MutexGuard<'_, Plans> {
        // Whatever a panic has left behind is a whole entry, or none.
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plans {
    /// Forgets the plans of another version of the catalog.
    fn follow(&mut self, catalog: &Arc<Catalog>) {
        if !Arc::ptr_eq(&self.catalog, catalog) {
            self.entries.clear();
            self.bytes = 0;
            self.catalog = Arc::clone(catalog);
        }
    }

    /// Lets those go that were used least recently, until there is room for one more.
    fn make_room(&mut self, bytes: usize) {
        while self.entries.len() >= PLANS_MAX || self.bytes + bytes > PLANS_BYTES_MAX {
            let Some(oldest) = self.entries.iter().map(|e| e.used).min() else { return };
            let Some(hash) = self.entries.iter().find(|e| e.used == oldest).map(|e| e.hash) else {
                return;
            };
            if let Ok(entry) = self.entries.find_entry(hash, |e| e.used == oldest) {
                self.bytes -= entry.remove().0.bytes;
            }
        }
    }
}

impl Entry {
    fn is(&self, text: &str, declared: &[Option<DataType>]) -> bool {
        let known = self.prepared.statement.as_ref().map(|s| s.text.as_str());
        known == Some(text) && self.declared == declared
    }
}
