//! The `datagen` connector of Flink and RisingWave: rows that are made up, to try queries on.
//!
//! | option | meaning |
//! |---|---|
//! | `rows-per-second` (or `datagen.rows.per.second`) | how many; 10 by default |
//! | `number-of-rows` | how many there are until the end; no end by default |
//! | `fields.c.kind` | `random` (default), or `sequence`: integers from `start` on, to `end` |
//! | `fields.c.start`, `.end` | of a sequence, whose end is that of the source; 1 and none |
//! | `fields.c.min`, `.max` | of random numbers: for integers all of the type, else 0 and 1 |
//! | `fields.c.length` | of random texts, 10 by default |
//! | `fields.c.max-past` | how far a time may lie behind the others; nothing by default |
//! | `fields.c.seed` | another choice of random values |
//!
//! A time is that of its row by the rate, from `start` on (2024-01-01 00:00:00 by default). What a
//! row has depends on its number alone, so a view that comes later reads the same rows. One split;
//! its position is the number of a row.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;

use super::options::invalid;
use super::pace::Pace;
use super::{
    ConnectorSpec, Options, Position, Positions, Read, Source, SourceBatch, SourceConnector,
    SplitId, SplitReader,
};
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};
use crate::expr::parse_value;
use crate::format::project;

/// The entry in the registry of sources.
pub const SOURCE: SourceConnector =
    SourceConnector { name: "datagen", create, metadata: false, replays: true };

const SPLIT: SplitId = 0;

/// 2024-01-01 00:00:00 in microseconds.
const FIRST_US: i64 = 1_704_067_200_000_000;

/// What the values of a column are.
#[derive(Debug, Clone)]
enum Values {
    /// Integers one after the other.
    Sequence(i64),
    Integers(i64, i64),
    Floats(f64, f64),
    /// Numerics, without their point.
    Decimals(i128, i128),
    Texts(usize),
    Booleans,
    /// The time of the row, and how far behind it may be.
    Times {
        first_us: i64,
        past_us: i64,
    },
}

fn create(spec: &ConnectorSpec) -> Result<Arc<dyn Source>> {
    let mut options = Options::new(spec);
    let rate = match options.integer("rows-per-second")? {
        Some(rate) => Some(rate),
        None => options.integer("datagen.rows.per.second")?,
    };
    let rate = rate.unwrap_or(10);
    let gap = match u64::try_from(rate).ok().and_then(|rate| 1_000_000_000_u64.checked_div(rate)) {
        Some(nanos) => Duration::from_nanos(nanos),
        None => return Err(invalid("rows-per-second", &rate.to_string(), "more than zero")),
    };
    let mut end = options.integer("number-of-rows")?;
    let mut fields = BTreeMap::<String, BTreeMap<String, String>>::new();
    for (name, value) in options.with_prefix("fields.") {
        let (field, what) = name.rsplit_once('.').unwrap_or((name, ""));
        let known = spec.schema.fields().iter().any(|f| f.name().eq_ignore_ascii_case(field));
        if !known {
            let message = format!("option \"fields.{name}\" is of no column");
            return Err(Error::user(sqlstate::UNDEFINED_COLUMN, message));
        }
        fields.entry(field.to_lowercase()).or_default().insert(what.into(), value.into());
    }
    options.finish()?;
    let mut columns = Vec::new();
    for (place, field) in spec.schema.fields().iter().enumerate() {
        let given = fields.remove(&field.name().to_lowercase()).unwrap_or_default();
        let mut options = Options::of("datagen", &given);
        let seed = options.integer("seed")?.unwrap_or_default() as u64;
        let (values, rows) = values(field, &mut options)?;
        options.finish()?;
        end = [end, rows].into_iter().flatten().min();
        columns.push((values, hash(seed.wrapping_add((place as u64) << 32))));
    }
    Ok(Arc::new(DataGen { schema: spec.schema.clone(), columns, gap, end }))
}

/// The values of a column, and how many rows there are by it.
fn values(field: &Field, options: &mut Options<'_>) -> Result<(Values, Option<i64>)> {
    let data_type = field.data_type();
    let kinds = [("random", false), ("sequence", true)];
    let sequence = options.one_of("kind", &kinds)?.unwrap_or(false);
    if sequence && (data_type.is_numeric() || *data_type == DataType::Utf8) {
        let start = options.integer("start")?.unwrap_or(1);
        let rows = options.integer("end")?.map(|end| end.saturating_sub(start).saturating_add(1));
        return Ok((Values::Sequence(start), rows.map(|rows| rows.max(0))));
    }
    let mut bound = |name: &'static str, default: &str| {
        parse_value(options.string(name).unwrap_or(default), data_type)
    };
    let values = match data_type {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            let (min, max) = match data_type {
                DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
                DataType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
                _ => (i64::MIN, i64::MAX),
            };
            let low = bound("min", &min.to_string())?;
            let high = bound("max", &max.to_string())?;
            let integer = |v: &ScalarValue| match v.cast_to(&DataType::Int64) {
                Ok(ScalarValue::Int64(Some(v))) => v,
                _ => 0,
            };
            Values::Integers(integer(&low), integer(&high))
        }
        DataType::Float32 | DataType::Float64 => {
            let (low, high) = (bound("min", "0")?, bound("max", "1")?);
            let float = |v: &ScalarValue| match v.cast_to(&DataType::Float64) {
                Ok(ScalarValue::Float64(Some(v))) => v,
                _ => 0.0,
            };
            Values::Floats(float(&low), float(&high))
        }
        DataType::Decimal128(..) => {
            let (low, high) = (bound("min", "0")?, bound("max", "1")?);
            let digits = |v: &ScalarValue| match v {
                ScalarValue::Decimal128(Some(v), ..) => *v,
                _ => 0,
            };
            Values::Decimals(digits(&low), digits(&high))
        }
        DataType::Utf8 => {
            let length = options.integer("length")?.unwrap_or(10);
            let fits = usize::try_from(length).ok().filter(|n| *n <= 1_000_000);
            let wrong = || invalid("length", &length.to_string(), "from 0 to 1000000");
            Values::Texts(fits.ok_or_else(wrong)?)
        }
        DataType::Boolean => Values::Booleans,
        DataType::Timestamp(TimeUnit::Microsecond, _) => times(data_type, options)?,
        _ => return Err(unsupported(field)),
    };
    Ok((values, None))
}

fn times(data_type: &DataType, options: &mut Options<'_>) -> Result<Values> {
    let first_us = match options.string("start") {
        None => FIRST_US,
        Some(text) => match parse_value(text, data_type)? {
            ScalarValue::TimestampMicrosecond(Some(us), _) => us,
            _ => FIRST_US,
        },
    };
    let past = match options.duration("max-past")? {
        Some(past) => Some(past),
        None => options.duration("max_past")?,
    };
    let past_us = past.map_or(0, |past| i64::try_from(past.as_micros()).unwrap_or(0));
    Ok(Values::Times { first_us, past_us })
}

fn unsupported(field: &Field) -> Error {
    Error::unsupported(format!(
        "column \"{}\" of type {} from connector \"datagen\" is not supported",
        field.name(),
        pg_type_name(field.data_type())
    ))
    .with_hint("Types are boolean, integers, numbers, text and timestamps.")
}

struct DataGen {
    schema: SchemaRef,
    /// Values and seeds.
    columns: Vec<(Values, u64)>,
    /// Between two rows.
    gap: Duration,
    end: Option<Position>,
}

impl Source for DataGen {
    fn start(&self) -> Result<Positions> {
        Ok(Positions::from([(SPLIT, 0)]))
    }

    fn reader(
        &self,
        from: &Positions,
        until: Option<&Positions>,
        columns: &[usize],
    ) -> Result<Box<dyn SplitReader>> {
        let from = from.get(&SPLIT).copied().unwrap_or(0).max(0) as u64;
        let bound = until.and_then(|until| until.get(&SPLIT)).copied();
        let end = [bound, self.end].into_iter().flatten().min();
        Ok(Box::new(Reader {
            schema: project(&self.schema, columns)?,
            columns: columns.iter().map(|c| self.columns[*c].clone()).collect(),
            gap: self.gap,
            position: from,
            end: end.map_or(u64::MAX, |end| end.max(0) as u64),
            // An earlier part, read again for a new view, is not held back.
            pace: bound.is_none().then(|| Pace::new(self.gap, from)),
        }))
    }

    fn is_bounded(&self) -> bool {
        self.end.is_some()
    }
}

struct Reader {
    schema: SchemaRef,
    columns: Vec<(Values, u64)>,
    gap: Duration,
    /// The next row.
    position: u64,
    end: u64,
    pace: Option<Pace>,
}

impl SplitReader for Reader {
    fn read(&mut self, max_rows: usize, timeout: Duration) -> Result<Read> {
        if self.position >= self.end {
            return Ok(Read::End);
        }
        if let Some(pace) = &self.pace {
            std::thread::sleep(pace.until(self.position + 1).min(timeout));
        }
        let due = self.pace.as_ref().map_or(self.end, |pace| pace.due().min(self.end));
        let next = due.min(self.position + max_rows as u64);
        if next <= self.position {
            return Ok(Read::Idle);
        }
        let rows = self.position..next;
        let options = RecordBatchOptions::new().with_row_count(Some((next - rows.start) as usize));
        let arrays = self.columns.iter().zip(self.schema.fields());
        let arrays = arrays.map(|((values, seed), field)| {
            values.array(rows.clone(), *seed, (self.gap, field.data_type()))
        });
        let arrays = arrays.collect::<Result<_>>()?;
        self.position = next;
        Ok(Read::Batch(SourceBatch {
            split: SPLIT,
            rows: RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?,
            deletes: None,
            rejected: Vec::new(),
            next: next as Position,
            lag: Some(due.saturating_sub(next)).filter(|_| self.end != u64::MAX),
        }))
    }
}

impl Values {
    /// The values of some rows.
    fn array(
        &self,
        rows: std::ops::Range<u64>,
        seed: u64,
        (gap, data_type): (Duration, &DataType),
    ) -> Result<ArrayRef> {
        let random = |row: u64| hash(seed ^ row);
        // From 0 to 1.
        let part = |row: u64| (random(row) >> 11) as f64 / (1_u64 << 53) as f64;
        let array: ArrayRef = match *self {
            Self::Sequence(start) => {
                Arc::new(rows.map(|r| Some(start.wrapping_add(r as i64))).collect::<Int64Array>())
            }
            Self::Integers(low, high) => {
                let value = |row| within(random(row), i128::from(low), i128::from(high)) as i64;
                Arc::new(rows.map(|r| Some(value(r))).collect::<Int64Array>())
            }
            Self::Floats(low, high) => {
                let value = |row| low + part(row) * (high - low);
                Arc::new(rows.map(|r| Some(value(r))).collect::<Float64Array>())
            }
            Self::Decimals(low, high) => {
                let values = rows.map(|r| Some(within(random(r), low, high)));
                let values = values.collect::<Decimal128Array>();
                Arc::new(values.with_data_type(data_type.clone()))
            }
            Self::Texts(length) => {
                Arc::new(rows.map(|r| Some(text(random(r), length))).collect::<StringArray>())
            }
            Self::Booleans => {
                Arc::new(rows.map(|r| Some(random(r) & 1 == 1)).collect::<BooleanArray>())
            }
            Self::Times { first_us, past_us } => {
                let time = |row: u64| {
                    let since = gap.as_nanos() * u128::from(row) / 1_000;
                    let past = within(random(row), 0, i128::from(past_us)) as i64;
                    let since = i64::try_from(since).unwrap_or(i64::MAX);
                    first_us.saturating_add(since).saturating_sub(past)
                };
                let times = rows.map(|r| Some(time(r))).collect::<TimestampMicrosecondArray>();
                let DataType::Timestamp(_, zone) = data_type else {
                    return Err(Error::internal("a time of another type"));
                };
                Arc::new(times.with_timezone_opt(zone.clone()))
            }
        };
        match array.data_type() == data_type {
            true => Ok(array),
            false => Ok(cast(&array, data_type)?),
        }
    }
}

/// A number from `low` to `high`.
fn within(random: u64, low: i128, high: i128) -> i128 {
    let span = high.saturating_sub(low).saturating_add(1).max(1);
    low + i128::from(random) % span
}

fn text(mut random: u64, length: usize) -> String {
    let mut text = String::with_capacity(length + 16);
    while text.len() < length {
        text.push_str(&format!("{random:016x}"));
        random = hash(random);
    }
    text.truncate(length);
    text
}

/// A number that has nothing to do with another one (splitmix64).
fn hash(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use arrow::compute::concat_batches;
    use arrow::datatypes::Schema;

    use super::*;
    use crate::format::FormatSpec;

    fn source(options: &[(&str, &str)]) -> Result<Arc<dyn Source>> {
        let field = |name, data_type| Field::new(name, data_type, true);
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let fields = vec![
            field("id", DataType::Int64),
            field("price", DataType::Decimal128(10, 2)),
            field("name", DataType::Utf8),
            field("ts", time),
        ];
        create(&ConnectorSpec {
            relation: "t".into(),
            connector: "datagen".into(),
            options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            schema: Arc::new(Schema::new(fields)),
            key: Vec::new(),
            format: FormatSpec::plain_json(),
            include: Vec::new(),
        })
    }

    fn rows(
        source: &dyn Source,
        from: Position,
        until: Option<Position>,
        max: usize,
    ) -> RecordBatch {
        let until = until.map(|until| Positions::from([(SPLIT, until)]));
        let from = Positions::from([(SPLIT, from)]);
        let mut reader = source.reader(&from, until.as_ref(), &[0, 1, 2, 3]).expect("opens");
        let mut all = Vec::new();
        loop {
            match reader.read(max, Duration::from_millis(1)).expect("reads") {
                Read::Batch(batch) => all.push(batch.rows),
                Read::Idle => {}
                Read::End => break,
                Read::Unavailable(why) => panic!("{why}"),
            }
        }
        concat_batches(&all[0].schema(), &all).expect("one schema")
    }

    #[test]
    fn rows_depend_on_their_number_alone() {
        let options = [
            ("rows-per-second", "100000"),
            ("fields.id.kind", "sequence"),
            ("fields.id.end", "500"),
            ("fields.price.max", "9.99"),
            ("fields.ts.max-past", "5 s"),
        ];
        let source = source(&options).expect("valid");
        assert!(source.is_bounded());
        let all = rows(source.as_ref(), 0, None, 8192);
        assert_eq!(all.num_rows(), 500);
        assert_eq!(rows(source.as_ref(), 0, None, 7), all);
        assert_eq!(rows(source.as_ref(), 100, Some(250), 60), all.slice(100, 150));
    }

    #[test]
    fn what_is_given_wrongly_is_refused() {
        for (options, message) in [
            (("fields.nope.kind", "random"), "option \"fields.nope.kind\" is of no column"),
            (("fields.id.foo", "1"), "connector \"datagen\" has no option \"foo\""),
            (("fields.id.min", "x"), "invalid input syntax for type bigint: \"x\""),
            (("rows-per-second", "0"), "invalid value for option \"rows-per-second\": \"0\""),
        ] {
            let error = source(&[options]).err().expect(message);
            assert_eq!(error.message(), message);
        }
    }
}
