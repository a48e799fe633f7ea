//! Forgets what DataFusion believes about the order and the constants of rows, where it is wrong.
//!
//! Its physical plans know which columns are constant or ordered, and leave out sorts by them, for
//! ORDER BY, window functions and groups that are read in order. An outer join keeps the constants
//! of the side that it fills with NULL, and an inner join by keys of two constants takes them for
//! one; a union and grouping sets build on such properties. Behind them, and ahead of window
//! functions, everything is sorted as if nothing were known.
//!
//! An OFFSET counts rows in its own order: a sort above it took the place of the one below, or gave
//! that one its LIMIT without the rows that the OFFSET leaves out.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr,
    PlanProperties, ReplaceChildrenOptions, SendableRecordBatchStream,
    replace_children_if_necessary,
};

use crate::expr::Walk;

/// Puts a node without properties above those whose properties are not to be trusted, and the
/// limit of a sort above it: of a sort by one order over a sort by another one, whose input has the
/// first order already, both go, and the limit with them.
#[derive(Debug)]
pub(in crate::sql) struct ForgetProperties {
    /// Above all nodes that read rows or put them together, and not only where it is needed.
    pub(in crate::sql) everywhere: bool,
}

impl PhysicalOptimizerRule for ForgetProperties {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let forgotten = plan.transform_up(|node| {
            if let Some(limit) = node.downcast_ref::<GlobalLimitExec>()
                && limit.skip() > 0
            {
                let counts = (limit.skip(), limit.fetch());
                return offset(counts, limit.input()).map(Transformed::yes);
            }
            if let Some(sort) = node.downcast_ref::<SortExec>()
                && let Some(fetch) = sort.fetch()
                && sort.properties().output_partitioning().partition_count() == 1
            {
                let limit = GlobalLimitExec::new(Arc::clone(&node), 0, Some(fetch));
                return Ok(Transformed::yes(Arc::new(limit) as Arc<dyn ExecutionPlan>));
            }
            if is_window(node.as_ref()) {
                return over_unordered(node);
            }
            Ok(match misleads(node.as_ref(), self.everywhere) {
                true => Transformed::yes(unordered(node)),
                false => Transformed::no(node),
            })
        });
        forgotten.data()
    }

    fn name(&self) -> &str {
        "forget_properties"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn is_window(node: &dyn ExecutionPlan) -> bool {
    node.is::<WindowAggExec>() || node.is::<BoundedWindowAggExec>()
}

/// A window function over rows about which nothing is known: where columns are constant, or equal
/// to others, its node is not sure by which of them its input is ordered, and refuses to run. Of
/// windows over windows the lowest alone is, so that they still share their sorts.
fn over_unordered(node: Arc<dyn ExecutionPlan>) -> DfResult<Transformed<Arc<dyn ExecutionPlan>>> {
    match node.children().as_slice() {
        [input] if !is_window(input.as_ref()) && !input.is::<Unordered>() => {
            let input = unordered(Arc::clone(input));
            let mode = ChildrenPropertiesMode::Recompute;
            let options = ReplaceChildrenOptions::new(mode);
            node.replace_children(vec![input], options).map(Transformed::yes)
        }
        _ => Ok(Transformed::no(node)),
    }
}

fn unordered(node: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Arc::new(Unordered::new(node))
}

fn misleads(node: &dyn ExecutionPlan, everywhere: bool) -> bool {
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        return everywhere || aggregate.group_expr().groups().len() > 1;
    }
    node.is::<HashJoinExec>()
        || node.is::<NestedLoopJoinExec>()
        || node.is::<CrossJoinExec>()
        || node.is::<UnionExec>()
        || everywhere && node.is::<FilterExec>()
}

/// An OFFSET right above the sort below projections: seen through one that leaves out its keys, a
/// sort is taken for one of no use.
fn offset(
    (skip, fetch): (usize, Option<usize>),
    input: &Arc<dyn ExecutionPlan>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    match input.downcast_ref::<ProjectionExec>() {
        Some(projection) => {
            let below = offset((skip, fetch), projection.input())?;
            replace_children_if_necessary(Arc::clone(input), vec![below])
        }
        None => {
            let limit = GlobalLimitExec::new(Arc::clone(input), skip, fetch);
            Ok(Arc::new(Unordered::new(Arc::new(limit))))
        }
    }
}

/// The rows of its input, about whose order nothing is known.
#[derive(Debug)]
struct Unordered {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl Unordered {
    fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let nothing = EquivalenceProperties::new(input.schema());
        let properties =
            PlanProperties::clone(input.properties()).with_eq_properties(nothing).into();
        Self { input, properties }
    }
}

impl DisplayAs for Unordered {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unordered")
    }
}

impl ExecutionPlan for Unordered {
    fn name(&self) -> &str {
        "Unordered"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) if children.is_empty() => Ok(Arc::new(Self::new(input))),
            _ => internal_err!("a node without properties has one input"),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let mode = ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(mode))
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}
