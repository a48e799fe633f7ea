//! Change events to upserts and deletions of keys.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::ReadOptions;
use super::envelope::{Envelope, unwrap_key};
use super::schema;
use crate::error::Result;
use crate::format::json::column::Column;
use crate::format::json::decode::JsonDecoder;
use crate::format::json::fault::Fault;
use crate::format::json::reading::{Kind, Reading};
use crate::format::{DecodeError, Decoder};

/// Decodes envelopes into rows of one schema.
pub(in crate::format) struct DebeziumDecoder {
    rows: JsonDecoder,
    /// The primary key's columns.
    key: Vec<usize>,
    options: ReadOptions,
    /// The schema that the columns are set for; empty for messages without one.
    seen: Vec<u8>,
}

impl DebeziumDecoder {
    pub(in crate::format) fn new(
        schema: SchemaRef,
        key: Vec<usize>,
        options: ReadOptions,
    ) -> Result<Self> {
        let mut decoder = Self { rows: JsonDecoder::new(schema)?, key, options, seen: Vec::new() };
        let readings: Vec<Reading> =
            decoder.rows.columns_mut().iter().map(|c| without_schema(c, options)).collect();
        decoder.read_as(&readings);
        Ok(decoder)
    }

    /// Appends the rows of a message, and to `deletes` whether each is a deletion. A message that
    /// is no change gives none.
    pub(in crate::format) fn read(
        &mut self,
        key: Option<&[u8]>,
        payload: &[u8],
        deletes: &mut Vec<bool>,
    ) -> Result<(), DecodeError> {
        let rows = self.rows.len();
        let result = self.append(key, payload, deletes);
        if result.is_err() {
            self.rows.truncate(rows);
            deletes.truncate(rows);
        }
        result
    }

    fn append(
        &mut self,
        key: Option<&[u8]>,
        payload: &[u8],
        deletes: &mut Vec<bool>,
    ) -> Result<(), DecodeError> {
        let explain = |fault: Fault| fault.explain(payload, &[]);
        let Some(envelope) = Envelope::read(payload).map_err(explain)? else { return Ok(()) };
        if envelope.is_no_change() {
            return Ok(());
        }
        self.adopt(envelope.schema.unwrap_or_default());
        match envelope.op {
            Some(b"c" | b"r" | b"u") => {
                let after = envelope.after.ok_or_else(|| without("\"after\""))?;
                self.rows.decode(after)?;
                if let Some(before) = envelope.before {
                    self.delete_other(before, after, deletes)?;
                }
                deletes.push(false);
                Ok(())
            }
            Some(b"d") => {
                let key = key.filter(|_| !self.options.ignore_key);
                let row = match (envelope.before, key) {
                    (Some(before), _) => before,
                    (None, Some(key)) => unwrap_key(key).map_err(explain)?,
                    (None, None) => return Err(without("\"before\", and the message no key")),
                };
                self.rows.decode_keyed(&self.key, Some(row), None)?;
                deletes.push(true);
                Ok(())
            }
            Some(b"t") => Err(error("TRUNCATE events are not supported: the rows stay")),
            Some(op) => {
                Err(error(&format!("unknown operation \"{}\"", String::from_utf8_lossy(op))))
            }
            None => Err(error("the message is not a change event: it has no \"op\"")),
        }
    }

    /// Puts a deletion of the key that the newest row had before in front of it, where that is
    /// another key.
    fn delete_other(
        &mut self,
        before: &[u8],
        after: &[u8],
        deletes: &mut Vec<bool>,
    ) -> Result<(), DecodeError> {
        let new = self.rows.len() - 1;
        self.rows.decode_keyed(&self.key, Some(before), None)?;
        if self.rows.same(&self.key, new, new + 1) {
            self.rows.truncate(new + 1);
            return Ok(());
        }
        self.rows.truncate(new);
        self.rows.decode_keyed(&self.key, Some(before), None)?;
        deletes.push(true);
        self.rows.decode(after)
    }

    /// Sets the columns for messages with this schema. Mostly it is that of the message before.
    fn adopt(&mut self, schema: &[u8]) {
        if self.seen == schema {
            return;
        }
        let options = self.options;
        let default = |column: &Column| without_schema(column, options);
        let readings = schema::readings(schema, self.rows.columns_mut(), default);
        self.read_as(&readings);
        self.seen = schema.to_vec();
    }

    fn read_as(&mut self, readings: &[Reading]) {
        for (column, reading) in self.rows.columns_mut().iter_mut().zip(readings) {
            column.reading = *reading;
        }
    }

    pub(in crate::format) fn finish(&mut self) -> Result<RecordBatch> {
        self.rows.finish()
    }

    pub(in crate::format) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// How a column is read where no schema tells.
fn without_schema(column: &Column, options: ReadOptions) -> Reading {
    match column.kind() {
        Kind::Clock => options.clock,
        Kind::Decimal(scale) if options.precise => Reading::Unscaled(scale.into()),
        Kind::Binary => Reading::Base64,
        _ => Reading::Unknown,
    }
}

fn without(what: &str) -> DecodeError {
    error(&format!("the change event has no {what}"))
}

fn error(reason: &str) -> DecodeError {
    DecodeError { column: None, reason: reason.into() }
}
