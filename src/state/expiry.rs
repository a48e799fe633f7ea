//! Expiry: which slots of a table go when a watermark passes their time.
//!
//! Slots are listed under their time; a slot that is freed before is only marked and is passed over
//! when its list is taken. Times are few when they are ends of windows, so the ordered map is small
//! beside the lists; instants that are near each other share a list, which is looked through when a
//! watermark is within it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The time of a slot that never expires.
pub(crate) const NEVER: i64 = i64::MAX;

/// Lists up to this length are kept clean.
const SHORT_LIST: usize = 4;

/// Instants with equal times but for so many bits share a list: 16 ms.
const INSTANT_BITS: u32 = 14;

/// Slots by time.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    times: Vec<i64>,
    /// By time without its last bits.
    order: BTreeMap<i64, Vec<u32>>,
    bits: u32,
}

impl Expiry {
    /// For times that are mostly different.
    pub(crate) fn of_instants() -> Self {
        Self { bits: INSTANT_BITS, ..Self::default() }
    }

    /// Says when a slot that has just been taken into use expires.
    pub(crate) fn set(&mut self, slot: u32, time: i64) {
        let at = slot as usize;
        self.times.resize(self.times.len().max(at + 1), NEVER);
        self.times[at] = time;
        if time != NEVER {
            self.order.entry(time >> self.bits).or_default().push(slot);
        }
    }

    /// The time of a slot.
    pub(crate) fn time(&self, slot: u32) -> i64 {
        self.times.get(slot as usize).copied().unwrap_or(NEVER)
    }

    /// Forgets a slot. Where a time has few slots it leaves their list at once: times that are not
    /// ends of windows are many, and rows may come and go long before theirs has passed.
    pub(crate) fn clear(&mut self, slot: u32) {
        let Some(time) = self.times.get_mut(slot as usize) else { return };
        if let Entry::Occupied(mut listed) = self.order.entry(*time >> self.bits)
            && listed.get().len() <= SHORT_LIST
        {
            listed.get_mut().retain(|s| *s != slot);
            if listed.get().is_empty() {
                listed.remove();
            }
        }
        *time = NEVER;
    }

    /// Takes the slots with times below a watermark, in order of time.
    pub(crate) fn take_below(&mut self, watermark: i64) -> Vec<u32> {
        let mut taken = Vec::new();
        while let Some(entry) =
            self.order.first_entry().filter(|e| *e.key() << self.bits < watermark)
        {
            let (list, slots) = entry.remove_entry();
            let mut later = Vec::new();
            for slot in slots {
                let time = self.times[slot as usize];
                if time >> self.bits != list {
                    // Marked when it was freed, or listed twice and taken already.
                } else if time < watermark {
                    self.times[slot as usize] = NEVER;
                    taken.push(slot);
                } else {
                    later.push(slot);
                }
            }
            if !later.is_empty() {
                self.order.insert(list, later);
                break;
            }
        }
        taken
    }

    /// The slots with times below a watermark, in order of time, each once.
    pub(crate) fn below(&self, watermark: i64) -> impl Iterator<Item = u32> {
        let begun = move |list: &i64| *list << self.bits < watermark;
        let lists = self.order.iter().take_while(move |(list, _)| begun(list));
        lists.flat_map(move |(list, slots)| {
            let timed = slots.iter().map(|slot| (self.times[*slot as usize], *slot));
            let there = |(time, _): &(i64, u32)| time >> self.bits == *list && *time < watermark;
            let mut timed: Vec<(i64, u32)> = timed.filter(there).collect();
            timed.sort_unstable();
            timed.dedup();
            timed.into_iter().map(|(_, slot)| slot)
        })
    }

    /// The times of slots, oldest first, each once; of instants those that lists begin with.
    pub(crate) fn times(&self) -> impl Iterator<Item = i64> {
        self.order.keys().map(|time| time << self.bits)
    }

    pub(crate) fn bytes(&self) -> usize {
        let lists: usize = self.order.values().map(|l| l.capacity() * 4 + 48).sum();
        self.times.capacity() * 8 + lists
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_of_one_list_go_one_by_one() {
        let mut expiry = Expiry::of_instants();
        for (slot, time) in [(0, 20), (1, 10), (2, -5), (3, i64::MIN), (4, 100_000)] {
            expiry.set(slot, time);
        }
        assert_eq!(expiry.take_below(-4), [3, 2]);
        assert_eq!(expiry.take_below(20), [1]);
        expiry.clear(0);
        expiry.set(0, 30);
        assert!(expiry.take_below(30).is_empty());
        assert_eq!(expiry.take_below(31), [0]);
        assert_eq!(expiry.take_below(NEVER), [4]);
        assert_eq!(expiry.times().count(), 0);
    }

    #[test]
    fn slots_go_in_order_of_time_and_once() {
        let mut expiry = Expiry::default();
        expiry.set(0, 20);
        expiry.set(1, 10);
        expiry.set(2, NEVER);
        expiry.set(3, 10);
        expiry.clear(3);
        // Used again with the same time, so that it is listed twice.
        expiry.set(3, 10);
        assert!(expiry.take_below(10).is_empty());
        assert_eq!(expiry.take_below(11), [1, 3]);
        expiry.set(1, 30);
        assert_eq!(expiry.take_below(NEVER), [0, 1]);
        assert_eq!(expiry.times().count(), 0);
    }
}
