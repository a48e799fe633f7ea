//! Aggregates over Z-sets: states that take rows with signed weights, and give a value per group.
//!
//! An [`Aggregate`] is one object for all groups: it updates and emits columns by slot. Its states
//! of fixed width are words in the group's line, what grows with the values is a multiset beside
//! it, so an aggregate has no code for snapshots. Which aggregate has which form says its entry in
//! `library`; adding one is one file and one entry. Those without a form of their own and calls
//! with ORDER BY keep their rows and have the batch half's function compute a changed group anew
//! ([`by_rows`]).

mod approx;
mod boolean;
mod count;
mod distinct;
mod extreme;
mod moments;
mod recompute;
mod single_value;
mod sum;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;

use crate::delta::Weight;
use crate::error::{Error, Result};
use crate::expr::BatchAggregate;
use crate::state::{GroupTable, ValueSpec};

pub use distinct::{DistinctStage, Turns};
pub(crate) use recompute::create as by_rows;

/// What an aggregate is made for.
#[derive(Debug, Clone)]
pub struct Signature {
    /// The types of the arguments that are columns (none for `count(*)`), then those of the keys of
    /// ORDER BY.
    pub arguments: Vec<DataType>,
    /// The directions of ORDER BY.
    pub order: Vec<SortOptions>,
    /// Each distinct value counts once.
    pub distinct: bool,
    /// The batch half's function, for aggregates that are computed anew.
    pub batch: Option<Arc<BatchAggregate>>,
    /// The type of the result, as the binder decided it.
    pub result: DataType,
    /// No row is ever retracted.
    pub append_only: bool,
}

/// Where the states of one aggregate are in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateAt {
    /// The first word in the line.
    pub word: usize,
    /// The first multiset.
    pub multiset: usize,
    /// The first set of distinct values.
    pub values: usize,
}

/// A batch of rows by slot.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The slot of each row's group.
    pub slots: &'a [u32],
    /// The arguments (none for `count(*)`), then the keys of ORDER BY.
    pub arguments: &'a [ArrayRef],
    /// The rows that count, where not all do; a row can stand here twice.
    pub selection: Option<&'a [u32]>,
    /// Weights, of the selection where there is one; `None` when all are +1.
    pub weights: Option<&'a [Weight]>,
    /// FILTER: rows that count. NULL is false.
    pub filter: Option<&'a BooleanArray>,
}

impl Rows<'_> {
    /// The first argument.
    pub fn value(&self) -> Result<&ArrayRef> {
        self.arguments.first().ok_or_else(|| Error::internal("an aggregate needs an argument"))
    }

    /// Calls `each(row, slot, weight)` for rows that pass the filter and whose first argument is
    /// not NULL.
    #[inline]
    pub fn for_each(&self, each: impl FnMut(usize, u32, Weight)) {
        self.rows(self.arguments.first().and_then(|v| v.logical_nulls()).as_ref(), each);
    }

    /// Calls `each(row, slot, weight)` for rows that pass the filter.
    #[inline]
    pub fn for_each_row(&self, each: impl FnMut(usize, u32, Weight)) {
        self.rows(None, each);
    }

    #[inline]
    fn rows(&self, nulls: Option<&NullBuffer>, mut each: impl FnMut(usize, u32, Weight)) {
        let weight = |i: usize| self.weights.map_or(1, |w| w[i]);
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0).map(NullBuffer::inner);
        let counts = match (nulls, self.filter.map(passing)) {
            (Some(valid), Some(passes)) => Some(valid & &passes),
            (valid, passes) => passes.or_else(|| valid.cloned()),
        };
        match (self.selection, counts) {
            (Some(selection), counts) => {
                for (i, row) in selection.iter().map(|row| *row as usize).enumerate() {
                    if counts.as_ref().is_none_or(|counts| counts.value(row)) {
                        each(row, self.slots[row], weight(i));
                    }
                }
            }
            (None, Some(counts)) => {
                counts.set_indices().for_each(|row| each(row, self.slots[row], weight(row)));
            }
            (None, None) => {
                let slots = self.slots.iter().enumerate();
                slots.for_each(|(row, slot)| each(row, *slot, weight(row)));
            }
        }
    }
}

/// The rows for which a FILTER is true.
fn passing(filter: &BooleanArray) -> BooleanBuffer {
    match filter.nulls().filter(|nulls| nulls.null_count() > 0) {
        Some(nulls) => filter.values() & nulls.inner(),
        None => filter.values().clone(),
    }
}

/// The values of some groups.
#[derive(Debug)]
pub struct Emitted {
    /// One value per slot asked for; NULL where the group failed.
    pub values: ArrayRef,
    /// Positions whose value can't be given, with the reason (22003).
    pub failed: Vec<(usize, Error)>,
}

impl Emitted {
    /// Values without failures.
    pub fn all(values: ArrayRef) -> Self {
        Self { values, failed: Vec::new() }
    }
}

/// How the state of rows that were added elsewhere is added to a group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folds {
    /// It is not.
    Not,
    /// By [`Aggregate::add_words`], whatever the weights of the rows.
    Words,
    /// The same, where no row is ever retracted.
    GrowingWords,
    /// Its value, where there is one, is a row for [`Aggregate::update`].
    Value,
}

/// One aggregate function over its arguments.
///
/// Contract: (1) `update` with weight -w undoes `update` with weight w of the same row, in any
/// order; (2) `emit` depends on nothing but the states, so that a value emitted before can be told
/// again from an unchanged state; (3) zeroed words and empty multisets are the state of no row.
pub trait Aggregate: Send + Sync + std::fmt::Debug {
    /// Words in a group's line.
    fn words(&self) -> usize;
    /// Multisets beside it.
    fn multisets(&self) -> usize {
        0
    }
    /// Sets of distinct values beside it.
    fn value_sets(&self) -> Vec<ValueSpec> {
        Vec::new()
    }
    /// Adds a batch of rows.
    fn update(&self, table: &mut GroupTable, at: StateAt, rows: Rows<'_>) -> Result<()>;
    /// The values of the given slots.
    fn emit(&self, table: &GroupTable, at: StateAt, slots: &[u32]) -> Result<Emitted>;
    /// Whether states can be merged.
    fn merges(&self) -> bool {
        false
    }
    /// Adds the state of one group to that of another, as if the rows of both had been added to it.
    fn merge(&self, _table: &mut GroupTable, _at: StateAt, _from: u32, _into: u32) -> Result<()> {
        Err(Error::internal("states of this aggregate are not merged"))
    }
    /// How the state of rows that were added elsewhere is added to a group's.
    fn folds(&self) -> Folds {
        Folds::Not
    }
    /// Adds words of state to those of a group, as if the rows of both had been added to it.
    fn add_words(&self, _words: &mut [u64], _other: &[u64]) {}
    /// What of its state grows, for EXPLAIN; `None` when nothing does.
    fn grows_with(&self) -> Option<&'static str> {
        None
    }
}

/// The forms of aggregates that take rows with weights into a state.
pub(crate) mod forms {
    pub(crate) use super::approx::create as approx_count_distinct;
    pub(crate) use super::boolean::{and as bool_and, or as bool_or};
    pub(crate) use super::count::create as count;
    pub(crate) use super::extreme::{max, min};
    pub(crate) use super::moments::create as moments;
    pub(crate) use super::single_value::create as single_value;
    pub(crate) use super::sum::{avg, sum};
}

/// The argument of an aggregate that has one.
fn argument(signature: &Signature, name: &str) -> Result<DataType> {
    signature
        .arguments
        .first()
        .cloned()
        .ok_or_else(|| Error::internal(format!("aggregate function {name} needs an argument")))
}

fn unsupported(name: &str, data_type: &DataType) -> Error {
    Error::unsupported(format!(
        "aggregate function {name}({}) is not supported in a materialized view",
        crate::delta::text::pg_type_name(data_type)
    ))
}
