//! MatchRecognize: the matches of a row pattern in the rows of each partition.
//!
//! For every partition that changes in an epoch, `out = -matches(old rows) + matches(new rows)`,
//! rows that come out equal left out. Both are scanned from the last place on up to which nothing
//! was looked at that has changed: a row that is added at the end costs what could still go on with
//! it, a change in the middle what is behind it. A row of weight n is n rows. Rows are sorted by
//! order and whole row, so that the result depends neither on arrival nor on batches.
//!
//! The input is partitioned by the partition columns (none: one worker). The output retracts.
//! State: a sequence of the rows per partition. Where the first column of the order has a
//! watermark, late rows have been put aside in front, so what the watermark has passed stays as it
//! is: with WITHIN rows go that no open match can reach. The column of the deadline, when a match
//! is decided, carries the watermark where nothing later can change the match; those of partition
//! columns pass through.
//!
//! A partition for which a condition fails (a division by zero) has an error row in place of its
//! matches until it changes.
//!
//! Example, `A B` with `B AS x > PREV(x)` and the measure `B.x`: `+1 | a | 1`, `+1 | a | 5` gives
//! `+1 | a | 5`; then `+1 | a | 3` gives `-1 | a | 5`, `+1 | a | 3`.

mod place;
mod program;
mod scan;
mod search;
mod values;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Schema, SchemaRef};

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress, error_rows};
use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Keys, Order, Weight, batch_of, consolidate, decode_keys};
use crate::error::{Error, Result};
use crate::expr::pattern::{Recognizer, RowsPerMatch, Running, Shown, Slot, Within, times_us};
use crate::state::{
    Bound, KeyRequest, OrderBy, Placed, Sequence, SequenceSpec, TableId, TableKind, TableSpec,
};
use crate::time::Watermark;
use place::{Resume, View};
use scan::{Point, Scan, scan};
use search::{Rows, Searcher};
use values::Values;

/// Partitions of fewer rows are scanned as a whole.
const POINTS_FROM_ROWS: usize = 32;
/// Places of a partition where a scan can begin.
const POINTS_MAX: usize = 64;

/// Plan constants.
#[derive(Clone)]
pub struct PatternSpec {
    /// The pattern, its conditions and measures.
    pub by: Arc<Recognizer>,
    /// The columns of PARTITION BY.
    pub partition: Vec<usize>,
    /// ORDER BY.
    pub order: Vec<OrderBy>,
    /// The name of the time column, the first one of ORDER BY, where it has a watermark.
    pub closes: Option<String>,
}

impl fmt::Debug for PatternSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PatternSpec({})", self.by.rule)
    }
}

impl PatternSpec {
    fn types(&self, columns: impl Iterator<Item = usize>) -> Vec<DataType> {
        columns.map(|c| self.by.input.field(c).data_type().clone()).collect()
    }

    fn all_types(&self) -> Vec<DataType> {
        self.types(0..self.by.input.fields().len())
    }

    /// The column that carries a watermark, where there is one.
    fn time(&self) -> Option<usize> {
        self.order.first().filter(|_| self.closes.is_some()).map(|by| by.column)
    }

    /// The columns of the output that say when a match is decided.
    pub fn deadlines(&self) -> Vec<usize> {
        let decided = self.closes.is_some() && Searcher::new(&self.by).is_ok_and(|s| s.decides());
        let slots = self.by.rule.measures.iter().enumerate();
        let deadlines = slots.filter(|(_, slot)| decided && **slot == Slot::Deadline);
        deadlines.map(|(i, _)| self.by.rule.kept.len() + i).collect()
    }

    fn bound(&self) -> Bound {
        match (&self.closes, self.time(), self.by.rule.within) {
            (Some(name), Some(column), Some(Within { us, .. })) => Bound::Behind {
                column,
                rule: format!("when {name} is {} s behind the watermark", us as f64 / 1e6),
            },
            _ => Bound::Unbounded("rows of its input"),
        }
    }
}

impl OperatorSpec for PatternSpec {
    fn name(&self) -> &'static str {
        "MatchRecognize"
    }

    fn describe(&self) -> String {
        format!("pattern ({})", self.by.rule)
    }

    fn schema(&self) -> SchemaRef {
        self.by.output.clone()
    }

    fn append_only(&self) -> bool {
        false
    }

    fn can_fail(&self) -> bool {
        true
    }

    fn tables(&self) -> Vec<TableSpec> {
        let order = self.order.iter().map(|o| (o.column, o.descending, o.nulls_first));
        let order: Vec<_> = order.collect();
        vec![TableSpec {
            name: "rows",
            version: 1,
            bound: self.bound(),
            kind: TableKind::Sequence(SequenceSpec {
                key: self.types(self.partition.iter().copied()),
                row: self.all_types(),
                order: format!("{order:?}"),
            }),
        }]
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        let searcher = Searcher::new(&self.by)?;
        let running = self.by.aggregates.iter().map(Running::new).collect::<Result<_>>()?;
        Ok(Box::new(Patterns {
            spec: self.clone(),
            rows: tables[0],
            searcher,
            running,
            known: HashMap::new(),
            due: BTreeSet::new(),
            closed: i64::MIN,
            begun: false,
            next: 0,
        }))
    }
}

/// What is known of a partition beside its rows.
#[derive(Debug, Default)]
struct Known {
    /// Where a scan can begin, in order.
    points: Vec<Resume>,
    /// The partition has an error in place of its matches.
    failed: bool,
    /// When rows of it may go.
    due: Option<i64>,
}

struct Patterns {
    spec: PatternSpec,
    rows: TableId,
    searcher: Searcher,
    /// The aggregates of measures.
    running: Vec<Running>,
    /// By the slot of the partition. It follows from the rows, and is no state of its own.
    known: HashMap<u32, Known>,
    /// Partitions by the time at which rows of theirs may go.
    due: BTreeSet<(i64, u32)>,
    /// The watermark of the time column.
    closed: i64,
    /// The partitions that were there when it was made are known.
    begun: bool,
    /// The partition that is flushed next.
    next: usize,
}

/// What comes out for some partitions.
#[derive(Default)]
struct Changes {
    rows: Vec<RecordBatch>,
    weights: Vec<Weight>,
    /// Partitions that fail: the slot, the sign and why.
    failed: Vec<(u32, Weight, Error)>,
}

impl Changes {
    fn add(&mut self, slot: u32, output: Result<RecordBatch>, sign: Weight) {
        match output {
            Ok(rows) => {
                self.weights.extend(std::iter::repeat_n(sign, rows.num_rows()));
                self.rows.push(rows);
            }
            Err(error) => self.failed.push((slot, sign, error)),
        }
    }
}

impl Patterns {
    /// The bytes by which rows are ordered, a column at a time.
    fn places(&self, delta: &DeltaBatch) -> Result<Vec<Vec<u8>>> {
        let mut places = vec![Vec::new(); delta.len()];
        for by in &self.spec.order {
            let column = delta.rows().column(by.column);
            let keys = Keys::encode(std::slice::from_ref(column), delta.len())?;
            let nulls = column.logical_nulls();
            for (row, place) in places.iter_mut().enumerate() {
                let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                place.push(u8::from(is_null != by.nulls_first));
                let flip = if by.descending { 0xff } else { 0 };
                place.extend(keys.key(row).iter().map(|byte| byte ^ flip));
            }
        }
        Ok(places)
    }

    /// What a scan of rows gives, and the scan.
    fn output(&mut self, view: &View<'_>) -> Result<(RecordBatch, Scan)> {
        let by = Arc::clone(&self.spec.by);
        let mut rows = Rows::new(&by, view.rows.clone(), view.from_begin)?;
        self.searcher.clear()?;
        self.running.iter_mut().try_for_each(Running::clear)?;
        let found = scan(&mut self.searcher, &mut rows, view.from, &mut |_, _, _| true)?;
        let mut values: Vec<Values> = by.rule.measures.iter().map(|s| Values::of(*s)).collect();
        let mut kept = Vec::new();
        for (found, number) in &found.shown {
            let mut add = |row: usize, now: usize| -> Result<()> {
                kept.push(row as u32);
                for value in &mut values {
                    value.add(&rows, (found, *number), now, &mut self.running)?;
                }
                Ok(())
            };
            match (by.rule.rows, found.taken.len()) {
                (RowsPerMatch::One, count) => add(found.start, count)?,
                (RowsPerMatch::All(Shown::NotEmpty), 0) => {}
                (RowsPerMatch::All(_), 0) => add(found.start, 0)?,
                (RowsPerMatch::All(_), _) => {
                    for (i, _) in found.taken.iter().enumerate().filter(|(_, t)| !t.excluded) {
                        add(found.start + i, i + 1)?;
                    }
                }
            }
        }
        if by.rule.rows == RowsPerMatch::All(Shown::Unmatched) {
            for row in &found.unmatched {
                kept.push(*row as u32);
                values.iter_mut().for_each(Values::add_unmatched);
            }
        }
        let count = kept.len();
        let kept = UInt32Array::from(kept);
        let columns = by.rule.kept.iter().map(|c| Ok(take(rows.rows.column(*c), &kept, None)?));
        let mut columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        for value in values {
            columns.push(value.finish(&rows)?);
        }
        Ok((batch_of(by.output.clone(), columns, count)?, found))
    }

    /// Adds what a partition gave and what it gives; how many rows were looked at.
    fn change(&mut self, table: &Sequence, slot: u32, changes: &mut Changes) -> Result<usize> {
        let Some(first) = table.first_changed(slot) else { return Ok(0) };
        let begin = begin(table, slot)?;
        let known = self.known.remove(&slot).unwrap_or_default();
        let before = |point: &&Resume| point.looked.as_ref().is_none_or(|looked| looked < first);
        let usable = known.points.iter().take_while(before).count();
        let mut points = known.points;
        points.truncate(usable);
        if known.failed {
            points.clear();
        }
        let mut from = points.last().cloned().unwrap_or_else(|| begin.clone());
        let (ahead, by) = (self.searcher.sight.behind, Arc::clone(&self.spec.by));
        let mut now = View::new(table, slot, (&from, false), ahead, &by)?;
        let mut new = self.output(&now);
        if new.is_err() && from != begin {
            // The error takes the place of all matches.
            from = begin;
            points.clear();
            now = View::new(table, slot, (&from, false), ahead, &by)?;
            new = self.output(&now);
        }
        let old = View::new(table, slot, (&from, true), ahead, &by)?;
        let looked_at = now.rows.num_rows() + old.rows.num_rows();
        if old.rows.num_rows() > old.from.start {
            let rows = self.output(&old).map(|(rows, _)| rows);
            changes.add(slot, rows, -1);
        }
        let mut known = Known { points, failed: new.is_err(), due: known.due };
        if let Ok((_, scan)) = &new
            && now.rows.num_rows() >= POINTS_FROM_ROWS
        {
            // The first point is where the scan has begun.
            let before = known.points.pop().and_then(|p| p.looked);
            let scanned = scan.points.iter().map_while(|p| now.resume(*p, before.as_ref()));
            known.points.extend(scanned);
            thin(&mut known.points);
        }
        if now.rows.num_rows() > now.from.start {
            changes.add(slot, new.map(|(rows, _)| rows), 1);
        }
        if let (Some(time), None) = (self.spec.time(), known.due) {
            known.due = self.due_at(&now, now.from.start, time)?;
            self.due.extend(known.due.map(|due| (due, slot)));
        }
        self.known.insert(slot, known);
        Ok(looked_at)
    }

    /// When rows from one on can go: somewhat behind the moment, so that many go together.
    fn due_at(&self, view: &View<'_>, start: usize, time: usize) -> Result<Option<i64>> {
        if start >= view.rows.num_rows() {
            return Ok(None);
        }
        let column = view.rows.column(time);
        let at = |row: usize| Ok::<_, Error>(times_us(&column.slice(row, 1))?[0]);
        Ok(match self.spec.by.rule.within {
            Some(Within { us, .. }) => {
                at(start)?.map(|at| at.saturating_add(us).saturating_add(us / 8))
            }
            None => at(view.rows.num_rows() - 1)?.map(|at| at.saturating_add(1)),
        })
    }

    /// Lets rows go that no match can reach any more, of partitions where it is time.
    fn free(&mut self, table: &mut Sequence) -> Result<()> {
        let Some(time) = self.spec.time() else { return Ok(()) };
        if !std::mem::replace(&mut self.begun, true) {
            let all: Vec<u32> = table.slots().collect();
            for slot in all {
                let known = self.known.entry(slot).or_default();
                if known.due.is_none() {
                    known.due = Some(i64::MIN);
                    self.due.insert((i64::MIN, slot));
                }
            }
        }
        while let Some((due, slot)) = self.due.first().copied() {
            if due > self.closed {
                break;
            }
            self.due.pop_first();
            let mut known = self.known.remove(&slot).unwrap_or_default();
            known.due = None;
            if !table.is_taken(slot) || known.failed {
                continue;
            }
            let Some(open) = self.first_open(table, slot, time)? else { continue };
            // What is not decided yet is looked at again when the watermark is further.
            let us = self.spec.by.rule.within.map_or(1, |within| (within.us / 8).max(1));
            let later = self.closed.checked_add(us);
            known.due = open.due.and_then(|due| later.map(|later| due.max(later)));
            if let Some((row, mark)) = open.frees {
                let kept = open.at.as_ref();
                known.points.retain(|point| point.at.as_ref() >= kept);
                table.let_go(slot, row.as_ref(), mark);
            }
            if table.is_taken(slot) {
                self.due.extend(known.due.map(|due| (due, slot)));
                self.known.insert(slot, known);
            }
        }
        Ok(())
    }

    /// How far all is decided in a partition; nothing where it fails.
    fn first_open(&mut self, table: &Sequence, slot: u32, time: usize) -> Result<Option<Open>> {
        let by = Arc::clone(&self.spec.by);
        let (behind, decides) = (self.searcher.sight.behind, self.searcher.decides());
        let view = View::new(table, slot, (&begin(table, slot)?, false), behind, &by)?;
        let times = times_us(view.rows.column(time))?;
        let closed = self.closed;
        let frozen = times.partition_point(|t| t.is_some_and(|t| t < closed));
        let bound = by.rule.within.filter(|_| decides);
        let mut decided = |_: &Rows<'_>, start: usize, looked_to: usize| {
            let reach = bound.zip(times[start]).map(|(within, t)| t.saturating_add(within.us));
            start < frozen && (looked_to <= frozen || reach.is_some_and(|reach| reach <= closed))
        };
        let mut rows = Rows::new(&by, view.rows.clone(), view.from_begin)?;
        self.searcher.clear()?;
        let Ok(found) = scan(&mut self.searcher, &mut rows, view.from, &mut decided) else {
            return Ok(None);
        };
        let Some(open) = found.points.last().copied() else { return Ok(None) };
        let due = self.due_at(&view, open.start, time)?;
        if open.start == view.from.start {
            return Ok(Some(Open { at: None, frees: None, due }));
        }
        // What was looked at is of no interest any more.
        let point = Point { looked_to: view.from.start, ..open };
        let Some(resume) = view.resume(point, None) else { return Ok(None) };
        let row = view.row(open.start.saturating_sub(behind)).cloned();
        let mut asked = by.rule.measures.iter().chain(by.rule.conditions.iter().flatten());
        let numbered = asked.any(|s| *s == Slot::Number) || self.searcher.asks_for_begin();
        let mark = (row.is_some() || numbered).then(|| resume.to_mark());
        Ok(Some(Open { at: resume.at, frees: Some((row, mark)), due }))
    }

    fn emit(&self, table: &Sequence, changes: Changes, out: &mut Output) -> Result<()> {
        if !changes.weights.is_empty() {
            let rows = concat_batches(&self.spec.by.output, &changes.rows)?;
            let delta = DeltaBatch::new(rows, Int64Array::from(changes.weights));
            let delta = consolidate(&delta, Order::Input)?;
            if !delta.is_empty() {
                out.emit(delta);
            }
        }
        if changes.failed.is_empty() {
            return Ok(());
        }
        let fields: Schema = self.spec.by.input.project(&self.spec.partition)?;
        let types = self.spec.types(self.spec.partition.iter().copied());
        let keys = changes.failed.iter().map(|(slot, ..)| table.key(*slot));
        let columns = decode_keys(&types, keys)?;
        let keys = batch_of(Arc::new(fields), columns, changes.failed.len())?;
        let failed = changes.failed.iter().enumerate();
        let rows: Vec<(usize, Weight, &str, String)> = failed
            .map(|(i, (_, weight, e))| (i, *weight, e.sqlstate(), e.message().to_owned()))
            .collect();
        let errors = consolidate(&error_rows("MatchRecognize", &keys, &rows)?, Order::Input)?;
        if !errors.is_empty() {
            out.errors.push(errors);
        }
        Ok(())
    }
}

/// How far all is decided.
struct Open {
    at: Option<place::Behind>,
    /// The first row that stays, and the mark.
    frees: Option<(Option<Placed>, Option<Vec<u8>>)>,
    /// When it may be further.
    due: Option<i64>,
}

/// Where the scan of a partition begins.
fn begin(table: &Sequence, slot: u32) -> Result<Resume> {
    table.mark(slot).map_or(Ok(Resume::BEGIN), Resume::of_mark)
}

/// Leaves out every second of the older points where there are too many.
fn thin(points: &mut Vec<Resume>) {
    while points.len() > POINTS_MAX {
        let mut at = 0;
        points.retain(|_| {
            at += 1;
            at > POINTS_MAX / 2 || at % 2 == 1
        });
    }
}

impl Operator for Patterns {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        let keys = delta.keys(&self.spec.partition)?;
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
        let keys = delta.keys(&self.spec.partition)?;
        let places = self.places(&delta)?;
        let columns = delta.rows().columns();
        let values = Keys::encode(columns, delta.len())?;
        let exact = Keys::encode_exact(columns, delta.len())?;
        let table = cx.state.sequence(self.rows);
        for (row, place) in places.iter().enumerate() {
            let slot = table.intern(keys.key(row), keys.hash(row));
            table.change(
                slot,
                Placed::new(place, values.key(row), exact.key(row)),
                delta.weight(row),
            );
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        if self.spec.time() == Some(column) {
            self.closed = w.us();
            // A match that changes is decided behind the watermark.
            let behind = w.map_us(|us| if w.is_finite() { us.saturating_add(1) } else { us });
            let deadlines = self.spec.deadlines().into_iter();
            out.watermarks.extend(deadlines.map(|column| (column, behind)));
        }
        let kept = self.spec.by.rule.kept.iter().position(|c| *c == column);
        if let Some(place) = kept.filter(|_| self.spec.partition.contains(&column)) {
            out.watermarks.push((place, w));
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        self.next = 0;
        self.resume(cx, out)
    }

    fn resume(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let table = cx.state.sequence(self.rows);
        let mut changes = Changes::default();
        let mut looked_at = 0;
        while looked_at < BATCH_ROWS {
            let Some(slot) = table.touched().get(self.next).copied() else { break };
            looked_at += 1 + self.change(table, slot, &mut changes)?;
            self.next += 1;
        }
        self.emit(table, changes, out)?;
        if self.next < table.touched().len() {
            return Ok(Progress::More);
        }
        let touched = table.touched().to_vec();
        table.seal()?;
        for slot in touched.into_iter().filter(|slot| !table.is_taken(*slot)) {
            if let Some(due) = self.known.remove(&slot).and_then(|known| known.due) {
                self.due.remove(&(due, slot));
            }
        }
        self.free(table)?;
        Ok(Progress::Done)
    }
}
