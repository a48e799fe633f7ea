//! Sink tasks: a thread per sink that writes whole epochs and retries until they are through,
//! without ever holding an epoch of the engine.
//!
//! Delivery is at least once: an epoch whose write failed half-way is written again from its
//! beginning. While too much waits for a sink, ingestion pauses.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::shared::{Pin, lock};
use crate::catalog::RelationId;
use crate::config::{BACKFILL_SLICE_ROWS, RETRY_BACKOFF, SINK_QUEUE_ROWS};
use crate::connector::Sink;
use crate::delta::DeltaBatch;
use crate::error::{Error, Result, Retry};
use crate::state::ResultTable;
use crate::time::Epoch;

/// Where a sink stands, for SHOW SINKS.
#[derive(Debug, Clone, Default)]
pub struct SinkState {
    /// `running`, `unavailable`, `failed`.
    pub state: String,
    /// Why, where there is something to say.
    pub detail: Option<String>,
    /// The last epoch that is with the receiver.
    pub delivered: Epoch,
    /// Rows written.
    pub rows: u64,
}

/// The changes of one epoch.
pub struct SinkFeed {
    /// The epoch.
    pub epoch: Epoch,
    /// Its changes.
    pub changes: Vec<DeltaBatch>,
}

enum Order {
    Snapshot(Pin, Arc<ResultTable>),
    Write(SinkFeed),
    Flush(tokio::sync::oneshot::Sender<()>),
}

/// A running sink.
pub struct SinkTask {
    orders: Sender<Order>,
    waiting: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    /// Its changes go through in the batches that they come in: they are consolidated, and it does
    /// not ask for an order.
    pub as_they_come: bool,
    /// Where it stands.
    pub state: Arc<Mutex<SinkState>>,
}

impl SinkTask {
    /// Starts the thread; `consolidated` tells that changes come without duplicates.
    pub fn start(relation: RelationId, sink: Box<dyn Sink>, consolidated: bool) -> Result<Self> {
        let as_they_come = consolidated && !sink.is_ordered();
        let (orders, receiver) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let state =
            Arc::new(Mutex::new(SinkState { state: "running".into(), ..SinkState::default() }));
        let thread = SinkThread {
            sink,
            orders: receiver,
            waiting: waiting.clone(),
            stop: stop.clone(),
            state: state.clone(),
        };
        std::thread::Builder::new().name(format!("sink-{relation}")).spawn(move || thread.run())?;
        Ok(Self { orders, waiting, stop, as_they_come, state })
    }

    /// Queues all rows of a table as of a pinned epoch; they are read when it is their turn.
    pub fn snapshot(&self, pin: Pin, table: Arc<ResultTable>) {
        drop(self.orders.send(Order::Snapshot(pin, table)));
    }

    /// Queues the changes of an epoch.
    pub fn write(&self, feed: SinkFeed) {
        let rows: usize = feed.changes.iter().map(DeltaBatch::len).sum();
        self.waiting.fetch_add(rows, Ordering::Relaxed);
        drop(self.orders.send(Order::Write(feed)));
    }

    /// Whether so much waits that ingestion should pause.
    pub fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > SINK_QUEUE_ROWS
    }

    /// Told when everything queued so far has been delivered.
    pub fn flushed(&self) -> tokio::sync::oneshot::Receiver<()> {
        let (done, receiver) = tokio::sync::oneshot::channel();
        drop(self.orders.send(Order::Flush(done)));
        receiver
    }
}

impl Drop for SinkTask {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct SinkThread {
    sink: Box<dyn Sink>,
    orders: Receiver<Order>,
    waiting: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    state: Arc<Mutex<SinkState>>,
}

impl SinkThread {
    fn run(mut self) {
        loop {
            match self.orders.recv_timeout(Duration::from_millis(100)) {
                Ok(Order::Write(feed)) => {
                    if self.deliver(&feed).is_err() {
                        return;
                    }
                }
                Ok(Order::Snapshot(pin, table)) => {
                    if self.deliver_snapshot(&pin, &table).is_err() {
                        return;
                    }
                }
                Ok(Order::Flush(done)) => drop(done.send(())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn deliver_snapshot(&mut self, pin: &Pin, table: &ResultTable) -> Result<()> {
        for shard in 0..table.shards() {
            let mut cursor = Some(0);
            while let Some(from) = cursor {
                let slice = table.read(shard).scan(pin.epoch, from, BACKFILL_SLICE_ROWS)?;
                cursor = slice.next;
                if !slice.rows.is_empty() {
                    self.waiting.fetch_add(slice.rows.len(), Ordering::Relaxed);
                    self.deliver(&SinkFeed { epoch: pin.epoch, changes: vec![slice.rows] })?;
                }
            }
        }
        Ok(())
    }

    /// Writes an epoch, again and again while that can help.
    fn deliver(&mut self, feed: &SinkFeed) -> Result<()> {
        let mut pause = RETRY_BACKOFF.0;
        loop {
            match self.write(feed) {
                Ok(rows) => {
                    self.waiting.fetch_sub(rows, Ordering::Relaxed);
                    let mut state = lock(&self.state);
                    state.state = "running".into();
                    state.detail = None;
                    state.delivered = feed.epoch;
                    state.rows += rows as u64;
                    return Ok(());
                }
                Err(error) => {
                    let permanent = error.retry() == Retry::Never;
                    let mut state = lock(&self.state);
                    state.state = if permanent { "failed" } else { "unavailable" }.into();
                    state.detail = Some(error.to_string());
                    drop(state);
                    if permanent {
                        tracing::error!(%error, "sink failed");
                        self.waiting.store(0, Ordering::Relaxed);
                        return Err(error);
                    }
                    self.sleep(pause)?;
                    pause = (pause * 2).min(RETRY_BACKOFF.1);
                }
            }
        }
    }

    fn write(&mut self, feed: &SinkFeed) -> Result<usize> {
        for changes in &feed.changes {
            self.sink.write(feed.epoch, changes)?;
        }
        self.sink.flush()?;
        Ok(feed.changes.iter().map(DeltaBatch::len).sum())
    }

    fn sleep(&self, pause: Duration) -> Result<()> {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::internal("the sink was dropped"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
