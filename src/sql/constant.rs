//! Evaluation of expressions without columns: VALUES of INSERT, intervals in DDL.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema};
use chrono::{DateTime, Utc};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use super::errors::plan_error;
use super::zoned::clock_casts;
use crate::error::Result;
use crate::expr::{compile, folding, from_datafusion};

/// The value of an expression without columns. Literals are free.
pub(super) fn evaluate(expr: &Expr) -> Result<ScalarValue> {
    if let Expr::Literal(value, _) = expr {
        return Ok(value.clone());
    }
    let compiled = compile(expr, &DFSchema::empty())?;
    let value = compiled.evaluate(&one_row()?).map_err(from_datafusion)?;
    let array = value.into_array(1).map_err(from_datafusion)?;
    ScalarValue::try_from_array(&array, 0).map_err(from_datafusion)
}

/// A batch of one row without columns.
pub(super) fn one_row() -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?)
}

/// Coerces the types inside of an expression over a schema, and puts a time in the place of
/// `now()`.
pub(super) fn coerce(expr: Expr, schema: &DFSchema, now: Option<DateTime<Utc>>) -> Result<Expr> {
    if matches!(expr, Expr::Literal(..) | Expr::Column(_) | Expr::Placeholder(_)) {
        return Ok(expr);
    }
    let schema = Arc::new(schema.clone());
    let context = SimplifyContext::builder().with_schema(Arc::clone(&schema));
    let context = match now {
        Some(now) => context.with_query_execution_start_time(Some(now)),
        None => context,
    };
    let simplifier = ExprSimplifier::new(context.build());
    let coerced = simplifier.coerce(expr, &schema).map_err(plan_error)?;
    let coerced = clock_casts(coerced, &schema).map_err(plan_error)?.data;
    match now {
        Some(_) => folding(|| simplifier.simplify(coerced)).map_err(plan_error),
        None => Ok(coerced),
    }
}

/// The type of an expression over a schema.
pub(super) fn type_of(expr: &Expr, schema: &DFSchema) -> Result<DataType> {
    expr.get_type(schema).map_err(plan_error)
}
