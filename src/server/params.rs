//! Parameters of Bind: text or binary bytes to values of the types that the statement wants.
//!
//! Text is read by the same function as a cast of a string in SQL, so that `$1` and `'..'::type`
//! accept the same things.

use bytes::Buf;
use datafusion::common::ScalarValue;

use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit};

use super::encode::{EPOCH_2000_DAYS, EPOCH_2000_US, Format};
use super::errors::code;
use super::numeric;
use crate::delta::checked_utf8;
use crate::delta::style::TextStyle;
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};

/// The value of parameter `number` (from 1); `None` for NULL.
pub(crate) fn decode(
    number: usize,
    data_type: &DataType,
    (format, style): (Format, TextStyle),
    bytes: Option<&[u8]>,
) -> Result<ScalarValue> {
    let Some(bytes) = bytes else {
        return ScalarValue::try_from(data_type)
            .map_err(|e| Error::unsupported(format!("parameter ${number}: {e}")));
    };
    match format {
        Format::Text => text_value(data_type, checked_utf8(bytes)?, style),
        Format::Binary => binary_value(number, data_type, bytes),
    }
}

fn text_value(data_type: &DataType, text: &str, style: TextStyle) -> Result<ScalarValue> {
    match data_type {
        DataType::Utf8 | DataType::Null => Ok(ScalarValue::Utf8(Some(text.to_string()))),
        other => crate::expr::parse_styled(text, other, style),
    }
}

fn binary_value(number: usize, data_type: &DataType, bytes: &[u8]) -> Result<ScalarValue> {
    let wrong_size = || {
        Error::user(
            code::INVALID_BINARY_REPRESENTATION,
            format!("incorrect binary data format in bind parameter {number}"),
        )
    };
    let exactly = |size: usize| if bytes.len() == size { Ok(bytes) } else { Err(wrong_size()) };
    Ok(match data_type {
        DataType::Boolean => ScalarValue::Boolean(Some(exactly(1)?.get_u8() != 0)),
        DataType::Int16 => ScalarValue::Int16(Some(exactly(2)?.get_i16())),
        DataType::Int32 => ScalarValue::Int32(Some(exactly(4)?.get_i32())),
        DataType::Int64 => ScalarValue::Int64(Some(exactly(8)?.get_i64())),
        DataType::Float32 => ScalarValue::Float32(Some(exactly(4)?.get_f32())),
        DataType::Float64 => ScalarValue::Float64(Some(exactly(8)?.get_f64())),
        DataType::Decimal128(..) => {
            crate::expr::parse_value(&numeric::text_of_binary(bytes)?, data_type)?
        }
        DataType::Utf8 | DataType::Null => {
            ScalarValue::Utf8(Some(checked_utf8(bytes)?.to_string()))
        }
        DataType::Binary => ScalarValue::Binary(Some(bytes.to_vec())),
        // A version, then the text.
        DataType::LargeUtf8 => {
            let text = checked_utf8(bytes.strip_prefix(&[1]).ok_or_else(wrong_size)?)?;
            crate::expr::parse_value(text, data_type)?
        }
        DataType::FixedSizeBinary(16) => {
            ScalarValue::FixedSizeBinary(16, Some(exactly(16)?.to_vec()))
        }
        DataType::List(element) => binary_array(number, element.data_type(), bytes)?,
        DataType::Date32 => {
            let day = exactly(4)?.get_i32().checked_add(EPOCH_2000_DAYS);
            ScalarValue::Date32(Some(day.ok_or_else(out_of_range)?))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            ScalarValue::Time64Microsecond(Some(exactly(8)?.get_i64()))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let us = exactly(8)?.get_i64().checked_add(EPOCH_2000_US);
            ScalarValue::TimestampMicrosecond(Some(us.ok_or_else(out_of_range)?), zone.clone())
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let mut bytes = exactly(16)?;
            let nanoseconds = bytes.get_i64().checked_mul(1_000).ok_or_else(out_of_range)?;
            let (days, months) = (bytes.get_i32(), bytes.get_i32());
            let value = IntervalMonthDayNano::new(months, days, nanoseconds);
            ScalarValue::IntervalMonthDayNano(Some(value))
        }
        other => {
            let name = pg_type_name(other);
            return Err(Error::unsupported(format!("binary parameters of type {name}"))
                .with_hint("Send the parameter in text format."));
        }
    })
}

/// A one-dimensional array: dimensions, flags, element type, then count, lower bound, elements.
fn binary_array(number: usize, element: &DataType, mut bytes: &[u8]) -> Result<ScalarValue> {
    let damaged = || {
        Error::user(
            code::INVALID_BINARY_REPRESENTATION,
            format!("incorrect binary data format in bind parameter {number}"),
        )
    };
    let dimensions = bytes.try_get_i32().map_err(|_| damaged())?;
    bytes = bytes.get(8..).ok_or_else(damaged)?;
    let mut values = Vec::new();
    let count = match dimensions {
        0 => 0,
        1 => bytes.try_get_i64().map_err(|_| damaged())? >> 32,
        _ => return Err(Error::unsupported("arrays of more than one dimension as parameters")),
    };
    for _ in 0..count {
        let length = bytes.try_get_i32().map_err(|_| damaged())?;
        let value = match usize::try_from(length) {
            Err(_) => None,
            Ok(length) => {
                let (value, rest) = bytes.split_at_checked(length).ok_or_else(damaged)?;
                bytes = rest;
                Some(value)
            }
        };
        values.push(decode(number, element, (Format::Binary, TextStyle::DEFAULT), value)?);
    }
    Ok(ScalarValue::List(ScalarValue::new_list_nullable(&values, element)))
}

fn out_of_range() -> Error {
    Error::user(sqlstate::DATETIME_FIELD_OVERFLOW, "date or time field value out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: (Format, TextStyle) = (Format::Text, TextStyle::DEFAULT);

    fn binary(data_type: DataType, bytes: &[u8]) -> Result<ScalarValue> {
        decode(1, &data_type, (Format::Binary, TextStyle::DEFAULT), Some(bytes))
    }

    #[test]
    fn binary_values_are_the_inverse_of_the_encoder() {
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert_eq!(
            binary(timestamp.clone(), &1i64.to_be_bytes()).ok(),
            Some(ScalarValue::TimestampMicrosecond(Some(EPOCH_2000_US + 1), None))
        );
        // PostgreSQL's `infinity` has no place in the engine.
        assert_eq!(
            binary(timestamp, &i64::MAX.to_be_bytes()).map_err(|e| e.sqlstate()).err(),
            Some("22008")
        );
        assert_eq!(
            binary(DataType::Date32, &(-10_957i32).to_be_bytes()).ok(),
            Some(ScalarValue::Date32(Some(0)))
        );
        let mut out = bytes::BytesMut::new();
        numeric::put_binary("-12345.678", &mut out);
        assert_eq!(
            binary(DataType::Decimal128(10, 2), &out).ok(),
            Some(ScalarValue::Decimal128(Some(-1_234_568), 10, 2))
        );
        let interval = [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 14];
        assert_eq!(
            binary(DataType::Interval(IntervalUnit::MonthDayNano), &interval).ok(),
            Some(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(14, 3, 5_000))))
        );
    }

    #[test]
    fn wrong_sizes_and_encodings_are_refused() {
        let code = |r: Result<ScalarValue>| r.map_err(|e| e.sqlstate()).err();
        assert_eq!(code(binary(DataType::Int32, &[0; 8])), Some("22P03"));
        assert_eq!(code(binary(DataType::Utf8, &[0xff])), Some("22021"));
        assert_eq!(code(binary(DataType::Utf8, b"a\0b")), Some("22021"));
        let text = |bytes| code(decode(1, &DataType::Utf8, TEXT, Some(bytes)));
        assert_eq!(text(b"a\0b"), Some("22021"));
        assert_eq!(text(b"\xc3("), Some("22021"));
        assert_eq!(decode(1, &DataType::Int32, TEXT, None).ok(), Some(ScalarValue::Int32(None)));
    }
}
