//! `jsonb_to_recordset(x) AS t(a int, b text)` and its like in FROM: the objects of an array, or
//! one object, as rows of the columns that are written behind it. Each column is a list of texts
//! or jsonb ahead of a cast, put side by side as those of other sets are.

use sqlparser::ast::{
    DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, TableAlias,
    TableFactor, Value,
};
use sqlparser::parser::Parser;

use super::dialect::DIALECT;
use super::parser::{fold, is_rows_from, rows_from_factor};
use super::tree::call;
use super::types::text_limit;
use crate::error::{Error, Result, sqlstate};

/// Whether a table factor of this name is one of those functions.
pub(super) fn is_recordset(name: &ObjectName) -> bool {
    name.0.last().and_then(|part| part.as_ident()).map(fold).is_some_and(|name| {
        let known = ["json_to_record", "json_to_recordset", "jsonb_to_record"];
        known.contains(&name.as_str()) || name == "jsonb_to_recordset"
    })
}

fn is_record(call: &Expr) -> bool {
    matches!(call, Expr::Function(f) if is_recordset(&f.name))
}

/// Whether an alias is a list of columns with their types.
fn defines(alias: Option<&TableAlias>) -> bool {
    alias.is_some_and(|a| a.columns.iter().any(|column| column.data_type.is_some()))
}

/// Puts such a function as ROWS FROM with its list of columns inside.
pub(super) fn spell_out(factor: &mut TableFactor) -> Result<()> {
    let (name, args, alias) = match factor {
        TableFactor::Table { name, args: Some(args), alias, .. } => (name, &mut args.args, alias),
        TableFactor::Function { name, args, alias, .. } => (name, args, alias),
        _ => return Ok(()),
    };
    let function = match args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(only @ Expr::Function(f)))]
            if is_rows_from(name) && is_recordset(&f.name) =>
        {
            only.clone()
        }
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] if is_recordset(name) => {
            let own = name.0.last().and_then(|part| part.as_ident()).map(fold);
            call(&own.unwrap_or_default(), vec![argument.clone()])
        }
        // Whoever looks functions up says what it has.
        _ => return Ok(()),
    };
    let Some(alias) = alias.as_mut().filter(|alias| defines(Some(alias))) else {
        return Err(no_columns());
    };
    let columns = std::mem::take(&mut alias.columns);
    let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
    let name = Ident::new(format!("({})", columns.join(", ")));
    let named = Expr::Named { expr: Box::new(function), name };
    let named = FunctionArg::Unnamed(FunctionArgExpr::Expr(named));
    *factor = rows_from_factor(vec![named], Some(alias.clone()), false);
    Ok(())
}

/// Checks the lists of columns of ROWS FROM.
pub(super) fn check_columns(
    functions: &[FunctionArg],
    alias: Option<&TableAlias>,
    with_ordinality: bool,
) -> Result<()> {
    let many = functions.len() > 1;
    let wrong = |message: &str| Err(Error::user(sqlstate::SYNTAX_ERROR, message));
    if defines(alias) && many {
        let hint = "Put a separate column definition list for each function inside ROWS FROM().";
        return wrong("ROWS FROM() with multiple functions cannot have a column definition list")
            .map_err(|e| e.with_hint(hint));
    }
    if defines(alias) && with_ordinality {
        let hint = "Put the column definition list inside ROWS FROM().";
        return wrong("WITH ORDINALITY cannot be used with a column definition list")
            .map_err(|e| e.with_hint(hint));
    }
    for function in functions {
        match function {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Named { expr, .. }))
                if !is_record(expr) =>
            {
                return wrong(NO_RECORD);
            }
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(f)))
                if is_recordset(&f.name) && !defines(alias) =>
            {
                return Err(no_columns());
            }
            _ => {}
        }
    }
    Ok(())
}

/// A column of records: the list of its values, the type that they are to have, and its name.
pub(super) struct Column {
    pub(super) list: Expr,
    pub(super) data_type: Option<DataType>,
    pub(super) name: String,
}

/// The columns of such a call, by their list.
pub(super) fn columns_of(function: &Expr, list: &str) -> Result<Vec<Column>> {
    let Expr::Function(f) = function else { return Ok(Vec::new()) };
    let called = f.name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
    let argument = match &f.args {
        FunctionArguments::List(list) => match list.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] => argument,
            _ => return Err(Error::unsupported(format!("{called} takes one argument"))),
        },
        _ => return Err(Error::unsupported(format!("{called} takes one argument"))),
    };
    let mut columns: Vec<Column> = Vec::new();
    for (name, data_type) in definitions(list)? {
        if columns.iter().any(|column| column.name == name) {
            let message = format!("column name \"{name}\" specified more than once");
            return Err(Error::user(sqlstate::DUPLICATE_COLUMN, message));
        }
        let text = |text: &str| Expr::value(Value::SingleQuotedString(text.into()));
        let mut args = vec![argument.clone(), text(&name), text(&called)];
        let (reader, data_type) = match &data_type {
            DataType::JSON | DataType::JSONB => ("pg_json_values", None),
            DataType::Array(_) => ("pg_json_arrays", Some(data_type)),
            _ => {
                if let Some(limit) = text_limit(&data_type)? {
                    args.push(Expr::value(Value::Number(limit.characters.to_string(), false)));
                    args.push(text(&limit.to_string()));
                }
                ("pg_json_texts", Some(data_type))
            }
        };
        columns.push(Column { list: call(reader, args), data_type, name });
    }
    Ok(columns)
}

/// Names and types of `(a int, b text)`.
fn definitions(list: &str) -> Result<Vec<(String, DataType)>> {
    let text = format!("SELECT 1 FROM f() AS t {list}");
    let query = Parser::new(&DIALECT).try_with_sql(&text).and_then(|mut p| p.parse_query());
    let query = query.map_err(|_| wrong_list(list))?;
    let from = query.body.as_select().and_then(|select| select.from.first());
    let Some(TableFactor::Table { alias: Some(alias), .. }) = from.map(|from| &from.relation)
    else {
        return Err(wrong_list(list));
    };
    let column =
        |c: &sqlparser::ast::TableAliasColumnDef| Some((fold(&c.name), c.data_type.clone()?));
    alias.columns.iter().map(|c| column(c).ok_or_else(|| wrong_list(list))).collect()
}

fn wrong_list(list: &str) -> Error {
    Error::user(sqlstate::SYNTAX_ERROR, format!("syntax error in the column list {list}"))
        .with_hint("AS (a int, b text)")
}

const NO_RECORD: &str =
    "a column definition list is only allowed for functions returning \"record\"";

fn no_columns() -> Error {
    Error::user(
        sqlstate::SYNTAX_ERROR,
        "a column definition list is required for functions returning \"record\"",
    )
    .with_hint("Put it behind the function: AS t(a int, b text).")
}
