//! One column of a page: typed values in a growing vector that can be overwritten in place, read
//! back into Arrow arrays by slot.
//!
//! Text and bytes, and arrays in key encoding, lie in an arena with a span per row; overwriting
//! leaves garbage in it, which is squeezed out when it is more than half.

use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, GenericStringArray, OffsetSizeTrait, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, Schema,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use hashbrown::HashMap;

use crate::config::PAGE_ROWS;
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
    /// Numerics of a page that all fit 64 bits.
    Narrow(Vec<i64>),
    I128(Vec<i128>),
    Interval(Vec<IntervalMonthDayNano>),
    Text(Spans<String>),
    Bytes(Spans<Vec<u8>>),
    /// Arrays as their key bytes.
    Lists(Spans<Vec<u8>>),
}

/// Values of variable length: an arena, and where each row's bytes are in it. Long values lie
/// beside it, so that an arena is never longer than a span can say.
#[derive(Debug, Default)]
pub(super) struct Spans<A> {
    arena: A,
    /// Start and length; a start of [`LONG`] is a value in `long`.
    spans: Vec<(u32, u32)>,
    long: HashMap<u32, A>,
    /// Bytes of the arena that belong to rows.
    live: usize,
}

/// Where a value begins that is not in the arena.
const LONG: u32 = u32::MAX;

/// The shortest value that is kept beside the arena: 4,096 rows of less are at most 1 GiB, and with
/// as much garbage and one more row an arena stays below 4 GiB.
const LONG_BYTES: usize = 256 << 10;

/// What holds the bytes of many values: text or bytes.
pub(super) trait Arena: Default {
    type Value: ?Sized + ToOwned<Owned = Self>;

    fn len(&self) -> usize;
    fn capacity(&self) -> usize;
    fn reserve(&mut self, bytes: usize);
    fn reserve_exact(&mut self, bytes: usize);
    fn push(&mut self, value: &Self::Value);
    fn value(&self, range: Range<usize>) -> &Self::Value;
}

macro_rules! arena {
    ($arena:ty, $value:ty, $push:ident) => {
        impl Arena for $arena {
            type Value = $value;

            #[inline]
            fn len(&self) -> usize {
                <$arena>::len(self)
            }
            fn capacity(&self) -> usize {
                <$arena>::capacity(self)
            }
            fn reserve(&mut self, bytes: usize) {
                <$arena>::reserve(self, bytes);
            }
            fn reserve_exact(&mut self, bytes: usize) {
                <$arena>::reserve_exact(self, bytes);
            }
            #[inline]
            fn push(&mut self, value: &$value) {
                self.$push(value);
            }
            #[inline]
            fn value(&self, range: Range<usize>) -> &$value {
                &self[range]
            }
        }
    };
}
arena!(String, str, push_str);
arena!(Vec<u8>, [u8], extend_from_slice);

impl<A: Arena> Spans<A> {
    #[inline]
    pub(super) fn get(&self, row: usize) -> &A::Value {
        let (start, len) = self.spans[row];
        if start == LONG {
            let long = &self.long[&(row as u32)];
            return long.value(0..long.len());
        }
        self.arena.value(start as usize..start as usize + len as usize)
    }

    /// Bytes of the value at `row`.
    #[inline]
    pub(super) fn bytes_of(&self, row: usize) -> usize {
        self.spans[row].1 as usize
    }

    /// Writes the value and its length that `get` gives for the second of each pair at the first.
    fn write<'a>(&mut self, pairs: &[(u32, u32)], get: impl Fn(usize) -> (&'a A::Value, usize))
    where
        A::Value: 'a,
    {
        let lengths = pairs.iter().map(|(_, row)| get(*row as usize).1);
        self.reserve(pairs.len(), lengths.filter(|len| *len < LONG_BYTES).sum());
        for (to, row) in pairs {
            let (value, len) = get(*row as usize);
            self.set(*to as usize, value, len);
        }
    }

    /// Makes room for the bytes of some values. A page that begins with many will become full: what
    /// it then takes is there at once, so that it is not copied as it grows.
    fn reserve(&mut self, rows: usize, bytes: usize) {
        let row = bytes / rows.max(1) + 1;
        if self.spans.is_empty() && rows >= ROWS_MANY && row <= ROW_BYTES_MAX {
            self.spans.reserve_exact(PAGE_ROWS);
            self.arena.reserve_exact(bytes.max(row * PAGE_ROWS));
        } else {
            self.arena.reserve(bytes);
        }
    }

    fn set(&mut self, row: usize, value: &A::Value, len: usize) {
        let mut span = (self.arena.len() as u32, len as u32);
        if len < LONG_BYTES {
            self.arena.push(value);
        } else {
            span.0 = LONG;
        }
        if let Some(old) = self.spans.get_mut(row) {
            if old.0 == LONG {
                self.long.remove(&(row as u32));
            } else {
                self.live -= old.1 as usize;
            }
            *old = span;
        } else {
            self.spans.push(span);
        }
        if span.0 == LONG {
            self.long.insert(row as u32, value.to_owned());
            return;
        }
        self.live += len;
        if self.arena.len() > 4096 && self.arena.len() > self.live * 2 {
            let mut arena = A::default();
            // As much as there will be before the next time.
            arena.reserve_exact(self.live * 2);
            for span in self.spans.iter_mut().filter(|span| span.0 != LONG) {
                let start = span.0 as usize;
                span.0 = arena.len() as u32;
                arena.push(self.arena.value(start..start + span.1 as usize));
            }
            self.arena = arena;
        }
    }

    fn bytes(&self) -> usize {
        let long: usize = self.long.values().map(Arena::capacity).sum();
        let entry = size_of::<A>() + 8;
        self.arena.capacity() + self.spans.capacity() * 8 + long + self.long.capacity() * entry
    }
}

/// Rows of a new page from which on it is expected to become full.
const ROWS_MANY: usize = PAGE_ROWS / 8;

/// Bytes of a row up to which room is made for a full page.
const ROW_BYTES_MAX: usize = 1024;

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
            DataType::Decimal128(..) => Values::Narrow(Vec::new()),
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

    /// One with a value in each of its rows that nobody reads before it is overwritten.
    pub(super) fn full(data_type: &DataType) -> Result<Self> {
        let mut column = Self::new(data_type)?;
        match &mut column.values {
            Values::Null => {}
            Values::Bool(v) => v.resize(PAGE_ROWS, false),
            Values::I16(v) => v.resize(PAGE_ROWS, 0),
            Values::I32(v) => v.resize(PAGE_ROWS, 0),
            Values::I64(v) | Values::Narrow(v) => v.resize(PAGE_ROWS, 0),
            Values::F32(v) => v.resize(PAGE_ROWS, 0.0),
            Values::F64(v) => v.resize(PAGE_ROWS, 0.0),
            Values::I128(v) => v.resize(PAGE_ROWS, 0),
            Values::Interval(v) => v.resize(PAGE_ROWS, IntervalMonthDayNano::ZERO),
            Values::Text(v) => v.spans.resize(PAGE_ROWS, (0, 0)),
            Values::Bytes(v) | Values::Lists(v) => v.spans.resize(PAGE_ROWS, (0, 0)),
        }
        Ok(column)
    }

    /// Writes `source[row]` of each `(target, row)` pair; a target is an existing row of the page
    /// or the next new one, in order.
    pub(super) fn write(&mut self, source: &ArrayRef, pairs: &[(u32, u32)], old_len: usize) {
        self.write_nulls(source, pairs, old_len);
        self.widen(source, pairs);
        macro_rules! fixed {
            ($values:expr, $t:ty) => {{
                let from = source.as_primitive::<$t>().values();
                if $values.is_empty() && pairs.len() >= ROWS_MANY {
                    $values.reserve_exact(PAGE_ROWS);
                }
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
            (Values::Narrow(v), _) => {
                let from = source.as_primitive::<Decimal128Type>().values();
                pairs.iter().for_each(|(to, r)| put(v, *to as usize, from[*r as usize] as i64));
            }
            (Values::I128(v), _) => fixed!(v, Decimal128Type),
            (Values::Interval(v), _) => fixed!(v, IntervalMonthDayNanoType),
            (Values::Text(v), DataType::LargeUtf8) => {
                v.write(pairs, texts(source.as_string::<i64>()));
            }
            (Values::Text(v), _) => v.write(pairs, texts(source.as_string::<i32>())),
            (Values::Bytes(v), _) => v.write(pairs, |row| {
                let value = if source.is_null(row) { &[] } else { bytes_at(source, row) };
                (value, value.len())
            }),
            (Values::Lists(v), _) => {
                let rows = UInt32Array::from_iter_values(pairs.iter().map(|(_, row)| *row));
                let keys = list_keys(source, &rows);
                let pairs: Vec<(u32, u32)> =
                    (0..).zip(pairs).map(|(i, (to, _))| (*to, i)).collect();
                v.write(&pairs, |i| {
                    let value = keys.as_ref().map_or(&[][..], |k| k.key(i));
                    (value, value.len())
                });
            }
        }
    }

    /// Makes room for numerics that do not fit 64 bits, if there are some to be written.
    fn widen(&mut self, source: &ArrayRef, pairs: &[(u32, u32)]) {
        let Values::Narrow(narrow) = &self.values else { return };
        let wide = source.as_primitive::<Decimal128Type>();
        let fits = |(_, row): &(u32, u32)| i64::try_from(wide.value(*row as usize)).is_ok();
        if !pairs.iter().all(fits) {
            self.values = Values::I128(narrow.iter().map(|v| i128::from(*v)).collect());
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
            (Values::Narrow(v), _) => {
                i128::from(v[row]) == other.as_primitive::<Decimal128Type>().value(other_row)
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
            Values::Text(v) => v.bytes_of(row),
            Values::Bytes(v) | Values::Lists(v) => v.bytes_of(row),
            _ => 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let values = match &self.values {
            Values::Null => 0,
            Values::Bool(v) => v.capacity(),
            Values::I16(v) => v.capacity() * 2,
            Values::I32(v) => v.capacity() * 4,
            Values::I64(v) | Values::Narrow(v) => v.capacity() * 8,
            Values::F32(v) => v.capacity() * 4,
            Values::F64(v) => v.capacity() * 8,
            Values::I128(v) => v.capacity() * 16,
            Values::Interval(v) => v.capacity() * 16,
            Values::Text(v) => v.bytes(),
            Values::Bytes(v) | Values::Lists(v) => v.bytes(),
        };
        values + self.nulls.capacity()
    }
}

/// The texts of an array with their lengths, empty for NULL.
fn texts<'a, O: OffsetSizeTrait>(
    array: &'a GenericStringArray<O>,
) -> impl Fn(usize) -> (&'a str, usize) + use<'a, O> {
    move |row| {
        let value = if array.is_null(row) { "" } else { array.value(row) };
        (value, value.len())
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Decimal128Array;

    use super::*;

    /// Would find a value that is cut off, before and after the first one that is wide.
    #[test]
    fn numerics_are_narrow_until_one_is_not() {
        let most = i128::from(i64::MAX);
        let array =
            |values: Vec<Option<i128>>| -> ArrayRef { Arc::new(Decimal128Array::from(values)) };
        let mut column = PageColumn::new(&DataType::Decimal128(38, 10)).expect("can be kept");
        let mut expected = vec![Some(1), None, Some(-most - 1), Some(most)];
        column.write(&array(expected.clone()), &[(0, 0), (1, 1), (2, 2), (3, 3)], 0);
        assert!(matches!(column.values, Values::Narrow(_)));
        let later = array(vec![Some(5), Some(most + 1)]);
        column.write(&later, &[(1, 0)], 4);
        assert!(matches!(column.values, Values::Narrow(_)), "what is wide is not written");
        column.write(&later, &[(0, 1), (4, 0)], 4);
        assert!(matches!(column.values, Values::I128(_)));
        (expected[0], expected[1]) = (Some(most + 1), Some(5));
        expected.push(Some(5));
        let expected = array(expected);
        for row in 0..5 {
            for other in 0..5 {
                let alike = row == other || [row, other] == [1, 4] || [row, other] == [4, 1];
                assert_eq!(column.equals(row, &expected, other), alike, "{row} and {other}");
            }
        }
    }

    /// Values around the length from which they lie beside the arena, overwritten at random.
    #[test]
    fn long_and_short_values_take_turns() {
        let mut spans: Spans<String> = Spans::default();
        let mut expected: Vec<String> = Vec::new();
        let mut random = 7u64;
        for step in 0..400 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let len = match random >> 60 {
                0..=1 => LONG_BYTES - 1,
                2..=3 => LONG_BYTES,
                4..=5 => LONG_BYTES * 3,
                short => short as usize * 100,
            };
            let value = char::from(b'a' + (step % 26) as u8).to_string().repeat(len);
            let row = (random >> 33) as usize % 24;
            if row < expected.len() {
                expected[row] = value;
                spans.set(row, &expected[row], len);
            } else {
                spans.set(expected.len(), &value, len);
                expected.push(value);
            }
            for (row, value) in expected.iter().enumerate() {
                assert_eq!(spans.get(row), value, "row {row} after {step} changes");
                assert_eq!(spans.bytes_of(row), value.len());
            }
        }
        let long = expected.iter().filter(|v| v.len() >= LONG_BYTES).count();
        assert_eq!(spans.long.len(), long);
        assert!(spans.arena.len() <= 2 * spans.live.max(2048));
    }
}
