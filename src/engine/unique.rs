//! The primary key of a table: after a change no key may be there twice (23505).

use arrow::array::ArrayRef;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::conflict::keys_of;
use crate::catalog::Relation;
use crate::delta::text::display_value;
use crate::delta::{DeltaBatch, Keys, Weight};
use crate::error::{Error, Result, sqlstate};
use crate::runtime::{Pin, RelationState};

/// A batch of a change with its keys.
struct Keyed<'a> {
    delta: &'a DeltaBatch,
    columns: Vec<ArrayRef>,
    keys: Keys,
}

/// What a change does to the rows of one key.
struct Net {
    /// The last row of the change that inserts it, or its first one: batch and row.
    at: (u32, u32),
    weight: Weight,
}

/// Checks a change that comes in batches; `own` are changes of the same transaction before it.
pub(super) fn check_keys(
    relation: &Relation,
    state: &RelationState,
    pin: &Pin,
    own: &[DeltaBatch],
    change: &[DeltaBatch],
) -> Result<()> {
    let Some(table) = &state.table else { return Ok(()) };
    let keyed = |delta| {
        let (columns, keys) = keys_of(relation, DeltaBatch::rows(delta))?;
        Ok(Keyed { delta, columns, keys })
    };
    let change: Vec<Keyed<'_>> = change.iter().map(keyed).collect::<Result<_>>()?;
    // Rows, with how many of them there are more, by batch: without an insert nothing can be there
    // twice.
    let inserted = match own.is_empty() && is_ascending(&change) {
        true => (0..change.len()).map(|b| all_rows(change[b].delta.len())).collect(),
        false => net(relation, own, &change)?,
    };
    let epoch = pin.epoch_of(relation.id);
    for (batch, inserted) in change.iter().zip(inserted) {
        let rows: Vec<u32> = inserted.iter().map(|(row, _)| *row).collect();
        let stored = table.count_keys(&batch.columns, &batch.keys, &rows, epoch)?;
        let twice = inserted.iter().zip(stored).find(|((_, more), stored)| stored + more > 1);
        if let Some(((row, _), _)) = twice {
            return Err(duplicate_key(relation, batch.delta, *row as usize));
        }
    }
    Ok(())
}

/// Whether a change is inserts in the order of their keys, as dumps of tables are: none of them is
/// there twice in it.
fn is_ascending(change: &[Keyed<'_>]) -> bool {
    let mut last: Option<&[u8]> = None;
    change.iter().all(|batch| {
        batch.delta.is_insert_only()
            && (0..batch.delta.len()).all(|row| {
                let key = batch.keys.key(row);
                let ascends = last.is_none_or(|last| last < key);
                last = Some(key);
                ascends
            })
    })
}

fn all_rows(rows: usize) -> Vec<(u32, Weight)> {
    (0..rows as u32).map(|row| (row, 1)).collect()
}

/// By batch, a row for each key of which a change leaves more rows behind, and how many.
fn net(
    relation: &Relation,
    own: &[DeltaBatch],
    change: &[Keyed<'_>],
) -> Result<Vec<Vec<(u32, Weight)>>> {
    let key = |n: &Net| change[n.at.0 as usize].keys.key(n.at.1 as usize);
    let hash = |n: &Net| change[n.at.0 as usize].keys.hash(n.at.1 as usize);
    let rows = change.iter().map(|batch| batch.delta.len()).sum();
    let mut net: HashTable<Net> = HashTable::with_capacity(rows);
    for (b, batch) in change.iter().enumerate() {
        for row in 0..batch.delta.len() {
            let (weight, at) = (batch.delta.weight(row), (b as u32, row as u32));
            let same = |n: &Net| key(n) == batch.keys.key(row);
            match net.entry(batch.keys.hash(row), same, hash) {
                Entry::Vacant(free) => drop(free.insert(Net { at, weight })),
                Entry::Occupied(mut known) => {
                    let known = known.get_mut();
                    known.weight += weight;
                    if weight > 0 {
                        known.at = at;
                    }
                }
            }
        }
    }
    for earlier in own {
        let (_, keys) = keys_of(relation, earlier.rows())?;
        for row in 0..earlier.len() {
            let same = |n: &Net| key(n) == keys.key(row);
            if let Some(known) = net.find_mut(keys.hash(row), same) {
                known.weight += earlier.weight(row);
            }
        }
    }
    let mut inserted = vec![Vec::new(); change.len()];
    for n in net.iter().filter(|n| n.weight > 0) {
        inserted[n.at.0 as usize].push((n.at.1, n.weight));
    }
    inserted.iter_mut().for_each(|rows| rows.sort_unstable());
    Ok(inserted)
}

fn duplicate_key(relation: &Relation, delta: &DeltaBatch, row: usize) -> Error {
    let names: Vec<&str> =
        relation.key.iter().map(|c| relation.schema.field(*c).name().as_str()).collect();
    let values: Vec<String> = relation
        .key
        .iter()
        .map(|c| display_value(delta.rows().column(*c), row).unwrap_or_default())
        .collect();
    Error::user(
        sqlstate::UNIQUE_VIOLATION,
        format!(
            "duplicate key value violates unique constraint \"{}_pkey\"",
            relation.local_name()
        ),
    )
    .with_detail(format!("Key ({})=({}) already exists.", names.join(", "), values.join(", ")))
}
