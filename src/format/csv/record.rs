//! The fields of a record, and where a record ends in a stream.

use std::borrow::Cow;

use memchr::memchr;

use crate::format::DecodeError;

const QUOTE: u8 = b'"';

/// A record whose quotes are open for longer than this is taken to be damaged: it ends with its
/// first line.
const QUOTED_BYTES_MAX: usize = 1 << 20;

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Bare(&'a [u8]),
    Quoted(Cow<'a, [u8]>),
}

/// A record whose quotes make no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    Unterminated,
    AfterQuote,
}

impl Malformed {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Unterminated => "unterminated CSV quoted field",
            Self::AfterQuote => "text after the closing quote of a CSV field",
        }
    }
}

/// The fields of one record.
pub(super) struct Fields<'a> {
    /// `None` after the last field.
    rest: Option<&'a [u8]>,
    delimiter: u8,
}

impl<'a> Fields<'a> {
    /// Of a record with or without its line end.
    pub(super) fn new(record: &'a [u8], delimiter: u8) -> Self {
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        let record = record.strip_suffix(b"\r").unwrap_or(record);
        Self { rest: Some(record), delimiter }
    }

    fn quoted(&mut self, text: &'a [u8]) -> Result<Field<'a>, Malformed> {
        let mut value = Cow::Borrowed(&text[..0]);
        let mut from = 0;
        loop {
            let tail = text.get(from..).unwrap_or_default();
            let length = memchr(QUOTE, tail).ok_or(Malformed::Unterminated)?;
            let (part, after) = (&tail[..length], &tail[length + 1..]);
            match &mut value {
                Cow::Borrowed(_) => value = Cow::Borrowed(part),
                Cow::Owned(value) => value.extend_from_slice(part),
            }
            match after {
                [] => self.rest = None,
                [QUOTE, ..] => {
                    value.to_mut().push(QUOTE);
                    from += length + 2;
                    continue;
                }
                [byte, rest @ ..] if *byte == self.delimiter => self.rest = Some(rest),
                _ => return Err(Malformed::AfterQuote),
            }
            return Ok(Field::Quoted(value));
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest.take()?;
        if let [QUOTE, inner @ ..] = text {
            return Some(self.quoted(inner));
        }
        let value = match text.iter().position(|byte| *byte == self.delimiter) {
            Some(at) => {
                self.rest = text.get(at + 1..);
                &text[..at]
            }
            None => text,
        };
        Some(Ok(Field::Bare(value)))
    }
}

/// Where in a field a byte is.
#[derive(Clone, Copy)]
enum Place {
    Start,
    Bare,
    Quoted,
    /// Behind a quote inside of quotes: the end of the field, or half of a doubled quote.
    Closed,
}

/// The end of the first record, where its line end is: the first that is not inside of quotes.
pub(in crate::format) fn end_of_record(bytes: &[u8], delimiter: u8) -> Option<usize> {
    let first = memchr(b'\n', bytes)?;
    if !bytes.get(..first).unwrap_or_default().contains(&QUOTE) {
        return Some(first);
    }
    let mut place = Place::Start;
    for (at, byte) in bytes.iter().enumerate().take(QUOTED_BYTES_MAX) {
        place = match (place, *byte) {
            (Place::Start | Place::Closed, QUOTE) => Place::Quoted,
            (Place::Quoted, QUOTE) => Place::Closed,
            (Place::Quoted, _) => Place::Quoted,
            (_, b'\n') => return Some(at),
            (_, byte) if byte == delimiter => Place::Start,
            _ => Place::Bare,
        };
    }
    (bytes.len() > QUOTED_BYTES_MAX).then_some(first)
}

/// Whether a text is one that PostgreSQL takes.
pub(in crate::format) fn check_text(text: &[u8]) -> Result<(), DecodeError> {
    let bad = match std::str::from_utf8(text) {
        Err(e) => text.get(e.valid_up_to()).copied(),
        Ok(_) => text.iter().copied().find(|byte| *byte == 0),
    };
    let reason = |byte| format!("invalid byte sequence for encoding \"UTF8\": 0x{byte:02x}");
    match bad {
        Some(byte) => Err(DecodeError { column: None, reason: reason(byte) }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(record: &str) -> Result<Vec<String>, Malformed> {
        let show = |field: Field<'_>| match field {
            Field::Bare(text) => format!("<{}>", String::from_utf8_lossy(text)),
            Field::Quoted(text) => format!("'{}'", String::from_utf8_lossy(&text)),
        };
        Fields::new(record.as_bytes(), b',').map(|field| field.map(show)).collect()
    }

    #[test]
    fn records_are_split() {
        assert_eq!(fields("a,b"), Ok(vec!["<a>".into(), "<b>".into()]));
        assert_eq!(fields(""), Ok(vec!["<>".into()]));
        assert_eq!(fields(",\r\n"), Ok(vec!["<>".into(), "<>".into()]));
        assert_eq!(fields("\"\",x\n"), Ok(vec!["''".into(), "<x>".into()]));
        assert_eq!(fields("\"a\"\"b\"\"\",5\""), Ok(vec!["'a\"b\"'".into(), "<5\">".into()]));
        assert_eq!(fields("\"a,\nb\",\"\"\"\""), Ok(vec!["'a,\nb'".into(), "'\"'".into()]));
        assert_eq!(fields("x,\"a"), Err(Malformed::Unterminated));
        assert_eq!(fields("\"a\"b,c"), Err(Malformed::AfterQuote));
    }

    #[test]
    fn a_record_ends_outside_of_quotes() {
        let end = |text: &str| end_of_record(text.as_bytes(), b',');
        assert_eq!(end("a,b\nc"), Some(3));
        assert_eq!(end("a,\"b\nc\"\nd"), Some(7));
        assert_eq!(end("\"a\"\"\n\",b\nc"), Some(8));
        assert_eq!(end("\"\"\nx"), Some(2));
        assert_eq!(end("5\" disk,x\ny"), Some(9), "a quote inside of a bare field is text");
        assert_eq!(end("a\"\"b,x\ny"), Some(6));
        assert_eq!(end("a,\"b\nc"), None);
        assert_eq!(end("a"), None);
        let open = format!("1,\"{}", "x\n".repeat(QUOTED_BYTES_MAX));
        assert_eq!(end(&open), Some(4), "an open quote does not take everything");
    }
}
