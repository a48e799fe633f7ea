//! A text cut into the pieces that an editor colours. It need not be right SQL, nor finished.

use std::ops::Range;

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

use crate::sql::dialect::DIALECT;

/// What a piece of a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A word that may be a keyword; whether it is one depends on its place.
    Keyword,
    /// A name.
    Name,
    /// A literal in quotes.
    Text,
    /// A number.
    Number,
    /// A comment.
    Comment,
    /// Operators, punctuation, white space.
    Other,
}

/// The pieces of a text in order, which cover all of it. What can't be read is one piece of text: a
/// quote that is not closed yet.
pub fn pieces(text: &str) -> Vec<(Range<usize>, Piece)> {
    let mut tokens = Vec::new();
    let finished = Tokenizer::new(&DIALECT, text)
        .with_unescape(false)
        .tokenize_with_location_into_buf(&mut tokens);
    let mut pieces = Vec::new();
    let mut at = 0;
    for token in tokens {
        // Without escapes a token prints as it was written.
        let written = token.token.to_string();
        if !text.get(at..).is_some_and(|rest| rest.starts_with(&written)) {
            break;
        }
        pieces.push((at..at + written.len(), kind(&token.token)));
        at += written.len();
    }
    if at < text.len() {
        let rest = if finished.is_err() { Piece::Text } else { Piece::Other };
        pieces.push((at..text.len(), rest));
    }
    pieces
}

fn kind(token: &Token) -> Piece {
    match token {
        Token::Word(word) if word.quote_style.is_some() => Piece::Name,
        Token::Word(word) if word.keyword == Keyword::NoKeyword => Piece::Name,
        Token::Word(_) => Piece::Keyword,
        Token::Number(..) => Piece::Number,
        Token::SingleQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::DollarQuotedString(_)
        | Token::NationalStringLiteral(_)
        | Token::UnicodeStringLiteral(_) => Piece::Text,
        Token::Whitespace(Whitespace::SingleLineComment { .. })
        | Token::Whitespace(Whitespace::MultiLineComment(_)) => Piece::Comment,
        _ => Piece::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_text() {
        for text in [
            "",
            "SELECT a, \"B\" FROM t WHERE c = 'it''s' -- x",
            "SELECT 1.5e3 /* c */, E'\\n', $$x$$;\n",
            "SELECT 'open",
            "é = 'ü",
        ] {
            let pieces = pieces(text);
            let mut at = 0;
            for (range, _) in &pieces {
                assert_eq!(range.start, at, "{text}");
                at = range.end;
            }
            assert_eq!(at, text.len(), "{text}");
        }
    }

    #[test]
    fn kinds_of_pieces() {
        let text = "SELECT x, 'a' -- c";
        let found: Vec<(&str, Piece)> = pieces(text)
            .into_iter()
            .map(|(range, piece)| (&text[range], piece))
            .filter(|(word, _)| !word.trim().is_empty())
            .collect();
        assert_eq!(
            found,
            [
                ("SELECT", Piece::Keyword),
                ("x", Piece::Name),
                (",", Piece::Other),
                ("'a'", Piece::Text),
                ("-- c", Piece::Comment),
            ]
        );
        assert_eq!(pieces("'open"), [(0..5, Piece::Text)]);
    }
}
