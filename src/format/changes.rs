//! Messages to changes, by the word after FORMAT.
//!
//! PLAIN: a message is a row. UPSERT: a message replaces the row of its key, without a value it
//! deletes it. DEBEZIUM: see [`super::debezium`]. A change of a key is a row that takes the place
//! of the one with its key, or a deletion in which only the key counts; the table that the rows are
//! for turns that into retractions.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::debezium::{DebeziumDecoder, READ_OPTIONS, ReadOptions};
use super::{Changelog, DecodeError, Decoder, FormatSpec, project, refuse_options_of};
use crate::error::{Error, Result, sqlstate};

/// Reads messages of one split.
///
/// Contract: `read` appends the rows of a message, none when it is no change, or returns an error
/// and leaves everything as it was; `finish` takes what was appended.
pub struct Changes {
    form: Form,
    /// For each row whether it is a deletion; empty for FORMAT PLAIN.
    deletes: Vec<bool>,
}

enum Form {
    Plain(Box<dyn Decoder>),
    /// With the key's columns among the wanted ones.
    Upsert(Box<dyn Decoder>, Vec<usize>),
    Debezium(Box<DebeziumDecoder>),
}

impl Changes {
    pub(super) fn new(
        spec: &FormatSpec,
        schema: &SchemaRef,
        columns: &[usize],
        key: &[usize],
    ) -> Result<Self> {
        let decoder = || (spec.lookup()?.decoder)(schema, columns, &spec.options);
        let form = match spec.changelog {
            Changelog::Plain => Form::Plain(decoder()?),
            Changelog::Upsert => {
                spec.require_json()?;
                Form::Upsert(decoder()?, places(spec.changelog, key, columns)?)
            }
            Changelog::Debezium => {
                spec.require_json()?;
                refuse_options_of("JSON", &spec.options, READ_OPTIONS)?;
                let key = places(spec.changelog, key, columns)?;
                let options = ReadOptions::read(&spec.options)?;
                let schema = project(schema, columns)?;
                Form::Debezium(Box::new(DebeziumDecoder::new(schema, key, options)?))
            }
        };
        Ok(Self { form, deletes: Vec::new() })
    }

    /// Appends the rows of a message.
    #[inline]
    pub fn read(&mut self, key: Option<&[u8]>, payload: Option<&[u8]>) -> Result<(), DecodeError> {
        match (&mut self.form, payload) {
            (Form::Plain(decoder), Some(payload)) => decoder.decode(payload),
            (Form::Plain(_), None) => Err(error("message has no value")),
            (Form::Upsert(_, columns), None) if key.is_none() && !columns.is_empty() => {
                Err(error("message has neither key nor value"))
            }
            (Form::Upsert(decoder, columns), payload) => {
                decoder.decode_keyed(columns, key, payload)?;
                self.deletes.push(payload.is_none());
                Ok(())
            }
            (Form::Debezium(decoder), Some(payload)) => {
                decoder.read(key, payload, &mut self.deletes)
            }
            // A tombstone, which follows the event that says the same.
            (Form::Debezium(_), None) => Ok(()),
        }
    }

    /// Takes the record that names the columns; see [`super::Framing::has_header`].
    pub fn header(&mut self, record: &[u8]) -> Result<()> {
        match &mut self.form {
            Form::Plain(decoder) | Form::Upsert(decoder, _) => decoder.header(record),
            Form::Debezium(_) => Err(Error::internal("a header for a format without one")),
        }
    }

    /// Rows appended since the last `finish`.
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Plain(decoder) | Form::Upsert(decoder, _) => decoder.len(),
            Form::Debezium(decoder) => decoder.len(),
        }
    }

    /// True when nothing was appended since the last `finish`.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the rows, and which of them are deletions, where there are any.
    pub fn finish(&mut self) -> Result<(RecordBatch, Option<BooleanArray>)> {
        let rows = match &mut self.form {
            Form::Plain(decoder) | Form::Upsert(decoder, _) => decoder.finish()?,
            Form::Debezium(decoder) => decoder.finish()?,
        };
        let deletes = std::mem::take(&mut self.deletes);
        Ok((rows, deletes.contains(&true).then(|| BooleanArray::from(deletes))))
    }
}

/// The key's columns among the wanted ones.
fn places(format: Changelog, key: &[usize], columns: &[usize]) -> Result<Vec<usize>> {
    if key.is_empty() && format == Changelog::Debezium {
        let message = format!("FORMAT {} requires a primary key", format.name());
        return Err(Error::user(sqlstate::INVALID_TABLE_DEFINITION, message)
            .with_hint("Add PRIMARY KEY (..) with the columns that tell rows apart."));
    }
    let place = |key: &usize| columns.iter().position(|column| column == key);
    let places: Option<Vec<usize>> = key.iter().map(place).collect();
    places.ok_or_else(|| Error::internal("a reader of changes must want all key columns"))
}

fn error(reason: &str) -> DecodeError {
    DecodeError { column: None, reason: reason.into() }
}
