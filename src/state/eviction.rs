//! Keys that leave memory, as the store has its tables do it: who may, when, and how many.

use std::sync::Arc;

use super::cold::{Cold, ColdRows, KeptRows};
use super::{Entries, Kept, StateStore, Table, TableId};
use crate::error::Result;
use crate::time::Epoch;

/// Rows or groups that leave in one piece: some milliseconds.
pub const EVICTED_ROWS: usize = 8_192;

/// Where the rows of a table are that begins with those of a checkpoint, and how many bytes may
/// come into memory at once.
pub struct Beginning<'a> {
    /// The rows of the checkpoint.
    pub rows: Arc<dyn ColdRows>,
    /// What is left of the room.
    pub room: &'a mut usize,
}

impl StateStore {
    /// As [`Self::restore_from`], as long as there is room; of a table whose keys can leave the
    /// rest stays where it is.
    pub fn restore_within(
        &mut self,
        id: TableId,
        pieces: impl IntoIterator<Item = Result<Entries>>,
        Beginning { rows, room }: Beginning<'_>,
        epoch: Epoch,
    ) -> Result<()> {
        let mut rows = Some(rows);
        self.restore_by(id, pieces, |kept, piece| {
            // They are those that keys which leave later come back from, too.
            rows.take().into_iter().for_each(|rows| kept.with_cold(|cold| cold.begin_with(rows)));
            if *room == 0 && kept.is_followed() {
                return kept.leave_out(piece);
            }
            let before = kept.table.bytes();
            kept.table.load(piece.iter(), epoch)?;
            *room = room.saturating_sub(kept.table.bytes().saturating_sub(before));
            Ok(())
        })
    }

    /// From here on keys may leave memory, of all tables of which some can: between two epochs.
    /// Everything may hold `limit` bytes.
    pub fn begin_evicting(&mut self, limit: usize) {
        self.evicts = Some(limit);
        let check = self.check;
        self.tables.iter_mut().flatten().for_each(|kept| kept.let_leave(limit, check));
    }

    /// What tables have logged is taken for a checkpoint.
    pub fn cut(&mut self, id: TableId) {
        let (check, evicts) = (self.check, self.evicts);
        let kept = self.kept_mut(id);
        if let Some(limit) = evicts {
            // Of a table that had an index keys may leave when that is gone.
            kept.let_leave(limit, check);
        }
        kept.with_cold(Cold::cut);
    }

    /// The checkpoint that was cut last is decided, and has these rows of a table.
    pub fn decided(&mut self, id: TableId, rows: Arc<dyn ColdRows>) {
        self.kept_mut(id).with_cold(|cold| cold.decided(rows));
    }

    /// Whether keys of a table can leave, and a checkpoint has them.
    pub fn can_evict(&mut self, id: TableId) -> bool {
        let mut ready = false;
        self.kept_mut(id).with_cold(|cold| ready = cold.is_ready());
        ready
    }

    /// Why keys of a table stay in memory, in words.
    pub fn stays(&self, id: TableId) -> Option<&'static str> {
        match &self.kept(id).table {
            Table::Sessions(_) | Table::Timeline(_) | Table::Sequence(_) => {
                Some("it is read in the order of time")
            }
            Table::Arrangement(t) if t.expired().is_some() => Some("a watermark frees it"),
            Table::Ranked(t) if t.expired().is_some() => Some("a watermark frees it"),
            Table::Groups(t) if t.expired().is_some() => Some("a watermark frees it"),
            Table::Groups(t) if !t.can_leave() => Some("it is read by a part of its key"),
            Table::Result(t, shard) => t.read(*shard).why_it_stays(t),
            _ => None,
        }
    }

    /// Bytes of a table, without places that hold nothing.
    pub fn held_bytes(&self, id: TableId) -> usize {
        self.kept(id).held_bytes()
    }

    /// Has up to `most` rows of a table leave, between two epochs; readers read at
    /// `oldest` or later. How many have.
    pub fn evict(&mut self, id: TableId, most: usize, oldest: Epoch) -> Result<usize> {
        let most = most.min(EVICTED_ROWS);
        let Kept { table, cold, .. } = self.kept_mut(id);
        if let Table::Result(table, shard) = table {
            return table.write(*shard).evict(most, oldest);
        }
        let Some(cold) = cold.as_mut().filter(|cold| cold.is_ready()) else { return Ok(0) };
        cold.begin_sweep(table.rows());
        match table {
            Table::Arrangement(t) => t.evict(cold, most),
            Table::Groups(t) => Ok(t.evict(cold, most)),
            Table::Ranked(t) => Ok(t.evict(cold, most)),
            Table::Sessions(_) | Table::Timeline(_) | Table::Sequence(_) | Table::Result(..) => {
                Ok(0)
            }
        }
    }

    /// Where contracts are checked: everything leaves that can, as if a checkpoint had been decided
    /// just now. Its rows are what the table has logged.
    pub fn evict_checked(&mut self, id: TableId, oldest: Epoch) -> Result<()> {
        let kept = self.kept_mut(id);
        let expired = kept.table.expired();
        let Some(ledger) = &mut kept.ledger else { return Ok(()) };
        let logged = ledger.settle(expired)?.clone();
        kept.with_cold(|cold| {
            cold.cut();
            cold.decided(Arc::new(KeptRows(logged)));
        });
        // The first sweep passes over what has been asked for.
        for _ in 0..3 {
            while self.evict(id, EVICTED_ROWS, oldest)? > 0 {}
        }
        Ok(())
    }

    /// Rows of a table that are not in memory.
    pub fn rows_out(&self, id: TableId) -> usize {
        let kept = self.kept(id);
        match &kept.table {
            Table::Result(table, shard) => table.read(*shard).rows_out(),
            _ => kept.cold.as_ref().map_or(0, |cold| cold.out()),
        }
    }
}

impl Kept {
    /// Notes that a run is not in memory.
    fn leave_out(&mut self, run: &Entries) -> Result<()> {
        let mut left: Vec<(u64, usize)> = Vec::with_capacity(run.len());
        for entry in run.iter() {
            let rows = self.table.rows_of(&entry)?;
            match left.last_mut() {
                Some((hash, all)) if *hash == entry.hash => *all += rows,
                _ => left.push((entry.hash, rows)),
            }
        }
        self.with_cold(|cold| left.into_iter().for_each(|(hash, rows)| cold.left(hash, rows)));
        Ok(())
    }

    /// Bytes without places that hold nothing, where these are for keys that come back, and with
    /// what is known of those.
    fn held_bytes(&self) -> usize {
        let bytes = self.table.bytes();
        match (&self.table, &self.cold) {
            (Table::Result(..), _) => bytes,
            (_, Some(cold)) => bytes.saturating_sub(self.table.spare_bytes()) + cold.bytes(),
            (_, None) => bytes,
        }
    }

    fn with_cold(&mut self, with: impl FnOnce(&mut Cold)) {
        if let Table::Result(table, shard) = &self.table {
            if let Some(cold) = table.write(*shard).cold() {
                with(cold);
            }
        } else if let Some(cold) = &mut self.cold {
            with(cold);
        }
    }

    /// Whether keys may leave.
    pub(super) fn is_followed(&mut self) -> bool {
        let mut followed = false;
        self.with_cold(|_| followed = true);
        followed
    }

    /// What a table has logged of keys that are in memory, of all that it has.
    pub(super) fn logged_in_memory(&mut self, logged: &Entries) -> Entries {
        let mut there = Entries::default();
        self.with_cold(|cold| {
            let entries = logged.iter().filter(|entry| !cold.is_out(entry.hash));
            entries.for_each(|entry| there.push(entry));
        });
        there
    }
}
