//! `extract` and `date_part` with PostgreSQL's fields and result types (`extract` is numeric,
//! `date_part` double precision, both with fractions of a second), and `to_char` of one moment.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, StringArray};
use arrow::datatypes::{
    DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::errors::to_datafusion;
use crate::delta::text::{NUMERIC_PRECISION, NUMERIC_SCALE, pg_type_name};
use crate::error::{Error, Result, sqlstate};

/// `extract(field FROM value)`.
pub fn extract_udf() -> Arc<ScalarUDF> {
    static UDF: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| udf(Kind::Extract));
    Arc::clone(&UDF)
}

/// `date_part(field, value)`.
pub fn date_part_udf() -> Arc<ScalarUDF> {
    static UDF: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| udf(Kind::DatePart));
    Arc::clone(&UDF)
}

fn udf(kind: Kind) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(DateFunction { kind, signature }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Extract,
    DatePart,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateFunction {
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for DateFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Extract => "extract",
            Kind::DatePart => "date_part",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let [text, value] = types else {
            return plan_err!("{} takes two arguments", self.name());
        };
        let value = match value {
            DataType::Timestamp(_, zone) => {
                DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
            }
            DataType::Date32 | DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
            DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
            other => {
                let arguments = format!("{}, {}", pg_type_name(text), pg_type_name(other));
                return Err(to_datafusion(Error::user(
                    sqlstate::UNDEFINED_FUNCTION,
                    format!("function {}({arguments}) does not exist", self.name()),
                )));
            }
        };
        Ok(vec![DataType::Utf8, value])
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(match self.kind {
            Kind::Extract => DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE),
            Kind::DatePart => DataType::Float64,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let [text, value] = args.args.as_slice() else {
            return plan_err!("two arguments are needed");
        };
        let text = text.to_array(rows)?;
        let value = value.to_array(rows)?;
        let text = text.as_string::<i32>();
        let out = parts(&value, text, self.kind).map_err(to_datafusion)?;
        match scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?)),
            false => Ok(ColumnarValue::Array(out)),
        }
    }
}

/// Microseconds, so that one number serves all fields exactly.
fn parts(values: &ArrayRef, fields: &StringArray, kind: Kind) -> Result<ArrayRef> {
    let mut out: Vec<Option<i128>> = Vec::with_capacity(values.len());
    for row in 0..values.len() {
        out.push(match values.is_null(row) || fields.is_null(row) {
            true => None,
            false => Some(part_us(values, row, fields.value(row))?),
        });
    }
    Ok(match kind {
        // Scale 10 has four digits more than microseconds.
        Kind::Extract => Arc::new(
            out.into_iter()
                .map(|v| v.map(|us| us * 10_000))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(NUMERIC_PRECISION, NUMERIC_SCALE)?,
        ),
        _ => {
            Arc::new(out.into_iter().map(|v| v.map(|us| us as f64 / 1e6)).collect::<Float64Array>())
        }
    })
}

/// A field of a value in millionths.
fn part_us(values: &ArrayRef, row: usize, field: &str) -> Result<i128> {
    let field = field.trim().to_ascii_lowercase();
    let found = match values.data_type() {
        DataType::Timestamp(..) => {
            let us = values.as_primitive::<TimestampMicrosecondType>().value(row);
            timestamp_part(us, &field)?
        }
        DataType::Time64(_) => {
            time_part(values.as_primitive::<Time64MicrosecondType>().value(row), &field)
        }
        DataType::Interval(_) => {
            let v = values.as_primitive::<IntervalMonthDayNanoType>().value(row);
            let us = v.nanoseconds / 1_000;
            match field.as_str() {
                "year" => Some(whole(v.months / 12)),
                "month" => Some(whole(v.months % 12)),
                "day" => Some(whole(v.days)),
                "hour" => Some(whole(us / 3_600_000_000)),
                // PostgreSQL counts a year as 365.25 days and a month as 30.
                "epoch" => Some(
                    i128::from(v.months / 12) * 31_557_600_000_000
                        + i128::from(v.months % 12) * 2_592_000_000_000
                        + i128::from(v.days) * 86_400_000_000
                        + i128::from(us),
                ),
                other => time_part(us, other),
            }
        }
        _ => None,
    };
    found.ok_or_else(|| {
        Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!(
                "unit \"{field}\" not recognized for type {}",
                pg_type_name(values.data_type())
            ),
        )
    })
}

fn whole(v: impl Into<i128>) -> i128 {
    v.into() * 1_000_000
}

fn time_part(us: i64, field: &str) -> Option<i128> {
    let in_minute = i128::from(us % 60_000_000);
    Some(match field {
        "hour" => whole(us / 3_600_000_000),
        "minute" => whole(us / 60_000_000 % 60),
        "second" => in_minute,
        "millisecond" | "milliseconds" => in_minute * 1_000,
        "microsecond" | "microseconds" => in_minute * 1_000_000,
        "epoch" => i128::from(us),
        _ => return None,
    })
}

fn timestamp_part(us: i64, field: &str) -> Result<Option<i128>> {
    let t = naive(us)?;
    let year = t.year();
    Ok(Some(match field {
        "epoch" => i128::from(us),
        "year" => whole(year),
        "quarter" => whole((t.month() - 1) / 3 + 1),
        "month" => whole(t.month()),
        "week" => whole(t.iso_week().week()),
        "isoyear" => whole(t.iso_week().year()),
        "day" => whole(t.day()),
        "dow" => whole(t.weekday().num_days_from_sunday()),
        "isodow" => whole(t.weekday().number_from_monday()),
        "doy" => whole(t.ordinal()),
        "julian" => {
            let (day, rest) = (us.div_euclid(86_400_000_000), us.rem_euclid(86_400_000_000));
            (i128::from(day) + 2_440_588) * 1_000_000 + i128::from(rest) / 86_400
        }
        "decade" => whole(year.div_euclid(10)),
        "century" => whole((year + 99).div_euclid(100)),
        "millennium" => whole((year + 999).div_euclid(1_000)),
        other => return Ok(time_part(us.rem_euclid(86_400_000_000), other)),
    }))
}

fn naive(us: i64) -> Result<NaiveDateTime> {
    DateTime::from_timestamp_micros(us)
        .map(|t| t.naive_utc())
        .ok_or_else(|| Error::user(sqlstate::DATETIME_FIELD_OVERFLOW, "timestamp out of range"))
}

/// `to_char` of one moment, in microseconds since 1970.
pub(super) fn format_timestamp(us: i64, pattern: &str) -> Result<String> {
    let t = naive(us)?;
    format(pattern, |p, fill, out| write_pattern(t, p, fill, out))
}

/// The template patterns, longer ones before their prefixes.
const PATTERNS: &[&str] = &[
    "YYYY", "YYY", "YY", "HH24", "HH12", "HH", "MONTH", "Month", "month", "MON", "Mon", "mon",
    "MM", "MI", "MS", "DDD", "DD", "DAY", "Day", "day", "DY", "Dy", "dy", "D", "SSSS", "SS", "US",
    "IYYY", "IW", "ID", "Q", "AM", "PM", "am", "pm", "FM", "WW", "W", "J", "CC",
];

/// `to_char` of an interval; its parts have signs of their own.
pub(super) fn format_interval(v: IntervalMonthDayNano, pattern: &str) -> Result<String> {
    format(pattern, |p, fill, out| write_interval(v, p, fill, out))
}

fn write_interval(
    v: IntervalMonthDayNano,
    pattern: &str,
    fill: bool,
    out: &mut String,
) -> Option<()> {
    let us = v.nanoseconds / 1_000;
    let hours = us / 3_600_000_000;
    let (value, width) = match pattern {
        "YYYY" => (i64::from(v.months / 12), 4),
        "MM" => (i64::from(v.months % 12), 2),
        "DD" => (i64::from(v.days), 2),
        "HH24" => (hours, 2),
        "HH12" | "HH" => (if hours % 12 == 0 { 12 } else { hours % 12 }, 2),
        "MI" => (us / 60_000_000 % 60, 2),
        "SS" => (us / 1_000_000 % 60, 2),
        "MS" => (us / 1_000 % 1_000, 3),
        "US" => (us % 1_000_000, 6),
        "SSSS" => (us / 1_000_000, 1),
        _ => return None,
    };
    // The sign has room of its own but for days and months, as in PostgreSQL.
    let signed = value < 0 && !matches!(pattern, "DD" | "MM");
    let width = if fill { width + usize::from(signed) } else { 1 };
    write!(out, "{value:0width$}").ok()
}

fn format(pattern: &str, write: impl Fn(&str, bool, &mut String) -> Option<()>) -> Result<String> {
    let mut out = String::new();
    let mut rest = pattern;
    // FM: no padding for the next pattern.
    let mut fill = true;
    while let Some(c) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (literal, after) = quoted.split_once('"').unwrap_or((quoted, ""));
            out.push_str(literal);
            rest = after;
            continue;
        }
        let upper = rest.to_ascii_uppercase();
        let found = PATTERNS.iter().find(|p| rest.starts_with(**p)).or_else(|| {
            // Numbers have the same pattern in small letters; words have their own.
            let is_word = |p: &str| matches!(p, "MONTH" | "MON" | "DAY" | "DY" | "AM" | "PM");
            PATTERNS.iter().find(|p| upper.starts_with(**p) && !is_word(p))
        });
        match found {
            Some(&"FM") => {
                fill = false;
                rest = &rest[2..];
            }
            Some(p) => {
                write(p, fill, &mut out).ok_or_else(|| unsupported(p))?;
                fill = true;
                rest = &rest[p.len()..];
            }
            None if c.is_ascii_alphabetic() && c != 'T' => return Err(unsupported(&rest[..1])),
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Ok(out)
}

fn unsupported(pattern: &str) -> Error {
    Error::unsupported(format!("to_char pattern \"{pattern}\" is not supported yet"))
        .with_hint("Put text that is no pattern in double quotes.")
}

fn write_pattern(t: NaiveDateTime, pattern: &str, fill: bool, out: &mut String) -> Option<()> {
    let number = |v: i64, width: usize, out: &mut String| {
        let width = if fill { width } else { 1 };
        write!(out, "{v:0width$}").ok()
    };
    let name = |name: &str, out: &mut String| {
        let shown = match pattern {
            p if p.chars().all(|c| c.is_ascii_uppercase()) => name.to_uppercase(),
            p if p.chars().all(|c| c.is_ascii_lowercase()) => name.to_lowercase(),
            _ => name.to_string(),
        };
        let padded = fill && (pattern.len() > 3 || pattern.eq_ignore_ascii_case("day"));
        let width = if padded { 9 } else { 0 };
        write!(out, "{shown:width$}").ok()
    };
    let year = i64::from(t.year());
    let hour12 = i64::from((t.hour() + 11) % 12 + 1);
    let us = i64::from(t.nanosecond() / 1_000) % 1_000_000;
    match pattern {
        "YYYY" => number(year, 4, out),
        "YYY" => number(year % 1_000, 3, out),
        "YY" => number(year % 100, 2, out),
        "IYYY" => number(i64::from(t.iso_week().year()), 4, out),
        "IW" => number(i64::from(t.iso_week().week()), 2, out),
        "ID" => number(i64::from(t.weekday().number_from_monday()), 1, out),
        "Q" => number(i64::from((t.month() - 1) / 3 + 1), 1, out),
        "MM" => number(i64::from(t.month()), 2, out),
        "DD" => number(i64::from(t.day()), 2, out),
        "DDD" => number(i64::from(t.ordinal()), 3, out),
        "D" => number(i64::from(t.weekday().number_from_sunday()), 1, out),
        "HH24" => number(i64::from(t.hour()), 2, out),
        "HH12" | "HH" => number(hour12, 2, out),
        "MI" => number(i64::from(t.minute()), 2, out),
        "SS" => number(i64::from(t.second()), 2, out),
        "WW" => number(i64::from(t.ordinal0() / 7 + 1), 2, out),
        "W" => number(i64::from(t.day0() / 7 + 1), 1, out),
        "J" => number(i64::from(t.num_days_from_ce()) + 1_721_425, 1, out),
        "CC" => number((year + 99).div_euclid(100), 2, out),
        "SSSS" => number(i64::from(t.num_seconds_from_midnight()), 1, out),
        "MS" => number(us / 1_000, 3, out),
        "US" => number(us, 6, out),
        "AM" | "PM" => out.write_str(if t.hour() < 12 { "AM" } else { "PM" }).ok(),
        "am" | "pm" => out.write_str(if t.hour() < 12 { "am" } else { "pm" }).ok(),
        "MONTH" | "Month" | "month" => name(&t.format("%B").to_string(), out),
        "MON" | "Mon" | "mon" => name(&t.format("%b").to_string(), out),
        "DAY" | "Day" | "day" => name(&t.format("%A").to_string(), out),
        "DY" | "Dy" | "dy" => name(&t.format("%a").to_string(), out),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(t: NaiveDateTime, pattern: &str) -> Result<String> {
        format(pattern, |p, fill, out| write_pattern(t, p, fill, out))
    }

    fn at(text: &str) -> NaiveDateTime {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn patterns_are_postgresqls() {
        let t = at("2024-02-03T16:05:06.012345");
        for (pattern, expected) in [
            ("YYYY-MM-DD HH24:MI:SS.US", "2024-02-03 16:05:06.012345"),
            ("YYYY-MM-DD\"T\"HH24:MI:SS.MS", "2024-02-03T16:05:06.012"),
            ("DD Mon YY, HH12:MI AM", "03 Feb 24, 04:05 PM"),
            ("FMDD. FMMonth", "3. February"),
            ("Day|Dy|D|DDD|IW|Q", "Saturday |Sat|7|034|05|1"),
            ("yyyy/hh24", "2024/16"),
        ] {
            assert_eq!(shown(t, pattern).expect(pattern), expected, "{pattern}");
        }
        assert_eq!(shown(t, "YYYY x").expect_err("x").sqlstate(), "0A000");
    }

    #[test]
    fn fields_are_postgresqls() {
        let us = at("2023-01-01T16:05:06.5").and_utc().timestamp_micros();
        for (field, expected) in [
            ("second", 6_500_000),
            ("milliseconds", 6_500_000_000),
            ("dow", 0),
            ("isodow", 7_000_000),
            ("week", 52_000_000),
            ("isoyear", 2_022_000_000),
            ("doy", 1_000_000),
            ("century", 21_000_000),
            ("hour", 16_000_000),
            ("epoch", i128::from(us)),
        ] {
            assert_eq!(timestamp_part(us, field).expect("in range"), Some(expected), "{field}");
        }
    }
}
