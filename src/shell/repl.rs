//! The shell for a person at a terminal: line editing, history, completion, a prompt that tells
//! whether a statement is unfinished or a transaction open.
//!
//! Reading a line blocks this thread; statements run on the runtime while the thread waits. At the
//! prompt the terminal is in raw mode and Ctrl-C is a key that clears the input; while a statement
//! runs it is a signal that cancels the statement.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};
use tokio::runtime::Runtime;

use super::meta::{self, Next};
use super::script::{Feed, open};
use super::{OnInterrupt, Options, Shell, Stop, show, unless};
use crate::engine::Engine;
use crate::sql::is_complete;

/// Lines of history that are kept.
const HISTORY_LINES: usize = 10_000;

/// Words that Tab completes, beside backslash commands and the names of relations.
const WORDS: &[&str] = &[
    "AS",
    "BEGIN",
    "BY",
    "COMMIT",
    "CREATE",
    "DELETE",
    "DESCRIBE",
    "DROP",
    "EMIT",
    "ENCODE",
    "EXPLAIN",
    "FOR",
    "FORMAT",
    "FROM",
    "GROUP",
    "INSERT",
    "INTERVAL",
    "INTO",
    "JOIN",
    "JSON",
    "LIMIT",
    "MATERIALIZED",
    "ORDER",
    "PRIMARY KEY",
    "ROLLBACK",
    "SELECT",
    "SET",
    "SHOW",
    "SINK",
    "SINKS",
    "SOURCE",
    "SOURCES",
    "SUBSCRIBE TO",
    "TABLE",
    "TABLES",
    "UPDATE",
    "VALUES",
    "VIEW",
    "VIEWS",
    "WATERMARK FOR",
    "WATERMARKS",
    "WHERE",
    "WITH",
    "\\d",
    "\\errverbose",
    "\\i",
    "\\q",
    "\\timing",
    "\\verbose",
    "\\watch",
    "\\x",
];

/// Runs the shell until the user leaves.
pub fn interactive(runtime: &Runtime, engine: &Engine, options: Options) -> io::Result<()> {
    let shell = Shell::new(engine, options, OnInterrupt::Cancel);
    let config = Config::builder()
        .max_history_size(HISTORY_LINES)
        .map_err(io::Error::other)?
        .history_ignore_space(true)
        .build();
    let mut editor: Editor<Words, FileHistory> =
        Editor::with_config(config).map_err(io::Error::other)?;
    editor.set_helper(Some(Words { relations: Vec::new() }));
    let history = history_file();
    if let Some(path) = &history {
        // There is none at the first start; a damaged one is no reason not to start.
        let _ = editor.load_history(path);
    }
    let ended = Repl { runtime, shell, editor: &mut editor }.run();
    if let Some(path) = &history
        && let Err(error) = editor.save_history(path)
    {
        tracing::debug!(%error, path = %path.display(), "the history was not saved");
    }
    match ended {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended,
    }
}

/// `$XDG_DATA_HOME/headwater/history`, by default under `~/.local/share`; its folder is made.
fn history_file() -> Option<PathBuf> {
    let data = match std::env::var_os("XDG_DATA_HOME").filter(|v| !v.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => std::env::home_dir()?.join(".local").join("share"),
    };
    let folder = data.join("headwater");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

struct Repl<'a> {
    runtime: &'a Runtime,
    shell: Shell,
    editor: &'a mut Editor<Words, FileHistory>,
}

/// Whether the shell goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    GoOn,
    Leave,
}

impl Repl<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut text = String::new();
        loop {
            let status = self.shell.engine.status();
            if let Some(words) = self.editor.helper_mut() {
                words.relations = status.relations.into_iter().map(|r| r.name).collect();
            }
            let line = match self.editor.readline(&self.prompt(&text)) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => {
                    text.clear();
                    continue;
                }
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(io::Error::other(error)),
            };
            if text.trim().is_empty() {
                text.clear();
                let word = line.trim().trim_end_matches(';');
                if word.is_empty() {
                    continue;
                }
                if word.starts_with('\\') || word == "exit" || word == "quit" {
                    self.remember(&line);
                    let command = if word.starts_with('\\') { word } else { "\\q" };
                    match self.command(command)? {
                        Flow::GoOn => continue,
                        Flow::Leave => return Ok(()),
                    }
                }
            }
            text.push_str(&line);
            if !is_complete(&text) {
                text.push('\n');
                continue;
            }
            self.remember(&text);
            self.runtime.block_on(self.shell.run_and_report(&text))?;
            text.clear();
        }
    }

    fn remember(&mut self, text: &str) {
        if let Err(error) = self.editor.add_history_entry(text.trim_end()) {
            tracing::debug!(%error, "history");
        }
    }

    fn prompt(&self, text: &str) -> String {
        let unfinished = if text.is_empty() { '=' } else { '-' };
        format!("headwater{unfinished}{}> ", self.shell.transaction_mark())
    }

    fn command(&mut self, line: &str) -> io::Result<Flow> {
        let command = match meta::parse(line) {
            Ok(command) => command,
            Err(message) => {
                show(&message);
                return Ok(Flow::GoOn);
            }
        };
        match self.shell.apply(command)? {
            Next::Nothing => {}
            Next::Quit => return Ok(Flow::Leave),
            Next::Run(text) => self.runtime.block_on(self.shell.run_and_report(&text))?,
            Next::Watch(pause) => self.runtime.block_on(watch(&mut self.shell, pause))?,
            Next::Include(path) => match open(&path) {
                Ok(feed) => self.runtime.block_on(include(feed, &mut self.shell)),
                Err(message) => show(&message),
            },
        }
        Ok(Flow::GoOn)
    }
}

/// `\i`: a failed statement has been reported and ends the file, not the shell.
async fn include(feed: Feed, shell: &mut Shell) {
    let _ = feed.run(shell).await;
}

/// Runs the last statement again and again until Ctrl-C or an error.
async fn watch(shell: &mut Shell, pause: Duration) -> io::Result<()> {
    let text = shell.last_statement.clone();
    if text.is_empty() {
        show("\\watch: there is no query to repeat\n");
        return Ok(());
    }
    loop {
        match shell.run_text(&text).await {
            Ok(()) => {}
            Err(Stop::Output(error)) => return Err(error),
            Err(Stop::Canceled) => return Ok(()),
            Err(Stop::Failed(error)) => {
                show(&super::error_report(&error, &text, shell.verbosity));
                return Ok(());
            }
        }
        let mut interrupt = std::pin::pin!(super::interrupt(OnInterrupt::Cancel));
        if unless(interrupt.as_mut(), tokio::time::sleep(pause)).await.is_err() {
            return shell.out.flush();
        }
    }
}

/// Completion of the word under the cursor.
struct Words {
    relations: Vec<String>,
}

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = &line[..pos];
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '\\' || c == '$';
        let start = before.char_indices().rev().take_while(|(_, c)| is_word(*c)).last();
        let start = start.map_or(pos, |(i, _)| i);
        let word = &before[start..];
        if word.is_empty() {
            return Ok((pos, Vec::new()));
        }
        let begins = |candidate: &str| {
            candidate.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
        };
        let lower = word.chars().all(|c| c.is_lowercase() || c == '_');
        let keyword = |w: &&str| if lower { w.to_lowercase() } else { (*w).to_string() };
        let mut found: Vec<String> = self.relations.iter().filter(|r| begins(r)).cloned().collect();
        found.extend(WORDS.iter().filter(|w| begins(w)).map(keyword));
        Ok((start, found))
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}
