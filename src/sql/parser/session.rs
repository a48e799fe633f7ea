//! SUBSCRIBE, SHOW, SET, transactions, and statements that drivers send and that do nothing here.

use sqlparser::tokenizer::Token;

use super::StreamParser;
use crate::error::{Error, Result};
use crate::sql::statement::{Savepoint, Show, Statement, Subscribe};

impl StreamParser<'_> {
    pub(super) fn subscribe(&mut self) -> Result<Statement> {
        self.p.advance_token();
        self.accept_word("to");
        let name = self.name()?;
        let mut subscribe = Subscribe { name, snapshot: true, progress: false };
        if self.accept_word("with") {
            self.expect(&Token::LParen)?;
            loop {
                let option = self.identifier()?;
                let on = match self.p.consume_token(&Token::Eq) {
                    true => self.boolean()?,
                    false => true,
                };
                match option.as_str() {
                    "snapshot" => subscribe.snapshot = on,
                    "progress" => subscribe.progress = on,
                    _ => {
                        return Err(Error::unsupported(format!(
                            "SUBSCRIBE option \"{option}\" is not supported"
                        ))
                        .with_hint("Options are snapshot and progress."));
                    }
                }
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect(&Token::RParen)?;
        }
        Ok(Statement::Subscribe(subscribe))
    }

    fn boolean(&mut self) -> Result<bool> {
        let next = self.p.peek_token_ref().clone();
        match self.option_value()?.to_lowercase().as_str() {
            "true" | "on" | "t" | "1" | "yes" => Ok(true),
            "false" | "off" | "f" | "0" | "no" => Ok(false),
            _ => Err(self.positions.syntax_error(&next)),
        }
    }

    pub(super) fn show(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let show = if self.accept_word("tables") {
            Show::Tables
        } else if self.accept_word("sources") {
            Show::Sources
        } else if self.accept_word("views") {
            Show::Views
        } else if self.accept_words(&["materialized", "views"]) {
            Show::MaterializedViews
        } else if self.accept_word("sinks") {
            Show::Sinks
        } else if self.accept_word("watermarks") {
            Show::Watermarks
        } else if self.accept_word("create") {
            self.kind_of_object()?;
            Show::Create(self.name()?)
        } else if self.accept_word("columns") {
            if !self.accept_word("from") {
                self.expect_word("in")?;
            }
            Show::Columns(self.name()?)
        } else if self.accept_word("all") {
            Show::All
        } else if self.accept_words(&["transaction", "isolation", "level"]) {
            Show::Setting("transaction_isolation".into())
        } else if self.accept_words(&["time", "zone"]) {
            Show::Setting("timezone".into())
        } else {
            Show::Setting(self.setting_name()?)
        };
        Ok(Statement::Show(show))
    }

    fn kind_of_object(&mut self) -> Result<()> {
        if self.accept_words(&["materialized", "view"])
            || ["table", "source", "view", "sink", "index"]
                .iter()
                .any(|kind| self.accept_word(kind))
        {
            return Ok(());
        }
        Err(self.unexpected())
    }

    /// A setting's folded name; a dot separates an extension's prefix.
    fn setting_name(&mut self) -> Result<String> {
        let mut name = self.identifier()?;
        while self.p.consume_token(&Token::Period) {
            name = format!("{name}.{}", self.identifier()?);
        }
        Ok(name)
    }

    pub(super) fn set(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let scoped = self.accept_word("session") || self.accept_word("local");
        let transaction = match self.peek_word(0).as_deref() {
            Some("transaction") => true,
            Some("characteristics") => scoped,
            _ => false,
        };
        if transaction {
            self.skip_rest();
            return Ok(Statement::NoOp("SET"));
        }
        if matches!(self.peek_word(0).as_deref(), Some("role" | "authorization" | "constraints")) {
            return Err(Error::unsupported(
                "SET ROLE, AUTHORIZATION or CONSTRAINTS is not supported",
            ));
        }
        if matches!(self.peek_word(1).as_deref(), Some("manual" | "system"))
            && self.accept_word("clock")
        {
            return self.set_clock();
        }
        let name = if self.accept_words(&["time", "zone"]) {
            "timezone".to_string()
        } else if self.accept_word("names") {
            "client_encoding".to_string()
        } else {
            let name = self.setting_name()?;
            if !self.p.consume_token(&Token::Eq) {
                self.expect_word("to")?;
            }
            name
        };
        if self.peek_word(0).as_deref() == Some("default") {
            self.p.advance_token();
            return Ok(Statement::Set { name, value: None });
        }
        let mut values = vec![self.option_value()?];
        while self.p.consume_token(&Token::Comma) {
            values.push(self.option_value()?);
        }
        Ok(Statement::Set { name, value: Some(values.join(", ")) })
    }

    pub(super) fn reset(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let name = match self.accept_words(&["time", "zone"]) {
            true => "timezone".to_string(),
            false => self.setting_name()?,
        };
        match name.as_str() {
            "all" => Ok(Statement::ResetAll),
            _ => Ok(Statement::Set { name, value: None }),
        }
    }

    pub(super) fn transaction(&mut self) -> Result<Statement> {
        let word = self.peek_word(0).unwrap_or_default();
        self.p.advance_token();
        if word == "start" {
            self.expect_word("transaction")?;
        } else if !self.accept_word("transaction") {
            self.accept_word("work");
        }
        match word.as_str() {
            "begin" | "start" => {
                // Isolation and access modes: every transaction here has the one there is.
                let modes = ["isolation", "read", "not", "deferrable"];
                if self.peek_word(0).is_some_and(|w| modes.contains(&w.as_str())) {
                    self.skip_rest();
                }
                Ok(Statement::Begin)
            }
            "commit" | "end" => {
                self.refuse_chain()?;
                Ok(Statement::Commit)
            }
            _ => {
                if self.accept_word("to") {
                    self.accept_word("savepoint");
                    return Ok(Statement::Savepoint(Savepoint::RollbackTo(self.identifier()?)));
                }
                self.refuse_chain()?;
                Ok(Statement::Rollback)
            }
        }
    }

    /// SAVEPOINT name, RELEASE [SAVEPOINT] name.
    pub(super) fn savepoint(&mut self) -> Result<Statement> {
        let release = self.accept_word("release");
        let _word = self.accept_word("savepoint");
        let name = self.identifier()?;
        Ok(Statement::Savepoint(match release {
            true => Savepoint::Release(name),
            false => Savepoint::Set(name),
        }))
    }

    fn refuse_chain(&mut self) -> Result<()> {
        if self.accept_words(&["and", "no", "chain"]) {
            return Ok(());
        }
        match self.peek_word(0).as_deref() {
            Some("and") => Err(Error::unsupported("AND CHAIN is not supported")),
            Some("prepared") => Err(Error::unsupported("two-phase commit is not supported")),
            _ => Ok(()),
        }
    }

    /// DISCARD and FLUSH; UNLISTEN, which pools of connections send, and ANALYZE and VACUUM, which
    /// have nothing to do here.
    pub(super) fn without_effect(&mut self) -> Result<Statement> {
        let word = self.peek_word(0).unwrap_or_default();
        self.p.advance_token();
        match word.as_str() {
            "discard" => {
                let kinds = ["all", "plans", "sequences", "temp", "temporary"];
                if self.accept_word("all") {
                    return Ok(Statement::DiscardAll);
                }
                match kinds.iter().any(|kind| self.accept_word(kind)) {
                    true => Ok(Statement::NoOp("DISCARD")),
                    false => Err(self.unexpected()),
                }
            }
            "unlisten" => {
                if !self.p.consume_token(&Token::Mul) {
                    self.identifier()?;
                }
                Ok(Statement::NoOp("UNLISTEN"))
            }
            "analyze" | "vacuum" => {
                self.skip_rest();
                Ok(Statement::NoOp(if word == "vacuum" { "VACUUM" } else { "ANALYZE" }))
            }
            _ => Ok(Statement::Flush),
        }
    }

    /// TRUNCATE [TABLE] t, .. [CASCADE | RESTRICT].
    pub(super) fn truncate(&mut self) -> Result<Statement> {
        self.p.advance_token();
        self.accept_word("table");
        let mut names = Vec::new();
        loop {
            self.accept_word("only");
            names.push(self.name()?);
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        let _identity = self.accept_words(&["restart", "identity"])
            || self.accept_words(&["continue", "identity"]);
        // No table refers to another one.
        let _rule = self.accept_word("cascade") || self.accept_word("restrict");
        Ok(Statement::Truncate(names))
    }

    fn skip_rest(&mut self) {
        while self.p.next_token().token != Token::EOF {}
    }
}
