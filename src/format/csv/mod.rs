//! ENCODE CSV: one record per message or line, one field per column, as PostgreSQL's COPY has it.
//!
//! Reading ([`decode`]): a field in double quotes may hold delimiters, line ends and, doubled,
//! quotes. An empty field without quotes is NULL (`null` names another text), one with quotes is an
//! empty text. Values are read by PostgreSQL's input rules, those of ENCODE JSON for strings. A
//! record with too few or too many fields, an open quote or a value that its column can't take is
//! rejected alone.
//!
//! A file begins with a header that names the columns, in any order and among others, unless
//! `without_header = true`; then, and in messages, fields are the columns in their order.
//!
//! Writing ([`encode`]): quotes where they are needed; text of values as in query results.
//!
//! Options of `ENCODE CSV (..)`: `delimiter` (one byte, by default `,`), `null`, `without_header`.
//!
//! Why not the `csv` crate: it does not tell a quoted field from a bare one, so NULL from an empty
//! text, and takes damaged records as they come.

mod decode;
mod encode;
mod record;

use arrow::datatypes::SchemaRef;

pub(super) use self::record::{check_text, end_of_record};
use super::{Decoder, Encoder, Format, FormatOptions, Framing, flag, refuse_options_of};
use crate::error::{Error, Result, sqlstate};

/// The entry of the registry.
pub const FORMAT: Format = Format { name: "csv", decoder, encoder, framing };

const OPTIONS: &[&str] = &["delimiter", "null", "without_header"];

/// What the options say.
#[derive(Debug, Clone)]
struct Dialect {
    delimiter: u8,
    /// The text that is NULL where it has no quotes.
    null: Vec<u8>,
    header: bool,
}

impl Dialect {
    fn read(options: &FormatOptions) -> Result<Self> {
        refuse_options_of("CSV", options, OPTIONS)?;
        let delimiter = match options.get("delimiter").map(|text| text.as_bytes()) {
            None => b',',
            Some(b"\\t") => b'\t',
            Some([byte]) if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => *byte,
            Some(_) => return Err(invalid("delimiter", "one byte, not a quote or a line end")),
        };
        let null = options.get("null").map_or_else(Vec::new, |text| text.clone().into_bytes());
        if null.iter().any(|b| matches!(*b, b'"' | b'\n' | b'\r') || *b == delimiter) {
            return Err(invalid("null", "without delimiter, quote and line end"));
        }
        let header = !flag(options, "without_header")?.unwrap_or(false);
        Ok(Self { delimiter, null, header })
    }
}

fn invalid(name: &str, wanted: &str) -> Error {
    Error::user(
        sqlstate::INVALID_PARAMETER_VALUE,
        format!("invalid value for option \"{name}\" of ENCODE CSV"),
    )
    .with_detail(format!("It must be {wanted}."))
}

fn decoder(
    schema: &SchemaRef,
    columns: &[usize],
    options: &FormatOptions,
) -> Result<Box<dyn Decoder>> {
    let dialect = Dialect::read(options)?;
    Ok(Box::new(decode::CsvDecoder::new(schema, columns, dialect)?))
}

fn encoder(schema: SchemaRef, options: &FormatOptions) -> Result<Box<dyn Encoder>> {
    let dialect = Dialect::read(options)?;
    Ok(Box::new(encode::CsvEncoder::new(&schema, dialect)))
}

fn framing(options: &FormatOptions) -> Result<Framing> {
    let Dialect { delimiter, header, .. } = Dialect::read(options)?;
    Ok(Framing::Quoted { delimiter, header })
}

/// The header line of a schema.
pub(super) fn header_of(schema: &SchemaRef, options: &FormatOptions) -> Result<Option<Vec<u8>>> {
    let dialect = Dialect::read(options)?;
    Ok(dialect.header.then(|| encode::header(schema, &dialect)))
}
