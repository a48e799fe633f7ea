//! Places in the statement text: sqlparser counts lines and columns, PostgreSQL characters.

use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, TokenizerError};

use crate::error::{Error, sqlstate};

/// Line starts of a text.
pub(super) struct Positions<'a> {
    text: &'a str,
    /// Per line: bytes and characters before it.
    lines: Vec<(usize, usize)>,
}

impl<'a> Positions<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut lines = vec![(0, 0)];
        for (chars, (bytes, c)) in text.char_indices().enumerate() {
            if c == '\n' {
                lines.push((bytes + 1, chars + 1));
            }
        }
        Self { text, lines }
    }

    fn line(&self, location: Location) -> (usize, usize) {
        let line = usize::try_from(location.line).unwrap_or(usize::MAX).max(1) - 1;
        self.lines[line.min(self.lines.len() - 1)]
    }

    /// Characters before a location.
    pub(super) fn chars_before(&self, location: Location) -> usize {
        let column = usize::try_from(location.column).unwrap_or(1).max(1) - 1;
        self.line(location).1 + column
    }

    fn bytes_before(&self, location: Location) -> usize {
        let begin = self.line(location).0;
        let column = usize::try_from(location.column).unwrap_or(1).max(1) - 1;
        let rest = &self.text[begin..];
        begin + rest.char_indices().nth(column).map_or(rest.len(), |(bytes, _)| bytes)
    }

    /// The text between two locations.
    pub(super) fn slice(&self, begin: Location, end: Location) -> &'a str {
        let begin = self.bytes_before(begin);
        let end = self.bytes_before(end).max(begin);
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
        let message = match e.message.to_lowercase() {
            m if m.contains("comment") => "unterminated /* comment".to_string(),
            m if m.contains("string") => "unterminated quoted string".to_string(),
            m if m.contains("expected close delimiter") || m.contains("delimiter '\"'") => {
                "unterminated quoted identifier".to_string()
            }
            m => m,
        };
        Error::user(sqlstate::SYNTAX_ERROR, message)
            .with_position(self.chars_before(e.location) + 1)
    }

    /// An error of sqlparser, whose text names the place as `at Line: 1, Column: 8`.
    pub(super) fn parser_error(
        &self,
        e: &ParserError,
        tokens: &[TokenWithSpan],
        next: &TokenWithSpan,
    ) -> Error {
        let message = match e {
            ParserError::RecursionLimitExceeded => {
                return Error::user("54001", "statement is nested too deeply");
            }
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

fn location_in(message: &str) -> Option<Location> {
    let (_, rest) = message.rsplit_once("Line: ")?;
    let (line, rest) = rest.split_once(", Column: ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(Location::new(line.trim().parse().ok()?, digits.parse().ok()?))
}
