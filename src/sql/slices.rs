//! Projections of reads, batch by batch within bounds: a batch whose results would be too large is
//! cut in halves, and lists that are unnested next are handed on in pieces.
//!
//! It stands in the place of the library's projection, with the same columns, the same order of
//! rows and, but for lists in pieces, the same rows.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column as ColumnExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;

use super::widths::batch_bytes;
use crate::config::{BATCH_BYTES_MAX, BATCH_ROWS};
use crate::error::Result;
use crate::expr::{
    ListSource, Pieces, Walk, from_datafusion, in_slices_of, is_batch_too_large, spread,
    to_datafusion, widest_row,
};

/// A column that the projection makes.
#[derive(Debug, Clone)]
enum Column {
    Plain(Arc<dyn PhysicalExpr>),
    /// A list that is unnested next.
    List(ListSource),
}

/// The plan node.
#[derive(Debug, Clone)]
pub(super) struct SlicedProjection {
    input: Arc<dyn ExecutionPlan>,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    columns: Arc<Vec<Column>>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl SlicedProjection {
    /// The columns of `exprs`; those in `lists` are unnested by what comes next. `like` is the node
    /// whose place it takes.
    pub(super) fn new(
        input: Arc<dyn ExecutionPlan>,
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        lists: &[usize],
        like: &dyn ExecutionPlan,
    ) -> Self {
        let column = |(i, expr): (usize, &Arc<dyn PhysicalExpr>)| match lists.contains(&i) {
            true => Column::List(ListSource::of(expr)),
            false => Column::Plain(Arc::clone(expr)),
        };
        let columns = Arc::new(exprs.iter().enumerate().map(column).collect());
        let properties = Arc::clone(like.properties());
        Self { input, exprs, columns, schema: like.schema(), properties }
    }
}

impl SlicedProjection {
    /// The same with some columns that are unnested by what comes next. A series that stands in a
    /// projection of its own, for it is used twice, is put in its places again: as a column it
    /// would be there as a whole.
    pub(super) fn with_lists(&self, lists: &[usize]) -> DfResult<Self> {
        let series =
            |e: &Arc<dyn PhysicalExpr>| matches!(ListSource::of(e), ListSource::Series { .. });
        let below = self.input.downcast_ref::<Self>();
        let Some(below) = below.filter(|below| below.exprs.iter().any(series)) else {
            return Ok(Self::new(Arc::clone(&self.input), self.exprs.clone(), lists, self));
        };
        let spelled_out = |expr: &Arc<dyn PhysicalExpr>| {
            let spelled = Arc::clone(expr).transform_up(|e| {
                let column = e.downcast_ref::<ColumnExpr>().map(ColumnExpr::index);
                Ok(match column.and_then(|i| below.exprs.get(i)) {
                    Some(whole) => Transformed::yes(Arc::clone(whole)),
                    None => Transformed::no(e),
                })
            });
            spelled.map(|t| t.data)
        };
        let exprs = self.exprs.iter().map(spelled_out).collect::<DfResult<_>>()?;
        Ok(Self::new(Arc::clone(&below.input), exprs, lists, self))
    }
}

impl DisplayAs for SlicedProjection {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exprs: Vec<String> = self.exprs.iter().map(ToString::to_string).collect();
        write!(f, "SlicedProjection: {}", exprs.join(", "))
    }
}

impl ExecutionPlan for SlicedProjection {
    fn name(&self) -> &'static str {
        "SlicedProjection"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        for expr in &self.exprs {
            if f(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self { input, ..self.as_ref().clone() })),
            _ => internal_err!("a projection has one input"),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        let slices = Slices {
            input: self.input.execute(partition, Arc::clone(&context))?,
            columns: Arc::clone(&self.columns),
            schema: Arc::clone(&self.schema),
            waiting: Vec::new(),
            open: None,
            bytes: match context.memory_pool().memory_limit() {
                MemoryLimit::Finite(limit) => batch_bytes(limit),
                _ => BATCH_BYTES_MAX,
            },
        };
        let stream = futures::stream::unfold(Some(slices), |slices| async move {
            let mut slices = slices?;
            match slices.next().await {
                Ok(Some(batch)) => Some((Ok(batch), Some(slices))),
                Ok(None) => None,
                Err(error) => Some((Err(to_datafusion(error)), None)),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream)))
    }
}

/// One run of the projection.
struct Slices {
    input: SendableRecordBatchStream,
    columns: Arc<Vec<Column>>,
    schema: SchemaRef,
    /// Parts of a batch that are still to be projected, the next one last.
    waiting: Vec<RecordBatch>,
    open: Option<Open>,
    /// What a batch may have.
    bytes: usize,
}

/// A batch whose lists are being handed on.
struct Open {
    /// The columns, lists left out.
    plain: Vec<Option<ArrayRef>>,
    pieces: Pieces,
    /// Rows of a piece once it is unnested.
    limit: usize,
}

impl Slices {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            // A batch of input may give any number of pieces: others have their turn.
            tokio::task::consume_budget().await;
            if let Some(open) = &mut self.open {
                match open.next(&self.schema)? {
                    Some(batch) => return Ok(Some(batch)),
                    None => self.open = None,
                }
            }
            let batch = match self.waiting.pop() {
                Some(batch) => batch,
                None => match self.input.next().await.transpose().map_err(from_datafusion)? {
                    Some(batch) => batch,
                    None => return Ok(None),
                },
            };
            let rows = batch.num_rows();
            match in_slices_of(self.bytes, rows, || self.begin(&batch)) {
                Ok(Some(done)) => return Ok(Some(done)),
                Ok(None) => {}
                Err(error) if is_batch_too_large(&error) && rows > 1 => {
                    let half = rows / 2;
                    self.waiting.push(batch.slice(half, rows - half));
                    self.waiting.push(batch.slice(0, half));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Projects a batch; `None` when its lists are open now.
    fn begin(&mut self, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
        let rows = batch.num_rows();
        let (mut plain, mut lists) = (Vec::new(), Vec::new());
        for column in self.columns.iter() {
            plain.push(match column {
                Column::Plain(expr) => {
                    Some(spread(expr.evaluate(batch).map_err(from_datafusion)?, rows)?)
                }
                Column::List(source) => {
                    lists.push(source.clone());
                    None
                }
            });
        }
        if lists.is_empty() {
            let columns = plain.into_iter().flatten().collect();
            return Ok(Some(with_rows(&self.schema, columns, rows)?));
        }
        let pieces = Pieces::of(&lists, batch)?;
        let width = widest_row(plain.iter().flatten()) + pieces.widest_element();
        let limit = (self.bytes / width.max(1)).clamp(1, BATCH_ROWS);
        self.open = Some(Open { plain, pieces, limit });
        Ok(None)
    }
}

impl Open {
    fn next(&mut self, schema: &SchemaRef) -> Result<Option<RecordBatch>> {
        let Some(piece) = self.pieces.next(self.limit, None)? else { return Ok(None) };
        let mut lists = piece.lists.into_iter();
        let mut columns = Vec::with_capacity(self.plain.len());
        for plain in &self.plain {
            match plain {
                Some(array) => columns.push(take(array, &piece.rows, None)?),
                None => columns.extend(lists.next()),
            }
        }
        with_rows(schema, columns, piece.rows.len()).map(Some)
    }
}

fn with_rows(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
