//! The backlog of checkpoints: what state tables have logged and what was cut, as long as it is not
//! on the disk. It is memory, so it has a limit: much of it is cut before the interval has passed,
//! and when writing does not keep up, or the disk is full, rows wait in front of the engine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::coordinator::Coordinator;
use super::graph::NodeId;
use crate::error::Error;
use crate::time::Epoch;

/// How often logs are measured.
const MEASURE: Duration = Duration::from_millis(50);

/// Rows wait when there is so many times the backlog for which a checkpoint is cut early.
const FULL: usize = 4;

/// What is not on the disk yet.
#[derive(Debug)]
pub(super) struct Backlog {
    /// So much of it is cut early.
    early: usize,
    /// Bytes of logs that were not cut.
    logged: usize,
    measured: (Instant, Epoch),
    /// Bytes that were cut and not written.
    pub cut: Arc<AtomicUsize>,
    /// The last cut could not be written.
    pub failing: Option<Error>,
}

impl Backlog {
    pub fn new(early: usize) -> Self {
        let measured = (Instant::now(), Epoch::ZERO);
        Self { early, logged: 0, measured, cut: Arc::default(), failing: None }
    }

    /// Takes what was logged for cut.
    pub fn taken(&mut self) {
        self.logged = 0;
    }

    /// Whether to cut before it is time.
    pub fn is_large(&self) -> bool {
        self.logged > self.early
    }

    /// Whether rows have to wait.
    pub fn is_full(&self) -> bool {
        self.logged.saturating_add(self.cut.load(Ordering::Relaxed)) > FULL * self.early
    }
}

impl Coordinator {
    /// Measures what tables have logged, now and then.
    pub(super) fn measure_backlog(&mut self) {
        let Some(checkpointer) = &self.checkpointer else { return };
        let (at, epoch) = checkpointer.backlog.measured;
        if epoch == self.epoch || at.elapsed() < MEASURE {
            return;
        }
        let built = self.built_nodes();
        let logged = self.team.logged_bytes(&built).into_iter().sum();
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.backlog.logged = logged;
            checkpointer.backlog.measured = (Instant::now(), self.epoch);
        }
    }

    /// The nodes of what is being built: their logs are kept until it is complete.
    pub(super) fn built_nodes(&self) -> BTreeSet<NodeId> {
        let members = self.builds.iter().flat_map(|build| build.members());
        members.flat_map(|member| self.graph.nodes_of(*member)).collect()
    }

    /// Whether all rows wait, since what they change could not be kept in memory.
    pub(super) fn is_backlog_full(&self) -> bool {
        self.checkpointer.as_ref().is_some_and(|c| c.backlog.is_full())
    }

    /// Bytes of what is not on the disk yet.
    pub(super) fn backlog_bytes(&self) -> usize {
        let backlog = self.checkpointer.as_ref().map(|c| &c.backlog);
        backlog.map_or(0, |b| b.logged.saturating_add(b.cut.load(Ordering::Relaxed)))
    }

    /// Why rows wait for checkpoints, when they do and these fail.
    pub(super) fn backlog_obstacle(&self) -> Option<Error> {
        let checkpointer = self.checkpointer.as_ref().filter(|c| c.backlog.is_full())?;
        let error = checkpointer.backlog.failing.clone()?;
        Some(error.context("checkpoints can't be written").with_hint("SHOW CHECKPOINTS;"))
    }

    /// The same in words.
    pub(super) fn backlog_detail(&self) -> Option<String> {
        let checkpointer = self.checkpointer.as_ref().filter(|c| c.backlog.is_full())?;
        Some(match &checkpointer.backlog.failing {
            Some(error) => format!("a checkpoint ({error})"),
            None => "a checkpoint (its disk is slower than the changes)".to_owned(),
        })
    }
}
