//! Groups that leave memory, and come back.

use super::{GroupTable, STORED};
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
        evicted
    }

    /// Bytes of lines that no group has.
    pub(in crate::state) fn spare_bytes(&self) -> usize {
        self.free.len() * self.slab.stride * 8
    }
}
