//! Functions in FROM: those that return sets, which are UNNEST of functions that give lists,
//! others, whose one row is UNNEST of a list of one, and `ROWS FROM (f(..), g(..))`, where UNNEST
//! puts the lists side by side and fills up the shorter ones with NULL.

use sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgOperator,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, SelectItem, SetExpr, TableAlias,
    TableAliasColumnDef, TableFactor,
};
use sqlparser::parser::Parser;

use super::desugar::desugar_expr;
use super::dialect::DIALECT;
use super::functions::FUNCTIONS;
use super::names::{MARK, name_of};
use super::parser::{fold, is_rows_from, rows_from, rows_from_factor};
use super::recordset::{columns_of, is_recordset};
use super::system;
use super::tree::{call, cast};
use crate::error::{Error, Result, sqlstate};

type Set = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Functions that return sets: the name, the functions that give their columns as lists, and the
/// names of those columns where the function has given some.
const SETS: &[Set] = &[
    ("generate_series", &["generate_series"], &[]),
    ("generate_subscripts", &["generate_subscripts"], &[]),
    ("regexp_split_to_table", &["regexp_split_to_array"], &[]),
    ("regexp_matches", &["regexp_matches"], &[]),
    ("string_to_table", &["string_to_array"], &[]),
    ("jsonb_array_elements", &["jsonb_array_elements"], &["value"]),
    ("json_array_elements", &["jsonb_array_elements"], &["value"]),
    ("jsonb_array_elements_text", &["jsonb_array_elements_text"], &["value"]),
    ("json_array_elements_text", &["jsonb_array_elements_text"], &["value"]),
    ("jsonb_object_keys", &["jsonb_object_keys"], &[]),
    ("json_object_keys", &["jsonb_object_keys"], &[]),
    ("jsonb_each", &["jsonb_each_key", "jsonb_each_value"], &["key", "value"]),
    ("json_each", &["jsonb_each_key", "jsonb_each_value"], &["key", "value"]),
    ("jsonb_each_text", &["jsonb_each_key", "jsonb_each_text_value"], &["key", "value"]),
    ("jsonb_path_query", &["jsonb_path_query"], &[]),
    ("json_each_text", &["jsonb_each_key", "jsonb_each_text_value"], &["key", "value"]),
];

/// Whether a function of this name returns a set.
pub(super) fn returns_set(name: &ObjectName) -> bool {
    set_of(name).is_some() || last(name).as_deref() == Some("unnest")
}

/// The set that a function of this name returns; UNNEST is the planner's own.
pub(super) fn set_of(name: &ObjectName) -> Option<&'static Set> {
    let name = last(name)?;
    SETS.iter().find(|(set, ..)| *set == name)
}

fn last(name: &ObjectName) -> Option<String> {
    Some(fold(name.0.last()?.as_ident()?))
}

/// Whether a function of this name gives one value.
pub(super) fn returns_value(name: &ObjectName) -> bool {
    let known = |name: &String| FUNCTIONS.scalar.contains_key(name) || system::is_function(name);
    !returns_set(name) && !is_recordset(name) && last(name).as_ref().is_some_and(known)
}

/// Whether what a call of this name gives in FROM are rows of its own; those of a window are of
/// another item.
pub(super) fn gives_rows(name: &ObjectName) -> bool {
    returns_set(name) || is_recordset(name) || returns_value(name) || is_rows_from(name)
}

/// Whether an item of FROM is such a call.
pub(super) fn is_call(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::UNNEST { .. } => true,
        TableFactor::Table { name, .. } | TableFactor::Function { name, .. } => gives_rows(name),
        _ => false,
    }
}

/// The alias of a set with one column that has a name of its own.
pub(super) fn alias_of_named_set(factor: &TableFactor) -> Option<Ident> {
    let (name, alias) = match factor {
        TableFactor::Table { name, alias: Some(alias), args: Some(_), .. }
        | TableFactor::Function { name, alias: Some(alias), .. } => (name, alias),
        _ => return None,
    };
    let one = matches!(set_of(name)?.2, ["value"]);
    (one && alias.columns.is_empty()).then(|| alias.name.clone())
}

/// The expressions among arguments.
pub(super) fn exprs_of(args: &[FunctionArg]) -> Vec<Expr> {
    let expr = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e))
        | FunctionArg::Named { arg: FunctionArgExpr::Expr(e), .. }
        | FunctionArg::ExprNamed { arg: FunctionArgExpr::Expr(e), .. } => Some(e.clone()),
        _ => None,
    };
    args.iter().filter_map(expr).collect()
}

/// Sets the calls of an item of FROM aside, ahead of the rewrite of what is inside of it: those of
/// sets as their arguments, since a set in an expression is another thing, and those that give one
/// value as expressions. Each goes by its function's name.
pub(super) fn set_aside(factor: &mut TableFactor) {
    if let Some((functions, _)) = rows_from(factor) {
        for function in functions {
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = function {
                *function = match expr {
                    Expr::Function(f) => named(f.clone()),
                    // A list of columns is looked at behind.
                    Expr::Named { .. } => continue,
                    value => argument(name_of(value), value.clone()),
                };
            }
        }
        return;
    }
    let (name, args, alias, with_ordinality) = match factor {
        TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. }
            if returns_value(name) =>
        {
            let args = std::mem::take(&mut args.args);
            let list =
                FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() };
            (name.clone(), FunctionArguments::List(list), alias, *with_ordinality)
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } if returns_value(name) => {
            let args = std::mem::take(args);
            let list =
                FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() };
            (name.clone(), FunctionArguments::List(list), alias, *with_ordinality)
        }
        _ => return,
    };
    // All that is known by its name is of this schema.
    let parts = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect::<Vec<_>>();
    let name = match parts.as_slice() {
        [schema, own] if fold(schema) == "pg_catalog" => ObjectName::from(vec![own.clone()]),
        _ => name,
    };
    let call = Function {
        name,
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args,
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    };
    *factor = rows_from_factor(vec![named(call)], alias.take(), with_ordinality);
}

/// A call under the name of its function: of a set the arguments, as a tuple.
fn named(call: Function) -> FunctionArg {
    let name = last(&call.name).unwrap_or_default();
    let expr = match (returns_set(&call.name), &call.args) {
        (true, FunctionArguments::List(list)) => Expr::Tuple(exprs_of(&list.args)),
        _ => Expr::Function(call),
    };
    argument(name, expr)
}

fn argument(name: String, expr: Expr) -> FunctionArg {
    let (name, operator) = (Ident::with_quote('"', name), FunctionArgOperator::RightArrow);
    FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), operator }
}

/// A function in FROM or UNNEST as an UNNEST with names for its columns.
pub(super) fn unnested(mut factor: TableFactor) -> Result<TableFactor> {
    if let Some((functions, _)) = rows_from(&mut factor) {
        let sides = functions.iter().filter_map(|f| Side::of(f).transpose());
        let sides = sides.collect::<Result<Vec<Side>>>()?;
        return match factor {
            TableFactor::Table { alias, with_ordinality, .. }
            | TableFactor::Function { alias, with_ordinality, .. } => {
                factor_of(sides, alias, with_ordinality)
            }
            other => Ok(other),
        };
    }
    match factor {
        TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. }
            if returns_set(&name) =>
        {
            let name = last(&name).unwrap_or_default();
            factor_of(vec![Side::of_set(&name, exprs_of(&args.args))], alias, with_ordinality)
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } if returns_set(&name) => {
            let name = last(&name).unwrap_or_default();
            factor_of(vec![Side::of_set(&name, exprs_of(&args))], alias, with_ordinality)
        }
        TableFactor::UNNEST { alias, array_exprs, with_ordinality, with_offset: false, .. } => {
            factor_of(vec![Side::of_set("unnest", array_exprs)], alias, with_ordinality)
        }
        other => Ok(other),
    }
}

/// What one function gives.
struct Side {
    function: String,
    /// Its columns as lists.
    lists: Vec<Expr>,
    names: Vec<String>,
    /// What values become of those in the lists; there may be none.
    types: Vec<Option<DataType>>,
    /// Whether a column that is the only one is called like the item.
    by_alias: bool,
}

impl Side {
    fn of(arg: &FunctionArg) -> Result<Option<Self>> {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Named { expr, name })) = arg else {
            return Ok(Self::of_named(arg));
        };
        let mut side = Self {
            function: name_of(expr),
            lists: Vec::new(),
            names: Vec::new(),
            types: Vec::new(),
            by_alias: false,
        };
        for column in columns_of(expr, &name.value)? {
            side.lists.push(column.list);
            side.names.push(column.name);
            side.types.push(column.data_type);
        }
        // The one column of a record is called like the item only where sets are.
        Ok(Some(side))
    }

    fn of_named(arg: &FunctionArg) -> Option<Self> {
        let FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } = arg else {
            return None;
        };
        Some(match expr {
            Expr::Tuple(args) => Self::of_set(&name.value, args.clone()),
            value => Self {
                function: name.value.clone(),
                lists: vec![call("make_array", vec![value.clone()])],
                names: vec![name.value.clone()],
                types: Vec::new(),
                by_alias: true,
            },
        })
    }

    fn of_set(function: &str, args: Vec<Expr>) -> Self {
        let Some((_, lists, names)) = SETS.iter().find(|(set, ..)| *set == function) else {
            let names = vec![function.to_owned(); args.len()];
            return Self {
                function: function.into(),
                lists: args,
                names,
                types: Vec::new(),
                by_alias: true,
            };
        };
        let by_alias = names.is_empty();
        let names = if by_alias { &[function][..] } else { names };
        Self {
            function: function.into(),
            lists: lists.iter().map(|list| call(list, args.clone())).collect(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            types: Vec::new(),
            by_alias,
        }
    }
}

fn factor_of(sides: Vec<Side>, alias: Option<TableAlias>, ordinality: bool) -> Result<TableFactor> {
    let named_by = match (sides.as_slice(), &alias) {
        ([Side { by_alias: true, names, .. }], Some(alias)) if names.len() == 1 => {
            Some(fold(&alias.name))
        }
        _ => None,
    };
    let function = sides.first().map(|side| side.function.clone()).unwrap_or_default();
    let (mut exprs, mut names, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for side in sides {
        types.extend(side.types);
        types.resize(types.len().max(exprs.len() + side.lists.len()), None);
        exprs.extend(side.lists);
        names.extend(side.names);
    }
    if let (Some(alias), [only]) = (named_by, names.as_mut_slice()) {
        *only = alias;
    }
    tell_apart(&mut exprs);
    if ordinality {
        exprs.push(call("pg_ordinality", exprs.clone()));
        names.push("ordinality".to_owned());
        types.push(None);
    }
    let mut alias = alias.unwrap_or_else(|| TableAlias {
        explicit: true,
        name: Ident::with_quote('"', function),
        columns: Vec::new(),
        at: None,
    });
    let given = alias.columns.len();
    if given > names.len() {
        let (table, n) = (fold(&alias.name), names.len());
        return Err(Error::user(
            sqlstate::INVALID_COLUMN_REFERENCE,
            format!("table \"{table}\" has {n} columns available but {given} columns specified"),
        ));
    }
    alias.columns.extend(rest_of(&names, given));
    let lists = |alias| TableFactor::UNNEST {
        alias: Some(alias),
        array_exprs: exprs,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    };
    match types.iter().any(Option::is_some) {
        true => typed(lists, alias, types),
        false => Ok(lists(alias)),
    }
}

/// A query over lists that gives their values types.
fn typed(
    lists: impl FnOnce(TableAlias) -> TableFactor,
    alias: TableAlias,
    types: Vec<Option<DataType>>,
) -> Result<TableFactor> {
    let parsed =
        Parser::new(&DIALECT).try_with_sql("SELECT 1 FROM t").and_then(|mut p| p.parse_query());
    let mut query = parsed.map_err(|e| Error::internal(e.to_string()))?;
    if let SetExpr::Select(select) = query.body.as_mut()
        && let Some(from) = select.from.first_mut()
    {
        let column = |i: usize| Ident::with_quote('"', format!("{MARK}column{i}"));
        let items = alias.columns.iter().zip(types).enumerate().map(|(i, (name, data_type))| {
            let mut expr = Expr::Identifier(column(i));
            if let Some(data_type) = data_type {
                expr = cast(expr, data_type);
                desugar_expr(&mut expr)?;
            }
            Ok(SelectItem::ExprWithAlias { expr, alias: name.name.clone() })
        });
        select.projection = items.collect::<Result<_>>()?;
        let columns = (0..alias.columns.len())
            .map(|i| TableAliasColumnDef { name: column(i), data_type: None });
        let name = Ident::with_quote('"', format!("{MARK}columns"));
        let columns = columns.collect();
        from.relation = lists(TableAlias { explicit: true, name, columns, at: None });
    }
    let alias = Some(TableAlias { columns: Vec::new(), ..alias });
    Ok(TableFactor::Derived { lateral: true, subquery: query, alias, sample: None })
}

/// The columns behind those that have got names. Some may be called alike, where the planner wants
/// each name once.
fn rest_of(names: &[String], given: usize) -> impl Iterator<Item = TableAliasColumnDef> {
    let rest = names.get(given..).unwrap_or_default();
    rest.iter().enumerate().map(|(i, name)| {
        let again = rest.iter().filter(|other| *other == name).count() > 1;
        let name = if again { format!("{name}{MARK}{i}") } else { name.clone() };
        TableAliasColumnDef { name: Ident::with_quote('"', name), data_type: None }
    })
}

/// The planner knows lists by what they are written as: one that comes again is written otherwise.
fn tell_apart(lists: &mut [Expr]) {
    for i in 1..lists.len() {
        while lists[..i].contains(&lists[i]) {
            lists[i] = call("coalesce", vec![lists[i].clone()]);
        }
    }
}
