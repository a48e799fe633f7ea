//! Clauses and statements of time: what follows WATERMARK FOR, and the clock.

use sqlparser::ast;

use super::StreamParser;
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::{ClockStatement, Statement, WatermarkClause};

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

    /// `ADVANCE [CLOCK] [BY] interval | [CLOCK] TO timestamp`.
    pub(super) fn advance_clock(&mut self) -> Result<Statement> {
        self.p.advance_token();
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
