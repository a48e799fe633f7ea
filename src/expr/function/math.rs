//! Numbers. Functions of `numeric` without an exact answer (`sqrt`, `ln`, `power`) give double
//! precision, a documented deviation.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
};

use super::args::Args;
use super::gather::Elements;
use super::{Def, Nulls};
use crate::delta::Keys;
use crate::delta::text::{NUMERIC_PRECISION, NUMERIC_SCALE};
use crate::error::{Error, Result, sqlstate};
use crate::expr::arith::out_of_range;
use crate::expr::numeric::{division_by_zero, overflow, rescale};

pub(super) const FUNCTIONS: &[Def] = &[
    ("abs(double) -> double", Nulls::Strict, |a| float(a, |v| Ok(v.abs()))),
    ("abs(real) -> real", Nulls::Strict, |a| {
        a.values::<Float32Type>(|row| Ok(Some(a.real(0, row).abs())))
    }),
    ("abs(numeric) -> $1", Nulls::Strict, |a| {
        a.values::<Decimal128Type>(|row| Ok(Some(a.numeric(0, row).0.abs())))
    }),
    ("abs(smallint) -> smallint", Nulls::Strict, |a| {
        a.values::<Int16Type>(|row| whole(a.smallint(0, row).checked_abs(), a))
    }),
    ("abs(int) -> int", Nulls::Strict, |a| {
        a.values::<Int32Type>(|row| whole(a.int(0, row).checked_abs(), a))
    }),
    ("abs(bigint) -> bigint", Nulls::Strict, |a| {
        a.values::<Int64Type>(|row| whole(a.bigint(0, row).checked_abs(), a))
    }),
    // OFFSET without a number leaves nothing out; LIMIT without one is none.
    ("pg_offset(bigint) -> bigint", Nulls::Seen, |a| {
        a.values::<Int64Type>(|row| match a.is_null(0, row) {
            true => Ok(Some(0)),
            false => row_count(a, row, "OFFSET").map(Some),
        })
    }),
    ("pg_limit(bigint) -> bigint", Nulls::Strict, |a| {
        a.values::<Int64Type>(|row| row_count(a, row, "LIMIT").map(Some))
    }),
    ("div(numeric, numeric) -> numeric", Nulls::Strict, div),
    ("sign(double) -> double", Nulls::Strict, |a| {
        float(a, |v| Ok(if v == 0.0 || v.is_nan() { 0.0 } else { v.signum() }))
    }),
    ("sign(numeric) -> numeric", Nulls::Strict, sign),
    ("sqrt(double) -> double", Nulls::Strict, sqrt),
    ("|/(double) -> double", Nulls::Strict, sqrt),
    ("||/(double) -> double", Nulls::Strict, |a| float(a, |v| Ok(v.cbrt()))),
    ("exp(double) -> double", Nulls::Strict, |a| {
        float(a, |v| above_zero(finite(v.exp(), v.is_finite())?, v.is_finite()))
    }),
    ("ln(double) -> double", Nulls::Strict, |a| float(a, |v| logarithm(v).map(f64::ln))),
    ("log(double) -> double", Nulls::Strict, |a| float(a, |v| logarithm(v).map(f64::log10))),
    ("log10(double) -> double", Nulls::Strict, |a| float(a, |v| logarithm(v).map(f64::log10))),
    ("log(numeric, numeric) -> double", Nulls::Strict, log_of_base),
    ("power(double, double) -> double", Nulls::Strict, power),
    ("pow(double, double) -> double", Nulls::Strict, power),
    ("acos(double) -> double", Nulls::Strict, |a| float(a, |v| unit(v).map(f64::acos))),
    ("asin(double) -> double", Nulls::Strict, |a| float(a, |v| unit(v).map(f64::asin))),
    ("sind(double) -> double", Nulls::Strict, |a| float(a, |v| Ok(sin_degrees(v)))),
    ("cosd(double) -> double", Nulls::Strict, |a| float(a, |v| Ok(sin_degrees(90.0 - v)))),
    ("tand(double) -> double", Nulls::Strict, |a| {
        float(a, |v| Ok(sin_degrees(v) / sin_degrees(90.0 - v)))
    }),
    ("cotd(double) -> double", Nulls::Strict, |a| {
        float(a, |v| Ok(sin_degrees(90.0 - v) / sin_degrees(v)))
    }),
    ("asind(double) -> double", Nulls::Strict, |a| float(a, |v| Ok(asin_degrees(unit(v)?)))),
    ("acosd(double) -> double", Nulls::Strict, |a| float(a, |v| Ok(acos_degrees(unit(v)?)))),
    ("atand(double) -> double", Nulls::Strict, |a| float(a, |v| Ok(exact(v.atan().to_degrees())))),
    ("atan2d(double, double) -> double", Nulls::Strict, |a| {
        a.values::<Float64Type>(|row| {
            Ok(Some(exact(a.double(0, row).atan2(a.double(1, row)).to_degrees())))
        })
    }),
    ("gcd(int, int) -> int", Nulls::Strict, |a| {
        a.values::<Int32Type>(|row| small(gcd(a.int(0, row).into(), a.int(1, row).into())))
    }),
    ("gcd(bigint, bigint) -> bigint", Nulls::Strict, |a| {
        a.values::<Int64Type>(|row| wide(gcd(a.bigint(0, row).into(), a.bigint(1, row).into())))
    }),
    ("lcm(int, int) -> int", Nulls::Strict, |a| {
        a.values::<Int32Type>(|row| small(lcm(a.int(0, row).into(), a.int(1, row).into())))
    }),
    ("lcm(bigint, bigint) -> bigint", Nulls::Strict, |a| {
        a.values::<Int64Type>(|row| wide(lcm(a.bigint(0, row).into(), a.bigint(1, row).into())))
    }),
    ("factorial(bigint) -> numeric", Nulls::Strict, factorial),
    ("width_bucket(double, double, double, int) -> int", Nulls::Strict, width_bucket),
    ("width_bucket(numeric, numeric, numeric, int) -> int", Nulls::Strict, width_bucket_numeric),
    ("width_bucket(anyelement, anyarray) -> int", Nulls::Strict, width_bucket_of_bounds),
    ("scale(numeric) -> int", Nulls::Strict, |a| {
        // One without a declared scale is shown without zeros at its end.
        let undeclared =
            *a.array(0).data_type() == DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE);
        a.values::<Int32Type>(|row| {
            let (value, scale) = a.numeric(0, row);
            let scale = if undeclared { trimmed(value, scale).1 } else { scale };
            Ok(Some(i32::from(scale)))
        })
    }),
    ("min_scale(numeric) -> int", Nulls::Strict, |a| {
        a.values::<Int32Type>(|row| {
            let (value, scale) = a.numeric(0, row);
            Ok(Some(i32::from(trimmed(value, scale).1)))
        })
    }),
    ("trim_scale(numeric) -> numeric", Nulls::Strict, |a| numerics(a, |row| Ok(a.numeric(0, row)))),
];

/// A number of rows, which is not negative.
fn row_count(a: &Args<'_>, row: usize, clause: &str) -> Result<i64> {
    let code = match clause {
        "LIMIT" => sqlstate::INVALID_ROW_COUNT_IN_LIMIT_CLAUSE,
        _ => sqlstate::INVALID_ROW_COUNT_IN_RESULT_OFFSET_CLAUSE,
    };
    match a.bigint(0, row) {
        count if count >= 0 => Ok(count),
        _ => Err(Error::user(code, format!("{clause} must not be negative"))),
    }
}

/// An integer of the result's type, or 22003.
fn whole<N>(value: Option<N>, a: &Args<'_>) -> Result<Option<N>> {
    value.map(Some).ok_or_else(|| out_of_range(a.result()))
}

fn float(a: &Args<'_>, f: impl Fn(f64) -> Result<f64>) -> Result<ArrayRef> {
    a.values::<Float64Type>(|row| f(a.double(0, row)).map(Some))
}

/// A column of numerics of the result's scale, from values with their own.
fn numerics(a: &Args<'_>, f: impl Fn(usize) -> Result<(i128, i8)>) -> Result<ArrayRef> {
    let DataType::Decimal128(p, s) = *a.result() else {
        return Err(Error::internal("a numeric result"));
    };
    a.values::<Decimal128Type>(|row| {
        let (value, scale) = f(row)?;
        rescale(value, scale, p, s).map(Some)
    })
}

fn trimmed(mut value: i128, mut scale: i8) -> (i128, i8) {
    while scale > 0 && value % 10 == 0 {
        value /= 10;
        scale -= 1;
    }
    (value, scale)
}

fn finite(value: f64, input_is_finite: bool) -> Result<f64> {
    match value.is_infinite() && input_is_finite {
        true => {
            Err(Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow"))
        }
        false => Ok(value),
    }
}

/// A value that can only be too small to be told from zero.
fn above_zero(value: f64, input_is_plain: bool) -> Result<f64> {
    match value == 0.0 && input_is_plain {
        true => {
            Err(Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: underflow"))
        }
        false => Ok(value),
    }
}

fn div(a: &Args<'_>) -> Result<ArrayRef> {
    numerics(a, |row| {
        let ((l, ls), (r, rs)) = (a.numeric(0, row), a.numeric(1, row));
        let scale = ls.max(rs);
        let (l, r) = (rescale(l, ls, 38, scale)?, rescale(r, rs, 38, scale)?);
        if r == 0 {
            return Err(division_by_zero());
        }
        Ok((l / r, 0))
    })
}

fn sign(a: &Args<'_>) -> Result<ArrayRef> {
    numerics(a, |row| Ok((a.numeric(0, row).0.signum(), 0)))
}

fn sqrt(a: &Args<'_>) -> Result<ArrayRef> {
    float(a, |v| match v < 0.0 {
        true => Err(Error::user("2201F", "cannot take square root of a negative number")),
        false => Ok(v.sqrt()),
    })
}

/// What has a logarithm.
fn logarithm(v: f64) -> Result<f64> {
    match v {
        0.0 => Err(Error::user("2201E", "cannot take logarithm of zero")),
        v if v < 0.0 => Err(Error::user("2201E", "cannot take logarithm of a negative number")),
        v => Ok(v),
    }
}

fn as_double((value, scale): (i128, i8)) -> f64 {
    value as f64 / 10f64.powi(i32::from(scale))
}

fn log_of_base(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Float64Type>(|row| {
        let base = logarithm(as_double(a.numeric(0, row)))?;
        let value = logarithm(as_double(a.numeric(1, row)))?;
        let base = base.ln();
        if base == 0.0 {
            return Err(division_by_zero());
        }
        Ok(Some(exact(value.ln() / base)))
    })
}

fn power(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Float64Type>(|row| {
        let (base, exponent) = (a.double(0, row), a.double(1, row));
        if base == 0.0 && exponent < 0.0 {
            return Err(Error::user("2201F", "zero raised to a negative power is undefined"));
        }
        if base < 0.0 && exponent.is_finite() && exponent.fract() != 0.0 {
            return Err(Error::user(
                "2201F",
                "a negative number raised to a non-integer power yields a complex result",
            ));
        }
        let inputs = base.is_finite() && exponent.is_finite();
        let value = finite(base.powf(exponent), inputs)?;
        above_zero(value, inputs && base != 0.0).map(Some)
    })
}

fn unit(v: f64) -> Result<f64> {
    match v.is_nan() || (-1.0..=1.0).contains(&v) {
        true => Ok(v),
        false => Err(Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, "input is out of range")),
    }
}

/// Without the noise of the last digits, so that round angles have round values.
fn exact(v: f64) -> f64 {
    let rounded = v.round();
    if (v - rounded).abs() < 1e-12 { rounded } else { v }
}

/// The arc sine by its share of the one of a half, which is 30 degrees to the last digit; nearer
/// to one by the arc cosine, which is steeper there.
fn asin_degrees(v: f64) -> f64 {
    let size = v.abs();
    let angle = match size <= 0.5 {
        true => size.asin() / 0.5_f64.asin() * 30.0,
        false => 90.0 - size.acos() / 0.5_f64.acos() * 60.0,
    };
    angle.copysign(v)
}

fn acos_degrees(v: f64) -> f64 {
    match (v < 0.0, v <= 0.5) {
        (true, _) => 90.0 + asin_degrees(-v),
        (false, true) => 90.0 - asin_degrees(v),
        (false, false) => v.acos() / 0.5_f64.acos() * 60.0,
    }
}

fn sin_degrees(v: f64) -> f64 {
    let within = v.rem_euclid(360.0);
    match within {
        30.0 | 150.0 => 0.5,
        210.0 | 330.0 => -0.5,
        _ => exact(within.to_radians().sin()),
    }
}

fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.abs(), b.abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn lcm(a: i128, b: i128) -> i128 {
    match gcd(a, b) {
        0 => 0,
        divisor => (a / divisor * b).abs(),
    }
}

fn small(v: i128) -> Result<Option<i32>> {
    let error = || Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, "integer out of range");
    i32::try_from(v).map(Some).map_err(|_| error())
}

fn wide(v: i128) -> Result<Option<i64>> {
    let error = || Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, "bigint out of range");
    i64::try_from(v).map(Some).map_err(|_| error())
}

fn factorial(a: &Args<'_>) -> Result<ArrayRef> {
    numerics(a, |row| {
        let n = a.bigint(0, row);
        if n < 0 {
            return Err(Error::user(
                sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
                "factorial of a negative number is undefined",
            ));
        }
        let product = (1..=i128::from(n.min(100))).try_fold(1_i128, i128::checked_mul);
        product.map(|v| (v, 0)).ok_or_else(overflow)
    })
}

fn bucket_error(message: &str) -> Error {
    Error::user("2201G", message.to_string())
}

/// The bucket of `share`, the way from the low bound to the high one that a value has gone.
fn bucket(share: f64, count: i32) -> Result<Option<i32>> {
    let below = match share {
        s if s < 0.0 => return Ok(Some(0)),
        s if s >= 1.0 => count,
        s => (s * f64::from(count)).floor() as i32,
    };
    small(i128::from(below) + 1)
}

fn width_bucket(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Int32Type>(|row| {
        let (v, low, high) = (a.double(0, row), a.double(1, row), a.double(2, row));
        let count = a.int(3, row);
        if count <= 0 {
            return Err(bucket_error("count must be greater than zero"));
        }
        if v.is_nan() || low.is_nan() || high.is_nan() {
            return Err(bucket_error("operand, lower bound, and upper bound cannot be NaN"));
        }
        if low == high {
            return Err(bucket_error("lower bound cannot equal upper bound"));
        }
        bucket((v - low) / (high - low), count)
    })
}

fn width_bucket_numeric(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Int32Type>(|row| {
        let scale = (0..3).map(|i| a.numeric(i, row).1).max().unwrap_or(0);
        let at = |i: usize| {
            let (value, own) = a.numeric(i, row);
            rescale(value, own, 38, scale)
        };
        let (v, low, high, count) = (at(0)?, at(1)?, at(2)?, a.int(3, row));
        if count <= 0 {
            return Err(bucket_error("count must be greater than zero"));
        }
        if low == high {
            return Err(bucket_error("lower bound cannot equal upper bound"));
        }
        let (gone, whole) = if low < high { (v - low, high - low) } else { (low - v, low - high) };
        if gone < 0 {
            return Ok(Some(0));
        }
        if gone >= whole {
            return small(i128::from(count) + 1);
        }
        let scaled = gone.checked_mul(i128::from(count)).ok_or_else(overflow)?;
        small(scaled / whole + 1)
    })
}

fn width_bucket_of_bounds(a: &Args<'_>) -> Result<ArrayRef> {
    let bounds = Elements::of(a, 1);
    let keys = bounds.keys()?;
    let values = Keys::encode(&[ArrayRef::clone(a.array(0))], a.array(0).len())?;
    a.values::<Int32Type>(|row| {
        let value = values.key(a.at(0, row).1);
        Ok(Some(bounds.run(row).filter(|i| keys.key(*i) <= value).count() as i32))
    })
}
