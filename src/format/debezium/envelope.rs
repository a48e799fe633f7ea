//! The envelope of a change event, as slices of the message.

use crate::format::json::fault::Fault;
use crate::format::json::scan::{NotJson, Scanner, Token, unescape};

/// The fields of an envelope that matter. A field that is missing or `null` is `None`.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Envelope<'a> {
    pub(super) op: Option<&'a [u8]>,
    pub(super) before: Option<&'a [u8]>,
    pub(super) after: Option<&'a [u8]>,
    /// The text of the `schema` beside the payload.
    pub(super) schema: Option<&'a [u8]>,
    /// It has a field of those by which messages that are no change are known.
    pub(super) notice: bool,
    /// Fields of any name.
    fields: usize,
    has_ts: bool,
}

/// Fields of messages that are no change of a row: schema changes, transaction marks, logical
/// messages.
const NOTICES: &[&[u8]] =
    &[b"ddl", b"tableChanges", b"historyRecord", b"status", b"message", b"databaseName"];

impl<'a> Envelope<'a> {
    /// Reads a message's value; `None` for a wrapper around nothing, which is a tombstone.
    pub(super) fn read(text: &'a [u8]) -> Result<Option<Self>, Fault> {
        let (mut outer, payload) = Self::fields(text)?;
        match payload {
            Some(b"null") if outer.op.is_none() => Ok(None),
            Some(inner) if outer.op.is_none() && inner.starts_with(b"{") => {
                let (mut envelope, _) = Self::fields(inner)?;
                envelope.schema = outer.schema;
                Ok(Some(envelope))
            }
            _ => {
                outer.schema = None;
                Ok(Some(outer))
            }
        }
    }

    /// The envelope's fields, and the text of `payload`.
    fn fields(text: &'a [u8]) -> Result<(Self, Option<&'a [u8]>), Fault> {
        let mut found = Self::default();
        let mut payload = None;
        each_field(text, |name, token, raw| {
            let value = (token != Token::Null).then_some(raw);
            found.fields += 1;
            match name {
                b"op" => {
                    found.op = match token {
                        Token::Text(op) => Some(op),
                        _ => value,
                    }
                }
                b"before" => found.before = value,
                b"after" => found.after = value,
                b"schema" => found.schema = value,
                b"payload" => payload = Some(raw),
                b"ts_ms" => found.has_ts = true,
                _ => found.notice |= NOTICES.contains(&name),
            }
        })?;
        Ok((found, payload))
    }

    /// Whether the message is none of a row: a heartbeat or one of [`NOTICES`].
    pub(super) fn is_no_change(&self) -> bool {
        self.op.is_none() && (self.notice || (self.has_ts && self.fields == 1))
            || self.op == Some(b"m")
    }
}

/// The row in a message's key, without the wrapper around it.
pub(super) fn unwrap_key(key: &[u8]) -> Result<&[u8], Fault> {
    if !key.trim_ascii_start().starts_with(b"{") {
        return Ok(key);
    }
    let (mut wrapped, mut payload) = (false, None);
    each_field(key, |name, token, raw| match name {
        b"schema" => wrapped = true,
        b"payload" => payload = Some(if let Token::Text(text) = token { text } else { raw }),
        _ => {}
    })?;
    Ok(payload.filter(|_| wrapped).unwrap_or(key))
}

/// Calls `visit` with name, value and the value's text of every field of an object.
fn each_field<'a>(
    text: &'a [u8],
    mut visit: impl FnMut(&[u8], Token<'a>, &'a [u8]),
) -> Result<(), Fault> {
    let mut scan = Scanner::new(text)?;
    scan.space();
    if !scan.take(b'{') {
        scan.value()?;
        scan.end()?;
        return Err(Fault::NotObject);
    }
    let mut first = true;
    loop {
        scan.space();
        if first && scan.take(b'}') {
            break;
        }
        first = false;
        let name = scan.string()?;
        scan.space();
        if !scan.take(b':') {
            return Err(Fault::NotJson);
        }
        scan.space();
        let start = scan.position();
        let token = scan.value()?;
        let raw = scan.since(start);
        match name {
            Token::Escaped(raw_name) => visit(unescape(raw_name)?.as_bytes(), token, raw),
            Token::Text(name) => visit(name, token, raw),
            _ => return Err(Fault::NotJson),
        }
        scan.space();
        if scan.take(b'}') {
            break;
        }
        if !scan.take(b',') {
            return Err(Fault::from(NotJson));
        }
    }
    Ok(scan.end()?)
}
