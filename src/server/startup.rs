//! The beginning of a connection: version, settings, the parameters that a client wants to know,
//! and its cancel key. There is no authentication: whoever reaches the port is trusted.

use std::collections::BTreeMap;

use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey, Startup,
};

use super::wire::Wire;
use crate::engine::Session;
use crate::error::{Error, Result, sqlstate};

/// Clients read the leading number as the PostgreSQL release whose features they may use.
const SERVER_VERSION: &str = concat!("15.0 (Headwater ", env!("CARGO_PKG_VERSION"), ")");

/// Parameters that a client is told of and that never change.
const FIXED: &[(&str, &str)] = &[
    ("server_version", SERVER_VERSION),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("IntervalStyle", "postgres"),
    ("is_superuser", "on"),
    ("default_transaction_read_only", "off"),
    ("in_hot_standby", "off"),
];

/// Settings that a client is told of at the start and at every change, with the values that they
/// have where the session does not know them.
const REPORTED: &[(&str, &str)] =
    &[("application_name", ""), ("DateStyle", "ISO, MDY"), ("TimeZone", "UTC")];

/// Startup parameters that are no settings.
const NOT_SETTINGS: &[&str] =
    &["user", "database", "replication", "options", "client_encoding", "extra_float_digits"];

/// The settings that a client was told, to tell it again when they change.
pub(crate) struct Reported {
    values: Vec<(&'static str, String)>,
}

impl Reported {
    /// Sends what has changed since the last time.
    pub(crate) fn update(&mut self, session: &Session, wire: &mut Wire) {
        for (name, known) in &mut self.values {
            let value = setting(session, name);
            if value.as_ref().is_some_and(|v| v != known) {
                *known = value.unwrap_or_default();
                put_parameter(wire, name, known);
            }
        }
    }
}

fn setting(session: &Session, name: &str) -> Option<String> {
    session.setting(&name.to_ascii_lowercase())
}

/// Applies the startup message and greets the client, up to but without ReadyForQuery.
pub(crate) async fn greet(
    wire: &mut Wire,
    session: &mut Session,
    startup: &Startup,
    key: (i32, i32),
) -> Result<Reported> {
    let Some(user) = startup.parameters.get("user") else {
        let message = "no PostgreSQL user name specified in startup packet";
        return Err(Error::user(sqlstate::PROTOCOL_VIOLATION, message));
    };
    // As with PostgreSQL, the database is named after the user where none is given.
    let database = startup.parameters.get("database").unwrap_or(user);
    session.identify(user, database, i64::from(key.0));
    negotiate_version(wire, startup);
    apply_settings(session, &startup.parameters).await;
    wire.put(&PgWireBackendMessage::Authentication(Authentication::Ok));
    for (name, value) in FIXED {
        put_parameter(wire, name, value);
    }
    put_parameter(wire, "session_authorization", user);
    let values: Vec<(&'static str, String)> = REPORTED
        .iter()
        .map(|(name, default)| (*name, setting(session, name).unwrap_or((*default).into())))
        .collect();
    for (name, value) in &values {
        put_parameter(wire, name, value);
    }
    let (pid, secret) = key;
    let key = BackendKeyData::new(pid, SecretKey::I32(secret));
    wire.put(&PgWireBackendMessage::BackendKeyData(key));
    Ok(Reported { values })
}

/// We speak version 3.0, whose cancel secrets have four bytes; a client that asks for a later 3.x
/// or for protocol options is told so and goes on with what there is.
fn negotiate_version(wire: &mut Wire, startup: &Startup) {
    let options: Vec<String> =
        startup.parameters.keys().filter(|k| k.starts_with("_pq_.")).cloned().collect();
    if startup.protocol_number_minor > 0 || !options.is_empty() {
        let answer = NegotiateProtocolVersion::new(Startup::PROTOCOL_VERSION_3_0, options);
        wire.put(&PgWireBackendMessage::NegotiateProtocolVersion(answer));
    }
}

/// Startup parameters are settings of the session. One that we do not have is passed over, as
/// drivers send settings of PostgreSQL's that mean nothing here; what counts is reported back.
async fn apply_settings(session: &mut Session, parameters: &BTreeMap<String, String>) {
    for (name, value) in parameters {
        if NOT_SETTINGS.contains(&name.as_str()) || name.starts_with("_pq_.") {
            continue;
        }
        let name = name.replace('"', "\"\"").to_ascii_lowercase();
        let value = value.replace('\'', "''");
        if let Err(error) = session.execute(&format!("SET \"{name}\" = '{value}'")).await {
            tracing::debug!(name, %error, "startup parameter passed over");
        }
    }
}

fn put_parameter(wire: &mut Wire, name: &str, value: &str) {
    let status = ParameterStatus::new(name.to_string(), value.to_string());
    wire.put(&PgWireBackendMessage::ParameterStatus(status));
}
