//! Stamp: `proctime()`, the clock of the epoch in which a row arrives, as a column behind the
//! others.
//!
//! `out = d with the epoch's clock`. The input is append-only: nothing has to be stamped again when
//! it is taken back. Keeps no state and needs no partitioning. The clock of epochs never goes back,
//! so the column carries a watermark, the clock itself, which moves on without rows; watermarks of
//! other columns pass.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::delta::DeltaBatch;
use crate::delta::text::UTC;
use crate::error::Result;
use crate::state::{KeyRequest, TableId, TableSpec};
use crate::time::Watermark;

/// Plan constants.
#[derive(Debug, Clone)]
pub struct StampSpec {
    /// The rows behind it; the last column is the time.
    pub schema: SchemaRef,
}

impl OperatorSpec for StampSpec {
    fn name(&self) -> &'static str {
        "Stamp"
    }

    fn describe(&self) -> String {
        "proctime()".to_owned()
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        true
    }

    fn follows_clock(&self) -> bool {
        true
    }

    fn tables(&self) -> Vec<TableSpec> {
        Vec::new()
    }

    fn build(&self, _tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Stamp { schema: self.schema.clone() }))
    }
}

struct Stamp {
    schema: SchemaRef,
}

impl Operator for Stamp {
    fn keys(&self, _port: usize, _delta: &DeltaBatch, _request: &mut KeyRequest) -> Result<()> {
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress> {
        let times = TimestampMicrosecondArray::from_value(cx.now_us, delta.len());
        let mut columns = delta.rows().columns().to_vec();
        columns.push(Arc::new(times.with_timezone(UTC)) as ArrayRef);
        out.emit(delta.with_rows(RecordBatch::try_new(self.schema.clone(), columns)?));
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        out.watermarks.push((column, w));
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        out.watermarks.push((self.schema.fields().len() - 1, Watermark::at_us(cx.now_us)));
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    use super::*;
    use crate::operator::testing::{Harness, schema};

    #[test]
    fn rows_have_the_clock_of_their_epoch() {
        let input = schema("k:text");
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
        let fields = vec![input.field(0).clone(), Field::new("p", time, true)];
        let spec = StampSpec { schema: Arc::new(Schema::new(fields)) };
        let mut run = Harness::new(&spec);
        run.clock(1_000_000);
        run.input(0, &input, "+1 | a\n+1 | b");
        assert_eq!(run.flush(), "+1 | a | 1970-01-01 00:00:01+00\n+1 | b | 1970-01-01 00:00:01+00");
        assert_eq!(run.last_watermark(), Some((1, 1_000_000)));
        run.clock(2_000_000);
        run.input(0, &input, "+1 | a");
        assert_eq!(run.flush(), "+1 | a | 1970-01-01 00:00:02+00");
    }
}
