//! `jsonb` as text in one canonical form, and the ways around in that form.
//!
//! The canonical form is what PostgreSQL prints: keys of an object once each, shorter ones first,
//! then by bytes; `", "` between members and `": "` behind keys; only the escapes that are needed.
//! Numbers are written out and lose trailing zeros behind the point, as `numeric` does here. So
//! equal values have equal texts, and a part of a value is a slice of its text: reading a member
//! builds nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::cancel::checkpoint;
use crate::error::{Error, Result, sqlstate};

/// Nesting beyond this is refused (54001).
const DEPTH_MAX: usize = 512;
/// A number may have this many digits before or behind the point.
const DIGITS_MAX: i64 = 16_384;

/// The canonical text of any JSON text.
pub fn canonical(text: &str) -> Result<String> {
    let mut reader = Reader { text, at: 0, values: 0 };
    reader.space();
    let mut out = String::with_capacity(text.len() + 8);
    reader.value(0, &mut out)?;
    reader.space();
    match reader.at == text.len() {
        true => Ok(out),
        false => Err(reader.invalid()),
    }
}

/// Appends a text as a JSON string, as PostgreSQL escapes it.
pub fn write_string(text: &str, out: &mut String) {
    out.push('"');
    // What stays as it is, is copied at once.
    let mut rest = text;
    let is_special = |byte: u8| matches!(byte, b'"' | b'\\' | 0..b' ');
    while let Some(at) = rest.bytes().position(is_special) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        match special.as_bytes()[0] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            8 => out.push_str("\\b"),
            12 => out.push_str("\\f"),
            byte => out.push_str(&format!("\\u{byte:04x}")),
        }
        rest = &special[1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// Appends an object of keys and canonical values in canonical order; of equal keys the last wins.
pub fn write_object<'a>(
    members: impl IntoIterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    out: &mut String,
) {
    let mut sorted: BTreeMap<(usize, Cow<'a, str>), Cow<'a, str>> = BTreeMap::new();
    for (key, value) in members {
        sorted.insert((key.len(), key), value);
    }
    out.push('{');
    for (i, ((_, key), value)) in sorted.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write_string(key, out);
        out.push_str(": ");
        out.push_str(value);
    }
    out.push('}');
}

/// Appends an array of canonical values.
pub fn write_array<'a>(values: impl IntoIterator<Item = &'a str>, out: &mut String) {
    out.push('[');
    for (i, value) in values.into_iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        out.push_str(value);
    }
    out.push(']');
}

/// `jsonb_typeof`.
pub fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

/// The value of a key of an object.
pub fn member<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    members(json).find(|(k, _)| string_is(k, key)).map(|(_, value)| value)
}

/// The element of an array; negative indexes count from its end.
pub fn element(json: &str, index: i64) -> Option<&str> {
    let index = match index < 0 {
        true => index + i64::try_from(elements(json).count()).ok()?,
        false => index,
    };
    elements(json).nth(usize::try_from(index).ok()?)
}

/// What a step of a path leads to: a key of an object, or a number into an array.
pub fn step<'a>(json: &'a str, step: &str) -> Option<&'a str> {
    match json.as_bytes().first() {
        Some(b'{') => member(json, step),
        Some(b'[') => element(json, step.trim_start().parse::<i32>().ok()?.into()),
        _ => None,
    }
}

/// The keys (as strings in quotes) and values of an object; nothing for other values.
pub fn members(json: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut at = if json.starts_with('{') { 1 } else { json.len() };
    std::iter::from_fn(move || {
        if json.as_bytes().get(at) != Some(&b'"') {
            return None;
        }
        let key_end = end_of_value(json, at);
        let value_end = end_of_value(json, key_end + 2);
        let found = (&json[at..key_end], &json[key_end + 2..value_end]);
        at = value_end + 2;
        Some(found)
    })
}

/// The elements of an array; nothing for other values.
pub fn elements(json: &str) -> impl Iterator<Item = &str> {
    let mut at = if json.starts_with('[') && json != "[]" { 1 } else { json.len() };
    std::iter::from_fn(move || {
        if at >= json.len() {
            return None;
        }
        let end = end_of_value(json, at);
        let found = &json[at..end];
        at = end + 2;
        Some(found)
    })
}

/// The text of a value as `->>` gives it: strings without quotes, nothing for `null`.
pub fn text(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first() {
        Some(b'n') | None => None,
        Some(b'"') => Some(unquoted(json)),
        _ => Some(Cow::Borrowed(json)),
    }
}

/// The contents of a canonical string.
pub fn unquoted(json: &str) -> Cow<'_, str> {
    let inner = json.get(1..json.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut reader = Reader { text: json, at: 0, values: 0 };
    Cow::Owned(reader.string().unwrap_or_default())
}

/// Whether a canonical string has these contents.
pub fn string_is(json: &str, text: &str) -> bool {
    let inner = json.get(1..json.len().saturating_sub(1)).unwrap_or_default();
    inner == text && !text.contains('\\') || inner.contains('\\') && unquoted(json) == text
}

/// `whole @> part`.
pub fn contains(whole: &str, part: &str) -> bool {
    match (whole.as_bytes().first(), part.as_bytes().first()) {
        (Some(b'{'), Some(b'{')) => members(part).all(|(key, value)| {
            members(whole).find(|(k, _)| *k == key).is_some_and(|(_, found)| inside(found, value))
        }),
        (Some(b'['), Some(b'[')) => {
            elements(part).all(|wanted| elements(whole).any(|found| inside(found, wanted)))
        }
        // An array contains a scalar that is one of its elements.
        (Some(b'['), first) if first != Some(&b'{') => elements(whole).any(|found| found == part),
        (first, _) if !matches!(first, Some(b'{' | b'[')) => whole == part,
        _ => false,
    }
}

/// Containment below the top: a scalar is not an array of itself.
fn inside(found: &str, wanted: &str) -> bool {
    let nested = |json: &str| json.starts_with(['{', '[']);
    match nested(found) && nested(wanted) {
        true => found.as_bytes().first() == wanted.as_bytes().first() && contains(found, wanted),
        false => found == wanted,
    }
}

/// Where the canonical value that begins at `at` ends.
fn end_of_value(json: &str, at: usize) -> usize {
    let bytes = json.as_bytes();
    let mut depth = 0_usize;
    let mut i = at;
    while let Some(byte) = bytes.get(i) {
        match byte {
            b'"' => {
                i += 1;
                while let Some(inner) = bytes.get(i).filter(|b| **b != b'"') {
                    i += if *inner == b'\\' { 2 } else { 1 };
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return i,
            b'}' | b']' => depth -= 1,
            b',' | b':' if depth == 0 => return i,
            _ => {}
        }
        i += 1;
        if depth == 0 && matches!(byte, b'"' | b'}' | b']') {
            return i;
        }
    }
    bytes.len()
}

/// So many values are read in well below a millisecond.
const LOOK_VALUES: usize = 1 << 12;

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Values that were begun.
    values: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn invalid(&self) -> Error {
        let rest = &self.text[self.at.min(self.text.len())..];
        let error = Error::user(
            sqlstate::INVALID_TEXT_REPRESENTATION,
            "invalid input syntax for type json",
        );
        let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '+' | '-');
        let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
        match rest.chars().next() {
            None => error.with_detail("The input string ended unexpectedly."),
            Some('"') => error.with_detail("A string is not closed or holds a wrong character."),
            Some(c) => {
                let token = if end > 0 { &rest[..end] } else { &rest[..c.len_utf8()] };
                error.with_detail(format!("Token \"{token}\" is invalid."))
            }
        }
    }

    fn value(&mut self, depth: usize, out: &mut String) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::user("54001", "stack depth limit exceeded")
                .with_hint(format!("JSON values may be nested {DEPTH_MAX} deep.")));
        }
        self.values += 1;
        if self.values.is_multiple_of(LOOK_VALUES) {
            checkpoint()?;
        }
        match self.peek() {
            Some(b'{') => self.object(depth, out),
            Some(b'[') => self.array(depth, out),
            Some(b'"') => {
                write_string(&self.string()?, out);
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => self.number(out),
            _ => self.word(out),
        }
    }

    fn word(&mut self, out: &mut String) -> Result<()> {
        let rest = &self.text[self.at..];
        for word in ["true", "false", "null"] {
            let ends = |c: char| !c.is_alphanumeric() && c != '_';
            if let Some(behind) = rest.strip_prefix(word)
                && behind.chars().next().is_none_or(ends)
            {
                self.at += word.len();
                out.push_str(word);
                return Ok(());
            }
        }
        Err(self.invalid())
    }

    fn array(&mut self, depth: usize, out: &mut String) -> Result<()> {
        self.at += 1;
        out.push('[');
        self.space();
        let mut first = true;
        while self.peek() != Some(b']') || !first {
            if !first {
                out.push_str(", ");
            }
            self.space();
            self.value(depth + 1, out)?;
            self.space();
            first = false;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.invalid()),
            }
        }
        self.at += 1;
        out.push(']');
        Ok(())
    }

    fn object(&mut self, depth: usize, out: &mut String) -> Result<()> {
        self.at += 1;
        self.space();
        let mut members: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        while self.peek() != Some(b'}') || !members.is_empty() {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.invalid());
            }
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.invalid());
            }
            self.at += 1;
            self.space();
            let mut value = String::new();
            self.value(depth + 1, &mut value)?;
            members.push((Cow::Owned(key), Cow::Owned(value)));
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.invalid()),
            }
        }
        self.at += 1;
        write_object(members, out);
        Ok(())
    }

    /// Reads a string in quotes.
    fn string(&mut self) -> Result<String> {
        let begin = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ').unwrap_or(rest.len());
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => self.escape(&mut out)?,
                _ => {
                    self.at = begin;
                    return Err(self.invalid());
                }
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<()> {
        let kind = self.text.as_bytes().get(self.at + 1).copied();
        let plain = match kind {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(out),
            _ => return Err(self.invalid()),
        };
        out.push(plain);
        self.at += 2;
        Ok(())
    }

    fn unicode(&mut self, out: &mut String) -> Result<()> {
        let unit = |at: usize| -> Option<u32> {
            let hex =
                self.text.get(at + 2..at + 6).filter(|_| self.text[at..].starts_with("\\u"))?;
            u32::from_str_radix(hex, 16).ok()
        };
        let Some(first) = unit(self.at) else { return Err(self.invalid()) };
        let (code, length) = match (first, unit(self.at + 6)) {
            (0xD800..=0xDBFF, Some(second @ 0xDC00..=0xDFFF)) => {
                (0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00), 12)
            }
            _ => (first, 6),
        };
        match char::from_u32(code).filter(|c| *c != '\0') {
            Some(c) => {
                out.push(c);
                self.at += length;
                Ok(())
            }
            None => Err(Error::user("22P05", "unsupported Unicode escape sequence")),
        }
    }

    fn digits(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// A number, written out without exponent.
    fn number(&mut self, out: &mut String) -> Result<()> {
        let begin = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let whole = self.digits();
        let mut good = !whole.is_empty() && (whole == "0" || !whole.starts_with('0'));
        let mut fraction = "";
        if self.peek() == Some(b'.') {
            self.at += 1;
            fraction = self.digits();
            good &= !fraction.is_empty();
        }
        let mut exponent = 0_i64;
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            let minus = self.peek() == Some(b'-');
            self.at += usize::from(matches!(self.peek(), Some(b'-' | b'+')));
            let digits = self.digits();
            good &= !digits.is_empty();
            exponent = digits.parse().unwrap_or(i64::MAX / 2);
            exponent = if minus { -exponent } else { exponent };
        }
        let ends = self.text[self.at..].chars().next().is_none_or(|c| !c.is_alphanumeric());
        if !good || !ends {
            self.at = begin;
            return Err(self.invalid());
        }
        write_number(negative, whole, fraction, exponent, out)
    }
}

fn write_number(
    negative: bool,
    whole: &str,
    fraction: &str,
    exponent: i64,
    out: &mut String,
) -> Result<()> {
    let digits = format!("{whole}{fraction}");
    let leading = digits.bytes().take_while(|b| *b == b'0').count();
    let significant = digits[leading..].trim_end_matches('0');
    if significant.is_empty() {
        out.push('0');
        return Ok(());
    }
    // Digits before the point, counted from the first significant one.
    let point = whole.len() as i64 - leading as i64 + exponent.clamp(-1 << 40, 1 << 40);
    if point.abs() > DIGITS_MAX {
        return Err(Error::user(
            sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
            "value overflows numeric format",
        ));
    }
    if negative {
        out.push('-');
    }
    match usize::try_from(point) {
        Ok(0) | Err(_) => {
            out.push_str("0.");
            out.push_str(&"0".repeat(point.unsigned_abs() as usize));
            out.push_str(significant);
        }
        Ok(point) if point >= significant.len() => {
            out.push_str(significant);
            out.push_str(&"0".repeat(point - significant.len()));
        }
        Ok(point) => {
            out.push_str(&significant[..point]);
            out.push('.');
            out.push_str(&significant[point..]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_postgresql() {
        for (text, expected) in [
            (
                r#" {"b":1 , "a":[1,2 ,{"x":null}],"aa":true} "#,
                r#"{"a": [1, 2, {"x": null}], "b": 1, "aa": true}"#,
            ),
            (r#"{"a":1,"a":2}"#, r#"{"a": 2}"#),
            ("[]", "[]"),
            ("{}", "{}"),
            ("[ ]", "[]"),
            ("1.50", "1.5"),
            ("1e3", "1000"),
            ("-1.25E-2", "-0.0125"),
            ("0.0", "0"),
            ("-0", "0"),
            ("120", "120"),
            (r#""a\u00e9\n\/\ud83d\ude00\u0001""#, "\"aé\\n/😀\\u0001\""),
        ] {
            assert_eq!(canonical(text).expect(text), expected);
        }
        for text in
            ["", "{", "[1,]", "{\"a\"}", "01", "1.", "nul", "'a'", "[1 2]", "\"a", "{,}", "1e"]
        {
            assert_eq!(canonical(text).expect_err(text).sqlstate(), "22P02", "{text}");
        }
        assert_eq!(canonical(r#""\u0000""#).expect_err("NUL").sqlstate(), "22P05");
    }

    #[test]
    fn parts_are_slices() {
        let json = r#"{"a": [1, "x, y", {"k": "}"}], "b\"c": null}"#;
        assert_eq!(member(json, "a"), Some(r#"[1, "x, y", {"k": "}"}]"#));
        assert_eq!(member(json, "b\"c"), Some("null"));
        assert_eq!(member(json, "z"), None);
        let array = member(json, "a").expect("there");
        assert_eq!(element(array, 1), Some(r#""x, y""#));
        assert_eq!(element(array, -1).and_then(|e| step(e, "k")), Some(r#""}""#));
        assert_eq!(element(array, 3), None);
        assert_eq!(element("[]", 0), None);
        assert_eq!(text(r#""a\"b""#).as_deref(), Some("a\"b"));
        assert_eq!(text("null"), None);
    }

    #[test]
    fn containment() {
        for (whole, part, expected) in [
            (r#"{"a": 1, "b": {"c": [1, 2]}}"#, r#"{"b": {"c": [2]}}"#, true),
            (r#"{"a": 1}"#, r#"{"a": 2}"#, false),
            ("[1, 2, 3]", "[3, 1, 1]", true),
            ("[1, [2, 3]]", "[2]", false),
            ("[1, 2]", "1", true),
            ("1", "[1]", false),
            ("{}", "[]", false),
            (r#"["foo", "bar"]"#, r#""bar""#, true),
        ] {
            assert_eq!(contains(whole, part), expected, "{whole} @> {part}");
        }
    }
}
