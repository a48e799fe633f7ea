//! The plan node of a moving filter.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchemaRef, Result as DfResult, plan_err};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, Filter, LogicalPlan, Operator, UserDefinedLogicalNodeCore,
    binary_expr, cast,
};

use crate::expr::Walk;
use crate::operator::TimeOrder;

/// The rows of a relation whose time is before, or not before, a bound that moves with the clock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MovingFilter {
    /// The relation.
    pub input: LogicalPlan,
    /// The time of a row: a timestamp.
    pub time: Expr,
    /// How it is compared with the bound.
    pub order: TimeOrder,
    /// A timestamp that reads `now()` and no column. It is not among the node's expressions, so
    /// nobody looks for columns in it or takes it apart.
    pub bound: Expr,
}

impl MovingFilter {
    /// The node over a plan.
    pub(super) fn plan(
        input: LogicalPlan,
        time: Expr,
        order: TimeOrder,
        bound: Expr,
    ) -> LogicalPlan {
        let node = Arc::new(Self { input, time, order, bound });
        LogicalPlan::Extension(Extension { node })
    }

    /// The same as a filter.
    pub(in crate::sql) fn executable(&self) -> DfResult<LogicalPlan> {
        let op = match self.order {
            TimeOrder::Before => Operator::Lt,
            TimeOrder::BeforeOrAt => Operator::LtEq,
            TimeOrder::After => Operator::Gt,
            TimeOrder::AfterOrAt => Operator::GtEq,
        };
        let to = self.time.get_type(self.input.schema())?;
        let bound = cast(self.bound.clone(), to);
        let predicate = binary_expr(self.time.clone(), op, bound);
        Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(self.input.clone()))?))
    }
}

impl PartialOrd for MovingFilter {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for MovingFilter {
    fn name(&self) -> &str {
        "MovingFilter"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.time.clone()]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "MovingFilter: {} {} {}", self.time, self.order.sign(), self.bound)
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DfResult<Self> {
        let (Some(time), Some(input)) = (exprs.pop(), inputs.pop()) else {
            return plan_err!("a moving filter has a time and an input");
        };
        Ok(Self { input, time, order: self.order, bound: self.bound.clone() })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let mut needed = output_columns.to_vec();
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
