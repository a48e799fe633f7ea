//! COPY: rows as a stream of lines, in text or CSV form, to the client and from it.
//!
//! Tools use it to export and to load. TO STDOUT is also how psql shows a subscription while it
//! runs: of an ordinary result psql prints nothing before the end, of `COPY (SUBSCRIBE TO v) TO
//! STDOUT` each line. The clause is taken off here, at the protocol; what is inside is an ordinary
//! statement.

use arrow::array::{Array, RecordBatch};
use bytes::{BufMut, BytesMut};
use pgwire::messages::copy::{CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};

use super::connection::{Connection, Stop, flush, watched};
use crate::delta::style::TextStyle;
use crate::delta::text::write_styled;
use crate::engine::row_source::RowSource;
use crate::error::{Error, Result, sqlstate};
use crate::format::{CopyForm, Header};
use crate::sql::statement::{self, CopySubject, ParsedStatement};

/// `COPY .. TO STDOUT` around a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    /// The statement inside.
    pub(crate) inner: String,
    /// Where it begins, in characters from 0, to move the positions of its errors.
    pub(crate) offset: usize,
    form: CopyForm,
}

/// Whether a text may be a COPY.
pub(crate) fn is_copy(text: &str) -> bool {
    let text = text.trim_start();
    text.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("copy"))
}

/// A COPY .. TO STDOUT as a statement and a way to send its rows.
pub(crate) fn copy_to(copy: &statement::Copy, offset: usize) -> Copy {
    let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
    let (inner, offset) = match &copy.subject {
        CopySubject::Query { text, offset } => (text.clone(), *offset),
        CopySubject::Table { name, columns } => {
            let columns: Vec<String> = columns.iter().map(quoted).collect();
            let columns = if columns.is_empty() { "*".into() } else { columns.join(", ") };
            // An error points at the name: behind the word COPY.
            (format!("SELECT {columns} FROM {}", quoted(name)), offset)
        }
    };
    Copy { inner, offset, form: copy.form.clone() }
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
        out.put_u8(b'd');
        let begin = out.len();
        out.put_i32(0);
        for (i, cell) in cells.enumerate() {
            if i > 0 {
                out.put_u8(self.form.delimiter);
            }
            match cell {
                None => out.put_slice(self.form.null.as_bytes()),
                Some(text) if self.form.csv => put_csv(text, &self.form, out),
                Some(text) => put_escaped(text, self.form.delimiter, out),
            }
        }
        out.put_u8(b'\n');
        let length = i32::try_from(out.len() - begin).unwrap_or(i32::MAX);
        out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn put_row(
        &self,
        (batch, row): (&RecordBatch, usize),
        style: TextStyle,
        cells: &mut [String],
        out: &mut BytesMut,
    ) {
        for (column, cell) in batch.columns().iter().zip(cells.iter_mut()) {
            cell.clear();
            if !is_null(column, row) {
                write_styled(column.as_ref(), row, style, cell);
            }
        }
        let columns = batch.columns().iter().zip(cells.iter());
        self.put_line(out, columns.map(|(c, s)| (!is_null(c, row)).then_some(s.as_str())));
    }
}

fn is_null(column: &dyn Array, row: usize) -> bool {
    column.is_null(row) || column.data_type() == &arrow::datatypes::DataType::Null
}

fn put_escaped(text: &str, delimiter: u8, out: &mut BytesMut) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            other if other == delimiter => out.put_slice(&[b'\\', other]),
            other => out.put_u8(other),
        }
    }
}

/// A text that would be read as NULL, or as two fields, is quoted.
fn put_csv(text: &str, form: &CopyForm, out: &mut BytesMut) {
    let special = [form.delimiter, form.quote, b'\n', b'\r'];
    let plain = text != form.null && !text.bytes().any(|b| special.contains(&b)) && text != "\\.";
    if plain {
        return out.put_slice(text.as_bytes());
    }
    out.put_u8(form.quote);
    for byte in text.bytes() {
        if byte == form.quote || byte == form.escape {
            out.put_u8(form.escape);
        }
        out.put_u8(byte);
    }
    out.put_u8(form.quote);
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
        if copy.form.header != Header::None {
            let names = schema.fields().iter().map(|f| Some(f.name().as_str()));
            copy.put_line(self.wire.outbox(), names);
        }
        let mut cells = vec![String::new(); schema.fields().len()];
        let style = self.session.text_style();
        let mut sent = 0;
        while let Some(batch) = self.next_batch(source).await? {
            for row in 0..batch.num_rows() {
                copy.put_row((&batch, row), style, &mut cells, self.wire.outbox());
                if self.wire.is_full() {
                    flush(&mut self.wire, &mut self.interrupts).await?;
                }
            }
            sent += batch.num_rows();
        }
        self.wire.put(&PgWireBackendMessage::CopyDone(CopyDone::new()));
        Ok(sent)
    }

    /// Takes rows from the client until it says that these are all, and writes them.
    pub(crate) async fn copy_in(&mut self, parsed: &ParsedStatement) -> Result<(), Stop> {
        let wait = self.session.wait_for_recovery();
        watched(&mut self.wire, &mut self.interrupts, &self.point, wait).await??;
        let mut copy = self.session.begin_copy(&parsed.statement)?;
        let columns = i16::try_from(copy.width())
            .map_err(|_| Error::unsupported("COPY of so many columns"))?;
        let response = CopyInResponse::new(0, columns, vec![0; copy.width()]);
        self.wire.put(&PgWireBackendMessage::CopyInResponse(response));
        flush(&mut self.wire, &mut self.interrupts).await?;
        loop {
            let message = tokio::select! {
                biased;
                // First, or a client that sends without a pause could not be stopped.
                interrupt = self.interrupts.interrupted() => return Err(interrupt.into()),
                message = self.wire.next() => message.map_err(Stop::Fatal)?.ok_or(Stop::Gone)?,
            };
            if let Some(error) = self.wire.garbled() {
                return Err(error.into());
            }
            match message {
                PgWireFrontendMessage::CopyData(data) => copy.push(&data.data)?,
                PgWireFrontendMessage::CopyDone(_) => break,
                PgWireFrontendMessage::CopyFail(fail) => {
                    let message = format!("COPY from stdin failed: {}", fail.message);
                    return Err(Error::user(sqlstate::QUERY_CANCELED, message).into());
                }
                PgWireFrontendMessage::Flush(_) | PgWireFrontendMessage::Sync(_) => {}
                PgWireFrontendMessage::Terminate(_) => return Err(Stop::Gone),
                _ => {
                    return Err(Stop::Fatal(Error::user(
                        sqlstate::PROTOCOL_VIOLATION,
                        "unexpected message during COPY from stdin",
                    )));
                }
            }
        }
        let finish = self.session.finish_copy(copy);
        let outcome = watched(&mut self.wire, &mut self.interrupts, &self.point, finish).await??;
        // There are no rows to send.
        self.begin_result(outcome);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn parse(text: &str) -> Copy {
        let mut statements = crate::sql::parse(text).expect("a COPY");
        match statements.remove(0).statement {
            statement::Statement::Copy(copy) => copy_to(&copy, 0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_clause_is_taken_off() {
        let copy = parse("COPY (SUBSCRIBE TO v) TO STDOUT;");
        assert_eq!((copy.inner.as_str(), copy.offset), ("SUBSCRIBE TO v", 6));
        assert_eq!(copy.form, CopyForm::new(false));
        let copy = parse(" copy t (a, B) to stdout with (format csv, header, delimiter ';')");
        assert_eq!(copy.inner, "SELECT \"a\", \"b\" FROM \"t\"");
        assert!(copy.form.csv && copy.form.header == Header::Skip && copy.form.delimiter == b';');
        assert_eq!(parse("COPY (SELECT (1)) TO STDOUT CSV").inner, "SELECT (1)");
        assert!(is_copy(" copy t from stdin") && !is_copy("SELECT 'to stdout'"));
        let error = crate::sql::parse("COPY t TO STDOUT (FORMAT binary)").expect_err("binary");
        assert_eq!(error.sqlstate(), "0A000");
    }

    #[test]
    fn lines() {
        let columns: [(&str, ArrayRef); 2] = [
            ("a", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("b", Arc::new(StringArray::from(vec![Some("x\t\\\n,"), Some("")]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("two columns");
        let lines = |text: &str| {
            let copy = parse(text);
            let mut out = BytesMut::new();
            let mut cells = vec![String::new(); 2];
            (0..2).for_each(|row| {
                copy.put_row((&batch, row), TextStyle::DEFAULT, &mut cells, &mut out);
            });
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
