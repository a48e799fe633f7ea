//! Map: filters and projections fused over a batch.
//!
//! `out = project(filter(d))`, step by step; linear, so a delta of the input gives the delta of the
//! output with the same weights. Keeps no state, needs no partitioning, keeps the changelog mode of
//! its input. A watermark passes through columns that are handed on as they are, and through the
//! window functions, which are monotone.
//!
//! A row whose expression fails goes to the error port with the row's weight, so that its
//! retraction retracts the error.

use arrow::datatypes::SchemaRef;

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress, error_rows};
use crate::delta::{DeltaBatch, Weight};
use crate::error::Result;
use crate::expr::{Predicate, Projection, RowError};
use crate::state::{KeyRequest, TableId, TableSpec};
use crate::time::{Tumble, Watermark};
use std::sync::Arc;

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
}

/// How a watermark of an input column becomes one of an output column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carry {
    /// The column itself.
    Same,
    /// The start of its tumbling window.
    TumbleStart(Tumble),
    /// The end of its tumbling window.
    TumbleEnd(Tumble),
}

impl Carry {
    fn apply(self, w: Watermark) -> Watermark {
        if !w.is_finite() {
            return w;
        }
        let window = |t: Tumble| t.window_of(w.us()).unwrap_or((w.us(), w.us()));
        match self {
            Self::Same => w,
            // Rows at w or later have windows that start at this one's start or later.
            Self::TumbleStart(t) => Watermark::at_us(window(t).0),
            Self::TumbleEnd(t) => Watermark::at_us(window(t).1),
        }
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

    fn tables(&self) -> Vec<TableSpec> {
        Vec::new()
    }

    fn build(&self, _tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Map { steps: self.steps.clone(), errors: Vec::new() }))
    }
}

struct Map {
    steps: Vec<MapStep>,
    errors: Vec<RowError>,
}

impl Operator for Map {
    fn keys(&self, _port: usize, _delta: &DeltaBatch, _request: &mut KeyRequest) -> Result<()> {
        Ok(())
    }

    fn process(
        &mut self,
        _cx: &mut Context<'_>,
        _port: usize,
        mut delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress> {
        for step in &self.steps {
            let next = match step {
                MapStep::Filter(predicate) => predicate.filter(&delta, &mut self.errors)?,
                MapStep::Project { projection, .. } => {
                    projection.project(&delta, &mut self.errors)?
                }
            };
            if !self.errors.is_empty() {
                let failed: Vec<(usize, Weight, &str, String)> = self
                    .errors
                    .drain(..)
                    .map(|e| (e.row, delta.weight(e.row), e.sqlstate, e.reason))
                    .collect();
                out.errors.push(error_rows("Map", delta.rows(), &failed)?);
            }
            if next.is_empty() {
                return Ok(Progress::Done);
            }
            delta = next;
        }
        out.emit(delta);
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        let mut marks = vec![(column, w)];
        for step in &self.steps {
            let MapStep::Project { watermarks, .. } = step else { continue };
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

    fn flush(&mut self, _cx: &mut Context<'_>, _out: &mut Output) -> Result<()> {
        Ok(())
    }
}
