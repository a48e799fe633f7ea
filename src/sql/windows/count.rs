//! `count_window(t, ts, [key, ..] size [, slide])`: windows of so many rows of a key, in the order
//! of time. A row moves on when one comes that is earlier; of rows of one time the order is that of
//! the whole row. The last window of a key may have fewer rows than the others.
//!
//! Rows are numbered by `row_number`, so a change costs as much as the rows behind it that move on.

use std::sync::Arc;

use datafusion::common::{ScalarValue, UnnestOptions};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Operator, SortExpr, Window, binary_expr, col, lit,
};
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, Value};

use super::super::errors::plan_error;
use super::super::ties::{rows_so_far, whole_row, window_function};
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
