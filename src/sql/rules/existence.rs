//! Semijoins and antijoins below joins: whether a row of `a` has a partner in `s` is the same
//! before `a` is joined with `b` as behind it, so that `(a JOIN b) SEMIJOIN s` by columns of `a` is
//! `(a SEMIJOIN s) JOIN b`. A view then keeps the rows of `a` that pass, or none where `a` is
//! stored, instead of all pairs of `a` and `b`.
//!
//! They go down the sides of inner joins, and the side of an outer join whose rows are all kept,
//! through filters and projections that only choose columns. What is compared must not fail: the
//! rows that the join leaves out would be compared, too.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::{Expr, Filter, Join, JoinType, LogicalPlan, Operator, Projection};

use crate::expr::Walk;

/// A semijoin or antijoin one step further down, where it can go there.
pub(super) fn moved(plan: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(existence) = &plan else { return Ok(Transformed::no(plan)) };
    let asks = matches!(existence.join_type, JoinType::LeftSemi | JoinType::LeftAnti);
    if !asks || existence.null_aware || !is_harmless(existence)? {
        return Ok(Transformed::no(plan));
    }
    Ok(match into(existence, &existence.left)? {
        Some(moved) => Transformed::yes(moved),
        None => Transformed::no(plan),
    })
}

/// A semijoin or antijoin of a plan, below the first join in it.
fn into(existence: &Join, plan: &LogicalPlan) -> DfResult<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Join(join) => below(existence, join),
        LogicalPlan::Filter(filter) => {
            let Some(input) = into(existence, &filter.input)? else { return Ok(None) };
            let filter = Filter::try_new(filter.predicate.clone(), Arc::new(input))?;
            Ok(Some(LogicalPlan::Filter(filter)))
        }
        LogicalPlan::Projection(projection) if chooses(projection) => {
            let Some(input) = into(existence, &projection.input)? else { return Ok(None) };
            let (chosen, schema) = (projection.expr.clone(), Arc::clone(&projection.schema));
            let projection = Projection::try_new_with_schema(chosen, Arc::new(input), schema)?;
            Ok(Some(LogicalPlan::Projection(projection)))
        }
        _ => Ok(None),
    }
}

fn below(existence: &Join, join: &Join) -> DfResult<Option<LogicalPlan>> {
    if join.null_aware {
        return Ok(None);
    }
    let (left, right) = (&join.left, &join.right);
    let keeps_left = matches!(join.join_type, JoinType::Inner | JoinType::Left);
    let keeps_right = matches!(join.join_type, JoinType::Inner | JoinType::Right);
    let over = |side: &Arc<LogicalPlan>| {
        Join::try_new(
            Arc::clone(side),
            Arc::clone(&existence.right),
            existence.on.clone(),
            existence.filter.clone(),
            existence.join_type,
            existence.join_constraint,
            existence.null_equality,
            false,
        )
        .map(|join| Arc::new(LogicalPlan::Join(join)))
    };
    let (left, right) = match () {
        () if keeps_left && reads_only(existence, left.schema()) => (over(left)?, right.clone()),
        () if keeps_right && reads_only(existence, right.schema()) => (left.clone(), over(right)?),
        () => return Ok(None),
    };
    Ok(Some(LogicalPlan::Join(Join { left, right, ..join.clone() })))
}

/// Whether a join reads no columns on its left but those of a schema, and some of them.
fn reads_only(join: &Join, schema: &DFSchema) -> bool {
    let on = join.on.iter().map(|(left, _)| left);
    let columns = on.chain(&join.filter).flat_map(Expr::column_refs);
    let mut of_left = columns.filter(|c| join.left.schema().has_column(c)).peekable();
    of_left.peek().is_some() && of_left.all(|column| schema.has_column(column))
}

/// Whether a projection gives columns of its input, as they are.
fn chooses(projection: &Projection) -> bool {
    projection.expr.iter().all(|expr| matches!(expr, Expr::Column(_)))
}

/// Whether a join compares columns and constants, and nothing that can fail.
fn is_harmless(join: &Join) -> DfResult<bool> {
    let mut harmless = true;
    let on = join.on.iter().flat_map(|(left, right)| [left, right]);
    for expr in on.chain(&join.filter) {
        expr.apply(|part| {
            harmless &= match part {
                Expr::Column(_) | Expr::Literal(..) | Expr::Not(_) => true,
                Expr::IsNull(_) | Expr::IsNotNull(_) => true,
                Expr::BinaryExpr(BinaryExpr { op, .. }) => compares(*op),
                _ => false,
            };
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(harmless)
}

fn compares(op: Operator) -> bool {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    matches!(op, And | Eq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom | Lt | LtEq | NotEq | Or)
}
