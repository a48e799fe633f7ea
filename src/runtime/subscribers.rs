//! Subscribers: those who want every change of a relation, epoch by epoch.
//!
//! A subscriber that does not read is cut off with 53400 once too many rows wait for it; it never
//! holds an epoch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::config::SUBSCRIBER_QUEUE_ROWS;
use crate::delta::DeltaBatch;
use crate::error::{Error, Result, sqlstate};
use crate::time::Epoch;

/// One element of a subscription. Epochs ascend; inside one, retractions come first, in key order.
#[derive(Debug, Clone)]
pub enum SubscriberEvent {
    /// The changes of one epoch (first of all the snapshot, when it was asked for).
    Changes {
        /// Their epoch.
        epoch: Epoch,
        /// Rows and weights, consolidated.
        changes: DeltaBatch,
    },
    /// Everything up to and including this epoch has been delivered.
    Progress(Epoch),
}

/// The sending half, kept by the coordinator.
#[derive(Debug)]
pub struct Subscriber {
    events: UnboundedSender<Result<SubscriberEvent>>,
    waiting: Arc<AtomicUsize>,
    progress: bool,
}

/// The receiving half.
#[derive(Debug)]
pub struct SubscriberEvents {
    events: UnboundedReceiver<Result<SubscriberEvent>>,
    waiting: Arc<AtomicUsize>,
}

impl Subscriber {
    /// A new subscription; with `progress` it is told of every epoch.
    pub fn channel(progress: bool) -> (Self, SubscriberEvents) {
        let (sender, receiver) = unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let events = SubscriberEvents { events: receiver, waiting: waiting.clone() };
        (Self { events: sender, waiting, progress }, events)
    }

    /// Hands on changes of an epoch, in pieces that a slow reader can be measured by. False: the
    /// subscription has ended.
    pub fn changes(&self, epoch: Epoch, changes: &DeltaBatch) -> bool {
        let waiting = self.waiting.fetch_add(changes.len(), Ordering::Relaxed) + changes.len();
        // One epoch may be larger than the limit: what counts is what it is added to.
        if waiting - changes.len() > SUBSCRIBER_QUEUE_ROWS {
            let error = Error::user(
                sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
                "subscription is too slow: too many changes wait for it",
            );
            let resume = format!("Everything before epoch {epoch} was delivered.");
            drop(self.events.send(Err(error.with_detail(resume))));
            return false;
        }
        let event = SubscriberEvent::Changes { epoch, changes: changes.clone() };
        self.events.send(Ok(event)).is_ok()
    }

    /// Tells that an epoch is complete. False: the subscription has ended.
    pub fn progress(&self, epoch: Epoch) -> bool {
        if self.progress {
            return self.events.send(Ok(SubscriberEvent::Progress(epoch))).is_ok();
        }
        !self.events.is_closed()
    }

    /// Ends the subscription with an error.
    pub fn fail(&self, error: Error) {
        drop(self.events.send(Err(error)));
    }
}

impl SubscriberEvents {
    /// The next event; `None` when the subscription has ended.
    pub async fn next(&mut self) -> Option<Result<SubscriberEvent>> {
        let event = self.events.recv().await?;
        if let Ok(SubscriberEvent::Changes { changes, .. }) = &event {
            self.waiting.fetch_sub(changes.len(), Ordering::Relaxed);
        }
        Some(event)
    }
}
