//! Texts that are not in the plain form of their type: they mean what a cast means by them, so that
//! no text is a value in a statement and a rejected message in a topic.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;

use super::column::Values;
use super::scalar::Invalid;
use crate::delta::text::UTC;
use crate::error::{Error, sqlstate};
use crate::expr::{parse_interval, parse_uuid, parse_value};

/// Appends the value that a cast of the text gives.
#[cold]
pub(super) fn push(values: &mut Values, text: &[u8]) -> Result<(), Invalid> {
    let text = std::str::from_utf8(text).map_err(|_| Invalid::Syntax)?;
    match values {
        Values::Uuid(v) => v.push(parse_uuid(text).map_err(reason)?),
        Values::Interval(v) => v.push(parse_interval(text).map_err(reason)?),
        Values::Date(v) => match parse_value(text, &DataType::Date32).map_err(reason)? {
            ScalarValue::Date32(Some(day)) => v.push(day),
            _ => return Err(Invalid::Syntax),
        },
        Values::Time(v) => {
            let time = DataType::Time64(TimeUnit::Microsecond);
            match parse_value(text, &time).map_err(reason)? {
                ScalarValue::Time64Microsecond(Some(us)) => v.push(us),
                _ => return Err(Invalid::Syntax),
            }
        }
        Values::Timestamp(v, zone) => {
            let zone = zone.as_ref().map(|_| UTC.into());
            let at = DataType::Timestamp(TimeUnit::Microsecond, zone);
            match parse_value(text, &at).map_err(reason)? {
                ScalarValue::TimestampMicrosecond(Some(us), _) => v.push(us),
                _ => return Err(Invalid::Syntax),
            }
        }
        Values::Bool(v) => match parse_value(text, &DataType::Boolean).map_err(reason)? {
            ScalarValue::Boolean(Some(value)) => v.push(value),
            _ => return Err(Invalid::Syntax),
        },
        _ => return Err(Invalid::Syntax),
    }
    Ok(())
}

fn reason(error: Error) -> Invalid {
    match error.sqlstate() {
        sqlstate::DATETIME_FIELD_OVERFLOW | sqlstate::NUMERIC_VALUE_OUT_OF_RANGE => Invalid::Range,
        _ => Invalid::Syntax,
    }
}
