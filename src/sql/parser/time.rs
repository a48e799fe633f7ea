//! Clauses and statements of time: what follows WATERMARK FOR, and the clock.

use sqlparser::ast;
use sqlparser::tokenizer::Token;

use super::StreamParser;
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::{ClockStatement, Show, Statement, WatermarkClause};

impl StreamParser<'_> {
    fn expression(&mut self) -> Result<ast::Expr> {
        let expr = self.p.parse_expr();
        self.sql(expr)
    }

    /// What stands behind `WATERMARK FOR column AS`.
    pub(super) fn watermark_clause(&mut self) -> Result<WatermarkClause> {
        let expr = self.expression()?;
        let mut clause = WatermarkClause { expr, idle_after: None, max_future_skew: None };
        loop {
            let slot = if self.accept_words(&["idle", "after"]) {
                &mut clause.idle_after
            } else if self.accept_words(&["max", "future", "skew"]) {
                &mut clause.max_future_skew
            } else {
                return Ok(clause);
            };
            let expr = self.p.parse_expr();
            if slot.replace(self.sql(expr)?).is_some() {
                return Err(Error::user(
                    sqlstate::SYNTAX_ERROR,
                    "an option of the watermark is given twice",
                ));
            }
        }
    }

    /// Behind `SET CLOCK`.
    pub(super) fn set_clock(&mut self) -> Result<Statement> {
        let clock = if self.accept_word("system") {
            ClockStatement::System
        } else {
            self.expect_word("manual")?;
            let at = self.accept_word("at").then(|| self.expression()).transpose()?;
            ClockStatement::Manual(at)
        };
        Ok(Statement::Clock(Box::new(clock)))
    }

    /// `SUGGEST WATERMARK FOR relation[.column]`.
    pub(super) fn suggest(&mut self) -> Result<Statement> {
        self.p.advance_token();
        self.expect_word("watermark")?;
        self.expect_word("for")?;
        let relation = self.identifier()?;
        let column = match self.p.consume_token(&Token::Period) {
            true => Some(self.identifier()?),
            false => None,
        };
        Ok(Statement::Show(Show::SuggestWatermark(relation, column)))
    }

    /// `MERGE LATE INTO view`, which there is not.
    pub(super) fn merge_late(&mut self) -> Result<Statement> {
        self.p.advance_token();
        self.expect_word("late")?;
        self.expect_word("into")?;
        let view = self.name()?;
        Err(Error::unsupported(format!("MERGE LATE INTO \"{view}\" is not supported"))
            .with_detail(
                "What the windows of late rows had is freed, so nobody can say what they would \
                 have come to.",
            )
            .with_hint(format!(
                "CREATE OR REPLACE MATERIALIZED VIEW \"{view}\" with its query and ALLOWED \
                 LATENESS INTERVAL '1 day' behind it takes them in, where its inputs are stored."
            )))
    }

    /// `ADVANCE [CLOCK] [BY] interval | [CLOCK] TO timestamp | WATERMARK relation TO timestamp`.
    pub(super) fn advance_clock(&mut self) -> Result<Statement> {
        self.p.advance_token();
        if self.accept_word("watermark") {
            self.accept_word("for");
            let relation = self.name()?;
            self.expect_word("to")?;
            let clock = ClockStatement::Watermark(relation, self.expression()?);
            return Ok(Statement::Clock(Box::new(clock)));
        }
        self.accept_word("clock");
        let clock = match self.accept_word("to") {
            true => ClockStatement::To(self.expression()?),
            false => {
                self.accept_word("by");
                ClockStatement::By(self.expression()?)
            }
        };
        Ok(Statement::Clock(Box::new(clock)))
    }
}
