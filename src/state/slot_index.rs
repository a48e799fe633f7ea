//! An open-addressing index from hash to slot: eight bytes an entry, one cache line per lookup.
//!
//! The index stores 32 bits of the hash beside the slot and leaves the comparison of keys to the
//! caller. Positions come from the top of those 32 bits, which are bits 0..32 of the 64-bit hash:
//! its upper bits choose the worker, so they would be equal for all keys of a table. Linear
//! probing, load at most 3/4, removal by shifting back; no tombstones.

/// The greatest slot number that can be indexed.
pub(crate) const SLOT_MAX: u32 = u32::MAX - 1;

const EMPTY: u64 = u64::MAX;

/// Entries from which on an index and what it leads to are not in cache.
const READ_AHEAD_MIN: usize = 1 << 14;

/// Hashes that are read ahead at a time.
pub(crate) const READ_AHEAD_MAX: usize = 64;

/// Hash to slot.
#[derive(Debug)]
pub(crate) struct SlotIndex {
    entries: Vec<u64>,
    used: usize,
}

impl SlotIndex {
    pub(crate) fn new() -> Self {
        Self { entries: vec![EMPTY; 16], used: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entries.len() * 8
    }

    fn mask(&self) -> usize {
        self.entries.len() - 1
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        // The table never has more than 2^32 entries, so the top bits of the tag address it.
        let bits = self.entries.len().trailing_zeros();
        ((u64::from(tag) << 32) >> (64 - bits)) as usize
    }

    /// Reads ahead what looking up some hashes will read, entries and then what `touch` reads of
    /// the slots that they lead to. Reads that do not wait for one another overlap, where look-ups
    /// one by one would each wait for memory; so this is for a few dozen hashes at a time.
    #[inline]
    pub(crate) fn read_ahead(
        &self,
        hashes: impl ExactSizeIterator<Item = u64> + Clone,
        touch: impl Fn(u32) -> u64,
    ) {
        if self.entries.len() < READ_AHEAD_MIN {
            return;
        }
        let mut entries = [EMPTY; READ_AHEAD_MAX];
        let count = hashes.len().min(READ_AHEAD_MAX);
        for (entry, hash) in entries.iter_mut().zip(hashes.clone()) {
            *entry = self.entries[self.home(hash as u32)];
        }
        let mut read = 0;
        for (entry, hash) in entries[..count].iter().zip(hashes) {
            if (entry >> 32) as u32 == hash as u32 && *entry != EMPTY {
                read ^= touch(*entry as u32);
            }
        }
        // What was read is of no use but in the cache.
        std::hint::black_box(read);
    }

    /// The slot with this hash for which `is` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = hash as u32;
        let mut at = self.home(tag);
        loop {
            let entry = self.entries[at];
            if entry == EMPTY {
                return None;
            }
            if (entry >> 32) as u32 == tag && is(entry as u32) {
                return Some(entry as u32);
            }
            at = (at + 1) & self.mask();
        }
    }

    /// The slots that may have this hash, among them all that do.
    pub(crate) fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        let tag = hash as u32;
        let mut at = self.home(tag);
        let entries = std::iter::from_fn(move || {
            let entry = self.entries[at];
            at = (at + 1) & self.mask();
            (entry != EMPTY).then_some(entry)
        });
        entries.filter(move |entry| (entry >> 32) as u32 == tag).map(|entry| entry as u32)
    }

    /// Adds a slot; the caller knows that it is not there.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        debug_assert!(slot <= SLOT_MAX, "slot numbers fit the index");
        if (self.used + 1) * 4 > self.entries.len() * 3 {
            self.grow();
        }
        self.used += 1;
        self.place(u64::from(hash as u32) << 32 | u64::from(slot));
    }

    fn place(&mut self, entry: u64) {
        let mut at = self.home((entry >> 32) as u32);
        while self.entries[at] != EMPTY {
            at = (at + 1) & self.mask();
        }
        self.entries[at] = entry;
    }

    fn grow(&mut self) {
        let bigger = vec![EMPTY; self.entries.len() * 2];
        let old = std::mem::replace(&mut self.entries, bigger);
        for entry in old.into_iter().filter(|e| *e != EMPTY) {
            self.place(entry);
        }
    }

    /// Gives memory back when few of many entries are left.
    pub(crate) fn shrink(&mut self) {
        let wanted = (self.used * 2).next_power_of_two().max(16);
        if wanted * 4 <= self.entries.len() {
            let old = std::mem::replace(&mut self.entries, vec![EMPTY; wanted]);
            old.into_iter().filter(|e| *e != EMPTY).for_each(|entry| self.place(entry));
        }
    }

    /// Where the entry of a slot is, until the index changes.
    pub(crate) fn position(&self, hash: u64, slot: u32) -> Option<usize> {
        let entry = u64::from(hash as u32) << 32 | u64::from(slot);
        let mut at = self.home(hash as u32);
        while self.entries[at] != EMPTY {
            if self.entries[at] == entry {
                return Some(at);
            }
            at = (at + 1) & self.mask();
        }
        None
    }

    /// Makes an entry point to another slot.
    pub(crate) fn replace(&mut self, hash: u64, old: u32, new: u32) {
        let at = self.position(hash, old).expect("the replaced slot is indexed");
        self.set(at, hash, new);
    }

    /// Makes the entry at a place point to another slot of the same hash.
    #[inline]
    pub(crate) fn set(&mut self, at: usize, hash: u64, slot: u32) {
        self.entries[at] = u64::from(hash as u32) << 32 | u64::from(slot);
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, hash: u64, slot: u32) {
        let at = self.position(hash, slot).expect("the removed slot is indexed");
        self.remove_at(at);
    }

    /// Removes the entry at a place.
    pub(crate) fn remove_at(&mut self, mut hole: usize) {
        let mask = self.mask();
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let entry = self.entries[at];
            if entry == EMPTY {
                break;
            }
            // An entry moves into the hole unless its home lies behind the hole.
            let home = self.home((entry >> 32) as u32);
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.entries[hole] = entry;
                hole = at;
            }
        }
        self.entries[hole] = EMPTY;
        self.used -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn behaves_as_a_map_under_random_inserts_and_removals() {
        let mut random = SmallRng::seed_from_u64(7);
        let mut index = SlotIndex::new();
        let mut twin: HashMap<u32, u64> = HashMap::new();
        for slot in 0..20_000_u32 {
            // Few distinct tags, so that probing runs are long.
            let hash = random.random_range(0..500_u64) * 0x9E37_79B9;
            index.insert(hash, slot);
            twin.insert(slot, hash);
            if random.random_bool(0.6) {
                let victim = *twin.keys().next().expect("not empty");
                let hash = twin.remove(&victim).expect("chosen from the map");
                index.remove(hash, victim);
                assert_eq!(index.find(hash, |s| s == victim), None);
                if slot % 500 == 0 {
                    index.shrink();
                }
            }
        }
        for (slot, hash) in &twin {
            assert_eq!(index.find(*hash, |s| s == *slot), Some(*slot));
        }
        assert_eq!(index.used, twin.len());
    }
}
