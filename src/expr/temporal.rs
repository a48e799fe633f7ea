//! Arithmetic of dates, times, timestamps and intervals, as PostgreSQL has it.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, IntervalMonthDayNanoArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::compute::kernels::numeric as kernels;
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};

use super::arith::{ArithOp, Typing, Value, run};
use super::numeric::division_by_zero;
use crate::delta::zone::Zone;
use crate::error::{Error, Result, sqlstate};

const DAY_US: i64 = 86_400_000_000;
const DAY_NS: i64 = DAY_US * 1_000;
const DAY_SECONDS: f64 = 86_400.0;
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);

/// The types of an operation; `None` where PostgreSQL has no such operator.
pub(crate) fn typing(op: ArithOp, left: &DataType, right: &DataType) -> Option<Typing> {
    use ArithOp::{Add, Div, Mul, Sub};
    use DataType::{Date32, Interval, Time64, Timestamp};
    let make =
        |left: DataType, right: DataType, result: DataType| Some(Typing { left, right, result });
    let us = |t: &DataType| match t {
        Timestamp(_, zone) => Timestamp(TimeUnit::Microsecond, zone.clone()),
        other => other.clone(),
    };
    match (op, left, right) {
        (Add | Sub, Timestamp(..), Interval(_)) => make(us(left), INTERVAL, us(left)),
        (Add, Interval(_), Timestamp(..)) => make(INTERVAL, us(right), us(right)),
        (Sub, Timestamp(_, lz), Timestamp(_, rz)) => {
            let t = if lz.is_some() { us(left) } else { us(right) };
            match lz.is_some() || rz.is_some() || *left == *right {
                true => make(t.clone(), t, INTERVAL),
                false => make(TIMESTAMP, TIMESTAMP, INTERVAL),
            }
        }
        (Sub, Timestamp(..), Date32) => make(us(left), us(left), INTERVAL),
        (Sub, Date32, Timestamp(..)) => make(us(right), us(right), INTERVAL),
        (Add | Sub, Date32, t) if t.is_integer() => make(Date32, DataType::Int32, Date32),
        (Add, t, Date32) if t.is_integer() => make(DataType::Int32, Date32, Date32),
        (Sub, Date32, Date32) => make(Date32, Date32, DataType::Int32),
        (Add | Sub, Date32, Interval(_)) => make(TIMESTAMP, INTERVAL, TIMESTAMP),
        (Add, Interval(_), Date32) => make(INTERVAL, TIMESTAMP, TIMESTAMP),
        (Add | Sub, Time64(_), Interval(_)) => make(TIME, INTERVAL, TIME),
        (Add, Interval(_), Time64(_)) => make(INTERVAL, TIME, TIME),
        (Add, Date32, Time64(_)) => make(TIMESTAMP, TIME, TIMESTAMP),
        (Add, Time64(_), Date32) => make(TIME, TIMESTAMP, TIMESTAMP),
        (Add, Timestamp(..), Time64(_)) => make(us(left), TIME, us(left)),
        (Add, Time64(_), Timestamp(..)) => make(TIME, us(right), us(right)),
        (Sub, Time64(_), Time64(_)) => make(TIME, TIME, INTERVAL),
        (Add | Sub, Interval(_), Interval(_)) => make(INTERVAL, INTERVAL, INTERVAL),
        (Mul | Div, Interval(_), t) if t.is_numeric() => {
            make(INTERVAL, DataType::Float64, INTERVAL)
        }
        (Mul, t, Interval(_)) if t.is_numeric() => make(DataType::Float64, INTERVAL, INTERVAL),
        _ => None,
    }
}

/// Evaluates an operation of types that [`typing`] gave.
pub(crate) fn evaluate(
    op: ArithOp,
    left: &Value,
    right: &Value,
    result: &DataType,
) -> Result<ArrayRef> {
    use DataType::{Date32, Float64, Interval, Time64, Timestamp};
    let overflow = |_| field_overflow();
    match (op, left.array.data_type(), right.array.data_type()) {
        (ArithOp::Add, Timestamp(..), Interval(_)) | (ArithOp::Add, Interval(_), Interval(_)) => {
            run(kernels::add, left, right).map_err(overflow)
        }
        (ArithOp::Add, Interval(_), Timestamp(..)) => {
            run(kernels::add, right, left).map_err(overflow)
        }
        (ArithOp::Sub, Timestamp(..), Interval(_)) | (ArithOp::Sub, Interval(_), Interval(_)) => {
            run(kernels::sub, left, right).map_err(overflow)
        }
        (ArithOp::Sub, Timestamp(..), Timestamp(..)) => rows(left, right, |l, r| {
            let (l, r) = (timestamps(l), timestamps(r));
            move |i, j| {
                Ok(interval_of_us(l.value(i).checked_sub(r.value(j)).ok_or_else(field_overflow)?))
            }
        }),
        (ArithOp::Sub, Date32, Date32) => dates(left, right, |l, r| l.checked_sub(r), result),
        (ArithOp::Add, Date32, _) | (ArithOp::Add, _, Date32) => {
            dates(left, right, |l, r| l.checked_add(r), result)
        }
        (ArithOp::Sub, Date32, _) => dates(left, right, |l, r| l.checked_sub(r), result),
        (_, Time64(_), Interval(_)) => time_shift(op, left, right),
        (ArithOp::Add, Interval(_), Time64(_)) => time_shift(op, right, left),
        (ArithOp::Add, Timestamp(..), Time64(_)) => at_time(left, right, result),
        (ArithOp::Add, Time64(_), Timestamp(..)) => at_time(right, left, result),
        (ArithOp::Sub, Time64(_), Time64(_)) => rows(left, right, |l, r| {
            let (l, r) = (times(l), times(r));
            move |i, j| Ok(IntervalMonthDayNano::new(0, 0, (l.value(i) - r.value(j)) * 1_000))
        }),
        (ArithOp::Mul, Float64, Interval(_)) => scale(ArithOp::Mul, right, left),
        (ArithOp::Mul | ArithOp::Div, Interval(_), Float64) => scale(op, left, right),
        (_, l, r) => Err(Error::internal(format!("no kernel for {l} {op} {r}"))),
    }
}

fn timestamps(a: &ArrayRef) -> &arrow::array::TimestampMicrosecondArray {
    a.as_primitive::<TimestampMicrosecondType>()
}

fn times(a: &ArrayRef) -> &Time64MicrosecondArray {
    a.as_primitive::<Time64MicrosecondType>()
}

/// Days and a rest below a day, both with the sign of the span.
fn interval_of_us(us: i64) -> IntervalMonthDayNano {
    let days = i32::try_from(us / DAY_US).unwrap_or(i32::MAX);
    IntervalMonthDayNano::new(0, days, us % DAY_US * 1_000)
}

fn rows_of(left: &Value, right: &Value) -> usize {
    if left.constant { right.array.len() } else { left.array.len() }
}

/// Builds an interval per row; the closure is given row numbers of left and right.
fn rows<'a, F, G>(left: &'a Value, right: &'a Value, bind: F) -> Result<ArrayRef>
where
    F: FnOnce(&'a ArrayRef, &'a ArrayRef) -> G,
    G: Fn(usize, usize) -> Result<IntervalMonthDayNano>,
{
    let value = bind(&left.array, &right.array);
    let out = (0..rows_of(left, right))
        .map(|i| {
            let (l, r) = (if left.constant { 0 } else { i }, if right.constant { 0 } else { i });
            match left.array.is_null(l) || right.array.is_null(r) {
                true => Ok(None),
                false => value(l, r).map(Some),
            }
        })
        .collect::<Result<IntervalMonthDayNanoArray>>()?;
    Ok(Arc::new(out))
}

/// The dates that PostgreSQL has, 4714-11-24 BC to 5874897-12-31, in days since 1970.
const DATES: std::ops::RangeInclusive<i32> = -2_440_588..=2_145_042_540;

/// Arithmetic on days, counted as 32-bit integers.
fn dates(
    left: &Value,
    right: &Value,
    combine: fn(i32, i32) -> Option<i32>,
    result: &DataType,
) -> Result<ArrayRef> {
    let days = |v: &Value| -> Result<Int32Array> {
        Ok(cast(&v.array, &DataType::Int32)?.as_primitive::<Int32Type>().clone())
    };
    let (l, r) = (days(left)?, days(right)?);
    let is_date = *result == DataType::Date32;
    let in_range = |days: &i32| !is_date || DATES.contains(days);
    let out = (0..rows_of(left, right))
        .map(|i| {
            let (i, j) = (if left.constant { 0 } else { i }, if right.constant { 0 } else { i });
            match l.is_null(i) || r.is_null(j) {
                true => Ok(None),
                false => {
                    combine(l.value(i), r.value(j)).filter(in_range).map(Some).ok_or_else(|| {
                        Error::user(sqlstate::DATETIME_FIELD_OVERFLOW, "date out of range")
                    })
                }
            }
        })
        .collect::<Result<Int32Array>>()?;
    Ok(cast(&out, result)?)
}

/// `date + time`, and a moment and a time of day.
fn at_time(day: &Value, time: &Value, result: &DataType) -> Result<ArrayRef> {
    let (days, times) = (timestamps(&day.array), times(&time.array));
    let out = (0..rows_of(day, time))
        .map(|i| {
            let (i, j) = (if day.constant { 0 } else { i }, if time.constant { 0 } else { i });
            match days.is_null(i) || times.is_null(j) {
                true => Ok(None),
                false => {
                    let sum = days.value(i).checked_add(times.value(j));
                    sum.map(Some).ok_or_else(field_overflow)
                }
            }
        })
        .collect::<Result<TimestampMicrosecondArray>>()?;
    Ok(Arc::new(out.with_data_type(result.clone())))
}

/// Between a time of day and the interval since midnight.
pub(super) fn cast_time(array: &ArrayRef, to: &DataType) -> ArrayRef {
    match to {
        DataType::Interval(_) => {
            let of = |us: i64| IntervalMonthDayNano::new(0, 0, us * 1_000);
            let values = times(array).iter().map(|us| us.map(of));
            Arc::new(values.collect::<IntervalMonthDayNanoArray>())
        }
        _ => {
            let of = |v: IntervalMonthDayNano| (v.nanoseconds / 1_000).rem_euclid(DAY_US);
            let values = array.as_primitive::<IntervalMonthDayNanoType>().iter();
            Arc::new(values.map(|v| v.map(of)).collect::<Time64MicrosecondArray>())
        }
    }
}

/// `time ± interval` goes round the clock; months and days do not move it.
fn time_shift(op: ArithOp, left: &Value, right: &Value) -> Result<ArrayRef> {
    let time = times(&left.array);
    let interval = right.array.as_primitive::<IntervalMonthDayNanoType>();
    let out: Time64MicrosecondArray = (0..rows_of(left, right))
        .map(|i| {
            let (i, j) = (if left.constant { 0 } else { i }, if right.constant { 0 } else { i });
            if time.is_null(i) || interval.is_null(j) {
                return None;
            }
            let us = interval.value(j).nanoseconds / 1_000 % DAY_US;
            let us = if op == ArithOp::Sub { -us } else { us };
            Some((time.value(i) + us).rem_euclid(DAY_US))
        })
        .collect();
    Ok(Arc::new(out))
}

/// `interval * factor` and `interval / divisor`; fractions of months become days of a 30-day month,
/// fractions of days become hours.
fn scale(op: ArithOp, interval: &Value, factor: &Value) -> Result<ArrayRef> {
    rows(interval, factor, |l, r| {
        let (l, r) =
            (l.as_primitive::<IntervalMonthDayNanoType>(), r.as_primitive::<Float64Type>());
        move |i, j| match op {
            ArithOp::Div if r.value(j) == 0.0 => Err(division_by_zero()),
            ArithOp::Div => divided(l.value(i), r.value(j)),
            _ => scaled(l.value(i), |part| part * r.value(j)),
        }
    })
}

/// An interval divided by a number that is not zero.
pub(super) fn divided(v: IntervalMonthDayNano, by: f64) -> Result<IntervalMonthDayNano> {
    scaled(v, |part| part / by)
}

/// An interval times a factor.
pub(super) fn interval_scaled(
    v: IntervalMonthDayNano,
    factor: f64,
) -> Result<IntervalMonthDayNano> {
    scaled(v, |part| part * factor)
}

/// Lengths of intervals, by which they compare: a month has 30 days.
pub(super) fn interval_order(intervals: &IntervalMonthDayNanoArray) -> Int64Array {
    intervals.iter().map(|v| v.map(interval_length)).collect()
}

/// The length of an interval in microseconds, where a month has 30 days.
pub(super) fn interval_length(v: IntervalMonthDayNano) -> i64 {
    let days = i64::from(v.months) * 30 + i64::from(v.days);
    days.saturating_mul(DAY_US).saturating_add(v.nanoseconds / 1_000)
}

fn scaled(v: IntervalMonthDayNano, scale: impl Fn(f64) -> f64) -> Result<IntervalMonthDayNano> {
    // Digits below a microsecond are noise of the operation.
    let cleaned = |value: f64| (value * 1e6).round_ties_even() / 1e6;
    let months = scale(f64::from(v.months));
    let month_days = cleaned(months.fract() * 30.0);
    let days = scale(f64::from(v.days));
    let seconds = cleaned((days.fract() + month_days.fract()) * DAY_SECONDS);
    let whole_days = days.trunc() + month_days.trunc() + (seconds / DAY_SECONDS).trunc();
    let us = scale(v.nanoseconds as f64 / 1_000.0) + seconds % DAY_SECONDS * 1e6;
    let us = us.round_ties_even();
    let in_range = months.abs() <= f64::from(i32::MAX)
        && whole_days.abs() <= f64::from(i32::MAX)
        && us.abs() <= (i64::MAX / 1_000) as f64;
    match in_range {
        true => Ok(IntervalMonthDayNano::new(months as i32, whole_days as i32, us as i64 * 1_000)),
        false => Err(interval_out_of_range()),
    }
}

/// `interval out of range`.
pub(super) fn interval_out_of_range() -> Error {
    Error::user(sqlstate::DATETIME_FIELD_OVERFLOW, "interval out of range")
}

/// `- interval`.
pub(crate) fn negate_interval(array: &ArrayRef) -> Result<ArrayRef> {
    let array = cast(array, &INTERVAL)?;
    let values = array.as_primitive::<IntervalMonthDayNanoType>().iter();
    let out = values.map(|v| v.map(negated).transpose());
    Ok(Arc::new(out.collect::<Result<IntervalMonthDayNanoArray>>()?))
}

/// An interval of the other direction.
pub(super) fn negated(v: IntervalMonthDayNano) -> Result<IntervalMonthDayNano> {
    match (v.months.checked_neg(), v.days.checked_neg(), v.nanoseconds.checked_neg()) {
        (Some(m), Some(d), Some(n)) => Ok(IntervalMonthDayNano::new(m, d, n)),
        _ => Err(interval_out_of_range()),
    }
}

/// The length of an interval without months, in microseconds; `None` with months or out of range.
pub fn interval_us(v: IntervalMonthDayNano) -> Option<i64> {
    match v.months {
        0 => (v.nanoseconds / 1_000).checked_add(i64::from(v.days).checked_mul(DAY_NS / 1_000)?),
        _ => None,
    }
}

fn field_overflow() -> Error {
    Error::user(sqlstate::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}

/// A moment plus an interval, whose months and days go by the calendar of a zone: the clock shows
/// the same on the other day, however many hours lie between.
pub(crate) fn add_interval_in(us: i64, by: IntervalMonthDayNano, zone: Zone) -> Result<i64> {
    let mut us = us;
    for part in [(by.months, 0), (0, by.days)] {
        if part != (0, 0) {
            let part = IntervalMonthDayNano::new(part.0, part.1, 0);
            us = zone.to_utc(add_interval_us(zone.to_local(us)?, part)?)?;
        }
    }
    us.checked_add(by.nanoseconds / 1_000).ok_or_else(field_overflow)
}

/// A timestamp in microseconds plus an interval: months first, kept within the month, then days,
/// then time.
pub(crate) fn add_interval_us(us: i64, interval: IntervalMonthDayNano) -> Result<i64> {
    let mut at = chrono::DateTime::from_timestamp_micros(us).ok_or_else(field_overflow)?;
    let months = chrono::Months::new(interval.months.unsigned_abs());
    at = match interval.months < 0 {
        true => at.checked_sub_months(months),
        false => at.checked_add_months(months),
    }
    .ok_or_else(field_overflow)?;
    let days = i64::from(interval.days).checked_mul(86_400_000_000);
    days.and_then(|days| at.timestamp_micros().checked_add(days))
        .and_then(|us| us.checked_add(interval.nanoseconds / 1_000))
        .ok_or_else(field_overflow)
}
