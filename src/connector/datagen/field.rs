//! The values of a column, by the numbers of rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::connector::options::{duration, invalid};
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result};
use crate::expr::parse_value;

/// 2024-01-01 00:00:00 UTC.
const START_US: i64 = 1_704_067_200_000_000;
const DAY_US: i64 = 86_400_000_000;
/// The longest random text.
const LENGTH_MAX: i64 = 100_000;
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";

/// How a column is made.
#[derive(Debug, Clone)]
pub(super) struct Maker {
    data_type: DataType,
    kind: Kind,
    /// Tells the random numbers of columns apart.
    seed: u64,
    /// How many of 2^32 values are NULL.
    nulls: u64,
}

#[derive(Debug, Clone)]
enum Kind {
    /// One number after another.
    Sequence {
        start: i64,
    },
    /// Numbers between two, both included.
    Whole {
        min: i64,
        max: i64,
    },
    Real {
        min: f64,
        max: f64,
    },
    /// Texts of a length.
    Letters(usize),
    /// One of some texts.
    Choice(Vec<String>),
    /// Moments: the first, the time between two rows, and how far one may be behind, in
    /// microseconds.
    Moment {
        start: i64,
        step: f64,
        past: i64,
    },
    Boolean,
    Uuid,
}

/// The options of a column, by what stands behind its name.
pub(super) struct FieldOptions<'a> {
    name: &'a str,
    given: BTreeMap<String, &'a str>,
}

impl<'a> FieldOptions<'a> {
    /// Those of a column among `(column.option, value)`.
    pub(super) fn of(name: &'a str, all: &[(&'a str, &'a str)]) -> Self {
        let own = |(key, value): &(&'a str, &'a str)| {
            let (column, option) = key.rsplit_once('.')?;
            let same = column.trim_matches('"').eq_ignore_ascii_case(name);
            same.then(|| (option.to_ascii_lowercase().replace('_', "-"), *value))
        };
        Self { name, given: all.iter().filter_map(own).collect() }
    }

    fn take(&mut self, option: &str) -> Option<&'a str> {
        self.given.remove(option)
    }

    fn full(&self, option: &str) -> String {
        format!("fields.{}.{option}", self.name)
    }

    fn number<N: std::str::FromStr>(&mut self, option: &str, wanted: &str) -> Result<Option<N>> {
        let Some(text) = self.take(option) else { return Ok(None) };
        let bad = |_| invalid(&self.full(option), text, wanted);
        text.trim().parse().map(Some).map_err(bad)
    }

    fn moment(&mut self, option: &str) -> Result<Option<i64>> {
        let Some(text) = self.take(option) else { return Ok(None) };
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let bad = || invalid(&self.full(option), text, "a timestamp such as '2024-01-01 00:00:00'");
        match parse_value(text, &micros) {
            Ok(datafusion::common::ScalarValue::TimestampMicrosecond(Some(us), _)) => Ok(Some(us)),
            _ => Err(bad()),
        }
    }

    /// Refuses what nobody has asked for.
    fn finish(self) -> Result<()> {
        let Some(option) = self.given.keys().next() else { return Ok(()) };
        Err(Error::user(
            crate::error::sqlstate::INVALID_PARAMETER_VALUE,
            format!(
                "connector \"datagen\" has no option \"{}\" for this column",
                self.full(option)
            ),
        )
        .with_hint(
            "Numbers have kind, min, max, start and end; texts length and values; times start \
             and max-past; all have null-rate and seed.",
        ))
    }
}

/// A column and how many rows there can be of it.
pub(super) fn maker(
    field: &Field,
    mut options: FieldOptions<'_>,
    step_us: f64,
) -> Result<(Maker, Option<u64>)> {
    let kinds = |kind: &str| match kind.to_ascii_lowercase().as_str() {
        "sequence" => Some(true),
        "random" => Some(false),
        _ => None,
    };
    let sequence = match options.take("kind") {
        None => false,
        Some(kind) => kinds(kind)
            .ok_or_else(|| invalid(&options.full("kind"), kind, "one of 'random', 'sequence'"))?,
    };
    let rate = options.number::<f64>("null-rate", "a number from 0 to 1")?.unwrap_or_default();
    if !(0.0..=1.0).contains(&rate) {
        let name = options.full("null-rate");
        return Err(invalid(&name, &rate.to_string(), "a number from 0 to 1"));
    }
    let seed = options.number::<i64>("seed", "an integer")?.unwrap_or_default();
    let (kind, end) = kind(field, &mut options, (sequence, step_us))?;
    options.finish()?;
    let nulls = if field.is_nullable() { (rate * 4_294_967_296.0) as u64 } else { 0 };
    let name = field.name().bytes().fold(0, |hash, byte| mixed(hash ^ u64::from(byte)));
    let seed = mixed(name ^ seed as u64);
    Ok((Maker { data_type: field.data_type().clone(), kind, seed, nulls }, end))
}

fn kind(
    field: &Field,
    options: &mut FieldOptions<'_>,
    (sequence, step): (bool, f64),
) -> Result<(Kind, Option<u64>)> {
    let data_type = field.data_type();
    let is_number = data_type.is_integer() || data_type.is_floating() || data_type.is_decimal();
    if sequence && (is_number || *data_type == DataType::Utf8) {
        let start = options.number("start", "an integer")?.unwrap_or(1_i64);
        let end = options.number::<i64>("end", "an integer")?;
        let rows = end.map(|end| u64::try_from(end.saturating_sub(start) + 1).unwrap_or(0));
        return Ok((Kind::Sequence { start }, rows));
    }
    if let Some(values) = options.take("values") {
        let values = values.split(',').map(|value| value.trim().to_owned()).collect::<Vec<_>>();
        for value in &values {
            parse_value(value, data_type)?;
        }
        return Ok((Kind::Choice(values), None));
    }
    Ok((random(data_type, options, step)?, None))
}

fn random(data_type: &DataType, options: &mut FieldOptions<'_>, step: f64) -> Result<Kind> {
    Ok(match data_type {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            let (least, most) = match data_type {
                DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
                DataType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
                _ => (i64::MIN, i64::MAX),
            };
            let min = options.number("min", "an integer")?.unwrap_or(least);
            let max = options.number("max", "an integer")?.unwrap_or(most);
            ordered(options, min <= max)?;
            Kind::Whole { min, max }
        }
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => {
            let min = options.number("min", "a number")?.unwrap_or(0.0);
            let max = options.number("max", "a number")?.unwrap_or(1_f64.max(min));
            ordered(options, min <= max)?;
            Kind::Real { min, max }
        }
        DataType::Utf8 => {
            let length = options.number("length", "an integer")?.unwrap_or(10);
            if !(0..=LENGTH_MAX).contains(&length) {
                let wanted = format!("a length from 0 to {LENGTH_MAX}");
                return Err(invalid(&options.full("length"), &length.to_string(), &wanted));
            }
            Kind::Letters(length as usize)
        }
        DataType::Timestamp(..) | DataType::Date32 => {
            let start = options.moment("start")?.unwrap_or(START_US);
            let past = match options.take("max-past") {
                None => 0,
                // Flink has a bare number for milliseconds.
                Some(text) => match text.trim().parse::<i64>() {
                    Ok(millis) => millis.saturating_mul(1000),
                    Err(_) => duration(&options.full("max-past"), text)?.as_micros() as i64,
                },
            };
            Kind::Moment { start, step, past: past.max(0) }
        }
        DataType::Boolean => Kind::Boolean,
        DataType::FixedSizeBinary(16) => Kind::Uuid,
        _ => {
            return Err(Error::unsupported(format!(
                "column \"{}\" of type {} from connector \"datagen\" is not supported",
                options.name,
                pg_type_name(data_type)
            ))
            .with_hint("Compute it of other columns: c jsonb AS .."));
        }
    })
}

fn ordered(options: &FieldOptions<'_>, holds: bool) -> Result<()> {
    let name = options.full("max");
    if holds { Ok(()) } else { Err(invalid(&name, "less than min", "at least what min is")) }
}

/// A number whose bits have all bits of another for their reason (the finaliser of splitmix64,
/// Steele et al., OOPSLA 2014).
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

impl Maker {
    fn random(&self, row: u64, of: u64) -> u64 {
        mixed(self.seed ^ mixed(row.wrapping_mul(4).wrapping_add(of)))
    }

    fn is_null(&self, row: u64) -> bool {
        self.nulls > 0 && (self.random(row, 1) >> 32) < self.nulls
    }

    /// From 0 up to a number.
    fn below(&self, row: u64, number: u128) -> u128 {
        (u128::from(self.random(row, 0)) * number) >> 64
    }

    /// From 0 up to 1.
    fn share(&self, row: u64) -> f64 {
        (self.random(row, 0) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn whole(&self, row: u64) -> i64 {
        match &self.kind {
            Kind::Sequence { start } => start.wrapping_add(row as i64),
            Kind::Whole { min, max } => {
                let span = (i128::from(*max) - i128::from(*min) + 1) as u128;
                (i128::from(*min) + self.below(row, span) as i128) as i64
            }
            Kind::Moment { start, step, past } => {
                let late = self.below(row, *past as u128 + 1);
                start.saturating_add((row as f64 * step) as i64).saturating_sub(late as i64)
            }
            _ => 0,
        }
    }

    fn real(&self, row: u64) -> f64 {
        match &self.kind {
            Kind::Real { min, max } => min + self.share(row) * (max - min),
            _ => self.whole(row) as f64,
        }
    }

    fn text(&self, row: u64) -> String {
        match &self.kind {
            Kind::Letters(length) => {
                let mut bits = 0;
                let letter = |place: usize| {
                    if place.is_multiple_of(12) {
                        bits = mixed(self.random(row, 0) ^ place as u64);
                    }
                    let letter = LETTERS[(bits & 31) as usize];
                    bits >>= 5;
                    char::from(letter)
                };
                (0..*length).map(letter).collect()
            }
            Kind::Choice(values) => values[self.choice(row, values.len())].clone(),
            _ => self.whole(row).to_string(),
        }
    }

    fn choice(&self, row: u64, count: usize) -> usize {
        self.below(row, count as u128) as usize
    }

    /// A UUID of version 4 (RFC 9562).
    fn uuid(&self, row: u64) -> [u8; 16] {
        let (high, low) = (self.random(row, 0), self.random(row, 2));
        let bits = (u128::from(high) << 64) | u128::from(low);
        let bits = (bits & !(0xf << 76)) | (4 << 76);
        ((bits & !(3 << 62)) | (2 << 62)).to_be_bytes()
    }

    /// The values of some rows.
    pub(super) fn values(&self, rows: std::ops::Range<u64>) -> Result<ArrayRef> {
        let count = (rows.end - rows.start) as usize;
        let present = |row: u64| (!self.is_null(row)).then_some(row);
        let rows = || rows.clone().map(present);
        if let (Kind::Choice(values), false) = (&self.kind, self.data_type == DataType::Utf8) {
            let parsed = values.iter().map(|value| parse_value(value, &self.data_type));
            let parsed = parsed.collect::<Result<Vec<_>>>()?;
            let null = datafusion::common::ScalarValue::try_from(&self.data_type);
            let null = null.map_err(crate::expr::from_datafusion)?;
            let all = rows().map(|row| match row {
                Some(row) => parsed[self.choice(row, parsed.len())].clone(),
                None => null.clone(),
            });
            return datafusion::common::ScalarValue::iter_to_array(all)
                .map_err(crate::expr::from_datafusion);
        }
        Ok(match &self.data_type {
            DataType::Int16 => {
                let value = |row| i16::try_from(self.whole(row)).ok();
                Arc::new(rows().map(|row| row.and_then(value)).collect::<Int16Array>())
            }
            DataType::Int32 => {
                let value = |row| i32::try_from(self.whole(row)).ok();
                Arc::new(rows().map(|row| row.and_then(value)).collect::<Int32Array>())
            }
            DataType::Int64 => {
                Arc::new(rows().map(|row| row.map(|r| self.whole(r))).collect::<Int64Array>())
            }
            DataType::Float32 => {
                let value = |row| self.real(row) as f32;
                Arc::new(rows().map(|row| row.map(value)).collect::<Float32Array>())
            }
            DataType::Float64 => {
                Arc::new(rows().map(|row| row.map(|r| self.real(r))).collect::<Float64Array>())
            }
            DataType::Decimal128(precision, scale) => {
                let cents = 10_f64.powi(i32::from((*scale).min(2)));
                let rest = 10_i128.pow(u32::from((*scale - (*scale).min(2)).unsigned_abs()));
                let value = |row| (self.real(row) * cents).round() as i128 * rest;
                let array = rows().map(|row| row.map(value)).collect::<Decimal128Array>();
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            DataType::Utf8 => {
                Arc::new(rows().map(|row| row.map(|r| self.text(r))).collect::<StringArray>())
            }
            DataType::Boolean => {
                let value = |row| self.random(row, 0) & 1 == 1;
                Arc::new(rows().map(|row| row.map(value)).collect::<BooleanArray>())
            }
            DataType::Date32 => {
                let value = |row| self.whole(row).div_euclid(DAY_US) as i32;
                Arc::new(rows().map(|row| row.map(value)).collect::<Date32Array>())
            }
            DataType::Timestamp(_, zone) => {
                let moments = rows().map(|row| row.map(|r| self.whole(r)));
                let moments = moments.collect::<TimestampMicrosecondArray>();
                Arc::new(moments.with_timezone_opt(zone.clone()))
            }
            _ => {
                let values = rows().map(|row| row.map(|r| self.uuid(r))).take(count);
                Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, 16)?)
            }
        })
    }
}
