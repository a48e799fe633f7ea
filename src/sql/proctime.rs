//! `proctime()` in the select list of a view's subquery: the time at which a row arrives.
//!
//! `SELECT *, proctime() AS p FROM bid` becomes a [`Stamped`] node under the projection, ahead of
//! the optimiser, which may copy expressions but not nodes. Its rows are append-only, and stamped
//! once. Ad hoc, all rows arrive when the statement runs: `proctime()` is `now()`.
//!
//! A join with `t FOR SYSTEM_TIME AS OF b.p` is one with the table of the moment where `p` is such
//! a column; what it is as of other times, `versions` says.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, Result as DfResult, plan_err};
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, LogicalPlanBuilder, Projection, UserDefinedLogicalNodeCore,
};

use super::binder::Purpose;
use super::errors::plan_error;
use super::versions::at_event_time;
use crate::error::{Error, Result};
use crate::expr::{Walk, WalkPlan, is_now, is_proctime, now_udf, proctime_type, reads_proctime};

/// The name of the column of a [`Stamped`] node.
const STAMP: &str = "#proctime";

/// A relation with the time at which each row arrives behind its columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stamped {
    /// The relation.
    pub input: LogicalPlan,
    schema: DFSchemaRef,
}

/// Puts nodes in the place of `proctime()`, and checks the times of versions.
pub(super) fn stamp(plan: LogicalPlan, purpose: Purpose) -> Result<LogicalPlan> {
    let stamped = plan.map_nodes_up(|node| match (purpose, node) {
        (Purpose::AdHoc, node) => node.map_exprs(|e| replace(e, &now_udf().call(vec![]))),
        (Purpose::View, LogicalPlan::Projection(p)) if p.expr.iter().any(reads_proctime) => {
            under(p).map(Transformed::yes)
        }
        (_, other) => Ok(Transformed::no(other)),
    });
    at_event_time(stamped.map_err(plan_error)?.data)
}

/// An expression of a statement that runs at once.
pub(super) fn at_once(expr: Expr) -> Result<Expr> {
    replace(expr, &now_udf().call(vec![])).map(|t| t.data).map_err(plan_error)
}

fn replace(expr: Expr, by: &Expr) -> DfResult<Transformed<Expr>> {
    expr.transform_up(|e| {
        Ok(match is_proctime(&e) {
            true => Transformed::yes(by.clone()),
            false => Transformed::no(e),
        })
    })
}

/// A projection over its input with stamps.
fn under(projection: Projection) -> DfResult<LogicalPlan> {
    let node = Arc::new(Stamped::new(Arc::unwrap_or_clone(projection.input))?);
    let column = Expr::Column(Column::new_unqualified(STAMP));
    let exprs = projection.expr.into_iter().map(|e| Ok(replace(e, &column)?.data));
    let input = LogicalPlan::Extension(Extension { node });
    Ok(LogicalPlan::Projection(Projection::try_new(
        exprs.collect::<DfResult<_>>()?,
        Arc::new(input),
    )?))
}

/// Whether a column is one of stamps, seen through what hands columns on.
pub(super) fn is_stamp(column: &Column, plan: &LogicalPlan) -> bool {
    let Ok(index) = plan.schema().index_of_column(column) else { return false };
    stamp_at(index, plan)
}

fn stamp_at(index: usize, plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Extension(e) => match e.node.as_ref().as_any().downcast_ref::<Stamped>() {
            Some(node) => index + 1 == node.schema.fields().len(),
            None => false,
        },
        LogicalPlan::SubqueryAlias(alias) => stamp_at(index, &alias.input),
        LogicalPlan::Filter(filter) => stamp_at(index, &filter.input),
        LogicalPlan::Projection(p) => match p.expr.get(index).map(|e| e.clone().unalias_nested()) {
            // Ad hoc the time is that of the statement.
            Some(e) if is_now(&e.data) => true,
            Some(e) => matches!(&e.data, Expr::Column(column) if is_stamp(column, &p.input)),
            None => false,
        },
        LogicalPlan::Join(join) if matches!(join.join_type, JoinType::Inner | JoinType::Left) => {
            match index.checked_sub(join.left.schema().fields().len()) {
                None => stamp_at(index, &join.left),
                Some(index) => join.join_type == JoinType::Inner && stamp_at(index, &join.right),
            }
        }
        _ => false,
    }
}

/// 0A000 for what is left of `proctime()` in a view.
pub(super) fn unsupported_proctime() -> Error {
    Error::unsupported("proctime() is not supported here in a materialized view").with_hint(
        "Write it into the select list of a subquery: FROM (SELECT *, proctime() AS p FROM t) r.",
    )
}

impl Stamped {
    fn new(input: LogicalPlan) -> DfResult<Self> {
        let mut fields: Vec<_> =
            input.schema().iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        fields.push((None, Arc::new(Field::new(STAMP, proctime_type(), true))));
        let metadata = input.schema().metadata().clone();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, metadata)?);
        Ok(Self { input, schema })
    }

    /// The same at the time of a statement.
    pub(super) fn executable(&self) -> DfResult<LogicalPlan> {
        let columns = self.input.schema().columns().into_iter().map(Expr::Column);
        let time = now_udf().call(vec![]).alias(STAMP);
        LogicalPlanBuilder::from(self.input.clone()).project(columns.chain([time]))?.build()
    }
}

impl PartialOrd for Stamped {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Stamped {
    fn name(&self) -> &str {
        "Stamped"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        HashSet::from([STAMP.to_owned()])
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Stamped")
    }

    fn with_exprs_and_inputs(
        &self,
        _exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DfResult<Self> {
        match inputs.pop() {
            Some(input) => Self::new(input),
            None => plan_err!("stamps have an input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input.schema().fields().len();
        Some(vec![output_columns.iter().copied().filter(|c| *c < width).collect()])
    }
}
