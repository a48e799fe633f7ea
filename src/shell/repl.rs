//! The shell for a person at a terminal: statements and commands one after the other, history, a
//! prompt that tells whether a transaction is open. What happens while a statement is typed is the
//! business of `editor.rs`.
//!
//! Reading a line blocks this thread; statements run on the runtime while the thread waits. At the
//! prompt the terminal is in raw mode and Ctrl-C is a key that clears the input; while a statement
//! runs it is a signal that cancels the statement.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{ColorMode, CompletionType, Config, Editor};
use tokio::runtime::Runtime;

use super::editor::{SqlHelper, is_command};
use super::meta::{self, Next};
use super::script::{Feed, open};
use super::watch::watch_live;
use super::{OnInterrupt, Options, Shell, Stop, show, unless};
use crate::engine::Engine;
use crate::sql::function_names;

/// Lines of history that are kept.
const HISTORY_LINES: usize = 10_000;

/// Runs the shell until the user leaves.
pub fn interactive(runtime: &Runtime, engine: &Engine, options: Options) -> io::Result<()> {
    let shell = Shell::new(engine, options, OnInterrupt::Cancel);
    let config = Config::builder()
        .max_history_size(HISTORY_LINES)
        .map_err(io::Error::other)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .color_mode(colours())
        .build();
    let mut editor: Editor<SqlHelper, FileHistory> =
        Editor::with_config(config).map_err(io::Error::other)?;
    let mut helper = SqlHelper::new();
    helper.names.functions = function_names();
    editor.set_helper(Some(helper));
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

/// Colours, unless <https://no-color.org> or the terminal say otherwise.
fn colours() -> ColorMode {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if plain { ColorMode::Disabled } else { ColorMode::Enabled }
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
    editor: &'a mut Editor<SqlHelper, FileHistory>,
}

/// Whether the shell goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    GoOn,
    Leave,
}

impl Repl<'_> {
    fn run(&mut self) -> io::Result<()> {
        loop {
            if let Some(helper) = self.editor.helper_mut() {
                helper.names.relations = self.shell.engine.columns();
            }
            // The editor hands out whole statements: see its validator.
            let text = match self.editor.readline(&self.prompt()) {
                Ok(text) => text,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(io::Error::other(error)),
            };
            if text.trim().is_empty() {
                continue;
            }
            self.remember(&text);
            if !is_command(&text) {
                self.runtime.block_on(self.shell.run_and_report(&text))?;
                continue;
            }
            let word = text.trim().trim_end_matches(';');
            let command = if matches!(word, "exit" | "quit") { "\\q" } else { word };
            if self.command(command)? == Flow::Leave {
                return Ok(());
            }
        }
    }

    fn remember(&mut self, text: &str) {
        if let Err(error) = self.editor.add_history_entry(text.trim_end()) {
            tracing::debug!(%error, "history");
        }
    }

    fn prompt(&self) -> String {
        format!("headwater={}> ", self.shell.transaction_mark())
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
            Next::Live(text) => self.runtime.block_on(watch_live(&mut self.shell, &text))?,
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
