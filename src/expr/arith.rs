//! Arithmetic with PostgreSQL's result types and errors, as scalar functions that stand for the
//! operators `+ - * / %` and unary minus in every bound plan.
//!
//! Integers overflow with 22003, division by zero is 22012 for floats too, decimals follow
//! `numeric`, and dates, times and intervals follow PostgreSQL (`date - date` is an integer,
//! `timestamp - timestamp` an interval). DataFusion's own operators wrap integers silently.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Datum, Scalar};
use arrow::compute::kernels::numeric as kernels;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::errors::to_datafusion;
use super::{numeric, temporal};
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};

/// An arithmetic operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArithOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Rem,
}

impl fmt::Display for ArithOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Rem => "%",
        })
    }
}

/// `left op right`, checked.
pub fn arith(op: ArithOp, left: Expr, right: Expr) -> Expr {
    arith_udf(op).call(vec![left, right])
}

/// The function of an operator.
pub fn arith_udf(op: ArithOp) -> ScalarUDF {
    ScalarUDF::new_from_impl(Arith { op, signature: user_defined() })
}

/// The operator that a function call stands for.
pub(crate) fn arith_op(f: &ScalarFunction) -> Option<ArithOp> {
    f.func.inner().downcast_ref::<Arith>().map(|arith| arith.op)
}

/// `- operand`, checked.
pub fn negate(operand: Expr) -> Expr {
    static NEGATE: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(Negate { signature: user_defined() })));
    NEGATE.call(vec![operand])
}

/// The operands' types after coercion and the type of the result.
pub(crate) struct Typing {
    pub(crate) left: DataType,
    pub(crate) right: DataType,
    pub(crate) result: DataType,
}

/// The types of `left op right`, or 42883.
pub(crate) fn typing(op: ArithOp, left: &DataType, right: &DataType) -> Result<Typing> {
    let (left, right) = match (left, right) {
        (DataType::Null, DataType::Null) => (DataType::Int32, DataType::Int32),
        (DataType::Null, r) => (partner(op, r, true), r.clone()),
        (l, DataType::Null) => (l.clone(), partner(op, l, false)),
        (l, r) => (l.clone(), r.clone()),
    };
    if let Some(typing) = number_typing(op, &left, &right) {
        return Ok(typing);
    }
    temporal::typing(op, &left, &right).ok_or_else(|| {
        Error::user(
            sqlstate::UNDEFINED_FUNCTION,
            format!(
                "operator does not exist: {} {op} {}",
                pg_type_name(&left),
                pg_type_name(&right)
            ),
        )
        .with_hint(
            "No operator matches the given name and argument types. You might need to add explicit \
             type casts.",
        )
    })
}

/// The type that a NULL of unknown type takes beside an operand.
fn partner(op: ArithOp, other: &DataType, null_is_left: bool) -> DataType {
    match other {
        DataType::Timestamp(..) | DataType::Time64(_) if op == ArithOp::Add || !null_is_left => {
            DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano)
        }
        DataType::Interval(_) if matches!(op, ArithOp::Mul | ArithOp::Div) => DataType::Float64,
        DataType::Date32 if op == ArithOp::Add => DataType::Int32,
        other => other.clone(),
    }
}

fn number_typing(op: ArithOp, left: &DataType, right: &DataType) -> Option<Typing> {
    let same = |t: DataType| Some(Typing { left: t.clone(), right: t.clone(), result: t });
    if !left.is_numeric() || !right.is_numeric() {
        return None;
    }
    if left.is_floating() || right.is_floating() {
        return match (op, left, right) {
            (ArithOp::Rem, ..) => None,
            (_, DataType::Float32, DataType::Float32) => same(DataType::Float32),
            _ => same(DataType::Float64),
        };
    }
    match (integer_rank(left), integer_rank(right)) {
        (Some(l), Some(r)) => {
            same([DataType::Int16, DataType::Int32, DataType::Int64][l.max(r)].clone())
        }
        _ => {
            let (l, r) = (numeric::digits_of(left)?, numeric::digits_of(right)?);
            Some(Typing {
                left: DataType::Decimal128(l.0, l.1),
                right: DataType::Decimal128(r.0, r.1),
                result: numeric::result_type(op, l, r),
            })
        }
    }
}

fn integer_rank(t: &DataType) -> Option<usize> {
    match t {
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => Some(0),
        DataType::UInt16 | DataType::Int32 => Some(1),
        DataType::UInt32 | DataType::Int64 => Some(2),
        _ => None,
    }
}

fn user_defined() -> Signature {
    Signature::user_defined(Volatility::Immutable)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Arith {
    op: ArithOp,
    signature: Signature,
}

impl ScalarUDFImpl for Arith {
    fn name(&self) -> &str {
        match self.op {
            ArithOp::Add => "pg_add",
            ArithOp::Sub => "pg_sub",
            ArithOp::Mul => "pg_mul",
            ArithOp::Div => "pg_div",
            ArithOp::Rem => "pg_mod",
        }
    }

    // The names that the plain operator would have, so that plans read as the query does.
    fn display_name(&self, args: &[Expr]) -> DfResult<String> {
        match args {
            [l, r] => Ok(format!("{} {} {}", Operand(l), self.op, Operand(r))),
            _ => plan_err!("an operator has two operands"),
        }
    }

    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        match args {
            [l, r] => Ok(format!("{} {} {}", l.schema_name(), self.op, r.schema_name())),
            _ => plan_err!("an operator has two operands"),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let [l, r] = types else { return plan_err!("an operator has two operands") };
        let typing = typing(self.op, l, r).map_err(to_datafusion)?;
        Ok(vec![typing.left, typing.right])
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let [l, r] = types else { return plan_err!("an operator has two operands") };
        Ok(typing(self.op, l, r).map_err(to_datafusion)?.result)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return plan_err!("an operator has two operands");
        };
        let result = args.return_field.data_type();
        let scalar = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
        let (left, right) = (operand(left)?, operand(right)?);
        let array = binary(self.op, &left, &right, result).map_err(to_datafusion)?;
        match scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)),
            false => Ok(ColumnarValue::Array(array)),
        }
    }
}

/// Operands that are operators themselves stand in parentheses.
struct Operand<'a>(&'a Expr);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expr::ScalarFunction(inner) if inner.func.inner().is::<Arith>() => {
                write!(f, "({})", self.0)
            }
            other => write!(f, "{other}"),
        }
    }
}

/// An operand: an array, or one value for all rows.
pub(crate) struct Value {
    pub(crate) array: ArrayRef,
    pub(crate) constant: bool,
}

fn operand(value: &ColumnarValue) -> DfResult<Value> {
    match value {
        ColumnarValue::Array(array) => Ok(Value { array: Arc::clone(array), constant: false }),
        ColumnarValue::Scalar(scalar) => {
            Ok(Value { array: scalar.to_array_of_size(1)?, constant: true })
        }
    }
}

/// Runs an arrow kernel over arrays and constants.
pub(crate) fn run(
    kernel: fn(&dyn Datum, &dyn Datum) -> std::result::Result<ArrayRef, ArrowError>,
    left: &Value,
    right: &Value,
) -> std::result::Result<ArrayRef, ArrowError> {
    match (left.constant, right.constant) {
        (true, true) | (false, false) => kernel(&left.array, &right.array),
        (true, false) => kernel(&Scalar::new(Arc::clone(&left.array)), &right.array),
        (false, true) => kernel(&left.array, &Scalar::new(Arc::clone(&right.array))),
    }
}

fn binary(op: ArithOp, left: &Value, right: &Value, result: &DataType) -> Result<ArrayRef> {
    match result {
        DataType::Int16 | DataType::Int32 | DataType::Int64
            if left.array.data_type() == result && right.array.data_type() == result =>
        {
            run(kernel_of(op), left, right).map_err(|e| integer_error(e, result))
        }
        DataType::Float32 | DataType::Float64 if left.array.data_type() == result => {
            Ok(one_nan(float(op, left, right, result)?))
        }
        DataType::Decimal128(p, s) => {
            let (l, r) = (left.array.as_primitive(), right.array.as_primitive());
            Ok(Arc::new(numeric::evaluate(op, l, r, (*p, *s))?))
        }
        _ => temporal::evaluate(op, left, right, result),
    }
}

/// Every NaN with the bits of the one that sorts last: comparisons go by bits, and arithmetic makes
/// NaNs with a sign.
fn one_nan(array: ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => {
            let one = |v: f32| if v.is_nan() { f32::NAN } else { v };
            Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        DataType::Float64 => {
            let one = |v: f64| if v.is_nan() { f64::NAN } else { v };
            Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        _ => array,
    }
}

fn kernel_of(
    op: ArithOp,
) -> fn(&dyn Datum, &dyn Datum) -> std::result::Result<ArrayRef, ArrowError> {
    match op {
        ArithOp::Add => kernels::add,
        ArithOp::Sub => kernels::sub,
        ArithOp::Mul => kernels::mul,
        ArithOp::Div => kernels::div,
        ArithOp::Rem => kernels::rem,
    }
}

fn integer_error(error: ArrowError, data_type: &DataType) -> Error {
    match error {
        ArrowError::ArithmeticOverflow(_) => out_of_range(data_type),
        other => Error::from(other),
    }
}

/// `integer out of range` and its kind.
pub(crate) fn out_of_range(data_type: &DataType) -> Error {
    Error::user(
        sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("{} out of range", pg_type_name(data_type)),
    )
}

/// Float arithmetic: zero divisors and results that leave the range of finite values are errors.
fn float(op: ArithOp, left: &Value, right: &Value, result: &DataType) -> Result<ArrayRef> {
    let out = run(kernel_of(op), left, right)?;
    let (l, r) = (floats(&left.array, result), floats(&right.array, result));
    let values = floats(&out, result);
    let at = |v: &Floats<'_>, array: &ArrayRef, i: usize| match array.len() == 1 {
        true => v.value(0),
        false => v.value(i),
    };
    for i in 0..out.len() {
        if out.is_null(i) {
            continue;
        }
        let value = values.value(i);
        if op == ArithOp::Div && at(&r, &right.array, i) == 0.0 {
            return Err(numeric::division_by_zero());
        }
        if value.is_infinite() {
            if at(&l, &left.array, i).is_finite() && at(&r, &right.array, i).is_finite() {
                return Err(float_range("overflow"));
            }
        } else if value == 0.0
            && matches!(op, ArithOp::Mul | ArithOp::Div)
            && at(&l, &left.array, i) != 0.0
            && (op == ArithOp::Mul && at(&r, &right.array, i) != 0.0
                || op == ArithOp::Div && at(&r, &right.array, i).is_finite())
        {
            return Err(float_range("underflow"));
        }
    }
    Ok(out)
}

fn float_range(what: &str) -> Error {
    Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, format!("value out of range: {what}"))
}

enum Floats<'a> {
    Real(&'a [f32]),
    Double(&'a [f64]),
}

impl Floats<'_> {
    fn value(&self, i: usize) -> f64 {
        match self {
            Self::Real(v) => f64::from(v[i]),
            Self::Double(v) => v[i],
        }
    }
}

fn floats<'a>(array: &'a ArrayRef, data_type: &DataType) -> Floats<'a> {
    match data_type {
        DataType::Float32 => Floats::Real(array.as_primitive::<Float32Type>().values()),
        _ => Floats::Double(array.as_primitive::<Float64Type>().values()),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Negate {
    signature: Signature,
}

impl ScalarUDFImpl for Negate {
    fn name(&self) -> &str {
        "pg_negate"
    }

    fn display_name(&self, args: &[Expr]) -> DfResult<String> {
        Ok(format!("-{}", args.first().map(|e| Operand(e).to_string()).unwrap_or_default()))
    }

    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        Ok(format!("(- {})", args.first().map(|e| e.schema_name().to_string()).unwrap_or_default()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let data_type = match types {
            [DataType::Null] => DataType::Int32,
            [t] if integer_rank(t).is_some() => {
                return Ok(vec![typing(ArithOp::Sub, t, t).map_err(to_datafusion)?.result]);
            }
            [t @ (DataType::Float32 | DataType::Float64 | DataType::Decimal128(..))]
            | [t @ DataType::Interval(_)] => t.clone(),
            [t] => {
                return Err(to_datafusion(Error::user(
                    sqlstate::UNDEFINED_FUNCTION,
                    format!("operator does not exist: - {}", pg_type_name(t)),
                )));
            }
            _ => return plan_err!("unary minus has one operand"),
        };
        Ok(vec![data_type])
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(self.coerce_types(types)?.swap_remove(0))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [value] = args.args.as_slice() else { return plan_err!("unary minus has one operand") };
        let data_type = args.return_field.data_type();
        let array = operand(value)?.array;
        let out = match data_type {
            DataType::Interval(_) => temporal::negate_interval(&array),
            _ => kernels::neg(&array).map(one_nan).map_err(|e| integer_error(e, data_type)),
        }
        .map_err(to_datafusion)?;
        match value {
            ColumnarValue::Scalar(_) => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?))
            }
            ColumnarValue::Array(_) => Ok(ColumnarValue::Array(out)),
        }
    }
}
