//! The state of a checkpoint, to be read from: whole tables, which a new life begins with, and
//! single keys, which it is asked for meanwhile.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::run::{RunReader, pieces};
use super::store::merged_into;
use crate::error::{Error, Result, sqlstate};
use crate::state::{Ending, Entries, merge};

/// The state of a checkpoint.
#[derive(Debug, Default)]
pub struct Image {
    /// The newest first.
    runs: Vec<RunReader>,
    expired_below: BTreeMap<u32, i64>,
    /// Entries that were read of whole tables, for those who wait for them.
    read: AtomicU64,
    /// Nobody wants them any more.
    given_up: AtomicBool,
}

impl Image {
    pub(super) fn new(runs: Vec<RunReader>, expired_below: BTreeMap<u32, i64>) -> Self {
        Self { runs, expired_below, ..Self::default() }
    }

    /// Entries of a table in all runs, those among them that newer ones take the place of.
    pub fn entries_in(&self, table: u32) -> u64 {
        let of_run = self.runs.iter().flat_map(RunReader::tables);
        of_run.filter(|(of, _)| *of == table).map(|(_, entries)| entries).sum()
    }

    /// What a table holds of some key groups, in pieces that are neither many nor large.
    pub fn entries(
        &self,
        table: u32,
        owned: &Range<usize>,
    ) -> impl Iterator<Item = Result<Entries>> {
        let all = self.entries_in(table);
        let owned = owned.clone();
        let owned =
            pieces(all).map(move |piece| piece.start.max(owned.start)..piece.end.min(owned.end));
        let how = (self.expired_below.get(&table).copied(), Ending::Last);
        owned.filter(|groups| !groups.is_empty()).map(move |groups| {
            if self.given_up.load(Ordering::Relaxed) {
                let stopped = Error::external(sqlstate::ADMIN_SHUTDOWN, "the engine has stopped");
                return Err(stopped.permanent());
            }
            let mut all = Entries::default();
            let read = merged_into(&self.runs, table, &groups, how, &mut all.at_end())?;
            self.read.fetch_add(read as u64, Ordering::Relaxed);
            Ok(all)
        })
    }

    /// What a table holds under keys of one hash.
    pub fn entries_of(&self, table: u32, hash: u64) -> Result<Entries> {
        let parts = self.runs.iter().map(|run| run.entries_of(table, hash));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        match self.expired_below.get(&table) {
            Some(below) => {
                let mut all = merge(&parts, Ending::Open)?;
                all.expire(*below)?;
                merge([&all], Ending::Last)
            }
            None => merge(&parts, Ending::Last),
        }
    }

    /// Entries that were read of whole tables.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Nobody wants whole tables any more: who reads them fails with 57P01.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}
