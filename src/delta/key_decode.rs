//! Key bytes back to columns: the inverse of [`super::Keys::encode`].
//!
//! Group keys are kept as bytes alone; their columns are made again when a group is emitted.
//! Canonical values come back (`0.0` for `-0.0`), which are equal to those that went in.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, LargeStringBuilder, ListArray,
    NullArray, PrimitiveBuilder, StringBuilder, new_empty_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::concat;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, FieldRef, Float32Type, Float64Type,
    Int16Type, Int32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};

use super::key::{ELEMENTS_AT_ONCE, NULL, PRESENT, fixed_width};
use crate::error::{Error, Result};

/// Whether bytes are the encodings of values of these types with nothing behind them. Bytes that
/// come from outside are looked at with it first: [`decode_keys`] takes them as they are.
pub fn is_key(types: &[DataType], mut bytes: &[u8]) -> bool {
    types.iter().all(|t| pass(t, &mut bytes).is_some()) && bytes.is_empty()
}

/// Passes over the encoding of one value.
fn pass(data_type: &DataType, bytes: &mut &[u8]) -> Option<()> {
    let (mark, rest) = bytes.split_first()?;
    *bytes = rest;
    if let Some(width) = fixed_width(data_type) {
        let (value, rest) = bytes.split_at_checked(width)?;
        *bytes = rest;
        let whole = match (*mark, data_type) {
            (NULL, _) => value.iter().all(|b| *b == 0),
            (PRESENT, DataType::Boolean) => value[0] <= 1,
            (mark, data_type) => mark == PRESENT && *data_type != DataType::Null,
        };
        return whole.then_some(());
    }
    match (*mark, data_type) {
        (NULL, _) => Some(()),
        (PRESENT, DataType::List(field)) => {
            while *bytes.first()? != 0 {
                pass(field.data_type(), bytes)?;
            }
            *bytes = &bytes[1..];
            Some(())
        }
        (PRESENT, _) => pass_text(*data_type == DataType::Binary, bytes),
        _ => None,
    }
}

/// Passes over an escaped, closed string.
fn pass_text(binary: bool, bytes: &mut &[u8]) -> Option<()> {
    let mut end = 0;
    loop {
        end += bytes.get(end..)?.iter().position(|b| *b == 0)?;
        match bytes.get(end + 1)? {
            0 => break,
            0xFF => end += 2,
            _ => return None,
        }
    }
    let mut value = bytes.get(..end + 2)?;
    *bytes = &bytes[end + 2..];
    if binary {
        return Some(());
    }
    // What was escaped is a zero, which is text wherever it stands between characters.
    while let Some(zero) = value.iter().position(|b| *b == 0) {
        std::str::from_utf8(&value[..zero]).ok()?;
        value = &value[zero + 2..];
    }
    Some(())
}

/// Decodes keys into one array per type.
pub fn decode_keys<'a>(
    types: &[DataType],
    keys: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<ArrayRef>> {
    let mut rest: Vec<&[u8]> = keys.collect();
    types.iter().map(|t| column(t, &mut rest)).collect()
}

fn column(data_type: &DataType, keys: &mut [&[u8]]) -> Result<ArrayRef> {
    Ok(match data_type {
        DataType::Null => {
            keys.iter_mut().for_each(|k| *k = &k[1..]);
            Arc::new(NullArray::new(keys.len()))
        }
        DataType::Boolean => {
            let mut builder = BooleanBuilder::with_capacity(keys.len());
            keys.iter_mut().for_each(|k| builder.append_option(take::<1>(k).map(|b| b[0] != 0)));
            Arc::new(builder.finish())
        }
        DataType::Int16 => {
            primitive::<Int16Type, 2>(data_type, keys, |b| (u16::from_be_bytes(b) ^ 0x8000) as i16)
        }
        DataType::Int32 => primitive::<Int32Type, 4>(data_type, keys, plain_i32),
        DataType::Date32 => primitive::<Date32Type, 4>(data_type, keys, plain_i32),
        DataType::Int64 => primitive::<Int64Type, 8>(data_type, keys, plain_i64),
        DataType::Time64(TimeUnit::Microsecond) => {
            primitive::<Time64MicrosecondType, 8>(data_type, keys, plain_i64)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            primitive::<TimestampMicrosecondType, 8>(data_type, keys, plain_i64)
        }
        DataType::Float32 => primitive::<Float32Type, 4>(data_type, keys, |b| {
            let bits = u32::from_be_bytes(b);
            f32::from_bits(if bits >> 31 == 1 { bits ^ (1 << 31) } else { !bits })
        }),
        DataType::Float64 => primitive::<Float64Type, 8>(data_type, keys, |b| {
            let bits = u64::from_be_bytes(b);
            f64::from_bits(if bits >> 63 == 1 { bits ^ (1 << 63) } else { !bits })
        }),
        DataType::Decimal128(..) => primitive::<Decimal128Type, 16>(data_type, keys, |b| {
            (u128::from_be_bytes(b) ^ (1 << 127)) as i128
        }),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            primitive::<IntervalMonthDayNanoType, 16>(data_type, keys, interval)
        }
        _ => return variable(data_type, keys),
    })
}

/// Texts, bytes, lists and uuids.
fn variable(data_type: &DataType, keys: &mut [&[u8]]) -> Result<ArrayRef> {
    Ok(match data_type {
        DataType::Utf8 => {
            let mut builder = StringBuilder::new();
            for key in keys.iter_mut() {
                match unescape(key) {
                    Some(bytes) => builder.append_value(
                        std::str::from_utf8(&bytes)
                            .map_err(|_| Error::internal("key bytes of a text are not UTF-8"))?,
                    ),
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        DataType::Binary => {
            let mut builder = BinaryBuilder::new();
            keys.iter_mut().for_each(|k| builder.append_option(unescape(k)));
            Arc::new(builder.finish())
        }
        DataType::LargeUtf8 => {
            let mut builder = LargeStringBuilder::new();
            for key in keys.iter_mut() {
                match unescape(key) {
                    Some(bytes) => builder.append_value(
                        std::str::from_utf8(&bytes)
                            .map_err(|_| Error::internal("key bytes of a jsonb are not UTF-8"))?,
                    ),
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        DataType::FixedSizeBinary(16) => {
            let mut builder = FixedSizeBinaryBuilder::with_capacity(keys.len(), 16);
            for key in keys.iter_mut() {
                match take::<16>(key) {
                    Some(bytes) => builder.append_value(bytes)?,
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        DataType::List(field) => lists(field, keys)?,
        other => return Err(Error::internal(format!("a key can't be of type {other}"))),
    })
}

/// Arrays: elements until the closing `00`, decoded some at once.
fn lists(field: &FieldRef, keys: &mut [&[u8]]) -> Result<ArrayRef> {
    let (mut offsets, mut valid) = (vec![0_i32], Vec::with_capacity(keys.len()));
    let (mut decoded, mut elements, mut count) = (Vec::new(), Vec::new(), 0_usize);
    for key in keys.iter_mut() {
        let present = key[0] != NULL;
        *key = &key[1..];
        while present && key.first().is_some_and(|mark| *mark != 0) {
            if elements.len() == ELEMENTS_AT_ONCE {
                decoded.push(column(field.data_type(), &mut elements)?);
                elements.clear();
            }
            elements.push(*key);
            *key = key.get(length(field.data_type(), key)..).unwrap_or_default();
            count += 1;
        }
        if present {
            *key = key.get(1..).unwrap_or_default();
        }
        valid.push(present);
        let end = i32::try_from(count);
        offsets.push(end.map_err(|_| Error::internal("lists have too many elements"))?);
    }
    if !elements.is_empty() {
        decoded.push(column(field.data_type(), &mut elements)?);
    }
    let values = match decoded.as_slice() {
        [] => new_empty_array(field.data_type()),
        [all] => ArrayRef::clone(all),
        parts => concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
    };
    let nulls = Some(NullBuffer::from(valid)).filter(|n| n.null_count() > 0);
    let offsets = OffsetBuffer::new(offsets.into());
    Ok(Arc::new(ListArray::try_new(FieldRef::clone(field), offsets, values, nulls)?))
}

/// The bytes of the first value.
fn length(data_type: &DataType, key: &[u8]) -> usize {
    if let Some(width) = fixed_width(data_type) {
        return width + 1;
    }
    match data_type {
        _ if key[0] == NULL => 1,
        DataType::List(field) => {
            let mut at = 1;
            while key.get(at).is_some_and(|mark| *mark != 0) {
                at += length(field.data_type(), &key[at..]);
            }
            at + 1
        }
        _ => {
            let mut at = 1;
            loop {
                let rest = key.get(at..).unwrap_or_default();
                at += rest.iter().position(|b| *b == 0).unwrap_or(rest.len()) + 2;
                if key.get(at - 1) != Some(&0xFF) {
                    return at;
                }
            }
        }
    }
}

/// Takes a mark and `N` bytes off the front; `None` for NULL.
fn take<const N: usize>(key: &mut &[u8]) -> Option<[u8; N]> {
    let mark = key[0];
    let value = key[1..].first_chunk::<N>().copied();
    *key = &key[1 + N..];
    if mark == NULL { None } else { value }
}

/// Takes a mark and an escaped, closed string off the front.
fn unescape(key: &mut &[u8]) -> Option<Vec<u8>> {
    let mark = key[0];
    *key = &key[1..];
    if mark == NULL {
        return None;
    }
    let mut value = Vec::new();
    loop {
        let zero = key.iter().position(|b| *b == 0).unwrap_or(key.len());
        value.extend_from_slice(&key[..zero]);
        let escaped = key.get(zero + 1) == Some(&0xFF);
        *key = key.get(zero + 2..).unwrap_or_default();
        if !escaped {
            return Some(value);
        }
        value.push(0);
    }
}

fn plain_i32(b: [u8; 4]) -> i32 {
    (u32::from_be_bytes(b) ^ (1 << 31)) as i32
}

fn plain_i64(b: [u8; 8]) -> i64 {
    (u64::from_be_bytes(b) ^ (1 << 63)) as i64
}

fn interval(b: [u8; 16]) -> IntervalMonthDayNano {
    let [m0, m1, m2, m3, d0, d1, d2, d3, nanos @ ..] = b;
    IntervalMonthDayNano::new(
        plain_i32([m0, m1, m2, m3]),
        plain_i32([d0, d1, d2, d3]),
        plain_i64(nanos),
    )
}

fn primitive<T: ArrowPrimitiveType, const N: usize>(
    data_type: &DataType,
    keys: &mut [&[u8]],
    decode: impl Fn([u8; N]) -> T::Native,
) -> ArrayRef {
    let mut builder =
        PrimitiveBuilder::<T>::with_capacity(keys.len()).with_data_type(data_type.clone());
    keys.iter_mut().for_each(|k| builder.append_option(take::<N>(k).map(&decode)));
    Arc::new(builder.finish())
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Float64Array, Int32Array, StringArray};

    use super::*;
    use crate::delta::Keys;

    fn texts(lists: &[Option<&[Option<&str>]>]) -> ArrayRef {
        let mut builder = arrow::array::ListBuilder::new(StringBuilder::new());
        for list in lists {
            match list {
                Some(values) => builder.append_value(values.iter().copied()),
                None => builder.append_null(),
            }
        }
        Arc::new(builder.finish())
    }

    #[test]
    fn decoding_gives_back_what_was_encoded() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![Some(-5), None, Some(i32::MAX)])),
            Arc::new(StringArray::from(vec![Some("a\0b"), Some(""), None])),
            Arc::new(Float64Array::from(vec![Some(-1.5), Some(f64::INFINITY), None])),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
                Some(vec![Some(1), None, Some(-2)]),
                None,
                Some(vec![]),
            ])),
            texts(&[Some(&[Some("a\0"), None, Some("")]), Some(&[]), None]),
        ];
        let keys = Keys::encode(&columns, 3).expect("keys");
        let types: Vec<_> = columns.iter().map(|c| c.data_type().clone()).collect();
        let back = decode_keys(&types, (0..3).map(|i| keys.key(i))).expect("columns");
        assert_eq!(columns, back);
    }

    /// Would find elements that are lost or doubled where long lists are taken in parts.
    #[test]
    fn long_lists_are_those_that_were_encoded() {
        let many = ELEMENTS_AT_ONCE as i32 + 1000;
        let ints = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(7), None]),
            Some((0..many).map(|i| Some(i).filter(|i| i % 7 > 0)).collect()),
            None,
            Some((0..2 * many).map(|i| Some(-i)).collect()),
            Some(vec![]),
        ]);
        let words: Vec<String> = (0..many).map(|i| format!("{}\0", i % 11)).collect();
        let words: Vec<Option<&str>> = words.iter().map(|w| Some(w.as_str())).collect();
        let texts = texts(&[None, Some(&words), Some(&[Some("x"), None]), Some(&words), Some(&[])]);
        for column in [Arc::new(ints) as ArrayRef, texts] {
            let types = [column.data_type().clone()];
            let keys = Keys::encode(std::slice::from_ref(&column), 5).expect("keys");
            for row in 0..5 {
                let alone = Keys::encode(&[column.slice(row, 1)], 1).expect("a key");
                assert!(alone.key(0) == keys.key(row), "row {row}");
            }
            let back = decode_keys(&types, (0..5).map(|i| keys.key(i))).expect("columns");
            assert!(back[0] == column);
        }
    }

    #[test]
    fn what_is_no_key_is_told_from_one() {
        let lists = texts(&[Some(&[Some("a\0b"), None]), Some(&[]), None]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![Some(7), None, Some(-1)])),
            Arc::new(StringArray::from(vec![Some("x\0y\0"), Some(""), None])),
            lists,
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        ];
        let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
        let keys = Keys::encode_exact(&columns, 3).expect("keys");
        for row in 0..3 {
            let key = keys.key(row);
            assert!(is_key(&types, key));
            assert!(!is_key(&types[1..], key) && !is_key(&types, &[key, &[1]].concat()));
            for end in 0..key.len() {
                assert!(!is_key(&types, &key[..end]), "row {row} cut at {end}");
            }
            for at in 0..key.len() {
                let mut other = key.to_vec();
                other[at] ^= 0x81;
                // Another value or none, but nothing that decoding trips over.
                if is_key(&types, &other) {
                    let back = decode_keys(&types, [other.as_slice()].into_iter());
                    let back = back.expect("a key");
                    let again = Keys::encode_exact(&back, 1).expect("values");
                    assert_eq!(again.key(0), other, "row {row}, byte {at}");
                }
            }
        }
    }
}
