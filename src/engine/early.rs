//! Reads by key while an earlier life is begun again: rows from the files of the newest checkpoint,
//! with what the log has behind it over them, ahead of the tables that are being loaded.
//!
//! An answer here is what the engine says when it has begun, or there is none and the statement
//! waits. What a checkpoint knows exactly, [`Readable`] says. Rows of a key are put into a table of
//! their own by the code that loads tables, the log's writes are applied to it by the code that
//! applies them, and it is looked into as into any other: so nothing is decided anew here. A key
//! costs a block of 8 KiB in each run that has its place; nothing of it is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};

use crate::catalog::access::AccessChange;
use crate::catalog::{Catalog, Definition, RelationId};
use crate::config::{
    EARLY_READ_KEYS_MAX, EARLY_WRITES_BYTES_MAX, LOOKUP_BYTES_MAX, LOOKUP_ROWS_MAX,
};
use crate::delta::{DeltaBatch, Keys, Order, concat, consolidate};
use crate::error::Result;
use crate::runtime::{Readable, read_write};
use crate::state::{Entries, Found, ResultSpec, ResultTable};
use crate::store::Lsn;
use crate::store::log::{Commit, Part, Write};
use crate::time::Epoch;

/// What becomes of the names of a checkpoint in the log behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Names {
    /// Nothing: what there is at the end of the log is what the checkpoint has, or less.
    #[default]
    Settled,
    /// There will be more.
    Growing,
    /// They will mean something else, or the clock will have been moved.
    Changing,
}

fn is_of_relation(change: &AccessChange) -> bool {
    matches!(change, AccessChange::Acl { .. })
}

/// What the log has behind a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Behind {
    pub(super) names: Names,
    /// The tables that are written.
    written: BTreeSet<RelationId>,
    /// The writes, in their order, while they are few.
    writes: BTreeMap<RelationId, Vec<Write>>,
    bytes: usize,
    /// They are not: they were let go.
    many: bool,
    /// Those of a large commit that were read, and the number of the first.
    parts: (Lsn, Vec<Write>),
}

impl Behind {
    /// A definition of the log.
    pub(super) fn define(&mut self, definition: &Definition) {
        let names = match definition {
            Definition::Create(_) => Names::Growing,
            // What is not kept, or is gone by the end of the log, is not made again.
            Definition::Keep(_) | Definition::Drop(_) => Names::Settled,
            // Roles are those of the end of the log from the beginning.
            Definition::Access(changes) if !changes.iter().any(is_of_relation) => Names::Settled,
            Definition::Replace { .. }
            | Definition::Swap { .. }
            | Definition::Rename { .. }
            | Definition::Access(_)
            | Definition::Clock(_)
            | Definition::Sequence { .. }
            | Definition::Comment { .. }
            | Definition::Watermark { .. } => Names::Changing,
        };
        self.names = self.names.max(names);
    }

    /// The first writes of a large commit.
    pub(super) fn part(&mut self, part: Part) {
        // What was begun and not committed did not happen.
        if self.parts.0 != part.first {
            self.parts = (part.first, Vec::new());
        }
        for write in part.writes {
            let kept = self.room_for(write);
            self.parts.1.push(kept);
        }
    }

    /// Writes that have happened.
    pub(super) fn commit(&mut self, commit: Commit) {
        let (first, parts) = std::mem::take(&mut self.parts);
        // Whether they belong together is found when it is done again.
        let parts = if commit.parts == Some(first) { parts } else { Vec::new() };
        for write in parts {
            self.add(write);
        }
        for write in commit.writes {
            let kept = self.room_for(write);
            self.add(kept);
        }
    }

    fn add(&mut self, write: Write) {
        let id = RelationId(write.relation);
        self.written.insert(id);
        match self.many {
            true => self.writes.clear(),
            false => self.writes.entry(id).or_default().push(write),
        }
    }

    /// A write with its rows, while there are few in all.
    fn room_for(&mut self, write: Write) -> Write {
        self.bytes += write.rows.len();
        self.many |= self.bytes > EARLY_WRITES_BYTES_MAX;
        match self.many {
            true => Write { rows: Vec::new(), ..write },
            false => write,
        }
    }

    /// The tables that are written.
    pub(super) fn written(&self) -> &BTreeSet<RelationId> {
        &self.written
    }
}

/// What can be read by key before anything is loaded.
#[derive(Debug)]
pub(super) struct Early {
    readable: Readable,
    names: Names,
    written: BTreeMap<RelationId, Written>,
}

/// The rows that the log has of a table, by key.
#[derive(Debug, Default)]
struct Written {
    batches: Vec<(DeltaBatch, Arc<Keys>)>,
    /// Batch and row, by hash, in their order.
    rows: HashMap<u64, Vec<(usize, u32)>>,
}

impl Early {
    /// What can be read of what a checkpoint and the log behind it have.
    pub(super) fn new(mut readable: Readable, behind: &Behind, catalog: &Catalog) -> Result<Self> {
        let mut written = BTreeMap::new();
        for id in &behind.written {
            let Some(relation) = readable.relations.get(id) else { continue };
            match (behind.many, catalog.by_id(*id)) {
                (false, Some(defined)) => {
                    let writes = behind.writes.get(id).map(Vec::as_slice).unwrap_or_default();
                    let mut rows = Written::default();
                    for write in writes {
                        for batch in read_write(&defined.schema, write)? {
                            rows.add(batch, &relation.spec)?;
                        }
                    }
                    written.insert(*id, rows);
                }
                _ => drop(readable.relations.remove(id)),
            }
        }
        Ok(Self { readable, names: behind.names, written })
    }

    /// The state that is loaded.
    pub(super) fn readable(&self) -> &Readable {
        &self.readable
    }

    /// Whether names mean what they will mean.
    pub(super) fn has_names(&self) -> bool {
        self.names < Names::Changing
    }

    /// Whether these are all definitions that there will be.
    pub(super) fn has_all_names(&self) -> bool {
        self.names == Names::Settled
    }

    /// The layout of a relation that can be read by key.
    pub(super) fn spec(&self, id: RelationId) -> Option<&ResultSpec> {
        self.readable.relations.get(&id).map(|relation| &relation.spec)
    }

    /// The rows with given keys, an array for each column of the key; `None` when they have to be
    /// waited for.
    pub(super) fn find(&self, id: RelationId, key: &[ArrayRef]) -> Result<Option<DeltaBatch>> {
        let Some(relation) = self.readable.relations.get(&id) else { return Ok(None) };
        let wanted = key.first().map_or(0, |values| values.len());
        if wanted > EARLY_READ_KEYS_MAX {
            return Ok(None);
        }
        let keys = Keys::encode(key, wanted)?;
        let hashes: BTreeSet<u64> = keys.hashes().iter().copied().collect();
        let mut entries = Entries::default();
        for hash in &hashes {
            entries.append(&self.readable.image.entries_of(relation.table, *hash)?);
        }
        let (cut, behind) = (Epoch::ZERO, Epoch::ZERO.next());
        let table = ResultTable::of_entries(relation.spec.clone(), &entries, cut)?;
        if let Some(written) = self.written.get(&id)
            && let Some(changes) = written.with(&hashes)?
        {
            table.write(0).apply(&changes, behind)?;
        }
        let limits = (LOOKUP_ROWS_MAX, LOOKUP_BYTES_MAX);
        let found = table.find_within(&relation.spec.key, key, behind, limits)?;
        let Found::Rows(rows) = found else { return Ok(None) };
        // A key has one row; where it has more, something is wrong that others will tell.
        Ok(Some(rows).filter(|rows| rows.is_insert_only() && rows.len() <= wanted))
    }
}

impl Written {
    fn add(&mut self, batch: DeltaBatch, spec: &ResultSpec) -> Result<()> {
        let keys = batch.keys(&spec.key)?;
        for (row, hash) in keys.hashes().iter().enumerate() {
            self.rows.entry(*hash).or_default().push((self.batches.len(), row as u32));
        }
        self.batches.push((batch, keys));
        Ok(())
    }

    /// What is written under keys of some hashes, as one change.
    fn with(&self, hashes: &BTreeSet<u64>) -> Result<Option<DeltaBatch>> {
        let mut places: Vec<(usize, u32)> =
            hashes.iter().filter_map(|hash| self.rows.get(hash)).flatten().copied().collect();
        places.sort_unstable();
        let mut changes = Vec::new();
        for of_batch in places.chunk_by(|a, b| a.0 == b.0) {
            let rows: UInt32Array = of_batch.iter().map(|(_, row)| *row).collect();
            let (batch, _) = &self.batches[of_batch[0].0];
            changes.push(batch.take(&rows)?);
        }
        let all = concat(&changes)?;
        all.map(|all| consolidate(&all, Order::Input)).transpose()
    }
}
