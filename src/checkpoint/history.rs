//! The checkpoints of a directory as they are shown: those that are kept, and why the next one is
//! not there yet.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Manifest;
use super::store::KEPT;
use crate::error::Error;

/// A checkpoint that is kept.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its number.
    pub number: u64,
    /// The epoch of its cut.
    pub epoch: u64,
    /// The clock of that epoch, in microseconds since 1970.
    pub now_us: i64,
    /// Entries in all its runs.
    pub entries: u64,
    /// The bytes of all its runs.
    pub bytes: u64,
    /// How many runs it has.
    pub runs: u64,
    /// What it has cost, where this life has made it.
    pub cost: Option<Cost>,
    /// Why its runs are not merged, where that has failed.
    pub trouble: Option<Error>,
}

/// What a checkpoint has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// How long the cut has held the epochs up.
    pub pause: Duration,
    /// How long it took to write.
    pub write: Duration,
    /// The bytes of the runs that were written for it, merged ones included.
    pub written: u64,
}

/// Why there is no newer checkpoint.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The newest error.
    pub error: Error,
    /// How many cuts could not be written since the last one that could.
    pub tries: u64,
    /// When the first of them failed.
    pub since: Instant,
}

/// The checkpoints of a directory, the oldest first.
#[derive(Debug, Default)]
pub struct History(Mutex<(VecDeque<Made>, Option<Failure>)>);

impl Made {
    /// A manifest as it is shown.
    pub fn of(manifest: &Manifest, cost: Option<Cost>) -> Self {
        Self {
            number: manifest.number,
            epoch: manifest.epoch,
            now_us: manifest.now_us,
            entries: manifest.runs.iter().map(|run| run.entries).sum(),
            bytes: manifest.runs.iter().map(|run| run.bytes).sum(),
            runs: manifest.runs.len() as u64,
            cost,
            trouble: None,
        }
    }
}

impl History {
    /// Notes a checkpoint that is decided.
    pub fn made(&self, made: Made) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0.push_back(made);
        while inner.0.len() > KEPT {
            inner.0.pop_front();
        }
        inner.1 = None;
    }

    /// Notes that one could not be written.
    pub fn failed(&self, error: Error) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = inner.1.take();
        let (tries, since) = before.map_or((0, Instant::now()), |f| (f.tries, f.since));
        inner.1 = Some(Failure { error, tries: tries + 1, since });
    }

    /// Those that are kept, and why there is no newer one.
    pub fn shown(&self) -> (Vec<Made>, Option<Failure>) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.0.iter().cloned().collect(), inner.1.clone())
    }
}
