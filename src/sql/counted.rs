//! Memory of window functions: the library's operators for them keep rows and do not say so. What
//! goes in is counted until the same number of rows has come out, and so are the values that their
//! functions make meanwhile.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use arrow::array::RecordBatch;
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
use futures::stream::poll_fn;
use futures::{Stream, StreamExt};

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
        let stream = match self.side {
            Side::Above => above(input, gauge).boxed(),
            Side::Below => below(input, gauge).boxed(),
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

thread_local! {
    /// The gauge of the operator that this thread runs.
    static RUNNING: RefCell<Option<Arc<Gauge>>> = const { RefCell::new(None) };
}

/// Runs with another gauge as that of this thread's operator.
fn with_gauge<T>(gauge: Option<Arc<Gauge>>, run: impl FnOnce() -> T) -> T {
    struct Before(Option<Arc<Gauge>>);
    impl Drop for Before {
        fn drop(&mut self) {
            RUNNING.set(self.0.take());
        }
    }
    let _before = Before(RUNNING.replace(gauge));
    run()
}

/// What comes out of the operator.
fn above(
    mut input: SendableRecordBatchStream,
    gauge: Arc<Gauge>,
) -> impl Stream<Item = DfResult<RecordBatch>> {
    poll_fn(move |cx| {
        let polled = with_gauge(Some(Arc::clone(&gauge)), || input.poll_next_unpin(cx));
        if let Poll::Ready(Some(Ok(batch))) = &polled {
            gauge.leaves(batch.num_rows());
        }
        polled
    })
}

/// What goes into the operator.
fn below(
    mut input: SendableRecordBatchStream,
    gauge: Arc<Gauge>,
) -> impl Stream<Item = DfResult<RecordBatch>> {
    poll_fn(move |cx| {
        let polled = with_gauge(None, || input.poll_next_unpin(cx));
        if let Poll::Ready(Some(Ok(batch))) = &polled
            && let Err(error) = gauge.enters(batch.num_rows(), batch.get_array_memory_size())
        {
            return Poll::Ready(Some(Err(error)));
        }
        polled
    })
}

/// Counts a value that a function of the operator that this thread runs is about to hand to a
/// number of rows, which may depend on those that the operator holds.
pub(super) fn values(bytes: usize, copies: impl FnOnce(usize) -> usize) -> DfResult<()> {
    RUNNING.with_borrow(|gauge| match gauge {
        Some(gauge) => {
            let rows = gauge.held().rows;
            gauge.enters(0, bytes.saturating_mul(copies(rows)))
        }
        None => Ok(()),
    })
}
