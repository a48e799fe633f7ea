//! The functions behind `gap_fill`: times between a row and the next one, and values on the line
//! between two rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::errors::to_datafusion;
use crate::config::GAP_ROWS_MAX;
use crate::error::{Error, Result, sqlstate};

/// How many times there are at every step behind `from` that are ahead of `to`; 0 where one is
/// NULL.
pub fn gap_steps(from: Expr, to: Expr, step_us: i64) -> Expr {
    gap(step_us, false).call(vec![from, to])
}

/// The time that is so many steps behind `from`.
pub fn gap_time(from: Expr, steps: Expr, step_us: i64) -> Expr {
    gap(step_us, true).call(vec![from, steps])
}

fn gap(step_us: i64, time: bool) -> ScalarUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::new_from_impl(Gap { step_us, time, signature })
}

/// The value at a time on the line from `value` to `next`, whose times are the first two of `line`.
/// It is `value` at the first time. An integer is the nearest one, halves towards the next value.
pub fn interpolated(value: Expr, next: Expr, line: [Expr; 3]) -> Expr {
    let signature = Signature::user_defined(Volatility::Immutable);
    let arguments = [value, next].into_iter().chain(line).collect();
    ScalarUDF::new_from_impl(Interpolated { signature }).call(arguments)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Gap {
    step_us: i64,
    /// A time of the gap rather than how many there are.
    time: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Gap {
    fn name(&self) -> &str {
        if self.time { "gap_time" } else { "gap_steps" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [ts @ DataType::Timestamp(TimeUnit::Microsecond, _), _] => {
                Ok(vec![ts.clone(), if self.time { DataType::Int64 } else { ts.clone() }])
            }
            _ => plan_err!("gaps are between timestamps"),
        }
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let ts = self.coerce_types(types)?.swap_remove(0);
        Ok(if self.time { ts } else { DataType::Int64 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [from, to] = args.args.as_slice() else {
            return plan_err!("a gap is between two times");
        };
        let [from, to] = [from.to_array(args.number_rows)?, to.to_array(args.number_rows)?];
        let made = if self.time { self.times(&from, &to) } else { self.steps(&from, &to) };
        made.map(ColumnarValue::Array).map_err(to_datafusion)
    }
}

impl Gap {
    fn times(&self, from: &ArrayRef, steps: &ArrayRef) -> Result<ArrayRef> {
        let from = from.as_primitive::<TimestampMicrosecondType>();
        let steps = steps.as_primitive::<Int64Type>();
        let time = |row: usize| {
            let there = from.is_valid(row) && steps.is_valid(row);
            there.then(|| from.value(row) + steps.value(row) * self.step_us)
        };
        let times: PrimitiveArray<TimestampMicrosecondType> = (0..from.len()).map(time).collect();
        Ok(Arc::new(times.with_timezone_opt(from.timezone())))
    }

    fn steps(&self, from: &ArrayRef, to: &ArrayRef) -> Result<ArrayRef> {
        let [from, to] = [from, to].map(|a| a.as_primitive::<TimestampMicrosecondType>());
        let steps = |row: usize| {
            if from.is_null(row) || to.is_null(row) || to.value(row) <= from.value(row) {
                return Ok(0);
            }
            let between = to.value(row).abs_diff(from.value(row)) - 1;
            let steps = (between / self.step_us.unsigned_abs()) as i64;
            if steps > GAP_ROWS_MAX { Err(too_many()) } else { Ok(steps) }
        };
        let steps = (0..from.len()).map(steps).collect::<Result<Vec<i64>>>()?;
        Ok(Arc::new(PrimitiveArray::<Int64Type>::from(steps)))
    }
}

fn too_many() -> Error {
    Error::user(
        sqlstate::PROGRAM_LIMIT_EXCEEDED,
        format!("a gap would be filled with more than {GAP_ROWS_MAX} rows"),
    )
    .with_hint("Take a larger step.")
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Interpolated {
    signature: Signature,
}

impl ScalarUDFImpl for Interpolated {
    fn name(&self) -> &str {
        "interpolate"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [value, _, ts, _, _] => {
                Ok(vec![value.clone(), value.clone(), ts.clone(), ts.clone(), ts.clone()])
            }
            _ => plan_err!("a value is interpolated between two"),
        }
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(self.coerce_types(types)?.swap_remove(0))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = args.args.iter().map(|a| a.to_array(rows)).collect::<DfResult<Vec<_>>>()?;
        let [value, next, from, to, at] = arrays.as_slice() else {
            return plan_err!("a value is interpolated between two");
        };
        line((value, next), [from, to, at]).map(ColumnarValue::Array).map_err(to_datafusion)
    }
}

fn line((value, next): (&ArrayRef, &ArrayRef), times: [&ArrayRef; 3]) -> Result<ArrayRef> {
    let [from, to, at] = times.map(|a| a.as_primitive::<TimestampMicrosecondType>());
    // How far between both a row is: nothing where it is the first one itself.
    let place = |row: usize| {
        if at.value(row) == from.value(row) {
            return Some((0, 1));
        }
        let there = to.is_valid(row) && next.is_valid(row);
        let whole = i128::from(to.value(row)) - i128::from(from.value(row));
        there.then(|| (i128::from(at.value(row)) - i128::from(from.value(row)), whole))
    };
    let placed = |row: usize| place(row).filter(|_| value.is_valid(row));
    let of = value.data_type();
    if matches!(of, DataType::Float32 | DataType::Float64) {
        let [value, next] = [value, next].map(|a| cast(a, &DataType::Float64));
        let (value, next) = (value?, next?);
        let [value, next] = [&value, &next].map(|a| a.as_primitive::<Float64Type>());
        let float = |row: usize| {
            let (part, whole) = placed(row)?;
            let first = value.value(row);
            let step = if part == 0 { 0.0 } else { next.value(row) - first };
            Some(first + step * (part as f64 / whole as f64))
        };
        let values: PrimitiveArray<Float64Type> = (0..value.len()).map(float).collect();
        return Ok(cast(&values, of)?);
    }
    let [value, next] = [value, next].map(|a| cast(a, &DataType::Int64));
    let (value, next) = (value?, next?);
    let [value, next] = [&value, &next].map(|a| a.as_primitive::<Int64Type>());
    let integer = |row: usize| {
        let (part, whole) = placed(row)?;
        let first = i128::from(value.value(row));
        let step = if part == 0 { 0 } else { i128::from(next.value(row)) - first };
        // It is between two integers, so in their range.
        let twice = step.checked_mul(2 * part);
        let moved = twice.map_or_else(
            || (step as f64 * (part as f64 / whole as f64)).round() as i128,
            |twice| (twice + if step < 0 { -whole } else { whole }) / (2 * whole),
        );
        i64::try_from(first + moved).ok()
    };
    let values: PrimitiveArray<Int64Type> = (0..value.len()).map(integer).collect();
    Ok(cast(&values, of)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int32Array, TimestampMicrosecondArray};

    fn times(values: &[Option<i64>]) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values.to_vec()))
    }

    #[test]
    fn a_gap_has_the_steps_ahead_of_its_end() {
        let signature = Signature::user_defined(Volatility::Immutable);
        let mut gaps = Gap { step_us: 10, time: false, signature };
        let from = times(&[Some(0), Some(5), Some(5), None, Some(7)]);
        let to = times(&[Some(30), Some(26), Some(5), Some(9), None]);
        let steps = gaps.steps(&from, &to).expect("small");
        assert_eq!(steps.as_primitive::<Int64Type>().values().to_vec(), [2, 2, 0, 0, 0]);
        let far = gaps.steps(&times(&[Some(0)]), &times(&[Some(i64::MAX)]));
        assert_eq!(far.expect_err("too many").sqlstate(), "54000");
        gaps.time = true;
        let filled = gaps.times(&from, &steps).expect("in range");
        let filled = filled.as_primitive::<TimestampMicrosecondType>();
        assert_eq!((filled.value(0), filled.value(1), filled.is_null(3)), (20, 25, true));
    }

    #[test]
    fn values_are_on_the_line() {
        let from = times(&[Some(0); 4]);
        let to = times(&[Some(4), Some(4), Some(4), None]);
        let at = times(&[Some(0), Some(1), Some(2), Some(0)]);
        let values: ArrayRef = Arc::new(Int32Array::from(vec![i32::MIN, 10, -1, 7]));
        let next: ArrayRef = Arc::new(Int32Array::from(vec![None, Some(16), Some(-2), None]));
        let out = line((&values, &next), [&from, &to, &at]).expect("computes");
        assert_eq!(out.as_ref(), &Int32Array::from(vec![i32::MIN, 12, -2, 7]) as &dyn Array);
        let values: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 1.0, f64::NAN, 2.0]));
        let next: ArrayRef = Arc::new(Float64Array::from(vec![2.0, 2.0, 1.0, f64::NAN]));
        let out = line((&values, &next), [&from, &to, &at]).expect("computes");
        let out = out.as_primitive::<Float64Type>();
        assert_eq!((out.value(0), out.value(1), out.value(3)), (1.0, 1.25, 2.0));
        assert!(out.value(2).is_nan());
    }
}
