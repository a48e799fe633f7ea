//! Preserved sides of a join without a further condition: a row is matched when its key has rows on
//! the other side.
//!
//! For each key of the other side its weight is kept, now and before the epoch. At the end of an
//! epoch: rows that were there before come out differently only where the key has come or gone,
//! and the epoch's own rows come out as the key is now. So a change costs as much as it changes,
//! also under a key with a million rows.

use arrow::array::{BooleanArray, Int64Array, UInt32Array};

use super::kernel::{Join, OUTPUT_ROWS, Pending};
use super::{Closes, JoinKind, Side};
use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Keys, Weight};
use crate::error::{Error, Result};
use crate::operator::Output;
use crate::state::{
    Cursor, GroupTable, Probe, Probing, StateStore, TableId, When, negative_weight,
};
use crate::time::event_times;

/// Words of a key: its weight now, and before the epoch that touches it.
const NOW: usize = 0;
const BEFORE: usize = 1;
pub(super) const WORDS: usize = 2;

/// What an epoch has brought for one side.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Rows of the side, with the slot of each one's key on the other side.
    rows: Vec<(DeltaBatch, Vec<u32>)>,
    /// Keys touched, in the side's table of keys.
    keys: Vec<u32>,
}

fn there(table: &GroupTable, slot: u32, word: usize) -> bool {
    table.slab().words(slot)[word] as Weight > 0
}

impl Join {
    /// Adds a delta to the weights of its side's keys, and puts its rows by when they are to be
    /// decided.
    pub(super) fn note_keys(&mut self, state: &mut StateStore, from: &Pending) -> Result<()> {
        let side = from.side;
        if let Some(table) = self.tables.keys[side.index()] {
            let slots = self.touch(state.groups(table), side, from);
            let slab = state.groups(table).slab_mut();
            for (row, slot) in from.selection.iter().zip(slots) {
                let word = &mut slab.words_mut(slot)[NOW];
                *word = word.wrapping_add(from.delta.weight(*row as usize) as u64);
            }
        }
        if self.spec.kind.preserves(side) && !from.selection.is_empty() {
            let table = state.groups(self.keys_table(side.other())?);
            let slots = self.touch(table, side.other(), from);
            let rows = match from.selection.len() == from.delta.len() {
                true => from.delta.clone(),
                false => from.delta.take(&UInt32Array::from(from.selection.clone()))?,
            };
            self.owed[side.index()].rows.push((rows, slots));
        }
        Ok(())
    }

    fn keys_table(&self, side: Side) -> Result<TableId> {
        self.tables.keys[side.index()]
            .ok_or_else(|| Error::internal("a join lacks a table of keys"))
    }

    /// The slots of a delta's keys among those of `side`; a key that the epoch has not touched yet
    /// notes its weight.
    fn touch(&mut self, table: &mut GroupTable, side: Side, from: &Pending) -> Vec<u32> {
        let (mut slots, mut fresh) = (Vec::new(), Vec::new());
        let times = match self.spec.closes {
            Closes::Pair(pair) => event_times(&from.key_columns[pair]),
            _ => None,
        };
        let time = |row: usize| times.as_ref().map_or(i64::MAX, |time| time(row));
        table.intern_rows(&from.keys, &from.selection, time, (&mut slots, &mut fresh));
        for slot in &fresh {
            let words = table.slab_mut().words_mut(*slot);
            words[BEFORE] = words[NOW];
        }
        self.owed[side.index()].keys.extend(fresh);
        slots
    }

    /// Emits what the epoch changes in the rows of a preserved side.
    pub(super) fn settle_by_key(
        &mut self,
        state: &mut StateStore,
        side: Side,
        out: &mut Output,
    ) -> Result<()> {
        let keys = self.keys_table(side.other())?;
        let table = state.groups(keys);
        let touched = self.owed[side.other().index()].keys.iter().copied();
        let flipped: Vec<u32> =
            touched.filter(|s| there(table, *s, BEFORE) != there(table, *s, NOW)).collect();
        for slots in flipped.chunks(BATCH_ROWS) {
            self.flip(state, side, slots, out)?;
        }
        for (delta, slots) in std::mem::take(&mut self.owed[side.index()].rows) {
            let table = state.groups(keys);
            let marks: BooleanArray =
                slots.iter().map(|slot| Some(there(table, *slot, NOW))).collect();
            let shown: BooleanArray =
                marks.values().iter().map(|m| Some(self.spec.kind.shows(m))).collect();
            let (delta, marks) = match shown.true_count() == delta.len() {
                true => (delta, marks),
                // All marks are alike then.
                false => {
                    let delta = delta.filter(&shown)?;
                    let mark = self.spec.kind.shows(true);
                    let marks = BooleanArray::from(vec![mark; delta.len()]);
                    (delta, marks)
                }
            };
            let (rows, weights) = delta.into_parts();
            out.emit(self.alone(side, rows.columns().to_vec(), weights, &marks)?);
        }
        Ok(())
    }

    /// Emits the change of rows that were there before the epoch under keys that came or went.
    fn flip(
        &self,
        state: &mut StateStore,
        side: Side,
        slots: &[u32],
        out: &mut Output,
    ) -> Result<()> {
        let table = state.groups(self.keys_table(side.other())?);
        let now: Vec<bool> = slots.iter().map(|slot| there(table, *slot, NOW)).collect();
        let types = self.spec.key_types(side);
        let columns = table.key_columns(slots, &types)?;
        let keys = Keys::encode(&columns, slots.len())?;
        let selection: Vec<u32> = (0..slots.len() as u32).collect();
        let probing = Probing { keys: &keys, columns: &columns, selection: &selection };
        let rows = state.arrangement(self.tables.rows(side)?);
        let width = self.spec.input(side).schema.fields().len();
        let mut cursor = Cursor::START;
        while cursor.position < selection.len() {
            let mut probe = Probe::default();
            cursor = rows.probe(probing, When::Before, cursor, OUTPUT_ROWS, &mut probe);
            if probe.slots.is_empty() {
                continue;
            }
            let columns = (0..width).map(|c| rows.gather_column(c, &probe.slots));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            let weight = |i: usize| probe.weights.get(i).copied().unwrap_or(1);
            let matched = |i: usize| now[probe.rows[i] as usize];
            // As it was, then as it is.
            for (sign, is_now) in [(-1, false), (1, true)] {
                let shown: BooleanArray = (0..probe.slots.len())
                    .map(|i| Some(self.spec.kind.shows(matched(i) == is_now)))
                    .collect();
                let weights = (0..probe.slots.len()).map(|i| sign * weight(i));
                let weights = Int64Array::from_iter_values(weights);
                let marks: BooleanArray =
                    (0..probe.slots.len()).map(|i| Some(matched(i) == is_now)).collect();
                let all = self.alone(side, columns.clone(), Some(weights), &marks)?;
                let delta = match shown.true_count() == all.len() {
                    true => all,
                    false => all.filter(&shown)?,
                };
                out.emit(self.plain(delta));
            }
        }
        Ok(())
    }

    /// Weights that are all +1 need not be there.
    fn plain(&self, delta: DeltaBatch) -> DeltaBatch {
        let semi = matches!(self.spec.kind, JoinKind::LeftSemi | JoinKind::RightSemi);
        match semi && delta.weights().is_some_and(|w| w.values().iter().all(|w| *w == 1)) {
            true => DeltaBatch::inserts(delta.into_parts().0),
            false => delta,
        }
    }

    /// Ends the epoch for a side's keys; those without weight go.
    pub(super) fn release_keys(&mut self, state: &mut StateStore, side: Side) -> Result<()> {
        let Some(id) = self.tables.keys[side.index()] else { return Ok(()) };
        let table = state.groups(id);
        for slot in std::mem::take(&mut self.owed[side.index()].keys) {
            let words = table.slab_mut().words_mut(slot);
            let before = std::mem::take(&mut words[BEFORE]);
            let weight = words[NOW] as Weight;
            if weight < 0 {
                return Err(negative_weight(state.spec(id).name, weight));
            }
            match weight != 0 && words[NOW] == before {
                true => table.release_unchanged(slot),
                false => table.release(slot, weight != 0),
            }
        }
        table.expire(self.marks.keys_closed);
        Ok(())
    }
}
