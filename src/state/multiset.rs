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
}

impl OrderedValue {
    /// Appends its bytes: an order of them that is the order of values.
    pub(super) fn push_bytes(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(n) => {
                out.push(0);
                out.extend_from_slice(&(*n as u128 ^ 1 << 127).to_be_bytes());
            }
            Self::Bytes(b) => {
                out.push(1);
                out.extend_from_slice(b);
            }
        }
    }

    /// What [`Self::push_bytes`] has written.
    pub(super) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (0, number) => {
                let number = u128::from_be_bytes(number.try_into().ok()?);
                Some(Self::Number((number ^ 1 << 127) as i128))
            }
            (1, bytes) => Some(Self::Bytes(bytes.into())),
            _ => None,
        }
    }
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
    }

    #[test]
    fn values_come_back_from_bytes_in_their_order() {
        let bytes = |value: &OrderedValue| {
            let mut bytes = Vec::new();
            value.push_bytes(&mut bytes);
            bytes
        };
        let numbers = [i128::MIN, -7, 0, 1 << 90, i128::MAX].map(OrderedValue::Number);
        let texts = ["", "a", "a\0", "b"].map(|t| OrderedValue::Bytes(t.as_bytes().into()));
        for values in [numbers.as_slice(), &texts] {
            assert!(values.windows(2).all(|w| bytes(&w[0]) < bytes(&w[1])));
            assert!(values.iter().all(|v| OrderedValue::of_bytes(&bytes(v)).as_ref() == Some(v)));
        }
        assert_eq!(OrderedValue::of_bytes(&[0, 1]), None);
        assert_eq!(OrderedValue::of_bytes(&[2]), None);
    }
}
