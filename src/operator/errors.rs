//! Error rows: the second output port of every operator, in one schema.
//!
//! An error row is a function of the operator and the input row alone, so that retracting the row
//! retracts its error.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::delta::text::display_value;
use crate::delta::{DeltaBatch, Weight};
use crate::error::Result;

/// Names of the columns of a view's `$errors`.
pub const ERROR_COLUMNS: [&str; 4] = ["operator", "sqlstate", "reason", "row"];

/// The one of them that has the reason.
pub const REASON_COLUMN: usize = 2;

/// The schema of error rows.
pub fn error_schema() -> SchemaRef {
    let field = |name| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(ERROR_COLUMNS.map(field).to_vec()))
}

/// Error rows for some rows of a batch: `(row, weight, sqlstate, reason)`.
pub fn error_rows(
    operator: &str,
    rows: &RecordBatch,
    failed: &[(usize, Weight, &str, String)],
) -> Result<DeltaBatch> {
    let text = |i: usize| row_text(rows, i);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(failed.iter().map(|_| operator))),
        Arc::new(StringArray::from_iter_values(failed.iter().map(|f| f.2))),
        Arc::new(StringArray::from_iter_values(failed.iter().map(|f| &f.3))),
        Arc::new(StringArray::from_iter_values(failed.iter().map(|f| text(f.0)))),
    ];
    let weights = Int64Array::from_iter_values(failed.iter().map(|f| f.1));
    Ok(DeltaBatch::new(RecordBatch::try_new(error_schema(), columns)?, weights))
}

/// A row as `(1,abc,NULL)`.
pub(super) fn row_text(rows: &RecordBatch, row: usize) -> String {
    let value = |c: &ArrayRef| display_value(c, row).unwrap_or_else(|| "NULL".to_owned());
    let values: Vec<String> = rows.columns().iter().map(value).collect();
    format!("({})", values.join(","))
}
