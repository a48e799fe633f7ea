//! EmitOnClose: holds the rows of a window back until it closes, then hands them out once (EMIT ON
//! WINDOW CLOSE).
//!
//! `out = the rows of in whose time is below the watermark`. Changes of a window before it closes
//! cancel out in the buffer, and nothing comes for it afterwards, so the output is append-only. A
//! row without a time (NULL) is in no window and never comes out.
//!
//! Under ALLOWED LATENESS rows come out by the earlier bound of the watermark; what changes of them
//! behind that comes out at once, as changes. Nothing does behind the watermark.
//!
//! The input is partitioned by its key, or by the whole row, unless it is append-only. State: one
//! table of the rows of open windows with their weights, by what they are partitioned by.
//! Watermarks pass, behind the rows that they let go.
//!
//! Example, closing by the second column: `+1 | a | 10`, `-1 | a | 10`, `+1 | b | 10` give nothing;
//! the watermark 11 gives `+1 | b | 10`.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Keys, batch_of};
use crate::error::Result;
use crate::state::{ArrangementSpec, Bound, KeyRequest, TableId, TableKind, TableSpec};
use crate::time::Watermark;

/// Plan constants.
#[derive(Debug, Clone)]
pub struct OnCloseSpec {
    /// The rows, in and out.
    pub schema: SchemaRef,
    /// The time column.
    pub column: usize,
    /// The columns that rows are partitioned by.
    pub by: Vec<usize>,
    /// Whether the input is append-only; then it need not be partitioned.
    pub append_only: bool,
    /// Whether rows come out by the earlier bound of the watermark.
    pub early: bool,
}

impl OperatorSpec for OnCloseSpec {
    fn name(&self) -> &'static str {
        "EmitOnClose"
    }

    fn describe(&self) -> String {
        let early = if self.early { ", corrected by late rows" } else { "" };
        format!("by {}{early}", self.schema.field(self.column).name())
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        self.append_only || !self.early
    }

    fn closes_early(&self) -> bool {
        self.early
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![TableSpec {
            name: "open",
            version: 1,
            bound: Bound::Closes(self.column),
            kind: TableKind::Arrangement(ArrangementSpec {
                schema: self.schema.clone(),
                key: self.by.clone(),
                append_only: self.append_only,
                counted: false,
            }),
        }]
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(OnClose { spec: self.clone(), open: tables[0], closed: i64::MIN }))
    }
}

struct OnClose {
    // Plan.
    spec: OnCloseSpec,
    open: TableId,
    /// The watermark of the time column.
    closed: i64,
}

impl OnClose {
    fn keys_of(&self, delta: &DeltaBatch) -> Result<Arc<Keys>> {
        delta.keys(&self.spec.by)
    }
}

impl Operator for OnClose {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        request.add(self.open, self.keys_of(delta)?.hashes());
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        _out: &mut Output,
    ) -> Result<Progress> {
        let delta = delta.with_schema(self.spec.schema.clone())?;
        let all: Vec<u32> = (0..delta.len() as u32).collect();
        let keys = self.keys_of(&delta)?;
        cx.state.arrangement(self.open).update(&delta, &keys, &all)?;
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        if column == self.spec.column {
            self.closed = if self.spec.early { w.early_us() } else { w.us() };
        }
        out.watermarks.push((column, w));
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let table = cx.state.arrangement(self.open);
        table.seal_above(self.closed)?;
        for rows in table.passed(self.closed).chunks(BATCH_ROWS) {
            let (slots, weights): (Vec<u32>, Vec<i64>) = rows.iter().copied().unzip();
            let width = self.spec.schema.fields().len();
            let columns = (0..width).map(|c| table.gather_column(c, &slots));
            let columns = columns.collect::<Result<_>>()?;
            let rows = batch_of(self.spec.schema.clone(), columns, slots.len())?;
            let once = weights.iter().all(|w| *w == 1);
            out.emit(DeltaBatch::with_weights(rows, (!once).then(|| Int64Array::from(weights))));
        }
        table.seal_and_expire(self.closed)?;
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::testing::{Harness, schema};

    #[test]
    fn the_rows_of_a_window_come_out_once_when_it_closes() {
        let spec = OnCloseSpec {
            schema: schema("k:text, e:timestamp"),
            column: 1,
            by: vec![0],
            append_only: false,
            early: false,
        };
        let mut gate = Harness::new(&spec);
        let ten = "1970-01-01T00:00:00.000010";
        let twenty = "1970-01-01T00:00:00.000020";
        let rows = format!("+1 | a | {ten}\n+2 | b | {ten}\n+1 | c | {twenty}\n+1 | d | NULL");
        gate.input(0, &spec.schema, &rows);
        assert_eq!(gate.watermark(0, 1, 10), Some(10));
        assert_eq!(gate.flush(), "");
        gate.restore();
        gate.input(0, &spec.schema, &format!("-1 | a | {ten}\n+1 | e | {ten}"));
        gate.watermark(0, 1, 11);
        assert_eq!(
            gate.flush(),
            "+2 | b | 1970-01-01 00:00:00.00001\n+1 | e | 1970-01-01 00:00:00.00001"
        );
        assert_eq!(gate.state_rows(), 2);
        gate.watermark(0, 1, i64::MAX);
        assert_eq!(gate.flush(), "+1 | c | 1970-01-01 00:00:00.00002");
        assert_eq!(gate.state_rows(), 1);
    }

    #[test]
    fn late_changes_of_a_window_come_out_at_once_until_it_closes_for_good() {
        let spec = OnCloseSpec {
            schema: schema("k:text, e:timestamp"),
            column: 1,
            by: vec![0],
            append_only: false,
            early: true,
        };
        let mut gate = Harness::new(&spec);
        let (ten, twenty) = ("1970-01-01T00:00:00.000010", "1970-01-01T00:00:00.000020");
        gate.input(0, &spec.schema, &format!("+1 | a | {ten}\n+1 | b | {twenty}"));
        // Rows down to 3 are taken, and what is below 11 has come out.
        gate.late_watermark(0, 1, 11, 8);
        assert_eq!(gate.flush(), "+1 | a | 1970-01-01 00:00:00.00001");
        gate.input(0, &spec.schema, &format!("-1 | a | {ten}\n+1 | c | {ten}\n-1 | b | {twenty}"));
        assert_eq!(
            gate.flush(),
            "-1 | a | 1970-01-01 00:00:00.00001\n+1 | c | 1970-01-01 00:00:00.00001"
        );
        assert_eq!(gate.state_rows(), 0);
    }
}
