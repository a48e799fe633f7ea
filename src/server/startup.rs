//! The beginning of a connection: version, settings, the parameters that a client wants to know,
//! and its cancel key. Who the client is has been settled before.

use std::collections::BTreeMap;

use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey, Startup,
};

use super::errors::notice_message;
use super::wire::Wire;
use crate::engine::Session;
use crate::error::{Error, Result, sqlstate};

/// Startup parameters that are no settings.
const NOT_SETTINGS: &[&str] = &["user", "database", "replication", "options"];

/// The settings that a client was told, to tell it again when they change.
pub(crate) struct Reported {
    values: Vec<(&'static str, String)>,
    /// What [`Session::settings_version`] was then.
    version: u64,
}

impl Reported {
    /// Tells the client of all of them.
    fn begin(session: &Session, wire: &mut Wire) -> Self {
        let value = |name| (name, session.setting(name).unwrap_or_default());
        let values: Vec<(&'static str, String)> = Session::reported_settings().map(value).collect();
        values.iter().for_each(|(name, value)| put_parameter(wire, name, value));
        Self { values, version: session.settings_version() }
    }

    /// Sends what has changed since the last time.
    pub(crate) fn update(&mut self, session: &Session, wire: &mut Wire) {
        let version = session.settings_version();
        if std::mem::replace(&mut self.version, version) == version {
            return;
        }
        for (name, known) in &mut self.values {
            let value = session.setting(name).unwrap_or_default();
            if value != *known {
                *known = value;
                put_parameter(wire, name, known);
            }
        }
    }
}

/// Applies the startup message and greets the client, up to but without ReadyForQuery.
pub(crate) fn greet(
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
    session.take_role()?;
    negotiate_version(wire, startup);
    apply_settings(session, &startup.parameters)?;
    wire.put(&PgWireBackendMessage::Authentication(Authentication::Ok));
    let reported = Reported::begin(session, wire);
    let (pid, secret) = key;
    let key = BackendKeyData::new(pid, SecretKey::I32(secret));
    wire.put(&PgWireBackendMessage::BackendKeyData(key));
    session.take_notices().iter().for_each(|n| wire.put(&notice_message(n)));
    Ok(reported)
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

/// Startup parameters are settings of the session, and `options` holds more of them: they count,
/// and one that is refused ends the connection, as with PostgreSQL.
fn apply_settings(session: &mut Session, parameters: &BTreeMap<String, String>) -> Result<()> {
    if let Some(mode) = parameters.get("replication") {
        let off = ["false", "off", "no", "0", ""];
        if !off.iter().any(|word| word.eq_ignore_ascii_case(mode)) {
            return Err(Error::unsupported("replication connections are not supported")
                .with_hint("SUBSCRIBE TO a view; it gives every change."));
        }
    }
    for (name, value) in options(parameters.get("options").map_or("", String::as_str))? {
        session.set_at_startup(&name, &value)?;
    }
    for (name, value) in parameters {
        if NOT_SETTINGS.contains(&name.as_str()) || name.starts_with("_pq_.") {
            continue;
        }
        session.set_at_startup(name, value)?;
    }
    Ok(())
}

/// The settings in the `options` of a client: `-c name=value`, `-cname=value` and `--name=value`,
/// between blanks; a backslash keeps the character behind it.
fn options(text: &str) -> Result<Vec<(String, String)>> {
    let mut words = words(text).into_iter();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let (flag, pair) = match word.strip_prefix("--") {
            Some(pair) => ("--", pair.to_owned()),
            None => match word.strip_prefix("-c") {
                Some("") => ("-c ", words.next().unwrap_or_default()),
                Some(pair) => ("-c ", pair.to_owned()),
                None => {
                    return Err(Error::user(
                        sqlstate::SYNTAX_ERROR,
                        format!("invalid command-line argument for server process: {word}"),
                    )
                    .with_hint("Write -c name=value or --name=value."));
                }
            },
        };
        let Some((name, value)) = pair.split_once('=') else {
            let message = format!("{flag}{pair} requires a value");
            return Err(Error::user(sqlstate::SYNTAX_ERROR, message));
        };
        found.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(found)
}

fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn put_parameter(wire: &mut Wire, name: &str, value: &str) {
    let status = ParameterStatus::new(name.to_string(), value.to_string());
    wire.put(&PgWireBackendMessage::ParameterStatus(status));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_pairs_between_blanks() {
        let pairs = |text: &str| -> Vec<String> {
            let found = options(text).expect("pairs");
            found.iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        assert_eq!(
            pairs("-c statement_timeout=5s  -cwork_mem=1MB --search-path=a,\\ public"),
            ["statement_timeout=5s", "work_mem=1MB", "search_path=a, public"]
        );
        assert_eq!(pairs("-c a.b=x\\\\y=z"), ["a.b=x\\y=z"]);
        assert!(pairs("  ").is_empty());
        for text in ["-c", "-c x", "--x", "-d 5", "x=1"] {
            assert_eq!(options(text).map_err(|e| e.sqlstate()).err(), Some("42601"), "{text}");
        }
    }
}
