//! `INCLUDE partition | offset | timestamp | key | header 'name' [text | bytea] [AS column]`:
//! columns that hold something about a message instead of something in it.

use arrow::datatypes::{DataType, TimeUnit};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::StreamParser;
use super::columns::{TableBody, bare};
use crate::connector::{Included, Metadata};
use crate::delta::text::UTC;
use crate::error::{Error, Result, sqlstate};
use crate::sql::types::sql_type;

/// One INCLUDE clause: name, type, meaning.
type IncludedColumn = (String, DataType, Metadata);

impl StreamParser<'_> {
    /// The INCLUDE clauses that come next; their columns are added behind the others.
    pub(super) fn include_clauses(&mut self, body: &mut TableBody) -> Result<Vec<Included>> {
        let mut include = Vec::new();
        while self.accept_word("include") {
            let (name, data_type, what) = self.include_clause()?;
            let columns = &mut body.columns.0;
            if columns.iter().any(|c| c.name == name) {
                return Err(Error::user(
                    sqlstate::DUPLICATE_COLUMN,
                    format!("column \"{name}\" specified more than once"),
                )
                .with_hint("Name the column, as in INCLUDE offset AS message_offset."));
            }
            include.push(Included { column: columns.len(), what });
            columns.push(bare(name, data_type));
        }
        Ok(include)
    }

    fn include_clause(&mut self) -> Result<IncludedColumn> {
        let word = self.peek_word(0).unwrap_or_default();
        let (data_type, what) = match word.as_str() {
            "partition" => (DataType::Int32, Metadata::Partition),
            "offset" => (DataType::Int64, Metadata::Offset),
            "timestamp" => {
                let utc = Some(UTC.into());
                (DataType::Timestamp(TimeUnit::Microsecond, utc), Metadata::Timestamp)
            }
            "key" => (DataType::Binary, Metadata::Key),
            "header" => (DataType::Binary, Metadata::Header(String::new())),
            "payload" | "file" | "database_name" | "schema_name" | "table_name" => {
                return Err(Error::unsupported(format!("INCLUDE {word} is not supported yet"))
                    .with_hint(WORDS));
            }
            _ => return Err(self.unexpected()),
        };
        self.p.advance_token();
        let what = match what {
            Metadata::Header(_) => Metadata::Header(self.header_name()?),
            other => other,
        };
        let data_type = match data_type {
            DataType::Binary if !self.p.peek_keyword(Keyword::AS) => self.bytes_type()?,
            other => other,
        };
        let name = match self.accept(Keyword::AS) {
            true => self.identifier()?,
            false => default_name(&word, &what),
        };
        Ok((name, data_type, what))
    }

    fn header_name(&mut self) -> Result<String> {
        let name = match &self.p.peek_token_ref().token {
            Token::SingleQuotedString(name) if !name.is_empty() => name.clone(),
            _ => {
                return Err(Error::user(
                    sqlstate::SYNTAX_ERROR,
                    "INCLUDE header needs the name of a header",
                )
                .with_hint("As in: INCLUDE header 'trace_id' AS trace_id."));
            }
        };
        self.p.advance_token();
        Ok(name)
    }

    /// `text` or `bytea`, which is the default.
    fn bytes_type(&mut self) -> Result<DataType> {
        let word = self.peek_word(0).unwrap_or_default();
        if !matches!(word.as_str(), "text" | "varchar" | "bytea" | "character") {
            return Ok(DataType::Binary);
        }
        let parsed = self.p.parse_data_type();
        sql_type(&self.sql(parsed)?)
    }
}

const WORDS: &str = "Use INCLUDE partition, offset, timestamp, key or header 'name'.";

/// The name of a column without AS: that of the field, as `kafka_offset`; a header has its own.
fn default_name(word: &str, what: &Metadata) -> String {
    match what {
        Metadata::Header(name) => name.to_lowercase(),
        _ => format!("kafka_{word}"),
    }
}
