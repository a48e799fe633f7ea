//! Messages of one partition to rows, by the changelog that the topic carries.

use arrow::array::BooleanArray;

use super::consume::{Message, Messages};
use super::reader::Split;
use super::startup;
use crate::connector::{Rejected, SourceBatch};
use crate::error::Result;
use crate::format::{DecodeError, Decoder};

/// Messages to rows.
pub(super) struct Rows {
    decoder: Box<dyn Decoder>,
    /// FORMAT UPSERT: the key columns among the wanted ones.
    key: Option<Vec<usize>>,
    /// For each row whether it is a deletion.
    deletes: Vec<bool>,
}

impl Rows {
    /// `key`: for FORMAT UPSERT, the key columns among those that `decoder` decodes.
    pub(super) fn new(decoder: Box<dyn Decoder>, key: Option<Vec<usize>>) -> Self {
        Self { decoder, key, deletes: Vec::new() }
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
            if let Err(e) = self.append(&message) {
                rejected.push(reject(&message, e));
            }
        }
        split.ended = split.until.is_some_and(|until| split.next >= until);
        if split.next == first {
            return Ok(None);
        }
        let deletes = std::mem::take(&mut self.deletes);
        Ok(Some(SourceBatch {
            split: startup::split(split.partition),
            rows: self.decoder.finish()?,
            deletes: deletes.contains(&true).then(|| BooleanArray::from(deletes)),
            rejected,
            next: split.next,
            lag: None,
        }))
    }

    #[inline]
    fn append(&mut self, message: &Message<'_>) -> Result<(), DecodeError> {
        match (&self.key, message.payload) {
            (None, Some(payload)) => self.decoder.decode(payload),
            (None, None) => Err(without("message has no value")),
            (Some(_), None) if message.key.is_none() => {
                Err(without("message has neither key nor value"))
            }
            (Some(columns), payload) => {
                self.decoder.decode_keyed(columns, message.key, payload)?;
                self.deletes.push(payload.is_none());
                Ok(())
            }
        }
    }
}

fn without(reason: &str) -> DecodeError {
    DecodeError { column: None, reason: reason.into() }
}

fn reject(message: &Message<'_>, e: DecodeError) -> Rejected {
    Rejected {
        position: message.offset,
        payload: message.payload.unwrap_or_default().to_vec(),
        key: message.key.map(<[u8]>::to_vec),
        column: e.column,
        reason: e.reason,
    }
}
