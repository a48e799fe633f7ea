//! One column of a page: typed values in a growing vector that can be overwritten in place, read
//! back into Arrow arrays by slot.
//!
//! Text and bytes, and arrays in key encoding, lie in an arena with a span per row; overwriting
//! leaves garbage in it, which is squeezed out when it is more than half.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, Schema,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};

use crate::delta::Keys;
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result};

/// The values of one column in one page.
#[derive(Debug)]
pub(super) struct PageColumn {
    pub(super) values: Values,
    /// One flag per row; empty while no value is NULL.
    nulls: Vec<bool>,
}

/// Values by physical type.
#[derive(Debug)]
pub(super) enum Values {
    Null,
    Bool(Vec<bool>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    I128(Vec<i128>),
    Interval(Vec<IntervalMonthDayNano>),
    Text(Spans<String>),
    Bytes(Spans<Vec<u8>>),
    /// Arrays as their key bytes.
    Lists(Spans<Vec<u8>>),
}

/// Values of variable length: an arena, and where each row's bytes are in it.
#[derive(Debug, Default)]
pub(super) struct Spans<A> {
    pub(super) arena: A,
    pub(super) spans: Vec<(u32, u32)>,
    live: usize,
}

impl Spans<String> {
    #[inline]
    pub(super) fn get(&self, row: usize) -> &str {
        let (start, len) = self.spans[row];
        &self.arena[start as usize..(start + len) as usize]
    }

    fn set(&mut self, row: usize, value: &str) {
        let span = (self.arena.len() as u32, value.len() as u32);
        self.arena.push_str(value);
        self.place(row, span);
        if self.arena.len() > 4096 && self.arena.len() > self.live * 2 {
            let mut arena = String::with_capacity(self.live);
            for span in &mut self.spans {
                let old = *span;
                span.0 = arena.len() as u32;
                arena.push_str(&self.arena[old.0 as usize..(old.0 + old.1) as usize]);
            }
            self.arena = arena;
        }
    }
}

impl Spans<Vec<u8>> {
    #[inline]
    pub(super) fn get(&self, row: usize) -> &[u8] {
        let (start, len) = self.spans[row];
        &self.arena[start as usize..(start + len) as usize]
    }

    fn set(&mut self, row: usize, value: &[u8]) {
        let span = (self.arena.len() as u32, value.len() as u32);
        self.arena.extend_from_slice(value);
        self.place(row, span);
        if self.arena.len() > 4096 && self.arena.len() > self.live * 2 {
            let mut arena = Vec::with_capacity(self.live);
            for span in &mut self.spans {
                let old = *span;
                span.0 = arena.len() as u32;
                arena.extend_from_slice(&self.arena[old.0 as usize..(old.0 + old.1) as usize]);
            }
            self.arena = arena;
        }
    }
}

impl<A> Spans<A> {
    fn place(&mut self, row: usize, span: (u32, u32)) {
        if row == self.spans.len() {
            self.spans.push(span);
        } else {
            self.live -= self.spans[row].1 as usize;
            self.spans[row] = span;
        }
        self.live += span.1 as usize;
    }
}

/// Overwrites `values[row]`, or appends when `row` is the next one.
#[inline]
fn put<T>(values: &mut Vec<T>, row: usize, value: T) {
    if row == values.len() {
        values.push(value);
    } else {
        values[row] = value;
    }
}

/// Refuses rows with a column of a type that can't be kept.
pub fn check_storable(schema: &Schema) -> Result<()> {
    schema.fields().iter().try_for_each(|f| PageColumn::new(f.data_type()).map(|_| ()))
}

impl PageColumn {
    pub(super) fn new(data_type: &DataType) -> Result<Self> {
        let values = match data_type {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Bool(Vec::new()),
            DataType::Int16 => Values::I16(Vec::new()),
            DataType::Int32 | DataType::Date32 => Values::I32(Vec::new()),
            DataType::Int64
            | DataType::Time64(TimeUnit::Microsecond)
            | DataType::Timestamp(TimeUnit::Microsecond, _) => Values::I64(Vec::new()),
            DataType::Float32 => Values::F32(Vec::new()),
            DataType::Float64 => Values::F64(Vec::new()),
            DataType::Decimal128(..) => Values::I128(Vec::new()),
            DataType::Interval(IntervalUnit::MonthDayNano) => Values::Interval(Vec::new()),
            DataType::Utf8 | DataType::LargeUtf8 => Values::Text(Spans::default()),
            DataType::Binary | DataType::FixedSizeBinary(16) => Values::Bytes(Spans::default()),
            // Made once with nothing in it, which says whether elements of the type have keys.
            DataType::List(_) => {
                Keys::encode(&[arrow::array::new_empty_array(data_type)], 0)?;
                Values::Lists(Spans::default())
            }
            other => {
                let name = pg_type_name(other);
                return Err(Error::unsupported(format!("a column of type {name} can't be kept"))
                    .with_hint("Cast it to text, or take its parts."));
            }
        };
        Ok(Self { values, nulls: Vec::new() })
    }

    /// Writes `source[row]` of each `(target, row)` pair; a target is an existing row of the page
    /// or the next new one, in order.
    pub(super) fn write(&mut self, source: &ArrayRef, pairs: &[(u32, u32)], old_len: usize) {
        self.write_nulls(source, pairs, old_len);
        macro_rules! fixed {
            ($values:expr, $t:ty) => {{
                let from = source.as_primitive::<$t>().values();
                pairs.iter().for_each(|(to, row)| put($values, *to as usize, from[*row as usize]));
            }};
        }
        match (&mut self.values, source.data_type()) {
            (Values::Null, _) => {}
            (Values::Bool(v), _) => {
                let from = source.as_boolean();
                pairs.iter().for_each(|(to, r)| put(v, *to as usize, from.value(*r as usize)));
            }
            (Values::I16(v), _) => fixed!(v, Int16Type),
            (Values::I32(v), DataType::Date32) => fixed!(v, Date32Type),
            (Values::I32(v), _) => fixed!(v, Int32Type),
            (Values::I64(v), DataType::Time64(_)) => fixed!(v, Time64MicrosecondType),
            (Values::I64(v), DataType::Timestamp(..)) => fixed!(v, TimestampMicrosecondType),
            (Values::I64(v), _) => fixed!(v, Int64Type),
            (Values::F32(v), _) => fixed!(v, Float32Type),
            (Values::F64(v), _) => fixed!(v, Float64Type),
            (Values::I128(v), _) => fixed!(v, Decimal128Type),
            (Values::Interval(v), _) => fixed!(v, IntervalMonthDayNanoType),
            (Values::Text(v), _) => {
                for (to, row) in pairs {
                    let null = source.is_null(*row as usize);
                    v.set(*to as usize, if null { "" } else { text_at(source, *row as usize) });
                }
            }
            (Values::Bytes(v), _) => {
                for (to, row) in pairs {
                    let null = source.is_null(*row as usize);
                    v.set(*to as usize, if null { &[] } else { bytes_at(source, *row as usize) });
                }
            }
            (Values::Lists(v), _) => {
                let rows = UInt32Array::from_iter_values(pairs.iter().map(|(_, row)| *row));
                let keys = list_keys(source, &rows);
                for (i, (to, _)) in pairs.iter().enumerate() {
                    v.set(*to as usize, keys.as_ref().map_or(&[], |k| k.key(i)));
                }
            }
        }
    }

    fn write_nulls(&mut self, source: &ArrayRef, pairs: &[(u32, u32)], old_len: usize) {
        if self.nulls.is_empty() && source.null_count() == 0 {
            return;
        }
        self.nulls.resize(old_len.max(self.nulls.len()), false);
        for (to, row) in pairs {
            put(&mut self.nulls, *to as usize, source.is_null(*row as usize));
        }
    }

    #[inline]
    pub(super) fn is_null(&self, row: usize) -> bool {
        // Rows appended since the last NULL have no flag yet.
        self.nulls.get(row).copied().unwrap_or(false)
    }

    /// Whether the value at `row` equals `other[other_row]` as keys compare: NULL equals NULL,
    /// `-0.0` equals `0.0`, NaN equals NaN.
    pub(super) fn equals(&self, row: usize, other: &ArrayRef, other_row: usize) -> bool {
        match (self.is_null(row), other.is_null(other_row)) {
            (true, true) => return true,
            (false, false) => {}
            _ => return false,
        }
        macro_rules! fixed {
            ($v:expr, $t:ty) => {
                $v[row] == other.as_primitive::<$t>().value(other_row)
            };
        }
        match (&self.values, other.data_type()) {
            (Values::Null, _) => true,
            (Values::Bool(v), _) => {
                let other: &BooleanArray = other.as_boolean();
                v[row] == other.value(other_row)
            }
            (Values::I16(v), _) => fixed!(v, Int16Type),
            (Values::I32(v), DataType::Date32) => fixed!(v, Date32Type),
            (Values::I32(v), _) => fixed!(v, Int32Type),
            (Values::I64(v), DataType::Time64(_)) => fixed!(v, Time64MicrosecondType),
            (Values::I64(v), DataType::Timestamp(..)) => fixed!(v, TimestampMicrosecondType),
            (Values::I64(v), _) => fixed!(v, Int64Type),
            (Values::F32(v), _) => {
                let b = other.as_primitive::<Float32Type>().value(other_row);
                v[row] == b || (v[row].is_nan() && b.is_nan())
            }
            (Values::F64(v), _) => {
                let b = other.as_primitive::<Float64Type>().value(other_row);
                v[row] == b || (v[row].is_nan() && b.is_nan())
            }
            (Values::I128(v), _) => fixed!(v, Decimal128Type),
            (Values::Interval(v), _) => fixed!(v, IntervalMonthDayNanoType),
            (Values::Text(v), _) => v.get(row) == text_at(other, other_row),
            (Values::Bytes(v), _) => v.get(row) == bytes_at(other, other_row),
            (Values::Lists(v), _) => {
                let rows = UInt32Array::from(vec![other_row as u32]);
                list_keys(other, &rows).is_some_and(|k| k.key(0) == v.get(row))
            }
        }
    }

    /// Bytes of a value of variable length; 0 for others.
    #[inline]
    pub(super) fn variable_bytes(&self, row: usize) -> usize {
        match &self.values {
            Values::Text(v) => v.spans[row].1 as usize,
            Values::Bytes(v) | Values::Lists(v) => v.spans[row].1 as usize,
            _ => 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let values = match &self.values {
            Values::Null => 0,
            Values::Bool(v) => v.capacity(),
            Values::I16(v) => v.capacity() * 2,
            Values::I32(v) => v.capacity() * 4,
            Values::I64(v) => v.capacity() * 8,
            Values::F32(v) => v.capacity() * 4,
            Values::F64(v) => v.capacity() * 8,
            Values::I128(v) => v.capacity() * 16,
            Values::Interval(v) => v.capacity() * 16,
            Values::Text(v) => v.arena.capacity() + v.spans.capacity() * 8,
            Values::Bytes(v) | Values::Lists(v) => v.arena.capacity() + v.spans.capacity() * 8,
        };
        values + self.nulls.capacity()
    }
}

/// A value of text or jsonb.
#[inline]
pub(super) fn text_at(array: &ArrayRef, row: usize) -> &str {
    match array.data_type() {
        DataType::LargeUtf8 => array.as_string::<i64>().value(row),
        _ => array.as_string::<i32>().value(row),
    }
}

/// A value of bytea or uuid.
#[inline]
pub(super) fn bytes_at(array: &ArrayRef, row: usize) -> &[u8] {
    match array.data_type() {
        DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value(row),
        _ => array.as_binary::<i32>().value(row),
    }
}

/// Some rows of an array column as key bytes. The type was looked at when the page was made.
pub(super) fn list_keys(array: &ArrayRef, rows: &UInt32Array) -> Option<Keys> {
    let lists = take(array, rows, None).ok()?;
    Keys::encode(&[lists], rows.len()).ok()
}
