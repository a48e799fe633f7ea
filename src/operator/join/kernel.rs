//! The verbs of the join: deltas into the state, pairs out of it, in pieces.
//!
//! A key with many matches on both sides makes an output much larger than its input; it is handed
//! out in pieces of [`OUTPUT_ROWS`] through `resume`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, UInt32Array, new_null_array};
use arrow::compute::take;

use super::counted::Matching;
use super::existence::Owed;
use super::expiry::Marks;
use super::stored::{Found, Fresh, StoredPlace};
use super::{JoinKind, JoinSpec, NullKeys, Side};
use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Keys, Weight, batch_of};
use crate::error::{Error, Result};
use crate::operator::{Context, Operator, Output, Placement, Progress};
use crate::state::{Cursor, KeyRequest, Probe, Probing, TableId};
use crate::time::Watermark;

/// Rows of one piece of output.
pub(super) const OUTPUT_ROWS: usize = BATCH_ROWS * 2;

const SIDES: [Side; 2] = [Side::Left, Side::Right];

/// The tables by side, where the join has them.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    /// Rows by key.
    pub(super) rows: [Option<TableId>; 2],
    /// Weights of keys.
    pub(super) keys: [Option<TableId>; 2],
}

impl Tables {
    /// The rows of a side that the kind of join keeps.
    pub(super) fn rows(&self, side: Side) -> Result<TableId> {
        self.rows[side.index()].ok_or_else(|| Error::internal("a join lacks a table of rows"))
    }
}

pub(super) struct Join {
    pub(super) spec: JoinSpec,
    pub(super) tables: Tables,
    pending: Option<Pending>,
    /// What this epoch has brought, by side.
    pub(super) owed: [Owed; 2],
    pub(super) marks: Marks,
    /// What this epoch has brought, by side, where a side is stored elsewhere.
    pub(super) fresh: [Fresh; 2],
    /// The number of the worker.
    pub(super) worker: usize,
}

/// A delta whose matches are being looked for.
pub(super) struct Pending {
    pub(super) side: Side,
    pub(super) delta: DeltaBatch,
    pub(super) keys: Arc<Keys>,
    pub(super) key_columns: Vec<ArrayRef>,
    /// Rows that can match.
    pub(super) selection: Vec<u32>,
    /// Where to go on among the rows of the other side that are stored, until they end.
    pub(super) stored: Option<StoredPlace>,
    /// The same among those that are kept here, or have come in this epoch.
    pub(super) next: Cursor,
    pub(super) matching: Matching,
}

impl Pending {
    pub(super) fn probing(&self) -> Probing<'_> {
        Probing { keys: &self.keys, columns: &self.key_columns, selection: &self.selection }
    }

    /// Behind the last match.
    pub(super) fn end(&self) -> Cursor {
        Cursor::behind(&self.selection)
    }

    /// Whether all matches have been found.
    pub(super) fn is_done(&self) -> bool {
        self.stored.is_none() && self.next.position == self.selection.len()
    }
}

impl Join {
    pub(super) fn new(spec: JoinSpec, tables: Tables, place: Placement) -> Self {
        Self {
            spec,
            tables,
            pending: None,
            owed: Default::default(),
            marks: Marks::new(),
            fresh: Default::default(),
            worker: place.worker,
        }
    }

    pub(super) fn prepare(&self, side: Side, delta: DeltaBatch) -> Result<Pending> {
        let key_columns: Vec<ArrayRef> =
            self.spec.input(side).key.iter().map(|c| delta.rows().column(*c).clone()).collect();
        let keys = delta.keys(&self.spec.input(side).key)?;
        let nulls: Vec<_> = match self.spec.nulls {
            NullKeys::MatchNothing => {
                key_columns.iter().filter_map(|c| c.logical_nulls()).collect()
            }
            NullKeys::Match => Vec::new(),
        };
        let selection: Vec<u32> = (0..delta.len() as u32)
            .filter(|row| nulls.iter().all(|n| n.is_valid(*row as usize)))
            .collect();
        let stored = self.spec.stored[side.other().index()].is_some() && !selection.is_empty();
        let stored = stored.then_some(StoredPlace::START);
        let (next, matching) = (Cursor::START, Matching::default());
        Ok(Pending { side, delta, keys, key_columns, selection, stored, next, matching })
    }

    /// Rows of a preserved side whose key can't match: they are decided by themselves.
    fn emit_unmatchable(&self, pending: &Pending, out: &mut Output) -> Result<()> {
        let Pending { side, delta, selection, .. } = pending;
        let kind = self.spec.kind;
        if selection.len() == delta.len() || !kind.preserves(*side) || !kind.shows(false) {
            return Ok(());
        }
        let mut selected = selection.iter().copied().peekable();
        let rest = (0..delta.len() as u32).filter(|row| selected.next_if_eq(row).is_none());
        let rows = delta.take(&UInt32Array::from_iter_values(rest))?;
        let marks = BooleanArray::from(vec![false; rows.len()]);
        let (batch, weights) = rows.into_parts();
        out.emit(self.alone(*side, batch.columns().to_vec(), weights, &marks)?);
        Ok(())
    }

    /// Rows of a preserved side by themselves: with NULLs, as they are, or with their marks.
    pub(super) fn alone(
        &self,
        side: Side,
        columns: Vec<ArrayRef>,
        weights: Option<Int64Array>,
        marks: &BooleanArray,
    ) -> Result<DeltaBatch> {
        let count = marks.len();
        let mut all = columns;
        if self.spec.kind.has_mark() {
            all.push(Arc::new(marks.clone()));
        } else if self.spec.kind.has_pairs() {
            let fields = self.spec.input(side.other()).schema.fields();
            let nulls = fields.iter().map(|f| new_null_array(f.data_type(), count));
            match side {
                Side::Left => all.extend(nulls),
                Side::Right => all = nulls.chain(all).collect(),
            }
        }
        let rows = batch_of(self.spec.schema.clone(), all, count)?;
        Ok(DeltaBatch::with_weights(rows, weights))
    }

    /// Hands out one piece of the pending delta's matches.
    fn step(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let Some(mut pending) = self.pending.take() else { return Ok(Progress::Done) };
        let mut found = self.find(cx, &mut pending)?;
        while found.probe.slots.is_empty() && !pending.is_done() {
            found = self.find(cx, &mut pending)?;
        }
        if self.spec.condition.is_some() {
            found = self.check_pairs(cx, &mut pending, found, out)?;
        }
        if !found.probe.slots.is_empty() && self.spec.kind.has_pairs() {
            self.emit_pairs(cx, &pending, found, out)?;
        }
        if pending.is_done() {
            self.finish_counts(cx.state, &pending)?;
            return Ok(Progress::Done);
        }
        self.pending = Some(pending);
        Ok(Progress::More)
    }

    /// Hands out pairs: in one batch, or in several where their texts are more than one can have.
    pub(super) fn emit_pairs(
        &self,
        cx: &mut Context<'_>,
        from: &Pending,
        found: Found,
        out: &mut Output,
    ) -> Result<()> {
        match self.combine(cx, from, &found) {
            Ok(pairs) => out.emit(pairs),
            Err(error) => {
                let Some((first, rest)) = halves(found.probe, &error) else { return Err(error) };
                let rows = found.rows;
                self.emit_pairs(cx, from, Found { probe: first, rows: rows.clone() }, out)?;
                self.emit_pairs(cx, from, Found { probe: rest, rows }, out)?;
            }
        }
        Ok(())
    }

    fn combine(&self, cx: &mut Context<'_>, from: &Pending, found: &Found) -> Result<DeltaBatch> {
        let Found { probe, rows: theirs } = found;
        let weights = if from.delta.is_insert_only() && probe.weights.is_empty() {
            None
        } else {
            let weights = (0..probe.rows.len()).map(|i| pair_weight(from, probe, i));
            Some(Int64Array::from_iter_values(weights))
        };
        let side = from.side.other();
        let width = self.spec.input(side).schema.fields().len();
        let theirs =
            (0..width).map(|c| self.column_of(cx, (side, c), theirs.as_ref(), &probe.slots));
        let theirs = theirs.collect::<Result<Vec<_>>>()?;
        let count = probe.rows.len();
        let rows = UInt32Array::from(probe.rows.clone());
        let mine = from.delta.rows().columns().iter().map(|c| take(c, &rows, None));
        let mine = mine.collect::<Result<Vec<_>, _>>()?;
        let columns: Vec<ArrayRef> = match from.side {
            Side::Left => mine.into_iter().chain(theirs).collect(),
            Side::Right => theirs.into_iter().chain(mine).collect(),
        };
        let rows = batch_of(self.spec.schema.clone(), columns, count)?;
        Ok(DeltaBatch::with_weights(rows, weights))
    }
}

/// Pairs as two times half as many, where `error` says that they are too many for one batch.
pub(super) fn halves(mut probe: Probe, error: &Error) -> Option<(Probe, Probe)> {
    let half = probe.rows.len() / 2;
    if half == 0 || !error.is_too_many_bytes() {
        return None;
    }
    let rest = Probe {
        rows: probe.rows.split_off(half),
        slots: probe.slots.split_off(half),
        // Empty when all are one.
        weights: probe.weights.split_off(half.min(probe.weights.len())),
    };
    Some((probe, rest))
}

/// The weight of match `i`.
pub(super) fn pair_weight(from: &Pending, probe: &Probe, i: usize) -> Weight {
    from.delta.weight(probe.rows[i] as usize) * probe.weights.get(i).copied().unwrap_or(1)
}

impl Operator for Join {
    fn keys(&self, port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        let pending = self.prepare(Side::of(port), delta.clone())?;
        let tables = self.tables.rows.iter().chain(&self.tables.keys).flatten();
        tables.for_each(|table| request.add(*table, pending.keys.hashes()));
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        port: usize,
        delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress> {
        let side = Side::of(port);
        let mut pending = self.prepare(side, delta)?;
        self.emit_unmatchable(&pending, out)?;
        if self.spec.kind != JoinKind::Inner && self.spec.condition.is_none() {
            self.note_keys(cx.state, &pending)?;
        }
        if let Some(table) = self.tables.rows[side.index()] {
            let mine = cx.state.arrangement(table);
            let Pending { delta, keys, selection, .. } = &pending;
            if self.spec.counts() && self.spec.kind.preserves(side) {
                pending.matching =
                    Matching::new(mine.update_counted(delta, keys, selection)?, delta);
            } else {
                mine.update(delta, keys, selection)?;
            }
        }
        if !self.spec.finds_pairs() || self.leaves_pairs(side, cx) {
            return Ok(Progress::Done);
        }
        if self.spec.stored[side.index()].is_some() && !cx.building {
            self.fresh[side.index()].add(&pending);
        }
        self.pending = Some(pending);
        self.step(cx, out)
    }

    fn resume(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        self.step(cx, out)
    }

    fn on_watermark(&mut self, port: usize, column: usize, w: Watermark, out: &mut Output) {
        self.marks.advance(&self.spec, (Side::of(port), column), w, &mut out.watermarks);
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let kind = self.spec.kind;
        for side in SIDES.into_iter().filter(|side| kind.preserves(*side)) {
            match self.spec.condition {
                None => self.settle_by_key(cx.state, side, out)?,
                Some(_) => self.settle_by_row(cx.state, side, out)?,
            }
        }
        for side in SIDES {
            self.release_keys(cx.state, side)?;
            self.fresh[side.index()].clear();
            if let Some(table) = self.tables.rows[side.index()] {
                cx.state.arrangement(table).seal_and_expire(self.marks.closed(side))?;
            }
        }
        Ok(Progress::Done)
    }
}
