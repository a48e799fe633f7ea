//! BEGIN, COMMIT, ROLLBACK, their modes, and savepoints.

use sqlparser::tokenizer::Token;

use super::StreamParser;
use crate::error::{Error, Result};
use crate::sql::statement::{Isolation, Savepoint, Statement, TransactionModes};

impl StreamParser<'_> {
    pub(super) fn transaction(&mut self) -> Result<Statement> {
        let word = self.peek_word(0).unwrap_or_default();
        self.p.advance_token();
        if matches!(word.as_str(), "commit" | "rollback") && self.accept_word("prepared") {
            return Err(Error::unsupported("two-phase commit is not supported"));
        }
        if word == "start" {
            self.expect_word("transaction")?;
        } else if !self.accept_word("transaction") {
            self.accept_word("work");
        }
        match word.as_str() {
            "begin" | "start" => Ok(Statement::Begin(self.transaction_modes(false)?)),
            "commit" | "end" => Ok(Statement::Commit { chain: self.chain()? }),
            _ => {
                if word == "rollback" && self.accept_word("to") {
                    self.accept_word("savepoint");
                    return Ok(Statement::Savepoint(Savepoint::RollbackTo(self.identifier()?)));
                }
                Ok(Statement::Rollback { chain: self.chain()? })
            }
        }
    }

    /// Modes with or without commas between them; `required` where there must be one.
    pub(super) fn transaction_modes(&mut self, required: bool) -> Result<TransactionModes> {
        let mut modes = TransactionModes::default();
        let mut more = required;
        loop {
            if self.accept_words(&["isolation", "level"]) {
                modes.isolation = Some(self.isolation()?);
            } else if self.accept_words(&["read", "only"]) {
                modes.read_only = Some(true);
            } else if self.accept_words(&["read", "write"]) {
                modes.read_only = Some(false);
            } else if self.accept_words(&["not", "deferrable"]) {
                modes.deferrable = Some(false);
            } else if self.accept_word("deferrable") {
                modes.deferrable = Some(true);
            } else if more {
                return Err(self.unexpected());
            } else {
                return Ok(modes);
            }
            more = self.p.consume_token(&Token::Comma);
        }
    }

    fn isolation(&mut self) -> Result<Isolation> {
        let levels = [
            (&["read", "uncommitted"][..], Isolation::ReadUncommitted),
            (&["read", "committed"], Isolation::ReadCommitted),
            (&["repeatable", "read"], Isolation::RepeatableRead),
            (&["serializable"], Isolation::Serializable),
        ];
        let found = levels.iter().find(|(words, _)| self.accept_words(words));
        found.map(|(_, level)| *level).ok_or_else(|| self.unexpected())
    }

    /// AND [NO] CHAIN: whether a transaction with the same modes follows.
    fn chain(&mut self) -> Result<bool> {
        if !self.accept_word("and") {
            return Ok(false);
        }
        let no = self.accept_word("no");
        self.expect_word("chain")?;
        Ok(!no)
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
}
