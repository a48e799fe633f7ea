//! Probes: the rows of a shard that join with others, found by key or by an index as of an epoch.
//!
//! A piece of a probe ends at the last slot that it has found, and goes on behind it. That slot is
//! visible at the probe's epoch, so nobody frees it, and it keeps its place in its chain, whatever
//! comes and goes around it.

use super::ResultShard;
use crate::error::{Error, Result};
use crate::state::arrangement::{Cursor, Probe, Probing, plain_i64};
use crate::state::chains::{Chains, NONE};
use crate::state::slot_index::READ_AHEAD_MAX;
use crate::time::Epoch;

impl ResultShard {
    /// The index by some columns.
    fn chains_by(&self, columns: &[usize]) -> Result<&Chains> {
        if self.spec.key == columns {
            return Ok(&self.index);
        }
        let found = self.secondary.iter().find(|s| s.columns() == columns && s.is_whole());
        let found = found.map(|index| index.chains());
        found.ok_or_else(|| Error::internal(format!("no index by the columns {columns:?} is kept")))
    }

    /// Finds the rows that are visible at an epoch and have the values of probing rows in some
    /// columns, from a place on, until `limit` were found or the probing rows end; returns where
    /// to go on.
    pub fn probe(
        &self,
        columns: &[usize],
        probing: Probing<'_>,
        epoch: Epoch,
        (from, limit): (Cursor, usize),
        out: &mut Probe,
    ) -> Result<Cursor> {
        let chains = self.chains_by(columns)?;
        let fast = plain_i64(probing.columns);
        let mut held = from.slot;
        for (position, row) in probing.selection.iter().enumerate().skip(from.position) {
            if position.is_multiple_of(READ_AHEAD_MAX) || position == from.position {
                let next = &probing.selection[position..];
                let next = &next[..next.len().min(READ_AHEAD_MAX)];
                let hashes = next.iter().map(|row| probing.keys.hash(*row as usize));
                chains.read_ahead(hashes, |slot| self.pages.peek(slot, columns[0]));
            }
            let at = *row as usize;
            let head = || match fast {
                Some(values) => chains.head(probing.keys.hash(at), |slot| {
                    self.pages.is_i64(slot, columns[0], values[at])
                }),
                None => chains.head(probing.keys.hash(at), |slot| {
                    self.pages.equals(slot, columns, probing.columns, at)
                }),
            };
            let mut slot = match held.take() {
                Some(last) => chains.next(last),
                None => head().unwrap_or(NONE),
            };
            while slot != NONE {
                if self.versions.visible(slot, epoch) {
                    out.push(*row, slot, self.weights.get(slot));
                    if out.slots.len() >= limit {
                        return Ok(Cursor { position, slot: Some(slot) });
                    }
                }
                slot = chains.next(slot);
            }
        }
        Ok(Cursor { position: probing.selection.len(), slot: None })
    }

    /// Some columns of some slots.
    pub fn gather_columns(
        &self,
        columns: &[usize],
        slots: &[u32],
    ) -> Result<Vec<arrow::array::ArrayRef>> {
        columns.iter().map(|c| self.pages.gather_column(*c, slots)).collect()
    }
}

impl Probe {
    /// One more match.
    #[inline]
    fn push(&mut self, row: u32, slot: u32, weight: i64) {
        if weight != 1 && self.weights.is_empty() {
            self.weights.resize(self.rows.len(), 1);
        }
        if weight != 1 || !self.weights.is_empty() {
            self.weights.push(weight);
        }
        self.rows.push(row);
        self.slots.push(slot);
    }
}
