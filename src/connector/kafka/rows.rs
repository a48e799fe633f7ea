//! Messages of one partition to rows, by the changelog that the topic carries.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::consume::{Message, Messages};
use super::include::IncludeColumns;
use super::reader::Split;
use super::startup;
use crate::connector::{Rejected, SourceBatch};
use crate::delta::batch_of;
use crate::error::Result;
use crate::format::{Changes, DecodeError};

/// Messages to rows.
pub(super) struct Rows {
    changes: Changes,
    include: IncludeColumns,
    /// The wanted columns: those of `changes`, then those of `include`.
    schema: SchemaRef,
}

impl Rows {
    pub(super) fn new(changes: Changes, include: IncludeColumns, schema: SchemaRef) -> Self {
        Self { changes, include, schema }
    }

    /// Decodes the messages of one split, and moves its position. `None` when it did not move.
    pub(super) fn decode(
        &mut self,
        messages: &Messages<'_>,
        split: &mut Split,
    ) -> Result<Option<SourceBatch>> {
        let first = split.next;
        let mut rejected = Vec::new();
        for index in &split.messages {
            let message = messages.get(*index as usize);
            if split.until.is_some_and(|until| message.offset >= until) {
                // The offsets up to the bound may have a gap at their end (compaction,
                // transactions).
                split.next = split.until.unwrap_or(split.next);
                break;
            }
            if message.error.is_some() {
                // The end of the partition: the offset is that of the next message to come.
                split.next = split.next.max(message.offset);
                continue;
            }
            split.next = message.offset + 1;
            if let Err(e) = self.append(messages, *index as usize) {
                rejected.push(reject(&message, e));
            }
        }
        split.ended = split.until.is_some_and(|until| split.next >= until);
        if split.next == first {
            return Ok(None);
        }
        let (rows, deletes) = self.changes.finish()?;
        Ok(Some(SourceBatch {
            split: startup::split(split.partition),
            rows: self.with_included(rows)?,
            deletes,
            rejected,
            next: split.next,
            lag: None,
        }))
    }

    #[inline]
    fn append(&mut self, messages: &Messages<'_>, index: usize) -> Result<(), DecodeError> {
        let message = messages.get(index);
        if self.include.is_empty() {
            return self.changes.read(message.key, message.payload);
        }
        self.include.check(messages, index)?;
        let before = self.changes.len();
        self.changes.read(message.key, message.payload)?;
        self.include.append(messages, index, self.changes.len() - before);
        Ok(())
    }

    fn with_included(&mut self, rows: RecordBatch) -> Result<RecordBatch> {
        if self.include.is_empty() {
            return Ok(rows);
        }
        let count = rows.num_rows();
        let columns = rows.columns().iter().cloned().chain(self.include.finish()).collect();
        batch_of(self.schema.clone(), columns, count)
    }
}

fn reject(message: &Message<'_>, e: DecodeError) -> Rejected {
    Rejected {
        position: message.offset,
        payload: message.payload.map(<[u8]>::to_vec),
        key: message.key.map(<[u8]>::to_vec),
        column: e.column,
        reason: e.reason,
    }
}
