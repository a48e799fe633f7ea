//! LIMIT and DISTINCT ON made to mean one thing: ties are broken by the whole row, in the order of
//! key bytes, so that an answer depends neither on arrival nor on how batches were cut. The same
//! rewrite serves views, their recomputation and ad-hoc reads; window functions have theirs in
//! `window_ties`.
//!
//! * LIMIT over ORDER BY: the remaining columns of the sorted rows become further sort keys;
//! * LIMIT without ORDER BY: all columns do. At the top of an ad-hoc query it is left alone: who
//!   asks for any ten rows does not want all of them sorted;
//! * DISTINCT ON: `row_number() = 1` in the order of ORDER BY and then of the whole row.
//!
//! * FETCH FIRST n ROWS WITH TIES: `rank() <= n`.
//!
//! This runs ahead of the optimiser, where a query still has the shape in which it was written;
//! DISTINCT ON goes at once, because subqueries are not taken inside of it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::expr_rewriter::{normalize_cols, normalize_sorts};
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, Limit, LogicalPlan, LogicalPlanBuilder, Projection, Sort, SortExpr,
    Window, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, cast, lit,
};

use super::binder::Purpose;
use super::errors::plan_error;
use super::functions::FUNCTIONS;
use super::limit::with_ties_count;
use crate::error::{Error, Result};
use crate::expr::{Walk, WalkPlan, call};

/// The column in which DISTINCT ON numbers the rows of a group.
const NUMBER: &str = "#distinct_on";

/// The column in which WITH TIES ranks rows.
const RANK: &str = "#with_ties";

/// Puts `row_number() = 1` in the place of every DISTINCT ON.
pub(crate) fn expand_distinct_on(plan: LogicalPlan) -> Result<LogicalPlan> {
    let expanded = plan.map_nodes_up(|node| match node {
        LogicalPlan::Distinct(Distinct::On(distinct)) => distinct_on(distinct),
        other => Ok(Transformed::no(other)),
    });
    expanded.map(|t| t.data).map_err(plan_error)
}

/// Gives every LIMIT of an analysed plan a total order.
pub(crate) fn order_limits(plan: LogicalPlan, purpose: Purpose) -> Result<LogicalPlan> {
    top(plan, purpose).map_err(plan_error)
}

/// The nodes at the top of a plan, where an ad-hoc LIMIT may choose any rows.
fn top(plan: LogicalPlan, purpose: Purpose) -> DfResult<LogicalPlan> {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_) => {
            Ok(plan.map_children(|child| top(child, purpose).map(Transformed::yes))?.data)
        }
        LogicalPlan::Limit(limit) if purpose == Purpose::AdHoc && !is_sorted(&limit.input) => {
            let plan = LogicalPlan::Limit(limit);
            Ok(plan.map_children(|child| everywhere(child).map(Transformed::yes))?.data)
        }
        plan => everywhere(plan),
    }
}

fn everywhere(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let ordered = plan.map_nodes_up(|node| match node {
        LogicalPlan::Limit(limit) if !is_correlated(&limit.input)? => order_limit(limit),
        other => Ok(Transformed::no(other)),
    });
    Ok(ordered?.data)
}

/// Whether a plan reads columns of a query around it: its ORDER BY and LIMIT are the business of
/// the rules that make a join of it.
fn is_correlated(plan: &LogicalPlan) -> DfResult<bool> {
    let mut found = false;
    plan.apply(|node| {
        node.each_expr(|e| {
            found |= e.exists(|e| Ok(matches!(e, Expr::OuterReferenceColumn(..))))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether the rows come out of a Sort, in its order.
pub(super) fn is_sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(p) => is_sorted(&p.input),
        LogicalPlan::SubqueryAlias(a) => is_sorted(&a.input),
        _ => false,
    }
}

/// Puts a LIMIT right behind the Sort below it, or behind one of its own, with all columns as sort
/// keys. Projections between both compute row by row, so they can as well stand above the LIMIT.
fn order_limit(limit: Limit) -> DfResult<Transformed<LogicalPlan>> {
    if is_sorted(&limit.input) {
        let Limit { skip, fetch, input } = limit;
        return below(Arc::unwrap_or_clone(input), &skip, &fetch).map(Transformed::yes);
    }
    let keys = whole_row(limit.input.schema(), &[]);
    if keys.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Limit(limit)));
    }
    let sort = Sort { expr: keys, input: limit.input, fetch: None };
    let input = Arc::new(LogicalPlan::Sort(sort));
    Ok(Transformed::yes(LogicalPlan::Limit(Limit { input, ..limit })))
}

/// Puts the LIMIT above the Sort below projections and aliases, which gets a total order.
fn below(
    plan: LogicalPlan,
    skip: &Option<Box<Expr>>,
    fetch: &Option<Box<Expr>>,
) -> DfResult<LogicalPlan> {
    let LogicalPlan::Sort(mut sort) = plan else {
        return Ok(plan.map_children(|c| below(c, skip, fetch).map(Transformed::yes))?.data);
    };
    let mut fetch = fetch.clone();
    if let Some(count) = fetch.as_ref().and_then(|f| with_ties_count(f)) {
        let count = call("pg_limit", vec![cast(count.clone(), DataType::Int64)])?;
        let end = match skip {
            Some(skip) => (**skip).clone() + count.clone(),
            None => count.clone(),
        };
        // No row has a tie where there are none.
        sort.input = Arc::new(ranked_up_to(&sort, end, count.gt(lit(0_i64)))?);
        fetch = None;
    }
    let rest = whole_row(sort.input.schema(), &sort.expr);
    sort.expr.extend(rest);
    let plan = LogicalPlan::Sort(sort);
    if skip.is_none() && fetch.is_none() {
        return Ok(plan);
    }
    Ok(LogicalPlan::Limit(Limit { skip: skip.clone(), fetch, input: Arc::new(plan) }))
}

/// The input of a Sort without the rows whose rank in its order is above `end`, or no row.
fn ranked_up_to(sort: &Sort, end: Expr, any: Expr) -> DfResult<LogicalPlan> {
    let call = rank_by(&sort.expr)?.alias(RANK);
    let window = LogicalPlan::Window(Window::try_new(vec![call], Arc::clone(&sort.input))?);
    let first = Expr::Column(Column::new_unqualified(RANK)).lt_eq(end).and(any);
    let columns = sort.input.schema().iter().map(Expr::from);
    LogicalPlanBuilder::from(window).filter(first)?.project(columns)?.build()
}

/// `rank()` in an order.
pub(super) fn rank_by(order: &[SortExpr]) -> DfResult<Expr> {
    let mut call = WindowFunction::new(window_function("rank")?, Vec::new());
    call.params.order_by = order.to_vec();
    call.params.window_frame = WindowFrame::new(Some(false));
    Ok(Expr::WindowFunction(Box::new(call)))
}

pub(super) fn window_function(name: &str) -> DfResult<WindowFunctionDefinition> {
    match FUNCTIONS.window.get(name) {
        Some(f) => Ok(WindowFunctionDefinition::WindowUDF(Arc::clone(f))),
        None => Err(crate::expr::to_datafusion(Error::internal(format!("{name} is no function")))),
    }
}

/// Sort keys for the columns of `schema` that `keys` does not have yet. Ascending, NULLs last: the
/// order of key bytes.
pub(super) fn whole_row(schema: &DFSchema, keys: &[SortExpr]) -> Vec<SortExpr> {
    schema
        .iter()
        .filter(|(_, field)| can_sort(field.data_type()))
        .map(Expr::from)
        .filter(|column| !keys.iter().any(|key| key.expr == *column))
        .map(|column| SortExpr::new(column, true, false))
        .collect()
}

fn can_sort(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => can_sort(item.data_type()),
        other => !other.is_nested(),
    }
}

/// `ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW`.
pub(super) fn rows_so_far() -> WindowFrame {
    WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(datafusion::common::ScalarValue::UInt64(None)),
        WindowFrameBound::CurrentRow,
    )
}

/// The first row of each group, in the order of ORDER BY.
fn distinct_on(distinct: DistinctOn) -> DfResult<Transformed<LogicalPlan>> {
    let DistinctOn { on_expr, select_expr, sort_expr, input, schema } = distinct;
    let order_by = normalize_sorts(sort_expr.unwrap_or_default(), input.as_ref())?;
    let mut call = WindowFunction::new(window_function("row_number")?, Vec::new());
    call.params.partition_by = normalize_cols(on_expr, input.as_ref())?;
    // Which row is the first depends on neither what is read of it nor on rules that take columns
    // away.
    call.params.order_by = order_by.clone();
    call.params.order_by.extend(whole_row(input.schema(), &order_by));
    call.params.window_frame = rows_so_far();
    let call = Expr::WindowFunction(Box::new(call)).alias(NUMBER);
    let select = normalize_cols(select_expr, input.as_ref())?;
    let names = schema.iter().map(|(qualifier, field)| (qualifier.cloned(), field.name().clone()));
    let select: Vec<Expr> =
        select.into_iter().zip(names).map(|(e, (q, n))| e.alias_qualified(q, n)).collect();
    let window = LogicalPlan::Window(Window::try_new(vec![call], input)?);
    let first = Expr::Column(Column::new_unqualified(NUMBER)).lt_eq(lit(1_i64));
    let mut rows = LogicalPlanBuilder::from(window).filter(first)?.build()?;
    // An ad-hoc query shows its rows in this order, and a LIMIT counts in it.
    if !order_by.is_empty() {
        rows = LogicalPlan::Sort(Sort { expr: order_by, input: Arc::new(rows), fetch: None });
    }
    let projection = Projection::try_new(select, Arc::new(rows))?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}
