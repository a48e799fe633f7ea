//! UNNEST of columns of the relations beside it in FROM.
//!
//! The planner leaves `FROM t, UNNEST(t.a) AS u(x)` as a join with a lateral subquery. It is a
//! projection of the left rows and the arrays, unnested: no join at all.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, NullHandling, Result as DfResult, TableReference};
use datafusion::logical_expr::builder::unnest_with_options;
use datafusion::logical_expr::{
    Expr, Filter, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Unnest, lit, when,
};

use super::binder::Purpose;
use super::errors::plan_error;
use super::functions::FUNCTIONS;
use crate::error::Result;
use crate::expr::{Walk, WalkPlan};

/// The column that has a value where there is a row of the right side.
const THERE: &str = "\u{1}there";

/// Rewrites a plan that the SQL planner made.
///
/// What refers to nothing beside it is joined like any other relation in a read, where a condition
/// can then be met by hashing; a view keeps no rows for it that way.
pub(super) fn unnest_laterals(plan: LogicalPlan, purpose: Purpose) -> Result<LogicalPlan> {
    let rewritten = plan.map_nodes_up(|node| match node {
        LogicalPlan::Join(join) => match lateral(&join, purpose)? {
            Some(plan) => Ok(Transformed::yes(plan)),
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        other => Ok(Transformed::no(other)),
    });
    rewritten.map(|t| t.data).map_err(plan_error)
}

/// The same join without LATERAL, which its right side does not need.
fn apart(join: &Join) -> DfResult<Option<LogicalPlan>> {
    let right = Arc::unwrap_or_clone(Arc::clone(&join.right));
    let right = right.transform_down(|node| match node {
        LogicalPlan::Subquery(node) => Ok(Transformed::yes(Arc::unwrap_or_clone(node.subquery))),
        other => Ok(Transformed::no(other)),
    })?;
    let right = Arc::new(right.data);
    Ok(Some(LogicalPlan::Join(Join { right, ..join.clone() })))
}

/// The right side of such a join, taken apart.
struct Side {
    /// The projections over the unnested columns, the lowest first, each with the name that its
    /// columns are known by above it.
    projections: Vec<(Option<TableReference>, Vec<Expr>)>,
    unnest: Unnest,
    /// The arrays.
    lists: Vec<Expr>,
}

fn lateral(join: &Join, purpose: Purpose) -> DfResult<Option<LogicalPlan>> {
    let on_true = join.filter.as_ref().is_none_or(|f| *f == lit(true));
    let outer = match join.join_type {
        JoinType::Inner => false,
        JoinType::Left if on_true && join.on.is_empty() => true,
        _ => return Ok(None),
    };
    let Some(side) = side_of(&join.right) else { return Ok(None) };
    let outer_column = |e: &Expr| Ok(matches!(e, Expr::OuterReferenceColumn(..)));
    let independent = side.lists.iter().all(|e| !e.exists(outer_column).unwrap_or(true));
    if independent && purpose == Purpose::AdHoc {
        return apart(join);
    }
    let left = Arc::unwrap_or_clone(Arc::clone(&join.left));
    let left_columns: Vec<Expr> = left.schema().iter().map(Expr::from).collect();
    let local = |e: &Expr| {
        let local = e.clone().transform_up(|e| match e {
            Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
            other => Ok(Transformed::no(other)),
        });
        local.map(|t| t.data)
    };
    let with_left = |exprs: &[Expr]| -> DfResult<Vec<Expr>> {
        let right = exprs.iter().map(local);
        left_columns.iter().cloned().map(Ok).chain(right).collect()
    };
    let mut lists = side.lists.clone();
    let mut unnested = side.unnest.exec_columns.clone();
    let mut options = side.unnest.options.clone();
    if outer {
        options.null_handling = NullHandling::PreserveAndExpandEmpty;
    }
    let there = outer.then(|| side.row_is_there()).flatten();
    if let Some(list) = &there {
        lists.push(list.clone().alias(THERE));
        unnested.push(Column::from_name(THERE));
    }
    let input = LogicalPlanBuilder::from(left).project(with_left(&lists)?)?.build()?;
    let mut plan = unnest_with_options(input, unnested, options)?;
    let count = side.projections.len();
    for (i, (alias, exprs)) in side.projections.iter().enumerate() {
        let mut exprs = with_left(exprs)?;
        let last = i + 1 == count;
        for e in exprs.iter_mut().skip(left_columns.len()) {
            let (qualifier, name) = e.qualified_name();
            let mut value = std::mem::take(e).unalias();
            if last && there.is_some() {
                value = when(col_of(THERE).is_not_null(), value).end()?;
            }
            let qualifier = alias.clone().or(qualifier);
            *e = value.alias_qualified(qualifier, name);
        }
        if !last && there.is_some() {
            exprs.push(col_of(THERE));
        }
        plan = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
    }
    for (l, r) in &join.on {
        plan = LogicalPlan::Filter(Filter::try_new(l.clone().eq(r.clone()), Arc::new(plan))?);
    }
    match &join.filter {
        Some(filter) if !on_true => {
            Ok(Some(LogicalPlan::Filter(Filter::try_new(filter.clone(), Arc::new(plan))?)))
        }
        _ => Ok(Some(plan)),
    }
}

impl Side {
    /// A list with an element for each row, unless all columns are without a value anyway where
    /// there is no row.
    fn row_is_there(&self) -> Option<Expr> {
        let mut exprs = self.projections.iter().flat_map(|(_, exprs)| exprs);
        if exprs.all(|e| matches!(e.clone().unalias(), Expr::Column(_))) {
            return None;
        }
        let ordinality = FUNCTIONS.scalar.get("pg_ordinality")?;
        Some(ordinality.call(self.lists.iter().map(|list| list.clone().unalias()).collect()))
    }
}

fn col_of(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

/// A lateral subquery that unnests arrays and does nothing else.
fn side_of(plan: &LogicalPlan) -> Option<Side> {
    let (mut alias, mut projections) = (None, Vec::new());
    let mut at = plan;
    let unnest = loop {
        match at {
            LogicalPlan::SubqueryAlias(node) => {
                alias = alias.take().or_else(|| Some(node.alias.clone()));
                at = &node.input;
            }
            LogicalPlan::Subquery(node) => at = &node.subquery,
            LogicalPlan::Projection(node) => {
                projections.push((alias.take(), node.expr.clone()));
                at = &node.input;
            }
            LogicalPlan::Unnest(node) => break node,
            _ => return None,
        }
    };
    let LogicalPlan::Projection(lists) = unnest.input.as_ref() else { return None };
    if !matches!(lists.input.as_ref(), LogicalPlan::EmptyRelation(e) if e.produce_one_row) {
        return None;
    }
    projections.reverse();
    // Without a projection on top there would be no place for the alias.
    (!projections.is_empty()).then(|| Side {
        projections,
        unnest: unnest.clone(),
        lists: lists.expr.clone(),
    })
}
