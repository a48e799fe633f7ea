//! `session(t, ts, [key, ..] gap)`: rows of one key that follow one another in less than the gap
//! are in one window, from the first of them until a gap behind the last.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result as DfResult, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore,
};

use super::super::errors::plan_error;
use super::arguments::Arguments;
use super::{EDGES, column_name, kept_columns};
use crate::error::{Error, Result, sqlstate};
use crate::expr::{WindowEdge, session_edge};

/// A relation with every row in its session. Rows without a timestamp are in none.
///
/// Columns: those of the input, `window_start`, `window_end` and, where wanted, `window_time`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionWindows {
    /// The relation.
    pub input: LogicalPlan,
    /// The timestamp of a row, in microseconds.
    pub time: Expr,
    /// Sessions are of rows that are equal in these.
    pub keys: Vec<Expr>,
    /// Rows this far apart are in different sessions.
    pub gap_us: i64,
    /// The edges that become columns, in order.
    pub edges: Vec<WindowEdge>,
    schema: DFSchemaRef,
}

pub(super) fn plan(
    args: Arguments,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let input = args.input(context)?;
    let [gap_us] = args.intervals(context)?;
    if gap_us <= 0 {
        return Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            "the gap of sessions must be greater than zero",
        ));
    }
    let edges = EDGES.to_vec();
    let kept = kept_columns(&input.plan, &edges);
    let whole = kept.len() == input.plan.schema().fields().len();
    if let (true, Expr::Column(_)) = (whole, &input.time) {
        return node(input.plan, input.time, input.keys, gap_us, edges).map_err(plan_error);
    }
    if input.keys.iter().any(|key| !kept.contains(key)) {
        return Err(Error::unsupported("sessions by an edge of another window are not supported"));
    }
    // The timestamp is computed, or goes: windows take the places of the input's own edges.
    let time = Column::new_unqualified("#time");
    LogicalPlanBuilder::from(input.plan)
        .project(kept.iter().cloned().chain([input.time.alias(&time.name)]))
        .and_then(LogicalPlanBuilder::build)
        .and_then(|plan| node(plan, Expr::Column(time), input.keys, gap_us, edges.clone()))
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
    keys: Vec<Expr>,
    gap_us: i64,
    edges: Vec<WindowEdge>,
) -> DfResult<LogicalPlan> {
    let node = SessionWindows::new(input, time, keys, gap_us, edges)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

impl SessionWindows {
    fn new(
        input: LogicalPlan,
        time: Expr,
        keys: Vec<Expr>,
        gap_us: i64,
        edges: Vec<WindowEdge>,
    ) -> DfResult<Self> {
        let data_type = time.get_type(input.schema())?;
        let mut fields: Vec<_> =
            input.schema().iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        for edge in &edges {
            fields.push((None, Arc::new(Field::new(column_name(*edge), data_type.clone(), true))));
        }
        let metadata = input.schema().metadata().clone();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, metadata)?);
        Ok(Self { input, time, keys, gap_us, edges, schema })
    }

    /// The same in nodes that DataFusion can run: window functions over the rows of a key.
    pub(super) fn executable(&self) -> DfResult<LogicalPlan> {
        let input: Vec<Expr> =
            self.input.schema().columns().into_iter().map(Expr::Column).collect();
        let calls = self
            .edges
            .iter()
            .map(|edge| session_edge(*edge, self.time.clone(), self.keys.clone(), self.gap_us));
        let calls = calls.collect::<DfResult<Vec<_>>>()?;
        let named = calls.iter().zip(&self.edges).map(|(call, edge)| {
            let column = Column::new_unqualified(call.schema_name().to_string());
            Expr::Column(column).alias(column_name(*edge))
        });
        let named: Vec<Expr> = named.collect();
        LogicalPlanBuilder::from(self.input.clone())
            .filter(self.time.clone().is_not_null())?
            .window(calls)?
            .project(input.into_iter().chain(named))?
            .build()
    }
}

impl PartialOrd for SessionWindows {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for SessionWindows {
    fn name(&self) -> &str {
        "SessionWindows"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.keys.iter().cloned().chain([self.time.clone()]).collect()
    }

    /// A condition on keys alone leaves whole sessions out.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let is_key = |c: &Column| {
            let alike = self.schema.fields().iter().filter(|f| *f.name() == c.name).count();
            alike == 1 && self.keys.contains(&Expr::Column(c.clone()))
        };
        let columns = self.schema.columns().into_iter();
        columns.filter(|c| !is_key(c)).map(|c| c.name).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        write!(f, "SessionWindows: by {} per [{}]", self.time, keys.join(", "))
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DfResult<Self> {
        let (Some(time), Some(input)) = (exprs.pop(), inputs.pop()) else {
            return plan_err!("sessions have a time column and an input");
        };
        Self::new(input, time, exprs, self.gap_us, self.edges.clone())
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let width = schema.fields().len();
        let own = self.keys.iter().chain([&self.time]);
        let own = own.flat_map(Expr::column_refs).filter_map(|c| schema.maybe_index_of_column(c));
        let mut needed: Vec<usize> =
            output_columns.iter().copied().filter(|c| *c < width).chain(own).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
