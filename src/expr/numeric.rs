//! The one rule for `numeric` (Decimal128) arithmetic.
//!
//! * `+ - %`: the greater scale of the two.
//! * `*`: the sum of the scales, at most 18 (or the greater scale of the two, where that is more).
//! * `/`: at least 10 and at least both scales, at most 18 (or both scales, where that is more).
//!
//! What the scale cuts off is rounded half away from zero. Integer digits that do not fit in 38
//! digits in all are the error 22003, never wrapped and never NULL. PostgreSQL keeps more digits in
//! products and quotients: a documented deviation.

use arrow::array::{Array, Decimal128Array, Decimal128Builder};
use arrow::datatypes::{DataType, i256};

use super::arith::ArithOp;
use crate::error::{Error, Result, sqlstate};

/// The greatest scale that an operation makes by itself.
pub(crate) const SCALE_CAP: i8 = 18;
const QUOTIENT_SCALE: i8 = 10;
const PRECISION_MAX: u8 = 38;

/// Precision and scale of a decimal or integer type.
pub(crate) fn digits_of(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal128(p, s) => Some((*p, *s)),
        DataType::Int8 | DataType::UInt8 => Some((3, 0)),
        DataType::Int16 | DataType::UInt16 => Some((5, 0)),
        DataType::Int32 | DataType::UInt32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        DataType::UInt64 => Some((20, 0)),
        _ => None,
    }
}

/// The type of `left op right`.
pub(crate) fn result_type(op: ArithOp, left: (u8, i8), right: (u8, i8)) -> DataType {
    let ((lp, ls), (rp, rs)) = (left, right);
    let greater = ls.max(rs);
    let whole = |p: u8, s: i8| i16::from(p) - i16::from(s);
    let (digits, scale) = match op {
        ArithOp::Add | ArithOp::Sub => (whole(lp, ls).max(whole(rp, rs)) + 1, greater),
        ArithOp::Rem => (whole(lp, ls).max(whole(rp, rs)), greater),
        ArithOp::Mul => (whole(lp, ls) + whole(rp, rs), (ls + rs).min(SCALE_CAP.max(greater))),
        ArithOp::Div => (i16::from(PRECISION_MAX), greater.max(QUOTIENT_SCALE)),
    };
    let precision = (digits + i16::from(scale)).clamp(1, i16::from(PRECISION_MAX));
    DataType::Decimal128(precision as u8, scale)
}

/// `numeric field overflow`.
pub(crate) fn overflow() -> Error {
    Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow")
}

/// `division by zero`.
pub(crate) fn division_by_zero() -> Error {
    Error::user(sqlstate::DIVISION_BY_ZERO, "division by zero")
}

/// Evaluates `left op right` row by row; one of the two may have a single row for all.
pub(crate) fn evaluate(
    op: ArithOp,
    left: &Decimal128Array,
    right: &Decimal128Array,
    result: (u8, i8),
) -> Result<Decimal128Array> {
    let kernel = Kernel::new(op, left.scale(), right.scale(), result);
    let rows = match (left.len(), right.len()) {
        (1, n) => n,
        (n, _) => n,
    };
    let mut out = Decimal128Builder::with_capacity(rows);
    let at = |array: &Decimal128Array, i: usize| {
        let i = if array.len() == 1 { 0 } else { i };
        array.is_valid(i).then(|| array.value(i))
    };
    for i in 0..rows {
        match (at(left, i), at(right, i)) {
            (Some(l), Some(r)) => out.append_value(kernel.apply(l, r)?),
            _ => out.append_null(),
        }
    }
    Ok(out.finish().with_precision_and_scale(result.0, result.1)?)
}

/// The factors of one operation, computed once per batch.
struct Kernel {
    op: ArithOp,
    /// Powers of ten that the operands are multiplied by.
    left: u32,
    right: u32,
    /// Power of ten that a product is divided by.
    cut: u32,
    limit: u128,
}

impl Kernel {
    fn new(op: ArithOp, ls: i8, rs: i8, (precision, scale): (u8, i8)) -> Self {
        let up = |from: i8, to: i8| u32::try_from(to - from).unwrap_or(0);
        let (left, right, cut) = match op {
            ArithOp::Add | ArithOp::Sub | ArithOp::Rem => (up(ls, scale), up(rs, scale), 0),
            ArithOp::Mul => (0, 0, up(scale, ls + rs)),
            // l * 10^-ls / (r * 10^-rs) as a number of 10^-scale.
            ArithOp::Div => (up(ls, scale + rs), up(scale + rs, ls), 0),
        };
        Self { op, left, right, cut, limit: power(u32::from(precision)) }
    }

    fn apply(&self, l: i128, r: i128) -> Result<i128> {
        if r == 0 && matches!(self.op, ArithOp::Div | ArithOp::Rem) {
            return Err(division_by_zero());
        }
        let value = match self.narrow(l, r) {
            Some(value) => value,
            None => self.wide(l, r).ok_or_else(overflow)?,
        };
        if value.unsigned_abs() >= self.limit {
            return Err(overflow());
        }
        Ok(value)
    }

    /// In 128 bits, which nearly all values fit.
    fn narrow(&self, l: i128, r: i128) -> Option<i128> {
        let l = l.checked_mul(10i128.checked_pow(self.left)?)?;
        let r = r.checked_mul(10i128.checked_pow(self.right)?)?;
        match self.op {
            ArithOp::Add => l.checked_add(r),
            ArithOp::Sub => l.checked_sub(r),
            ArithOp::Rem => l.checked_rem(r),
            ArithOp::Mul => Some(divide_rounded(l.checked_mul(r)?, 10i128.pow(self.cut))),
            ArithOp::Div => Some(divide_rounded(l, r)),
        }
    }

    /// In 256 bits.
    fn wide(&self, l: i128, r: i128) -> Option<i128> {
        let ten = i256::from_i128(10);
        let l = i256::from_i128(l).checked_mul(ten.checked_pow(self.left)?)?;
        let r = i256::from_i128(r).checked_mul(ten.checked_pow(self.right)?)?;
        let value = match self.op {
            ArithOp::Add => l.checked_add(r)?,
            ArithOp::Sub => l.checked_sub(r)?,
            ArithOp::Rem => l.checked_rem(r)?,
            ArithOp::Mul => divide_rounded_wide(l.checked_mul(r)?, ten.checked_pow(self.cut)?)?,
            ArithOp::Div => divide_rounded_wide(l, r)?,
        };
        value.to_i128()
    }
}

fn power(exponent: u32) -> u128 {
    10u128.pow(exponent.min(38))
}

/// `n / d`, rounded half away from zero; `d` is not zero.
pub(crate) fn divide_rounded(n: i128, d: i128) -> i128 {
    let (quotient, rest) = (n / d, n % d);
    // 2 * |rest| >= |d|, without overflow.
    if rest.unsigned_abs() >= d.unsigned_abs() - rest.unsigned_abs() && rest != 0 {
        quotient + if (n < 0) == (d < 0) { 1 } else { -1 }
    } else {
        quotient
    }
}

fn divide_rounded_wide(n: i256, d: i256) -> Option<i256> {
    let (quotient, rest) = (n.checked_div(d)?, n.checked_rem(d)?);
    let magnitude = |v: i256| if v < i256::ZERO { v.checked_neg() } else { Some(v) };
    let (rest_size, d_size) = (magnitude(rest)?, magnitude(d)?);
    if rest != i256::ZERO && rest_size >= d_size.checked_sub(rest_size)? {
        let away = if (n < i256::ZERO) == (d < i256::ZERO) { 1 } else { -1 };
        quotient.checked_add(i256::from_i128(away))
    } else {
        Some(quotient)
    }
}

/// Brings a value from one scale to another and checks that it has at most `precision` digits.
pub(crate) fn rescale(value: i128, from: i8, precision: u8, to: i8) -> Result<i128> {
    let shift = i32::from(to) - i32::from(from);
    let scaled = match u32::try_from(shift) {
        Ok(up) => 10i128.checked_pow(up).and_then(|f| value.checked_mul(f)),
        Err(_) => Some(match 10i128.checked_pow(shift.unsigned_abs()) {
            Some(divisor) => divide_rounded(value, divisor),
            None => 0,
        }),
    };
    match scaled.filter(|v| v.unsigned_abs() < power(u32::from(precision))) {
        Some(v) => Ok(v),
        None => Err(overflow().with_detail(format!(
            "A field with precision {precision}, scale {to} must round to an absolute value less \
             than 10^{}.",
            i32::from(precision) - i32::from(to)
        ))),
    }
}

/// An average: an exact sum of a scale, divided by a count that is not zero.
pub(crate) struct ArithmeticMean {
    pub(crate) sum: i128,
    pub(crate) scale: i8,
    pub(crate) count: i64,
}

impl ArithmeticMean {
    /// The average at a precision and a scale, rounded half away from zero.
    pub(crate) fn value(&self, precision: u8, scale: i8) -> Result<i128> {
        let kernel = Kernel::new(ArithOp::Div, self.scale, 0, (precision, scale));
        kernel.apply(self.sum, i128::from(self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: ArithOp, l: (i128, u8, i8), r: (i128, u8, i8)) -> Result<(i128, DataType)> {
        let array = |(v, p, s): (i128, u8, i8)| {
            Decimal128Array::from(vec![v]).with_precision_and_scale(p, s).expect("a decimal")
        };
        let result = result_type(op, (l.1, l.2), (r.1, r.2));
        let DataType::Decimal128(p, s) = result else { panic!("a decimal") };
        Ok((evaluate(op, &array(l), &array(r), (p, s))?.value(0), result))
    }

    #[test]
    fn products_round_half_away_from_zero_at_the_cap() {
        // 1.5 * 1.5
        let (v, t) = run(ArithOp::Mul, (15, 3, 1), (15, 3, 1)).expect("fits");
        assert_eq!((v, t), (225, DataType::Decimal128(6, 2)));
        // 0.0000000005 * 0.0000000001 at scales 10 and 10: 20 digits, cut to 18.
        let (v, t) = run(ArithOp::Mul, (5, 38, 10), (10, 38, 10)).expect("fits");
        assert_eq!((v, t), (1, DataType::Decimal128(38, 18)));
        let (v, _) = run(ArithOp::Mul, (-5, 38, 10), (10, 38, 10)).expect("fits");
        assert_eq!(v, -1);
        // 10^19 at scale 10, squared, needs the wide path: 10^18.
        let (v, _) =
            run(ArithOp::Mul, (10i128.pow(19), 38, 10), (10i128.pow(19), 38, 10)).expect("fits");
        assert_eq!(v, 10i128.pow(36));
        let e = run(ArithOp::Mul, (10i128.pow(25), 38, 10), (10i128.pow(25), 38, 10));
        assert_eq!(e.expect_err("too large").sqlstate(), "22003");
    }

    #[test]
    fn quotients_sums_and_remainders() {
        let (v, t) = run(ArithOp::Div, (1, 10, 0), (3, 10, 0)).expect("fits");
        assert_eq!((v, t), (3_333_333_333, DataType::Decimal128(38, 10)));
        let (v, _) = run(ArithOp::Div, (2, 10, 0), (-3, 10, 0)).expect("fits");
        assert_eq!(v, -6_666_666_667);
        let e = run(ArithOp::Div, (1, 10, 0), (0, 10, 0)).expect_err("zero");
        assert_eq!(e.sqlstate(), "22012");
        let (v, t) = run(ArithOp::Add, (15, 3, 1), (25, 4, 2)).expect("fits");
        assert_eq!((v, t), (175, DataType::Decimal128(5, 2)));
        let (v, _) = run(ArithOp::Rem, (-75, 3, 1), (2, 1, 0)).expect("fits");
        assert_eq!(v, -15);
    }

    #[test]
    fn rescaling_rounds_and_checks() {
        assert_eq!(rescale(125, 2, 5, 1).expect("fits"), 13);
        assert_eq!(rescale(-125, 2, 5, 1).expect("fits"), -13);
        assert_eq!(rescale(124, 2, 5, 1).expect("fits"), 12);
        assert_eq!(rescale(999, 0, 3, 1).expect_err("no room").sqlstate(), "22003");
    }
}
