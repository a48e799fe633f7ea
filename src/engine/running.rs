//! Queries at work, on threads of their own: the operating system shares the processor between
//! them and everybody else, so that a query that computes for minutes delays nobody's.
//!
//! A thread makes batches as long as its reader has room for them, in number and in bytes, and is
//! given back when there is none, so that a reader that does not read holds a few rows but no
//! thread. Dropping the [`Running`]
//! ends the query, wherever it is.

use std::any::Any;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Core;
use crate::cancel::{Cancel, CancelOnDrop, under};
use crate::error::{Error, Result};
use crate::expr::from_datafusion;
use crate::sql::Settings;
use crate::sql::memory::QueryMemory;

/// Batches of a query that may wait for its reader.
const QUEUE_BATCHES: usize = 4;

/// Kilobytes of batches that may wait; a larger batch waits alone.
const QUEUE_KB: u32 = 32 << 10;

/// A query that runs.
pub(super) struct Running {
    batches: Option<mpsc::Receiver<Message>>,
    memory: Option<QueryMemory>,
    _ends: CancelOnDrop,
}

/// A batch, or `None` for the end: told apart from a thread that has died on the way.
type Message = Result<Option<Waiting>>;

/// A batch with the room that it takes.
struct Waiting {
    batch: RecordBatch,
    _room: OwnedSemaphorePermit,
}

struct Work {
    stream: SendableRecordBatchStream,
    batches: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    /// A batch for which there was no room.
    made: Option<RecordBatch>,
    cancel: Cancel,
    /// What has to live as long as the query, such as its pin.
    _kept: Box<dyn Any + Send>,
}

impl Running {
    /// Starts a query. `cancel` is looked at by its operators.
    pub(super) fn start(
        core: &Core,
        stream: SendableRecordBatchStream,
        settings: &Settings,
        kept: impl Any + Send,
    ) -> Result<Self> {
        let cancel = settings.cancel.clone();
        let queries = core.queries.as_ref();
        let queries = queries.ok_or_else(|| Error::internal("the engine has no query threads"))?;
        let (sender, receiver) = mpsc::channel(QUEUE_BATCHES);
        let ends = cancel.on_drop();
        let room = Arc::new(Semaphore::new(QUEUE_KB as usize));
        let kept = Box::new(kept);
        let work = Work { stream, batches: sender, room, made: None, cancel, _kept: kept };
        work.spawn(queries.handle());
        Ok(Self { batches: Some(receiver), memory: settings.memory.clone(), _ends: ends })
    }

    /// The next batch; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        let batches = self.batches.as_mut()?;
        let message = batches.recv().await;
        match message {
            Some(Ok(Some(waiting))) => return Some(Ok(waiting.batch)),
            Some(Ok(None)) => self.batches = None,
            Some(Err(error)) => {
                self.batches = None;
                return Some(Err(error));
            }
            None => {
                self.batches = None;
                return Some(Err(Error::internal("the query ended with a panic")));
            }
        }
        None
    }

    /// All batches; until they are all there they count as memory of the query.
    pub(super) async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let held = self.memory.as_ref().map(|memory| memory.reserve("rows at hand"));
        let mut all = Vec::new();
        while let Some(batch) = self.next().await {
            let batch = batch?;
            if let Some(held) = &held {
                held.grow(batch.get_array_memory_size())?;
            }
            all.push(batch);
        }
        Ok(all)
    }
}

impl Work {
    fn spawn(self, runtime: &Handle) {
        let handle = runtime.clone();
        drop(runtime.spawn_blocking(move || {
            // For what works long on one batch: sorts and aggregates.
            let cancel = self.cancel.clone();
            let filled = under(&cancel, || handle.block_on(self.fill()));
            let Some(mut work) = filled else { return };
            let runtime = handle.clone();
            drop(handle.spawn(async move {
                if work.wait().await.is_some() {
                    work.spawn(&runtime);
                }
            }));
        }));
    }

    /// Waits for room; `None` when nobody listens any more.
    async fn wait(&mut self) -> Option<()> {
        if let Some(batch) = self.made.take() {
            let room = Arc::clone(&self.room).acquire_many_owned(room_of(&batch));
            let room = tokio::select! {
                room = room => room.ok()?,
                () = self.batches.closed() => return None,
            };
            self.batches.send(Ok(Some(Waiting { batch, _room: room }))).await.ok()?;
        }
        self.batches.reserve().await.ok().map(drop)
    }

    /// Makes batches until there is no room for more; `None` when it has come to its end.
    async fn fill(mut self) -> Option<Self> {
        while self.batches.capacity() > 0 {
            let next = match self.cancel.check() {
                Err(error) => Err(error),
                Ok(()) => self.stream.next().await.transpose().map_err(from_datafusion),
            };
            // There is room for the message, as nobody else sends.
            let batch = match next {
                Ok(Some(batch)) => batch,
                Ok(None) => return self.end(Ok(None)),
                Err(error) => return self.end(Err(error)),
            };
            let room = Arc::clone(&self.room).try_acquire_many_owned(room_of(&batch));
            let Ok(room) = room else {
                self.made = Some(batch);
                break;
            };
            // Nobody listening ends the query.
            self.batches.try_send(Ok(Some(Waiting { batch, _room: room }))).ok()?;
        }
        (!self.batches.is_closed()).then_some(self)
    }

    fn end(self, last: Message) -> Option<Self> {
        drop(self.batches.try_send(last));
        None
    }
}

fn room_of(batch: &RecordBatch) -> u32 {
    let kb = batch.get_array_memory_size() / 1024;
    u32::try_from(kb).unwrap_or(u32::MAX).clamp(1, QUEUE_KB)
}
