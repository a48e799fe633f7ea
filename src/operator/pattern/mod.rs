//! MatchRecognize: the matches of a row pattern in the rows of each partition.
//!
//! For every partition that changes in an epoch, `out = -matches(old rows) + matches(new rows)`,
//! rows that come out equal left out. A row of weight n is n rows. Rows are sorted by order and
//! whole row, so that the result depends neither on arrival nor on batches.
//!
//! The input is partitioned by the partition columns (none: one worker). The output retracts.
//! State: one ranked table with all rows. Watermarks of partition columns pass through.
//!
//! A partition for which a condition fails (a division by zero) has an error row in place of its
//! matches until it changes.
//!
//! Example, `A B` with `B AS x > PREV(x)` and the measure `B.x`: `+1 | a | 1`, `+1 | a | 5` gives
//! `+1 | a | 5`; then `+1 | a | 3` gives `-1 | a | 5`, `+1 | a | 3`.

mod program;
mod search;
mod values;

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{Schema, SchemaRef};

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress, error_rows};
use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Order, Weight, batch_of, consolidate};
use crate::error::{Error, Result};
use crate::expr::pattern::{Recognizer, RowsPerMatch, Running, Shown};
use crate::state::{
    Bound, KeyRequest, Member, OrderBy, Ranked, RankedSpec, Ranking, TableId, TableKind, TableSpec,
    Top,
};
use crate::time::Watermark;
use search::{Match, Rows, Searcher, behind};
use values::Values;

/// Plan constants.
#[derive(Clone)]
pub struct PatternSpec {
    /// The pattern, its conditions and measures.
    pub by: Arc<Recognizer>,
    /// The columns of PARTITION BY.
    pub partition: Vec<usize>,
    /// ORDER BY.
    pub order: Vec<OrderBy>,
}

impl fmt::Debug for PatternSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PatternSpec({})", self.by.rule)
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
        vec![TableSpec {
            name: "rows",
            version: 1,
            bound: Bound::Unbounded("rows of its input"),
            kind: TableKind::Ranked(RankedSpec {
                schema: self.by.input.clone(),
                partition: self.partition.clone(),
                order: self.order.clone(),
                top: Top { ranking: Ranking::RowNumber, skip: 0, limit: None },
                append_only: false,
                follows: false,
            }),
        }]
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        let searcher = Searcher::new(&self.by)?;
        let running = self.by.aggregates.iter().map(Running::new).collect::<Result<_>>()?;
        let (spec, rows) = (self.clone(), tables[0]);
        Ok(Box::new(Patterns { spec, rows, searcher, running, next: 0 }))
    }
}

struct Patterns {
    spec: PatternSpec,
    rows: TableId,
    searcher: Searcher,
    /// The aggregates of measures.
    running: Vec<Running>,
    /// The partition that is flushed next.
    next: usize,
}

/// A match and its number.
type Numbered = (Match, i64);

/// What comes out for some partitions.
#[derive(Default)]
struct Changes {
    rows: Vec<RecordBatch>,
    weights: Vec<Weight>,
    /// Partitions that fail: a row of each, the sign and why.
    failed: Vec<(u32, Weight, Error)>,
}

impl Patterns {
    /// All matches in the rows of a partition, and which rows are in one.
    fn matches(&mut self, rows: &mut Rows<'_>) -> Result<(Vec<Numbered>, Vec<bool>)> {
        let by = Arc::clone(&self.spec.by);
        let mut matched = vec![false; rows.count()];
        let (mut all, mut start, mut number) = (Vec::new(), 0, 1);
        while start < rows.count() {
            let Some(found) = self.searcher.search(rows, start, number)? else {
                start += 1;
                continue;
            };
            start = behind(&by, &found)?;
            if found.complete {
                let taken = found.start..found.start + found.taken.len().max(1);
                matched[taken].fill(true);
            }
            if found.complete != by.rule.timeouts {
                all.push((found, number));
                number += 1;
            }
        }
        Ok((all, matched))
    }

    /// The output rows of a partition.
    fn output(&mut self, rows: RecordBatch) -> Result<RecordBatch> {
        let by = Arc::clone(&self.spec.by);
        let mut rows = Rows::new(&by, rows, true)?;
        self.searcher.clear()?;
        self.running.iter_mut().try_for_each(Running::clear)?;
        let (matches, matched) = self.matches(&mut rows)?;
        let mut values: Vec<Values> = by.rule.measures.iter().map(|s| Values::of(*s)).collect();
        let mut kept = Vec::new();
        for (found, number) in &matches {
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
            for row in matched.iter().enumerate().filter(|(_, m)| !**m).map(|(row, _)| row) {
                kept.push(row as u32);
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
        batch_of(by.output.clone(), columns, count)
    }

    /// Adds the output of a partition, old or new.
    fn add(
        &mut self,
        table: &Ranked,
        members: &[Member],
        sign: Weight,
        changes: &mut Changes,
    ) -> Result<()> {
        let copies = members.iter().flat_map(|m| (0..m.weight).map(|_| m.slot));
        let slots: Vec<u32> = copies.collect();
        let Some(first) = slots.first().copied() else { return Ok(()) };
        let columns = 0..self.spec.by.input.fields().len();
        let columns = columns.map(|c| table.gather_column(c, &slots)).collect::<Result<_>>()?;
        let rows = batch_of(self.spec.by.input.clone(), columns, slots.len())?;
        match self.output(rows) {
            Ok(rows) => {
                changes.weights.extend(std::iter::repeat_n(sign, rows.num_rows()));
                changes.rows.push(rows);
            }
            Err(error) => changes.failed.push((first, sign, error)),
        }
        Ok(())
    }

    fn emit(&self, table: &Ranked, changes: Changes, out: &mut Output) -> Result<()> {
        if !changes.weights.is_empty() {
            let rows = concat_batches(&self.spec.by.output, &changes.rows)?;
            let delta = DeltaBatch::new(rows, Int64Array::from(changes.weights));
            out.emit(consolidate(&delta, Order::Input)?);
        }
        if changes.failed.is_empty() {
            return Ok(());
        }
        let slots: Vec<u32> = changes.failed.iter().map(|(slot, ..)| *slot).collect();
        let fields: Schema = self.spec.by.input.project(&self.spec.partition)?;
        let columns = self.spec.partition.iter().map(|c| table.gather_column(*c, &slots));
        let keys = batch_of(Arc::new(fields), columns.collect::<Result<_>>()?, slots.len())?;
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
        cx.state.ranked(self.rows).update(&delta, &keys)?;
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
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
        let table = cx.state.ranked(self.rows);
        let mut changes = Changes::default();
        let (mut after, mut looked_at) = (Vec::new(), 0);
        while self.next < table.touched() && looked_at < BATCH_ROWS {
            after.clear();
            table.after(self.next, &mut after);
            let before = table.before(self.next).to_vec();
            looked_at += before.len() + after.len();
            self.add(table, &before, -1, &mut changes)?;
            self.add(table, &after, 1, &mut changes)?;
            self.next += 1;
        }
        self.emit(table, changes, out)?;
        if self.next < table.touched() {
            return Ok(Progress::More);
        }
        table.seal()?;
        Ok(Progress::Done)
    }
}
