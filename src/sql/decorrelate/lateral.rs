//! LATERAL: a subquery in FROM that refers to what stands left of it.

use std::sync::Arc;

use datafusion::common::Result as DfResult;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Extension, Join, JoinType, LogicalPlan, SubqueryAlias};

use super::pull::{Need, projection};
use super::{Decorrelator, outer_columns, select};
use crate::sql::set_ops::as_set_operation;

impl Decorrelator {
    /// A join whose right side is LATERAL, as one that is not; any other join as it is.
    pub(super) fn lateral(&mut self, join: Join) -> DfResult<LogicalPlan> {
        let Some(subquery) = lateral_side(&join.right) else {
            return Ok(LogicalPlan::Join(join));
        };
        let known = matches!(join.join_type, JoinType::Inner | JoinType::Left);
        let outer = outer_columns(subquery, &join.left);
        // What a LATERAL inside of it read of its own FROM was counted as outer.
        if subquery.all_out_ref_exprs().is_empty() {
            let right = Arc::new(without_lateral(&join.right)?);
            return Ok(LogicalPlan::Join(Join { right, ..join }));
        }
        // A table function of outer columns is not for here.
        if outer.is_empty() || !known || !join.on.is_empty() || has_own_node(subquery) {
            return Ok(LogicalPlan::Join(join));
        }
        let subquery = subquery.clone();
        self.beside(join, &subquery)
    }

    /// A join with a right side whose rows depend on the row of the left.
    pub(super) fn beside(&mut self, join: Join, subquery: &LogicalPlan) -> DfResult<LogicalPlan> {
        let found = self.over(None, |this| this.detach(subquery, &join.left, Need::Bag))?;
        let named = join.right.schema().iter().zip(found.values).map(|((qualifier, field), c)| {
            Expr::Column(c).alias_qualified(qualifier.cloned(), field.name())
        });
        let (mut exprs, mut on) = (named.collect::<Vec<_>>(), Vec::new());
        for condition in found.on {
            let theirs = condition.column_refs().into_iter().cloned().collect::<Vec<_>>();
            for column in theirs {
                let carried = Expr::Column(column.clone());
                let is_theirs = found.plan.schema().has_column(&column)
                    && !join.left.schema().has_column(&column);
                if is_theirs && !exprs.contains(&carried) {
                    exprs.push(carried);
                }
            }
            on.push(condition);
        }
        let right = projection(exprs, found.plan)?;
        let columns = join.schema.columns();
        let filter = conjunction(on.into_iter().chain(join.filter));
        let joined = Join::try_new(
            join.left,
            Arc::new(right),
            Vec::new(),
            filter,
            join.join_type,
            join.join_constraint,
            join.null_equality,
            false,
        )?;
        select(self.join(joined)?, columns)
    }
}

/// Whether the right side of a join is LATERAL.
pub(in crate::sql) fn is_lateral(plan: &LogicalPlan) -> bool {
    lateral_side(plan).is_some()
}

/// The subquery under LATERAL.
fn lateral_side(plan: &LogicalPlan) -> Option<&LogicalPlan> {
    match plan {
        LogicalPlan::Subquery(s) => Some(&s.subquery),
        LogicalPlan::SubqueryAlias(a) => match a.input.as_ref() {
            LogicalPlan::Subquery(s) => Some(&s.subquery),
            _ => None,
        },
        _ => None,
    }
}

/// The same rows without the mark of LATERAL.
fn without_lateral(plan: &LogicalPlan) -> DfResult<LogicalPlan> {
    match plan {
        LogicalPlan::Subquery(s) => Ok(s.subquery.as_ref().clone()),
        LogicalPlan::SubqueryAlias(a) => {
            let input = Arc::new(without_lateral(&a.input)?);
            Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(input, a.alias.clone())?))
        }
        other => Ok(other.clone()),
    }
}

/// Whether a plan has a node of ours that stays whole, such as a window over a table.
fn has_own_node(plan: &LogicalPlan) -> bool {
    let whole = |node: &Extension| as_set_operation(node).is_none();
    matches!(plan, LogicalPlan::Extension(node) if whole(node))
        || plan.inputs().into_iter().any(has_own_node)
}
