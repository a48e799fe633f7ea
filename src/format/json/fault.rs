//! Why a message is not a row, and the words for it.

use super::column::Column;
use super::scalar::Invalid;
use super::scan::{NotJson, Token, unescape};
use crate::format::DecodeError;

/// Bad values longer than this are cut in messages.
const SHOWN_CHARS: usize = 100;

/// Why a message is not a row.
pub(in crate::format) enum Fault {
    NotJson,
    /// Not UTF-8 from this byte on.
    NotUtf8(usize),
    NotObject,
    /// A column can't take a value, shown as text.
    Value(usize, Invalid, String),
    /// A column that is NOT NULL got no value.
    MissingValue(usize),
}

impl From<std::str::Utf8Error> for Fault {
    fn from(e: std::str::Utf8Error) -> Self {
        Fault::NotUtf8(e.valid_up_to())
    }
}

impl From<NotJson> for Fault {
    fn from(_: NotJson) -> Self {
        Fault::NotJson
    }
}

impl Fault {
    /// The error for the one who sent the message.
    #[cold]
    pub(in crate::format) fn explain(self, payload: &[u8], columns: &[Column]) -> DecodeError {
        match self {
            Fault::NotJson => DecodeError { column: None, reason: syntax_error(payload) },
            Fault::NotUtf8(at) => {
                let bad = payload.get(at).copied().unwrap_or_default();
                let reason = format!("invalid byte sequence for encoding \"UTF8\": 0x{bad:02x}");
                DecodeError { column: None, reason }
            }
            Fault::NotObject => {
                DecodeError { column: None, reason: "the message is not a JSON object".into() }
            }
            Fault::Value(index, invalid, text) => {
                let column = columns.get(index);
                let reason = column.map(|c| c.reason(invalid, &text)).unwrap_or_default();
                DecodeError { column: column.map(|c| c.name.clone()), reason }
            }
            Fault::MissingValue(index) => {
                let column = columns.get(index).map(|c| c.name.clone());
                let name = column.as_deref().unwrap_or_default();
                let reason =
                    format!("null value in column \"{name}\" violates not-null constraint");
                DecodeError { column, reason }
            }
        }
    }
}

/// What `serde_json` says about a text that is not JSON.
fn syntax_error(payload: &[u8]) -> String {
    match serde_json::from_slice::<serde::de::IgnoredAny>(payload) {
        Err(e) => format!("invalid input syntax for type json: {e}"),
        Ok(_) => "invalid input syntax for type json".into(),
    }
}

/// A value for a message, cut to a length that can be read.
#[cold]
pub(in crate::format) fn shown(token: Token<'_>) -> String {
    match token {
        Token::Null => "null".into(),
        Token::Bool(value) => value.to_string(),
        Token::Escaped(text) => unescape(text).map_or_else(|_| cut(text), |t| cut(t.as_bytes())),
        Token::Int(_, text) | Token::Number(text) | Token::Text(text) | Token::Nested(text) => {
            cut(text)
        }
    }
}

/// A text cut to a length that can be read.
pub(in crate::format) fn cut(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.into_owned(),
    }
}
