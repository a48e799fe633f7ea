//! The `memory` connector: a bounded source over batches that the program has put aside under a
//! name with [`provide`]. For benchmarks and tests that leave a format and the disk out, and for
//! programs that have Arrow data.
//!
//! | option | meaning |
//! |---|---|
//! | `table` | the name that the batches were provided under |
//!
//! Columns are found by name, in any case, and must have the type of the batches' column. One
//! split; its position is a row number. Batches are handed out in slices, nothing is copied. A
//! source keeps the batches that were there at its CREATE.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::{
    ConnectorSpec, Options, Position, Positions, Read, Source, SourceBatch, SourceConnector,
    SplitId, SplitReader,
};
use crate::error::{Error, Result, sqlstate};

/// The entry in the registry of sources.
pub const SOURCE: SourceConnector =
    SourceConnector { name: "memory", create, metadata: false, replays: true };

const SPLIT: SplitId = 0;

/// What was provided, by name.
static TABLES: Mutex<BTreeMap<String, Arc<[RecordBatch]>>> = Mutex::new(BTreeMap::new());

/// Puts batches aside for sources with `table = '<name>'` that are created from now on, in place
/// of earlier ones of that name. They stay until they are replaced; an empty list removes them.
pub fn provide(name: &str, batches: Vec<RecordBatch>) {
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    if batches.is_empty() {
        tables.remove(name);
    } else {
        tables.insert(name.to_owned(), batches.into());
    }
}

fn create(spec: &ConnectorSpec) -> Result<Arc<dyn Source>> {
    let mut options = Options::new(spec);
    let name = options.required("table")?;
    options.finish()?;
    let tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    let all = tables.get(name).ok_or_else(|| {
        Error::user(
            sqlstate::UNDEFINED_TABLE,
            format!("no batches were provided in memory as \"{name}\""),
        )
    })?;
    let batches = all.iter().map(|batch| conform(batch, &spec.schema)).collect::<Result<_>>()?;
    Ok(Arc::new(Memory { batches }))
}

/// The columns of `schema`, taken from a batch by name.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let found = batch.schema();
    let column = |name: &str| {
        let at = found.fields().iter().position(|f| f.name().eq_ignore_ascii_case(name));
        at.map(|at| batch.column(at).clone()).ok_or_else(|| {
            Error::user(
                sqlstate::UNDEFINED_COLUMN,
                format!("the batches in memory have no column \"{name}\""),
            )
        })
    };
    let columns = schema.fields().iter().map(|f| column(f.name())).collect::<Result<_>>()?;
    RecordBatch::try_new(schema.clone(), columns).map_err(|e| {
        Error::user(
            sqlstate::DATATYPE_MISMATCH,
            format!("the batches in memory do not have the declared types: {e}"),
        )
    })
}

struct Memory {
    /// With the columns of the relation.
    batches: Arc<[RecordBatch]>,
}

impl Source for Memory {
    fn start(&self) -> Result<Positions> {
        Ok(Positions::from([(SPLIT, 0)]))
    }

    fn reader(
        &self,
        from: &Positions,
        until: Option<&Positions>,
        columns: &[usize],
    ) -> Result<Box<dyn SplitReader>> {
        let rows: usize = self.batches.iter().map(RecordBatch::num_rows).sum();
        let bound = until.and_then(|until| until.get(&SPLIT)).copied();
        let end = bound.map_or(rows, |bound| rows.min(bound.max(0) as usize));
        let position = from.get(&SPLIT).copied().unwrap_or(0).max(0) as usize;
        let (mut batch, mut row) = (0, position);
        while let Some(passed) = self.batches.get(batch).filter(|b| b.num_rows() <= row) {
            row -= passed.num_rows();
            batch += 1;
        }
        let columns = columns.to_vec();
        Ok(Box::new(Reader { batches: self.batches.clone(), columns, batch, row, position, end }))
    }

    fn is_bounded(&self) -> bool {
        true
    }
}

struct Reader {
    batches: Arc<[RecordBatch]>,
    columns: Vec<usize>,
    /// The batch that comes next, and its first row that was not read.
    batch: usize,
    row: usize,
    /// That row's number among all.
    position: usize,
    end: usize,
}

impl SplitReader for Reader {
    fn read(&mut self, max_rows: usize, _timeout: Duration) -> Result<Read> {
        let Some(batch) = self.batches.get(self.batch).filter(|_| self.position < self.end) else {
            return Ok(Read::End);
        };
        let left = self.end - self.position;
        let count = max_rows.max(1).min(left).min(batch.num_rows() - self.row);
        let rows = batch.project(&self.columns)?.slice(self.row, count);
        self.position += count;
        self.row += count;
        while let Some(passed) = self.batches.get(self.batch).filter(|b| b.num_rows() <= self.row) {
            self.row -= passed.num_rows();
            self.batch += 1;
        }
        Ok(Read::Batch(SourceBatch {
            split: SPLIT,
            rows,
            deletes: None,
            rejected: Vec::new(),
            next: self.position as Position,
            lag: Some((self.end - self.position) as u64),
        }))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;
    use crate::format::FormatSpec;

    fn spec(table: &str, fields: Vec<Field>) -> ConnectorSpec {
        ConnectorSpec {
            relation: "t".into(),
            connector: "memory".into(),
            options: BTreeMap::from([("table".to_owned(), table.to_owned())]),
            schema: Arc::new(Schema::new(fields)),
            key: Vec::new(),
            format: FormatSpec::plain_json(),
            include: Vec::new(),
        }
    }

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let text: StringArray = values.clone().map(|v| Some(v.to_string())).collect();
        let number: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_from_iter([("Text", Arc::new(text) as ArrayRef), ("Number", number)])
            .expect("equal lengths")
    }

    fn read(source: &dyn Source, from: i64, until: Option<i64>, rows: usize) -> Vec<i64> {
        let until = until.map(|until| Positions::from([(SPLIT, until)]));
        let from_positions = Positions::from([(SPLIT, from)]);
        let mut reader = source.reader(&from_positions, until.as_ref(), &[0]).expect("opens");
        let (mut values, mut next) = (Vec::new(), from);
        loop {
            match reader.read(rows, Duration::ZERO).expect("reads") {
                Read::Batch(batch) => {
                    assert!(batch.rows.num_rows() <= rows && batch.rows.num_columns() == 1);
                    next += batch.rows.num_rows() as i64;
                    assert_eq!(batch.next, next);
                    let column = batch.rows.column(0).as_primitive::<Int64Type>();
                    values.extend_from_slice(column.values());
                }
                Read::End => return values,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn any_part_is_read_whatever_the_cuts() {
        provide("cuts", vec![batch(0..5), batch(5..5), batch(5..12)]);
        let fields = vec![
            Field::new("number", DataType::Int64, true),
            Field::new("text", DataType::Utf8, true),
        ];
        let source = create(&spec("cuts", fields)).expect("provided");
        for rows in [1, 3, 5, 100] {
            for from in 0..=12 {
                let all: Vec<i64> = (from..12).collect();
                assert_eq!(read(source.as_ref(), from, None, rows), all);
                for until in from..=13 {
                    let part: Vec<i64> = (from..until.min(12)).collect();
                    assert_eq!(read(source.as_ref(), from, Some(until), rows), part);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        provide("fit", vec![batch(0..2)]);
        let code = |table: &str, name: &str, data_type| {
            let error = create(&spec(table, vec![Field::new(name, data_type, true)])).err();
            error.map(|e| e.sqlstate())
        };
        assert_eq!(code("fit", "number", DataType::Int64), None);
        assert_eq!(code("gone", "number", DataType::Int64), Some(sqlstate::UNDEFINED_TABLE));
        assert_eq!(code("fit", "other", DataType::Int64), Some(sqlstate::UNDEFINED_COLUMN));
        assert_eq!(code("fit", "number", DataType::Utf8), Some(sqlstate::DATATYPE_MISMATCH));
        provide("fit", Vec::new());
        assert_eq!(code("fit", "number", DataType::Int64), Some(sqlstate::UNDEFINED_TABLE));
    }
}
