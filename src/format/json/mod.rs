//! ENCODE JSON: one JSON object per message, one field per column.
//!
//! Reading ([`decode`]): a field belongs to the column of the same name, exactly or else in ASCII
//! lower case (SQL folds identifiers, so column `datetime` reads field `dateTime`); unknown fields
//! are skipped; a missing field and `null` are NULL; of a field given twice the last one counts.
//! Numbers are read from their text, never through a float. Strings are accepted for every type in
//! PostgreSQL's input syntax; a `text` column takes numbers, booleans, arrays and objects as their
//! JSON text. An integer for a timestamp column is milliseconds since the Unix epoch.
//!
//! Writing ([`encode`]): columns in schema order, numbers as numbers (`numeric` exactly), NaN and
//! infinities as strings, timestamps as `YYYY-MM-DD HH:MM:SS.ffffff`, `bytea` as `\x..`.
//! What is written is read back as the same value.
//!
//! There are no options in `ENCODE JSON (..)` yet; any is refused.

mod column;
mod datetime;
mod decode;
mod encode;
mod fault;
mod scalar;
mod scan;
#[cfg(test)]
mod tests;

pub(crate) use datetime::write_timestamp;

use arrow::datatypes::SchemaRef;

use super::{Decoder, Encoder, Format, FormatOptions};
use crate::error::{Error, Result, sqlstate};

/// The entry of the registry.
pub const FORMAT: Format = Format { name: "json", decoder, encoder };

fn decoder(schema: SchemaRef, options: &FormatOptions) -> Result<Box<dyn Decoder>> {
    refuse_options(options)?;
    Ok(Box::new(decode::JsonDecoder::new(schema)?))
}

fn encoder(schema: SchemaRef, options: &FormatOptions) -> Result<Box<dyn Encoder>> {
    refuse_options(options)?;
    Ok(Box::new(encode::JsonEncoder::new(&schema)?))
}

fn refuse_options(options: &FormatOptions) -> Result<()> {
    match options.keys().next() {
        None => Ok(()),
        Some(name) => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("unknown option \"{name}\" of ENCODE JSON"),
        )
        .with_hint("ENCODE JSON has no options.")),
    }
}
