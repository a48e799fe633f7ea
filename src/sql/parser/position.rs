//! Places in the statement text: sqlparser counts lines and columns, PostgreSQL characters.
//!
//! Tokens are moved to one line as long as the text, so that every place that sqlparser or the
//! planner names later is a character of the text, whatever line it is on.

use sqlparser::keywords::Keyword;
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, TokenizerError};

use super::escapes::escapes_error;
use crate::error::{Error, sqlstate};

/// The characters of a text.
pub(super) struct Positions<'a> {
    text: &'a str,
    /// Characters before each line.
    lines: Vec<usize>,
    /// The byte of each character; empty for ASCII, where they are the same.
    bytes: Vec<usize>,
}

impl<'a> Positions<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let breaks = text.chars().enumerate().filter(|(_, c)| *c == '\n').map(|(i, _)| i + 1);
        let lines = std::iter::once(0).chain(breaks).collect();
        let bytes = match text.is_ascii() {
            true => Vec::new(),
            false => text.char_indices().map(|(byte, _)| byte).collect(),
        };
        Self { text, lines, bytes }
    }

    /// Moves tokens as the tokeniser made them to the one line.
    pub(super) fn flatten(&self, tokens: &mut [TokenWithSpan]) {
        for token in tokens.iter_mut().filter(|t| t.span.start.line > 0) {
            let Span { start, end } = token.span;
            token.span = Span::new(self.flat(start), self.flat(end));
        }
    }

    fn flat(&self, location: Location) -> Location {
        Location::new(1, self.line_column(location) as u64 + 1)
    }

    /// Characters before a place in lines and columns.
    fn line_column(&self, location: Location) -> usize {
        let line = usize::try_from(location.line).unwrap_or(usize::MAX).max(1) - 1;
        let column = usize::try_from(location.column).unwrap_or(1).max(1) - 1;
        self.lines[line.min(self.lines.len() - 1)] + column
    }

    /// Characters before a flat place.
    pub(super) fn chars_before(&self, location: Location) -> usize {
        usize::try_from(location.column).unwrap_or(1).max(1) - 1
    }

    fn byte(&self, character: usize) -> usize {
        match self.bytes.is_empty() {
            true => character.min(self.text.len()),
            false => self.bytes.get(character).copied().unwrap_or(self.text.len()),
        }
    }

    /// The text between two flat places.
    pub(super) fn slice(&self, begin: Location, end: Location) -> &'a str {
        let begin = self.byte(self.chars_before(begin));
        let end = self.byte(self.chars_before(end)).max(begin);
        &self.text[begin..end]
    }

    /// `syntax error at or near` a token.
    pub(super) fn syntax_error(&self, token: &TokenWithSpan) -> Error {
        if token.token == Token::EOF || token.span.start.line == 0 {
            return Error::user(sqlstate::SYNTAX_ERROR, "syntax error at end of input")
                .with_position(self.text.chars().count() + 1);
        }
        let near = self.slice(token.span.start, token.span.end);
        Error::user(sqlstate::SYNTAX_ERROR, format!("syntax error at or near \"{near}\""))
            .with_position(self.chars_before(token.span.start) + 1)
    }

    /// An error of the tokeniser: an open string or comment.
    pub(super) fn tokenizer_error(&self, e: &TokenizerError) -> Error {
        let at = self.line_column(e.location);
        if let Some(error) = escapes_error(&self.text[self.byte(at)..]) {
            return error.with_position(at + 1);
        }
        let message = match e.message.to_lowercase() {
            m if m.contains("comment") => "unterminated /* comment".to_string(),
            m if m.contains("string") => "unterminated quoted string".to_string(),
            m if m.contains("expected close delimiter") || m.contains("delimiter '\"'") => {
                "unterminated quoted identifier".to_string()
            }
            m => m,
        };
        Error::user(sqlstate::SYNTAX_ERROR, message).with_position(at + 1)
    }

    /// An error of sqlparser, whose text names the place as `at Line: 1, Column: 8`.
    pub(super) fn parser_error(
        &self,
        e: &ParserError,
        tokens: &[TokenWithSpan],
        next: &TokenWithSpan,
    ) -> Error {
        let message = match e {
            ParserError::RecursionLimitExceeded => return too_deep(),
            _ if has_deep_words(tokens) => return too_deep(),
            ParserError::ParserError(m) | ParserError::TokenizerError(m) => m,
        };
        let place = location_in(message).and_then(|location| {
            tokens.iter().find(|t| t.span.start == location && !t.token.to_string().is_empty())
        });
        let expected = message.split(", found:").next().unwrap_or(message);
        let error = match place {
            Some(token) => self.syntax_error(token),
            None if message.contains("found: EOF") => {
                let eof = TokenWithSpan::at(Token::EOF, Location::empty(), Location::empty());
                self.syntax_error(&eof)
            }
            None => self.syntax_error(next),
        };
        match expected.split(" at Line:").next() {
            Some(detail) if !detail.is_empty() => error.with_detail(format!("{detail}.")),
            _ => error,
        }
    }
}

pub(super) fn too_deep() -> Error {
    Error::user(sqlstate::STATEMENT_TOO_COMPLEX, "statement is nested too deeply")
}

/// Whether NOT or CASE is nested so deep that sqlparser, at its limit, takes the word for a name
/// and says that what follows is wrong.
pub(super) fn has_deep_words(tokens: &[TokenWithSpan]) -> bool {
    const DEEP: usize = 100;
    let (mut nots, mut cases) = (0usize, 0usize);
    for token in tokens {
        let word = match &token.token {
            Token::Word(word) if word.quote_style.is_none() => word.keyword,
            Token::Whitespace(_) => continue,
            _ => Keyword::NoKeyword,
        };
        nots = if word == Keyword::NOT { nots + 1 } else { 0 };
        match word {
            Keyword::CASE => cases += 1,
            Keyword::END => cases = cases.saturating_sub(1),
            _ => {}
        }
        if nots > DEEP || cases > DEEP {
            return true;
        }
    }
    false
}

fn location_in(message: &str) -> Option<Location> {
    let (_, rest) = message.rsplit_once("Line: ")?;
    let (line, rest) = rest.split_once(", Column: ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(Location::new(line.trim().parse().ok()?, digits.parse().ok()?))
}
