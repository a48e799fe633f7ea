//! CREATE SEQUENCE, ALTER SEQUENCE, and what stands in the parentheses of an identity column.

use sqlparser::ast;
use sqlparser::tokenizer::Token;

use super::StreamParser;
use crate::catalog::sequence::{SequenceOptions, SequenceType};
use crate::catalog::{local_name, qualified, schema_and_name};
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::{AlterSequence, CreateSequence, Rename, SequenceStatement, Statement};

impl StreamParser<'_> {
    /// `[IF NOT EXISTS] name ..`; the word SEQUENCE has been read.
    pub(super) fn create_sequence(&mut self) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.new_name()?;
        let options = self.sequence_options(false)?;
        let create = CreateSequence { name, if_not_exists, options };
        Ok(Statement::Sequence(SequenceStatement::Create(create)))
    }

    /// `[IF EXISTS] name ..`; the word SEQUENCE has been read.
    pub(super) fn alter_sequence(&mut self) -> Result<Statement> {
        let if_exists = self.accept_words(&["if", "exists"]);
        let name = self.name()?;
        if let Some(statement) = self.owner("sequence", &name)? {
            return Ok(statement);
        }
        let to = if self.accept_words(&["rename", "to"]) {
            Some(qualified(schema_and_name(&name).0, &self.identifier()?))
        } else if self.accept_words(&["set", "schema"]) {
            Some(qualified(&self.identifier()?, local_name(&name)))
        } else {
            None
        };
        if let Some(to) = to {
            return Ok(Statement::Rename(Rename { noun: "sequence", name, to, if_exists }));
        }
        let options = self.sequence_options(true)?;
        if options == SequenceOptions::default() {
            return Err(self.unexpected());
        }
        let alter = AlterSequence { name, if_exists, options };
        Ok(Statement::Sequence(SequenceStatement::Alter(alter)))
    }

    /// The clauses of a sequence, each of them once, up to something else.
    pub(super) fn sequence_options(&mut self, altered: bool) -> Result<SequenceOptions> {
        let mut options = SequenceOptions::default();
        while let Some(twice) = self.add_sequence_option(altered, &mut options)? {
            if twice {
                let message = "conflicting or redundant options";
                return Err(Error::user(sqlstate::SYNTAX_ERROR, message));
            }
        }
        Ok(options)
    }

    /// Reads one clause, if there is one; whether it was there before.
    pub(super) fn add_sequence_option(
        &mut self,
        altered: bool,
        options: &mut SequenceOptions,
    ) -> Result<Option<bool>> {
        let twice = if self.accept_word("as") {
            options.data_type.replace(self.sequence_type()?).is_some()
        } else if self.accept_word("increment") {
            self.accept_word("by");
            options.increment.replace(self.sequence_number()?).is_some()
        } else if self.accept_word("minvalue") {
            options.min.replace(Some(self.sequence_number()?)).is_some()
        } else if self.accept_words(&["no", "minvalue"]) {
            options.min.replace(None).is_some()
        } else if self.accept_word("maxvalue") {
            options.max.replace(Some(self.sequence_number()?)).is_some()
        } else if self.accept_words(&["no", "maxvalue"]) {
            options.max.replace(None).is_some()
        } else if self.accept_word("start") {
            self.accept_word("with");
            options.start.replace(self.sequence_number()?).is_some()
        } else if altered && self.accept_word("restart") {
            options.restart.replace(self.restart_value()?).is_some()
        } else if self.accept_word("cache") {
            options.cache.replace(self.sequence_number()?).is_some()
        } else if self.accept_word("cycle") {
            options.cycle.replace(true).is_some()
        } else if self.accept_words(&["no", "cycle"]) {
            options.cycle.replace(false).is_some()
        } else if self.accept_words(&["owned", "by"]) {
            options.owned_by.replace(self.sequence_owner()?).is_some()
        } else {
            return Ok(None);
        };
        Ok(Some(twice))
    }

    fn restart_value(&mut self) -> Result<Option<i64>> {
        let number = |token: &Token| matches!(token, Token::Number(..) | Token::Minus);
        match self.accept_word("with") || number(&self.p.peek_token_ref().token) {
            true => self.sequence_number().map(Some),
            false => Ok(None),
        }
    }

    fn sequence_type(&mut self) -> Result<SequenceType> {
        let sql = self.p.parse_data_type();
        match self.sql(sql)? {
            ast::DataType::SmallInt(None) | ast::DataType::Int2(None) => Ok(SequenceType::SmallInt),
            ast::DataType::Int(None) | ast::DataType::Integer(None) | ast::DataType::Int4(None) => {
                Ok(SequenceType::Integer)
            }
            ast::DataType::BigInt(None) | ast::DataType::Int8(None) => Ok(SequenceType::BigInt),
            _ => Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                "sequence type must be smallint, integer, or bigint",
            )),
        }
    }

    /// A whole number with or without a sign.
    fn sequence_number(&mut self) -> Result<i64> {
        let sign = if self.p.consume_token(&Token::Minus) { "-" } else { "" };
        if sign.is_empty() {
            let _sign = self.p.consume_token(&Token::Plus);
        }
        let Token::Number(digits, _) = self.p.peek_token_ref().token.clone() else {
            return Err(self.unexpected());
        };
        self.p.advance_token();
        let text = format!("{sign}{digits}");
        text.parse().map_err(|_| {
            Error::user(
                sqlstate::INVALID_TEXT_REPRESENTATION,
                format!("invalid input syntax for type bigint: \"{text}\""),
            )
        })
    }

    /// `table.column`, or NONE.
    fn sequence_owner(&mut self) -> Result<Option<(String, String)>> {
        if self.accept_word("none") {
            return Ok(None);
        }
        let mut parts = vec![self.identifier()?];
        while self.p.consume_token(&Token::Period) {
            parts.push(self.identifier()?);
        }
        match parts.as_slice() {
            [table, column] => Ok(Some((table.clone(), column.clone()))),
            [schema, table, column] => Ok(Some((qualified(schema, table), column.clone()))),
            _ => Err(Error::user(sqlstate::SYNTAX_ERROR, "invalid OWNED BY option")
                .with_hint("Specify OWNED BY table.column or OWNED BY NONE.")),
        }
    }
}
