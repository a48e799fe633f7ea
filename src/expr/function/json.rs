//! Reading jsonb: operators and functions.

use arrow::array::{Array, ArrayRef, AsArray, LargeStringBuilder, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Int32Type};
use std::sync::Arc;

use super::args::Args;
use super::{Def, Nulls};
use crate::delta::jsonb;
use crate::delta::jsonb_order::order_bytes;
use crate::error::{Error, Result, sqlstate};

const HEX: &[u8; 16] = b"0123456789abcdef";

pub(super) const FUNCTIONS: &[Def] = &[
    // As text in hexadecimal, because frames of windows take text and no bytea.
    ("pg_jsonb_order(jsonb) -> text", Nulls::Strict, |a| {
        a.texts(|row, out| {
            for byte in order_bytes(a.text(0, row)) {
                out.extend([byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)])));
            }
            Ok(true)
        })
    }),
    ("->(jsonb, text) -> jsonb", Nulls::Strict, |a| get(a, false)),
    ("->(jsonb, int) -> jsonb", Nulls::Strict, |a| get(a, false)),
    ("->>(jsonb, text) -> text", Nulls::Strict, |a| get(a, true)),
    ("->>(jsonb, int) -> text", Nulls::Strict, |a| get(a, true)),
    ("jsonb_subscript(jsonb, text) -> jsonb", Nulls::Strict, subscript),
    ("jsonb_subscript(jsonb, int) -> jsonb", Nulls::Strict, subscript),
    ("record_field(jsonb, text) -> text", Nulls::Strict, |a| field(a, true)),
    ("record_part(jsonb, text) -> jsonb", Nulls::Strict, |a| field(a, false)),
    ("#>(jsonb, text[]) -> jsonb", Nulls::Strict, |a| path_list(a, false)),
    ("#>>(jsonb, text[]) -> text", Nulls::Strict, |a| path_list(a, true)),
    ("jsonb_extract_path(jsonb, text...) -> jsonb", Nulls::Strict, |a| path(a, false)),
    ("json_extract_path(jsonb, text...) -> jsonb", Nulls::Strict, |a| path(a, false)),
    ("jsonb_extract_path_text(jsonb, text...) -> text", Nulls::Strict, |a| path(a, true)),
    ("json_extract_path_text(jsonb, text...) -> text", Nulls::Strict, |a| path(a, true)),
    ("@>(jsonb, jsonb) -> boolean", Nulls::Strict, |a| {
        a.booleans(|row| Ok(Some(jsonb::contains(a.text(0, row), a.text(1, row)))))
    }),
    ("<@(jsonb, jsonb) -> boolean", Nulls::Strict, |a| {
        a.booleans(|row| Ok(Some(jsonb::contains(a.text(1, row), a.text(0, row)))))
    }),
    ("?(jsonb, text) -> boolean", Nulls::Strict, |a| {
        a.booleans(|row| Ok(Some(has_key(a.text(0, row), a.text(1, row)))))
    }),
    ("?|(jsonb, text[]) -> boolean", Nulls::Strict, |a| has_keys(a, false)),
    ("?&(jsonb, text[]) -> boolean", Nulls::Strict, |a| has_keys(a, true)),
    ("jsonb_typeof(jsonb) -> text", Nulls::Strict, kind),
    ("json_typeof(jsonb) -> text", Nulls::Strict, kind),
    ("jsonb_array_length(jsonb) -> int", Nulls::Strict, array_length),
    ("json_array_length(jsonb) -> int", Nulls::Strict, array_length),
    ("jsonb_pretty(jsonb) -> text", Nulls::Strict, |a| {
        a.texts(|row, out| {
            pretty(a.text(0, row), 0, out);
            Ok(true)
        })
    }),
    ("jsonb_array_elements(jsonb) -> jsonb[]", Nulls::Strict, elements),
    ("json_array_elements(jsonb) -> jsonb[]", Nulls::Strict, elements),
    ("jsonb_array_elements_text(jsonb) -> text[]", Nulls::Strict, elements_text),
    ("json_array_elements_text(jsonb) -> text[]", Nulls::Strict, elements_text),
    ("jsonb_object_keys(jsonb) -> text[]", Nulls::Strict, object_keys),
    ("json_object_keys(jsonb) -> text[]", Nulls::Strict, object_keys),
    ("jsonb_each_key(jsonb) -> text[]", Nulls::Strict, each_key),
    ("jsonb_each_value(jsonb) -> jsonb[]", Nulls::Strict, each_value),
    ("jsonb_each_text_value(jsonb) -> text[]", Nulls::Strict, each_text_value),
];

/// Appends a value as jsonb or as text; false for none.
fn put(found: Option<&str>, as_text: bool, out: &mut String) -> Result<bool> {
    let text = match (found, as_text) {
        (None, _) => return Ok(false),
        (Some(json), false) => json.into(),
        (Some(json), true) => match jsonb::text(json) {
            Some(text) => text,
            None => return Ok(false),
        },
    };
    out.push_str(&text);
    Ok(true)
}

/// `j['key']` and `j[1]`: a step of a path, so nothing for scalars, and a number may be a key.
fn subscript(a: &Args<'_>) -> Result<ArrayRef> {
    let by_key = a.array(1).data_type() == &DataType::Utf8;
    a.texts(|row, out| {
        let json = a.text(0, row);
        let found = match by_key {
            true => jsonb::step(json, a.text(1, row)),
            false => jsonb::step(json, &a.int(1, row).to_string()),
        };
        put(found, false, out)
    })
}

/// A field by the name of a column: a name that is the same, else one that is in another case.
fn field(a: &Args<'_>, as_text: bool) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let (json, name) = (a.text(0, row), a.text(1, row));
        let in_any_case = || {
            let inner = |key: &str| key.trim_matches('"').to_ascii_lowercase();
            let mut members = jsonb::members(json);
            members.find(|(key, _)| inner(key) == name.to_ascii_lowercase()).map(|(_, value)| value)
        };
        put(jsonb::member(json, name).or_else(in_any_case), as_text, out)
    })
}

/// `->` and `->>`.
fn get(a: &Args<'_>, as_text: bool) -> Result<ArrayRef> {
    let by_key = a.array(1).data_type() == &DataType::Utf8;
    a.texts(|row, out| {
        let json = a.text(0, row);
        let found = match by_key {
            true => jsonb::member(json, a.text(1, row)),
            false => match (json.starts_with(['[', '{']), a.int(1, row)) {
                // A scalar is an array of itself here.
                (false, 0 | -1) => Some(json),
                (_, index) => jsonb::element(json, i64::from(index)),
            },
        };
        put(found, as_text, out)
    })
}

/// `#>` and `#>>`.
fn path_list(a: &Args<'_>, as_text: bool) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let steps = a.list(1, row);
        let steps = steps.as_string::<i32>();
        let mut at = Some(a.text(0, row));
        for step in steps {
            at = at.zip(step).and_then(|(json, step)| jsonb::step(json, step));
        }
        put(at, as_text, out)
    })
}

fn path(a: &Args<'_>, as_text: bool) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let mut at = Some(a.text(0, row));
        for i in 1..a.len() {
            at = at.and_then(|json| jsonb::step(json, a.text(i, row)));
        }
        put(at, as_text, out)
    })
}

/// Whether a text is a key of an object, an element of an array, or the string itself.
fn has_key(json: &str, key: &str) -> bool {
    match json.as_bytes().first() {
        Some(b'{') => jsonb::member(json, key).is_some(),
        Some(b'[') => jsonb::elements(json).any(|e| is_string(e, key)),
        _ => is_string(json, key),
    }
}

fn is_string(json: &str, text: &str) -> bool {
    json.starts_with('"') && jsonb::string_is(json, text)
}

fn has_keys(a: &Args<'_>, all: bool) -> Result<ArrayRef> {
    a.booleans(|row| {
        let (json, keys) = (a.text(0, row), a.list(1, row));
        let mut keys = keys.as_string::<i32>().iter().flatten();
        Ok(Some(match all {
            true => keys.all(|key| has_key(json, key)),
            false => keys.any(|key| has_key(json, key)),
        }))
    })
}

fn kind(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        out.push_str(jsonb::kind(a.text(0, row)));
        Ok(true)
    })
}

fn wrong_kind(message: impl Into<String>) -> Error {
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, message.into())
}

fn array_length(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Int32Type>(|row| match (a.text(0, row), jsonb::kind(a.text(0, row))) {
        (json, "array") => Ok(Some(jsonb::elements(json).count() as i32)),
        (_, "object") => Err(wrong_kind("cannot get array length of a non-array")),
        _ => Err(wrong_kind("cannot get array length of a scalar")),
    })
}

/// Lists of jsonb values, one list per row.
fn jsonb_lists<'v>(
    a: &'v Args<'_>,
    mut each: impl FnMut(&'v str, &mut ListBuilder<LargeStringBuilder>) -> Result<()>,
) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(LargeStringBuilder::new());
    for row in 0..a.rows() {
        if !a.skips(row) {
            each(a.text(0, row), &mut out)?;
        }
        out.append(!a.skips(row));
    }
    Ok(Arc::new(out.finish()))
}

/// Lists of texts, one list per row.
fn text_lists<'v>(
    a: &'v Args<'_>,
    mut each: impl FnMut(&'v str, &mut ListBuilder<StringBuilder>) -> Result<()>,
) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(StringBuilder::new());
    for row in 0..a.rows() {
        if !a.skips(row) {
            each(a.text(0, row), &mut out)?;
        }
        out.append(!a.skips(row));
    }
    Ok(Arc::new(out.finish()))
}

fn check_array(json: &str) -> Result<()> {
    match jsonb::kind(json) {
        "array" => Ok(()),
        "object" => Err(wrong_kind("cannot extract elements from an object")),
        _ => Err(wrong_kind("cannot extract elements from a scalar")),
    }
}

fn elements(a: &Args<'_>) -> Result<ArrayRef> {
    jsonb_lists(a, |json, out| {
        check_array(json)?;
        jsonb::elements(json).for_each(|e| out.values().append_value(e));
        Ok(())
    })
}

fn elements_text(a: &Args<'_>) -> Result<ArrayRef> {
    text_lists(a, |json, out| {
        check_array(json)?;
        jsonb::elements(json).for_each(|e| out.values().append_option(jsonb::text(e)));
        Ok(())
    })
}

fn object_keys(a: &Args<'_>) -> Result<ArrayRef> {
    text_lists(a, |json, out| {
        match jsonb::kind(json) {
            "object" => {}
            "array" => return Err(wrong_kind("cannot call jsonb_object_keys on an array")),
            _ => return Err(wrong_kind("cannot call jsonb_object_keys on a scalar")),
        }
        jsonb::members(json).for_each(|(k, _)| out.values().append_value(jsonb::unquoted(k)));
        Ok(())
    })
}

fn check_object(json: &str) -> Result<()> {
    match jsonb::kind(json) {
        "object" => Ok(()),
        _ => Err(wrong_kind("cannot call jsonb_each on a non-object")),
    }
}

fn each_key(a: &Args<'_>) -> Result<ArrayRef> {
    text_lists(a, |json, out| {
        check_object(json)?;
        jsonb::members(json).for_each(|(k, _)| out.values().append_value(jsonb::unquoted(k)));
        Ok(())
    })
}

fn each_value(a: &Args<'_>) -> Result<ArrayRef> {
    jsonb_lists(a, |json, out| {
        check_object(json)?;
        jsonb::members(json).for_each(|(_, value)| out.values().append_value(value));
        Ok(())
    })
}

fn each_text_value(a: &Args<'_>) -> Result<ArrayRef> {
    text_lists(a, |json, out| {
        check_object(json)?;
        jsonb::members(json).for_each(|(_, value)| out.values().append_option(jsonb::text(value)));
        Ok(())
    })
}

/// Four spaces per level, every member on a line of its own.
fn pretty(json: &str, depth: usize, out: &mut String) {
    let line = |depth: usize, out: &mut String| {
        out.push('\n');
        out.push_str(&"    ".repeat(depth));
    };
    match json.as_bytes().first() {
        Some(b'{') => {
            out.push('{');
            for (i, (key, value)) in jsonb::members(json).enumerate() {
                if i > 0 {
                    out.push(',');
                }
                line(depth + 1, out);
                out.push_str(key);
                out.push_str(": ");
                pretty(value, depth + 1, out);
            }
            line(depth, out);
            out.push('}');
        }
        Some(b'[') => {
            out.push('[');
            for (i, value) in jsonb::elements(json).enumerate() {
                if i > 0 {
                    out.push(',');
                }
                line(depth + 1, out);
                pretty(value, depth + 1, out);
            }
            line(depth, out);
            out.push(']');
        }
        _ => out.push_str(json),
    }
}
