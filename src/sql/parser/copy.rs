//! `COPY { t [(a, b)] | (query) } { FROM STDIN | TO STDOUT } [options]`.

use sqlparser::tokenizer::Token;

use super::{StreamParser, fold};
use crate::error::{Error, Result, sqlstate};
use crate::format::{CopyForm, Header};
use crate::sql::statement::{Copy, CopySubject, Statement};

impl StreamParser<'_> {
    pub(super) fn copy(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let subject = match self.p.peek_token_ref().token {
            Token::LParen => self.copied_query()?,
            _ => {
                let name = self.name()?;
                let columns = match self.p.peek_token_ref().token {
                    Token::LParen => self.name_list()?,
                    _ => Vec::new(),
                };
                CopySubject::Table { name, columns }
            }
        };
        let from = self.accept_word("from");
        if !from {
            self.expect_word("to")?;
        }
        if !self.accept_word(if from { "stdin" } else { "stdout" }) {
            return Err(Error::unsupported(
                "COPY of a file or program of the server is not supported",
            )
            .with_hint("Use COPY .. FROM STDIN or TO STDOUT, or psql's \\copy."));
        }
        if from && matches!(subject, CopySubject::Query { .. }) {
            return Err(self.unexpected());
        }
        let form = self.copy_options()?;
        if !from && form.header == Header::Match {
            return Err(Error::unsupported("cannot use \"match\" with HEADER in COPY TO"));
        }
        Ok(Statement::Copy(Copy { subject, from, form }))
    }

    /// The text of a query in parentheses.
    fn copied_query(&mut self) -> Result<CopySubject> {
        self.expect(&Token::LParen)?;
        let tokens = self.rest();
        let mut depth = 1usize;
        for (end, token) in tokens.iter().enumerate() {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let (begin, close) = (tokens[0].span.start, token.span.start);
                let text = self.positions.slice(begin, close).to_owned();
                let offset = self.positions.chars_before(begin);
                for _ in 0..=end {
                    let _skipped = self.p.next_token_no_skip();
                }
                return Ok(CopySubject::Query { text, offset });
            }
        }
        Err(self.unexpected())
    }

    /// `[WITH] (FORMAT csv, HEADER, ..)` and the older `[WITH] CSV HEADER DELIMITER ';'`.
    fn copy_options(&mut self) -> Result<CopyForm> {
        self.accept_word("with");
        let list = self.p.consume_token(&Token::LParen);
        let mut given = Given::default();
        while self.p.peek_token_ref().token != Token::EOF {
            if list && self.p.consume_token(&Token::RParen) {
                break;
            }
            self.copy_option(&mut given)?;
            if list && !self.p.consume_token(&Token::Comma) {
                self.expect(&Token::RParen)?;
                break;
            }
        }
        given.form()
    }

    /// Behind an option that may be switched off: whether it is on.
    fn switched_on(&mut self) -> bool {
        if self.accept_word("false") || self.accept_word("off") {
            return false;
        }
        let _on = self.accept_word("true") || self.accept_word("on");
        true
    }

    fn copy_option(&mut self, given: &mut Given) -> Result<()> {
        let word = self.p.parse_identifier();
        let word = fold(&self.sql(word)?);
        self.accept_word("as");
        match word.as_str() {
            "format" => given.csv = format_name(&self.option_value()?)?,
            "csv" => given.csv = true,
            "text" => given.csv = false,
            "binary" => return Err(Error::unsupported("COPY in binary format is not supported")),
            "header" if self.accept_word("match") => given.header = Header::Match,
            "header" => {
                given.header = if self.switched_on() { Header::Skip } else { Header::None };
            }
            "delimiter" => given.delimiter = Some(one_byte("delimiter", &self.option_value()?)?),
            "null" => given.null = Some(self.option_value()?),
            "quote" => given.quote = Some(one_byte("quote", &self.option_value()?)?),
            "escape" => given.escape = Some(one_byte("escape", &self.option_value()?)?),
            "encoding" => {
                let encoding = self.option_value()?;
                if !["utf8", "utf-8", "unicode"].contains(&encoding.to_lowercase().as_str()) {
                    return Err(Error::unsupported(format!(
                        "encoding \"{encoding}\" is not supported"
                    )));
                }
            }
            // Rows are never anything but what PostgreSQL calls frozen.
            "freeze" => {
                self.switched_on();
            }
            other => {
                return Err(Error::user(
                    sqlstate::SYNTAX_ERROR,
                    format!("option \"{other}\" not recognized"),
                ));
            }
        }
        Ok(())
    }
}

/// The options of a COPY.
#[derive(Default)]
struct Given {
    csv: bool,
    header: Header,
    delimiter: Option<u8>,
    null: Option<String>,
    quote: Option<u8>,
    escape: Option<u8>,
}

impl Given {
    fn form(self) -> Result<CopyForm> {
        let base = CopyForm::new(self.csv);
        if !self.csv && (self.quote.is_some() || self.escape.is_some()) {
            return Err(Error::unsupported("COPY QUOTE and ESCAPE require CSV mode"));
        }
        let quote = self.quote.unwrap_or(base.quote);
        Ok(CopyForm {
            csv: self.csv,
            header: self.header,
            delimiter: self.delimiter.unwrap_or(base.delimiter),
            null: self.null.unwrap_or(base.null),
            quote,
            escape: self.escape.unwrap_or(quote),
        })
    }
}

fn format_name(name: &str) -> Result<bool> {
    match name.to_lowercase().as_str() {
        "csv" => Ok(true),
        "text" => Ok(false),
        "binary" => Err(Error::unsupported("COPY in binary format is not supported")),
        _ => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("COPY format \"{name}\" not recognized"),
        )),
    }
}

fn one_byte(what: &str, text: &str) -> Result<u8> {
    match text.as_bytes() {
        [byte] if *byte != b'\n' && *byte != b'\r' => Ok(*byte),
        _ => Err(Error::unsupported(format!("COPY {what} must be a single one-byte character"))),
    }
}
