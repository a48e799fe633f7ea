//! [`DeltaBatch`]: a change of a relation, as an Arrow batch with one signed weight per row.
//!
//! Invariants: a weight is never zero; `weights: None` means that every row has weight +1, so that
//! append-only streams pay nothing; the order of rows carries no meaning, but is kept by every
//! kernel so that results are deterministic.
//!
//! Rows of a relation with a WATERMARK also carry their **arrival**: the watermark, in
//! microseconds, that their split had just before them. It decides whether a row is late, wherever
//! in the chain its window is looked at, so operators without state hand it on; those with state
//! do not, as their rows come from many.
//!
//! An exchange encodes and hashes the keys of rows to place them. They go with the rows, so that
//! the operator behind it, which most often has the same keys, need not make them again.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::compute::{filter, filter_record_batch, take, take_record_batch};
use arrow::datatypes::SchemaRef;

use super::Keys;
use crate::error::Result;

/// How often a row is in a relation, or by how much that changes.
pub type Weight = i64;

/// Rows with signed weights: the unit that operators consume and emit.
#[derive(Debug, Clone)]
pub struct DeltaBatch {
    rows: RecordBatch,
    weights: Option<Int64Array>,
    /// Boxed, as most batches have none.
    arrivals: Option<Box<Int64Array>>,
    keys: Option<Box<Carried>>,
}

/// Keys that were made of some columns of a batch.
#[derive(Debug, Clone)]
struct Carried {
    columns: Vec<usize>,
    keys: Arc<Keys>,
}

impl DeltaBatch {
    /// Every row with weight +1.
    pub fn inserts(rows: RecordBatch) -> Self {
        Self { rows, weights: None, arrivals: None, keys: None }
    }

    /// Every row with weight -1.
    pub fn retractions(rows: RecordBatch) -> Self {
        let weights = Int64Array::from_value(-1, rows.num_rows());
        Self { rows, weights: Some(weights), arrivals: None, keys: None }
    }

    /// Rows with their weights; as many as rows, none of them zero or NULL.
    pub fn new(rows: RecordBatch, weights: Int64Array) -> Self {
        assert_eq!(rows.num_rows(), weights.len(), "one weight per row");
        debug_assert_eq!(weights.null_count(), 0, "a weight is never NULL");
        debug_assert!(weights.values().iter().all(|w| *w != 0), "a weight is never zero");
        Self { rows, weights: Some(weights), arrivals: None, keys: None }
    }

    /// Rows with optional weights, for kernels that pass the representation through.
    pub fn with_weights(rows: RecordBatch, weights: Option<Int64Array>) -> Self {
        match weights {
            Some(w) => Self::new(rows, w),
            None => Self::inserts(rows),
        }
    }

    /// The same rows with their arrivals, or without.
    #[must_use]
    pub fn with_arrivals(self, arrivals: Option<Int64Array>) -> Self {
        let fits = arrivals.as_ref().is_none_or(|a| a.len() == self.len() && a.null_count() == 0);
        assert!(fits, "one arrival per row");
        Self { arrivals: arrivals.map(Box::new), ..self }
    }

    /// Other rows, as many, with the weights and arrivals of these: what a projection makes.
    #[must_use]
    pub fn with_rows(&self, rows: RecordBatch) -> Self {
        assert_eq!(rows.num_rows(), self.len(), "a row for a row");
        Self { rows, weights: self.weights.clone(), arrivals: self.arrivals.clone(), keys: None }
    }

    /// The same rows under the names of another schema.
    pub fn with_schema(&self, schema: SchemaRef) -> Result<Self> {
        let rows = batch_of(schema, self.rows.columns().to_vec(), self.len())?;
        Ok(Self { keys: self.keys.clone(), ..self.with_rows(rows) })
    }

    /// The same rows with the keys that were made of some of their columns.
    #[must_use]
    pub fn with_keys(self, columns: &[usize], keys: Arc<Keys>) -> Self {
        assert_eq!(keys.len(), self.len(), "one key per row");
        Self { keys: Some(Box::new(Carried { columns: columns.to_vec(), keys })), ..self }
    }

    /// The keys of some columns: those that came with the rows, or made here.
    pub fn keys(&self, columns: &[usize]) -> Result<Arc<Keys>> {
        let make = || {
            let columns = columns.iter().map(|c| ArrayRef::clone(self.rows.column(*c)));
            Keys::encode(&columns.collect::<Vec<_>>(), self.len())
        };
        match self.keys.as_ref().filter(|carried| carried.columns == columns) {
            Some(carried) => {
                debug_assert_eq!(make()?, *carried.keys, "keys are those of the rows");
                Ok(Arc::clone(&carried.keys))
            }
            None => make().map(Arc::new),
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

    /// The watermark that each row's split had just before it; `None` where nobody declares one.
    pub fn arrivals(&self) -> Option<&Int64Array> {
        self.arrivals.as_deref()
    }

    /// The weight of one row.
    #[inline]
    pub fn weight(&self, row: usize) -> Weight {
        self.weights.as_ref().map_or(1, |w| w.value(row))
    }

    /// Rows and weights apart; arrivals are left behind.
    pub fn into_parts(self) -> (RecordBatch, Option<Int64Array>) {
        (self.rows, self.weights)
    }

    /// The sum of all weights: how many rows more there are behind it.
    pub fn net_weight(&self) -> i64 {
        match self.weights() {
            Some(weights) => weights.values().iter().sum(),
            None => self.len() as i64,
        }
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
        let parallel = |values: Option<&Int64Array>| -> Result<Option<Int64Array>> {
            values.map(|v| Ok(downcast(&filter(v, mask)?))).transpose()
        };
        let weights = parallel(self.weights())?;
        Ok(Self { rows, weights, arrivals: parallel(self.arrivals())?.map(Box::new), keys: None })
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &UInt32Array) -> Result<Self> {
        let rows = take_record_batch(&self.rows, indices)?;
        let parallel = |values: Option<&Int64Array>| -> Result<Option<Int64Array>> {
            values.map(|v| Ok(downcast(&take(v, indices, None)?))).transpose()
        };
        let weights = parallel(self.weights())?;
        Ok(Self { rows, weights, arrivals: parallel(self.arrivals())?.map(Box::new), keys: None })
    }

    /// A window of rows without a copy.
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            rows: self.rows.slice(offset, length),
            weights: self.weights.as_ref().map(|w| w.slice(offset, length)),
            arrivals: self.arrivals().map(|a| Box::new(a.slice(offset, length))),
            keys: None,
        }
    }

    /// The same change with every weight multiplied by -1.
    #[must_use]
    pub fn negate(&self) -> Self {
        let weights = match &self.weights {
            Some(w) => w.values().iter().map(|w| -w).collect::<Vec<_>>().into(),
            None => Int64Array::from_value(-1, self.len()),
        };
        Self { weights: Some(weights), ..self.clone() }
    }

    /// Bytes of the arrays, for budgets.
    pub fn bytes(&self) -> usize {
        let parallel = [self.weights(), self.arrivals()].into_iter().flatten();
        self.rows.get_array_memory_size() + parallel.map(|a| a.len() * 8).sum::<usize>()
    }
}

fn downcast(array: &dyn Array) -> Int64Array {
    Int64Array::from(array.to_data())
}

/// A batch of columns that may be none: `rows` says how many rows it has then.
pub fn batch_of(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// One batch with the rows of all, in order; `None` when there are none. Arrivals stay where every
/// batch has them.
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
            let arrivals: Option<Vec<&Int64Array>> =
                batches.iter().map(DeltaBatch::arrivals).collect();
            let arrivals = arrivals.map(|all| {
                let values = all.iter().flat_map(|a| a.values().iter().copied());
                Box::new(Int64Array::from_iter_values(values))
            });
            Ok(Some(DeltaBatch { rows, weights, arrivals, keys: None }))
        }
    }
}
