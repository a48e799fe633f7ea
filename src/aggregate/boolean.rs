//! `bool_and` (`every`) and `bool_or`: two words, how often true and how often false.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::DataType;

use super::{Aggregate, Emitted, Folds, Rows, Signature, StateAt, argument, unsupported};
use crate::error::Result;
use crate::state::GroupTable;

#[derive(Debug)]
struct Boolean {
    /// The value that decides the result when it is there once: false for `bool_and`.
    decisive: bool,
}

pub(crate) fn and(signature: &Signature) -> Result<Box<dyn Aggregate>> {
    create("bool_and", signature, false)
}

pub(crate) fn or(signature: &Signature) -> Result<Box<dyn Aggregate>> {
    create("bool_or", signature, true)
}

fn create(name: &str, signature: &Signature, decisive: bool) -> Result<Box<dyn Aggregate>> {
    match argument(signature, name)? {
        DataType::Boolean => Ok(Box::new(Boolean { decisive })),
        other => Err(unsupported(name, &other)),
    }
}

impl Aggregate for Boolean {
    fn words(&self) -> usize {
        2
    }

    fn update(&self, table: &mut GroupTable, at: StateAt, rows: Rows<'_>) -> Result<()> {
        let values = rows.value()?.as_boolean();
        let slab = table.slab_mut();
        rows.for_each(|row, slot, weight| {
            let word = &mut slab.words_mut(slot)[at.word + usize::from(values.value(row))];
            *word = word.wrapping_add(weight as u64);
        });
        Ok(())
    }

    fn merges(&self) -> bool {
        true
    }

    fn folds(&self) -> Folds {
        Folds::Words
    }

    fn add_words(&self, words: &mut [u64], other: &[u64]) {
        for (word, other) in words.iter_mut().zip(other) {
            *word = word.wrapping_add(*other);
        }
    }

    fn merge(&self, table: &mut GroupTable, at: StateAt, from: u32, into: u32) -> Result<()> {
        let slab = table.slab_mut();
        for word in at.word..at.word + 2 {
            let count = slab.words(from)[word];
            let word = &mut slab.words_mut(into)[word];
            *word = word.wrapping_add(count);
        }
        Ok(())
    }

    fn emit(&self, table: &GroupTable, at: StateAt, slots: &[u32]) -> Result<Emitted> {
        let value = |slot: &u32| {
            let words = &table.slab().words(*slot)[at.word..at.word + 2];
            let there = |value: bool| words[usize::from(value)] as i64 > 0;
            match (there(self.decisive), there(!self.decisive)) {
                (true, _) => Some(self.decisive),
                (false, true) => Some(!self.decisive),
                (false, false) => None,
            }
        };
        Ok(Emitted::all(Arc::new(slots.iter().map(value).collect::<BooleanArray>())))
    }
}
