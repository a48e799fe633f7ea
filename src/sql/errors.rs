//! Planning errors of DataFusion in PostgreSQL's words and codes. What has no counterpart keeps its
//! first line, never a dump.

use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;

use super::messages::{prefix_operator, sql_type, translated};
use super::names::unmarked;
use crate::catalog::nearest;
use crate::error::{Error, sqlstate};
use crate::expr::{first_line, from_datafusion, lower_first, not_implemented};

const NO_FUNCTION: &str = "No function matches the given name and argument types. You might need \
                           to add explicit type casts.";

/// Turns an error of planning, coercion or optimisation into ours.
pub(crate) fn plan_error(error: DataFusionError) -> Error {
    let span = error.diagnostic().and_then(|d| d.span);
    let operand = error.diagnostic().and_then(|d| prefix_operator(&d.message));
    if let Some(error) = operand {
        return error;
    }
    let column = match error.find_root() {
        DataFusionError::SchemaError(e, _) => schema_error(e),
        DataFusionError::Plan(m) => message_error(m),
        DataFusionError::NotImplemented(m) => not_implemented(m),
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
            let named = |known: &Column| {
                known.name != field.name
                    && unmarked(&known.name) == field.name
                    && (field.relation.is_none() || field.relation == known.relation)
            };
            if valid_fields.iter().any(named) {
                return ambiguous(&field.name);
            }
            let error = Error::user(
                sqlstate::UNDEFINED_COLUMN,
                format!("column {} does not exist", column_name(field)),
            );
            let near = nearest(&field.name, valid_fields.iter().map(|f| f.name.as_str()));
            match near.and_then(|near| valid_fields.iter().find(|f| f.name == near)) {
                Some(near) => error.with_hint(format!(
                    "Perhaps you meant to reference the column \"{}\".",
                    near.flat_name()
                )),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => ambiguous(&field.name),
        SchemaError::DuplicateQualifiedField { qualifier, .. } => Error::user(
            sqlstate::DUPLICATE_ALIAS,
            format!("table name \"{}\" specified more than once", qualifier.table()),
        ),
        SchemaError::DuplicateUnqualifiedField { name } => Error::user(
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

/// Text between two marks.
pub(super) fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    text.split_once(begin)?.1.split_once(end).map(|(found, _)| found)
}

/// Functions that do not exist, or not for these arguments.
fn function_error(m: &str) -> Option<Error> {
    if let Some(own) = between(m, "failed with: External error: ", ". No function matches") {
        // An error of our own functions that the coercion has made a text of.
        if let Some(types) = between(own, "function make_array(", ")") {
            let (first, rest) = types.split_once(", ").unwrap_or((types, ""));
            let other = rest.split(", ").find(|t| *t != first).unwrap_or(first);
            let message = format!("ARRAY types {first} and {other} cannot be matched");
            return Some(Error::user(sqlstate::DATATYPE_MISMATCH, message));
        }
        let error = Error::user(sqlstate::UNDEFINED_FUNCTION, own);
        return Some(error.with_hint(NO_FUNCTION));
    }
    if let Some(call) = between(m, "given name and argument types '", "'.") {
        return Some(
            Error::user(
                sqlstate::UNDEFINED_FUNCTION,
                format!("function {} does not exist", with_sql_types(call)),
            )
            .with_hint(NO_FUNCTION),
        );
    }
    if let Some(name) = between(m, "Invalid function '", "'") {
        return Some(
            Error::user(sqlstate::UNDEFINED_FUNCTION, format!("function {name} does not exist"))
                .with_hint(NO_FUNCTION),
        );
    }
    if m.contains("Failed to coerce arguments")
        || m.contains("coercion from")
        || m.contains("does not support") && m.contains("argument")
    {
        let name = between(m, "function: '", "'").or_else(|| between(m, "function '", "'"));
        let name = name.or_else(|| between(m, "call to '", "'")).unwrap_or("?");
        return Some(
            Error::user(
                sqlstate::UNDEFINED_FUNCTION,
                format!("function {name} does not exist for these argument types"),
            )
            .with_hint(NO_FUNCTION),
        );
    }
    None
}

/// An error that DataFusion has as a text only.
fn message_error(m: &str) -> Error {
    if let Some(error) = function_error(m).or_else(|| translated(m)) {
        return error;
    }
    let line = first_line(m);
    if m.contains("must appear in the GROUP BY clause")
        || m.contains("could not be resolved from available columns")
    {
        let column = between(m, "HAVING clause references: ", " must appear")
            .or_else(|| between(m, "column \"", "\""))
            .unwrap_or("?");
        return Error::user(
            sqlstate::GROUPING_ERROR,
            format!(
                "column \"{}\" must appear in the GROUP BY clause or be used in an aggregate \
                 function",
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
    if m.contains("Inconsistent data type across values list") {
        return Error::user(sqlstate::DATATYPE_MISMATCH, "VALUES types cannot be matched")
            .with_hint("Cast the values of a column to one type.");
    }
    if m.contains("Cannot infer common argument type for comparison")
        || m.contains("Cannot coerce")
        || m.contains("no common type")
        || m.contains("incompatible types")
        || m.contains("must be boolean")
    {
        return Error::user(sqlstate::DATATYPE_MISMATCH, lower_first(&line));
    }
    if m.starts_with("LIMIT must be >=") {
        let state = sqlstate::INVALID_ROW_COUNT_IN_LIMIT_CLAUSE;
        return Error::user(state, "LIMIT must not be negative");
    }
    if m.starts_with("OFFSET must be >=") {
        let state = sqlstate::INVALID_ROW_COUNT_IN_RESULT_OFFSET_CLAUSE;
        return Error::user(state, "OFFSET must not be negative");
    }
    if m.contains("have the same number of columns") || m.contains("different number of columns") {
        return Error::user(
            sqlstate::SYNTAX_ERROR,
            "each UNION query must have the same number of columns",
        );
    }
    if ["not implemented", "not supported", "nsupported"].iter().any(|words| m.contains(words)) {
        return Error::unsupported(lower_first(&line));
    }
    // What nobody has thought of is a fault of ours, and no syntax error of the user's.
    Error::internal(lower_first(&line))
}

/// `upper(Int32)` with PostgreSQL's names of the types.
fn with_sql_types(call: &str) -> String {
    let Some((name, types)) = call.split_once('(') else { return call.to_string() };
    let types: Vec<_> = types.trim_end_matches(')').split(", ").map(sql_type).collect();
    format!("{name}({})", types.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_nobody_has_thought_of_is_no_fault_of_the_user() {
        let error = plan_error(DataFusionError::Plan("the moon is not there".into()));
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(error.sqlstate(), "XX000");
        let error = plan_error(DataFusionError::Plan("Invalid function 'moon'".into()));
        assert_eq!(error.sqlstate(), sqlstate::UNDEFINED_FUNCTION);
    }
}
