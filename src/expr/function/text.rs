//! Text: cut, padded, quoted, put together.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListBuilder, StringBuilder};
use arrow::datatypes::Int32Type;

use super::args::Args;
use super::{Def, Nulls};
use crate::cancel::{checkpoint, pieces_of};
use crate::config::{FOLDED_BYTES_MAX, VALUE_BYTES_MAX};
use crate::delta::text::display_value;
use crate::error::{Error, Result, sqlstate};
use crate::expr::size::check_value;

pub(super) const FUNCTIONS: &[Def] = &[
    ("length(text) -> int", Nulls::Strict, characters),
    ("char_length(text) -> int", Nulls::Strict, characters),
    ("character_length(text) -> int", Nulls::Strict, characters),
    ("substring(text, int) -> text", Nulls::Strict, substring),
    ("substring(text, int, int) -> text", Nulls::Strict, substring),
    ("substr(text, int) -> text", Nulls::Strict, substring),
    ("substr(text, int, int) -> text", Nulls::Strict, substring),
    ("split_part(text, text, int) -> text", Nulls::Strict, split_part),
    ("lpad(text, int) -> text", Nulls::Strict, |a| pad(a, true)),
    ("lpad(text, int, text) -> text", Nulls::Strict, |a| pad(a, true)),
    ("rpad(text, int) -> text", Nulls::Strict, |a| pad(a, false)),
    ("rpad(text, int, text) -> text", Nulls::Strict, |a| pad(a, false)),
    ("repeat(text, int) -> text", Nulls::Strict, repeat),
    ("levenshtein(text, text) -> int", Nulls::Strict, levenshtein),
    ("reverse(text) -> text", Nulls::Strict, reverse),
    ("replace(text, text, text) -> text", Nulls::Strict, replace),
    ("translate(text, text, text) -> text", Nulls::Strict, translate),
    ("^@(text, text) -> boolean", Nulls::Strict, |a| {
        a.booleans(|row| Ok(Some(a.text(0, row).starts_with(a.text(1, row)))))
    }),
    ("quote_ident(text) -> text", Nulls::Strict, |a| {
        a.texts(|row, out| {
            out.push_str(&identifier(a.text(0, row)));
            Ok(true)
        })
    }),
    ("quote_literal(any) -> text", Nulls::Strict, quote_literal),
    ("quote_nullable(any) -> text", Nulls::Seen, quote_literal),
    ("format(text) -> text", Nulls::Seen, format),
    ("format(text, any...) -> text", Nulls::Seen, format),
    ("concat(any...) -> text", Nulls::Seen, concat),
    ("concat_ws(text, any...) -> text", Nulls::Seen, concat_ws),
    ("num_nulls(any...) -> int", Nulls::Seen, |a| count(a, true)),
    ("num_nonnulls(any...) -> int", Nulls::Seen, |a| count(a, false)),
    ("chr(int) -> text", Nulls::Strict, chr),
    ("to_hex(int) -> text", Nulls::Strict, |a| {
        a.texts(|row, out| {
            out.push_str(&format!("{:x}", a.int(0, row)));
            Ok(true)
        })
    }),
    ("to_hex(bigint) -> text", Nulls::Strict, |a| {
        a.texts(|row, out| {
            out.push_str(&format!("{:x}", a.bigint(0, row)));
            Ok(true)
        })
    }),
    ("btrim(text) -> text", Nulls::Strict, |a| trim(a, true, true)),
    ("btrim(text, text) -> text", Nulls::Strict, |a| trim(a, true, true)),
    ("ltrim(text) -> text", Nulls::Strict, |a| trim(a, true, false)),
    ("ltrim(text, text) -> text", Nulls::Strict, |a| trim(a, true, false)),
    ("rtrim(text) -> text", Nulls::Strict, |a| trim(a, false, true)),
    ("rtrim(text, text) -> text", Nulls::Strict, |a| trim(a, false, true)),
    ("pg_varchar(text[], int) -> text[]", Nulls::Strict, |a| cut_elements(a, false)),
    ("pg_bpchar(text[], int) -> text[]", Nulls::Strict, |a| cut_elements(a, true)),
    ("pg_varchar(text, int) -> text", Nulls::Strict, |a| cut_cast(a, false)),
    ("pg_bpchar(text, int) -> text", Nulls::Strict, |a| cut_cast(a, true)),
];

/// To a number of characters: cut off on the right, or filled up on one side.
fn pad(a: &Args<'_>, left: bool) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let text = a.text(0, row);
        let fill = if a.len() > 2 { a.text(2, row) } else { " " };
        let wanted = usize::try_from(a.int(1, row)).unwrap_or(0);
        let length = length_of(text);
        let missing = if fill.is_empty() { 0 } else { wanted.saturating_sub(length) };
        if missing.saturating_mul(4) > VALUE_BYTES_MAX {
            return Err(too_long());
        }
        check_value(text.len().saturating_add(missing))?;
        let filling = fill.chars().cycle().take(missing);
        match left {
            true => {
                out.extend(filling);
                out.push_str(part(text, 0..length.min(wanted)));
            }
            false => {
                out.push_str(part(text, 0..length.min(wanted)));
                out.extend(filling);
            }
        }
        Ok(true)
    })
}

fn reverse(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let text = a.text(0, row);
        check_value(text.len())?;
        let pieces = pieces_of(text).collect::<Result<Vec<_>>>()?;
        for piece in pieces.into_iter().rev() {
            checkpoint()?;
            out.extend(piece.chars().rev());
        }
        Ok(true)
    })
}

fn too_long() -> Error {
    Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, "requested length too large")
}

fn repeat(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let text = a.text(0, row);
        let times = usize::try_from(a.int(1, row)).unwrap_or(0);
        match text.len().checked_mul(times) {
            Some(bytes) if bytes <= VALUE_BYTES_MAX => {
                check_value(bytes)?;
                *out = text.repeat(times);
                Ok(true)
            }
            _ => Err(too_long()),
        }
    })
}

/// So many places are found in well below a millisecond.
const LOOK_PLACES: usize = 1 << 12;

/// 57014 when the statement is to end, from time to time.
fn look_at(place: usize) -> Result<()> {
    if place.is_multiple_of(LOOK_PLACES) { checkpoint() } else { Ok(()) }
}

fn replace(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let (text, from, to) = (a.text(0, row), a.text(1, row), a.text(2, row));
        if from.is_empty() {
            out.push_str(text);
            return Ok(true);
        }
        let grows = to.len().saturating_sub(from.len());
        // Counted first only where there is something to fear.
        if text.len().saturating_mul(to.len()) > FOLDED_BYTES_MAX {
            let mut found = 0_usize;
            for _ in text.matches(from) {
                found += 1;
                look_at(found)?;
            }
            check_value(text.len().saturating_add(found.saturating_mul(grows)))?;
        }
        let (mut rest, mut found) = (text, 0);
        while let Some((before, behind)) = rest.split_once(from) {
            found += 1;
            look_at(found)?;
            out.push_str(before);
            out.push_str(to);
            rest = behind;
        }
        out.push_str(rest);
        Ok(true)
    })
}

/// The longest text whose distance to another one is counted, which takes as many steps as the
/// product of their lengths.
const LEVENSHTEIN_MAX: usize = 255;

/// The insertions, deletions and substitutions of characters that make one text of another.
fn levenshtein(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Int32Type>(|row| {
        let (from, to) = (a.text(0, row), a.text(1, row));
        if from.chars().count().max(to.chars().count()) > LEVENSHTEIN_MAX {
            return Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!(
                    "levenshtein argument exceeds maximum length of {LEVENSHTEIN_MAX} characters"
                ),
            ));
        }
        let to: Vec<char> = to.chars().collect();
        // Distances of what was read of `from` to each beginning of `to`.
        let mut distances: Vec<i32> = (0..).take(to.len() + 1).collect();
        for (read, c) in (1..).zip(from.chars()) {
            let mut before = std::mem::replace(&mut distances[0], read);
            for (i, other) in to.iter().enumerate() {
                let substituted = before + i32::from(*other != c);
                before = distances[i + 1];
                distances[i + 1] = substituted.min(before + 1).min(distances[i] + 1);
            }
        }
        Ok(distances.last().copied())
    })
}

/// Each character of one set as the one at its place in another; those without one go.
fn translate(a: &Args<'_>) -> Result<ArrayRef> {
    let (mut known, mut places) = (("", ""), HashMap::new());
    a.texts(|row, out| {
        let (from, to) = (a.text(1, row), a.text(2, row));
        if known != (from, to) {
            known = (from, to);
            places.clear();
            let mut to = to.chars();
            for c in from.chars() {
                let other = to.next();
                places.entry(c).or_insert(other);
            }
        }
        for piece in pieces_of(a.text(0, row)) {
            for c in piece?.chars() {
                match places.get(&c) {
                    None => out.push(c),
                    Some(other) => out.extend(*other),
                }
            }
        }
        Ok(true)
    })
}

fn characters(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Int32Type>(|row| Ok(Some(a.text(0, row).chars().count() as i32)))
}

/// Where characters from `from` (counted from 1), `count` of them, lie among `length`.
pub(super) fn window(
    from: i32,
    count: Option<i32>,
    length: usize,
) -> Result<std::ops::Range<usize>> {
    let first = i64::from(from) - 1;
    let end = match count {
        Some(count) if count < 0 => {
            return Err(Error::user("22011", "negative substring length not allowed"));
        }
        Some(count) => first + i64::from(count),
        None => i64::MAX,
    };
    let within = |n: i64| usize::try_from(n).unwrap_or(0).min(length);
    let (first, end) = (within(first), within(end));
    Ok(first..end.max(first))
}

/// The characters of a text in a range.
fn part(text: &str, range: std::ops::Range<usize>) -> &str {
    if text.is_ascii() {
        return &text[range];
    }
    let at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(i, _)| i);
    &text[at(range.start)..at(range.end)]
}

fn length_of(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
}

fn substring(a: &Args<'_>) -> Result<ArrayRef> {
    let texts = a.all_texts(0);
    a.pieces(|row| {
        let text = texts.get(row);
        let count = (a.len() > 2).then(|| a.int(2, row));
        Ok(part(text, window(a.int(1, row), count, length_of(text))?))
    })
}

fn split_part(a: &Args<'_>) -> Result<ArrayRef> {
    let (texts, separators) = (a.all_texts(0), a.all_texts(1));
    a.pieces(|row| {
        let n = a.int(2, row);
        if n == 0 {
            return Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                "field position must not be zero",
            ));
        }
        Ok(nth_part(texts.get(row), separators.get(row), n).unwrap_or_default())
    })
}

/// A part of a text, counted from 1 at its beginning or from -1 at its end.
fn nth_part<'t>(text: &'t str, separator: &str, n: i32) -> Option<&'t str> {
    let nth = n.unsigned_abs() as usize - 1;
    if let ([byte @ ..=0x7f], true) = (separator.as_bytes(), n > 0) {
        // The search for a character is the cheaper one.
        return text.split(char::from(*byte)).nth(nth);
    }
    match (separator.is_empty(), n > 0) {
        (true, _) => (nth == 0).then_some(text),
        (false, true) => text.split(separator).nth(nth),
        (false, false) => text.rsplit(separator).nth(nth),
    }
}

/// A value as text, booleans as `t` and `f`, as output functions have it.
fn shown(a: &Args<'_>, i: usize, row: usize) -> Option<String> {
    let (array, row) = a.at(i, row);
    display_value(array, row)
}

fn literal(text: &str, out: &mut String) -> Result<()> {
    if text.contains('\\') {
        out.push('E');
    }
    out.push('\'');
    for piece in pieces_of(text) {
        for c in piece?.chars() {
            if matches!(c, '\'' | '\\') {
                out.push(c);
            }
            out.push(c);
        }
    }
    out.push('\'');
    Ok(())
}

fn quote_literal(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        match shown(a, 0, row) {
            Some(text) => literal(&text, out)?,
            None => out.push_str("NULL"),
        }
        Ok(true)
    })
}

/// An identifier, in quotes unless it needs none.
fn identifier(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    let reserved = sqlparser::keywords::RESERVED_FOR_IDENTIFIER
        .iter()
        .chain(sqlparser::keywords::RESERVED_FOR_COLUMN_ALIAS)
        .any(|k| format!("{k:?}").eq_ignore_ascii_case(text));
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    match starts && text.chars().all(plain) && !reserved {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("\"{}\"", text.replace('"', "\"\""))),
    }
}

/// One `%` of a format: `%[position$][-][width]type`.
struct Directive {
    position: Option<usize>,
    left: bool,
    width: Option<Width>,
    kind: char,
}

enum Width {
    Fixed(i32),
    /// `*`: an argument says.
    Argument(Option<usize>),
}

fn format_error(message: impl Into<String>) -> Error {
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, message)
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<i32> {
    let mut found = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        found = Some(found.unwrap_or(0i32).saturating_mul(10).saturating_add(digit as i32));
    }
    found
}

fn directive(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Directive> {
    let mut out = Directive { position: None, left: false, width: None, kind: ' ' };
    let mut first = number(chars);
    if let (Some(n), Some('$')) = (first, chars.peek()) {
        chars.next();
        if n == 0 {
            return Err(format_error(
                "format specifies argument 0, but arguments are numbered from 1",
            ));
        }
        out.position = usize::try_from(n).ok();
        first = None;
    }
    if first.is_none() {
        while chars.peek() == Some(&'-') {
            chars.next();
            out.left = true;
        }
        if chars.peek() == Some(&'*') {
            chars.next();
            let position = number(chars);
            if position.is_some() && chars.next() != Some('$') {
                return Err(format_error("width argument position must be ended by \"$\""));
            }
            out.width = Some(Width::Argument(position.and_then(|n| usize::try_from(n).ok())));
        } else {
            first = number(chars);
        }
    }
    if let Some(n) = first {
        out.width = Some(Width::Fixed(n));
    }
    out.kind = chars.next().ok_or_else(|| {
        format_error("unterminated format() type specifier")
            .with_hint("For a single \"%\" use \"%%\".")
    })?;
    if !matches!(out.kind, 's' | 'I' | 'L') {
        return Err(format_error(format!("unrecognized format() type specifier \"{}\"", out.kind))
            .with_hint("For a single \"%\" use \"%%\"."));
    }
    Ok(out)
}

fn format(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        if a.is_null(0, row) {
            return Ok(false);
        }
        let mut chars = a.text(0, row).chars().peekable();
        let mut next = 1;
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            if chars.peek() == Some(&'%') {
                chars.next();
                out.push('%');
                continue;
            }
            let directive = directive(&mut chars)?;
            write_directive(a, row, &directive, &mut next, out)?;
        }
        Ok(true)
    })
}

fn write_directive(
    a: &Args<'_>,
    row: usize,
    directive: &Directive,
    next: &mut usize,
    out: &mut String,
) -> Result<()> {
    let mut take = |position: Option<usize>| {
        let i = position.unwrap_or(*next);
        *next = i + 1;
        if i < a.len() { Ok(i) } else { Err(format_error("too few arguments for format()")) }
    };
    let (mut width, mut left) = (0, directive.left);
    match directive.width {
        None => {}
        Some(Width::Fixed(n)) => width = n.unsigned_abs() as usize,
        Some(Width::Argument(position)) => {
            let n: i32 = shown(a, take(position)?, row).unwrap_or_default().parse().unwrap_or(0);
            left |= n < 0;
            width = n.unsigned_abs() as usize;
        }
    }
    let value = shown(a, take(directive.position)?, row);
    let mut text = String::new();
    match (directive.kind, value) {
        ('s', value) => text.push_str(&value.unwrap_or_default()),
        ('L', None) => text.push_str("NULL"),
        ('L', Some(value)) => literal(&value, &mut text)?,
        (_, Some(value)) => text.push_str(&identifier(&value)),
        (_, None) => {
            return Err(Error::user(
                "22004",
                "null values cannot be formatted as an SQL identifier",
            ));
        }
    }
    check_value(width)?;
    let padding = " ".repeat(width.saturating_sub(text.chars().count()));
    match left {
        true => out.extend([text, padding]),
        false => out.extend([padding, text]),
    }
    Ok(())
}

fn concat(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        out.extend((0..a.len()).filter_map(|i| shown(a, i, row)));
        Ok(true)
    })
}

fn concat_ws(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        if a.is_null(0, row) {
            return Ok(false);
        }
        let values: Vec<String> = (1..a.len()).filter_map(|i| shown(a, i, row)).collect();
        out.push_str(&values.join(a.text(0, row)));
        Ok(true)
    })
}

fn count(a: &Args<'_>, nulls: bool) -> Result<ArrayRef> {
    a.values::<Int32Type>(|row| {
        Ok(Some((0..a.len()).filter(|i| a.is_null(*i, row) == nulls).count() as i32))
    })
}

fn chr(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let n = a.int(0, row);
        if n == 0 {
            return Err(Error::user("54000", "null character not permitted"));
        }
        let c = u32::try_from(n).ok().and_then(char::from_u32).ok_or_else(|| {
            Error::user("54000", format!("requested character not valid for encoding: {n}"))
        })?;
        out.push(c);
        Ok(true)
    })
}

/// Text without the characters of a set, blanks unless it is given, at the ends.
fn trim(a: &Args<'_>, begin: bool, end: bool) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let set = if a.len() > 1 { a.text(1, row) } else { " " };
        let goes = |c: char| set.contains(c);
        let mut text = a.text(0, row);
        if begin {
            text = text.trim_start_matches(goes);
        }
        if end {
            text = text.trim_end_matches(goes);
        }
        out.push_str(text);
        Ok(true)
    })
}

/// The same as [`cut_cast`] of the elements of arrays.
fn cut_elements(a: &Args<'_>, blanks: bool) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(StringBuilder::new());
    for row in 0..a.rows() {
        if a.skips(row) {
            out.append_null();
            continue;
        }
        let (elements, length) = (a.list(0, row), a.int(1, row));
        for text in elements.as_string::<i32>() {
            out.values().append_option(text.map(|text| cut(text, length, blanks)));
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

fn cut(text: &str, length: i32, blanks: bool) -> &str {
    let length = usize::try_from(length).unwrap_or(0).min(length_of(text));
    let text = part(text, 0..length);
    if blanks { text.trim_end_matches(' ') } else { text }
}

/// A cast to `varchar(n)` or `char(n)`: what is too long is cut off, and `char` has no blanks at
/// its end, which mean nothing there.
fn cut_cast(a: &Args<'_>, blanks: bool) -> Result<ArrayRef> {
    a.texts(|row, out| {
        out.push_str(cut(a.text(0, row), a.int(1, row), blanks));
        Ok(true)
    })
}
