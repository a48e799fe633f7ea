//! Orders that are not those of the values as they are kept: intervals by their length, jsonb by
//! PostgreSQL's order, arrays and rows element by element with NULL above every other element.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, ListArray, new_null_array};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNanoType};

use super::args::Args;
use super::gather::Gather;
use super::{Def, Nulls};
use crate::delta::Keys;
use crate::delta::jsonb_order::order_bytes;
use crate::error::Result;
use crate::expr::size::{Size, batch_too_large};
use crate::expr::temporal::interval_length;

pub(super) const FUNCTIONS: &[Def] = &[
    ("pg_array_order(anyarray) -> bytea", Nulls::Strict, array_order),
    ("pg_row_order(any) -> bytea", Nulls::Strict, array_order),
    ("pg_greatest(anyelement, anyelement) -> anyelement", Nulls::Seen, |a| {
        choice(a, Ordering::Greater)
    }),
    ("pg_least(anyelement, anyelement) -> anyelement", Nulls::Seen, |a| choice(a, Ordering::Less)),
];

/// Values whose key bytes stand in PostgreSQL's order.
fn sortable(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Interval(_) => {
            let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
            Arc::new(intervals.iter().map(|i| i.map(interval_length)).collect::<Int64Array>())
        }
        DataType::LargeUtf8 => {
            let texts = array.as_string::<i64>();
            Arc::new(texts.iter().map(|t| t.map(order_bytes)).collect::<BinaryArray>())
        }
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let values = sortable(lists.values())?;
            let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
            let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
            Arc::new(ListArray::try_new(field, offsets, values, nulls)?)
        }
        DataType::Struct(_) => {
            let fields = array.as_struct().columns().iter().map(sortable);
            let keys = Keys::encode(&fields.collect::<Result<Vec<_>>>()?, array.len())?;
            let bytes = keys.into_bytes(array.logical_nulls()).ok_or_else(batch_too_large)?;
            Arc::new(bytes)
        }
        // NULLs that have no type.
        DataType::Null => new_null_array(&DataType::Boolean, array.len()),
        _ => Arc::clone(array),
    })
}

pub(super) fn keys(array: &ArrayRef) -> Result<Keys> {
    Keys::encode(&[sortable(array)?], array.len())
}

fn array_order(a: &Args<'_>) -> Result<ArrayRef> {
    let array = a.array(0);
    let keys = keys(array)?;
    if a.is_constant(0) {
        return a.byteas(|_| Ok(Some(keys.key(0).to_vec())));
    }
    let mut size = Size::of_rows(a.rows());
    (0..a.rows()).try_for_each(|row| size.add(keys.key(row).len()))?;
    let nulls = array.logical_nulls();
    let bytes = keys.into_bytes(nulls).ok_or_else(batch_too_large)?;
    Ok(Arc::new(bytes))
}

/// The second value where it stands on the wanted side of the first, or alone.
fn choice(a: &Args<'_>, wanted: Ordering) -> Result<ArrayRef> {
    let keys = [keys(a.array(0))?, keys(a.array(1))?];
    let at = |i: usize, row| if a.is_constant(i) { 0 } else { row };
    let mut out = Gather::of(a, a.result());
    let sources = [out.source(a.array(0)), out.source(a.array(1))];
    for row in 0..a.rows() {
        let second = match (a.is_null(0, row), a.is_null(1, row)) {
            (_, true) => false,
            (true, false) => true,
            _ => keys[1].key(at(1, row)).cmp(keys[0].key(at(0, row))) == wanted,
        };
        let taken = usize::from(second);
        out.push(sources[taken], at(taken, row));
    }
    out.finish_elements()
}
