//! Statements without a person: files, `-c` texts, standard input. They run one after the other as
//! they are read; the first error ends everything, with the file and line in front of it.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::meta::{self, Next};
use super::report::{error_report, line_of};
use super::{OnInterrupt, Options, Shell, Stop, show};
use crate::catalog::RelationKind;
use crate::connector::file::stdin;
use crate::engine::Engine;
use crate::error::{Error, Result, sqlstate};
use crate::sql::is_complete;

/// Where statements come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// A file.
    File(PathBuf),
    /// A text of the command line.
    Text(String),
    /// Standard input.
    Stdin,
}

/// A script ended early; what there is to say has been printed.
#[derive(Debug)]
pub struct Failed;

/// Runs scripts one after the other on one session, up to the first error.
pub async fn run_scripts(
    engine: &Engine,
    scripts: &[Script],
    options: Options,
) -> Result<(), Failed> {
    let mut shell = Shell::new(engine, options, OnInterrupt::Exit);
    shell.waits = true;
    if scripts.contains(&Script::Stdin) {
        stdin::reserve("has the statements");
    }
    for script in scripts {
        let feed = match script {
            Script::Text(text) => Feed::new("", io::Cursor::new(text.clone())),
            Script::Stdin => Feed::new("<stdin>", BufReader::new(io::stdin())),
            Script::File(path) => match open(path) {
                Ok(feed) => feed,
                Err(message) => {
                    show(&message);
                    return Err(Failed);
                }
            },
        };
        feed.run(&mut shell).await?;
    }
    Ok(())
}

/// How long sinks may take to deliver what is left at the end.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a program that runs scripts does before it ends: bounded sources, such as files and
/// standard input, are read to their end, and sinks deliver.
pub async fn finish(engine: &Engine) -> Result<()> {
    let relations = engine.status().relations;
    if !relations.iter().any(|relation| relation.kind == RelationKind::Sink.noun()) {
        return Ok(());
    }
    engine.wait_for_bounded_sources().await?;
    match tokio::time::timeout(DELIVERY_TIMEOUT, engine.deliver()).await {
        Ok(delivered) => delivered,
        Err(_) => Err(Error::external(
            sqlstate::CONNECTION_EXCEPTION,
            "a sink has not delivered everything in time",
        )),
    }
}

/// A file as a script; the message of an error is ready to be shown.
pub(crate) fn open(path: &Path) -> Result<Feed, String> {
    match File::open(path) {
        Ok(file) => Ok(Feed::new(&path.display().to_string(), BufReader::new(file))),
        Err(error) => Err(format!("headwater: {}: {error}\n", path.display())),
    }
}

/// Hands the lines of one script to a shell, whole statements at a time.
pub(crate) struct Feed {
    /// The file's name; empty for the command line, whose errors need no place.
    name: String,
    input: Box<dyn BufRead + Send>,
    /// The line (from 1) that was read last.
    line: usize,
}

enum Flow {
    GoOn,
    Quit,
}

impl Feed {
    fn new(name: &str, input: impl BufRead + Send + 'static) -> Self {
        Self { name: name.to_string(), input: Box::new(input), line: 0 }
    }

    /// Runs everything up to the first error, which is printed with its place.
    pub(crate) async fn run(mut self, shell: &mut Shell) -> Result<(), Failed> {
        let mut text = String::new();
        let mut first_line = 1;
        loop {
            let mut line = String::new();
            match self.input.read_line(&mut line) {
                Ok(0) => break,
                Ok(_) => self.line += 1,
                Err(error) => return Err(self.fail(self.line + 1, &format!("{error}\n"))),
            }
            if text.trim().is_empty() {
                text.clear();
                first_line = self.line;
                if line.starts_with(['\\', '.']) {
                    match self.command(shell, &line).await? {
                        Flow::GoOn => continue,
                        Flow::Quit => return Ok(()),
                    }
                }
            }
            text.push_str(&line);
            if is_complete(&text) {
                self.statements(shell, &std::mem::take(&mut text), first_line).await?;
            }
        }
        // The last statement of a text needs no semicolon.
        self.statements(shell, &text, first_line).await
    }

    async fn statements(
        &self,
        shell: &mut Shell,
        text: &str,
        first_line: usize,
    ) -> Result<(), Failed> {
        match shell.run_text(text).await {
            Ok(()) => Ok(()),
            Err(Stop::Failed(error)) => {
                let line = first_line + error.position().map_or(1, |p| line_of(text, p)) - 1;
                Err(self.fail(line, &error_report(&error, text.trim_end(), shell.verbosity)))
            }
            Err(Stop::Canceled) => Err(self.fail(first_line, "canceled\n")),
            // The reader of our output has what it wanted (`| head`): no reason to complain.
            Err(Stop::Output(_)) => Err(Failed),
        }
    }

    async fn command(&self, shell: &mut Shell, line: &str) -> Result<Flow, Failed> {
        let command = meta::parse(line).map_err(|message| self.fail(self.line, &message))?;
        match shell.apply(command).map_err(|_| Failed)? {
            Next::Nothing => Ok(Flow::GoOn),
            Next::Quit => Ok(Flow::Quit),
            Next::Run(text) => {
                self.statements(shell, &text, self.line).await?;
                Ok(Flow::GoOn)
            }
            Next::Watch(_) | Next::Include(_) | Next::Live(_) => {
                Err(self.fail(self.line, "this command is for the interactive shell\n"))
            }
        }
    }

    fn fail(&self, line: usize, message: &str) -> Failed {
        match self.name.as_str() {
            "" => show(message),
            name => show(&format!("{name}:{line}: {message}")),
        }
        Failed
    }
}
