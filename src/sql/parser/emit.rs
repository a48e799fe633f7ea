//! `EMIT ..` behind the query of a view or sink.

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::ScalarValue;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{StreamParser, is_word};
use crate::error::{Error, Result, sqlstate};
use crate::expr::{interval_us, parse_value};
use crate::sql::statement::Emit;

impl StreamParser<'_> {
    /// The EMIT that the tokens not read yet end with, and where it begins.
    pub(super) fn emit(&self) -> Result<Option<(usize, Emit)>> {
        let significant =
            |t: &&TokenWithSpan| !matches!(t.token, Token::Whitespace(_) | Token::EOF);
        let places = self.rest().iter().enumerate().filter(|(_, t)| significant(t));
        let tokens: Vec<(usize, &TokenWithSpan)> = places.collect();
        // EMIT EVERY INTERVAL '10' SECOND is the longest.
        let from = tokens.len().saturating_sub(5);
        for first in (from..tokens.len()).rev() {
            let words: Vec<&Token> = tokens[first..].iter().map(|(_, t)| &t.token).collect();
            if is(words.first(), "emit") && is(words.get(1), "every") {
                let emit = every(&words[2..]).ok_or_else(|| self.no_interval(tokens[first].1))?;
                return Ok(Some((tokens[first].0, emit)));
            }
            let close = ["emit", "on", "window", "close"];
            if words.len() == close.len() && words.iter().zip(close).all(|(t, w)| is(Some(t), w)) {
                return Ok(Some((tokens[first].0, Emit::OnClose)));
            }
        }
        Ok(None)
    }

    fn no_interval(&self, at: &TokenWithSpan) -> Error {
        Error::user(sqlstate::SYNTAX_ERROR, "EMIT EVERY needs a positive interval without months")
            .with_hint("Write EMIT EVERY INTERVAL '10 seconds'.")
            .with_position(self.positions.chars_before(at.span.start) + 1)
    }
}

fn is(token: Option<&&Token>, word: &str) -> bool {
    matches!(token, Some(Token::Word(w)) if is_word(w, word))
}

/// What stands behind EMIT EVERY.
fn every(tokens: &[&Token]) -> Option<Emit> {
    let tokens = if is(tokens.first(), "interval") { &tokens[1..] } else { tokens };
    let text = match tokens {
        [Token::SingleQuotedString(text)] => text.clone(),
        [Token::SingleQuotedString(text), Token::Word(unit)] => format!("{text} {}", unit.value),
        _ => return None,
    };
    let kind = DataType::Interval(IntervalUnit::MonthDayNano);
    match parse_value(&text, &kind).ok()? {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => {
            interval_us(interval).filter(|us| *us > 0).map(Emit::Every)
        }
        _ => None,
    }
}
