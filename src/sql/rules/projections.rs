//! Projections of physical plans, in place of DataFusion's `ProjectionPushdown`.
//!
//! Its rule moves parts of the condition of a nested loop join below the join, where they are
//! computed for rows that a CASE had kept from them (`CASE WHEN x = 0 THEN true ELSE 1 / x > y
//! END`), and moves a projection below a filter that leaves out columns itself, whose condition
//! then counts them wrongly. The logical rules have pruned columns already; what is left is to
//! merge projections, and not to copy the columns that only a join's keys or a filter read.

use std::sync::Arc;

use datafusion::common::Result as DfResult;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::projection::{
    ProjectionExec, remove_unnecessary_projections, try_embed_projection,
};

use crate::expr::Walk;
use crate::sql::pass::PhysicalRule as Rule;

/// Puts projections into the nodes below them.
#[derive(Debug)]
struct EmbedProjections;

/// The rule that takes the place of another.
pub(super) fn embedded(_: Rule) -> Rule {
    Arc::new(EmbedProjections)
}

impl PhysicalOptimizerRule for EmbedProjections {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        plan.transform_up(embed).data()
    }

    fn name(&self) -> &str {
        "embed_projections"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn embed(plan: Arc<dyn ExecutionPlan>) -> DfResult<Transformed<Arc<dyn ExecutionPlan>>> {
    let over_another =
        plan.downcast_ref::<ProjectionExec>().map(|p| p.input().is::<ProjectionExec>());
    let plan = match over_another {
        None => return Ok(Transformed::no(plan)),
        // Two projections are one.
        Some(true) => remove_unnecessary_projections(plan)?.data,
        Some(false) => plan,
    };
    let Some(projection) = plan.downcast_ref::<ProjectionExec>() else {
        return Ok(Transformed::yes(plan));
    };
    let input = projection.input();
    let embedded = if let Some(join) = input.downcast_ref::<HashJoinExec>()
        && !join.contains_projection()
    {
        try_embed_projection(projection, join)?
    } else if let Some(join) = input.downcast_ref::<NestedLoopJoinExec>()
        && !join.contains_projection()
    {
        try_embed_projection(projection, join)?
    } else if let Some(filter) = input.downcast_ref::<FilterExec>()
        && filter.projection().is_none()
    {
        try_embed_projection(projection, filter)?
    } else {
        None
    };
    Ok(Transformed::yes(embedded.unwrap_or(plan)))
}
