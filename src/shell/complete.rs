//! What Tab offers, by the place of the cursor: backslash commands and their arguments, columns
//! behind a relation's name and a dot, relations where a relation is wanted, and everywhere else
//! columns of the relations that the statement names, functions and keywords.

use crate::sql::pieces::{Piece, pieces};

/// Keywords that are offered, and shown as such.
pub(super) const KEYWORDS: &[&str] = &[
    "ALL",
    "ALTER",
    "AND",
    "APPEND",
    "AS",
    "ASC",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CASCADE",
    "CASE",
    "CAST",
    "CLOSE",
    "COMMIT",
    "CREATE",
    "CROSS",
    "CSV",
    "DEBEZIUM",
    "DEFAULT",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "EMIT",
    "ENCODE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FILTER",
    "FLUSH",
    "FOR",
    "FORMAT",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IF",
    "IN",
    "INCLUDE",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "JSON",
    "KEY",
    "LEFT",
    "LIKE",
    "LIMIT",
    "MATERIALIZED",
    "NATURAL",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "ONLY",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PLAIN",
    "PRIMARY",
    "RETURNING",
    "RIGHT",
    "ROLLBACK",
    "SELECT",
    "SET",
    "SHOW",
    "SINK",
    "SINKS",
    "SOURCE",
    "SOURCES",
    "SUBSCRIBE",
    "TABLE",
    "TABLES",
    "THEN",
    "TO",
    "TRUE",
    "UNION",
    "UPDATE",
    "UPSERT",
    "USING",
    "VALUES",
    "VIEW",
    "VIEWS",
    "WATERMARK",
    "WATERMARKS",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// Backslash commands; those with a dot mean the same.
const COMMANDS: &[&str] = &[
    "\\?",
    "\\a",
    "\\csv",
    "\\d",
    "\\d+",
    "\\dS",
    "\\dk",
    "\\dm",
    "\\dt",
    "\\dv",
    "\\dw",
    "\\errverbose",
    "\\i",
    "\\q",
    "\\tail",
    "\\timing",
    "\\verbose",
    "\\watch",
    "\\x",
    ".help",
    ".quit",
    ".read",
    ".schema",
    ".tables",
    ".tail",
    ".timing",
    ".views",
    ".watch",
];

/// Commands whose argument is a relation.
const OF_RELATION: &[&str] = &["\\d", "\\d+", "\\tail", ".schema", ".tail", ".watch", "\\watch"];

/// Words behind which a relation is wanted.
const BEFORE_RELATION: &[&str] =
    &["FROM", "JOIN", "INTO", "UPDATE", "TO", "DESCRIBE", "TABLE", "VIEW", "SOURCE", "SINK"];

/// The names that a shell knows.
#[derive(Debug, Default, Clone)]
pub(super) struct Names {
    /// Relations with their columns.
    pub(super) relations: Vec<(String, Vec<String>)>,
    /// Functions.
    pub(super) functions: Vec<String>,
}

/// Where the completed word begins, and what it can become.
pub(super) fn complete(names: &Names, line: &str, pos: usize) -> (usize, Vec<String>) {
    let before = line.get(..pos).unwrap_or(line);
    if before.starts_with(['\\', '.']) {
        return command(names, before);
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let start = before.trim_end_matches(is_word).len();
    let (head, word) = before.split_at(start);
    if in_literal(before) {
        return (pos, Vec::new());
    }
    if let Some(owner) = head.strip_suffix('.') {
        let owner = owner.get(owner.trim_end_matches(is_word).len()..).unwrap_or_default();
        let columns = columns_of(names, line, owner);
        return (start, matching(columns.iter().map(String::as_str), word));
    }
    let previous = head.split_whitespace().next_back().unwrap_or_default().to_uppercase();
    let relations = relations_for(names, word);
    if BEFORE_RELATION.contains(&previous.as_str()) {
        let mut found = matching(relations, word);
        if found.is_empty() && !word.is_empty() {
            found = keywords(word);
        }
        return (start, found);
    }
    if word.is_empty() {
        return (pos, Vec::new());
    }
    let mut found = matching(columns_in_sight(names, line).into_iter(), word);
    found.extend(matching(relations, word));
    found.extend(matching(names.functions.iter().map(String::as_str), word));
    found.extend(keywords(word));
    found.dedup();
    (start, found)
}

/// Relations; those that belong to others, as `v$errors`, once the word has come that far.
fn relations_for<'a>(names: &'a Names, word: &str) -> impl Iterator<Item = &'a str> {
    let all = word.contains('$');
    names.relations.iter().map(|(name, _)| name.as_str()).filter(move |n| all || !n.contains('$'))
}

fn command(names: &Names, before: &str) -> (usize, Vec<String>) {
    let Some(space) = before.find(char::is_whitespace) else {
        return (0, matching(COMMANDS.iter().copied(), before));
    };
    let (name, rest) = before.split_at(space);
    let start = before.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let word = before.get(start..).unwrap_or_default();
    if OF_RELATION.contains(&name) && rest.split_whitespace().count() <= 1 {
        return (start, matching(relations_for(names, word), word));
    }
    if matches!(name, "\\timing" | ".timing" | "\\verbose" | "\\x") {
        return (start, matching(["on", "off"].into_iter(), word));
    }
    (before.len(), Vec::new())
}

/// Candidates that begin with a word, in any case.
fn matching<'a>(candidates: impl Iterator<Item = &'a str>, word: &str) -> Vec<String> {
    let begins = |candidate: &&str| {
        candidate.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
    };
    candidates.filter(begins).map(str::to_owned).collect()
}

/// Keywords in the case that the word has.
fn keywords(word: &str) -> Vec<String> {
    let lower = word.chars().all(|c| !c.is_uppercase());
    let found = matching(KEYWORDS.iter().copied(), word).into_iter();
    found.map(|keyword| if lower { keyword.to_lowercase() } else { keyword }).collect()
}

/// Whether a text ends inside of a literal or a comment.
fn in_literal(text: &str) -> bool {
    pieces(text).last().is_some_and(|(_, piece)| matches!(piece, Piece::Text | Piece::Comment))
}

/// The names and keywords of a statement.
fn words(text: &str) -> Vec<&str> {
    let pieces = pieces(text).into_iter();
    let words = pieces.filter(|(_, p)| matches!(p, Piece::Name | Piece::Keyword));
    words.filter_map(|(range, _)| text.get(range)).map(|word| word.trim_matches('"')).collect()
}

/// The columns of a relation, or of what the statement calls so: `FROM bid b`, `bid AS b`.
fn columns_of<'a>(names: &'a Names, line: &str, owner: &str) -> &'a [String] {
    let find = |name: &str| {
        let found =
            names.relations.iter().find(|(relation, _)| relation.eq_ignore_ascii_case(name));
        found.map(|(_, columns)| columns.as_slice())
    };
    if let Some(columns) = find(owner) {
        return columns;
    }
    let words = words(line);
    let places = words.iter().enumerate().filter(|(_, word)| word.eq_ignore_ascii_case(owner));
    let mut before = places.filter_map(|(at, _)| {
        let last = words.get(at.checked_sub(1)?)?;
        let skip = usize::from(last.eq_ignore_ascii_case("as"));
        find(words.get(at.checked_sub(1 + skip)?)?)
    });
    before.next().unwrap_or_default()
}

/// Columns of the relations that the statement names; of all when it names none.
fn columns_in_sight<'a>(names: &'a Names, line: &str) -> Vec<&'a str> {
    let words = words(line);
    let named = |name: &str| words.iter().any(|word| word.eq_ignore_ascii_case(name));
    let some = names.relations.iter().any(|(name, _)| named(name));
    let relations = names.relations.iter().filter(|(name, _)| !some || named(name));
    let mut columns: Vec<&str> =
        relations.flat_map(|(_, columns)| columns.iter().map(String::as_str)).collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(line: &str) -> Vec<String> {
        let names = Names {
            relations: vec![
                ("bid".into(), vec!["auction".into(), "price".into()]),
                ("bid$errors".into(), vec!["reason".into()]),
                ("bidder".into(), vec!["id".into(), "name".into()]),
            ],
            functions: vec!["avg".into(), "substr".into(), "sum".into()],
        };
        complete(&names, line, line.len()).1
    }

    #[test]
    fn the_place_decides() {
        assert_eq!(offered("sel"), ["select"]);
        assert_eq!(offered("SEL"), ["SELECT"]);
        assert_eq!(offered("SELECT * FROM bi"), ["bid", "bidder"]);
        assert_eq!(offered("SELECT * FROM "), ["bid", "bidder"]);
        assert_eq!(offered("SELECT * FROM bid$"), ["bid$errors"]);
        assert_eq!(offered("SELECT bid."), ["auction", "price"]);
        assert_eq!(offered("SELECT * FROM bidder AS x JOIN bid y ON x.n"), ["name"]);
        assert_eq!(offered("SELECT * FROM bidder AS x JOIN bid y ON x.id = y.p"), ["price"]);
        assert_eq!(offered("SELECT su"), ["substr", "sum", "subscribe"]);
        assert_eq!(offered("SELECT count(*) FROM bid WHERE pr"), ["price", "primary"]);
        assert_eq!(offered("SELECT 'sel"), [""; 0]);
        assert_eq!(offered("SELECT 1 -- sel"), [""; 0]);
        assert_eq!(offered("SUBSCRIBE TO bidd"), ["bidder"]);
    }

    #[test]
    fn commands_and_their_arguments() {
        assert_eq!(offered("\\ti"), ["\\timing"]);
        assert_eq!(offered("\\timing o"), ["on", "off"]);
        assert_eq!(offered(".wa"), [".watch"]);
        assert_eq!(offered(".watch bidd"), ["bidder"]);
        assert_eq!(offered("\\d "), ["bid", "bidder"]);
    }
}
