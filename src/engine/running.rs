//! Queries at work, on threads of their own: the operating system shares the processor between
//! them and everybody else, so that a query that computes for minutes delays nobody's.
//!
//! A thread makes batches as long as its reader has room for them, and is given back when there is
//! none, so that a reader that does not read holds rows but no thread. Dropping the [`Running`]
//! ends the query, wherever it is.

use std::any::Any;

use arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Core;
use crate::cancel::{Cancel, CancelOnDrop};
use crate::error::{Error, Result};
use crate::expr::from_datafusion;

/// Batches of a query that may wait for its reader.
const QUEUE_BATCHES: usize = 4;

/// A query that runs.
pub(super) struct Running {
    batches: Option<mpsc::Receiver<Message>>,
    _ends: CancelOnDrop,
}

/// A batch, or `None` for the end: told apart from a thread that has died on the way.
type Message = Result<Option<RecordBatch>>;

struct Work {
    stream: SendableRecordBatchStream,
    batches: mpsc::Sender<Message>,
    cancel: Cancel,
    /// What has to live as long as the query, such as its pin.
    _kept: Box<dyn Any + Send>,
}

impl Running {
    /// Starts a query. `cancel` is looked at by its operators.
    pub(super) fn start(
        core: &Core,
        stream: SendableRecordBatchStream,
        cancel: Cancel,
        kept: impl Any + Send,
    ) -> Result<Self> {
        let queries = core.queries.as_ref();
        let queries = queries.ok_or_else(|| Error::internal("the engine has no query threads"))?;
        let (sender, receiver) = mpsc::channel(QUEUE_BATCHES);
        let ends = cancel.on_drop();
        let work = Work { stream, batches: sender, cancel, _kept: Box::new(kept) };
        work.spawn(queries.handle());
        Ok(Self { batches: Some(receiver), _ends: ends })
    }

    /// The next batch; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        let batches = self.batches.as_mut()?;
        let message = batches.recv().await;
        match message {
            Some(Ok(Some(batch))) => return Some(Ok(batch)),
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

    /// All batches.
    pub(super) async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut all = Vec::new();
        while let Some(batch) = self.next().await {
            all.push(batch?);
        }
        Ok(all)
    }
}

impl Work {
    fn spawn(self, runtime: &Handle) {
        let handle = runtime.clone();
        drop(runtime.spawn_blocking(move || {
            let Some(work) = handle.block_on(self.fill()) else { return };
            let runtime = handle.clone();
            drop(handle.spawn(async move {
                if work.batches.reserve().await.is_ok() {
                    work.spawn(&runtime);
                }
            }));
        }));
    }

    /// Makes batches until there is no room for more; `None` when it has come to its end.
    async fn fill(mut self) -> Option<Self> {
        while self.batches.capacity() > 0 {
            let message = match self.cancel.check() {
                Err(error) => Err(error),
                Ok(()) => self.stream.next().await.transpose().map_err(from_datafusion),
            };
            let more = matches!(message, Ok(Some(_)));
            // Nobody listening ends the query; there is room, as nobody else sends.
            if self.batches.try_send(message).is_err() || !more {
                return None;
            }
        }
        (!self.batches.is_closed()).then_some(self)
    }
}
