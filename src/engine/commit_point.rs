//! The commit point of a statement: up to it the statement can be undone, by dropping its future;
//! behind it what it does is with the sequencer, and only its answer says what happened.
//!
//! So 57014 means that nothing happened. Whoever races a statement against a cancel request or a
//! timeout asks [`CommitPoint::is_passed`] before giving it up, and awaits [`CommitPoint::settle`]
//! afterwards, so that what the statement has begun to build is gone when its client is told.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::watch;

use crate::cancel::timed_out;

/// The commit point of the statement that a session runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommitPoint(Arc<State>);

#[derive(Debug, Default)]
struct State {
    // Set and read between two polls of one task: the order of memory is the task's.
    passed: AtomicBool,
    /// The number of removals that are under way.
    removals: watch::Sender<usize>,
}

/// A removal that is under way: it is done when this is dropped.
#[derive(Debug)]
pub(crate) struct Removal(CommitPoint);

impl Drop for Removal {
    fn drop(&mut self) {
        self.0.0.removals.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl CommitPoint {
    /// A statement begins, or goes on with what can be undone again.
    pub(crate) fn reset(&self) {
        self.0.passed.store(false, Ordering::Relaxed);
    }

    /// From here on the statement can't be given up. To be called in the same poll in which the
    /// change is handed to the sequencer.
    pub(crate) fn pass(&self) {
        self.0.passed.store(true, Ordering::Relaxed);
    }

    /// Whether the statement's change is with the sequencer.
    pub(crate) fn is_passed(&self) -> bool {
        self.0.passed.load(Ordering::Relaxed)
    }

    /// Something that a given-up statement has begun is being removed: until the value is dropped.
    pub(crate) fn removal(&self) -> Removal {
        self.0.removals.send_modify(|n| *n += 1);
        Removal(self.clone())
    }

    /// Waits until what a given-up statement has begun is gone. May be dropped and called again.
    pub(crate) async fn settle(&self) {
        // The sender is ours, so it is there as long as we are.
        drop(self.0.removals.subscribe().wait_for(|n| *n == 0).await);
    }

    /// Runs work unless an interrupt is first; behind the commit point to its end.
    pub(crate) async fn race<T, I>(
        &self,
        interrupt: impl Future<Output = I>,
        work: impl Future<Output = T>,
    ) -> Result<T, I> {
        let interrupted = {
            let mut work = pin!(work);
            let first = tokio::select! {
                biased;
                interrupted = interrupt => Some(interrupted),
                done = work.as_mut() => return Ok(done),
            };
            match first.filter(|_| !self.is_passed()) {
                Some(interrupted) => interrupted,
                None => return Ok(work.await),
            }
        };
        self.settle().await;
        Err(interrupted)
    }

    /// Runs work up to a deadline; behind the commit point, to its end. What it has begun and not
    /// ended is gone by then.
    pub(crate) async fn within<T>(
        &self,
        deadline: Option<Instant>,
        work: impl Future<Output = crate::error::Result<T>>,
    ) -> crate::error::Result<T> {
        let done = match deadline {
            None => work.await,
            Some(deadline) => {
                let passed = tokio::time::sleep_until(deadline.into());
                self.race(passed, work).await.unwrap_or_else(|()| Err(timed_out()))
            }
        };
        if done.is_err() {
            self.settle().await;
        }
        done
    }
}
