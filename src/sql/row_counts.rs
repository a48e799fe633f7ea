//! LIMIT and OFFSET by any expression without columns of its query.
//!
//! A number that is known when the statement is planned stays in the node, as a bigint. What has to
//! be computed first (a subquery, a column of a query around, a volatile function) can't be there:
//! such a LIMIT numbers the rows, and keeps those whose number is right; WITH TIES those whose rank
//! is. NULL is no limit.

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
use super::limit::{counting_ties, with_ties_count};
use super::messages::sql_type;
use super::ties::{is_sorted, rank_by, rows_so_far, window_function};
use crate::error::{Error, Result, sqlstate};
use crate::expr::{Walk, WalkPlan, call, to_datafusion};

/// The column in which rows are numbered.
const NUMBER: &str = "#number";

/// The column with their rank among those that are equal in their order.
const RANK: &str = "#rank";

/// Gives every LIMIT and OFFSET a number, or its rows.
pub(super) fn count_limits(plan: LogicalPlan) -> Result<LogicalPlan> {
    let counted = plan.map_nodes_up(|node| match node {
        LogicalPlan::Limit(limit) => counted(limit).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    });
    counted.map(|t| t.data).map_err(plan_error)
}

/// The numbers of a LIMIT some of which have to be computed.
struct Counts {
    skip: Option<Expr>,
    fetch: Option<Expr>,
    /// Whether rows count too that are equal to the last one in their order.
    ties: bool,
}

fn counted(limit: Limit) -> DfResult<LogicalPlan> {
    let Limit { skip, fetch, input } = limit;
    let skip = skip.map(|e| number(*e, "OFFSET")).transpose()?;
    // The number of WITH TIES is the argument of a call, which is no subquery.
    let ties = fetch.as_ref().and_then(|e| with_ties_count(e)).cloned();
    let (fetch, ties) = match (ties, fetch) {
        (Some(count), _) => (Some(count), true),
        (None, fetch) => (fetch.map(|e| *e), false),
    };
    let fetch = fetch.map(|e| number(e, "LIMIT")).transpose()?;
    if !skip.iter().chain(&fetch).any(is_open) {
        let fetch = fetch.map(|count| if ties { counting_ties(count) } else { count });
        let (skip, fetch) = (skip.map(Box::new), fetch.map(Box::new));
        return Ok(LogicalPlan::Limit(Limit { skip, fetch, input }));
    }
    let input = Arc::unwrap_or_clone(input);
    let checked = |e: Option<Expr>, name| e.map(|e| call(name, vec![once(e)?])).transpose();
    let (skip, fetch) = (checked(skip, "pg_offset")?, checked(fetch, "pg_limit")?);
    numbered(input, &Counts { skip, fetch, ties })
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
fn numbered(plan: LogicalPlan, counts: &Counts) -> DfResult<LogicalPlan> {
    match plan {
        LogicalPlan::Sort(Sort { expr, input, fetch: None }) => {
            let input = Arc::new(kept(input, &expr, counts)?);
            Ok(LogicalPlan::Sort(Sort { expr, input, fetch: None }))
        }
        plan if is_sorted(&plan) => {
            Ok(plan.map_children(|child| numbered(child, counts).map(Transformed::yes))?.data)
        }
        plan => kept(Arc::new(plan), &[], counts),
    }
}

fn kept(input: Arc<LogicalPlan>, order: &[SortExpr], counts: &Counts) -> DfResult<LogicalPlan> {
    let Counts { skip, fetch, ties } = counts;
    let columns: Vec<Expr> = input.schema().iter().map(Expr::from).collect();
    let mut call = WindowFunction::new(window_function("row_number")?, Vec::new());
    call.params.order_by = order.to_vec();
    call.params.window_frame = rows_so_far();
    let mut calls = vec![Expr::WindowFunction(Box::new(call)).alias(NUMBER)];
    if *ties {
        calls.push(rank_by(order)?.alias(RANK));
    }
    let window = LogicalPlan::Window(Window::try_new(calls, input)?);
    // Behind those that are left out: a sum of both numbers could be too large.
    let behind = |name| {
        let number = cast(Expr::Column(Column::new_unqualified(name)), DataType::Int64);
        match skip {
            Some(skip) => number - skip.clone(),
            None => number,
        }
    };
    let begun = skip.as_ref().map(|_| behind(NUMBER).gt(lit(0_i64)));
    let last = if *ties { RANK } else { NUMBER };
    let ended = fetch.clone().map(|fetch| holds_or_null(behind(last).lt_eq(fetch)));
    // No row has a tie where there are none.
    let any = fetch.clone().filter(|_| *ties).map(|fetch| holds_or_null(fetch.gt(lit(0_i64))));
    let condition = [begun, ended, any].into_iter().flatten().reduce(Expr::and);
    let rows = match condition {
        Some(condition) => LogicalPlan::Filter(Filter::try_new(condition, Arc::new(window))?),
        None => window,
    };
    LogicalPlanBuilder::from(rows).project(columns)?.build()
}

/// A number without a value is no limit.
fn holds_or_null(condition: Expr) -> Expr {
    Expr::IsNotFalse(Box::new(condition))
}
