//! Constant rows, and the union of inputs.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Union, Values};

use super::super::node::{Partitioning, PlanNode, Properties};
use super::super::time::united;
use super::{Lowering, arrow_schema, lower};
use crate::error::Result;
use crate::expr;
use crate::operator::{ConstantSpec, UnionSpec};

pub(super) fn lower_union(node: &Union, cx: &Lowering<'_>) -> Result<PlanNode> {
    let inputs = node.inputs.iter().map(|i| lower(i, cx)).collect::<Result<Vec<_>>>()?;
    let append_only = inputs.iter().all(|i| i.properties.append_only);
    let schema = arrow_schema(&node.schema);
    let spec = UnionSpec { schema, inputs: inputs.len(), append_only };
    // Where all inputs are partitioned alike, so is the union.
    let first = inputs.first().map(|i| i.properties.partitioning.clone());
    let alike = inputs.iter().all(|i| Some(&i.properties.partitioning) == first.as_ref());
    let partitioning = first.filter(|_| alike).unwrap_or(Partitioning::Any);
    let properties = Properties { append_only, key: None, partitioning };
    let times = united(inputs.iter());
    let inputs = inputs.into_iter().map(PlanNode::here).collect();
    let node = PlanNode::operator(Arc::new(spec), inputs, properties);
    Ok(PlanNode { times, ..node })
}

/// Rows without columns, or no rows.
pub(super) fn no_columns(schema: SchemaRef, count: usize) -> Result<RecordBatch> {
    if count == 0 {
        return Ok(RecordBatch::new_empty(schema));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(schema, Vec::new(), &options)?)
}

pub(super) fn lower_values(node: &Values) -> Result<PlanNode> {
    let schema = arrow_schema(&node.schema);
    let nothing = DFSchema::empty();
    let one = no_columns(Arc::new(Schema::empty()), 1)?;
    let mut columns = Vec::new();
    for (i, field) in schema.fields().iter().enumerate() {
        let cells = node.values.iter().map(|row| -> Result<ArrayRef> {
            let value = expr::compile(&row[i], &nothing)?.evaluate(&one);
            let value = value.and_then(|v| v.into_array(1)).map_err(expr::from_datafusion)?;
            Ok(arrow::compute::cast(&value, field.data_type())?)
        });
        let cells = cells.collect::<Result<Vec<_>>>()?;
        let cells: Vec<&dyn Array> = cells.iter().map(|c| c.as_ref()).collect();
        columns.push(arrow::compute::concat(&cells)?);
    }
    Ok(constant(RecordBatch::try_new(schema, columns)?))
}

pub(super) fn constant(rows: RecordBatch) -> PlanNode {
    let properties = Properties { append_only: true, key: None, partitioning: Partitioning::Any };
    PlanNode::operator(Arc::new(ConstantSpec { rows }), Vec::new(), properties)
}
