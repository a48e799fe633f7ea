//! Preserved sides of a join with a further condition: a row is matched when pairs of it pass.
//!
//! Every pair with equal keys is checked once, when its later half arrives, and adds the weight of
//! one row to the matches of the other. A row that gets a slot starts with the matches that are
//! there; a row that is there already has its count, so only its weight changes. Pairs with rows
//! whose weight is zero at this moment are counted too: they may be back before the epoch ends.

use arrow::array::{ArrayRef, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::take;

use super::kernel::{Join, OUTPUT_ROWS, Pending, halves, pair_weight};
use super::stored::Found;
use super::{JoinCondition, Side};
use crate::delta::{DeltaBatch, Weight, batch_of};
use crate::error::Result;
use crate::operator::{Context, Output, error_rows};
use crate::state::{Changed, Probe, StateStore};

/// Matches of the rows of a delta that is being joined.
#[derive(Debug, Default)]
pub(super) struct Matching {
    /// Rows that got a slot: `(row, slot)`.
    fresh: Vec<(u32, u32)>,
    /// By row of the delta; empty when nothing is fresh.
    matches: Vec<Weight>,
}

impl Matching {
    pub(super) fn new(fresh: Vec<(u32, u32)>, delta: &DeltaBatch) -> Self {
        let matches = if fresh.is_empty() { Vec::new() } else { vec![0; delta.len()] };
        Self { fresh, matches }
    }
}

impl Join {
    /// Checks the condition on pairs and counts those that pass; returns those of them that have a
    /// weight.
    pub(super) fn check_pairs(
        &self,
        cx: &mut Context<'_>,
        from: &mut Pending,
        found: Found,
        out: &mut Output,
    ) -> Result<Found> {
        let Some(condition) = &self.spec.condition else { return Ok(found) };
        if found.probe.slots.is_empty() {
            return Ok(found);
        }
        let mask = self.mask(cx, condition, from, &found, out)?;
        let Found { probe, rows } = found;
        let theirs = from.side.other();
        let count_mine = self.spec.counts() && !from.matching.matches.is_empty();
        let mut counted = match self.spec.counts() && self.spec.kind.preserves(theirs) {
            true => Some(cx.state.arrangement(self.tables.rows(theirs)?)),
            false => None,
        };
        let weighted = !probe.weights.is_empty();
        let mut passed = Probe::default();
        for i in mask.values().set_indices() {
            let (row, slot) = (probe.rows[i], probe.slots[i]);
            let weight = if weighted { probe.weights[i] } else { 1 };
            if let Some(other) = &mut counted {
                other.add_matches(slot, from.delta.weight(row as usize));
            }
            if count_mine {
                from.matching.matches[row as usize] += weight;
            }
            if weight == 0 {
                continue;
            }
            passed.rows.push(row);
            passed.slots.push(slot);
            if weighted {
                passed.weights.push(weight);
            }
        }
        Ok(Found { probe: passed, rows })
    }

    /// Those of some pairs that pass the condition.
    pub(super) fn passing(
        &self,
        cx: &mut Context<'_>,
        from: &Pending,
        found: Found,
        out: &mut Output,
    ) -> Result<Found> {
        let Some(condition) = &self.spec.condition else { return Ok(found) };
        if found.probe.slots.is_empty() {
            return Ok(found);
        }
        let mask = self.mask(cx, condition, from, &found, out)?;
        let Found { probe, rows } = found;
        let mut passed = Probe::default();
        for i in mask.values().set_indices() {
            passed.rows.push(probe.rows[i]);
            passed.slots.push(probe.slots[i]);
            passed.weights.extend(probe.weights.get(i));
        }
        Ok(Found { probe: passed, rows })
    }

    /// Which pairs pass the condition; what it reads of them may be more than fits in one batch.
    fn mask(
        &self,
        cx: &mut Context<'_>,
        condition: &JoinCondition,
        from: &Pending,
        found: &Found,
        out: &mut Output,
    ) -> Result<BooleanArray> {
        let error = match self.mask_at_once(cx, condition, from, found, out) {
            Ok(mask) => return Ok(mask),
            Err(error) => error,
        };
        let cut = halves(found.probe.clone(), &error);
        let Some((first, rest)) = cut else { return Err(error) };
        let part = |probe| Found { probe, rows: found.rows.clone() };
        let first = self.mask(cx, condition, from, &part(first), out)?;
        let rest = self.mask(cx, condition, from, &part(rest), out)?;
        Ok(first.iter().chain(rest.iter()).collect())
    }

    fn mask_at_once(
        &self,
        cx: &mut Context<'_>,
        condition: &JoinCondition,
        from: &Pending,
        Found { probe, rows: theirs }: &Found,
        out: &mut Output,
    ) -> Result<BooleanArray> {
        let rows = UInt32Array::from(probe.rows.clone());
        let column = |of: &(Side, usize)| -> Result<ArrayRef> {
            match of.0 == from.side {
                true => Ok(take(from.delta.rows().column(of.1), &rows, None)?),
                false => self.column_of(cx, *of, theirs.as_ref(), &probe.slots),
            }
        };
        let columns = condition.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        let pairs = batch_of(condition.schema.clone(), columns, rows.len())?;
        let mut errors = Vec::new();
        let mask = condition.predicate.mask(&pairs, &mut errors)?;
        let failed: Vec<(usize, Weight, &str, String)> = errors
            .into_iter()
            .map(|e| (e.row, pair_weight(from, probe, e.row), e.sqlstate, e.reason))
            .filter(|(_, weight, ..)| *weight != 0)
            .collect();
        if !failed.is_empty() {
            out.errors.push(error_rows("Join", &pairs, &failed)?);
        }
        Ok(mask)
    }

    /// Gives fresh rows their counts, once all pairs of their delta were checked.
    pub(super) fn finish_counts(&self, state: &mut StateStore, from: &Pending) -> Result<()> {
        if from.matching.fresh.is_empty() {
            return Ok(());
        }
        let mine = state.arrangement(self.tables.rows(from.side)?);
        for (row, slot) in &from.matching.fresh {
            mine.set_matches(*slot, from.matching.matches[*row as usize]);
        }
        Ok(())
    }

    /// Emits what the epoch changes in the rows of a preserved side.
    pub(super) fn settle_by_row(
        &self,
        state: &mut StateStore,
        side: Side,
        out: &mut Output,
    ) -> Result<()> {
        let rows = state.arrangement(self.tables.rows(side)?);
        let kind = self.spec.kind;
        let mut changes: Vec<(u32, Weight, bool)> = Vec::new();
        for Changed { slot, before, after } in rows.changed() {
            debug_assert!(after.1 >= 0, "matches are not negative at an epoch's end");
            let (was, is) = (before.1 > 0, after.1 > 0);
            let changed = match was == is {
                true => [(0, was), (after.0 - before.0, is)],
                false => [(-before.0, was), (after.0, is)],
            };
            let shown = changed.into_iter().filter(|(w, mark)| *w != 0 && kind.shows(*mark));
            changes.extend(shown.map(|(weight, mark)| (slot, weight, mark)));
        }
        let width = self.spec.input(side).schema.fields().len();
        for piece in changes.chunks(OUTPUT_ROWS) {
            let slots: Vec<u32> = piece.iter().map(|(slot, ..)| *slot).collect();
            let columns = (0..width).map(|c| rows.gather_column(c, &slots));
            let columns = columns.collect::<Result<_>>()?;
            let weights = Int64Array::from_iter_values(piece.iter().map(|(_, weight, _)| *weight));
            let weights = (!weights.values().iter().all(|w| *w == 1)).then_some(weights);
            let marks: BooleanArray = piece.iter().map(|(_, _, mark)| Some(*mark)).collect();
            out.emit(self.alone(side, columns, weights, &marks)?);
        }
        Ok(())
    }
}
