//! What the options of a sink say.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tokio_postgres::Config;

use super::tls::{Mode, Tls, connector};
use crate::connector::options::invalid;
use crate::connector::{ConnectorSpec, Options, sink_key};
use crate::error::{Error, Result, sqlstate};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// When a server that says nothing is asked whether it is there, how often, and how long it may owe
/// an answer to what was sent.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
const UNANSWERED: Duration = Duration::from_secs(30);

const SSL_MODES: &[(&str, Mode)] = &[
    ("disable", Mode::Disable),
    ("prefer", Mode::Prefer),
    ("require", Mode::Require),
    ("verify-ca", Mode::VerifyCa),
    ("verify-full", Mode::VerifyFull),
];

/// What the options say.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) tls: Tls,
    /// Host, port and database, for messages.
    pub(super) place: String,
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) columns: SchemaRef,
    /// Indexes of the key's columns.
    pub(super) key: Vec<usize>,
    /// The sink.
    pub(super) name: String,
}

impl Settings {
    pub(super) fn read(spec: &ConnectorSpec) -> Result<Self> {
        let mut options = Options::new(spec);
        let host = options.required("host")?;
        let port = match options.string("port") {
            None => 5432,
            Some(text) => {
                let port = text.trim().parse().ok().filter(|port| *port > 0);
                port.ok_or_else(|| invalid("port", text, "a number from 1 to 65535"))?
            }
        };
        let (user, database) = (options.required("user")?, options.required("database")?);
        let password = options.string("password");
        let schema = options.string("schema").unwrap_or("public");
        let table = options.required("table")?;
        let mode = options.one_of("sslmode", SSL_MODES)?.unwrap_or(Mode::Prefer);
        let roots = options.string("sslrootcert");
        let key = sink_key(spec, &mut options)?;
        options.finish()?;
        if let Some(name) = spec.format.options.keys().next() {
            let message = format!("connector \"postgres\" has no option \"{name}\"");
            return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message));
        }
        if key.is_empty() {
            return Err(Error::unsupported(format!(
                "the input of sink \"{}\" has no key, by which rows of a table are changed",
                spec.relation
            ))
            .with_hint("Name columns that tell its rows apart: primary_key = 'a,b' in WITH."));
        }
        let mut config = Config::new();
        config
            .host(host)
            .port(port)
            .user(user)
            .dbname(database)
            .application_name(format!("headwater sink {}", spec.relation))
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(KEEPALIVE.0)
            .keepalives_interval(KEEPALIVE.1)
            .keepalives_retries(3)
            .tcp_user_timeout(UNANSWERED)
            .ssl_mode(mode.of_client());
        if let Some(password) = password {
            config.password(password);
        }
        Ok(Self {
            config,
            tls: connector(mode, roots)?,
            place: format!("{host}:{port}/{database}"),
            schema: schema.to_owned(),
            table: table.to_owned(),
            columns: spec.schema.clone(),
            key,
            name: spec.relation.clone(),
        })
    }

    /// The table's name as statements have it.
    pub(super) fn target(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }

    /// Another name of the same schema.
    pub(super) fn beside(&self, table: &str) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(table))
    }
}

/// A name as it stands in a statement.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as it stands in a statement.
pub(super) fn literal(text: &str) -> String {
    let quotes = text.replace('\'', "''");
    match quotes.contains('\\') {
        true => format!("E'{}'", quotes.replace('\\', "\\\\")),
        false => format!("'{quotes}'"),
    }
}
