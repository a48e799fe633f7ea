//! Errors and notices as protocol messages: the fields S, V, C, M, D, H and P,
//! and s, t, c and n for the objects that an error is about.

use pgwire::error::PgWireError;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};

use crate::catalog::schema_and_name;
use crate::engine::outcome::Notice;
use crate::error::{Error, sqlstate};

/// SQLSTATE codes that only the protocol raises.
pub(crate) mod code {
    pub(crate) const INVALID_PASSWORD: &str = "28P01";
    pub(crate) const INVALID_BINARY_REPRESENTATION: &str = "22P03";
    pub(crate) const DUPLICATE_PREPARED_STATEMENT: &str = "42P05";
    pub(crate) const TOO_MANY_CONNECTIONS: &str = "53300";
}

/// An error of a statement; the connection goes on.
pub(crate) fn error_message(error: &Error) -> PgWireBackendMessage {
    PgWireBackendMessage::ErrorResponse(ErrorResponse::new(error_fields("ERROR", error)))
}

/// An error that ends the connection.
pub(crate) fn fatal_message(error: &Error) -> PgWireBackendMessage {
    PgWireBackendMessage::ErrorResponse(ErrorResponse::new(error_fields("FATAL", error)))
}

/// A notice.
pub(crate) fn notice_message(notice: &Notice) -> PgWireBackendMessage {
    let mut fields = head(notice.severity, notice.sqlstate, &notice.message);
    if let Some(hint) = &notice.hint {
        fields.push((b'H', field(hint)));
    }
    PgWireBackendMessage::NoticeResponse(NoticeResponse::new(fields))
}

/// An error of the protocol layer in our words.
pub(crate) fn protocol_error(error: &PgWireError) -> Error {
    Error::user(sqlstate::PROTOCOL_VIOLATION, "protocol violation").with_detail(error.to_string())
}

fn error_fields(severity: &str, error: &Error) -> Vec<(u8, String)> {
    let mut fields = head(severity, error.sqlstate(), error.message());
    if let Some(detail) = error.detail() {
        fields.push((b'D', field(detail)));
    }
    if let Some(hint) = error.hint() {
        fields.push((b'H', field(hint)));
    }
    if let Some(position) = error.position() {
        fields.push((b'P', position.to_string()));
    }
    let about = error.about();
    let named = about.relation.as_deref().map(schema_and_name);
    let (schema, table) = named.map(|(s, t)| (s.to_owned(), t.to_owned())).unzip();
    let objects =
        [(b's', &schema), (b't', &table), (b'c', &about.column), (b'n', &about.constraint)];
    for (code, name) in objects {
        fields.extend(name.as_ref().map(|name| (code, field(name))));
    }
    fields
}

fn head(severity: &str, code: &str, message: &str) -> Vec<(u8, String)> {
    vec![
        (b'S', severity.to_string()),
        (b'V', severity.to_string()),
        (b'C', code.to_string()),
        (b'M', field(message)),
    ]
}

/// A field ends at a zero byte on the wire, so that one inside would cut the message in two.
fn field(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_field_is_sent() {
        let error = Error::user(sqlstate::UNDEFINED_TABLE, "relation \"t\" does not exist")
            .with_detail("d\0etail")
            .with_hint("hint")
            .with_position(15);
        let fields = error_fields("ERROR", &error);
        let codes: Vec<u8> = fields.iter().map(|(c, _)| *c).collect();
        assert_eq!(codes, b"SVCMDHP");
        assert_eq!(fields[2].1, "42P01");
        assert_eq!(fields[4].1, "d\u{fffd}etail");
        assert_eq!(fields[6].1, "15");
    }
}
