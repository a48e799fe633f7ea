//! Rows put into windows of which one row can be in several: the kernel of the operator, and the
//! same as functions that give lists, which the batch half unnests. The arithmetic is
//! `time::Windows`'.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, PrimitiveArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::errors::to_datafusion;
use super::eval::RowError;
use super::tumble::window_error;
use crate::error::Result;
use crate::time::WindowEdge;
use crate::time::Windows;

/// Rows in their windows.
#[derive(Debug)]
pub struct Exploded {
    /// The row of the input behind each row of the output, ascending.
    pub rows: UInt32Array,
    /// The start of its window.
    pub starts: ArrayRef,
    /// The end of its window.
    pub ends: ArrayRef,
}

/// Puts rows into their windows by timestamps in microseconds: one row for each window that a
/// timestamp is in, none for NULL. Rows whose windows are out of range are left out and reported.
pub fn explode(ts: &ArrayRef, windows: Windows, errors: &mut Vec<RowError>) -> Exploded {
    let ts = ts.as_primitive::<TimestampMicrosecondType>();
    let (mut rows, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let [size, step, _] = windows.parameters();
    let each = ts.len().saturating_mul((size / step) as usize);
    rows.reserve(each);
    starts.reserve(each);
    ends.reserve(each);
    for row in 0..ts.len() {
        if ts.is_null(row) {
            continue;
        }
        let before = rows.len();
        let put = windows.each(ts.value(row), |start, end| {
            rows.push(row as u32);
            starts.push(start);
            ends.push(end);
        });
        if let Err(e) = put {
            rows.truncate(before);
            starts.truncate(before);
            ends.truncate(before);
            let error = window_error(e);
            let sqlstate = error.sqlstate();
            errors.push(RowError { row, sqlstate, reason: error.to_string() });
        }
    }
    let zone = ts.timezone().map(Arc::<str>::from);
    let column = |values: Vec<i64>| -> ArrayRef {
        let values = PrimitiveArray::<TimestampMicrosecondType>::from(values);
        Arc::new(values.with_timezone_opt(zone.clone()))
    };
    Exploded { rows: UInt32Array::from(rows), starts: column(starts), ends: column(ends) }
}

/// Flink's `window_time` of windows with these ends: one millisecond before.
pub fn window_time(ends: &ArrayRef) -> ArrayRef {
    let ends = ends.as_primitive::<TimestampMicrosecondType>();
    let times = ends.unary::<_, TimestampMicrosecondType>(|end| end.saturating_sub(1_000));
    Arc::new(times.with_timezone_opt(ends.timezone()))
}

/// The list of starts (or ends) of the windows that a timestamp is in; NULL for NULL.
pub fn window_list(edge: WindowEdge, ts: Expr, windows: Windows) -> Expr {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::new_from_impl(WindowList { edge, windows, signature }).call(vec![ts])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowList {
    edge: WindowEdge,
    windows: Windows,
    signature: Signature,
}

impl ScalarUDFImpl for WindowList {
    fn name(&self) -> &str {
        match self.edge {
            WindowEdge::Start => "window_starts",
            WindowEdge::End => "window_ends",
            WindowEdge::Time => "window_times",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [ts @ DataType::Timestamp(TimeUnit::Microsecond, _)] => Ok(vec![ts.clone()]),
            _ => plan_err!("windows are of timestamps"),
        }
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let item = self.coerce_types(types)?.swap_remove(0);
        Ok(DataType::List(Arc::new(Field::new_list_field(item, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [ts] = args.args.as_slice() else {
            return plan_err!("a list of windows has one argument");
        };
        let ts = ts.to_array(args.number_rows)?;
        self.lists(&ts).map(ColumnarValue::Array).map_err(to_datafusion)
    }
}

impl WindowList {
    fn lists(&self, ts: &ArrayRef) -> Result<ArrayRef> {
        let mut errors = Vec::new();
        let exploded = explode(ts, self.windows, &mut errors);
        if !errors.is_empty() {
            return Err(window_error(crate::time::WindowError::OutOfRange));
        }
        let mut lengths = vec![0; ts.len()];
        exploded.rows.values().iter().for_each(|row| lengths[*row as usize] += 1);
        let items = match self.edge {
            WindowEdge::Start => exploded.starts,
            WindowEdge::End => exploded.ends,
            WindowEdge::Time => window_time(&exploded.ends),
        };
        let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(field, offsets, items, ts.logical_nulls())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::TimestampMicrosecondArray;

    #[test]
    fn rows_are_repeated_and_nulls_left_out() {
        let windows = Windows::hop(5, 10, 0, 100).expect("valid");
        let ts: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from(vec![Some(7), None, Some(i64::MAX), Some(1)]));
        let mut errors = Vec::new();
        let out = explode(&ts, windows, &mut errors);
        assert_eq!(out.rows.values(), &[0, 0, 3, 3]);
        let values = |a: &ArrayRef| a.as_primitive::<TimestampMicrosecondType>().values().to_vec();
        assert_eq!(values(&out.starts), [0, 5, -5, 0]);
        assert_eq!(values(&out.ends), [10, 15, 5, 10]);
        let failed: Vec<_> = errors.iter().map(|e| (e.row, e.sqlstate)).collect();
        assert_eq!(failed, [(2, "22008")]);
    }
}
