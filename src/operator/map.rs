//! Map: filters, projections and overlapping windows fused over a batch.
//!
//! `out = project(filter(d))`, step by step; a step may also repeat each row for its windows.
//! Linear, so a delta of the input gives the delta of the output with the same weights. Keeps no
//! state, needs no partitioning, keeps the changelog mode of its input. A watermark passes through
//! columns that are handed on as they are, and through the window functions, which are monotone.
//!
//! A row whose expression fails goes to the error port with the row's weight, so that its
//! retraction retracts the error.
//!
//! What comes out of a batch can be much more than went in: then the batch is cut, or unnested in
//! pieces, and the rest waits for `resume`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::take;
use arrow::datatypes::{Int64Type, SchemaRef};

use super::unnest::Unnesting;
use super::{Context, Operator, OperatorSpec, Output, Placement, Progress, Unnest, error_rows};
use crate::delta::{DeltaBatch, Weight};
use crate::error::Result;
use crate::expr::{Predicate, Projection, RowError, WindowEdge, explode, window_time};
use crate::state::{KeyRequest, TableId, TableSpec};
use crate::time::{Carry, Watermark, Windows};

/// Rows that come out at once of rows that are put into windows.
const EXPLODED_ROWS_MAX: usize = 1 << 18;

/// One step over a batch.
#[derive(Debug, Clone)]
pub enum MapStep {
    /// Keeps the rows for which the predicate is true.
    Filter(Arc<Predicate>),
    /// Computes new columns.
    Project {
        /// The expressions.
        projection: Arc<Projection>,
        /// For each output column: the input column whose watermark it carries, and how.
        watermarks: Vec<Option<(usize, Carry)>>,
    },
    /// Repeats every row for each window that its timestamp is in.
    Explode(Explode),
    /// Repeats every row for each element of its arrays.
    Unnest(Unnest),
}

/// A step that puts rows into overlapping windows.
#[derive(Debug, Clone)]
pub struct Explode {
    /// The column of the timestamp, in microseconds.
    pub time: usize,
    /// How many columns of the input are kept; edges of the windows follow.
    pub keep: usize,
    /// The windows.
    pub windows: Windows,
    /// The edges that become columns.
    pub edges: Vec<WindowEdge>,
    /// The rows behind the step.
    pub schema: SchemaRef,
}

impl Explode {
    /// Rows of a batch at most, so that what comes out stays within bounds.
    fn rows_max(&self) -> usize {
        (EXPLODED_ROWS_MAX / self.windows.per_row_max().max(1)).max(1)
    }

    fn explode(&self, delta: &DeltaBatch, errors: &mut Vec<RowError>) -> Result<DeltaBatch> {
        let exploded = explode(delta.rows().column(self.time), self.windows, errors);
        let mut columns: Vec<ArrayRef> = delta.rows().columns()[..self.keep]
            .iter()
            .map(|c| take(c, &exploded.rows, None))
            .collect::<Result<_, _>>()?;
        columns.extend(self.edges.iter().map(|edge| match edge {
            WindowEdge::Start => exploded.starts.clone(),
            WindowEdge::End => exploded.ends.clone(),
            WindowEdge::Time => window_time(&exploded.ends),
        }));
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        let taken = |values: Option<&Int64Array>| -> Result<Option<Int64Array>> {
            let values = values.map(|v| take(v, &exploded.rows, None)).transpose()?;
            Ok(values.map(|v| v.as_primitive::<Int64Type>().clone()))
        };
        let exploded = DeltaBatch::with_weights(rows, taken(delta.weights())?);
        Ok(exploded.with_arrivals(taken(delta.arrivals())?))
    }

    fn carry(&self, marks: &[(usize, Watermark)]) -> Vec<(usize, Watermark)> {
        let kept = marks.iter().copied().filter(|(column, _)| *column < self.keep);
        let time = marks.iter().find(|(column, _)| *column == self.time);
        let edges = self.edges.iter().enumerate().filter_map(|(i, edge)| {
            Some((self.keep + i, Carry::Windows(*edge, self.windows).apply(time?.1)))
        });
        kept.chain(edges).collect()
    }
}

/// Plan constants.
#[derive(Debug, Clone)]
pub struct MapSpec {
    /// The steps in order.
    pub steps: Vec<MapStep>,
    /// The rows behind the last step.
    pub schema: SchemaRef,
    /// Whether the input is append-only.
    pub append_only: bool,
    /// The expressions, for EXPLAIN.
    pub text: String,
}

impl MapSpec {
    /// The input column whose watermark a column of the output carries.
    pub fn time_source(&self, column: usize) -> Option<usize> {
        self.steps.iter().rev().try_fold(column, |column, step| match step {
            MapStep::Filter(_) => Some(column),
            MapStep::Project { watermarks, .. } => Some((*watermarks.get(column)?)?.0),
            MapStep::Explode(step) if column >= step.keep => Some(step.time),
            MapStep::Explode(_) => Some(column),
            MapStep::Unnest(step) => (0..=column).find(|input| {
                let carried = step.carry(&[(*input, Watermark::at_us(0))]);
                carried.iter().any(|(output, _)| *output == column)
            }),
        })
    }
}

impl OperatorSpec for MapSpec {
    fn name(&self) -> &'static str {
        "Map"
    }

    fn describe(&self) -> String {
        self.text.clone()
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        self.append_only
    }

    fn can_fail(&self) -> bool {
        true
    }

    fn net_columns(&self, inputs: &[Option<Vec<usize>>]) -> Option<Vec<usize>> {
        let mut columns = inputs.first()?.clone()?;
        for step in &self.steps {
            columns = match step {
                MapStep::Filter(_) => columns,
                MapStep::Project { projection, .. } => {
                    let sources = projection.source_columns();
                    let place = |c: &usize| sources.iter().position(|s| *s == Some(*c));
                    columns.iter().map(place).collect::<Option<_>>()?
                }
                MapStep::Explode(_) | MapStep::Unnest(_) => return None,
            };
        }
        Some(columns)
    }

    fn tables(&self) -> Vec<TableSpec> {
        Vec::new()
    }

    fn build(&self, _tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Map { steps: self.steps.clone(), errors: Vec::new(), tasks: Vec::new() }))
    }
}

struct Map {
    steps: Vec<MapStep>,
    errors: Vec<RowError>,
    /// What is left of the delta at hand; the next one last.
    tasks: Vec<Task>,
}

/// Rows on their way through the steps.
enum Task {
    /// Rows ahead of a step.
    Step(usize, DeltaBatch),
    /// Rows that a step is unnesting.
    Unnest(usize, Unnesting),
}

impl Map {
    /// Goes on until rows come out.
    fn run(&mut self, out: &mut Output) -> Result<Progress> {
        while let Some(task) = self.tasks.pop() {
            let emitted = match task {
                Task::Step(at, delta) => self.through(at, delta, out)?,
                Task::Unnest(at, mut open) => {
                    let MapStep::Unnest(step) = &self.steps[at] else { continue };
                    let next = step.next(&mut open, &mut self.errors)?;
                    report(&mut self.errors, open.batch(), out)?;
                    match next {
                        None => false,
                        Some(rows) => {
                            self.tasks.push(Task::Unnest(at, open));
                            self.tasks.push(Task::Step(at + 1, rows));
                            false
                        }
                    }
                }
            };
            if emitted && !self.tasks.is_empty() {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done)
    }

    /// Takes rows through the steps from one on; whether some have come out.
    fn through(&mut self, from: usize, mut delta: DeltaBatch, out: &mut Output) -> Result<bool> {
        for at in from..self.steps.len() {
            let next = match &self.steps[at] {
                MapStep::Filter(predicate) => Some(predicate.filter(&delta, &mut self.errors)?),
                MapStep::Project { projection, .. } => {
                    projection.project(&delta, &mut self.errors)?
                }
                MapStep::Explode(step) if delta.len() > step.rows_max() => None,
                MapStep::Explode(step) => Some(step.explode(&delta, &mut self.errors)?),
                MapStep::Unnest(step) => {
                    self.tasks.push(Task::Unnest(at, step.begin(delta)?));
                    return Ok(false);
                }
            };
            let Some(next) = next else {
                let half = delta.len() / 2;
                let rest = delta.slice(half, delta.len() - half);
                self.tasks.push(Task::Step(at, rest));
                self.tasks.push(Task::Step(at, delta.slice(0, half)));
                return Ok(false);
            };
            report(&mut self.errors, &delta, out)?;
            if next.is_empty() {
                return Ok(false);
            }
            delta = next;
        }
        out.emit(delta);
        Ok(true)
    }
}

/// Rows of `delta` that failed go to the error port.
fn report(errors: &mut Vec<RowError>, delta: &DeltaBatch, out: &mut Output) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let failed: Vec<(usize, Weight, &str, String)> =
        errors.drain(..).map(|e| (e.row, delta.weight(e.row), e.sqlstate, e.reason)).collect();
    out.errors.push(error_rows("Map", delta.rows(), &failed)?);
    Ok(())
}

impl Operator for Map {
    fn keys(&self, _port: usize, _delta: &DeltaBatch, _request: &mut KeyRequest) -> Result<()> {
        Ok(())
    }

    fn process(
        &mut self,
        _cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress> {
        self.tasks.push(Task::Step(0, delta));
        self.run(out)
    }

    fn resume(&mut self, _cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        self.run(out)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        let mut marks = vec![(column, w)];
        for step in &self.steps {
            let watermarks = match step {
                MapStep::Filter(_) => continue,
                MapStep::Project { watermarks, .. } => watermarks,
                MapStep::Unnest(step) => {
                    marks = step.carry(&marks);
                    continue;
                }
                MapStep::Explode(step) => {
                    marks = step.carry(&marks);
                    continue;
                }
            };
            let carried = watermarks.iter().enumerate().flat_map(|(output, from)| {
                let found = from.and_then(|(input, carry)| {
                    let mark = marks.iter().find(|(c, _)| *c == input)?;
                    Some((output, carry.apply(mark.1)))
                });
                found.into_iter().collect::<Vec<_>>()
            });
            marks = carried.collect();
        }
        out.watermarks.extend(marks);
    }

    fn flush(&mut self, _cx: &mut Context<'_>, _out: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }
}
