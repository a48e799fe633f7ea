//! `count_window(t, ts, [key, ..] size [, slide])`: windows of so many rows of a key, in the order
//! of time. A row moves on when one comes that is earlier; of rows of one time the order is that of
//! the whole row. The last window of a key may have fewer rows than the others.
//!
//! With `timeout => interval` behind the size a window also ends when its first row is so old: the
//! next row begins another one. These are the matches of a row pattern of so many rows within that
//! interval, with their `window_start` and `window_end`, and close by the watermark as these do.
//!
//! Without it rows are numbered by `row_number`, so a change costs as much as the rows behind it
//! that move on.

use std::sync::Arc;

use datafusion::common::{Column, ScalarValue, UnnestOptions};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Operator, SortExpr, Window, binary_expr, col, lit,
};
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, Ident, Value};

use super::super::errors::plan_error;
use super::super::parser::fold;
use super::super::patterns::all_rows;
use super::super::ties::{rows_so_far, whole_row, window_function};
use super::super::tree::call;
use super::super::watermark::interval;
use super::arguments::{Arguments, COUNT, Input, usage};
use crate::config::WINDOWS_PER_ROW_MAX;
use crate::error::{Error, Result, sqlstate};

/// The number of a window among those of its key, from 1 on.
const NUMBER: &str = "window_number";

const ROW: &str = "#row";
const BACK: &str = "#back";

pub(super) fn plan(
    mut args: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let timeout = timeout(&mut args)?;
    let mut numbers = Vec::new();
    while let Some(number) = args.last().and_then(number) {
        numbers.push(number?);
        args.pop();
    }
    numbers.reverse();
    let (size, slide) = match numbers.as_slice() {
        [size] => (*size, *size),
        [size, slide] => (*size, *slide),
        _ => return Err(usage(&COUNT)),
    };
    if size <= 0 || slide <= 0 {
        let message = "the size and the slide of count windows must be greater than zero";
        return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message));
    }
    let windows = (size - 1) / slide + 1;
    if usize::try_from(windows).map_or(true, |windows| windows > WINDOWS_PER_ROW_MAX) {
        let message = format!("a row would be in {windows} count windows");
        return Err(Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, message)
            .with_detail(format!("At most {WINDOWS_PER_ROW_MAX} are supported."))
            .with_hint("Take a larger slide or a smaller size."));
    }
    let input = Arguments::of(&COUNT, args)?.input(context)?;
    if let Some(timeout) = timeout {
        if slide != size {
            return Err(Error::unsupported("count windows with a slide and a timeout")
                .with_hint("Leave one of them out."));
        }
        return timed(input, size, timeout, context);
    }
    numbered(input, size, slide, windows).map_err(plan_error)
}

/// A number at the end of the arguments.
fn number(arg: &FunctionArg) -> Option<Result<i64>> {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Value(value))) = arg else {
        return None;
    };
    match &value.value {
        Value::Number(text, _) => Some(text.parse().map_err(|_| usage(&COUNT))),
        _ => None,
    }
}

/// The interval behind the size in microseconds, which is taken out.
fn timeout(args: &mut Vec<FunctionArg>) -> Result<Option<i64>> {
    let last = match args.last() {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(e))) if is_interval(e) => e,
        Some(
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(e), .. }
            | FunctionArg::ExprNamed {
                name: ast::Expr::Identifier(name),
                arg: FunctionArgExpr::Expr(e),
                ..
            },
        ) if fold(name) == "timeout" => e,
        _ => return Ok(None),
    };
    match interval(last)? {
        us if us > 0 => {
            args.pop();
            Ok(Some(us))
        }
        _ => {
            let message = "the timeout of count windows must be greater than zero";
            Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message))
        }
    }
}

/// A literal, which may have been put as a cast.
fn is_interval(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Interval(_) => true,
        ast::Expr::Cast { data_type, .. } => matches!(data_type, ast::DataType::Interval { .. }),
        _ => false,
    }
}

/// Windows that end by number or by time, as matches.
fn timed(
    input: Input,
    size: i64,
    timeout_us: i64,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    const ADDED: [&str; 3] = [NUMBER, "window_start", "window_end"];
    let columns = input.plan.schema().columns().into_iter();
    let kept: Vec<Column> = columns.filter(|c| !ADDED.contains(&c.name.as_str())).collect();
    let time = named(&input.time).ok_or_else(|| usage(&COUNT))?;
    let keys = input.keys.iter().map(named).collect::<Option<Vec<_>>>();
    let keys = keys.ok_or_else(|| usage(&COUNT))?;
    let of_first = ast::Expr::CompoundIdentifier(vec![Ident::new("a"), time.clone()]);
    let measures = [
        call("match_number", Vec::new()),
        call("first", vec![of_first]),
        call("match_deadline", Vec::new()),
    ];
    let measures = measures.into_iter().zip(ADDED);
    let measures = measures.map(|(expr, name)| ast::Measure { expr, alias: Ident::new(name) });
    let more = if size > 1 { format!(" b{{0,{}}}", size - 1) } else { String::new() };
    let text = format!("a{more} WITHIN INTERVAL '{timeout_us} microseconds'");
    let rows = LogicalPlanBuilder::from(input.plan).project(kept.iter().cloned().map(Expr::Column));
    let rows = rows.and_then(LogicalPlanBuilder::build).map_err(plan_error)?;
    let matched = all_rows(rows, (keys, time), measures.collect(), text, context)?;
    let place = |name: &str| {
        let places = matched.schema().iter().filter(|(_, field)| field.name() == name);
        places.map(Expr::from).last().ok_or_else(|| usage(&COUNT))
    };
    let output =
        kept.iter().map(|c| Ok(place(&c.name)?.alias_qualified(c.relation.clone(), &c.name)));
    let output = output.chain(ADDED.map(place)).collect::<Result<Vec<_>>>()?;
    LogicalPlanBuilder::from(matched.clone())
        .project(output)
        .and_then(LogicalPlanBuilder::build)
        .map_err(plan_error)
}

/// The name of a column.
fn named(expr: &Expr) -> Option<Ident> {
    match expr {
        Expr::Column(column) => Some(Ident::with_quote('"', &column.name)),
        _ => None,
    }
}

fn numbered(
    input: Input,
    size: i64,
    slide: i64,
    windows: i64,
) -> datafusion::common::Result<LogicalPlan> {
    let columns = input.plan.schema().columns().into_iter();
    let kept: Vec<Expr> = columns.filter(|c| c.name != NUMBER).map(Expr::Column).collect();
    let mut call = WindowFunction::new(window_function("row_number")?, Vec::new());
    call.params.partition_by = input.keys;
    // In which window a row is does not depend on what is read of it.
    let mut order = vec![SortExpr::new(input.time.clone(), true, false)];
    order.extend(whole_row(input.plan.schema(), &order));
    call.params.order_by = order;
    call.params.window_frame = rows_so_far();
    let call = Expr::WindowFunction(Box::new(call)).alias(ROW);
    let rows = LogicalPlanBuilder::from(input.plan).filter(input.time.is_not_null())?.build()?;
    let rows = LogicalPlan::Window(Window::try_new(vec![call], Arc::new(rows))?);
    // The newest window that a row is in.
    let ahead = binary_expr(col(ROW), Operator::Minus, lit(1_i64));
    let newest = binary_expr(ahead, Operator::Divide, lit(slide)) + lit(1_i64);
    let rows = LogicalPlanBuilder::from(rows);
    if slide == size {
        return rows.project(kept.into_iter().chain([newest.alias(NUMBER)]))?.build();
    }
    let back: Vec<ScalarValue> = (0..windows).map(ScalarValue::from).collect();
    let back = ScalarValue::List(ScalarValue::new_list_nullable(
        &back,
        &arrow::datatypes::DataType::Int64,
    ));
    let number = binary_expr(newest, Operator::Minus, col(BACK));
    let first = binary_expr(
        binary_expr(col(NUMBER), Operator::Minus, lit(1_i64)),
        Operator::Multiply,
        lit(slide),
    );
    let last = first + lit(size);
    let options = UnnestOptions::new().with_preserve_nulls(false);
    rows.project(kept.iter().cloned().chain([col(ROW), lit(back).alias(BACK)]))?
        .unnest_column_with_options(BACK, options)?
        .project(kept.iter().cloned().chain([col(ROW), number.alias(NUMBER)]))?
        .filter(col(NUMBER).gt_eq(lit(1_i64)).and(col(ROW).lt_eq(last)))?
        .project(kept.into_iter().chain([col(NUMBER)]))?
        .build()
}
