//! An average out of a sum and a count, as `avg` would give it: for plans that merge partial
//! results.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Builder, Float64Array, IntervalMonthDayNanoArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int64Type, IntervalMonthDayNanoType,
};
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::errors::to_datafusion;
use super::numeric::ArithmeticMean;
use super::temporal::divided;
use crate::error::{Error, Result};

/// The quotient of a sum and a count in the type of the average; NULL for no sum.
pub fn mean_expr(sum: Expr, count: Expr, result: &DataType) -> Expr {
    let signature = Signature::any(2, Volatility::Immutable);
    ScalarUDF::new_from_impl(Mean { result: result.clone(), signature }).call(vec![sum, count])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Mean {
    result: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Mean {
    fn name(&self) -> &str {
        "mean"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(self.result.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [sum, count] = args.args.as_slice() else { return plan_err!("a sum and a count") };
        let (sum, count) = (sum.to_array(args.number_rows)?, count.to_array(args.number_rows)?);
        self.mean(&sum, &count).map(ColumnarValue::Array).map_err(to_datafusion)
    }
}

impl Mean {
    fn mean(&self, sum: &ArrayRef, count: &ArrayRef) -> Result<ArrayRef> {
        let counts = count.as_primitive::<Int64Type>();
        match &self.result {
            DataType::Float64 => {
                let sums = sum.as_primitive::<Float64Type>().iter();
                let means = sums.zip(counts).map(|(s, n)| Some(s? / n? as f64));
                Ok(Arc::new(means.collect::<Float64Array>()))
            }
            DataType::Decimal128(precision, scale) => {
                let (sums, from) = match sum.data_type() {
                    DataType::Decimal128(_, from) => (sum.clone(), *from),
                    _ => (cast(sum, &DataType::Decimal128(38, 0))?, 0),
                };
                let mut out = Decimal128Builder::with_capacity(sums.len())
                    .with_data_type(self.result.clone());
                for (sum, count) in sums.as_primitive::<Decimal128Type>().iter().zip(counts) {
                    let mean = sum.zip(count).map(|(sum, count)| {
                        ArithmeticMean { sum, scale: from, count }.value(*precision, *scale)
                    });
                    out.append_option(mean.transpose()?);
                }
                Ok(Arc::new(out.finish()))
            }
            DataType::Interval(_) => {
                let sums = sum.as_primitive::<IntervalMonthDayNanoType>().iter();
                let mean = |(sum, count): (Option<_>, Option<i64>)| {
                    let parts = sum.zip(count);
                    parts.map(|(sum, count)| divided(sum, count as f64)).transpose()
                };
                let means = sums.zip(counts).map(mean);
                Ok(Arc::new(means.collect::<Result<IntervalMonthDayNanoArray>>()?))
            }
            other => Err(Error::internal(format!("no average of type {other}"))),
        }
    }
}
