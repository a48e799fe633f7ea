//! Rows of an Arrow batch as DataRow messages, in text or binary form, column by column.
//!
//! The type of a column is looked at once per batch ([`RowEncoder::new`]); a row then costs one
//! `match` per cell and no allocation. Types that PostgreSQL does not have are cast once per batch
//! to the type under which `types.rs` reports them.

use std::fmt::Write;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray,
    LargeStringArray, ListArray, RecordBatch, StringArray, StructArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit};
use bytes::{BufMut, BytesMut};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{FieldDescription, RowDescription};

use super::numeric;
use crate::catalog::types::{type_modifier, type_oid, type_size};
use crate::delta::style::TextStyle;
use crate::delta::text::{pg_type_name, write_styled};
use crate::error::{Error, Result, sqlstate};

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's timestamps count from.
pub(crate) const EPOCH_2000_US: i64 = 946_684_800_000_000;
/// Days from 1970-01-01 to 2000-01-01.
pub(crate) const EPOCH_2000_DAYS: i32 = 10_957;

/// How a value travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// As PostgreSQL prints it.
    Text,
    /// As PostgreSQL's `typsend` functions write it.
    Binary,
}

impl Format {
    /// A format code of the protocol.
    pub(crate) fn of_code(code: i16) -> Result<Self> {
        match code {
            0 => Ok(Self::Text),
            1 => Ok(Self::Binary),
            other => Err(Error::user(
                sqlstate::PROTOCOL_VIOLATION,
                format!("unsupported format code: {other}"),
            )),
        }
    }

    /// The formats of `columns` columns by the rule of Bind: none means text, one is for all.
    pub(crate) fn of_columns(codes: &[i16], columns: usize) -> Result<Vec<Self>> {
        match codes {
            [] => Ok(vec![Self::Text; columns]),
            [one] => Ok(vec![Self::of_code(*one)?; columns]),
            many if many.len() == columns => many.iter().map(|c| Self::of_code(*c)).collect(),
            many => Err(Error::user(
                sqlstate::PROTOCOL_VIOLATION,
                format!("bind message has {} formats but {columns} columns", many.len()),
            )),
        }
    }
}

/// The RowDescription of a result.
pub(crate) fn row_description(schema: &Schema, formats: &[Format]) -> PgWireBackendMessage {
    let describe = |(i, field): (usize, &std::sync::Arc<Field>)| {
        let oid = type_oid(field.data_type());
        let format = i16::from(formats.get(i) == Some(&Format::Binary));
        let modifier = type_modifier(field.data_type());
        FieldDescription::new(field.name().clone(), 0, 0, oid, type_size(oid), modifier, format)
    };
    let fields = schema.fields().iter().enumerate().map(describe).collect();
    PgWireBackendMessage::RowDescription(RowDescription::new(fields))
}

/// Writes the rows of one batch.
pub(crate) struct RowEncoder {
    columns: Vec<Column>,
    rows: usize,
    style: TextStyle,
    scratch: String,
}

struct Column {
    values: Values,
    array: ArrayRef,
    nulls: Option<NullBuffer>,
    format: Format,
}

/// A column under the type that it is sent as.
enum Values {
    Boolean(BooleanArray),
    Int16(Int16Array),
    Int32(Int32Array),
    Int64(Int64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Numeric,
    Text(StringArray),
    Bytes(BinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray),
    Interval(IntervalMonthDayNanoArray),
    Jsonb(LargeStringArray),
    Uuid(FixedSizeBinaryArray),
    List(ListArray),
    Record(StructArray),
    /// A type without a PostgreSQL counterpart: sent as text, which is also its binary form.
    Printed,
}

impl RowEncoder {
    /// An encoder of a batch; a format per column, text where there is none, and the style of it.
    pub(crate) fn new(batch: &RecordBatch, formats: &[Format], style: TextStyle) -> Result<Self> {
        let columns = batch
            .columns()
            .iter()
            .enumerate()
            .map(|(i, array)| Column::new(array, formats.get(i).copied().unwrap_or(Format::Text)))
            .collect::<Result<_>>()?;
        Ok(Self { columns, rows: batch.num_rows(), style, scratch: String::new() })
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Appends one row as a DataRow message.
    pub(crate) fn put_row(&mut self, row: usize, out: &mut BytesMut) {
        out.put_u8(b'D');
        let begin = out.len();
        out.put_i32(0);
        // RowDescription has already refused more columns than fit.
        out.put_i16(i16::try_from(self.columns.len()).unwrap_or(i16::MAX));
        for column in &self.columns {
            column.put_cell(row, self.style, out, &mut self.scratch);
        }
        patch_length(begin, out.len() - begin, out);
    }
}

/// Overwrites the four bytes at `place` with a length.
fn patch_length(place: usize, length: usize, out: &mut BytesMut) {
    let length = i32::try_from(length).unwrap_or(i32::MAX);
    out[place..place + 4].copy_from_slice(&length.to_be_bytes());
}

impl Column {
    fn new(array: &ArrayRef, format: Format) -> Result<Self> {
        let array = canonical(array)?;
        let values = match array.data_type() {
            DataType::Boolean => Values::Boolean(array.as_boolean().clone()),
            DataType::Int16 => Values::Int16(array.as_primitive().clone()),
            DataType::Int32 => Values::Int32(array.as_primitive().clone()),
            DataType::Int64 => Values::Int64(array.as_primitive().clone()),
            DataType::Float32 => Values::Float32(array.as_primitive().clone()),
            DataType::Float64 => Values::Float64(array.as_primitive().clone()),
            DataType::Decimal128(..) => Values::Numeric,
            DataType::Utf8 => Values::Text(array.as_string().clone()),
            DataType::Binary => Values::Bytes(array.as_binary().clone()),
            DataType::Date32 => Values::Date(array.as_primitive().clone()),
            DataType::Time64(_) => Values::Time(array.as_primitive().clone()),
            DataType::Timestamp(..) => Values::Timestamp(array.as_primitive().clone()),
            DataType::Interval(_) => Values::Interval(array.as_primitive().clone()),
            DataType::LargeUtf8 => Values::Jsonb(array.as_string().clone()),
            DataType::FixedSizeBinary(16) => Values::Uuid(array.as_fixed_size_binary().clone()),
            DataType::List(_) => Values::List(array.as_list().clone()),
            DataType::Struct(_) => Values::Record(array.as_struct().clone()),
            _ => Values::Printed,
        };
        Ok(Self { values, nulls: array.logical_nulls(), array, format })
    }

    /// Appends the length and the bytes of one cell.
    fn put_cell(&self, row: usize, style: TextStyle, out: &mut BytesMut, scratch: &mut String) {
        if self.nulls.as_ref().is_some_and(|n| n.is_null(row)) {
            return out.put_i32(-1);
        }
        let begin = out.len();
        out.put_i32(0);
        match self.format {
            Format::Text => self.put_text(row, style, out, scratch),
            Format::Binary => self.put_binary(row, out, scratch),
        }
        patch_length(begin, out.len() - begin - 4, out);
    }

    fn put_text(&self, row: usize, style: TextStyle, out: &mut BytesMut, scratch: &mut String) {
        match &self.values {
            Values::Text(a) => out.put_slice(a.value(row).as_bytes()),
            Values::Boolean(a) => out.put_u8(if a.value(row) { b't' } else { b'f' }),
            Values::Int16(a) => put_display(a.value(row), out),
            Values::Int32(a) => put_display(a.value(row), out),
            Values::Int64(a) => put_display(a.value(row), out),
            _ => out.put_slice(self.print(row, style, scratch).as_bytes()),
        }
    }

    fn put_binary(&self, row: usize, out: &mut BytesMut, scratch: &mut String) {
        match &self.values {
            Values::Boolean(a) => out.put_u8(u8::from(a.value(row))),
            Values::Int16(a) => out.put_i16(a.value(row)),
            Values::Int32(a) => out.put_i32(a.value(row)),
            Values::Int64(a) => out.put_i64(a.value(row)),
            Values::Float32(a) => out.put_f32(a.value(row)),
            Values::Float64(a) => out.put_f64(a.value(row)),
            Values::Numeric => {
                numeric::put_binary(self.print(row, TextStyle::DEFAULT, scratch), out)
            }
            Values::Text(a) => out.put_slice(a.value(row).as_bytes()),
            Values::Bytes(a) => out.put_slice(a.value(row)),
            Values::Date(a) => out.put_i32(a.value(row).saturating_sub(EPOCH_2000_DAYS)),
            Values::Time(a) => out.put_i64(a.value(row)),
            Values::Timestamp(a) => out.put_i64(a.value(row).saturating_sub(EPOCH_2000_US)),
            Values::Interval(a) => {
                let value = a.value(row);
                out.put_i64(value.nanoseconds / 1_000);
                out.put_i32(value.days);
                out.put_i32(value.months);
            }
            Values::Jsonb(a) => {
                // The version of the binary form.
                out.put_u8(1);
                out.put_slice(a.value(row).as_bytes());
            }
            Values::Uuid(a) => out.put_slice(a.value(row)),
            Values::List(a) => put_array(&a.value(row), out, scratch),
            Values::Record(a) => put_record(a, row, out, scratch),
            Values::Printed => {
                out.put_slice(self.print(row, TextStyle::DEFAULT, scratch).as_bytes());
            }
        }
    }

    fn print<'a>(&self, row: usize, style: TextStyle, scratch: &'a mut String) -> &'a str {
        scratch.clear();
        write_styled(self.array.as_ref(), row, style, scratch);
        scratch
    }
}

fn put_display(value: impl std::fmt::Display, out: &mut BytesMut) {
    // Writing to memory that grows cannot fail.
    let _ = write!(out, "{value}");
}

/// Appends the binary form of a one-dimensional array. Looks at the type once per value, not per
/// batch: arrays are rare in results.
fn put_array(elements: &ArrayRef, out: &mut BytesMut, scratch: &mut String) {
    let dimensions = i32::from(!elements.is_empty());
    out.put_i32(dimensions);
    out.put_i32(i32::from(elements.null_count() > 0));
    out.put_u32(type_oid(elements.data_type()));
    if elements.is_empty() {
        return;
    }
    out.put_i32(i32::try_from(elements.len()).unwrap_or(i32::MAX));
    out.put_i32(1);
    match Column::new(elements, Format::Binary) {
        Ok(column) => {
            (0..elements.len()).for_each(|i| column.put_cell(i, TextStyle::DEFAULT, out, scratch))
        }
        Err(_) => (0..elements.len()).for_each(|_| out.put_i32(-1)),
    }
}

/// Appends the binary form of a row: how many fields, and of each its type, length and bytes.
fn put_record(rows: &StructArray, row: usize, out: &mut BytesMut, scratch: &mut String) {
    out.put_i32(i32::try_from(rows.num_columns()).unwrap_or(i32::MAX));
    for field in rows.columns() {
        out.put_u32(type_oid(field.data_type()));
        match Column::new(field, Format::Binary) {
            Ok(column) => column.put_cell(row, TextStyle::DEFAULT, out, scratch),
            Err(_) => out.put_i32(-1),
        }
    }
}

/// The array as the type that `type_oid` reports, where there is one.
fn canonical(array: &ArrayRef) -> Result<ArrayRef> {
    let target = match array.data_type() {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(TimeUnit::Nanosecond) => {
            DataType::Time64(TimeUnit::Microsecond)
        }
        DataType::Timestamp(unit, zone) if *unit != TimeUnit::Microsecond => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        DataType::Interval(unit) if *unit != IntervalUnit::MonthDayNano => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        _ => return Ok(ArrayRef::clone(array)),
    };
    arrow::compute::cast(array, &target).map_err(|e| {
        let shown = pg_type_name(array.data_type());
        Error::from(e).context(format!("a value of type {shown} cannot be sent"))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{TimestampNanosecondArray, UInt64Array};
    use arrow::datatypes::{Int32Type, IntervalMonthDayNano};

    use super::*;

    /// The cells of the first row of a one-column batch per format; `None` for NULL.
    fn cell(array: ArrayRef, format: Format) -> Option<Vec<u8>> {
        let field = Field::new("c", array.data_type().clone(), true);
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]);
        let batch = batch.expect("one column");
        let mut encoder =
            RowEncoder::new(&batch, &[format], TextStyle::DEFAULT).expect("encodable");
        let mut out = BytesMut::new();
        encoder.put_row(0, &mut out);
        assert_eq!(out[0], b'D');
        let word = |at: usize| i32::from_be_bytes([out[at], out[at + 1], out[at + 2], out[at + 3]]);
        assert_eq!(word(1) as usize, out.len() - 1, "the length counts itself");
        assert_eq!(out[5..7], [0, 1], "one column");
        match word(7) {
            -1 => None,
            n => {
                assert_eq!(n as usize, out.len() - 11);
                Some(out[11..].to_vec())
            }
        }
    }

    fn text(array: impl Array + 'static) -> String {
        String::from_utf8(cell(Arc::new(array), Format::Text).expect("not NULL")).expect("UTF-8")
    }

    fn binary(array: impl Array + 'static) -> Vec<u8> {
        cell(Arc::new(array), Format::Binary).expect("not NULL")
    }

    #[test]
    fn rows_are_records() {
        let fields: Vec<(Arc<Field>, ArrayRef)> = vec![
            (
                Arc::new(Field::new("c0", DataType::Int32, true)),
                Arc::new(Int32Array::from(vec![7])),
            ),
            (
                Arc::new(Field::new("c1", DataType::Utf8, true)),
                Arc::new(StringArray::from(vec!["a \"b"])),
            ),
            (
                Arc::new(Field::new("c2", DataType::Boolean, true)),
                Arc::new(BooleanArray::from(vec![None])),
            ),
        ];
        let rows = StructArray::from(fields);
        assert_eq!(text(rows.clone()), "(7,\"a \"\"b\",)");
        let mut expected = vec![0, 0, 0, 3];
        expected.extend([0, 0, 0, 23, 0, 0, 0, 4, 0, 0, 0, 7]);
        expected.extend([0, 0, 0, 25, 0, 0, 0, 4]);
        expected.extend(b"a \"b");
        expected.extend([0, 0, 0, 16, 255, 255, 255, 255]);
        assert_eq!(binary(rows), expected);
    }

    #[test]
    fn numbers_and_text() {
        assert_eq!(text(Int64Array::from(vec![-5])), "-5");
        assert_eq!(binary(Int64Array::from(vec![-5])), (-5i64).to_be_bytes());
        assert_eq!(text(BooleanArray::from(vec![true])), "t");
        assert_eq!(binary(BooleanArray::from(vec![true])), [1]);
        assert_eq!(text(Float64Array::from(vec![1e20])), "1e+20");
        assert_eq!(binary(Float64Array::from(vec![1e20])), 1e20f64.to_be_bytes());
        assert_eq!(text(StringArray::from(vec!["a\tb"])), "a\tb");
        assert_eq!(text(BinaryArray::from_vec(vec![b"\x01\xfe"])), "\\x01fe");
        assert_eq!(binary(BinaryArray::from_vec(vec![b"\x01\xfe"])), [1, 0xfe]);
        assert_eq!(cell(Arc::new(Int32Array::from(vec![None])), Format::Binary), None);
        assert_eq!(cell(arrow::array::new_null_array(&DataType::Null, 1), Format::Text), None);
    }

    #[test]
    fn time_counts_from_the_year_2000() {
        let us = EPOCH_2000_US + 1;
        assert_eq!(binary(TimestampMicrosecondArray::from(vec![us])), 1i64.to_be_bytes());
        assert_eq!(text(TimestampMicrosecondArray::from(vec![us])), "2000-01-01 00:00:00.000001");
        let ns = TimestampNanosecondArray::from(vec![us * 1_000]);
        assert_eq!(binary(ns), 1i64.to_be_bytes());
        assert_eq!(binary(Date32Array::from(vec![0])), (-10_957i32).to_be_bytes());
        let interval = IntervalMonthDayNano::new(14, 3, 5_000);
        let expected = [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 14];
        assert_eq!(binary(IntervalMonthDayNanoArray::from(vec![interval])), expected);
    }

    #[test]
    fn types_that_postgresql_lacks_travel_as_wider_ones() {
        assert_eq!(text(UInt64Array::from(vec![u64::MAX])), "18446744073709551615");
        assert_eq!(type_oid(&DataType::UInt64), crate::catalog::types::oid::NUMERIC);
        // 1844 6744 0737 0955 1615: five digits of base 10000, weight 4.
        assert_eq!(binary(UInt64Array::from(vec![u64::MAX]))[..4], [0, 5, 0, 4]);
    }

    #[test]
    fn an_array_has_a_header_and_its_elements() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(7), None])]);
        assert_eq!(text(list.clone()), "{7,NULL}");
        let words: Vec<i32> =
            binary(list).chunks(4).map(|c| i32::from_be_bytes([c[0], c[1], c[2], c[3]])).collect();
        assert_eq!(words, [1, 1, 23, 2, 1, 4, 7, -1]);
    }

    #[test]
    fn formats_by_the_rule_of_bind() {
        use Format::{Binary, Text};
        assert_eq!(Format::of_columns(&[], 2).ok(), Some(vec![Text, Text]));
        assert_eq!(Format::of_columns(&[1], 2).ok(), Some(vec![Binary, Binary]));
        assert_eq!(Format::of_columns(&[1, 0], 2).ok(), Some(vec![Binary, Text]));
        assert!(Format::of_columns(&[1, 0], 3).is_err());
        assert!(Format::of_columns(&[2], 1).is_err());
    }
}
