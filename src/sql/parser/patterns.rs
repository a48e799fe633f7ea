//! MATCH_RECOGNIZE as sqlparser can read it.
//!
//! Its parser knows the clause in part. So the pattern with what stands behind it (WITHIN, SUBSET)
//! is put as one name, whose text `sql/patterns` reads; `FINAL f(x)` becomes the call
//! `FINAL(f(x))`, `A.*` the column `A."*"`, and `SKIP TO v` is written out. What the tree prints is
//! read the same way again, since views are kept as the text of their tree.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use super::clauses::{is_keyword, next, private};
use super::is_word;
use super::position::Positions;
use crate::error::{Error, Result, sqlstate};

/// Puts the clauses of a text as what sqlparser reads.
pub(super) fn put_patterns(
    tokens: Vec<TokenWithSpan>,
    positions: &Positions<'_>,
) -> Result<Vec<TokenWithSpan>> {
    let clause = |t: &TokenWithSpan| is_keyword(t, Keyword::MATCH_RECOGNIZE);
    if !tokens.iter().any(clause) {
        return Ok(tokens);
    }
    let mut out = Vec::with_capacity(tokens.len() + 8);
    let mut at = 0;
    while at < tokens.len() {
        let open = next(&tokens, at + 1).filter(|i| tokens[*i].token == Token::LParen);
        match open.filter(|_| clause(&tokens[at])) {
            Some(open) => {
                call_subquery(&mut out);
                out.extend_from_slice(&tokens[at..=open]);
                let close = closing(&tokens, open).unwrap_or(tokens.len());
                Clause { tokens: &tokens[..close], positions, out: &mut out }.put(open + 1)?;
                at = close;
            }
            None => {
                out.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    Ok(out)
}

/// A subquery in front of the clause becomes the call of a function without a name, since sqlparser
/// reads the clause behind names and calls alone.
fn call_subquery(out: &mut Vec<TokenWithSpan>) {
    let solid = |t: &&TokenWithSpan| !matches!(t.token, Token::Whitespace(_));
    if out.iter().rev().find(solid).map(|t| &t.token) != Some(&Token::RParen) {
        return;
    }
    let mut depth = 0_usize;
    let open = out.iter().rposition(|t| {
        match t.token {
            Token::RParen => depth += 1,
            Token::LParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        t.token == Token::LParen && depth == 0
    });
    let Some(open) = open else { return };
    let begins = [Keyword::FROM, Keyword::JOIN, Keyword::LATERAL];
    let in_from = match out[..open].iter().rev().find(solid) {
        Some(before) => {
            begins.iter().any(|keyword| is_keyword(before, *keyword))
                || matches!(before.token, Token::Comma | Token::LParen)
        }
        None => false,
    };
    if in_from {
        let span = out[open].span;
        let end = out[out.len() - 1].span;
        out.insert(open, TokenWithSpan::new(Token::LParen, span));
        out.insert(open, TokenWithSpan::new(private(""), span));
        out.push(TokenWithSpan::new(Token::RParen, end));
    }
}

/// The parenthesis that closes the one at a place.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.checked_sub(1)?,
            Token::SemiColon => return None,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// What is between the parentheses of a clause.
struct Clause<'t, 'p> {
    tokens: &'t [TokenWithSpan],
    positions: &'t Positions<'p>,
    out: &'t mut Vec<TokenWithSpan>,
}

impl Clause<'_, '_> {
    fn put(&mut self, from: usize) -> Result<()> {
        let (mut at, mut depth, mut patterns) = (from, 0_usize, 0);
        // Where a parenthesis was opened behind FINAL, and has to be closed.
        let mut closes: Vec<usize> = Vec::new();
        while at < self.tokens.len() {
            let token = &self.tokens[at];
            match &token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                Token::Word(word) if depth == 0 && is_word(word, "pattern") => {
                    if let Some(define) = self.pattern(at)? {
                        at = define;
                        patterns += 1;
                        continue;
                    }
                }
                Token::Word(word) if is_word(word, "final") || is_word(word, "running") => {
                    if let Some(close) = self.prefix(at) {
                        self.add(private(&word.value.to_uppercase()), token.span);
                        self.add(Token::LParen, token.span);
                        closes.push(close);
                        at += 1;
                        continue;
                    }
                }
                Token::Word(word) if depth == 0 && is_word(word, "to") && self.skips_to(at) => {
                    self.out.push(token.clone());
                    self.add(Token::make_keyword("LAST"), token.span);
                    at += 1;
                    continue;
                }
                Token::Mul if self.at(at.checked_sub(1)) == Some(&Token::Period) => {
                    let value = "*".to_owned();
                    let keyword = Keyword::NoKeyword;
                    let all = Word { value, quote_style: Some('"'), keyword };
                    self.add(Token::Word(all), token.span);
                    at += 1;
                    continue;
                }
                _ => {}
            }
            self.out.push(token.clone());
            while closes.last() == Some(&at) {
                closes.pop();
                self.add(Token::RParen, token.span);
            }
            at += 1;
        }
        match patterns {
            1 => Ok(()),
            _ => Err(self.without_pattern()),
        }
    }

    fn add(&mut self, token: Token, span: Span) {
        self.out.push(TokenWithSpan::new(token, span));
    }

    fn at(&self, at: Option<usize>) -> Option<&Token> {
        self.tokens.get(at?).map(|t| &t.token)
    }

    fn without_pattern(&self) -> Error {
        let message = "MATCH_RECOGNIZE needs PATTERN (..) and DEFINE behind it";
        let error = Error::user(sqlstate::SYNTAX_ERROR, message).with_hint(
            "MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts MEASURES .. PATTERN (a b+) \
             DEFINE b AS ..)",
        );
        match self.tokens.last() {
            Some(last) => error.with_position(self.positions.chars_before(last.span.start) + 1),
            None => error,
        }
    }

    /// Puts the pattern that begins here up to DEFINE, whose place it tells.
    fn pattern(&mut self, at: usize) -> Result<Option<usize>> {
        let Some(open) = next(self.tokens, at + 1) else { return Ok(None) };
        if self.tokens[open].token != Token::LParen {
            return Ok(None);
        }
        let close = closing(self.tokens, open).ok_or_else(|| self.without_pattern())?;
        let mut depth = 0_usize;
        let define = (close + 1..self.tokens.len()).find(|i| {
            match self.tokens[*i].token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && is_keyword(&self.tokens[*i], Keyword::DEFINE)
        });
        let define = define.ok_or_else(|| self.without_pattern())?;
        let (begin, end) = (self.tokens[open].span.end, self.tokens[close].span.start);
        // What is behind the pattern stands as far behind it as it did, so that places in the text
        // are those of the query.
        let text = format!("{} {}", self.text(open + 1, close), self.text(close + 1, define));
        let last = self.tokens[define].span;
        self.out.extend_from_slice(&self.tokens[at..=open]);
        self.add(private(text.trim_end()), Span::new(begin, end));
        self.add(Token::RParen, Span::new(end, end));
        self.add(self.tokens[define].token.clone(), last);
        Ok(Some(define + 1))
    }

    /// The text of some tokens, comments and line ends as spaces.
    fn text(&self, from: usize, to: usize) -> String {
        let text = self.tokens[from..to].iter().map(|t| {
            let text = self.positions.slice(t.span.start, t.span.end);
            match t.token {
                Token::Whitespace(_) => " ".repeat(text.chars().count()),
                _ => text.to_owned(),
            }
        });
        text.collect()
    }

    /// Where the call ends that FINAL or RUNNING at a place belongs to.
    fn prefix(&self, at: usize) -> Option<usize> {
        let call = next(self.tokens, at + 1)?;
        let open = next(self.tokens, call + 1)?;
        let named = matches!(&self.tokens[call].token, Token::Word(_));
        let called = named && self.tokens[open].token == Token::LParen;
        called.then(|| closing(self.tokens, open)).flatten()
    }

    /// Whether `TO` stands behind SKIP and ahead of a variable.
    fn skips_to(&self, at: usize) -> bool {
        let space = |i: &usize| matches!(self.tokens[*i].token, Token::Whitespace(_));
        let before = (0..at).rev().find(|i| !space(i));
        let behind_skip = before.is_some_and(|i| is_keyword(&self.tokens[i], Keyword::SKIP));
        let target = next(self.tokens, at + 1);
        let Some(Token::Word(word)) = target.map(|i| &self.tokens[i].token) else { return false };
        let known = match word.keyword {
            // `TO NEXT ROW`, but `next` can be a variable.
            Keyword::NEXT => target.and_then(|i| next(self.tokens, i + 1)),
            Keyword::FIRST | Keyword::LAST => target.and_then(|i| next(self.tokens, i + 1)),
            _ => None,
        };
        let known = known.is_some_and(|i| match word.keyword {
            Keyword::NEXT => is_keyword(&self.tokens[i], Keyword::ROW),
            _ => !is_keyword(&self.tokens[i], Keyword::PATTERN),
        });
        behind_skip && !known
    }
}
