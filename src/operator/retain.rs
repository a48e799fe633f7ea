//! Retain: of rows that are put aside, the newest ones, so many of them and for so long.
//!
//! `out = the newest rows of in, and a row that says how many older ones there are`. What has gone
//! is counted on: a row that is retracted after it has gone takes one off the count, and without
//! any the row of the count goes, too. So the output is empty exactly when the input is, whatever
//! was let go, and a reader knows that something is missing. How old a row is follows from the
//! clock of the epoch that has brought it; rows of one epoch go in the order of their values.
//!
//! All of the input is on one worker, as the newest rows are those of all. State: the rows with
//! when they came, and the count. It is for relations that are small beside what they are about.
//! Watermarks end here.
//!
//! Example, 2 rows kept, the second column for the count: `+1 | a | x`, then `+1 | b | y`, then
//! `+1 | c | z` gives `-1 | a | x`, `+1 | c | z`, `+1 | NULL | 1 more, no longer kept`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt32Array, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use hashbrown::HashMap;

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Keys, Order, Weight, batch_of, concat, consolidate};
use crate::error::{Error, Result};
use crate::state::{
    Arrangement, ArrangementSpec, Bound, GroupSpec, KeyRequest, StateStore, TableId, TableKind,
    TableSpec,
};
use crate::time::Watermark;

/// How many rows stay, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The newest, so many.
    pub rows: Option<u64>,
    /// Since they came, in microseconds.
    pub time_us: Option<i64>,
}

/// Plan constants.
#[derive(Debug, Clone)]
pub struct RetainSpec {
    /// The rows, in and out.
    pub schema: SchemaRef,
    /// What stays.
    pub limit: Limit,
    /// The column of text for the count of what has gone.
    pub count: usize,
}

impl RetainSpec {
    /// Rows with when they came.
    fn kept(&self) -> SchemaRef {
        let came = Field::new("came", DataType::Timestamp(TimeUnit::Microsecond, None), true);
        let fields = self.schema.fields().iter().cloned();
        Arc::new(Schema::new(fields.chain([Arc::new(came)]).collect::<Vec<_>>()))
    }

    fn width(&self) -> usize {
        self.schema.fields().len()
    }
}

impl OperatorSpec for RetainSpec {
    fn name(&self) -> &'static str {
        "Retain"
    }

    fn describe(&self) -> String {
        let rows = self.limit.rows.map(|rows| format!("the newest {rows}"));
        let time = self.limit.time_us.map(|us| format!("for {} s", us as f64 / 1e6));
        rows.into_iter().chain(time).collect::<Vec<_>>().join(", ")
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        false
    }

    fn follows_clock(&self) -> bool {
        self.limit.time_us.is_some()
    }

    fn tables(&self) -> Vec<TableSpec> {
        let kept = ArrangementSpec {
            schema: self.kept(),
            // All are where the newest of all are known.
            key: Vec::new(),
            append_only: false,
            counted: false,
        };
        let counts = GroupSpec { key_width: Some(0), state_words: 2, ..Default::default() };
        vec![
            TableSpec {
                name: "kept",
                version: 1,
                bound: Bound::Behind {
                    column: self.width(),
                    rule: "when it is one of the newest no more".to_owned(),
                },
                kind: TableKind::Arrangement(kept),
            },
            TableSpec {
                name: "counts",
                version: 1,
                bound: Bound::Constant,
                kind: TableKind::Groups(counts),
            },
        ]
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        let spec = self.clone();
        let (kept, counts) = (tables[0], tables[1]);
        Ok(Box::new(Retain { spec, kept, counts, epoch: Vec::new() }))
    }
}

struct Retain {
    // Plan.
    spec: RetainSpec,
    kept: TableId,
    counts: TableId,
    // Buffers.
    /// The rows of the current epoch.
    epoch: Vec<DeltaBatch>,
}

/// How many rows have gone, and how many there are.
struct Counts {
    gone: i64,
    held: i64,
}

impl Retain {
    fn all(&self) -> Vec<usize> {
        (0..self.spec.width()).collect()
    }

    /// Weights of rows that came at some times, taken from a batch.
    fn change(
        &self,
        rows: &RecordBatch,
        picks: &[(u32, i64, Weight)],
    ) -> Result<Option<DeltaBatch>> {
        if picks.is_empty() {
            return Ok(None);
        }
        let places = UInt32Array::from_iter_values(picks.iter().map(|(row, ..)| *row));
        let columns = rows.columns().iter().map(|column| take(column, &places, None));
        let mut columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
        let came = TimestampMicrosecondArray::from_iter_values(picks.iter().map(|p| p.1));
        columns.push(Arc::new(came));
        let rows = batch_of(self.spec.kept(), columns, picks.len())?;
        let weights = Int64Array::from_iter_values(picks.iter().map(|p| p.2));
        Ok(Some(DeltaBatch::new(rows, weights)))
    }

    /// Puts changes into the table, and those of its rows out.
    fn apply(
        &mut self,
        state: &mut StateStore,
        change: DeltaBatch,
        out: &mut Output,
    ) -> Result<()> {
        let keys = change.keys(&[])?;
        request(state, self.kept, &keys)?;
        let selection: Vec<u32> = (0..change.len() as u32).collect();
        let table = state.arrangement(self.kept);
        table.update(&change, &keys, &selection)?;
        table.seal()?;
        let columns = change.rows().columns()[..self.spec.width()].to_vec();
        let rows = batch_of(self.spec.schema.clone(), columns, change.len())?;
        let change = change.with_rows(rows);
        for from in (0..change.len()).step_by(BATCH_ROWS) {
            out.emit(change.slice(from, BATCH_ROWS.min(change.len() - from)));
        }
        Ok(())
    }

    /// Retractions of rows of a batch, of their newest copies; how many of them had gone. It looks
    /// through what is kept, the newest first, until all are found.
    fn retract(
        &self,
        state: &mut StateStore,
        rows: &DeltaBatch,
    ) -> Result<(Option<DeltaBatch>, i64)> {
        let keys = rows.keys(&self.all())?;
        let mut left: HashMap<&[u8], (u32, Weight)> = (0..rows.len())
            .filter(|row| rows.weight(*row) < 0)
            .map(|row| (keys.key(row), (row as u32, -rows.weight(row))))
            .collect();
        let mut missing: i64 = left.values().map(|(_, weight)| weight).sum();
        let mut picks = Vec::new();
        if missing == 0 {
            return Ok((None, 0));
        }
        let table = state.arrangement(self.kept);
        for slots in table.passed(i64::MAX).rchunks(BATCH_ROWS) {
            let (columns, came) = self.gather(table, slots)?;
            let came = came.as_primitive::<TimestampMicrosecondType>();
            let keys = Keys::encode(&columns, slots.len())?;
            for (at, (_, weight)) in slots.iter().enumerate().rev() {
                let Some((row, left)) = left.get_mut(keys.key(at)) else { continue };
                let taken = (*weight).min(*left);
                if taken > 0 {
                    (*left, missing) = (*left - taken, missing - taken);
                    picks.push((*row, came.value(at), -taken));
                }
            }
            if missing == 0 {
                break;
            }
        }
        Ok((self.change(rows.rows(), &picks)?, missing))
    }

    /// Rows of the table, and when they came.
    fn gather(
        &self,
        table: &Arrangement,
        slots: &[(u32, Weight)],
    ) -> Result<(Vec<ArrayRef>, ArrayRef)> {
        let slots: Vec<u32> = slots.iter().map(|(slot, _)| *slot).collect();
        let columns = (0..self.spec.width()).map(|c| table.gather_column(c, &slots));
        let columns = columns.collect::<Result<_>>()?;
        Ok((columns, table.gather_column(self.spec.width(), &slots)?))
    }

    /// The rows that are one of the newest no more, as changes; how many they are.
    fn oldest(
        &self,
        state: &mut StateStore,
        (held, now_us): (i64, i64),
    ) -> Result<(Option<DeltaBatch>, i64)> {
        let limit = self.spec.limit;
        let cut =
            limit.time_us.map_or(i64::MIN, |age| now_us.saturating_sub(age).saturating_add(1));
        let rows = limit.rows.map_or(i64::MAX, |rows| i64::try_from(rows).unwrap_or(i64::MAX));
        let over = held.saturating_sub(rows);
        let table = state.arrangement(self.kept);
        let mut slots: Vec<(u32, Weight)> = table.passed(cut);
        let old: i64 = slots.iter().map(|(_, weight)| weight).sum();
        let mut picks: Vec<(u32, i64, Weight)> = Vec::new();
        if over > old {
            slots = table.oldest(over);
        }
        let (columns, came) = self.gather(table, &slots)?;
        let came = came.as_primitive::<TimestampMicrosecondType>();
        let mut order: Vec<usize> = (0..slots.len()).collect();
        let keys = Keys::encode(&columns, slots.len())?;
        order.sort_by(|a, b| (came.value(*a), keys.key(*a)).cmp(&(came.value(*b), keys.key(*b))));
        let mut left = over.max(old);
        for row in order {
            let weight = slots[row].1.min(left);
            if weight > 0 {
                picks.push((row as u32, came.value(row), -weight));
                left -= weight;
            }
        }
        let rows = batch_of(self.spec.schema.clone(), columns, slots.len())?;
        let gone = picks.iter().map(|(.., weight)| -weight).sum();
        Ok((self.change(&rows, &picks)?, gone))
    }

    /// Notes how many rows are in the table now, and adds to the count of what has gone, whose row
    /// it puts out.
    fn count(
        &self,
        state: &mut StateStore,
        (held, added): (i64, i64),
        out: &mut Output,
    ) -> Result<()> {
        let (slot, before) = self.counts(state)?;
        let gone = before.gone + added;
        if gone < 0 {
            return Err(Error::internal("a row was retracted that has never been put aside"));
        }
        let table = state.groups(self.counts);
        let words = table.slab_mut().words_mut(slot);
        (words[0], words[1]) = (gone as u64, held as u64);
        table.release(slot, gone > 0 || held > 0);
        if added != 0 {
            let texts = [(before.gone, -1), (gone, 1)].into_iter().filter(|(count, _)| *count > 0);
            for (count, weight) in texts {
                out.emit(DeltaBatch::new(self.count_row(count)?, Int64Array::from(vec![weight])));
            }
        }
        Ok(())
    }

    /// The place of the counts, and how they stand.
    fn counts(&self, state: &mut StateStore) -> Result<(u32, Counts)> {
        let key = Keys::encode(&[], 1)?;
        request(state, self.counts, &key)?;
        let table = state.groups(self.counts);
        let (mut slots, mut fresh) = (Vec::new(), Vec::new());
        table.intern(&key, &mut slots, &mut fresh);
        let slot = slots[0];
        let words = table.slab().words(slot);
        Ok((slot, Counts { gone: words[0] as i64, held: words[1] as i64 }))
    }

    fn count_row(&self, count: i64) -> Result<RecordBatch> {
        let fields = self.spec.schema.fields().iter().enumerate();
        let column = |(column, field): (usize, &Arc<Field>)| -> ArrayRef {
            match column == self.spec.count {
                true => Arc::new(StringArray::from(vec![format!("{count} more, no longer kept")])),
                false => new_null_array(field.data_type(), 1),
            }
        };
        batch_of(self.spec.schema.clone(), fields.map(column).collect(), 1)
    }
}

/// What is touched here are other keys than those of the rows that come.
fn request(state: &mut StateStore, table: TableId, keys: &Keys) -> Result<()> {
    let mut request = KeyRequest::default();
    request.add(table, keys.hashes());
    state.make_resident(&request)
}

impl Operator for Retain {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        request.add(self.kept, delta.keys(&[])?.hashes());
        Ok(())
    }

    fn process(
        &mut self,
        _cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        _out: &mut Output,
    ) -> Result<Progress> {
        self.epoch.push(delta.with_schema(self.spec.schema.clone())?);
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, _column: usize, _w: Watermark, _out: &mut Output) {}

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let Counts { mut held, .. } = self.counts(cx.state)?.1;
        let mut gone = 0;
        if let Some(all) = concat(&std::mem::take(&mut self.epoch))? {
            let all = consolidate(&all, Order::Changelog)?;
            let (retracted, missing) = self.retract(cx.state, &all)?;
            gone -= missing;
            let inserts = (0..all.len()).filter(|row| all.weight(*row) > 0);
            let inserts: Vec<_> =
                inserts.map(|row| (row as u32, cx.now_us, all.weight(row))).collect();
            let inserts = self.change(all.rows(), &inserts)?;
            for change in retracted.into_iter().chain(inserts) {
                held += change.net_weight();
                self.apply(cx.state, change, out)?;
            }
        }
        let (passed, count) = self.oldest(cx.state, (held, cx.now_us))?;
        if let Some(change) = passed {
            self.apply(cx.state, change, out)?;
        }
        self.count(cx.state, (held - count, gone + count), out)?;
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::testing::{Harness, schema};

    fn spec(rows: Option<u64>, time_us: Option<i64>) -> RetainSpec {
        RetainSpec { schema: schema("k:int, t:text"), limit: Limit { rows, time_us }, count: 1 }
    }

    #[test]
    fn the_newest_stay_and_the_others_are_counted() {
        let spec = spec(Some(2), None);
        let mut run = Harness::new(&spec);
        run.clock(1);
        run.input(0, &spec.schema, "+1 | 2 | b\n+1 | 1 | a");
        assert_eq!(run.flush(), "+1 | 1 | a\n+1 | 2 | b");
        run.clock(2);
        // Of those of one epoch the least goes first.
        run.input(0, &spec.schema, "+1 | 3 | NULL");
        assert_eq!(run.flush(), "-1 | 1 | a\n+1 | 3 | NULL\n+1 | NULL | 1 more, no longer kept");
        run.restore();
        run.input(0, &spec.schema, "+3 | 4 | d");
        let all = "-1 | 2 | b\n-1 | 3 | NULL\n-1 | NULL | 1 more, no longer kept\n+2 | 4 | d\n\
                   +1 | NULL | 4 more, no longer kept";
        assert_eq!(run.flush(), all);
        // What has gone is retracted from the count, what is there from the rows.
        run.input(0, &spec.schema, "-1 | 1 | a\n-1 | 2 | b\n-1 | 3 | NULL");
        let count = "-1 | NULL | 4 more, no longer kept\n+1 | NULL | 1 more, no longer kept";
        assert_eq!(run.flush(), count);
        run.restore();
        run.input(0, &spec.schema, "-3 | 4 | d");
        assert_eq!(run.flush(), "-2 | 4 | d\n-1 | NULL | 1 more, no longer kept");
        assert_eq!(run.state_rows(), 0);
    }

    #[test]
    fn rows_go_when_they_are_old() {
        let spec = spec(None, Some(10));
        let mut run = Harness::new(&spec);
        run.clock(5);
        run.input(0, &spec.schema, "+1 | 1 | a\n+1 | 2 | b");
        assert_eq!(run.flush(), "+1 | 1 | a\n+1 | 2 | b");
        run.clock(7);
        run.input(0, &spec.schema, "+1 | 1 | a");
        assert_eq!(run.flush(), "+1 | 1 | a");
        // Of equal rows the newest is retracted.
        run.input(0, &spec.schema, "-1 | 1 | a\n+1 | 3 | c");
        assert_eq!(run.flush(), "-1 | 1 | a\n+1 | 3 | c");
        run.clock(14);
        assert_eq!(run.flush(), "");
        run.restore();
        run.clock(15);
        assert_eq!(run.flush(), "-1 | 1 | a\n-1 | 2 | b\n+1 | NULL | 2 more, no longer kept");
        run.clock(100);
        let last = "-1 | 3 | c\n-1 | NULL | 2 more, no longer kept\n\
                    +1 | NULL | 3 more, no longer kept";
        assert_eq!(run.flush(), last);
    }

    /// Would find a row that is retracted twice, or a count that is off.
    #[test]
    fn rows_and_count_are_always_what_came() {
        let mut state = 7_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for limit in [0, 1, 3, 8] {
            let spec = spec(Some(limit), Some(40));
            let mut run = Harness::new(&spec);
            let (mut there, mut out) = ([0_i64; 6], std::collections::BTreeMap::new());
            for epoch in 0..200 {
                run.clock(epoch * 3);
                let mut lines = Vec::new();
                for _ in 0..random(4) {
                    let key = random(6) as usize;
                    let weight = if there[key] > 0 && random(2) == 0 { -1 } else { 1 };
                    there[key] += weight;
                    lines.push(format!("{weight:+} | {key} | x"));
                }
                if !lines.is_empty() {
                    run.input(0, &spec.schema, &lines.join("\n"));
                }
                for line in run.flush().lines() {
                    let (weight, row) = line.split_once(" | ").expect("a row");
                    *out.entry(row.to_owned()).or_insert(0) += weight.parse::<i64>().expect("one");
                }
                out.retain(|_, weight| *weight != 0);
                assert!(out.values().all(|weight| *weight > 0), "{out:?}");
                let counted = out.keys().find_map(|row| row.strip_prefix("NULL | "));
                let counted = counted.map_or(0, |text| {
                    text.split(' ').next().and_then(|n| n.parse::<i64>().ok()).expect("a number")
                });
                let kept = || out.iter().filter(|(row, _)| !row.starts_with("NULL"));
                let rows: i64 = kept().map(|(_, weight)| weight).sum();
                assert_eq!(rows + counted, there.iter().sum::<i64>(), "epoch {epoch}");
                assert!(rows <= limit as i64, "{rows} rows of {limit}");
                for (row, weight) in kept() {
                    let key: usize = row.split(' ').next().expect("a key").parse().expect("one");
                    assert!(*weight <= there[key], "{row} is there {weight} times");
                }
                if epoch % 50 == 49 {
                    run.restore();
                }
            }
        }
    }
}
