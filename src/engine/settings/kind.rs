//! What a setting's value may be: how it is read, checked, kept and shown.
//!
//! A value is kept in one form: booleans as `on` and `off`, integers in the setting's own unit
//! without its name, words as this table spells them. [`Kind::shown`] is what SHOW prints.

use crate::error::{Error, Result, sqlstate};

/// What values a setting takes.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// `on` or `off`.
    Bool,
    /// `on` or `off`, of which only one is honoured.
    Fixed(bool),
    /// A whole number in a range.
    Integer { unit: Unit, min: i64, max: i64 },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Words, of which only the first ones are honoured; the others are refused as what they are.
    Only { honoured: &'static [&'static str], known: &'static [&'static str] },
    /// Any text.
    Text,
    /// A text with rules of its own: its kept form, or why it is refused.
    Checked(fn(&str) -> Result<String, Refusal>),
    /// Words separated by commas, checked in the same way.
    List(fn(&str) -> Result<String, Refusal>),
    /// The same where what is not said stays as it is: given the value and the one before.
    Amended(fn(&str, &str) -> Result<String, Refusal>),
}

/// What an integer counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    None,
    Milliseconds,
    Kilobytes,
}

/// Why a value is refused.
pub(crate) enum Refusal {
    /// It means nothing (22023); what is known beyond that.
    Nonsense(Option<&'static str>),
    /// It means something that is not done here (0A000): the sentence and what to do.
    Unsupported(String, &'static str),
}

/// Units with how many of the unit below the first they are; the kept one has 1.
type Units = &'static [(&'static str, f64)];

const TIME: Units = &[
    ("us", 0.001),
    ("ms", 1.0),
    ("s", 1_000.0),
    ("min", 60_000.0),
    ("h", 3_600_000.0),
    ("d", 86_400_000.0),
];
const MEMORY: Units = &[
    ("B", 1.0 / 1024.0),
    ("kB", 1.0),
    ("MB", 1024.0),
    ("GB", 1_048_576.0),
    ("TB", 1_073_741_824.0),
];

impl Unit {
    fn units(self) -> Units {
        match self {
            Self::None => &[],
            Self::Milliseconds => TIME,
            Self::Kilobytes => MEMORY,
        }
    }

    /// The unit that values are kept in.
    pub(crate) fn name(self) -> Option<&'static str> {
        self.units().iter().find(|(_, size)| *size == 1.0).map(|(name, _)| *name)
    }

    fn hint(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Milliseconds => Some(
                "Valid units for this parameter are \"us\", \"ms\", \"s\", \"min\", \"h\", and \
                 \"d\".",
            ),
            Self::Kilobytes => Some(
                "Valid units for this parameter are \"B\", \"kB\", \"MB\", \"GB\", and \"TB\".",
            ),
        }
    }
}

impl Kind {
    /// The kept form of a value of a setting that nobody has set.
    #[cfg(test)]
    pub(crate) fn check(self, name: &str, value: &str) -> Result<String> {
        self.check_over(name, value, "")
    }

    /// The kept form of a value of a setting, which has one now.
    pub(crate) fn check_over(self, name: &str, value: &str, current: &str) -> Result<String> {
        let because = |refusal| match refusal {
            Refusal::Nonsense(Some(detail)) => invalid(name, value).with_detail(detail),
            Refusal::Nonsense(None) => invalid(name, value),
            Refusal::Unsupported(message, hint) => Error::unsupported(message).with_hint(hint),
        };
        match self {
            Self::Bool | Self::Fixed(_) => {
                let on = boolean(value).ok_or_else(|| {
                    Error::user(
                        sqlstate::INVALID_PARAMETER_VALUE,
                        format!("parameter \"{name}\" requires a Boolean value"),
                    )
                })?;
                match self {
                    Self::Fixed(only) if only != on => {
                        let (on, only) = (word_of(on), word_of(only));
                        Err(Error::unsupported(format!(
                            "parameter \"{name}\" can not be \"{on}\" here"
                        ))
                        .with_hint(format!("SET {name} = {only};")))
                    }
                    _ => Ok(word_of(on).to_owned()),
                }
            }
            Self::Integer { unit, min, max } => integer(name, value, unit, (min, max)),
            Self::Choice(words) => match word(words, value) {
                Some(found) => Ok(found),
                None => Err(invalid(name, value).with_hint(available(words))),
            },
            Self::Only { honoured, known } => match (word(honoured, value), word(known, value)) {
                (Some(found), _) => Ok(found),
                (None, Some(found)) => Err(Error::unsupported(format!(
                    "parameter \"{name}\" can not be \"{found}\" here"
                ))
                .with_hint(available(honoured))),
                (None, None) => Err(invalid(name, value).with_hint(available(honoured))),
            },
            Self::Text => Ok(value.to_owned()),
            Self::Checked(check) | Self::List(check) => check(value).map_err(because),
            Self::Amended(amend) => amend(value, current).map_err(because),
        }
    }

    /// A kept value as SHOW prints it: integers in the largest unit that divides them.
    pub(crate) fn shown(self, kept: &str) -> String {
        let Self::Integer { unit, .. } = self else { return kept.to_owned() };
        let number: i64 = kept.parse().unwrap_or_default();
        let fits = |(_, size): &&(&str, f64)| *size >= 1.0 && number % (*size as i64) == 0;
        match unit.units().iter().rev().find(fits).filter(|_| number > 0) {
            Some((name, size)) => format!("{}{name}", number / *size as i64),
            None => kept.to_owned(),
        }
    }

    /// The unit of kept integers.
    pub(crate) fn unit(self) -> Option<&'static str> {
        match self {
            Self::Integer { unit, .. } => unit.name(),
            _ => None,
        }
    }

    /// The least and the greatest integer.
    pub(crate) fn range(self) -> Option<(i64, i64)> {
        match self {
            Self::Integer { min, max, .. } => Some((min, max)),
            _ => None,
        }
    }

    /// The words that may be set.
    pub(crate) fn words(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Choice(words) | Self::Only { honoured: words, .. } => Some(words),
            _ => None,
        }
    }

    /// As `pg_settings.vartype` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bool | Self::Fixed(_) => "bool",
            Self::Integer { .. } => "integer",
            Self::Choice(_) | Self::Only { .. } => "enum",
            Self::Text | Self::Checked(_) | Self::List(_) | Self::Amended(_) => "string",
        }
    }
}

/// `invalid value for parameter`.
pub(crate) fn invalid(name: &str, value: &str) -> Error {
    let shown: String = value.chars().take(200).collect();
    Error::user(
        sqlstate::INVALID_PARAMETER_VALUE,
        format!("invalid value for parameter \"{name}\": \"{shown}\""),
    )
}

/// The kept form of a boolean.
pub(crate) fn word_of(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn available(words: &[&str]) -> String {
    format!("Available values: {}.", words.join(", "))
}

fn word(words: &[&str], value: &str) -> Option<String> {
    words.iter().find(|w| w.eq_ignore_ascii_case(value)).map(|w| (*w).to_owned())
}

/// A boolean as PostgreSQL reads settings: beginnings that only one word has will do.
pub(crate) fn boolean(value: &str) -> Option<bool> {
    let value = value.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    match value.as_str() {
        "1" => Some(true),
        "0" => Some(false),
        _ if begins("true", 1) || begins("yes", 1) || begins("on", 2) => Some(true),
        _ if begins("false", 1) || begins("no", 1) || begins("off", 2) => Some(false),
        _ => None,
    }
}

fn integer(name: &str, value: &str, unit: Unit, range: (i64, i64)) -> Result<String> {
    let refused = || match unit.hint() {
        Some(hint) => invalid(name, value).with_hint(hint),
        None => invalid(name, value),
    };
    let text = value.trim();
    let number = text.bytes().take_while(|b| b.is_ascii_digit() || b"+-.".contains(b)).count();
    let (number, rest) = text.split_at(number);
    let rest = rest.trim_start();
    let size = match rest {
        "" => 1.0,
        given => unit.units().iter().find(|(n, _)| *n == given).ok_or_else(refused)?.1,
    };
    let number: f64 = number.parse().map_err(|_| refused())?;
    let scaled = (number * size).round();
    if scaled.abs() > f64::from(i32::MAX) + 1.0 {
        return Err(invalid(name, value).with_hint("Value exceeds integer range."));
    }
    let (kept, (min, max)) = (scaled as i64, range);
    if !(min..=max).contains(&kept) {
        let unit = unit.name().map_or_else(String::new, |u| format!(" {u}"));
        return Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!(
                "{kept}{unit} is outside the valid range for parameter \"{name}\" ({min} .. {max})"
            ),
        ));
    }
    Ok(kept.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Kind = Kind::Integer { unit: Unit::Milliseconds, min: 0, max: i32::MAX as i64 };

    #[test]
    fn integers_have_units_and_ranges() {
        let kept = |text: &str| MS.check("t", text);
        for (text, ms, shown) in [
            ("0", "0", "0"),
            ("1500", "1500", "1500ms"),
            (" 2 s ", "2000", "2s"),
            ("1.5s", "1500", "1500ms"),
            ("90min", "5400000", "90min"),
            ("2h", "7200000", "2h"),
            ("1d", "86400000", "1d"),
            ("900us", "1", "1ms"),
        ] {
            let value = kept(text).expect("a duration");
            assert_eq!(value, ms, "{text}");
            assert_eq!(MS.shown(&value), shown, "{text}");
        }
        for text in ["", "abc", "5 parsecs", "1 S", "--1", "s", "1 2", "99999999999", "1e3", "NaN"]
        {
            let error = kept(text).expect_err("no duration");
            assert_eq!(error.sqlstate(), "22023", "{text}");
            let message = format!("invalid value for parameter \"t\": \"{text}\"");
            assert_eq!(error.message(), message);
        }
        let error = kept("-1").expect_err("below the range");
        let message = "-1 ms is outside the valid range for parameter \"t\" (0 .. 2147483647)";
        assert_eq!(error.message(), message);
        let memory = Kind::Integer { unit: Unit::Kilobytes, min: 64, max: i32::MAX as i64 };
        assert_eq!(memory.check("m", "1GB").ok().as_deref(), Some("1048576"));
        assert_eq!(memory.shown("4096"), "4MB");
        assert_eq!(memory.check("m", "4 s").map_err(|e| e.sqlstate()), Err("22023"));
    }

    #[test]
    fn booleans_and_words() {
        for text in ["on", "TRUE", "t", "yes", "y", "1"] {
            assert_eq!(boolean(text), Some(true), "{text}");
        }
        for text in ["off", "of", "false", "n", "0"] {
            assert_eq!(boolean(text), Some(false), "{text}");
        }
        for text in ["", "o", "maybe", "2", "onn"] {
            assert_eq!(boolean(text), None, "{text}");
        }
        let fixed = Kind::Fixed(true);
        assert_eq!(fixed.check("b", "yes").ok().as_deref(), Some("on"));
        assert_eq!(fixed.check("b", "off").map_err(|e| e.sqlstate()), Err("0A000"));
        let only = Kind::Only { honoured: &["hex"], known: &["escape"] };
        assert_eq!(only.check("b", "HEX").ok().as_deref(), Some("hex"));
        assert_eq!(only.check("b", "escape").map_err(|e| e.sqlstate()), Err("0A000"));
        assert_eq!(only.check("b", "base64").map_err(|e| e.sqlstate()), Err("22023"));
    }
}
