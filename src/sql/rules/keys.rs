//! The keys of joins, in place of DataFusion's `extract_equijoin_predicate`.
//!
//! A join of DataFusion's says once for all of its keys whether NULL equals NULL. Its own rule adds
//! keys of `=` to a join that has keys of IS NOT DISTINCT FROM, whose NULLs then match. Here keys
//! of both kinds may stand in one join: NULL equals NULL, and the condition asks of the keys of `=`
//! that they are not NULL. That is right for every kind of join, and [`super::push_down`] moves
//! what it can of it below the join.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, NullEquality, Result as DfResult};
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::utils::{
    can_hash, conjunction, find_valid_equijoin_key_pair, split_conjunction_owned,
};
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan, Operator};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// Moves conditions of joins into keys.
#[derive(Debug)]
pub(super) struct JoinKeys;

impl OptimizerRule for JoinKeys {
    fn name(&self) -> &str {
        "join_keys"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> DfResult<Transformed<LogicalPlan>> {
        match plan {
            // The keys of a null-aware join mean something else.
            LogicalPlan::Join(join) if join.filter.is_some() && !join.null_aware => with_keys(join),
            other => Ok(Transformed::no(other)),
        }
    }
}

fn with_keys(mut join: Join) -> DfResult<Transformed<LogicalPlan>> {
    let conditions = join.filter.clone().map(split_conjunction_owned).unwrap_or_default();
    let found = Keys::find(conditions, join.left.schema(), join.right.schema())?;
    if found.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    let mut keys = Keys { rest: found.rest, ..Keys::default() };
    let own = std::mem::take(&mut join.on);
    match join.null_equality {
        NullEquality::NullEqualsNothing => keys.equal.extend(own),
        NullEquality::NullEqualsNull => keys.same.extend(own),
    }
    keys.equal.extend(found.equal);
    keys.same.extend(found.same);
    let (on, filter, null_equality) = keys.into_parts();
    let join = Join { on, filter, null_equality, ..join };
    Ok(Transformed::yes(LogicalPlan::Join(join)))
}

/// The conditions of a join by what they are good for.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Sides of `=`.
    equal: Vec<(Expr, Expr)>,
    /// Sides of IS NOT DISTINCT FROM.
    same: Vec<(Expr, Expr)>,
    /// All other conditions.
    pub(super) rest: Vec<Expr>,
}

impl Keys {
    pub(super) fn find(
        conditions: Vec<Expr>,
        left: &Arc<DFSchema>,
        right: &Arc<DFSchema>,
    ) -> DfResult<Self> {
        let mut keys = Self::default();
        for condition in conditions {
            match (pair(&condition, left, right)?, &condition) {
                (Some(pair), Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. })) => {
                    keys.equal.push(pair);
                }
                (Some(pair), _) => keys.same.push(pair),
                (None, _) => keys.rest.push(condition),
            }
        }
        Ok(keys)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.equal.is_empty() && self.same.is_empty()
    }

    /// The keys, the condition and the meaning of NULL of a join.
    pub(super) fn into_parts(self) -> (Vec<(Expr, Expr)>, Option<Expr>, NullEquality) {
        let Self { equal, same, mut rest } = self;
        if same.is_empty() {
            return (equal, conjunction(rest), NullEquality::NullEqualsNothing);
        }
        for (left, right) in &equal {
            for side in [left, right] {
                let there = side.clone().is_not_null();
                if !rest.contains(&there) {
                    rest.push(there);
                }
            }
        }
        let on = equal.into_iter().chain(same).collect();
        (on, conjunction(rest), NullEquality::NullEqualsNull)
    }
}

/// The sides of a comparison that can be a key, that of the left input first.
fn pair(
    condition: &Expr,
    left: &Arc<DFSchema>,
    right: &Arc<DFSchema>,
) -> DfResult<Option<(Expr, Expr)>> {
    let Expr::BinaryExpr(BinaryExpr { left: l, op, right: r }) = condition else {
        return Ok(None);
    };
    if !matches!(op, Operator::Eq | Operator::IsNotDistinctFrom) || condition.is_volatile() {
        return Ok(None);
    }
    let Some((l, r)) = find_valid_equijoin_key_pair(l, r, left, right)? else {
        return Ok(None);
    };
    Ok((can_hash(&l.get_type(left)?) && can_hash(&r.get_type(right)?)).then_some((l, r)))
}
