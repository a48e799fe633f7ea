//! Expiry: which slots of a table go when a watermark passes their time.
//!
//! Slots are listed under their time; a slot that is freed before is only marked and is passed over
//! when its list is taken. Times are few when they are ends of windows, so the ordered map is small
//! beside the lists.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The time of a slot that never expires.
pub(crate) const NEVER: i64 = i64::MAX;

/// Lists up to this length are kept clean.
const SHORT_LIST: usize = 4;

/// Slots by time.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    times: Vec<i64>,
    order: BTreeMap<i64, Vec<u32>>,
}

impl Expiry {
    /// Says when a slot that has just been taken into use expires.
    pub(crate) fn set(&mut self, slot: u32, time: i64) {
        let at = slot as usize;
        self.times.resize(self.times.len().max(at + 1), NEVER);
        self.times[at] = time;
        if time != NEVER {
            self.order.entry(time).or_default().push(slot);
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
        if let Entry::Occupied(mut listed) = self.order.entry(*time)
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
        while let Some(entry) = self.order.first_entry().filter(|e| *e.key() < watermark) {
            let (time, slots) = entry.remove_entry();
            for slot in slots {
                // Marked when it was freed, or listed twice and taken already.
                if self.times[slot as usize] == time {
                    self.times[slot as usize] = NEVER;
                    taken.push(slot);
                }
            }
        }
        taken
    }

    /// The slots with times below a watermark, in order of time, each once.
    pub(crate) fn below(&self, watermark: i64) -> impl Iterator<Item = u32> {
        self.order.range(..watermark).flat_map(move |(time, slots)| {
            let mut slots = slots.clone();
            slots.sort_unstable();
            slots.dedup();
            let time = *time;
            slots.into_iter().filter(move |slot| self.times[*slot as usize] == time)
        })
    }

    /// The times of slots, oldest first, each once.
    pub(crate) fn times(&self) -> impl Iterator<Item = i64> {
        self.order.keys().copied()
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
