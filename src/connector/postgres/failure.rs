//! What an error of PostgreSQL means to a sink: whether trying again helps, whether a row is to
//! blame, and what has to be changed.

use std::error::Error as _;

use tokio_postgres::Error as PgError;
use tokio_postgres::error::DbError;

use super::settings::Settings;
use crate::error::{Error, sqlstate};

/// What has to be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Waiting.
    Again,
    /// A row is left out, or what refuses it is changed.
    Row,
    /// Somebody has to change something.
    Change,
}

/// Judges by PostgreSQL's classes of SQLSTATEs.
pub(super) fn remedy(code: &str) -> Remedy {
    match code {
        // Read-only: a standby that will be the primary. Too many connections, a full disk, a lock,
        // a deadlock, a restart, somebody who has canceled it: all pass.
        "25006" | "55P03" | "55006" | "57014" => Remedy::Again,
        // A row of an index that is too large.
        "54000" => Remedy::Row,
        _ => match code.get(..2).unwrap_or_default() {
            "08" | "40" | "53" | "57" | "58" => Remedy::Again,
            // Data, constraints, WITH CHECK OPTION, what triggers raise.
            "21" | "22" | "23" | "44" | "P0" | "38" | "39" => Remedy::Row,
            _ => Remedy::Change,
        },
    }
}

/// Whether a row is to blame.
pub(super) fn is_of_a_row(error: &PgError) -> bool {
    error.code().is_some_and(|code| remedy(code.code()) == Remedy::Row)
}

impl Settings {
    /// An error of PostgreSQL in our words. `what`: what was tried, as in `deliver to ..`.
    pub(super) fn error(&self, what: &str, error: &PgError) -> Error {
        let Some(told) = error.as_db_error() else {
            // The reason stands in the chain of causes.
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                let reason = inner.to_string();
                if !text.contains(&reason) {
                    text = format!("{text}: {reason}");
                }
                cause = inner.source();
            }
            let message = format!("could not {what} PostgreSQL {}: {text}", self.place);
            return self
                .of_connection(Error::external(sqlstate::CONNECTION_EXCEPTION, message), &text);
        };
        let message = format!("could not {what} PostgreSQL {}: {}", self.place, told.message());
        let error = Error::external(code(told), message);
        let error = match told.detail() {
            Some(detail) => error.with_detail(detail),
            None => error,
        };
        match remedy(told.code().code()) {
            Remedy::Again => error,
            Remedy::Row => error.permanent(),
            Remedy::Change => match self.advice(told) {
                Some(hint) => error.permanent().with_hint(hint),
                None => error.permanent(),
            },
        }
    }

    /// What fails before the server says anything.
    fn of_connection(&self, error: Error, text: &str) -> Error {
        if text.contains("certificate verify failed") {
            return error.permanent().with_hint(
                "Name the file of its authority with sslrootcert, or take any certificate with \
                 sslmode = 'require'.",
            );
        }
        if text.contains("server does not support TLS") {
            return error.permanent().with_hint("Use sslmode = 'prefer' or 'disable'.");
        }
        if text.contains("password missing") {
            return error.permanent().with_hint("Add password = '..' to the WITH clause.");
        }
        error
    }

    /// What to change.
    fn advice(&self, told: &DbError) -> Option<String> {
        Some(match told.code().code() {
            "28P01" | "28000" => "Check the options user, password and sslmode.".to_owned(),
            "3D000" => "Check the option database.".to_owned(),
            "42501" => format!(
                "In PostgreSQL: GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {};",
                self.target(),
                self.config.get_user().map(super::settings::quoted).unwrap_or_default()
            ),
            _ => return told.hint().map(str::to_owned),
        })
    }
}

/// The SQLSTATE that is told, of those that we have.
fn code(told: &DbError) -> &'static str {
    const KNOWN: [&str; 14] = [
        sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
        sqlstate::STRING_DATA_RIGHT_TRUNCATION,
        sqlstate::INVALID_TEXT_REPRESENTATION,
        sqlstate::NOT_NULL_VIOLATION,
        sqlstate::UNIQUE_VIOLATION,
        sqlstate::CHECK_VIOLATION,
        sqlstate::UNDEFINED_COLUMN,
        sqlstate::UNDEFINED_TABLE,
        sqlstate::DATATYPE_MISMATCH,
        sqlstate::INVALID_COLUMN_REFERENCE,
        sqlstate::LOCK_NOT_AVAILABLE,
        sqlstate::ADMIN_SHUTDOWN,
        sqlstate::DISK_FULL,
        sqlstate::READ_ONLY_SQL_TRANSACTION,
    ];
    let code = told.code().code();
    let known = KNOWN.iter().find(|known| **known == code);
    known.copied().unwrap_or_else(|| match remedy(code) {
        Remedy::Again => sqlstate::CONNECTION_EXCEPTION,
        Remedy::Row => sqlstate::DATA_EXCEPTION,
        Remedy::Change => sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
    })
}
