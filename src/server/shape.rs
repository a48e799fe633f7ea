//! The shape of a client's message, looked at before it is decoded: counts and lengths inside agree
//! with the length of the whole, and texts end. pgwire takes both for granted, and would read past
//! the end of a message that lies.

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
