//! The names of columns and conditions in a plan are DataFusion's: `count(Int64(1))`, `CAST(a AS
//! Int64) > Int64(5)`. EXPLAIN shows SQL: literals, types and calls as they are written in a query.

use std::sync::Arc;

use arrow::array::{Array, TimestampMicrosecondArray, TimestampNanosecondArray};
use arrow::array::{IntervalMonthDayNanoArray, TimestampMillisecondArray, TimestampSecondArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit};

use crate::delta::text::{UTC, display_value, pg_type_declared};

/// How the value of a literal stands in its parentheses.
#[derive(Clone, Copy)]
enum Literal {
    /// As in SQL.
    Plain,
    /// A text in quotes; what stands in front of it in SQL.
    Quoted(&'static str),
    /// A number and what does not count.
    Decimal,
    /// A count of units and a zone.
    Moment(TimeUnit),
    Interval,
}

const LITERALS: &[(&str, Literal)] = &[
    ("Boolean", Literal::Plain),
    ("Int8", Literal::Plain),
    ("Int16", Literal::Plain),
    ("Int32", Literal::Plain),
    ("Int64", Literal::Plain),
    ("UInt8", Literal::Plain),
    ("UInt16", Literal::Plain),
    ("UInt32", Literal::Plain),
    ("UInt64", Literal::Plain),
    ("Float32", Literal::Plain),
    ("Float64", Literal::Plain),
    ("Decimal128", Literal::Decimal),
    ("Utf8", Literal::Quoted("")),
    ("Utf8View", Literal::Quoted("")),
    ("LargeUtf8", Literal::Quoted("")),
    ("Binary", Literal::Quoted("")),
    ("Date32", Literal::Quoted("DATE ")),
    ("Time64Microsecond", Literal::Quoted("TIME ")),
    ("TimestampSecond", Literal::Moment(TimeUnit::Second)),
    ("TimestampMillisecond", Literal::Moment(TimeUnit::Millisecond)),
    ("TimestampMicrosecond", Literal::Moment(TimeUnit::Microsecond)),
    ("TimestampNanosecond", Literal::Moment(TimeUnit::Nanosecond)),
    ("IntervalMonthDayNano", Literal::Interval),
    ("List", Literal::Plain),
    ("FixedSizeBinary", Literal::Plain),
];

/// Functions whose calls are written in another way, or whose names are nobody's.
const CALLS: &[(&str, &str)] =
    &[("__unnest_placeholder", "unnest"), ("make_array", "array"), ("named_struct", "row")];

/// Functions that are operators.
const OPERATORS: &[(&str, &str)] = &[
    ("pg_add", "+"),
    ("pg_sub", "-"),
    ("pg_mul", "*"),
    ("pg_div", "/"),
    ("pg_mod", "%"),
    ("pg_negate", "-"),
];

/// Functions that give what they are given.
const SILENT: &[&str] = &["pg_cast", "pg_same", "pg_row"];

/// What the names of operators are made of.
const SIGNS: &str = "-+*/<>=~!@#%^&|?";

/// A line of a plan with everything in it as SQL says it.
pub fn as_sql(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    // Marks of repeated names are for the planner.
    while let Some(c) = rest.chars().next() {
        if c == '\u{1}' {
            rest = rest[1..].trim_start_matches(|c: char| c.is_ascii_alphanumeric());
            continue;
        }
        if c.is_ascii_digit() || c == '\'' || c == '"' {
            let length = match c {
                '\'' | '"' => 2 + rest[1..].find(c).unwrap_or(rest.len() - 2).min(rest.len() - 2),
                _ => rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len()),
            };
            out.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        if SIGNS.contains(c) {
            let end = rest.find(|c| !SIGNS.contains(c)).unwrap_or(rest.len());
            let (sign, behind) = rest.split_at(end);
            // A call of an operator has no blank in front of its operands.
            rest = match behind.strip_prefix('(').and_then(|inner| operation(sign, inner)) {
                Some((operation, behind)) => {
                    out.push_str(&operation);
                    behind
                }
                None => {
                    out.push_str(sign);
                    behind
                }
            };
            continue;
        }
        if !c.is_alphabetic() && c != '_' {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        rest = match special(word, behind, &mut out) {
            Some(behind) => behind,
            None => {
                out.push_str(word);
                behind
            }
        };
    }
    out
}

/// Writes what begins with a word of DataFusion's; gives what stands behind it.
fn special<'l>(word: &str, behind: &'l str, out: &mut String) -> Option<&'l str> {
    if word == "AS"
        && let Some((data_type, behind)) = type_of(behind.strip_prefix(' ')?)
    {
        out.push_str("AS ");
        out.push_str(&pg_type_declared(&data_type));
        return Some(behind);
    }
    let inner = behind.strip_prefix('(')?;
    if word == "count"
        && let Some(behind) = inner.strip_prefix("Int64(1))")
    {
        out.push_str("count(*)");
        return Some(behind);
    }
    if let Some((_, sign)) = OPERATORS.iter().find(|(call, _)| *call == word) {
        let (operation, behind) = operation(sign, inner)?;
        out.push_str(&operation);
        return Some(behind);
    }
    if SILENT.contains(&word) {
        let (arguments, behind) = arguments(inner)?;
        out.push_str(&as_sql(arguments.first()?));
        return Some(behind);
    }
    if let Some((_, name)) = CALLS.iter().find(|(call, _)| *call == word) {
        out.push_str(name);
        return Some(behind);
    }
    let (_, literal) = LITERALS.iter().find(|(name, _)| *name == word)?;
    // A quoted text ends where its quotes do.
    let end = match inner.starts_with('"') {
        true => inner.find("\")")? + 1,
        false => inner.find(')')?,
    };
    let (value, behind) = (&inner[..end], &inner[end + 1..]);
    out.push_str(&value_of(*literal, value)?);
    Some(behind)
}

/// An operator between its operands, of which those are in parentheses that are operations.
fn operation<'l>(sign: &str, inner: &'l str) -> Option<(String, &'l str)> {
    let (arguments, behind) = arguments(inner)?;
    let operand = |text: &str| {
        let calls = |(call, _): &(&str, &str)| {
            text.strip_prefix(call).is_some_and(|rest| rest.starts_with('('))
        };
        let is_operation = text.starts_with(|c| SIGNS.contains(c)) && text.contains('(')
            || OPERATORS.iter().any(calls)
            || !text.contains('(') && text.contains(' ');
        let shown = as_sql(text);
        if is_operation { format!("({shown})") } else { shown }
    };
    match arguments.as_slice() {
        [only] => Some((format!("{sign} {}", operand(only)), behind)),
        [left, right] => Some((format!("{} {sign} {}", operand(left), operand(right)), behind)),
        _ => None,
    }
}

/// The arguments of a call behind its parenthesis, and what is behind that.
fn arguments(inner: &str) -> Option<(Vec<&str>, &str)> {
    let (mut found, mut depth, mut start, mut quote) = (Vec::new(), 0_usize, 0, None);
    for (i, c) in inner.char_indices() {
        match (quote, c) {
            (Some(open), c) => quote = Some(open).filter(|open| *open != c),
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')') if depth == 0 => {
                found.push(inner[start..i].trim());
                return Some((found, &inner[i + 1..]));
            }
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                found.push(inner[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    None
}

fn value_of(literal: Literal, value: &str) -> Option<String> {
    let text = value.trim_matches('"');
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    if text.starts_with("NULL") {
        return Some("NULL".into());
    }
    Some(match literal {
        Literal::Plain => text.to_string(),
        Literal::Quoted(kind) => format!("{kind}{}", quoted(text)),
        Literal::Decimal => text.split(',').next()?.to_string(),
        Literal::Moment(unit) => {
            let (at, zone) = text.split_once(", ")?;
            let at: i64 = at.parse().ok()?;
            let zone = (zone != "None").then(|| Arc::from(UTC));
            let kind = if zone.is_some() { "TIMESTAMPTZ" } else { "TIMESTAMP" };
            let array: Arc<dyn Array> = match unit {
                TimeUnit::Second => {
                    Arc::new(TimestampSecondArray::from(vec![at]).with_timezone_opt(zone))
                }
                TimeUnit::Millisecond => {
                    Arc::new(TimestampMillisecondArray::from(vec![at]).with_timezone_opt(zone))
                }
                TimeUnit::Microsecond => {
                    Arc::new(TimestampMicrosecondArray::from(vec![at]).with_timezone_opt(zone))
                }
                TimeUnit::Nanosecond => {
                    Arc::new(TimestampNanosecondArray::from(vec![at]).with_timezone_opt(zone))
                }
            };
            format!("{kind} {}", quoted(&display_value(&array, 0)?))
        }
        Literal::Interval => {
            let part = |name: &str| {
                let (_, found) = text.split_once(&format!("{name}: "))?;
                found.split([',', ' ']).next()?.parse::<i64>().ok()
            };
            let (months, days) = (part("months")?, part("days")?);
            let value = IntervalMonthDayNano::new(
                i32::try_from(months).ok()?,
                i32::try_from(days).ok()?,
                part("nanoseconds")?,
            );
            let array = IntervalMonthDayNanoArray::from(vec![value]);
            format!("INTERVAL {}", quoted(&display_value(&array, 0)?))
        }
    })
}

/// A type by Arrow's name at the front of a text.
fn type_of(text: &str) -> Option<(DataType, &str)> {
    let simple = [
        ("Boolean", DataType::Boolean),
        ("Int8", DataType::Int16),
        ("Int16", DataType::Int16),
        ("Int32", DataType::Int32),
        ("Int64", DataType::Int64),
        ("UInt64", DataType::Decimal128(20, 0)),
        ("Float32", DataType::Float32),
        ("Float64", DataType::Float64),
        ("Utf8View", DataType::Utf8),
        ("Utf8", DataType::Utf8),
        ("LargeUtf8", DataType::LargeUtf8),
        ("Binary", DataType::Binary),
        ("Date32", DataType::Date32),
    ];
    let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (word, behind) = text.split_at(end);
    if let Some((_, data_type)) = simple.into_iter().find(|(name, _)| *name == word) {
        return Some((data_type, behind));
    }
    let inner = behind.strip_prefix('(')?;
    let (inner, behind) = inner.split_at(closing(inner)?);
    let behind = &behind[1..];
    let data_type = match word {
        "Decimal128" => {
            let (precision, scale) = inner.split_once(',')?;
            DataType::Decimal128(precision.trim().parse().ok()?, scale.trim().parse().ok()?)
        }
        "Timestamp" => {
            let zone = inner.contains('"').then(|| Arc::from(UTC));
            DataType::Timestamp(TimeUnit::Microsecond, zone)
        }
        "Time64" => DataType::Time64(TimeUnit::Microsecond),
        "Interval" => DataType::Interval(IntervalUnit::MonthDayNano),
        "FixedSizeBinary" => DataType::FixedSizeBinary(16),
        "List" => {
            let element = type_of(inner).or_else(|| type_of(inner.split_once("non-null ")?.1));
            DataType::new_list(element?.0, true)
        }
        _ => return None,
    };
    Some((data_type, behind))
}

/// Where the parenthesis closes that was opened in front of a text.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(i, c)| match c {
        '(' => {
            depth += 1;
            None
        }
        ')' if depth == 0 => Some(i),
        ')' => {
            depth -= 1;
            None
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_read_as_sql() {
        for (plan, sql) in [
            ("count(Int64(1))", "count(*)"),
            ("count(Int64(1)) AS count", "count(*) AS count"),
            ("sum(CAST(t.a AS Int64))", "sum(CAST(t.a AS bigint))"),
            ("t.a > Int64(5) AND t.b = Utf8(\"it's (x)\")", "t.a > 5 AND t.b = 'it''s (x)'"),
            ("CAST(a AS Decimal128(38, 10)) < Decimal128(1.50,10,2)", "CAST(a AS numeric) < 1.50"),
            ("CAST(a AS Timestamp(µs, \"+00:00\"))", "CAST(a AS timestamp with time zone)"),
            ("CAST(a AS List(Int32))", "CAST(a AS integer[])"),
            (
                "ts < TimestampMicrosecond(1704067200000000, None)",
                "ts < TIMESTAMP '2024-01-01 00:00:00'",
            ),
            (
                "ts - IntervalMonthDayNano(\"IntervalMonthDayNano { months: 0, days: 1, \
                 nanoseconds: 0 }\")",
                "ts - INTERVAL '1 day'",
            ),
            ("Date32(\"2024-01-01\"), Boolean(true), Int64(NULL)", "DATE '2024-01-01', true, NULL"),
            (
                "Map project Utf8, int64(x), \"Int64(1)\"",
                "Map project Utf8, int64(x), \"Int64(1)\"",
            ),
            ("a\u{1}1 AS Int", "a AS Int"),
            ("x > pg_sub(t.a, pg_mul(t.b, Int32(2)))", "x > t.a - (t.b * 2)"),
            ("->>(->(t.j, Utf8(\"a\")), Utf8(\"b, (\"))", "(t.j -> 'a') ->> 'b, ('"),
            ("pg_cast(t.a) <= pg_negate(t.b)", "t.a <= - t.b"),
        ] {
            assert_eq!(as_sql(plan), sql);
        }
    }
}
