//! `count(*)` and `count(x)`: one word, the sum of weights of the rows that count.

use std::sync::Arc;

use arrow::array::Int64Array;

use super::{Aggregate, Emitted, Folds, Rows, Signature, StateAt};
use crate::error::Result;
use crate::state::GroupTable;

#[derive(Debug)]
struct Count;

pub(crate) fn create(_: &Signature) -> Result<Box<dyn Aggregate>> {
    Ok(Box::new(Count))
}

impl Aggregate for Count {
    fn words(&self) -> usize {
        1
    }

    fn update(&self, table: &mut GroupTable, at: StateAt, rows: Rows<'_>) -> Result<()> {
        let slab = table.slab_mut();
        rows.for_each(|_, slot, weight| {
            let word = &mut slab.words_mut(slot)[at.word];
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
        words[0] = words[0].wrapping_add(other[0]);
    }

    fn merge(&self, table: &mut GroupTable, at: StateAt, from: u32, into: u32) -> Result<()> {
        let slab = table.slab_mut();
        let count = slab.words(from)[at.word];
        let word = &mut slab.words_mut(into)[at.word];
        *word = word.wrapping_add(count);
        Ok(())
    }

    fn emit(&self, table: &GroupTable, at: StateAt, slots: &[u32]) -> Result<Emitted> {
        let counts = slots.iter().map(|slot| table.slab().words(*slot)[at.word] as i64);
        Ok(Emitted::all(Arc::new(Int64Array::from_iter_values(counts))))
    }
}
