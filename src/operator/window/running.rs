//! Running totals: `sum` and `count` from the first row of a partition up to a row.
//!
//! A change moves the totals of the rows behind it and no others, so these alone are evaluated, and
//! what lies ahead of them is added: the total of the partition, which is kept, without what the
//! rows of the run come to.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};

use crate::delta::{DeltaBatch, Keys, Weight, batch_of};
use crate::error::Result;
use crate::state::{Bound, GroupSpec, GroupTable, Ranked, Run, TableKind, TableSpec};
use crate::time::event_times;

/// A call whose results are running totals, of type bigint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Its number among the calls.
    pub call: usize,
    /// The column of its argument, a smallint or integer where it is summed; `None`: rows are
    /// counted.
    pub argument: Option<usize>,
    /// The sum and not the count of its values.
    pub sum: bool,
}

/// A sum of values, and how many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Total {
    sum: i64,
    count: Weight,
}

/// Rows of a partition, ahead of the totals in a line.
const ROWS: usize = 0;

/// The totals of partitions, as a table.
pub(super) fn totals_table(
    running: &[Running],
    (input, partition): (&SchemaRef, &[usize]),
    bound: Bound,
) -> TableSpec {
    let types = partition.iter().map(|c| input.field(*c).data_type().clone());
    TableSpec {
        name: "totals",
        version: 1,
        bound,
        kind: TableKind::Groups(GroupSpec {
            state_words: 1 + 2 * running.len(),
            key_width: Keys::fixed_width(&types.collect::<Vec<_>>()),
            ..Default::default()
        }),
    }
}

/// Adds rows to the totals of their partitions; slots that are touched the first time in the epoch
/// go to `fresh`.
pub(super) fn add(
    table: &mut GroupTable,
    running: &[Running],
    (delta, keys): (&DeltaBatch, &Keys),
    closes: Option<usize>,
    fresh: &mut Vec<u32>,
) -> Result<()> {
    let mut slots = Vec::new();
    let times = closes.and_then(|c| event_times(delta.rows().column(c)));
    match times {
        Some(times) => table.intern_timed(keys, times, &mut slots, fresh),
        None => table.intern(keys, &mut slots, fresh),
    }
    let values = running.iter().map(|r| values(r, |c| Ok(delta.rows().column(c).clone())));
    let values = values.collect::<Result<Vec<_>>>()?;
    for (row, slot) in slots.iter().enumerate() {
        let weight = delta.weight(row);
        let words = table.slab_mut().words_mut(*slot);
        words[ROWS] = words[ROWS].wrapping_add(weight as u64);
        for (i, values) in values.iter().enumerate() {
            let Some(value) = value(values.as_ref(), row) else { continue };
            let added = [value.wrapping_mul(weight), weight];
            for (word, by) in words[1 + 2 * i..].iter_mut().zip(added) {
                *word = word.wrapping_add(by as u64);
            }
        }
    }
    Ok(())
}

/// Ends the epoch: partitions without rows go.
pub(super) fn release(table: &mut GroupTable, touched: &mut Vec<u32>) {
    for slot in touched.drain(..) {
        let keep = table.slab().words(slot)[ROWS] != 0;
        table.release(slot, keep);
    }
}

/// What the rows of a run come to now, and a row of its partition.
pub(super) fn of_run(rows: &Ranked, run: &Run, running: &[Running]) -> Result<Vec<Total>> {
    let there = run.rows.iter().filter(|row| row.new > 0);
    let (slots, weights): (Vec<u32>, Vec<Weight>) = there.map(|row| (row.slot, row.new)).unzip();
    let total = |r: &Running| {
        let values = values(r, |c| rows.gather_column(c, &slots))?;
        let mut total = Total::default();
        for (row, weight) in weights.iter().enumerate() {
            let Some(value) = value(values.as_ref(), row) else { continue };
            total.sum = total.sum.wrapping_add(value.wrapping_mul(*weight));
            total.count += weight;
        }
        Ok(total)
    };
    running.iter().map(total).collect()
}

/// The key of the partition that a row is of.
pub(super) fn key_of(
    rows: &Ranked,
    slot: u32,
    (input, partition): (&SchemaRef, &[usize]),
) -> Result<Arc<Keys>> {
    let columns = partition.iter().map(|c| rows.gather_column(*c, &[slot]));
    let schema = Arc::new(input.project(partition)?);
    let row = batch_of(schema, columns.collect::<Result<_>>()?, 1)?;
    DeltaBatch::inserts(row).keys(&(0..partition.len()).collect::<Vec<_>>())
}

/// The totals ahead of a run: those of its partition without its own.
pub(super) fn ahead(table: &mut GroupTable, key: &Keys, own: &[Total]) -> Vec<Total> {
    let mut fresh = Vec::new();
    // What has a run was touched, so it is there.
    let slot = table.intern_key(key.key(0), key.hash(0), &mut fresh);
    debug_assert!(fresh.is_empty(), "a partition with a run has totals");
    let words = table.slab().words(slot);
    let without = |(i, own): (usize, &Total)| Total {
        sum: (words[1 + 2 * i] as i64).wrapping_sub(own.sum),
        count: words[2 + 2 * i] as Weight - own.count,
    };
    own.iter().enumerate().map(without).collect()
}

/// The results of a run with what lies ahead of it.
pub(super) fn added(results: &ArrayRef, running: &Running, ahead: Total) -> ArrayRef {
    let own = results.as_primitive::<Int64Type>();
    let total = |row: usize| match (running.sum, own.is_valid(row)) {
        (false, _) => Some(own.value(row) + ahead.count),
        (true, true) => Some(own.value(row).wrapping_add(ahead.sum)),
        // No value so far in the run.
        (true, false) => (ahead.count > 0).then_some(ahead.sum),
    };
    Arc::new((0..own.len()).map(total).collect::<PrimitiveArray<Int64Type>>())
}

/// The values of an argument; `None` where each row counts.
fn values(
    running: &Running,
    column: impl Fn(usize) -> Result<ArrayRef>,
) -> Result<Option<(ArrayRef, bool)>> {
    let Some(argument) = running.argument else { return Ok(None) };
    let column = column(argument)?;
    Ok(Some(match running.sum {
        true => (cast(&column, &DataType::Int64)?, true),
        false => (column, false),
    }))
}

/// A value that is summed; any for one that is counted; `None` for NULL.
fn value(values: Option<&(ArrayRef, bool)>, row: usize) -> Option<i64> {
    match values {
        None => Some(0),
        Some((column, _)) if column.is_null(row) => None,
        Some((column, true)) => Some(column.as_primitive::<Int64Type>().value(row)),
        Some(_) => Some(0),
    }
}
