//! Aggregates that are computed anew when their group changes: string_agg, array_agg, stddev and
//! whatever else has no incremental form here.
//!
//! State: a multiset of the argument rows of a group, as bytes that are in the order in which the
//! function wants them (see [`RowOrder`]), so that the result depends on neither arrival nor
//! batches. A change of a group costs its size.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use super::{Aggregate, Emitted, Rows, Signature, StateAt, unsupported};
use crate::error::{Error, Result};
use crate::expr::{BatchAggregate, RowOrder};
use crate::state::{GroupTable, OrderedValue};

#[derive(Debug)]
struct Recompute {
    function: Arc<BatchAggregate>,
    rows: RowOrder,
    result: DataType,
}

/// The aggregate for a signature whose function is known to the batch half.
pub(crate) fn create(name: &str, signature: &Signature) -> Result<Box<dyn Aggregate>> {
    let Some(function) = &signature.batch else {
        return Err(Error::internal(format!("aggregate {name} has no function to compute it")));
    };
    let (types, order) = signature.arguments.split_at(function.columns());
    let rows = RowOrder {
        arguments: types.to_vec(),
        order: signature.order.clone(),
        distinct: signature.distinct,
    };
    if rows.check(order).is_err() {
        return Err(unsupported(name, &types[0]));
    }
    Ok(Box::new(Recompute {
        function: Arc::clone(function),
        rows,
        result: signature.result.clone(),
    }))
}

impl Recompute {
    /// The arguments of groups, group by group in order, and how many rows each group has.
    fn arguments(
        &self,
        table: &GroupTable,
        at: StateAt,
        slots: &[u32],
    ) -> Result<(Vec<ArrayRef>, Vec<usize>)> {
        let sets = table.multisets(at.multiset);
        let times = |weight: i64| match self.rows.distinct {
            true => usize::from(weight > 0),
            false => weight.max(0) as usize,
        };
        let (mut rows, mut counts) = (Vec::new(), Vec::new());
        for slot in slots {
            let mut count = 0;
            for (value, weight) in sets[*slot as usize].iter() {
                let OrderedValue::Bytes(bytes) = value else { continue };
                rows.push((bytes.as_ref(), times(weight)));
                count += times(weight);
            }
            counts.push(count);
        }
        Ok((self.rows.decode(rows.into_iter())?, counts))
    }
}

impl Aggregate for Recompute {
    fn words(&self) -> usize {
        0
    }

    fn multisets(&self) -> usize {
        1
    }

    fn update(&self, table: &mut GroupTable, at: StateAt, rows: Rows<'_>) -> Result<()> {
        let mut values = self.rows.encode(rows.arguments)?;
        let mut sets = table.multisets_mut(at.multiset);
        rows.for_each_row(|row, slot, weight| {
            let value = std::mem::take(&mut values[row]);
            sets.add(slot, OrderedValue::Bytes(value.into()), weight);
        });
        Ok(())
    }

    fn emit(&self, table: &GroupTable, at: StateAt, slots: &[u32]) -> Result<Emitted> {
        let (columns, counts) = self.arguments(table, at, slots)?;
        let mut failed = Vec::new();
        let mut values = Vec::with_capacity(slots.len());
        let mut first = 0;
        for (position, count) in counts.into_iter().enumerate() {
            let rows: Vec<ArrayRef> = columns.iter().map(|c| c.slice(first, count)).collect();
            first += count;
            values.push(match self.function.value(&rows, count) {
                Ok(value) => value,
                Err(e) => {
                    failed.push((position, e));
                    ScalarValue::try_from(&self.result).map_err(crate::expr::from_datafusion)?
                }
            });
        }
        if values.is_empty() {
            return Ok(Emitted::all(arrow::array::new_empty_array(&self.result)));
        }
        let values = ScalarValue::iter_to_array(values).map_err(crate::expr::from_datafusion)?;
        Ok(Emitted { values: cast(&values, &self.result)?, failed })
    }

    fn grows_with(&self) -> Option<&'static str> {
        Some("distinct values of a group")
    }
}
