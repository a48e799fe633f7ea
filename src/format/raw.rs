//! ENCODE BYTES and ENCODE TEXT: the message is the value of the one column, a `bytea` or a `text`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};

use super::{
    DecodeError, Decoder, Encoder, Format, FormatOptions, Framing, project, refuse_options_of,
};
use crate::error::{Error, Result};

/// ENCODE BYTES.
pub const BYTES: Format = Format {
    name: "bytes",
    decoder: |schema, columns, options| decoder("BYTES", schema, columns, options),
    encoder: |schema, options| encoder("BYTES", &schema, options),
    framing: |_| Ok(Framing::Lines),
};

/// ENCODE TEXT.
pub const TEXT: Format = Format {
    name: "text",
    decoder: |schema, columns, options| decoder("TEXT", schema, columns, options),
    encoder: |schema, options| encoder("TEXT", &schema, options),
    framing: |_| Ok(Framing::Lines),
};

fn check(encode: &str, schema: &SchemaRef, options: &FormatOptions) -> Result<bool> {
    refuse_options_of(encode, options, &[])?;
    let (wanted, name) = match encode {
        "TEXT" => (DataType::Utf8, "text"),
        _ => (DataType::Binary, "bytea"),
    };
    match schema.fields().as_ref() {
        [field] if field.data_type() == &wanted => Ok(wanted == DataType::Utf8),
        _ => Err(Error::unsupported(format!("ENCODE {encode} needs one column of type {name}"))
            .with_hint("With several columns, use ENCODE JSON or ENCODE CSV.")),
    }
}

fn decoder(
    encode: &str,
    schema: &SchemaRef,
    columns: &[usize],
    options: &FormatOptions,
) -> Result<Box<dyn Decoder>> {
    let text = check(encode, schema, options)?;
    Ok(Box::new(Raw { schema: project(schema, columns)?, text, rows: Vec::new() }))
}

fn encoder(encode: &str, schema: &SchemaRef, options: &FormatOptions) -> Result<Box<dyn Encoder>> {
    let text = check(encode, schema, options)?;
    Ok(Box::new(RawEncoder { text }))
}

struct Raw {
    /// With the column, or without any when nobody wants it.
    schema: SchemaRef,
    text: bool,
    rows: Vec<Vec<u8>>,
}

impl Decoder for Raw {
    fn decode(&mut self, payload: &[u8]) -> Result<(), DecodeError> {
        if self.text {
            super::csv::check_text(payload)?;
        }
        self.rows.push(payload.to_vec());
        Ok(())
    }

    fn decode_keyed(
        &mut self,
        _columns: &[usize],
        _key: Option<&[u8]>,
        _payload: Option<&[u8]>,
    ) -> Result<(), DecodeError> {
        Err(DecodeError { column: None, reason: "raw messages have no key".into() })
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        let rows = std::mem::take(&mut self.rows);
        let count = rows.len();
        let column: ArrayRef = match self.text {
            true => Arc::new(StringArray::from_iter_values(
                rows.iter().map(|row| std::str::from_utf8(row).unwrap_or_default()),
            )),
            false => Arc::new(BinaryArray::from_iter_values(rows)),
        };
        let columns = if self.schema.fields().is_empty() { Vec::new() } else { vec![column] };
        crate::delta::batch_of(self.schema.clone(), columns, count)
    }
}

struct RawEncoder {
    text: bool,
}

impl Encoder for RawEncoder {
    fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<Vec<u8>>) -> Result<()> {
        let column = rows.columns().first().ok_or_else(|| Error::internal("no column"))?;
        for row in 0..rows.num_rows() {
            out.push(match (column.is_null(row), self.text) {
                (true, _) => Vec::new(),
                (false, true) => column.as_string::<i32>().value(row).as_bytes().to_vec(),
                (false, false) => column.as_binary::<i32>().value(row).to_vec(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn a_message_is_a_value() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8, true)]));
        let options = FormatOptions::new();
        let mut text = (TEXT.decoder)(&schema, &[0], &options).expect("one text column");
        text.decode(b"").expect("empty");
        text.decode("é\n".as_bytes()).expect("text");
        assert!(text.decode(b"\xff").is_err_and(|e| e.reason.contains("0xff")));
        let rows = text.finish().expect("rows");
        let values: Vec<_> = rows.column(0).as_string::<i32>().iter().flatten().collect();
        assert_eq!(values, ["", "é\n"]);
        let mut out = Vec::new();
        (TEXT.encoder)(schema.clone(), &options).expect("ok").encode(&rows, &mut out).expect("ok");
        assert_eq!(out, [b"".to_vec(), "é\n".as_bytes().to_vec()]);
        assert!((BYTES.decoder)(&schema, &[0], &options).is_err());
        let mut nobody = (TEXT.decoder)(&schema, &[], &options).expect("no column is wanted");
        nobody.decode(b"x").expect("text");
        assert_eq!(nobody.finish().expect("rows").num_rows(), 1);
    }
}
