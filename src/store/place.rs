//! How far the messages of a sink have come, and which life they are of.
//!
//! Messages of a sink are numbered by the checkpoint that has decided them, from 1 on in each.
//! Every life draws a number at random, its *incarnation*, so that two histories that have grown
//! from copies of one directory are told apart although their checkpoints have the same numbers.

use serde::{Deserialize, Serialize};

/// A place behind so many messages of a checkpoint, and all of those before it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The checkpoint.
    pub checkpoint: u64,
    /// How many of its messages.
    pub messages: u64,
}

impl Place {
    /// Behind all messages of a checkpoint.
    pub fn behind(checkpoint: u64) -> Self {
        Self { checkpoint, messages: u64::MAX }
    }
}

/// What a receiver keeps beside the messages, in the same transaction: how far they have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The last checkpoint of which it has messages.
    pub checkpoint: u64,
    /// How many of them.
    pub messages: u64,
    /// The incarnation that has decided that checkpoint.
    pub incarnation: u64,
}

impl Receipt {
    /// The place that it stands for.
    pub fn place(&self) -> Place {
        Place { checkpoint: self.checkpoint, messages: self.messages }
    }
}

/// The incarnations of a directory: with which checkpoint each began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ancestry(Vec<(u64, u64)>);

impl Ancestry {
    /// Adds a life that begins with a checkpoint.
    pub fn begin(&mut self, checkpoint: u64, incarnation: u64) {
        // A life that has decided nothing has left nothing.
        self.0.retain(|(first, _)| *first < checkpoint);
        self.0.push((checkpoint, incarnation));
    }

    /// The incarnation that has decided a checkpoint.
    pub fn of(&self, checkpoint: u64) -> Option<u64> {
        self.0.iter().rfind(|(first, _)| *first <= checkpoint).map(|(_, incarnation)| *incarnation)
    }

    /// Forgets those that ended before a checkpoint.
    pub fn forget(&mut self, below: u64) {
        let of_it = self.0.iter().rposition(|(first, _)| *first <= below).unwrap_or(0);
        self.0.drain(..of_it);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_have_incarnations() {
        let mut lives = Ancestry::default();
        assert_eq!(lives.of(1), None);
        lives.begin(1, 70);
        lives.begin(5, 71);
        // A life without a checkpoint, and the next one in its place.
        lives.begin(5, 72);
        lives.begin(9, 73);
        let of: Vec<_> = [1, 4, 5, 8, 9, 100].iter().map(|n| lives.of(*n)).collect();
        assert_eq!(of, [Some(70), Some(70), Some(72), Some(72), Some(73), Some(73)]);
        lives.forget(6);
        assert_eq!((lives.of(4), lives.of(5), lives.of(9)), (None, Some(72), Some(73)));
    }

    #[test]
    fn places_are_in_order() {
        let at = |checkpoint, messages| Place { checkpoint, messages };
        assert!(at(1, 9) < at(2, 0) && at(2, 0) < at(2, 1) && at(2, 1) < Place::behind(2));
    }
}
