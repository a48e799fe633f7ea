//! MovingFilter: a time column compared with the clock (`ts > now() - interval '1 hour'`).
//!
//! `out = the rows of in whose time is below a cut`, or those whose time is not; the cut follows
//! from the clock of the epoch and never goes back. So a row changes sides once: where the rows
//! above are wanted it goes when the cut passes its time (a retraction), where those below are
//! wanted it comes then. A row without a time (NULL) is on no side.
//!
//! Either way state is what the cut has not passed: rows above it, with their weights, freed in
//! order of time. A row below it needs no memory: it is gone for good, or there for good and its
//! retraction passes. The input is partitioned by its key, or by the whole row, and the table with
//! it. Watermarks end here: what comes or goes by the clock is behind them.
//!
//! Example, rows above wanted, time the second column: at cut 5, `+1 | a | 3`, `+1 | b | 7` gives
//! `+1 | b | 7`; when the cut is 8, `-1 | b | 7`.

use std::sync::Arc;

use arrow::array::{Array, Int64Array, UInt32Array};
use arrow::datatypes::SchemaRef;

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Keys, batch_of};
use crate::error::{Error, Result};
use crate::expr::ClockBound;
use crate::state::{ArrangementSpec, Bound, KeyRequest, TableId, TableKind, TableSpec};
use crate::time::{Watermark, event_times};

/// Which rows a condition lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimeOrder {
    /// `time < bound`: rows come.
    Before,
    /// `time <= bound`: rows come.
    BeforeOrAt,
    /// `time > bound`: rows go.
    After,
    /// `time >= bound`: rows go.
    AfterOrAt,
}

impl TimeOrder {
    /// Whether rows come as the clock moves on, rather than go.
    pub fn comes(self) -> bool {
        matches!(self, Self::Before | Self::BeforeOrAt)
    }

    /// The operator's sign.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Before => "<",
            Self::BeforeOrAt => "<=",
            Self::After => ">",
            Self::AfterOrAt => ">=",
        }
    }

    /// The cut that a bound makes: times below it are on one side.
    fn cut(self, bound: i64) -> i64 {
        match self {
            Self::Before | Self::AfterOrAt => bound,
            Self::BeforeOrAt | Self::After => bound.saturating_add(1),
        }
    }
}

/// Plan constants.
#[derive(Debug, Clone)]
pub struct MovingFilterSpec {
    /// The rows, in and out.
    pub schema: SchemaRef,
    /// The columns that rows are partitioned by.
    pub by: Vec<usize>,
    /// The time column, in microseconds.
    pub time: usize,
    /// How times are compared with the bound.
    pub order: TimeOrder,
    /// The bound.
    pub bound: ClockBound,
    /// Whether the input is append-only.
    pub append_only: bool,
}

impl OperatorSpec for MovingFilterSpec {
    fn name(&self) -> &'static str {
        "MovingFilter"
    }

    fn describe(&self) -> String {
        let time = self.schema.field(self.time).name();
        let verb = if self.order.comes() { "come" } else { "go" };
        format!("{time} {} {}, rows {verb} by the clock", self.order.sign(), self.bound)
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        self.append_only && self.order.comes()
    }

    fn follows_clock(&self) -> bool {
        true
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![TableSpec {
            name: if self.order.comes() { "waiting" } else { "inside" },
            version: 1,
            bound: Bound::Behind {
                column: self.time,
                rule: "when the clock passes its time".to_owned(),
            },
            kind: TableKind::Arrangement(ArrangementSpec {
                schema: self.schema.clone(),
                key: self.by.clone(),
                append_only: false,
                counted: false,
            }),
        }]
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(MovingFilter { spec: self.clone(), above: tables[0], cut: None }))
    }
}

struct MovingFilter {
    // Plan.
    spec: MovingFilterSpec,
    /// The rows that the cut has not passed.
    above: TableId,
    // Buffers.
    /// The clock of the epoch and the cut that follows from it.
    cut: Option<(i64, i64)>,
}

impl MovingFilter {
    fn cut(&mut self, now_us: i64) -> Result<i64> {
        match self.cut {
            Some((at, cut)) if at == now_us => Ok(cut),
            _ => {
                let cut = self.spec.order.cut(self.spec.bound.at(now_us)?);
                self.cut = Some((now_us, cut));
                Ok(cut)
            }
        }
    }

    fn keys_of(&self, delta: &DeltaBatch) -> Result<Arc<Keys>> {
        delta.keys(&self.spec.by)
    }
}

impl Operator for MovingFilter {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        request.add(self.above, self.keys_of(delta)?.hashes());
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress> {
        let cut = self.cut(cx.now_us)?;
        let column = delta.rows().column(self.spec.time).clone();
        let times = event_times(&column)
            .ok_or_else(|| Error::internal("a moving filter over a column that is no time"))?;
        let (mut above, mut below) = (Vec::new(), Vec::new());
        for row in (0..delta.len() as u32).filter(|row| column.is_valid(*row as usize)) {
            let side = if times(row as usize) < cut { &mut below } else { &mut above };
            side.push(row);
        }
        let keys = self.keys_of(&delta)?;
        cx.state.arrangement(self.above).update(&delta, &keys, &above)?;
        let through = if self.spec.order.comes() { below } else { above };
        if through.len() == delta.len() {
            out.emit(delta.with_arrivals(None));
        } else if !through.is_empty() {
            out.emit(delta.take(&UInt32Array::from(through))?.with_arrivals(None));
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, _column: usize, _w: Watermark, _out: &mut Output) {}

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let cut = self.cut(cx.now_us)?;
        let table = cx.state.arrangement(self.above);
        let sign = if self.spec.order.comes() { 1 } else { -1 };
        let passed = table.passed(cut);
        for part in passed.chunks(BATCH_ROWS) {
            let slots: Vec<u32> = part.iter().map(|(slot, _)| *slot).collect();
            let width = self.spec.schema.fields().len();
            let columns = (0..width).map(|c| table.gather_column(c, &slots));
            let columns = columns.collect::<Result<_>>()?;
            let rows = batch_of(self.spec.schema.clone(), columns, slots.len())?;
            let weights = Int64Array::from_iter_values(part.iter().map(|(_, w)| sign * w));
            let once = weights.values().iter().all(|w| *w == 1);
            out.emit(DeltaBatch::with_weights(rows, (!once).then_some(weights)));
        }
        table.seal_and_expire(cut)?;
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::now_udf;
    use crate::operator::testing::{Harness, schema};

    fn spec(order: TimeOrder, append_only: bool) -> MovingFilterSpec {
        let bound = ClockBound::new(&now_udf().call(vec![])).expect("a bound");
        let schema = schema("k:text, e:timestamp");
        MovingFilterSpec { schema, by: vec![0, 1], time: 1, order, bound, append_only }
    }

    fn at(us: i64) -> String {
        format!("1970-01-01T00:00:00.{us:06}")
    }

    #[test]
    fn rows_go_when_the_clock_passes_their_time() {
        let spec = spec(TimeOrder::After, false);
        let mut run = Harness::new(&spec);
        let rows = |lines: &[(i64, &str, i64)]| {
            let line = |(w, k, t): &(i64, &str, i64)| format!("{w:+} | {k} | {}", at(*t));
            lines.iter().map(line).collect::<Vec<_>>().join("\n")
        };
        run.clock(100);
        let first = rows(&[(1, "a", 100), (2, "b", 101), (1, "c", 200), (1, "d", 300)]);
        run.input(0, &spec.schema, &format!("{first}\n+1 | n | NULL"));
        assert_eq!(
            run.flush(),
            "+2 | b | 1970-01-01 00:00:00.000101\n+1 | c | 1970-01-01 00:00:00.0002\n\
             +1 | d | 1970-01-01 00:00:00.0003"
        );
        run.restore();
        run.clock(101);
        // Gone by itself, and retracted in the same epoch: it goes once.
        run.input(0, &spec.schema, &rows(&[(-1, "b", 101), (-1, "d", 300), (1, "e", 101)]));
        assert_eq!(
            run.flush(),
            "-2 | b | 1970-01-01 00:00:00.000101\n-1 | d | 1970-01-01 00:00:00.0003"
        );
        assert_eq!(run.state_rows(), 1);
        // Nothing is due; the retraction of what is gone says nothing.
        run.clock(199);
        run.input(0, &spec.schema, &rows(&[(-1, "b", 101)]));
        assert_eq!(run.flush(), "");
        run.restore();
        run.clock(1_000);
        assert_eq!(run.flush(), "-1 | c | 1970-01-01 00:00:00.0002");
        assert_eq!(run.state_rows(), 0);
    }

    #[test]
    fn rows_come_when_the_clock_reaches_their_time() {
        let spec = spec(TimeOrder::BeforeOrAt, true);
        assert!(spec.append_only());
        let mut run = Harness::new(&spec);
        run.clock(100);
        run.input(0, &spec.schema, &format!("+1 | a | {}\n+1 | b | {}", at(100), at(101)));
        assert_eq!(run.flush(), "+1 | a | 1970-01-01 00:00:00.0001");
        run.restore();
        run.clock(101);
        assert_eq!(run.flush(), "+1 | b | 1970-01-01 00:00:00.000101");
        assert_eq!(run.state_rows(), 0);
    }

    #[test]
    fn a_row_that_waits_can_be_taken_back() {
        let spec = spec(TimeOrder::Before, false);
        let mut run = Harness::new(&spec);
        run.clock(100);
        run.input(0, &spec.schema, &format!("+2 | a | {}\n+1 | b | {}", at(100), at(99)));
        assert_eq!(run.flush(), "+1 | b | 1970-01-01 00:00:00.000099");
        run.input(0, &spec.schema, &format!("-1 | a | {}\n-1 | b | {}", at(100), at(99)));
        assert_eq!(run.flush(), "-1 | b | 1970-01-01 00:00:00.000099");
        run.clock(101);
        assert_eq!(run.flush(), "+1 | a | 1970-01-01 00:00:00.0001");
    }
}
