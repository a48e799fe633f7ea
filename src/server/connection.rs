//! One connection: the message loop, the simple query protocol, and the delivery of results that
//! both protocols share. The extended protocol's messages are in `extended.rs`.
//!
//! While a statement runs, three other things are watched: a cancel request, the end of the server,
//! and the client's leaving; each ends the statement by dropping its future. The session lives and
//! dies with the connection, so that a client that leaves rolls its transaction back.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ReadyForQuery, TransactionStatus as WireStatus,
};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};

use super::cancel::{Interrupt, Interrupts};
use super::copy::{self, Copy};
use super::encode::{RowEncoder, row_description};
use super::errors::{error_message, fatal_message, notice_message};
use super::extended::Portal;
use super::idle::{self, silent_for_too_long};
use super::startup::Reported;
use super::wire::Wire;
use crate::engine::outcome::{Notice, Outcome, Prepared, TransactionStatus};
use crate::engine::row_source::RowSource;
use crate::engine::{CommitPoint, Session};
use crate::error::Error;
use crate::sql::statement::{ParsedStatement, Statement};

/// A session with its client.
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) session: Session,
    pub(crate) point: CommitPoint,
    pub(crate) interrupts: Interrupts,
    pub(crate) reported: Reported,
    pub(crate) statements: HashMap<String, PreparedStatement>,
    pub(crate) portals: HashMap<String, Portal>,
    /// After an error in the extended protocol, messages are skipped up to the next Sync.
    pub(crate) skip_to_sync: bool,
    /// The client has been asked for its next statement.
    pub(crate) ready: bool,
}

/// A statement that Parse has made.
#[derive(Clone)]
pub(crate) struct PreparedStatement {
    pub(crate) prepared: Arc<Prepared>,
    /// Its rows leave by COPY.
    pub(crate) copy: Option<Arc<Copy>>,
}

/// Why the handling of a message ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The client is told; the connection goes on.
    Error(Error),
    /// The client is told; the connection ends.
    Fatal(Error),
    /// There is nobody to tell.
    Gone,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Interrupt> for Stop {
    fn from(interrupt: Interrupt) -> Self {
        match interrupt {
            Interrupt::Canceled => Self::Error(interrupt.error()),
            Interrupt::Shutdown => Self::Fatal(interrupt.error()),
        }
    }
}

impl From<std::io::Error> for Stop {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// Runs `work` unless the client leaves, cancels, or the server ends first. Behind its commit point
/// a statement can't be canceled: the client waits for what happened.
pub(crate) async fn watched<T>(
    wire: &mut Wire,
    interrupts: &mut Interrupts,
    point: &CommitPoint,
    work: impl Future<Output = T>,
) -> Result<T, Stop> {
    let stop = {
        let mut work = pin!(work);
        let stop = tokio::select! {
            biased;
            interrupt = interrupts.interrupted() => interrupt.into(),
            done = work.as_mut() => return Ok(done),
            () = wire.gone() => Stop::Gone,
        };
        if point.is_passed() && matches!(stop, Stop::Error(_)) {
            return tokio::select! {
                biased;
                done = work => Ok(done),
                () = interrupts.shutdown() => Err(Interrupt::Shutdown.into()),
                () = wire.gone() => Err(Stop::Gone),
            };
        }
        stop
    };
    if matches!(stop, Stop::Error(_)) {
        point.settle().await;
    }
    Err(stop)
}

/// Writes the output unless canceled. A client that does not read keeps us waiting here, while the
/// engine's queue for it fills up to its limit.
pub(crate) async fn flush(wire: &mut Wire, interrupts: &mut Interrupts) -> Result<(), Stop> {
    tokio::select! {
        biased;
        written = wire.flush() => Ok(written?),
        interrupt = interrupts.interrupted() => Err(interrupt.into()),
    }
}

impl Connection {
    /// Serves the client until it leaves, the server ends or an error is fatal.
    pub(crate) async fn serve(&mut self) {
        self.put_ready();
        let mut stop = self.wire.flush().await.err().map(|_| Stop::Gone);
        while stop.is_none() {
            let limit = if self.ready { idle::limit(&self.session) } else { None };
            let message = tokio::select! {
                biased;
                message = self.wire.next() => message,
                () = self.interrupts.shutdown() => {
                    stop = Some(Interrupt::Shutdown.into());
                    break;
                }
                error = silent_for_too_long(limit) => Err(error),
            };
            self.ready = false;
            stop = match message {
                Ok(Some(message)) => self.handle(message).await,
                Ok(None) => Some(Stop::Gone),
                Err(error) => Some(Stop::Fatal(error)),
            };
        }
        if let Some(Stop::Fatal(error)) = stop {
            self.wire.put(&fatal_message(&error));
            // The client may have gone; it is the last word in any case.
            let _ = self.wire.flush().await;
        }
    }

    /// Handles one message; `Some` ends the connection.
    async fn handle(&mut self, message: PgWireFrontendMessage) -> Option<Stop> {
        if matches!(message, PgWireFrontendMessage::Terminate(_)) {
            return Some(Stop::Gone);
        }
        let garbled = self.wire.garbled();
        if self.skip_to_sync && !matches!(message, PgWireFrontendMessage::Sync(_)) {
            return None;
        }
        let simple = matches!(message, PgWireFrontendMessage::Query(_));
        let handled = match garbled {
            None => self.dispatch(message).await,
            Some(error) => Err(error.into()),
        };
        let error = match handled {
            Ok(()) => return None,
            Err(Stop::Error(error)) => error,
            Err(stop) => return Some(stop),
        };
        self.session.set_failed();
        self.put_session_notices();
        self.wire.put(&error_message(&error));
        match simple {
            true => self.put_ready(),
            false => self.skip_to_sync = true,
        }
        self.wire.flush().await.err().map(|_| Stop::Gone)
    }

    async fn dispatch(&mut self, message: PgWireFrontendMessage) -> Result<(), Stop> {
        match message {
            PgWireFrontendMessage::Query(query) => self.simple_query(&query.query).await,
            PgWireFrontendMessage::Parse(parse) => self.parse(parse).await,
            PgWireFrontendMessage::Bind(bind) => self.bind(&bind),
            PgWireFrontendMessage::Describe(describe) => self.describe(&describe),
            PgWireFrontendMessage::Execute(execute) => self.execute(&execute).await,
            PgWireFrontendMessage::Close(close) => self.close(&close),
            PgWireFrontendMessage::Flush(_) => Ok(self.wire.flush().await?),
            PgWireFrontendMessage::Sync(_) => self.sync().await,
            // A client that began to copy before it read our refusal.
            PgWireFrontendMessage::CopyData(_)
            | PgWireFrontendMessage::CopyDone(_)
            | PgWireFrontendMessage::CopyFail(_) => Ok(()),
            _ => Err(Stop::Fatal(Error::user(
                crate::error::sqlstate::PROTOCOL_VIOLATION,
                "unexpected message",
            ))),
        }
    }

    /// A text of statements, each answered in turn; the first error ends the text.
    async fn simple_query(&mut self, text: &str) -> Result<(), Stop> {
        self.statements.remove("");
        self.portals.remove("");
        let statements = self.session.parse(text)?;
        if statements.is_empty() {
            self.wire.put(&PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()));
        }
        for parsed in &statements {
            self.interrupts.arm();
            let begun = Instant::now();
            if statements.len() > 1 {
                let enter = self.session.enter_text(&parsed.statement);
                watched(&mut self.wire, &mut self.interrupts, &self.point, enter).await??;
            }
            match &parsed.statement {
                Statement::Copy(copy) if copy.from => self.copy_in(parsed).await?,
                Statement::Copy(copy) => {
                    self.simple_copy(&copy::copy_to(copy, parsed.offset)).await?;
                }
                _ => {
                    let run = self.session.run(parsed);
                    let outcome =
                        watched(&mut self.wire, &mut self.interrupts, &self.point, run).await??;
                    self.deliver(outcome, parsed).await?;
                }
            }
            self.session.note_slow(parsed, begun.elapsed()).await;
        }
        let end = self.session.end_text();
        watched(&mut self.wire, &mut self.interrupts, &self.point, end).await??;
        self.put_ready();
        Ok(self.wire.flush().await?)
    }

    async fn simple_copy(&mut self, copy: &Copy) -> Result<(), Stop> {
        for parsed in self.session.parse(&copy.inner).map_err(|e| copy.place(e))? {
            self.interrupts.arm();
            let run = self.session.run(&parsed);
            let ran = watched(&mut self.wire, &mut self.interrupts, &self.point, run).await?;
            if let Some(mut source) = self.begin_result(ran.map_err(|e| copy.place(e))?) {
                let sent = self.copy_out(copy, &mut source).await?;
                self.finish_statement(format!("COPY {sent}"));
            }
        }
        Ok(())
    }

    /// Sends a whole result in text form.
    async fn deliver(&mut self, outcome: Outcome, parsed: &ParsedStatement) -> Result<(), Stop> {
        let Some(mut source) = self.begin_result(outcome) else {
            return Ok(());
        };
        self.wire.put(&row_description(&source.schema(), &[]));
        let mut sent = 0;
        while let Some(batch) = self.next_batch(&mut source).await? {
            let mut rows = RowEncoder::new(&batch, &[], self.session.text_style())?;
            for row in 0..rows.rows() {
                rows.put_row(row, self.wire.outbox());
                if self.wire.is_full() {
                    flush(&mut self.wire, &mut self.interrupts).await?;
                }
            }
            sent += rows.rows();
        }
        self.finish_statement(row_tag(&parsed.statement, sent));
        Ok(())
    }

    /// Sends what comes ahead of rows, and returns these; `None` for a statement without rows,
    /// which is complete.
    pub(crate) fn begin_result(&mut self, outcome: Outcome) -> Option<RowSource> {
        match outcome {
            Outcome::Done { tag, notices } => {
                self.put_notices(&notices);
                self.finish_statement(tag);
                None
            }
            Outcome::Rows(rows) => {
                self.put_notices(&rows.notices);
                Some(RowSource::Rows(rows))
            }
            Outcome::Subscription(subscription) => Some(RowSource::changes(subscription)),
        }
    }

    /// The next batch; before waiting for rows of a subscription, those before them are sent.
    pub(crate) async fn next_batch(
        &mut self,
        source: &mut RowSource,
    ) -> Result<Option<arrow::array::RecordBatch>, Stop> {
        self.interrupts.check()?;
        let next = match source.next().now_or_never() {
            Some(next) => next,
            None => {
                if source.is_endless() {
                    flush(&mut self.wire, &mut self.interrupts).await?;
                }
                watched(&mut self.wire, &mut self.interrupts, &self.point, source.next()).await?
            }
        };
        Ok(next.transpose()?)
    }

    /// CommandComplete, ahead of it whatever the statement had to say beside its result.
    pub(crate) fn finish_statement(&mut self, tag: String) {
        self.put_session_notices();
        self.wire.put(&PgWireBackendMessage::CommandComplete(CommandComplete::new(tag)));
    }

    fn put_session_notices(&mut self) {
        let notices = self.session.take_notices();
        self.put_notices(&notices);
    }

    fn put_notices(&mut self, notices: &[Notice]) {
        notices.iter().for_each(|n| self.wire.put(&notice_message(n)));
    }

    /// ReadyForQuery with the state of the transaction, ahead of it the settings that have changed.
    pub(crate) fn put_ready(&mut self) {
        self.session.settle();
        self.ready = true;
        self.reported.update(&self.session, &mut self.wire);
        let status = match self.session.transaction_status() {
            TransactionStatus::Idle => WireStatus::Idle,
            TransactionStatus::Active => WireStatus::Transaction,
            TransactionStatus::Failed => WireStatus::Error,
        };
        self.wire.put(&PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(status)));
    }
}

/// The command tag of a statement that returned rows.
pub(crate) fn row_tag(statement: &Statement, rows: usize) -> String {
    match statement {
        Statement::Show(_) => "SHOW".to_string(),
        Statement::Describe(_) => "DESCRIBE".to_string(),
        Statement::Check(_) | Statement::CheckStorage => "CHECK".to_string(),
        Statement::RetryErrors(_) => "RETRY ERRORS".to_string(),
        Statement::Explain(_) => "EXPLAIN".to_string(),
        Statement::Subscribe(_) => format!("SUBSCRIBE {rows}"),
        // RETURNING gives a row for each that is changed.
        Statement::Fetch(_) => format!("FETCH {rows}"),
        Statement::Insert(_) => format!("INSERT 0 {rows}"),
        Statement::Update(_) => format!("UPDATE {rows}"),
        Statement::Delete(_) => format!("DELETE {rows}"),
        Statement::Merge(_) => format!("MERGE {rows}"),
        _ => format!("SELECT {rows}"),
    }
}
