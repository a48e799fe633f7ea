//! Clauses that several statements share: `WITH (..)` and `FORMAT .. ENCODE .. (..)`.

use std::collections::BTreeMap;

use sqlparser::tokenizer::Token;

use super::StreamParser;
use crate::error::{Error, Result, sqlstate};
use crate::format::{Changelog, FormatOptions, FormatSpec};

impl StreamParser<'_> {
    /// `WITH (key = value, ..)`; empty when absent.
    pub(super) fn with_options(&mut self) -> Result<BTreeMap<String, String>> {
        match self.accept_word("with") {
            true => self.option_list(),
            false => Ok(BTreeMap::new()),
        }
    }

    /// `(key = value, ..)` with keys as `a.b.c`, quoted or not, in lower case. What is a secret is
    /// in `self.secrets` then.
    pub(super) fn option_list(&mut self) -> Result<BTreeMap<String, String>> {
        let mut options = BTreeMap::new();
        self.expect(&Token::LParen)?;
        while self.p.peek_token_ref().token != Token::RParen {
            let key = self.option_key()?;
            self.expect(&Token::Eq)?;
            let twice = match self.secret_name()? {
                Some(secret) => {
                    options.contains_key(&key) | self.secrets.insert(key.clone(), secret).is_some()
                }
                None => {
                    let value = self.option_value()?;
                    options.insert(key.clone(), value).is_some() | self.secrets.contains_key(&key)
                }
            };
            if twice {
                return Err(Error::user(
                    sqlstate::SYNTAX_ERROR,
                    format!("option \"{key}\" is given more than once"),
                ));
            }
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen)?;
        Ok(options)
    }

    /// `SECRET name` in the place of a value.
    fn secret_name(&mut self) -> Result<Option<String>> {
        let named = matches!(self.p.peek_nth_token_ref(1).token, Token::Word(_));
        match named && self.accept_word("secret") {
            true => self.identifier().map(Some),
            false => Ok(None),
        }
    }

    fn option_key(&mut self) -> Result<String> {
        let mut key = String::new();
        loop {
            match &self.p.peek_token_ref().token {
                Token::Word(w) => key.push_str(&w.value.to_lowercase()),
                Token::SingleQuotedString(s) => key.push_str(&s.to_lowercase()),
                _ => return Err(self.unexpected()),
            }
            self.p.advance_token();
            match self.p.consume_token(&Token::Period) {
                true => key.push('.'),
                false => return Ok(key),
            }
        }
    }

    /// A string, number, boolean or bare word, as text.
    pub(super) fn option_value(&mut self) -> Result<String> {
        let sign = if self.p.consume_token(&Token::Minus) { "-" } else { "" };
        let value = match &self.p.peek_token_ref().token {
            Token::Number(n, _) => format!("{sign}{n}"),
            _ if !sign.is_empty() => return Err(self.unexpected()),
            Token::SingleQuotedString(s) | Token::EscapedStringLiteral(s) => s.clone(),
            Token::DollarQuotedString(s) => s.value.clone(),
            Token::Word(w) if w.quote_style.is_some() => w.value.clone(),
            Token::Word(w) => w.value.to_lowercase(),
            _ => return Err(self.unexpected()),
        };
        self.p.advance_token();
        Ok(value)
    }

    /// `FORMAT PLAIN | UPSERT | DEBEZIUM ENCODE name [(..)]`; `None` when absent.
    pub(super) fn format_clause(&mut self) -> Result<Option<FormatSpec>> {
        if !self.accept_word("format") {
            return Ok(None);
        }
        let word = self.identifier()?;
        let mut known = Changelog::ALL.into_iter();
        let Some(changelog) = known.find(|c| c.name().eq_ignore_ascii_case(&word)) else {
            return Err(Error::unsupported(format!(
                "FORMAT {} is not supported yet",
                word.to_uppercase()
            ))
            .with_hint("Use FORMAT PLAIN, FORMAT UPSERT or FORMAT DEBEZIUM."));
        };
        self.expect_word("encode")?;
        let encode = self.identifier()?;
        let options = match self.p.peek_token_ref().token {
            Token::LParen => self.option_list()?,
            _ => FormatOptions::new(),
        };
        Ok(Some(FormatSpec { changelog, encode, options }))
    }
}
