//! The one error type of the crate: PostgreSQL wording and SQLSTATE, who must act, whether waiting
//! helps, and a hint that can be run.
//!
//! The primary message is lower-case, names the object in double quotes and has no full stop, as in
//! the PostgreSQL error style guide. `Display` prints the primary message alone; whoever shows the
//! error prints detail, hint and position beside it. Context (source, partition, offset, operator)
//! is added once, where the error crosses from a part into the engine.

use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who has to act so that the error goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The statement or its data: the user changes it.
    User,
    /// A system outside of the engine (broker, file, client): an operator of that system, or time.
    External,
    /// The engine: a bug or a broken invariant.
    Internal,
}

/// Whether doing the same again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same input fails in the same way.
    Never,
    /// The cause may pass: repeat with a growing pause.
    Backoff,
}

/// SQLSTATE codes in use, by their PostgreSQL condition names.
pub mod sqlstate {
    #![allow(missing_docs, reason = "the names are PostgreSQL's condition names")]
    pub const SUCCESSFUL_COMPLETION: &str = "00000";
    pub const WARNING: &str = "01000";
    pub const CONNECTION_EXCEPTION: &str = "08000";
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const CARDINALITY_VIOLATION: &str = "21000";
    pub const DATA_EXCEPTION: &str = "22000";
    pub const NULL_VALUE_NOT_ALLOWED: &str = "22004";
    pub const STRING_DATA_RIGHT_TRUNCATION: &str = "22001";
    pub const NUMERIC_VALUE_OUT_OF_RANGE: &str = "22003";
    pub const SEQUENCE_LIMIT_EXCEEDED: &str = "2200H";
    pub const CHARACTER_NOT_IN_REPERTOIRE: &str = "22021";
    pub const INVALID_DATETIME_FORMAT: &str = "22007";
    pub const DATETIME_FIELD_OVERFLOW: &str = "22008";
    pub const DIVISION_BY_ZERO: &str = "22012";
    pub const INVALID_PARAMETER_VALUE: &str = "22023";
    pub const SKIP_TO_NONEXISTENT_ROW: &str = "2202K";
    pub const SKIP_TO_FIRST_ROW: &str = "2202L";
    pub const INVALID_ROW_COUNT_IN_LIMIT_CLAUSE: &str = "2201W";
    pub const INVALID_ROW_COUNT_IN_RESULT_OFFSET_CLAUSE: &str = "2201X";
    pub const INVALID_TEXT_REPRESENTATION: &str = "22P02";
    pub const NOT_NULL_VIOLATION: &str = "23502";
    pub const UNIQUE_VIOLATION: &str = "23505";
    pub const CHECK_VIOLATION: &str = "23514";
    pub const ACTIVE_SQL_TRANSACTION: &str = "25001";
    pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
    pub const NO_ACTIVE_SQL_TRANSACTION: &str = "25P01";
    pub const IN_FAILED_SQL_TRANSACTION: &str = "25P02";
    pub const IDLE_IN_TRANSACTION_SESSION_TIMEOUT: &str = "25P03";
    pub const DEPENDENT_OBJECTS_STILL_EXIST: &str = "2BP01";
    pub const INVALID_SAVEPOINT: &str = "3B001";
    pub const SERIALIZATION_FAILURE: &str = "40001";
    pub const SYNTAX_ERROR: &str = "42601";
    pub const GENERATED_ALWAYS: &str = "428C9";
    pub const UNDEFINED_COLUMN: &str = "42703";
    pub const UNDEFINED_FUNCTION: &str = "42883";
    pub const UNDEFINED_TABLE: &str = "42P01";
    pub const UNDEFINED_PARAMETER: &str = "42P02";
    pub const DUPLICATE_COLUMN: &str = "42701";
    pub const DUPLICATE_TABLE: &str = "42P07";
    pub const AMBIGUOUS_COLUMN: &str = "42702";
    pub const INVALID_RECURSION: &str = "42P19";
    pub const DATATYPE_MISMATCH: &str = "42804";
    pub const WRONG_OBJECT_TYPE: &str = "42809";
    pub const GROUPING_ERROR: &str = "42803";
    pub const WINDOWING_ERROR: &str = "42P20";
    pub const INVALID_TABLE_DEFINITION: &str = "42P16";
    pub const INVALID_COLUMN_DEFINITION: &str = "42611";
    pub const INVALID_OBJECT_DEFINITION: &str = "42P17";
    pub const INVALID_COLUMN_REFERENCE: &str = "42P10";
    pub const DUPLICATE_OBJECT: &str = "42710";
    pub const AMBIGUOUS_ALIAS: &str = "42P09";
    pub const DUPLICATE_ALIAS: &str = "42712";
    pub const INVALID_AUTHORIZATION: &str = "28000";
    pub const INVALID_GRANT_OPERATION: &str = "0LP01";
    pub const DUPLICATE_SCHEMA: &str = "42P06";
    pub const INVALID_SCHEMA_NAME: &str = "3F000";
    pub const RESERVED_NAME: &str = "42939";
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub const UNDEFINED_OBJECT: &str = "42704";
    pub const DUPLICATE_CURSOR: &str = "42P03";
    pub const INVALID_CURSOR_NAME: &str = "34000";
    pub const INVALID_SQL_STATEMENT_NAME: &str = "26000";
    pub const INSUFFICIENT_RESOURCES: &str = "53000";
    pub const DISK_FULL: &str = "53100";
    pub const OUT_OF_MEMORY: &str = "53200";
    pub const CONFIGURATION_LIMIT_EXCEEDED: &str = "53400";
    pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
    pub const STATEMENT_TOO_COMPLEX: &str = "54001";
    pub const TOO_MANY_COLUMNS: &str = "54011";
    pub const TOO_MANY_ARGUMENTS: &str = "54023";
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";
    pub const OBJECT_IN_USE: &str = "55006";
    pub const CANT_CHANGE_RUNTIME_PARAM: &str = "55P02";
    pub const LOCK_NOT_AVAILABLE: &str = "55P03";
    pub const QUERY_CANCELED: &str = "57014";
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    pub const IDLE_SESSION_TIMEOUT: &str = "57P05";
    pub const SYSTEM_ERROR: &str = "58000";
    pub const IO_ERROR: &str = "58030";
    pub const CONFIG_FILE_ERROR: &str = "F0000";
    pub const SNAPSHOT_TOO_OLD: &str = "72000";
    pub const INTERNAL_ERROR: &str = "XX000";
    pub const DATA_CORRUPTED: &str = "XX001";
}

/// A column of a batch would have more bytes than its offsets can count, 2 GB.
pub(crate) const TOO_MANY_BYTES: &str = "a column of a batch of rows has more than 2 GB";

/// 54000: offsets of text and bytes are of 32 bits. With fewer rows it may go.
pub(crate) fn too_many_bytes() -> Error {
    Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, TOO_MANY_BYTES)
        .with_hint("Write fewer of the large values at once, or select fewer of them.")
}

/// An error of the engine, ready to be shown to its user.
#[derive(Debug, Clone)]
pub struct Error(Box<Fields>);

#[derive(Debug, Clone)]
struct Fields {
    kind: ErrorKind,
    retry: Retry,
    sqlstate: &'static str,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    position: Option<usize>,
    about: About,
}

/// The objects that an error is about, for programs that read them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The table.
    pub relation: Option<String>,
    /// The column of it.
    pub column: Option<String>,
    /// The constraint of it.
    pub constraint: Option<String>,
}

impl Error {
    /// An error with an explicit SQLSTATE that the user of the statement can mend.
    pub fn user(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::User, Retry::Never, sqlstate, message)
    }

    /// Something that Headwater does not do, or not yet (0A000).
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::user(sqlstate::FEATURE_NOT_SUPPORTED, message)
    }

    /// A system outside of the engine failed; repeating later may help.
    pub fn external(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::External, Retry::Backoff, sqlstate, message)
    }

    /// A broken invariant: a bug of the engine (XX000).
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, Retry::Never, sqlstate::INTERNAL_ERROR, message)
    }

    /// Stored bytes that no program has written so (XX001).
    pub fn corrupted(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, Retry::Never, sqlstate::DATA_CORRUPTED, message)
    }

    fn new(kind: ErrorKind, retry: Retry, sqlstate: &'static str, m: impl Into<String>) -> Self {
        let message = m.into();
        Self(Box::new(Fields {
            kind,
            retry,
            sqlstate,
            message,
            detail: None,
            hint: None,
            position: None,
            about: About::default(),
        }))
    }

    /// Adds what is known beyond the primary message; sentences, as PostgreSQL's DETAIL.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds what to do about it; where possible a statement that can be run as it stands.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the place in the statement text: characters from its start, counted from 1.
    #[must_use]
    pub fn with_position(mut self, position: usize) -> Self {
        self.0.position = Some(position);
        self
    }

    /// Names the objects that the error is about.
    #[must_use]
    pub fn with_about(mut self, about: About) -> Self {
        self.0.about = about;
        self
    }

    /// Marks the error as one that repeating cannot mend.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.0.retry = Retry::Never;
        self
    }

    /// Marks the error as one that passes by itself.
    #[must_use]
    pub fn temporary(mut self) -> Self {
        self.0.retry = Retry::Backoff;
        self
    }

    /// Puts context in front of the primary message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// The same with a text out of sight, wherever it stands.
    #[must_use]
    pub(crate) fn masking(mut self, secret: &str) -> Self {
        let Fields { message, detail, hint, .. } = self.0.as_mut();
        for text in [Some(message), detail.as_mut(), hint.as_mut()].into_iter().flatten() {
            *text = text.replace(secret, "********");
        }
        self
    }

    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether doing the same again can help.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// The five-character SQLSTATE.
    pub fn sqlstate(&self) -> &'static str {
        self.0.sqlstate
    }

    /// The primary message.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The DETAIL line, where there is one.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The HINT line, where there is one.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The objects that the error is about.
    pub fn about(&self) -> &About {
        &self.0.about
    }

    /// The position in the statement, in characters from 1, where it is known.
    pub fn position(&self) -> Option<usize> {
        self.0.position
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl Error {
    /// Whether it is one of a batch of rows, and not of a single one.
    pub(crate) fn is_too_many_bytes(&self) -> bool {
        self.message() == TOO_MANY_BYTES
    }
}

impl std::error::Error for Error {}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        use arrow::error::ArrowError;
        match e {
            ArrowError::DivideByZero => Self::user(sqlstate::DIVISION_BY_ZERO, "division by zero"),
            ArrowError::OffsetOverflowError(_) => too_many_bytes(),
            ArrowError::ArithmeticOverflow(m) => {
                Self::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range")
                    .with_detail(m)
            }
            ArrowError::ExternalError(e) => match e.downcast::<Error>() {
                Ok(own) => *own,
                Err(other) => Self::user(sqlstate::DATA_EXCEPTION, other.to_string()),
            },
            ArrowError::CastError(m) | ArrowError::ParseError(m) => {
                Self::user(sqlstate::INVALID_TEXT_REPRESENTATION, m)
            }
            other => Self::user(sqlstate::DATA_EXCEPTION, other.to_string()),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Self::external(sqlstate::IO_ERROR, e.to_string())
    }
}
