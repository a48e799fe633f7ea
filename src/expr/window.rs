//! Window functions over the rows of one partition: DataFusion's window expressions, compiled once
//! and evaluated on a sorted batch.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_planner::create_window_expr;

use super::cast::cast_array;
use super::errors::from_datafusion;
use super::sliding::slide;
use crate::error::{Result, sqlstate};

fn row_of_nulls(schema: &DFSchema) -> Result<RecordBatch> {
    let schema = schema.as_arrow();
    let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
    let fields = Schema::new(fields.collect::<Vec<Field>>());
    let columns = schema.fields().iter().map(|f| new_null_array(f.data_type(), 1)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    Ok(RecordBatch::try_new_with_options(Arc::new(fields), columns, &options)?)
}

/// Calls of window functions with one PARTITION BY and one ORDER BY.
#[derive(Debug, Clone)]
pub struct WindowCalls {
    calls: Vec<Arc<dyn WindowExpr>>,
    results: SchemaRef,
}

impl WindowCalls {
    /// Compiles calls over the columns of `input`; their results have the types of `results`, one
    /// field each. What can't be computed for a frame is refused here, not by the first row.
    pub fn new(calls: &[Expr], input: &DFSchema, results: SchemaRef) -> Result<Self> {
        let props = ExecutionProps::new();
        let context = PhysicalPlanningContext::default();
        let compile =
            |call: &Expr| create_window_expr(&slide(call.clone()), input, &props, &context);
        let calls = calls.iter().map(compile).collect::<Result<Vec<_>, _>>();
        let compiled = Self { calls: calls.map_err(from_datafusion)?, results };
        match compiled.evaluate(&row_of_nulls(input)?) {
            Err(e) if e.sqlstate() == sqlstate::FEATURE_NOT_SUPPORTED => Err(e),
            // What else fails for one row of NULLs is a matter of the data.
            _ => Ok(compiled),
        }
    }

    /// The results for the rows of one partition in their order.
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let one = |(call, field): (&Arc<dyn WindowExpr>, &arrow::datatypes::FieldRef)| {
            let values = call.evaluate(rows).map_err(from_datafusion)?;
            match values.data_type() == field.data_type() {
                true => Ok(values),
                false => cast_array(&values, field.data_type()),
            }
        };
        self.calls.iter().zip(self.results.fields()).map(one).collect()
    }
}
