//! [`DeltaBatch`]: a change of a relation, as an Arrow batch with one signed weight per row.
//!
//! Invariants: a weight is never zero; `weights: None` means that every row has weight +1, so that
//! append-only streams pay nothing; the order of rows carries no meaning, but is kept by every
//! kernel so that results are deterministic.

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::compute::{filter, filter_record_batch, take, take_record_batch};
use arrow::datatypes::SchemaRef;

use crate::error::Result;

/// How often a row is in a relation, or by how much that changes.
pub type Weight = i64;

/// Rows with signed weights: the unit that operators consume and emit.
#[derive(Debug, Clone)]
pub struct DeltaBatch {
    rows: RecordBatch,
    weights: Option<Int64Array>,
}

impl DeltaBatch {
    /// Every row with weight +1.
    pub fn inserts(rows: RecordBatch) -> Self {
        Self { rows, weights: None }
    }

    /// Every row with weight -1.
    pub fn retractions(rows: RecordBatch) -> Self {
        let weights = Int64Array::from_value(-1, rows.num_rows());
        Self { rows, weights: Some(weights) }
    }

    /// Rows with their weights; as many as rows, none of them zero or NULL.
    pub fn new(rows: RecordBatch, weights: Int64Array) -> Self {
        assert_eq!(rows.num_rows(), weights.len(), "one weight per row");
        debug_assert_eq!(weights.null_count(), 0, "a weight is never NULL");
        debug_assert!(weights.values().iter().all(|w| *w != 0), "a weight is never zero");
        Self { rows, weights: Some(weights) }
    }

    /// Rows with optional weights, for kernels that pass the representation through.
    pub fn with_weights(rows: RecordBatch, weights: Option<Int64Array>) -> Self {
        match weights {
            Some(w) => Self::new(rows, w),
            None => Self::inserts(rows),
        }
    }

    /// A batch without rows.
    pub fn empty(schema: SchemaRef) -> Self {
        Self::inserts(RecordBatch::new_empty(schema))
    }

    /// The rows.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// The weights; `None` when all are +1.
    pub fn weights(&self) -> Option<&Int64Array> {
        self.weights.as_ref()
    }

    /// The weight of one row.
    #[inline]
    pub fn weight(&self, row: usize) -> Weight {
        self.weights.as_ref().map_or(1, |w| w.value(row))
    }

    /// Rows and weights apart.
    pub fn into_parts(self) -> (RecordBatch, Option<Int64Array>) {
        (self.rows, self.weights)
    }

    /// The number of rows, not their weight.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// The schema of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// True when all weights are +1 by representation.
    pub fn is_insert_only(&self) -> bool {
        self.weights.is_none()
    }

    /// The rows for which `mask` is true.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Self> {
        let rows = filter_record_batch(&self.rows, mask)?;
        let weights = match &self.weights {
            Some(w) => Some(downcast_weights(&filter(w, mask)?)),
            None => None,
        };
        Ok(Self { rows, weights })
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &UInt32Array) -> Result<Self> {
        let rows = take_record_batch(&self.rows, indices)?;
        let weights = match &self.weights {
            Some(w) => Some(downcast_weights(&take(w, indices, None)?)),
            None => None,
        };
        Ok(Self { rows, weights })
    }

    /// A window of rows without a copy.
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            rows: self.rows.slice(offset, length),
            weights: self.weights.as_ref().map(|w| w.slice(offset, length)),
        }
    }

    /// The same change with every weight multiplied by -1.
    #[must_use]
    pub fn negate(&self) -> Self {
        let weights = match &self.weights {
            Some(w) => w.values().iter().map(|w| -w).collect::<Vec<_>>().into(),
            None => Int64Array::from_value(-1, self.len()),
        };
        Self { rows: self.rows.clone(), weights: Some(weights) }
    }

    /// Bytes of the arrays, for budgets.
    pub fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.weights.as_ref().map_or(0, |w| w.len() * 8)
    }
}

fn downcast_weights(array: &dyn Array) -> Int64Array {
    Int64Array::from(array.to_data())
}

/// A batch of columns that may be none: `rows` says how many rows it has then.
pub fn batch_of(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// One batch with the rows of all, in order; `None` when there are none.
pub fn concat(batches: &[DeltaBatch]) -> Result<Option<DeltaBatch>> {
    match batches {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [first, ..] => {
            let schema = first.schema();
            let rows = arrow::compute::concat_batches(&schema, batches.iter().map(|b| &b.rows))?;
            let weights = if batches.iter().all(DeltaBatch::is_insert_only) {
                None
            } else {
                let all = batches.iter().flat_map(|b| (0..b.len()).map(|i| b.weight(i)));
                Some(Int64Array::from_iter_values(all))
            };
            Ok(Some(DeltaBatch { rows, weights }))
        }
    }
}
