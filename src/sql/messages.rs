//! DataFusion's planning messages in PostgreSQL's words and codes.

use super::errors::between;
use crate::error::{Error, sqlstate};

/// Codes that only planning raises.
mod code {
    pub(super) const INVALID_PRECEDING: &str = "22013";
    pub(super) const INVALID_COLUMN_REFERENCE: &str = "42P10";
}

const NO_OPERATOR: &str = "No operator matches the given name and argument types. You \
                                      might need to add explicit type casts.";
const NO_PREFIX_OPERATOR: &str = "No operator matches the given name and argument type. You might \
                                  need to add an explicit type cast.";

/// A message that begins like the pattern, or has it in it, and what PostgreSQL says.
const MESSAGES: &[(&str, &str, &str)] = &[
    (
        "Aggregate functions are not allowed in the WHERE clause",
        sqlstate::GROUPING_ERROR,
        "aggregate functions are not allowed in WHERE",
    ),
    (
        "Aggregate function calls cannot be nested",
        sqlstate::GROUPING_ERROR,
        "aggregate function calls cannot be nested",
    ),
    (
        "start bound cannot be UNBOUNDED FOLLOWING",
        sqlstate::WINDOWING_ERROR,
        "frame start cannot be UNBOUNDED FOLLOWING",
    ),
    (
        "end bound cannot be UNBOUNDED PRECEDING",
        sqlstate::WINDOWING_ERROR,
        "frame end cannot be UNBOUNDED PRECEDING",
    ),
    (
        "must be non negative integers",
        code::INVALID_PRECEDING,
        "frame starting offset must not be negative",
    ),
    (
        "RANGE requires exactly one ORDER BY column",
        sqlstate::WINDOWING_ERROR,
        "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column",
    ),
    (
        "GROUPS requires an ORDER BY clause",
        sqlstate::WINDOWING_ERROR,
        "GROUPS mode requires an ORDER BY clause",
    ),
    (
        "The subquery should only return one column",
        sqlstate::SYNTAX_ERROR,
        "subquery must return only one column",
    ),
    (
        "For SELECT DISTINCT, ORDER BY expressions",
        code::INVALID_COLUMN_REFERENCE,
        "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
    ),
    (
        "SELECT DISTINCT ON expressions must match",
        code::INVALID_COLUMN_REFERENCE,
        "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
    ),
    (
        "to grouping function is not in grouping columns",
        sqlstate::GROUPING_ERROR,
        "arguments to GROUPING must be grouping expressions of the associated query level",
    ),
    (
        "Percentile value must be between",
        sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
        "percentile value is not between 0 and 1",
    ),
    (
        "Inconsistent data length across values list",
        sqlstate::SYNTAX_ERROR,
        "VALUES lists must all be the same length",
    ),
];

/// PostgreSQL's error for a message of the planner, where it has one.
pub(super) fn translated(m: &str) -> Option<Error> {
    let plain = MESSAGES.iter().find(|(pattern, ..)| m.contains(pattern));
    if let Some((_, state, message)) = plain {
        return Some(Error::user(state, *message));
    }
    boolean(m).or_else(|| reference(m)).or_else(|| operand(m))
}

fn not_boolean(what: &str, data_type: &str) -> Error {
    Error::user(
        sqlstate::DATATYPE_MISMATCH,
        format!("argument of {what} must be type boolean, not type {}", sql_type(data_type)),
    )
}

/// What must be boolean and is not.
fn boolean(m: &str) -> Option<Error> {
    if let Some((_, data_type)) = m.split_once("with non-boolean predicate").and_then(|(_, m)| {
        let (_, found) = m.rsplit_once(" returning ")?;
        Some(((), found))
    }) {
        return Some(not_boolean("WHERE", data_type));
    }
    if let Some((_, data_type)) = m.split_once("oin condition must be boolean type, but got ") {
        return Some(not_boolean("JOIN/ON", data_type));
    }
    if let Some((_, types)) = m.split_once("for logical boolean operation ") {
        let (op, left, right) = [" AND ", " OR "].iter().find_map(|op| {
            let (left, right) = types.split_once(op)?;
            Some((op.trim(), left, right))
        })?;
        return Some(not_boolean(op, if left == "Boolean" { right } else { left }));
    }
    m.split_once("'NOT' requires a boolean expression, got ").map(|(_, t)| not_boolean("NOT", t))
}

/// Positions and names that are not there.
fn reference(m: &str) -> Option<Error> {
    let missing = |clause: &str, n: &str| {
        Error::user(
            code::INVALID_COLUMN_REFERENCE,
            format!("{clause} position {n} is not in select list"),
        )
    };
    if let Some(n) = between(m, "column out of bounds, specified: ", ",") {
        return Some(missing("ORDER BY", n));
    }
    if let Some(n) = between(m, "Cannot find column with position ", " in SELECT") {
        return Some(missing("GROUP BY", n));
    }
    if let Some(name) = between(m, "The window ", " is not defined") {
        let message = format!("window \"{name}\" does not exist");
        return Some(Error::user(sqlstate::UNDEFINED_OBJECT, message));
    }
    if let Some((_, name)) = m.split_once("Invalid qualifier ") {
        let message = format!("missing FROM-clause entry for table \"{}\"", name.trim_matches('"'));
        return Some(Error::user(sqlstate::UNDEFINED_TABLE, message));
    }
    if let Some(have) = between(m, "Source table contains ", " columns") {
        let given = between(m, "but only ", " names").unwrap_or("other");
        return Some(Error::user(
            code::INVALID_COLUMN_REFERENCE,
            format!("table has {have} columns available but {given} columns specified"),
        ));
    }
    None
}

/// A sign in front of what has none, from the words that DataFusion keeps beside its message.
pub(super) fn prefix_operator(m: &str) -> Option<Error> {
    let (op, data_type) = m.split_once(" cannot be used with ")?;
    let message = format!("operator does not exist: {op} {}", sql_type(data_type));
    let error = Error::user(sqlstate::UNDEFINED_FUNCTION, message);
    ["+", "-"].contains(&op).then(|| error.with_hint(NO_PREFIX_OPERATOR))
}

/// Operators that do not take what they are given.
fn operand(m: &str) -> Option<Error> {
    if let Some(types) = between(m, "a common type to coerce ", " expression") {
        let (left, rest) = types.split_once(" and ")?;
        let (right, like) = rest.split_once(" in ")?;
        let op = if like == "ILIKE" { "~~*" } else { "~~" };
        let (left, right) = (sql_type(left), sql_type(right));
        return Some(
            Error::user(
                sqlstate::UNDEFINED_FUNCTION,
                format!("operator does not exist: {left} {op} {right}"),
            )
            .with_hint(NO_OPERATOR),
        );
    }
    if let Some((_, data_type)) = m.split_once("Expected LIMIT to be an integer or null, but got ")
    {
        let message =
            format!("argument of LIMIT must be type bigint, not type {}", sql_type(data_type));
        return Some(Error::user(sqlstate::DATATYPE_MISMATCH, message));
    }
    if m.contains("unnest() can only be applied to") {
        let message = "function unnest is of arrays";
        return Some(Error::user(sqlstate::UNDEFINED_FUNCTION, message));
    }
    None
}

/// PostgreSQL's name of a type that DataFusion has written.
pub(super) fn sql_type(t: &str) -> &'static str {
    match t.split('(').next().unwrap_or(t).trim() {
        "Boolean" => "boolean",
        "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        "Float32" => "real",
        "Float64" => "double precision",
        "Decimal128" => "numeric",
        "Utf8" | "Utf8View" => "text",
        "LargeUtf8" => "jsonb",
        "FixedSizeBinary" => "uuid",
        "Binary" => "bytea",
        "Date32" => "date",
        "Timestamp" if t.contains('"') => "timestamp with time zone",
        "Timestamp" => "timestamp without time zone",
        "Time64" => "time without time zone",
        "Interval" => "interval",
        _ => "unknown",
    }
}
