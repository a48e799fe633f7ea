//! The rows of a part in a read: computed by the first of its readers, kept for the others until
//! the read ends.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Result as DfResult;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use futures::TryStreamExt;
use tokio::sync::OnceCell;

use super::{Part, scanned_parts};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::expr::from_datafusion;
use crate::sql::watch::watch;

/// A part as a table, whose scans have no plan of the part below them: a rule that walks plans must
/// not walk a part once per reader.
pub(crate) fn provider(rows: &Arc<PartRows>) -> Result<Arc<dyn TableProvider>> {
    let scans = Arc::new(PartScan(Arc::clone(rows)));
    let table = StreamingTable::try_new(Arc::clone(&rows.part.schema), vec![scans]);
    Ok(Arc::new(table.map_err(from_datafusion)?))
}

/// The scans of a part.
struct PartScan(Arc<PartRows>);

/// What they have in common.
pub(crate) struct PartRows {
    /// Its plan is ready to be run.
    part: Part,
    session: Arc<SessionState>,
    cancel: Cancel,
    /// The parts that it reads, and those that they read: what is read by others first.
    below: BTreeMap<usize, Arc<PartRows>>,
    computed: OnceCell<Computed>,
}

/// Rows and the memory that they are counted with.
struct Computed {
    batches: Vec<RecordBatch>,
    _memory: MemoryReservation,
}

impl PartRows {
    /// The rows of a part, which reads some of those that are ready.
    pub(crate) fn new(
        part: Part,
        session: Arc<SessionState>,
        cancel: Cancel,
        ready: &HashMap<usize, Arc<PartRows>>,
    ) -> Result<Self> {
        let mut below = BTreeMap::new();
        for read in scanned_parts(&part.plan)? {
            if let Some(rows) = ready.get(&read.id) {
                below.extend(rows.below.iter().map(|(id, rows)| (*id, Arc::clone(rows))));
                below.insert(read.id, Arc::clone(rows));
            }
        }
        Ok(Self { part, session, cancel, below, computed: OnceCell::new() })
    }

    /// The same part with its plan made ready.
    pub(crate) fn with_plan(self, plan: LogicalPlan) -> Self {
        Self { part: Part { plan, ..self.part }, ..self }
    }

    /// The rows, once they are there. What they are made of is computed one after another and not
    /// by one inside of the other: there may be hundreds.
    async fn rows(&self, context: &Arc<TaskContext>) -> DfResult<&Computed> {
        if !self.computed.initialized() {
            for part in self.below.values() {
                part.computed(context).await?;
            }
        }
        self.computed(context).await
    }

    /// Computes the rows once. Should the first reader go away meanwhile, the next one begins anew.
    async fn computed(&self, context: &Arc<TaskContext>) -> DfResult<&Computed> {
        let compute = || async {
            let consumer = MemoryConsumer::new(format!("rows of {}", self.part.name));
            let memory = consumer.register(context.memory_pool());
            let planner = DefaultPhysicalPlanner::default();
            let plan = planner.create_physical_plan(&self.part.plan, self.session.as_ref()).await?;
            let plan = watch(plan, &self.cancel)?;
            let mut stream = execute_stream(plan, Arc::clone(context))?;
            let mut batches = Vec::new();
            while let Some(batch) = stream.try_next().await? {
                memory.try_grow(batch.get_array_memory_size())?;
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let (schema, columns) = (Arc::clone(&self.part.schema), batch.columns().to_vec());
                batches.push(RecordBatch::try_new_with_options(schema, columns, &options)?);
            }
            Ok(Computed { batches, _memory: memory })
        };
        self.computed.get_or_try_init(compute).await
    }
}

impl fmt::Debug for PartScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PartScan").field(&self.0.part.name).finish()
    }
}

impl PartitionStream for PartScan {
    fn schema(&self) -> &SchemaRef {
        &self.0.part.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = Arc::clone(&self.0);
        let batches = futures::stream::once(async move {
            let computed = rows.rows(&context).await?;
            let batches: Vec<DfResult<RecordBatch>> =
                computed.batches.iter().cloned().map(Ok).collect();
            Ok::<_, DataFusionError>(futures::stream::iter(batches))
        });
        let schema = Arc::clone(&self.0.part.schema);
        Box::pin(RecordBatchStreamAdapter::new(schema, Box::pin(batches.try_flatten())))
    }
}
