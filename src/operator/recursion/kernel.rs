//! The kernels of both kinds of recursion over what waits for its round.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};

use crate::delta::{DeltaBatch, Order, Weight, batch_of, concat, consolidate};
use crate::error::{Error, Result};
use crate::operator::{Context, Operator, Output, Progress};
use crate::state::{GroupTable, KeyRequest, OrderedValue, TableId, negative_weight};
use crate::time::Watermark;

/// Rows of one batch into the step, at most.
const BATCH_ROWS: usize = 1 << 14;

/// What has come in and is not taken, by round.
#[derive(Debug, Default)]
struct Waiting(BTreeMap<i64, Vec<DeltaBatch>>);

impl Waiting {
    /// Takes rows of an input: those of the first term are of round 0, those of the step say it in
    /// a last column.
    fn add(&mut self, schema: &SchemaRef, port: usize, delta: &DeltaBatch) -> Result<()> {
        if delta.is_empty() {
            return Ok(());
        }
        let width = schema.fields().len();
        let columns = delta.rows().columns().iter().take(width).cloned().collect();
        let rows = batch_of(schema.clone(), columns, delta.len())?;
        let rows = delta.with_rows(rows).with_arrivals(None);
        if port == 0 {
            self.0.entry(0).or_default().push(rows);
            return Ok(());
        }
        let rounds = delta.rows().column(width).as_any().downcast_ref::<Int64Array>();
        let rounds = rounds.filter(|rounds| rounds.null_count() == 0);
        let rounds = rounds.ok_or_else(|| Error::internal("a row of a step has no round"))?;
        // What has gone through the step is of one round; what another input has changed, of many.
        let one = rounds.value(0);
        if rounds.values().iter().all(|round| *round == one) {
            self.0.entry(one).or_default().push(rows);
            return Ok(());
        }
        let mut by_round: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (row, round) in rounds.values().iter().enumerate() {
            by_round.entry(*round).or_default().push(row as u32);
        }
        for (round, of_it) in by_round {
            let part = rows.take(&UInt32Array::from(of_it))?;
            self.0.entry(round).or_default().push(part);
        }
        Ok(())
    }

    fn first(&self) -> Option<i64> {
        self.0.first_key_value().map(|(round, _)| *round)
    }

    /// What has come in a round; what cancels out is gone.
    fn take(&mut self, round: i64) -> Result<Option<DeltaBatch>> {
        let all = concat(&self.0.remove(&round).unwrap_or_default())?;
        let all = all.map(|all| consolidate(&all, Order::Changelog)).transpose()?;
        Ok(all.filter(|all| !all.is_empty()))
    }
}

/// Sends rows into the step, with their rounds behind them.
fn send(
    schema: &SchemaRef,
    rows: &DeltaBatch,
    rounds: &Int64Array,
    out: &mut Output,
) -> Result<()> {
    let rounds: ArrayRef = Arc::new(rounds.clone());
    let columns = rows.rows().columns().iter().cloned().chain([rounds]).collect();
    let all = rows.with_rows(batch_of(schema.clone(), columns, rows.len())?);
    let starts = (0..all.len()).step_by(BATCH_ROWS);
    out.feedback.extend(starts.map(|at| all.slice(at, BATCH_ROWS.min(all.len() - at))));
    Ok(())
}

/// UNION ALL: every derivation is a row.
pub(super) struct All {
    schema: SchemaRef,
    into_step: SchemaRef,
    waiting: Waiting,
}

impl All {
    pub(super) fn new(schema: SchemaRef, into_step: SchemaRef) -> Self {
        Self { schema, into_step, waiting: Waiting::default() }
    }
}

impl Operator for All {
    fn keys(&self, _port: usize, _delta: &DeltaBatch, _request: &mut KeyRequest) -> Result<()> {
        Ok(())
    }

    fn process(
        &mut self,
        _cx: &mut Context<'_>,
        port: usize,
        delta: DeltaBatch,
        _out: &mut Output,
    ) -> Result<Progress> {
        self.waiting.add(&self.schema, port, &delta)?;
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, _column: usize, _w: Watermark, _out: &mut Output) {}

    fn next_round(&self) -> Option<i64> {
        self.waiting.first()
    }

    fn round(&mut self, _cx: &mut Context<'_>, round: i64, out: &mut Output) -> Result<Progress> {
        if let Some(rows) = self.waiting.take(round)? {
            send(&self.into_step, &rows, &Int64Array::from_value(round, rows.len()), out)?;
            out.emit(rows);
        }
        Ok(Progress::Done)
    }

    fn flush(&mut self, _cx: &mut Context<'_>, _out: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }
}

/// UNION: a row is there in the first round that derives it. The word of a group is that round and
/// one, 0 while the row is not there; its multiset has how often each round derives it, of rounds
/// that were taken.
pub(super) struct Distinct {
    // Plan.
    rows: TableId,
    schema: SchemaRef,
    into_step: SchemaRef,
    types: Vec<DataType>,
    // The current epoch.
    waiting: Waiting,
    /// Rows that have lost their round, by the next one that has derived them.
    displaced: BTreeMap<i64, Vec<u32>>,
    /// Rows that were touched, in order, and whether each was there before.
    touched: Vec<(u32, bool)>,
}

impl Distinct {
    pub(super) fn new(rows: TableId, schema: SchemaRef, into_step: SchemaRef) -> Self {
        let types = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        Self {
            rows,
            schema,
            into_step,
            types,
            waiting: Waiting::default(),
            displaced: BTreeMap::new(),
            touched: Vec::new(),
        }
    }

    fn columns(&self) -> Vec<usize> {
        (0..self.types.len()).collect()
    }

    /// Counts the derivations that came in a round; the rows that they are of.
    fn count(
        &mut self,
        table: &mut GroupTable,
        round: i64,
        delta: &DeltaBatch,
    ) -> Result<Vec<u32>> {
        let (mut slots, mut fresh) = (Vec::new(), Vec::new());
        table.intern(&*delta.keys(&self.columns())?, &mut slots, &mut fresh);
        let there = |slot: &u32| table.slab().words(*slot)[0] != 0;
        self.touched.extend(fresh.iter().map(|slot| (*slot, there(slot))));
        let mut derived = table.multisets_mut(0);
        for (row, slot) in slots.iter().enumerate() {
            derived.add(*slot, OrderedValue::Number(round.into()), delta.weight(row));
        }
        Ok(slots)
    }

    /// The first round that derives a row.
    fn first(table: &GroupTable, slot: u32) -> Result<Option<i64>> {
        match table.multisets(0)[slot as usize].iter().next() {
            Some((OrderedValue::Number(round), weight)) if weight > 0 => Ok(Some(*round as i64)),
            Some((_, weight)) => Err(negative_weight("rows", weight)),
            None => Ok(None),
        }
    }

    fn emit(&self, table: &GroupTable, changes: &[(u32, Weight)]) -> Result<DeltaBatch> {
        let (slots, weights): (Vec<u32>, Vec<Weight>) = changes.iter().copied().unzip();
        let columns = table.key_columns(&slots, &self.types)?;
        let rows = batch_of(self.schema.clone(), columns, slots.len())?;
        Ok(DeltaBatch::with_weights(rows, Some(Int64Array::from(weights))))
    }
}

impl Operator for Distinct {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        request.add(self.rows, delta.keys(&self.columns())?.hashes());
        Ok(())
    }

    fn process(
        &mut self,
        _cx: &mut Context<'_>,
        port: usize,
        delta: DeltaBatch,
        _out: &mut Output,
    ) -> Result<Progress> {
        self.waiting.add(&self.schema, port, &delta)?;
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, _column: usize, _w: Watermark, _out: &mut Output) {}

    fn next_round(&self) -> Option<i64> {
        let displaced = self.displaced.first_key_value().map(|(round, _)| *round);
        self.waiting.first().into_iter().chain(displaced).min()
    }

    fn round(&mut self, cx: &mut Context<'_>, round: i64, out: &mut Output) -> Result<Progress> {
        let came = self.waiting.take(round)?;
        let table = cx.state.groups(self.rows);
        let mut slots = self.displaced.remove(&round).unwrap_or_default();
        if let Some(delta) = came {
            slots.extend(self.count(table, round, &delta)?);
        }
        slots.sort_unstable();
        slots.dedup();
        // What goes into the step: the row, its weight, and the round that it is of.
        let (mut changes, mut rounds) = (Vec::new(), Vec::new());
        for slot in slots {
            let first = Self::first(table, slot)?;
            let word = table.slab().words(slot)[0] as i64;
            let now = first.filter(|first| *first <= round);
            if first.is_some_and(|first| first > round) && (word == 0 || word - 1 <= round) {
                self.displaced.entry(first.unwrap_or_default()).or_default().push(slot);
            }
            // One of a later round is there until that one is taken, unless this one has it.
            let seat = match now {
                Some(now) => now + 1,
                None if word - 1 > round => word,
                None => 0,
            };
            if seat == word {
                continue;
            }
            for (word, weight) in [(word, -1), (seat, 1)] {
                if word != 0 {
                    changes.push((slot, weight));
                    rounds.push(word - 1);
                }
            }
            table.slab_mut().words_mut(slot)[0] = seat as u64;
        }
        if !changes.is_empty() {
            let rows = self.emit(table, &changes)?;
            send(&self.into_step, &rows, &Int64Array::from(rounds), out)?;
        }
        Ok(Progress::Done)
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let touched = std::mem::take(&mut self.touched);
        let table = cx.state.groups(self.rows);
        let is = |slot: u32| table.slab().words(slot)[0] != 0;
        let changed = touched.iter().filter(|(slot, was)| is(*slot) != *was);
        let changes: Vec<(u32, Weight)> =
            changed.map(|(slot, was)| (*slot, if *was { -1 } else { 1 })).collect();
        if !changes.is_empty() {
            out.emit(self.emit(table, &changes)?);
        }
        for (slot, _) in touched {
            let keep = table.slab().words(slot)[0] != 0;
            table.release(slot, keep);
        }
        Ok(Progress::Done)
    }
}
