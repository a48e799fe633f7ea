//! Weights of slots in a byte each: most rows are there once.

use std::collections::HashMap;

use crate::delta::Weight;

/// Weights from here on, and negative ones, lie beside.
const WIDE: u8 = u8::MAX;

/// The weight of every slot, 1 until another one is set.
#[derive(Debug, Default)]
pub(super) struct Weights {
    /// Weights below [`WIDE`] by slot; a slot behind the end has weight 1.
    narrow: Vec<u8>,
    wide: HashMap<u32, Weight>,
}

impl Weights {
    #[inline]
    pub(super) fn get(&self, slot: u32) -> Weight {
        match self.narrow.get(slot as usize) {
            None => 1,
            Some(&WIDE) => self.wide.get(&slot).copied().unwrap_or_default(),
            Some(weight) => Weight::from(*weight),
        }
    }

    #[inline]
    pub(super) fn set(&mut self, slot: u32, weight: Weight) {
        let at = slot as usize;
        if at >= self.narrow.len() {
            if weight == 1 {
                return;
            }
            self.narrow.resize(at + 1, 1);
        }
        if self.narrow[at] == WIDE {
            self.wide.remove(&slot);
        }
        self.narrow[at] = u8::try_from(weight).unwrap_or(WIDE);
        if self.narrow[at] == WIDE {
            self.wide.insert(slot, weight);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.narrow.capacity() + self.wide.capacity() * (size_of::<(u32, Weight)>() + 1)
    }
}

/// The weight of every slot as of the last sealed epoch, and now: a byte where both are equal, or
/// the row has come or gone in the epoch.
#[derive(Debug, Default)]
pub(super) struct TwoWeights {
    narrow: Vec<u8>,
    wide: HashMap<u32, (Weight, Weight)>,
}

/// 0 to 1.
const COMES: u8 = u8::MAX - 1;
/// 1 to 0.
const GOES: u8 = u8::MAX - 2;

impl TwoWeights {
    /// The weights before and now.
    #[inline]
    pub(super) fn get(&self, slot: u32) -> (Weight, Weight) {
        match self.narrow[slot as usize] {
            WIDE => self.wide.get(&slot).copied().unwrap_or_default(),
            COMES => (0, 1),
            GOES => (1, 0),
            both => (Weight::from(both), Weight::from(both)),
        }
    }

    #[inline]
    pub(super) fn set(&mut self, slot: u32, weights: (Weight, Weight)) {
        let at = slot as usize;
        if self.narrow[at] == WIDE {
            self.wide.remove(&slot);
        }
        self.narrow[at] = match weights {
            (0, 1) => COMES,
            (1, 0) => GOES,
            (before, now) if before == now && (0..Weight::from(GOES)).contains(&now) => now as u8,
            _ => WIDE,
        };
        if self.narrow[at] == WIDE {
            self.wide.insert(slot, weights);
        }
    }

    /// Makes room for slots, with weight 0.
    pub(super) fn reserve(&mut self, slots: usize) {
        self.narrow.resize(slots, 0);
    }

    /// All by slot.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, (Weight, Weight))> {
        (0..self.narrow.len() as u32).map(|slot| (slot, self.get(slot)))
    }

    pub(super) fn bytes(&self) -> usize {
        self.narrow.capacity() + self.wide.capacity() * (size_of::<(u32, (Weight, Weight))>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [Weight; 12] = [0, 1, 2, 250, 251, 252, 253, 254, 255, 256, -1, Weight::MIN];

    #[test]
    fn a_weight_is_what_was_set_last() {
        let mut weights = Weights::default();
        assert_eq!(weights.get(70), 1);
        for before in EDGES {
            for now in EDGES {
                weights.set(3, before);
                weights.set(3, now);
                assert_eq!(weights.get(3), now);
                assert_eq!(weights.get(2), 1);
            }
        }
        weights.set(3, 1);
        assert!(weights.wide.is_empty());
    }

    #[test]
    fn two_weights_are_what_was_set_last() {
        let mut weights = TwoWeights::default();
        weights.reserve(2);
        for before in EDGES {
            for now in EDGES {
                weights.set(1, (before, now));
                assert_eq!(weights.get(1), (before, now));
                weights.set(1, (now, now));
                assert_eq!(weights.get(1), (now, now));
                assert_eq!(weights.get(0), (0, 0));
            }
        }
        weights.set(1, (0, 0));
        assert!(weights.wide.is_empty());
    }
}
