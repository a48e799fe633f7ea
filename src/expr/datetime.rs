//! `extract` and `date_part` with PostgreSQL's fields and result types (`extract` is numeric,
//! `date_part` double precision, both with fractions of a second). A third argument is the zone
//! whose clocks show a moment.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, StringArray};
use arrow::datatypes::{
    DataType, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDateTime};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::errors::to_datafusion;
use crate::delta::text::{NUMERIC_PRECISION, NUMERIC_SCALE, pg_type_name};
use crate::delta::zone::Zone;
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
        let (text, value, zone) = match types {
            [text, value] => (text, value, None),
            [text, value, zone] => (text, value, Some(zone.clone())),
            _ => return plan_err!("{} takes two arguments", self.name()),
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
        Ok([DataType::Utf8, value].into_iter().chain(zone).collect())
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
        let (text, value, zone) = match args.args.as_slice() {
            [text, value] => (text, value, Zone::UTC),
            [text, value, ColumnarValue::Scalar(ScalarValue::Utf8(Some(zone)))] => {
                (text, value, Zone::of(zone).map_err(to_datafusion)?)
            }
            _ => return plan_err!("two arguments are needed"),
        };
        let text = text.to_array(rows)?;
        let value = value.to_array(rows)?;
        let text = text.as_string::<i32>();
        let out = parts(&value, text, (self.kind, zone)).map_err(to_datafusion)?;
        match scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?)),
            false => Ok(ColumnarValue::Array(out)),
        }
    }
}

/// Microseconds, so that one number serves all fields exactly.
fn parts(values: &ArrayRef, fields: &StringArray, (kind, zone): (Kind, Zone)) -> Result<ArrayRef> {
    let mut out: Vec<Option<i128>> = Vec::with_capacity(values.len());
    for row in 0..values.len() {
        out.push(match values.is_null(row) || fields.is_null(row) {
            true => None,
            false => Some(part_us(values, row, fields.value(row), zone)?),
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

/// A field of a value in millionths; of a moment by the clocks of a zone.
fn part_us(values: &ArrayRef, row: usize, field: &str, zone: Zone) -> Result<i128> {
    let field = field.trim().to_ascii_lowercase();
    let found = match values.data_type() {
        DataType::Timestamp(_, Some(_)) => {
            let us = values.as_primitive::<TimestampMicrosecondType>().value(row);
            let offset = zone.offset(us);
            match field.as_str() {
                "epoch" => Some(i128::from(us)),
                "timezone" => Some(whole(offset)),
                "timezone_hour" => Some(whole(offset / 3_600)),
                "timezone_minute" => Some(whole(offset / 60 % 60)),
                field => timestamp_part(zone.to_local(us)?, field)?,
            }
        }
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
        // There is no year zero: the one before 1 is -1.
        "year" => whole(if year > 0 { year } else { year - 1 }),
        "quarter" => whole((t.month() - 1) / 3 + 1),
        "month" => whole(t.month()),
        "week" => whole(t.iso_week().week()),
        "isoyear" => {
            let year = t.iso_week().year();
            whole(if year > 0 { year } else { year - 1 })
        }
        "day" => whole(t.day()),
        "dow" => whole(t.weekday().num_days_from_sunday()),
        "isodow" => whole(t.weekday().number_from_monday()),
        "doy" => whole(t.ordinal()),
        "julian" => {
            let (day, rest) = (us.div_euclid(86_400_000_000), us.rem_euclid(86_400_000_000));
            (i128::from(day) + 2_440_588) * 1_000_000 + i128::from(rest) / 86_400
        }
        "decade" => whole(year.div_euclid(10)),
        "century" => whole(span_of(year, 100)),
        "millennium" => whole(span_of(year, 1_000)),
        other => return Ok(time_part(us.rem_euclid(86_400_000_000), other)),
    }))
}

/// The century or millennium of a year, counted from 1 on and from -1 back.
fn span_of(year: i32, years: i32) -> i32 {
    if year > 0 { (year + years - 1) / years } else { -((years - year) / years) }
}

fn naive(us: i64) -> Result<NaiveDateTime> {
    DateTime::from_timestamp_micros(us)
        .map(|t| t.naive_utc())
        .ok_or_else(|| Error::user(sqlstate::DATETIME_FIELD_OVERFLOW, "timestamp out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> NaiveDateTime {
        text.parse().expect("a timestamp")
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
