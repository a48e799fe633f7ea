//! Numeric constants that 38 digits do not hold: PostgreSQL's `numeric` has room for them. Digits
//! of the fraction beyond are rounded off; what is too large or too small for that is double
//! precision.

use std::str::FromStr;

use sqlparser::ast::{self, Expr, Value};

use super::tree::cast;
use crate::delta::text::NUMERIC_PRECISION;

/// What stands for a numeric constant that is too long; `None` for the others.
pub(super) fn long_number(text: &str) -> Option<Expr> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, i64::from_str(exponent).ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = whole.trim_start_matches('0').len() as i64 + exponent;
    let scale = fraction.len() as i64 - exponent;
    let max = i64::from(NUMERIC_PRECISION);
    if whole.max(0) + scale.max(0) <= max {
        return None;
    }
    let rounded = (exponent == 0 && (0..max).contains(&whole)).then(|| {
        let digits = (max - whole) as usize;
        let mut kept: String = fraction.chars().take(digits).collect();
        let up = fraction.as_bytes().get(digits).is_some_and(|d| *d >= b'5');
        if up {
            kept = add_one(&kept)?;
        }
        let whole = mantissa.split('.').next().unwrap_or("0");
        Some(Expr::value(Value::Number(format!("{whole}.{kept}"), false)))
    });
    rounded.flatten().or_else(|| Some(double(text)))
}

/// The digits of a fraction, one more in the last place; `None` when it overflows.
fn add_one(digits: &str) -> Option<String> {
    let last = digits.rfind(|d| d != '9')?;
    let (head, tail) = digits.split_at(last);
    let digit = char::from(tail.as_bytes().first()? + 1);
    Some(format!("{head}{digit}{}", "0".repeat(tail.len() - 1)))
}

fn double(text: &str) -> Expr {
    cast(Expr::value(Value::SingleQuotedString(text.to_string())), ast::DataType::DoublePrecision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_rounded_or_doubles() {
        let shown = |text: &str| long_number(text).map(|e| e.to_string());
        assert_eq!(shown("12.5"), None);
        assert_eq!(shown("1e37"), None);
        assert_eq!(shown(&format!("0.{}", "1".repeat(38))), None);
        let kept = format!("7.{}2", "1".repeat(36));
        assert_eq!(shown(&format!("7.{}19", "1".repeat(36))), Some(kept));
        let carried = format!("7.{}2{}", "1".repeat(9), "0".repeat(27));
        assert_eq!(shown(&format!("7.{}1{}", "1".repeat(9), "9".repeat(28))), Some(carried));
        assert_eq!(shown("1e-300").as_deref(), Some("CAST('1e-300' AS DOUBLE PRECISION)"));
        assert_eq!(shown("1.5E308").as_deref(), Some("CAST('1.5E308' AS DOUBLE PRECISION)"));
        let long = "9".repeat(39);
        assert_eq!(shown(&long), Some(format!("CAST('{long}' AS DOUBLE PRECISION)")));
    }
}
