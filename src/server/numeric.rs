//! The binary form of `numeric`: a sign, a weight and digits of base 10000.
//!
//! Both directions go through decimal text, so that the binary form always agrees with what the
//! text form shows: an undeclared `numeric` has no trailing zeros in either.

use bytes::{Buf, BufMut, BytesMut};

use super::errors::code;
use crate::error::{Error, Result};

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
/// Decimal digits in one digit of the wire form.
const GROUP: usize = 4;
/// Groups ahead of the point that are read at most; 38 digits take ten.
const WEIGHT_MAX: i32 = 100;

/// Appends the binary form of a decimal text as `delta::text` writes it.
pub(crate) fn put_binary(text: &str, out: &mut BytesMut) {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (NEGATIVE, rest),
        None => (POSITIVE, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut groups: Vec<i16> = Vec::with_capacity((whole.len() + fraction.len()) / GROUP + 2);
    let lead = whole.len() % GROUP;
    if lead > 0 {
        groups.push(group_of(&whole.as_bytes()[..lead]));
    }
    groups.extend(whole.as_bytes()[lead..].chunks(GROUP).map(group_of));
    let whole_groups = groups.len();
    for chunk in fraction.as_bytes().chunks(GROUP) {
        let missing = u32::try_from(GROUP - chunk.len()).unwrap_or(0);
        groups.push(group_of(chunk) * 10i16.pow(missing));
    }
    let zeros_ahead = groups.iter().take_while(|g| **g == 0).count();
    let zeros_behind = groups[zeros_ahead..].iter().rev().take_while(|g| **g == 0).count();
    let digits = &groups[zeros_ahead..groups.len() - zeros_behind];
    let weight = match digits {
        [] => 0,
        _ => as_i16(whole_groups) - 1 - as_i16(zeros_ahead),
    };
    out.put_i16(as_i16(digits.len()));
    out.put_i16(weight);
    out.put_u16(if digits.is_empty() { POSITIVE } else { sign });
    out.put_i16(as_i16(fraction.len()));
    digits.iter().for_each(|d| out.put_i16(*d));
}

/// Up to four ASCII digits as a number.
fn group_of(digits: &[u8]) -> i16 {
    digits.iter().fold(0, |n, d| n * 10 + i16::from(d - b'0'))
}

/// Counts of digits: a Decimal128 has at most 38, so that they always fit.
fn as_i16(n: usize) -> i16 {
    i16::try_from(n).unwrap_or(i16::MAX)
}

/// Reads the binary form into decimal text.
pub(crate) fn text_of_binary(mut bytes: &[u8]) -> Result<String> {
    let malformed =
        || Error::user(code::INVALID_BINARY_REPRESENTATION, "invalid binary form of type numeric");
    if bytes.len() < 8 {
        return Err(malformed());
    }
    let count = usize::from(bytes.get_u16());
    let weight = i32::from(bytes.get_i16());
    let sign = bytes.get_u16();
    let scale = usize::from(bytes.get_u16());
    if sign == NAN || !matches!(sign, POSITIVE | NEGATIVE) {
        return Err(Error::unsupported("numeric NaN and infinity are not supported"));
    }
    if bytes.len() != count * 2 || weight.abs() > WEIGHT_MAX {
        return Err(malformed());
    }
    let digits: Vec<u16> = (0..count).map(|_| bytes.get_u16()).collect();
    if digits.iter().any(|d| *d > 9_999) {
        return Err(malformed());
    }
    let digit = |place: i32| {
        usize::try_from(weight - place).ok().and_then(|i| digits.get(i)).copied().unwrap_or(0)
    };
    let mut text = String::from(if sign == NEGATIVE { "-" } else { "" });
    for place in (0..=weight.max(0)).rev() {
        text.push_str(&format!("{:04}", digit(place)));
    }
    if scale > 0 {
        text.push('.');
        let places = i32::try_from(scale.div_ceil(GROUP)).unwrap_or(0);
        let mut fraction: String = (1..=places).map(|p| format!("{:04}", digit(-p))).collect();
        fraction.truncate(scale);
        text.push_str(&fraction);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_form_is_postgresqls() {
        let cases: [(&str, &[i16]); 7] = [
            ("0", &[0, 0, 0, 0]),
            ("0.00", &[0, 0, 0, 2]),
            ("1", &[1, 0, 0, 0, 1]),
            ("-12345.678", &[3, 1, 0x4000, 3, 1, 2345, 6780]),
            ("0.0001", &[1, -1, 0, 4, 1]),
            ("0.00000123", &[1, -2, 0, 8, 123]),
            ("10000", &[1, 1, 0, 0, 1]),
        ];
        for (text, expected) in cases {
            let mut out = BytesMut::new();
            put_binary(text, &mut out);
            let mut bytes = &out[..];
            let words: Vec<i16> = (0..out.len() / 2).map(|_| bytes.get_i16()).collect();
            assert_eq!(words, expected, "{text}");
        }
    }

    #[test]
    fn the_binary_form_reads_back() {
        let texts = ["0", "1.5", "-0.05", "99999999.9999", "123456789012345678.0000000001"];
        for text in texts {
            let mut out = BytesMut::new();
            put_binary(text, &mut out);
            let back = text_of_binary(&out).expect("well-formed");
            let (sign, digits) = back.split_at(usize::from(back.starts_with('-')));
            // The form has whole groups of four digits ahead of the point.
            let shown = match digits.trim_start_matches('0') {
                rest if rest.is_empty() || rest.starts_with('.') => format!("{sign}0{rest}"),
                rest => format!("{sign}{rest}"),
            };
            assert_eq!(shown, text);
        }
        assert!(text_of_binary(&[0, 1, 0, 0]).is_err());
        assert!(text_of_binary(&[0, 9, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
