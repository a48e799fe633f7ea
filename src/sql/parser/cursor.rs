//! DECLARE, FETCH, MOVE and CLOSE.

use sqlparser::tokenizer::Token;

use super::StreamParser;
use crate::error::{Error, Result};
use crate::sql::statement::{Count, Declare, Direction, Fetch, Statement};

impl StreamParser<'_> {
    /// DECLARE name [options] CURSOR [WITH | WITHOUT HOLD] FOR query.
    pub(super) fn declare(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let name = self.identifier()?;
        let mut scroll = None;
        while !self.accept_word("cursor") {
            if self.accept_words(&["no", "scroll"]) {
                scroll = Some(false);
            } else if self.accept_word("scroll") {
                scroll = Some(true);
            } else if self.accept_word("binary") {
                return Err(Error::unsupported("a BINARY cursor is not supported")
                    .with_hint("The extended query protocol gives results in binary form."));
            } else if !["insensitive", "asensitive"].iter().any(|w| self.accept_word(w)) {
                // Every cursor reads one epoch.
                return Err(self.unexpected());
            }
        }
        let hold = self.accept_words(&["with", "hold"]);
        if !hold {
            self.accept_words(&["without", "hold"]);
        }
        self.expect_word("for")?;
        let statement = match self.peek_word(0).as_deref() {
            Some("subscribe") => self.subscribe()?,
            _ => Statement::Query(self.query()?),
        };
        let statement = Box::new(statement);
        Ok(Statement::Declare(Declare { name, scroll, hold, statement }))
    }

    /// FETCH | MOVE [direction] [FROM | IN] name [WITH (timeout = '1s')].
    pub(super) fn fetch(&mut self) -> Result<Statement> {
        let moves = self.peek_word(0).as_deref() == Some("move");
        self.p.advance_token();
        let direction = self.direction()?;
        if !self.accept_word("from") {
            self.accept_word("in");
        }
        let name = self.identifier()?;
        let mut timeout = None;
        if self.accept_word("with") {
            self.expect(&Token::LParen)?;
            let option = self.identifier()?;
            if option != "timeout" {
                return Err(Error::unsupported(format!(
                    "FETCH option \"{option}\" is not supported"
                ))
                .with_hint("The option is timeout = '1s'."));
            }
            let _ = self.p.consume_token(&Token::Eq);
            timeout = Some(self.option_value()?);
            self.expect(&Token::RParen)?;
        }
        Ok(Statement::Fetch(Fetch { name, direction, moves, timeout }))
    }

    fn direction(&mut self) -> Result<Direction> {
        let Some(word) = self.peek_word(0) else {
            return match self.count()? {
                Some(count) => Ok(count_or_back(count)),
                None => Ok(Direction::Forward(Count::Rows(1))),
            };
        };
        // A cursor may have one of these words as its name.
        if matches!(self.p.peek_nth_token_ref(1).token, Token::EOF) {
            return Ok(Direction::Forward(Count::Rows(1)));
        }
        self.p.advance_token();
        match word.as_str() {
            "next" => Ok(Direction::Forward(Count::Rows(1))),
            "prior" => Ok(Direction::Backward(Count::Rows(1))),
            "first" => Ok(Direction::Absolute(1)),
            "last" => Ok(Direction::Absolute(-1)),
            "all" => Ok(Direction::Forward(Count::All)),
            "absolute" => Ok(Direction::Absolute(self.required_count()?)),
            "relative" => Ok(Direction::Relative(self.required_count()?)),
            "forward" | "backward" => {
                let count = match self.accept_word("all") {
                    true => Direction::Forward(Count::All),
                    false => count_or_back(self.count()?.unwrap_or(1)),
                };
                Ok(if word == "backward" { count.turned() } else { count })
            }
            _ => {
                self.p.prev_token();
                Ok(Direction::Forward(Count::Rows(1)))
            }
        }
    }

    fn required_count(&mut self) -> Result<i64> {
        self.count()?.ok_or_else(|| self.unexpected())
    }

    /// A number with a sign, if there is one.
    fn count(&mut self) -> Result<Option<i64>> {
        let negative = self.p.consume_token(&Token::Minus);
        if !negative {
            let _ = self.p.consume_token(&Token::Plus);
        }
        let Token::Number(digits, _) = &self.p.peek_token_ref().token else {
            return if negative { Err(self.unexpected()) } else { Ok(None) };
        };
        let count: i64 = digits.parse().map_err(|_| self.unexpected())?;
        self.p.advance_token();
        Ok(Some(if negative { -count } else { count }))
    }

    /// CLOSE name | ALL.
    pub(super) fn close(&mut self) -> Result<Statement> {
        self.p.advance_token();
        match self.accept_word("all") {
            true => Ok(Statement::Close(None)),
            false => Ok(Statement::Close(Some(self.identifier()?))),
        }
    }
}

fn count_or_back(count: i64) -> Direction {
    match u64::try_from(count) {
        Ok(count) => Direction::Forward(Count::Rows(count)),
        Err(_) => Direction::Backward(Count::Rows(count.unsigned_abs())),
    }
}
