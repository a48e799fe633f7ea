//! What a value means where its type alone does not tell: the unit of an integer in a date or time
//! column, and numbers and bytes in base64. Change-data-capture tools write such values; plain JSON
//! has one rule ([`Reading::Plain`]).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::datetime;
use super::scalar::{self, Invalid};

/// What PostgreSQL's connector sends for a large value that did not change.
pub(super) const UNAVAILABLE: &[u8] = b"__debezium_unavailable_value";

const DAY_MS: i64 = 86_400_000;

/// What a column can be read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::format) enum Kind {
    Date,
    /// A `time` or timestamp.
    Clock,
    /// A `numeric` with this scale.
    Decimal(i8),
    Binary,
    Other,
}

/// What a number for a timestamp counts since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::format) enum Unit {
    Seconds,
    #[default]
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    /// The units by the names that options have for them.
    pub(in crate::format) const NAMES: [(&'static str, Self); 4] = [
        ("second", Self::Seconds),
        ("milli", Self::Millis),
        ("micro", Self::Micros),
        ("nano", Self::Nanos),
    ];

    /// The microseconds that an integer stands for.
    #[inline]
    pub(super) fn timestamp(self, int: i64) -> Result<i64, Invalid> {
        match self {
            Self::Millis => datetime::timestamp_of_millis(int),
            Self::Micros => datetime::timestamp_of_micros(int),
            Self::Nanos => datetime::timestamp_of_micros(int.div_euclid(1000)),
            Self::Seconds => {
                datetime::timestamp_of_micros(int.checked_mul(1_000_000).ok_or(Invalid::Range)?)
            }
        }
    }

    /// The microseconds that a number with a fraction or many digits stands for.
    pub(super) fn timestamp_of_number(self, text: &[u8]) -> Result<i64, Invalid> {
        let digits = match self {
            Self::Seconds => 6,
            Self::Millis => 3,
            Self::Micros => 0,
            Self::Nanos => return self.timestamp(scalar::integer(text)?),
        };
        let us = scalar::decimal(text, 38, digits)?;
        datetime::timestamp_of_micros(i64::try_from(us).map_err(|_| Invalid::Range)?)
    }
}

/// How a column reads values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::format) enum Reading {
    /// An integer has the [`Unit`] of the column if that is of timestamps, and means nothing in a
    /// date or time column; numbers and bytes are their text.
    Plain,
    /// An integer has a unit that nobody has said; numbers are their text.
    Unknown,
    /// An integer has the unit that its size suggests: wrong for timestamps close to 1970.
    Guess,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
    /// A number as the base64 of its digits: big-endian two's complement, with this scale.
    Unscaled(i32),
    /// Bytes as base64.
    Base64,
}

impl Reading {
    /// The microseconds since 1970 that an integer stands for.
    pub(super) fn timestamp(self, int: i64) -> Result<i64, Invalid> {
        match self {
            Self::Millis => datetime::timestamp_of_millis(int),
            Self::Micros => datetime::timestamp_of_micros(int),
            Self::Nanos => datetime::timestamp_of_micros(int.div_euclid(1000)),
            Self::Guess => match int.unsigned_abs() {
                0..100_000_000_000_000 => Self::Millis,
                100_000_000_000_000..100_000_000_000_000_000 => Self::Micros,
                _ => Self::Nanos,
            }
            .timestamp(int),
            _ => Err(Invalid::Unit),
        }
    }

    /// The days since 1970 that an integer stands for: every tool counts days there.
    pub(super) fn date(self, int: i64) -> Result<i32, Invalid> {
        datetime::date_of_days(int)
    }

    /// The microseconds since midnight that an integer stands for.
    pub(super) fn time(self, int: i64) -> Result<i64, Invalid> {
        let us = match self {
            Self::Millis => int.checked_mul(1000).ok_or(Invalid::Range)?,
            Self::Micros => int,
            Self::Nanos => int / 1000,
            _ => return Err(Invalid::Unit),
        };
        if (0..=DAY_MS * 1000).contains(&us) { Ok(us) } else { Err(Invalid::Range) }
    }
}

/// Appends bytes given as base64.
pub(super) fn base64(text: &[u8], out: &mut Vec<u8>) -> Result<(), Invalid> {
    let start = out.len();
    STANDARD.decode_vec(text, out).map_err(|_| Invalid::Syntax)?;
    if out.get(start..) == Some(UNAVAILABLE) { Err(Invalid::Unavailable) } else { Ok(()) }
}

/// A `numeric(precision, scale)` from the base64 of its digits, which have the scale `from`.
pub(super) fn unscaled(text: &[u8], from: i32, precision: u8, scale: i8) -> Result<i128, Invalid> {
    let bytes = STANDARD.decode(text).map_err(|_| Invalid::Syntax)?;
    let negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
    let fill = if negative { 0xff } else { 0 };
    let mut wide = [fill; 16];
    let spare = bytes.len().saturating_sub(wide.len());
    let (over, digits) = bytes.split_at_checked(spare).ok_or(Invalid::Range)?;
    if over.iter().any(|byte| *byte != fill) {
        return Err(Invalid::Range);
    }
    let start = wide.len() - digits.len();
    wide.get_mut(start..).ok_or(Invalid::Range)?.copy_from_slice(digits);
    let value = i128::from_be_bytes(wide);
    if (value < 0) != negative {
        return Err(Invalid::Range);
    }
    scalar::decimal(format!("{value}e{}", -i64::from(from)).as_bytes(), precision, scale)
}

/// A number with a scale of its own: `{"scale": 2, "value": "base64"}`.
pub(super) fn variable_scale(text: &[u8], precision: u8, scale: i8) -> Result<i128, Invalid> {
    #[derive(serde::Deserialize)]
    struct Variable {
        scale: i32,
        value: String,
    }
    let number: Variable = serde_json::from_slice(text).map_err(|_| Invalid::Syntax)?;
    unscaled(number.value.as_bytes(), number.scale, precision, scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_timestamps() {
        let second = 1_700_000_000;
        assert_eq!(Unit::Seconds.timestamp(second), Ok(second * 1_000_000));
        assert_eq!(Unit::Nanos.timestamp(-1), Ok(-1));
        assert_eq!(Unit::Seconds.timestamp(i64::MAX), Err(Invalid::Range));
        assert_eq!(Unit::Seconds.timestamp_of_number(b"1.25"), Ok(1_250_000));
        assert_eq!(Unit::Millis.timestamp_of_number(b"-1.5e3"), Ok(-1_500_000));
        assert_eq!(Unit::Nanos.timestamp_of_number(b"1700000000000000001"), Ok(second * 1_000_000));
        assert_eq!(Unit::Nanos.timestamp_of_number(b"1.5"), Err(Invalid::Syntax));
    }

    #[test]
    fn units_of_integers() {
        let second = 1_700_000_000;
        for (reading, int) in [
            (Reading::Millis, second * 1000),
            (Reading::Micros, second * 1_000_000),
            (Reading::Nanos, second * 1_000_000_000),
            (Reading::Guess, second * 1000),
            (Reading::Guess, second * 1_000_000),
            (Reading::Guess, second * 1_000_000_000),
        ] {
            assert_eq!(reading.timestamp(int), Ok(second * 1_000_000), "{reading:?}");
        }
        assert_eq!(Reading::Nanos.timestamp(-1), Ok(-1));
        assert_eq!(Reading::Unknown.timestamp(0), Err(Invalid::Unit));
        assert_eq!(Reading::Millis.time(1), Ok(1000));
        assert_eq!(Reading::Micros.time(86_400_000_001), Err(Invalid::Range));
        assert_eq!(Reading::Unknown.time(1), Err(Invalid::Unit));
        assert_eq!(Reading::Unknown.date(19_000), Ok(19_000));
    }

    #[test]
    fn numbers_in_base64() {
        let text = |value: i128, bytes: usize| {
            let all = value.to_be_bytes();
            STANDARD.encode(&all[16 - bytes..]).into_bytes()
        };
        assert_eq!(unscaled(&text(12_345, 2), 2, 10, 2), Ok(12_345));
        assert_eq!(unscaled(&text(-1, 1), 2, 10, 2), Ok(-1));
        assert_eq!(unscaled(&text(-128, 1), 0, 10, 2), Ok(-12_800));
        assert_eq!(unscaled(&text(12_345, 16), 3, 10, 2), Ok(1_235), "rounded");
        assert_eq!(unscaled(&text(12_345, 2), 0, 4, 0), Err(Invalid::Range));
        assert_eq!(unscaled(b"", 0, 4, 0), Ok(0));
        assert_eq!(unscaled(b"?", 0, 4, 0), Err(Invalid::Syntax));
        assert_eq!(unscaled(&STANDARD.encode([1; 17]).into_bytes(), 0, 38, 0), Err(Invalid::Range));
        let variable = br#"{"scale": 1, "value": "MDk="}"#;
        assert_eq!(variable_scale(variable, 10, 2), Ok(123_450));
    }
}
