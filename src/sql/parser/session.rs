//! SUBSCRIBE, SHOW, SET, and statements that drivers send and that do nothing here.

use sqlparser::tokenizer::Token;

use super::StreamParser;
use crate::checkpoint::SinksGo;
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::{
    Restore, RestoreFrom, SavedState, SettingScope, Show, Statement, Subscribe,
};

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
        } else if self.accept_word("checkpoints") {
            Show::Checkpoints
        } else if self.accept_word("memory") {
            Show::Memory
        } else if self.accept_word("backpressure") {
            Show::Backpressure
        } else if self.accept_word("recovery") {
            Show::Recovery
        } else if self.accept_word("savepoints") {
            Show::Savepoints
        } else if self.accept_word("secrets") {
            Show::Secrets
        } else if self.accept_word("guarantees") {
            let sink = self.accept_words(&["for", "sink"]);
            Show::Guarantees(if sink { Some(self.name()?) } else { None })
        } else if self.accept_word("offsets") {
            Show::Offsets
        } else if self.accept_word("watermarks") {
            Show::Watermarks
        } else if self.peek_word(1).is_some() && self.accept_word("lateness") {
            self.accept_word("for");
            Show::Lateness(self.name()?)
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
    pub(super) fn setting_name(&mut self) -> Result<String> {
        let mut name = self.identifier()?;
        while self.p.consume_token(&Token::Period) {
            name = format!("{name}.{}", self.identifier()?);
        }
        Ok(name)
    }

    /// SET [SESSION | LOCAL] of a setting, of the transaction's modes, of the clock.
    pub(super) fn set(&mut self) -> Result<Statement> {
        self.p.advance_token();
        if self.accept_words(&["session", "characteristics", "as", "transaction"]) {
            return Ok(Statement::SetCharacteristics(self.transaction_modes(true)?));
        }
        if self.accept_words(&["session", "authorization"]) {
            return self.set_session_authorization();
        }
        let scope = match self.accept_word("local") {
            true => SettingScope::Local,
            false => SettingScope::Session,
        };
        // A setting may have a name that begins with this word.
        if scope == SettingScope::Session && self.peek_word(1).is_some() {
            self.accept_word("session");
        }
        if self.accept_word("transaction") {
            if self.accept_word("snapshot") {
                return Err(Error::unsupported("SET TRANSACTION SNAPSHOT is not supported"));
            }
            return Ok(Statement::SetTransaction(self.transaction_modes(true)?));
        }
        let sets = self.p.peek_nth_token_ref(1).token == Token::Eq
            || self.peek_word(1).is_some_and(|w| w == "to");
        if !sets && self.accept_word("role") {
            return self.set_role();
        }
        if self.accept_word("constraints") {
            return self.constraints();
        }
        if matches!(self.peek_word(1).as_deref(), Some("manual" | "system"))
            && self.accept_word("clock")
        {
            return self.set_clock();
        }
        let (name, values) = self.setting()?;
        Ok(Statement::Set { name, values, scope })
    }

    /// CONSTRAINTS ALL | name, .. DEFERRED | IMMEDIATE: no constraint can be deferred, so that
    /// there is nothing to do for all of them, and none that has a name.
    fn constraints(&mut self) -> Result<Statement> {
        let all = self.accept_word("all");
        let first = if all { None } else { Some(self.identifier()?) };
        while self.p.consume_token(&Token::Comma) {
            self.identifier()?;
        }
        if !self.accept_word("deferred") {
            self.expect_word("immediate")?;
        }
        match first {
            None => Ok(Statement::NoOp("SET CONSTRAINTS")),
            Some(name) => Err(Error::user(
                sqlstate::UNDEFINED_OBJECT,
                format!("constraint \"{name}\" is not deferrable or does not exist"),
            )),
        }
    }

    /// A setting and its values; none for DEFAULT.
    pub(super) fn setting(&mut self) -> Result<(String, Option<Vec<String>>)> {
        if self.accept_words(&["time", "zone"]) {
            return Ok(("timezone".to_owned(), self.zone()?));
        }
        if self.accept_word("names") {
            // SQL's names of two settings; without a value they are the defaults.
            let values = match self.p.peek_token_ref().token {
                Token::EOF => None,
                _ => self.setting_values()?,
            };
            return Ok(("client_encoding".to_owned(), values));
        }
        if matches!(self.p.peek_nth_token_ref(1).token, Token::SingleQuotedString(_))
            && self.accept_word("schema")
        {
            return Ok(("search_path".to_owned(), self.setting_values()?));
        }
        let name = self.setting_name()?;
        if !self.p.consume_token(&Token::Eq) {
            if self.peek_word(0).as_deref() == Some("from") {
                return Err(Error::unsupported("SET .. FROM CURRENT is not supported"));
            }
            self.expect_word("to")?;
        }
        Ok((name, self.setting_values()?))
    }

    fn setting_values(&mut self) -> Result<Option<Vec<String>>> {
        if self.accept_word("default") {
            return Ok(None);
        }
        let mut values = vec![self.setting_value()?];
        while self.p.consume_token(&Token::Comma) {
            values.push(self.setting_value()?);
        }
        Ok(Some(values))
    }

    /// A value; a number may have a sign.
    fn setting_value(&mut self) -> Result<String> {
        if self.p.consume_token(&Token::Plus)
            && !matches!(self.p.peek_token_ref().token, Token::Number(..))
        {
            return Err(self.unexpected());
        }
        self.option_value()
    }

    /// Behind TIME ZONE: a name, an offset in hours, an interval, LOCAL or DEFAULT.
    fn zone(&mut self) -> Result<Option<Vec<String>>> {
        if self.accept_word("local") || self.accept_word("default") {
            return Ok(None);
        }
        if self.accept_word("interval") {
            let offset = self.option_value()?;
            let _unit = self.accept_words(&["hour", "to", "minute"]) || self.accept_word("hour");
            return Ok(Some(vec![format!("INTERVAL '{offset}'")]));
        }
        Ok(Some(vec![self.setting_value()?]))
    }

    pub(super) fn reset(&mut self) -> Result<Statement> {
        self.p.advance_token();
        if let Some(statement) = self.reset_role() {
            return Ok(statement);
        }
        let name = match self.accept_words(&["time", "zone"]) {
            true => "timezone".to_string(),
            false => self.setting_name()?,
        };
        match name.as_str() {
            "all" => Ok(Statement::ResetAll),
            _ => Ok(Statement::Reset(name)),
        }
    }

    /// DISCARD, FLUSH and CHECKPOINT; UNLISTEN, which pools of connections send, and ANALYZE and
    /// VACUUM, which have nothing to do here.
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
            "checkpoint" => Ok(Statement::Checkpoint),
            _ => Ok(Statement::Flush),
        }
    }

    /// RESTORE FROM name | CHECKPOINT n [SINKS CONTINUE | REPUBLISH].
    pub(super) fn restore(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let from = self.restore_from()?;
        let sinks = match self.accept_word("sinks") {
            false => None,
            true if self.accept_word("continue") => Some(SinksGo::Continue),
            true if self.accept_word("republish") => Some(SinksGo::Republish),
            true => return Err(self.unexpected()),
        };
        Ok(Statement::SavedState(SavedState::Restore(Restore { from, sinks })))
    }

    pub(super) fn restore_from(&mut self) -> Result<RestoreFrom> {
        self.expect_word("from")?;
        let numbered = matches!(self.p.peek_nth_token_ref(1).token, Token::Number(..));
        if numbered && self.accept_word("checkpoint") {
            let number = self.p.parse_literal_uint();
            return Ok(RestoreFrom::Checkpoint(self.sql(number)?));
        }
        if self.peek_word(1).is_some_and(|next| next != "sinks") {
            self.accept_word("savepoint");
        }
        Ok(RestoreFrom::Savepoint(self.identifier()?))
    }

    /// TRUNCATE [TABLE] t, .. [RESTART | CONTINUE IDENTITY] [CASCADE | RESTRICT].
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
        let restart = self.accept_words(&["restart", "identity"]);
        let _continue = !restart && self.accept_words(&["continue", "identity"]);
        // No table refers to another one.
        let _rule = self.accept_word("cascade") || self.accept_word("restrict");
        Ok(Statement::Truncate { names, restart })
    }

    fn skip_rest(&mut self) {
        while self.p.next_token().token != Token::EOF {}
    }
}
