//! Consolidation: equal rows become one row with the sum of their weights; rows whose weights sum
//! to zero disappear. Rows that carry different arrivals are different rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use arrow::compute::take;

use super::{DeltaBatch, Keys, Weight};
use crate::error::Result;

/// The order of the rows that consolidation returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Where a row stood first in the input.
    Input,
    /// Retractions first, then inserts, each in key order: the order of a changelog.
    Changelog,
}

/// Consolidates a delta. Whole rows are compared by their key bytes, so `-0.0` equals `0.0` and
/// NULL equals NULL.
pub fn consolidate(delta: &DeltaBatch, order: Order) -> Result<DeltaBatch> {
    let mut columns = delta.rows().columns().to_vec();
    columns.extend(delta.arrivals().map(|a| Arc::new(a.clone()) as ArrayRef));
    merge(delta, &columns, order)
}

/// What is left of a delta when arrivals are not looked at; of equal rows the first one's stays.
pub fn net(delta: &DeltaBatch) -> Result<DeltaBatch> {
    merge(delta, delta.rows().columns(), Order::Input)
}

fn merge(delta: &DeltaBatch, columns: &[ArrayRef], order: Order) -> Result<DeltaBatch> {
    if delta.len() <= 1 {
        return Ok(delta.clone());
    }
    let keys = Keys::encode(columns, delta.len())?;
    // Sorting by hash finds equal rows, the first of them in front.
    let mut rows: Vec<(u64, u32)> = keys.hashes().iter().copied().zip(0..).collect();
    rows.sort_unstable();
    let mut kept: Vec<(u32, Weight)> = Vec::with_capacity(rows.len());
    for alike in rows.chunk_by_mut(|a, b| a.0 == b.0) {
        let key = |row: &(u64, u32)| keys.key(row.1 as usize);
        if alike.len() > 1 {
            // Different rows hardly ever have one hash.
            alike.sort_by(|a, b| key(a).cmp(key(b)));
        }
        for run in alike.chunk_by(|a, b| key(a) == key(b)) {
            let weight: Weight = run.iter().map(|(_, row)| delta.weight(*row as usize)).sum();
            if weight != 0 {
                kept.push((run[0].1, weight));
            }
        }
    }
    match order {
        Order::Input => kept.sort_unstable_by_key(|(row, _)| *row),
        Order::Changelog => kept.sort_unstable_by(|(a, wa), (b, wb)| {
            let (ka, kb) = (keys.key(*a as usize), keys.key(*b as usize));
            (*wa > 0).cmp(&(*wb > 0)).then_with(|| ka.cmp(kb))
        }),
    }
    if kept.len() == delta.len() && order == Order::Input {
        return Ok(delta.clone());
    }
    let indices = UInt32Array::from_iter_values(kept.iter().map(|(row, _)| *row));
    let rows = arrow::compute::take_record_batch(delta.rows(), &indices)?;
    let weights = Int64Array::from_iter_values(kept.iter().map(|(_, w)| *w));
    let insert_only = delta.is_insert_only() && weights.values().iter().all(|w| *w == 1);
    let arrivals = match delta.arrivals() {
        Some(all) => Some(Int64Array::from(take(all, &indices, None)?.to_data())),
        None => None,
    };
    let weights = (!insert_only).then_some(weights);
    Ok(DeltaBatch::with_weights(rows, weights).with_arrivals(arrivals))
}
