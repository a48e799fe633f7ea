//! `SELECT json_agg(q) FROM (SELECT .. ORDER BY k) q`: what puts its rows into a list takes them in
//! the order in which the subquery gives them, in PostgreSQL, and people count on it. Rows have no
//! order here, so the aggregate gets the subquery's ORDER BY as its own; and so does a read that is
//! nothing but rows of such a subquery, or the first of them: `SELECT * FROM (..) q LIMIT 10`.

use sqlparser::ast::{
    Expr, Function, FunctionArgumentClause, FunctionArguments, GroupByExpr, Ident, OrderBy,
    OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, Value,
};

use super::binder::Purpose;
use super::lifted::is_aggregate;
use super::parser::fold;
use super::scopes::name_of_factor;
use super::visit::{Rewrite, any_outer_expr, walk_mut, walk_own_exprs_mut};
use crate::error::Result;
use crate::library::{self, Order};

/// Whether a name is of an aggregate that makes a list of its rows.
fn is_list(name: &str) -> bool {
    library::aggregate(name).is_some_and(|f| f.order == Order::Lists)
}

/// Gives aggregates over an ordered subquery its order, and a read of its rows.
pub(super) fn order_inputs(query: &mut Query, purpose: Purpose) -> Result<()> {
    struct Inputs;
    impl Rewrite for Inputs {
        fn pre_select(&mut self, select: &mut Select) -> Result<()> {
            let Some(order) = order_of_input(select) else { return Ok(()) };
            let mut ordered = |expr: &mut Expr| {
                if let Expr::Function(call) = expr {
                    put_order(call, &order);
                }
                Ok(())
            };
            walk_own_exprs_mut(&mut select.projection, &mut ordered)?;
            walk_own_exprs_mut(&mut select.having, &mut ordered)
        }
    }
    if purpose == Purpose::AdHoc
        && query.order_by.is_none()
        && let SetExpr::Select(select) = query.body.as_ref()
        && gives_rows(select)
        && let Some(order) = order_of_input(select)
    {
        let kind = OrderByKind::Expressions(order);
        query.order_by = Some(OrderBy { kind, interpolate: None });
    }
    walk_mut(query, &mut Inputs)
}

/// Whether a SELECT makes a row of each row that it reads.
fn gives_rows(select: &Select) -> bool {
    let calls_aggregate = |e: &Expr| matches!(e, Expr::Function(f) if is_aggregate(f));
    matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty())
        && select.having.is_none()
        && select.distinct.is_none()
        && !any_outer_expr(&select.projection, &calls_aggregate)
}

/// The order of the one subquery in FROM, by its columns.
fn order_of_input(select: &Select) -> Option<Vec<OrderByExpr>> {
    let [table] = select.from.as_slice() else { return None };
    let TableFactor::Derived { subquery, alias: Some(alias), .. } = &table.relation else {
        return None;
    };
    let Some(OrderBy { kind: OrderByKind::Expressions(written), .. }) = &subquery.order_by else {
        return None;
    };
    let SetExpr::Select(inside) = subquery.body.as_ref() else { return None };
    if !table.joins.is_empty() || !alias.columns.is_empty() {
        return None;
    }
    let name = Ident::with_quote('"', name_of_factor(&table.relation)?);
    // What is no column of the subquery ends the order that can be told.
    let keys = written.iter().map_while(|order| {
        let column = column_of(inside, &order.expr)?;
        let expr = Expr::CompoundIdentifier(vec![name.clone(), column]);
        Some(OrderByExpr { expr, ..order.clone() })
    });
    Some(keys.collect::<Vec<_>>()).filter(|keys| !keys.is_empty())
}

/// The column of a list that ORDER BY means.
fn column_of(select: &Select, order: &Expr) -> Option<Ident> {
    if let Expr::Value(value) = order {
        let Value::Number(number, _) = &value.value else { return None };
        let at = number.parse::<usize>().ok()?.checked_sub(1)?;
        let before = select.projection.get(..=at)?;
        let is_one = |item: &SelectItem| {
            matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. })
        };
        return before.iter().all(is_one).then(|| name_of_item(&before[at])).flatten();
    }
    let listed = select.projection.iter().find_map(|item| {
        let name = name_of_item(item)?;
        let is_it = match (order, item) {
            (Expr::Identifier(wanted), _) if fold(wanted) == fold(&name) => true,
            (_, SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => {
                expr == order
            }
            _ => false,
        };
        is_it.then_some(name)
    });
    let has_star = || select.projection.iter().any(|i| matches!(i, SelectItem::Wildcard(_)));
    match order {
        // A column of the only table is in its `*`.
        Expr::Identifier(column) if listed.is_none() && select.from.len() == 1 && has_star() => {
            select.from[0].joins.is_empty().then(|| column.clone())
        }
        _ => listed,
    }
}

fn name_of_item(item: &SelectItem) -> Option<Ident> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.clone()),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().cloned(),
        _ => None,
    }
}

/// Orders a call that has no order.
fn put_order(call: &mut Function, order: &[OrderByExpr]) {
    let name = call.name.0.last().and_then(|part| part.as_ident()).map(fold);
    let ordered = name.is_some_and(|name| is_list(&name));
    let FunctionArguments::List(list) = &mut call.args else { return };
    let has_order = list.clauses.iter().any(|c| matches!(c, FunctionArgumentClause::OrderBy(_)));
    let free = call.over.is_none() && call.within_group.is_empty() && !has_order;
    if ordered && free && list.duplicate_treatment.is_none() {
        list.clauses.push(FunctionArgumentClause::OrderBy(order.to_vec()));
    }
}
