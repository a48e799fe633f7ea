//! `approx_count_distinct(x)` (also `approx_distinct`): about how many distinct values there are,
//! by a HyperLogLog of 2^14 registers, with a standard error of 0.8 %.
//!
//! A value's hash (xxh3 of its key bytes) names a register and a rank; the register keeps the
//! greatest rank. The estimate is that of Ertl ("New cardinality estimation algorithms for
//! HyperLogLog sketches", 2017), which needs the histogram of registers alone and, like
//! HyperLogLog++, has no bias for few values. Both halves take the same registers, so that a view
//! equals its query; the incremental half can take rows out again because it counts the rows of
//! each register and rank (see `aggregate/approx.rs`), which no library's sketch does. A read that
//! takes every row once uses one: see [`super::hyperloglog`].

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};

use super::errors::to_datafusion;
use crate::delta::Keys;

/// Bits of a hash that name the register.
const REGISTER_BITS: u32 = 14;
/// The greatest rank.
pub const RANK_MAX: usize = 64 - REGISTER_BITS as usize + 1;

/// The register and rank (from 1) of a hash.
#[inline]
pub fn register_of(hash: u64) -> (u16, u8) {
    let rest = hash << REGISTER_BITS | 1 << (REGISTER_BITS - 1);
    ((hash >> (64 - REGISTER_BITS)) as u16, rest.leading_zeros() as u8 + 1)
}

/// The number of distinct hashes that left behind so many registers of each rank, from rank 1 on.
pub fn estimate(registers_by_rank: &[u64]) -> i64 {
    let registers = f64::from(1_u32 << REGISTER_BITS);
    let count = |rank: usize| registers_by_rank.get(rank - 1).map_or(0.0, |n| *n as f64);
    let used: u64 = registers_by_rank.iter().sum();
    let empty = registers - used as f64;
    let mut z = registers * tau(1.0 - count(RANK_MAX) / registers);
    for rank in (1..RANK_MAX).rev() {
        z = 0.5 * (z + count(rank));
    }
    z += registers * sigma(empty / registers);
    let scale = registers * registers / (2.0 * std::f64::consts::LN_2);
    (scale / z).round() as i64
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// `approx_count_distinct`.
pub fn approx_count_distinct_udaf() -> Arc<AggregateUDF> {
    static FUNCTION: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
        let signature = Signature::any(1, Volatility::Immutable);
        let aliases = vec!["approx_distinct".to_owned()];
        Arc::new(AggregateUDF::new_from_impl(ApproxDistinct { signature, aliases }))
    });
    Arc::clone(&FUNCTION)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ApproxDistinct {
    signature: Signature,
    aliases: Vec<String>,
}

impl AggregateUDFImpl for ApproxDistinct {
    fn name(&self) -> &str {
        "approx_count_distinct"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Int64)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, _data_type: &DataType) -> DfResult<ScalarValue> {
        Ok(ScalarValue::Int64(Some(0)))
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        Ok(Box::new(Registers::default()))
    }

    fn state_fields(&self, _args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new("registers", DataType::Binary, true))])
    }
}

/// The registers that are not empty.
#[derive(Debug, Default)]
struct Registers(BTreeMap<u16, u8>);

impl Registers {
    fn add(&mut self, register: u16, rank: u8) {
        let held = self.0.entry(register).or_default();
        *held = rank.max(*held);
    }
}

impl Accumulator for Registers {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let keys = Keys::encode(&values[..1], values[0].len()).map_err(to_datafusion)?;
        let nulls = values[0].logical_nulls();
        for (row, hash) in keys.hashes().iter().enumerate() {
            if nulls.as_ref().is_none_or(|n| n.is_valid(row)) {
                let (register, rank) = register_of(*hash);
                self.add(register, rank);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let mut by_rank = [0; RANK_MAX];
        self.0.values().for_each(|rank| by_rank[usize::from(*rank) - 1] += 1);
        Ok(ScalarValue::Int64(Some(estimate(&by_rank))))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.len() * 8
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let bytes = self.0.iter().flat_map(|(register, rank)| {
            let [low, high] = register.to_le_bytes();
            [low, high, *rank]
        });
        Ok(vec![ScalarValue::Binary(Some(bytes.collect()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for bytes in states[0].as_binary::<i32>().iter().flatten() {
            for entry in bytes.chunks_exact(3) {
                self.add(u16::from_le_bytes([entry[0], entry[1]]), entry[2]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    /// Four standard errors: what one run in 16,000 would exceed; and few values are exact.
    #[test]
    fn the_error_is_bounded() {
        let bounds = [(0, 0.0), (1, 0.0), (100, 0.02), (5_000, 0.032), (100_000, 0.032)];
        for (count, bound) in bounds.into_iter().chain([(1_000_000, 0.032)]) {
            let mut registers = Registers::default();
            let values: ArrayRef =
                Arc::new(Int64Array::from_iter_values((0..count).map(|i| i * 7)));
            registers.update_batch(&[Arc::clone(&values)]).expect("numbers have keys");
            registers.update_batch(&[values]).expect("numbers have keys");
            let ScalarValue::Int64(Some(found)) = registers.evaluate().expect("a number") else {
                panic!("no number")
            };
            let error = (found - count).unsigned_abs() as f64;
            assert!(error <= bound * count as f64, "{found} for {count}");
        }
    }

    #[test]
    fn ranks_count_zeros_behind_the_register() {
        assert_eq!(register_of(0), (0, 51));
        assert_eq!(register_of(u64::MAX), ((1 << 14) - 1, 1));
        assert_eq!(register_of(1), (0, 50));
    }
}
