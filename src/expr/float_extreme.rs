//! `min` and `max` of floats for the batch half.
//!
//! DataFusion's accumulators per group compare with `<`, which no NaN passes: what a group holds
//! beside a NaN then depends on the order of its rows. PostgreSQL sorts NaN above everything, as
//! the accumulators for one group and those of window frames do; so those are taken for every
//! group.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result as DfResult;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature};

/// `min` as it runs over floats.
pub fn float_min_udaf() -> Arc<AggregateUDF> {
    static MIN: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| FloatExtreme::udaf(min_udaf()));
    Arc::clone(&MIN)
}

/// `max` as it runs over floats.
pub fn float_max_udaf() -> Arc<AggregateUDF> {
    static MAX: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| FloatExtreme::udaf(max_udaf()));
    Arc::clone(&MAX)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FloatExtreme(Arc<AggregateUDF>);

impl FloatExtreme {
    fn udaf(of: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
        Arc::new(AggregateUDF::new_from_impl(Self(of)))
    }
}

impl AggregateUDFImpl for FloatExtreme {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.0.inner().coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.0.inner().return_type(types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        self.0.inner().state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        self.0.inner().accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        self.0.inner().create_sliding_accumulator(args)
    }
}
