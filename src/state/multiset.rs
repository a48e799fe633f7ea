//! Ordered multiset: the values of one group with their weights, least and greatest at hand.
//!
//! The state of `min` and `max` where rows can be retracted. A few values lie in a sorted vector,
//! many in a B-tree; both are ordered as the SQL type is.

use std::collections::BTreeMap;

use crate::delta::Weight;

/// A value in an order-preserving form: numbers and times as integers, text and bytes as bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum OrderedValue {
    /// Every type of fixed width; floats by their order-preserving bits.
    Number(i128),
    /// Text, bytes, and intervals by their key bytes.
    Bytes(Box<[u8]>),
}

/// Above this many distinct values the vector becomes a tree: insertion moves at most about a
/// kilobyte before.
const SMALL_VALUES: usize = 24;

/// Values with weights, ordered.
#[derive(Debug, Clone)]
pub enum Multiset {
    /// Sorted by value.
    Small(Vec<(OrderedValue, Weight)>),
    /// Many values.
    Large(BTreeMap<OrderedValue, Weight>),
}

impl Default for Multiset {
    fn default() -> Self {
        Self::Small(Vec::new())
    }
}

impl Multiset {
    /// Adds a weight to a value; a value whose weight is zero is gone.
    pub fn add(&mut self, value: OrderedValue, weight: Weight) {
        match self {
            Self::Small(values) => match values.binary_search_by(|(v, _)| v.cmp(&value)) {
                Ok(at) => {
                    values[at].1 += weight;
                    if values[at].1 == 0 {
                        values.remove(at);
                    }
                }
                Err(at) => {
                    values.insert(at, (value, weight));
                    if values.len() > SMALL_VALUES {
                        *self = Self::Large(std::mem::take(values).into_iter().collect());
                    }
                }
            },
            Self::Large(values) => {
                let entry = values.entry(value);
                let mut entry = match entry {
                    std::collections::btree_map::Entry::Occupied(entry) => entry,
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(weight);
                        return;
                    }
                };
                *entry.get_mut() += weight;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
    }

    /// The least value.
    pub fn first(&self) -> Option<&OrderedValue> {
        match self {
            Self::Small(values) => values.first().map(|(v, _)| v),
            Self::Large(values) => values.first_key_value().map(|(v, _)| v),
        }
    }

    /// The greatest value.
    pub fn last(&self) -> Option<&OrderedValue> {
        match self {
            Self::Small(values) => values.last().map(|(v, _)| v),
            Self::Large(values) => values.last_key_value().map(|(v, _)| v),
        }
    }

    /// Distinct values held.
    pub fn len(&self) -> usize {
        match self {
            Self::Small(values) => values.len(),
            Self::Large(values) => values.len(),
        }
    }

    /// True when no value is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values with their weights, ascending.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (&OrderedValue, Weight)> + '_> {
        match self {
            Self::Small(values) => Box::new(values.iter().map(|(v, w)| (v, *w))),
            Self::Large(values) => Box::new(values.iter().map(|(v, w)| (v, *w))),
        }
    }

    /// Bytes, counted by entries.
    pub fn bytes(&self) -> usize {
        let entry = std::mem::size_of::<(OrderedValue, Weight)>();
        let heap: usize = match self {
            Self::Small(values) => values.capacity() * entry,
            Self::Large(values) => values.len() * (entry + 8),
        };
        let long = self.iter().map(|(v, _)| match v {
            OrderedValue::Number(_) => 0,
            OrderedValue::Bytes(b) => b.len(),
        });
        heap + long.sum::<usize>()
    }

    /// Appends the byte form.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        for (value, weight) in self.iter() {
            out.extend_from_slice(&weight.to_le_bytes());
            match value {
                OrderedValue::Number(n) => {
                    out.push(0);
                    out.extend_from_slice(&n.to_le_bytes());
                }
                OrderedValue::Bytes(b) => {
                    out.push(1);
                    out.extend_from_slice(&(b.len() as u32).to_le_bytes());
                    out.extend_from_slice(b);
                }
            }
        }
    }

    /// Reads what [`Self::write`] wrote off the front of `input`; `None` when it is cut short.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let mut set = Self::default();
        let count = u32::from_le_bytes(chunk(input)?);
        for _ in 0..count {
            let weight = Weight::from_le_bytes(chunk(input)?);
            let value = match chunk::<1>(input)? {
                [0] => OrderedValue::Number(i128::from_le_bytes(chunk(input)?)),
                _ => {
                    let length = u32::from_le_bytes(chunk(input)?) as usize;
                    let (bytes, rest) = input.split_at_checked(length)?;
                    *input = rest;
                    OrderedValue::Bytes(bytes.into())
                }
            };
            set.add(value, weight);
        }
        Some(set)
    }
}

fn chunk<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_follow_inserts_and_retractions_across_both_sizes() {
        let mut set = Multiset::default();
        for n in 0..100 {
            set.add(OrderedValue::Number(n * 7 % 100), 1);
        }
        assert_eq!(set.first(), Some(&OrderedValue::Number(0)));
        assert_eq!(set.last(), Some(&OrderedValue::Number(99)));
        for n in 50..100 {
            set.add(OrderedValue::Number(n), -1);
        }
        assert_eq!(set.last(), Some(&OrderedValue::Number(49)));
        let mut bytes = Vec::new();
        set.write(&mut bytes);
        let back = Multiset::read(&mut bytes.as_slice()).expect("whole");
        assert!(back.iter().eq(set.iter()));
        assert!(Multiset::read(&mut &bytes[..bytes.len() - 1]).is_none());
    }
}
