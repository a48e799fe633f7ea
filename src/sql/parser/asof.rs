//! `ASOF JOIN`, put as what sqlparser reads: an inner or left join whose condition says by a call
//! of [`ASOF_MATCH`] that it is one.
//!
//! * `a ASOF JOIN b MATCH_CONDITION (m) ON c` is `a JOIN b ON asof_match(m) AND c`;
//! * `a ASOF JOIN b ON c`, with the inequality in `c`, is `a JOIN b ON asof_match() AND c`;
//! * `ASOF LEFT JOIN` and `LEFT ASOF JOIN` are left joins.
//!
//! So definitions, which are kept as the text of the tree, can be read again.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use super::position::Positions;
use crate::error::{Error, Result, sqlstate};

/// The function that says of which condition the nearest row is wanted.
pub(in crate::sql) const ASOF_MATCH: &str = "asof_match";

/// What becomes of a token.
enum Edit {
    Drop,
    Replace(Vec<Token>),
}

/// Puts the joins of some tokens.
pub(super) fn put_asof_joins(
    mut tokens: Vec<TokenWithSpan>,
    positions: &Positions<'_>,
) -> Result<Vec<TokenWithSpan>> {
    if !tokens.iter().any(|t| is_word(t, "asof")) {
        return Ok(tokens);
    }
    let mut edits: Vec<(usize, Edit)> = Vec::new();
    for at in 0..tokens.len() {
        if is_word(&tokens[at], "asof") {
            edits.extend(edits_of(&tokens, at, positions)?);
        }
    }
    edits.sort_by_key(|(at, _)| *at);
    for (at, edit) in edits.into_iter().rev() {
        let span = tokens[at].span;
        let new = match edit {
            Edit::Drop => Vec::new(),
            Edit::Replace(new) => new,
        };
        tokens.splice(at..=at, new.into_iter().map(|token| TokenWithSpan { token, span }));
    }
    Ok(tokens)
}

/// What a join needs that begins, or goes on, with ASOF; nothing when that is a name.
fn edits_of(
    tokens: &[TokenWithSpan],
    at: usize,
    positions: &Positions<'_>,
) -> Result<Vec<(usize, Edit)>> {
    let mut edits = vec![(at, Edit::Drop)];
    let mut next = behind(tokens, at);
    for kind in ["inner", "left", "outer", "right", "full"] {
        if tokens.get(next).is_some_and(|t| is_word(t, kind)) {
            next = behind(tokens, next);
        }
    }
    if !tokens.get(next).is_some_and(|t| is_word(t, "join")) {
        return Ok(Vec::new());
    }
    let words = tokens[..at].iter().rev().filter(|t| is_significant(t)).take(2);
    let ahead =
        words.take_while(|t| ["left", "right", "full", "outer"].iter().any(|w| is_word(t, w)));
    let kinds = ahead.chain(&tokens[at..next]);
    let both = ["right", "full"].iter().find(|word| kinds.clone().any(|t| is_word(t, word)));
    if both.is_some() {
        let message = "ASOF JOIN is an inner or a left join";
        let error = Error::unsupported(message).with_hint(
            "Put the relation whose rows are all to come out on the left: ASOF LEFT JOIN.",
        );
        return Err(error.with_position(positions.chars_before(tokens[at].span.start) + 1));
    }
    let missing = |hint: &str| {
        let error = Error::user(sqlstate::SYNTAX_ERROR, "an ASOF JOIN needs a condition");
        error.with_hint(hint).with_position(positions.chars_before(tokens[at].span.start) + 1)
    };
    const FORM: &str = "Write .. ASOF JOIN q ON t.symbol = q.symbol AND t.ts >= q.ts.";
    let condition = outside(tokens, behind(tokens, next), &["match_condition", "on", "using"]);
    let condition = condition.ok_or_else(|| missing(FORM))?;
    let (on, and) = (Token::make_keyword("ON"), Token::make_keyword("AND"));
    let call = Token::Word(Word {
        value: ASOF_MATCH.into(),
        quote_style: None,
        keyword: Keyword::NoKeyword,
    });
    if is_word(&tokens[condition], "using") {
        return Err(missing("An ASOF JOIN does not take USING. Write ON."));
    }
    if is_word(&tokens[condition], "on") {
        let call = vec![on, call, Token::LParen, Token::RParen, and];
        edits.push((condition, Edit::Replace(call)));
        return Ok(edits);
    }
    let open = behind(tokens, condition);
    let end =
        closing(tokens, open).ok_or_else(|| missing("Write MATCH_CONDITION (t.ts >= q.ts)."))?;
    edits.push((condition, Edit::Replace(vec![on, call])));
    match tokens.get(behind(tokens, end)) {
        Some(t) if is_word(t, "on") => edits.push((behind(tokens, end), Edit::Replace(vec![and]))),
        Some(t) if is_word(t, "using") => {
            return Err(missing("An ASOF JOIN does not take USING. Write ON."));
        }
        _ => {}
    }
    Ok(edits)
}

fn is_significant(token: &TokenWithSpan) -> bool {
    !matches!(token.token, Token::Whitespace(_))
}

/// Whether a token is a word without quotes.
fn is_word(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(w) if w.quote_style.is_none()
        && w.value.eq_ignore_ascii_case(word))
}

/// The next place that is no white space.
fn behind(tokens: &[TokenWithSpan], at: usize) -> usize {
    let rest = tokens.iter().enumerate().skip(at + 1);
    rest.clone().find(|(_, t)| is_significant(t)).map_or(tokens.len(), |(at, _)| at)
}

/// The place of the first of some words outside of parentheses, before the item of FROM ends.
fn outside(tokens: &[TokenWithSpan], from: usize, words: &[&str]) -> Option<usize> {
    let mut at = from;
    while let Some(token) = tokens.get(at) {
        match &token.token {
            Token::LParen => at = closing(tokens, at)?,
            Token::RParen | Token::Comma | Token::SemiColon => return None,
            _ if words.iter().any(|word| is_word(token, word)) => return Some(at),
            _ if ["where", "join", "group", "order", "limit"].iter().any(|w| is_word(token, w)) => {
                return None;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The place of the parenthesis that closes one.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => return Some(at),
            Token::RParen => depth = depth.checked_sub(1)?,
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}
