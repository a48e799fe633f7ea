//! Formats: bytes of a message to rows and back. A format knows no connector.
//!
//! `FORMAT x ENCODE y` has two halves. ENCODE says what bytes are a row: a [`Decoder`] appends one
//! message at a time to Arrow builders and is finished once per batch, so that a message which
//! cannot be decoded fails alone; an [`Encoder`] turns rows into payloads. They are found by name
//! in [`FORMATS`]; adding one is one file and one line there. FORMAT says how messages stand for
//! changes: [`Changes`] on the way in, [`Outgoing`] on the way out.

mod changes;
mod copy;
mod csv;
mod debezium;
mod fields;
pub mod json;
mod outgoing;
mod raw;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use memchr::memchr;

pub use changes::Changes;
pub use copy::{CopyForm, CopyReader, Fields, Header};
pub use fields::read_fields;
pub use outgoing::{Message, Outgoing};

use crate::error::{Error, Result, sqlstate};

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
    /// Takes the record in front of a stream that names the columns; see [`Framing`].
    fn header(&mut self, _record: &[u8]) -> Result<()> {
        Err(Error::internal("a header for a format without one"))
    }
}

/// Turns rows into payloads.
pub trait Encoder: Send {
    /// Appends the payload of each row to `out`, which is as long as `rows` afterwards.
    fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<Vec<u8>>) -> Result<()>;
}

/// How records lie one behind the other in a stream of bytes, as a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One per line.
    Lines,
    /// One per line, but a line end inside of quotes belongs to the record.
    Quoted {
        /// What is between two fields.
        delimiter: u8,
        /// Whether the first record names the columns.
        header: bool,
    },
}

impl Framing {
    /// The end of the first record of `bytes`, where its line end is; `None` when it is not there
    /// yet. A quote that nobody closes does not take the rest of the stream with it.
    pub fn end_of_record(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Lines => memchr(b'\n', bytes),
            Self::Quoted { delimiter, .. } => csv::end_of_record(bytes, delimiter),
        }
    }

    /// Whether the first record names the columns.
    pub fn has_header(self) -> bool {
        matches!(self, Self::Quoted { header: true, .. })
    }
}

/// Options of the `ENCODE x (..)` clause, by lower-case name.
pub type FormatOptions = BTreeMap<String, String>;

/// Makes a decoder for the wanted columns of a schema; others are skipped.
type MakeDecoder = fn(&SchemaRef, &[usize], &FormatOptions) -> Result<Box<dyn Decoder>>;

/// One entry of the registry.
pub struct Format {
    /// The word after ENCODE, lower case.
    pub name: &'static str,
    /// Makes a decoder.
    pub decoder: MakeDecoder,
    /// Makes an encoder for `schema`.
    pub encoder: fn(schema: SchemaRef, options: &FormatOptions) -> Result<Box<dyn Encoder>>,
    /// How records lie in a stream of bytes.
    pub framing: fn(&FormatOptions) -> Result<Framing>,
}

/// Every format, sorted by name.
pub const FORMATS: &[Format] = &[raw::BYTES, csv::FORMAT, json::FORMAT, raw::TEXT];

/// The changelog encoding of a topic: how messages stand for changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changelog {
    /// FORMAT PLAIN: every message is an insert.
    Plain,
    /// FORMAT UPSERT: a message replaces the row of its key, an empty payload deletes it.
    Upsert,
    /// FORMAT DEBEZIUM: a message tells a row before and after a change.
    Debezium,
}

impl Changelog {
    /// Every word after FORMAT.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Upsert, Self::Debezium];

    /// The word after FORMAT.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Upsert => "UPSERT",
            Self::Debezium => "DEBEZIUM",
        }
    }

    /// Whether messages change the row of their key, so that a source needs a primary key.
    pub fn is_keyed(self) -> bool {
        self != Self::Plain
    }
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

    /// A reader of messages that wants some of the columns of `schema`. `key`: the primary key.
    pub fn changes(&self, schema: &SchemaRef, columns: &[usize], key: &[usize]) -> Result<Changes> {
        Changes::new(self, schema, columns, key)
    }

    /// A writer of messages; `key`: the columns of the message's key, where it has one.
    pub fn outgoing(&self, schema: &SchemaRef, key: &[usize], name: &str) -> Result<Outgoing> {
        Outgoing::new(self, schema, key, name)
    }

    /// How records lie in a stream of bytes.
    pub fn framing(&self) -> Result<Framing> {
        (self.lookup()?.framing)(&self.options)
    }

    /// A decoder of all columns.
    pub fn decoder(&self, schema: SchemaRef) -> Result<Box<dyn Decoder>> {
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        (self.lookup()?.decoder)(&schema, &all, &self.options)
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

    /// The changes of keys are read from and written to JSON alone.
    fn require_json(&self) -> Result<()> {
        if self.encode == "json" {
            return Ok(());
        }
        self.lookup()?;
        let (format, encode) = (self.changelog.name(), self.encode.to_uppercase());
        Err(Error::unsupported(format!("FORMAT {format} ENCODE {encode} is not supported"))
            .with_hint(format!("Use FORMAT {format} ENCODE JSON, or FORMAT PLAIN.")))
    }
}

/// A schema without the columns that nobody reads.
pub fn project(schema: &SchemaRef, columns: &[usize]) -> Result<SchemaRef> {
    Ok(Arc::new(schema.project(columns)?))
}

/// Refuses options that an encoding does not know.
fn refuse_options_of(encode: &str, options: &FormatOptions, known: &[&str]) -> Result<()> {
    let Some(name) = options.keys().find(|name| !known.contains(&name.as_str())) else {
        return Ok(());
    };
    let hint = match known {
        [] => format!("ENCODE {encode} has no options here."),
        _ => format!("Known options: {}.", known.join(", ")),
    };
    Err(Error::user(
        sqlstate::INVALID_PARAMETER_VALUE,
        format!("unknown option \"{name}\" of ENCODE {encode}"),
    )
    .with_hint(hint))
}

/// The options without those that were read already.
fn without(options: &FormatOptions, names: &[&str]) -> FormatOptions {
    let rest = options.iter().filter(|(name, _)| !names.contains(&name.as_str()));
    rest.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A boolean option.
fn flag(options: &FormatOptions, name: &str) -> Result<Option<bool>> {
    let words = ["true", "on", "yes", "1", "false", "off", "no", "0"];
    let words: Vec<(&str, bool)> =
        words.iter().enumerate().map(|(i, word)| (*word, i < words.len() / 2)).collect();
    word(options, name, &words)
}

/// An option that is one of a few words.
fn word<T: Copy>(options: &FormatOptions, name: &str, words: &[(&str, T)]) -> Result<Option<T>> {
    let Some(text) = options.get(name) else { return Ok(None) };
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim()));
    found.map(|(_, value)| Some(*value)).ok_or_else(|| {
        let all: Vec<String> = words.iter().map(|(word, _)| format!("'{word}'")).collect();
        Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("invalid value for option \"{name}\": \"{text}\""),
        )
        .with_detail(format!("It must be one of {}.", all.join(", ")))
    })
}
