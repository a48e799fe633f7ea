//! `COPY (query) TO STDOUT`: rows as a stream of lines, in text or CSV form.
//!
//! Tools use it to export. It is also how psql shows a subscription while it runs: of an ordinary
//! result psql prints nothing before the end, of `COPY (SUBSCRIBE TO v) TO STDOUT` each line.
//! The clause is taken off here, at the protocol; what is inside is an ordinary statement.

use arrow::array::{Array, RecordBatch};
use bytes::{BufMut, BytesMut};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyDone, CopyOutResponse};

use super::connection::{Connection, Stop, flush};
use super::rows::RowSource;
use crate::delta::text::write_value;
use crate::error::{Error, Result};

/// `COPY .. TO STDOUT` around a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    /// The statement inside.
    pub(crate) inner: String,
    /// Where it begins, in characters from 0, to move the positions of its errors.
    pub(crate) offset: usize,
    form: Form,
    header: Header,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    None,
    Names,
}

/// Reads a text as COPY; `None` where it is another statement, which the parser then judges.
pub(crate) fn parse(text: &str) -> Option<Copy> {
    // ASCII lower case keeps byte offsets.
    let lower = text.to_ascii_lowercase();
    let begin = lower.len() - lower.trim_start().len();
    let after = lower[begin..].strip_prefix("copy")?;
    if !after.starts_with(|c: char| c.is_whitespace() || c == '(') {
        return None;
    }
    let stdout = lower.rfind("stdout")?;
    let to = lower[..stdout].trim_end().strip_suffix("to")?;
    let options = lower[stdout + "stdout".len()..].trim_end_matches([';', ' ', '\n', '\t', '\r']);
    let (form, header) = parse_options(options)?;
    let subject_begin = begin + "copy".len();
    let subject = text.get(subject_begin..to.len())?;
    let trimmed = subject.trim();
    let lead = subject_begin + (subject.len() - subject.trim_start().len());
    let (inner, at) = match trimmed.strip_prefix('(') {
        Some(rest) => (rest.strip_suffix(')')?.to_string(), lead + 1),
        None => (format!("SELECT * FROM {trimmed}"), lead),
    };
    Some(Copy { inner, offset: text[..at].chars().count(), form, header })
}

/// `[WITH] [(] FORMAT csv, HEADER [true] [)]` and the older `CSV HEADER`.
fn parse_options(options: &str) -> Option<(Form, Header)> {
    let (mut form, mut header) = (Form::Text, Header::None);
    let words = options.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ','));
    for word in words.filter(|w| !w.is_empty()) {
        match word {
            "with" | "format" | "text" | "true" => {}
            "csv" => form = Form::Csv,
            "header" => header = Header::Names,
            "false" => header = Header::None,
            _ => return None,
        }
    }
    Some((form, header))
}

impl Copy {
    /// Moves the position of an error of the inner statement to where it is in the whole.
    pub(crate) fn place(&self, error: Error) -> Error {
        match error.position() {
            Some(position) => {
                let place = position + self.offset;
                error.with_position(place)
            }
            None => error,
        }
    }

    fn put_line<'a>(&self, out: &mut BytesMut, cells: impl Iterator<Item = Option<&'a str>>) {
        let separator = if self.form == Form::Csv { b',' } else { b'\t' };
        out.put_u8(b'd');
        let begin = out.len();
        out.put_i32(0);
        for (i, cell) in cells.enumerate() {
            if i > 0 {
                out.put_u8(separator);
            }
            match (self.form, cell) {
                (Form::Text, None) => out.put_slice(b"\\N"),
                (Form::Text, Some(text)) => put_escaped(text, out),
                (Form::Csv, None) => {}
                (Form::Csv, Some(text)) => put_csv(text, out),
            }
        }
        out.put_u8(b'\n');
        let length = i32::try_from(out.len() - begin).unwrap_or(i32::MAX);
        out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn put_row(&self, batch: &RecordBatch, row: usize, cells: &mut [String], out: &mut BytesMut) {
        for (column, cell) in batch.columns().iter().zip(cells.iter_mut()) {
            cell.clear();
            if !is_null(column, row) {
                write_value(column.as_ref(), row, cell);
            }
        }
        let columns = batch.columns().iter().zip(cells.iter());
        self.put_line(out, columns.map(|(c, s)| (!is_null(c, row)).then_some(s.as_str())));
    }
}

fn is_null(column: &dyn Array, row: usize) -> bool {
    column.is_null(row) || column.data_type() == &arrow::datatypes::DataType::Null
}

fn put_escaped(text: &str, out: &mut BytesMut) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            other => out.put_u8(other),
        }
    }
}

/// NULL is an empty field, the empty string a quoted one.
fn put_csv(text: &str, out: &mut BytesMut) {
    match text.is_empty() || text.contains(['"', ',', '\n', '\r']) {
        true => out.put_slice(format!("\"{}\"", text.replace('"', "\"\"")).as_bytes()),
        false => out.put_slice(text.as_bytes()),
    }
}

impl Connection {
    /// Sends rows as lines, to their end; the number of rows.
    pub(crate) async fn copy_out(
        &mut self,
        copy: &Copy,
        source: &mut RowSource,
    ) -> Result<usize, Stop> {
        let schema = source.schema();
        let columns = i16::try_from(schema.fields().len())
            .map_err(|_| Error::unsupported("COPY of so many columns"))?;
        let response = CopyOutResponse::new(0, columns, vec![0; schema.fields().len()]);
        self.wire.put(&PgWireBackendMessage::CopyOutResponse(response));
        if copy.header == Header::Names {
            let names = schema.fields().iter().map(|f| Some(f.name().as_str()));
            copy.put_line(self.wire.outbox(), names);
        }
        let mut cells = vec![String::new(); schema.fields().len()];
        let mut sent = 0;
        while let Some(batch) = self.next_batch(source).await? {
            for row in 0..batch.num_rows() {
                copy.put_row(&batch, row, &mut cells, self.wire.outbox());
                if self.wire.is_full() {
                    flush(&mut self.wire, &mut self.interrupts).await?;
                }
            }
            sent += batch.num_rows();
        }
        self.wire.put(&PgWireBackendMessage::CopyDone(CopyDone::new()));
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn the_clause_is_taken_off() {
        let copy = parse("COPY (SUBSCRIBE TO v) TO STDOUT;").expect("a COPY");
        assert_eq!((copy.inner.as_str(), copy.offset), ("SUBSCRIBE TO v", 6));
        assert_eq!((copy.form, copy.header), (Form::Text, Header::None));
        let copy = parse(" copy t to stdout with (format csv, header)").expect("a COPY");
        assert_eq!(copy.inner, "SELECT * FROM t");
        assert_eq!((copy.form, copy.header), (Form::Csv, Header::Names));
        assert_eq!(parse("COPY t FROM STDIN"), None);
        assert_eq!(parse("COPY (SELECT 1) TO STDOUT (FORMAT binary)"), None);
        assert_eq!(parse("SELECT 'to stdout'"), None);
        assert_eq!(parse("copying to stdout"), None);
    }

    #[test]
    fn lines() {
        let columns: [(&str, ArrayRef); 2] = [
            ("a", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("b", Arc::new(StringArray::from(vec![Some("x\t\\\n,"), Some("")]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("two columns");
        let lines = |text: &str| {
            let copy = parse(text).expect("a COPY");
            let mut out = BytesMut::new();
            let mut cells = vec![String::new(); 2];
            (0..2).for_each(|row| copy.put_row(&batch, row, &mut cells, &mut out));
            let mut read = String::new();
            while !out.is_empty() {
                assert_eq!(out[0], b'd');
                let end = 1 + i32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize;
                read.push_str(&String::from_utf8_lossy(&out.split_to(end)[5..]));
            }
            read
        };
        assert_eq!(lines("COPY t TO STDOUT"), "1\tx\\t\\\\\\n,\n\\N\t\n");
        assert_eq!(lines("COPY t TO STDOUT CSV"), "1,\"x\t\\\n,\"\n,\"\"\n");
    }
}
