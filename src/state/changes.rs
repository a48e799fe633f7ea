//! Changes: what a table has logged of itself, the newest last.
//!
//! A table that captures appends an entry where something of it changes, as its kind says; nothing
//! is read back before the buffer is taken, which swaps it out whatever its size. Tables that do
//! not capture have no buffer and pay for nothing but the look whether there is one.
//!
//! Of the newest epochs the log knows where they begin: when it is found that one has failed, the
//! next may have begun on the same table, and neither counts.

use super::entry::{Entries, Entry};
use crate::config::EPOCHS_AHEAD;
use crate::time::Epoch;

/// The log of a table.
#[derive(Debug, Default)]
pub struct Changes {
    log: Entries,
    /// Its length when the last epochs began, the oldest first.
    begun: Vec<(Epoch, usize)>,
    /// So many entries have been checked.
    checked: usize,
}

impl Changes {
    /// Appends an entry.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry<'_>) {
        self.log.push(entry);
    }

    /// An epoch begins: what is logged from here on goes with it, should it fail.
    pub(super) fn begin(&mut self, epoch: Epoch) {
        // It is known how an epoch has ended before more of them begin.
        if self.begun.len() == EPOCHS_AHEAD {
            self.begun.remove(0);
        }
        self.begun.push((epoch, self.log.len()));
    }

    /// Takes what was logged, in its order; of a table that has failed only what was logged up to
    /// the `last` epoch that counts.
    pub(super) fn take(&mut self, last: Option<Epoch>) -> Entries {
        let mut log = std::mem::take(&mut self.log);
        let failed = last.and_then(|last| self.begun.iter().find(|(epoch, _)| *epoch > last));
        if let Some((_, begun)) = failed {
            log.truncate(*begun);
        }
        self.begun.clear();
        self.checked = 0;
        log
    }

    /// What was logged since this was asked for the last time; it stays in the log.
    pub(super) fn unchecked(&mut self) -> Entries {
        let from = std::mem::replace(&mut self.checked, self.log.len());
        self.log.behind(from)
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.log.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.log.bytes()
    }
}
