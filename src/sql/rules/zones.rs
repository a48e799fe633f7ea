//! Literals that differ in their type alone: to DataFusion a `timestamp` is equal to a `timestamp
//! with time zone` of the same moment, and so are expressions around them. Its elimination of
//! common subexpressions would give one the type of the other; a plan that has both goes without.
//!
//! So does a plan with one call of a window function twice, as simplified arguments and frames make
//! them: the rule would put the call below the node that computes it.

use crate::expr::{Walk, WalkPlan};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::TimeUnit;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

type Rule = Arc<dyn OptimizerRule + Send + Sync>;

/// The rule, or one that leaves alone the plans that it would spoil.
pub(super) fn apart(rule: Rule) -> Rule {
    match rule.name() {
        "common_sub_expression_eliminate" => Arc::new(Apart { rule }),
        _ => rule,
    }
}

#[derive(Debug)]
struct Apart {
    rule: Rule,
}

impl OptimizerRule for Apart {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> DfResult<Transformed<LogicalPlan>> {
        match mixes_zones(&plan)? || has_twin_windows(&plan)? {
            true => Ok(Transformed::no(plan)),
            false => self.rule.rewrite(plan, config),
        }
    }
}

/// Whether one moment stands in a plan with a time zone and without.
fn mixes_zones(plan: &LogicalPlan) -> DfResult<bool> {
    let mut zoned: HashMap<(TimeUnit, Option<i64>), bool> = HashMap::new();
    let mut mixed = false;
    plan.each_node(|node| {
        node.each_expr(|expr| {
            expr.apply(|expr| {
                if let Expr::Literal(value, _) = expr
                    && let Some((moment, zone)) = moment(value)
                {
                    mixed |= *zoned.entry(moment).or_insert(zone) != zone;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(mixed)
}

/// Whether a call of a window function stands in a plan twice.
fn has_twin_windows(plan: &LogicalPlan) -> DfResult<bool> {
    let mut calls: HashSet<Expr> = HashSet::new();
    let mut twin = false;
    plan.each_node(|node| {
        if let LogicalPlan::Window(window) = node {
            for mut call in &window.window_expr {
                while let Expr::Alias(alias) = call {
                    call = &alias.expr;
                }
                twin |= !calls.insert(call.clone());
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(twin)
}

/// A timestamp, and whether it has a time zone.
fn moment(value: &ScalarValue) -> Option<((TimeUnit, Option<i64>), bool)> {
    let (unit, at, zone) = match value {
        ScalarValue::TimestampSecond(at, zone) => (TimeUnit::Second, at, zone),
        ScalarValue::TimestampMillisecond(at, zone) => (TimeUnit::Millisecond, at, zone),
        ScalarValue::TimestampMicrosecond(at, zone) => (TimeUnit::Microsecond, at, zone),
        ScalarValue::TimestampNanosecond(at, zone) => (TimeUnit::Nanosecond, at, zone),
        _ => return None,
    };
    Some(((unit, *at), zone.is_some()))
}
