//! Event time in DDL: the expression of a watermark, and constant intervals and times.

use arrow::datatypes::{DataType, IntervalUnit, Schema, TimeUnit};
use chrono::{DateTime, Utc};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable};
use sqlparser::ast;

use super::binder::{Purpose, Settings, plan_expr};
use super::context::Context;
use crate::catalog::Catalog;
use crate::delta::text::UTC;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{interval_us, parse_value};

/// Binds `WATERMARK FOR column AS expr` over the columns of its table: the delay in microseconds.
/// The expression is the column itself or the column minus a constant interval.
pub fn bind_watermark(expr: &ast::Expr, column: usize, schema: &Schema) -> Result<i64> {
    let Some(field) = schema.fields().get(column) else {
        return Err(Error::internal("the watermark column is not there"));
    };
    if !matches!(field.data_type(), DataType::Timestamp(..)) {
        return Err(Error::user(
            sqlstate::DATATYPE_MISMATCH,
            format!("watermark column \"{}\" must be a timestamp", field.name()),
        ));
    }
    let usage = || {
        Error::unsupported("this watermark expression is not supported").with_hint(format!(
            "Write WATERMARK FOR {0} AS {0} - INTERVAL '5 seconds'.",
            field.name()
        ))
    };
    let is_column = |e: &ast::Expr| match e {
        ast::Expr::Identifier(ident) => super::parser::fold(ident) == *field.name(),
        _ => false,
    };
    let delay = match expr {
        e if is_column(e) => return Ok(0),
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Minus, right } if is_column(left) => {
            right
        }
        ast::Expr::Nested(inner) => return bind_watermark(inner, column, schema),
        _ => return Err(usage()),
    };
    match interval(delay)? {
        delay if delay >= 0 => Ok(delay),
        _ => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            "the delay of a watermark must not be negative",
        )),
    }
}

/// Binds a constant interval that is not negative, as of IDLE AFTER: its microseconds.
pub fn bind_interval(expr: &ast::Expr, what: &str) -> Result<i64> {
    match interval(expr)? {
        us if us >= 0 => Ok(us),
        _ => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("the interval of {what} must not be negative"),
        )),
    }
}

fn constant_of(expr: &ast::Expr, data_type: &DataType) -> Result<Option<ScalarValue>> {
    let catalog = Catalog::default();
    let settings = Settings::at(DateTime::<Utc>::default());
    let context = Context::new(&catalog, Purpose::AdHoc, &settings);
    let planned = plan_expr(expr, &DFSchema::empty(), &context, &[])?;
    Ok(match planned {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(parse_value(&text, data_type)?),
        other if other.get_type(&DFSchema::empty()).is_ok_and(|t| t == *data_type) => {
            Some(super::constant::evaluate(&other)?)
        }
        _ => None,
    })
}

/// A constant interval in microseconds.
pub fn interval(expr: &ast::Expr) -> Result<i64> {
    let interval_type = DataType::Interval(IntervalUnit::MonthDayNano);
    match constant_of(expr, &interval_type)? {
        Some(ScalarValue::IntervalMonthDayNano(Some(value))) => interval_us(value)
            .ok_or_else(|| Error::unsupported("an interval of event time can not be in months")),
        _ => Err(Error::unsupported("a constant interval is expected here")
            .with_hint("Write INTERVAL '5 seconds'.")),
    }
}

/// A constant timestamp in microseconds.
pub fn timestamp(expr: &ast::Expr) -> Result<i64> {
    for zone in [None, Some(UTC.into())] {
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, zone);
        if let Some(ScalarValue::TimestampMicrosecond(Some(us), _)) = constant_of(expr, &data_type)?
        {
            return Ok(us);
        }
    }
    Err(Error::unsupported("a constant timestamp is expected here")
        .with_hint("Write TIMESTAMP '2024-01-01 00:00:00'."))
}
