//! `ARRAY (SELECT ..)`: the rows of a query with one column as an array, which is empty when there
//! are none. It is `array_agg` in the order of the query; without one, of the values.

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Ident, ObjectName, OrderByExpr, OrderByKind, Query, SelectItem,
    SetExpr, TableFactor, Value,
};
use sqlparser::parser::Parser;

use super::dialect::DIALECT;
use super::functions::FUNCTIONS;
use super::names::MARK;
use super::parser::fold;
use super::scopes::names_of;
use super::sets::returns_set;
use super::visit::any_expr;
use crate::error::{Error, Result};

/// The array of a query's rows.
pub(super) fn array_of(query: &Query) -> Result<Expr> {
    match plain_array(query) {
        Err(refusal) => gathered(query)?.ok_or(refusal),
        plain => plain,
    }
}

/// The rows of a query of any form, which stands in FROM: what it is ordered by is in its list.
fn gathered(query: &Query) -> Result<Option<Expr>> {
    let mut query = query.clone();
    let mut keys = Vec::new();
    if let Some(order) = &query.order_by {
        let OrderByKind::Expressions(order) = &order.kind else { return Ok(None) };
        let SetExpr::Select(select) = query.body.as_mut() else { return Ok(None) };
        let (item, alias) = match select.projection.as_slice() {
            [SelectItem::UnnamedExpr(item)] => (item.clone(), None),
            [SelectItem::ExprWithAlias { expr, alias }] => (expr.clone(), Some(fold(alias))),
            _ => return Ok(None),
        };
        for key in order {
            let is_item = key.expr == item
                || match &key.expr {
                    Expr::Identifier(ident) => Some(fold(ident)) == alias,
                    Expr::Value(value) => matches!(&value.value, Value::Number(n, _) if n == "1"),
                    _ => false,
                };
            let column = match is_item {
                true => 0,
                // DISTINCT would count the key as well.
                false if select.distinct.is_some() => return Ok(None),
                false => {
                    let alias = Ident::with_quote('"', column_name(select.projection.len()));
                    let expr = key.expr.clone();
                    select.projection.push(SelectItem::ExprWithAlias { expr, alias });
                    select.projection.len() - 1
                }
            };
            let expr = Expr::Identifier(Ident::with_quote('"', column_name(column)));
            keys.push(OrderByExpr { expr, ..key.clone() });
        }
    }
    let columns = match query.body.as_ref() {
        SetExpr::Select(select) => select.projection.len(),
        _ => 1,
    };
    let clauses = match keys.is_empty() {
        true => Vec::new(),
        false => vec![FunctionArgumentClause::OrderBy(keys)],
    };
    let names: Vec<String> = (0..columns).map(|i| format!("\"{}\"", column_name(i))).collect();
    let text = format!("SELECT 1 FROM (SELECT 1) AS \"{MARK}rows\"({})", names.join(", "));
    let parsed = Parser::new(&DIALECT).try_with_sql(&text).and_then(|mut p| p.parse_query());
    let mut outer = parsed.map_err(|e| Error::internal(e.to_string()))?;
    if let SetExpr::Select(select) = outer.body.as_mut() {
        let value = Expr::Identifier(Ident::with_quote('"', column_name(0)));
        select.projection = vec![SelectItem::UnnamedExpr(call("array_agg", vec![value], clauses))];
        for table in &mut select.from {
            if let TableFactor::Derived { subquery, .. } = &mut table.relation {
                **subquery = query.clone();
            }
        }
    }
    let empty = Expr::value(Value::SingleQuotedString("{}".into()));
    Ok(Some(call("coalesce", vec![Expr::Subquery(outer), empty], Vec::new())))
}

fn column_name(i: usize) -> String {
    format!("{MARK}{i}")
}

/// The rows of a query that is nothing but a SELECT of them.
fn plain_array(query: &Query) -> Result<Expr> {
    let mut query = query.clone();
    let order = match query.order_by.take().map(|order| order.kind) {
        None => Vec::new(),
        Some(OrderByKind::Expressions(order)) => order,
        Some(OrderByKind::All(_)) => return Err(refused()),
    };
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return Err(refused());
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return Err(refused()) };
    let plain = matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty());
    if !plain || select.distinct.is_some() || select.having.is_some() {
        return Err(refused());
    }
    let (item, alias) = match select.projection.as_slice() {
        [SelectItem::UnnamedExpr(item)] => (item.clone(), None),
        [SelectItem::ExprWithAlias { expr, alias }] => (expr.clone(), Some(fold(alias))),
        _ => return Err(refused()),
    };
    // An aggregate of nothing but constants or columns of a query around would belong there.
    if has_aggregate(&item) || has_set(&item) || !has_own_column(&item, &names_of(&select.from)) {
        return Err(refused());
    }
    let order = order.into_iter().map(|mut key| {
        let named = match &key.expr {
            Expr::Identifier(ident) => Some(fold(ident)) == alias,
            Expr::Value(value) => matches!(&value.value, Value::Number(n, _) if n == "1"),
            _ => false,
        };
        if named {
            key.expr = item.clone();
        }
        key
    });
    let order: Vec<OrderByExpr> = order.collect();
    let clauses = match order.is_empty() {
        true => Vec::new(),
        false => vec![FunctionArgumentClause::OrderBy(order)],
    };
    select.projection = vec![SelectItem::UnnamedExpr(call("array_agg", vec![item], clauses))];
    let empty = Expr::value(Value::SingleQuotedString("{}".into()));
    Ok(call("coalesce", vec![Expr::Subquery(Box::new(query)), empty], Vec::new()))
}

fn refused() -> Error {
    Error::unsupported("ARRAY (subquery) is not supported in this form")
        .with_hint("Write (SELECT array_agg(x ORDER BY x) FROM (..) AS q(x)).")
}

/// Whether an expression may have a column of these tables: one without a table's name may.
fn has_own_column(expr: &Expr, tables: &[String]) -> bool {
    any_expr(expr, &|e| match e {
        Expr::Identifier(_) => true,
        Expr::CompoundIdentifier(parts) => {
            parts.iter().rev().nth(1).is_some_and(|table| tables.contains(&fold(table)))
        }
        _ => false,
    })
}

fn has_set(expr: &Expr) -> bool {
    any_expr(expr, &|e| matches!(e, Expr::Function(f) if returns_set(&f.name)))
}

fn has_aggregate(expr: &Expr) -> bool {
    any_expr(expr, &|e| match e {
        Expr::Function(f) => {
            let name = f.name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
            FUNCTIONS.aggregate.contains_key(&name) || f.over.is_some()
        }
        _ => false,
    })
}

fn call(name: &str, args: Vec<Expr>, clauses: Vec<FunctionArgumentClause>) -> Expr {
    let args = args.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e)));
    let list = FunctionArgumentList { duplicate_treatment: None, args: args.collect(), clauses };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::with_quote('"', name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
