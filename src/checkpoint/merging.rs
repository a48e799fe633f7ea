//! Merging runs beside the checkpoints: a thread makes one run of several neighbours, and the next
//! manifest names it in their place.
//!
//! Which ones: runs of one tier, when there are [`FAN`] of them, so that an entry is written again
//! once a tier; and all of them when those above the oldest have as many entries as it has, since
//! then up to half of all entries may be hidden by newer ones. So what lies on the disk is about
//! twice what the tables have, and what is written is a small multiple of what changes, however
//! large the tables are. (Size-tiered compaction, as in Lakshman and Malik, "Cassandra", 2010.)
//!
//! The thread rests as long as it works, unless runs are many, and syncs what it writes every few
//! megabytes, so that syncs of the log do not wait behind gigabytes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::manifest::{Manifest, RunName};
use super::run::{RunReader, RunWriter, pieces};
use super::store::{merged_into, open_run, run_path};
use crate::error::{Error, Result, sqlstate};
use crate::state::Ending;
use crate::store::{Disk, failpoint};

/// So many runs of a tier are merged into one.
const FAN: usize = 8;

/// Runs with fewer entries are of the lowest tier.
const SMALL: u64 = 4 * 1024;

/// With so many runs merging does not rest.
const MANY: usize = 4 * FAN;

/// How long what has failed is not tried again.
const PAUSE: Duration = Duration::from_secs(10);

/// Runs that are merged, and what became of those before.
#[derive(Debug, Default)]
pub(super) struct Merging {
    running: Option<Running>,
    failed: Option<(Instant, Error)>,
    /// Runs most of whose entries are of tables that are gone.
    dead: BTreeSet<u64>,
    /// What is told when a thread is done.
    told: Told,
}

/// Somebody who is told that something is done.
#[derive(Clone, Default)]
struct Told(Option<Arc<dyn Fn() + Send + Sync>>);

impl Told {
    fn tell(&self) {
        self.0.iter().for_each(|tell| tell());
    }
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

#[derive(Debug)]
struct Running {
    /// The number of the new run.
    id: u64,
    /// Those that it is made of, the newest first.
    of: Vec<u64>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<Result<Option<RunName>>>,
}

/// What the thread does.
struct Work {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    id: u64,
    runs: Vec<RunName>,
    /// Tables that are defined.
    tables: BTreeSet<u32>,
    expired_below: BTreeMap<u32, i64>,
    ending: Ending,
    rests: bool,
    stop: Arc<AtomicBool>,
}

impl Merging {
    /// The number of the run that is being written.
    pub(super) fn writes(&self) -> Option<u64> {
        self.running.as_ref().map(|running| running.id)
    }

    /// Why runs are not merged.
    pub(super) fn trouble(&self) -> Option<&Error> {
        self.failed.as_ref().map(|(_, error)| error)
    }

    /// Begins to merge runs of a manifest that is decided, where some should be, into the run with
    /// this number; false when nothing was begun.
    pub(super) fn begin(&mut self, disk: &Arc<dyn Disk>, path: &Path, m: &Manifest) -> bool {
        let rests = self.failed.as_ref().is_some_and(|(at, _)| at.elapsed() < PAUSE);
        let sizes: Vec<u64> = m.runs.iter().map(|run| run.entries).collect();
        let alone = |run: usize| run..run + 1;
        let dead = || m.runs.iter().position(|run| self.dead.contains(&run.id)).map(alone);
        let which = due(&sizes).or_else(dead);
        let Some(which) = which.filter(|_| self.running.is_none() && !rests) else {
            return false;
        };
        let last = which.end == m.runs.len();
        let stop = Arc::new(AtomicBool::new(false));
        let work = Work {
            disk: Arc::clone(disk),
            path: path.to_owned(),
            id: m.next_run,
            runs: m.runs[which].to_vec(),
            tables: m.tables.keys().copied().collect(),
            expired_below: m.expired_below.clone(),
            ending: if last { Ending::Last } else { Ending::Open },
            rests: m.runs.len() < MANY,
            stop: Arc::clone(&stop),
        };
        let (id, of) = (work.id, work.runs.iter().map(|run| run.id).collect());
        let (done, told) = (Arc::new(AtomicBool::new(false)), self.told.clone());
        let is_done = Arc::clone(&done);
        let run = move || {
            let merged = work.run();
            is_done.store(true, Ordering::Release);
            if !matches!(merged, Ok(None)) {
                told.tell();
            }
            merged
        };
        match std::thread::Builder::new().name("merge".into()).spawn(run) {
            Ok(thread) => self.running = Some(Running { id, of, stop, done, thread }),
            Err(error) => self.fail(error.into()),
        }
        self.running.is_some()
    }

    /// A run is to be written anew without what is of tables that are gone.
    pub(super) fn rewrite(&mut self, run: u64) {
        self.dead.insert(run);
    }

    /// Tells somebody when runs have been merged, which the next manifest would name, or could not
    /// be and should be again.
    pub(super) fn tell(&mut self, tell: Arc<dyn Fn() + Send + Sync>) {
        self.told = Told(Some(tell));
    }

    /// It is tried again after a pause, though nothing may change until then.
    fn fail(&mut self, error: Error) {
        self.failed = Some((Instant::now(), error));
        let told = self.told.clone();
        let again = move || {
            std::thread::sleep(PAUSE);
            told.tell();
        };
        // Without the thread the next change does it.
        drop(std::thread::Builder::new().name("merge-again".into()).spawn(again));
    }

    /// Gives the room back that a merged run would take; false when there is none.
    pub(super) fn give_up(&mut self) -> bool {
        let Some(running) = self.running.take() else { return false };
        running.stop.store(true, Ordering::Relaxed);
        // Done or not, nothing names it.
        drop(running.join());
        self.fail(full());
        true
    }

    /// Puts what has been merged in the place of what it is made of.
    pub(super) fn take(&mut self, runs: &mut Vec<RunName>) {
        let is_done = |running: &mut Running| {
            running.done.load(Ordering::Acquire) || running.thread.is_finished()
        };
        let Some(running) = self.running.take_if(is_done) else {
            return;
        };
        match running.join() {
            Ok(None) => {}
            Ok(Some((of, merged))) => {
                self.failed = None;
                let ids: Vec<u64> = runs.iter().map(|run| run.id).collect();
                self.dead.retain(|id| !of.contains(id));
                if let Some(at) = ids.windows(of.len()).position(|ids| ids == of) {
                    runs.splice(at..at + of.len(), [merged]);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "runs could not be merged");
                self.fail(error);
            }
        }
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.store(true, Ordering::Relaxed);
            // What it has written is nothing to the next life.
            drop(running.join());
        }
    }
}

impl Running {
    fn join(self) -> Result<Option<(Vec<u64>, RunName)>> {
        let merged = self.thread.join();
        let merged = merged.map_err(|_| Error::internal("merging runs ended with a panic"))??;
        Ok(merged.map(|merged| (self.of, merged)))
    }
}

impl Work {
    /// Merges; nothing when it is told to stop.
    fn run(self) -> Result<Option<RunName>> {
        let path = run_path(&self.path, self.id);
        let merged = self.merge();
        if !matches!(merged, Ok(Some(_))) {
            // Parts of a file take room that others need.
            drop(self.disk.remove(&path));
        }
        merged
    }

    fn merge(&self) -> Result<Option<RunName>> {
        let runs = self.runs.iter().map(|run| open_run(self.disk.as_ref(), &self.path, run));
        let runs = runs.collect::<Result<Vec<RunReader>>>()?;
        let mut entries: BTreeMap<u32, u64> = BTreeMap::new();
        for (table, of_run) in runs.iter().flat_map(RunReader::tables) {
            // What no definition has any more is left out.
            if self.tables.contains(table) {
                *entries.entry(*table).or_default() += of_run;
            }
        }
        let path = run_path(&self.path, self.id);
        let mut writer = RunWriter::create(self.disk.as_ref(), &path)?;
        for (table, entries) in entries {
            let expired = self.expired_below.get(&table).copied();
            for groups in pieces(entries) {
                let begun = Instant::now();
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let out = &mut |hash: u64, record: &[u8]| writer.push(table, hash, record);
                merged_into(&runs, table, &groups, (expired, self.ending), out)?;
                failpoint::reach("run-half-merged");
                if self.rests {
                    std::thread::sleep(begun.elapsed());
                }
            }
        }
        let merged = RunName::new(self.id, writer.finish()?);
        failpoint::reach("run-merged");
        Ok(Some(merged))
    }
}

/// Why runs that were being merged are not.
fn full() -> Error {
    Error::external(sqlstate::DISK_FULL, "there was no room beside a checkpoint")
}

/// The runs that should be merged, by how many entries each has, the newest first.
fn due(runs: &[u64]) -> Option<Range<usize>> {
    let (oldest, newer) = runs.split_last()?;
    if runs.len() >= FAN && newer.iter().sum::<u64>() >= *oldest {
        return Some(0..runs.len());
    }
    // A small run among large ones is of their tier.
    let tiers = runs.iter().scan(0, |tier, entries| {
        *tier = tier_of(*entries).max(*tier);
        Some(*tier)
    });
    let tiers: Vec<u32> = tiers.collect();
    let mut from = 0;
    for tier in tiers.chunk_by(|a, b| a == b) {
        if tier.len() >= FAN {
            return Some(from..from + tier.len());
        }
        from += tier.len();
    }
    None
}

fn tier_of(entries: u64) -> u32 {
    (entries / SMALL).checked_ilog(FAN as u64).map_or(0, |tier| tier + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes runs of `each` entries, all of other keys, and merges what is due; returns how often
    /// an entry is written in the mean, and how many runs there are at most.
    fn grow(runs: &mut Vec<u64>, each: u64, times: u64, distinct: bool) -> (f64, usize) {
        let (base, mut written, mut most) = (runs.iter().sum::<u64>(), 0, 0);
        for _ in 0..times {
            runs.insert(0, each);
            written += each;
            while let Some(which) = due(runs) {
                let all = which.len() == runs.len();
                let sum: u64 = runs[which.clone()].iter().sum();
                let merged = if all && !distinct { base.max(each) } else { sum };
                written += merged;
                runs.splice(which, [merged]);
            }
            most = most.max(runs.len());
        }
        (written as f64 / (each * times) as f64, most)
    }

    #[test]
    fn a_large_run_is_left_alone_by_small_ones() {
        assert_eq!(due(&[9; 7]), None);
        let mut runs = vec![100; 7];
        runs.push(30_000_000);
        assert_eq!(due(&runs), None);
        runs.insert(0, 100);
        assert_eq!(due(&runs), Some(0..8));
        runs = vec![100, 100, 40_000, 100, 50_000, 60_000, 50_000, 40_000, 40_000, 50_000];
        runs.push(30_000_000);
        assert_eq!(due(&runs), Some(2..10));
    }

    #[test]
    fn an_entry_is_written_a_few_times() {
        // A table that grows, and one of which rows are replaced.
        let (often, most) = grow(&mut Vec::new(), 300_000, 10_000, true);
        assert!(often < 7.0 && most < 40, "{often} times, {most} runs");
        let (often, most) = grow(&mut vec![30_000_000], 300_000, 10_000, false);
        assert!(often < 6.0 && most < 40, "{often} times, {most} runs");
        let (often, most) = grow(&mut vec![3_000_000_000], 1_000, 100_000, false);
        assert!(often < 7.0 && most < 60, "{often} times, {most} runs");
    }
}
