//! `approx_count_distinct(x)` over rows that are read once: HyperLogLog++ of the `hyperloglogplus`
//! crate, with 2^14 registers (a standard error of 0.8 %) and a sparse form for few values.
//!
//! A view can't use it, as no row can be taken out of such a sketch again: see [`super::sketch`].
//! Both have the same bound, and may differ within it.

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
use crate::delta::Keys;

const PRECISION: u8 = 14;

/// `approx_count_distinct` of the batch half.
pub fn batch_approx_count_distinct_udaf() -> Arc<AggregateUDF> {
    static FUNCTION: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
        let signature = Signature::any(1, Volatility::Immutable);
        Arc::new(AggregateUDF::new_from_impl(BatchApproxDistinct { signature }))
    });
    Arc::clone(&FUNCTION)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BatchApproxDistinct {
    signature: Signature,
}

impl AggregateUDFImpl for BatchApproxDistinct {
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
        Ok(Box::new(Sketch(HyperLogLogPlus::new(PRECISION, Hashed).map_err(external)?)))
    }

    fn state_fields(&self, _args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new("sketch", DataType::Binary, true))])
    }
}

fn external(e: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}

/// What goes into the sketch is a hash already: xxh3 of the value's key bytes.
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

#[derive(Debug)]
struct Sketch(HyperLogLogPlus<u64, Hashed>);

impl Accumulator for Sketch {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let keys = Keys::encode(&values[..1], values[0].len()).map_err(to_datafusion)?;
        let nulls = values[0].logical_nulls();
        for (row, hash) in keys.hashes().iter().enumerate() {
            if nulls.as_ref().is_none_or(|n| n.is_valid(row)) {
                self.0.insert(hash);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.0.count().round() as i64)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + (1 << PRECISION)
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let bytes = serde_json::to_vec(&self.0).map_err(external)?;
        Ok(vec![ScalarValue::Binary(Some(bytes))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for bytes in states[0].as_binary::<i32>().iter().flatten() {
            let other: HyperLogLogPlus<u64, Hashed> =
                serde_json::from_slice(bytes).map_err(external)?;
            self.0.merge(&other).map_err(external)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    fn sketch(values: impl Iterator<Item = i64>) -> Sketch {
        let mut sketch = Sketch(HyperLogLogPlus::new(PRECISION, Hashed).expect("a precision"));
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        sketch.update_batch(&[values]).expect("numbers have keys");
        sketch
    }

    fn count(sketch: &mut Sketch) -> i64 {
        match sketch.evaluate().expect("a number") {
            ScalarValue::Int64(Some(count)) => count,
            other => panic!("{other} is no count"),
        }
    }

    /// Four standard errors; few values are exact.
    #[test]
    fn the_error_is_bounded() {
        for (n, bound) in [(0, 0.0), (1, 0.0), (100, 0.0), (5_000, 0.01), (100_000, 0.032)] {
            let found = count(&mut sketch((0..n).chain(0..n).map(|i| i * 7)));
            let error = (found - n).unsigned_abs() as f64;
            assert!(error <= bound * n as f64, "{found} for {n}");
        }
    }

    #[test]
    fn parts_are_merged_through_bytes() {
        let mut one = sketch(0..60);
        let state = sketch(40..100).state().expect("a state");
        let state = state[0].to_array().expect("bytes");
        one.merge_batch(&[state]).expect("merges");
        assert_eq!(count(&mut one), 100);
    }
}
