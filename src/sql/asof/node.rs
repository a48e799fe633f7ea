//! The plan node of an ASOF join.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{Column, DFSchemaRef, JoinType, Result as DfResult, plan_err};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, LogicalPlanBuilder, Operator, SortExpr,
    UserDefinedLogicalNodeCore, Window, binary_expr, build_join_schema,
};

use crate::sql::ties::{rows_so_far, whole_row, window_function};

/// How the nearest row is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nearest {
    /// A value of a row of the left.
    pub left: Expr,
    /// A value of the same type of a row of the right.
    pub right: Expr,
    /// The nearest is at or behind the row of the left.
    pub forward: bool,
    /// One at the very place is the nearest.
    pub at_it: bool,
}

impl Nearest {
    /// How a value of the left compares with one of the right that it meets.
    fn op(&self) -> Operator {
        match (self.forward, self.at_it) {
            (false, true) => Operator::GtEq,
            (false, false) => Operator::Gt,
            (true, true) => Operator::LtEq,
            (true, false) => Operator::Lt,
        }
    }
}

/// Each row of the left with the nearest row of the right that has the same keys.
///
/// Columns: those of the left, then those of the right, NULL where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AsOfJoin {
    /// The left.
    pub left: LogicalPlan,
    /// The right.
    pub right: LogicalPlan,
    /// Pairs of what is equal.
    pub keys: Vec<(Expr, Expr)>,
    /// Which row is the nearest.
    pub nearest: Nearest,
    /// Rows of the left without one come out, too.
    pub outer: bool,
    /// Whether a row and its nearest match.
    pub filter: Option<Expr>,
    schema: DFSchemaRef,
}

impl AsOfJoin {
    pub(super) fn new(
        [left, right]: [LogicalPlan; 2],
        keys: Vec<(Expr, Expr)>,
        nearest: Nearest,
        outer: bool,
        filter: Option<Expr>,
    ) -> DfResult<Self> {
        let kind = if outer { JoinType::Left } else { JoinType::Inner };
        let schema = Arc::new(build_join_schema(left.schema(), right.schema(), &kind)?);
        Ok(Self { left, right, keys, nearest, outer, filter, schema })
    }

    pub(super) fn plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The same in nodes that DataFusion can run: each row of the right holds up to the next one of
    /// its keys.
    pub(in crate::sql) fn executable(&self) -> DfResult<LogicalPlan> {
        let named = |i: usize| Column::new_unqualified(format!("#asof_key{i}"));
        let [time, until] = ["#asof_time", "#asof_until"].map(Column::new_unqualified);
        let columns: Vec<Expr> =
            self.right.schema().columns().into_iter().map(Expr::Column).collect();
        let keys: Vec<Column> = (0..self.keys.len()).map(named).collect();
        let values = self.keys.iter().zip(&keys).map(|((_, key), c)| key.clone().alias(&c.name));
        let values = values.chain([self.nearest.right.clone().alias(&time.name)]);
        let there = keys.iter().chain([&time]).map(|c| Expr::Column(c.clone()).is_not_null());
        let there = conjunction(there).unwrap_or_else(|| datafusion::logical_expr::lit(true));
        let rows = LogicalPlanBuilder::from(self.right.clone())
            .project(columns.iter().cloned().chain(values))?
            .filter(there)?
            .build()?;
        let at = |column: &Column| Expr::Column(column.clone());
        let mut next = WindowFunction::new(window_function("lead")?, vec![at(&time)]);
        next.params.partition_by = keys.iter().map(at).collect();
        let mut order = vec![SortExpr::new(at(&time), !self.nearest.forward, false)];
        order.extend(whole_row(rows.schema(), &order));
        next.params.order_by = order;
        next.params.window_frame = rows_so_far();
        let next = Expr::WindowFunction(Box::new(next)).alias(&until.name);
        let rows = LogicalPlan::Window(Window::try_new(vec![next], Arc::new(rows))?);
        let (op, left) = (self.nearest.op(), &self.nearest.left);
        let before = op.negate().unwrap_or(op);
        let holds = binary_expr(left.clone(), op, at(&time));
        let still = at(&until).is_null().or(binary_expr(left.clone(), before, at(&until)));
        let equal = self.keys.iter().zip(&keys).map(|((key, _), c)| key.clone().eq(at(c)));
        let all = equal.chain([holds, still]).chain(self.filter.clone());
        let kind = if self.outer { JoinType::Left } else { JoinType::Inner };
        let left = self.left.schema().columns().into_iter().map(Expr::Column);
        LogicalPlanBuilder::from(self.left.clone())
            .join_on(rows, kind, all)?
            .project(left.chain(columns))?
            .build()
    }
}

impl PartialOrd for AsOfJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for AsOfJoin {
    fn name(&self) -> &str {
        "AsOfJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let (left, right) = (self.keys.iter().map(|k| &k.0), self.keys.iter().map(|k| &k.1));
        let nearest = [&self.nearest.left, &self.nearest.right];
        left.chain(right).chain(nearest).chain(&self.filter).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = if self.outer { "left" } else { "inner" };
        let Nearest { left, right, .. } = &self.nearest;
        write!(f, "AsOfJoin: {kind}, {left} {} {right}", self.nearest.op())?;
        for (left, right) in &self.keys {
            write!(f, ", {left} = {right}")?;
        }
        self.filter.iter().try_for_each(|filter| write!(f, ", if {filter}"))
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DfResult<Self> {
        let filter = self.filter.as_ref().and_then(|_| exprs.pop());
        let (Some(right), Some(left)) = (exprs.pop(), exprs.pop()) else {
            return plan_err!("an ASOF join compares two values");
        };
        let nearest = Nearest { left, right, ..self.nearest.clone() };
        let right_keys = exprs.split_off(exprs.len() / 2);
        let keys = exprs.into_iter().zip(right_keys).collect();
        let (Some(right), Some(left)) = (inputs.pop(), inputs.pop()) else {
            return plan_err!("an ASOF join has two inputs");
        };
        Self::new([left, right], keys, nearest, self.outer, filter)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let schema = self.left.schema();
        let mut left: Vec<usize> = output_columns.iter().copied().filter(|c| *c < width).collect();
        for column in self.expressions().iter().flat_map(|e| e.column_refs()) {
            left.extend(schema.maybe_index_of_column(column));
        }
        left.sort_unstable();
        left.dedup();
        // Which of several rows at one place is the nearest does not depend on what is read of it.
        let right = (0..self.right.schema().fields().len()).collect();
        Some(vec![left, right])
    }
}
