//! `ROW<a bigint, b ROW<..>>` of Flink, and `STRUCT<..>` of RisingWave: columns with fields. What
//! is kept of one is jsonb; its fields have the types that are declared here.

use arrow::datatypes::{DataType, Field, Fields};
use sqlparser::tokenizer::Token;

use super::StreamParser;
use crate::error::{Error, Result, sqlstate};
use crate::sql::types::sql_type;

impl StreamParser<'_> {
    /// The type of a column with fields, if that is what comes next, as a struct.
    pub(super) fn record_type(&mut self) -> Result<Option<DataType>> {
        if !self.begins_record() {
            return Ok(None);
        }
        // `>>` closes two of them.
        let mut closed = 0;
        let record = self.record(&mut closed)?;
        match closed {
            0 => Ok(Some(record)),
            _ => Err(self.unexpected()),
        }
    }

    fn begins_record(&self) -> bool {
        let word = self.peek_word(0);
        let opens = [Token::Lt, Token::LParen].contains(&self.p.peek_nth_token_ref(1).token);
        opens && word.is_some_and(|word| word == "row" || word == "struct")
    }

    /// `ROW<name type, ..>`; `closed` says how many `>` have been read behind its own.
    fn record(&mut self, closed: &mut usize) -> Result<DataType> {
        self.p.advance_token();
        let parentheses = self.p.consume_token(&Token::LParen);
        if !parentheses {
            self.expect(&Token::Lt)?;
        }
        let mut fields: Vec<Field> = Vec::new();
        loop {
            let name = self.identifier()?;
            if fields.iter().any(|field| *field.name() == name) {
                return Err(Error::user(
                    sqlstate::DUPLICATE_COLUMN,
                    format!("field \"{name}\" specified more than once"),
                ));
            }
            let data_type = match self.begins_record() {
                true => self.record(closed)?,
                false => self.field_type(&name)?,
            };
            fields.push(Field::new(name, data_type, true));
            if *closed > 0 || !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        if *closed > 0 {
            *closed -= 1;
        } else if parentheses {
            self.expect(&Token::RParen)?;
        } else if self.p.consume_token(&Token::ShiftRight) {
            *closed = 1;
        } else {
            self.expect(&Token::Gt)?;
        }
        Ok(DataType::Struct(Fields::from(fields)))
    }

    fn field_type(&mut self, name: &str) -> Result<DataType> {
        let sql = self.p.parse_data_type();
        match sql_type(&self.sql(sql)?)? {
            DataType::List(_) => {
                Err(Error::unsupported(format!("field \"{name}\" of a row can't be an array"))
                    .with_hint("Declare it as jsonb, and use jsonb_array_elements_text(field)."))
            }
            data_type => Ok(data_type),
        }
    }
}
