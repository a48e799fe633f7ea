//! The functions behind scalar subqueries that may have more than one row: the aggregate
//! `single_value` gives a value of its group, and `one_row(value, rows)` hands it on where the
//! number of rows is at most one and fails elsewhere. So the error belongs to the outer row that
//! asks, and there is none where nobody does.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Expr, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::errors::to_datafusion;
use crate::error::{Error, sqlstate};

/// `one_row(value, rows)`.
pub fn one_row(value: Expr, rows: Expr) -> Expr {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::any(2, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(OneRow { signature }))
    });
    FUNCTION.call(vec![value, rows])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OneRow {
    signature: Signature,
}

impl ScalarUDFImpl for OneRow {
    fn name(&self) -> &str {
        "one_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match types {
            [value, _] => Ok(value.clone()),
            _ => plan_err!("one_row takes a value and a number of rows"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [value, rows] = args.args.as_slice() else {
            return plan_err!("one_row takes a value and a number of rows");
        };
        let many = match rows {
            ColumnarValue::Scalar(ScalarValue::Int64(rows)) => rows.is_some_and(|n| n > 1),
            ColumnarValue::Scalar(_) => false,
            ColumnarValue::Array(rows) => {
                rows.as_primitive::<Int64Type>().iter().flatten().any(|n| n > 1)
            }
        };
        match many {
            false => Ok(value.clone()),
            true => Err(to_datafusion(Error::user(
                sqlstate::CARDINALITY_VIOLATION,
                "more than one row returned by a subquery used as an expression",
            ))),
        }
    }
}

/// `single_value(value)`.
pub fn single_value_udaf() -> Arc<AggregateUDF> {
    static AGGREGATE: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
        let signature = Signature::any(1, Volatility::Immutable);
        Arc::new(AggregateUDF::new_from_impl(SingleValue { signature }))
    });
    Arc::clone(&AGGREGATE)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleValue {
    signature: Signature,
}

impl AggregateUDFImpl for SingleValue {
    fn name(&self) -> &str {
        "single_value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match types {
            [value] => Ok(value.clone()),
            _ => plan_err!("single_value takes one argument"),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> DfResult<Box<dyn Accumulator>> {
        let value = ScalarValue::try_from(args.return_field.data_type())?;
        Ok(Box::new(First { value }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> DfResult<Vec<FieldRef>> {
        let data_type = args.return_field.data_type().clone();
        Ok(vec![Arc::new(Field::new("value", data_type, true))])
    }
}

/// The first value that is there.
#[derive(Debug)]
struct First {
    value: ScalarValue,
}

impl First {
    fn add(&mut self, values: &ArrayRef) -> DfResult<()> {
        if self.value.is_null()
            && let Some(row) = (0..values.len()).find(|row| values.is_valid(*row))
        {
            self.value = ScalarValue::try_from_array(values, row)?;
        }
        Ok(())
    }
}

impl Accumulator for First {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.add(&values[0])
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        Ok(vec![self.value.clone()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        self.add(&states[0])
    }
}
