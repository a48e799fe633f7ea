//! The functions behind `tumble(..)`: start, end and last instant of the tumbling window of a
//! timestamp, as `tumble_start(ts, size_us, offset_us)`. The arithmetic is `time::Tumble`'s.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::errors::to_datafusion;
use crate::config::WINDOWS_PER_ROW_MAX;
use crate::error::{Error, Result, sqlstate};
use crate::time::{Tumble, WindowEdge, WindowError};

/// The name of the function of a window's start.
pub const TUMBLE_START: &str = "tumble_start";
/// The name of the function of a window's end.
pub const TUMBLE_END: &str = "tumble_end";
/// The name of the function of a window's last millisecond, Flink's `window_time`.
pub const TUMBLE_TIME: &str = "tumble_time";

fn name_of(edge: WindowEdge) -> &'static str {
    match edge {
        WindowEdge::Start => TUMBLE_START,
        WindowEdge::End => TUMBLE_END,
        WindowEdge::Time => TUMBLE_TIME,
    }
}

/// The expression of an edge of the window that a timestamp is in.
pub fn tumble_expr(edge: WindowEdge, ts: Expr, window: Tumble) -> Expr {
    udf(edge).call(vec![ts, lit(window.size_us()), lit(window.offset_us())])
}

/// Takes such an expression apart: the edge, the timestamp and the windows.
pub fn as_tumble(expr: &Expr) -> Option<(WindowEdge, &Expr, Tumble)> {
    let Expr::ScalarFunction(f) = expr else { return None };
    let edge = f.func.inner().downcast_ref::<TumbleFunction>()?.edge;
    match f.args.as_slice() {
        [
            ts,
            Expr::Literal(ScalarValue::Int64(Some(size)), _),
            Expr::Literal(ScalarValue::Int64(Some(offset)), _),
        ] => Some((edge, ts, Tumble::new(*size, *offset).ok()?)),
        _ => None,
    }
}

fn udf(edge: WindowEdge) -> Arc<ScalarUDF> {
    static ALL: LazyLock<[Arc<ScalarUDF>; 3]> = LazyLock::new(|| {
        [WindowEdge::Start, WindowEdge::End, WindowEdge::Time].map(|edge| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(ScalarUDF::new_from_impl(TumbleFunction { edge, signature }))
        })
    });
    Arc::clone(&ALL[edge as usize])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TumbleFunction {
    edge: WindowEdge,
    signature: Signature,
}

impl ScalarUDFImpl for TumbleFunction {
    fn name(&self) -> &str {
        name_of(self.edge)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let ts = match types {
            [DataType::Timestamp(_, zone), _, _] => {
                DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
            }
            [DataType::Date32, _, _] => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => {
                return Err(to_datafusion(Error::user(
                    sqlstate::DATATYPE_MISMATCH,
                    "the time column of a window must be a timestamp",
                )));
            }
        };
        Ok(vec![ts, DataType::Int64, DataType::Int64])
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(self.coerce_types(types)?.swap_remove(0))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [ts, size, offset] = args.args.as_slice() else {
            return plan_err!("a window function has three arguments");
        };
        let window = Tumble::new(constant(size)?, constant(offset)?)
            .map_err(|e| to_datafusion(window_error(e)))?;
        match ts {
            ColumnarValue::Array(array) => {
                edge_of(array, self.edge, window).map(ColumnarValue::Array).map_err(to_datafusion)
            }
            ColumnarValue::Scalar(value) => {
                let array = value.to_array_of_size(1)?;
                let out = edge_of(&array, self.edge, window).map_err(to_datafusion)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?))
            }
        }
    }
}

fn constant(value: &ColumnarValue) -> DfResult<i64> {
    match value {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(v))) => Ok(*v),
        ColumnarValue::Array(a) if !a.is_empty() && a.data_type() == &DataType::Int64 => {
            Ok(a.as_primitive::<Int64Type>().value(0))
        }
        _ => plan_err!("the size of a window is a constant"),
    }
}

fn edge_of(array: &ArrayRef, edge: WindowEdge, window: Tumble) -> Result<ArrayRef> {
    let ts = array.as_primitive::<TimestampMicrosecondType>();
    let out = ts.try_unary::<_, TimestampMicrosecondType, Error>(|us| {
        let (start, end) = window.window_of(us).map_err(window_error)?;
        Ok(match edge {
            WindowEdge::Start => start,
            WindowEdge::End => end,
            WindowEdge::Time => end - 1_000,
        })
    })?;
    Ok(Arc::new(out.with_timezone_opt(ts.timezone())))
}

/// The error of a window that there is not.
pub fn window_error(e: WindowError) -> Error {
    match e {
        WindowError::SizeNotPositive => Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            "the size of a window must be greater than zero",
        ),
        WindowError::SlideNotPositive => Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            "the slide or step of a window must be greater than zero",
        ),
        WindowError::NotMultiple => Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            "the size of cumulating windows must be a multiple of their step",
        ),
        WindowError::TooMany => Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("a row would be in more than {WINDOWS_PER_ROW_MAX} windows"),
        )
        .with_hint("Choose a greater slide or step, or a smaller size."),
        WindowError::OutOfRange => {
            Error::user(sqlstate::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
        }
    }
}
