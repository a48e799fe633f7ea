//! Groups that leave memory, and come back.

use super::{FLAGS, GroupTable, STORED};
use crate::error::Result;
use crate::state::cold::Cold;
use crate::state::entry::Entries;

impl GroupTable {
    /// Whether keys can leave: nothing but the key leads to a group, under the hash that places it.
    pub(in crate::state) fn can_leave(&self) -> bool {
        self.expiry.is_none() && self.spec.suffix == 0 && !self.spec.one_epoch
    }

    /// Whether there is a group under a hash.
    pub(in crate::state) fn holds(&self, hash: u64) -> bool {
        self.index.find(hash, |slot| self.hash_of(slot) == hash).is_some()
    }

    /// Brings groups back, none of which is there; how many they are.
    pub(in crate::state) fn bring_back(&mut self, entries: &Entries) -> Result<usize> {
        let before = self.groups();
        self.load(entries.iter())?;
        Ok(self.groups() - before)
    }

    /// Has about so many groups leave, between two epochs; how many have.
    pub(in crate::state) fn evict(&mut self, cold: &mut Cold, most: usize) -> usize {
        let (mut evicted, looks) = (0, cold.looks(most, self.slots));
        for _ in 0..looks {
            let slot = cold.next_of(self.slots);
            if self.slab.flags(slot) & STORED == 0 {
                continue;
            }
            let hash = self.hash_of(slot);
            if !cold.may_go(hash) {
                continue;
            }
            let mut groups = 0;
            while let Some(slot) = self.index.find(hash, |slot| self.hash_of(slot) == hash) {
                self.free(slot, hash);
                groups += 1;
            }
            cold.left(hash, groups);
            evicted += groups;
            if evicted >= most {
                break;
            }
        }
        self.index.shrink();
        if !self.stale.is_empty() {
            self.values.iter_mut().for_each(|values| values.sweep(&self.stale));
            self.free.append(&mut self.stale);
        }
        self.condense();
        evicted
    }

    /// Moves groups from the end to where others have left, and gives the memory of the rest back,
    /// when more than half of it is that of no group.
    fn condense(&mut self) {
        if self.free.len() * 2 <= self.slots as usize || !self.values.is_empty() {
            return;
        }
        let mut free = std::mem::take(&mut self.free);
        free.sort_unstable();
        let left = self.slots - free.len() as u32;
        // Those at the end have a place, so many others are free below.
        let below = free.partition_point(|slot| *slot < left);
        let mut places = free[..below].iter();
        let mut is_free = free[below..].iter().copied().peekable();
        for slot in left..self.slots {
            if is_free.next_if_eq(&slot).is_none()
                && let Some(place) = places.next()
            {
                self.move_line(slot, *place);
            }
        }
        self.slots = left;
        self.slab.shrink(left);
        self.multisets.iter_mut().for_each(|sets| {
            sets.truncate(left as usize);
            sets.shrink_to_fit();
        });
    }

    fn move_line(&mut self, from: u32, to: u32) {
        self.index.replace(self.hash_of(from), from, to);
        let line = self.slab.line(from).to_vec();
        self.slab.line_mut(to).copy_from_slice(&line);
        if self.inline.is_none() {
            // A key in the arena names its slot.
            let key = self.long_key(to).to_vec();
            let place = self.slab.flags(to) & !FLAGS;
            for (moved, place) in self.long_keys.remove(place) {
                let header = self.slab.flags_mut(moved);
                *header = *header & FLAGS | place;
            }
            let place = self.long_keys.push(to, &key);
            let header = self.slab.flags_mut(to);
            *header = *header & FLAGS | place;
        }
        self.multisets.iter_mut().for_each(|sets| sets.swap(from as usize, to as usize));
    }

    /// Bytes of lines that no group has, and that are not given back.
    pub(in crate::state) fn spare_bytes(&self) -> usize {
        if self.values.is_empty() { 0 } else { self.free.len() * self.slab.stride * 8 }
    }
}
