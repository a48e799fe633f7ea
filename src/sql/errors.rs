//! Planning errors of DataFusion in PostgreSQL's words and codes. What has no counterpart keeps its
//! first line, never a dump.

use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;

use super::names::unmarked;
use crate::error::{Error, sqlstate};
use crate::expr::{first_line, from_datafusion};

/// Turns an error of planning, coercion or optimisation into ours.
pub(crate) fn plan_error(error: DataFusionError) -> Error {
    let span = error.diagnostic().and_then(|d| d.span);
    let column = match error.find_root() {
        DataFusionError::SchemaError(e, _) => schema_error(e),
        DataFusionError::Plan(m) => message_error(m),
        DataFusionError::NotImplemented(m) => Error::unsupported(unsupported_text(m)),
        DataFusionError::SQL(e, _) => {
            Error::user(sqlstate::SYNTAX_ERROR, first_line(&e.to_string()))
        }
        DataFusionError::Internal(m) => Error::internal(first_line(m)),
        DataFusionError::Configuration(m) => {
            Error::user(sqlstate::INVALID_PARAMETER_VALUE, first_line(m))
        }
        _ => return from_datafusion(error),
    };
    match span {
        // The parser has put all tokens on one line: the column counts characters of the text.
        Some(span) => column.with_position(span.start.column as usize),
        None => column,
    }
}

fn column_name(column: &Column) -> String {
    match &column.relation {
        Some(relation) => format!("{}.{}", relation.table(), unmarked(&column.name)),
        None => format!("\"{}\"", unmarked(&column.name)),
    }
}

fn schema_error(e: &SchemaError) -> Error {
    match e {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let known_relation = field.relation.as_ref().is_none_or(|r| {
                valid_fields
                    .iter()
                    .any(|f| f.relation.as_ref().is_some_and(|v| v.table() == r.table()))
            });
            if let (false, Some(r)) = (known_relation, &field.relation) {
                return Error::user(
                    sqlstate::UNDEFINED_TABLE,
                    format!("missing FROM-clause entry for table \"{}\"", r.table()),
                );
            }
            let error = Error::user(
                sqlstate::UNDEFINED_COLUMN,
                format!("column {} does not exist", column_name(field)),
            );
            match nearest(&field.name, valid_fields) {
                Some(near) => error.with_hint(format!(
                    "Perhaps you meant to reference the column \"{}\".",
                    near.flat_name()
                )),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => ambiguous(&field.name),
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => Error::user(
            sqlstate::DUPLICATE_COLUMN,
            format!("column \"{}\" specified more than once", unmarked(name)),
        ),
    }
}

fn ambiguous(name: &str) -> Error {
    Error::user(
        sqlstate::AMBIGUOUS_COLUMN,
        format!("column reference \"{}\" is ambiguous", unmarked(name)),
    )
}

/// The column whose name differs in the fewest letters, if they are few.
fn nearest<'a>(name: &str, fields: &'a [Column]) -> Option<&'a Column> {
    fields
        .iter()
        .map(|f| (distance(name, &f.name), f))
        .filter(|(d, _)| *d <= 2 && *d < name.len())
        .min_by_key(|(d, _)| *d)
        .map(|(_, f)| f)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

/// Text between two marks.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    text.split_once(begin)?.1.split_once(end).map(|(found, _)| found)
}

fn message_error(message: &str) -> Error {
    let m = message;
    let line = first_line(m);
    if let Some(own) = between(m, "failed with: External error: ", ". No function matches") {
        // An error of our own functions that the coercion has made a text of.
        let error = Error::user(sqlstate::UNDEFINED_FUNCTION, own);
        return error.with_hint("You might need to add explicit type casts.");
    }
    if let Some(name) = between(m, "Invalid function '", "'") {
        return Error::user(
            sqlstate::UNDEFINED_FUNCTION,
            format!("function {name} does not exist"),
        )
        .with_hint(
            "No function matches the given name. Check the name, or add explicit type casts.",
        );
    }
    if m.contains("must appear in the GROUP BY clause")
        || m.contains("could not be resolved from available columns")
    {
        let column = between(m, "Column in SELECT must be in GROUP BY or an aggregate function: While expanding wildcard, column \"", "\"")
            .or_else(|| between(m, "column \"", "\""))
            .or_else(|| between(m, "Column expression ", " "))
            .unwrap_or("?");
        return Error::user(
            sqlstate::GROUPING_ERROR,
            format!(
                "column \"{}\" must appear in the GROUP BY clause or be used in an aggregate function",
                unmarked(column)
            ),
        );
    }
    if m.contains("require unique expression names") {
        return Error::user(
            sqlstate::DUPLICATE_COLUMN,
            "a column name is specified more than once",
        );
    }
    if m.contains("Ambiguous reference to unqualified field") || m.contains("is ambiguous") {
        let name = m.rsplit(' ').next().unwrap_or("?");
        return ambiguous(name.trim_matches(['"', '\'', '.']));
    }
    if m.contains("Failed to coerce arguments")
        || m.contains("coercion from")
        || m.contains("does not support") && m.contains("argument")
    {
        let name = between(m, "function: '", "'").or_else(|| between(m, "function '", "'"));
        let name = name.or_else(|| between(m, "call to '", "'")).unwrap_or("?");
        return Error::user(
            sqlstate::UNDEFINED_FUNCTION,
            format!("function {name} does not exist for these argument types"),
        )
        .with_hint("You might need to add explicit type casts.");
    }
    if m.contains("Cannot infer common argument type for comparison")
        || m.contains("Cannot coerce")
        || m.contains("no common type")
        || m.contains("incompatible types")
        || m.contains("must be boolean")
        || m.contains("Cannot create filter with non-boolean predicate")
    {
        return Error::user(sqlstate::DATATYPE_MISMATCH, lower_first(&line));
    }
    if m.contains("have the same number of columns") || m.contains("different number of columns") {
        return Error::user(
            sqlstate::SYNTAX_ERROR,
            "each UNION query must have the same number of columns",
        );
    }
    Error::user(sqlstate::SYNTAX_ERROR, lower_first(&line))
}

fn unsupported_text(message: &str) -> String {
    let line = first_line(message);
    // Debug prints of the syntax tree help nobody.
    let plain = line.split(['{', '(']).next().unwrap_or(&line).trim_end_matches([' ', ':']);
    match plain.len() < 12 {
        true => "this construct is not supported".to_string(),
        false => lower_first(plain),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let second_is_lower = text.chars().nth(1).is_some_and(|c| !c.is_uppercase());
    match chars.next() {
        Some(first) if second_is_lower => first.to_lowercase().chain(chars).collect(),
        _ => text.to_string(),
    }
}
