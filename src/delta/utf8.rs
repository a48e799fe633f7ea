//! Bytes from outside as text: UTF-8 without zero bytes, which PostgreSQL's texts can't have.

use crate::error::{Error, Result, sqlstate};

/// The bytes of an invalid character that an error shows at most.
const SHOWN_MAX: usize = 4;

/// Bytes as text; 22021 where they are none.
pub fn checked_utf8(bytes: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(bytes).map_err(|e| invalid(&bytes[e.valid_up_to()..]))?;
    match bytes.contains(&0) {
        false => Ok(text),
        true => Err(invalid(&[0])),
    }
}

/// The error of bytes that begin with an invalid character: as many are shown as its first byte
/// says that it has.
fn invalid(bytes: &[u8]) -> Error {
    let length = match bytes.first() {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf7) => SHOWN_MAX,
        _ => 1,
    };
    let shown: Vec<String> = bytes.iter().take(length).map(|b| format!("0x{b:02x}")).collect();
    let message = format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" "));
    Error::user(sqlstate::CHARACTER_NOT_IN_REPERTOIRE, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_shown() {
        assert_eq!(checked_utf8("aä€😀".as_bytes()).ok(), Some("aä€😀"));
        for (bytes, shown) in [
            (&b"a\xff\xfe"[..], "0xff"),
            (b"a\x00b", "0x00"),
            (b"\xc3(", "0xc3 0x28"),
            (b"\xe2\x82", "0xe2 0x82"),
            (b"\xed\xa0\x80x", "0xed 0xa0 0x80"),
            (b"\xf0\x9f\x98x", "0xf0 0x9f 0x98 0x78"),
            (b"\x80", "0x80"),
        ] {
            let error = checked_utf8(bytes).expect_err("no text");
            assert_eq!(error.sqlstate(), "22021");
            let message = format!("invalid byte sequence for encoding \"UTF8\": {shown}");
            assert_eq!(error.message(), message);
        }
    }
}
