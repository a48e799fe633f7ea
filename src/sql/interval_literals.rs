//! `INTERVAL '1' MINUTE`, `INTERVAL '1 2:03' DAY TO HOUR`, `INTERVAL '3.456' SECOND (1)`: literals
//! with fields, as texts that say the same without. Fields below the last one are cut off.

use std::sync::Arc;

use arrow::array::{Array, IntervalMonthDayNanoArray};
use arrow::datatypes::IntervalMonthDayNano;
use sqlparser::ast::{DateTimeField, Expr, Interval, Value};

use crate::delta::text::display_value;
use crate::expr::parse_interval;

const SECOND_NS: i64 = 1_000_000_000;

/// The text of an interval literal, which a cast reads; `None` for what is no such literal, or has
/// fields that are not known.
pub(super) fn interval_text(expr: &Expr) -> Option<String> {
    let Expr::Interval(interval) = expr else { return None };
    let Expr::Value(value) = interval.value.as_ref() else { return None };
    let text = match &value.value {
        Value::SingleQuotedString(text) | Value::Number(text, _) => text,
        _ => return None,
    };
    let precision = interval.fractional_seconds_precision;
    match (&interval.leading_field, &interval.last_field) {
        _ if interval.leading_precision.is_some() => None,
        (None, _) => precision.is_none().then(|| text.clone()),
        (Some(field), None) if precision.is_none() => Some(format!("{text} {field}")),
        (Some(_), _) => cut(text, interval),
    }
}

/// The text of what is left of a literal with fields from one to another.
fn cut(text: &str, interval: &Interval) -> Option<String> {
    use DateTimeField as F;
    let first = interval.leading_field.as_ref()?;
    let last = interval.last_field.as_ref().unwrap_or(first);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let plain = |word: &str| word.bytes().all(|b| b.is_ascii_digit() || b"+-.".contains(&b));
    let spelled = match (first, last, words.as_slice()) {
        (_, F::Hour, [days, hours]) if plain(days) && plain(hours) => {
            format!("{days} days {hours} hours")
        }
        // Of two numbers with a colon the last one is of the last field.
        (_, F::Second, [.., clock]) if clock.matches(':').count() == 1 && *first == F::Minute => {
            let (sign, digits) = match clock.strip_prefix('-') {
                Some(digits) => ("-", digits),
                None => ("", clock.trim_start_matches('+')),
            };
            let days = words[..words.len() - 1].join(" ");
            format!("{days} {sign}0:{digits}")
        }
        (_, field, [number]) if plain(number) && !number.trim_start_matches('-').contains('-') => {
            format!("{number} {field}")
        }
        _ => text.to_owned(),
    };
    let read = parse_interval(&spelled).ok()?;
    let to_whole = |ns: i64| read.nanoseconds - read.nanoseconds % ns;
    let (months, days, ns) = match last {
        F::Year => (read.months - read.months % 12, 0, 0),
        F::Month => (read.months, 0, 0),
        F::Day => (read.months, read.days, 0),
        F::Hour => (read.months, read.days, to_whole(3_600 * SECOND_NS)),
        F::Minute => (read.months, read.days, to_whole(60 * SECOND_NS)),
        F::Second => {
            let digits = interval.fractional_seconds_precision.map_or(6, |p| p.min(6));
            let unit = SECOND_NS / 10_i64.pow(u32::try_from(digits).ok()?);
            let half = if read.nanoseconds < 0 { -unit / 2 } else { unit / 2 };
            let rounded = read.nanoseconds.checked_add(half)?;
            (read.months, read.days, rounded - rounded % unit)
        }
        _ => return None,
    };
    let value = IntervalMonthDayNano::new(months, days, ns);
    let array: Arc<dyn Array> = Arc::new(IntervalMonthDayNanoArray::from(vec![value]));
    display_value(&array, 0)
}
