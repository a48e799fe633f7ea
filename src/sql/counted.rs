//! Memory of window functions: the library's operators for them keep rows and do not say so. What
//! goes in is counted until the same number of rows has come out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;

/// What one run of the operator holds.
#[derive(Debug)]
struct Gauge {
    reservation: MemoryReservation,
    rows: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    rows: usize,
    bytes: usize,
}

impl Gauge {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        // Two numbers that are written together: poisoning says nothing about them.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enters(&self, rows: usize, bytes: usize) -> DfResult<()> {
        self.reservation.try_grow(bytes)?;
        let mut held = self.held();
        held.rows += rows;
        held.bytes += bytes;
        Ok(())
    }

    fn leaves(&self, rows: usize) {
        let mut held = self.held();
        let rows = rows.min(held.rows);
        let bytes = match rows == held.rows {
            true => held.bytes,
            false => held.bytes / held.rows.max(1) * rows,
        };
        held.rows -= rows;
        held.bytes -= bytes;
        self.reservation.shrink(bytes);
    }
}

/// The gauges of runs that are being started, by partition.
type Starting = Arc<Mutex<BTreeMap<usize, Arc<Gauge>>>>;

/// Which side of the operator a node is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Above,
    Below,
}

/// A node above or below an operator whose rows are counted.
#[derive(Debug, Clone)]
struct Counted {
    input: Arc<dyn ExecutionPlan>,
    side: Side,
    starting: Starting,
}

/// Counts what an operator with one input holds.
pub(super) fn counted(node: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let inputs = node.children();
    let [input] = inputs.as_slice() else { return Ok(node) };
    let starting = Starting::default();
    let below =
        Counted { input: Arc::clone(*input), side: Side::Below, starting: Arc::clone(&starting) };
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
    let node = Arc::clone(&node).replace_children(vec![Arc::new(below)], options)?;
    Ok(Arc::new(Counted { input: node, side: Side::Above, starting }))
}

impl DisplayAs for Counted {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counted: {:?}", self.side)
    }
}

impl ExecutionPlan for Counted {
    fn name(&self) -> &'static str {
        "Counted"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self { input, ..self.as_ref().clone() })),
            _ => internal_err!("what is counted has one input"),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        let schema: SchemaRef = self.schema();
        let starting = || self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        let gauge = match self.side {
            Side::Above => {
                let reservation =
                    MemoryConsumer::new("window functions").register(context.memory_pool());
                let gauge = Arc::new(Gauge { reservation, rows: Mutex::default() });
                starting().insert(partition, Arc::clone(&gauge));
                Some(gauge)
            }
            Side::Below => starting().remove(&partition),
        };
        let input = self.input.execute(partition, context)?;
        let Some(gauge) = gauge else { return Ok(input) };
        let side = self.side;
        let stream = input.map(move |batch| {
            let batch = batch?;
            match side {
                Side::Above => gauge.leaves(batch.num_rows()),
                Side::Below => gauge.enters(batch.num_rows(), batch.get_array_memory_size())?,
            }
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}
