//! Scalar subqueries: a column of a join with the subquery's one row.

use std::sync::Arc;

use datafusion::common::{Column, Result as DfResult};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::{
    Aggregate, Expr, FetchType, JoinType, LogicalPlan, Subquery, lit, when,
};

use super::pull::{Need, projection};
use super::{Decorrelator, join_to, outer_columns};
use crate::expr::{one_row, single_value_udaf};
use crate::sql::binder::Purpose;
use crate::sql::constant::evaluate;

impl Decorrelator {
    pub(super) fn scalar(&mut self, s: Subquery, input: &mut LogicalPlan) -> DfResult<Expr> {
        let plan = self.plan(Arc::unwrap_or_clone(s.subquery))?;
        let mut correlated = false;
        super::visit_outer(&plan, &mut |_| correlated = true);
        if self.purpose == Purpose::AdHoc && !correlated {
            let plan = match rows_of(&plan) == Rows::One || is_stored(&plan, 0) {
                true => plan,
                false => nullable_value(plan)?,
            };
            // What a LATERAL inside of it read of its own FROM was counted as outer.
            let outer_ref_columns = Vec::new();
            let subquery = Subquery { subquery: Arc::new(plan), outer_ref_columns, ..s };
            return Ok(Expr::ScalarSubquery(subquery));
        }
        let local = outer_columns(&plan, input).is_empty();
        let rows = rows_of(&plan);
        let single = rows == Rows::One || rows == Rows::AtMostOne && !local;
        let plan = if single { plan } else { value_and_count(plan)? };
        let wanted = if single { 1 } else { 2 };
        let (found, _) = self.detach_as(&plan, input, (Need::OneRow, wanted))?;
        // A row is there whatever the outer row is.
        let always = local;
        let kind = if always { JoinType::Inner } else { JoinType::Left };
        *input = join_to(input.clone(), found.plan, kind, found.on)?;
        let mut values = found.values.into_iter().map(Expr::Column);
        match (values.next(), values.next()) {
            (Some(value), Some(count)) => Ok(one_row(value, count)),
            (Some(value), None) => match found.otherwise {
                Some((there, otherwise)) => or_else(value, there, otherwise),
                None => Ok(value),
            },
            _ => datafusion::common::internal_err!("a scalar subquery without a column"),
        }
    }
}

/// The value of an aggregate, or what it is over no rows.
fn or_else(value: Expr, there: Column, otherwise: Vec<Expr>) -> DfResult<Expr> {
    let Some(otherwise) = otherwise.into_iter().next() else { return Ok(value) };
    let otherwise = match evaluate(&otherwise) {
        Ok(constant) if constant.is_null() => return Ok(value),
        Ok(constant) => lit(constant),
        // Not of one type yet; it is what its parts are.
        Err(_) => otherwise,
    };
    when(Expr::Column(there).is_null(), otherwise).otherwise(value)
}

/// A value of the first column, and the number of rows.
fn value_and_count(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let value = plan.schema().columns().into_iter().next().map(Expr::Column);
    let Some(value) = value else {
        return datafusion::common::internal_err!("a scalar subquery without a column");
    };
    let calls = vec![single_value_udaf().call(vec![value]), count_udaf().call(vec![lit(1_i64)])];
    let plan = Aggregate::try_new(Arc::new(plan), Vec::new(), calls)?;
    let plan = LogicalPlan::Aggregate(plan);
    let columns = plan.schema().columns().into_iter().zip(["value", "rows"]);
    projection(columns.map(|(c, name)| Expr::Column(c).alias(name)).collect(), plan)
}

/// The same value in a column that may be NULL: to DataFusion a constant is never NULL, also where
/// there is no row.
fn nullable_value(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let name = plan.schema().field(0).name().clone();
    let plan = value_and_count(plan)?;
    let mut columns = plan.schema().columns().into_iter().map(Expr::Column);
    match (columns.next(), columns.next()) {
        (Some(value), Some(count)) => projection(vec![one_row(value, count).alias(name)], plan),
        _ => datafusion::common::internal_err!("a value and a count are two columns"),
    }
}

/// Whether a column is one of a relation, all of which may be NULL.
fn is_stored(plan: &LogicalPlan, column: usize) -> bool {
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::Projection(p) => match p.expr.get(column) {
            Some(Expr::Column(c)) => {
                p.input.schema().index_of_column(c).is_ok_and(|at| is_stored(&p.input, at))
            }
            _ => false,
        },
        LogicalPlan::Filter(f) => is_stored(&f.input, column),
        LogicalPlan::Sort(s) => is_stored(&s.input, column),
        LogicalPlan::Limit(l) => is_stored(&l.input, column),
        LogicalPlan::SubqueryAlias(a) => is_stored(&a.input, column),
        LogicalPlan::Subquery(s) => is_stored(&s.subquery, column),
        _ => false,
    }
}

/// How many rows a plan gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    One,
    AtMostOne,
    Any,
}

/// How many rows a plan gives whatever its input: one by an aggregate without keys.
pub(super) fn rows_of(plan: &LogicalPlan) -> Rows {
    match plan {
        LogicalPlan::Aggregate(a) if a.group_expr.is_empty() => Rows::One,
        LogicalPlan::EmptyRelation(e) if e.produce_one_row => Rows::One,
        LogicalPlan::Projection(p) => rows_of(&p.input),
        LogicalPlan::Sort(s) => rows_of(&s.input),
        LogicalPlan::SubqueryAlias(a) => rows_of(&a.input),
        LogicalPlan::Subquery(s) => rows_of(&s.subquery),
        LogicalPlan::Filter(f) => match rows_of(&f.input) {
            Rows::Any => Rows::Any,
            _ => Rows::AtMostOne,
        },
        LogicalPlan::Limit(l) => match l.get_fetch_type() {
            Ok(FetchType::Literal(Some(n))) if n <= 1 => Rows::AtMostOne,
            _ => Rows::Any,
        },
        _ => Rows::Any,
    }
}
