//! Versions: the epochs from which and until which the rows of a result table are there.
//!
//! A row that has not ended is four bytes: the epoch since which it is there, counted from one that
//! moves on with the table; and nothing at all while it lies among rows that every reader sees, of
//! which none has ever ended. Those that have ended lie beside, in the order in which they did,
//! until nobody may read them any more; they are few, and their slots lead to them.

use std::collections::VecDeque;

use crate::config::PAGE_ROWS;
use crate::time::Epoch;

/// Marks a slot whose row has ended; the rest is its place in `ended`.
const ENDED: u32 = 1 << 31;
/// A slot without a row.
const FREE: u32 = u32::MAX;
/// Epochs that are told apart behind `base`.
const SPAN: u64 = ENDED as u64 - 1;

/// A row that has ended.
#[derive(Debug, Clone, Copy)]
struct Ended {
    begin: Epoch,
    end: Epoch,
}

/// [`PAGE_ROWS`] slots.
#[derive(Debug)]
enum Page {
    /// Every slot has a row that all who read see.
    Settled,
    /// By slot: epochs since `base`, or a place in `ended`.
    Slots(Vec<u32>),
}

/// Begin and end of every slot.
#[derive(Debug, Default)]
pub(super) struct Versions {
    pages: Vec<Page>,
    /// Pages before this one have had their chance to settle.
    looked_at: usize,
    /// Whoever reads, reads at this epoch or a later one.
    base: u64,
    ended: Vec<Ended>,
    /// Places of `ended` that are free.
    free: Vec<u32>,
    /// Slots in the order in which they ended.
    queue: VecDeque<u32>,
    /// The oldest epoch that anybody may read, as far as it was said.
    oldest: Epoch,
}

impl Versions {
    /// A row is there from an epoch on.
    #[inline]
    pub(super) fn begin(&mut self, slot: u32, epoch: Epoch) {
        if epoch.0.saturating_sub(self.base) > SPAN {
            self.rebase(epoch);
        }
        let begin = epoch.0.saturating_sub(self.base) as u32;
        self.set(slot, begin);
    }

    /// What is said of a slot.
    #[inline]
    fn get(&self, slot: u32) -> u32 {
        match &self.pages[slot as usize / PAGE_ROWS] {
            Page::Settled => 0,
            // A page that has given its memory back has none.
            Page::Slots(slots) => slots.get(slot as usize % PAGE_ROWS).copied().unwrap_or(FREE),
        }
    }

    fn set(&mut self, slot: u32, value: u32) {
        let (page, at) = (slot as usize / PAGE_ROWS, slot as usize % PAGE_ROWS);
        while page >= self.pages.len() {
            if let Some(Page::Slots(slots)) = self.pages.last_mut() {
                slots.resize(PAGE_ROWS, FREE);
            }
            self.pages.push(Page::Slots(Vec::new()));
        }
        if matches!(self.pages[page], Page::Settled) {
            self.pages[page] = Page::Slots(vec![0; PAGE_ROWS]);
        }
        if let Page::Slots(slots) = &mut self.pages[page] {
            if at >= slots.len() {
                slots.resize(at + 1, FREE);
            }
            slots[at] = value;
        }
    }

    /// Looks whether the next full page has settled; true when the one behind it is next. It is
    /// looked at again until all of its rows are old, and never again when one of them has ended.
    fn settle(&mut self) -> bool {
        let Some(Page::Slots(slots)) = self.pages.get(self.looked_at) else { return false };
        if slots.len() < PAGE_ROWS {
            return false;
        }
        if slots.iter().all(|begin| begin & ENDED == 0) {
            let newest = slots.iter().copied().max().unwrap_or_default();
            if self.base + u64::from(newest) > self.oldest.0 {
                return false;
            }
            self.pages[self.looked_at] = Page::Settled;
        }
        self.looked_at += 1;
        true
    }

    /// Counts from a later epoch. Rows that begin before the oldest readable one begin with it; a
    /// reader that has stayed for half of what can be told apart is not waited for.
    #[cold]
    fn rebase(&mut self, epoch: Epoch) {
        let base = self.oldest.0.clamp(epoch.0 - SPAN / 2, epoch.0).max(self.base);
        let passed = base - self.base;
        for page in &mut self.pages {
            let Page::Slots(slots) = page else { continue };
            for begin in slots.iter_mut().filter(|begin| **begin & ENDED == 0) {
                *begin = u64::from(*begin).saturating_sub(passed) as u32;
            }
        }
        self.base = base;
    }

    /// A row ends with an epoch.
    pub(super) fn end(&mut self, slot: u32, epoch: Epoch) {
        let ended = Ended { begin: self.begun(slot), end: epoch };
        let place = match self.free.pop() {
            Some(place) => {
                self.ended[place as usize] = ended;
                place
            }
            None => {
                self.ended.push(ended);
                self.ended.len() as u32 - 1
            }
        };
        self.set(slot, ENDED | place);
        self.queue.push_back(slot);
    }

    /// No slot of a page has a row.
    pub(super) fn give_back(&mut self, page: usize) {
        self.pages[page] = Page::Slots(Vec::new());
    }

    /// The first epoch of a row that has not ended.
    pub(super) fn begun(&self, slot: u32) -> Epoch {
        Epoch(self.base + u64::from(self.get(slot)))
    }

    /// Whether a slot has a row that has not ended.
    #[inline]
    pub(super) fn is_live(&self, slot: u32) -> bool {
        self.get(slot) & ENDED == 0
    }

    /// A slot has no row any more; it had one that has not ended.
    pub(super) fn forget(&mut self, slot: u32) {
        self.set(slot, FREE);
    }

    /// Whether a slot has no row, of no epoch.
    pub(super) fn is_free(&self, slot: u32) -> bool {
        self.get(slot) == FREE
    }

    /// Whether a row that has not ended is there from this epoch on.
    #[inline]
    pub(super) fn is_new(&self, slot: u32, epoch: Epoch) -> bool {
        self.begun(slot) == epoch
    }

    /// Whether a row is there at an epoch.
    #[inline]
    pub(super) fn visible(&self, slot: u32, epoch: Epoch) -> bool {
        match self.get(slot) {
            FREE => false,
            begin if begin & ENDED == 0 => self.base + u64::from(begin) <= epoch.0,
            place => {
                let Ended { begin, end } = self.ended[(place ^ ENDED) as usize];
                begin <= epoch && epoch < end
            }
        }
    }

    /// Takes out at most `limit` rows that ended at or before the oldest epoch that is read.
    pub(super) fn take_ended(&mut self, oldest: Epoch, limit: usize) -> Vec<u32> {
        self.oldest = self.oldest.max(oldest);
        while self.settle() {}
        let passed = |slot: &&u32| {
            let place = self.get(**slot) ^ ENDED;
            self.ended[place as usize].end <= oldest
        };
        let taken = self.queue.iter().take(limit).take_while(passed).count();
        let taken: Vec<u32> = self.queue.drain(..taken).collect();
        for slot in &taken {
            self.free.push(self.get(*slot) ^ ENDED);
            self.set(*slot, FREE);
        }
        if self.queue.is_empty() {
            (self.ended, self.free) = (Vec::new(), Vec::new());
        }
        taken
    }

    /// Rows that have ended and are still there.
    pub(super) fn ended(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn bytes(&self) -> usize {
        let slots = self.pages.iter().map(|page| match page {
            Page::Settled => 0,
            Page::Slots(slots) => slots.capacity(),
        });
        let small = slots.sum::<usize>() + self.free.capacity() + self.queue.capacity();
        small * 4
            + self.ended.capacity() * size_of::<Ended>()
            + self.pages.capacity() * size_of::<Page>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Would find a page that settles while somebody may read what was before, and one that can't
    /// be changed any more.
    #[test]
    fn pages_of_old_rows_settle() {
        let rows = PAGE_ROWS as u32;
        let mut versions = Versions::default();
        (0..rows - 1).for_each(|slot| versions.begin(slot, Epoch(5)));
        versions.take_ended(Epoch(9), 1);
        assert!(matches!(versions.pages[0], Page::Slots(_)), "it is not full");
        (rows - 1..rows * 3).for_each(|slot| versions.begin(slot, Epoch(12)));
        versions.take_ended(Epoch(11), 1);
        assert!(matches!(versions.pages[0], Page::Slots(_)), "the last one is not seen by all");
        versions.end(rows + 7, Epoch(13));
        (0..4).for_each(|_| assert!(versions.take_ended(Epoch(12), 1).is_empty()));
        let settled = versions.pages.iter().map(|page| matches!(page, Page::Settled));
        assert_eq!(settled.collect::<Vec<_>>(), [true, false, true]);
        assert!(versions.visible(3, Epoch(12)) && versions.is_live(3));
        assert!(!versions.is_new(3, Epoch(14)) && !versions.is_free(3));
        versions.end(3, Epoch(14));
        versions.end(rows * 2, Epoch(14));
        assert!(versions.visible(3, Epoch(13)) && !versions.visible(3, Epoch(14)));
        assert!(versions.visible(4, Epoch(14)));
        assert_eq!(versions.take_ended(Epoch(14), 9), [rows + 7, 3, rows * 2]);
        versions.begin(3, Epoch(15));
        assert!(!versions.visible(3, Epoch(14)) && versions.visible(3, Epoch(15)));
    }

    /// Epochs run over the span that is told apart several times. Would find a row that is seen too
    /// early or too long by somebody who may read, and one that is given back too soon.
    #[test]
    fn rows_are_there_from_begin_to_end() {
        let mut random = SmallRng::seed_from_u64(3);
        let mut versions = Versions::default();
        let (mut now, mut read) = (Epoch(7), vec![Epoch(7)]);
        let mut rows: BTreeMap<u32, (Epoch, Epoch)> = BTreeMap::new();
        for _ in 0..2_000 {
            now = Epoch(now.0 + random.random_range(1..SPAN / 50));
            for _ in 0..20 {
                let slot = random.random_range(0..200);
                match rows.get_mut(&slot) {
                    None => {
                        versions.begin(slot, now);
                        rows.insert(slot, (now, Epoch::MAX));
                        assert!(versions.is_live(slot) && versions.is_new(slot, now));
                    }
                    Some((_, end)) if *end == Epoch::MAX => {
                        versions.end(slot, now);
                        *end = now;
                    }
                    Some(_) => assert!(!versions.is_live(slot)),
                }
            }
            read.push(now);
            read.drain(..read.len().saturating_sub(5));
            for slot in versions.take_ended(read[0], 15) {
                let (_, end) = rows.remove(&slot).expect("it had ended");
                assert!(end <= read[0] && versions.is_free(slot));
            }
            for (slot, (begin, end)) in &rows {
                for epoch in &read {
                    let expected = begin <= epoch && epoch < end;
                    assert_eq!(versions.visible(*slot, *epoch), expected, "{slot} at {epoch}");
                }
            }
        }
        assert!(versions.base > SPAN * 10, "epochs have run over the span");
    }
}
