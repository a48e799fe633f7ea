//! The columns of `jsonb_to_recordset(x) AS t(a int, b text)` and its like, each as a list: the
//! values that one key has in the objects of an array, or in one object.

use std::sync::Arc;

use arrow::array::{ArrayRef, LargeStringBuilder, ListBuilder, StringBuilder};

use super::args::Args;
use super::{Def, Nulls};
use crate::delta::jsonb;
use crate::error::{Error, Result, sqlstate};

/// The arguments: the values, the key, and the function that they are columns of; of texts the
/// length of their type and whether blanks behind them are kept.
pub(super) const FUNCTIONS: &[Def] = &[
    ("pg_json_texts(jsonb, text, text) -> text[]", Nulls::Seen, |a| texts(a, &text)),
    ("pg_json_texts(jsonb, text, text, int, text) -> text[]", Nulls::Seen, |a| {
        texts(a, &|a, row, json, out| {
            let Some(value) = jsonb::text(json) else { return Ok(false) };
            check_length(&value, a.int(3, row), a.text(4, row))?;
            out.push_str(&value);
            Ok(true)
        })
    }),
    ("pg_json_arrays(jsonb, text, text) -> text[]", Nulls::Seen, |a| texts(a, &array)),
    ("pg_json_values(jsonb, text, text) -> jsonb[]", Nulls::Seen, values),
];

/// Appends a value as text; false for NULL.
type Write = dyn Fn(&Args<'_>, usize, &str, &mut String) -> Result<bool>;

fn texts(a: &Args<'_>, write: &Write) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(StringBuilder::new());
    let mut buffer = String::new();
    for row in 0..a.rows() {
        let any = each(a, row, &mut |json| {
            buffer.clear();
            let found = match json {
                Some(json) => write(a, row, json, &mut buffer)?,
                None => false,
            };
            out.values().append_option(found.then_some(buffer.as_str()));
            Ok(())
        })?;
        out.append(any);
    }
    Ok(Arc::new(out.finish()))
}

fn values(a: &Args<'_>) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(LargeStringBuilder::new());
    for row in 0..a.rows() {
        let any = each(a, row, &mut |json| {
            out.values().append_option(json.filter(|json| *json != "null"));
            Ok(())
        })?;
        out.append(any);
    }
    Ok(Arc::new(out.finish()))
}

/// Hands out the value of the key in each record of a row; false where there are no records.
fn each<'v>(
    a: &'v Args<'_>,
    row: usize,
    take: &mut dyn FnMut(Option<&'v str>) -> Result<()>,
) -> Result<bool> {
    let (key, function) = (a.text(1, row), a.text(2, row));
    let many = function.ends_with("recordset");
    if a.is_null(0, row) {
        // One record of NULLs, or no records.
        if !many {
            take(None)?;
        }
        return Ok(!many);
    }
    let json = a.text(0, row);
    match (many, jsonb::kind(json)) {
        (false, "object") => take(jsonb::member(json, key))?,
        (false, "array") => return Err(wrong("cannot call populate_composite on an array")),
        (false, _) => return Err(wrong("cannot call populate_composite on a scalar")),
        (true, "array") => {
            for element in jsonb::elements(json) {
                if jsonb::kind(element) != "object" {
                    let message = format!("argument of {function} must be an array of objects");
                    return Err(wrong(message));
                }
                take(jsonb::member(element, key))?;
            }
        }
        (true, _) => return Err(wrong(format!("cannot call {function} on a non-array"))),
    }
    Ok(true)
}

fn wrong(message: impl Into<String>) -> Error {
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, message.into())
}

fn text(_: &Args<'_>, _: usize, json: &str, out: &mut String) -> Result<bool> {
    match jsonb::text(json) {
        Some(text) => {
            out.push_str(&text);
            Ok(true)
        }
        None => Ok(false),
    }
}

/// What is longer than its type, unless only blanks are.
fn check_length(text: &str, length: i32, data_type: &str) -> Result<()> {
    let length = usize::try_from(length).unwrap_or_default();
    match text.trim_end_matches(' ').chars().nth(length) {
        None => Ok(()),
        Some(_) => Err(Error::user(
            sqlstate::STRING_DATA_RIGHT_TRUNCATION,
            format!("value too long for type {data_type}"),
        )),
    }
}

/// An array as the text that is read as one.
fn array(a: &Args<'_>, row: usize, json: &str, out: &mut String) -> Result<bool> {
    match jsonb::kind(json) {
        "array" => write_array(json, out),
        "null" => return Ok(false),
        "string" => out.push_str(&jsonb::unquoted(json)),
        _ => {
            return Err(Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, "expected JSON array")
                .with_hint(format!("See the value of key \"{}\".", a.text(1, row))));
        }
    }
    Ok(true)
}

fn write_array(json: &str, out: &mut String) {
    out.push('{');
    for (i, element) in jsonb::elements(json).enumerate() {
        if i > 0 {
            out.push(',');
        }
        match (jsonb::kind(element), jsonb::text(element)) {
            (_, None) => out.push_str("NULL"),
            ("array", _) => write_array(element, out),
            (_, Some(text)) => {
                out.push('"');
                for c in text.chars() {
                    if matches!(c, '"' | '\\') {
                        out.push('\\');
                    }
                    out.push(c);
                }
                out.push('"');
            }
        }
    }
    out.push('}');
}
