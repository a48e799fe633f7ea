//! The shell: a REPL in the manner of psql, scripts, and the demo's screen, all on a session of an
//! engine in this process.
//!
//! A [`Shell`] runs statements and prints what comes of them. Where the statements come from is the
//! business of `repl.rs` (a person at a terminal) and `script.rs` (files, `-c`, standard input);
//! backslash commands are in `meta.rs`, layout in `table.rs` and `report.rs`.
//!
//! Output goes to the writer that the shell was given, errors and notices to standard error, as in
//! psql, so that results can be piped.

mod complete;
pub mod demo;
pub mod directory;
mod editor;
mod meta;
mod repl;
mod report;
mod script;
mod table;
mod terminal;
mod watch;
mod width;

use std::future::Future;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::repl::interactive;
pub use self::script::{Script, finish, run_scripts};
pub use self::table::Style;

use self::report::{Verbosity, error_report, notice_report};
use self::table::Printer;
use crate::engine::outcome::{Notice, Outcome, TransactionStatus};
use crate::engine::row_source::RowSource;
use crate::engine::{Engine, Session};
use crate::error::Error;
use crate::sql::statement::{ParsedStatement, Statement};

/// How a shell prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// The layout of rows.
    pub style: Style,
    /// Whether the time of each statement is printed.
    pub timing: bool,
    /// Whether command tags (`CREATE TABLE`) are left out.
    pub quiet: bool,
}

/// What Ctrl-C does while a statement runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnInterrupt {
    /// Cancels the statement; the shell goes on.
    Cancel,
    /// Ends the process, as the system does by itself.
    Exit,
}

/// Why a text of statements did not run to its end.
#[derive(Debug)]
enum Stop {
    /// A statement failed.
    Failed(Error),
    /// Ctrl-C.
    Canceled,
    /// The output cannot be written: its reader has gone.
    Output(io::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs statements on a session and prints their results.
struct Shell {
    engine: Engine,
    session: Session,
    options: Options,
    on_interrupt: OnInterrupt,
    verbosity: Verbosity,
    /// Whether a query waits until bounded sources have been read: in a script there is nobody to
    /// see that rows are still arriving.
    waits: bool,
    out: Box<dyn Write + Send>,
    /// The last statement that was run, for `\watch`.
    last_statement: String,
    last_elapsed: Duration,
    /// The last error and the text that it is about, for `\errverbose`.
    last_error: Option<(Error, String)>,
}

impl Shell {
    fn new(engine: &Engine, options: Options, on_interrupt: OnInterrupt) -> Self {
        Self {
            engine: engine.clone(),
            session: engine.session(),
            options,
            on_interrupt,
            verbosity: Verbosity::default(),
            waits: false,
            out: Box::new(io::BufWriter::new(io::stdout())),
            last_statement: String::new(),
            last_elapsed: Duration::ZERO,
            last_error: None,
        }
    }

    /// Runs every statement of a text, up to the first that fails.
    async fn run_text(&mut self, text: &str) -> Result<(), Stop> {
        for parsed in self.session.parse(text)? {
            let begin = Instant::now();
            self.last_statement.clone_from(&parsed.text);
            let ran = self.run_statement(&parsed).await;
            if let Err(Stop::Failed(_) | Stop::Canceled) = ran {
                self.session.set_failed();
            }
            self.show_session_notices();
            self.last_elapsed = begin.elapsed();
            ran?;
            self.show_timing()?;
        }
        Ok(())
    }

    /// The time of the last statement, where it is wanted.
    fn show_timing(&mut self) -> io::Result<()> {
        if self.options.timing {
            let ms = self.last_elapsed.as_secs_f64() * 1_000.0;
            writeln!(self.out, "Time: {ms:.3} ms")?;
        }
        self.out.flush()
    }

    async fn run_statement(&mut self, parsed: &Arc<ParsedStatement>) -> Result<(), Stop> {
        let mut interrupt = std::pin::pin!(interrupt(self.on_interrupt));
        let idle = self.session.transaction_status() == TransactionStatus::Idle;
        if self.waits && idle && matches!(parsed.statement, Statement::Query(_)) {
            self.engine.wait_for_bounded_sources().await?;
        }
        let point = self.session.commit_point();
        let run = self.session.run(parsed);
        let ran = point.race(interrupt.as_mut(), run).await;
        let outcome = ran.map_err(|()| Stop::Canceled)??;
        let mut source = match outcome {
            Outcome::Done { tag, notices } => {
                show_notices(&notices);
                if !self.options.quiet {
                    writeln!(self.out, "{tag}")?;
                }
                return Ok(());
            }
            Outcome::Rows(rows) => {
                show_notices(&rows.notices);
                RowSource::Rows(rows)
            }
            Outcome::Subscription(subscription) => RowSource::changes(subscription),
        };
        let printer = Printer::new(&mut *self.out, self.options.style, &source.schema());
        let mut printer = printer.with_texts(self.session.text_style());
        loop {
            if source.is_endless() {
                printer.show()?;
            }
            match unless(interrupt.as_mut(), source.next()).await {
                Ok(Some(batch)) => printer.batch(&batch?)?,
                Ok(None) => break,
                Err(stop) => {
                    // What was printed of a subscription is a whole table all the same.
                    if source.is_endless() {
                        printer.interrupted()?;
                    }
                    return Err(stop);
                }
            }
        }
        printer.finish()?;
        Ok(())
    }

    /// Runs a text for a person: errors are printed, and the shell goes on. An error is returned
    /// when there is nobody to print for.
    async fn run_and_report(&mut self, text: &str) -> io::Result<()> {
        match self.run_text(text).await {
            Ok(()) => Ok(()),
            Err(Stop::Output(error)) => Err(error),
            Err(Stop::Canceled) => {
                show("canceled\n");
                self.show_timing()
            }
            Err(Stop::Failed(error)) => {
                show(&error_report(&error, text, self.verbosity));
                self.last_error = Some((error, text.to_string()));
                self.show_timing()
            }
        }
    }

    fn show_session_notices(&mut self) {
        show_notices(&self.session.take_notices());
    }

    /// Whether a transaction is open, as the prompt shows it.
    fn transaction_mark(&self) -> &'static str {
        match self.session.transaction_status() {
            TransactionStatus::Idle => "",
            TransactionStatus::Active => "*",
            TransactionStatus::Failed => "!",
        }
    }
}

/// Resolves at Ctrl-C where that cancels, else never.
async fn interrupt(on_interrupt: OnInterrupt) {
    let listening = match on_interrupt {
        OnInterrupt::Cancel => tokio::signal::ctrl_c().await.is_ok(),
        OnInterrupt::Exit => false,
    };
    if !listening {
        std::future::pending().await
    }
}

/// Runs `work` unless `interrupt` is first.
async fn unless<T>(
    interrupt: std::pin::Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = T>,
) -> Result<T, Stop> {
    tokio::select! {
        biased;
        () = interrupt => Err(Stop::Canceled),
        done = work => Ok(done),
    }
}

fn show_notices(notices: &[Notice]) {
    notices.iter().for_each(|n| show(&notice_report(n)));
}

/// Prints to standard error. Where that is closed there is nobody left to tell.
fn show(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
