//! A connector's view of its WITH options: typed, and complete. Each accessor remembers the name
//! that it was asked for; [`Options::finish`] then refuses what nobody asked for, so that a
//! misspelt option is an error and never a default.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ConnectorSpec;
use crate::error::{Error, Result, sqlstate};

/// The options of one connector while it reads them.
#[derive(Debug)]
pub struct Options<'a> {
    connector: &'a str,
    given: &'a BTreeMap<String, String>,
    known: BTreeSet<&'static str>,
    used: BTreeSet<&'a str>,
}

impl<'a> Options<'a> {
    /// The options of a source or sink.
    pub fn new(spec: &'a ConnectorSpec) -> Self {
        Self::of(&spec.connector, &spec.options)
    }

    /// Options of something else that has a name.
    pub fn of(connector: &'a str, given: &'a BTreeMap<String, String>) -> Self {
        Self { connector, given, known: BTreeSet::new(), used: BTreeSet::new() }
    }

    /// The text of an option. Names are compared without regard to case.
    pub fn string(&mut self, name: &'static str) -> Option<&'a str> {
        self.known.insert(name);
        let (key, value) = self.given.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        self.used.insert(key);
        Some(value)
    }

    /// The text of an option that must be there and not be empty.
    pub fn required(&mut self, name: &'static str) -> Result<&'a str> {
        match self.string(name) {
            Some(value) if !value.trim().is_empty() => Ok(value),
            _ => Err(self.missing(name)),
        }
    }

    /// The error for an option that is not there.
    pub fn missing(&self, name: &str) -> Error {
        let connector = self.connector;
        Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("connector \"{connector}\" requires option \"{name}\""),
        )
        .with_hint(format!("Add {name} = '...' to the WITH clause."))
    }

    /// An integer.
    pub fn integer(&mut self, name: &'static str) -> Result<Option<i64>> {
        let Some(text) = self.string(name) else {
            return Ok(None);
        };
        match text.trim().parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(invalid(name, text, "an integer")),
        }
    }

    /// A boolean: true, false, on, off, yes, no, 1 or 0.
    pub fn boolean(&mut self, name: &'static str) -> Result<Option<bool>> {
        let Some(text) = self.string(name) else {
            return Ok(None);
        };
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Ok(Some(true)),
            "false" | "off" | "no" | "0" => Ok(Some(false)),
            _ => Err(invalid(name, text, "a boolean")),
        }
    }

    /// A span of time: a number with a unit (`us`, `ms`, `s`, `min`, `h`, `d`), as in `'500 ms'`.
    pub fn duration(&mut self, name: &'static str) -> Result<Option<Duration>> {
        self.string(name).map(|text| duration(name, text)).transpose()
    }

    /// One of a few words, in any case.
    pub fn one_of<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&str, T)],
    ) -> Result<Option<T>> {
        let Some(text) = self.string(name) else {
            return Ok(None);
        };
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim()));
        match found {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let all: Vec<_> = words.iter().map(|(word, _)| format!("'{word}'")).collect();
                Err(invalid(name, text, &format!("one of {}", all.join(", "))))
            }
        }
    }

    /// Every option whose name begins with `prefix`, without it.
    pub fn with_prefix(&mut self, prefix: &'static str) -> Vec<(&'a str, &'a str)> {
        let mut found = Vec::new();
        for (key, value) in self.given {
            if let Some(rest) = key.strip_prefix(prefix) {
                self.used.insert(key);
                found.push((rest, value.as_str()));
            }
        }
        found
    }

    /// Refuses the first option that no accessor asked for.
    pub fn finish(self) -> Result<()> {
        let Some(name) = self.given.keys().find(|key| !self.used.contains(key.as_str())) else {
            return Ok(());
        };
        let known: Vec<_> = self.known.iter().copied().collect();
        let hint = match known.as_slice() {
            [] => "This connector has no options.".into(),
            _ => format!("Known options: {}.", known.join(", ")),
        };
        let connector = self.connector;
        Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("connector \"{connector}\" has no option \"{name}\""),
        )
        .with_hint(hint))
    }
}

/// A span of time from the text of an option.
pub(super) fn duration(name: &str, text: &str) -> Result<Duration> {
    let bad = || invalid(name, text, "a number with a unit, such as '500 ms' or '10 s'");
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at_checked(digits).ok_or_else(bad)?;
    let number: u64 = number.parse().map_err(|_| bad())?;
    let micros: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "us" => 1,
        "ms" => 1_000,
        "s" | "sec" | "second" | "seconds" => 1_000_000,
        "min" | "m" | "minute" | "minutes" => 60_000_000,
        "h" | "hour" | "hours" => 3_600_000_000,
        "d" | "day" | "days" => 86_400_000_000,
        _ => return Err(bad()),
    };
    number.checked_mul(micros).map(Duration::from_micros).ok_or_else(bad)
}

/// The error for an option whose value can't be read.
pub(super) fn invalid(name: &str, value: &str, wanted: &str) -> Error {
    Error::user(
        sqlstate::INVALID_PARAMETER_VALUE,
        format!("invalid value for option \"{name}\": \"{value}\""),
    )
    .with_detail(format!("It must be {wanted}."))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;
    use crate::format::FormatSpec;

    fn spec(options: &[(&str, &str)]) -> ConnectorSpec {
        ConnectorSpec {
            relation: "t".into(),
            connector: "file".into(),
            options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            schema: Arc::new(Schema::empty()),
            key: Vec::new(),
            format: FormatSpec::plain_json(),
            include: Vec::new(),
        }
    }

    #[test]
    fn values_are_typed() {
        let spec = spec(&[("path", "/x"), ("n", " 5 "), ("Wait", "2 min"), ("mode", "FAST")]);
        let mut options = Options::new(&spec);
        assert_eq!(options.required("path").expect("given"), "/x");
        assert_eq!(options.integer("n").expect("an integer"), Some(5));
        assert_eq!(options.boolean("gone").expect("absent"), None);
        assert_eq!(options.duration("wait").expect("a time"), Some(Duration::from_secs(120)));
        let mode = options.one_of("mode", &[("slow", 0), ("fast", 1)]).expect("a word");
        assert_eq!(mode, Some(1));
        options.finish().expect("all known");
    }

    #[test]
    fn errors_name_the_option() {
        let spec = spec(&[("pth", "/x"), ("n", "five"), ("properties.a", "1")]);
        let mut options = Options::new(&spec);
        let missing = options.required("path").expect_err("missing");
        assert_eq!(missing.message(), "connector \"file\" requires option \"path\"");
        let bad = options.integer("n").expect_err("not a number");
        assert_eq!(bad.message(), "invalid value for option \"n\": \"five\"");
        assert_eq!(options.with_prefix("properties."), [("a", "1")]);
        let unknown = options.finish().expect_err("unknown");
        assert_eq!(unknown.message(), "connector \"file\" has no option \"pth\"");
        assert_eq!(unknown.hint(), Some("Known options: n, path."));
        assert_eq!(unknown.sqlstate(), "22023");
    }
}
