//! Chains: a multimap from hash to slots, for rows that are found by a key.
//!
//! An index leads from a key to the slot that was linked last, and from there a chain through all
//! others with that key. Most keys have one row, so a slot costs its entry in the index alone:
//! `next` is there from the first key with two rows on, `prev` from the first time that a slot has
//! to be taken out of the middle of a long chain. Hashes are not kept; who takes a slot out says
//! that of its key.

use super::slot_index::SlotIndex;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// Slots of a chain that are passed to take one out before a way without a walk is made.
const WALK_MAX: usize = 4;

/// Keys to chains of slots.
#[derive(Debug)]
pub(super) struct Chains {
    index: SlotIndex,
    /// The slot that was linked before, with the same key; a slot behind the end has none.
    next: Vec<u32>,
    /// The slot that was linked after; where it is kept, as long as `next`.
    prev: Option<Vec<u32>>,
}

impl Chains {
    pub(super) fn new() -> Self {
        Self { index: SlotIndex::new(), next: Vec::new(), prev: None }
    }

    /// The first slot of the chain with this hash for which `is` holds, which is so for all of a
    /// chain or for none.
    #[inline]
    pub(super) fn head(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.index.find(hash, is)
    }

    /// The first slots of the chains that may have this hash, among them all that do.
    pub(super) fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        self.index.candidates(hash)
    }

    /// Reads ahead what looking for some hashes will read: see [`SlotIndex::read_ahead`].
    #[inline]
    pub(super) fn read_ahead(
        &self,
        hashes: impl ExactSizeIterator<Item = u64> + Clone,
        touch: impl Fn(u32) -> u64,
    ) {
        self.index.read_ahead(hashes, touch);
    }

    /// The slot behind one in its chain, [`NONE`] at the end.
    #[inline]
    pub(super) fn next(&self, slot: u32) -> u32 {
        self.next.get(slot as usize).copied().unwrap_or(NONE)
    }

    /// The slots of a chain.
    #[inline]
    pub(super) fn of(&self, hash: u64, is: impl Fn(u32) -> bool) -> impl Iterator<Item = u32> {
        std::iter::successors(self.head(hash, is), |slot| {
            Some(self.next(*slot)).filter(|next| *next != NONE)
        })
    }

    /// Puts a slot at the head of its chain.
    #[inline]
    pub(super) fn link(&mut self, hash: u64, slot: u32, is: impl Fn(u32) -> bool) {
        let head = self.head(hash, is);
        self.link_before(hash, slot, head);
    }

    /// The same where the head is known.
    #[inline]
    pub(super) fn link_before(&mut self, hash: u64, slot: u32, head: Option<u32>) {
        let Some(head) = head else { return self.index.insert(hash, slot) };
        self.index.replace(hash, head, slot);
        let slots = slot.max(head) as usize + 1;
        if self.next.len() < slots {
            self.next.resize(slots, NONE);
        }
        self.next[slot as usize] = head;
        if let Some(prev) = &mut self.prev {
            prev.resize(self.next.len(), NONE);
            prev[head as usize] = slot;
        }
    }

    /// Takes a slot out of its chain.
    pub(super) fn unlink(&mut self, hash: u64, slot: u32) {
        let next = self.next(slot);
        if let Some(at) = self.index.position(hash, slot) {
            match next {
                NONE => self.index.remove_at(at),
                next => self.index.set(at, hash, next),
            }
            self.join(NONE, slot, next);
            return;
        }
        let before = match &self.prev {
            Some(prev) => prev[slot as usize],
            None => self.walk_to(hash, slot).unwrap_or_else(|| self.keep_prev()[slot as usize]),
        };
        self.join(before, slot, next);
    }

    /// Makes the slots on both sides of one neighbours.
    fn join(&mut self, before: u32, slot: u32, next: u32) {
        if before != NONE {
            self.next[before as usize] = next;
        }
        if next != NONE {
            self.next[slot as usize] = NONE;
        }
        if let Some(prev) = self.prev.as_mut().filter(|prev| prev.len() > slot as usize) {
            prev[slot as usize] = NONE;
            if next != NONE {
                prev[next as usize] = before;
            }
        }
    }

    /// The slot before one that is not a head, unless it is far from there.
    fn walk_to(&self, hash: u64, slot: u32) -> Option<u32> {
        let before_of = |head: u32| {
            let chain = std::iter::successors(Some(head), |s| Some(self.next(*s)));
            let mut chain = chain.take(WALK_MAX).take_while(|s| *s != NONE);
            chain.find(|s| self.next(*s) == slot)
        };
        // Keys with one tag are few, so the head is most often the first that is looked at.
        before_of(self.index.find(hash, |head| before_of(head).is_some())?)
    }

    #[cold]
    fn keep_prev(&mut self) -> &[u32] {
        let mut prev = vec![NONE; self.next.len()];
        for (slot, next) in (0..).zip(&self.next) {
            if *next != NONE {
                prev[*next as usize] = slot;
            }
        }
        self.prev.insert(prev)
    }

    /// Gives memory back when few of many keys are left.
    pub(super) fn shrink(&mut self) {
        self.index.shrink();
    }

    pub(super) fn bytes(&self) -> usize {
        let prev = self.prev.as_ref().map_or(0, Vec::capacity);
        self.index.bytes() + (self.next.capacity() + prev) * 4
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Would find a chain that loses or keeps a slot, in short and in long chains, with slots that
    /// are used again, before and after `prev` is kept.
    #[test]
    fn chains_hold_what_was_linked_and_not_taken_out() {
        let mut random = SmallRng::seed_from_u64(5);
        for keys in [1, 3, 4_000] {
            let mut chains = Chains::new();
            let mut key_of: Vec<Option<u64>> = vec![None; 4_000];
            for step in 0..30_000 {
                let slot = random.random_range(0..key_of.len());
                match key_of[slot].take() {
                    // Two keys have one hash.
                    Some(key) => chains.unlink(key / 2, slot as u32),
                    None => {
                        let key = random.random_range(0..keys);
                        chains.link(key / 2, slot as u32, |s| key_of[s as usize] == Some(key));
                        key_of[slot] = Some(key);
                    }
                }
                if step % 3_000 == 0 {
                    for key in 0..keys {
                        let is = |s: u32| key_of[s as usize] == Some(key);
                        let mut found: Vec<u32> = chains.of(key / 2, is).collect();
                        found.sort_unstable();
                        let expected: Vec<u32> =
                            (0..key_of.len() as u32).filter(|s| is(*s)).collect();
                        assert_eq!(found, expected, "key {key} of {keys} after {step} steps");
                    }
                }
            }
            assert_eq!(chains.prev.is_some(), keys < 4_000, "{keys} keys");
        }
    }
}
