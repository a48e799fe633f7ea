//! `date_trunc` over DataFusion's own, which reads what stands behind a NULL: a minimum there (an
//! empty `max` leaves it) overflows. NULLs get a zero behind them before the call.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, FieldRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// The function, over the one that does the work.
pub(crate) fn date_trunc_udf(inner: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(DateTrunc { inner }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        "date_trunc"
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        self.inner.inner().return_field_from_args(args)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        for arg in &mut args.args {
            if let ColumnarValue::Array(array) = arg {
                *array = zero_behind_nulls(array);
            }
        }
        self.inner.inner().invoke_with_args(args)
    }
}

fn zero_behind_nulls(array: &ArrayRef) -> ArrayRef {
    let micros = matches!(array.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _));
    if !micros || array.null_count() == 0 {
        return Arc::clone(array);
    }
    let values = array.as_primitive::<TimestampMicrosecondType>();
    let clean: PrimitiveArray<TimestampMicrosecondType> = values.iter().collect();
    Arc::new(clean.with_timezone_opt(values.timezone()))
}
