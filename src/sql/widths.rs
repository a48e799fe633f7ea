//! Rows so wide that a batch of them would be too large.
//!
//! Operators of the library put batches of some thousand rows together (the pairs of a join, what a
//! filter leaves), whatever a row has. So the rows that come into a plan are measured: where a
//! batch of such rows could pass what is bounded, [`too_wide`] ends the run, and it begins again
//! with fewer rows to a batch. Once rows have gone out it does not, and goes on as it is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;

use super::slices::SlicedProjection;
use crate::config::{BATCH_BYTES_MAX, BATCH_ROWS};
use crate::error::{Error, TOO_MANY_BYTES, sqlstate};
use crate::expr::{Walk, to_datafusion, widest_row};

/// A row may be so wide that a whole batch of such rows takes this before the run begins again.
const WHOLE_BATCH_BYTES_MAX: usize = 1 << 30;

/// The same as a part of what the query may hold, as an operator has some batches at hand that are
/// not counted; and what rows of the run that follows are cut to, or what a projection makes.
const WHOLE_BATCH_PART: usize = 4;
const BATCH_PART: usize = 16;

/// Batches are not made smaller than this.
const BATCH_BYTES_MIN: usize = 1 << 20;

/// The bytes of a batch in a query that may hold so much.
pub(super) fn batch_bytes(query_limit: usize) -> usize {
    (query_limit / BATCH_PART).clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX)
}

/// What is known of the rows of a run.
#[derive(Debug)]
pub(super) struct Widths {
    /// Rows to a batch.
    rows: usize,
    /// Wider rows end the run.
    limit: usize,
    /// What the query may hold.
    memory: usize,
    /// The widest row that was met.
    widest: AtomicUsize,
    /// Rows have gone out: the run cannot begin again.
    begun: AtomicBool,
}

impl Widths {
    /// For a run with so many rows to a batch, of a query that may hold so many bytes; without an
    /// end where the rows cannot be fewer.
    pub(super) fn of_batches(rows: usize, memory: usize) -> Arc<Self> {
        let whole = (memory / WHOLE_BATCH_PART).clamp(BATCH_BYTES_MIN, WHOLE_BATCH_BYTES_MAX);
        let limit = if rows > 1 { whole / rows } else { usize::MAX };
        let (widest, begun) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { rows, limit, memory, widest, begun })
    }

    /// The rows of a batch with which rows as wide as those met stay within bounds; fewer than now.
    pub(super) fn batch_rows(&self) -> usize {
        let widest = self.widest.load(Ordering::Relaxed).max(self.limit);
        // Powers of two, so that few settings of the library are made.
        1 << (batch_bytes(self.memory) / widest.max(1)).max(1).ilog2()
    }

    /// The same for another number of rows to a batch.
    pub(super) fn with_rows(&self, rows: usize) -> Arc<Self> {
        Self::of_batches(rows, self.memory)
    }

    /// From now on rows of any width are taken.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Whether another run would have as many rows to a batch.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.limit == other.limit
    }

    fn check(&self, width: usize) -> DfResult<()> {
        if width <= self.limit || self.begun.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.widest.fetch_max(width, Ordering::Relaxed);
        Err(to_datafusion(too_wide()))
    }
}

const TOO_WIDE: &str = "a batch of rows is too large";

fn too_wide() -> Error {
    Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, TOO_WIDE)
        .with_detail("The values of a column in it have more than 2 GB.")
        .with_hint("Read fewer of the large values at once.")
}

/// The error of a run that cannot begin again.
pub(super) fn rows_too_wide() -> DataFusionError {
    to_datafusion(too_wide())
}

/// Whether a run ended because of its rows, and may begin again with fewer to a batch.
pub(super) fn is_too_wide(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::External(e) => {
            let known = |e: &Error| [TOO_WIDE, TOO_MANY_BYTES].contains(&e.message());
            e.downcast_ref::<Error>().is_some_and(known)
        }
        other => other.to_string().contains("Offset overflow error"),
    }
}

/// The parts of a batch that comes into a plan, as many rows as the run has to a batch: a join may
/// put a wide row beside each of them.
fn cut(batch: RecordBatch, rows: usize) -> impl Iterator<Item = RecordBatch> {
    let all = batch.num_rows();
    let step = if all > rows && rows < BATCH_ROWS { rows } else { all.max(1) };
    let starts = (0..all.max(1)).step_by(step);
    starts.map(move |start| batch.slice(start, step.min(all - start)))
}

/// Measures the rows that come into a plan and those that its projections make.
pub(super) fn measured(
    plan: Arc<dyn ExecutionPlan>,
    widths: &Arc<Widths>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let measured = plan.transform_up(|node| {
        let begins = node.children().is_empty() || node.is::<SlicedProjection>();
        let wide = node.schema().fields().iter().any(|f| f.data_type().primitive_width().is_none());
        if !begins || !wide && widths.rows >= BATCH_ROWS {
            return Ok(Transformed::no(node));
        }
        let measured = Measured { input: node, widths: Arc::clone(widths) };
        Ok(Transformed::yes(Arc::new(measured) as Arc<dyn ExecutionPlan>))
    });
    measured.map(|t| t.data)
}

/// A node that looks at the rows of its input.
#[derive(Debug, Clone)]
struct Measured {
    input: Arc<dyn ExecutionPlan>,
    widths: Arc<Widths>,
}

impl DisplayAs for Measured {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Measured")
    }
}

impl ExecutionPlan for Measured {
    fn name(&self) -> &'static str {
        "Measured"
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
            (Some(input), true) => Ok(Arc::new(Self { input, widths: Arc::clone(&self.widths) })),
            _ => internal_err!("what is measured has one input"),
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
        let widths = Arc::clone(&self.widths);
        let input = self.input.execute(partition, context)?;
        let rows = widths.rows;
        let checked = input.map(move |batch| {
            let batch = batch?;
            widths.check(widest_row(batch.columns().iter()))?;
            Ok(batch)
        });
        let stream = checked.flat_map(move |batch: DfResult<RecordBatch>| {
            let (batch, error) = match batch {
                Ok(batch) => (Some(batch), None),
                Err(error) => (None, Some(Err(error))),
            };
            let parts = batch.into_iter().flat_map(move |batch| cut(batch, rows)).map(Ok);
            futures::stream::iter(parts.chain(error))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}
