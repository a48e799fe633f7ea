//! `tumble(t, ts, size [, offset])`: every row is in one window, so it is a projection behind a
//! filter that drops rows without a timestamp.

use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};

use super::super::errors::plan_error;
use super::arguments::Arguments;
use super::{EDGES, column_name, kept_columns};
use crate::error::Result;
use crate::expr::{tumble_expr, window_error};
use crate::time::Tumble;

pub(super) fn plan(
    args: Arguments,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let input = args.input(context)?;
    let [size, offset] = args.intervals(context)?;
    let window = Tumble::new(size, offset).map_err(window_error)?;
    let edges = EDGES.to_vec();
    let mut columns = kept_columns(&input.plan, &edges);
    columns.extend(
        edges
            .into_iter()
            .map(|edge| tumble_expr(edge, input.time.clone(), window).alias(column_name(edge))),
    );
    LogicalPlanBuilder::from(input.plan)
        .filter(input.time.is_not_null())
        .and_then(|b| b.project(columns))
        .and_then(LogicalPlanBuilder::build)
        .map_err(plan_error)
}
