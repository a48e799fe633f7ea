//! Aggregates of an outer query inside of a subquery: `SELECT (SELECT max(o.k)) FROM o`.
//!
//! An aggregate belongs to the query whose columns its arguments are of, and is computed there. A
//! subquery without FROM gives one row, so its expression may stand in its place, and the aggregate
//! is where it belongs. One in a subquery with FROM is refused.

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr as plan;
use sqlparser::ast::{Expr, GroupByExpr, Query, Select, SelectItem, SetExpr};

use super::functions::FUNCTIONS;
use super::parser::fold;
use super::scopes::Scopes;
use super::visit::{Inspect, Rewrite, Stop, walk, walk_mut};
use crate::error::{Error, Result};
use crate::expr::{Walk, to_datafusion};

/// Puts the expressions of subqueries in their place that have an aggregate of an outer query.
pub(super) fn inline_outer_aggregates(query: &mut Query) -> Result<()> {
    struct Inline;
    impl Rewrite for Inline {
        fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
            if let Expr::Subquery(query) = expr
                && let Some(only) = only_expression(query)
                && has_outer_aggregate(only)
            {
                *expr = Expr::Nested(Box::new(only.clone()));
            }
            Ok(())
        }
    }
    walk_mut(query, &mut Inline)
}

/// The expression of a query that is nothing else.
fn only_expression(query: &Query) -> Option<&Expr> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty());
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && select.from.is_empty()
        && select.selection.is_none()
        && select.having.is_none()
        && select.qualify.is_none()
        && select.distinct.is_none()
        && ungrouped;
    match select.projection.as_slice() {
        [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] if plain => {
            Some(expr)
        }
        _ => None,
    }
}

/// Whether an expression calls an aggregate, outside of subqueries, of a column.
fn has_outer_aggregate(expr: &Expr) -> bool {
    struct Aggregates {
        depth: usize,
    }
    impl Inspect for Aggregates {
        fn pre_query(&mut self, _query: &Query) -> Result<(), Stop> {
            self.depth += 1;
            Ok(())
        }

        fn post_query(&mut self, _query: &Query) -> Result<(), Stop> {
            self.depth -= 1;
            Ok(())
        }

        fn pre_expr(&mut self, expr: &Expr) -> Result<(), Stop> {
            let Expr::Function(f) = expr else { return Ok(()) };
            let name = f.name.0.last().and_then(|part| part.as_ident()).map(fold);
            let aggregate = name.is_some_and(|name| FUNCTIONS.aggregate.contains_key(&name));
            let mut columns = Columns { scopes: Scopes::default() };
            let of_column = aggregate
                && self.depth == 0
                && f.over.is_none()
                && (matches!(walk(&f.args, &mut columns), Ok(true))
                    || matches!(walk(&f.filter, &mut columns), Ok(true)));
            if of_column { Err(Stop::Found) } else { Ok(()) }
        }
    }
    matches!(walk(expr, &mut Aggregates { depth: 0 }), Ok(true))
}

/// Looks for a column that is not of a subquery inside of an argument.
struct Columns {
    scopes: Scopes,
}

impl Inspect for Columns {
    fn pre_query(&mut self, query: &Query) -> Result<(), Stop> {
        self.scopes.enter(query);
        Ok(())
    }

    fn post_query(&mut self, _query: &Query) -> Result<(), Stop> {
        self.scopes.leave();
        Ok(())
    }

    fn pre_select(&mut self, select: &Select) -> Result<(), Stop> {
        self.scopes.add(select);
        Ok(())
    }

    fn pre_expr(&mut self, expr: &Expr) -> Result<(), Stop> {
        let outer = match expr {
            Expr::Identifier(_) => self.scopes.is_outside(),
            Expr::CompoundIdentifier(parts) => {
                let table = parts.iter().rev().nth(1).map(fold);
                table.is_none_or(|table| !self.scopes.has(&table))
            }
            _ => false,
        };
        if outer { Err(Stop::Found) } else { Ok(()) }
    }
}

/// Refuses a subquery that would compute an aggregate of an outer query by itself.
pub(super) fn check_levels(subquery: &plan::LogicalPlan) -> DfResult<()> {
    subquery.apply(|node| {
        if let plan::LogicalPlan::Aggregate(aggregate) = node {
            for call in &aggregate.aggr_expr {
                let (mut own, mut outer) = (false, false);
                call.apply(|e| {
                    own |= matches!(e, plan::Expr::Column(_));
                    outer |= matches!(e, plan::Expr::OuterReferenceColumn(..));
                    // Whose columns a subquery inside names is told by its own check.
                    own |= matches!(e, plan::Expr::ScalarSubquery(_) | plan::Expr::Exists(_));
                    Ok(TreeNodeRecursion::Continue)
                })?;
                if outer && !own {
                    return Err(to_datafusion(
                        Error::unsupported(
                            "an aggregate of an outer query inside of a subquery with FROM is not \
                             supported",
                        )
                        .with_hint("Compute the aggregate in a subquery in FROM."),
                    ));
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}
