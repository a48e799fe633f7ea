//! Rows to CSV records.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Schema};

use super::Dialect;
use crate::delta::text::write_value;
use crate::error::{Error, Result};
use crate::format::Encoder;

/// Encodes rows of one schema.
pub(super) struct CsvEncoder {
    columns: usize,
    dialect: Dialect,
    /// The text of one value.
    text: String,
}

impl CsvEncoder {
    pub(super) fn new(schema: &Schema, dialect: Dialect) -> Self {
        Self { columns: schema.fields().len(), dialect, text: String::new() }
    }
}

impl Encoder for CsvEncoder {
    fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<Vec<u8>>) -> Result<()> {
        if rows.num_columns() != self.columns {
            return Err(Error::internal("the rows do not have the encoder's schema"));
        }
        for row in 0..rows.num_rows() {
            let mut record = Vec::new();
            for (at, column) in rows.columns().iter().enumerate() {
                if at > 0 {
                    record.push(self.dialect.delimiter);
                }
                if column.is_null(row) || column.data_type() == &DataType::Null {
                    record.extend_from_slice(&self.dialect.null);
                    continue;
                }
                self.text.clear();
                write_value(column, row, &mut self.text);
                write_field(&self.text, &self.dialect, &mut record);
            }
            out.push(record);
        }
        Ok(())
    }
}

/// The record of the columns' names.
pub(super) fn header(schema: &Schema, dialect: &Dialect) -> Vec<u8> {
    let mut record = Vec::new();
    for (at, field) in schema.fields().iter().enumerate() {
        if at > 0 {
            record.push(dialect.delimiter);
        }
        write_field(field.name(), dialect, &mut record);
    }
    record
}

/// Appends a field, in quotes where its text would be read as something else without them.
fn write_field(text: &str, dialect: &Dialect, record: &mut Vec<u8>) {
    let special = |b: u8| matches!(b, b'"' | b'\n' | b'\r') || b == dialect.delimiter;
    if !text.bytes().any(special) && text.as_bytes() != dialect.null {
        record.extend_from_slice(text.as_bytes());
        return;
    }
    record.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            record.push(b'"');
        }
        record.push(byte);
    }
    record.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, StringArray};

    use super::super::FORMAT;
    use super::*;
    use crate::format::FormatOptions;

    #[test]
    fn what_is_written_is_read_back() {
        let texts = [Some(""), None, Some("a,b"), Some("say \"x\""), Some("l1\nl2"), Some(" é ")];
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int32Array::from_iter((0..6).map(|i| (i != 3).then_some(i))))),
            ("t", Arc::new(StringArray::from(texts.to_vec()))),
        ];
        let rows = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, column)| (name, column, true)),
        )
        .expect("a batch");
        for (options, third) in [
            (FormatOptions::new(), "2,\"a,b\""),
            (FormatOptions::from([("delimiter".into(), "|".into())]), "2|a,b"),
            (FormatOptions::from([("null".into(), "2".into())]), "\"2\",\"a,b\""),
        ] {
            let mut out = Vec::new();
            let mut encoder = (FORMAT.encoder)(rows.schema(), &options).expect("an encoder");
            encoder.encode(&rows, &mut out).expect("encoded");
            assert_eq!(String::from_utf8_lossy(&out[2]), third);
            let mut decoder =
                (FORMAT.decoder)(&rows.schema(), &[0, 1], &options).expect("a decoder");
            out.iter().for_each(|record| decoder.decode(record).expect("a record"));
            assert_eq!(decoder.finish().expect("rows"), rows);
        }
    }
}
