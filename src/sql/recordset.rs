//! `jsonb_to_recordset(x) AS t(a int, b text)` and its like in FROM: the objects of an array, or
//! one object, as rows of the columns that are written behind it. They are a query over the array's
//! elements: `SELECT (e.value ->> 'a')::int AS a, .. FROM jsonb_array_elements(x) AS e`.

use sqlparser::ast::{
    DataType, FunctionArg, FunctionArgExpr, ObjectName, SetExpr, TableAlias, TableFactor,
};
use sqlparser::parser::Parser;

use super::dialect::DIALECT;
use super::names::MARK;
use super::parser::fold;
use super::tree::{call, cast};
use crate::error::{Error, Result, sqlstate};

/// Whether a function gives the rows of an array, or the row of one object.
fn form(name: &ObjectName) -> Option<bool> {
    match fold(name.0.last()?.as_ident()?).as_str() {
        "jsonb_to_recordset" | "json_to_recordset" => Some(true),
        "jsonb_to_record" | "json_to_record" => Some(false),
        _ => None,
    }
}

/// Whether a table factor of this name is one of those functions.
pub(super) fn is_recordset(name: &ObjectName) -> bool {
    form(name).is_some()
}

/// Puts the query in the place of such a function.
pub(super) fn spell_out(factor: &mut TableFactor) -> Result<()> {
    let (name, args, alias) = match factor {
        TableFactor::Table { name, args: Some(args), alias, .. } => (name, &args.args, alias),
        TableFactor::Function { name, args, alias, .. } => (name, &*args, alias),
        _ => return Ok(()),
    };
    let Some(many) = form(name) else { return Ok(()) };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = args.as_slice() else {
        // Whoever looks functions up says what it has.
        return Ok(());
    };
    let shown = name.to_string();
    let alias = alias.as_ref().filter(|alias| !alias.columns.is_empty());
    let alias = alias.ok_or_else(|| no_columns(&shown))?;
    let list = match many {
        true => argument.clone(),
        // A text would be an element, not an object.
        false => call("jsonb_build_array", vec![cast(argument.clone(), DataType::JSONB)]),
    };
    let text = query_text(&shown, many, alias)?;
    let parsed = Parser::new(&DIALECT).try_with_sql(&text).and_then(|mut p| p.parse_query());
    let mut query = parsed.map_err(|e| Error::internal(e.to_string()))?;
    if let SetExpr::Select(select) = query.body.as_mut()
        && let Some(from) = select.from.first_mut()
        && let TableFactor::Table { args: Some(args), .. } = &mut from.relation
    {
        args.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(list))];
    }
    let name = TableAlias { columns: Vec::new(), ..alias.clone() };
    *factor =
        TableFactor::Derived { lateral: true, subquery: query, alias: Some(name), sample: None };
    Ok(())
}

fn query_text(function: &str, many: bool, alias: &TableAlias) -> Result<String> {
    let element = format!("\"{MARK}record\".\"value\"");
    // A scalar has no fields, which is an error rather than a row without values.
    let element = match many {
        true => format!("jsonb_record({element}, 'recordset')"),
        false => format!("jsonb_record({element}, 'record')"),
    };
    let mut columns = Vec::with_capacity(alias.columns.len());
    for column in &alias.columns {
        let data_type = column.data_type.as_ref().ok_or_else(|| no_columns(function))?;
        let name = fold(&column.name);
        let key = name.replace('\'', "''");
        let value = match data_type {
            DataType::JSON | DataType::JSONB => format!("({element} -> '{key}')"),
            DataType::Array(_) => {
                return Err(Error::unsupported(format!(
                    "column \"{name}\" of {function} has a type of arrays, which is not supported"
                ))
                .with_hint("Take it as jsonb, and its elements with jsonb_array_elements."));
            }
            data_type => format!("CAST(({element} ->> '{key}') AS {data_type})"),
        };
        columns.push(format!("{value} AS \"{}\"", name.replace('"', "\"\"")));
    }
    let columns = columns.join(", ");
    Ok(format!("SELECT {columns} FROM jsonb_array_elements(NULL) AS \"{MARK}record\"(\"value\")"))
}

fn no_columns(function: &str) -> Error {
    Error::user(
        sqlstate::SYNTAX_ERROR,
        "a column definition list is required for functions returning \"record\"",
    )
    .with_hint(format!("{function}(..) AS t(a int, b text)"))
}
