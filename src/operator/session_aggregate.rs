//! SessionAggregate: GROUP BY of sessions of rows that are never taken back.
//!
//! For every session that an epoch changes, `out = -old row + new row`, as of an aggregate whose
//! key is the session: a row that extends a session changes one row of the output, one that joins
//! two takes both away and puts one in their place. What it costs does not depend on how many rows
//! the session has: its states are kept, and those of two sessions are merged.
//!
//! Inside is an [`Aggregate`](super::AggregateSpec) by the keys and the *mark* of the session (see
//! `state/sessions.rs`), which keeps the times of the first and last row beside the results. So the
//! states of a session are where they were when it grows.
//!
//! The input is append-only and partitioned by the keys; the time column follows them. The output
//! retracts. State: sessions by key, and their groups. Under a watermark late rows have been put
//! aside in front, all of them: a row behind the watermark could reach a session that has closed.
//! A session closes when the watermark is at its end or behind it; it goes from the state then and
//! stays in the output. The watermark of ends is one microsecond ahead of the time column's: a
//! session that changes ends behind it.
//!
//! With a gap of 10 and a count: `+1 | a | 0`, `+1 | a | 18` gives `+1 | a | [0, 10) | 1`,
//! `+1 | a | [18, 28) | 1`; then `+1 | a | 9` takes both away and gives `+1 | a | [0, 28) | 3`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};

use super::aggregate::{AggregateOperator, AggregateSpec};
use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::delta::{DeltaBatch, Keys, hash_key};
use crate::error::Result;
use crate::state::{Bound, KeyRequest, TableId, TableKind, TableSpec, TimelineSpec};
use crate::time::{Watermark, WindowEdge};

/// Where a column of the output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionColumn {
    /// A key.
    Key(usize),
    /// An edge of the session.
    Edge(WindowEdge),
    /// The result of a call.
    Result(usize),
}

/// Plan constants.
#[derive(Debug, Clone)]
pub struct SessionAggregateSpec {
    /// The aggregate inside. Its keys are the first columns of its input, the last of them the
    /// time column, where its calls do not look: marks take the place of times. Its last two
    /// results are the least and the greatest time.
    pub inner: AggregateSpec,
    /// Keys of sessions: the time column stands behind them.
    pub keys: usize,
    /// Rows this far apart are in different sessions.
    pub gap_us: i64,
    /// The columns of the output.
    pub columns: Vec<SessionColumn>,
    /// Their schema.
    pub schema: SchemaRef,
    /// Whether the time column has a watermark, so that sessions close.
    pub closes: bool,
}

impl OperatorSpec for SessionAggregateSpec {
    fn name(&self) -> &'static str {
        "SessionAggregate"
    }

    fn describe(&self) -> String {
        let columns = self.columns.iter().zip(self.schema.fields());
        let keys = columns.filter(|(from, _)| matches!(from, SessionColumn::Key(_)));
        let keys: Vec<&str> = keys.map(|(_, field)| field.name().as_str()).collect();
        let mut calls = self.inner.describe_calls();
        calls.truncate(calls.len().saturating_sub(2));
        let by = if keys.is_empty() { String::new() } else { format!("by {}, ", keys.join(", ")) };
        format!("{by}gap {} s: {}", self.gap_us as f64 / 1e6, calls.join(", "))
    }

    fn notes(&self) -> Vec<String> {
        self.inner.distinct_notes()
    }

    fn constants(&self) -> String {
        format!("{}, {:?}: {}", self.describe(), self.columns, self.inner.constants())
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        false
    }

    fn can_fail(&self) -> bool {
        true
    }

    fn tables(&self) -> Vec<TableSpec> {
        let bound = match self.closes {
            true => Bound::Closes(self.keys),
            false => Bound::Unbounded("sessions"),
        };
        let input = self.inner.input().fields();
        let kind = TableKind::Sessions(TimelineSpec {
            gap_us: self.gap_us,
            key: input[..self.keys].iter().map(|f| f.data_type().clone()).collect(),
            row: Vec::new(),
        });
        let sessions = TableSpec { name: "sessions", version: 1, bound: bound.clone(), kind };
        let groups = self.inner.tables().into_iter().map(|mut table| {
            if let TableKind::Groups(groups) = &mut table.kind {
                // A group is where its session is.
                let mark = self.inner.input().field(self.keys).data_type().clone();
                groups.suffix = Keys::fixed_width(&[mark]).unwrap_or(0);
            }
            TableSpec { bound: bound.clone(), ..table }
        });
        [sessions].into_iter().chain(groups).collect()
    }

    fn build(&self, tables: &[TableId], place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(SessionAggregate {
            inner: self.inner.operator(tables[1], place)?,
            sessions: tables[0],
            groups: tables[1],
            closed: i64::MIN,
            spec: self.clone(),
        }))
    }
}

struct SessionAggregate {
    // Plan.
    spec: SessionAggregateSpec,
    inner: AggregateOperator,
    sessions: TableId,
    groups: TableId,
    /// The watermark of the time column.
    closed: i64,
}

/// Rows with their sessions, and what became of other sessions.
struct Assigned {
    /// Positions of rows that have a time.
    rows: Vec<u32>,
    marks: Vec<i64>,
    /// Row, absorbed mark, mark: in order.
    merges: Vec<(usize, i64, i64)>,
}

impl SessionAggregate {
    fn keys_of(&self, delta: &DeltaBatch) -> Result<Arc<Keys>> {
        delta.keys(&(0..self.spec.keys).collect::<Vec<_>>())
    }

    fn assign(&self, cx: &mut Context<'_>, delta: &DeltaBatch, keys: &Keys) -> Assigned {
        let times = delta.rows().column(self.spec.keys);
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let mut all = Assigned { rows: Vec::new(), marks: Vec::new(), merges: Vec::new() };
        let sessions = cx.state.sessions(self.sessions);
        for row in (0..delta.len()).filter(|row| times.is_valid(*row)) {
            let added = sessions.add(keys.key(row), keys.hash(row), times.value(row));
            all.rows.push(row as u32);
            all.marks.push(added.mark);
            all.merges.extend(added.absorbed.map(|absorbed| (row, absorbed, added.mark)));
        }
        all
    }

    fn times(&self, values: Vec<i64>) -> ArrayRef {
        let zone = match self.spec.inner.input().field(self.spec.keys).data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone_opt(zone))
    }

    /// The key of a session's group.
    fn group_key(&self, key: &[u8], mark: i64) -> Result<Vec<u8>> {
        let mark = Keys::encode(&[self.times(vec![mark])], 1)?;
        Ok([key, mark.key(0)].concat())
    }

    /// The rows of sessions out of the rows of groups.
    fn rows(&self, groups: &DeltaBatch) -> Result<DeltaBatch> {
        let from = groups.rows().columns();
        let [.., first, last] = from else { return Ok(groups.clone()) };
        let shifted = |of: &ArrayRef, by: i64| -> ArrayRef {
            let times = of.as_primitive::<TimestampMicrosecondType>();
            let shifted: TimestampMicrosecondArray = times.unary(|us| us.saturating_add(by));
            Arc::new(shifted.with_data_type(of.data_type().clone()))
        };
        let column = |column: &SessionColumn| match column {
            SessionColumn::Key(key) => from[*key].clone(),
            SessionColumn::Edge(WindowEdge::Start) => first.clone(),
            SessionColumn::Edge(WindowEdge::End) => shifted(last, self.spec.gap_us),
            SessionColumn::Edge(WindowEdge::Time) => shifted(last, self.spec.gap_us - 1_000),
            SessionColumn::Result(call) => from[self.spec.keys + 1 + call].clone(),
        };
        let columns = self.spec.columns.iter().map(column).collect();
        let rows = RecordBatch::try_new(self.spec.schema.clone(), columns)?;
        Ok(DeltaBatch::with_weights(rows, groups.weights().cloned()))
    }
}

impl Operator for SessionAggregate {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        let keys = self.keys_of(delta)?;
        request.add(self.sessions, keys.hashes());
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        port: usize,
        delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress> {
        let keys = self.keys_of(&delta)?;
        let Assigned { rows, marks, merges } = self.assign(cx, &delta, &keys);
        let picked = take_record_batch(delta.rows(), &UInt32Array::from(rows.clone()))?;
        let mut columns = picked.columns().to_vec();
        columns[self.spec.keys] = self.times(marks);
        let picked = RecordBatch::try_new(picked.schema(), columns)?;
        let weights = delta.weights().map(|w| rows.iter().map(|r| w.value(*r as usize)).collect());
        let marked = DeltaBatch::with_weights(picked, weights);
        // Which groups are touched follows from the sessions.
        let mut request = KeyRequest::default();
        self.inner.keys(port, &marked, &mut request)?;
        cx.state.make_resident(&request)?;
        let progress = self.inner.process(cx, port, marked, out)?;
        for (row, absorbed, mark) in merges {
            let from = self.group_key(keys.key(row), absorbed)?;
            let into = self.group_key(keys.key(row), mark)?;
            let mut request = KeyRequest::default();
            request.add(self.groups, &[hash_key(&from), hash_key(&into)]);
            cx.state.make_resident(&request)?;
            self.inner.merge(cx, &from, &into)?;
        }
        Ok(progress)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        if column != self.spec.keys || !self.spec.closes {
            return;
        }
        self.closed = w.us();
        for (i, column) in self.spec.columns.iter().enumerate() {
            let behind = match column {
                SessionColumn::Edge(WindowEdge::End | WindowEdge::Time) if !w.is_finite() => 0,
                SessionColumn::Edge(WindowEdge::End) => 1,
                SessionColumn::Edge(WindowEdge::Time) => 1 - 1_000,
                // A session that is open can have begun at any time.
                _ => continue,
            };
            out.watermarks.push((i, w.map_us(|us| us.saturating_add(behind))));
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let mut groups = Output::default();
        let progress = self.inner.flush(cx, &mut groups)?;
        self.go_on(cx, progress, groups, out)
    }

    fn resume(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let mut groups = Output::default();
        let progress = self.inner.resume(cx, &mut groups)?;
        self.go_on(cx, progress, groups, out)
    }
}

impl SessionAggregate {
    /// Hands on a piece of what the groups have flushed; after the last one, closed sessions go.
    fn go_on(
        &mut self,
        cx: &mut Context<'_>,
        progress: Progress,
        mut groups: Output,
        out: &mut Output,
    ) -> Result<Progress> {
        out.errors.append(&mut groups.errors);
        for rows in &groups.rows {
            out.emit(self.rows(rows)?);
        }
        if progress == Progress::More {
            return Ok(progress);
        }
        let mut closed = Vec::new();
        let note = |key: &[u8], mark| closed.push((key.to_vec(), mark));
        cx.state.sessions(self.sessions).expire(self.closed, note);
        for (key, mark) in closed {
            let key = self.group_key(&key, mark)?;
            let mut request = KeyRequest::default();
            request.add(self.groups, &[hash_key(&key)]);
            cx.state.make_resident(&request)?;
            self.inner.forget(cx, &key);
        }
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::AggregateCall;
    use crate::operator::testing::{Harness, schema};

    fn spec() -> SessionAggregateSpec {
        let call = |function: &str, argument: Option<usize>| AggregateCall {
            function: function.into(),
            arguments: argument.into_iter().collect(),
            ..AggregateCall::default()
        };
        let calls = vec![
            call("count", None),
            call("sum", Some(2)),
            call("max", Some(3)),
            call("min", Some(4)),
            call("max", Some(4)),
        ];
        let groups = "k:text, ts:timestamp, n:bigint, s:bigint, m:text, a:timestamp, b:timestamp";
        let input = (schema("k:text, ts:timestamp, v:int, t:text, at:timestamp"), true);
        let inner = AggregateSpec::new(input, vec![0, 1], calls, schema(groups)).expect("valid");
        use SessionColumn::{Edge, Key, Result};
        SessionAggregateSpec {
            inner,
            keys: 1,
            gap_us: 10,
            columns: vec![
                Key(0),
                Edge(WindowEdge::Start),
                Edge(WindowEdge::End),
                Result(0),
                Result(1),
                Result(2),
            ],
            schema: schema("k:text, s:timestamp, e:timestamp, n:bigint, total:bigint, m:text"),
            closes: true,
        }
    }

    fn input(key: &str, us: i64, v: i64) -> String {
        let at = format!("1970-01-01 00:00:00.{us:06}");
        format!("+1 | {key} | {at} | {v} | t{v} | {at}")
    }

    fn row(weight: i64, (start, end): (i64, i64), results: &str) -> String {
        let at = |us: i64| match us {
            0 => "1970-01-01 00:00:00".to_owned(),
            _ => format!("1970-01-01 00:00:00.{us:06}").trim_end_matches('0').to_owned(),
        };
        format!("{weight:+} | a | {} | {} | {results}", at(start), at(end))
    }

    #[test]
    fn a_session_is_one_row_however_it_came_about() {
        let spec = spec();
        let rows = |rows: &[String]| rows.join("\n");
        let mut session = Harness::new(&spec);
        let schema = spec.inner.input().clone();
        session.input(0, &schema, &rows(&[input("a", 1, 1), input("a", 18, 2)]));
        session.input(0, &schema, "+1 | a | NULL | 3 | t | NULL");
        assert_eq!(
            session.flush(),
            rows(&[row(1, (1, 11), "1 | 1 | t1"), row(1, (18, 28), "1 | 2 | t2")])
        );
        session.restore();
        session.input(0, &schema, &input("a", 19, 5));
        assert_eq!(
            session.flush(),
            rows(&[row(-1, (18, 28), "1 | 2 | t2"), row(1, (18, 29), "2 | 7 | t5")])
        );
        session.restore();
        // One that joins two, one in front of them, one that would join again: it is inside.
        let more = [input("a", 9, 9), input("a", 0, 4), input("a", 10, 1)];
        session.input(0, &schema, &rows(&more));
        assert_eq!(
            session.flush(),
            rows(&[
                row(-1, (1, 11), "1 | 1 | t1"),
                row(-1, (18, 29), "2 | 7 | t5"),
                row(1, (0, 29), "6 | 22 | t9"),
            ])
        );
        assert_eq!(session.state_rows(), 2);
        assert_eq!(session.watermark(0, 1, 28), Some(29));
        assert_eq!((session.flush(), session.state_rows()), (String::new(), 2));
        session.watermark(0, 1, 29);
        assert_eq!((session.flush(), session.state_rows()), (String::new(), 0));
    }

    #[test]
    fn what_a_row_costs_does_not_depend_on_its_session() {
        let spec = spec();
        let schema = spec.inner.input().clone();
        for length in [10, 1_000, 100_000] {
            let mut session = Harness::new(&spec);
            let rows: Vec<String> = (0..length).map(|us| input("a", us * 9, 1)).collect();
            session.input(0, &schema, &rows.join("\n"));
            assert_eq!(session.flush().lines().count(), 1);
            for us in [length * 9, length * 3] {
                session.input(0, &schema, &input("a", us, 1));
                assert_eq!(session.flush().lines().count(), 2);
            }
            assert_eq!(session.state_rows(), 2);
        }
    }
}
