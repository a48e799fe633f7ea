//! ENCODE JSON: one JSON object per message, one field per column.
//!
//! Reading ([`decode`]): a field belongs to the column of the same name, exactly or else in ASCII
//! lower case (SQL folds identifiers, so column `datetime` reads field `dateTime`); unknown fields
//! are skipped; a missing field and `null` are NULL; of a field given twice the last one counts.
//! Numbers are read from their text, never through a float. Strings are accepted for every type in
//! PostgreSQL's input syntax; a `text` column takes numbers, booleans, arrays and objects as their
//! JSON text. A number for a timestamp column is milliseconds since the Unix epoch, or what
//! `ENCODE JSON (timestamp.handling.mode = 'second')` says: `second`, `milli`, `micro`, `nano`.
//!
//! Writing ([`encode`]): columns in schema order, numbers as numbers (`numeric` exactly), NaN and
//! infinities as strings, timestamps as `YYYY-MM-DD HH:MM:SS.ffffff`, `bytea` as `\x..`.
//! What is written is read back as the same value.
//!
//! The options of the word after FORMAT are in [`super::changes`] and [`super::outgoing`].

pub(in crate::format) mod column;
mod datetime;
pub(in crate::format) mod decode;
mod encode;
pub(in crate::format) mod fault;
pub(in crate::format) mod reading;
mod scalar;
pub(in crate::format) mod scan;
mod spelled;
#[cfg(test)]
mod tests;

pub(crate) use datetime::write_timestamp;

use arrow::datatypes::SchemaRef;

use self::reading::Unit;
use super::{Decoder, Encoder, Format, FormatOptions, Framing, project, refuse_options_of, word};
use crate::error::Result;

/// The options of reading.
const READ_OPTIONS: &[&str] = &["timestamp.handling.mode"];

/// The entry of the registry.
pub const FORMAT: Format = Format { name: "json", decoder, encoder, framing };

fn decoder(
    schema: &SchemaRef,
    columns: &[usize],
    options: &FormatOptions,
) -> Result<Box<dyn Decoder>> {
    refuse_options_of("JSON", options, READ_OPTIONS)?;
    let unit = word(options, "timestamp.handling.mode", &Unit::NAMES)?.unwrap_or_default();
    let mut decoder = decode::JsonDecoder::new(project(schema, columns)?)?;
    decoder.columns_mut().iter_mut().for_each(|column| column.unit = unit);
    Ok(Box::new(decoder))
}

fn encoder(schema: SchemaRef, options: &FormatOptions) -> Result<Box<dyn Encoder>> {
    refuse_options_of("JSON", options, &[])?;
    Ok(Box::new(encode::JsonEncoder::new(&schema)?))
}

fn framing(_options: &FormatOptions) -> Result<Framing> {
    Ok(Framing::Lines)
}
