//! Made-up rows as a source of one split.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use super::field::{FieldOptions, Maker, maker};
use crate::connector::options::invalid;
use crate::connector::pace::Pace;
use crate::connector::{
    ConnectorSpec, Options, Position, Positions, Read, Source, SourceBatch, SplitId, SplitReader,
};
use crate::delta::batch_of;
use crate::error::{Error, Result, sqlstate};
use crate::format::project;

const SPLIT: SplitId = 0;
/// Rows a second where nothing else is said.
const RATE: i64 = 10;
/// Between the times of two rows that are made as fast as possible.
const STEP_US: f64 = 1000.0;

pub(super) fn create(spec: &ConnectorSpec) -> Result<Arc<dyn Source>> {
    let mut options = Options::new(spec);
    let rate = options.integer("rows-per-second")?;
    let rate = match options.integer("datagen.rows.per.second")? {
        None => rate.unwrap_or(RATE),
        Some(also) => rate.unwrap_or(also),
    };
    if !(0..=1_000_000_000).contains(&rate) {
        return Err(invalid("rows-per-second", &rate.to_string(), "from 0 to 1000000000"));
    }
    // One is all that there is.
    let _splits = options.integer("datagen.split.num")?;
    let mut end = match options.integer("number-of-rows")? {
        None => None,
        Some(rows) => Some(
            u64::try_from(rows)
                .map_err(|_| invalid("number-of-rows", &rows.to_string(), "zero or more"))?,
        ),
    };
    let fields = options.with_prefix("fields.");
    options.finish()?;
    let known = |key: &str| {
        let column = key.rsplit_once('.').map_or(key, |(column, _)| column.trim_matches('"'));
        spec.schema.fields().iter().any(|f| f.name().eq_ignore_ascii_case(column))
    };
    if let Some((key, _)) = fields.iter().find(|(key, _)| !known(key)) {
        let message = format!("option \"fields.{key}\" is of no column");
        return Err(Error::user(sqlstate::UNDEFINED_COLUMN, message));
    }
    let step = if rate == 0 { STEP_US } else { 1_000_000.0 / rate as f64 };
    let mut columns = Vec::new();
    for field in spec.schema.fields() {
        let (column, rows) = maker(field, FieldOptions::of(field.name(), &fields), step)?;
        end = [end, rows].into_iter().flatten().min();
        columns.push(column);
    }
    let gap = (rate > 0).then(|| Duration::from_nanos(1_000_000_000 / rate as u64));
    Ok(Arc::new(Datagen { columns, end, gap, schema: spec.schema.clone() }))
}

struct Datagen {
    columns: Vec<Maker>,
    /// The number of rows, when there is an end.
    end: Option<u64>,
    /// Real time between two rows.
    gap: Option<Duration>,
    schema: SchemaRef,
}

impl Source for Datagen {
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
        let bound = until.and_then(|until| until.get(&SPLIT)).map(|bound| (*bound).max(0) as u64);
        // Earlier rows, read again for a new view, are not held back.
        let gap = if bound.is_some() { None } else { self.gap };
        Ok(Box::new(Reader {
            columns: columns.iter().map(|column| self.columns[*column].clone()).collect(),
            schema: project(&self.schema, columns)?,
            position: from,
            end: [bound, self.end].into_iter().flatten().min(),
            pace: gap.map(|gap| Pace::new(gap, from)),
        }))
    }

    fn is_bounded(&self) -> bool {
        self.end.is_some()
    }
}

struct Reader {
    columns: Vec<Maker>,
    schema: SchemaRef,
    /// The number of the next row.
    position: u64,
    end: Option<u64>,
    pace: Option<Pace>,
}

impl SplitReader for Reader {
    fn read(&mut self, max_rows: usize, timeout: Duration) -> Result<Read> {
        let end = self.end.unwrap_or(u64::MAX);
        if self.position >= end {
            return Ok(Read::End);
        }
        if let Some(pace) = &self.pace {
            std::thread::sleep(pace.until(self.position + 1).min(timeout));
        }
        let due = self.pace.as_ref().map_or(end, |pace| pace.due().min(end));
        let next = due.min(self.position.saturating_add(max_rows as u64));
        if next <= self.position {
            return Ok(Read::Idle);
        }
        let made = self.columns.iter().map(|column| column.values(self.position..next));
        let made = made.collect::<Result<Vec<_>>>()?;
        let rows = batch_of(self.schema.clone(), made, (next - self.position) as usize)?;
        self.position = next;
        Ok(Read::Batch(SourceBatch {
            split: SPLIT,
            rows,
            deletes: None,
            rejected: Vec::new(),
            next: next as Position,
            lag: Some(due.saturating_sub(next)).filter(|_| due != u64::MAX),
        }))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};

    use super::*;
    use crate::format::FormatSpec;

    fn spec(options: &[(&str, &str)], columns: &[&str]) -> ConnectorSpec {
        let field = |name: &&str| Field::new(*name, DataType::Int32, true);
        ConnectorSpec {
            relation: "t".into(),
            connector: "datagen".into(),
            options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            schema: Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>())),
            key: Vec::new(),
            format: FormatSpec::plain_json(),
            include: Vec::new(),
        }
    }

    fn numbers(source: &dyn Source, from: Position, column: usize, rows: usize) -> Vec<i32> {
        let from = Positions::from([(SPLIT, from)]);
        let mut reader = source.reader(&from, None, &[column]).expect("opens");
        let mut numbers = Vec::new();
        loop {
            match reader.read(rows, Duration::from_millis(1)).expect("reads") {
                Read::Batch(batch) => {
                    numbers.extend(batch.rows.column(0).as_primitive::<Int32Type>().values());
                }
                Read::Idle => {}
                Read::End => return numbers,
                Read::Unavailable(why) => panic!("{why}"),
            }
        }
    }

    #[test]
    fn rows_are_the_same_whatever_the_cuts() {
        let options = [
            ("rows-per-second", "0"),
            ("fields.a.kind", "sequence"),
            ("fields.a.start", "5"),
            ("fields.a.end", "104"),
            ("fields.b.min", "-3"),
            ("fields.b.max", "3"),
        ];
        let source = create(&spec(&options, &["a", "b"])).expect("valid");
        assert!(source.is_bounded());
        assert_eq!(numbers(source.as_ref(), 0, 0, 7), (5..=104).collect::<Vec<_>>());
        let all = numbers(source.as_ref(), 0, 1, 8192);
        assert_eq!(numbers(source.as_ref(), 40, 1, 3), all[40..]);
        assert_eq!(
            (-3..=3).map(|n| all.contains(&n)).collect::<Vec<_>>(),
            vec![true; 7],
            "{all:?}"
        );
        assert!(all.iter().all(|n| (-3..=3).contains(n)));
    }

    #[test]
    fn a_rate_holds_rows_back() {
        let options = [("rows-per-second", "1000"), ("number-of-rows", "100")];
        let source = create(&spec(&options, &["a"])).expect("valid");
        let begun = std::time::Instant::now();
        assert_eq!(numbers(source.as_ref(), 0, 0, 8192).len(), 100);
        assert!(begun.elapsed() >= Duration::from_millis(98), "{:?}", begun.elapsed());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (options, message) in [
            (("fields.z.kind", "random"), "option \"fields.z.kind\" is of no column"),
            (("fields.a.kind", "odd"), "invalid value for option \"fields.a.kind\": \"odd\""),
            (("fields.a.lenght", "5"), "no option \"fields.a.lenght\" for this column"),
            (("fields.a.values", "1,x"), "invalid input syntax for type integer: \"x\""),
            (("rows", "5"), "connector \"datagen\" has no option \"rows\""),
        ] {
            let error = create(&spec(&[options], &["a"])).err().expect("wrong");
            assert!(error.message().contains(message), "{}", error.message());
        }
    }
}
