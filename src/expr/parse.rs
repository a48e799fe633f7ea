//! Text to values, with PostgreSQL's input syntax and wording: what casts from text, parameters in
//! text form and `COPY` share. `delta::text` is the way back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder,
    LargeStringBuilder, PrimitiveArray, StringArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;

use super::errors::from_datafusion;
use super::numeric;
use super::parse_datetime::{Fault, moment, time_us};
use crate::delta::jsonb;
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// One value from its text.
pub fn parse_value(text: &str, data_type: &DataType) -> Result<ScalarValue> {
    let array = parse_column(&StringArray::from(vec![text]), data_type)?;
    ScalarValue::try_from_array(&array, 0).map_err(from_datafusion)
}

/// A column of values from their texts; NULL stays NULL.
pub(crate) fn parse_column(texts: &StringArray, data_type: &DataType) -> Result<ArrayRef> {
    match data_type {
        DataType::Utf8 => Ok(Arc::new(texts.clone())),
        DataType::Boolean => {
            let mut out = BooleanBuilder::with_capacity(texts.len());
            for text in texts {
                out.append_option(text.map(boolean).transpose()?);
            }
            Ok(Arc::new(out.finish()))
        }
        DataType::Binary => {
            let mut out = BinaryBuilder::new();
            for text in texts {
                out.append_option(text.map(parse_bytea).transpose()?);
            }
            Ok(Arc::new(out.finish()))
        }
        DataType::Int16 => primitive::<Int16Type>(texts, |t| integer(t, data_type)),
        DataType::Int32 => primitive::<Int32Type>(texts, |t| integer(t, data_type)),
        DataType::Int64 => primitive::<Int64Type>(texts, |t| integer(t, data_type)),
        DataType::Float32 => primitive::<Float32Type>(texts, |t| {
            let v: f32 = float(t, data_type)?;
            check_float(t, f64::from(v), data_type)?;
            Ok(v)
        }),
        DataType::Float64 => primitive::<Float64Type>(texts, |t| {
            let v: f64 = float(t, data_type)?;
            check_float(t, v, data_type)?;
            Ok(v)
        }),
        DataType::Decimal128(p, s) => {
            let array: PrimitiveArray<Decimal128Type> = texts
                .iter()
                .map(|t| t.map(|t| decimal(t, *p, *s)).transpose())
                .collect::<Result<_>>()?;
            Ok(Arc::new(array.with_precision_and_scale(*p, *s)?))
        }
        DataType::LargeUtf8 => {
            let mut out = LargeStringBuilder::with_capacity(texts.len(), texts.value_data().len());
            for text in texts {
                out.append_option(text.map(jsonb::canonical).transpose()?);
            }
            Ok(Arc::new(out.finish()))
        }
        DataType::FixedSizeBinary(16) => {
            let mut out = FixedSizeBinaryBuilder::with_capacity(texts.len(), 16);
            for text in texts {
                match text {
                    Some(text) => out.append_value(uuid(text)?)?,
                    None => out.append_null(),
                }
            }
            Ok(Arc::new(out.finish()))
        }
        DataType::List(field) => super::parse_array::parse_lists(texts, field),
        _ => parse_temporal(texts, data_type),
    }
}

/// 32 hexadecimal digits, with hyphens between groups of four, in braces or not.
fn uuid(text: &str) -> Result<[u8; 16]> {
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

fn parse_temporal(texts: &StringArray, data_type: &DataType) -> Result<ArrayRef> {
    match data_type {
        DataType::Date32 => primitive::<Date32Type>(texts, |t| {
            let read = moment(t).and_then(|m| m.day.ok_or(Fault::Syntax));
            let day = read.map_err(|fault| datetime_error(fault, t, data_type))?;
            i32::try_from(day).map_err(|_| out_of_range(t))
        }),
        DataType::Time64(TimeUnit::Microsecond) => primitive::<Time64MicrosecondType>(texts, |t| {
            time_us(t).map_err(|fault| datetime_error(fault, t, data_type))
        }),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let zoned = zone.is_some();
            let array: PrimitiveArray<TimestampMicrosecondType> = texts
                .iter()
                .map(|t| t.map(|t| timestamp_us(t, zoned, data_type)).transpose())
                .collect::<Result<_>>()?;
            Ok(Arc::new(array.with_timezone_opt(zone.clone())))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            primitive::<IntervalMonthDayNanoType>(texts, interval)
        }
        other => {
            Err(Error::unsupported(format!("text can not be read as {}", pg_type_name(other))))
        }
    }
}

fn primitive<T: ArrowPrimitiveType>(
    texts: &StringArray,
    parse: impl Fn(&str) -> Result<T::Native>,
) -> Result<ArrayRef> {
    let array: PrimitiveArray<T> =
        texts.iter().map(|t| t.map(&parse).transpose()).collect::<Result<_>>()?;
    Ok(Arc::new(array))
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

fn boolean(text: &str) -> Result<bool> {
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

fn integer<N: std::str::FromStr<Err = std::num::ParseIntError>>(
    text: &str,
    data_type: &DataType,
) -> Result<N> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.trim().parse::<N>().map_err(|e| match e.kind() {
        PosOverflow | NegOverflow => Error::user(
            sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("value \"{text}\" is out of range for type {}", pg_type_name(data_type)),
        ),
        _ => invalid(text, data_type),
    })
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

/// The bytes of a bytea literal.
pub(crate) fn parse_bytea(text: &str) -> Result<Vec<u8>> {
    let error = |m: &str| Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, m.to_string());
    if let Some(hex) = text.strip_prefix("\\x") {
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        if !digits.len().is_multiple_of(2) {
            return Err(error("invalid hexadecimal data: odd number of digits"));
        }
        let nibble = |b: u8| char::from(b).to_digit(16);
        return digits
            .chunks_exact(2)
            .map(|pair| match (nibble(pair[0]), nibble(pair[1])) {
                (Some(h), Some(l)) => Ok((h * 16 + l) as u8),
                _ => Err(error("invalid hexadecimal digit in bytea")),
            })
            .collect();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
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

/// `1 year 2 mons -3 days 04:05:06.7`, `90 minutes`, `1.5 hours ago`; a number alone is seconds.
fn interval(text: &str) -> Result<IntervalMonthDayNano> {
    let error = || {
        Error::user(
            sqlstate::INVALID_DATETIME_FORMAT,
            format!("invalid input syntax for type interval: \"{text}\""),
        )
    };
    let folded = text.trim().to_ascii_lowercase();
    let folded = folded.strip_prefix('@').unwrap_or(&folded);
    let (folded, sign) = match folded.strip_suffix(" ago") {
        Some(rest) => (rest, -1.0),
        None => (folded, 1.0),
    };
    let mut span = Span::default();
    let mut words = folded.split_ascii_whitespace().peekable();
    if words.peek().is_none() {
        return Err(error());
    }
    while let Some(word) = words.next() {
        if word.contains(':') {
            span.us += sign * clock(word).ok_or_else(error)?;
            continue;
        }
        if let Some((years, months)) = years_and_months(word) {
            span.months += sign * (years * 12.0 + months);
            continue;
        }
        let digits = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (number, unit) = word.split_at(digits);
        let number: f64 = number.parse().map_err(|_| error())?;
        let unit = match unit {
            "" => words.next_if(|w| w.starts_with(|c: char| c.is_ascii_alphabetic())),
            unit => Some(unit),
        };
        // A number in front of a time of day is one of days.
        let days = unit.is_none() && words.peek().is_some_and(|w| w.contains(':'));
        let unit = if days { "day" } else { unit.unwrap_or("second") };
        span.add(sign * number, unit).ok_or_else(error)?;
    }
    span.value().ok_or_else(|| {
        Error::user(
            sqlstate::DATETIME_FIELD_OVERFLOW,
            format!("interval field value out of range: \"{text}\""),
        )
    })
}

/// `1-2` is a year and two months.
fn years_and_months(word: &str) -> Option<(f64, f64)> {
    let (negative, word) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let (years, months) = word.split_once('-')?;
    let (years, months): (u32, u32) = (years.parse().ok()?, months.parse().ok()?);
    let sign = if negative { -1.0 } else { 1.0 };
    (months < 12).then_some((sign * f64::from(years), sign * f64::from(months)))
}

/// Sums of the fields of an interval. Fractions go down: of a month to days, of a day to time.
#[derive(Default)]
struct Span {
    months: f64,
    days: f64,
    us: f64,
}

impl Span {
    fn add(&mut self, n: f64, unit: &str) -> Option<()> {
        let singular = match unit {
            "ms" | "us" => unit,
            _ => unit.strip_suffix('s').filter(|u| u.len() > 1).unwrap_or(unit),
        };
        let us = |seconds: f64| n * seconds * SECOND_US as f64;
        match singular {
            "millennium" | "mil" => self.months += n * 12_000.0,
            "century" | "centurie" | "cent" | "c" => self.months += n * 1_200.0,
            "decade" | "dec" => self.months += n * 120.0,
            "year" | "yr" | "y" => self.months += n * 12.0,
            "month" | "mon" => self.add_months(n),
            "week" | "w" => self.add_days(n * 7.0),
            "day" | "d" => self.add_days(n),
            "hour" | "hr" | "h" => self.us += us(3_600.0),
            "minute" | "min" | "m" => self.us += us(60.0),
            "second" | "sec" | "s" => self.us += us(1.0),
            "millisecond" | "msec" | "ms" => self.us += us(0.001),
            "microsecond" | "usec" | "us" | "u" => self.us += n,
            _ => return None,
        }
        Some(())
    }

    fn add_months(&mut self, n: f64) {
        self.months += n.trunc();
        self.add_days(n.fract() * 30.0);
    }

    fn add_days(&mut self, n: f64) {
        // Noise of binary fractions below a microsecond's share of a day is no time.
        let n = (n * 1e9).round() / 1e9;
        self.days += n.trunc();
        self.us += n.fract() * DAY_US as f64;
    }

    fn value(&self) -> Option<IntervalMonthDayNano> {
        let fits = |v: f64, limit: f64| (v.abs() <= limit).then_some(v.round());
        let limit = f64::from(i32::MAX);
        Some(IntervalMonthDayNano::new(
            fits(self.months, limit)? as i32,
            fits(self.days, limit)? as i32,
            fits(self.us, (i64::MAX / 1_000) as f64)? as i64 * 1_000,
        ))
    }
}

/// `[-]hh:mm[:ss[.f]]` in microseconds; hours may be any number.
fn clock(text: &str) -> Option<f64> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = text.split(':');
    let hours: u32 = parts.next()?.parse().ok()?;
    let minutes: u32 = parts.next()?.parse().ok().filter(|m| *m < 60)?;
    let seconds: f64 = match parts.next() {
        Some(s) if s.starts_with(|c: char| c.is_ascii_digit()) => s.parse().ok()?,
        Some(_) => return None,
        None => 0.0,
    };
    if parts.next().is_some() || seconds >= 61.0 {
        return None;
    }
    let whole = f64::from(hours) * 3_600.0 + f64::from(minutes) * 60.0;
    let us = (whole * SECOND_US as f64) + (seconds * SECOND_US as f64).round();
    Some(if negative { -us } else { us })
}

/// Microseconds since 1970; a zone in the text counts only for `timestamp with time zone`.
fn timestamp_us(text: &str, zoned: bool, data_type: &DataType) -> Result<i64> {
    let read = moment(text).and_then(|m| if zoned { m.utc_us() } else { m.local_us() });
    read.map_err(|fault| datetime_error(fault, text, data_type))
}

fn datetime_error(fault: Fault, text: &str, data_type: &DataType) -> Error {
    match fault {
        Fault::Syntax => invalid_datetime(text, data_type),
        Fault::Range => out_of_range(text),
        Fault::Order => out_of_range(text)
            .with_hint("Dates are month, day, year, or year, month, day with four digits of year."),
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
    use crate::delta::text::{UTC, display_value};

    fn round_trip(text: &str, data_type: &DataType) -> String {
        let array = parse_column(&StringArray::from(vec![text]), data_type).expect(text);
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
        ] {
            let e = parse_value(text, &data_type).expect_err(text);
            assert_eq!((e.sqlstate(), e.message()), (sqlstate, message));
        }
    }
}
