//! Late: puts rows aside whose window had closed when they arrived; the others pass.
//!
//! `out = in - late`; keeps no state, needs no partitioning, keeps the changelog mode of its input.
//! It stands in the chain of a source ahead of the first exchange, in front of an operator that
//! frees what belongs to a closed window: what passes here finds its window open there.
//!
//! A row is late when the value of its time column is below the watermark that the column had when
//! the row arrived, which follows from the arrival that the row carries (`DeltaBatch::arrivals`)
//! and from nothing else. So late rows depend neither on batches nor on epochs, workers or the
//! interleaving of splits. A retraction of a row whose window is closed is late as well: the result
//! of the window stays as it is. A row without a time (NULL) is never late.
//!
//! What is late goes to the port of late rows as one row per change, with its weight as a column:
//! a retraction can be late whose row was not.
//!
//! Watermarks pass. Arrivals end here.
//!
//! The row `| 7 | end 10` with arrival 9 passes, with arrival 10 it is late (windows of 10).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, PrimitiveArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::not;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};

use super::errors::row_text;
use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::delta::DeltaBatch;
use crate::error::Result;
use crate::format::{Encoder, FormatSpec};
use crate::state::{KeyRequest, TableId, TableSpec};
use crate::time::{Carry, Watermark};

/// Names of the columns of a view's `$late`.
pub const LATE_COLUMNS: [&str; 6] =
    ["window_start", "window_end", "watermark", "epoch", "weight", "row"];

/// The one of them that has the row as text.
pub const LATE_ROW_COLUMN: usize = 5;

/// The schema of late rows.
pub fn late_schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let types =
        [time.clone(), time.clone(), time, DataType::Int64, DataType::Int64, DataType::Utf8];
    let fields = LATE_COLUMNS.iter().zip(types).map(|(name, t)| Field::new(*name, t, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Plan constants.
#[derive(Debug, Clone)]
pub struct LateSpec {
    /// The rows.
    pub schema: SchemaRef,
    /// Whether the input is append-only.
    pub append_only: bool,
    /// The time column that closes.
    pub column: usize,
    /// How its watermark follows from a row's arrival, step by step.
    pub carries: Vec<Carry>,
}

impl OperatorSpec for LateSpec {
    fn name(&self) -> &'static str {
        "Late"
    }

    fn describe(&self) -> String {
        format!("by {}", self.schema.field(self.column).name())
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        self.append_only
    }

    fn finds_late(&self) -> bool {
        true
    }

    fn tables(&self) -> Vec<TableSpec> {
        Vec::new()
    }

    fn build(&self, _tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        let reporter = LateReporter::new(self.schema.clone());
        Ok(Box::new(Late { spec: self.clone(), reporter }))
    }
}

struct Late {
    spec: LateSpec,
    reporter: LateReporter,
}

impl Late {
    /// Which rows are late; `None` when none is.
    fn find(&self, delta: &DeltaBatch) -> Option<BooleanArray> {
        let arrivals = delta.arrivals()?.values();
        let times = self.times(delta)?;
        let bound = |us: i64| self.spec.carries.iter().fold(us, |us, carry| carry.apply_us(us));
        // Neighbours mostly have one arrival, so the bound is seldom computed.
        let (mut arrival, mut least) = (i64::MIN, i64::MIN);
        let mut any = false;
        let late = (0..delta.len()).map(|row| {
            if arrivals[row] != arrival {
                arrival = arrivals[row];
                least = bound(arrival);
            }
            let late = times.value(row) < least && times.is_valid(row);
            any |= late;
            late
        });
        let late: Vec<bool> = late.collect();
        any.then(|| late.into())
    }

    fn times<'a>(&self, delta: &'a DeltaBatch) -> Option<&'a TimestampMicrosecondArray> {
        delta.rows().column(self.spec.column).as_primitive_opt::<TimestampMicrosecondType>()
    }

    /// The windows that late rows have missed.
    fn windows(&self, late: &DeltaBatch) -> Vec<Option<(i64, i64)>> {
        let carry = self.spec.carries.iter().rev().find(|c| **c != Carry::Same).copied();
        let window = |row: usize| carry?.window(self.times(late)?.value(row));
        (0..late.len()).map(window).collect()
    }
}

/// Makes the rows of `$late` out of rows that came too late.
pub(super) struct LateReporter {
    schema: SchemaRef,
    encoder: Option<Box<dyn Encoder>>,
}

impl LateReporter {
    /// For rows of a schema.
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema, encoder: None }
    }

    /// Late rows in [`late_schema`], with the windows that they have missed.
    pub(super) fn report(
        &mut self,
        late: &DeltaBatch,
        windows: &[Option<(i64, i64)>],
        cx: &Context<'_>,
    ) -> Result<DeltaBatch> {
        let count = late.len();
        let edge = |of: fn((i64, i64)) -> i64| -> ArrayRef {
            let values = windows.iter().map(|w| w.map(of));
            Arc::new(values.collect::<PrimitiveArray<TimestampMicrosecondType>>())
        };
        let arrivals = late.arrivals().map_or(&[][..], |a| a.values());
        let watermarks = TimestampMicrosecondArray::from_iter_values(arrivals.iter().copied());
        let weights = Int64Array::from_iter_values((0..count).map(|row| late.weight(row)));
        let columns: Vec<ArrayRef> = vec![
            edge(|w| w.0),
            edge(|w| w.1),
            Arc::new(watermarks),
            Arc::new(Int64Array::from_value(cx.epoch.0 as i64, count)),
            Arc::new(weights),
            Arc::new(self.texts(late.rows())?),
        ];
        Ok(DeltaBatch::inserts(RecordBatch::try_new(late_schema(), columns)?))
    }

    /// The rows as JSON objects; as `(1,a,NULL)` where a type has no JSON form.
    fn texts(&mut self, rows: &RecordBatch) -> Result<StringArray> {
        if self.encoder.is_none() {
            let fields = self.schema.fields().iter();
            let plain = fields.map(|f| f.as_ref().clone().with_name(unqualified(f.name())));
            let schema = Arc::new(Schema::new(plain.collect::<Vec<_>>()));
            self.encoder = FormatSpec::plain_json().encoder(schema).ok();
        }
        let Some(encoder) = &mut self.encoder else {
            let texts = (0..rows.num_rows()).map(|row| row_text(rows, row));
            return Ok(StringArray::from_iter_values(texts));
        };
        let mut bytes = Vec::new();
        encoder.encode(rows, &mut bytes)?;
        let texts = bytes.iter().map(|b| String::from_utf8_lossy(b));
        Ok(StringArray::from_iter_values(texts))
    }
}

/// A column's name without the relation that it is of.
fn unqualified(name: &str) -> &str {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.');
    match name.rsplit_once('.') {
        Some((_, column)) if name.chars().all(plain) => column,
        _ => name,
    }
}

impl Operator for Late {
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
        let Some(late) = self.find(&delta) else {
            out.emit(delta.with_arrivals(None));
            return Ok(Progress::Done);
        };
        let rows = delta.filter(&late)?;
        let windows = self.windows(&rows);
        out.late.push(self.reporter.report(&rows, &windows, cx)?);
        out.emit(delta.filter(&not(&late)?)?.with_arrivals(None));
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        out.watermarks.push((column, w));
    }

    fn flush(&mut self, _cx: &mut Context<'_>, _out: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::testing::{Harness, parse, schema};
    use crate::time::{Tumble, Tumbling, WindowEdge};

    fn spec() -> LateSpec {
        let window = Tumbling::Fixed(Tumble::new(10, 0).expect("positive"));
        LateSpec {
            schema: schema("k:int, window_end:timestamp"),
            append_only: false,
            column: 1,
            carries: vec![Carry::Same, Carry::Tumble(WindowEdge::End, window)],
        }
    }

    fn delta(spec: &LateSpec, text: &str, arrivals: Vec<i64>) -> DeltaBatch {
        parse(&spec.schema, text).with_arrivals(Some(arrivals.into()))
    }

    const END_10: &str = "1970-01-01T00:00:00.000010";

    #[test]
    fn a_row_is_late_by_its_own_arrival() {
        let spec = spec();
        let mut late = Harness::new(&spec);
        let text =
            format!("+1 | 1 | {END_10}\n+1 | 2 | {END_10}\n-1 | 3 | {END_10}\n+1 | 4 | NULL");
        late.delta(0, delta(&spec, &text, vec![9, 10, 11, 50]));
        assert_eq!(late.flush(), "+1 | 1 | 1970-01-01 00:00:00.00001\n+1 | 4 | NULL");
        let row = |k: i32| format!("{{\"k\":{k},\"window_end\":\"1970-01-01 00:00:00.000010\"}}");
        let window = "1970-01-01 00:00:00 | 1970-01-01 00:00:00.00001";
        let expected = [
            format!("+1 | {window} | 1970-01-01 00:00:00.00001 | 1 | 1 | {}", row(2)),
            format!("+1 | {window} | 1970-01-01 00:00:00.000011 | 1 | -1 | {}", row(3)),
        ];
        assert_eq!(late.late(), expected.join("\n"));
    }

    #[test]
    fn rows_without_arrivals_pass() {
        let spec = spec();
        let mut late = Harness::new(&spec);
        late.input(0, &spec.schema, &format!("+1 | 1 | {END_10}"));
        assert_eq!(late.flush(), "+1 | 1 | 1970-01-01 00:00:00.00001");
        assert_eq!(late.late(), "");
        assert_eq!(late.watermark(0, 1, 20), Some(20));
    }
}
