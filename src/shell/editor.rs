//! The line editor's helper: completion, colours, hints from the history, and whether Enter ends a
//! statement or begins its next line.

use std::borrow::Cow;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hinter, HistoryHinter};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::complete::{KEYWORDS, Names, complete};
use crate::sql::is_complete;
use crate::sql::pieces::{Piece, pieces};

const KEYWORD: &str = "\x1b[1;36m";
const TEXT: &str = "\x1b[32m";
const NUMBER: &str = "\x1b[35m";
const FAINT: &str = "\x1b[90m";
const PLAIN: &str = "\x1b[0m";

/// What the editor asks while a person types.
pub(super) struct SqlHelper {
    /// The names of the catalog, as of the last prompt.
    pub(super) names: Names,
    files: FilenameCompleter,
    history: HistoryHinter,
}

impl SqlHelper {
    pub(super) fn new() -> Self {
        Self {
            names: Names::default(),
            files: FilenameCompleter::new(),
            history: HistoryHinter::new(),
        }
    }
}

/// Whether a line is a command of the shell, which ends with the line.
pub(super) fn is_command(text: &str) -> bool {
    let text = text.trim_start();
    let word = text.trim_end().trim_end_matches(';');
    text.starts_with(['\\', '.']) || matches!(word, "exit" | "quit")
}

/// A text with the colours of its pieces.
fn coloured(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for (range, piece) in pieces(text) {
        let part = text.get(range).unwrap_or_default();
        let colour = match piece {
            Piece::Keyword if KEYWORDS.iter().any(|k| k.eq_ignore_ascii_case(part)) => KEYWORD,
            Piece::Text => TEXT,
            Piece::Number => NUMBER,
            Piece::Comment => FAINT,
            _ => "",
        };
        match colour {
            "" => out.push_str(part),
            _ => out.extend([colour, part, PLAIN]),
        }
    }
    out
}

impl Completer for SqlHelper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        if ["\\i ", ".read "].iter().any(|command| line.starts_with(command)) {
            return self.files.complete_path(line, pos);
        }
        let (start, found) = complete(&self.names, line, pos);
        let pair = |text: String| Pair { display: text.clone(), replacement: text };
        Ok((start, found.into_iter().map(pair).collect()))
    }
}

impl Hinter for SqlHelper {
    type Hint = String;

    fn hint(&self, line: &str, pos: usize, context: &Context<'_>) -> Option<String> {
        // One line of what was typed before; the rest would push the screen about.
        let hint = self.history.hint(line, pos, context)?;
        hint.lines().next().filter(|line| !line.is_empty()).map(str::to_owned)
    }
}

impl Highlighter for SqlHelper {
    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        match is_command(line) {
            true => Cow::Borrowed(line),
            false => Cow::Owned(coloured(line)),
        }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("{FAINT}{hint}{PLAIN}"))
    }

    fn highlight_char(&self, _line: &str, _pos: usize, kind: CmdKind) -> bool {
        kind != CmdKind::MoveCursor
    }
}

impl Validator for SqlHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        Ok(match is_command(text) || is_complete(text) || text.trim().is_empty() {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

impl Helper for SqlHelper {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_leave_the_text_alone() {
        let text = "SELECT sum(x), 'a', 1 FROM t -- c";
        let shown = coloured(text);
        let colour = |c: &str, part: &str| format!("{c}{part}{PLAIN}");
        assert_eq!(
            shown,
            format!(
                "{} sum(x), {}, {} {} t {}",
                colour(KEYWORD, "SELECT"),
                colour(TEXT, "'a'"),
                colour(NUMBER, "1"),
                colour(KEYWORD, "FROM"),
                colour(FAINT, "-- c")
            )
        );
        assert_eq!(coloured("SELECT 'open"), format!("{KEYWORD}SELECT{PLAIN} {TEXT}'open{PLAIN}"));
    }

    #[test]
    fn commands_end_with_the_line() {
        assert!(is_command(".watch v") && is_command("\\d") && is_command("quit;"));
        assert!(!is_command("SELECT '\\d'") && !is_command("quit the"));
    }
}
