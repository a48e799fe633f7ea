//! `sum` and `avg`, exact over integers and numeric, compensated over floats.
//!
//! Integers and numeric: a 128-bit sum and the count of values. The sum itself can't overflow for
//! the bigint (2^64 rows); what does not fit the result type is an error of the group, which goes
//! when the group changes. Floats: a double-double sum (Dekker; Knuth's two-sum) of the finite
//! values, and counts of NaN and of both infinities, so that a retracted infinity leaves no trace;
//! the sum of no value is exactly zero again. Intervals: sums of their parts.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Decimal128Builder, Float32Builder, Float64Builder, Int64Builder,
    IntervalMonthDayNanoArray,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType,
};

use super::{Aggregate, Emitted, Folds, Rows, Signature, StateAt, argument, unsupported};
use crate::delta::Weight;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{INTERVAL_WORDS, IntervalTotal};
use crate::state::GroupTable;

pub(crate) fn sum(signature: &Signature) -> Result<Box<dyn Aggregate>> {
    create(signature, "sum", false)
}

pub(crate) fn avg(signature: &Signature) -> Result<Box<dyn Aggregate>> {
    create(signature, "avg", true)
}

fn create(signature: &Signature, name: &str, divide: bool) -> Result<Box<dyn Aggregate>> {
    let argument = argument(signature, name)?;
    let result = signature.result.clone();
    Ok(match (&argument, &result) {
        (DataType::Int16 | DataType::Int32 | DataType::Int64, _)
        | (DataType::Decimal128(..), _)
            if matches!(result, DataType::Int64 | DataType::Decimal128(..)) =>
        {
            let scale = if let DataType::Decimal128(_, s) = argument { s } else { 0 };
            Box::new(Exact { result, scale, divide })
        }
        (DataType::Float32 | DataType::Float64, DataType::Float32 | DataType::Float64) => {
            Box::new(Float { result, divide })
        }
        (DataType::Interval(_), _) => Box::new(Intervals { divide }),
        _ => return Err(unsupported(name, &argument)),
    })
}

/// Words: sum (low, high), count.
#[derive(Debug)]
struct Exact {
    result: DataType,
    /// Digits behind the point of the argument.
    scale: i8,
    divide: bool,
}

fn sum_of(words: &[u64]) -> i128 {
    (u128::from(words[0]) | u128::from(words[1]) << 64) as i128
}

#[inline]
fn add(words: &mut [u64], value: i128, weight: Weight) {
    // Wrapping: a sum that has left the range comes back when rows are retracted, and 38 digits of
    // numeric leave room for it to be told apart when it is emitted.
    let sum = sum_of(words).wrapping_add(value.wrapping_mul(i128::from(weight)));
    words[0] = sum as u64;
    words[1] = (sum as u128 >> 64) as u64;
    words[2] = words[2].wrapping_add(weight as u64);
}

impl Exact {
    /// The value of a group, `None` for NULL.
    fn value(&self, words: &[u64]) -> Result<Option<i128>> {
        let count = words[2] as i64;
        if count == 0 {
            return Ok(None);
        }
        let sum = sum_of(words);
        let out_of_range = || {
            let name = crate::delta::text::pg_type_name(&self.result);
            Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, format!("{name} out of range"))
        };
        let target = if let DataType::Decimal128(_, s) = self.result { s } else { 0 };
        let mut value = sum;
        for _ in self.scale..target {
            value = value.checked_mul(10).ok_or_else(out_of_range)?;
        }
        if self.divide {
            value = divide_half_away(value, i128::from(count));
        }
        let fits = match self.result {
            DataType::Int64 => i64::try_from(value).is_ok(),
            _ => value.unsigned_abs() < 10_u128.pow(38),
        };
        if fits { Ok(Some(value)) } else { Err(out_of_range()) }
    }
}

/// Division rounded half away from zero, as PostgreSQL's numeric.
fn divide_half_away(value: i128, by: i128) -> i128 {
    let (quotient, rest) = (value / by, value % by);
    if rest.unsigned_abs() * 2 >= by.unsigned_abs() {
        quotient + if (value < 0) == (by < 0) { 1 } else { -1 }
    } else {
        quotient
    }
}

impl Aggregate for Exact {
    fn words(&self) -> usize {
        3
    }

    fn update(&self, table: &mut GroupTable, at: StateAt, rows: Rows<'_>) -> Result<()> {
        let values = rows.value()?;
        let slab = table.slab_mut();
        macro_rules! each {
            ($t:ty) => {{
                let values = values.as_primitive::<$t>().values();
                rows.for_each(|row, slot, weight| {
                    let words = &mut slab.words_mut(slot)[at.word..at.word + 3];
                    add(words, i128::from(values[row]), weight);
                });
            }};
        }
        match values.data_type() {
            DataType::Int16 => each!(Int16Type),
            DataType::Int32 => each!(Int32Type),
            DataType::Int64 => each!(Int64Type),
            DataType::Decimal128(..) => each!(Decimal128Type),
            other => return Err(Error::internal(format!("sum got a column of type {other}"))),
        }
        Ok(())
    }

    fn merges(&self) -> bool {
        true
    }

    fn merge(&self, table: &mut GroupTable, at: StateAt, from: u32, into: u32) -> Result<()> {
        let slab = table.slab_mut();
        let other = &slab.words(from)[at.word..at.word + 3];
        let other = [other[0], other[1], other[2]];
        self.add_words(&mut slab.words_mut(into)[at.word..at.word + 3], &other);
        Ok(())
    }

    fn folds(&self) -> Folds {
        Folds::Words
    }

    fn add_words(&self, words: &mut [u64], other: &[u64]) {
        let sum = sum_of(words).wrapping_add(sum_of(other));
        words[0] = sum as u64;
        words[1] = (sum as u128 >> 64) as u64;
        words[2] = words[2].wrapping_add(other[2]);
    }

    fn emit(&self, table: &GroupTable, at: StateAt, slots: &[u32]) -> Result<Emitted> {
        let mut failed = Vec::new();
        let mut values = Vec::with_capacity(slots.len());
        for (position, slot) in slots.iter().enumerate() {
            values.push(self.value(&table.slab().words(*slot)[at.word..]).unwrap_or_else(|e| {
                failed.push((position, e));
                None
            }));
        }
        let values: ArrayRef = if self.result == DataType::Int64 {
            let mut builder = Int64Builder::with_capacity(slots.len());
            values.iter().for_each(|v| builder.append_option(v.map(|v| v as i64)));
            Arc::new(builder.finish())
        } else {
            let mut builder =
                Decimal128Builder::with_capacity(slots.len()).with_data_type(self.result.clone());
            values.iter().for_each(|v| builder.append_option(*v));
            Arc::new(builder.finish())
        };
        Ok(Emitted { values, failed })
    }
}

/// Words: high and low part of the finite sum, counts of values, NaN, +infinity, -infinity.
#[derive(Debug)]
struct Float {
    result: DataType,
    divide: bool,
}

const FLOAT_WORDS: usize = 6;

#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let t = s - a;
    (s, (a - (s - t)) + (b - t))
}

#[inline]
fn add_float(words: &mut [u64], value: f64, weight: Weight) {
    let bump = |word: &mut u64| *word = word.wrapping_add(weight as u64);
    bump(&mut words[2]);
    if value.is_nan() {
        bump(&mut words[3]);
    } else if value.is_infinite() {
        bump(&mut words[if value > 0.0 { 4 } else { 5 }]);
    } else {
        let (high, low) = (f64::from_bits(words[0]), f64::from_bits(words[1]));
        // The product with a weight beyond 2^53 would not be exact; no real weight gets there.
        let (sum, error) = two_sum(high, value * weight as f64);
        let (high, low) = two_sum(sum, error + low);
        words[0] = high.to_bits();
        words[1] = low.to_bits();
    }
    let finite = words[2].wrapping_sub(words[3]).wrapping_sub(words[4]).wrapping_sub(words[5]);
    if finite == 0 {
        words[0] = 0;
        words[1] = 0;
    }
}

/// Adds the state of a group to that of another.
fn merge_floats(words: &mut [u64], other: &[u64]) {
    for (word, other) in words.iter_mut().zip(other).skip(2) {
        *word = word.wrapping_add(*other);
    }
    let (sum, error) = two_sum(f64::from_bits(words[0]), f64::from_bits(other[0]));
    let rest = f64::from_bits(words[1]) + f64::from_bits(other[1]);
    let (high, low) = two_sum(sum, error + rest);
    words[0] = high.to_bits();
    words[1] = low.to_bits();
}

impl Float {
    fn value(&self, words: &[u64]) -> Option<f64> {
        let (count, nan) = (words[2] as i64, words[3] != 0);
        let sum = match (nan, words[4] != 0, words[5] != 0) {
            _ if count == 0 => return None,
            (true, ..) | (_, true, true) => f64::NAN,
            (_, true, _) => f64::INFINITY,
            (_, _, true) => f64::NEG_INFINITY,
            _ => f64::from_bits(words[0]) + f64::from_bits(words[1]),
        };
        Some(if self.divide { sum / count as f64 } else { sum })
    }
}

impl Aggregate for Float {
    fn words(&self) -> usize {
        FLOAT_WORDS
    }

    fn update(&self, table: &mut GroupTable, at: StateAt, rows: Rows<'_>) -> Result<()> {
        let values = rows.value()?;
        let slab = table.slab_mut();
        let words = at.word..at.word + FLOAT_WORDS;
        if let Some(values) = values.as_primitive_opt::<Float32Type>() {
            rows.for_each(|row, slot, weight| {
                let value = f64::from(values.value(row));
                add_float(&mut slab.words_mut(slot)[words.clone()], value, weight);
            });
        } else {
            let values = values.as_primitive::<Float64Type>();
            rows.for_each(|row, slot, weight| {
                add_float(&mut slab.words_mut(slot)[words.clone()], values.value(row), weight);
            });
        }
        Ok(())
    }

    fn merges(&self) -> bool {
        true
    }

    fn merge(&self, table: &mut GroupTable, at: StateAt, from: u32, into: u32) -> Result<()> {
        let range = at.word..at.word + FLOAT_WORDS;
        let slab = table.slab_mut();
        let mut other = [0; FLOAT_WORDS];
        other.copy_from_slice(&slab.words(from)[range.clone()]);
        merge_floats(&mut slab.words_mut(into)[range], &other);
        Ok(())
    }

    fn folds(&self) -> Folds {
        // What retractions leave of a sum of floats is told by the count of its own rows.
        Folds::GrowingWords
    }

    fn add_words(&self, words: &mut [u64], other: &[u64]) {
        merge_floats(words, other);
    }

    fn emit(&self, table: &GroupTable, at: StateAt, slots: &[u32]) -> Result<Emitted> {
        let values = slots.iter().map(|slot| self.value(&table.slab().words(*slot)[at.word..]));
        let values: ArrayRef = if self.result == DataType::Float32 {
            let mut builder = Float32Builder::with_capacity(slots.len());
            values.for_each(|v| builder.append_option(v.map(|v| v as f32)));
            Arc::new(builder.finish())
        } else {
            let mut builder = Float64Builder::with_capacity(slots.len());
            values.for_each(|v| builder.append_option(v));
            Arc::new(builder.finish())
        };
        Ok(Emitted::all(values))
    }
}

/// Words: those of [`IntervalTotal`].
#[derive(Debug)]
struct Intervals {
    divide: bool,
}

impl Aggregate for Intervals {
    fn words(&self) -> usize {
        INTERVAL_WORDS
    }

    fn update(&self, table: &mut GroupTable, at: StateAt, rows: Rows<'_>) -> Result<()> {
        let values = rows.value()?.as_primitive::<IntervalMonthDayNanoType>();
        let slab = table.slab_mut();
        rows.for_each(|row, slot, weight| {
            let words = &mut slab.words_mut(slot)[at.word..at.word + INTERVAL_WORDS];
            let mut total = IntervalTotal::read(words);
            total.add(values.value(row), weight);
            total.write(words);
        });
        Ok(())
    }

    fn emit(&self, table: &GroupTable, at: StateAt, slots: &[u32]) -> Result<Emitted> {
        let mut failed = Vec::new();
        let value = |(position, slot): (usize, &u32)| {
            let total = IntervalTotal::read(&table.slab().words(*slot)[at.word..]);
            let value = if self.divide { total.mean() } else { total.sum() };
            value.unwrap_or_else(|e| {
                failed.push((position, e));
                None
            })
        };
        let values: IntervalMonthDayNanoArray = slots.iter().enumerate().map(value).collect();
        Ok(Emitted { values: Arc::new(values), failed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_round_half_away_from_zero() {
        assert_eq!(divide_half_away(5, 2), 3);
        assert_eq!(divide_half_away(-5, 2), -3);
        assert_eq!(divide_half_away(4, 3), 1);
    }

    #[test]
    fn retracted_infinities_and_huge_values_leave_no_trace() {
        let mut words = [0_u64; FLOAT_WORDS];
        let float = Float { result: DataType::Float64, divide: false };
        for value in [0.1, 1e300, f64::INFINITY, f64::NAN] {
            add_float(&mut words, value, 1);
        }
        assert!(float.value(&words).is_some_and(f64::is_nan));
        add_float(&mut words, f64::NAN, -1);
        assert_eq!(float.value(&words), Some(f64::INFINITY));
        add_float(&mut words, f64::INFINITY, -1);
        add_float(&mut words, 1e300, -1);
        add_float(&mut words, 0.1, -1);
        assert_eq!(float.value(&words), None);
        assert_eq!(words, [0; FLOAT_WORDS]);
    }
}
