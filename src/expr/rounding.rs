//! `round`, `trunc`, `ceil` and `floor` as PostgreSQL has them: floats round half to even, numerics
//! half away from zero, integers become double precision, and the scale of a numeric is that of the
//! result.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float32Array, Float64Array};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, Int32Type,
};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::errors::to_datafusion;
use super::numeric::{divide_rounded, overflow, rescale};
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};

/// The function of a name.
pub fn rounding_udf(name: &str) -> Option<Arc<ScalarUDF>> {
    let rounding = match name {
        "round" => Rounding::Round,
        "trunc" => Rounding::Trunc,
        "ceil" => Rounding::Ceil,
        "floor" => Rounding::Floor,
        _ => return None,
    };
    let signature = Signature::user_defined(Volatility::Immutable);
    let function = Function { rounding, any_digits: false, signature };
    Some(Arc::new(ScalarUDF::new_from_impl(function)))
}

/// `round` or `trunc` to a number of digits that is computed: its type does not hang on it, as the
/// optimiser may find out that it is a constant.
pub fn rounding_to_any_digits(name: &str) -> Option<Arc<ScalarUDF>> {
    let rounding = match name {
        "round" => Rounding::Round,
        "trunc" => Rounding::Trunc,
        _ => return None,
    };
    let signature = Signature::user_defined(Volatility::Immutable);
    let function = Function { rounding, any_digits: true, signature };
    Some(Arc::new(ScalarUDF::new_from_impl(function)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Rounding {
    Round,
    Trunc,
    Ceil,
    Floor,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    rounding: Rounding,
    any_digits: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        match self.rounding {
            Rounding::Round => "round",
            Rounding::Trunc => "trunc",
            Rounding::Ceil => "ceil",
            Rounding::Floor => "floor",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let digits = matches!(self.rounding, Rounding::Round | Rounding::Trunc);
        Ok(match types {
            [t @ (DataType::Float32 | DataType::Float64 | DataType::Decimal128(..))] => {
                vec![t.clone()]
            }
            [t] if t.is_integer() || t.is_null() => vec![DataType::Float64],
            [DataType::Decimal128(p, s), n] if digits && (n.is_integer() || n.is_null()) => {
                vec![DataType::Decimal128(*p, *s), DataType::Int32]
            }
            [t, n] if digits && t.is_integer() && n.is_integer() => {
                vec![DataType::Decimal128(20, 0), DataType::Int32]
            }
            other => {
                let types: Vec<_> = other.iter().map(pg_type_name).collect();
                return Err(to_datafusion(Error::user(
                    sqlstate::UNDEFINED_FUNCTION,
                    format!("function {}({}) does not exist", self.name(), types.join(", ")),
                )));
            }
        })
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        plan_err!("the type of {} depends on its arguments", self.name())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let result = match (args.arg_fields[0].data_type(), args.arg_fields.len()) {
            (DataType::Decimal128(p, s), 1) => with_scale(*p, *s, 0),
            (DataType::Decimal128(p, s), _) if self.any_digits => with_scale(*p, *s, *s),
            (DataType::Decimal128(p, s), _) => match args.scalar_arguments[1] {
                Some(n) => match n.cast_to(&DataType::Int32)? {
                    ScalarValue::Int32(Some(n)) => {
                        with_scale(*p, *s, n.clamp(0, i32::from(*s)) as i8)
                    }
                    _ => DataType::Decimal128(*p, *s),
                },
                None => with_scale(*p, *s, *s),
            },
            (other, _) => other.clone(),
        };
        Ok(Arc::new(Field::new(self.name(), result, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let arrays = match arrays.iter().all(|a| a.len() == rows) {
            true => arrays,
            false => args.args.iter().map(|a| a.to_array(rows)).collect::<DfResult<_>>()?,
        };
        let out = evaluate(self.rounding, &arrays, args.return_field.data_type());
        let out = out.map_err(to_datafusion)?;
        match scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?)),
            false => Ok(ColumnarValue::Array(out)),
        }
    }
}

/// The type at a smaller scale; rounding up may need one digit more.
fn with_scale(precision: u8, scale: i8, to: i8) -> DataType {
    let whole = i16::from(precision) - i16::from(scale) + 1;
    DataType::Decimal128((whole + i16::from(to)).clamp(1, 38) as u8, to)
}

fn evaluate(rounding: Rounding, arrays: &[ArrayRef], result: &DataType) -> Result<ArrayRef> {
    let value = &arrays[0];
    match (value.data_type(), result) {
        (DataType::Float64, _) => {
            let out: Float64Array =
                value.as_primitive::<Float64Type>().unary(|v| float(rounding, v));
            Ok(Arc::new(out))
        }
        (DataType::Float32, _) => {
            let out: Float32Array =
                value.as_primitive::<Float32Type>().unary(|v| float(rounding, f64::from(v)) as f32);
            Ok(Arc::new(out))
        }
        (DataType::Decimal128(_, scale), DataType::Decimal128(p, s)) => {
            let values = value.as_primitive::<Decimal128Type>();
            let digits = arrays.get(1).map(|a| a.as_primitive::<Int32Type>());
            let mut out = Vec::with_capacity(values.len());
            for row in 0..values.len() {
                if values.is_null(row) || digits.is_some_and(|d| d.is_null(row)) {
                    out.push(None);
                    continue;
                }
                let n = digits.map_or(0, |d| d.value(row));
                out.push(Some(decimal(rounding, values.value(row), *scale, n, (*p, *s))?));
            }
            let out = Decimal128Array::from(out).with_precision_and_scale(*p, *s)?;
            Ok(Arc::new(out))
        }
        (other, _) => Err(Error::internal(format!("rounding of {other}"))),
    }
}

fn float(rounding: Rounding, v: f64) -> f64 {
    match rounding {
        Rounding::Round => v.round_ties_even(),
        Rounding::Trunc => v.trunc(),
        Rounding::Ceil => v.ceil(),
        Rounding::Floor => v.floor(),
    }
}

/// Rounds a decimal to `n` digits behind the point (negative: before it) and brings it to the scale
/// of the result.
fn decimal(rounding: Rounding, v: i128, scale: i8, n: i32, result: (u8, i8)) -> Result<i128> {
    let cut = u32::try_from(i32::from(scale) - n).unwrap_or(0);
    let rounded = match 10i128.checked_pow(cut) {
        None => 0,
        Some(unit) => {
            let quotient = match rounding {
                Rounding::Round => divide_rounded(v, unit),
                Rounding::Trunc => v / unit,
                Rounding::Floor => v.div_euclid(unit),
                Rounding::Ceil => -(-v).div_euclid(unit),
            };
            quotient.checked_mul(unit).ok_or_else(overflow)?
        }
    };
    rescale(rounded, scale, result.0, result.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_round_half_away_and_floats_half_to_even() {
        let r = |rounding, v, n| decimal(rounding, v, 2, n, (38, 2)).expect("fits");
        assert_eq!(r(Rounding::Round, 250, 0), 300);
        assert_eq!(r(Rounding::Round, -250, 0), -300);
        assert_eq!(r(Rounding::Round, 1_234, 1), 1_230);
        assert_eq!(r(Rounding::Round, 1_500, -1), 2_000);
        assert_eq!(r(Rounding::Trunc, -299, 0), -200);
        assert_eq!(r(Rounding::Ceil, -299, 0), -200);
        assert_eq!(r(Rounding::Ceil, 201, 0), 300);
        assert_eq!(r(Rounding::Floor, -201, 0), -300);
        assert_eq!(float(Rounding::Round, 2.5), 2.0);
        assert_eq!(float(Rounding::Round, -3.5), -4.0);
    }
}
