//! The shape of a client's message, looked at before it is decoded: counts and lengths inside agree
//! with the length of the whole, and texts end. pgwire takes both for granted, and would read past
//! the end of a message that lies. It also turns bytes that are no text into other text, so these
//! are looked at here.

use crate::delta::checked_utf8;
use crate::error::Result;

/// The texts of a message that the client has written, statements and names: 22021 where one of
/// them is no text. A zero byte inside of a statement is looked for, too: it would end it early.
pub(crate) fn check_texts(message_type: u8, body: &[u8]) -> Result<()> {
    let mut rest = Rest(body);
    let whole = body.strip_suffix(b"\0").unwrap_or(body);
    match message_type {
        b'Q' | b'f' => drop(checked_utf8(whole)?),
        b'P' => {
            rest.checked_text()?;
            let query = rest.0;
            // What follows the text are numbers of types. Where they don't fit behind the first
            // zero byte but behind a later one, the first is in the statement.
            let ends = |at: &usize| {
                let mut types = Rest(&query[at + 1..]);
                query[*at] == 0 && types.items(4).is_some() && types.0.is_empty()
            };
            if let Some(end) = (0..query.len()).find(ends) {
                checked_utf8(&query[..end])?;
            }
        }
        b'B' => rest.checked_text().and_then(|()| rest.checked_text())?,
        b'E' => rest.checked_text()?,
        b'D' | b'C' => drop(checked_utf8(whole.get(1..).unwrap_or_default())?),
        _ => {}
    }
    Ok(())
}

/// Whether the body of a message of a type has the form that the protocol gives it.
pub(crate) fn is_well_formed(message_type: u8, body: &[u8]) -> bool {
    let mut rest = Rest(body);
    let read = match message_type {
        b'Q' => rest.text(),
        b'P' => rest.text().and_then(|()| rest.text()).and_then(|()| rest.items(4)),
        b'B' => bind(&mut rest),
        b'E' => rest.text().and_then(|()| rest.skip(4)),
        b'D' | b'C' => rest.skip(1).and_then(|()| rest.text()),
        b'H' | b'S' | b'X' | b'c' => Some(()),
        b'f' => rest.text(),
        // Bytes without a form, or a type that the decoder refuses.
        _ => return true,
    };
    read.is_some() && rest.0.is_empty()
}

fn bind(rest: &mut Rest<'_>) -> Option<()> {
    rest.text()?;
    rest.text()?;
    rest.items(2)?;
    for _ in 0..rest.count()? {
        let length = i32::from_be_bytes(*rest.take(4)?.first_chunk()?);
        // A negative length is NULL, which has no bytes.
        rest.skip(usize::try_from(length).unwrap_or(0))?;
    }
    rest.items(2)
}

/// What has not been looked at yet. Every step returns `None` where the message is too short.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.take(bytes).map(drop)
    }

    /// A text with its zero byte.
    fn text(&mut self) -> Option<()> {
        let end = self.0.iter().position(|b| *b == 0)?;
        self.skip(end + 1)
    }

    /// A text with its zero byte, which has to be one; what is missing is seen elsewhere.
    fn checked_text(&mut self) -> Result<()> {
        let Some(end) = self.0.iter().position(|b| *b == 0) else { return Ok(()) };
        let (text, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        checked_utf8(text).map(drop)
    }

    fn count(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|c| u16::from_be_bytes(*c))
    }

    /// A count and as many items of a size.
    fn items(&mut self, size: usize) -> Option<()> {
        let count = self.count()?;
        self.skip(usize::from(count) * size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_looked_at_as_they_came() {
        let code = |kind, body: &[u8]| check_texts(kind, body).map_err(|e| e.sqlstate()).err();
        for (kind, body) in [
            (b'Q', &b"select 1\0"[..]),
            (b'P', b"s\0select \xc3\xa4\0\0\x01\0\0\0\x17"),
            (b'B', b"p\0s\0\0\x01\0\0\0\x01\0\x01\xff\0\0"),
            (b'D', b"Ss\0"),
            (b'd', b"\xff\0"),
        ] {
            assert_eq!(code(kind, body), None, "{}", char::from(kind));
        }
        for (kind, body) in [
            (b'Q', &b"select '\xff'\0"[..]),
            (b'Q', b"select '\0'\0"),
            (b'P', b"\xff\0select 1\0\0\0"),
            (b'P', b"s\0select '\xff'\0\0\x01\0\0\0\x17"),
            (b'P', b"s\0select '\0'\0\0\x01\0\0\0\x17"),
            (b'B', b"p\0\xc3\0\0\0\0\0\0\0"),
            (b'E', b"\xff\0\0\0\0\0"),
            (b'C', b"P\xff\0"),
        ] {
            assert_eq!(code(kind, body), Some("22021"), "{}", char::from(kind));
        }
    }

    #[test]
    fn whole_messages_pass_and_cut_or_padded_ones_do_not() {
        let messages: [(u8, &[u8]); 6] = [
            (b'Q', b"select 1\0"),
            (b'P', b"s\0select $1\0\0\x01\0\0\0\x17"),
            (b'B', b"p\0s\0\0\x01\0\0\0\x02\xff\xff\xff\xff\0\0\0\x01x\0\0"),
            (b'E', b"p\0\0\0\0\0"),
            (b'D', b"Ss\0"),
            (b'S', b""),
        ];
        for (kind, body) in messages {
            assert!(is_well_formed(kind, body), "{}", char::from(kind));
            for cut in 0..body.len() {
                assert!(!is_well_formed(kind, &body[..cut]), "{} {cut}", char::from(kind));
            }
            assert!(!is_well_formed(kind, &[body, b"\0"].concat()), "{}", char::from(kind));
        }
    }
}
