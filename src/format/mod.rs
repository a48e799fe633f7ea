//! Formats: bytes of a message to rows and back. A format knows no connector.
//!
//! A [`Decoder`] appends one message at a time to Arrow builders and is finished once per batch,
//! so that a message which cannot be decoded fails alone. An [`Encoder`] turns rows into payloads.
//! Formats are found by name in [`FORMATS`]; adding one is one file and one line there.

pub mod json;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::{Error, Result};

/// Why one message could not become a row. It goes to `<source>$errors`; its neighbours arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// The column that could not be read, where it is known.
    pub column: Option<String>,
    /// What is wrong, in PostgreSQL's words where it has them.
    pub reason: String,
}

/// Turns messages into rows of one schema.
///
/// Contract: (1) `decode` either appends exactly one row or returns an error and leaves the rows
/// before it as they were; (2) `finish` returns the rows appended since the last `finish`, in
/// order, and leaves the decoder empty; (3) the schema never changes.
pub trait Decoder: Send {
    /// Appends the row of one payload.
    fn decode(&mut self, payload: &[u8]) -> Result<(), DecodeError>;
    /// FORMAT UPSERT: appends the row of a message with a key. `columns` are the key's columns;
    /// those that the payload does not name are read from `key`. Without a payload (a deletion) the
    /// row has only them; other columns are NULL, or without meaning where they are NOT NULL.
    fn decode_keyed(
        &mut self,
        columns: &[usize],
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
    ) -> Result<(), DecodeError>;
    /// Rows appended since the last `finish`.
    fn len(&self) -> usize;
    /// True when nothing was appended since the last `finish`.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Takes the rows.
    fn finish(&mut self) -> Result<RecordBatch>;
}

/// Turns rows into payloads.
pub trait Encoder: Send {
    /// Appends the payload of each row to `out`, which is as long as `rows` afterwards.
    fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<Vec<u8>>) -> Result<()>;
}

/// Options of the `ENCODE x (..)` clause, by lower-case name.
pub type FormatOptions = BTreeMap<String, String>;

/// One entry of the registry.
pub struct Format {
    /// The word after ENCODE, lower case.
    pub name: &'static str,
    /// Makes a decoder for `schema` (only the columns that are wanted; others are skipped).
    pub decoder: fn(schema: SchemaRef, options: &FormatOptions) -> Result<Box<dyn Decoder>>,
    /// Makes an encoder for `schema`.
    pub encoder: fn(schema: SchemaRef, options: &FormatOptions) -> Result<Box<dyn Encoder>>,
}

/// Every format, sorted by name.
pub const FORMATS: &[Format] = &[json::FORMAT];

/// The changelog encoding of a topic: how messages stand for changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changelog {
    /// FORMAT PLAIN: every message is an insert.
    Plain,
    /// FORMAT UPSERT: a message replaces the row of its key, an empty payload deletes it.
    Upsert,
}

/// The `FORMAT x ENCODE y (..)` clause.
#[derive(Debug, Clone)]
pub struct FormatSpec {
    /// The word after FORMAT.
    pub changelog: Changelog,
    /// The word after ENCODE, lower case.
    pub encode: String,
    /// Options in parentheses.
    pub options: FormatOptions,
}

impl FormatSpec {
    /// FORMAT PLAIN ENCODE JSON.
    pub fn plain_json() -> Self {
        Self { changelog: Changelog::Plain, encode: "json".into(), options: FormatOptions::new() }
    }

    /// A decoder of this format for the wanted columns.
    pub fn decoder(&self, schema: SchemaRef) -> Result<Box<dyn Decoder>> {
        (self.lookup()?.decoder)(schema, &self.options)
    }

    /// An encoder of this format.
    pub fn encoder(&self, schema: SchemaRef) -> Result<Box<dyn Encoder>> {
        (self.lookup()?.encoder)(schema, &self.options)
    }

    fn lookup(&self) -> Result<&'static Format> {
        FORMATS.iter().find(|f| f.name == self.encode).ok_or_else(|| {
            let known: Vec<_> = FORMATS.iter().map(|f| f.name.to_uppercase()).collect();
            Error::unsupported(format!("encoding \"{}\" is not supported", self.encode))
                .with_hint(format!("Use one of: {}.", known.join(", ")))
        })
    }
}

/// A schema without the columns that nobody reads.
pub fn project(schema: &SchemaRef, columns: &[usize]) -> Result<SchemaRef> {
    Ok(Arc::new(schema.project(columns)?))
}
