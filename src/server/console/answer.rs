//! Errors as the console's pages read them: the fields of PostgreSQL's messages as JSON, under the
//! status of HTTP that fits.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::errors::code;
use crate::engine::outcome::Notice;
use crate::error::{Error, sqlstate};

/// A request that is refused.
pub(super) struct Refused(StatusCode, Error);

impl Refused {
    pub(super) fn new(status: StatusCode, error: Error) -> Self {
        Self(status, error)
    }

    /// Who has to sign in first.
    pub(super) fn unknown() -> Self {
        let error = Error::user(sqlstate::INVALID_AUTHORIZATION, "nobody is signed in");
        Self(StatusCode::UNAUTHORIZED, error)
    }

    /// A request that does not come from the console's own page, or can't be read.
    pub(super) fn foreign(why: &str) -> Self {
        Self(StatusCode::FORBIDDEN, Error::user(sqlstate::PROTOCOL_VIOLATION, why))
    }

    pub(super) fn busy(message: &str) -> Self {
        let error = Error::user(code::TOO_MANY_CONNECTIONS, message);
        Self(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let status = match error.sqlstate() {
            sqlstate::INSUFFICIENT_PRIVILEGE => StatusCode::FORBIDDEN,
            sqlstate::UNDEFINED_TABLE => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": error_json(&self.1) }))).into_response()
    }
}

/// An error with what PostgreSQL's clients are told of it.
pub(super) fn error_json(error: &Error) -> Value {
    json!({
        "code": error.sqlstate(),
        "message": error.message(),
        "detail": error.detail(),
        "hint": error.hint(),
        "position": error.position(),
    })
}

/// A notice.
pub(super) fn notice_json(notice: &Notice) -> Value {
    json!({ "severity": notice.severity, "message": notice.message, "hint": notice.hint })
}
