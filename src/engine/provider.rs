//! Tables as DataFusion reads them: the rows of a result table at one pinned epoch, slice by slice.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;

use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Order, concat, consolidate};
use crate::error::{Error, Result};
use crate::runtime::Pin;
use crate::state::ResultTable;
use crate::time::Epoch;

/// A relation's rows at an epoch.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) table: Arc<ResultTable>,
    pub(crate) epoch: Epoch,
    /// Keeps the epoch readable.
    pub(crate) pin: Arc<Pin>,
}

impl Snapshot {
    /// A provider that reads the rows lazily.
    pub(crate) fn provider(self) -> Result<Arc<dyn TableProvider>> {
        let schema = self.table.spec().schema.clone();
        let table = StreamingTable::try_new(schema, vec![Arc::new(self)]);
        Ok(Arc::new(table.map_err(crate::expr::from_datafusion)?))
    }

    /// All rows with their weights.
    pub(crate) fn deltas(&self) -> impl Iterator<Item = Result<DeltaBatch>> + use<> {
        let pin = self.pin.clone();
        let mut rows = Some(self.table.rows(self.epoch));
        std::iter::from_fn(move || {
            loop {
                let next = rows.as_mut()?.next(BATCH_ROWS);
                match next.and_then(|next| pin.check().map(|()| next)) {
                    Ok(Some(next)) if next.is_empty() => {}
                    Ok(Some(next)) => return Some(Ok(next)),
                    Ok(None) => {
                        rows = None;
                        return None;
                    }
                    Err(error) => {
                        rows = None;
                        return Some(Err(error));
                    }
                }
            }
        })
    }
}

impl PartitionStream for Snapshot {
    fn schema(&self) -> &SchemaRef {
        &self.table.spec().schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.deltas().map(|delta| {
            let batch = delta.and_then(|d| expand(&d));
            batch.map_err(|e: Error| DataFusionError::External(Box::new(e)))
        });
        let stream = futures::stream::iter(batches);
        Box::pin(RecordBatchStreamAdapter::new(self.table.spec().schema.clone(), stream))
    }
}

/// Rows with each row as often as its weight says.
pub(crate) fn expand(delta: &DeltaBatch) -> Result<RecordBatch> {
    if delta.is_insert_only() {
        return Ok(delta.rows().clone());
    }
    let copies = |row: u32| {
        let times = usize::try_from(delta.weight(row as usize)).unwrap_or(0);
        std::iter::repeat_n(row, times)
    };
    let indices = UInt32Array::from_iter_values((0..delta.len() as u32).flat_map(copies));
    Ok(arrow::compute::take_record_batch(delta.rows(), &indices)?)
}

/// A provider of rows that are at hand.
pub(crate) fn rows_provider(
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
) -> Result<Arc<dyn TableProvider>> {
    let table = MemTable::try_new(schema, vec![batches]).map_err(crate::expr::from_datafusion)?;
    Ok(Arc::new(table))
}

/// The rows of a snapshot with changes that are not published yet laid over them.
pub(crate) fn overlaid(snapshot: &Snapshot, changes: &[DeltaBatch]) -> Result<Vec<RecordBatch>> {
    let mut all = snapshot.deltas().collect::<Result<Vec<_>>>()?;
    all.extend_from_slice(changes);
    let Some(all) = concat(&all)? else { return Ok(Vec::new()) };
    Ok(vec![expand(&consolidate(&all, Order::Input)?)?])
}
