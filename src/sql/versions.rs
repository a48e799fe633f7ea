//! `a JOIN b FOR SYSTEM_TIME AS OF a.ts ON a.k = b.k`, where `ts` is no time of arrival: each row
//! of the left with the version of the right that was valid at its time.
//!
//! The versions of a key are all rows that `b` has of it, each from its time on until that of the
//! next one; the time is the column with a watermark. So it is an ASOF join by `a.ts >= b.ts`, and
//! becomes one. Of a view that keeps the newest row of each key, by ROW_NUMBER and the time, the
//! versions are the rows that it chooses from. A table that replaces rows has no versions.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType, Result as DfResult, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Join, LogicalPlan, Operator, TableScan, Window};

use super::asof::asof_match_udf;
use super::context::RelationSource;
use super::errors::plan_error;
use super::proctime::is_stamp;
use super::windows::{as_of, versioned};
use crate::catalog::Relation;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{WalkPlan, to_datafusion};

/// Makes ASOF joins, by their mark, of joins with versions as of other times than that of arrival.
pub(super) fn at_event_time(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.map_nodes_up(|node| match node {
        LogicalPlan::Join(join) => match as_of(&join.right).cloned() {
            Some(time) if !is_stamp(&time, &join.left) => {
                made(join, time).map(Transformed::yes).map_err(to_datafusion)
            }
            _ => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        other => Ok(Transformed::no(other)),
    });
    let plan = plan.map(|t| t.data).map_err(plan_error)?;
    check(&plan, false)?;
    Ok(plan)
}

/// Refuses a version as of a column of nothing that it is joined with.
fn check(plan: &LogicalPlan, joined: bool) -> Result<()> {
    if let LogicalPlan::Join(join) = plan {
        check(&join.left, false)?;
        return check(&join.right, true);
    }
    if !joined && versioned(plan).is_some() && as_of(plan).is_some() {
        return Err(Error::unsupported("FOR SYSTEM_TIME AS OF a column outside of a join")
            .with_hint("Write o JOIN r FOR SYSTEM_TIME AS OF o.ts ON o.k = r.k."));
    }
    match plan.inputs().as_slice() {
        [input] => check(input, joined),
        inputs => inputs.iter().try_for_each(|input| check(input, false)),
    }
}

fn made(mut join: Join, time: Column) -> Result<LogicalPlan> {
    if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
        return Err(Error::unsupported(
            "FOR SYSTEM_TIME AS OF in another join than an inner or left one",
        ));
    }
    if join.left.schema().maybe_index_of_column(&time).is_none() {
        let message = format!("FOR SYSTEM_TIME AS OF {time}, which is no column of the left");
        return Err(Error::unsupported(message).with_hint(
            "Write a time of the rows that are joined with it: AS OF o.ts, or AS OF PROCTIME().",
        ));
    }
    let right = all_versions(Arc::unwrap_or_clone(join.right)).map_err(plan_error)?;
    let at = time_of(&right)?;
    let (table, field) = right.schema().qualified_field(at);
    let from = Expr::Column(Column::from((table, field.as_ref())));
    let condition = Expr::Column(time).gt_eq(from);
    let mark = asof_match_udf().1.call(vec![condition]);
    join.right = Arc::new(right);
    join.filter = Some(match join.filter {
        Some(filter) => mark.and(filter),
        None => mark,
    });
    Ok(LogicalPlan::Join(join))
}

/// A side of a join without its version, and with all rows where it would have the newest alone.
fn all_versions(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    if let Some(version) = versioned(&plan) {
        return every_row(version.input.clone());
    }
    let inputs = plan.inputs().into_iter().cloned().map(all_versions);
    let inputs = inputs.collect::<DfResult<Vec<_>>>()?;
    plan.with_new_exprs(plan.expressions(), inputs)
}

/// The rows from which a plan chooses the newest of each key.
fn every_row(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    if let LogicalPlan::Filter(filter) = &plan
        && split_conjunction(&filter.predicate).iter().all(|e| is_first(e, &filter.input))
    {
        return Ok(filter.input.as_ref().clone());
    }
    match plan {
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => {
            let inputs = plan.inputs().into_iter().cloned().map(every_row);
            let inputs = inputs.collect::<DfResult<Vec<_>>>()?;
            plan.with_new_exprs(plan.expressions(), inputs)
        }
        other => Ok(other),
    }
}

/// Whether a condition is `n = 1`, `n <= 1` or `n < 2` of a number in the order of time, the latest
/// first.
fn is_first(condition: &Expr, input: &LogicalPlan) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return false };
    let (Expr::Column(column), Expr::Literal(limit, _)) = (left.as_ref(), right.as_ref()) else {
        return false;
    };
    let limit = match limit {
        ScalarValue::Int64(Some(n)) => *n,
        ScalarValue::Int32(Some(n)) => i64::from(*n),
        _ => return false,
    };
    let one = matches!((op, limit), (Operator::Eq | Operator::LtEq, 1) | (Operator::Lt, 2));
    let place = input.schema().maybe_index_of_column(column);
    one && place.is_some_and(|at| numbers_the_latest(input, at))
}

fn numbers_the_latest(plan: &LogicalPlan, at: usize) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => numbers_the_latest(&alias.input, at),
        LogicalPlan::Projection(projection) => {
            let place = column_of(projection.expr.get(at), &projection.input);
            place.is_some_and(|at| numbers_the_latest(&projection.input, at))
        }
        LogicalPlan::Window(window) => is_number(window, at),
        _ => false,
    }
}

fn is_number(window: &Window, at: usize) -> bool {
    let width = window.input.schema().fields().len();
    let call = at.checked_sub(width).and_then(|at| window.window_expr.get(at));
    let Some(call) = call.map(|e| e.clone().unalias_nested().data) else { return false };
    let Expr::WindowFunction(call) = call else { return false };
    let [by] = call.params.order_by.as_slice() else { return false };
    let time = time_of(&window.input).ok();
    call.fun.name() == "row_number"
        && !by.asc
        && time.is_some()
        && column_of(Some(&by.expr), &window.input) == time
}

/// The column of a plan that an expression is.
fn column_of(expr: Option<&Expr>, input: &LogicalPlan) -> Option<usize> {
    match expr?.clone().unalias_nested().data {
        Expr::Column(column) => input.schema().maybe_index_of_column(&column),
        _ => None,
    }
}

/// The column that says from when on a row is valid.
fn time_of(plan: &LogicalPlan) -> Result<usize> {
    match plan {
        LogicalPlan::TableScan(scan) => time_of_table(scan),
        LogicalPlan::SubqueryAlias(alias) => time_of(&alias.input),
        LogicalPlan::Filter(filter) => time_of(&filter.input),
        LogicalPlan::Window(window) => time_of(&window.input),
        LogicalPlan::Projection(projection) => {
            let inner = time_of(&projection.input)?;
            let mut exprs = projection.expr.iter();
            let place = exprs.position(|e| column_of(Some(e), &projection.input) == Some(inner));
            place.ok_or_else(|| {
                let name = projection.input.schema().field(inner).name();
                let message = format!("FOR SYSTEM_TIME AS OF needs column \"{name}\" of the view");
                Error::unsupported(message).with_hint(format!("Select {name} in it, too."))
            })
        }
        _ => Err(Error::unsupported(
            "FOR SYSTEM_TIME AS OF a time of its rows is of a table, or of \
             a view that filters or numbers the rows of one",
        )
        .with_hint("Write o ASOF JOIN r ON o.k = r.k AND o.ts >= r.ts.")),
    }
}

fn time_of_table(scan: &TableScan) -> Result<usize> {
    let relation: &Relation = match scan.source.downcast_ref::<RelationSource>() {
        Some(source) => &source.relation,
        None => return Err(Error::internal("a scan of no relation")),
    };
    let name = relation.local_name();
    let Some(watermark) = &relation.watermark else {
        return Err(Error::user(
            sqlstate::INVALID_TABLE_DEFINITION,
            format!("FOR SYSTEM_TIME AS OF a time of its rows needs a watermark on \"{name}\""),
        )
        .with_detail("Its column is the time from which on a row is valid.")
        .with_hint(
            "Write WATERMARK FOR ts AS ts - INTERVAL '5 seconds' in its CREATE TABLE, or o ASOF \
             JOIN r ON o.k = r.k AND o.ts >= r.ts.",
        ));
    };
    if !relation.key.is_empty() && !relation.key.contains(&watermark.column) {
        let time = relation.schema.field(watermark.column).name();
        return Err(Error::unsupported(format!(
            "FOR SYSTEM_TIME AS OF a time of its rows is not supported for \"{name}\", which keeps \
             the newest row of a key alone"
        ))
        .with_hint(format!(
            "Make it without PRIMARY KEY, or with {time} in it, so that each version is a row; or \
             use FOR SYSTEM_TIME AS OF PROCTIME()."
        )));
    }
    let field = relation.schema.field(watermark.column);
    scan.projected_schema
        .index_of_column_by_name(None, field.name())
        .ok_or_else(|| Error::internal("the column of a watermark is not scanned"))
}
