//! What is wrong with a string with escapes that the tokeniser does not take: `E'\000'` and
//! `E'\xff'` are bytes that are no text.

use std::iter::Peekable;
use std::str::Chars;

use crate::delta::checked_utf8;
use crate::error::{Error, sqlstate};

/// The error of a text that begins with a string with escapes, when the string has an end; where it
/// has none, that is what is wrong.
pub(super) fn escapes_error(text: &str) -> Option<Error> {
    let inside = text.strip_prefix("E'").or_else(|| text.strip_prefix("e'"))?;
    let mut chars = inside.chars().peekable();
    let mut bytes = Vec::new();
    let mut wrong = None;
    loop {
        match chars.next()? {
            '\'' if chars.next_if_eq(&'\'').is_some() => bytes.push(b'\''),
            '\'' => break,
            '\\' => {
                let error = put_escape(chars.next()?, &mut chars, &mut bytes);
                wrong = wrong.or(error);
            }
            c => put(c, &mut bytes),
        }
    }
    let error = wrong.or_else(|| checked_utf8(&bytes).err()).unwrap_or_else(|| {
        Error::unsupported("bytes of characters as escapes are not supported")
            .with_hint("Write the character itself.")
    });
    Some(error)
}

fn put(c: char, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Adds what an escape stands for; an error where it stands for nothing.
fn put_escape(kind: char, chars: &mut Peekable<Chars<'_>>, bytes: &mut Vec<u8>) -> Option<Error> {
    let digits = match kind {
        'x' => number(chars, 16, 2, 0),
        '0'..='7' => number(chars, 8, 2, kind.to_digit(8).unwrap_or(0)),
        'u' | 'U' => {
            let length = if kind == 'u' { 4 } else { 8 };
            let code = number(chars, 16, length, 0);
            return match char::from_u32(code).filter(|c| *c != '\0') {
                Some(c) => {
                    put(c, bytes);
                    None
                }
                None => Some(Error::user(sqlstate::SYNTAX_ERROR, "invalid Unicode escape value")),
            };
        }
        other => {
            put(other, bytes);
            return None;
        }
    };
    bytes.push((digits & 0xff) as u8);
    None
}

/// Reads digits behind what has been read of a number.
fn number(chars: &mut Peekable<Chars<'_>>, radix: u32, digits_max: usize, first: u32) -> u32 {
    let mut value = first;
    for _ in 0..digits_max {
        let Some(digit) = chars.peek().and_then(|c| c.to_digit(radix)) else { break };
        value = value.wrapping_mul(radix).wrapping_add(digit);
        chars.next();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_named() {
        for (text, sqlstate, message) in [
            (r"E'a\000b'", "22021", "invalid byte sequence for encoding \"UTF8\": 0x00"),
            (r"e'\x00', 1", "22021", "invalid byte sequence for encoding \"UTF8\": 0x00"),
            (r"E'it''s \xff'", "22021", "invalid byte sequence for encoding \"UTF8\": 0xff"),
            (r"E'\'\303('", "22021", "invalid byte sequence for encoding \"UTF8\": 0xc3 0x28"),
            (r"E'\u0000'", "42601", "invalid Unicode escape value"),
            (r"E'\ud800'", "42601", "invalid Unicode escape value"),
        ] {
            let error = escapes_error(text).expect(text);
            assert_eq!((error.sqlstate(), error.message()), (sqlstate, message), "{text}");
        }
        assert!(escapes_error(r"E'open \'").is_none());
        assert!(escapes_error("'open").is_none());
    }
}
