//! Bounds of moving filters: expressions of `now()` that never go back as the clock moves on.
//!
//! Days and months are the trap. In UTC a day has 24 hours, so `now() - INTERVAL '1 day'` moves on
//! steadily; but `now() - INTERVAL '1 month'` does not: from March 30, 18:00 to March 31, 06:00 it
//! goes back from February 28, 18:00 to February 28, 06:00. At midnight it never does, so months
//! may be taken from days (`date_trunc('day', now()) - INTERVAL '1 month'`). On the other side of
//! the comparison months may stand anyhow: `ts + INTERVAL '1 month' > now()`.

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, Operator};

use crate::error::Error;
use crate::expr::{ArithOp, arith, arith_op, is_now, reads_clock};

const DAY_US: i64 = 86_400_000_000;

/// 0A000 with what can be written.
pub(in crate::sql) fn unsupported_now() -> Error {
    Error::unsupported("now() is not supported here in a materialized view")
        .with_detail("Its value changes with time, and the rows that it selects with it.")
        .with_hint(
            "Use it in WHERE as a moving filter: ts > now() - INTERVAL '1 hour', \
             ts + INTERVAL '1 month' >= now(), ts <= now(), ts BETWEEN .. AND .., joined by AND.",
        )
}

/// How a bound moves with the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// It never goes back.
    Onward,
    /// The same, and it is a midnight always.
    Midnights,
}

/// Whether an expression reads nothing but `now()` and never goes back.
pub(super) fn never_goes_back(expr: &Expr) -> bool {
    course(expr).is_some()
}

fn course(expr: &Expr) -> Option<Course> {
    match expr {
        e if is_now(e) => Some(Course::Onward),
        Expr::Alias(alias) => course(&alias.expr),
        Expr::Cast(Cast { expr, field }) => cast_course(course(expr)?, field.data_type()),
        Expr::ScalarFunction(f) => match (arith_op(f), f.func.name(), f.args.as_slice()) {
            (Some(op), _, [left, right]) => shifted(op, left, right),
            (None, "pg_cast", [operand]) => {
                let to = f.func.return_type(&[DataType::Null]).ok()?;
                cast_course(course(operand)?, &to)
            }
            (None, "date_trunc", [unit, time]) => truncated(text(unit)?, course(time)?),
            (None, "date_trunc", [unit, time, zone]) if is_utc(zone) => {
                truncated(text(unit)?, course(time)?)
            }
            (None, "timezone", [zone, time]) if is_utc(zone) => course(time),
            _ => None,
        },
        _ => None,
    }
}

fn cast_course(operand: Course, to: &DataType) -> Option<Course> {
    match to {
        DataType::Timestamp(..) => Some(operand),
        DataType::Date32 => Some(Course::Midnights),
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        Expr::Cast(cast) => text(&cast.expr),
        _ => None,
    }
}

fn is_utc(zone: &Expr) -> bool {
    text(zone).is_some_and(|z| matches!(z.to_ascii_lowercase().as_str(), "utc" | "gmt" | "z"))
}

fn truncated(unit: &str, operand: Course) -> Option<Course> {
    match unit.to_ascii_lowercase().trim_end_matches('s') {
        "day" | "week" | "month" | "quarter" | "year" | "decade" => Some(Course::Midnights),
        "hour" | "minute" | "second" | "millisecond" | "microsecond" => Some(operand),
        _ => None,
    }
}

/// A bound with a constant added or taken away.
fn shifted(op: ArithOp, left: &Expr, right: &Expr) -> Option<Course> {
    let (moving, by) = match (op, reads_clock(left)) {
        (ArithOp::Add | ArithOp::Sub, true) => (course(left)?, literal(right)?),
        (ArithOp::Add, false) => (course(right)?, literal(left)?),
        _ => return None,
    };
    let Some(by) = interval(by) else {
        // A date and a number of days.
        return (moving == Course::Midnights && by.data_type().is_integer()).then_some(moving);
    };
    match (moving, by.nanoseconds, by.months) {
        (Course::Midnights, 0, _) => Some(Course::Midnights),
        (Course::Midnights, ..) | (Course::Onward, _, 0) => Some(Course::Onward),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) if !value.is_null() => Some(value),
        _ => None,
    }
}

fn interval(value: &ScalarValue) -> Option<IntervalMonthDayNano> {
    match value {
        ScalarValue::IntervalMonthDayNano(value) => *value,
        _ => None,
    }
}

/// `now() - ts < INTERVAL ..` and `ts - now() < INTERVAL ..` with the comparison turned so that
/// the constant is on the left: the time, the operator and the bound of the same condition. The
/// difference of two timestamps has no months, and intervals are compared by their length, a number
/// of microseconds.
pub(super) fn of_difference(
    length: &Expr,
    op: Operator,
    difference: &Expr,
    schema: &DFSchema,
) -> Option<(Expr, Operator, Expr)> {
    let ScalarValue::Int64(Some(us)) = literal(length)? else { return None };
    let difference = match difference {
        Expr::ScalarFunction(f) if f.func.name() == "pg_interval_order" => f.args.first()?,
        _ => return None,
    };
    let Expr::ScalarFunction(f) = difference else { return None };
    let [left, right] = f.args.as_slice() else { return None };
    let is_time = |e: &Expr| matches!(e.get_type(schema), Ok(DataType::Timestamp(..)));
    if arith_op(f) != Some(ArithOp::Sub) || !is_time(left) || !is_time(right) {
        return None;
    }
    let days = i32::try_from(us / DAY_US).ok()?;
    let length = IntervalMonthDayNano::new(0, days, us % DAY_US * 1_000);
    let length = Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(length)), None);
    match (reads_clock(left), reads_clock(right)) {
        // c op now - ts: ts op now - c.
        (true, false) if never_goes_back(left) => {
            Some((right.clone(), op, arith(ArithOp::Sub, left.clone(), length)))
        }
        // c op ts - now: now + c op ts.
        (false, true) if never_goes_back(right) => {
            Some((left.clone(), op.swap()?, arith(ArithOp::Add, right.clone(), length)))
        }
        _ => None,
    }
}
