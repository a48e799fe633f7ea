//! An aggregate function whose accumulators are others: all that it says of itself stays.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ReversedUDAF, SetMonotonicity, Signature,
};

/// What makes other accumulators of those of a function.
pub trait Wrap: Debug + Clone + PartialEq + Eq + Hash + Send + Sync + 'static {
    /// That of a frame that only grows.
    fn growing(&self, f: &AggregateUDF, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        f.accumulator(args)
    }

    /// That of a frame which rows leave.
    fn sliding(&self, f: &AggregateUDF, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>>;
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Wrapped<W> {
    function: Arc<AggregateUDF>,
    wrap: W,
}

/// A function with the accumulators of `wrap`.
pub fn wrapped<W: Wrap>(function: &Arc<AggregateUDF>, wrap: W) -> Arc<AggregateUDF> {
    Arc::new(Wrapped { function: Arc::clone(function), wrap }.into())
}

impl<W: Wrap> Wrapped<W> {
    fn inner(&self) -> &dyn AggregateUDFImpl {
        self.function.inner().as_ref()
    }
}

impl<W: Wrap> AggregateUDFImpl for Wrapped<W> {
    fn name(&self) -> &str {
        self.inner().name()
    }

    fn signature(&self) -> &Signature {
        self.inner().signature()
    }

    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> DfResult<String> {
        self.inner().window_function_schema_name(params)
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.inner().return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> DfResult<FieldRef> {
        self.inner().return_field(fields)
    }

    fn is_nullable(&self) -> bool {
        self.inner().is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        self.wrap.growing(&self.function, args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        self.wrap.sliding(&self.function, args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        self.inner().state_fields(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner().order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.inner().reverse_expr() {
            ReversedUDAF::Reversed(function) => {
                ReversedUDAF::Reversed(wrapped(&function, self.wrap.clone()))
            }
            other => other,
        }
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.inner().coerce_types(types)
    }

    fn default_value(&self, data_type: &DataType) -> DfResult<ScalarValue> {
        self.inner().default_value(data_type)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner().supports_null_handling_clause()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner().set_monotonicity(data_type)
    }
}
