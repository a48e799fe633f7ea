//! Sequences: what CREATE and ALTER SEQUENCE say, and which number is the next one.
//!
//! Not here: where a sequence stands while it runs, and how it is kept.

use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use super::RelationId;
use crate::error::{Error, Result, sqlstate};

/// The type of a sequence's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SequenceType {
    /// `smallint`
    SmallInt,
    /// `integer`
    Integer,
    /// `bigint`
    #[default]
    BigInt,
}

impl SequenceType {
    /// That of the sequence of an identity column of a type (22023 where it can be none).
    pub fn of_identity(column: &DataType) -> Result<Self> {
        match column {
            DataType::Int16 => Ok(Self::SmallInt),
            DataType::Int32 => Ok(Self::Integer),
            DataType::Int64 => Ok(Self::BigInt),
            _ => Err(invalid("identity column type must be smallint, integer, or bigint".into())),
        }
    }

    /// As SQL writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SmallInt => "smallint",
            Self::Integer => "integer",
            Self::BigInt => "bigint",
        }
    }

    /// The least and the greatest number.
    pub fn range(self) -> (i64, i64) {
        match self {
            Self::SmallInt => (i16::MIN.into(), i16::MAX.into()),
            Self::Integer => (i32::MIN.into(), i32::MAX.into()),
            Self::BigInt => (i64::MIN, i64::MAX),
        }
    }
}

/// What stands behind the name in CREATE and ALTER SEQUENCE; nothing where it is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceOptions {
    /// AS
    pub data_type: Option<SequenceType>,
    /// INCREMENT BY
    pub increment: Option<i64>,
    /// MINVALUE, or NO MINVALUE
    pub min: Option<Option<i64>>,
    /// MAXVALUE, or NO MAXVALUE
    pub max: Option<Option<i64>>,
    /// START WITH
    pub start: Option<i64>,
    /// RESTART, or RESTART WITH
    pub restart: Option<Option<i64>>,
    /// CACHE
    pub cache: Option<i64>,
    /// CYCLE, or NO CYCLE
    pub cycle: Option<bool>,
    /// OWNED BY a column of a table, or NONE
    pub owned_by: Option<Option<(String, String)>>,
}

/// A sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceDef {
    /// The type of its numbers.
    pub data_type: SequenceType,
    /// The first number.
    pub start: i64,
    /// From one number to the next one; not zero.
    pub increment: i64,
    /// The least number.
    pub min: i64,
    /// The greatest number.
    pub max: i64,
    /// How many numbers a session of PostgreSQL would take at once; kept, and of no effect.
    pub cache: i64,
    /// Begins again behind its last number.
    pub cycle: bool,
}

/// The column that a sequence belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceOwner {
    /// The table.
    pub table: RelationId,
    /// The column.
    pub column: String,
}

/// A sequence of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Its clauses.
    pub def: SequenceDef,
    /// What it belongs to, and goes with.
    pub owner: Option<SequenceOwner>,
}

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceAt {
    /// The number that was given last, or is given next.
    pub value: i64,
    /// Whether it was given.
    pub called: bool,
}

impl Default for SequenceDef {
    /// That of CREATE SEQUENCE without clauses.
    fn default() -> Self {
        let (data_type, max) = (SequenceType::BigInt, i64::MAX);
        Self { data_type, start: 1, increment: 1, min: 1, max, cache: 1, cycle: false }
    }
}

fn invalid(message: String) -> Error {
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, message)
}

impl SequenceDef {
    /// A new sequence.
    pub fn new(options: &SequenceOptions) -> Result<Self> {
        let data_type = options.data_type.unwrap_or_default();
        let increment = options.increment.unwrap_or(1);
        let base = Self { data_type, start: 0, increment, min: 0, max: 0, cache: 1, cycle: false };
        let options = SequenceOptions {
            min: options.min.or(Some(None)),
            max: options.max.or(Some(None)),
            ..options.clone()
        };
        base.with(&options, None)
    }

    /// The same with other options. A start that is not said is that of before, or, of a new one,
    /// the end that it begins at.
    fn with(self, options: &SequenceOptions, start: Option<i64>) -> Result<Self> {
        let mut new = self;
        new.data_type = options.data_type.unwrap_or(self.data_type);
        new.increment = options.increment.unwrap_or(self.increment);
        if new.increment == 0 {
            return Err(invalid("INCREMENT must not be zero".into()));
        }
        new.cycle = options.cycle.unwrap_or(self.cycle);
        let (least, greatest) = new.data_type.range();
        // Ends that were those of the type before are those of the new type.
        let (old_least, old_greatest) = self.data_type.range();
        let retyped = new.data_type != self.data_type;
        let max = options.max.or((retyped && self.max == old_greatest).then_some(None));
        let min = options.min.or((retyped && self.min == old_least).then_some(None));
        new.max = match max {
            None => self.max,
            Some(Some(max)) => max,
            Some(None) if new.increment > 0 => greatest,
            Some(None) => -1,
        };
        new.min = match min {
            None => self.min,
            Some(Some(min)) => min,
            Some(None) if new.increment > 0 => 1,
            Some(None) => least,
        };
        let of_type = new.data_type.name();
        for (end, value) in [("MAXVALUE", new.max), ("MINVALUE", new.min)] {
            if !(least..=greatest).contains(&value) {
                return Err(invalid(format!(
                    "{end} ({value}) is out of range for sequence data type {of_type}"
                )));
            }
        }
        if new.min >= new.max {
            let (min, max) = (new.min, new.max);
            return Err(invalid(format!("MINVALUE ({min}) must be less than MAXVALUE ({max})")));
        }
        let begin = if new.increment > 0 { new.min } else { new.max };
        new.start = options.start.or(start).unwrap_or(begin);
        new.check("START", new.start)?;
        new.cache = options.cache.unwrap_or(self.cache);
        if new.cache <= 0 {
            return Err(invalid(format!("CACHE ({}) must be greater than zero", new.cache)));
        }
        Ok(new)
    }

    fn check(&self, what: &str, value: i64) -> Result<()> {
        let (min, max) = (self.min, self.max);
        if value < min {
            return Err(invalid(format!(
                "{what} value ({value}) cannot be less than MINVALUE ({min})"
            )));
        }
        if value > max {
            return Err(invalid(format!(
                "{what} value ({value}) cannot be greater than MAXVALUE ({max})"
            )));
        }
        Ok(())
    }

    /// The sequence and where it stands after ALTER SEQUENCE.
    pub fn altered(&self, options: &SequenceOptions, at: SequenceAt) -> Result<(Self, SequenceAt)> {
        let new = self.with(options, Some(self.start))?;
        let at = match options.restart {
            None => at,
            Some(value) => SequenceAt { value: value.unwrap_or(new.start), called: false },
        };
        new.check("RESTART", at.value)?;
        Ok((new, at))
    }

    /// Where it stands at first.
    pub fn begin(&self) -> SequenceAt {
        SequenceAt { value: self.start, called: false }
    }

    /// The number behind a place; `None` behind the last one, unless it begins again.
    pub fn next(&self, at: SequenceAt) -> Option<i64> {
        if !at.called {
            return Some(at.value);
        }
        let next = at.value.checked_add(self.increment);
        match next.filter(|next| (self.min..=self.max).contains(next)) {
            Some(next) => Some(next),
            None if self.cycle => Some(if self.increment > 0 { self.min } else { self.max }),
            None => None,
        }
    }

    /// 2200H of a sequence that has no more numbers.
    pub fn at_end(&self, name: &str) -> Error {
        let (end, value) = match self.increment > 0 {
            true => ("maximum", self.max),
            false => ("minimum", self.min),
        };
        Error::user(
            sqlstate::SEQUENCE_LIMIT_EXCEEDED,
            format!("nextval: reached {end} value of sequence \"{name}\" ({value})"),
        )
    }

    /// The clauses that make it.
    pub fn clauses(&self) -> String {
        let Self { data_type, start, increment, min, max, cache, cycle } = self;
        let data_type = data_type.name();
        let cycle = if *cycle { " CYCLE" } else { "" };
        format!(
            "AS {data_type} INCREMENT BY {increment} MINVALUE {min} MAXVALUE {max} START WITH \
             {start} CACHE {cache}{cycle}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_up_down_and_round() {
        let take = |options: &SequenceOptions| {
            let def = SequenceDef::new(options).expect("a sequence");
            let mut at = def.begin();
            let numbers = std::iter::from_fn(|| {
                let value = def.next(at)?;
                at = SequenceAt { value, called: true };
                Some(value)
            });
            numbers.take(4).collect::<Vec<_>>()
        };
        let base = SequenceOptions::default;
        assert_eq!(take(&base()), [1, 2, 3, 4]);
        assert_eq!(take(&SequenceOptions { increment: Some(-2), ..base() }), [-1, -3, -5, -7]);
        let short = SequenceOptions { max: Some(Some(2)), ..base() };
        assert_eq!(take(&short), [1, 2]);
        assert_eq!(take(&SequenceOptions { cycle: Some(true), ..short }), [1, 2, 1, 2]);
        let last = SequenceOptions { start: Some(i64::MAX - 1), ..base() };
        assert_eq!(take(&last), [i64::MAX - 1, i64::MAX]);
    }

    #[test]
    fn options_are_checked_as_postgresql_does() {
        let told = |options: SequenceOptions| {
            SequenceDef::new(&options).map(|def| def.clauses()).unwrap_or_else(|e| e.to_string())
        };
        let base = SequenceOptions::default;
        assert!(
            told(SequenceOptions { increment: Some(0), ..base() }).contains("must not be zero")
        );
        let start = SequenceOptions { start: Some(0), ..base() };
        assert!(told(start).contains("START value (0) cannot be less than MINVALUE (1)"));
        let small = SequenceOptions { data_type: Some(SequenceType::SmallInt), ..base() };
        assert!(told(small.clone()).contains("MAXVALUE 32767"));
        let large = SequenceOptions { max: Some(Some(40_000)), ..small.clone() };
        assert!(told(large).contains("MAXVALUE (40000) is out of range for sequence data type"));
        let def = SequenceDef::new(&small).expect("a sequence");
        let wider = SequenceOptions { data_type: Some(SequenceType::Integer), ..base() };
        let (wider, _) = def.altered(&wider, def.begin()).expect("a sequence");
        assert_eq!((wider.min, wider.max), (1, i32::MAX.into()));
        let again = SequenceOptions { restart: Some(Some(0)), ..base() };
        let error = def.altered(&again, def.begin()).expect_err("too small");
        assert!(error.to_string().contains("RESTART value (0) cannot be less than MINVALUE (1)"));
    }
}
