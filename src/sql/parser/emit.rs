//! `EMIT ..` behind the query of a view or sink.

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::ScalarValue;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::{StreamParser, is_word};
use crate::error::{Error, Result, sqlstate};
use crate::expr::{interval_us, parse_value};
use crate::sql::statement::{Emit, EmitWhen};

/// The tokens of the longest form at most: EMIT ON WINDOW CLOSE ALLOWED LATENESS INTERVAL '10'
/// SECOND ACCUMULATING.
const TOKENS_MAX: usize = 10;

/// Tokens that are not read yet.
type Words<'a> = &'a [&'a Token];

impl StreamParser<'_> {
    /// The EMIT that the tokens not read yet end with, and where it begins.
    pub(super) fn emit(&self) -> Result<Option<(usize, Emit)>> {
        let significant =
            |t: &&TokenWithSpan| !matches!(t.token, Token::Whitespace(_) | Token::EOF);
        let places = self.rest().iter().enumerate().filter(|(_, t)| significant(t));
        let tokens: Vec<(usize, &TokenWithSpan)> = places.collect();
        let from = tokens.len().saturating_sub(TOKENS_MAX);
        for first in (from..tokens.len()).rev() {
            let words: Vec<&Token> = tokens[first..].iter().map(|(_, t)| &t.token).collect();
            let at = tokens[first].1.span.start;
            let Some((when, rest)) = self.when(&words, at)? else { continue };
            let Some(lateness_us) = self.lateness(rest, at)? else { continue };
            return Ok(Some((tokens[first].0, Emit { when, lateness_us })));
        }
        Ok(None)
    }

    /// When, and what stands behind it.
    fn when<'a>(&self, words: Words<'a>, at: Location) -> Result<Option<(EmitWhen, Words<'a>)>> {
        if let Some(rest) = behind(words, &["emit", "on", "window", "close"]) {
            return Ok(Some((EmitWhen::OnClose, rest)));
        }
        if let Some(rest) = behind(words, &["emit", "on", "change"]) {
            return Ok(Some((EmitWhen::OnChange, rest)));
        }
        let Some(rest) = behind(words, &["emit", "every"]) else { return Ok(None) };
        let positive = interval(rest).filter(|(us, _)| *us > 0);
        let (us, rest) =
            positive.ok_or_else(|| self.no_interval("EMIT EVERY", "a positive", at))?;
        Ok(Some((EmitWhen::Every(us), rest)))
    }

    /// ALLOWED LATENESS; `None` where something else stands there.
    fn lateness(&self, words: Words<'_>, at: Location) -> Result<Option<Option<i64>>> {
        if words.is_empty() {
            return Ok(Some(None));
        }
        let Some(words) = behind(words, &["allowed", "lateness"]) else { return Ok(None) };
        let no_interval = || self.no_interval("ALLOWED LATENESS", "an", at);
        let (us, rest) = interval(words).filter(|(us, _)| *us >= 0).ok_or_else(no_interval)?;
        match rest {
            [] => Ok(Some(Some(us))),
            [word] if is(Some(word), "accumulating") => Ok(Some(Some(us))),
            [word] if is(Some(word), "discarding") => {
                let hint = "Leave DISCARDING out: a correction takes the old row away and brings \
                            the new one, and SUBSCRIBE and sinks show both, whose difference is \
                            the piece.";
                Err(Error::unsupported("DISCARDING is not supported")
                    .with_detail("A view is the answer to its query, not a piece of it.")
                    .with_hint(hint)
                    .with_position(self.positions.chars_before(at) + 1))
            }
            _ => Ok(None),
        }
    }

    fn no_interval(&self, clause: &str, article: &str, at: Location) -> Error {
        let message = format!("{clause} needs {article} interval without months");
        Error::user(sqlstate::SYNTAX_ERROR, message)
            .with_hint(format!("Write {clause} INTERVAL '10 seconds'."))
            .with_position(self.positions.chars_before(at) + 1)
    }
}

fn is(token: Option<&&Token>, word: &str) -> bool {
    matches!(token, Some(Token::Word(w)) if is_word(w, word))
}

/// What stands behind words.
fn behind<'a>(tokens: Words<'a>, words: &[&str]) -> Option<Words<'a>> {
    let (first, rest) = tokens.split_at_checked(words.len())?;
    first.iter().zip(words).all(|(token, word)| is(Some(token), word)).then_some(rest)
}

/// An interval in microseconds, and what stands behind it.
fn interval<'a>(tokens: Words<'a>) -> Option<(i64, Words<'a>)> {
    const UNITS: [&str; 7] = ["second", "minute", "hour", "day", "week", "month", "year"];
    let tokens = if is(tokens.first(), "interval") { &tokens[1..] } else { tokens };
    let unit = |word: &str| {
        let word = word.to_ascii_lowercase();
        UNITS.contains(&word.trim_end_matches('s'))
    };
    let (text, rest) = match tokens {
        [Token::SingleQuotedString(text), Token::Word(word), rest @ ..] if unit(&word.value) => {
            (format!("{text} {}", word.value), rest)
        }
        [Token::SingleQuotedString(text), rest @ ..] => (text.clone(), rest),
        _ => return None,
    };
    let kind = DataType::Interval(IntervalUnit::MonthDayNano);
    match parse_value(&text, &kind).ok()? {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => Some((interval_us(interval)?, rest)),
        _ => None,
    }
}
