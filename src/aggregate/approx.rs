//! `approx_count_distinct`: the registers of [`crate::expr`]'s sketch, from which rows can be taken
//! again. A retraction leaves the number that a read of the remaining rows gives.
//!
//! State: how often each (register, rank) was met, as a set of values (presence alone over input
//! that is never retracted); a register's value is its greatest rank. Words: how many registers
//! have each rank, from which the estimate is made. The set of a group is bounded by its 2^14
//! registers times the ranks that they have met (about log2 of the values per register), whatever
//! the number of values.

use std::sync::Arc;

use arrow::array::{Array, Int64Array};
use arrow::datatypes::DataType;

use super::{Aggregate, Emitted, Rows, Signature, StateAt, argument, unsupported};
use crate::delta::Keys;
use crate::error::Result;
use crate::expr::{RANK_MAX, estimate, register_of};
use crate::state::{GroupTable, ValueSpec, Values, ValuesMut};

#[derive(Debug)]
struct Approx {
    append_only: bool,
}

pub(crate) fn create(signature: &Signature) -> Result<Box<dyn Aggregate>> {
    let data_type = argument(signature, "approx_count_distinct")?;
    Keys::encode(&[arrow::array::new_empty_array(&data_type)], 0)
        .map_err(|_| unsupported("approx_count_distinct", &data_type))?;
    Ok(Box::new(Approx { append_only: signature.append_only }))
}

/// A register and rank as one value.
fn value(register: u16, rank: u8) -> u64 {
    u64::from(register) << 8 | u64::from(rank)
}

/// The greatest rank of a register below `bound` (which is not in it).
fn greatest(set: &ValuesMut<'_>, slot: u32, register: u16, bound: u8) -> Option<u8> {
    (1..bound).rev().find(|rank| set.contains(slot, value(register, *rank)))
}

impl Aggregate for Approx {
    fn words(&self) -> usize {
        RANK_MAX
    }

    fn value_sets(&self) -> Vec<ValueSpec> {
        let data_type = DataType::Int64;
        vec![ValueSpec { data_type, variants: 1, weighted: !self.append_only }]
    }

    fn update(&self, table: &mut GroupTable, at: StateAt, rows: Rows<'_>) -> Result<()> {
        let column = rows.value()?;
        let keys = Keys::encode(std::slice::from_ref(column), column.len())?;
        let met: Vec<(u16, u8)> = keys.hashes().iter().map(|h| register_of(*h)).collect();
        let values = Values::Narrow(met.iter().map(|(register, r)| value(*register, *r)).collect());
        let (slab, mut sets) = table.slab_and_values(at.values);
        rows.for_each(|row, slot, weight| {
            let turn = sets.add(slot, &values, row, weight, 1);
            if turn.came == 0 && turn.went == 0 {
                return;
            }
            let (register, rank) = met[row];
            let above =
                (rank + 1..=RANK_MAX as u8).any(|r| sets.contains(slot, value(register, r)));
            if above {
                return;
            }
            // The register's value goes from the rank below to this one, or back.
            let below = greatest(&sets, slot, register, rank);
            let words = &mut slab.words_mut(slot)[at.word..at.word + RANK_MAX];
            let (one, other) = if turn.came != 0 { (1, -1_i64) } else { (-1_i64, 1) };
            let mut add = |rank: u8, n: i64| {
                let word = &mut words[usize::from(rank) - 1];
                *word = word.wrapping_add(n as u64);
            };
            add(rank, one);
            if let Some(below) = below {
                add(below, other);
            }
        });
        Ok(())
    }

    fn emit(&self, table: &GroupTable, at: StateAt, slots: &[u32]) -> Result<Emitted> {
        let estimates = slots.iter().map(|slot| {
            let words = table.slab().words(*slot);
            estimate(&words[at.word..at.word + RANK_MAX])
        });
        Ok(Emitted::all(Arc::new(Int64Array::from_iter_values(estimates))))
    }
}
