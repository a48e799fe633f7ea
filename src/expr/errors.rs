//! Errors across the border to DataFusion: ours travel through it unchanged, and what fails inside
//! it while rows are evaluated becomes ours.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::error::{Error, sqlstate};

/// Wraps an error of ours so that [`from_datafusion`] finds it again.
pub(crate) fn to_datafusion(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The error behind a failed evaluation or execution.
pub fn from_datafusion(error: DataFusionError) -> Error {
    match error {
        DataFusionError::ArrowError(e, _) => from_arrow(*e),
        DataFusionError::External(e) => match e.downcast::<Error>() {
            Ok(own) => *own,
            Err(other) => match other.downcast::<DataFusionError>() {
                Ok(inner) => from_datafusion(*inner),
                Err(other) => match other.downcast::<ArrowError>() {
                    Ok(arrow) => from_arrow(*arrow),
                    Err(other) => Error::user(sqlstate::DATA_EXCEPTION, other.to_string()),
                },
            },
        },
        DataFusionError::Context(_, inner) => from_datafusion(*inner),
        DataFusionError::Diagnostic(_, inner) => from_datafusion(*inner),
        DataFusionError::Shared(inner) => match std::sync::Arc::try_unwrap(inner) {
            Ok(inner) => from_datafusion(inner),
            Err(shared) => from_shared(&shared),
        },
        DataFusionError::Collection(mut all) if !all.is_empty() => {
            from_datafusion(all.swap_remove(0))
        }
        DataFusionError::NotImplemented(m) => not_implemented(&m),
        DataFusionError::Execution(m) if m.contains("subquery returned more than one row") => {
            Error::user(
                sqlstate::CARDINALITY_VIOLATION,
                "more than one row returned by a subquery used as an expression",
            )
        }
        DataFusionError::Execution(m) => Error::user(sqlstate::DATA_EXCEPTION, first_line(&m)),
        DataFusionError::ResourcesExhausted(m) => exhausted(&m),
        other => Error::internal(first_line(&other.strip_backtrace())),
    }
}

/// An error that others hold too: looked at, not taken.
fn from_shared(error: &DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::External(e) => match e.downcast_ref::<Error>() {
            Some(own) => own.clone(),
            None => Error::user(sqlstate::DATA_EXCEPTION, first_line(&e.to_string())),
        },
        DataFusionError::ResourcesExhausted(m) => exhausted(m),
        other => Error::user(sqlstate::DATA_EXCEPTION, first_line(&other.strip_backtrace())),
    }
}

/// A refused request for memory, in the one kind of error at which operators of the library go to
/// files. Two lines: detail and hint.
pub(crate) fn out_of_memory(detail: &str, hint: &str) -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!("{detail}\n{hint}"))
}

/// What is behind a refused request: memory, or room for temporary files.
fn exhausted(message: &str) -> Error {
    if message.contains("disk space") {
        return Error::user(
            sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
            "temporary files exceed the limit of sorts and groups",
        )
        .with_detail(first_line(message))
        .with_hint("Make the query smaller, or start the engine with more --spill.");
    }
    let mut lines = message.lines();
    let detail = lines.next().unwrap_or_default();
    let error = Error::user(sqlstate::OUT_OF_MEMORY, "out of memory").with_detail(detail);
    match lines.next() {
        Some(hint) if detail.starts_with("Failed on request") => error.with_hint(hint),
        _ => error.with_hint("Make the query smaller, or raise query_memory_limit."),
    }
}

/// Bytes as people read them.
pub(crate) fn show_bytes(bytes: usize) -> String {
    const UNITS: [&str; 4] = ["bytes", "kB", "MB", "GB"];
    let (mut shown, mut unit) = (bytes, 0);
    while shown >= 10 * 1024 && unit + 1 < UNITS.len() {
        (shown, unit) = (shown.div_ceil(1024), unit + 1);
    }
    format!("{shown} {}", UNITS[unit])
}

fn from_arrow(error: ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(e) => match e.downcast::<DataFusionError>() {
            Ok(inner) => from_datafusion(*inner),
            Err(e) => Error::from(ArrowError::ExternalError(e)),
        },
        other => Error::from(other),
    }
}

/// What DataFusion has not built (0A000). Its texts print the syntax tree; that is cut off.
pub(crate) fn not_implemented(message: &str) -> Error {
    let line = first_line(message);
    let plain = line.split(['{', '(']).next().unwrap_or(&line).trim_end_matches([' ', ':']);
    match plain.len() < 12 {
        true => Error::unsupported("this construct is not supported"),
        false => Error::unsupported(lower_first(plain)),
    }
}

/// PostgreSQL's messages begin with a small letter, unless with a name in capitals.
pub(crate) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let second_is_lower = text.chars().nth(1).is_some_and(|c| !c.is_uppercase());
    match chars.next() {
        Some(first) if second_is_lower => first.to_lowercase().chain(chars).collect(),
        _ => text.to_string(),
    }
}

/// Messages of libraries can carry dumps; the first line says what it is about.
pub(crate) fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim_end_matches('.').to_string()
}
