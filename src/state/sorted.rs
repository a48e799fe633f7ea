//! Sorted entries: the rows of one partition in their order, as slots of a row store.
//!
//! Most partitions have one row or a few, so one entry lies inline and a few in a vector; only a
//! partition that has grown large is cut into chunks, so that inserting moves one chunk and a
//! search touches as many entries as a tree's would. The order is the caller's: a search is given
//! the comparison with the row that is looked for.

use std::cmp::Ordering;

use super::order_prefix::Prefix;
use crate::delta::Weight;

/// A row of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) prefix: Prefix,
    pub(super) weight: Weight,
    pub(super) slot: u32,
}

/// Entries in ascending order.
#[derive(Debug, Default)]
pub(super) enum Sorted {
    #[default]
    Empty,
    One(Entry),
    Small(Vec<Entry>),
    /// No chunk is empty.
    Large(Vec<Vec<Entry>>),
}

/// Where an entry is, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    chunk: usize,
    at: usize,
}

/// Entries of a vector that is not cut yet; and of a chunk before it is split.
const CHUNK_MAX: usize = 256;

impl Sorted {
    /// The chunks in order.
    fn chunks(&self) -> &[Vec<Entry>] {
        match self {
            Self::Large(chunks) => chunks,
            _ => &[],
        }
    }

    /// All entries in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        let few: &[Entry] = match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Small(entries) => entries,
            _ => &[],
        };
        few.iter().chain(self.chunks().iter().flatten())
    }

    /// All entries in order, to be changed in what does not order them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        let (few, many): (&mut [Entry], &mut [Vec<Entry>]) = match self {
            Self::Empty => (&mut [], &mut []),
            Self::One(entry) => (std::slice::from_mut(entry), &mut []),
            Self::Small(entries) => (entries, &mut []),
            Self::Large(chunks) => (&mut [], chunks),
        };
        few.iter_mut().chain(many.iter_mut().flatten())
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Whether single rows are better written at once than looked for later.
    pub(super) fn is_large(&self) -> bool {
        matches!(self, Self::Large(_))
    }

    pub(super) fn last(&self) -> Option<&Entry> {
        match self {
            Self::Empty => None,
            Self::One(entry) => Some(entry),
            Self::Small(entries) => entries.last(),
            Self::Large(chunks) => chunks.last().and_then(|c| c.last()),
        }
    }

    /// The place of the entry for which `order` is equal (`Ok`), or where it belongs (`Err`).
    /// `order` tells how an entry compares with the one that is looked for.
    pub(super) fn search(&self, mut order: impl FnMut(&Entry) -> Ordering) -> Result<Place, Place> {
        let within = |found: Result<usize, usize>, chunk| match found {
            Ok(at) => Ok(Place { chunk, at }),
            Err(at) => Err(Place { chunk, at }),
        };
        match self {
            Self::Empty => Err(Place { chunk: 0, at: 0 }),
            Self::One(entry) => match order(entry) {
                Ordering::Equal => Ok(Place { chunk: 0, at: 0 }),
                Ordering::Less => Err(Place { chunk: 0, at: 1 }),
                Ordering::Greater => Err(Place { chunk: 0, at: 0 }),
            },
            Self::Small(entries) => within(entries.binary_search_by(order), 0),
            Self::Large(chunks) => {
                let behind = chunks.partition_point(|c| order(&c[0]) != Ordering::Greater);
                let chunk = behind.saturating_sub(1);
                within(chunks[chunk].binary_search_by(order), chunk)
            }
        }
    }

    /// The entries from a place on.
    pub(super) fn from(&self, place: Place) -> impl Iterator<Item = &Entry> {
        let (few, many): (&[Entry], &[Vec<Entry>]) = match self {
            Self::Empty => (&[], &[]),
            Self::One(entry) => (std::slice::from_ref(entry), &[]),
            Self::Small(entries) => (entries, &[]),
            Self::Large(chunks) => (&chunks[place.chunk], &chunks[place.chunk + 1..]),
        };
        few.iter().skip(place.at).chain(many.iter().flatten())
    }

    /// The entries in front of a place, the nearest first.
    pub(super) fn back_from(&self, place: Place) -> impl Iterator<Item = &Entry> + Clone {
        let (few, many): (&[Entry], &[Vec<Entry>]) = match self {
            Self::Empty => (&[], &[]),
            Self::One(entry) => (std::slice::from_ref(entry), &[]),
            Self::Small(entries) => (entries, &[]),
            Self::Large(chunks) => (&chunks[place.chunk], &chunks[..place.chunk]),
        };
        few[..place.at].iter().rev().chain(many.iter().rev().flat_map(|chunk| chunk.iter().rev()))
    }

    /// The entry in front of a place.
    pub(super) fn before(&self, place: Place) -> Option<&Entry> {
        self.back_from(place).next()
    }

    pub(super) fn get_mut(&mut self, place: Place) -> &mut Entry {
        match self {
            Self::Empty => unreachable!("a place of an entry that was found"),
            Self::One(entry) => entry,
            Self::Small(entries) => &mut entries[place.at],
            Self::Large(chunks) => &mut chunks[place.chunk][place.at],
        }
    }

    pub(super) fn insert(&mut self, place: Place, entry: Entry) {
        match self {
            Self::Empty => *self = Self::One(entry),
            Self::One(only) => {
                let mut few = Vec::with_capacity(4);
                few.push(*only);
                few.insert(place.at, entry);
                *self = Self::Small(few);
            }
            Self::Small(entries) => {
                entries.insert(place.at, entry);
                if entries.len() > CHUNK_MAX {
                    let rest = entries.split_off(CHUNK_MAX / 2);
                    *self = Self::Large(vec![std::mem::take(entries), rest]);
                }
            }
            Self::Large(chunks) => {
                let chunk = &mut chunks[place.chunk];
                chunk.insert(place.at, entry);
                if chunk.len() > CHUNK_MAX {
                    let rest = chunk.split_off(CHUNK_MAX / 2);
                    chunks.insert(place.chunk + 1, rest);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, place: Place) -> Entry {
        match self {
            Self::Empty => unreachable!("a place of an entry that was found"),
            Self::One(entry) => {
                let entry = *entry;
                *self = Self::Empty;
                entry
            }
            Self::Small(entries) => {
                let entry = entries.remove(place.at);
                match entries.as_slice() {
                    [] => *self = Self::Empty,
                    [one] => *self = Self::One(*one),
                    _ => {}
                }
                entry
            }
            Self::Large(chunks) => {
                let entry = chunks[place.chunk].remove(place.at);
                if chunks[place.chunk].is_empty() {
                    chunks.remove(place.chunk);
                }
                if let [one] = chunks.as_mut_slice()
                    && one.len() <= CHUNK_MAX / 2
                {
                    let few = std::mem::take(one);
                    *self = if few.is_empty() { Self::Empty } else { Self::Small(few) };
                }
                entry
            }
        }
    }

    /// Removes the greatest entry.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let place = match self {
            Self::Empty => return None,
            Self::One(_) => Place { chunk: 0, at: 0 },
            Self::Small(entries) => Place { chunk: 0, at: entries.len() - 1 },
            Self::Large(chunks) => {
                let chunk = chunks.len() - 1;
                Place { chunk, at: chunks[chunk].len() - 1 }
            }
        };
        Some(self.remove(place))
    }

    /// Bytes beside the enum itself.
    pub(super) fn bytes(&self) -> usize {
        let entries = match self {
            Self::Empty | Self::One(_) => 0,
            Self::Small(entries) => entries.capacity(),
            Self::Large(chunks) => chunks.iter().map(|c| c.capacity() + 1).sum(),
        };
        entries * size_of::<Entry>()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn entry(value: u64) -> Entry {
        Entry { prefix: [value, 0], weight: 1, slot: value as u32 }
    }

    #[test]
    fn behaves_as_a_sorted_vector() {
        let mut random = SmallRng::seed_from_u64(3);
        let (mut sorted, mut twin) = (Sorted::default(), Vec::<u64>::new());
        // Grows through all forms, then shrinks through them.
        for (steps, insert) in [(6_000, 0.8), (9_000, 0.1), (50, 0.9)] {
            for _ in 0..steps {
                let value = random.random_range(0..5_000_u64);
                let found = sorted.search(|e| e.prefix[0].cmp(&value));
                let expected = twin.binary_search(&value);
                assert_eq!(found.is_ok(), expected.is_ok());
                match (found, expected) {
                    (Err(place), Err(at)) if random.random_bool(insert) => {
                        sorted.insert(place, entry(value));
                        twin.insert(at, value);
                    }
                    (Ok(place), Ok(at)) => {
                        assert_eq!(sorted.get_mut(place).prefix[0], value);
                        assert_eq!(sorted.remove(place).prefix[0], value);
                        twin.remove(at);
                    }
                    _ => {
                        let popped = sorted.pop().map(|e| e.prefix[0]);
                        assert_eq!(popped, twin.pop());
                    }
                }
                assert_eq!(sorted.last().map(|e| e.prefix[0]), twin.last().copied());
                let place = sorted.search(|e| e.prefix[0].cmp(&value)).unwrap_or_else(|p| p);
                let at = twin.partition_point(|v| *v < value);
                let before = sorted.back_from(place).map(|e| e.prefix[0]);
                assert!(before.take(300).eq(twin[..at].iter().rev().copied().take(300)));
                let behind = sorted.from(place).map(|e| e.prefix[0]);
                assert!(behind.take(300).eq(twin[at..].iter().copied().take(300)));
                assert_eq!(sorted.is_empty(), twin.is_empty());
            }
            assert!(sorted.iter().map(|e| e.prefix[0]).eq(twin.iter().copied()));
        }
    }
}
