//! What a sink and the thread that drives it say to each other: deliveries on their way out, what
//! has arrived of them, what was refused, and where the receiver stands.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::delta::DeltaBatch;
use crate::error::{Error, Retry};
use crate::time::Epoch;

/// The changes of one epoch, or a piece of a snapshot: what arrives as a whole or is written again.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The epoch.
    pub epoch: Epoch,
    /// Its changes.
    pub changes: &'a [DeltaBatch],
    /// The numbers of messages that are left out, from 0 in the order in which they are made.
    pub skip: &'a BTreeSet<usize>,
}

/// Where a view's changes go. Lives on a thread of its own.
///
/// Contract: (1) `write` is given deliveries in ascending order of their epochs, each consolidated
/// with retractions before inserts of one key unless `is_ordered` says no; it does not wait for
/// them to arrive; (2) what `arrived` counts is with the receiver, in that order; (3) after a
/// [`Failure`] the caller either calls `restart` and writes everything again that has not arrived,
/// or gives up: delivery is at least once, and the last message of a key is always that of its last
/// epoch; (4) the messages of a delivery are the same each time that it is written.
pub trait Sink: Send {
    /// Takes a delivery.
    fn write(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure>;

    /// Whether it takes another one now; `arrived` makes room.
    fn is_ready(&self) -> bool {
        true
    }

    /// How many deliveries have arrived since it was asked last. Waits up to `wait` when some are
    /// under way.
    fn arrived(&mut self, wait: Duration) -> Result<usize, Failure>;

    /// Forgets what has not arrived: it will be written again. How many deliveries have arrived
    /// since it was asked last, once nothing is under way any more.
    fn restart(&mut self) -> usize;

    /// Whether the order of changes inside of an epoch matters, and that they come at once.
    fn is_ordered(&self) -> bool {
        true
    }

    /// Where the receiver stands. May ask it, when it has been silent.
    fn receiver(&mut self) -> Receiver {
        Receiver::Local
    }
}

/// Why a delivery did not get through.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The error; retriable or not.
    pub error: Error,
    /// The message that it is about, where it is about one.
    pub refused: Option<Refused>,
}

impl Failure {
    /// Whether writing the same again can help.
    pub fn is_permanent(&self) -> bool {
        self.error.retry() == Retry::Never
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, refused: None }
    }
}

/// A message that the receiver does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its delivery, counted from 0 at the oldest that has not arrived.
    pub delivery: usize,
    /// Its number in that delivery.
    pub message: usize,
    /// What it is, for people: its key, or else how it begins.
    pub what: String,
}

/// What is left of the messages of a delivery without those to be skipped.
pub(super) fn kept<'a, M>(
    messages: &'a [M],
    skip: &'a BTreeSet<usize>,
) -> impl Iterator<Item = &'a M> {
    messages.iter().enumerate().filter(|(i, _)| !skip.contains(i)).map(|(_, message)| message)
}

/// Where a receiver stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Receiver {
    /// Nothing lies between us and it.
    #[default]
    Local,
    /// It has not answered yet.
    Connecting,
    /// It answers.
    Connected,
    /// It can't be reached.
    Unreachable {
        /// Since when.
        since: DateTime<Utc>,
        /// The last error.
        reason: String,
    },
}

impl Receiver {
    /// How long it has not been reached.
    pub fn away(&self) -> Option<Duration> {
        match self {
            Receiver::Unreachable { since, .. } => {
                Some((Utc::now() - since).to_std().unwrap_or_default())
            }
            _ => None,
        }
    }
}
