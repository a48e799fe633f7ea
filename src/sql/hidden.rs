//! `SELECT -x AS x .. ORDER BY t.x`: PostgreSQL orders by the column of the table, DataFusion can't
//! tell it from the column of the list. That one gets another name, and its own back around the
//! query.

use sqlparser::ast::{
    Expr, GroupByExpr, Ident, OrderBy, OrderByKind, Query, SelectItem, SetExpr, TableFactor,
};
use sqlparser::parser::Parser;

use super::dialect::DIALECT;
use super::names::{MARK, name_of};
use super::parser::fold;
use super::visit::{Inspect, Stop, walk};

/// Renames the columns that ORDER BY does not mean; the outermost query may show marked names.
pub(super) fn rename_hidden(query: &mut Query, outermost: bool) {
    let wanted = columns_of_tables(query.order_by.as_ref());
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    if wanted.is_empty() || select.distinct.is_some() {
        return;
    }
    let mut renamed = Vec::new();
    for item in &mut select.projection {
        let SelectItem::ExprWithAlias { expr, alias } = item else { continue };
        let name = fold(alias);
        let hides = |column: &Vec<Ident>| {
            column.last().is_some_and(|last| fold(last) == name)
                && !matches!(expr, Expr::CompoundIdentifier(c) if c == column)
        };
        if wanted.iter().any(hides) {
            let marked = Ident::with_quote('"', format!("{name}{MARK}h"));
            renamed.push((name, std::mem::replace(alias, marked.clone()), marked));
        }
    }
    if renamed.is_empty() {
        return;
    }
    order_by_new_names(query, &renamed);
    if !outermost {
        put_back(query, &renamed);
    }
}

/// Marks the names that stand beside a `*` in the list of the outermost query, which may have
/// columns of the same name; false where there is no `*`.
pub(super) fn mark_beside_star(query: &mut Query) -> bool {
    let SetExpr::Select(select) = query.body.as_mut() else { return false };
    let star = |item: &SelectItem| {
        matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
    };
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty());
    if select.distinct.is_some() || grouped || !select.projection.iter().any(star) {
        return false;
    }
    let mut renamed = Vec::new();
    for (i, item) in select.projection.iter_mut().enumerate() {
        let (expr, old) = match item {
            SelectItem::UnnamedExpr(expr) => (expr.clone(), Ident::with_quote('"', name_of(expr))),
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), alias.clone()),
            _ => continue,
        };
        let name = fold(&old);
        let alias = Ident::with_quote('"', format!("{name}{MARK}s{i}"));
        renamed.push((name, old, alias.clone()));
        *item = SelectItem::ExprWithAlias { expr, alias };
    }
    order_by_new_names(query, &renamed);
    true
}

/// Columns that were renamed: the folded name, the name as it was written, the new one.
type Renamed = (String, Ident, Ident);

fn order_by_new_names(query: &mut Query, renamed: &[Renamed]) {
    if let Some(OrderBy { kind: OrderByKind::Expressions(orders), .. }) = &mut query.order_by {
        for order in orders {
            let Expr::Identifier(ident) = &order.expr else { continue };
            if let Some((.., marked)) = renamed.iter().find(|(name, ..)| *name == fold(ident)) {
                order.expr = Expr::Identifier(marked.clone());
            }
        }
    }
}

/// The columns that ORDER BY names with their tables.
fn columns_of_tables(order_by: Option<&OrderBy>) -> Vec<Vec<Ident>> {
    struct Columns(Vec<Vec<Ident>>);
    impl Inspect for Columns {
        fn pre_expr(&mut self, expr: &Expr) -> Result<(), Stop> {
            if let Expr::CompoundIdentifier(column) = expr {
                self.0.push(column.clone());
            }
            Ok(())
        }
    }
    let mut columns = Columns(Vec::new());
    if let Some(OrderBy { kind: OrderByKind::Expressions(orders), .. }) = order_by {
        // It never fails.
        let _done = walk(orders, &mut columns);
    }
    columns.0
}

/// Wraps a query in one that gives its columns their names.
fn put_back(query: &mut Query, renamed: &[Renamed]) {
    let SetExpr::Select(select) = query.body.as_ref() else { return };
    let names = select.projection.iter().map(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last(),
        _ => None,
    });
    let Some(names) = names.collect::<Option<Vec<_>>>() else { return };
    let items = names.into_iter().map(|name| {
        let old = renamed.iter().find(|(.., marked)| marked == name).map(|(_, old, _)| old);
        format!("{name} AS {}", old.unwrap_or(name))
    });
    let items: Vec<String> = items.collect();
    let text = format!("SELECT {} FROM (SELECT 1) AS \"{MARK}q\"", items.join(", "));
    let parsed = Parser::new(&DIALECT).try_with_sql(&text).and_then(|mut p| p.parse_query());
    let Ok(mut outer) = parsed else { return };
    if let SetExpr::Select(select) = outer.body.as_mut()
        && let Some(TableFactor::Derived { subquery, .. }) =
            select.from.first_mut().map(|from| &mut from.relation)
    {
        std::mem::swap(subquery.as_mut(), query);
        *query = *outer;
    }
}
