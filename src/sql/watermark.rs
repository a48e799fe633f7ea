//! Event time in DDL: the expression of a watermark, and constant intervals and times.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, Schema, SchemaRef, TimeUnit};
use chrono::{DateTime, Utc};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility};
use sqlparser::ast;

use super::binder::{Purpose, Settings, plan_expr};
use super::constant;
use super::context::Context;
use super::dml::has_subquery;
use super::pass::over_constant;
use super::visit::any_expr;
use crate::catalog::{Catalog, Marker, WatermarkDef};
use crate::delta::text::{UTC, pg_type_name};
use crate::error::{Error, Result, sqlstate};
use crate::expr::{Projection, Walk, from_datafusion, interval_us, parse_value};

/// Binds `WATERMARK FOR column AS expr` over the columns of its table. The expression is the column
/// itself or the column minus a constant interval, which is a delay, or any other one whose value,
/// where it is not NULL, is a watermark.
pub fn bind_watermark(
    expr: &ast::Expr,
    column: usize,
    schema: &SchemaRef,
    settings: &Settings,
) -> Result<WatermarkDef> {
    let Some(field) = schema.fields().get(column) else {
        return Err(Error::internal("the watermark column is not there"));
    };
    if !matches!(field.data_type(), DataType::Timestamp(..)) {
        return Err(Error::user(
            sqlstate::DATATYPE_MISMATCH,
            format!("watermark column \"{}\" must be a timestamp", field.name()),
        ));
    }
    let is_column = |e: &ast::Expr| match e {
        ast::Expr::Identifier(ident) => super::parser::fold(ident) == *field.name(),
        _ => false,
    };
    let def = WatermarkDef { column, ..WatermarkDef::default() };
    let delay = match expr {
        e if is_column(e) => return Ok(def),
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Minus, right }
            if is_column(left) && is_constant(right) =>
        {
            right
        }
        ast::Expr::Nested(inner) => return bind_watermark(inner, column, schema, settings),
        _ => {
            let marker = Some(Arc::new(marker(expr, column, schema, settings)?));
            return Ok(WatermarkDef { marker, ..def });
        }
    };
    match interval(delay)? {
        delay_us if delay_us >= 0 => Ok(WatermarkDef { delay_us, ..def }),
        _ => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            "the delay of a watermark must not be negative",
        )),
    }
}

fn is_constant(expr: &ast::Expr) -> bool {
    !any_expr(expr, &|e| matches!(e, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_)))
}

/// Binds an expression whose values are watermarks.
fn marker(
    expr: &ast::Expr,
    column: usize,
    schema: &SchemaRef,
    settings: &Settings,
) -> Result<Marker> {
    let (catalog, field) = (Catalog::default(), schema.field(column));
    let context = Context::new(&catalog, Purpose::View, settings);
    if has_subquery(expr) {
        return Err(Error::unsupported("cannot use subquery in a watermark"));
    }
    let columns = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
    let columns = DFSchema::from_unqualified_fields(columns.collect(), HashMap::new());
    let columns = columns.map_err(from_datafusion)?;
    let planned = plan_expr(expr, &columns, &context, &[])?;
    let mut misplaced = None;
    let mut find = |e: &Expr| {
        misplaced = misplaced.take().or_else(|| match e {
            Expr::AggregateFunction(_) => Some("aggregate functions are"),
            Expr::WindowFunction(_) => Some("window functions are"),
            Expr::ScalarFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
                Some("functions that depend on more than their arguments are")
            }
            _ => None,
        });
        Ok(TreeNodeRecursion::Continue)
    };
    planned.apply(&mut find).map_err(from_datafusion)?;
    if let Some(what) = misplaced {
        return Err(Error::user(
            sqlstate::INVALID_TABLE_DEFINITION,
            format!("{what} not allowed in a watermark"),
        )
        .with_hint(format!(
            "Write WATERMARK FOR {0} AS {0} - INTERVAL '5 seconds'.",
            field.name()
        )));
    }
    let planned = over_constant(planned, &columns, Some(settings.now))?;
    let found = constant::type_of(&planned, &columns)?;
    if !matches!(found, DataType::Timestamp(..) | DataType::Null) {
        return Err(Error::user(
            sqlstate::DATATYPE_MISMATCH,
            format!(
                "the watermark of \"{}\" must be of type {}, not type {}",
                field.name(),
                pg_type_name(field.data_type()),
                pg_type_name(&found)
            ),
        ));
    }
    let read = planned.column_refs().into_iter();
    let read = read.filter_map(|c| columns.maybe_index_of_column(c)).collect();
    let output = Arc::new(Schema::new(vec![field.clone().with_nullable(true)]));
    let projection = Projection::new(&[planned], &columns, output)?;
    Ok(Marker::new(expr.to_string(), read, projection))
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
