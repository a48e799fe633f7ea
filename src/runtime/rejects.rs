//! `<source>$errors`: messages that could not be decoded, as rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::connector::{Rejected, SplitId};
use crate::delta::DeltaBatch;
use crate::error::Result;

/// The columns of a source's `$errors`.
pub fn schema() -> SchemaRef {
    let field = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("partition", DataType::Int32),
        field("offset", DataType::Int64),
        field("key", DataType::Binary),
        field("payload", DataType::Binary),
        field("column_name", DataType::Utf8),
        field("reason", DataType::Utf8),
    ]))
}

/// Rejected messages of a split as rows.
pub fn rows_of(split: SplitId, rejected: &[Rejected]) -> Result<DeltaBatch> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_value(split as i32, rejected.len())),
        Arc::new(Int64Array::from_iter_values(rejected.iter().map(|r| r.position))),
        Arc::new(rejected.iter().map(|r| r.key.as_deref()).collect::<BinaryArray>()),
        Arc::new(BinaryArray::from_iter_values(rejected.iter().map(|r| &r.payload))),
        Arc::new(rejected.iter().map(|r| r.column.as_deref()).collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(rejected.iter().map(|r| &r.reason))),
    ];
    Ok(DeltaBatch::inserts(RecordBatch::try_new(schema(), columns)?))
}
