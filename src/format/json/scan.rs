//! A scanner over the JSON text of one message: gives tokens as slices of the text and builds
//! nothing. It accepts exactly the JSON of RFC 8259, as `serde_json` does (a test compares the two
//! on damaged messages); what is rare is left to `serde_json` itself: nested values and strings
//! with escapes.
//!
//! Why not `serde_json` for all of it: a number must reach a `numeric` column as its text, an
//! object must reach a `text` column as its text, and scanning in place with a look at the whole
//! message first is several times as fast (`benches/format.rs`). Tokens are bytes: whoever made the
//! [`Scanner`] knows that they are UTF-8.

use serde::de::IgnoredAny;

/// The text is not JSON. Where and why is found again by `serde_json` when somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::format) struct NotJson;

/// One JSON value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::format) enum Token<'a> {
    Null,
    Bool(bool),
    /// A number without fraction and exponent of at most 18 digits.
    Int(i64, &'a [u8]),
    /// Any other number, as written.
    Number(&'a [u8]),
    /// The contents of a string without escapes.
    Text(&'a [u8]),
    /// A string with escapes, as written, quotes included.
    Escaped(&'a [u8]),
    /// An array or object, as written.
    Nested(&'a [u8]),
}

/// What one pass over a whole message tells; the compiler turns it into a few vector instructions.
#[derive(Debug, Clone, Copy)]
struct Survey {
    ascii: bool,
    /// Neither backslash nor control character: every string ends at the next quote.
    plain: bool,
}

impl Survey {
    #[inline]
    fn of(bytes: &[u8]) -> Self {
        let (mut all, mut least, mut backslash) = (0_u8, u8::MAX, false);
        for byte in bytes {
            all |= *byte;
            least = least.min(*byte);
            backslash |= *byte == b'\\';
        }
        Self { ascii: all < 0x80, plain: least >= 0x20 && !backslash }
    }
}

/// A position in the text of a message.
pub(in crate::format) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    plain: bool,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of a message, which must be UTF-8.
    #[inline]
    pub(in crate::format) fn new(mut text: &'a [u8]) -> Result<Self, std::str::Utf8Error> {
        while let [rest @ .., b' ' | b'\n' | b'\t' | b'\r'] = text {
            text = rest;
        }
        let survey = Survey::of(text);
        if !survey.ascii {
            std::str::from_utf8(text)?;
        }
        Ok(Self { text, at: 0, plain: survey.plain })
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Where the next token begins.
    pub(in crate::format) fn position(&self) -> usize {
        self.at
    }

    /// The text from `start` to here.
    #[inline]
    pub(in crate::format) fn since(&self, start: usize) -> &'a [u8] {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Skips white space.
    #[inline]
    pub(in crate::format) fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes `byte` if it comes next.
    #[inline]
    pub(in crate::format) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Takes what is between two values if it is the same as in the message before.
    #[inline(always)]
    pub(in crate::format) fn take_lead(&mut self, lead: &Lead) -> bool {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let found = match rest.first_chunk::<16>() {
            Some(head) if (u128::from_le_bytes(*head) ^ lead.head) & lead.mask != 0 => false,
            Some(_) if lead.bytes.len() <= 16 => true,
            _ => rest.starts_with(&lead.bytes),
        };
        if found {
            self.at += lead.bytes.len();
        }
        found
    }

    /// After the last value only white space may follow.
    pub(in crate::format) fn end(&mut self) -> Result<(), NotJson> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(NotJson) }
    }

    /// The next value.
    #[inline(always)]
    pub(in crate::format) fn value(&mut self) -> Result<Token<'a>, NotJson> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n') => self.literal(b"null", Token::Null),
            Some(b't') => self.literal(b"true", Token::Bool(true)),
            Some(b'f') => self.literal(b"false", Token::Bool(false)),
            Some(b'{' | b'[') => self.nested(),
            _ => Err(NotJson),
        }
    }

    fn literal(&mut self, word: &[u8], token: Token<'a>) -> Result<Token<'a>, NotJson> {
        if !self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return Err(NotJson);
        }
        self.at += word.len();
        Ok(token)
    }

    /// A string, from its opening quote on.
    #[inline(always)]
    pub(in crate::format) fn string(&mut self) -> Result<Token<'a>, NotJson> {
        if !self.take(b'"') {
            return Err(NotJson);
        }
        let start = self.at;
        self.at = if self.plain { quote(self.text, start) } else { special(self.text, start) };
        if self.peek() == Some(b'"') {
            let text = self.since(start);
            self.at += 1;
            return Ok(Token::Text(text));
        }
        self.escaped(start - 1)
    }

    /// The rest of a string that has an escape or is damaged.
    #[cold]
    fn escaped(&mut self, start: usize) -> Result<Token<'a>, NotJson> {
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Token::Escaped(self.since(start)));
                }
                Some(b'\\') => {
                    self.escape()?;
                    self.at = special(self.text, self.at);
                }
                _ => return Err(NotJson),
            }
        }
    }

    fn escape(&mut self) -> Result<(), NotJson> {
        self.at += 1;
        let escape = self.peek();
        self.at += 1;
        match escape {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => {
                let hex = self.text.get(self.at..self.at + 4).ok_or(NotJson)?;
                self.at += 4;
                if hex.iter().all(u8::is_ascii_hexdigit) { Ok(()) } else { Err(NotJson) }
            }
            _ => Err(NotJson),
        }
    }

    #[inline]
    fn number(&mut self) -> Result<Token<'a>, NotJson> {
        let start = self.at;
        let negative = self.take(b'-');
        let digits_at = self.at;
        let mut int: i64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            int = int.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - digits_at;
        let leading_zero = self.text.get(digits_at) == Some(&b'0');
        if digits == 0 || (leading_zero && digits > 1) {
            return Err(NotJson);
        }
        if !matches!(self.peek(), Some(b'.' | b'e' | b'E')) && digits <= 18 {
            let text = self.since(start);
            return Ok(Token::Int(if negative { -int } else { int }, text));
        }
        self.fraction()?;
        Ok(Token::Number(self.since(start)))
    }

    fn fraction(&mut self) -> Result<(), NotJson> {
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(NotJson) }
    }

    #[cold]
    fn nested(&mut self) -> Result<Token<'a>, NotJson> {
        let start = self.at;
        let rest = self.text.get(start..).ok_or(NotJson)?;
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => {
                self.at += values.byte_offset();
                Ok(Token::Nested(self.since(start)))
            }
            _ => Err(NotJson),
        }
    }
}

/// What stands between the value before and a value: white space, comma, name, colon. The first 16
/// bytes are kept as a number, so that comparing them takes two instructions.
#[derive(Debug, Default)]
pub(in crate::format) struct Lead {
    bytes: Vec<u8>,
    head: u128,
    mask: u128,
}

impl Lead {
    /// Remembers other bytes.
    pub(in crate::format) fn set(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        let (mut head, mut mask) = ([0; 16], [0; 16]);
        for ((head, mask), byte) in head.iter_mut().zip(&mut mask).zip(bytes) {
            (*head, *mask) = (*byte, 0xff);
        }
        (self.head, self.mask) = (u128::from_le_bytes(head), u128::from_le_bytes(mask));
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The bytes of `word` that are zero, as their high bits. Borrows make mistakes only above the
/// first hit, which is the one that counts.
#[inline]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGH
}

/// The index of the first quote at or after `at`, or the length. Eight bytes at a time.
#[inline]
fn quote(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let hit = zeros(u64::from_le_bytes(*chunk) ^ (ONES * u64::from(b'"')));
        if hit != 0 {
            return at + (hit.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| *byte != b'"') {
        at += 1;
    }
    at
}

/// The index of the first quote, backslash or control character at or after `at`, or the length.
fn special(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let hit = zeros(word ^ (ONES * u64::from(b'"')))
            | zeros(word ^ (ONES * u64::from(b'\\')))
            | (word.wrapping_sub(ONES * 0x20) & !word & HIGH);
        if hit != 0 {
            return at + (hit.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
        at += 1;
    }
    at
}

/// The text of an escaped string (quotes included).
pub(in crate::format) fn unescape(raw: &[u8]) -> Result<String, NotJson> {
    serde_json::from_slice(raw).map_err(|_| NotJson)
}
