//! Single values out of pages and Arrow arrays, compared as key bytes compare: NULL apart, `-0.0`
//! equal to `0.0`, NaN above all numbers, text by its bytes. For the few comparisons that order
//! prefixes leave open; columns are compared nowhere this way.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, UInt32Array};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};

use super::column::{PageColumn, Values, bytes_at, list_keys, text_at};

/// The columns of a batch as cells are taken from them: arrays as their key bytes.
pub(super) fn comparable(columns: &[ArrayRef]) -> Vec<ArrayRef> {
    let keys = |column: &ArrayRef| {
        let rows = UInt32Array::from_iter_values(0..column.len() as u32);
        let keys = list_keys(column, &rows);
        let value = |row: usize| keys.as_ref().filter(|_| column.is_valid(row)).map(|k| k.key(row));
        Arc::new((0..column.len()).map(value).collect::<BinaryArray>()) as ArrayRef
    };
    let one = |column: &ArrayRef| match column.data_type() {
        DataType::List(_) => keys(column),
        _ => column.clone(),
    };
    columns.iter().map(one).collect()
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Wide(i128),
    Float(f64),
    Interval(IntervalMonthDayNano),
    Bytes(&'a [u8]),
}

impl<'a> Cell<'a> {
    /// A value of a page.
    pub(super) fn of_page(column: &'a PageColumn, row: usize) -> Self {
        if column.is_null(row) {
            return Self::Null;
        }
        match &column.values {
            Values::Null => Self::Null,
            Values::Bool(v) => Self::Bool(v[row]),
            Values::I16(v) => Self::Int(v[row].into()),
            Values::I32(v) => Self::Int(v[row].into()),
            Values::I64(v) => Self::Int(v[row]),
            Values::F32(v) => Self::Float(v[row].into()),
            Values::F64(v) => Self::Float(v[row]),
            Values::Narrow(v) => Self::Wide(v[row].into()),
            Values::I128(v) => Self::Wide(v[row]),
            Values::Interval(v) => Self::Interval(v[row]),
            Values::Text(v) => Self::Bytes(v.get(row).as_bytes()),
            Values::Bytes(v) | Values::Lists(v) => Self::Bytes(v.get(row)),
        }
    }

    /// A value of an array made by [`comparable`].
    pub(super) fn of_array(array: &'a ArrayRef, row: usize) -> Self {
        if array.is_null(row) {
            return Self::Null;
        }
        match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean().value(row)),
            DataType::Int16 => Self::Int(array.as_primitive::<Int16Type>().value(row).into()),
            DataType::Int32 => Self::Int(array.as_primitive::<Int32Type>().value(row).into()),
            DataType::Date32 => Self::Int(array.as_primitive::<Date32Type>().value(row).into()),
            DataType::Int64 => Self::Int(array.as_primitive::<Int64Type>().value(row)),
            DataType::Time64(_) => {
                Self::Int(array.as_primitive::<Time64MicrosecondType>().value(row))
            }
            DataType::Timestamp(..) => {
                Self::Int(array.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            DataType::Float32 => Self::Float(array.as_primitive::<Float32Type>().value(row).into()),
            DataType::Float64 => Self::Float(array.as_primitive::<Float64Type>().value(row)),
            DataType::Decimal128(..) => {
                Self::Wide(array.as_primitive::<Decimal128Type>().value(row))
            }
            DataType::Interval(_) => {
                Self::Interval(array.as_primitive::<IntervalMonthDayNanoType>().value(row))
            }
            DataType::Utf8 | DataType::LargeUtf8 => Self::Bytes(text_at(array, row).as_bytes()),
            DataType::Binary | DataType::FixedSizeBinary(_) => Self::Bytes(bytes_at(array, row)),
            // A NULL array has no values, and no other type can be kept.
            _ => Self::Null,
        }
    }

    /// The order of two values of one type; a NULL is equal to a NULL and says through
    /// `nulls_first` where it stands.
    pub(super) fn compare(self, other: Self, descending: bool, nulls_first: bool) -> Ordering {
        let null = if nulls_first { Ordering::Less } else { Ordering::Greater };
        let order = match (self, other) {
            (Self::Null, Self::Null) => return Ordering::Equal,
            (Self::Null, _) => return null,
            (_, Self::Null) => return null.reverse(),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(&b),
            (Self::Int(a), Self::Int(b)) => a.cmp(&b),
            (Self::Wide(a), Self::Wide(b)) => a.cmp(&b),
            (Self::Float(a), Self::Float(b)) => match a.partial_cmp(&b) {
                Some(order) => order,
                None => a.is_nan().cmp(&b.is_nan()),
            },
            (Self::Interval(a), Self::Interval(b)) => {
                (a.months, a.days, a.nanoseconds).cmp(&(b.months, b.days, b.nanoseconds))
            }
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            _ => unreachable!("a column has one type"),
        };
        if descending { order.reverse() } else { order }
    }
}
