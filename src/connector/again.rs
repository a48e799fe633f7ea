//! Decoding messages again that were rejected: after the format of their table has been mended, or
//! by a program that knows more.

use arrow::array::RecordBatch;

use super::Rejected;
use crate::error::Result;
use crate::format::{Changes, DecodeError};

/// What rejected messages have become.
#[derive(Debug)]
pub struct Again {
    /// A row for each that is none of `rejected`, in their order.
    pub rows: RecordBatch,
    /// Those that can't be read still, by their places, with the reasons of this time.
    pub rejected: Vec<(usize, Rejected)>,
}

impl Again {
    /// Reads messages; `check` may refuse one for what is beside its value.
    pub(super) fn read(
        changes: &mut Changes,
        messages: &[Rejected],
        check: impl Fn(&Rejected) -> Result<(), DecodeError>,
    ) -> Result<Self> {
        let mut rejected = Vec::new();
        for (place, message) in messages.iter().enumerate() {
            let mut read = || changes.read(message.key.as_deref(), message.payload.as_deref());
            if let Err(DecodeError { column, reason }) = check(message).and_then(|()| read()) {
                rejected.push((place, Rejected { column, reason, ..message.clone() }));
            }
        }
        let (rows, _) = changes.finish()?;
        Ok(Self { rows, rejected })
    }

    /// The messages that have become rows.
    pub(super) fn decoded<'a>(
        &'a self,
        messages: &'a [Rejected],
    ) -> impl Iterator<Item = &'a Rejected> {
        let mut failed = self.rejected.iter().map(|(place, _)| *place).peekable();
        let places = messages.iter().enumerate();
        places.filter_map(move |(i, m)| failed.next_if_eq(&i).is_none().then_some(m))
    }
}
