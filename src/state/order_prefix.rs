//! Order prefixes: the front of a row's sort key in 128 bits, made column by column for a batch.
//!
//! If `prefix(a) < prefix(b)` then row `a` sorts before row `b`; equal prefixes leave it open. Per
//! column: two bits say NULL or not on the side where NULLs sort, then come the bits of the value
//! in the order of its type (those of [`Keys`](crate::delta::Keys)), inverted where the order
//! descends. A value of variable length gives its first bytes and ends the prefix.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};

use super::column::{bytes_at, text_at};
use super::ranked::OrderBy;

/// The front of a sort key: two words, so that an entry needs no alignment to 16 bytes.
pub(crate) type Prefix = [u64; 2];

/// Above every prefix of a row: their first two bits are never both set.
pub(super) const ABOVE_ALL: Prefix = [u64::MAX; 2];

/// The prefixes of all rows of a batch.
pub(super) fn order_prefixes(columns: &[ArrayRef], order: &[OrderBy], rows: usize) -> Vec<Prefix> {
    let mut builder = Builder { prefixes: vec![0; rows], left: 128 };
    for by in order {
        if builder.left < 3 || !builder.column(&columns[by.column], *by) {
            break;
        }
    }
    builder.prefixes.iter().map(|p| [(p >> 64) as u64, *p as u64]).collect()
}

struct Builder {
    prefixes: Vec<u128>,
    /// Bits that are free at the end.
    left: u32,
}

impl Builder {
    /// Adds a column; false when nothing can come behind it.
    fn column(&mut self, array: &ArrayRef, by: OrderBy) -> bool {
        match array.data_type() {
            DataType::Boolean => {
                let values = array.as_boolean();
                self.bits(array, by, 1, |row| values.value(row).into())
            }
            DataType::Int16 => {
                self.number::<Int16Type>(array, by, 16, |v| (v as u16 ^ 1 << 15).into())
            }
            DataType::Int32 => {
                self.number::<Int32Type>(array, by, 32, |v| (v as u32 ^ 1 << 31).into())
            }
            DataType::Date32 => {
                self.number::<Date32Type>(array, by, 32, |v| (v as u32 ^ 1 << 31).into())
            }
            DataType::Int64 => self.number::<Int64Type>(array, by, 64, ordered),
            DataType::Time64(_) => self.number::<Time64MicrosecondType>(array, by, 64, ordered),
            DataType::Timestamp(..) => {
                self.number::<TimestampMicrosecondType>(array, by, 64, ordered)
            }
            DataType::Float32 => self.number::<Float32Type>(array, by, 64, |v| float(v.into())),
            DataType::Float64 => self.number::<Float64Type>(array, by, 64, float),
            DataType::Decimal128(..) => {
                self.number::<Decimal128Type>(array, by, 128, |v| v as u128 ^ 1 << 127)
            }
            DataType::Interval(_) => self.number::<IntervalMonthDayNanoType>(array, by, 128, |v| {
                let (months, days) = (v.months as u32 ^ 1 << 31, v.days as u32 ^ 1 << 31);
                u128::from(months) << 96 | u128::from(days) << 64 | ordered(v.nanoseconds)
            }),
            DataType::Utf8 | DataType::LargeUtf8 => {
                self.bits(array, by, 128, |row| front(text_at(array, row).as_bytes()));
                false
            }
            DataType::Binary | DataType::FixedSizeBinary(_) => {
                self.bits(array, by, 128, |row| front(bytes_at(array, row)));
                false
            }
            _ => false,
        }
    }

    fn number<T: ArrowPrimitiveType>(
        &mut self,
        array: &ArrayRef,
        by: OrderBy,
        width: u32,
        bits: impl Fn(T::Native) -> u128,
    ) -> bool {
        let values = array.as_primitive::<T>().values();
        self.bits(array, by, width, |row| bits(values[row]))
    }

    fn bits(
        &mut self,
        array: &ArrayRef,
        by: OrderBy,
        width: u32,
        bits: impl Fn(usize) -> u128,
    ) -> bool {
        let mark_at = self.left - 2;
        let taken = width.min(mark_at);
        let (cut, shift) = (width - taken, mark_at - taken);
        let invert = if by.descending { u128::MAX >> (128 - width) } else { 0 };
        let null = if by.nulls_first { 0 } else { 2_u128 << mark_at };
        let nulls = array.logical_nulls();
        for (row, prefix) in self.prefixes.iter_mut().enumerate() {
            *prefix |= match nulls.as_ref().is_some_and(|n| n.is_null(row)) {
                true => null,
                false => 1 << mark_at | ((bits(row) ^ invert) >> cut) << shift,
            };
        }
        self.left = shift;
        taken == width
    }
}

fn ordered(v: i64) -> u128 {
    (v as u64 ^ 1 << 63).into()
}

fn float(v: f64) -> u128 {
    let v = v + 0.0;
    let bits = if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() };
    let mask = ((bits as i64) >> 63) as u64 | 1 << 63;
    (bits ^ mask).into()
}

/// The first 16 bytes, zero-filled.
fn front(bytes: &[u8]) -> u128 {
    let mut first = [0; 16];
    let length = bytes.len().min(16);
    first[..length].copy_from_slice(&bytes[..length]);
    u128::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray};

    use super::*;

    fn ascending(column: usize) -> OrderBy {
        OrderBy { column, descending: false, nulls_first: false }
    }

    #[test]
    fn prefixes_follow_the_order_of_values_and_nulls() {
        let ints: ArrayRef =
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(-1), Some(0), Some(7), None]));
        let up = order_prefixes(std::slice::from_ref(&ints), &[ascending(0)], 5);
        assert!(up.windows(2).all(|w| w[0] < w[1]), "{up:x?}");
        let down = OrderBy { descending: true, nulls_first: true, ..ascending(0) };
        let down = order_prefixes(&[ints], &[down], 5);
        assert!(down.windows(2).all(|w| w[0] > w[1]), "{down:x?}");
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![
            f64::NEG_INFINITY,
            -1.5,
            0.0,
            1e-9,
            f64::INFINITY,
            f64::NAN,
        ]));
        let up = order_prefixes(&[floats], &[ascending(0)], 6);
        assert!(up.windows(2).all(|w| w[0] < w[1]), "{up:x?}");
    }

    #[test]
    fn what_does_not_fit_is_left_open() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![
            "",
            "a",
            "a long text that goes on",
            "a long text that ends",
            "b",
        ]));
        let more: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]));
        let both = order_prefixes(&[more.clone(), text], &[ascending(1), ascending(0)], 5);
        assert!(both[0] < both[1] && both[1] < both[2] && both[3] < both[4]);
        assert_eq!(both[2], both[3]);
        // The second number loses its last four bits.
        let columns = [more.clone(), more];
        let both = order_prefixes(&columns, &[ascending(0), ascending(1)], 5);
        assert!(both.windows(2).all(|w| w[0] < w[1]) && both.iter().all(|p| *p < ABOVE_ALL));
    }
}
