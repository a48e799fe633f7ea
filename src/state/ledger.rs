//! Ledger: what a table's logged changes add up to, kept to be compared with the table.
//!
//! State that is changed without being logged would be lost at the next restart and noticed then.
//! So where contracts are checked every table logs, and after its epochs the sum of all that it
//! has ever logged is compared with a walk over it. A walk costs the size of the table, so a table
//! is walked when what it has logged since the last time, or the epochs since, are in proportion
//! to its size: small ones after each epoch, a large one now and then. One that outgrows
//! [`LEDGER_ENTRIES_MAX`] is not followed any more.

use super::entry::Entries;
use super::merge::{Ending, merge};
use crate::error::{Error, Result};

/// Tables that are greater are not followed.
const LEDGER_ENTRIES_MAX: usize = 100_000;

/// Walks look at no more than this many entries for one that was logged.
const WALKED_PER_CHANGE: usize = 32;

/// And for each epoch.
const WALKED_PER_EPOCH: usize = 256;

/// The sum of what a table has logged.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sum: Entries,
    /// What was logged since the sum was made, the oldest first.
    pending: Vec<Entries>,
    /// What the next walk may cost.
    budget: usize,
}

impl Ledger {
    /// The ledger of a table that holds these entries.
    pub(super) fn of(sum: Entries) -> Self {
        Self { sum, ..Self::default() }
    }

    /// Takes what an epoch has logged; whether the table is to be walked now.
    pub(super) fn add(&mut self, changes: Entries) -> Result<bool> {
        self.budget += WALKED_PER_EPOCH + changes.len() * WALKED_PER_CHANGE;
        self.pending.push(changes.compact()?);
        Ok(self.budget >= self.len())
    }

    /// Entries, about.
    fn len(&self) -> usize {
        self.sum.len() + self.pending.iter().map(Entries::len).sum::<usize>()
    }

    /// Whether the table is too large to be followed.
    pub(super) fn is_full(&self) -> bool {
        self.len() > LEDGER_ENTRIES_MAX
    }

    /// The sum so far, without what has expired.
    pub(super) fn settle(&mut self, expired: Option<i64>) -> Result<&Entries> {
        let pending = std::mem::take(&mut self.pending);
        let runs = pending.iter().rev().chain([&self.sum]);
        self.sum = match expired {
            // A row behind the watermark may be below zero: it goes with what it would undo.
            Some(below) => {
                let mut all = merge(runs, Ending::Open)?;
                all.expire(below)?;
                merge([&all], Ending::Last)?
            }
            None => merge(runs, Ending::Last)?,
        };
        Ok(&self.sum)
    }

    /// Compares the settled sum, or what of it is `in_memory`, with a walk over the table.
    pub(super) fn compare(&mut self, walk: &Entries, in_memory: Option<&Entries>) -> Result<()> {
        self.budget = 0;
        let sum = in_memory.unwrap_or(&self.sum);
        let differs = |(a, b): &(_, _)| a != b;
        let Some((logged, found)) = sum.iter().zip(walk.iter()).find(differs) else {
            return match sum.len() == walk.len() {
                true => Ok(()),
                false => {
                    Err(Error::internal("state was changed without being logged").with_detail(
                        format!("Logged were {} entries, there are {}.", sum.len(), walk.len()),
                    ))
                }
            };
        };
        Err(Error::internal("state was changed without being logged")
            .with_detail(format!("Logged was {logged:?}, there is {found:?}.")))
    }
}
