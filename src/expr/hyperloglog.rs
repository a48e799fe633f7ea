//! `approx_count_distinct(x)` (also `approx_distinct`) over rows that are only added: reads, and
//! frames of windows.
//!
//! The registers are kept by the sketch of the `hyperloglogplus` crate: a list of differences of
//! one or two bytes a value while they are few, then six bits a register. How many values they
//! stand for is told by [`super::sketch`], as of a view, so that both give one number.
//!
//! | form | while | of a group |
//! |---|---|---|
//! | a sorted list | there are at most 256 registers | 4 bytes a register |
//! | the crate's sketch | until its number is asked for | at most 13 KB |
//! | a byte for each register | it is asked for again and again, by a frame that grows | 16 KB |

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use hyperloglogplus::{HyperLogLog, HyperLogLogPlus};
use serde::{Deserialize, Serialize};

use super::errors::to_datafusion;
use super::sketch::{RANK_MAX, REGISTER_BITS, estimate, hash_of, register_of};
use crate::delta::Keys;

/// So many registers are kept as a list.
const FEW: usize = 256;

/// `approx_count_distinct`.
pub fn approx_count_distinct_udaf() -> Arc<AggregateUDF> {
    static FUNCTION: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
        let signature = Signature::any(1, Volatility::Immutable);
        Arc::new(AggregateUDF::new_from_impl(ApproxDistinct { signature }))
    });
    Arc::clone(&FUNCTION)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ApproxDistinct {
    signature: Signature,
}

impl AggregateUDFImpl for ApproxDistinct {
    fn name(&self) -> &str {
        "approx_count_distinct"
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
        Ok(Box::new(Registers::Few(Vec::new())))
    }

    fn state_fields(&self, _args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new("registers", DataType::Binary, true))])
    }
}

fn external(e: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}

/// What goes into the crate's sketch is a hash already.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Hashed;

impl BuildHasher for Hashed {
    type Hasher = Passed;

    fn build_hasher(&self) -> Passed {
        Passed(0)
    }
}

/// Hands on the number that it is given.
struct Passed(u64);

impl Hasher for Passed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Sketch = HyperLogLogPlus<u64, Hashed>;

/// The greatest rank of each register.
#[derive(Debug)]
enum Registers {
    /// Those that are not empty, ascending.
    Few(Vec<(u16, u8)>),
    /// A sketch.
    Added(Box<Sketch>),
    /// All of them, where 0 is an empty one, and how many have each rank.
    All(Box<[u8]>, Box<[u64; RANK_MAX]>),
}

impl Registers {
    fn add(&mut self, register: u16, rank: u8) -> DfResult<()> {
        match self {
            Self::Few(few) => match few.binary_search_by_key(&register, |(r, _)| *r) {
                Ok(at) => few[at].1 = rank.max(few[at].1),
                Err(_) if few.len() == FEW => {
                    let mut sketch = Sketch::new(REGISTER_BITS as u8, Hashed).map_err(external)?;
                    let held = few.iter().copied().chain([(register, rank)]);
                    held.for_each(|(register, rank)| sketch.insert(&hash_of(register, rank)));
                    *self = Self::Added(Box::new(sketch));
                }
                Err(at) => few.insert(at, (register, rank)),
            },
            Self::Added(sketch) => sketch.insert(&hash_of(register, rank)),
            Self::All(ranks, by_rank) => {
                let held = &mut ranks[usize::from(register)];
                if rank <= *held {
                    return Ok(());
                }
                if *held > 0 {
                    by_rank[usize::from(*held) - 1] -= 1;
                }
                by_rank[usize::from(rank) - 1] += 1;
                *held = rank;
            }
        }
        Ok(())
    }

    /// Registers that are not empty, each with its rank; one of a sketch with all that it has met.
    fn each(&self, mut each: impl FnMut(u16, u8)) -> DfResult<()> {
        match self {
            Self::Few(few) => few.iter().for_each(|(register, rank)| each(*register, *rank)),
            Self::Added(sketch) => Held::of(sketch)?.each(each),
            Self::All(ranks, _) => {
                let used = (0..).zip(ranks.iter()).filter(|(_, rank)| **rank > 0);
                used.for_each(|(register, rank)| each(register, *rank));
            }
        }
        Ok(())
    }

    /// The form that can be asked again and again.
    fn all(&self) -> DfResult<Self> {
        let none = vec![0; 1 << REGISTER_BITS].into_boxed_slice();
        let mut all = Self::All(none, Box::new([0; RANK_MAX]));
        let mut added = Ok(());
        self.each(|register, rank| {
            if added.is_ok() {
                added = all.add(register, rank);
            }
        })?;
        added.map(|()| all)
    }
}

/// What a sketch holds, as it is written.
#[derive(Deserialize)]
struct Held {
    /// Codes of hashes that came last.
    tmpset: Vec<u32>,
    sparse: Differences,
    registers: Option<Packed>,
}

/// Ascending codes of hashes as differences: seven bits a byte, the low ones first, the top bit set
/// where more follow.
#[derive(Deserialize)]
struct Differences {
    buf: Vec<u8>,
}

/// Registers of six bits, five a word.
#[derive(Deserialize)]
struct Packed {
    buf: Vec<u32>,
}

impl Held {
    fn of(sketch: &Sketch) -> DfResult<Self> {
        let written = serde_json::to_vec(sketch).map_err(external)?;
        serde_json::from_slice(&written).map_err(external)
    }

    fn each(&self, mut each: impl FnMut(u16, u8)) {
        if let Some(packed) = &self.registers {
            let ranks = packed.buf.iter().flat_map(|word| (0..5).map(move |i| word >> (6 * i)));
            let ranks = (0..1 << REGISTER_BITS).zip(ranks.map(|rank| (rank & 63) as u8));
            ranks.filter(|(_, rank)| *rank > 0).for_each(|(register, rank)| each(register, rank));
            return;
        }
        self.tmpset.iter().for_each(|code| {
            let (register, rank) = of_code(*code);
            each(register, rank);
        });
        let (mut code, mut difference, mut shift) = (0_u32, 0_u32, 0);
        for byte in &self.sparse.buf {
            difference |= u32::from(byte & 127) << shift;
            shift += 7;
            if byte & 128 == 0 {
                code += difference;
                let (register, rank) = of_code(code);
                each(register, rank);
                (difference, shift) = (0, 0);
            }
        }
    }
}

/// The register and rank of the code of a hash. It is the first 25 bits of the hash and a 0; or,
/// where those behind the register are all 0, the 25 bits, six for the rank that is counted behind
/// them, and a 1 ("HyperLogLog in Practice", 2013, section 5.3.3).
fn of_code(code: u32) -> (u16, u8) {
    const BITS: u32 = 25;
    if code & 1 == 1 {
        let rank = (code >> 1 & 63) + BITS - REGISTER_BITS;
        return ((code >> (BITS + 7 - REGISTER_BITS)) as u16, rank as u8);
    }
    let register = code >> (BITS + 1 - REGISTER_BITS);
    let behind = code << (u32::BITS - BITS - 1 + REGISTER_BITS);
    (register as u16, behind.leading_zeros() as u8 + 1)
}

impl Accumulator for Registers {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let keys = Keys::encode(&values[..1], values[0].len()).map_err(to_datafusion)?;
        let nulls = values[0].logical_nulls();
        for (row, hash) in keys.hashes().iter().enumerate() {
            if nulls.as_ref().is_none_or(|n| n.is_valid(row)) {
                let (register, rank) = register_of(*hash);
                self.add(register, rank)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        if let Self::Added(_) = self {
            *self = self.all()?;
        }
        let number = match self {
            Self::All(_, by_rank) => estimate(&**by_rank),
            _ => {
                let mut by_rank = [0; RANK_MAX];
                self.each(|_, rank| by_rank[usize::from(rank) - 1] += 1)?;
                estimate(&by_rank)
            }
        };
        Ok(ScalarValue::Int64(Some(number)))
    }

    fn size(&self) -> usize {
        let held = match self {
            Self::Few(few) => few.capacity() * size_of::<(u16, u8)>(),
            // Its registers, or fewer bytes, and what it puts aside.
            Self::Added(sketch) => size_of_val(&**sketch) + (1 << REGISTER_BITS),
            Self::All(ranks, by_rank) => ranks.len() + size_of_val(&**by_rank),
        };
        size_of_val(self) + held
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let mut bytes = Vec::new();
        self.each(|register, rank| {
            bytes.extend(register.to_le_bytes());
            bytes.push(rank);
        })?;
        Ok(vec![ScalarValue::Binary(Some(bytes))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for bytes in states[0].as_binary::<i32>().iter().flatten() {
            for entry in bytes.chunks_exact(3) {
                self.add(u16::from_le_bytes([entry[0], entry[1]]), entry[2])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::Int64Array;

    use super::*;

    fn array(values: impl Iterator<Item = i64>) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(values.map(|i| i * 7)))
    }

    fn registers(values: impl Iterator<Item = i64>) -> Registers {
        let mut registers = Registers::Few(Vec::new());
        registers.update_batch(&[array(values)]).expect("numbers have keys");
        registers
    }

    fn number(registers: &mut Registers) -> i64 {
        match registers.evaluate().expect("a number") {
            ScalarValue::Int64(Some(number)) => number,
            other => panic!("{other} is no number"),
        }
    }

    fn held(registers: &Registers) -> BTreeMap<u16, u8> {
        let mut held = BTreeMap::new();
        let each = |register, rank: u8| {
            let greatest = held.entry(register).or_default();
            *greatest = rank.max(*greatest);
        };
        registers.each(each).expect("registers");
        held
    }

    /// Four standard errors: what one run in 16,000 would exceed; few values are exact.
    #[test]
    fn the_error_is_bounded() {
        let bounds = [(0, 0.0), (1, 0.0), (100, 0.02), (5_000, 0.032), (100_000, 0.032)];
        for (count, bound) in bounds.into_iter().chain([(1_000_000, 0.032)]) {
            let found = number(&mut registers((0..count).chain(0..count)));
            let error = (found - count).unsigned_abs() as f64;
            assert!(error <= bound * count as f64, "{found} for {count}");
        }
    }

    /// Whatever keeps the registers, they are those that the hashes name.
    #[test]
    fn the_form_of_the_registers_changes_nothing() {
        for count in [0, 3, FEW as i64, 300, 2_000, 6_000, 20_000, 300_000] {
            let hashes = Keys::encode(&[array(0..count)], count as usize).expect("keys");
            let mut expected = BTreeMap::new();
            for hash in hashes.hashes().iter() {
                let (register, rank) = register_of(*hash);
                let greatest: &mut u8 = expected.entry(register).or_default();
                *greatest = rank.max(*greatest);
            }
            let mut once = registers(0..count);
            assert_eq!(held(&once), expected, "{count} values");
            let mut by_rank = [0; RANK_MAX];
            expected.values().for_each(|rank| by_rank[usize::from(*rank) - 1] += 1);
            // Asked twice, and asked while values come.
            assert_eq!(
                (number(&mut once), number(&mut once)),
                (estimate(&by_rank), number(&mut once))
            );
            let mut asked = registers(0..count / 2);
            number(&mut asked);
            asked.update_batch(&[array(count / 3..count)]).expect("numbers have keys");
            assert_eq!(held(&asked), expected, "{count} values, asked between");
            assert_eq!(number(&mut asked), estimate(&by_rank));
        }
    }

    #[test]
    fn parts_are_merged_through_bytes() {
        for count in [30, 1_000, 30_000] {
            let mut merged = registers(0..count / 2);
            for mut part in [registers(count / 3..count), registers(0..0)] {
                let state = part.state().expect("a state");
                merged.merge_batch(&[state[0].to_array().expect("bytes")]).expect("merges");
            }
            assert_eq!(held(&merged), held(&registers(0..count)), "{count} values");
        }
    }

    /// The crate's own count of the registers is near, which it would not be of other registers.
    #[test]
    fn the_crate_agrees() {
        let Registers::Added(mut sketch) = registers(0..200_000) else { panic!("no sketch") };
        let found = sketch.count();
        assert!((found - 200_000.0).abs() < 0.032 * 200_000.0, "{found}");
    }
}
