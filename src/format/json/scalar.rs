//! Text of scalars to values, in PostgreSQL's input syntax and with its error texts: integers,
//! floats, `numeric`, `boolean`, `bytea`. Dates and times are in [`super::datetime`], what is not
//! in plain form in [`super::spelled`].

/// Why a text is not a value of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::format) enum Invalid {
    /// It does not look like one.
    Syntax,
    /// It looks like one, but the type can't hold it.
    Range,
    /// It stands for a value that the sender did not have.
    Unavailable,
    /// An integer for a date or time whose unit nobody has said.
    Unit,
    /// A `\u` escape in it stands for no character that a text can hold.
    Escape,
}

/// Input text as a string; tokens are UTF-8.
fn str_of(text: &[u8]) -> Result<&str, Invalid> {
    std::str::from_utf8(text.trim_ascii()).map_err(|_| Invalid::Syntax)
}

/// An integer of the width that `T` has.
pub(super) fn integer<T: TryFrom<i64>>(text: &[u8]) -> Result<T, Invalid> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let wide: i64 = str_of(text)?.parse().map_err(|e: std::num::ParseIntError| match e.kind() {
        PosOverflow | NegOverflow => Invalid::Range,
        _ => Invalid::Syntax,
    })?;
    T::try_from(wide).map_err(|_| Invalid::Range)
}

/// A float; `NaN`, `Infinity` and `-Infinity` in any case, as PostgreSQL spells them.
pub(super) fn double(text: &[u8]) -> Result<f64, Invalid> {
    let value: f64 = str_of(text)?.parse().map_err(|_| Invalid::Syntax)?;
    if value.is_infinite() && !is_spelled(text) { Err(Invalid::Range) } else { Ok(value) }
}

/// A float of single precision, rounded once.
pub(super) fn real(text: &[u8]) -> Result<f32, Invalid> {
    let value: f32 = str_of(text)?.parse().map_err(|_| Invalid::Syntax)?;
    if value.is_infinite() && !is_spelled(text) { Err(Invalid::Range) } else { Ok(value) }
}

/// Whether an infinity was meant, and not a number too large.
fn is_spelled(text: &[u8]) -> bool {
    text.iter().any(|b| matches!(b, b'i' | b'I'))
}

/// A boolean: a unique prefix of true, false, yes, no, on, off, or 1 and 0.
pub(super) fn boolean(text: &[u8]) -> Result<bool, Invalid> {
    let text = text.trim_ascii().to_ascii_lowercase();
    let prefix_of =
        |word: &str, least: usize| text.len() >= least && word.as_bytes().starts_with(&text);
    if prefix_of("true", 1) || prefix_of("yes", 1) || text == b"on" || text == b"1" {
        Ok(true)
    } else if prefix_of("false", 1) || prefix_of("no", 1) || prefix_of("off", 2) || text == b"0" {
        Ok(false)
    } else {
        Err(Invalid::Syntax)
    }
}

/// The parts of a decimal number, as written.
struct Digits<'a> {
    negative: bool,
    int: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

fn digits(text: &[u8]) -> Option<Digits<'_>> {
    let mut rest = text.trim_ascii();
    let negative = rest.first() == Some(&b'-');
    if let [b'-' | b'+', tail @ ..] = rest {
        rest = tail;
    }
    let run = |bytes: &[u8]| bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let (int, tail) = rest.split_at_checked(run(rest))?;
    let (fraction, tail) = match tail {
        [b'.', tail @ ..] => tail.split_at_checked(run(tail))?,
        _ => (&tail[..0], tail),
    };
    if int.is_empty() && fraction.is_empty() {
        return None;
    }
    let exponent = match tail {
        [] => 0,
        [b'e' | b'E', tail @ ..] => {
            let written: i64 = std::str::from_utf8(tail).ok()?.parse().ok()?;
            written.clamp(-1_000_000, 1_000_000)
        }
        _ => return None,
    };
    Some(Digits { negative, int, fraction, exponent })
}

/// A `numeric(precision, scale)`: the unscaled value, rounded half away from zero.
pub(super) fn decimal(text: &[u8], precision: u8, scale: i8) -> Result<i128, Invalid> {
    let Some(d) = digits(text) else {
        return Err(Invalid::Syntax);
    };
    let all = d.int.iter().chain(d.fraction).skip_while(|b| **b == b'0');
    let count = all.clone().count() as i64;
    // The digits that stay: a fraction longer than the scale loses its end, a shorter one gets
    // zeros.
    let shift = d.exponent - d.fraction.len() as i64 + i64::from(scale);
    let keep = count + shift;
    if count == 0 || keep < 0 {
        return Ok(0);
    }
    if keep > i64::from(precision) {
        return Err(Invalid::Range);
    }
    let mut value: i128 = 0;
    let mut next = all;
    for _ in 0..keep {
        let digit = next.next().map_or(0, |b| i128::from(b - b'0'));
        value = value * 10 + digit;
    }
    if next.next().is_some_and(|b| *b >= b'5') {
        value += 1;
    }
    if value >= 10_i128.pow(u32::from(precision).min(38)) {
        return Err(Invalid::Range);
    }
    Ok(if d.negative { -value } else { value })
}

/// Appends a `bytea`: the hex format of PostgreSQL, else the bytes of the text.
pub(super) fn bytea(text: &[u8], out: &mut Vec<u8>) -> Result<(), Invalid> {
    let Some(hex) = text.strip_prefix(b"\\x") else {
        out.extend_from_slice(text);
        return Ok(());
    };
    let nibble = |b: u8| (b as char).to_digit(16).map(|d| d as u8).ok_or(Invalid::Syntax);
    let (pairs, odd) = hex.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(Invalid::Syntax);
    }
    for [high, low] in pairs {
        out.push(nibble(*high)? << 4 | nibble(*low)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_is_exact_and_rounds_half_away_from_zero() {
        assert_eq!(decimal(b"0.1", 38, 20), Ok(10_i128.pow(19)));
        assert_eq!(decimal(b"12345678901234567890.123456789", 38, 9), {
            Ok(12_345_678_901_234_567_890_123_456_789)
        });
        assert_eq!(decimal(b"2.345", 10, 2), Ok(235));
        assert_eq!(decimal(b"-2.345", 10, 2), Ok(-235));
        assert_eq!(decimal(b"0.5", 10, 0), Ok(1));
        assert_eq!(decimal(b"0.49999", 10, 0), Ok(0));
        assert_eq!(decimal(b"0.05", 10, 0), Ok(0));
        assert_eq!(decimal(b"1.5e3", 10, 2), Ok(150_000));
        assert_eq!(decimal(b"15e-1", 10, 0), Ok(2));
        assert_eq!(decimal(b"0e999999999", 10, 2), Ok(0));
        assert_eq!(decimal(b"99.99", 4, 2), Ok(9999));
        assert_eq!(decimal(b"99.995", 4, 2), Err(Invalid::Range));
        assert_eq!(decimal(b"100", 4, 2), Err(Invalid::Range));
        assert_eq!(decimal(b"1e999999999", 38, 2), Err(Invalid::Range));
        for bad in ["", "-", ".", "1.2.3", "1e", "abc", "1 2", "NaN"] {
            assert_eq!(decimal(bad.as_bytes(), 10, 2), Err(Invalid::Syntax), "{bad:?}");
        }
    }

    #[test]
    fn integers_tell_syntax_from_range() {
        assert_eq!(integer::<i32>(b" -2147483648 "), Ok(i32::MIN));
        assert_eq!(integer::<i32>(b"2147483648"), Err(Invalid::Range));
        assert_eq!(integer::<i64>(b"9223372036854775808"), Err(Invalid::Range));
        assert_eq!(integer::<i64>(b"1.0"), Err(Invalid::Syntax));
        assert_eq!(integer::<i64>(b""), Err(Invalid::Syntax));
        assert_eq!(double(b"1e400"), Err(Invalid::Range));
        assert_eq!(double(b"-Infinity"), Ok(f64::NEG_INFINITY));
    }
}
