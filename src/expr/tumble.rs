//! The functions behind `tumble(..)`: start, end and last instant of the tumbling window of a
//! timestamp, as `tumble_start(ts, size_us, offset_us)`, and by the calendar of a time zone as
//! `tumble_start(ts, months, days, offset_us, zone)`. The arithmetic is `time::Tumbling`'s.

use std::cell::Cell;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono_tz::Tz;
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::errors::to_datafusion;
use crate::config::WINDOWS_PER_ROW_MAX;
use crate::error::{Error, Result, sqlstate};
use crate::time::{Calendar, CalendarSize, Tumble, Tumbling, WindowEdge, WindowError};

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
pub fn tumble_expr(edge: WindowEdge, ts: Expr, window: Tumbling) -> Expr {
    udf(edge).call(match window {
        Tumbling::Fixed(window) => vec![ts, lit(window.size_us()), lit(window.offset_us())],
        Tumbling::Calendar(window) => {
            let (size, offset_us, zone) = window.parameters();
            let (months, days) = match size {
                CalendarSize::Months(months) => (months, 0),
                CalendarSize::Days(days) => (0, days),
            };
            let [months, days] = [months, days].map(i64::from).map(lit);
            vec![ts, months, days, lit(offset_us), lit(zone.name())]
        }
    })
}

/// The windows that the arguments behind the timestamp stand for.
fn window_from(args: &[ScalarValue]) -> Option<Result<Tumbling, WindowError>> {
    let integer = |value: &ScalarValue| match value {
        ScalarValue::Int64(Some(v)) => Some(*v),
        _ => None,
    };
    match args {
        [size, offset] => Some(Tumble::new(integer(size)?, integer(offset)?).map(Tumbling::Fixed)),
        [months, days, offset, ScalarValue::Utf8(Some(zone))] => {
            let months = i32::try_from(integer(months)?).ok()?;
            let size = match months {
                0 => CalendarSize::Days(i32::try_from(integer(days)?).ok()?),
                months => CalendarSize::Months(months),
            };
            let zone = Tz::from_str(zone).ok()?;
            Some(Calendar::new(size, integer(offset)?, zone).map(Tumbling::Calendar))
        }
        _ => None,
    }
}

/// Takes such an expression apart: the edge, the timestamp and the windows.
pub fn as_tumble(expr: &Expr) -> Option<(WindowEdge, &Expr, Tumbling)> {
    let Expr::ScalarFunction(f) = expr else { return None };
    let edge = f.func.inner().downcast_ref::<TumbleFunction>()?.edge;
    let (ts, rest) = f.args.split_first()?;
    let constant = |e: &Expr| match e {
        Expr::Literal(value, _) => Some(value.clone()),
        _ => None,
    };
    let rest = rest.iter().map(constant).collect::<Option<Vec<_>>>()?;
    Some((edge, ts, window_from(&rest)?.ok()?))
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
        let ts = match types.first() {
            Some(DataType::Timestamp(_, zone)) => {
                DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
            }
            Some(DataType::Date32) => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => {
                return Err(to_datafusion(Error::user(
                    sqlstate::DATATYPE_MISMATCH,
                    "the time column of a window must be a timestamp",
                )));
            }
        };
        let numbers = vec![DataType::Int64; if types.len() > 3 { 3 } else { 2 }];
        let zone = (types.len() > 3).then_some(DataType::Utf8);
        Ok([ts].into_iter().chain(numbers).chain(zone).collect())
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(self.coerce_types(types)?.swap_remove(0))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let Some((ts, rest)) = args.args.split_first() else {
            return plan_err!("a window function has arguments");
        };
        let rest = rest.iter().map(constant).collect::<DfResult<Vec<_>>>()?;
        let Some(window) = window_from(&rest) else {
            return plan_err!("the size of a window is a constant");
        };
        let window = window.map_err(|e| to_datafusion(window_error(e)))?;
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

fn constant(value: &ColumnarValue) -> DfResult<ScalarValue> {
    match value {
        ColumnarValue::Scalar(value) => Ok(value.clone()),
        ColumnarValue::Array(a) if !a.is_empty() => ScalarValue::try_from_array(a, 0),
        ColumnarValue::Array(_) => plan_err!("the size of a window is a constant"),
    }
}

fn edge_of(array: &ArrayRef, edge: WindowEdge, window: Tumbling) -> Result<ArrayRef> {
    let ts = array.as_primitive::<TimestampMicrosecondType>();
    // Neighbours are mostly in one window, and a calendar takes a while.
    let last = Cell::new((0, 0));
    let is_fixed = matches!(window, Tumbling::Fixed(_));
    let out = ts.try_unary::<_, TimestampMicrosecondType, Error>(|us| {
        let (mut start, mut end) = last.get();
        if is_fixed || us < start || us >= end {
            (start, end) = window.window_of(us).map_err(window_error)?;
            last.set((start, end));
        }
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
