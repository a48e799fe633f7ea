//! Partitions that leave memory, and come back.

use super::Ranked;
use crate::error::Result;
use crate::state::cold::Cold;
use crate::state::entry::Entries;
use crate::state::sorted::Sorted;

impl Ranked {
    /// Whether partitions can leave: nothing but their key leads to them.
    pub(in crate::state) fn can_leave(&self) -> bool {
        self.expiry.is_none()
    }

    /// Whether there is a partition under a hash.
    pub(in crate::state) fn holds(&self, hash: u64) -> bool {
        self.index.find(hash, |p| self.partitions[p as usize].hash == hash).is_some()
    }

    /// Brings partitions back, none of which is there; how many rows they have. What the epoch has
    /// done so far is laid aside meanwhile.
    pub(in crate::state) fn bring_back(&mut self, entries: &Entries) -> Result<usize> {
        let (touched, before) =
            (std::mem::take(&mut self.touched), std::mem::take(&mut self.before));
        let (dead, negative) = (std::mem::take(&mut self.dead), std::mem::take(&mut self.negative));
        let noting = std::mem::take(&mut self.noting);
        let rows = self.rows();
        let loaded = self.load(entries.iter());
        let rows = self.rows() - rows;
        (self.touched, self.before, self.dead, self.noting) = (touched, before, dead, noting);
        self.negative = negative;
        loaded.map(|()| rows)
    }

    /// Has about so many rows leave, between two epochs; how many have.
    pub(in crate::state) fn evict(&mut self, cold: &mut Cold, most: usize) -> usize {
        let all = self.partitions.len() as u32;
        let (mut evicted, looks) = (0, cold.looks(most, all));
        for _ in 0..looks {
            let home = &self.partitions[cold.next_of(all) as usize];
            let hash = home.hash;
            if home.entries.is_empty() || !cold.may_go(hash) {
                continue;
            }
            let same = |p: &u32| self.partitions[*p as usize].hash == hash;
            let partitions: Vec<u32> = self.index.candidates(hash).filter(same).collect();
            let mut rows = 0;
            for partition in partitions {
                let entries = &mut self.partitions[partition as usize].entries;
                let entries = std::mem::replace(entries, Sorted::Empty);
                self.partitions[partition as usize].leads = None;
                rows += entries.iter().count();
                entries.iter().for_each(|entry| self.pages.free(entry.slot));
                self.free_partition(partition);
            }
            cold.left(hash, rows);
            evicted += rows;
            if evicted >= most {
                break;
            }
        }
        self.index.shrink();
        evicted
    }

    /// Bytes of slots and partitions that nothing has.
    pub(in crate::state) fn spare_bytes(&self) -> usize {
        let partitions = self.partitions.bytes() / self.partitions.len().max(1) * self.free.len();
        self.pages.spare_bytes() + partitions
    }
}
