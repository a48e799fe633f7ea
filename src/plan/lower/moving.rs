//! Lowering of moving filters.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable};

use super::super::node::{Partitioning, PlanNode, Properties};
use super::{Lowering, add_projection, lower, select_columns};
use crate::error::{Error, Result};
use crate::expr::ClockBound;
use crate::operator::{MovingFilterSpec, OperatorSpec};
use crate::sql::MovingFilter;

pub(super) fn lower_moving(node: &MovingFilter, cx: &Lowering<'_>) -> Result<PlanNode> {
    let input = lower(&node.input, cx)?;
    let schema = node.input.schema();
    let width = schema.fields().len();
    let (input, time) = match column_of(&node.time, schema) {
        Some(column) => (input, column),
        None => (with_time(input, node)?, width),
    };
    let all: Vec<usize> = (0..input.schema.fields().len()).collect();
    let key = input.properties.key.clone();
    let by = key.clone().filter(|k| !k.is_empty()).unwrap_or(all);
    let spec = MovingFilterSpec {
        schema: input.schema.clone(),
        by: by.clone(),
        time,
        order: node.order,
        bound: ClockBound::new(&node.bound)?,
        append_only: input.properties.append_only,
    };
    let properties = Properties {
        append_only: spec.append_only(),
        key,
        partitioning: Partitioning::Hash(by.clone()),
    };
    let output = input.schema.clone();
    let node = PlanNode::operator(Arc::new(spec), vec![input.by(&by)], properties);
    if time < width {
        return Ok(node);
    }
    let kept: Vec<usize> = (0..width).collect();
    let fields: Vec<_> = output.fields()[..width].to_vec();
    select_columns(node, &kept, Arc::new(Schema::new(fields)))
}

/// The column that a time is, seen through casts between timestamps with and without time zone.
fn column_of(time: &Expr, schema: &DFSchema) -> Option<usize> {
    match time {
        Expr::Column(column) => {
            let index = schema.maybe_index_of_column(column)?;
            let is = schema.field(index).data_type();
            matches!(is, DataType::Timestamp(TimeUnit::Microsecond, _)).then_some(index)
        }
        Expr::Cast(cast) if matches!(cast.field.data_type(), DataType::Timestamp(..)) => {
            column_of(&cast.expr, schema)
        }
        _ => None,
    }
}

/// The input with the time computed behind its columns.
fn with_time(input: PlanNode, node: &MovingFilter) -> Result<PlanNode> {
    let schema = node.input.schema();
    let data_type = node.time.get_type(schema).map_err(|e| Error::internal(e.to_string()))?;
    let columns = schema.columns().into_iter().map(Expr::Column);
    let exprs: Vec<Expr> = columns.chain([node.time.clone()]).collect();
    let computed = Arc::new(Field::new(node.time.to_string(), data_type, true));
    let fields: Vec<_> = input.schema.fields().iter().cloned().chain([computed]).collect();
    add_projection(input, &exprs, schema, Arc::new(Schema::new(fields)))
}
