//! The first rows of a sink whose messages are kept: all rows of a relation as of the epoch at
//! which the sink begins, written into a file of their own by a thread of their own. Until a
//! checkpoint names that file nothing of the sink is delivered; what changes meanwhile waits behind
//! it.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::coordinator::{Coordinator, Event};
use super::shared::Pin;
use super::sink_queue::SinkQueue;
use crate::catalog::RelationId;
use crate::checkpoint::{OutFile, OutWriter, Outboxes};
use crate::config::{BACKFILL_SLICE_ROWS, RETRY_BACKOFF};
use crate::error::Result;
use crate::format::{Message, Outgoing};
use crate::state::ResultTable;

/// What is to be written.
pub(super) struct FirstRows {
    pub(super) pin: Pin,
    pub(super) table: Arc<ResultTable>,
    pub(super) outgoing: Outgoing,
    /// Of the sink: when it ends, nobody wants them.
    pub(super) queue: Arc<SinkQueue>,
}

/// Starts the thread that writes first rows and tells the coordinator.
pub(super) fn open(
    relation: RelationId,
    mut rows: FirstRows,
    outboxes: Arc<Outboxes>,
    events: Sender<Event>,
) -> Result<()> {
    let run = move || {
        let mut pause = RETRY_BACKOFF.0;
        while !rows.is_unwanted() {
            match rows.write(relation, &outboxes) {
                Ok(None) => return,
                Ok(Some(file)) => {
                    let queue = Arc::clone(&rows.queue);
                    let opened = move |c: &mut Coordinator| c.sink_opened(relation, file, &queue);
                    // Who has ended wants nothing any more.
                    drop(events.send(Event::Call(Box::new(opened))));
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "first rows of a sink could not be written");
                    {
                        let mut backlog = rows.queue.lock();
                        backlog.note_failure(&error, false);
                        backlog.answer();
                    }
                    rows.queue.wait_for_end(Instant::now() + pause);
                    pause = (pause * 2).min(RETRY_BACKOFF.1);
                }
            }
        }
    };
    std::thread::Builder::new().name(format!("opening-{relation}")).spawn(run)?;
    Ok(())
}

impl FirstRows {
    fn is_unwanted(&self) -> bool {
        self.queue.lock().is_over_for_good()
    }

    /// Writes them; `None` when nobody wants them any more.
    fn write(&mut self, relation: RelationId, outboxes: &Outboxes) -> Result<Option<OutFile>> {
        let writer = outboxes.create()?;
        let id = writer.id;
        let written = self.write_into(relation, writer);
        let written = written.and_then(|file| outboxes.sync().map(|()| file));
        if !matches!(written, Ok(Some(_))) {
            outboxes.remove(id);
        }
        written
    }

    fn write_into(
        &mut self,
        relation: RelationId,
        mut writer: OutWriter,
    ) -> Result<Option<OutFile>> {
        let epoch = self.pin.epoch;
        writer.begin(relation.0)?;
        writer.epoch(epoch.0)?;
        let mut messages: Vec<Message> = Vec::new();
        let mut stored = self.table.rows(epoch);
        while let Some(rows) = stored.next(BACKFILL_SLICE_ROWS)? {
            if self.is_unwanted() {
                return Ok(None);
            }
            if rows.is_empty() {
                continue;
            }
            messages.clear();
            match self.outgoing.write(epoch.0, &rows, &mut messages) {
                Ok(()) => messages.iter().try_for_each(|message| writer.push(message))?,
                Err(error) => writer.broken(rows.len() as u64, error.message())?,
            }
        }
        writer.finish(0, true).map(Some)
    }
}
