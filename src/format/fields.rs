//! Rows as the texts of their columns, each behind its length: for receivers that take columns
//! apart and read each as PostgreSQL does.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;

use super::Encoder;
use crate::delta::text::write_value;
use crate::error::Result;

/// Stands for the length of NULL.
const NULL: u32 = u32::MAX;

/// Encodes rows; of any schema.
pub(super) struct FieldsEncoder {
    /// A negative zero is written as zero: they are one key.
    pub(super) keys: bool,
}

impl Encoder for FieldsEncoder {
    fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<Vec<u8>>) -> Result<()> {
        let mut text = String::new();
        for row in 0..rows.num_rows() {
            let mut bytes = Vec::with_capacity(rows.num_columns() * 12);
            for column in rows.columns() {
                if column.is_null(row) || column.data_type() == &DataType::Null {
                    bytes.extend_from_slice(&NULL.to_le_bytes());
                    continue;
                }
                text.clear();
                write_value(column, row, &mut text);
                if self.keys && text == "-0" && column.data_type().is_floating() {
                    text.remove(0);
                }
                // A value has less than VALUE_BYTES_MAX bytes.
                bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
            out.push(bytes);
        }
        Ok(())
    }
}

/// The texts of a row; `None` when it is none.
pub fn read_fields(mut bytes: &[u8]) -> Option<Vec<Option<&str>>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = u32::from_le_bytes(*length);
        bytes = rest;
        if length == NULL {
            fields.push(None);
            continue;
        }
        let (text, rest) = bytes.split_at_checked(length as usize)?;
        fields.push(Some(std::str::from_utf8(text).ok()?));
        bytes = rest;
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray};

    use super::*;

    #[test]
    fn fields_come_back() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("")]));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, 1.5, f64::NAN]));
        let rows =
            RecordBatch::try_from_iter_with_nullable([("t", texts, true), ("f", floats, true)])
                .expect("a batch");
        let encoded = |keys| {
            let mut out = Vec::new();
            FieldsEncoder { keys }.encode(&rows, &mut out).expect("encoded");
            out
        };
        let out = encoded(false);
        let fields = |at: usize| read_fields(&out[at]).expect("fields");
        assert_eq!(fields(0), [Some("a"), Some("-0")]);
        assert_eq!(fields(1), [None, Some("1.5")]);
        assert_eq!(fields(2), [Some(""), Some("NaN")]);
        assert_eq!(read_fields(&encoded(true)[0]).expect("fields")[1], Some("0"));
        assert_eq!(read_fields(&out[0][..out[0].len() - 1]), None);
        assert_eq!(read_fields(&out[0][1..]), None);
    }
}
