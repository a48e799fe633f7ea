//! Text to values, with PostgreSQL's input syntax and wording: what casts from text, parameters in
//! text form and `COPY` share. `delta::text` is the way back.

use arrow::array::StringArray;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use super::column_parser::parse_column;
use super::errors::from_datafusion;
use super::numeric;
use super::parse_datetime::{Fault, moment, time_us};
use crate::cancel::checkpoint;
use crate::delta::style::{DateOrder, TextStyle};
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};

/// One value from its text.
pub fn parse_value(text: &str, data_type: &DataType) -> Result<ScalarValue> {
    parse_styled(text, data_type, TextStyle::DEFAULT)
}

/// The same from a text in a style.
pub fn parse_styled(text: &str, data_type: &DataType, style: TextStyle) -> Result<ScalarValue> {
    let array = parse_column(&StringArray::from(vec![text]), data_type, style)?;
    ScalarValue::try_from_array(&array, 0).map_err(from_datafusion)
}

/// 32 hexadecimal digits, with hyphens between groups of four, in braces or not.
pub fn uuid(text: &str) -> Result<[u8; 16]> {
    let error = || {
        Error::user(
            sqlstate::INVALID_TEXT_REPRESENTATION,
            format!("invalid input syntax for type uuid: \"{text}\""),
        )
    };
    let plain = text.trim();
    let plain = match plain.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or_else(error)?,
        None => plain,
    };
    let (mut bytes, mut digits) = ([0_u8; 16], 0);
    for c in plain.chars() {
        match c.to_digit(16) {
            Some(digit) if digits < 32 => {
                bytes[digits / 2] = bytes[digits / 2] << 4 | digit as u8;
                digits += 1;
            }
            None if c == '-' && digits > 0 && digits % 4 == 0 => {}
            _ => return Err(error()),
        }
    }
    if digits == 32 { Ok(bytes) } else { Err(error()) }
}

pub(super) fn date(text: &str, order: DateOrder) -> Result<i32> {
    let read = moment(text, order).and_then(|m| m.day.ok_or(Fault::Syntax));
    let day = read.map_err(|fault| datetime_error(fault, text, &DataType::Date32))?;
    i32::try_from(day).map_err(|_| out_of_range(text))
}

/// Microseconds since midnight.
pub(super) fn time(text: &str, data_type: &DataType, order: DateOrder) -> Result<i64> {
    time_us(text, order).map_err(|fault| datetime_error(fault, text, data_type))
}

fn invalid(text: &str, data_type: &DataType) -> Error {
    Error::user(
        sqlstate::INVALID_TEXT_REPRESENTATION,
        format!("invalid input syntax for type {}: \"{text}\"", pg_type_name(data_type)),
    )
}

fn invalid_datetime(text: &str, data_type: &DataType) -> Error {
    let name = match data_type {
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Time64(_) => "time",
        other => pg_type_name(other),
    };
    Error::user(
        sqlstate::INVALID_DATETIME_FORMAT,
        format!("invalid input syntax for type {name}: \"{text}\""),
    )
}

fn out_of_range(text: &str) -> Error {
    Error::user(
        sqlstate::DATETIME_FIELD_OVERFLOW,
        format!("date/time field value out of range: \"{text}\""),
    )
}

pub(super) fn boolean(text: &str) -> Result<bool> {
    let folded = text.trim().to_ascii_lowercase();
    let prefix = |word: &str| !folded.is_empty() && word.starts_with(&folded);
    match folded.as_str() {
        "on" | "1" => Ok(true),
        "of" | "off" | "0" => Ok(false),
        _ if prefix("true") || prefix("yes") => Ok(true),
        _ if prefix("false") || prefix("no") => Ok(false),
        _ => Err(invalid(text, &DataType::Boolean)),
    }
}

pub(super) fn integer<N>(text: &str, data_type: &DataType) -> Result<N>
where
    N: std::str::FromStr<Err = std::num::ParseIntError> + TryFrom<i64>,
{
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    if let Some(value) = plain_integer(text.as_bytes()).and_then(|v| N::try_from(v).ok()) {
        return Ok(value);
    }
    text.trim().parse::<N>().map_err(|e| match e.kind() {
        PosOverflow | NegOverflow => Error::user(
            sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("value \"{text}\" is out of range for type {}", pg_type_name(data_type)),
        ),
        _ => invalid(text, data_type),
    })
}

/// Digits that fit into 64 bits whatever they are.
const PLAIN_DIGITS: usize = 18;

/// A number that is nothing but a few digits, as nearly all are, perhaps behind a minus.
#[inline]
fn plain_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    if digits.is_empty() || digits.len() > PLAIN_DIGITS {
        return None;
    }
    let mut value = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Some(if negative { -value } else { value })
}

/// `-12.34` of a few digits, none of which is behind the scale.
#[inline]
fn plain_decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    let (mut value, mut point) = (0_i64, None);
    if digits.len() > PLAIN_DIGITS {
        return None;
    }
    for (i, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => value = value * 10 + i64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(i),
            _ => return None,
        }
    }
    let behind = point.map_or(0, |at| digits.len() - at - 1);
    let some = digits.len() > usize::from(point.is_some());
    let shift = usize::try_from(scale).ok()?.checked_sub(behind)?;
    let shift = 10_i128.checked_pow(u32::try_from(shift).ok()?)?;
    let value = i128::from(value).checked_mul(shift)?;
    let fits = 10_i128.checked_pow(u32::from(precision)).is_none_or(|limit| value < limit);
    (some && fits).then_some(if negative { -value } else { value })
}

/// `-NaN` is the one NaN that there is.
pub(super) fn float4(text: &str) -> Result<f32> {
    let value: f32 = float(text, &DataType::Float32)?;
    check_float(text, f64::from(value), &DataType::Float32)?;
    Ok(if value.is_nan() { f32::NAN } else { value })
}

pub(super) fn float8(text: &str) -> Result<f64> {
    let value: f64 = float(text, &DataType::Float64)?;
    check_float(text, value, &DataType::Float64)?;
    Ok(if value.is_nan() { f64::NAN } else { value })
}

fn float<F: std::str::FromStr>(text: &str, data_type: &DataType) -> Result<F> {
    text.trim().parse::<F>().map_err(|_| invalid(text, data_type))
}

/// Rust reads `1e400` as infinity; only a written infinity is one.
fn check_float(text: &str, value: f64, data_type: &DataType) -> Result<()> {
    match value.is_infinite() && !text.to_ascii_lowercase().contains("inf") {
        false => Ok(()),
        true => Err(Error::user(
            sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("\"{text}\" is out of range for type {}", pg_type_name(data_type)),
        )),
    }
}

/// Reads `-12.34e5` as a decimal of a precision and scale, rounded half away from zero.
pub(crate) fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128> {
    if let Some(value) = plain_decimal(text.as_bytes(), precision, scale) {
        return Ok(value);
    }
    let error = || invalid(text, &DataType::Decimal128(precision, scale));
    let trimmed = text.trim();
    if ["nan", "inf", "infinity", "-inf", "-infinity", "+inf", "+infinity"]
        .contains(&trimmed.to_ascii_lowercase().as_str())
    {
        return Err(Error::unsupported(format!("numeric value \"{trimmed}\" is not supported")));
    }
    let (mantissa, exponent) = match trimmed.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.parse::<i32>().map_err(|_| error())?),
        None => (trimmed, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    if all.is_empty() || !all.iter().all(u8::is_ascii_digit) {
        return Err(error());
    }
    // The number is 0.d1d2d3.. * 10^point; digits behind the scale only decide the rounding.
    let point = i64::try_from(whole.len()).unwrap_or(i64::MAX) + i64::from(exponent);
    let keep = point + i64::from(scale);
    let digit = |i: i64| usize::try_from(i).ok().and_then(|i| all.get(i)).map_or(0, |d| d - b'0');
    let mut value = 0i128;
    let first = all.iter().position(|d| *d != b'0').unwrap_or(all.len());
    let first = i64::try_from(first).unwrap_or(0);
    if first < i64::try_from(all.len()).unwrap_or(0) && keep - first > 38 {
        return Err(numeric::overflow());
    }
    for i in first.min(keep)..keep {
        value = value * 10 + i128::from(digit(i));
    }
    if keep >= 0 && digit(keep) >= 5 {
        value += 1;
    }
    numeric::rescale(if negative { -value } else { value }, scale, precision, scale)
}

/// So many bytes are read in a few milliseconds.
const LOOK_BYTES: usize = 1 << 18;

/// The bytes of a bytea literal.
pub(crate) fn parse_bytea(text: &str) -> Result<Vec<u8>> {
    let error = |m: &str| Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, m.to_string());
    if let Some(hex) = text.strip_prefix("\\x") {
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        if !digits.len().is_multiple_of(2) {
            return Err(error("invalid hexadecimal data: odd number of digits"));
        }
        let nibble = |b: u8| char::from(b).to_digit(16);
        let mut out = Vec::with_capacity(digits.len() / 2);
        for pair in digits.chunks_exact(2) {
            match (nibble(pair[0]), nibble(pair[1])) {
                (Some(h), Some(l)) => out.push((h * 16 + l) as u8),
                _ => return Err(error("invalid hexadecimal digit in bytea")),
            }
            if out.len().is_multiple_of(LOOK_BYTES) {
                checkpoint()?;
            }
        }
        return Ok(out);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            if out.len().is_multiple_of(LOOK_BYTES) {
                checkpoint()?;
            }
            continue;
        }
        match bytes.next() {
            Some(b'\\') => out.push(b'\\'),
            Some(d @ b'0'..=b'3') => {
                let octal =
                    |b: Option<u8>| b.filter(|b| (b'0'..=b'7').contains(b)).map(|b| b - b'0');
                match (octal(bytes.next()), octal(bytes.next())) {
                    (Some(m), Some(l)) => out.push((d - b'0') * 64 + m * 8 + l),
                    _ => return Err(error("invalid input syntax for type bytea")),
                }
            }
            _ => return Err(error("invalid input syntax for type bytea")),
        }
    }
    Ok(out)
}

/// Microseconds since 1970; a zone in the text counts only for `timestamp with time zone`, whose
/// moments are of the style's zone without one.
pub(super) fn timestamp_us(
    text: &str,
    zoned: bool,
    data_type: &DataType,
    style: TextStyle,
) -> Result<i64> {
    let read = moment(text, style.order);
    let read = read.and_then(|m| if zoned { m.utc_us(style.zone) } else { m.local_us() });
    read.map_err(|fault| datetime_error(fault, text, data_type))
}

fn datetime_error(fault: Fault, text: &str, data_type: &DataType) -> Error {
    match fault {
        Fault::Syntax => invalid_datetime(text, data_type),
        Fault::Range => out_of_range(text),
        Fault::Order => {
            out_of_range(text).with_hint("Perhaps you need a different \"datestyle\" setting.")
        }
        Fault::Special => {
            let kind = pg_type_name(data_type);
            Error::unsupported(format!("{kind} value \"{}\" is not supported", text.trim()))
                .with_hint("SELECT now(), current_date; give the time of the statement.")
        }
        Fault::Other(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{IntervalUnit, TimeUnit};

    use crate::delta::text::{UTC, display_value};

    fn round_trip(text: &str, data_type: &DataType) -> String {
        let texts = StringArray::from(vec![text]);
        let array = parse_column(&texts, data_type, TextStyle::DEFAULT).expect(text);
        display_value(&array, 0).expect("not NULL")
    }

    #[test]
    fn values_read_as_postgresql_reads_them() {
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
        let timestamptz = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
        let numeric = DataType::Decimal128(38, 10);
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        for (text, data_type, expected) in [
            (" 42 ", DataType::Int32, "42"),
            ("yes", DataType::Boolean, "t"),
            ("f", DataType::Boolean, "f"),
            ("1e3", DataType::Float64, "1000"),
            ("-Infinity", DataType::Float64, "-Infinity"),
            ("12.50", numeric.clone(), "12.5"),
            ("1.5e2", numeric.clone(), "150"),
            ("0.00000000005", numeric.clone(), "0.0000000001"),
            ("-7.125", DataType::Decimal128(10, 2), "-7.13"),
            ("-7.1", DataType::Decimal128(10, 2), "-7.10"),
            (".5", DataType::Decimal128(10, 2), "0.50"),
            ("5.", DataType::Decimal128(10, 2), "5.00"),
            ("99.99", DataType::Decimal128(4, 2), "99.99"),
            ("-32768", DataType::Int16, "-32768"),
            ("+5", DataType::Int64, "5"),
            ("-9223372036854775808", DataType::Int64, "-9223372036854775808"),
            ("\\x00Ff", DataType::Binary, "\\x00ff"),
            ("2024-02-29", DataType::Date32, "2024-02-29"),
            ("12:34:56.7", DataType::Time64(TimeUnit::Microsecond), "12:34:56.7"),
            ("2024-01-01", timestamp.clone(), "2024-01-01 00:00:00"),
            ("2024-01-01T10:00:00.1234567", timestamp.clone(), "2024-01-01 10:00:00.123457"),
            ("2024-01-01 10:00:00+02", timestamp.clone(), "2024-01-01 10:00:00"),
            ("2024-01-01 10:00:00+02:30", timestamptz.clone(), "2024-01-01 07:30:00+00"),
            ("2024-01-01T10:00:00Z", timestamptz, "2024-01-01 10:00:00+00"),
            ("1 mon 2 days 03:04:05.5", interval.clone(), "1 mon 2 days 03:04:05.5"),
            ("5 seconds", interval.clone(), "00:00:05"),
            ("1 MINUTE", interval.clone(), "00:01:00"),
            ("-1 day +2:30", interval.clone(), "-1 days +02:30:00"),
            ("1.5 months", interval.clone(), "1 mon 15 days"),
            ("1y 2mon 3d", interval.clone(), "1 year 2 mons 3 days"),
            ("90 min ago", interval.clone(), "-01:30:00"),
            ("0.25 days 100 ms", interval.clone(), "06:00:00.1"),
            ("1 week", interval.clone(), "7 days"),
        ] {
            assert_eq!(round_trip(text, &data_type), expected, "{text}");
        }
    }

    #[test]
    fn errors_have_postgresqls_words() {
        for (text, data_type, sqlstate, message) in [
            ("x", DataType::Int32, "22P02", "invalid input syntax for type integer: \"x\""),
            (
                "99999999999",
                DataType::Int32,
                "22003",
                "value \"99999999999\" is out of range for type integer",
            ),
            (
                "maybe",
                DataType::Boolean,
                "22P02",
                "invalid input syntax for type boolean: \"maybe\"",
            ),
            (
                "2024-02-30",
                DataType::Date32,
                "22008",
                "date/time field value out of range: \"2024-02-30\"",
            ),
            ("soon", DataType::Date32, "22007", "invalid input syntax for type date: \"soon\""),
            ("123.4", DataType::Decimal128(4, 2), "22003", "numeric field overflow"),
            ("-100", DataType::Decimal128(4, 2), "22003", "numeric field overflow"),
            (
                ".",
                DataType::Decimal128(4, 2),
                "22P02",
                "invalid input syntax for type numeric: \".\"",
            ),
            ("-", DataType::Int64, "22P02", "invalid input syntax for type bigint: \"-\""),
            ("", DataType::Int64, "22P02", "invalid input syntax for type bigint: \"\""),
            (
                "32768",
                DataType::Int16,
                "22003",
                "value \"32768\" is out of range for type smallint",
            ),
        ] {
            let e = parse_value(text, &data_type).expect_err(text);
            assert_eq!((e.sqlstate(), e.message()), (sqlstate, message));
        }
    }
}
