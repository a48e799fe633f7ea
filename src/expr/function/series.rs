//! Series: `generate_series` and its kin as lists, which FROM and SELECT unnest.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Decimal128Array, Int32Array, Int32Builder, Int64Array, Int64Builder,
    ListArray, ListBuilder, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano};

use super::args::Args;
use super::array::length_of;
use super::gather::Elements;
use super::{Def, Nulls};
use crate::delta::text::pg_type_name;
use crate::delta::zone::Zone;
use crate::error::{Error, Result, sqlstate};
use crate::expr::numeric::rescale;
use crate::expr::size::Size;
use crate::expr::temporal::add_interval_in;

pub(super) const FUNCTIONS: &[Def] = &[
    ("generate_series(int, int) -> int[]", Nulls::Strict, lists),
    ("generate_series(int, int, int) -> int[]", Nulls::Strict, lists),
    ("generate_series(bigint, bigint) -> bigint[]", Nulls::Strict, lists),
    ("generate_series(bigint, bigint, bigint) -> bigint[]", Nulls::Strict, lists),
    ("generate_series(numeric, numeric) -> numeric[]", Nulls::Strict, lists),
    ("generate_series(numeric, numeric, numeric) -> numeric[]", Nulls::Strict, lists),
    ("generate_series(timestamp, timestamp, interval) -> timestamp[]", Nulls::Strict, lists),
    ("generate_series(timestamptz, timestamptz, interval) -> timestamptz[]", Nulls::Strict, lists),
    (
        "generate_series(timestamptz, timestamptz, interval, text) -> timestamptz[]",
        Nulls::Strict,
        lists,
    ),
    ("generate_subscripts(anyarray, int) -> int[]", Nulls::Strict, subscripts),
    ("generate_subscripts(anyarray, int, boolean) -> int[]", Nulls::Strict, subscripts),
    ("pg_ordinality(any...) -> bigint[]", Nulls::Seen, ordinality),
];

/// Longer series are refused where they are made as a whole. FROM and the select list unnest them
/// piece by piece ([`lists`](super::lists)), as long as they are.
const LENGTH_MAX: usize = 1_000_000;

fn zero_step() -> Error {
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, "step size cannot equal zero")
}

fn too_long() -> Error {
    Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, "this series is too long")
        .with_hint(format!("A series has at most {LENGTH_MAX} values outside of FROM."))
}

/// The series of one row, of which values are taken one after the other.
#[derive(Debug, Clone)]
pub(super) enum Series {
    /// Numbers, of the scale of the result.
    Steps { at: i128, step: i128, left: u128 },
    /// Microseconds.
    Times { at: i64, end: i64, step: IntervalMonthDayNano, zone: Zone, forward: bool, past: bool },
}

impl Series {
    /// The series that a row's arguments ask for.
    pub(super) fn of(a: &Args<'_>, row: usize) -> Result<Self> {
        match a.element()? {
            DataType::Timestamp(..) => {
                let step = a.interval(2, row);
                let forward = direction(step)? > 0;
                let (at, end) = (a.micros(0, row), a.micros(1, row));
                let zone = if a.len() > 3 { Zone::of(a.text(3, row))? } else { Zone::UTC };
                Ok(Self::Times { at, end, step, zone, forward, past: false })
            }
            DataType::Decimal128(p, s) => {
                let at = |i: usize| {
                    let (value, scale) = a.numeric(i, row);
                    rescale(value, scale, *p, *s)
                };
                let step = if a.len() > 2 { at(2)? } else { rescale(1, 0, *p, *s)? };
                Self::steps(at(0)?, at(1)?, step)
            }
            DataType::Int32 => {
                let at = |i: usize| i128::from(a.int(i, row));
                Self::steps(at(0), at(1), if a.len() > 2 { at(2) } else { 1 })
            }
            _ => {
                let at = |i: usize| i128::from(a.bigint(i, row));
                Self::steps(at(0), at(1), if a.len() > 2 { at(2) } else { 1 })
            }
        }
    }

    fn steps(at: i128, end: i128, step: i128) -> Result<Self> {
        if step == 0 {
            return Err(zero_step());
        }
        let past = if step > 0 { end < at } else { at < end };
        // From one end of the numerics to the other is more than a signed number holds.
        let left = if past { 0 } else { end.abs_diff(at) / step.unsigned_abs() + 1 };
        Ok(Self::Steps { at, step, left })
    }

    /// The next value.
    pub(super) fn next(&mut self) -> Result<Option<i128>> {
        match self {
            Self::Steps { left: 0, .. } => Ok(None),
            Self::Steps { at, step, left } => {
                let value = *at;
                *left -= 1;
                if *left > 0 {
                    *at += *step;
                }
                Ok(Some(value))
            }
            Self::Times { at, end, step, zone, forward, past } => {
                let value = *at;
                if *past || if *forward { value > *end } else { value < *end } {
                    *past = true;
                    return Ok(None);
                }
                *at = add_interval_in(value, *step, *zone)?;
                Ok(Some(value.into()))
            }
        }
    }
}

/// Values of a series as a column of its type.
pub(super) fn values(values: &[i128], element: &DataType) -> Result<ArrayRef> {
    let longs = || values.iter().map(|v| *v as i64);
    Ok(match element {
        DataType::Int32 => Arc::new(Int32Array::from_iter_values(values.iter().map(|v| *v as i32))),
        DataType::Int64 => Arc::new(Int64Array::from_iter_values(longs())),
        DataType::Timestamp(..) => Arc::new(
            TimestampMicrosecondArray::from_iter_values(longs()).with_data_type(element.clone()),
        ),
        DataType::Decimal128(..) => Arc::new(
            Decimal128Array::from_iter_values(values.iter().copied())
                .with_data_type(element.clone()),
        ),
        _ => return Err(Error::internal("a series of numbers or times")),
    })
}

/// Series as lists.
fn lists(a: &Args<'_>) -> Result<ArrayRef> {
    let (mut all, mut offsets) = (Vec::new(), vec![0_i32]);
    let mut size = Size::of_rows(a.rows());
    for row in 0..a.rows() {
        if !a.skips(row) {
            let mut series = Series::of(a, row)?;
            let start = all.len();
            while let Some(value) = series.next()? {
                if all.len() - start >= LENGTH_MAX {
                    return Err(too_long());
                }
                all.push(value);
            }
            size.add((all.len() - start) * size_of::<i64>())?;
        }
        offsets.push(i32::try_from(all.len()).map_err(|_| too_long())?);
    }
    let values = values(&all, a.element()?)?;
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let valid = (0..a.rows()).map(|row| !a.skips(row)).collect::<Vec<_>>();
    let offsets = OffsetBuffer::new(offsets.into());
    Ok(Arc::new(ListArray::try_new(field, offsets, values, Some(valid.into()))?))
}

/// Whether a step goes forward or back: a month counts as 30 days.
fn direction(step: IntervalMonthDayNano) -> Result<i128> {
    let days = i128::from(step.months) * 30 + i128::from(step.days);
    match (days * 86_400_000_000_000 + i128::from(step.nanoseconds)).signum() {
        0 => Err(zero_step()),
        sign => Ok(sign),
    }
}

fn subscripts(a: &Args<'_>) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(Int32Builder::new());
    for row in 0..a.rows() {
        if !a.skips(row)
            && let Some(length) = length_of(a, row, a.int(1, row))
        {
            let reverse = a.len() > 2 && a.boolean(2, row);
            let subscript = |i: i32| if reverse { length - i } else { i + 1 };
            (0..length).for_each(|i| out.values().append_value(subscript(i)));
        }
        out.append(!a.skips(row));
    }
    Ok(Arc::new(out.finish()))
}

/// 1, 2, .. to the length of the longest list: WITH ORDINALITY.
fn ordinality(a: &Args<'_>) -> Result<ArrayRef> {
    for i in 0..a.len() {
        let data_type = a.array(i).data_type();
        if !matches!(data_type, DataType::List(_) | DataType::Null) {
            let message = format!("{} is no array", pg_type_name(data_type));
            return Err(Error::user(sqlstate::DATATYPE_MISMATCH, message));
        }
    }
    let mut out = ListBuilder::new(Int64Builder::new());
    for row in 0..a.rows() {
        let length = |i: usize| if a.is_null(i, row) { 0 } else { Elements::of(a, i).len(row) };
        let longest = (0..a.len()).map(length).max().unwrap_or(0);
        (0..longest).for_each(|i| out.values().append_value(i as i64 + 1));
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}
