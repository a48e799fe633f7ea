//! CSV records to rows. A record that is not good leaves no trace.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::Dialect;
use super::record::{Field, Fields, check_text};
use crate::delta::batch_of;
use crate::error::{Error, Result, sqlstate};
use crate::format::json::column::Column;
use crate::format::json::fault::cut;
use crate::format::{DecodeError, Decoder, project};

/// Decodes records into rows of one schema.
pub(super) struct CsvDecoder {
    /// All columns that a record can have; those that are wanted are `columns`.
    all: SchemaRef,
    schema: SchemaRef,
    columns: Vec<Column>,
    /// For each field of a record the column that wants it.
    targets: Vec<Option<usize>>,
    /// The names of the fields, for messages.
    names: Vec<String>,
    dialect: Dialect,
    rows: usize,
}

impl CsvDecoder {
    pub(super) fn new(all: &SchemaRef, wanted: &[usize], dialect: Dialect) -> Result<Self> {
        let schema = project(all, wanted)?;
        let columns = schema.fields().iter().map(|f| Column::new(f)).collect::<Result<_>>()?;
        let place = |column: usize| wanted.iter().position(|w| *w == column);
        let targets = (0..all.fields().len()).map(place).collect();
        let names = all.fields().iter().map(|f| f.name().clone()).collect();
        Ok(Self { all: all.clone(), schema, columns, targets, names, dialect, rows: 0 })
    }

    fn read(&mut self, record: &[u8]) -> Result<(), DecodeError> {
        check_text(record)?;
        let mut fields = Fields::new(record, self.dialect.delimiter);
        for (at, target) in self.targets.iter().enumerate() {
            let field = match fields.next() {
                Some(field) => field.map_err(|malformed| error(malformed.reason()))?,
                None => {
                    let name = self.names.get(at).map(String::as_str).unwrap_or_default();
                    return Err(error(&format!("missing data for column \"{name}\"")));
                }
            };
            if let Some(column) = target.and_then(|target| self.columns.get_mut(target)) {
                put(column, &field, &self.dialect)?;
            }
        }
        match fields.next() {
            None => self.complete(),
            Some(Err(malformed)) => Err(error(malformed.reason())),
            Some(Ok(_)) => Err(error("extra data after last expected column")),
        }
    }

    fn complete(&self) -> Result<(), DecodeError> {
        let missing = self.columns.iter().find(|c| !c.nullable && c.last_is_null());
        missing.map_or(Ok(()), |column| {
            let name = &column.name;
            let reason = format!("null value in column \"{name}\" violates not-null constraint");
            Err(DecodeError { column: Some(name.clone()), reason })
        })
    }
}

fn put(column: &mut Column, field: &Field<'_>, dialect: &Dialect) -> Result<(), DecodeError> {
    let text = match field {
        Field::Bare(text) if *text == dialect.null => {
            column.push_null();
            return Ok(());
        }
        Field::Bare(text) => *text,
        Field::Quoted(text) => text.as_ref(),
    };
    column.push_text(text).map_err(|invalid| DecodeError {
        column: Some(column.name.clone()),
        reason: column.reason(invalid, &cut(text)),
    })
}

fn error(reason: &str) -> DecodeError {
    DecodeError { column: None, reason: reason.into() }
}

impl Decoder for CsvDecoder {
    fn decode(&mut self, payload: &[u8]) -> Result<(), DecodeError> {
        let result = self.read(payload);
        match result {
            Ok(()) => self.rows += 1,
            Err(_) => self.columns.iter_mut().for_each(|column| column.truncate(self.rows)),
        }
        result
    }

    fn decode_keyed(
        &mut self,
        _columns: &[usize],
        _key: Option<&[u8]>,
        _payload: Option<&[u8]>,
    ) -> Result<(), DecodeError> {
        Err(error("CSV records have no key"))
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        let arrays = self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>>>()?;
        batch_of(self.schema.clone(), arrays, std::mem::take(&mut self.rows))
    }

    /// Every column must be named: a wrong delimiter would make all of them NULL.
    fn header(&mut self, record: &[u8]) -> Result<()> {
        let record = record.strip_prefix(b"\xef\xbb\xbf").unwrap_or(record);
        let mut names = Vec::new();
        for field in Fields::new(record, self.dialect.delimiter) {
            let field = field.map_err(|malformed| bad_header(malformed.reason().into()))?;
            let name = match &field {
                Field::Bare(text) => text.trim_ascii(),
                Field::Quoted(text) => text.as_ref(),
            };
            names.push(String::from_utf8_lossy(name).into_owned());
        }
        let place = |column: &str| {
            let exact = names.iter().position(|name| name == column);
            exact.or_else(|| names.iter().position(|name| name.eq_ignore_ascii_case(column)))
        };
        let mut targets = vec![None; names.len()];
        for field in self.all.fields() {
            let at = place(field.name()).ok_or_else(|| {
                let name = field.name();
                bad_header(format!("column \"{name}\" is not in the header of the CSV data"))
                    .with_detail(format!("The header has: {}.", names.join(", ")))
            })?;
            let wanted = self.columns.iter().position(|column| &column.name == field.name());
            if let (Some(slot), Some(_)) = (targets.get_mut(at), wanted) {
                *slot = wanted;
            }
        }
        self.targets = targets;
        self.names = names;
        Ok(())
    }
}

fn bad_header(message: String) -> Error {
    Error::user(sqlstate::UNDEFINED_COLUMN, message).with_hint(
        "Name the columns as the header does, or add ENCODE CSV (without_header = true), or the \
         right delimiter.",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field as ArrowField, Schema};

    use super::super::FORMAT;
    use crate::delta::text::display_value;
    use crate::format::{Decoder, FormatOptions};

    fn decoder(wanted: &[usize], options: &[(&str, &str)]) -> Box<dyn Decoder> {
        let schema = Arc::new(Schema::new(vec![
            ArrowField::new("a", DataType::Int64, false),
            ArrowField::new("t", DataType::Utf8, true),
            ArrowField::new("n", DataType::Decimal128(10, 2), true),
        ]));
        let options: FormatOptions =
            options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        (FORMAT.decoder)(&schema, wanted, &options).expect("good options")
    }

    fn rows(decoder: &mut dyn Decoder) -> Vec<String> {
        let batch = decoder.finish().expect("rows");
        let row = |row| {
            let values = batch.columns().iter();
            let values = values.map(|c| display_value(c, row).unwrap_or_else(|| "NULL".into()));
            values.collect::<Vec<_>>().join("|")
        };
        (0..batch.num_rows()).map(row).collect()
    }

    #[test]
    fn good_and_bad_records() {
        let mut csv = decoder(&[0, 1, 2], &[]);
        let mut reason = |record: &str| csv.decode(record.as_bytes()).err().map(|e| e.reason);
        assert_eq!(reason("1,one,1.5"), None);
        assert_eq!(reason(" 2 ,\"\",\n"), None);
        assert_eq!(reason("3,, 2.345 \r\n"), None);
        let is = |found: Option<String>, wanted: &str| assert_eq!(found.as_deref(), Some(wanted));
        is(reason("x,y,1"), "invalid input syntax for type bigint: \"x\"");
        is(reason("1,y"), "missing data for column \"n\"");
        is(reason("1,y,2,3"), "extra data after last expected column");
        is(reason("1,\"y,2"), "unterminated CSV quoted field");
        is(reason(",y,2"), "null value in column \"a\" violates not-null constraint");
        is(reason("1,y,\"\""), "invalid input syntax for type numeric: \"\"");
        assert!(csv.decode(b"1,\xff,2").is_err());
        assert_eq!(rows(csv.as_mut()), ["1|one|1.50", "2||NULL", "3|NULL|2.35"]);
        assert!(csv.is_empty());
    }

    #[test]
    fn a_header_places_the_columns() {
        let mut csv = decoder(&[0, 2], &[("delimiter", ";"), ("null", "\\N")]);
        csv.header(b"\xef\xbb\xbfN; A;other;\"t\"\n").expect("all are there");
        csv.decode(b"\\N;7;x;\"y").expect_err("an open quote, though nobody wants the field");
        csv.decode(b"\\N;7;x;y").expect("a record");
        assert_eq!(rows(csv.as_mut()), ["7|NULL"]);
        let error = csv.header(b"a,n,t").expect_err("a wrong delimiter");
        assert_eq!(error.message(), "column \"a\" is not in the header of the CSV data");
        assert_eq!(error.detail(), Some("The header has: a,n,t."));
    }

    #[test]
    fn options_are_checked() {
        let schema = Arc::new(Schema::empty());
        for (name, value) in [("delimiter", "ab"), ("null", ","), ("quote", "'")] {
            let options = FormatOptions::from([(name.to_owned(), value.to_owned())]);
            assert!((FORMAT.decoder)(&schema, &[], &options).is_err(), "{name}");
        }
    }
}
