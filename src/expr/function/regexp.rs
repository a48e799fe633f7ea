//! Regular expressions: PostgreSQL's functions over the `regex` crate.
//!
//! The syntax is nearly that of PostgreSQL's advanced expressions: the escapes that differ are
//! translated. Look-around and back references are refused. How a match is found is told in
//! [`super::pattern`].

use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringBuilder};
use arrow::datatypes::Int32Type;

use super::args::Args;
use super::pattern::{Cache, Found, Pattern};
use super::{Def, Nulls};
use crate::error::{Error, Result, sqlstate};
use crate::expr::size::check_text;

pub(super) const FUNCTIONS: &[Def] = &[
    ("~(text, text) -> boolean", Nulls::Strict, |a| matched(a, "", true)),
    ("!~(text, text) -> boolean", Nulls::Strict, |a| matched(a, "", false)),
    ("~*(text, text) -> boolean", Nulls::Strict, |a| matched(a, "i", true)),
    ("!~*(text, text) -> boolean", Nulls::Strict, |a| matched(a, "i", false)),
    ("substring(text, text) -> text", Nulls::Strict, substring),
    ("regexp_match(text, text) -> text[]", Nulls::Strict, match_once),
    ("regexp_match(text, text, text) -> text[]", Nulls::Strict, match_once),
    ("regexp_like(text, text) -> boolean", Nulls::Strict, like),
    ("regexp_like(text, text, text) -> boolean", Nulls::Strict, like),
    ("regexp_replace(text, text, text) -> text", Nulls::Strict, replace),
    ("regexp_replace(text, text, text, text) -> text", Nulls::Strict, replace),
    ("regexp_replace(text, text, text, int) -> text", Nulls::Strict, replace_at),
    ("regexp_replace(text, text, text, int, int) -> text", Nulls::Strict, replace_at),
    ("regexp_replace(text, text, text, int, int, text) -> text", Nulls::Strict, replace_at),
    ("regexp_count(text, text) -> int", Nulls::Strict, count),
    ("regexp_count(text, text, int) -> int", Nulls::Strict, count),
    ("regexp_count(text, text, int, text) -> int", Nulls::Strict, count),
    ("regexp_substr(text, text) -> text", Nulls::Strict, substr),
    ("regexp_substr(text, text, int) -> text", Nulls::Strict, substr),
    ("regexp_substr(text, text, int, int) -> text", Nulls::Strict, substr),
    ("regexp_substr(text, text, int, int, text) -> text", Nulls::Strict, substr),
    ("regexp_instr(text, text) -> int", Nulls::Strict, instr),
    ("regexp_instr(text, text, int) -> int", Nulls::Strict, instr),
    ("regexp_instr(text, text, int, int) -> int", Nulls::Strict, instr),
    ("regexp_split_to_array(text, text) -> text[]", Nulls::Strict, split),
    ("regexp_split_to_array(text, text, text) -> text[]", Nulls::Strict, split),
    ("regexp_matches(text, text) -> text[][]", Nulls::Strict, matches),
    ("regexp_matches(text, text, text) -> text[][]", Nulls::Strict, matches),
    ("similar_to(text, text) -> boolean", Nulls::Strict, similar),
    ("similar_to(text, text, text) -> boolean", Nulls::Strict, similar),
    ("like_escaped(text, text, text) -> boolean", Nulls::Strict, |a| like_escaped(a, false)),
    ("ilike_escaped(text, text, text) -> boolean", Nulls::Strict, |a| like_escaped(a, true)),
];

fn matched(a: &Args<'_>, flags: &str, wanted: bool) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    let (texts, patterns) = (a.all_texts(0), a.all_texts(1));
    a.booleans(|row| {
        Ok(Some(cache.get(patterns.get(row), flags)?.is_match(texts.get(row)) == wanted))
    })
}

fn flags<'a>(a: &'a Args<'_>, i: usize, row: usize) -> &'a str {
    if a.len() > i { a.text(i, row) } else { "" }
}

fn refuse_global(function: &str, flags: &str) -> Result<()> {
    match flags.contains('g') {
        true => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("{function}() does not support the \"global\" option"),
        )),
        false => Ok(()),
    }
}

/// The groups of a match, or the whole of it where there are none.
fn groups<'t>(found: &'t Found, text: &'t str) -> impl Iterator<Item = Option<&'t str>> {
    let from = usize::from(found.groups() > 1);
    (from..found.groups()).map(|group| found.text(group, text))
}

fn substring(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    a.texts(|row, out| {
        let text = a.text(0, row);
        let found = cache.get(a.text(1, row), "")?.find_at(text, 0);
        let group = found.as_ref().and_then(|found| groups(found, text).next().flatten());
        out.push_str(group.unwrap_or_default());
        Ok(group.is_some())
    })
}

fn match_once(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    let mut out = ListBuilder::new(StringBuilder::new());
    for row in 0..a.rows() {
        let mut valid = false;
        if !a.skips(row) {
            refuse_global("regexp_match", flags(a, 2, row))?;
            let regex = cache.get(a.text(1, row), flags(a, 2, row))?;
            let text = a.text(0, row);
            if let Some(found) = regex.find_at(text, 0) {
                groups(&found, text).for_each(|group| out.values().append_option(group));
                valid = true;
            }
        }
        out.append(valid);
    }
    Ok(Arc::new(out.finish()))
}

fn like(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    a.booleans(|row| {
        refuse_global("regexp_like", flags(a, 2, row))?;
        Ok(Some(cache.get(a.text(1, row), flags(a, 2, row))?.is_match(a.text(0, row))))
    })
}

/// Appends a replacement: `\1` to `\9` are groups, `\&` is the match.
fn expand(found: &Found, text: &str, replacement: &str, out: &mut String) -> Result<()> {
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('&') => {
                let whole = found.text(0, text).unwrap_or_default();
                check_text(out.len(), whole.len())?;
                out.push_str(whole);
            }
            Some(d @ '0'..='9') => {
                let group = found.text(d as usize - '0' as usize, text).unwrap_or_default();
                check_text(out.len(), group.len())?;
                out.push_str(group);
            }
            Some('\\') | None => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
        }
    }
    Ok(())
}

/// Replaces the `nth` match behind byte `from` (0: all of them).
fn replace_matches(
    regex: &Pattern,
    text: &str,
    replacement: &str,
    (from, nth): (usize, usize),
    out: &mut String,
) -> Result<()> {
    let mut copied = 0;
    for (i, found) in regex.all(text, from).enumerate() {
        let found = found?;
        if nth != 0 && i + 1 != nth {
            continue;
        }
        check_text(out.len(), found.start() - copied + replacement.len())?;
        out.push_str(&text[copied..found.start()]);
        expand(&found, text, replacement, out)?;
        copied = found.end();
        if nth != 0 {
            break;
        }
    }
    out.push_str(&text[copied..]);
    Ok(())
}

fn replace(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    a.texts(|row, out| {
        let flags = flags(a, 3, row);
        let regex = cache.get(a.text(1, row), flags)?;
        let nth = usize::from(!flags.contains('g'));
        replace_matches(regex, a.text(0, row), a.text(2, row), (0, nth), out)?;
        Ok(true)
    })
}

/// The byte where the character at a position (counted from 1) begins.
fn start(text: &str, position: i32) -> Result<usize> {
    if position < 1 {
        return Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"start\": {position}"),
        ));
    }
    Ok(text.char_indices().nth(position as usize - 1).map_or(text.len(), |(i, _)| i))
}

fn nth_of(n: i32, least: i32) -> Result<usize> {
    usize::try_from(n).ok().filter(|_| n >= least).ok_or_else(|| {
        Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"n\": {n}"),
        )
    })
}

fn replace_at(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    a.texts(|row, out| {
        let text = a.text(0, row);
        let nth = if a.len() > 4 { nth_of(a.int(4, row), 0)? } else { 1 };
        let from = start(text, a.int(3, row))?;
        let regex = cache.get(a.text(1, row), flags(a, 5, row))?;
        replace_matches(regex, text, a.text(2, row), (from, nth), out)?;
        Ok(true)
    })
}

fn count(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    a.values::<Int32Type>(|row| {
        let text = a.text(0, row);
        let from = if a.len() > 2 { start(text, a.int(2, row))? } else { 0 };
        let regex = cache.get(a.text(1, row), flags(a, 3, row))?;
        let mut found = 0;
        for one in regex.all(text, from) {
            one?;
            found += 1;
        }
        Ok(Some(found))
    })
}

/// The `n`th match behind a position: where it begins and ends.
fn nth_match(a: &Args<'_>, row: usize, cache: &mut Cache) -> Result<Option<(usize, usize)>> {
    let text = a.text(0, row);
    let from = if a.len() > 2 { start(text, a.int(2, row))? } else { 0 };
    let nth = if a.len() > 3 { nth_of(a.int(3, row), 1)? } else { 1 };
    let regex = cache.get(a.text(1, row), flags(a, 4, row))?;
    for (i, found) in regex.all(text, from).enumerate() {
        let found = found?;
        if i + 1 == nth {
            return Ok(Some((found.start(), found.end())));
        }
    }
    Ok(None)
}

fn substr(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    a.texts(|row, out| {
        let found = nth_match(a, row, &mut cache)?;
        out.push_str(found.map_or("", |(begin, end)| &a.text(0, row)[begin..end]));
        Ok(found.is_some())
    })
}

fn instr(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    a.values::<Int32Type>(|row| {
        let found = nth_match(a, row, &mut cache)?;
        let before = |at: usize| a.text(0, row)[..at].chars().count() as i32;
        Ok(Some(found.map_or(0, |(begin, _)| before(begin) + 1)))
    })
}

fn split(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    let mut out = ListBuilder::new(StringBuilder::new());
    for row in 0..a.rows() {
        if !a.skips(row) {
            refuse_global("regexp_split_to_array", flags(a, 2, row))?;
            let text = a.text(0, row);
            let (mut begin, mut before) = (0, 0);
            // An empty match at the begin, at the end or behind another one parts nothing.
            for found in cache.get(a.text(1, row), flags(a, 2, row))?.all(text, 0) {
                let found = found?;
                if found.start() < text.len() && found.end() > before {
                    out.values().append_value(&text[begin..found.start()]);
                    begin = found.end();
                }
                before = found.end();
            }
            out.values().append_value(&text[begin..]);
        }
        out.append(!a.skips(row));
    }
    Ok(Arc::new(out.finish()))
}

/// The groups of every match, or of the first one without the flag `g`.
fn matches(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    let mut out = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
    for row in 0..a.rows() {
        if !a.skips(row) {
            let flags = flags(a, 2, row);
            let most = if flags.contains('g') { usize::MAX } else { 1 };
            let regex = cache.get(a.text(1, row), flags)?;
            let text = a.text(0, row);
            for found in regex.all(text, 0).take(most) {
                let found = found?;
                let elements = out.values().values();
                groups(&found, text).for_each(|group| elements.append_option(group));
                out.values().append(true);
            }
        }
        out.append(!a.skips(row));
    }
    Ok(Arc::new(out.finish()))
}

fn escape_of(escape: &str) -> Result<Option<char>> {
    let mut chars = escape.chars();
    match (chars.next(), chars.next()) {
        (found, None) => Ok(found),
        _ => Err(Error::user("22025", "invalid escape string")
            .with_hint("Escape string must be empty or one character.")),
    }
}

/// SIMILAR TO: `%` and `_` as in LIKE, the rest as in a regular expression, all of the text.
fn similar(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    a.booleans(|row| {
        let escape = if a.len() > 2 { escape_of(a.text(2, row))? } else { Some('\\') };
        let mut pattern = String::from("^(?:");
        let mut chars = a.text(1, row).chars();
        let mut bracket = false;
        while let Some(c) = chars.next() {
            match c {
                c if Some(c) == escape => match chars.next() {
                    // What SUBSTRING would take stands between two of these.
                    Some('"') if !bracket => {}
                    Some(next) if next.is_alphanumeric() => pattern.extend(['\\', next]),
                    Some(next) => pattern.push_str(&regex::escape(next.encode_utf8(&mut [0; 4]))),
                    None => {}
                },
                '[' if !bracket => {
                    bracket = true;
                    pattern.push('[');
                }
                ']' if bracket => {
                    bracket = false;
                    pattern.push(']');
                }
                c if bracket => pattern.push(c),
                '%' => pattern.push_str(".*"),
                '_' => pattern.push('.'),
                '.' | '^' | '$' | '\\' => pattern.extend(['\\', c]),
                c => pattern.push(c),
            }
        }
        pattern.push_str(")$");
        Ok(Some(cache.get(&pattern, "s")?.is_match(a.text(0, row))))
    })
}

/// LIKE with an escape character of one's own.
fn like_escaped(a: &Args<'_>, fold: bool) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    a.booleans(|row| {
        let escape = escape_of(a.text(2, row))?;
        let mut pattern = String::from("^(?:");
        let mut chars = a.text(1, row).chars();
        while let Some(c) = chars.next() {
            let literal = match c {
                c if Some(c) == escape => chars.next().ok_or_else(|| {
                    Error::user("22025", "LIKE pattern must not end with escape character")
                })?,
                '%' => {
                    pattern.push_str(".*");
                    continue;
                }
                '_' => {
                    pattern.push('.');
                    continue;
                }
                c => c,
            };
            pattern.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
        }
        pattern.push_str(")$");
        let flags = if fold { "is" } else { "s" };
        Ok(Some(cache.get(&pattern, flags)?.is_match(a.text(0, row))))
    })
}
