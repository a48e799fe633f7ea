//! `min` and `max`.
//!
//! Over input that is never retracted: the extreme alone, in the group's line when it is a number,
//! as a multiset of one when it is text or bytes. Over input that can be retracted: an ordered
//! multiset of all values, so that the next extreme is at hand when one goes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, PrimitiveBuilder, StringBuilder,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};

use super::{Aggregate, Emitted, Folds, Rows, Signature, StateAt, argument, unsupported};
use crate::error::{Error, Result};
use crate::state::{GroupTable, Multiset, MultisetsMut, OrderedValue};

pub(crate) fn min(signature: &Signature) -> Result<Box<dyn Aggregate>> {
    create(signature, "min", Extreme::Min)
}

pub(crate) fn max(signature: &Signature) -> Result<Box<dyn Aggregate>> {
    create(signature, "max", Extreme::Max)
}

fn create(signature: &Signature, name: &str, extreme: Extreme) -> Result<Box<dyn Aggregate>> {
    let data_type = argument(signature, name)?;
    let long = matches!(data_type, DataType::Utf8 | DataType::Binary);
    if !long && !is_number(&data_type) {
        return Err(unsupported(name, &data_type));
    }
    Ok(match (signature.append_only, long) {
        (true, false) => Box::new(InLine { data_type, extreme }),
        (append_only, _) => Box::new(InMultiset { data_type, extreme, append_only }),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extreme {
    Min,
    Max,
}

impl Extreme {
    #[inline]
    fn is_better<T: PartialOrd>(self, new: T, old: T) -> bool {
        match self {
            Self::Min => new < old,
            Self::Max => new > old,
        }
    }

    fn of(self, set: &Multiset) -> Option<&OrderedValue> {
        match self {
            Self::Min => set.first(),
            Self::Max => set.last(),
        }
    }
}

/// Words: the value (low, high), the count of values.
#[derive(Debug)]
struct InLine {
    data_type: DataType,
    extreme: Extreme,
}

impl Aggregate for InLine {
    fn words(&self) -> usize {
        3
    }

    fn update(&self, table: &mut GroupTable, at: StateAt, rows: Rows<'_>) -> Result<()> {
        let values = rows.value()?;
        let numbers = ordered_numbers(values)?;
        let slab = table.slab_mut();
        rows.for_each(|row, slot, weight| {
            let words = &mut slab.words_mut(slot)[at.word..at.word + 3];
            let old = (u128::from(words[0]) | u128::from(words[1]) << 64) as i128;
            if words[2] == 0 || self.extreme.is_better(numbers[row], old) {
                words[0] = numbers[row] as u64;
                words[1] = (numbers[row] as u128 >> 64) as u64;
            }
            words[2] = words[2].wrapping_add(weight as u64);
        });
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
        Folds::GrowingWords
    }

    fn add_words(&self, words: &mut [u64], other: &[u64]) {
        let value = |words: &[u64]| (u128::from(words[0]) | u128::from(words[1]) << 64) as i128;
        let better = || self.extreme.is_better(value(other), value(words));
        if other[2] != 0 && (words[2] == 0 || better()) {
            words[..2].copy_from_slice(&other[..2]);
        }
        words[2] = words[2].wrapping_add(other[2]);
    }

    fn emit(&self, table: &GroupTable, at: StateAt, slots: &[u32]) -> Result<Emitted> {
        let values = slots.iter().map(|slot| {
            let words = &table.slab().words(*slot)[at.word..at.word + 3];
            let value = (u128::from(words[0]) | u128::from(words[1]) << 64) as i128;
            (words[2] != 0).then_some(value)
        });
        Ok(Emitted::all(numbers_to_array(values.collect(), &self.data_type)?))
    }
}

/// No words, one multiset.
#[derive(Debug)]
struct InMultiset {
    data_type: DataType,
    extreme: Extreme,
    append_only: bool,
}

impl InMultiset {
    fn add(&self, sets: &mut MultisetsMut<'_>, slot: u32, value: OrderedValue, weight: i64) {
        if !self.append_only {
            sets.add(slot, value, weight);
            return;
        }
        let old = self.extreme.of(sets.get(slot));
        if old.is_none_or(|old| self.extreme.is_better(&value, old)) {
            sets.replace(slot, value);
        }
    }

    /// The same, without a copy of bytes that change nothing.
    fn add_bytes(&self, sets: &mut MultisetsMut<'_>, slot: u32, value: &[u8], weight: i64) {
        let old = self.extreme.of(sets.get(slot));
        if let Some(OrderedValue::Bytes(old)) = old.filter(|_| self.append_only)
            && !self.extreme.is_better(value, old)
        {
            return;
        }
        self.add(sets, slot, OrderedValue::Bytes(value.into()), weight);
    }
}

impl Aggregate for InMultiset {
    fn words(&self) -> usize {
        0
    }

    fn multisets(&self) -> usize {
        1
    }

    fn update(&self, table: &mut GroupTable, at: StateAt, rows: Rows<'_>) -> Result<()> {
        let values = rows.value()?;
        let mut sets = table.multisets_mut(at.multiset);
        match values.data_type() {
            DataType::Utf8 => {
                let values = values.as_string::<i32>();
                rows.for_each(|row, slot, weight| {
                    self.add_bytes(&mut sets, slot, values.value(row).as_bytes(), weight);
                });
            }
            DataType::Binary => {
                let values = values.as_binary::<i32>();
                rows.for_each(|row, slot, weight| {
                    self.add_bytes(&mut sets, slot, values.value(row), weight);
                });
            }
            _ => {
                let numbers = ordered_numbers(values)?;
                rows.for_each(|row, slot, weight| {
                    let value = OrderedValue::Number(numbers[row]);
                    self.add(&mut sets, slot, value, weight);
                });
            }
        }
        Ok(())
    }

    fn merges(&self) -> bool {
        self.append_only
    }

    fn folds(&self) -> Folds {
        if self.append_only { Folds::Value } else { Folds::Not }
    }

    fn merge(&self, table: &mut GroupTable, at: StateAt, from: u32, into: u32) -> Result<()> {
        let mut sets = table.multisets_mut(at.multiset);
        if let Some(value) = self.extreme.of(sets.get(from)).cloned() {
            self.add(&mut sets, into, value, 1);
        }
        Ok(())
    }

    fn emit(&self, table: &GroupTable, at: StateAt, slots: &[u32]) -> Result<Emitted> {
        let sets = table.multisets(at.multiset);
        let values = slots.iter().map(|slot| self.extreme.of(&sets[*slot as usize]));
        let array: ArrayRef = match self.data_type {
            DataType::Utf8 => {
                let mut builder = StringBuilder::new();
                for value in values {
                    builder.append_option(value.and_then(as_text));
                }
                Arc::new(builder.finish())
            }
            DataType::Binary => {
                let mut builder = BinaryBuilder::new();
                for value in values {
                    builder.append_option(value.and_then(|v| match v {
                        OrderedValue::Bytes(b) => Some(b.as_ref()),
                        OrderedValue::Number(_) => None,
                    }));
                }
                Arc::new(builder.finish())
            }
            _ => {
                let numbers = values.map(|v| match v {
                    Some(OrderedValue::Number(n)) => Some(*n),
                    _ => None,
                });
                numbers_to_array(numbers.collect(), &self.data_type)?
            }
        };
        Ok(Emitted::all(array))
    }

    fn grows_with(&self) -> Option<&'static str> {
        (!self.append_only).then_some("distinct values of a group")
    }
}

fn as_text(value: &OrderedValue) -> Option<&str> {
    match value {
        OrderedValue::Bytes(b) => std::str::from_utf8(b).ok(),
        OrderedValue::Number(_) => None,
    }
}

fn is_number(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(..)
            | DataType::Date32
            | DataType::Time64(TimeUnit::Microsecond)
            | DataType::Timestamp(TimeUnit::Microsecond, _)
    )
}

/// Values as integers in the order of their type; what stands for a NULL has no meaning.
fn ordered_numbers(array: &ArrayRef) -> Result<Vec<i128>> {
    macro_rules! widen {
        ($t:ty) => {
            array.as_primitive::<$t>().values().iter().map(|v| i128::from(*v)).collect()
        };
    }
    Ok(match array.data_type() {
        DataType::Boolean => array.as_boolean().values().iter().map(i128::from).collect(),
        DataType::Int16 => widen!(Int16Type),
        DataType::Int32 => widen!(Int32Type),
        DataType::Int64 => widen!(Int64Type),
        DataType::Decimal128(..) => widen!(Decimal128Type),
        DataType::Date32 => widen!(Date32Type),
        DataType::Time64(_) => widen!(Time64MicrosecondType),
        DataType::Timestamp(..) => widen!(TimestampMicrosecondType),
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>().values();
            values.iter().map(|v| ordered_float(f64::from(*v))).collect()
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>().values();
            values.iter().map(|v| ordered_float(*v)).collect()
        }
        other => return Err(Error::internal(format!("min got a column of type {other}"))),
    })
}

/// Floats in order as integers: NaN above infinity, `-0.0` equal to `0.0`.
fn ordered_float(value: f64) -> i128 {
    let bits = if value.is_nan() { f64::NAN.to_bits() } else { (value + 0.0).to_bits() } as i64;
    i128::from(bits ^ (((bits >> 63) as u64) >> 1) as i64)
}

fn plain_float(number: i128) -> f64 {
    let bits = number as i64;
    f64::from_bits((bits ^ (((bits >> 63) as u64) >> 1) as i64) as u64)
}

fn numbers_to_array(numbers: Vec<Option<i128>>, data_type: &DataType) -> Result<ArrayRef> {
    fn build<T: ArrowPrimitiveType>(
        numbers: &[Option<i128>],
        data_type: &DataType,
        narrow: impl Fn(i128) -> T::Native,
    ) -> ArrayRef {
        let mut builder =
            PrimitiveBuilder::<T>::with_capacity(numbers.len()).with_data_type(data_type.clone());
        numbers.iter().for_each(|n| builder.append_option(n.map(&narrow)));
        Arc::new(builder.finish())
    }
    Ok(match data_type {
        DataType::Boolean => {
            let mut builder = BooleanBuilder::with_capacity(numbers.len());
            numbers.iter().for_each(|n| builder.append_option(n.map(|n| n != 0)));
            Arc::new(builder.finish())
        }
        DataType::Int16 => build::<Int16Type>(&numbers, data_type, |n| n as i16),
        DataType::Int32 => build::<Int32Type>(&numbers, data_type, |n| n as i32),
        DataType::Int64 => build::<Int64Type>(&numbers, data_type, |n| n as i64),
        DataType::Decimal128(..) => build::<Decimal128Type>(&numbers, data_type, |n| n),
        DataType::Date32 => build::<Date32Type>(&numbers, data_type, |n| n as i32),
        DataType::Time64(_) => build::<Time64MicrosecondType>(&numbers, data_type, |n| n as i64),
        DataType::Timestamp(..) => {
            build::<TimestampMicrosecondType>(&numbers, data_type, |n| n as i64)
        }
        DataType::Float32 => build::<Float32Type>(&numbers, data_type, |n| plain_float(n) as f32),
        DataType::Float64 => build::<Float64Type>(&numbers, data_type, plain_float),
        other => return Err(Error::internal(format!("min can't be of type {other}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_keep_their_order_as_integers() {
        let values = [f64::NEG_INFINITY, -2.5, -0.0, 1e-300, 7.0, f64::INFINITY, f64::NAN];
        let numbers: Vec<i128> = values.iter().map(|v| ordered_float(*v)).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b));
        assert_eq!(ordered_float(-0.0), ordered_float(0.0));
        assert!(numbers.iter().zip(values).all(|(n, v)| plain_float(*n) == v || v.is_nan()));
    }
}
