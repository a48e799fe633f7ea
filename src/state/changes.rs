//! Changes: what a table has logged of itself, the newest last.
//!
//! A table that captures appends an entry where something of it changes, as its kind says; nothing
//! is read back before the buffer is taken, which swaps it out whatever its size. Tables that do
//! not capture have no buffer and pay for nothing but the look whether there is one.

use super::entry::{Entries, Entry};

/// The log of a table.
#[derive(Debug, Default)]
pub struct Changes {
    log: Entries,
    /// Its length when the last epoch began.
    begun: usize,
}

impl Changes {
    /// Appends an entry.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry<'_>) {
        self.log.push(entry);
    }

    /// An epoch begins: what is logged from here on goes with it, should it fail.
    pub(super) fn begin(&mut self) {
        self.begun = self.log.len();
    }

    /// Takes what was logged, in its order; of a table that has failed without its last epoch.
    pub(super) fn take(&mut self, failed: bool) -> Entries {
        let mut log = std::mem::take(&mut self.log);
        if failed {
            log.truncate(self.begun);
        }
        self.begun = 0;
        log
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
