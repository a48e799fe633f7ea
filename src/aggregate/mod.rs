//! Aggregates over Z-sets: states that take rows with signed weights, and give a value per group.
//!
//! An [`Aggregate`] is one object for all groups: it updates and emits columns by slot. Its states
//! of fixed width are words in the group's line, what grows with the values is a multiset beside
//! it, so an aggregate has no code for snapshots. They are found by name in [`AGGREGATES`]; adding
//! one is one file and one line there.

mod count;
mod extreme;
mod sum;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;

use crate::delta::Weight;
use crate::error::{Error, Result};
use crate::state::GroupTable;

/// What an aggregate is made for.
#[derive(Debug, Clone)]
pub struct Signature {
    /// The argument's type; `None` for `count(*)`.
    pub argument: Option<DataType>,
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
}

/// A batch of rows by slot.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The slot of each row's group.
    pub slots: &'a [u32],
    /// The argument; `None` for `count(*)`.
    pub values: Option<&'a ArrayRef>,
    /// Weights; `None` when all are +1.
    pub weights: Option<&'a [Weight]>,
    /// FILTER: rows that count. NULL is false.
    pub filter: Option<&'a BooleanArray>,
}

impl Rows<'_> {
    /// The weight of a row.
    #[inline]
    pub fn weight(&self, row: usize) -> Weight {
        self.weights.map_or(1, |w| w[row])
    }

    /// Calls `each(row, slot, weight)` for rows that pass the filter and whose argument is not
    /// NULL.
    #[inline]
    pub fn for_each(&self, mut each: impl FnMut(usize, u32, Weight)) {
        let nulls = self.values.and_then(|v| v.logical_nulls());
        if nulls.is_none() && self.filter.is_none() {
            for (row, slot) in self.slots.iter().enumerate() {
                each(row, *slot, self.weight(row));
            }
            return;
        }
        for (row, slot) in self.slots.iter().enumerate() {
            let valid = nulls.as_ref().is_none_or(|n| n.is_valid(row));
            let passes = self.filter.is_none_or(|f| f.is_valid(row) && f.value(row));
            if valid && passes {
                each(row, *slot, self.weight(row));
            }
        }
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

/// One aggregate function over one argument.
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
    /// Adds a batch of rows.
    fn update(&self, table: &mut GroupTable, at: StateAt, rows: Rows<'_>) -> Result<()>;
    /// The values of the given slots.
    fn emit(&self, table: &GroupTable, at: StateAt, slots: &[u32]) -> Result<Emitted>;
    /// What of its state grows, for EXPLAIN; `None` when nothing does.
    fn grows_with(&self) -> Option<&'static str> {
        None
    }
}

/// An entry of the registry.
pub struct Function {
    /// The SQL name.
    pub name: &'static str,
    /// Makes the aggregate for a signature, or refuses it.
    pub create: fn(&Signature) -> Result<Box<dyn Aggregate>>,
}

/// Every aggregate, sorted by name.
pub const AGGREGATES: &[Function] = &[
    Function { name: "avg", create: sum::avg },
    Function { name: "count", create: count::create },
    Function { name: "max", create: extreme::max },
    Function { name: "min", create: extreme::min },
    Function { name: "sum", create: sum::sum },
];

/// Makes an aggregate by name.
pub fn create(name: &str, signature: &Signature) -> Result<Box<dyn Aggregate>> {
    let function = AGGREGATES.iter().find(|f| f.name == name).ok_or_else(|| {
        Error::unsupported(format!(
            "aggregate function {name} is not supported in a materialized view"
        ))
    })?;
    (function.create)(signature)
}

/// The argument of an aggregate that has one.
fn argument(signature: &Signature, name: &str) -> Result<DataType> {
    signature
        .argument
        .clone()
        .ok_or_else(|| Error::internal(format!("aggregate function {name} needs an argument")))
}

fn unsupported(name: &str, data_type: &DataType) -> Error {
    Error::unsupported(format!(
        "aggregate function {name}({}) is not supported in a materialized view",
        crate::delta::text::pg_type_name(data_type)
    ))
}
