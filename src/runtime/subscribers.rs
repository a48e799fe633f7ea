//! Subscribers: those who want every change of a relation, epoch by epoch.
//!
//! A subscriber that does not read is cut off with 53400 once too many rows or bytes wait for it;
//! it never holds an epoch. Changes are consolidated by the first one who reads them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::config::SUBSCRIBER_QUEUE_ROWS;
use crate::delta::{DeltaBatch, Order, concat, consolidate};
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

/// The changes of an epoch on their way to its subscribers.
#[derive(Debug)]
pub struct EpochChanges {
    rows: usize,
    bytes: usize,
    deltas: Vec<DeltaBatch>,
    folded: OnceLock<Result<DeltaBatch>>,
}

impl EpochChanges {
    /// Of one epoch: some.
    pub fn new(deltas: Vec<DeltaBatch>) -> Self {
        let rows = deltas.iter().map(DeltaBatch::len).sum();
        let bytes = deltas.iter().map(bytes_of).sum();
        Self { rows, bytes, deltas, folded: OnceLock::new() }
    }

    /// As subscribers see them.
    fn folded(&self) -> Result<DeltaBatch> {
        let fold = || match concat(&self.deltas)? {
            Some(all) => consolidate(&all, Order::Changelog),
            None => Err(Error::internal("an epoch without changes was handed on")),
        };
        self.folded.get_or_init(fold).clone()
    }
}

/// What is sent.
#[derive(Debug)]
enum Sent {
    Changes(Epoch, Arc<EpochChanges>),
    Progress(Epoch),
}

/// The sending half, kept by the coordinator.
#[derive(Debug)]
pub struct Subscriber {
    events: UnboundedSender<Result<Sent>>,
    waiting: Arc<Waiting>,
    limit_bytes: usize,
    progress: bool,
}

/// What waits for a subscriber.
#[derive(Debug, Default)]
struct Waiting {
    rows: AtomicUsize,
    bytes: AtomicUsize,
}

/// The receiving half.
#[derive(Debug)]
pub struct SubscriberEvents {
    events: UnboundedReceiver<Result<Sent>>,
    waiting: Arc<Waiting>,
}

impl Subscriber {
    /// A new subscription; with `progress` it is told of every epoch.
    /// `limit_bytes` may wait for it.
    pub fn channel(progress: bool, limit_bytes: usize) -> (Self, SubscriberEvents) {
        let (sender, receiver) = unbounded_channel();
        let waiting = Arc::new(Waiting::default());
        let events = SubscriberEvents { events: receiver, waiting: waiting.clone() };
        (Self { events: sender, waiting, limit_bytes, progress }, events)
    }

    /// Hands on changes of an epoch, in pieces that a slow reader can be measured by. False: the
    /// subscription has ended.
    pub fn changes(&self, epoch: Epoch, changes: &Arc<EpochChanges>) -> bool {
        let EpochChanges { rows, bytes, .. } = **changes;
        // One epoch may be larger than the limit: what counts is what it is added to.
        let rows_before = self.waiting.rows.fetch_add(rows, Ordering::Relaxed);
        let bytes_before = self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        let alone = rows_before == 0;
        let large = bytes_before.saturating_add(bytes) > self.limit_bytes;
        if rows_before > SUBSCRIBER_QUEUE_ROWS || (large && !alone) {
            let error = Error::user(
                sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
                "subscription is too slow: too many changes wait for it",
            );
            let resume = format!("Everything before epoch {epoch} was delivered.");
            drop(self.events.send(Err(error.with_detail(resume))));
            return false;
        }
        self.events.send(Ok(Sent::Changes(epoch, Arc::clone(changes)))).is_ok()
    }

    /// Bytes of changes that wait for it.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting.bytes.load(Ordering::Relaxed)
    }

    /// Tells that an epoch is complete. False: the subscription has ended.
    pub fn progress(&self, epoch: Epoch) -> bool {
        if self.progress {
            return self.events.send(Ok(Sent::Progress(epoch))).is_ok();
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
        loop {
            let (epoch, sent) = match self.events.recv().await? {
                Ok(Sent::Changes(epoch, sent)) => (epoch, sent),
                Ok(Sent::Progress(epoch)) => return Some(Ok(SubscriberEvent::Progress(epoch))),
                Err(error) => return Some(Err(error)),
            };
            self.waiting.rows.fetch_sub(sent.rows, Ordering::Relaxed);
            self.waiting.bytes.fetch_sub(sent.bytes, Ordering::Relaxed);
            match sent.folded() {
                Ok(changes) if changes.is_empty() => {}
                Ok(changes) => return Some(Ok(SubscriberEvent::Changes { epoch, changes })),
                Err(error) => {
                    // Without these changes what follows would be wrong.
                    self.events.close();
                    while self.events.try_recv().is_ok() {}
                    return Some(Err(error));
                }
            }
        }
    }
}

/// The memory of changes, about.
fn bytes_of(changes: &DeltaBatch) -> usize {
    changes.rows().get_array_memory_size() + changes.len() * size_of::<i64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    #[test]
    fn a_subscriber_is_cut_off_by_bytes_and_has_what_came_before() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, true)]));
        let text = StringArray::from(vec!["x".repeat(1000)]);
        let rows = RecordBatch::try_new(schema, vec![Arc::new(text)]).expect("a batch");
        let changes = Arc::new(EpochChanges::new(vec![DeltaBatch::inserts(rows)]));
        let each = changes.bytes;
        let (subscriber, mut events) = Subscriber::channel(false, 3 * each);
        let taken = (1..=5).take_while(|e| subscriber.changes(Epoch(*e), &changes)).count();
        assert_eq!(taken, 3);
        let mut next = || futures::FutureExt::now_or_never(events.next()).flatten();
        for epoch in 1..=3 {
            let event = next().expect("there is one").expect("is no error");
            assert!(matches!(event, SubscriberEvent::Changes { epoch: e, .. } if e.0 == epoch));
        }
        let error = next().expect("there is one").expect_err("is cut off");
        assert_eq!(error.sqlstate(), "53400");
        assert_eq!(error.detail(), Some("Everything before epoch 4 was delivered."));
        // One epoch larger than the limit is handed on alone.
        let (subscriber, _events) = Subscriber::channel(false, each / 2);
        assert!(subscriber.changes(Epoch(1), &changes));
        assert!(!subscriber.changes(Epoch(2), &changes));
    }
}
