//! SQL/JSON paths over jsonb (ISO/IEC 9075-2:2023, 9.47): PostgreSQL's functions and operators of
//! them, and `JSON_EXISTS`, `JSON_VALUE` and `JSON_QUERY` of the standard with what they do by
//! default: nothing found, or nothing that can be given, is NULL.
//!
//! They are ours because the library for it (`sql-json-path` 0.2) gives other items than
//! PostgreSQL for one question in ten: it does not look into arrays behind `.**`, drops the
//! elements of an array behind one that is no object, and ends with a panic for `$[last]`.

mod ast;
mod eval;
mod number;
mod parse;

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use arrow::array::{ArrayRef, LargeStringBuilder, ListBuilder};
use arrow::datatypes::DataType;

use self::ast::Path;
use self::eval::follow;

use super::args::Args;
use super::memo::Memo;
use super::{Def, Nulls};
use crate::delta::jsonb;
use crate::error::{Error, Result, sqlstate};

pub(super) const FUNCTIONS: &[Def] = &[
    ("jsonb_path_exists(jsonb, text) -> boolean", Nulls::Strict, |a| exists(a, false)),
    ("jsonb_path_exists(jsonb, text, jsonb) -> boolean", Nulls::Strict, |a| exists(a, false)),
    ("jsonb_path_exists(jsonb, text, jsonb, boolean) -> boolean", Nulls::Strict, |a| {
        exists(a, false)
    }),
    ("@?(jsonb, text) -> boolean", Nulls::Strict, |a| exists(a, true)),
    ("jsonb_path_match(jsonb, text) -> boolean", Nulls::Strict, |a| matches(a, false)),
    ("jsonb_path_match(jsonb, text, jsonb) -> boolean", Nulls::Strict, |a| matches(a, false)),
    ("jsonb_path_match(jsonb, text, jsonb, boolean) -> boolean", Nulls::Strict, |a| {
        matches(a, false)
    }),
    ("@@(jsonb, text) -> boolean", Nulls::Strict, |a| matches(a, true)),
    ("jsonb_path_query(jsonb, text) -> jsonb[]", Nulls::Strict, items),
    ("jsonb_path_query(jsonb, text, jsonb) -> jsonb[]", Nulls::Strict, items),
    ("jsonb_path_query(jsonb, text, jsonb, boolean) -> jsonb[]", Nulls::Strict, items),
    ("jsonb_path_query_array(jsonb, text) -> jsonb", Nulls::Strict, array),
    ("jsonb_path_query_array(jsonb, text, jsonb) -> jsonb", Nulls::Strict, array),
    ("jsonb_path_query_array(jsonb, text, jsonb, boolean) -> jsonb", Nulls::Strict, array),
    ("jsonb_path_query_first(jsonb, text) -> jsonb", Nulls::Strict, first),
    ("jsonb_path_query_first(jsonb, text, jsonb) -> jsonb", Nulls::Strict, first),
    ("jsonb_path_query_first(jsonb, text, jsonb, boolean) -> jsonb", Nulls::Strict, first),
    ("is_json(text, text) -> boolean", Nulls::Strict, is_json),
    ("is_json(jsonb, text) -> boolean", Nulls::Strict, is_json),
    ("json_exists(jsonb, text) -> boolean", Nulls::Strict, json_exists),
    ("json_exists(text, text) -> boolean", Nulls::Strict, json_exists),
    ("json_value(jsonb, text) -> text", Nulls::Strict, json_value),
    ("json_value(text, text) -> text", Nulls::Strict, json_value),
    ("json_query(jsonb, text) -> jsonb", Nulls::Strict, json_query),
    ("json_query(text, text) -> jsonb", Nulls::Strict, json_query),
];

/// What a path finds in the rows of a call: paths are read once while they repeat.
struct Query<'a> {
    a: &'a Args<'a>,
    /// Whether errors that a path can give mean that nothing is known.
    silent: bool,
    /// Whether is asked only whether there is an item.
    exists: bool,
    paths: RefCell<Memo<Path>>,
}

/// The items of a document, and what ended them ahead of their end.
struct Found {
    lax: bool,
    items: Vec<String>,
    failed: bool,
}

impl<'a> Query<'a> {
    fn of(a: &'a Args<'a>, silent: bool) -> Self {
        Self { a, silent, exists: false, paths: RefCell::default() }
    }

    fn found(&self, row: usize) -> Result<Found> {
        let Self { a, .. } = self;
        let mut paths = self.paths.borrow_mut();
        let path = paths.get(a.text(1, row), compile)?;
        let document = a.text(0, row);
        let document = match a.array(0).data_type() {
            DataType::Utf8 => Cow::Owned(jsonb::canonical(document)?),
            _ => Cow::Borrowed(document),
        };
        let variables = match a.len() {
            // An operator, which has no room for variables, takes them all for NULL.
            2 if self.silent => None,
            2 => Some("{}"),
            _ => Some(a.text(2, row)),
        };
        if variables.is_some_and(|json| !json.starts_with('{')) {
            let message = "\"vars\" argument is not an object";
            return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message).with_detail(
                "Jsonpath parameters should be encoded as key-value pairs of \"vars\" object.",
            ));
        }
        let mut items = Vec::new();
        let followed = follow(path, &document, variables, &mut items);
        let items = items.into_iter().map(Cow::into_owned).collect();
        let found = Found { lax: path.lax, items, failed: followed.is_err() };
        match followed {
            Ok(()) => Ok(found),
            Err(fault) if self.silent(row) && fault.can_be_silent => Ok(found),
            // The first item is enough for who asks whether there is one.
            Err(fault) if !found.lax || found.items.is_empty() || !self.exists => {
                Err(Error::user(fault.sqlstate, fault.message))
            }
            Err(_) => Ok(found),
        }
    }

    fn silent(&self, row: usize) -> bool {
        self.silent || self.a.len() > 3 && self.a.boolean(3, row)
    }
}

fn compile(path: &str) -> Result<Path> {
    let message = || format!("invalid input syntax for type jsonpath: \"{path}\"");
    match path.trim().is_empty() {
        true => Err(Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, message())),
        false => parse::parse(path),
    }
}

fn exists(a: &Args<'_>, silent: bool) -> Result<ArrayRef> {
    let query = Query { exists: true, ..Query::of(a, silent) };
    a.booleans(|row| {
        let found = query.found(row)?;
        let any = !found.items.is_empty();
        Ok(if found.failed && !(found.lax && any) { None } else { Some(any) })
    })
}

fn matches(a: &Args<'_>, silent: bool) -> Result<ArrayRef> {
    let query = Query::of(a, silent);
    a.booleans(|row| {
        let items = query.found(row)?.items;
        match items.as_slice() {
            [item] if item == "true" || item == "false" => Ok(Some(item == "true")),
            [item] if item == "null" => Ok(None),
            _ if query.silent(row) => Ok(None),
            _ => Err(Error::user("22038", "single boolean result is expected")),
        }
    })
}

fn items(a: &Args<'_>) -> Result<ArrayRef> {
    let query = Query::of(a, false);
    let mut out = ListBuilder::new(LargeStringBuilder::new());
    for row in 0..a.rows() {
        if !a.skips(row) {
            query.found(row)?.items.iter().for_each(|item| out.values().append_value(item));
        }
        out.append(!a.skips(row));
    }
    Ok(Arc::new(out.finish()))
}

fn array(a: &Args<'_>) -> Result<ArrayRef> {
    let query = Query::of(a, false);
    a.texts(|row, out| {
        jsonb::write_array(query.found(row)?.items.iter().map(String::as_str), out);
        Ok(true)
    })
}

fn first(a: &Args<'_>) -> Result<ArrayRef> {
    let query = Query::of(a, false);
    a.texts(|row, out| match query.found(row)?.items.first() {
        None => Ok(false),
        Some(item) => {
            out.push_str(item);
            Ok(true)
        }
    })
}

/// What the standard's functions are told: nothing of a path that ends with an error, nor of a
/// document that is no JSON.
fn known(query: &Query<'_>, row: usize) -> Result<Option<Vec<String>>> {
    let is_text = query.a.array(0).data_type() == &DataType::Utf8;
    if is_text && jsonb::canonical(query.a.text(0, row)).is_err() {
        return Ok(None);
    }
    let found = query.found(row)?;
    Ok((!found.failed).then_some(found.items))
}

fn json_exists(a: &Args<'_>) -> Result<ArrayRef> {
    let query = Query::of(a, true);
    a.booleans(|row| Ok(Some(known(&query, row)?.is_some_and(|items| !items.is_empty()))))
}

fn json_value(a: &Args<'_>) -> Result<ArrayRef> {
    let query = Query::of(a, true);
    a.texts(|row, out| {
        let items = known(&query, row)?.unwrap_or_default();
        let [item] = items.as_slice() else { return Ok(false) };
        let text = match jsonb::kind(item) {
            "array" | "object" => None,
            _ => jsonb::text(item),
        };
        text.iter().for_each(|text| out.push_str(text));
        Ok(text.is_some())
    })
}

fn json_query(a: &Args<'_>) -> Result<ArrayRef> {
    let query = Query::of(a, true);
    a.texts(|row, out| match known(&query, row)?.as_deref() {
        Some([item]) => {
            out.push_str(item);
            Ok(true)
        }
        _ => Ok(false),
    })
}

/// `x IS JSON OBJECT`: whether a text is JSON, and of the kind.
fn is_json(a: &Args<'_>) -> Result<ArrayRef> {
    a.booleans(|row| {
        let text = a.text(0, row);
        if jsonb::canonical(text).is_err() {
            return Ok(Some(false));
        }
        let kind = match jsonb::kind(text.trim_start()) {
            kind @ ("array" | "object") => kind,
            _ => "scalar",
        };
        let wanted = a.text(1, row);
        Ok(Some(wanted.is_empty() || wanted == kind))
    })
}
