//! Feedback: where the step of a recursion begins. It hands on the rows of a round, each with the
//! number of the round behind it, that the [`Recursion`](super::RecursionSpec) at the end of the
//! step sends back; no watermark comes this way.

use arrow::datatypes::SchemaRef;

use crate::delta::DeltaBatch;
use crate::error::Result;
use crate::operator::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::state::{KeyRequest, TableId, TableSpec};
use crate::time::Watermark;

/// Plan constants.
#[derive(Debug, Clone)]
pub struct FeedbackSpec {
    /// What tells its step from others of one plan.
    pub number: usize,
    /// The name of the recursive query.
    pub name: String,
    /// Its rows, and the round.
    pub schema: SchemaRef,
    /// Whether rows are never retracted, nor move to another round.
    pub append_only: bool,
}

impl OperatorSpec for FeedbackSpec {
    fn name(&self) -> &'static str {
        "Feedback"
    }

    fn describe(&self) -> String {
        format!("the last round of {}", self.name)
    }

    fn constants(&self) -> String {
        String::new()
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        self.append_only
    }

    fn tables(&self) -> Vec<TableSpec> {
        Vec::new()
    }

    fn build(&self, _tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Feedback))
    }
}

struct Feedback;

impl Operator for Feedback {
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
        out.emit(delta);
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, _column: usize, _w: Watermark, _out: &mut Output) {}

    fn flush(&mut self, _cx: &mut Context<'_>, _out: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }
}
