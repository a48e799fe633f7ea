//! The state of a checkpoint, to be read from: whole tables, which a new life begins with, and
//! single keys, which it is asked for meanwhile.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::run::{RunReader, pieces};
use super::store::merged_into;
use crate::error::{Error, Result, sqlstate};
use crate::state::{ColdRows, Ending, Entries, merge};

/// Keys are looked for by so many threads at most, and by another one for so many keys: some
/// milliseconds where they have to come from the disk.
const READING_THREADS: usize = 8;
const HASHES_PER_THREAD: usize = 64;

/// The rows of one table of a checkpoint.
#[derive(Debug)]
pub struct TableRows {
    image: Arc<Image>,
    table: u32,
}

impl TableRows {
    /// Those of a table by its number.
    pub fn new(image: Arc<Image>, table: u32) -> Self {
        Self { image, table }
    }

    fn some_with_hashes(&self, hashes: &[u64]) -> Result<Entries> {
        let runs = self.image.runs.iter();
        let parts = runs.map(|run| run.with_hashes(self.table, hashes));
        merge(&parts.collect::<Result<Vec<_>>>()?, Ending::Last)
    }
}

impl ColdRows for TableRows {
    fn with_hashes(&self, hashes: &[u64]) -> Result<Entries> {
        let threads = (hashes.len() / HASHES_PER_THREAD).clamp(1, READING_THREADS);
        if threads == 1 {
            return self.some_with_hashes(hashes);
        }
        // They wait for the disk rather than for the processor.
        let parts = std::thread::scope(|scope| {
            let chunks = hashes.chunks(hashes.len().div_ceil(threads));
            let reading: Vec<_> =
                chunks.map(|some| scope.spawn(|| self.some_with_hashes(some))).collect();
            let panicked = |_| Err(Error::internal("reading a checkpoint panicked"));
            let done = reading.into_iter().map(|thread| thread.join().unwrap_or_else(panicked));
            done.collect::<Result<Vec<_>>>()
        })?;
        let mut all = Entries::default();
        parts.iter().for_each(|part| all.append(part));
        Ok(all)
    }

    fn pieces(&self) -> Vec<Range<usize>> {
        pieces(self.image.entries_in(self.table)).collect()
    }

    fn in_groups(&self, groups: &Range<usize>) -> Result<Entries> {
        let mut all = Entries::default();
        let how = (self.image.expired_below.get(&self.table).copied(), Ending::Last);
        merged_into(&self.image.runs, self.table, groups, how, &mut all.at_end())?;
        Ok(all)
    }
}

/// The state of a checkpoint.
#[derive(Debug, Default)]
pub struct Image {
    /// The newest first.
    runs: Vec<Arc<RunReader>>,
    expired_below: BTreeMap<u32, i64>,
    /// Entries that were read of whole tables, for those who wait for them.
    read: AtomicU64,
    /// Nobody wants them any more.
    given_up: AtomicBool,
}

impl Image {
    pub(super) fn new(runs: Vec<Arc<RunReader>>, expired_below: BTreeMap<u32, i64>) -> Self {
        Self { runs, expired_below, ..Self::default() }
    }

    /// Entries of a table in all runs, those among them that newer ones take the place of.
    pub fn entries_in(&self, table: u32) -> u64 {
        let of_run = self.runs.iter().flat_map(|run| run.tables());
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
