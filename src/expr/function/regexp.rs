//! Regular expressions: PostgreSQL's functions over the `regex` crate.
//!
//! The syntax is nearly that of PostgreSQL's advanced expressions: the escapes that differ are
//! translated. Look-around and back references are refused. Where alternatives overlap, the first
//! that matches is taken, not the longest (a documented deviation).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringBuilder};
use arrow::datatypes::Int32Type;
use regex::{Captures, Regex, RegexBuilder};

use super::args::Args;
use super::{Def, Nulls};
use crate::error::{Error, Result, sqlstate};

pub(super) const FUNCTIONS: &[Def] = &[
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

/// Compiled expressions of a batch: patterns are mostly one constant.
#[derive(Default)]
struct Cache {
    compiled: HashMap<(String, String), Regex>,
}

impl Cache {
    fn get(&mut self, pattern: &str, flags: &str) -> Result<&Regex> {
        let key = (pattern.to_string(), flags.to_string());
        if !self.compiled.contains_key(&key) {
            let compiled = compile(pattern, flags)?;
            self.compiled.insert(key.clone(), compiled);
        }
        self.compiled.get(&key).ok_or_else(|| Error::internal("compiled just before"))
    }
}

fn invalid(detail: impl std::fmt::Display) -> Error {
    Error::user("2201B", format!("invalid regular expression: {detail}"))
}

/// The flags that PostgreSQL knows; `g` is for the callers that take it.
fn compile(pattern: &str, flags: &str) -> Result<Regex> {
    let mut literal = false;
    let translated;
    let mut builder_flags = (false, false, true, false);
    for flag in flags.chars() {
        match flag {
            'i' => builder_flags.0 = true,
            'c' => builder_flags.0 = false,
            'n' | 'm' => {
                builder_flags.1 = true;
                builder_flags.2 = false;
            }
            's' => {
                builder_flags.1 = false;
                builder_flags.2 = true;
            }
            'p' => builder_flags.2 = false,
            'w' => builder_flags.1 = true,
            'x' => builder_flags.3 = true,
            'q' => literal = true,
            'g' | 'e' | 't' => {}
            other => {
                return Err(Error::user(
                    sqlstate::INVALID_PARAMETER_VALUE,
                    format!("invalid regular expression option: \"{other}\""),
                ));
            }
        }
    }
    let text = match literal {
        true => regex::escape(pattern),
        false => {
            translated = translate(pattern)?;
            translated
        }
    };
    RegexBuilder::new(&text)
        .case_insensitive(builder_flags.0)
        .multi_line(builder_flags.1)
        .dot_matches_new_line(builder_flags.2)
        .ignore_whitespace(builder_flags.3)
        .build()
        .map_err(|e| invalid(e.to_string().lines().last().unwrap_or_default().trim()))
}

/// Escapes that are spelled otherwise there.
fn translate(pattern: &str) -> Result<String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.strip_prefix("***:").unwrap_or(pattern).chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some('m')) => out.push_str(r"\b{start}"),
            ('\\', Some('M')) => out.push_str(r"\b{end}"),
            ('\\', Some('y')) => out.push_str(r"\b"),
            ('\\', Some('Y')) => out.push_str(r"\B"),
            ('\\', Some('Z')) => out.push_str(r"\z"),
            ('\\', Some('1'..='9')) => {
                return Err(Error::unsupported(
                    "back references in regular expressions are not supported",
                ));
            }
            ('\\', Some(next)) => out.extend(['\\', *next]),
            ('(', Some('?')) => {
                let mut ahead = chars.clone().skip(1);
                if matches!(ahead.next(), Some('=' | '!' | '<')) {
                    return Err(Error::unsupported(
                        "look-around in regular expressions is not supported",
                    ));
                }
                out.push('(');
                continue;
            }
            (c, _) => {
                out.push(c);
                continue;
            }
        }
        chars.next();
    }
    Ok(out)
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

/// The first group, or the whole match where there is none.
fn first_group<'t>(found: &Captures<'t>) -> Option<&'t str> {
    match found.len() {
        1 => found.get(0),
        _ => found.get(1),
    }
    .map(|m| m.as_str())
}

fn substring(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    a.texts(|row, out| {
        let found = cache.get(a.text(1, row), "")?.captures(a.text(0, row));
        let group = found.as_ref().and_then(first_group);
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
            if let Some(found) = regex.captures(a.text(0, row)) {
                let from = usize::from(found.len() > 1);
                for group in found.iter().skip(from) {
                    out.values().append_option(group.map(|m| m.as_str()));
                }
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
fn expand(found: &Captures<'_>, replacement: &str, out: &mut String) {
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('&') => out.push_str(found.get(0).map_or("", |m| m.as_str())),
            Some(d @ '0'..='9') => {
                let group = found.get(d as usize - '0' as usize);
                out.push_str(group.map_or("", |m| m.as_str()));
            }
            Some('\\') | None => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
        }
    }
}

/// Replaces the `nth` match behind byte `from` (0: all of them).
fn replace_matches(
    regex: &Regex,
    text: &str,
    replacement: &str,
    (from, nth): (usize, usize),
    out: &mut String,
) {
    let mut copied = 0;
    for (i, found) in regex.captures_iter(&text[from..]).enumerate() {
        let Some(whole) = found.get(0) else { continue };
        if nth != 0 && i + 1 != nth {
            continue;
        }
        out.push_str(&text[copied..from + whole.start()]);
        expand(&found, replacement, out);
        copied = from + whole.end();
        if nth != 0 {
            break;
        }
    }
    out.push_str(&text[copied..]);
}

fn replace(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    a.texts(|row, out| {
        let flags = flags(a, 3, row);
        let regex = cache.get(a.text(1, row), flags)?;
        let nth = usize::from(!flags.contains('g'));
        replace_matches(regex, a.text(0, row), a.text(2, row), (0, nth), out);
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
        replace_matches(regex, text, a.text(2, row), (from, nth), out);
        Ok(true)
    })
}

fn count(a: &Args<'_>) -> Result<ArrayRef> {
    let mut cache = Cache::default();
    a.values::<Int32Type>(|row| {
        let text = a.text(0, row);
        let from = if a.len() > 2 { start(text, a.int(2, row))? } else { 0 };
        let regex = cache.get(a.text(1, row), flags(a, 3, row))?;
        Ok(Some(regex.find_iter(&text[from..]).count() as i32))
    })
}

/// The `n`th match behind a position: where it begins and ends.
fn nth_match(a: &Args<'_>, row: usize, cache: &mut Cache) -> Result<Option<(usize, usize)>> {
    let text = a.text(0, row);
    let from = if a.len() > 2 { start(text, a.int(2, row))? } else { 0 };
    let nth = if a.len() > 3 { nth_of(a.int(3, row), 1)? } else { 1 };
    let regex = cache.get(a.text(1, row), flags(a, 4, row))?;
    let found = regex.find_iter(&text[from..]).nth(nth - 1);
    Ok(found.map(|m| (from + m.start(), from + m.end())))
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
            let mut begin = 0;
            // An empty match neither at the begin nor at the end parts anything.
            for found in cache.get(a.text(1, row), flags(a, 2, row))?.find_iter(text) {
                let empty = found.start() == found.end();
                if empty && (found.start() == begin || found.start() == text.len()) {
                    continue;
                }
                out.values().append_value(&text[begin..found.start()]);
                begin = found.end();
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
            for found in regex.captures_iter(a.text(0, row)).take(most) {
                let from = usize::from(found.len() > 1);
                for group in found.iter().skip(from) {
                    out.values().values().append_option(group.map(|m| m.as_str()));
                }
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
