//! The place of an error that names what it is about but not where that stands: a relation, a
//! function, a column, a type, an operator, a literal. It is looked for among the tokens of the
//! statement; where it could be meant twice there is no position rather than a wrong one.

use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::is_word;
use super::position::Positions;
use crate::error::{Error, sqlstate};
use crate::sql::dialect::DIALECT;

/// Adds the position of what an error names, if it has none; `text` is the statement, which begins
/// behind `offset` characters.
pub(crate) fn locate(error: Error, text: &str, offset: usize) -> Error {
    if error.position().is_some() {
        return error;
    }
    let positions = Positions::new(text);
    let Ok(mut tokens) = Tokenizer::new(&DIALECT, text).tokenize_with_location() else {
        return error;
    };
    positions.flatten(&mut tokens);
    tokens.retain(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF));
    match place(&error, &tokens) {
        Some(at) => {
            let before = positions.chars_before(tokens[at].span.start);
            error.with_position(offset + before + 1)
        }
        None => error,
    }
}

fn place(error: &Error, tokens: &[TokenWithSpan]) -> Option<usize> {
    let message = error.message();
    match error.sqlstate() {
        sqlstate::UNDEFINED_TABLE if message.starts_with("relation ") => {
            relation(tokens, quoted(message)?)
        }
        sqlstate::UNDEFINED_TABLE => {
            let name = quoted(message)?;
            let followed = |at: usize| tokens.get(at + 1).is_some_and(|t| t.token == Token::Period);
            words(tokens, name).find(|at| followed(*at))
        }
        sqlstate::UNDEFINED_FUNCTION if message.starts_with("function ") => {
            let name = message.strip_prefix("function ")?.split('(').next()?;
            let called = |at: usize| tokens.get(at + 1).is_some_and(|t| t.token == Token::LParen);
            words(tokens, name.rsplit('.').next()?).find(|at| called(*at))
        }
        sqlstate::UNDEFINED_FUNCTION => {
            let types = message.strip_prefix("operator does not exist: ")?;
            let symbol = |word: &&str| !word.contains(|c: char| c.is_alphanumeric() || c == '"');
            let operator = types.split(' ').find(symbol)?;
            only(tokens, |t| t.token.to_string() == operator)
        }
        sqlstate::UNDEFINED_COLUMN => column(message, tokens),
        sqlstate::UNDEFINED_OBJECT | sqlstate::WRONG_OBJECT_TYPE | "42P20" => {
            words(tokens, quoted(message).or_else(|| subject(message))?).next()
        }
        sqlstate::DUPLICATE_COLUMN if is_insert(tokens) => words(tokens, quoted(message)?).nth(1),
        sqlstate::INVALID_TEXT_REPRESENTATION
        | sqlstate::NUMERIC_VALUE_OUT_OF_RANGE
        | sqlstate::DATETIME_FIELD_OVERFLOW
        | "22007" => {
            let literal = quoted(message)?;
            only(tokens, |t| matches!(&t.token, Token::SingleQuotedString(s) if s == literal))
        }
        _ => None,
    }
}

/// `window function row_number requires ..`, `OVER specified, but lower is not ..`.
fn subject(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("window function ");
    rest.or_else(|| message.strip_prefix("OVER specified, but "))?.split(' ').next()
}

fn is_insert(tokens: &[TokenWithSpan]) -> bool {
    tokens.first().is_some_and(|t| is(&t.token, "insert"))
}

/// What stands between the first and the last double quote of a message.
fn quoted(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once('"')?;
    match rest.split_once("\" ") {
        Some((name, _)) => Some(name),
        None => rest.rsplit_once('"').map(|(name, _)| name),
    }
}

fn is(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if is_word(w, word))
}

/// Where an identifier stands.
fn words<'a>(tokens: &'a [TokenWithSpan], name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let same = move |token: &Token| match token {
        Token::Word(w) if w.quote_style == Some('"') => w.value == name,
        Token::Word(w) => w.value.to_lowercase() == name,
        _ => false,
    };
    tokens.iter().enumerate().filter(move |(_, t)| same(&t.token)).map(|(at, _)| at)
}

/// The one token for which something holds.
fn only(tokens: &[TokenWithSpan], holds: impl Fn(&TokenWithSpan) -> bool) -> Option<usize> {
    let mut found = tokens.iter().enumerate().filter(|(_, t)| holds(t)).map(|(at, _)| at);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// A relation stands behind one of these words, or in a list of relations.
fn relation(tokens: &[TokenWithSpan], name: &str) -> Option<usize> {
    const BEFORE: &[&str] = &["from", "join", "into", "update", "table", "only", "on", "using"];
    let behind = |at: usize| {
        let before = at.checked_sub(1).map(|b| &tokens[b].token);
        before.is_none_or(|t| *t == Token::Comma || BEFORE.iter().any(|word| is(t, word)))
    };
    let name = name.rsplit('.').next()?;
    words(tokens, name).find(|at| behind(*at)).or_else(|| words(tokens, name).next())
}

/// `column "c" does not exist`, `column t.c does not exist`, `column "c" of relation ..`.
fn column(message: &str, tokens: &[TokenWithSpan]) -> Option<usize> {
    if message.contains("specified in USING clause") {
        return None;
    }
    let named = message.strip_prefix("column ")?.split(" does not exist").next()?;
    if let Some((table, name)) = named.split_once('.').filter(|_| !named.starts_with('"')) {
        let part = |at: usize, word: &str| words(&tokens[at..=at], word).next().is_some();
        let mut starts = words(tokens, table);
        return starts.find(|at| {
            at + 2 < tokens.len()
                && tokens[at + 1].token == Token::Period
                && part(at + 2, name.trim_matches('"'))
        });
    }
    let name = quoted(message)?;
    let free = |at: &usize| {
        let before = at.checked_sub(1).map(|b| &tokens[b].token);
        let after = tokens.get(at + 1).map(|t| &t.token);
        before.is_none_or(|t| *t != Token::Period && !is(t, "as"))
            && after.is_none_or(|t| *t != Token::LParen && *t != Token::Period)
    };
    words(tokens, name).find(free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse;

    fn found(text: &str, state: &'static str, message: &str) -> Option<usize> {
        let statement = parse(text).expect("parses").remove(0);
        locate(Error::user(state, message), &statement.text, statement.offset).position()
    }

    #[test]
    fn the_caret_is_under_what_the_message_names() {
        let missing = "relation \"ords\" does not exist";
        assert_eq!(found("SELECT ords.a FROM t, ords", "42P01", missing), Some(23));
        assert_eq!(found(" SELECT 1 FROM\n ords", "42P01", missing), Some(17));
        let missing = "column \"x\" does not exist";
        assert_eq!(found("SELECT a.x, x(1), x FROM t", "42703", missing), Some(19));
        let missing = "column a.x does not exist";
        assert_eq!(found("SELECT x, b.x, a.x FROM t", "42703", missing), Some(16));
        let missing = "function uper(text) does not exist";
        assert_eq!(found("SELECT uper, Uper (a)", "42883", missing), Some(14));
        let missing = "operator does not exist: text + integer";
        assert_eq!(found("SELECT 'é', a + 1", "42883", missing), Some(15));
        assert_eq!(found("SELECT a + 1, b + 1", "42883", missing), None, "either");
        let wrong = "invalid input syntax for type integer: \"x\"";
        assert_eq!(found("SELECT id FROM t WHERE id = 'x'", "22P02", wrong), Some(29));
        assert_eq!(found("SELECT 'x', 'x'::int", "22P02", wrong), None);
    }
}
