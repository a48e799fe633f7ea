//! Settings: the one table of them, with what each may be and what honours it.
//!
//! A setting is honoured or refused. What it asks for and we do not do is 0A000, what means nothing
//! is 22023, what can't be changed is 55P02, what nobody has heard of is 42704. Some have nothing
//! to act on here (`row_security`: there are no policies); then every value is as good as honoured,
//! and the table says so. What only advises how to do something is taken with a notice.
//!
//! SHOW ALL, `pg_settings`, the parameters that a client is told of at its start, and the checks of
//! SET, `set_config`, startup parameters and startup options all come from this table. `kind.rs`
//! checks values, `values.rs` keeps what a session has set and follows transactions.

mod kind;
mod meanings;
mod values;

pub(super) use kind::Kind;
pub(super) use values::{SettingValues, unknown};

use kind::Unit;
use meanings::{date_style, encoding, float_digits, search_path, time_zone};

/// A setting of a session.
pub(crate) struct Setting {
    /// As PostgreSQL writes it; it is found in any case.
    pub(crate) name: &'static str,
    /// The kept form of its value where nobody has set it.
    pub(crate) default: &'static str,
    /// What it may be.
    pub(crate) kind: Kind,
    /// Who may change it.
    pub(crate) change: Change,
    /// Clients are told of it when they come and when it changes.
    pub(crate) reported: bool,
    /// What honours it.
    pub(crate) means: &'static str,
}

/// Who may change a setting.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A session, for itself.
    Session,
    /// A transaction, for itself: the mode that it runs in.
    Transaction,
    /// A session; it advises only, so a notice says that nothing follows from it.
    Advice,
    /// Nobody while the server runs.
    Restart,
    /// Nobody.
    Never,
}

impl Change {
    /// As `pg_settings.context` names it.
    pub(crate) fn context(self) -> &'static str {
        match self {
            Self::Session | Self::Transaction | Self::Advice => "user",
            Self::Restart => "postmaster",
            Self::Never => "internal",
        }
    }
}

const fn setting(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    means: &'static str,
) -> Setting {
    Setting { name, default, kind, change: Change::Session, reported: false, means }
}

/// A fact about the server.
const fn fact(name: &'static str, value: &'static str, means: &'static str) -> Setting {
    Setting { change: Change::Never, ..setting(name, value, Kind::Text, means) }
}

impl Setting {
    const fn reported(self) -> Self {
        Self { reported: true, ..self }
    }

    const fn changed_by(self, change: Change) -> Self {
        Self { change, ..self }
    }

    const fn of(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }
}

const INT_MAX: i64 = i32::MAX as i64;

/// A duration in milliseconds; 0 turns it off.
const DURATION: Kind = Kind::Integer { unit: Unit::Milliseconds, min: 0, max: INT_MAX };

/// Memory from 64 kB on, in kB.
const MEMORY: Kind = Kind::Integer { unit: Unit::Kilobytes, min: 64, max: INT_MAX };

const fn integer(min: i64, max: i64) -> Kind {
    Kind::Integer { unit: Unit::None, min, max }
}

const fn only(honoured: &'static [&'static str], known: &'static [&'static str]) -> Kind {
    Kind::Only { honoured, known }
}

/// Texts of messages and forms of numbers: those of no locale, under its names.
const NO_LOCALE: Kind = only(&["C", "POSIX", "C.UTF-8", "en_US.UTF-8", "en_US.utf8", ""], &[]);

/// What a transaction may ask for. Each gets snapshot isolation, which is stronger than the first
/// two and PostgreSQL's own meaning of the third.
const ISOLATION: Kind =
    only(&["read uncommitted", "read committed", "repeatable read"], &["serializable"]);

/// Clients read the leading number as the PostgreSQL release whose features they may use.
const SERVER_VERSION: &str = concat!("15.0 (Headwater ", env!("CARGO_PKG_VERSION"), ")");

/// All settings, by name.
pub(crate) const SETTINGS: &[Setting] = &[
    setting("application_name", "", Kind::Text, "The name that a client gives itself.").reported(),
    fact("block_size", "8192", "Size of a disk block; nothing is kept in blocks.")
        .of(integer(8192, 8192)),
    setting("bytea_output", "hex", Kind::Choice(&["escape", "hex"]), "How bytea is printed."),
    setting("check_function_bodies", "on", Kind::Bool, "There are no functions with bodies."),
    setting(
        "client_encoding",
        "UTF8",
        Kind::Checked(encoding),
        "The encoding of texts in messages.",
    )
    .reported(),
    setting(
        "client_min_messages",
        "notice",
        Kind::Choice(&[
            "debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error",
        ]),
        "Messages of lower levels are not sent.",
    ),
    setting(
        "DateStyle",
        "ISO, MDY",
        Kind::Amended(date_style),
        "How dates and times are printed and read.",
    )
    .reported(),
    setting(
        "default_table_access_method",
        "heap",
        only(&["heap"], &[]),
        "There is one way to keep tables.",
    ),
    setting(
        "default_tablespace",
        "",
        only(&["", "pg_default"], &[]),
        "There is one place for tables.",
    ),
    setting(
        "default_transaction_deferrable",
        "off",
        Kind::Bool,
        "The mode of new transactions; no transaction waits to begin.",
    ),
    setting(
        "default_transaction_isolation",
        "repeatable read",
        ISOLATION,
        "The isolation that new transactions ask for; all get snapshot isolation.",
    ),
    setting("default_transaction_read_only", "off", Kind::Bool, "New transactions refuse writes.")
        .reported(),
    setting(
        "escape_string_warning",
        "on",
        Kind::Bool,
        "A backslash in an ordinary string is one and needs no warning.",
    ),
    setting(
        "extra_float_digits",
        "1",
        Kind::Checked(float_digits),
        "Floating-point numbers are printed exactly, in as few digits as that takes.",
    ),
    setting(
        "idle_in_transaction_session_timeout",
        "0",
        DURATION,
        "A session that is idle in a transaction for so long is ended.",
    ),
    setting(
        "idle_session_timeout",
        "0",
        DURATION,
        "A session that is idle outside of a transaction for so long is ended.",
    ),
    fact("in_hot_standby", "off", "There is no standby.").of(Kind::Bool).reported(),
    fact("integer_datetimes", "on", "Times are sent as integers.").of(Kind::Bool).reported(),
    setting(
        "IntervalStyle",
        "postgres",
        Kind::Choice(&["postgres", "postgres_verbose", "sql_standard", "iso_8601"]),
        "How intervals are printed.",
    )
    .reported(),
    fact("is_superuser", "on", "There is one role, which may do everything.")
        .of(Kind::Bool)
        .reported(),
    setting("jit", "off", Kind::Fixed(false), "Nothing is compiled at run time."),
    fact("lc_collate", "C", "Texts compare by their bytes."),
    fact("lc_ctype", "C", "The classes of characters."),
    setting("lc_messages", "C", NO_LOCALE, "The language of messages."),
    setting("lc_monetary", "C", NO_LOCALE, "The form of amounts of money."),
    setting("lc_numeric", "C", NO_LOCALE, "The form of numbers."),
    setting("lc_time", "C", NO_LOCALE, "The form of dates."),
    setting(
        "lock_timeout",
        "0",
        DURATION,
        "A statement that waits for so long for its turn to write is ended.",
    ),
    setting(
        "log_min_duration_statement",
        "-1",
        Kind::Integer { unit: Unit::Milliseconds, min: -1, max: INT_MAX },
        "A statement that takes so long or longer is an event, a query with its plan; -1 for none.",
    ),
    setting(
        "maintenance_work_mem",
        "65536",
        Kind::Integer { unit: Unit::Kilobytes, min: 1024, max: INT_MAX },
        "Memory of definitions.",
    )
    .changed_by(Change::Advice),
    fact("max_connections", "1000", "Connections at the same time.")
        .of(integer(1, INT_MAX))
        .changed_by(Change::Restart),
    fact("max_identifier_length", "63", "Bytes of a name in PostgreSQL; here they may have more.")
        .of(integer(63, 63)),
    fact("max_index_keys", "32", "Columns of an index.").of(integer(32, 32)),
    fact("password_encryption", "scram-sha-256", "How passwords are kept."),
    setting(
        "query_memory_limit",
        "0",
        Kind::Integer { unit: Unit::Kilobytes, min: 0, max: i64::MAX / 1024 },
        "Memory that one query may hold; 0 is what the server was started with.",
    ),
    setting("role", "none", only(&["none"], &[]), "SET ROLE says whose rights count."),
    setting("row_security", "on", Kind::Bool, "There are no policies of rows."),
    setting(
        "search_path",
        "\"$user\", public",
        Kind::List(search_path),
        "Where names without a schema are looked up.",
    ),
    fact("server_encoding", "UTF8", "The encoding of texts.").reported(),
    fact("server_version", SERVER_VERSION, "The version.").reported(),
    fact("server_version_num", "150000", "The version as a number.").of(integer(150_000, 150_000)),
    fact("session_authorization", "", "The name that the client has given.").reported(),
    setting(
        "session_replication_role",
        "origin",
        Kind::Choice(&["origin", "replica", "local"]),
        "There are no triggers and rules.",
    ),
    setting(
        "standard_conforming_strings",
        "on",
        Kind::Fixed(true),
        "A backslash in an ordinary string is a backslash.",
    )
    .reported(),
    setting("statement_timeout", "0", DURATION, "A statement that runs for so long is ended."),
    setting("synchronize_seqscans", "on", Kind::Bool, "Rows have no order without ORDER BY."),
    setting("TimeZone", "UTC", Kind::Checked(time_zone), "The time zone of timestamps with one.")
        .reported(),
    setting(
        "transaction_deferrable",
        "off",
        Kind::Bool,
        "The mode of this transaction; no transaction waits to begin.",
    )
    .changed_by(Change::Transaction),
    setting(
        "transaction_isolation",
        "repeatable read",
        ISOLATION,
        "The isolation that this transaction has asked for.",
    )
    .changed_by(Change::Transaction),
    setting("transaction_read_only", "off", Kind::Bool, "This transaction refuses writes.")
        .changed_by(Change::Transaction),
    setting("work_mem", "4096", MEMORY, "Memory of a sort or hash table.")
        .changed_by(Change::Advice),
    setting(
        "xmloption",
        "content",
        Kind::Choice(&["content", "document"]),
        "There is no type xml.",
    ),
];

/// A setting by its name in any case.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_what_it_allows() {
        let names: Vec<String> = SETTINGS.iter().map(|s| s.name.to_ascii_lowercase()).collect();
        assert!(names.is_sorted(), "settings are listed by name");
        for setting in SETTINGS {
            let kept = setting.kind.check(setting.name, setting.default);
            assert_eq!(kept.ok().as_deref(), Some(setting.default), "{}", setting.name);
            assert!(setting.means.ends_with('.'), "{}", setting.name);
            let shown = setting.kind.shown(setting.default);
            let again = setting.kind.check(setting.name, &shown);
            assert_eq!(again.ok().as_deref(), Some(setting.default), "{}", setting.name);
        }
    }
}
