//! LIMIT and OFFSET by any expression without columns of its query.
//!
//! A number that is known when the statement is planned stays in the node, as a bigint. What has to
//! be computed first (a subquery, a column of a query around, a volatile function) can't be there:
//! such a LIMIT numbers the rows, and keeps those whose number is right. NULL is no limit.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue, Spans};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Filter, Limit, LogicalPlan, LogicalPlanBuilder, Sort, SortExpr, Subquery,
    Window, cast, lit,
};

use super::errors::plan_error;
use super::limit::with_ties_count;
use super::messages::sql_type;
use super::ties::{is_sorted, rows_so_far, window_function};
use crate::error::{Error, Result, sqlstate};
use crate::expr::{Walk, WalkPlan, call, to_datafusion};

/// The column in which rows are numbered.
const NUMBER: &str = "#number";

/// Gives every LIMIT and OFFSET a number, or its rows.
pub(super) fn count_limits(plan: LogicalPlan) -> Result<LogicalPlan> {
    let counted = plan.map_nodes_up(|node| match node {
        LogicalPlan::Limit(limit) => counted(limit).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    });
    counted.map(|t| t.data).map_err(plan_error)
}

fn counted(limit: Limit) -> DfResult<LogicalPlan> {
    let Limit { skip, fetch, input } = limit;
    let skip = skip.map(|e| number(*e, "OFFSET")).transpose()?;
    // The number of WITH TIES is the argument of a call, which is no subquery.
    let fetch = match fetch {
        Some(e) if with_ties_count(&e).is_some() => Some(*e),
        Some(e) => Some(number(*e, "LIMIT")?),
        None => None,
    };
    if !skip.iter().chain(&fetch).any(is_open) {
        let (skip, fetch) = (skip.map(Box::new), fetch.map(Box::new));
        return Ok(LogicalPlan::Limit(Limit { skip, fetch, input }));
    }
    let input = Arc::unwrap_or_clone(input);
    let checked = |e: Option<Expr>, name| e.map(|e| call(name, vec![once(e)?])).transpose();
    let (skip, fetch) = (checked(skip, "pg_offset")?, checked(fetch, "pg_limit")?);
    numbered(input, &skip, &fetch)
}

/// An expression as a bigint, as far as it can be one.
fn number(expr: Expr, clause: &str) -> DfResult<Expr> {
    let has = |what: fn(&Expr) -> bool| expr.exists(|e| Ok(what(e)));
    if has(|e| matches!(e, Expr::AggregateFunction(_)))? {
        let message = format!("aggregate functions are not allowed in {clause}");
        return Err(to_datafusion(Error::user(sqlstate::GROUPING_ERROR, message)));
    }
    if has(|e| matches!(e, Expr::WindowFunction(_)))? {
        let message = format!("window functions are not allowed in {clause}");
        return Err(to_datafusion(Error::user(sqlstate::WINDOWING_ERROR, message)));
    }
    if let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &expr
        && text.trim().parse::<i64>().is_err()
    {
        let message = format!("invalid input syntax for type bigint: \"{text}\"");
        let code = sqlstate::INVALID_TEXT_REPRESENTATION;
        return Err(to_datafusion(Error::user(code, message)));
    }
    // The type of a parameter comes from where it stands.
    if has(|e| matches!(e, Expr::Placeholder(_)))? && !is_open(&expr) {
        return Ok(expr);
    }
    let found = expr.get_type(&DFSchema::empty())?;
    let fits = match &found {
        DataType::Int64 => return Ok(expr),
        DataType::Utf8 | DataType::Utf8View => matches!(expr, Expr::Literal(..)),
        other => other.is_numeric() || other.is_null(),
    };
    match fits {
        true => Ok(cast(expr, DataType::Int64)),
        false => {
            let found = sql_type(&found.to_string());
            let message = format!("argument of {clause} must be type bigint, not type {found}");
            Err(to_datafusion(Error::user(sqlstate::DATATYPE_MISMATCH, message)))
        }
    }
}

/// Whether a number is not known before the statement runs.
fn is_open(expr: &Expr) -> bool {
    let open = expr.exists(|e| {
        Ok(matches!(
            e,
            Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
        ))
    });
    open.unwrap_or(true) || expr.is_volatile()
}

/// What is volatile is computed once, not for each row.
fn once(expr: Expr) -> DfResult<Expr> {
    if !expr.is_volatile() {
        return Ok(expr);
    }
    let query = LogicalPlanBuilder::empty(true).project([expr.alias(NUMBER)])?.build()?;
    let outer_ref_columns = query.all_out_ref_exprs();
    let subquery = Arc::new(query);
    Ok(Expr::ScalarSubquery(Subquery { subquery, outer_ref_columns, spans: Spans::new() }))
}

/// The rows by their numbers in the order of the Sort below projections and aliases, which stays.
fn numbered(plan: LogicalPlan, skip: &Option<Expr>, fetch: &Option<Expr>) -> DfResult<LogicalPlan> {
    match plan {
        LogicalPlan::Sort(Sort { expr, input, fetch: None }) => {
            let input = Arc::new(kept(input, &expr, skip, fetch)?);
            Ok(LogicalPlan::Sort(Sort { expr, input, fetch: None }))
        }
        plan if is_sorted(&plan) => {
            Ok(plan.map_children(|child| numbered(child, skip, fetch).map(Transformed::yes))?.data)
        }
        plan => kept(Arc::new(plan), &[], skip, fetch),
    }
}

fn kept(
    input: Arc<LogicalPlan>,
    order: &[SortExpr],
    skip: &Option<Expr>,
    fetch: &Option<Expr>,
) -> DfResult<LogicalPlan> {
    let columns: Vec<Expr> = input.schema().iter().map(Expr::from).collect();
    let mut call = WindowFunction::new(window_function("row_number")?, Vec::new());
    call.params.order_by = order.to_vec();
    call.params.window_frame = rows_so_far();
    let call = Expr::WindowFunction(Box::new(call)).alias(NUMBER);
    let window = LogicalPlan::Window(Window::try_new(vec![call], input)?);
    let number = cast(Expr::Column(Column::new_unqualified(NUMBER)), DataType::Int64);
    // Behind those that are left out: a sum of both numbers could be too large.
    let behind = match skip {
        Some(skip) => number - skip.clone(),
        None => number,
    };
    let mut condition =
        fetch.clone().map(|fetch| Expr::IsNotFalse(Box::new(behind.clone().lt_eq(fetch))));
    if skip.is_some() {
        let begun = behind.gt(lit(0_i64));
        condition = Some(match condition {
            Some(first) => begun.and(first),
            None => begun,
        });
    }
    let rows = match condition {
        Some(condition) => LogicalPlan::Filter(Filter::try_new(condition, Arc::new(window))?),
        None => window,
    };
    LogicalPlanBuilder::from(rows).project(columns)?.build()
}
