//! `gap_fill(t, ts, [key, ..] step [, locf(c), .. interpolate(c), ..])`: the rows of a relation,
//! and between two that follow one another in time with one key, rows at every step behind the
//! first of them. Such a row has the keys; of the other columns it has the last value (`locf`), the
//! value on the line to the next one (`interpolate`), or NULL. Rows without a time are left out.
//! RisingWave's `keepnull(c)` says that it is NULL, and `partition_by(key, ..)` the keys.
//!
//! A row is filled up to the next one of its key, so nothing is filled behind the last one. In a
//! view a change costs the rows around it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, Result as DfResult, UnnestOptions};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, SortExpr, Window, lit, when,
};
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr};

use super::super::errors::plan_error;
use super::super::ties::{rows_so_far, whole_row, window_function};
use super::arguments::{Arguments, GAPS, Input, usage};
use super::{folded, function_args};
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{call, gap_steps, gap_time, interpolated};

const NEXT: &str = "#next";
const STEP: &str = "#step";

/// How a column of a row that was not there is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// With the last value.
    Last,
    /// On the line to the next one.
    Line,
    /// With NULL.
    Null,
}

pub(super) fn plan(
    mut args: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let (mut written, mut keys) = (Vec::new(), Vec::new());
    while let Some(last) = args.last() {
        if let Some(listed) = keys_of(last) {
            keys = listed;
        } else if let Some(fill) = fill(last) {
            written.push(fill?);
        } else {
            break;
        }
        args.pop();
    }
    // In front of the step.
    let step = args.len().saturating_sub(1);
    args.splice(step..step, keys);
    let args = Arguments::of(&GAPS, args)?;
    let input = args.input(context)?;
    let [step_us] = args.intervals(context)?;
    if step_us <= 0 {
        let message = "the step of gap_fill must be greater than zero";
        return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message));
    }
    let Expr::Column(time) = input.time.clone() else { return Err(usage(&GAPS)) };
    let mut fills: Vec<(Column, Fill)> = Vec::new();
    for (expr, fill) in written.into_iter().rev() {
        let planned = context.sql_to_expr(expr, input.plan.schema()).map_err(plan_error)?;
        let Expr::Column(column) = planned else { return Err(usage(&GAPS)) };
        if fill == Fill::Line {
            check_number(&column, &input)?;
        }
        let is_key = column == time || input.keys.contains(&Expr::Column(column.clone()));
        if is_key || fills.iter().any(|(other, _)| *other == column) {
            return Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("column \"{}\" is filled already", column.name),
            ));
        }
        fills.push((column, fill));
    }
    filled(input, &time, step_us, &fills).map_err(plan_error)
}

/// The keys of `partition_by(key, ..)`.
fn keys_of(arg: &FunctionArg) -> Option<Vec<FunctionArg>> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Function(f)))
            if folded(&f.name) == "partition_by" =>
        {
            Some(function_args(f.clone()))
        }
        _ => None,
    }
}

/// `locf(c)`, `interpolate(c)` or `keepnull(c)` at the end of the arguments.
fn fill(arg: &FunctionArg) -> Option<Result<(ast::Expr, Fill)>> {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Function(f))) = arg else {
        return None;
    };
    let fill = match folded(&f.name).as_str() {
        "locf" => Fill::Last,
        "interpolate" => Fill::Line,
        "keepnull" => Fill::Null,
        _ => return None,
    };
    Some(match function_args(f.clone()).as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(column))] => Ok((column.clone(), fill)),
        _ => Err(usage(&GAPS)),
    })
}

fn check_number(column: &Column, input: &Input) -> Result<()> {
    let of = Expr::Column(column.clone()).get_type(input.plan.schema()).map_err(plan_error)?;
    match of {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => Ok(()),
        DataType::Float32 | DataType::Float64 => Ok(()),
        other => Err(Error::user(
            sqlstate::DATATYPE_MISMATCH,
            format!(
                "interpolate is for integers and floating point numbers, not {}",
                pg_type_name(&other)
            ),
        )
        .with_hint(format!("Fill \"{}\" with locf, or cast it in a subquery.", column.name))),
    }
}

fn filled(
    input: Input,
    time: &Column,
    step_us: i64,
    fills: &[(Column, Fill)],
) -> DfResult<LogicalPlan> {
    let schema = Arc::clone(input.plan.schema());
    let mut order = vec![SortExpr::new(input.time.clone(), true, false)];
    order.extend(whole_row(&schema, &order));
    let next = |of: Expr, name: String| -> DfResult<Expr> {
        let mut call = WindowFunction::new(window_function("lead")?, vec![of]);
        call.params.partition_by = input.keys.clone();
        call.params.order_by = order.clone();
        call.params.window_frame = rows_so_far();
        Ok(Expr::WindowFunction(Box::new(call)).alias(name))
    };
    let next_of = |column: &Column| format!("{NEXT}.{}", column.name);
    let lines = fills.iter().filter(|(_, fill)| *fill == Fill::Line).map(|(column, _)| column);
    let mut calls = vec![next(input.time.clone(), NEXT.to_owned())?];
    for column in lines.clone() {
        calls.push(next(Expr::Column(column.clone()), next_of(column))?);
    }
    let rows = LogicalPlanBuilder::from(input.plan).filter(input.time.clone().is_not_null())?;
    let rows = LogicalPlan::Window(Window::try_new(calls, Arc::new(rows.build()?))?);
    let named = |name: String| Expr::Column(Column::new_unqualified(name));
    let all: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    let nexts = [named(NEXT.to_owned())].into_iter().chain(lines.map(|c| named(next_of(c))));
    let steps = gap_steps(input.time.clone(), named(NEXT.to_owned()), step_us);
    let steps = call("generate_series", vec![lit(0_i64), steps])?.alias(STEP);
    let step = || named(STEP.to_owned());
    let at = || gap_time(input.time.clone(), step(), step_us);
    let output = schema.columns().into_iter().map(|column| {
        let of = Expr::Column(column.clone());
        let fill = fills.iter().find(|(c, _)| *c == column).map(|(_, fill)| *fill);
        let value = match fill {
            _ if column == *time => at(),
            _ if input.keys.contains(&of) => return Ok(of),
            Some(Fill::Last) => return Ok(of),
            Some(Fill::Line) => {
                let line = [input.time.clone(), named(NEXT.to_owned()), at()];
                interpolated(of, named(next_of(&column)), line)
            }
            Some(Fill::Null) | None => when(step().eq(lit(0_i64)), of).end()?,
        };
        Ok(value.alias_qualified(column.relation, column.name))
    });
    let output = output.collect::<DfResult<Vec<_>>>()?;
    let options = UnnestOptions::new().with_preserve_nulls(false);
    LogicalPlanBuilder::from(rows)
        .project(all.into_iter().chain(nexts).chain([steps]))?
        .unnest_column_with_options(Column::new_unqualified(STEP), options)?
        .project(output)?
        .build()
}
