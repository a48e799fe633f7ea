//! Key bytes, hashes and key groups: our own, versioned and seedless, so that they may reach the
//! disk and decide placement.
//!
//! Encoding version 1, per column: one byte `01` and the value, or `02` for NULL (NULLs sort last,
//! as in PostgreSQL). Integers, dates, times and timestamps: big-endian with the sign bit flipped.
//! Floats: `-0.0` becomes `0.0`, every NaN the same NaN that sorts above infinity, then the
//! order-preserving bit trick. Text and bytes: the bytes with `00` written as `00 FF`, closed by
//! `00 00`; uuid: its 16 bytes. Array: the encodings of its elements, closed by `00`. Interval:
//! months, days, nanoseconds. So comparing key bytes is comparing values, column by column
//! (memcomparable), and no encoding is a prefix of another one.
//!
//! The hash is xxh3-64 of the key bytes; the key group is its top byte; a worker owns a range of
//! key groups.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use xxhash_rust::xxh3::xxh3_64;

use super::text::pg_type_name;
use crate::error::{Error, Result};

/// The number of key groups: the grain in which state can move between workers.
pub const KEY_GROUPS: usize = 256;

/// Marks a value that is there.
pub(super) const PRESENT: u8 = 1;
/// Marks a NULL; greater than [`PRESENT`], so that NULLs sort last.
pub(super) const NULL: u8 = 2;

/// The hash of key bytes.
#[inline]
pub fn hash_key(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The key group of a hash.
#[inline]
pub fn key_group(hash: u64) -> usize {
    (hash >> 56) as usize
}

/// The worker that owns a hash, among `workers`.
#[inline]
pub fn worker_of(hash: u64, workers: usize) -> usize {
    key_group(hash) * workers / KEY_GROUPS
}

/// The encoded keys of a batch: one per row, with its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    bytes: Vec<u8>,
    layout: Layout,
    hashes: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Layout {
    /// Every key has this many bytes.
    Fixed(usize),
    /// Key `i` is `bytes[offsets[i]..offsets[i + 1]]`.
    Variable(Vec<u32>),
}

impl Layout {
    /// The bytes of some keys, side by side.
    #[inline]
    fn of<'b>(&self, bytes: &'b [u8], rows: Range<usize>) -> &'b [u8] {
        match self {
            Self::Fixed(stride) => &bytes[rows.start * stride..rows.end * stride],
            Self::Variable(o) => &bytes[o[rows.start] as usize..o[rows.end] as usize],
        }
    }
}

/// The keys of rows, without their hashes.
fn encoded(columns: &[ArrayRef], rows: usize, zeros: Zeros) -> Result<(Vec<u8>, Layout)> {
    let widths: Option<Vec<usize>> = columns.iter().map(|c| fixed_width(c.data_type())).collect();
    match widths {
        // A NULL leaves the bytes behind its mark zero: still canonical.
        Some(widths) => encoded_fixed(columns, &widths, rows, zeros),
        None => encoded_variable(columns, rows, zeros),
    }
}

fn encoded_fixed(
    columns: &[ArrayRef],
    widths: &[usize],
    rows: usize,
    zeros: Zeros,
) -> Result<(Vec<u8>, Layout)> {
    let stride: usize = widths.iter().map(|w| w + 1).sum();
    let mut bytes = vec![0; stride * rows];
    let mut offset = 0;
    for (column, width) in columns.iter().zip(widths) {
        let mut target = Strided { bytes: &mut bytes, stride, offset };
        write_column(column, &mut target, zeros)?;
        offset += width + 1;
    }
    Ok((bytes, Layout::Fixed(stride)))
}

fn encoded_variable(columns: &[ArrayRef], rows: usize, zeros: Zeros) -> Result<(Vec<u8>, Layout)> {
    let mut lengths = vec![0_u32; rows];
    for column in columns {
        add_lengths(column, &mut lengths)?;
    }
    let mut offsets = Vec::with_capacity(rows + 1);
    let mut total = 0_u32;
    offsets.push(0);
    for length in &lengths {
        total = total.checked_add(*length).ok_or_else(too_long)?;
        offsets.push(total);
    }
    let mut bytes = vec![0; total as usize];
    let mut cursors = offsets[..rows].to_vec();
    for column in columns {
        let mut target = Scattered { bytes: &mut bytes, cursors: &mut cursors };
        write_column(column, &mut target, zeros)?;
    }
    Ok((bytes, Layout::Variable(offsets)))
}

impl Keys {
    /// Encodes the keys of `rows` rows from their columns (none: every key is empty).
    pub fn encode(columns: &[ArrayRef], rows: usize) -> Result<Self> {
        Self::encode_floats(columns, rows, Zeros::Equal)
    }

    /// Encodes whole rows so that decoding gives back the same bits: `-0.0` stays `-0.0`. For the
    /// byte form of tables; as keys these bytes would tell the two zeros apart.
    pub fn encode_exact(columns: &[ArrayRef], rows: usize) -> Result<Self> {
        Self::encode_floats(columns, rows, Zeros::Signed)
    }

    fn encode_floats(columns: &[ArrayRef], rows: usize, zeros: Zeros) -> Result<Self> {
        let (bytes, layout) = encoded(columns, rows, zeros)?;
        let hashes = match &layout {
            Layout::Fixed(0) => vec![hash_key(&[]); rows],
            Layout::Fixed(stride) => bytes.chunks_exact(*stride).map(hash_key).collect(),
            Layout::Variable(offsets) => {
                let keys = offsets.windows(2).map(|w| &bytes[w[0] as usize..w[1] as usize]);
                keys.map(hash_key).collect()
            }
        };
        Ok(Self { bytes, layout, hashes })
    }

    /// The keys at `rows`, in that order.
    pub fn take(&self, rows: &[u32]) -> Self {
        let keys = rows.iter().map(|row| self.key(*row as usize));
        let (bytes, layout) = match &self.layout {
            Layout::Fixed(stride) => {
                let mut bytes = Vec::with_capacity(stride * rows.len());
                keys.for_each(|key| bytes.extend_from_slice(key));
                (bytes, Layout::Fixed(*stride))
            }
            Layout::Variable(_) => {
                let mut bytes = Vec::with_capacity(keys.clone().map(<[u8]>::len).sum());
                let mut offsets = Vec::with_capacity(rows.len() + 1);
                offsets.push(0);
                for key in keys {
                    bytes.extend_from_slice(key);
                    offsets.push(bytes.len() as u32);
                }
                (bytes, Layout::Variable(offsets))
            }
        };
        Self { bytes, layout, hashes: rows.iter().map(|row| self.hash(*row as usize)).collect() }
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// True when there is no key.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The bytes of one key.
    #[inline]
    pub fn key(&self, row: usize) -> &[u8] {
        self.layout.of(&self.bytes, row..row + 1)
    }

    /// The keys as a column of bytes; `None` where they are longer than one can be.
    pub fn into_bytes(self, nulls: Option<NullBuffer>) -> Option<BinaryArray> {
        let end = |row: usize| i32::try_from(row).ok();
        let offsets: Option<Vec<i32>> = match &self.layout {
            Layout::Fixed(stride) => (0..=self.len()).map(|row| end(row * stride)).collect(),
            Layout::Variable(offsets) => offsets.iter().map(|o| end(*o as usize)).collect(),
        };
        let offsets = OffsetBuffer::new(offsets?.into());
        BinaryArray::try_new(offsets, self.bytes.into(), nulls).ok()
    }

    /// The hash of one key.
    #[inline]
    pub fn hash(&self, row: usize) -> u64 {
        self.hashes[row]
    }

    /// All hashes.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The bytes that every key has, when they are all of one width by type.
    pub fn fixed_width(types: &[DataType]) -> Option<usize> {
        types.iter().map(|t| fixed_width(t).map(|w| w + 1)).sum()
    }
}

/// Bytes of a value without its mark, for types of fixed width.
pub(super) fn fixed_width(data_type: &DataType) -> Option<usize> {
    Some(match data_type {
        DataType::Null => 0,
        DataType::Boolean => 1,
        DataType::Int16 => 2,
        DataType::Int32 | DataType::Float32 | DataType::Date32 => 4,
        DataType::Int64
        | DataType::Float64
        | DataType::Time64(TimeUnit::Microsecond)
        | DataType::Timestamp(TimeUnit::Microsecond, _) => 8,
        DataType::Decimal128(..) | DataType::FixedSizeBinary(16) => 16,
        DataType::Interval(IntervalUnit::MonthDayNano) => 16,
        _ => return None,
    })
}

/// Whether `-0.0` and `0.0` are encoded alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zeros {
    Equal,
    Signed,
}

/// Where the bytes of a column go: to a fixed place in every row, or behind what is there.
trait Target {
    fn put<const N: usize>(&mut self, row: usize, value: [u8; N]);
    /// A NULL of a type with `width` bytes.
    fn put_null(&mut self, row: usize, width: usize);
    fn put_slice(&mut self, row: usize, value: &[u8]);
    /// Encodings of elements, which need no escapes.
    fn put_elements(&mut self, row: usize, elements: &[u8]);
}

struct Strided<'a> {
    bytes: &'a mut [u8],
    stride: usize,
    offset: usize,
}

impl Target for Strided<'_> {
    #[inline]
    fn put<const N: usize>(&mut self, row: usize, value: [u8; N]) {
        let at = row * self.stride + self.offset;
        let slot = &mut self.bytes[at..=at + N];
        slot[0] = PRESENT;
        slot[1..].copy_from_slice(&value);
    }

    fn put_null(&mut self, row: usize, _width: usize) {
        self.bytes[row * self.stride + self.offset] = NULL;
    }

    fn put_slice(&mut self, _row: usize, _value: &[u8]) {
        unreachable!("columns of variable width take the variable layout")
    }

    fn put_elements(&mut self, _row: usize, _elements: &[u8]) {
        unreachable!("columns of variable width take the variable layout")
    }
}

struct Scattered<'a> {
    bytes: &'a mut [u8],
    cursors: &'a mut [u32],
}

impl Target for Scattered<'_> {
    #[inline]
    fn put<const N: usize>(&mut self, row: usize, value: [u8; N]) {
        let at = self.cursors[row] as usize;
        self.bytes[at] = PRESENT;
        self.bytes[at + 1..=at + N].copy_from_slice(&value);
        self.cursors[row] += N as u32 + 1;
    }

    fn put_null(&mut self, row: usize, width: usize) {
        self.bytes[self.cursors[row] as usize] = NULL;
        self.cursors[row] += width as u32 + 1;
    }

    fn put_slice(&mut self, row: usize, value: &[u8]) {
        let mut at = self.cursors[row] as usize;
        self.bytes[at] = PRESENT;
        at += 1;
        if !value.contains(&0) {
            self.bytes[at..at + value.len()].copy_from_slice(value);
            self.cursors[row] = (at + value.len()) as u32 + 2;
            return;
        }
        for part in value.split_inclusive(|b| *b == 0) {
            self.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
            if part.ends_with(&[0]) {
                self.bytes[at] = 0xFF;
                at += 1;
            }
        }
        // The closing 00 00 is there already: the buffer starts zeroed.
        self.cursors[row] = at as u32 + 2;
    }

    fn put_elements(&mut self, row: usize, elements: &[u8]) {
        let at = self.cursors[row] as usize;
        self.bytes[at] = PRESENT;
        self.bytes[at + 1..at + 1 + elements.len()].copy_from_slice(elements);
        self.cursors[row] = (at + elements.len()) as u32 + 2;
    }
}

fn add_lengths(column: &ArrayRef, lengths: &mut [u32]) -> Result<()> {
    if let Some(width) = fixed_width(column.data_type()) {
        lengths.iter_mut().for_each(|l| *l += width as u32 + 1);
        return Ok(());
    }
    let mut add = |row: usize, value: Option<&[u8]>| {
        let body = value.map_or(0, |v| v.len() + v.iter().filter(|b| **b == 0).count() + 2);
        lengths[row] += body as u32 + 1;
    };
    match column.data_type() {
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            values.iter().enumerate().for_each(|(i, v)| add(i, v.map(str::as_bytes)));
        }
        DataType::Binary => {
            column.as_binary::<i32>().iter().enumerate().for_each(|(i, v)| add(i, v));
        }
        DataType::LargeUtf8 => {
            let values = column.as_string::<i64>();
            values.iter().enumerate().for_each(|(i, v)| add(i, v.map(str::as_bytes)));
        }
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            for rows in rows_of_few_elements(lists) {
                let first = lists.value_offsets()[rows.start] as usize;
                let last = lists.value_offsets()[rows.end] as usize;
                let mut elements = vec![0; last - first];
                add_lengths(&lists.values().slice(first, last - first), &mut elements)?;
                for row in rows {
                    let ends = &lists.value_offsets()[row..row + 2];
                    let inner = &elements[ends[0] as usize - first..ends[1] as usize - first];
                    let body = if lists.is_null(row) { 0 } else { sum_of(inner)? + 1 };
                    lengths[row] = lengths[row].checked_add(body + 1).ok_or_else(too_long)?;
                }
            }
        }
        other => return Err(unsupported(other)),
    }
    Ok(())
}

fn too_long() -> Error {
    Error::unsupported("the keys of one batch are longer than 4 GiB")
}

fn sum_of(lengths: &[u32]) -> Result<u32> {
    let sum: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
    u32::try_from(sum).ok().filter(|sum| *sum < u32::MAX - 1).ok_or_else(too_long)
}

/// Elements of lists whose encodings are made or read at once, beside the keys around them.
pub(super) const ELEMENTS_AT_ONCE: usize = 1 << 16;

/// Runs of rows that have few elements together, or are one row.
fn rows_of_few_elements(lists: &ListArray) -> impl Iterator<Item = Range<usize>> {
    let offsets = lists.value_offsets();
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = *offsets.get(start)? as usize;
        let few = |end: &i32| *end as usize - first <= ELEMENTS_AT_ONCE;
        let rest = offsets.get(start + 1..).filter(|rest| !rest.is_empty())?;
        let rows = rest.iter().take_while(|end| few(end)).count().max(1);
        let run = start..start + rows;
        start = run.end;
        Some(run)
    })
}

/// An array is the run of its elements' encodings, which lie side by side in the child's.
fn write_lists(column: &ArrayRef, out: &mut impl Target, zeros: Zeros) -> Result<()> {
    let lists = column.as_list::<i32>();
    for rows in rows_of_few_elements(lists) {
        let first = lists.value_offsets()[rows.start] as usize;
        let last = lists.value_offsets()[rows.end] as usize;
        let elements = lists.values().slice(first, last - first);
        let (bytes, layout) = encoded(&[elements], last - first, zeros)?;
        for row in rows {
            let ends = &lists.value_offsets()[row..row + 2];
            match lists.is_null(row) {
                true => out.put_null(row, 0),
                false => {
                    let run = ends[0] as usize - first..ends[1] as usize - first;
                    out.put_elements(row, layout.of(&bytes, run));
                }
            }
        }
    }
    Ok(())
}

fn unsupported(data_type: &DataType) -> Error {
    let name = pg_type_name(data_type);
    Error::unsupported(format!("a value of type {name} can't be a key"))
        .with_hint("Cast it to text, or take its parts.")
}

fn write_column(column: &ArrayRef, out: &mut impl Target, zeros: Zeros) -> Result<()> {
    match column.data_type() {
        DataType::Null => (0..column.len()).for_each(|row| out.put_null(row, 0)),
        DataType::Boolean => {
            for (row, value) in column.as_boolean().iter().enumerate() {
                match value {
                    Some(v) => out.put(row, [u8::from(v)]),
                    None => out.put_null(row, 1),
                }
            }
        }
        DataType::Int16 => {
            primitive::<Int16Type, 2>(column, out, |v| (v as u16 ^ 0x8000).to_be_bytes())
        }
        DataType::Int32 => primitive::<Int32Type, 4>(column, out, ordered_i32),
        DataType::Date32 => primitive::<Date32Type, 4>(column, out, ordered_i32),
        DataType::Int64 => primitive::<Int64Type, 8>(column, out, ordered_i64),
        DataType::Time64(TimeUnit::Microsecond) => {
            primitive::<Time64MicrosecondType, 8>(column, out, ordered_i64);
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            primitive::<TimestampMicrosecondType, 8>(column, out, ordered_i64);
        }
        DataType::Float32 => primitive::<Float32Type, 4>(column, out, |v| {
            let v = if zeros == Zeros::Equal { v + 0.0 } else { v };
            let bits = if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() };
            let mask = ((bits as i32) >> 31) as u32 | 0x8000_0000;
            (bits ^ mask).to_be_bytes()
        }),
        DataType::Float64 => primitive::<Float64Type, 8>(column, out, |v| {
            let v = if zeros == Zeros::Equal { v + 0.0 } else { v };
            let bits = if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() };
            let mask = ((bits as i64) >> 63) as u64 | (1 << 63);
            (bits ^ mask).to_be_bytes()
        }),
        DataType::Decimal128(..) => {
            primitive::<Decimal128Type, 16>(column, out, |v| (v as u128 ^ (1 << 127)).to_be_bytes())
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            primitive::<IntervalMonthDayNanoType, 16>(column, out, |v| {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&ordered_i32(v.months));
                bytes[4..8].copy_from_slice(&ordered_i32(v.days));
                bytes[8..].copy_from_slice(&ordered_i64(v.nanoseconds));
                bytes
            });
        }
        _ => return write_variable(column, out, zeros),
    }
    Ok(())
}

/// Texts, bytes, lists and uuids.
fn write_variable(column: &ArrayRef, out: &mut impl Target, zeros: Zeros) -> Result<()> {
    match column.data_type() {
        DataType::Utf8 => {
            for (row, value) in column.as_string::<i32>().iter().enumerate() {
                match value {
                    Some(v) => out.put_slice(row, v.as_bytes()),
                    None => out.put_null(row, 0),
                }
            }
        }
        DataType::Binary => {
            for (row, value) in column.as_binary::<i32>().iter().enumerate() {
                match value {
                    Some(v) => out.put_slice(row, v),
                    None => out.put_null(row, 0),
                }
            }
        }
        DataType::LargeUtf8 => {
            for (row, value) in column.as_string::<i64>().iter().enumerate() {
                match value {
                    Some(v) => out.put_slice(row, v.as_bytes()),
                    None => out.put_null(row, 0),
                }
            }
        }
        DataType::FixedSizeBinary(16) => {
            for (row, value) in column.as_fixed_size_binary().iter().enumerate() {
                match value.and_then(|v| v.first_chunk::<16>()) {
                    Some(v) => out.put(row, *v),
                    None => out.put_null(row, 16),
                }
            }
        }
        DataType::List(_) => write_lists(column, out, zeros)?,
        other => return Err(unsupported(other)),
    }
    Ok(())
}

fn ordered_i32(v: i32) -> [u8; 4] {
    (v as u32 ^ (1 << 31)).to_be_bytes()
}

fn ordered_i64(v: i64) -> [u8; 8] {
    (v as u64 ^ (1 << 63)).to_be_bytes()
}

fn primitive<T: ArrowPrimitiveType, const N: usize>(
    column: &ArrayRef,
    out: &mut impl Target,
    encode: impl Fn(T::Native) -> [u8; N],
) {
    let array = column.as_primitive::<T>();
    if array.null_count() == 0 {
        for (row, value) in array.values().iter().enumerate() {
            out.put(row, encode(*value));
        }
        return;
    }
    for (row, value) in array.iter().enumerate() {
        match value {
            Some(v) => out.put(row, encode(v)),
            None => out.put_null(row, N),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn bytes_compare_as_values_do() {
        let ints: ArrayRef =
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(-1), Some(0), Some(7), None]));
        let keys = Keys::encode(&[ints], 5).expect("int keys");
        assert!((1..5).all(|i| keys.key(i - 1) < keys.key(i)));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![
            f64::NEG_INFINITY,
            -1.5,
            0.0,
            1e-9,
            f64::INFINITY,
            f64::NAN,
        ]));
        let keys = Keys::encode(&[floats], 6).expect("float keys");
        assert!((1..6).all(|i| keys.key(i - 1) < keys.key(i)));
        let text: ArrayRef =
            Arc::new(StringArray::from(vec![Some(""), Some("\0"), Some("a"), Some("ab"), None]));
        let keys = Keys::encode(&[text], 5).expect("text keys");
        assert!((1..5).all(|i| keys.key(i - 1) < keys.key(i)));
    }

    #[test]
    fn zeros_and_nans_are_one_key_each() {
        let a: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
        let keys = Keys::encode(&[a], 4).expect("float keys");
        assert_eq!(keys.key(0), keys.key(1));
        assert_eq!(keys.key(2), keys.key(3));
    }

    #[test]
    fn hash_and_placement_are_fixed_for_ever() {
        // These figures reach the disk: a change of them is a new encoding version.
        let a: ArrayRef = Arc::new(Int64Array::from(vec![42]));
        let keys = Keys::encode(&[a], 1).expect("int key");
        assert_eq!(keys.key(0), [1, 0x80, 0, 0, 0, 0, 0, 0, 42]);
        assert_eq!(keys.hash(0), hash_key(&[1, 0x80, 0, 0, 0, 0, 0, 0, 42]));
        assert_eq!(hash_key(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(worker_of(u64::MAX, 3), 2);
        assert_eq!(worker_of(0, 3), 0);
    }
}
