//! Running totals: `sum` and `count` from the first row of a partition up to a row.
//!
//! A change moves the totals of the rows behind it and no others, so these alone are evaluated, and
//! what lies ahead of them is added: the total of the partition, which is kept, without what the
//! rows of the run come to.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, SchemaRef};

use crate::delta::{DeltaBatch, Keys, Weight, batch_of};
use crate::error::{Error, Result};
use crate::state::{Bound, GroupSpec, GroupTable, Ranked, Run, TableKind, TableSpec};
use crate::time::event_times;

/// A call whose results are running totals, of type bigint or numeric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Its number among the calls.
    pub call: usize,
    /// The column of its argument; `None`: rows are counted.
    pub argument: Option<usize>,
    /// What of its values.
    pub total: Totals,
}

/// What is totalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Totals {
    /// How many values there are.
    Count,
    /// The sum of smallints or integers, a bigint.
    Sum,
    /// The sum of bigints or numerics, a numeric.
    WideSum {
        /// Digits of the values behind the point.
        scale: i8,
    },
}

impl Running {
    /// The words of a line: the sum in one or two, and how many values there are.
    fn words(&self) -> usize {
        match self.total {
            Totals::Count | Totals::Sum => 2,
            Totals::WideSum { .. } => 3,
        }
    }
}

/// The first words of totals in a line, and where the line ends.
fn places(running: &[Running]) -> (Vec<usize>, usize) {
    let mut end = 1;
    let places = running.iter().map(|r| {
        end += r.words();
        end - r.words()
    });
    (places.collect(), end)
}

/// A sum of values, and how many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Total {
    sum: i128,
    count: Weight,
}

impl Total {
    /// From the words of a line.
    fn read(words: &[u64], running: &Running) -> Self {
        match (running.total, words) {
            (Totals::WideSum { .. }, [low, high, count, ..]) => {
                let sum = u128::from(*high) << 64 | u128::from(*low);
                Self { sum: sum as i128, count: *count as Weight }
            }
            (_, [sum, count, ..]) => Self { sum: i128::from(*sum as i64), count: *count as Weight },
            _ => Self::default(),
        }
    }

    /// Into the words of a line.
    fn write(self, words: &mut [u64], running: &Running) {
        let (sum, count) = (self.sum as u128, self.count as u64);
        match (running.total, words) {
            (Totals::WideSum { .. }, [low, high, n, ..]) => {
                (*low, *high, *n) = (sum as u64, (sum >> 64) as u64, count);
            }
            (_, [low, n, ..]) => (*low, *n) = (sum as u64, count),
            _ => {}
        }
    }

    /// With some equal values more.
    fn and(self, value: i128, weight: Weight) -> Self {
        let sum = self.sum.wrapping_add(value.wrapping_mul(i128::from(weight)));
        Self { sum, count: self.count + weight }
    }
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
            state_words: places(running).1,
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
    let (places, _) = places(running);
    for (row, slot) in slots.iter().enumerate() {
        let weight = delta.weight(row);
        let words = table.slab_mut().words_mut(*slot);
        words[ROWS] = words[ROWS].wrapping_add(weight as u64);
        for (i, values) in values.iter().enumerate() {
            let Some(value) = value(values.as_ref(), row) else { continue };
            let words = &mut words[places[i]..];
            Total::read(words, &running[i]).and(value, weight).write(words, &running[i]);
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
            total = total.and(value, *weight);
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
pub(super) fn ahead(
    table: &mut GroupTable,
    running: &[Running],
    key: &Keys,
    own: &[Total],
) -> Vec<Total> {
    let mut fresh = Vec::new();
    // What has a run was touched, so it is there.
    let slot = table.intern_key(key.key(0), key.hash(0), &mut fresh);
    debug_assert!(fresh.is_empty(), "a partition with a run has totals");
    let words = table.slab().words(slot);
    let (places, _) = places(running);
    let without = |(i, own): (usize, &Total)| {
        let all = Total::read(&words[places[i]..], &running[i]);
        Total { sum: all.sum.wrapping_sub(own.sum), count: all.count - own.count }
    };
    own.iter().enumerate().map(without).collect()
}

/// The results of a run with what lies ahead of it.
pub(super) fn added(results: &ArrayRef, running: &Running, ahead: Total) -> Result<ArrayRef> {
    let there = ahead.count > 0;
    if let Totals::WideSum { scale } = running.total {
        let own = results.as_primitive::<Decimal128Type>();
        let more = u32::try_from(own.scale() - scale);
        let more = more.map_err(|_| Error::internal("a sum of fewer digits than its values"))?;
        let sum = ahead.sum.wrapping_mul(10_i128.pow(more));
        let total = |row: usize| match own.is_valid(row) {
            true => Some(own.value(row).wrapping_add(sum)),
            // No value so far in the run.
            false => there.then_some(sum),
        };
        let totals = (0..own.len()).map(total).collect::<Decimal128Array>();
        return Ok(Arc::new(totals.with_data_type(own.data_type().clone())));
    }
    let own = results.as_primitive::<Int64Type>();
    // The sum of 32-bit values and less.
    let sum = ahead.sum as i64;
    let total = |row: usize| match (running.total, own.is_valid(row)) {
        (Totals::Count, _) => Some(own.value(row) + ahead.count),
        (_, true) => Some(own.value(row).wrapping_add(sum)),
        (_, false) => there.then_some(sum),
    };
    Ok(Arc::new((0..own.len()).map(total).collect::<PrimitiveArray<Int64Type>>()))
}

/// The values of an argument.
enum Values {
    /// Each that is there counts.
    Counted(ArrayRef),
    Summed(PrimitiveArray<Int64Type>),
    Wide(Decimal128Array),
}

/// The values of an argument; `None` where each row counts.
fn values(running: &Running, column: impl Fn(usize) -> Result<ArrayRef>) -> Result<Option<Values>> {
    let Some(argument) = running.argument else { return Ok(None) };
    let column = column(argument)?;
    let is_numeric = matches!(column.data_type(), DataType::Decimal128(..));
    Ok(Some(match running.total {
        Totals::Count => Values::Counted(column),
        Totals::WideSum { .. } if is_numeric => {
            Values::Wide(column.as_primitive::<Decimal128Type>().clone())
        }
        Totals::Sum | Totals::WideSum { .. } => {
            Values::Summed(cast(&column, &DataType::Int64)?.as_primitive().clone())
        }
    }))
}

/// A value that is summed; any for one that is counted; `None` for NULL.
fn value(values: Option<&Values>, row: usize) -> Option<i128> {
    match values {
        None => Some(0),
        Some(Values::Counted(column)) => column.is_valid(row).then_some(0),
        Some(Values::Summed(column)) => column.is_valid(row).then(|| i128::from(column.value(row))),
        Some(Values::Wide(column)) => column.is_valid(row).then(|| column.value(row)),
    }
}
