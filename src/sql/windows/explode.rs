//! `hop(t, ts, slide, size [, offset])` and `cumulate(t, ts, step, size [, offset])`: a row is in
//! several windows, so their node gives it once for each.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, NullHandling, Result as DfResult, TableReference, UnnestOptions,
    plan_err,
};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore,
};

use super::super::errors::plan_error;
use super::arguments::{Arguments, Input};
use super::{EDGES, column_name, kept_columns};
use crate::config::WINDOWS_PER_ROW_MAX;
use crate::error::Result;
use crate::expr::{Walk, WindowEdge, window_error, window_list};
use crate::time::Windows;

/// A relation with every row in each of the windows that its timestamp is in.
///
/// Columns: those of the input, `window_start`, `window_end` and, where wanted, `window_time`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExplodeWindows {
    /// The relation.
    pub input: LogicalPlan,
    /// The timestamp of a row, in microseconds.
    pub time: Expr,
    /// The windows.
    pub windows: Windows,
    /// The edges that become columns, in order.
    pub edges: Vec<WindowEdge>,
    schema: DFSchemaRef,
}

pub(super) fn plan_hop(
    args: Arguments,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let input = args.input(context)?;
    let [slide, size, offset] = args.intervals(context)?;
    let windows = Windows::hop(slide, size, offset, WINDOWS_PER_ROW_MAX);
    plan(input, windows.map_err(window_error)?)
}

pub(super) fn plan_cumulate(
    args: Arguments,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let input = args.input(context)?;
    let [step, size, offset] = args.intervals(context)?;
    let windows = Windows::cumulate(step, size, offset, WINDOWS_PER_ROW_MAX);
    plan(input, windows.map_err(window_error)?)
}

fn plan(input: Input, windows: Windows) -> Result<LogicalPlan> {
    let edges = EDGES.to_vec();
    let kept = kept_columns(&input.plan, &edges);
    if kept.len() == input.plan.schema().fields().len() {
        return node(input.plan, input.time, windows, edges).map_err(plan_error);
    }
    // Windows of windows: the input's own edges go, but its timestamp may be one of them.
    let time = Column::new_unqualified("#time");
    LogicalPlanBuilder::from(input.plan)
        .project(kept.iter().cloned().chain([input.time.alias(&time.name)]))
        .and_then(LogicalPlanBuilder::build)
        .and_then(|plan| node(plan, Expr::Column(time), windows, edges.clone()))
        .and_then(|plan| {
            let edges = edges.into_iter().map(|e| Column::new_unqualified(column_name(e)));
            LogicalPlanBuilder::from(plan).project(kept.into_iter().chain(edges.map(Expr::Column)))
        })
        .and_then(LogicalPlanBuilder::build)
        .map_err(plan_error)
}

fn node(
    input: LogicalPlan,
    time: Expr,
    windows: Windows,
    edges: Vec<WindowEdge>,
) -> DfResult<LogicalPlan> {
    let node = ExplodeWindows::new(input, time, windows, edges)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

impl ExplodeWindows {
    /// Rows of `input` in their windows.
    pub fn new(
        input: LogicalPlan,
        time: Expr,
        windows: Windows,
        edges: Vec<WindowEdge>,
    ) -> DfResult<Self> {
        let data_type = time.get_type(input.schema())?;
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> =
            input.schema().iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        for edge in &edges {
            fields.push((None, Arc::new(Field::new(column_name(*edge), data_type.clone(), true))));
        }
        let metadata = input.schema().metadata().clone();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, metadata)?);
        Ok(Self { input, time, windows, edges, schema })
    }

    /// The same in nodes that DataFusion can run: lists of windows, unnested in step.
    pub(super) fn executable(&self) -> DfResult<LogicalPlan> {
        let inner = |edge| format!("#{}", column_name(edge));
        let input: Vec<Expr> =
            self.input.schema().columns().into_iter().map(Expr::Column).collect();
        let lists = self
            .edges
            .iter()
            .map(|e| window_list(*e, self.time.clone(), self.windows).alias(inner(*e)));
        let columns = self.edges.iter().map(|e| Column::new_unqualified(inner(*e)));
        let named = self
            .edges
            .iter()
            .map(|e| Expr::Column(Column::new_unqualified(inner(*e))).alias(column_name(*e)));
        let options = UnnestOptions::new().with_null_handling(NullHandling::Drop);
        LogicalPlanBuilder::from(self.input.clone())
            .project(input.iter().cloned().chain(lists))?
            .unnest_columns_with_options(columns.collect(), options)?
            .project(input.iter().cloned().chain(named))?
            .build()
    }
}

impl PartialOrd for ExplodeWindows {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for ExplodeWindows {
    fn name(&self) -> &str {
        "ExplodeWindows"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.time.clone()]
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.edges.iter().map(|e| column_name(*e).to_owned()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "ExplodeWindows: {} by {}", self.windows, self.time)
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DfResult<Self> {
        let (Some(time), Some(input)) = (exprs.pop(), inputs.pop()) else {
            return plan_err!("windows have a time column and an input");
        };
        Self::new(input, time, self.windows, self.edges.clone())
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let width = schema.fields().len();
        let mut needed: Vec<usize> =
            output_columns.iter().copied().filter(|c| *c < width).collect();
        self.time
            .apply(|e| {
                if let Expr::Column(column) = e {
                    needed.extend(schema.maybe_index_of_column(column));
                }
                Ok(TreeNodeRecursion::Continue)
            })
            .ok()?;
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
