//! `ARRAY (SELECT ..)`: the rows of a query with one column as an array, which is empty when there
//! are none. It is `array_agg` in the order of the query; without one, of the values.

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Ident, ObjectName, OrderByExpr, OrderByKind, Query, SelectItem,
    SetExpr, Value,
};

use super::functions::FUNCTIONS;
use super::parser::fold;
use super::visit::any_expr;
use crate::error::{Error, Result};

/// The array of a query's rows.
pub(super) fn array_of(query: &Query) -> Result<Expr> {
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
    if has_aggregate(&item) {
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
