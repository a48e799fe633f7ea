//! The order of inner joins, in place of DataFusion's `eliminate_cross_join`.
//!
//! Inner joins of inner joins are taken apart into inputs and conditions, together with the filter
//! above them, and joined anew: each time the first input that has a key with what is joined
//! already, else the first one. DataFusion's rule gives all joins the NULL of the uppermost, and
//! loses a key for which the new order has no place, as in
//! `a JOIN b JOIN c ON a.x + b.y = c.z WHERE a.k = c.k`. Here a condition that is no key of any
//! join stays in a filter above them.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{NullEquality, Result as DfResult};
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::utils::{conjunction, disjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, Filter, Join, JoinConstraint, JoinType, LogicalPlan, Operator, Projection, binary_expr,
};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::keys::Keys;
use crate::expr::WalkPlan;

/// Joins the inputs of inner joins in an order in which they have keys.
#[derive(Debug)]
pub(super) struct JoinOrder;

impl OptimizerRule for JoinOrder {
    fn name(&self) -> &str {
        "join_order"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> DfResult<Transformed<LogicalPlan>> {
        reorder(plan)
    }
}

fn reorder(plan: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
    plan.map_nodes_down(|node| {
        let schema = Arc::clone(node.schema());
        let (conditions, joins) = match node {
            LogicalPlan::Filter(filter) if is_inner(&filter.input) => {
                let conditions = split_conjunction_owned(filter.predicate);
                (conditions, Arc::unwrap_or_clone(filter.input))
            }
            join if is_inner(&join) => (Vec::new(), join),
            other => return Ok(Transformed::no(other)),
        };
        let mut parts = Parts { inputs: VecDeque::new(), conditions: Vec::new() };
        parts.take_apart(joins);
        parts.conditions.extend(conditions.into_iter().flat_map(factored));
        for input in &mut parts.inputs {
            *input = reorder(std::mem::take(input))?.data;
        }
        let plan = parts.join()?;
        let plan = match plan.schema() == &schema {
            true => plan,
            false => LogicalPlan::Projection(Projection::new_from_schema(Arc::new(plan), schema)),
        };
        // The inputs have been seen to.
        Ok(Transformed::new(plan, true, TreeNodeRecursion::Jump))
    })
}

fn is_inner(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Join(join) if join.join_type == JoinType::Inner && !join.null_aware)
}

/// Inner joins, taken apart.
struct Parts {
    inputs: VecDeque<LogicalPlan>,
    conditions: Vec<Expr>,
}

impl Parts {
    /// Takes inner joins apart, however deep they are.
    fn take_apart(&mut self, plan: LogicalPlan) {
        let mut waiting = vec![plan];
        while let Some(plan) = waiting.pop() {
            match plan {
                LogicalPlan::Join(join)
                    if join.join_type == JoinType::Inner && !join.null_aware =>
                {
                    let op = match join.null_equality {
                        NullEquality::NullEqualsNothing => Operator::Eq,
                        NullEquality::NullEqualsNull => Operator::IsNotDistinctFrom,
                    };
                    let keys = join.on.into_iter().map(|(l, r)| binary_expr(l, op, r));
                    self.conditions.extend(keys);
                    self.conditions
                        .extend(join.filter.into_iter().flat_map(split_conjunction_owned));
                    waiting.push(Arc::unwrap_or_clone(join.right));
                    waiting.push(Arc::unwrap_or_clone(join.left));
                }
                other => self.inputs.push_back(other),
            }
        }
    }

    fn join(mut self) -> DfResult<LogicalPlan> {
        let mut conditions = self.conditions;
        let mut joined = self.inputs.pop_front().unwrap_or_default();
        while !self.inputs.is_empty() {
            let mut next = None;
            for (place, input) in self.inputs.iter().enumerate() {
                let keys = Keys::find(conditions.clone(), joined.schema(), input.schema())?;
                if !keys.is_empty() {
                    next = Some((place, keys));
                    break;
                }
            }
            let (place, mut keys) = next.unwrap_or_default();
            let Some(right) = self.inputs.remove(place) else { break };
            if !keys.is_empty() {
                conditions = std::mem::take(&mut keys.rest);
            }
            let (on, filter, nulls) = keys.into_parts();
            joined = LogicalPlan::Join(Join::try_new(
                Arc::new(joined),
                Arc::new(right),
                on,
                filter,
                JoinType::Inner,
                JoinConstraint::On,
                nulls,
                false,
            )?);
        }
        match conjunction(conditions) {
            Some(rest) => Ok(LogicalPlan::Filter(Filter::try_new(rest, Arc::new(joined))?)),
            None => Ok(joined),
        }
    }
}

/// `(k AND p) OR (k AND q)` as `k` and `p OR q`: keys are often written so. By the laws of
/// three-valued logic it is the same.
fn factored(condition: Expr) -> Vec<Expr> {
    let branches = branches(&condition);
    let [first, others @ ..] = branches.as_slice() else { return vec![condition] };
    let everywhere = |part: &Expr| others.iter().all(|branch| branch.contains(part));
    let common: Vec<Expr> = first.iter().filter(|p| is_key(p) && everywhere(p)).cloned().collect();
    if common.is_empty() || others.is_empty() || condition.is_volatile() {
        return vec![condition];
    }
    let rests: Option<Vec<Expr>> = branches
        .into_iter()
        .map(|branch| conjunction(branch.into_iter().filter(|part| !common.contains(part))))
        .collect();
    // A branch without more to it is as good as true.
    common.iter().cloned().chain(rests.and_then(disjunction)).collect()
}

fn is_key(condition: &Expr) -> bool {
    matches!(condition, Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. }))
}

/// The conditions of each branch of an OR.
fn branches(condition: &Expr) -> Vec<Vec<Expr>> {
    let mut found = Vec::new();
    let mut waiting = vec![condition];
    while let Some(expr) = waiting.pop() {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                waiting.push(right);
                waiting.push(left);
            }
            branch => found.push(split_conjunction_owned(branch.clone())),
        }
    }
    found
}
