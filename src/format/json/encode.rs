//! Rows to JSON objects, columns in schema order, written straight into bytes.

use std::io::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, Schema,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};

use super::datetime;
use crate::error::{Error, Result};
use crate::format::Encoder;

/// Encodes rows of one schema.
pub(super) struct JsonEncoder {
    /// For each column what stands before its value: `{"a":` or `,"b":`.
    prefixes: Vec<Vec<u8>>,
    /// Length of the payload before, the guess for the next.
    room: usize,
}

impl JsonEncoder {
    pub(super) fn new(schema: &Schema) -> Result<Self> {
        let mut prefixes = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            if !writable(field.data_type()) {
                return Err(Error::unsupported(format!(
                    "ENCODE JSON can't write column \"{}\" of type {}",
                    field.name(),
                    field.data_type()
                )));
            }
            let mut prefix = vec![if index == 0 { b'{' } else { b',' }];
            write_text(field.name(), &mut prefix);
            prefix.push(b':');
            prefixes.push(prefix);
        }
        Ok(Self { prefixes, room: 64 })
    }
}

impl Encoder for JsonEncoder {
    fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<Vec<u8>>) -> Result<()> {
        if rows.num_columns() != self.prefixes.len() {
            return Err(Error::internal("the rows do not have the encoder's schema"));
        }
        out.reserve(rows.num_rows());
        for row in 0..rows.num_rows() {
            let mut payload = Vec::with_capacity(self.room);
            for (prefix, column) in self.prefixes.iter().zip(rows.columns()) {
                payload.extend_from_slice(prefix);
                write_value(column, row, &mut payload);
            }
            if self.prefixes.is_empty() {
                payload.push(b'{');
            }
            payload.push(b'}');
            self.room = payload.len();
            out.push(payload);
        }
        Ok(())
    }
}

fn writable(data_type: &DataType) -> bool {
    use DataType::{
        Binary, Boolean, Date32, Decimal128, FixedSizeBinary, Float32, Float64, Int16, Int32,
        Int64, Interval, LargeUtf8, List, Null, Time64, Timestamp, Utf8,
    };
    if let List(element) = data_type {
        return writable(element.data_type());
    }
    matches!(
        data_type,
        Null | Boolean
            | Int16
            | Int32
            | Int64
            | Float32
            | Float64
            | Decimal128(..)
            | Date32
            | Time64(TimeUnit::Microsecond)
            | Timestamp(TimeUnit::Microsecond, _)
            | Interval(IntervalUnit::MonthDayNano)
            | Utf8
            | LargeUtf8
            | FixedSizeBinary(16)
            | Binary
    )
}

/// Appends one value. The type is found again for each value; a branch beside a sink's other work.
fn write_value(column: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    if column.is_null(row) || column.data_type() == &DataType::Null {
        out.extend_from_slice(b"null");
        return;
    }
    match column.data_type() {
        DataType::Boolean => write_json(&column.as_boolean().value(row), out),
        DataType::Int16 => write_json(&column.as_primitive::<Int16Type>().value(row), out),
        DataType::Int32 => write_json(&column.as_primitive::<Int32Type>().value(row), out),
        DataType::Int64 => write_json(&column.as_primitive::<Int64Type>().value(row), out),
        DataType::Float32 => {
            let value = column.as_primitive::<Float32Type>().value(row);
            if value.is_finite() {
                write_json(&value, out)
            } else {
                write_special(value.into(), out)
            }
        }
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            if value.is_finite() { write_json(&value, out) } else { write_special(value, out) }
        }
        DataType::Decimal128(_, scale) => {
            write_decimal(column.as_primitive::<Decimal128Type>().value(row), *scale, out);
        }
        DataType::Utf8 => write_text(column.as_string::<i32>().value(row), out),
        DataType::LargeUtf8 => {
            out.extend_from_slice(column.as_string::<i64>().value(row).as_bytes());
        }
        DataType::List(_) => {
            let elements = column.as_list::<i32>().value(row);
            out.push(b'[');
            for i in 0..elements.len() {
                if i > 0 {
                    out.push(b',');
                }
                write_value(&elements, i, out);
            }
            out.push(b']');
        }
        _ => {
            out.push(b'"');
            write_unquoted(column, row, out);
            out.push(b'"');
        }
    }
}

/// Appends a value whose text needs no escapes.
fn write_unquoted(column: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    match column.data_type() {
        DataType::Date32 => {
            datetime::write_date(column.as_primitive::<Date32Type>().value(row), out);
        }
        DataType::Time64(_) => {
            let us = column.as_primitive::<Time64MicrosecondType>().value(row);
            datetime::write_time(us, 6, out);
        }
        DataType::Timestamp(_, zone) => {
            let us = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let zone = if zone.is_some() { "+00:00" } else { "" };
            datetime::write_timestamp(us, 6, zone, out);
        }
        DataType::Interval(_) => {
            write_interval(column.as_primitive::<IntervalMonthDayNanoType>().value(row), out);
        }
        DataType::Binary => {
            out.extend_from_slice(b"\\\\x");
            for byte in column.as_binary::<i32>().value(row) {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
        DataType::FixedSizeBinary(16) => {
            let text = crate::delta::text::display_value(column, row).unwrap_or_default();
            out.extend_from_slice(text.as_bytes());
        }
        other => debug_assert!(false, "checked when the encoder was made: {other}"),
    }
}

/// Appends a number, boolean or string. Writing into memory does not fail.
fn write_json<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let written = serde_json::to_writer(&mut *out, value);
    debug_assert!(written.is_ok(), "a vector takes everything");
}

/// Appends a string in quotes. Mostly nothing in it needs an escape, which one vectorised pass
/// tells.
fn write_text(value: &str, out: &mut Vec<u8>) {
    let escape = |found, byte: &u8| found | (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    if value.as_bytes().iter().fold(false, escape) {
        write_json(value, out);
    } else {
        out.reserve(value.len() + 2);
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
    }
}

fn write_special(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(match value {
        v if v.is_nan() => b"\"NaN\"".as_slice(),
        v if v > 0.0 => b"\"Infinity\"",
        _ => b"\"-Infinity\"",
    });
}

/// Appends a decimal number with all digits of its scale.
fn write_decimal(value: i128, scale: i8, out: &mut Vec<u8>) {
    let digits = value.unsigned_abs().to_string();
    if value < 0 {
        out.push(b'-');
    }
    let places = usize::try_from(scale).unwrap_or(0);
    match digits.len().checked_sub(places) {
        Some(0) | None => {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + (places - digits.len()), b'0');
            out.extend_from_slice(digits.as_bytes());
        }
        Some(point) => {
            let (int, fraction) = digits.split_at(point);
            out.extend_from_slice(int.as_bytes());
            if !fraction.is_empty() {
                out.push(b'.');
                out.extend_from_slice(fraction.as_bytes());
            }
            if scale < 0 && value != 0 {
                out.resize(out.len() + usize::from(scale.unsigned_abs()), b'0');
            }
        }
    }
}

/// Appends an interval as `14 mons -3 days 04:05:06.500000`. Intervals have microseconds.
fn write_interval(value: IntervalMonthDayNano, out: &mut Vec<u8>) {
    let nanos = value.nanoseconds.unsigned_abs();
    let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let sign = if value.nanoseconds < 0 { "-" } else { "" };
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let written = write!(
        out,
        "{} mons {} days {sign}{hours:02}:{minutes:02}:{seconds:02}.{:06}",
        value.months,
        value.days,
        fraction / 1000
    );
    debug_assert!(written.is_ok(), "a vector takes everything");
}
