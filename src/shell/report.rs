//! Errors and notices as psql prints them:
//!
//! ```text
//! ERROR:  relation "foo" does not exist
//! LINE 1: select * from foo;
//!                       ^
//! HINT:  ..
//! ```

use super::width::{display_width, printable};
use crate::engine::outcome::Notice;
use crate::error::Error;

/// Columns of the statement that are shown around the place of an error.
const EXCERPT_COLUMNS: usize = 72;

/// How much is said of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Verbosity {
    /// Message, place, detail and hint.
    #[default]
    Default,
    /// All of that and the SQLSTATE.
    Verbose,
}

/// The lines of an error; `text` is the input that its position counts in.
pub(crate) fn error_report(error: &Error, text: &str, verbosity: Verbosity) -> String {
    let code = match verbosity {
        Verbosity::Default => String::new(),
        Verbosity::Verbose => format!("{}: ", error.sqlstate()),
    };
    let mut out = format!("ERROR:  {code}{}\n", error.message());
    if let Some(position) = error.position() {
        out.push_str(&excerpt(text, position));
    }
    if let Some(detail) = error.detail() {
        out.push_str(&format!("DETAIL:  {detail}\n"));
    }
    if let Some(hint) = error.hint() {
        out.push_str(&format!("HINT:  {hint}\n"));
    }
    out
}

/// The lines of a notice.
pub(crate) fn notice_report(notice: &Notice) -> String {
    let mut out = format!("{}:  {}\n", notice.severity, notice.message);
    if let Some(hint) = &notice.hint {
        out.push_str(&format!("HINT:  {hint}\n"));
    }
    out
}

/// The number (from 1) of the line that a position (in characters, from 1) is in.
pub(crate) fn line_of(text: &str, position: usize) -> usize {
    1 + text.chars().take(position.saturating_sub(1)).filter(|c| *c == '\n').count()
}

/// The line of the statement with a caret under the place; empty where the place is outside.
fn excerpt(text: &str, position: usize) -> String {
    let number = line_of(text, position);
    let Some(line) = text.split('\n').nth(number - 1) else {
        return String::new();
    };
    let before: usize = text.split('\n').take(number - 1).map(|l| l.chars().count() + 1).sum();
    let column = (position - 1).saturating_sub(before);
    // A long line is cut so that the place is in sight.
    let skip = match display_width(line) > EXCERPT_COLUMNS {
        true => column.saturating_sub(EXCERPT_COLUMNS / 2),
        false => 0,
    };
    let shown: String = line.chars().skip(skip).take(EXCERPT_COLUMNS).collect();
    let lead: String = line.chars().skip(skip).take(column - skip).collect();
    let (open, close) = (
        if skip > 0 { "..." } else { "" },
        if line.chars().count() > skip + EXCERPT_COLUMNS { "..." } else { "" },
    );
    let head = format!("LINE {number}: {open}");
    let blanks = " ".repeat(display_width(&head) + display_width(&printable(&lead)));
    format!("{head}{}{close}\n{blanks}^\n", printable(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_marked_as_in_psql() {
        let error = Error::user("42P01", "relation \"foo\" does not exist")
            .with_position(22)
            .with_hint("There is \"food\".");
        let text = "select 1,\n       2 from foo;";
        let expected = "ERROR:  relation \"foo\" does not exist\n\
                        LINE 2:        2 from foo;\n                   ^\n\
                        HINT:  There is \"food\".\n";
        assert_eq!(error_report(&error, text, Verbosity::Default), expected);
        let verbose = error_report(&error, text, Verbosity::Verbose);
        assert!(verbose.starts_with("ERROR:  42P01: relation"));
    }

    #[test]
    fn a_place_outside_of_the_text_or_in_a_long_line() {
        assert_eq!(excerpt("abc", 4), "LINE 1: abc\n           ^\n");
        let long = format!("select {}x", "a, ".repeat(100));
        let report = excerpt(&long, 308);
        let lines: Vec<&str> = report.lines().collect();
        assert!(lines[0].len() < 100 && lines[0].ends_with('x'), "{report}");
        assert_eq!(lines[1].len(), lines[0].len(), "the caret is under the x");
    }
}
