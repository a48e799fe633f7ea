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
use datafusion::common::{Column, NullEquality, Result as DfResult};
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

    fn join(self) -> DfResult<LogicalPlan> {
        let mut conditions: Vec<Condition> = self
            .conditions
            .into_iter()
            .map(|condition| Condition::over(condition, &self.inputs))
            .collect();
        let mut there = vec![false; self.inputs.len()];
        let mut inputs: Vec<Option<LogicalPlan>> = self.inputs.into_iter().map(Some).collect();
        let mut joined = inputs.first_mut().and_then(Option::take).unwrap_or_default();
        there.iter_mut().take(1).for_each(|first| *first = true);
        while let Some(first) = there.iter().position(|there| !there) {
            let mut next: Vec<usize> =
                conditions.iter().filter_map(|condition| condition.connects(&there)).collect();
            next.sort_unstable();
            next.dedup();
            let mut found = (first, Keys::default());
            for place in next {
                let Some(input) = &inputs[place] else { continue };
                let of_input = |c: &&Condition| c.connects(&there) == Some(place);
                let some = conditions.iter().filter(of_input).map(|c| c.expr.clone()).collect();
                let keys = Keys::find(some, joined.schema(), input.schema())?;
                if !keys.is_empty() {
                    found = (place, keys);
                    break;
                }
            }
            let (place, mut keys) = found;
            let Some(right) = inputs[place].take() else { break };
            if !keys.is_empty() {
                // What is no key after all stays where it is.
                let rest = std::mem::take(&mut keys.rest);
                conditions.retain(|c| c.connects(&there) != Some(place) || rest.contains(&c.expr));
            }
            there[place] = true;
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
        match conjunction(conditions.into_iter().map(|condition| condition.expr)) {
            Some(rest) => Ok(LogicalPlan::Filter(Filter::try_new(rest, Arc::new(joined))?)),
            None => Ok(joined),
        }
    }
}

/// A condition, and the inputs that the sides of a comparison read: which of hundreds of inputs it
/// connects is told by their numbers, without a look at their columns.
struct Condition {
    expr: Expr,
    sides: Option<[Vec<usize>; 2]>,
}

impl Condition {
    fn over(expr: Expr, inputs: &VecDeque<LogicalPlan>) -> Self {
        let read_by = |side: &Expr| {
            let of =
                |column: &Column| inputs.iter().position(|input| input.schema().has_column(column));
            let mut places: Vec<usize> = side.column_refs().into_iter().filter_map(of).collect();
            places.sort_unstable();
            places.dedup();
            places
        };
        let sides = match &expr {
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::Eq | Operator::IsNotDistinctFrom,
                right,
            }) => Some([read_by(left), read_by(right)]),
            _ => None,
        };
        Self { expr, sides }
    }

    /// The input that it connects with those that are `there`.
    fn connects(&self, there: &[bool]) -> Option<usize> {
        let [left, right] = self.sides.as_ref()?;
        let is_there = |side: &[usize]| !side.is_empty() && side.iter().all(|place| there[*place]);
        match (left.as_slice(), right.as_slice()) {
            (side, [one]) | ([one], side) if is_there(side) && !there[*one] => Some(*one),
            _ => None,
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
