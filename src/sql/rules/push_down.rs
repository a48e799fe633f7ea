//! DataFusion's `push_down_filter`, kept above what gives a row for no rows.
//!
//! The rule takes a condition without columns for one that is about the groups of any aggregate,
//! also of one without groups (or with the empty grouping set), which has a row over an empty
//! input. Nothing can go below such an aggregate, as none of its columns is a group.
//!
//! Semijoins and antijoins are filters by other relations, and go down as well.

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::existence;

/// Moves filters towards the relations.
#[derive(Debug, Default)]
pub(super) struct PushDown(PushDownFilter);

impl OptimizerRule for PushDown {
    fn name(&self) -> &str {
        "push_down"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> DfResult<Transformed<LogicalPlan>> {
        if stays(&plan) {
            return Ok(Transformed::no(plan));
        }
        let moved = existence::moved(plan)?;
        match moved.transformed {
            true => Ok(moved),
            false => self.0.rewrite(moved.data, config),
        }
    }
}

/// Whether a plan is filters over an aggregate that gives a row for no rows.
fn stays(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Filter(filter) = plan else { return false };
    let mut input = filter.input.as_ref();
    while let LogicalPlan::Filter(below) = input {
        input = below.input.as_ref();
    }
    match input {
        LogicalPlan::Aggregate(aggregate) => {
            let groups = &aggregate.group_expr;
            groups.is_empty() || groups.iter().any(|g| matches!(g, Expr::GroupingSet(_)))
        }
        _ => false,
    }
}
