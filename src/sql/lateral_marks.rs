//! The marks of LATERAL that the planner leaves out.
//!
//! It marks an item of FROM whose own expressions refer to what stands left of it. Of `FROM t,
//! unnest(t.a) x LEFT JOIN unnest(t.b) y ON ..` it marks `x` and `y` but joins their join to `t`,
//! and it does not look into subqueries in expressions of an item.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DFSchema, Result as DfResult, Spans};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, Join, JoinType, LogicalPlan, Subquery, SubqueryAlias};

use super::checkpoint::checkpoint;
use super::decorrelate::{is_lateral, visit_outer};
use crate::expr::{Walk, WalkPlan};

/// Marks the right side of every join that refers to the left one.
pub(super) fn mark_laterals(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let mut any = false;
    visit_outer(&plan, &mut |_| any = true);
    match any {
        true => mark(plan, &DFSchema::empty()),
        false => Ok(plan),
    }
}

/// `around` has the columns of the queries around, which are what is meant by a name of theirs.
fn mark(plan: LogicalPlan, around: &DFSchema) -> DfResult<LogicalPlan> {
    checkpoint()?;
    let plan = match plan {
        LogicalPlan::Join(join) => mark_join(join, around)?,
        plan => plan.map_children(|child| mark(child, around).map(Transformed::yes)).data()?,
    };
    let mut schema = merge_schema(&plan.inputs());
    schema.merge(around);
    let inside = |mut subquery: Subquery| -> DfResult<Subquery> {
        subquery.subquery = Arc::new(mark(Arc::unwrap_or_clone(subquery.subquery), &schema)?);
        Ok(subquery)
    };
    let exprs = |e: Expr| {
        e.transform_down(|e| {
            Ok(Transformed::yes(match e {
                Expr::ScalarSubquery(s) => Expr::ScalarSubquery(inside(s)?),
                Expr::Exists(mut e) => {
                    e.subquery = inside(e.subquery)?;
                    Expr::Exists(e)
                }
                Expr::InSubquery(mut e) => {
                    e.subquery = inside(e.subquery)?;
                    Expr::InSubquery(e)
                }
                Expr::SetComparison(mut e) => {
                    e.subquery = inside(e.subquery)?;
                    Expr::SetComparison(e)
                }
                other => return Ok(Transformed::no(other)),
            }))
        })
    };
    plan.map_exprs(exprs).data()
}

fn mark_join(join: Join, around: &DFSchema) -> DfResult<LogicalPlan> {
    let left = mark(Arc::unwrap_or_clone(join.left), around)?;
    let keeps = matches!(join.join_type, JoinType::Inner | JoinType::Left);
    let mut reads = false;
    visit_outer(&join.right, &mut |column| {
        reads |= left.schema().has_column(column) && !around.has_column(column);
    });
    let is_marked = is_lateral(&join.right);
    let mut beside = around.clone();
    if is_marked || reads {
        beside = left.schema().as_ref().clone();
        beside.merge(around);
    }
    let mut right = mark(Arc::unwrap_or_clone(join.right), &beside)?;
    if keeps && reads && !is_marked {
        right = marked(right)?;
    }
    Ok(LogicalPlan::Join(Join { left: Arc::new(left), right: Arc::new(right), ..join }))
}

/// The mark stands below the name of the item.
fn marked(item: LogicalPlan) -> DfResult<LogicalPlan> {
    if let LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) = item {
        let input = Arc::new(marked(Arc::unwrap_or_clone(input))?);
        return Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(input, alias)?));
    }
    let outer_ref_columns = item.all_out_ref_exprs();
    let subquery = Arc::new(item);
    Ok(LogicalPlan::Subquery(Subquery { subquery, outer_ref_columns, spans: Spans::new() }))
}
