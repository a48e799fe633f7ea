//! Session: rows with the start and the end of the session that they are in.
//!
//! `out = d(sessions(integrate(in)))`: rows of one key whose neighbours in time are less than the
//! gap apart are in one session, `[first, last + gap)`. A row that comes can extend a session or
//! join two; one that goes can cut one short or split it. What an epoch does to a session is
//! folded: the rows of a session whose bounds are others at the end of the epoch are emitted as
//! `-old +new`, all other rows are left alone. Rows without a timestamp are in no session.
//!
//! The input is partitioned by the keys. The output retracts, always. State: one timeline of all
//! rows. Under a watermark late rows have been put aside in front, all of them: a row behind the
//! watermark could reach a session that has closed. A session closes when the watermark is at its
//! end or behind it; its rows go from the state then and stay in the output. The watermark of ends
//! is one microsecond ahead of the time column's: a session that changes ends behind it.
//!
//! With a gap of 10: `+1 | a | 0`, `+1 | a | 18` gives `+1 | a | 0 | [0, 10)`,
//! `+1 | a | 18 | [18, 28)`; then `+1 | a | 9` makes both rows part of `[0, 28)`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, PrimitiveArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::delta::{DeltaBatch, Keys, Weight, decode_keys};
use crate::error::Result;
use crate::state::{
    Bound, KeyRequest, Session, TableId, TableKind, TableSpec, Timeline, TimelineSpec,
};
use crate::time::{Watermark, WindowEdge};

/// Plan constants.
#[derive(Debug, Clone)]
pub struct SessionSpec {
    /// The input's rows.
    pub input: SchemaRef,
    /// The same with the edges behind.
    pub schema: SchemaRef,
    /// The columns of the key.
    pub keys: Vec<usize>,
    /// The column of the timestamp, in microseconds.
    pub time: usize,
    /// Rows this far apart are in different sessions.
    pub gap_us: i64,
    /// The edges that become columns.
    pub edges: Vec<WindowEdge>,
    /// Whether the time column has a watermark, so that sessions close.
    pub closes: bool,
}

impl SessionSpec {
    /// Columns that are neither keys nor the timestamp.
    fn rest(&self) -> Vec<usize> {
        let all = 0..self.input.fields().len();
        all.filter(|c| *c != self.time && !self.keys.contains(c)).collect()
    }

    fn types(&self, columns: &[usize]) -> Vec<DataType> {
        columns.iter().map(|c| self.input.field(*c).data_type().clone()).collect()
    }
}

impl OperatorSpec for SessionSpec {
    fn name(&self) -> &'static str {
        "Session"
    }

    fn describe(&self) -> String {
        let name = |c: usize| self.input.field(c).name().as_str();
        let keys: Vec<&str> = self.keys.iter().map(|c| name(*c)).collect();
        let gap = self.gap_us as f64 / 1e6;
        match keys.is_empty() {
            true => format!("{}, gap {gap} s", name(self.time)),
            false => format!("by {}: {}, gap {gap} s", keys.join(", "), name(self.time)),
        }
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        false
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![TableSpec {
            name: "rows",
            version: 1,
            bound: match self.closes {
                true => Bound::Closes(self.time),
                false => Bound::Unbounded("rows"),
            },
            kind: TableKind::Timeline(TimelineSpec {
                gap_us: self.gap_us,
                key: self.types(&self.keys),
                row: self.types(&self.rest()),
            }),
        }]
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        let rest = self.rest();
        Ok(Box::new(SessionOperator {
            key_types: self.types(&self.keys),
            rest_types: self.types(&rest),
            rest,
            rows: tables[0],
            closed: i64::MIN,
            changes: Vec::new(),
            spec: self.clone(),
        }))
    }
}

/// A row that an epoch changes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    slot: u32,
    /// Its time, and its other columns.
    at: (i64, Box<[u8]>),
    weight: Weight,
}

struct SessionOperator {
    // Plan.
    spec: SessionSpec,
    rest: Vec<usize>,
    key_types: Vec<DataType>,
    rest_types: Vec<DataType>,
    rows: TableId,
    /// The watermark of the time column.
    closed: i64,
    // The current epoch.
    changes: Vec<Change>,
}

/// Rows to be emitted.
#[derive(Default)]
struct Emitted {
    slots: Vec<u32>,
    times: Vec<i64>,
    rows: Vec<Box<[u8]>>,
    sessions: Vec<Session>,
    weights: Vec<Weight>,
}

impl Emitted {
    fn push(&mut self, slot: u32, ts: i64, row: &[u8], session: Session, weight: Weight) {
        self.slots.push(slot);
        self.times.push(ts);
        self.rows.push(row.into());
        self.sessions.push(session);
        self.weights.push(weight);
    }
}

/// The changes of one key in an epoch, one for each row, and the sessions that they touched.
struct Touched<'a> {
    table: &'a Timeline,
    slot: u32,
    changes: &'a [Change],
    old: Vec<Session>,
}

impl Touched<'_> {
    /// The session that a row was in ahead of the epoch.
    fn old_session(&self, ts: i64) -> Option<Session> {
        let behind = self.old.partition_point(|(start, _)| *start <= ts);
        let found = behind.checked_sub(1).map(|i| self.old[i]).filter(|(_, last)| ts <= *last);
        found.or_else(|| self.table.session_at(self.slot, ts))
    }

    fn emit(&self, out: &mut Emitted) {
        for Change { at, weight, .. } in self.changes {
            let (ts, row) = at;
            let after = self.table.weight(self.slot, at);
            let before = after - weight;
            let old = self.old_session(*ts).filter(|_| before != 0);
            let new = self.table.session_at(self.slot, *ts).filter(|_| after != 0);
            if let (Some(session), true) = (new, old == new) {
                out.push(self.slot, *ts, row, session, *weight);
                continue;
            }
            old.into_iter().for_each(|s| out.push(self.slot, *ts, row, s, -before));
            new.into_iter().for_each(|s| out.push(self.slot, *ts, row, s, after));
        }
        let changed = |ts: i64, row: &[u8]| {
            self.changes.binary_search_by(|c| (c.at.0, &*c.at.1).cmp(&(ts, row))).is_ok()
        };
        for old in &self.old {
            for new in self.table.sessions_between(self.slot, old.0, old.1) {
                let (from, to) = (old.0.max(new.0), old.1.min(new.1));
                if new == *old {
                    continue;
                }
                for (ts, row, weight) in self.table.rows_between(self.slot, from, to) {
                    if !changed(ts, row) {
                        out.push(self.slot, ts, row, *old, -weight);
                        out.push(self.slot, ts, row, new, weight);
                    }
                }
            }
        }
    }
}

impl SessionOperator {
    /// The changes of the epoch by key and row, those that cancel out left away.
    fn take_changes(&mut self) -> Vec<Change> {
        let mut all = std::mem::take(&mut self.changes);
        all.sort_unstable();
        all.dedup_by(|next, kept| {
            let same = (next.slot, &next.at) == (kept.slot, &kept.at);
            if same {
                kept.weight += next.weight;
            }
            same
        });
        all
    }

    fn emit(&self, table: &Timeline, emitted: &Emitted, out: &mut Output) -> Result<()> {
        if emitted.slots.is_empty() {
            return Ok(());
        }
        let keys = emitted.slots.iter().map(|slot| table.key(*slot));
        let keys = decode_keys(&self.key_types, keys)?;
        let rest = decode_keys(&self.rest_types, emitted.rows.iter().map(|r| &**r))?;
        let zone = match self.spec.input.field(self.spec.time).data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let times = |values: Vec<i64>| -> ArrayRef {
            let values = PrimitiveArray::<TimestampMicrosecondType>::from(values);
            Arc::new(values.with_timezone_opt(zone.clone()))
        };
        let input = (0..self.spec.input.fields().len()).map(|c| {
            let at = |columns: &[usize]| columns.iter().position(|k| *k == c);
            if c == self.spec.time {
                return times(emitted.times.clone());
            }
            match (at(&self.spec.keys), at(&self.rest)) {
                (Some(key), _) => keys[key].clone(),
                (None, Some(column)) => rest[column].clone(),
                (None, None) => unreachable!("a column is a key, the time or among the rest"),
            }
        });
        let end = |last: i64| last.saturating_add(self.spec.gap_us);
        let edges = self.spec.edges.iter().map(|edge| {
            let edge = |(start, last): &Session| match edge {
                WindowEdge::Start => *start,
                WindowEdge::End => end(*last),
                WindowEdge::Time => end(*last).saturating_sub(1_000),
            };
            times(emitted.sessions.iter().map(edge).collect())
        });
        let columns = input.chain(edges).collect();
        let rows = RecordBatch::try_new(self.spec.schema.clone(), columns)?;
        out.emit(DeltaBatch::new(rows, Int64Array::from(emitted.weights.clone())));
        Ok(())
    }
}

impl Operator for SessionOperator {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        let keys = delta.keys(&self.spec.keys)?;
        request.add(self.rows, keys.hashes());
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        _out: &mut Output,
    ) -> Result<Progress> {
        let keys = delta.keys(&self.spec.keys)?;
        let rest: Vec<ArrayRef> =
            self.rest.iter().map(|c| delta.rows().column(*c).clone()).collect();
        let rest = Keys::encode_exact(&rest, delta.len())?;
        let times = delta.rows().column(self.spec.time);
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let table = cx.state.timeline(self.rows);
        for row in (0..delta.len()).filter(|row| times.is_valid(*row)) {
            let slot = table.intern(keys.key(row), keys.hash(row));
            let (at, weight) = ((times.value(row), rest.key(row).into()), delta.weight(row));
            table.change(slot, &at, weight);
            self.changes.push(Change { slot, at, weight });
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        if column != self.spec.time || !self.spec.closes {
            return;
        }
        self.closed = w.us();
        let width = self.spec.input.fields().len();
        for (i, edge) in self.spec.edges.iter().enumerate() {
            let behind = match edge {
                _ if !w.is_finite() => 0,
                // A session that is open can have begun at any time.
                WindowEdge::Start => continue,
                WindowEdge::End => 1,
                WindowEdge::Time => 1 - 1_000,
            };
            out.watermarks.push((width + i, w.map_us(|us| us.saturating_add(behind))));
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let changes = self.take_changes();
        let table = cx.state.timeline(self.rows);
        let mut emitted = Emitted::default();
        for of_key in changes.chunk_by(|a, b| a.slot == b.slot) {
            let slot = of_key[0].slot;
            let old = table.old(slot);
            let changed: Vec<Change> = of_key
                .iter()
                .filter(|c| c.weight != 0)
                .map(|c| Change { at: c.at.clone(), ..*c })
                .collect();
            Touched { table, slot, changes: &changed, old }.emit(&mut emitted);
        }
        self.emit(table, &emitted, out)?;
        for of_key in changes.chunk_by(|a, b| a.slot == b.slot) {
            table.seal(of_key[0].slot)?;
        }
        table.expire(self.closed);
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::testing::{Harness, schema};

    fn spec() -> SessionSpec {
        SessionSpec {
            input: schema("k:text, ts:timestamp, v:int"),
            schema: schema(
                "k:text, ts:timestamp, v:int, window_start:timestamp, window_end:timestamp",
            ),
            keys: vec![0],
            time: 1,
            gap_us: 10,
            edges: vec![WindowEdge::Start, WindowEdge::End],
            closes: true,
        }
    }

    fn at(us: i64) -> String {
        format!("1970-01-01 00:00:00.{us:06}")
    }

    fn shown(us: i64) -> String {
        if us == 0 { "1970-01-01 00:00:00".into() } else { at(us).trim_end_matches('0').to_owned() }
    }

    fn row(weight: i64, ts: i64, v: i64, session: (i64, i64)) -> String {
        let (start, end) = (shown(session.0), shown(session.1));
        format!("{weight:+} | a | {} | {v} | {start} | {end}", shown(ts))
    }

    fn input(weight: i64, ts: i64, v: i64) -> String {
        format!("{weight:+} | a | {} | {v}", at(ts))
    }

    #[test]
    fn sessions_merge_split_and_close() {
        let spec = spec();
        let mut session = Harness::new(&spec);
        let rows = |rows: &[String]| rows.join("\n");
        session.input(0, &spec.input, &rows(&[input(1, 1, 1), input(2, 18, 2)]));
        session.input(0, &spec.input, "+1 | a | NULL | 3");
        assert_eq!(session.flush(), rows(&[row(1, 1, 1, (1, 11)), row(2, 18, 2, (18, 28))]));
        session.restore();
        session.input(0, &spec.input, &input(1, 9, 9));
        assert_eq!(
            session.flush(),
            rows(&[
                row(-1, 1, 1, (1, 11)),
                row(-2, 18, 2, (18, 28)),
                row(1, 1, 1, (1, 28)),
                row(1, 9, 9, (1, 28)),
                row(2, 18, 2, (1, 28)),
            ])
        );
        // A row of a session whose bounds stay; one row less at the end.
        session.input(0, &spec.input, &rows(&[input(1, 9, 8), input(-1, 18, 2)]));
        assert_eq!(session.flush(), rows(&[row(-1, 18, 2, (1, 28)), row(1, 9, 8, (1, 28))]));
        session.input(0, &spec.input, &rows(&[input(-1, 9, 9), input(-1, 9, 8)]));
        assert_eq!(
            session.flush(),
            rows(&[
                row(-1, 1, 1, (1, 28)),
                row(-1, 9, 8, (1, 28)),
                row(-1, 9, 9, (1, 28)),
                row(-1, 18, 2, (1, 28)),
                row(1, 1, 1, (1, 11)),
                row(1, 18, 2, (18, 28)),
            ])
        );
        assert_eq!(session.watermark(0, 1, 11), Some(12));
        assert_eq!(session.flush(), "");
        assert_eq!(session.state_rows(), 1);
    }
}
