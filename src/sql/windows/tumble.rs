//! `tumble(t, ts, size [, offset] [, time zone])`: every row is in one window, so it is a
//! projection behind a filter that drops rows without a timestamp.

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use chrono_tz::Tz;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, Value};

use super::super::errors::plan_error;
use super::super::parser::fold;
use super::arguments::{Arguments, Input, TUMBLE, usage};
use super::{EDGES, column_name, kept_columns};
use crate::error::{Error, Result, sqlstate};
use crate::expr::{interval_us, time_zone, tumble_expr, window_error};
use crate::time::{Calendar, CalendarSize, Tumble, Tumbling};

pub(super) fn plan(
    mut args: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let zone = zone(&mut args)?;
    let args = Arguments::of(&TUMBLE, args)?;
    let input = args.input(context)?;
    let size = args.calendar_interval(0, context)?;
    let offset = args.optional_interval(1, context)?;
    let window = windows(size, offset, zone)?;
    if let Some(zone) = zone
        && matches!(
            input.time.get_type(input.plan.schema()).map_err(plan_error)?,
            DataType::Timestamp(_, None)
        )
    {
        return Err(Error::user(
            sqlstate::DATATYPE_MISMATCH,
            "windows of a time zone need a time column of type timestamp with time zone",
        )
        .with_hint(format!(
            "Use ts AT TIME ZONE 'UTC' in a subquery, if that is what it is: {zone} \
             is a zone of instants."
        )));
    }
    let edges = EDGES.to_vec();
    let mut columns = kept_columns(&input.plan, &edges);
    columns.extend(
        edges
            .into_iter()
            .map(|edge| tumble_expr(edge, input.time.clone(), window).alias(column_name(edge))),
    );
    windowed(input, columns)
}

fn windowed(input: Input, columns: Vec<Expr>) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(input.plan)
        .filter(input.time.is_not_null())
        .and_then(|b| b.project(columns))
        .and_then(LogicalPlanBuilder::build)
        .map_err(plan_error)
}

/// Windows of a size; those of months, and of a zone's days, are of its calendar.
fn windows(size: IntervalMonthDayNano, offset_us: i64, zone: Option<Tz>) -> Result<Tumbling> {
    let invalid = |message: &str| Error::user(sqlstate::INVALID_PARAMETER_VALUE, message);
    let calendar = |size| {
        let calendar = Calendar::new(size, offset_us, zone.unwrap_or(Tz::UTC));
        calendar.map(Tumbling::Calendar).map_err(window_error)
    };
    match (size.months, size.days, size.nanoseconds) {
        (0, days, 0) if zone.is_some() => calendar(CalendarSize::Days(days)),
        (0, ..) if zone.is_none() => {
            let size_us = interval_us(size).ok_or_else(|| invalid("window size out of range"))?;
            Tumble::new(size_us, offset_us).map(Tumbling::Fixed).map_err(window_error)
        }
        (months, 0, 0) if months != 0 => calendar(CalendarSize::Months(months)),
        (0, ..) => Err(invalid("windows of a time zone are whole days, weeks, months or years")
            .with_hint("Leave the time zone out: hours are the same everywhere.")),
        _ => Err(invalid("a window can not be of months and days: months differ in length")),
    }
}

/// The time zone among the arguments, which is taken out: `timezone => 'Europe/Berlin'`, or the
/// name of one at the end.
fn zone(args: &mut Vec<FunctionArg>) -> Result<Option<Tz>> {
    let text = |value: &FunctionArgExpr| match value {
        FunctionArgExpr::Expr(ast::Expr::Value(value)) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    let named = args.iter().position(|arg| match arg {
        FunctionArg::Named { name, .. }
        | FunctionArg::ExprNamed { name: ast::Expr::Identifier(name), .. } => {
            matches!(fold(name).as_str(), "timezone" | "time_zone")
        }
        _ => false,
    });
    if let Some(at) = named {
        let (FunctionArg::Named { arg, .. } | FunctionArg::ExprNamed { arg, .. }) = args.remove(at)
        else {
            return Ok(None);
        };
        let name = text(&arg).ok_or_else(|| usage(&TUMBLE))?;
        return time_zone(&name).map(Some);
    }
    let Some(FunctionArg::Unnamed(last)) = args.last() else { return Ok(None) };
    let Some(name) = text(last).filter(|_| args.len() > 3) else { return Ok(None) };
    // An interval may be written as text, too.
    if name.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | ' ' | 'P')) {
        return Ok(time_zone(&name).ok().inspect(|_| drop(args.pop())));
    }
    args.pop();
    time_zone(&name).map(Some)
}
