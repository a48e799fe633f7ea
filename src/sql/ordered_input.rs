//! `SELECT json_agg(q) FROM (SELECT .. ORDER BY k) q`: what puts its rows into a list takes them in
//! the order in which the subquery gives them, in PostgreSQL, and people count on it. Rows have no
//! order here, so the aggregate gets the subquery's ORDER BY as its own; and so does a read that is
//! nothing but rows of such a subquery, or the first of them: `SELECT * FROM (..) q LIMIT 10`.

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments,
    GroupByExpr, Ident, OrderBy, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr,
    TableFactor, Value,
};

use super::binder::Purpose;
use super::lifted::is_aggregate;
use super::names::MARK;
use super::parser::fold;
use super::scopes::name_of_factor;
use super::visit::{Rewrite, any_expr, any_outer_expr, walk_mut, walk_own_exprs_mut};
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
            let takes = |e: &Expr| matches!(e, Expr::Function(call) if takes_order(call));
            if !any_outer_expr(&select.projection, &takes)
                && !any_outer_expr(&select.having, &takes)
            {
                return Ok(());
            }
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
        && let SetExpr::Select(select) = query.body.as_mut()
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

/// The order of the one subquery in FROM, by its columns. What it is ordered by and does not show
/// becomes a column of it, as far as nobody looks at all of them.
fn order_of_input(select: &mut Select) -> Option<Vec<OrderByExpr>> {
    let [table] = select.from.as_slice() else { return None };
    let name = name_of_factor(&table.relation)?;
    let may_add = !shows_rows(select, &name);
    let [table] = select.from.as_mut_slice() else { return None };
    let TableFactor::Derived { subquery, alias: Some(alias), .. } = &mut table.relation else {
        return None;
    };
    let Some(OrderBy { kind: OrderByKind::Expressions(written), .. }) = &subquery.order_by else {
        return None;
    };
    let SetExpr::Select(inside) = subquery.body.as_mut() else { return None };
    if !table.joins.is_empty() || !alias.columns.is_empty() {
        return None;
    }
    let name = Ident::with_quote('"', name);
    let may_add = may_add && inside.distinct.is_none();
    // What is no column of the subquery ends the order that can be told.
    let mut keys = Vec::with_capacity(written.len());
    for order in written {
        let column = match column_of(inside, &order.expr) {
            Some(column) => column,
            None if may_add && !matches!(order.expr, Expr::Value(_)) => {
                let alias = Ident::with_quote('"', format!("{MARK}order{}", keys.len()));
                let (expr, column) = (order.expr.clone(), alias.clone());
                inside.projection.push(SelectItem::ExprWithAlias { expr, alias });
                column
            }
            None => break,
        };
        let expr = Expr::CompoundIdentifier(vec![name.clone(), column]);
        keys.push(OrderByExpr { expr, ..order.clone() });
    }
    Some(keys).filter(|keys| !keys.is_empty())
}

/// Whether a SELECT looks at whole rows of the item of FROM that has a name.
fn shows_rows(select: &Select, name: &str) -> bool {
    let star = |item: &SelectItem| {
        matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
    };
    let of_row = |e: &Expr| match e {
        Expr::Identifier(column) => fold(column) == name,
        Expr::QualifiedWildcard(..) | Expr::Wildcard(_) => true,
        Expr::Function(f) => match &f.args {
            FunctionArguments::List(list) => list.args.iter().any(|arg| {
                matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(_)))
            }),
            _ => false,
        },
        _ => false,
    };
    select.projection.iter().any(star)
        || any_expr(&select.projection, &of_row)
        || any_expr(&select.having, &of_row)
        || any_expr(&select.selection, &of_row)
        || any_expr(&select.group_by, &of_row)
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

/// Whether a call has an order of rows, and none is given.
fn takes_order(call: &Function) -> bool {
    let name = call.name.0.last().and_then(|part| part.as_ident()).map(fold);
    let ordered = name.is_some_and(|name| is_list(&name));
    let FunctionArguments::List(list) = &call.args else { return false };
    let has_order = list.clauses.iter().any(|c| matches!(c, FunctionArgumentClause::OrderBy(_)));
    let free = call.over.is_none() && call.within_group.is_empty() && !has_order;
    ordered && free && list.duplicate_treatment.is_none()
}

/// Orders a call that has no order.
fn put_order(call: &mut Function, order: &[OrderByExpr]) {
    if takes_order(call)
        && let FunctionArguments::List(list) = &mut call.args
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(order.to_vec()));
    }
}
