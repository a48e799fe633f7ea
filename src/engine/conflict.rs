//! ON CONFLICT: what an INSERT becomes when rows with its keys are there.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::Int64Type;
use hashbrown::HashMap;

use super::dml::{empty, in_hand, one_batch, state_of};
use super::session::Session;
use crate::catalog::Relation;
use crate::delta::{DeltaBatch, Keys, Order, concat, consolidate};
use crate::error::{Error, Result, sqlstate};
use crate::runtime::Pin;
use crate::sql::{Bound, BoundConflict, conform};

/// An INSERT as a change of its table.
pub(super) struct Resolved {
    pub(super) delta: DeltaBatch,
    /// The rows that it has inserted or put in the place of others, in the order of its input.
    pub(super) new: RecordBatch,
}

/// Where the rows of an INSERT go.
#[derive(Default)]
struct Plan {
    /// Rows without an old one.
    fresh: Vec<u32>,
    /// Rows with the old one that they meet: `(new, old)`.
    met: Vec<(u32, u32)>,
}

impl Session {
    /// Applies ON CONFLICT to new rows of a table.
    pub(super) async fn resolve(
        &self,
        relation: &Arc<Relation>,
        rows: RecordBatch,
        conflict: &BoundConflict,
        pin: &Arc<Pin>,
    ) -> Result<Resolved> {
        if matches!(conflict, BoundConflict::Refuse) {
            return Ok(Resolved { delta: DeltaBatch::inserts(rows.clone()), new: rows });
        }
        let old = self.with_same_keys(relation, &rows, pin)?;
        let plan = meet(relation, &rows, &old, conflict)?;
        match conflict {
            BoundConflict::Update(query) => {
                self.do_update(relation, &rows, &old, (plan, query), pin).await
            }
            BoundConflict::Overwrite => {
                let mut winners = plan.fresh;
                winners.extend(plan.met.iter().map(|(new, _)| *new));
                winners.sort_unstable();
                let new = take_record_batch(&rows, &UInt32Array::from(winners))?;
                let gone = UInt32Array::from_iter_values(plan.met.iter().map(|(_, old)| *old));
                let gone = take_record_batch(&old, &gone)?;
                Ok(Resolved { delta: replace(relation, gone, new.clone())?, new })
            }
            _ => {
                let new = take_record_batch(&rows, &UInt32Array::from(plan.fresh))?;
                Ok(Resolved { delta: DeltaBatch::inserts(new.clone()), new })
            }
        }
    }

    /// The rows of a table that have one of the keys of some rows, as the session sees them.
    fn with_same_keys(
        &self,
        relation: &Relation,
        rows: &RecordBatch,
        pin: &Pin,
    ) -> Result<RecordBatch> {
        let (columns, keys) = keys_of(relation, rows)?;
        let state = state_of(pin, relation.id, &relation.name)?;
        let Some(table) = &state.table else { return Ok(rows.slice(0, 0)) };
        let stored = table.rows_with_keys(&columns, &keys, pin.epoch_of(relation.id))?;
        pin.check()?;
        let own = self.own_writes(relation.id);
        if own.is_empty() {
            return Ok(stored.into_parts().0);
        }
        let wanted: hashbrown::HashSet<&[u8]> = (0..keys.len()).map(|r| keys.key(r)).collect();
        let mut all = vec![stored];
        for delta in own {
            let (_, own_keys) = keys_of(relation, delta.rows())?;
            let here = (0..delta.len()).filter(|r| wanted.contains(own_keys.key(*r)));
            all.push(delta.take(&here.map(|r| r as u32).collect::<Vec<_>>().into())?);
        }
        let all = concat(&all)?.unwrap_or_else(|| empty(relation));
        Ok(consolidate(&all, Order::Input)?.into_parts().0)
    }

    async fn do_update(
        &self,
        relation: &Arc<Relation>,
        rows: &RecordBatch,
        old: &RecordBatch,
        (plan, query): (Plan, &Bound),
        pin: &Arc<Pin>,
    ) -> Result<Resolved> {
        let (new_rows, old_rows): (Vec<u32>, Vec<u32>) = plan.met.iter().copied().unzip();
        let numbers = Int64Array::from_iter_values(new_rows.iter().map(|r| i64::from(*r)));
        let met_old = take_record_batch(old, &UInt32Array::from(old_rows))?;
        let met_new = take_record_batch(rows, &UInt32Array::from(new_rows))?;
        let mut columns: Vec<ArrayRef> = met_old.columns().to_vec();
        columns.extend(met_new.columns().iter().cloned());
        columns.push(Arc::new(numbers));
        let pairs = in_hand(&columns, plan.met.len())?;
        let updated = one_batch(query, &self.collect_over(query, pin, pairs).await?)?;
        let width = relation.schema.fields().len();
        let (first, second): (Vec<usize>, Vec<usize>) =
            ((0..width).collect(), (width..width * 2).collect());
        let gone = updated.project(&first)?;
        let gone = RecordBatch::try_new(relation.schema.clone(), gone.columns().to_vec())?;
        let replaced = conform(relation, &updated.project(&second)?, &self.settings())?;
        let fresh = take_record_batch(rows, &UInt32Array::from(plan.fresh.clone()))?;
        let all = concat_batches(&relation.schema, [&fresh, &replaced])?;
        let numbers = updated.column(width * 2).as_primitive::<Int64Type>();
        let order =
            plan.fresh.iter().map(|r| i64::from(*r)).chain(numbers.values().iter().copied());
        let order = sort_to_indices(&Int64Array::from_iter_values(order), None, None)?;
        let new = take_record_batch(&all, &order)?;
        Ok(Resolved { delta: replace(relation, gone, new.clone())?, new })
    }
}

pub(super) fn keys_of(relation: &Relation, rows: &RecordBatch) -> Result<(Vec<ArrayRef>, Keys)> {
    let columns: Vec<ArrayRef> = relation.key.iter().map(|c| rows.column(*c).clone()).collect();
    let keys = Keys::encode(&columns, rows.num_rows())?;
    Ok((columns, keys))
}

fn replace(relation: &Relation, old: RecordBatch, new: RecordBatch) -> Result<DeltaBatch> {
    let both = concat(&[DeltaBatch::retractions(old), DeltaBatch::inserts(new)])?;
    consolidate(&both.unwrap_or_else(|| empty(relation)), Order::Input)
}

/// Finds the old row of each new one. Of new rows with the same key the first counts, with
/// OVERWRITE the last; DO UPDATE refuses them.
fn meet(
    relation: &Relation,
    rows: &RecordBatch,
    old: &RecordBatch,
    conflict: &BoundConflict,
) -> Result<Plan> {
    let (_, keys) = keys_of(relation, rows)?;
    let (_, old_keys) = keys_of(relation, old)?;
    let old: HashMap<&[u8], u32> =
        (0..old_keys.len()).map(|r| (old_keys.key(r), r as u32)).collect();
    let mut winners: HashMap<&[u8], u32> = HashMap::new();
    for row in 0..keys.len() {
        let before = winners.get(keys.key(row)).copied();
        match (conflict, before) {
            (BoundConflict::Update(_), Some(_)) => return Err(second_time()),
            (BoundConflict::Ignore, Some(_)) => {}
            _ => drop(winners.insert(keys.key(row), row as u32)),
        }
    }
    let mut plan = Plan::default();
    for row in 0..keys.len() {
        if winners.get(keys.key(row)) != Some(&(row as u32)) {
            continue;
        }
        match old.get(keys.key(row)) {
            Some(old) => plan.met.push((row as u32, *old)),
            None => plan.fresh.push(row as u32),
        }
    }
    Ok(plan)
}

fn second_time() -> Error {
    Error::user(
        sqlstate::CARDINALITY_VIOLATION,
        "ON CONFLICT DO UPDATE command cannot affect row a second time",
    )
    .with_hint(
        "Ensure that no rows proposed for insertion within the same command have duplicate \
         constrained values.",
    )
}
