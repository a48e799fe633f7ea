//! ALTER TABLE of columns and constraints.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::StreamParser;
use super::columns::TableBody;
use crate::catalog::local_name;
use crate::error::{Error, Result};
use crate::sql::pass::over_parsed_expr;
use crate::sql::statement::{AlterTable, Statement, TableAction};

impl StreamParser<'_> {
    /// What follows `ALTER TABLE name`; `None` where it is about something else.
    pub(super) fn table_actions(
        &mut self,
        name: &str,
        if_exists: bool,
    ) -> Result<Option<Statement>> {
        let second = self.peek_word(1);
        let about = match self.peek_word(0).as_deref() {
            Some("add" | "alter" | "drop") => true,
            Some("rename") => second.is_some_and(|word| word != "to"),
            _ => false,
        };
        if !about {
            return Ok(None);
        }
        let mut actions = Vec::new();
        loop {
            actions.push(self.table_action(local_name(name))?);
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        let name = name.to_owned();
        Ok(Some(Statement::AlterTable(Box::new(AlterTable { name, if_exists, actions }))))
    }

    fn table_action(&mut self, table: &str) -> Result<TableAction> {
        if self.accept_word("rename") {
            if self.accept_word("constraint") {
                return Err(Error::unsupported("RENAME CONSTRAINT is not supported")
                    .with_hint("DROP the constraint, and ADD it under the other name."));
            }
            self.accept_word("column");
            let from = self.identifier()?;
            self.expect_word("to")?;
            return Ok(TableAction::Rename { from, to: self.identifier()? });
        }
        if self.accept_word("add") {
            return self.table_addition(table);
        }
        if self.accept_word("drop") {
            let constraint = self.accept_word("constraint");
            if !constraint {
                self.accept_word("column");
            }
            let if_exists = self.p.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            let name = self.identifier()?;
            if self.accept_word("cascade") {
                return Err(Error::unsupported("DROP .. CASCADE in ALTER TABLE is not supported")
                    .with_hint("DROP the views that read it first."));
            }
            self.accept_word("restrict");
            return Ok(match constraint {
                true => TableAction::DropConstraint { name, if_exists },
                false => TableAction::Drop { column: name, if_exists },
            });
        }
        self.expect_word("alter")?;
        self.accept_word("column");
        self.column_action()
    }

    /// Behind ADD.
    fn table_addition(&mut self, table: &str) -> Result<TableAction> {
        let mut body = TableBody::of(table);
        let written = self.accept_word("column");
        let if_not_exists = written && self.if_not_exists();
        let if_not_exists = if_not_exists || !written && self.if_not_exists();
        self.table_element(&mut body)?;
        if body.watermark.is_some() {
            return Err(Error::unsupported("ALTER TABLE .. ADD WATERMARK is not supported"));
        }
        match body.addition() {
            Some(TableAction::Add { column, key, checks, .. }) => {
                Ok(TableAction::Add { column, key, checks, if_not_exists })
            }
            Some(action) if !written => Ok(action),
            _ => Err(self.unexpected()),
        }
    }

    /// Behind ALTER COLUMN.
    fn column_action(&mut self) -> Result<TableAction> {
        let column = self.identifier()?;
        if self.accept_words(&["set", "default"]) {
            let expr = self.default_expr()?;
            return Ok(TableAction::Default { column, expr: Some(expr) });
        }
        if self.accept_words(&["drop", "default"]) {
            return Ok(TableAction::Default { column, expr: None });
        }
        if self.accept_words(&["set", "not", "null"]) {
            return Ok(TableAction::Nullable { column, nullable: false });
        }
        if self.accept_words(&["drop", "not", "null"]) {
            return Ok(TableAction::Nullable { column, nullable: true });
        }
        if self.accept_words(&["add", "generated"]) {
            let (identity, sequence) = self.identity()?;
            return Ok(TableAction::AddIdentity { column, identity, sequence });
        }
        if self.accept_words(&["drop", "identity"]) {
            let if_exists = self.p.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            return Ok(TableAction::DropIdentity { column, if_exists });
        }
        if let Some((identity, options)) = self.identity_changes()? {
            return Ok(TableAction::SetIdentity { column, identity, options });
        }
        if !self.accept_words(&["set", "data", "type"]) && !self.accept_word("type") {
            return Err(Error::unsupported("this form of ALTER COLUMN is not supported yet")
                .with_hint("SET DEFAULT, DROP DEFAULT, SET NOT NULL, DROP NOT NULL, TYPE are."));
        }
        let column = Box::new(self.column_type(column)?);
        let using = match self.accept_word("using") {
            true => {
                let expr = self.p.parse_expr();
                let mut expr = self.sql(expr)?;
                over_parsed_expr(&mut expr)?;
                Some(expr)
            }
            false => None,
        };
        Ok(TableAction::Type { column, using })
    }
}
