//! What functions make of patterns and names, kept for the rows of a batch that have the same ones.

use std::collections::HashMap;

use crate::error::{Error, Result};

/// Values made of texts. Neighbours mostly have the same text, so the last one is looked at first.
pub(super) struct Memo<T> {
    known: HashMap<String, usize>,
    made: Vec<(String, T)>,
    last: usize,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self { known: HashMap::new(), made: Vec::new(), last: 0 }
    }
}

impl<T> Memo<T> {
    /// What `make` gives for a text, made at its first occurrence.
    pub(super) fn get(&mut self, text: &str, make: impl FnOnce(&str) -> Result<T>) -> Result<&T> {
        if self.made.get(self.last).is_none_or(|(known, _)| known != text) {
            self.last = match self.known.get(text) {
                Some(found) => *found,
                None => {
                    self.made.push((text.to_string(), make(text)?));
                    self.known.insert(text.to_string(), self.made.len() - 1);
                    self.made.len() - 1
                }
            };
        }
        let found = self.made.get(self.last).map(|(_, value)| value);
        found.ok_or_else(|| Error::internal("made just before"))
    }
}
