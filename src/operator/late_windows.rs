//! LateWindows: judges rows ahead of overlapping windows that share panes, window by window.
//!
//! `out = in - late`, with a column `from` behind the others: the first window end that the row
//! still counts for, NULL where that is all of its windows. A row is late for those of its windows
//! that had closed when it arrived (see [`super::late`]), and goes to the port of late rows once
//! for each; it passes while one of them was open. Keeps no state, needs no partitioning.
//!
//! The input is append-only: a retraction would have to find the `from` of its row.
//!
//! With windows of 10 every 5, the row `| 7 | 4` that arrives at 7 is late for `[-5, 5)` and passes
//! as `| 7 | 4 | from 10`.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};

use super::late::LateReporter;
use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::delta::DeltaBatch;
use crate::error::Result;
use crate::state::{KeyRequest, TableId, TableSpec};
use crate::time::{Carry, Watermark, WindowEdge, Windows};

/// Plan constants.
#[derive(Debug, Clone)]
pub struct LateWindowsSpec {
    /// The input's rows.
    pub input: SchemaRef,
    /// The same with `from`.
    pub schema: SchemaRef,
    /// The column of the timestamp.
    pub time: usize,
    /// The windows.
    pub windows: Windows,
    /// How the watermark of that column follows from a row's arrival, step by step.
    pub carries: Vec<Carry>,
}

impl OperatorSpec for LateWindowsSpec {
    fn name(&self) -> &'static str {
        "LateWindows"
    }

    fn describe(&self) -> String {
        format!("{} by {}", self.windows, self.input.field(self.time).name())
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        true
    }

    fn finds_late(&self) -> bool {
        true
    }

    fn tables(&self) -> Vec<TableSpec> {
        Vec::new()
    }

    fn build(&self, _tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        let reporter = LateReporter::new(self.input.clone());
        Ok(Box::new(LateWindows { spec: self.clone(), reporter }))
    }
}

struct LateWindows {
    spec: LateWindowsSpec,
    reporter: LateReporter,
}

/// What becomes of the rows of a batch.
#[derive(Default)]
struct Judged {
    /// Rows that pass, and the first window end that each counts for.
    pass: Vec<u32>,
    from: Vec<Option<i64>>,
    /// Rows that are late, once for each window that they miss.
    late: Vec<u32>,
    missed: Vec<Option<(i64, i64)>>,
}

impl LateWindows {
    /// `None` when every row counts for all of its windows.
    fn judge(&self, delta: &DeltaBatch) -> Option<Judged> {
        let arrivals = delta.arrivals()?.values();
        let times = delta.rows().column(self.spec.time);
        let times = times.as_primitive_opt::<TimestampMicrosecondType>()?;
        let watermark = |us: i64| self.spec.carries.iter().fold(us, |us, c| c.apply_us(us));
        let end = Carry::Windows(WindowEdge::End, self.spec.windows);
        // Neighbours mostly have one arrival, so the bounds are seldom computed.
        let (mut arrival, mut open, mut least) = (i64::MIN, i64::MIN, i64::MIN);
        let on_time = |row: usize, open: i64| times.is_null(row) || times.value(row) >= open;
        let mut judged = Judged::default();
        for row in 0..delta.len() {
            if arrivals[row] != arrival {
                arrival = arrivals[row];
                open = watermark(arrival);
                least = end.apply_us(open);
            }
            let mut from = None;
            let mut passes = true;
            if !on_time(row, open) {
                passes = false;
                // What is out of range fails where the window is computed.
                let each = self.spec.windows.each(times.value(row), |start, end| {
                    if end < least {
                        judged.late.push(row as u32);
                        judged.missed.push(Some((start, end)));
                        from = Some(least);
                    } else {
                        passes = true;
                    }
                });
                passes |= each.is_err();
            }
            if passes {
                judged.pass.push(row as u32);
                judged.from.push(from);
            }
        }
        (!judged.late.is_empty()).then_some(judged)
    }

    fn with_from(&self, rows: &RecordBatch, from: ArrayRef) -> Result<RecordBatch> {
        let columns = rows.columns().iter().cloned().chain([from]).collect();
        Ok(RecordBatch::try_new(self.spec.schema.clone(), columns)?)
    }

    fn column_from(&self, from: Vec<Option<i64>>) -> ArrayRef {
        let zone = match self.spec.input.field(self.spec.time).data_type() {
            arrow::datatypes::DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        std::sync::Arc::new(TimestampMicrosecondArray::from(from).with_timezone_opt(zone))
    }
}

fn taken(delta: &DeltaBatch, rows: Vec<u32>) -> Result<DeltaBatch> {
    let rows = UInt32Array::from(rows);
    let batch = arrow::compute::take_record_batch(delta.rows(), &rows)?;
    let arrivals = delta.arrivals().map(|a| take(a, &rows, None)).transpose()?;
    let arrivals = arrivals.map(|a| a.as_primitive::<Int64Type>().clone());
    Ok(DeltaBatch::inserts(batch).with_arrivals(arrivals))
}

impl Operator for LateWindows {
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
        let Some(judged) = self.judge(&delta) else {
            let from = self.column_from(vec![None; delta.len()]);
            out.emit(DeltaBatch::inserts(self.with_from(delta.rows(), from)?));
            return Ok(Progress::Done);
        };
        let late = taken(&delta, judged.late)?;
        out.late.push(self.reporter.report(&late, &judged.missed, cx)?);
        let rows = taken(&delta, judged.pass)?;
        let from = self.column_from(judged.from);
        out.emit(DeltaBatch::inserts(self.with_from(rows.rows(), from)?));
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

    #[test]
    fn a_row_is_late_for_the_windows_that_had_closed() {
        let spec = LateWindowsSpec {
            input: schema("k:int, ts:timestamp"),
            schema: schema("k:int, ts:timestamp, from:timestamp"),
            time: 1,
            windows: Windows::hop(5, 10, 0, 10).expect("valid"),
            carries: Vec::new(),
        };
        let ts = |us: i64| format!("1970-01-01T00:00:00.{us:06}");
        let text =
            format!("+1 | 1 | {0}\n+1 | 2 | {0}\n+1 | 3 | {0}\n+1 | 4 | {0}\n+1 | 5 | NULL", ts(4));
        let rows = parse(&spec.input, &text).with_arrivals(Some(vec![4, 5, 9, 10, 99].into()));
        let mut late = Harness::new(&spec);
        late.delta(0, rows);
        let (row, from) = ("1970-01-01 00:00:00.000004", "1970-01-01 00:00:00.00001");
        assert_eq!(
            late.flush(),
            format!(
                "+1 | 1 | {row} | NULL\n+1 | 2 | {row} | {from}\n+1 | 3 | {row} | {from}\n+1 | 5 | \
                 NULL | NULL"
            )
        );
        // Rows 2 and 3 miss one window, row 4 both.
        assert_eq!(late.late().lines().count(), 4);
    }
}
