//! Arithmetic of canonical JSON numbers: exact decimals of up to 38 digits.

use arrow::datatypes::i256;

use super::eval::{Fault, fault};
use crate::delta::jsonb;
use crate::delta::text::write_float8;

/// A number as its digits and how many of them stand behind the point.
#[derive(Clone, Copy)]
struct Decimal {
    digits: i128,
    scale: u32,
}

/// Digits that a quotient has at least (NUMERIC_MIN_SIG_DIGITS of PostgreSQL).
const SIGNIFICANT: i64 = 16;
/// PostgreSQL's numbers have digits to this base.
const BASE: i128 = 10_000;

fn too_large() -> Fault {
    fault("22003", "numeric field overflow")
}

impl Decimal {
    fn of(json: &str) -> Result<Self, Fault> {
        let (whole, behind) = json.split_once('.').unwrap_or((json, ""));
        let digits = format!("{whole}{behind}").parse().map_err(|_| too_large())?;
        Ok(Self { digits, scale: behind.len() as u32 })
    }

    /// The same number with more digits behind the point.
    fn at(self, scale: u32) -> Result<i128, Fault> {
        let factor = 10_i128.checked_pow(scale - self.scale);
        factor.and_then(|f| self.digits.checked_mul(f)).ok_or_else(too_large)
    }

    fn json(self) -> Result<String, Fault> {
        let sign = if self.digits < 0 { "-" } else { "" };
        let scale = self.scale as usize;
        let digits = format!("{:0>width$}", self.digits.unsigned_abs(), width = scale + 1);
        let (whole, behind) = digits.split_at(digits.len() - scale);
        let point = if scale == 0 { "" } else { "." };
        jsonb::canonical(&format!("{sign}{whole}{point}{behind}")).map_err(|_| too_large())
    }

    /// The first digit to PostgreSQL's base, and the power of the base that it counts.
    fn leading(self) -> (i128, i64) {
        let (mut size, mut weight) = (self.digits.unsigned_abs() as i128, 0);
        // Digits of the base begin at the point.
        let odd = (4 - self.scale % 4) % 4;
        size = size.saturating_mul(10_i128.pow(odd));
        weight -= i64::from((self.scale + odd) / 4);
        while size >= BASE {
            size /= BASE;
            weight += 1;
        }
        (size, weight)
    }

    fn divided(self, by: Self) -> Result<Self, Fault> {
        let ((first, weight), (other_first, other_weight)) = (self.leading(), by.leading());
        let below = if first <= other_first { 1 } else { 0 };
        let wanted = SIGNIFICANT - (weight - other_weight - below) * 4;
        let scale = wanted.max(i64::from(self.scale)).max(i64::from(by.scale)).max(0);
        let scale = u32::try_from(scale).map_err(|_| too_large())?;
        let ten = i256::from_i128(10);
        let up = (scale + by.scale).checked_sub(self.scale).ok_or_else(too_large)?;
        let dividend = ten.checked_pow(up);
        let dividend = dividend.and_then(|f| i256::from_i128(self.digits).checked_mul(f));
        let dividend = dividend.ok_or_else(too_large)?;
        let divisor = i256::from_i128(by.digits);
        let (Some(quotient), Some(rest)) =
            (dividend.checked_div(divisor), dividend.checked_rem(divisor))
        else {
            return Err(too_large());
        };
        // Half away from zero.
        let (rest, size) = (rest.wrapping_abs(), divisor.wrapping_abs());
        let negative = (self.digits < 0) != (by.digits < 0);
        let away = i256::from_i128(if negative { -1 } else { 1 });
        let up = size.checked_sub(rest).is_some_and(|left| rest >= left);
        let quotient = if up { quotient.wrapping_add(away) } else { quotient };
        Ok(Self { digits: quotient.to_i128().ok_or_else(too_large)?, scale })
    }
}

/// `one + other` and so on.
pub(super) fn computed(sign: char, one: &str, other: &str) -> Result<String, Fault> {
    let (one, other) = (Decimal::of(one)?, Decimal::of(other)?);
    if matches!(sign, '/' | '%') && other.digits == 0 {
        return Err(fault("22012", "division by zero"));
    }
    let scale = one.scale.max(other.scale);
    let digits = match sign {
        '+' => one.at(scale)?.checked_add(other.at(scale)?),
        '-' => one.at(scale)?.checked_sub(other.at(scale)?),
        '%' => one.at(scale)?.checked_rem(other.at(scale)?),
        '*' => {
            let digits = one.digits.checked_mul(other.digits).ok_or_else(too_large)?;
            return Decimal { digits, scale: one.scale + other.scale }.json();
        }
        _ => return one.divided(other)?.json(),
    };
    Decimal { digits: digits.ok_or_else(too_large)?, scale }.json()
}

/// The number with a sign in front of it; `None` where it is none.
pub(super) fn signed(sign: char, json: &str) -> Option<String> {
    if jsonb::kind(json) != "number" {
        return None;
    }
    Some(match (sign, json.strip_prefix('-')) {
        ('+', _) => json.to_owned(),
        (_, Some(positive)) => positive.to_owned(),
        (_, None) if json == "0" => json.to_owned(),
        (_, None) => format!("-{json}"),
    })
}

/// `.abs()`, `.floor()` and `.ceiling()`.
pub(super) fn rounded(method: &str, json: &str) -> Result<String, Fault> {
    if method == "abs" {
        return Ok(json.strip_prefix('-').unwrap_or(json).to_owned());
    }
    let number = Decimal::of(json)?;
    let one = 10_i128.checked_pow(number.scale).ok_or_else(too_large)?;
    let floor = number.digits.div_euclid(one);
    let whole = number.digits.rem_euclid(one) == 0;
    Ok((if method == "floor" || whole { floor } else { floor + 1 }).to_string())
}

/// `.double()` of a number or of the text of one.
pub(super) fn double(text: &str) -> Result<String, Fault> {
    let invalid = || {
        let what = "argument of jsonpath item method .double() is not a valid representation";
        fault("22036", format!("string {what} of a double precision number"))
    };
    let value: f64 = text.trim().parse().map_err(|_| invalid())?;
    if !value.is_finite() {
        let message = "NaN or Infinity is not allowed for jsonpath item method .double()";
        return Err(fault("22036", message));
    }
    let mut out = String::new();
    write_float8(value, &mut out).map_err(|_| invalid())?;
    jsonb::canonical(&out).map_err(|_| invalid())
}

/// A subscript: what stands ahead of the point, if it is an integer.
pub(super) fn truncated(json: &str) -> Option<i64> {
    json.split('.').next()?.parse::<i32>().ok().map(i64::from)
}
