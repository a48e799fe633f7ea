//! Series: `generate_series` and its kin as lists, which FROM and SELECT unnest.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Builder, Int32Builder, Int64Builder, ListBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, IntervalMonthDayNano};

use super::args::Args;
use super::array::length_of;
use super::gather::Elements;
use super::{Def, Nulls};
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};
use crate::expr::numeric::rescale;
use crate::expr::temporal::add_interval_us;

pub(super) const FUNCTIONS: &[Def] = &[
    ("generate_series(int, int) -> int[]", Nulls::Strict, ints),
    ("generate_series(int, int, int) -> int[]", Nulls::Strict, ints),
    ("generate_series(bigint, bigint) -> bigint[]", Nulls::Strict, bigints),
    ("generate_series(bigint, bigint, bigint) -> bigint[]", Nulls::Strict, bigints),
    ("generate_series(numeric, numeric) -> numeric[]", Nulls::Strict, numerics),
    ("generate_series(numeric, numeric, numeric) -> numeric[]", Nulls::Strict, numerics),
    ("generate_series(timestamp, timestamp, interval) -> timestamp[]", Nulls::Strict, timestamps),
    (
        "generate_series(timestamptz, timestamptz, interval) -> timestamptz[]",
        Nulls::Strict,
        timestamps,
    ),
    ("generate_subscripts(anyarray, int) -> int[]", Nulls::Strict, subscripts),
    ("generate_subscripts(anyarray, int, boolean) -> int[]", Nulls::Strict, subscripts),
    ("pg_ordinality(any...) -> bigint[]", Nulls::Seen, ordinality),
];

/// Longer series are refused: they are made as a whole.
const LENGTH_MAX: u64 = 10_000_000;

fn zero_step() -> Error {
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, "step size cannot equal zero")
}

fn too_long() -> Error {
    Error::user("54000", "this series is too long")
        .with_hint(format!("A series has at most {LENGTH_MAX} values."))
}

/// The values from `start` to `end` by `step`.
fn count(start: i128, end: i128, step: i128) -> Result<u64> {
    if step == 0 {
        return Err(zero_step());
    }
    if if step > 0 { end < start } else { start < end } {
        return Ok(0);
    }
    // From one end of the numerics to the other is more than a signed number holds.
    let steps = end.abs_diff(start) / step.unsigned_abs();
    let steps = u64::try_from(steps).unwrap_or(u64::MAX);
    if steps < LENGTH_MAX { Ok(steps + 1) } else { Err(too_long()) }
}

fn ints(a: &Args<'_>) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(Int32Builder::new());
    for row in 0..a.rows() {
        if !a.skips(row) {
            let step = if a.len() > 2 { a.int(2, row) } else { 1 };
            let (start, end) = (i128::from(a.int(0, row)), i128::from(a.int(1, row)));
            for i in 0..count(start, end, step.into())? {
                let value = start + i128::from(i) * i128::from(step);
                out.values().append_value(value as i32);
            }
        }
        out.append(!a.skips(row));
    }
    Ok(Arc::new(out.finish()))
}

fn bigints(a: &Args<'_>) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(Int64Builder::new());
    for row in 0..a.rows() {
        if !a.skips(row) {
            let step = if a.len() > 2 { a.bigint(2, row) } else { 1 };
            let (start, end) = (i128::from(a.bigint(0, row)), i128::from(a.bigint(1, row)));
            for i in 0..count(start, end, step.into())? {
                let value = start + i128::from(i) * i128::from(step);
                out.values().append_value(value as i64);
            }
        }
        out.append(!a.skips(row));
    }
    Ok(Arc::new(out.finish()))
}

fn numerics(a: &Args<'_>) -> Result<ArrayRef> {
    let DataType::List(field) = a.result() else {
        return Err(Error::internal("a series is a list"));
    };
    let DataType::Decimal128(p, s) = *field.data_type() else {
        return Err(Error::internal("a series of numerics"));
    };
    let values = Decimal128Builder::new().with_data_type(DataType::Decimal128(p, s));
    let mut out = ListBuilder::new(values);
    for row in 0..a.rows() {
        if !a.skips(row) {
            let at = |i: usize| {
                let (value, scale) = a.numeric(i, row);
                rescale(value, scale, p, s)
            };
            let step = if a.len() > 2 { at(2)? } else { rescale(1, 0, p, s)? };
            let (start, end) = (at(0)?, at(1)?);
            let mut value = start;
            for i in 0..count(start, end, step)? {
                value += if i > 0 { step } else { 0 };
                out.values().append_value(value);
            }
        }
        out.append(!a.skips(row));
    }
    Ok(Arc::new(out.finish()))
}

fn timestamps(a: &Args<'_>) -> Result<ArrayRef> {
    let DataType::List(field) = a.result() else {
        return Err(Error::internal("a series is a list"));
    };
    let values = TimestampMicrosecondBuilder::new().with_data_type(field.data_type().clone());
    let mut out = ListBuilder::new(values);
    for row in 0..a.rows() {
        if !a.skips(row) {
            let (start, end, step) = (a.micros(0, row), a.micros(1, row), a.interval(2, row));
            let sign = direction(step)?;
            let (mut at, mut length) = (start, 0);
            while if sign > 0 { at <= end } else { at >= end } {
                out.values().append_value(at);
                at = add_interval_us(at, step)?;
                length += 1;
                if length > LENGTH_MAX {
                    return Err(too_long());
                }
            }
        }
        out.append(!a.skips(row));
    }
    Ok(Arc::new(out.finish()))
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
