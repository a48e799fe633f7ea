//! Making jsonb: from SQL values, from one another.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

use super::args::Args;
use super::{Def, Nulls};
use crate::delta::jsonb;
use crate::delta::text::{display_value, pg_type_name};
use crate::error::{Error, Result, sqlstate};

pub(super) const FUNCTIONS: &[Def] = &[
    ("pg_typeof(any) -> text", Nulls::Seen, |a| {
        a.texts(|_, out| {
            out.push_str(pg_type_name(a.array(0).data_type()));
            Ok(true)
        })
    }),
    ("to_jsonb(any) -> jsonb", Nulls::Strict, to_jsonb),
    ("to_json(any) -> jsonb", Nulls::Strict, to_jsonb),
    ("record_json(any, text) -> jsonb", Nulls::Strict, record),
    ("row_to_json(any) -> jsonb", Nulls::Strict, to_jsonb),
    ("jsonb_build_array(any...) -> jsonb", Nulls::Seen, build_array),
    ("json_build_array(any...) -> jsonb", Nulls::Seen, build_array),
    ("jsonb_build_object(any...) -> jsonb", Nulls::Seen, build_object),
    ("json_build_object(any...) -> jsonb", Nulls::Seen, build_object),
    ("jsonb_strip_nulls(jsonb) -> jsonb", Nulls::Strict, strip_nulls),
    ("json_strip_nulls(jsonb) -> jsonb", Nulls::Strict, strip_nulls),
    ("jsonb_concat(jsonb, jsonb) -> jsonb", Nulls::Strict, concat),
    ("jsonb_delete(jsonb, text) -> jsonb", Nulls::Strict, delete_key),
    ("jsonb_delete(jsonb, text[]) -> jsonb", Nulls::Strict, delete_keys),
    ("jsonb_delete(jsonb, int) -> jsonb", Nulls::Strict, delete_index),
    ("jsonb_delete_path(jsonb, text[]) -> jsonb", Nulls::Strict, delete_path),
    ("#-(jsonb, text[]) -> jsonb", Nulls::Strict, delete_path),
    ("jsonb_set(jsonb, text[], jsonb) -> jsonb", Nulls::Strict, set),
    ("jsonb_set(jsonb, text[], jsonb, boolean) -> jsonb", Nulls::Strict, set),
    ("jsonb_insert(jsonb, text[], jsonb) -> jsonb", Nulls::Strict, insert),
    ("jsonb_insert(jsonb, text[], jsonb, boolean) -> jsonb", Nulls::Strict, insert),
    ("jsonb_object(text[]) -> jsonb", Nulls::Strict, object_of_pairs),
    ("json_object(text[]) -> jsonb", Nulls::Strict, object_of_pairs),
    ("jsonb_object(text[], text[]) -> jsonb", Nulls::Strict, object_of_lists),
    ("json_object(text[], text[]) -> jsonb", Nulls::Strict, object_of_lists),
];

/// A row as an object with other names for its fields: `[[name], [name, names inside], ..]`.
fn record(a: &Args<'_>) -> Result<ArrayRef> {
    fn write(array: &ArrayRef, row: usize, names: &str, out: &mut String) {
        let DataType::Struct(_) = array.data_type() else { return write_json(array, row, out) };
        if array.is_null(row) {
            return out.push_str("null");
        }
        out.push('{');
        let columns = array.as_struct().columns().iter().zip(jsonb::elements(names));
        for (at, (column, named)) in columns.enumerate() {
            let mut parts = jsonb::elements(named);
            out.push_str(if at > 0 { ", " } else { "" });
            out.push_str(parts.next().unwrap_or("\"\""));
            out.push_str(": ");
            match parts.next() {
                Some(inner) => write(column, row, inner, out),
                None => write_json(column, row, out),
            }
        }
        out.push('}');
    }
    a.texts(|row, out| {
        let (array, at) = a.at(0, row);
        let mut object = String::new();
        write(array, at, a.text(1, row), &mut object);
        out.push_str(&jsonb::canonical(&object)?);
        Ok(true)
    })
}

/// Appends a value of any type as jsonb: numbers and booleans as such, the rest as strings.
pub(crate) fn write_json(array: &ArrayRef, row: usize, out: &mut String) {
    if array.is_null(row) {
        return out.push_str("null");
    }
    match array.data_type() {
        DataType::Null => out.push_str("null"),
        DataType::LargeUtf8 => out.push_str(array.as_string::<i64>().value(row)),
        DataType::Boolean => {
            out.push_str(if array.as_boolean().value(row) { "true" } else { "false" });
        }
        DataType::List(_) => {
            let elements = array.as_list::<i32>().value(row);
            out.push('[');
            for i in 0..elements.len() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_json(&elements, i, out);
            }
            out.push(']');
        }
        DataType::Struct(fields) => {
            let mut object = String::from("{");
            for (i, (field, column)) in fields.iter().zip(array.as_struct().columns()).enumerate() {
                object.push_str(if i > 0 { ", " } else { "" });
                jsonb::write_string(field.name(), &mut object);
                object.push_str(": ");
                write_json(column, row, &mut object);
            }
            object.push('}');
            // Of two fields with one name the last counts.
            out.push_str(&jsonb::canonical(&object).unwrap_or(object));
        }
        DataType::Timestamp(_, zone) => {
            // ISO 8601: a T between date and time, minutes in the zone.
            let text = display_value(array, row).unwrap_or_default().replacen(' ', "T", 1);
            let text = match zone {
                Some(_) => text.replacen("+00", "+00:00", 1),
                None => text,
            };
            jsonb::write_string(&text, out);
        }
        t if t.is_numeric() => {
            let text = display_value(array, row).unwrap_or_default();
            match jsonb::canonical(&text) {
                Ok(number) => out.push_str(&number),
                // NaN and the infinities.
                Err(_) => jsonb::write_string(&text, out),
            }
        }
        _ => jsonb::write_string(&display_value(array, row).unwrap_or_default(), out),
    }
}

/// A value as a key; `None` for NULL.
pub(crate) fn object_key(array: &ArrayRef, row: usize) -> Result<Option<String>> {
    let Some(key) = display_value(array, row) else { return Ok(None) };
    match array.data_type() {
        DataType::Boolean => Ok(Some(if key == "t" { "true" } else { "false" }.to_string())),
        DataType::List(_) | DataType::Struct(_) | DataType::LargeUtf8 => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            "key value must be scalar, not array, composite, or json",
        )),
        _ => Ok(Some(key)),
    }
}

fn to_jsonb(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let (array, row) = a.at(0, row);
        write_json(array, row, out);
        Ok(true)
    })
}

fn build_array(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        out.push('[');
        for i in 0..a.len() {
            if i > 0 {
                out.push_str(", ");
            }
            let (array, row) = a.at(i, row);
            write_json(array, row, out);
        }
        out.push(']');
        Ok(true)
    })
}

fn build_object(a: &Args<'_>) -> Result<ArrayRef> {
    if !a.len().is_multiple_of(2) {
        return Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            "argument list must have even number of elements",
        )
        .with_hint(
            "The arguments of jsonb_build_object() must consist of alternating keys and values.",
        ));
    }
    a.texts(|row, out| {
        let mut members = Vec::new();
        for i in (0..a.len()).step_by(2) {
            let (keys, at) = a.at(i, row);
            let key = object_key(keys, at)?.ok_or_else(|| {
                Error::user(
                    sqlstate::INVALID_PARAMETER_VALUE,
                    format!("argument {}: key must not be null", i + 1),
                )
            })?;
            let mut value = String::new();
            let (values, at) = a.at(i + 1, row);
            write_json(values, at, &mut value);
            members.push((Cow::Owned(key), Cow::Owned(value)));
        }
        jsonb::write_object(members, out);
        Ok(true)
    })
}

/// An object's members with their keys as texts.
fn plain_members(json: &str) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    jsonb::members(json).map(|(k, v)| (jsonb::unquoted(k), Cow::Borrowed(v))).collect()
}

fn strip(json: &str, out: &mut String) {
    match jsonb::kind(json) {
        "object" => {
            let members = jsonb::members(json).filter(|(_, value)| *value != "null");
            let members = members.map(|(key, value)| {
                let mut inner = String::new();
                strip(value, &mut inner);
                (jsonb::unquoted(key), Cow::Owned(inner))
            });
            jsonb::write_object(members, out);
        }
        "array" => {
            let elements: Vec<String> = jsonb::elements(json)
                .map(|e| {
                    let mut inner = String::new();
                    strip(e, &mut inner);
                    inner
                })
                .collect();
            jsonb::write_array(elements.iter().map(String::as_str), out);
        }
        _ => out.push_str(json),
    }
}

fn strip_nulls(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        strip(a.text(0, row), out);
        Ok(true)
    })
}

/// `||`: objects merge, everything else becomes one array.
fn concat(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let (l, r) = (a.text(0, row), a.text(1, row));
        match (jsonb::kind(l), jsonb::kind(r)) {
            ("object", "object") => {
                let members = plain_members(l).into_iter().chain(plain_members(r));
                jsonb::write_object(members, out);
            }
            (kl, kr) => {
                let side = |json, kind: &str| match kind {
                    "array" => jsonb::elements(json).collect::<Vec<_>>(),
                    _ => vec![json],
                };
                jsonb::write_array(side(l, kl).into_iter().chain(side(r, kr)), out);
            }
        }
        Ok(true)
    })
}

fn parameter_error(message: &str) -> Error {
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, message.to_string())
}

/// Without some keys, or without the strings of an array that are equal to them.
fn without(json: &str, gone: impl Fn(&str) -> bool, out: &mut String) -> Result<()> {
    match jsonb::kind(json) {
        "object" => {
            let kept = plain_members(json).into_iter().filter(|(key, _)| !gone(key));
            jsonb::write_object(kept, out);
        }
        "array" => {
            let is_gone = |e: &&str| !(e.starts_with('"') && gone(&jsonb::unquoted(e)));
            jsonb::write_array(jsonb::elements(json).filter(is_gone), out);
        }
        _ => return Err(parameter_error("cannot delete from scalar")),
    }
    Ok(())
}

fn delete_key(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let key = a.text(1, row);
        without(a.text(0, row), |k| k == key, out).map(|()| true)
    })
}

fn delete_keys(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let keys = a.list(1, row);
        let keys = keys.as_string::<i32>();
        without(a.text(0, row), |k| keys.iter().flatten().any(|g| g == k), out).map(|()| true)
    })
}

fn delete_index(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let (json, index) = (a.text(0, row), i64::from(a.int(1, row)));
        match jsonb::kind(json) {
            "array" => {}
            "object" => {
                return Err(parameter_error("cannot delete from object using integer index"));
            }
            _ => return Err(parameter_error("cannot delete from scalar")),
        }
        let count = jsonb::elements(json).count() as i64;
        let index = if index < 0 { index + count } else { index };
        let kept = jsonb::elements(json).enumerate().filter(|(i, _)| *i as i64 != index);
        jsonb::write_array(kept.map(|(_, e)| e), out);
        Ok(true)
    })
}

/// What happens at the end of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit<'a> {
    Set { value: &'a str, create: bool },
    Insert { value: &'a str, after: bool },
    Delete,
}

/// Appends a value with a change at the end of a path; what is not there stays as it is.
fn edit(json: &str, path: &[&str], change: Edit<'_>, out: &mut String) -> Result<()> {
    let Some((step, rest)) = path.split_first() else {
        out.push_str(json);
        return Ok(());
    };
    match jsonb::kind(json) {
        "object" => edit_object(json, step, rest, change, out),
        "array" => edit_array(json, step, rest, change, out),
        _ => {
            out.push_str(json);
            Ok(())
        }
    }
}

fn edit_object(
    json: &str,
    step: &str,
    rest: &[&str],
    change: Edit<'_>,
    out: &mut String,
) -> Result<()> {
    let mut members = plain_members(json);
    let at = members.iter().position(|(key, _)| key == step);
    match (at, rest.is_empty(), change) {
        (Some(i), true, Edit::Delete) => {
            members.remove(i);
        }
        (Some(i), true, Edit::Set { value, .. }) => members[i].1 = Cow::Owned(value.to_string()),
        (Some(_), true, Edit::Insert { .. }) => {
            return Err(parameter_error("cannot replace existing key")
                .with_hint("Try using the function jsonb_set to replace key value."));
        }
        (None, true, Edit::Set { value, create: true } | Edit::Insert { value, .. }) => {
            members.push((Cow::Owned(step.to_string()), Cow::Owned(value.to_string())));
        }
        (Some(i), false, _) => {
            let mut inner = String::new();
            edit(&members[i].1, rest, change, &mut inner)?;
            members[i].1 = Cow::Owned(inner);
        }
        (None, ..) => {}
    }
    jsonb::write_object(members, out);
    Ok(())
}

fn edit_array(
    json: &str,
    step: &str,
    rest: &[&str],
    change: Edit<'_>,
    out: &mut String,
) -> Result<()> {
    let index: i64 = step.trim().parse().map_err(|_| {
        Error::user(
            sqlstate::INVALID_TEXT_REPRESENTATION,
            format!("path element at position 1 is not an integer: \"{step}\""),
        )
    })?;
    let mut elements: Vec<Cow<'_, str>> = jsonb::elements(json).map(Cow::Borrowed).collect();
    let count = elements.len() as i64;
    let place = if index < 0 { index + count } else { index };
    let at = usize::try_from(place).ok().filter(|i| *i < elements.len());
    match (at, rest.is_empty(), change) {
        (Some(i), true, Edit::Delete) => {
            elements.remove(i);
        }
        (Some(i), true, Edit::Set { value, .. }) => elements[i] = Cow::Owned(value.to_string()),
        (Some(i), true, Edit::Insert { value, after }) => {
            elements.insert(i + usize::from(after), Cow::Owned(value.to_string()));
        }
        (None, true, Edit::Set { value, create: true } | Edit::Insert { value, .. }) => {
            let end = if place < 0 { 0 } else { elements.len() };
            elements.insert(end, Cow::Owned(value.to_string()));
        }
        (Some(i), false, _) => {
            let mut inner = String::new();
            edit(&elements[i], rest, change, &mut inner)?;
            elements[i] = Cow::Owned(inner);
        }
        (None, ..) => {}
    }
    jsonb::write_array(elements.iter().map(AsRef::as_ref), out);
    Ok(())
}

/// Runs an edit whose path is argument 1.
fn edits<'v>(a: &'v Args<'_>, change: impl Fn(usize) -> Edit<'v>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let steps = a.list(1, row);
        let steps: Option<Vec<&str>> = steps.as_string::<i32>().iter().collect();
        let Some(steps) = steps else {
            return Err(parameter_error("path element at position 1 is null"));
        };
        let json = a.text(0, row);
        if !matches!(jsonb::kind(json), "object" | "array") {
            let verb = if change(row) == Edit::Delete { "delete path in" } else { "set path in" };
            return Err(parameter_error(&format!("cannot {verb} scalar")));
        }
        edit(json, &steps, change(row), out).map(|()| true)
    })
}

fn delete_path(a: &Args<'_>) -> Result<ArrayRef> {
    edits(a, |_| Edit::Delete)
}

fn set(a: &Args<'_>) -> Result<ArrayRef> {
    edits(a, |row| Edit::Set { value: a.text(2, row), create: a.len() < 4 || a.boolean(3, row) })
}

fn insert(a: &Args<'_>) -> Result<ArrayRef> {
    edits(a, |row| Edit::Insert { value: a.text(2, row), after: a.len() > 3 && a.boolean(3, row) })
}

fn string_or_null(text: Option<&str>) -> Cow<'static, str> {
    let mut out = String::new();
    match text {
        Some(text) => jsonb::write_string(text, &mut out),
        None => out.push_str("null"),
    }
    Cow::Owned(out)
}

fn key_of(key: Option<&str>) -> Result<Cow<'static, str>> {
    match key {
        Some(key) => Ok(Cow::Owned(key.to_string())),
        None => Err(Error::user("22004", "null value not allowed for object key")),
    }
}

fn object_of_pairs(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let list = a.list(0, row);
        let list = list.as_string::<i32>();
        if !list.len().is_multiple_of(2) {
            return Err(Error::user("2202E", "array must have even number of elements"));
        }
        let values: Vec<Option<&str>> = list.iter().collect();
        let pairs = values.chunks_exact(2).map(|p| Ok((key_of(p[0])?, string_or_null(p[1]))));
        jsonb::write_object(pairs.collect::<Result<Vec<_>>>()?, out);
        Ok(true)
    })
}

fn object_of_lists(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let (keys, values) = (a.list(0, row), a.list(1, row));
        let (keys, values) = (keys.as_string::<i32>(), values.as_string::<i32>());
        if keys.len() != values.len() {
            return Err(Error::user("2202E", "mismatched array dimensions"));
        }
        let pairs = keys.iter().zip(values).map(|(k, v)| Ok((key_of(k)?, string_or_null(v))));
        jsonb::write_object(pairs.collect::<Result<Vec<_>>>()?, out);
        Ok(true)
    })
}
