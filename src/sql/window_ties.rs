//! Window functions made to mean one thing: where a function tells peers apart, the remaining
//! columns of its input become further ORDER BY keys, so that ties are broken by the whole row in
//! the order of key bytes.
//!
//! | function | its order |
//! |---|---|
//! | row_number, ntile, lag, lead; any frame in ROWS | whole row |
//! | rank, dense_rank, percent_rank, cume_dist | as written: peers are equal |
//! | aggregates over RANGE, GROUPS or the whole partition | as written: peers stay together |
//!
//! `array_agg` and its like over the rows so far, in RANGE, is that over ROWS of the last peer.
//!
//! This runs behind the optimiser: columns that nobody reads are gone by then, and rows that differ
//! only in those are interchangeable. Calls that now sort differently are taken apart into nodes of
//! their own. Names of columns stay.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{
    Expr, LogicalPlan, Projection, SortExpr, Window, WindowFrame, WindowFrameBound,
    WindowFrameUnits, WindowFunctionDefinition, lit, when,
};

use super::binder::Purpose;
use super::errors::plan_error;
use super::functions::FUNCTIONS;
use super::ties::{rows_so_far, whole_row};
use crate::error::{Error, Result};
use crate::expr::{WalkPlan, to_datafusion};
use crate::library::{self, Order, Peers};

/// Whether the value of a call depends on the order of the rows in its frame.
fn is_ordered(name: &str) -> bool {
    library::aggregate(name).is_some_and(|f| f.order != Order::Blind)
        || library::window(name).is_some_and(|f| f.peers == Peers::OfFrame)
}

/// Gives every window function of an optimised plan a total order where it needs one.
pub(crate) fn order_windows(plan: LogicalPlan, purpose: Purpose) -> Result<LogicalPlan> {
    let ordered = plan.map_nodes_up(|node| match node {
        LogicalPlan::Window(window) => order_window(window, purpose),
        other => Ok(Transformed::no(other)),
    });
    ordered.map(|t| t.data).map_err(plan_error)
}

fn order_window(window: Window, purpose: Purpose) -> DfResult<Transformed<LogicalPlan>> {
    let mut changed = false;
    let mut calls = Vec::with_capacity(window.window_expr.len());
    let mut results = Vec::with_capacity(window.window_expr.len());
    let mut later = Vec::new();
    for expr in &window.window_expr {
        let name = expr.schema_name().to_string();
        let Expr::WindowFunction(call) = expr.clone().unalias_nested().data else {
            return Ok(Transformed::no(LogicalPlan::Window(window)));
        };
        let whole = |params: &WindowFunctionParams| {
            let columns = whole_row(window.input.schema(), &params.order_by);
            columns.into_iter().filter(|c| !params.partition_by.contains(&c.expr)).collect()
        };
        if let Some(mut nth) = nth_so_far(&call)? {
            changed = true;
            let rest: Vec<SortExpr> = whole(&nth.value.params);
            nth.value.params.order_by.extend(rest);
            results.push(nth.add_to(&mut calls, &name)?);
            continue;
        }
        if let Some(mut all) = all_so_far(&call, &name) {
            changed = true;
            let rest: Vec<SortExpr> = whole(&call.params);
            all.rows.params.order_by.extend(rest.iter().cloned());
            all.last.params.order_by = rest;
            calls.push(Expr::WindowFunction(Box::new(all.rows)).alias(all.column));
            later.push(Expr::WindowFunction(Box::new(all.last)).alias(&name));
            results.push(Expr::Column(Column::new_unqualified(name)));
            continue;
        }
        match break_ties((*call).clone(), &whole, purpose)? {
            Some(ordered) => {
                changed = true;
                calls.push(Expr::WindowFunction(Box::new(ordered)).alias(&name));
            }
            None => calls.push(expr.clone()),
        }
        results.push(Expr::Column(Column::new_unqualified(name)));
    }
    let mut groups = by_order(calls);
    groups.extend(by_order(later));
    if !changed && groups.len() == 1 {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    Ok(Transformed::yes(stack(&window, groups, results)?))
}

/// `nth_value(x, n)` over a frame in RANGE or GROUPS from the start of the partition: the n-th row
/// of the partition, where the frame has as many rows.
struct NthSoFar {
    value: WindowFunction,
    rows: WindowFunction,
    n: i64,
}

fn nth_so_far(call: &WindowFunction) -> DfResult<Option<NthSoFar>> {
    let frame = &call.params.window_frame;
    let from_start = matches!(&frame.start_bound, WindowFrameBound::Preceding(v) if v.is_null());
    let ignores = call.params.null_treatment == Some(NullTreatment::IgnoreNulls);
    let in_rows = frame.units == WindowFrameUnits::Rows;
    if call.fun.name() != "nth_value" || !from_start || is_whole(frame) || in_rows || ignores {
        return Ok(None);
    }
    let n = match call.params.args.get(1) {
        Some(Expr::Literal(n, _)) => n.cast_to(&DataType::Int64)?,
        _ => return Ok(None),
    };
    let ScalarValue::Int64(Some(n @ 1..)) = n else { return Ok(None) };
    let Some(count) = FUNCTIONS.aggregate.get("count") else { return Ok(None) };
    let mut value = call.clone();
    value.params.window_frame = all_rows();
    let mut rows = call.clone();
    rows.fun = WindowFunctionDefinition::AggregateUDF(Arc::clone(count));
    rows.params.args = vec![lit(1_i64)];
    rows.params.null_treatment = None;
    Ok(Some(NthSoFar { value, rows, n }))
}

impl NthSoFar {
    /// Adds both calls; the result under a name.
    fn add_to(self, calls: &mut Vec<Expr>, name: &str) -> DfResult<Expr> {
        let (value, rows) = (format!("#nth {name}"), format!("#rows {name}"));
        let column = |name: &str| Expr::Column(Column::new_unqualified(name));
        let result = when(column(&rows).gt_eq(lit(self.n)), column(&value)).end()?;
        calls.push(Expr::WindowFunction(Box::new(self.value)).alias(value));
        calls.push(Expr::WindowFunction(Box::new(self.rows)).alias(rows));
        Ok(result.alias(name))
    }
}

/// An ordered aggregate over a frame in RANGE or GROUPS from the start of the partition to the
/// current row's peers: it is that of the last peer, row by row in a total order.
struct AllSoFar {
    rows: WindowFunction,
    last: WindowFunction,
    column: String,
}

fn all_so_far(call: &WindowFunction, name: &str) -> Option<AllSoFar> {
    let frame = &call.params.window_frame;
    let from_start = matches!(&frame.start_bound, WindowFrameBound::Preceding(v) if v.is_null());
    let is_aggregate = matches!(call.fun, WindowFunctionDefinition::AggregateUDF(_));
    let to_peers = frame.end_bound == WindowFrameBound::CurrentRow;
    let in_rows = frame.units == WindowFrameUnits::Rows;
    if !is_aggregate || !is_ordered(call.fun.name()) || !from_start || !to_peers || in_rows {
        return None;
    }
    let last_value = Arc::clone(FUNCTIONS.window.get("last_value")?);
    let column = format!("#all {name}");
    let mut rows = call.clone();
    rows.params.window_frame = rows_so_far();
    let mut last = call.clone();
    last.fun = WindowFunctionDefinition::WindowUDF(last_value);
    last.params.args = vec![Expr::Column(Column::new_unqualified(&column))];
    last.params.filter = None;
    last.params.null_treatment = None;
    last.params.distinct = false;
    let keys = std::mem::take(&mut last.params.order_by);
    last.params.partition_by.extend(keys.into_iter().map(|key| key.expr));
    last.params.window_frame = all_rows();
    Some(AllSoFar { rows, last, column })
}

/// Calls apart by PARTITION BY and ORDER BY, in the order of the first of each.
fn by_order(calls: Vec<Expr>) -> Vec<Vec<Expr>> {
    let mut groups: Vec<(WindowFunctionParams, Vec<Expr>)> = Vec::new();
    for call in calls {
        let Expr::WindowFunction(inner) = call.clone().unalias_nested().data else { continue };
        let alike = |p: &WindowFunctionParams| {
            p.partition_by == inner.params.partition_by && p.order_by == inner.params.order_by
        };
        match groups.iter_mut().find(|(params, _)| alike(params)) {
            Some((_, calls)) => calls.push(call),
            None => groups.push((inner.params, vec![call])),
        }
    }
    groups.into_iter().map(|(_, calls)| calls).collect()
}

/// One node for each group of calls, the first below, and a projection that puts the columns into
/// their places when there are several.
fn stack(window: &Window, groups: Vec<Vec<Expr>>, results: Vec<Expr>) -> DfResult<LogicalPlan> {
    let one = groups.len() == 1 && results.iter().all(|r| matches!(r, Expr::Column(_)));
    let mut plan = Arc::clone(&window.input);
    for calls in groups {
        plan = Arc::new(LogicalPlan::Window(Window::try_new(calls, plan)?));
    }
    if one {
        return Ok(Arc::unwrap_or_clone(plan));
    }
    let columns = window.input.schema().iter().map(Expr::from).chain(results);
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), plan)?))
}

type WholeRow<'a> = &'a dyn Fn(&WindowFunctionParams) -> Vec<SortExpr>;

/// The call with a total order; `None` when the order as written is enough.
fn break_ties(
    mut call: WindowFunction,
    whole: WholeRow<'_>,
    purpose: Purpose,
) -> DfResult<Option<WindowFunction>> {
    let name = call.fun.name().to_owned();
    let in_rows = call.params.window_frame.units == WindowFrameUnits::Rows;
    match (&call.fun, library::window(&name).map(|f| f.peers)) {
        (_, Some(Peers::Equal)) => return Ok(None),
        // Their frame means nothing.
        (_, Some(Peers::Apart)) => {
            call.params.window_frame = rows_so_far();
        }
        (WindowFunctionDefinition::WindowUDF(_), Some(Peers::OfFrame)) => {
            if !in_rows && !value_function(&mut call.params, &name) {
                return untold(&name, purpose);
            }
        }
        _ => {
            let ordered = is_ordered(&name);
            let all = is_whole(&call.params.window_frame);
            if ordered && all {
                call.params.window_frame = all_rows();
            } else if ordered && !in_rows {
                return untold(&name, purpose);
            } else if all || !in_rows {
                return Ok(None);
            }
        }
    }
    let rest = whole(&call.params);
    call.params.order_by.extend(rest);
    Ok(Some(call))
}

fn untold(name: &str, purpose: Purpose) -> DfResult<Option<WindowFunction>> {
    match purpose {
        Purpose::AdHoc => Ok(None),
        Purpose::View => Err(to_datafusion(
            Error::unsupported(format!(
                "{name} over this RANGE or GROUPS frame is not supported in a materialized view"
            ))
            .with_detail("Which of several peers it takes is not told by such a frame.")
            .with_hint("Write the frame with ROWS."),
        )),
    }
}

/// Puts a frame in ROWS in the place of one in RANGE or GROUPS from which `first_value`,
/// `last_value` or `nth_value` takes the same row, if peers were ordered by the whole row. False
/// when there is none.
///
/// A frame from the start of the partition begins with its first row, one up to its end closes with
/// its last row, and one that begins or ends with the current row's peers has the first or last of
/// them there: those are the rows of a partition by the ORDER BY keys too.
fn value_function(params: &mut WindowFunctionParams, name: &str) -> bool {
    if params.null_treatment == Some(NullTreatment::IgnoreNulls) {
        return false;
    }
    let (start, end) = (&params.window_frame.start_bound, &params.window_frame.end_bound);
    let from_start = matches!(start, WindowFrameBound::Preceding(v) if v.is_null());
    let to_end = matches!(end, WindowFrameBound::Following(v) if v.is_null());
    // The current row is in the frame, so that the frame is never empty.
    let around = !matches!(start, WindowFrameBound::Following(_))
        && !matches!(end, WindowFrameBound::Preceding(_));
    let peers = match name {
        "first_value" if from_start && around => false,
        "last_value" if to_end && around => false,
        "nth_value" if from_start && to_end => false,
        "first_value" if around && *start == WindowFrameBound::CurrentRow => true,
        "last_value" if around && *end == WindowFrameBound::CurrentRow => true,
        _ => return false,
    };
    if peers {
        let keys = std::mem::take(&mut params.order_by);
        params.partition_by.extend(keys.into_iter().map(|key| key.expr));
    }
    params.window_frame = all_rows();
    true
}

/// Whether a frame is the whole partition.
fn is_whole(frame: &WindowFrame) -> bool {
    matches!(&frame.start_bound, WindowFrameBound::Preceding(v) if v.is_null())
        && matches!(&frame.end_bound, WindowFrameBound::Following(v) if v.is_null())
}

/// `ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING`.
fn all_rows() -> WindowFrame {
    WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::Following(ScalarValue::UInt64(None)),
    )
}
