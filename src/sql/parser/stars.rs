//! `t.*` and `(t).*` where a value stands: `t.* = u.*`, `t.*::text`. sqlparser reads a star as an
//! item of a list alone, and as an operand only in parentheses, which it gets here.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::clauses::next;
use super::is_word;
use super::position::Positions;
use crate::error::{Error, Result};

/// Puts the stars as what sqlparser reads.
pub(super) fn put_stars(
    tokens: Vec<TokenWithSpan>,
    positions: &Positions<'_>,
) -> Result<Vec<TokenWithSpan>> {
    if !tokens.iter().any(|t| t.token == Token::Mul) {
        return Ok(tokens);
    }
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() + 8);
    for (at, token) in tokens.iter().enumerate() {
        out.push(token.clone());
        if token.token != Token::Mul {
            if is_one(&token.token, &["except"]) && excludes(&out, &tokens, at) {
                out.pop();
                let word = Token::make_keyword("EXCLUDE");
                out.push(TokenWithSpan::new(word, token.span));
            }
            continue;
        }
        if let Some(error) = alone(&out, &tokens, at, positions) {
            return Err(error);
        }
        let Some(begin) = begin_of_star(&mut out) else { continue };
        if next(&tokens, at + 1).is_some_and(|i| continues(&tokens[i].token)) {
            let (open, close) = (out[begin].span, token.span);
            out.insert(begin, TokenWithSpan::new(Token::LParen, open));
            out.push(TokenWithSpan::new(Token::RParen, close));
        }
    }
    Ok(out)
}

/// `* EXCEPT (a, t.b)`, which is how RisingWave spells EXCLUDE; a query in the parentheses is the
/// other side of a set operation.
fn excludes(out: &[TokenWithSpan], tokens: &[TokenWithSpan], at: usize) -> bool {
    let star = before(out, out.len() - 1).is_some_and(|i| out[i].token == Token::Mul);
    let open = next(tokens, at + 1).filter(|i| star && tokens[*i].token == Token::LParen);
    let Some(first) = open.and_then(|i| next(tokens, i + 1)) else { return false };
    match &tokens[first].token {
        Token::Word(w) if w.quote_style.is_some() => true,
        Token::Word(_) => !is_one(&tokens[first].token, &["select", "table", "values", "with"]),
        _ => false,
    }
}

/// `SELECT (*)`, which is no expression.
fn alone(
    out: &[TokenWithSpan],
    tokens: &[TokenWithSpan],
    at: usize,
    positions: &Positions<'_>,
) -> Option<Error> {
    let closed = next(tokens, at + 1).is_some_and(|i| tokens[i].token == Token::RParen);
    let open = before(out, out.len() - 1).filter(|i| closed && out[*i].token == Token::LParen)?;
    let listed = match before(out, open) {
        None => true,
        Some(i) => {
            let begins = ["select", "distinct", "all", "returning"];
            out[i].token == Token::Comma || is_one(&out[i].token, &begins)
        }
    };
    listed.then(|| positions.syntax_error(&tokens[at]))
}

/// Where the name of the star at the end begins, if it has one; parentheses around it go.
fn begin_of_star(out: &mut Vec<TokenWithSpan>) -> Option<usize> {
    let point = before(out, out.len() - 1).filter(|i| out[*i].token == Token::Period)?;
    let mut last = before(out, point)?;
    let (mut parens, mut first) = (0, last);
    while out[last].token == Token::RParen {
        parens += 1;
        last = before(out, last)?;
        first = last;
    }
    loop {
        if !matches!(out[first].token, Token::Word(_)) {
            return None;
        }
        match before(out, first).filter(|i| out[*i].token == Token::Period) {
            Some(point) => first = before(out, point)?,
            None => break,
        }
    }
    let mut begin = first;
    for _ in 0..parens {
        begin = before(out, begin).filter(|i| out[*i].token == Token::LParen)?;
    }
    // `f(t).*` is of what a function gives.
    if parens > 0 && before(out, begin).is_some_and(|i| is_called(&out[i].token)) {
        return None;
    }
    if parens > 0 {
        out.drain(last + 1..point);
        out.drain(begin..first);
    }
    Some(begin)
}

/// Words that a parenthesis behind is no list of arguments of.
const AHEAD: [&str; 16] = [
    "select",
    "distinct",
    "all",
    "returning",
    "row",
    "by",
    "where",
    "on",
    "having",
    "when",
    "then",
    "else",
    "case",
    "and",
    "or",
    "not",
];

/// Words by which an expression goes on behind its first operand.
const BEHIND: [&str; 11] =
    ["is", "in", "not", "between", "like", "ilike", "similar", "and", "or", "isnull", "notnull"];

fn is_one(token: &Token, words: &[&str]) -> bool {
    matches!(token, Token::Word(word) if words.iter().any(|w| is_word(word, w)))
}

/// Whether a parenthesis behind a token is around arguments.
fn is_called(token: &Token) -> bool {
    match token {
        Token::Word(_) => !is_one(token, &AHEAD),
        Token::RParen | Token::RBracket => true,
        _ => false,
    }
}

/// Whether an expression goes on behind its first operand.
fn continues(token: &Token) -> bool {
    match token {
        Token::Word(_) => is_one(token, &BEHIND),
        Token::Comma | Token::RParen | Token::RBracket | Token::SemiColon | Token::EOF => false,
        Token::SingleQuotedString(_) => false,
        _ => true,
    }
}

/// The last token ahead of a place that is no white space.
fn before(tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
    tokens[..at].iter().rposition(|t| !matches!(t.token, Token::Whitespace(_)))
}
