//! CREATE INDEX.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::StreamParser;
use crate::catalog::{qualified, schema_and_name};
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::{CreateIndex, Statement};

impl StreamParser<'_> {
    /// `[CONCURRENTLY] [[IF NOT EXISTS] name] ON [ONLY] r [USING m] (..) [INCLUDE (..)] ..`; the
    /// word INDEX has been read.
    pub(super) fn create_index(&mut self, unique: bool) -> Result<Statement> {
        self.accept_word("concurrently");
        let if_not_exists = self.if_not_exists();
        let named = if_not_exists || self.peek_word(0).as_deref() != Some("on");
        let name = if named { Some(self.identifier()?) } else { None };
        self.expect_keyword(Keyword::ON)?;
        self.accept_word("only");
        let relation = self.name()?;
        // An index is in the schema of what it is of.
        let name = name.map(|name| qualified(schema_and_name(&relation).0, &name));
        if self.accept_word("using") {
            self.access_method()?;
        }
        self.expect(&Token::LParen)?;
        let mut columns = vec![self.index_column()?];
        while self.p.consume_token(&Token::Comma) {
            columns.push(self.index_column()?);
        }
        self.expect(&Token::RParen)?;
        if self.accept_word("include") {
            // All columns of a row are at hand where the index leads.
            self.name_list()?;
        }
        if self.accept_words(&["nulls", "not", "distinct"]) && unique {
            return Err(Error::unsupported("NULLS NOT DISTINCT is not supported"));
        }
        let _default = self.accept_words(&["nulls", "distinct"]);
        if self.accept_word("with") {
            return Err(Error::unsupported("WITH (..) of an index is not supported")
                .with_hint("Leave it out: an index has no parameters."));
        }
        if self.accept_word("tablespace") {
            self.identifier()?;
        }
        if self.accept_word("where") {
            return Err(Error::unsupported("a partial index is not supported")
                .with_hint("Leave WHERE out, or index a materialized view with that WHERE."));
        }
        let create = CreateIndex { name, relation, columns, unique, if_not_exists };
        Ok(Statement::CreateIndex(create))
    }

    fn access_method(&mut self) -> Result<()> {
        let method = self.identifier()?;
        match method.as_str() {
            "btree" | "hash" => Ok(()),
            "gin" | "gist" | "brin" | "spgist" => {
                Err(Error::unsupported(format!("index method \"{method}\" is not supported"))
                    .with_hint("Leave USING out: indexes are for reads by equality."))
            }
            _ => Err(Error::user(
                sqlstate::UNDEFINED_OBJECT,
                format!("access method \"{method}\" does not exist"),
            )),
        }
    }

    /// A column; an order of its values has no meaning for reads by equality.
    fn index_column(&mut self) -> Result<String> {
        let expression = || {
            Error::unsupported("an index on an expression is not supported")
                .with_hint("Compute it in a materialized view and index its column.")
        };
        if self.p.peek_token_ref().token == Token::LParen {
            return Err(expression());
        }
        let column = self.identifier()?;
        if self.p.peek_token_ref().token == Token::LParen {
            return Err(expression());
        }
        if self.accept_word("collate") {
            self.p.parse_object_name(false).ok();
        }
        let _order = self.accept_word("asc") || self.accept_word("desc");
        if self.accept_word("nulls") && !self.accept_word("first") {
            self.expect_word("last")?;
        }
        let ends = [Token::Comma, Token::RParen].contains(&self.p.peek_token_ref().token);
        match ends {
            true => Ok(column),
            // As `text_pattern_ops`.
            false => Err(Error::unsupported("an operator class is not supported")),
        }
    }
}
