//! Writing into a table: sessions that take each other's place, and transactions that hold a load
//! and how far the sink has come.

use std::time::{Duration, Instant};

use chrono::Utc;
use tokio_postgres::{Client, Error as PgError};

use super::account::Account;
use super::load::{Parts, Statements, key_of};
use super::session::Session;
use super::settings::Settings;
use super::target::{Target, find};
use crate::connector::{Account as Told, Failure, Receiver, Refused, Watch};
use crate::error::{Error, Result};
use crate::format::Message;
use crate::store::{Receipt, failpoint};

/// How long to wait for the end of a session that was told to end.
const PATIENCE: Duration = Duration::from_millis(20);

/// How often a server that is away is looked for while there is nothing to deliver, and how long.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Writes into a table.
pub(super) struct Writer {
    settings: Settings,
    /// What the session that delivers holds.
    lock: i64,
    account: Option<Account>,
    session: Option<(Session, Statements)>,
    receiver: Receiver,
    /// When a session was last there, or tried to be.
    tried: Instant,
}

impl Writer {
    pub(super) fn new(settings: Settings, lock: i64, account: Option<Account>) -> Self {
        let receiver = Receiver::Connecting;
        Self { settings, lock, account, session: None, receiver, tried: Instant::now() }
    }

    /// Whether there is a session.
    pub(super) fn is_open(&self) -> bool {
        self.session.is_some()
    }

    /// Ends what earlier sessions have left, and begins a new one; what has arrived.
    pub(super) fn open(&mut self, watch: Watch<'_>) -> Result<Told, Failure> {
        self.close();
        let opened = self.begin(watch);
        self.note(opened.as_ref().err());
        let (session, statements, told) = opened?;
        self.session = Some((session, statements));
        Ok(told)
    }

    fn begin(&self, watch: Watch<'_>) -> Result<(Session, Statements, Told), Failure> {
        let session = Session::open(&self.settings, watch)?;
        let begun = session.run(
            async {
                take_over(&session.client, self.lock).await?;
                let found = find(&session.client, &self.settings).await?;
                let noted = match &self.account {
                    Some(account) => {
                        account.ensure(&session.client).await?;
                        account.read(&session.client).await?
                    }
                    None => None,
                };
                Ok((found, noted))
            },
            watch,
        )?;
        let (found, noted) = begun.map_err(|e| self.failed_to_begin(&e))?;
        let told = match &self.account {
            Some(account) => Told::Kept(account.decode(noted)?),
            None => Told::None,
        };
        let target = Target::of(&self.settings, found.as_ref())?;
        let statements = session.run(Statements::prepare(&session.client, target), watch)?;
        let statements = statements.map_err(|e| self.settings.error("deliver to", &e))?;
        Ok((session, statements, told))
    }

    fn failed_to_begin(&self, e: &PgError) -> Error {
        let error = self.settings.error("begin in", e);
        match (&self.account, e.code().map(tokio_postgres::error::SqlState::code)) {
            (Some(account), Some("42501")) => error.with_hint(format!(
                "Let somebody who may in PostgreSQL: {} GRANT SELECT, INSERT, UPDATE ON it to the \
                 sink's user; or create the sink WITH (delivery = 'at_least_once').",
                account.definition()
            )),
            _ => error,
        }
    }

    /// Finds out whether everything that delivering needs is allowed.
    pub(super) fn try_out(&mut self, watch: Watch<'_>) -> Result<(), Failure> {
        self.open(watch)?;
        let Some((session, statements)) = &mut self.session else { return Ok(()) };
        let client = &session.client;
        let note = self.account.as_ref().map(|account| {
            let receipt = Receipt { checkpoint: 0, messages: 0, incarnation: 0 };
            account.note(&receipt)
        });
        let tried = session.run(
            async {
                client.batch_execute("BEGIN").await?;
                if let Some(note) = &note {
                    client.batch_execute(note).await?;
                }
                statements.try_out(client).await?;
                client.batch_execute("ROLLBACK").await
            },
            watch,
        );
        self.session = None;
        Ok(tried?.map_err(|e| self.settings.error("deliver to", &e))?)
    }

    /// Delivers messages and the receipt of them as a whole, or nothing. After an error `open`
    /// comes first.
    pub(super) fn write(
        &mut self,
        messages: &[&Message],
        receipt: &Receipt,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let Some((session, mut statements)) = self.session.take() else {
            return Err(Error::internal("a writer has no session").into());
        };
        let written = self.transact(&session, &mut statements, (messages, receipt), watch);
        if written.is_ok() {
            self.session = Some((session, statements));
        }
        self.note(written.as_ref().err());
        written
    }

    fn transact(
        &self,
        session: &Session,
        statements: &mut Statements,
        (messages, receipt): (&[&Message], &Receipt),
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let client = &session.client;
        let parts = Parts::of(messages, statements.target())?;
        let note = self.account.as_ref().map(|account| account.note(receipt));
        let done = session.run(transaction(client, statements, &parts, note.as_deref()), watch)?;
        let Err(error) = done else { return Ok(()) };
        let failure: Failure = self.settings.error("deliver to", &error).into();
        if !super::failure::is_of_a_row(&error) {
            return Err(failure);
        }
        let found = session.run(
            async {
                client.batch_execute("ROLLBACK; BEGIN").await?;
                let found = statements.search(client, &parts).await?;
                client.batch_execute("ROLLBACK").await?;
                Ok(found)
            },
            watch,
        )?;
        match found.map_err(|e| self.settings.error("deliver to", &e))? {
            // All of them together: a constraint that is looked at in the end.
            None => Err(failure),
            Some((message, error)) => {
                let of = messages.get(message).map(|m| key_of(m, statements.target()));
                let refused = Refused { delivery: 0, message, what: of.unwrap_or_default() };
                let error = self.settings.error("deliver to", &error).with_hint(
                    "Change what refuses it in PostgreSQL and ALTER SINK .. RESUME, or leave it \
                     out with ALTER SINK .. SKIP.",
                );
                Err(Failure { error, refused: Some(refused) })
            }
        }
    }

    pub(super) fn close(&mut self) {
        self.session = None;
    }

    fn note(&mut self, failure: Option<&Failure>) {
        self.tried = Instant::now();
        self.receiver = match failure {
            None => Receiver::Connected,
            // It has answered.
            Some(failure) if failure.is_permanent() => Receiver::Connected,
            Some(failure) => match &self.receiver {
                Receiver::Unreachable { since, .. } => {
                    let reason = failure.error.message().to_owned();
                    Receiver::Unreachable { since: *since, reason }
                }
                _ => {
                    let reason = failure.error.message().to_owned();
                    Receiver::Unreachable { since: Utc::now(), reason }
                }
            },
        };
    }

    /// Where the server stands. A session that has ended meanwhile is gone, and another one begun
    /// where there can be one.
    pub(super) fn receiver(&mut self) -> Receiver {
        let ended = self.session.as_ref().and_then(|(s, _)| s.end(&self.settings));
        if let Some(error) = ended {
            tracing::debug!(%error, "a session has ended");
            self.session = None;
        }
        if self.session.is_none() && self.tried.elapsed() > LOOK_PAUSE {
            let began = Instant::now();
            // What it finds out is noted.
            drop(self.open(&mut |_| began.elapsed() < LOOK_PAUSE));
        }
        self.receiver.clone()
    }
}

/// Takes the lock of those who deliver; whoever has it is a session of ours that was given up, and
/// is ended.
async fn take_over(client: &Client, lock: i64) -> Result<(), PgError> {
    const END: &str = "SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE l.locktype = \
        'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_backend_pid() AND l.database = \
        (SELECT oid FROM pg_database WHERE datname = current_database()) AND \
        (l.classid::bigint << 32) | l.objid::bigint = $1";
    loop {
        let taken = client.query_one("SELECT pg_try_advisory_lock($1)", &[&lock]).await?;
        if taken.try_get(0)? {
            return Ok(());
        }
        client.query(END, &[&lock]).await?;
        tokio::time::sleep(PATIENCE).await;
    }
}

async fn transaction(
    client: &Client,
    statements: &mut Statements,
    parts: &Parts<'_>,
    note: Option<&str>,
) -> Result<(), PgError> {
    client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
    failpoint::reach("transaction-begun");
    statements.apply(client, parts).await?;
    // What is looked at in the end is looked at here, while it can still be told from a COMMIT
    // whose answer is lost.
    let end = match note {
        Some(note) => format!("SET CONSTRAINTS ALL IMMEDIATE; {note}"),
        None => "SET CONSTRAINTS ALL IMMEDIATE".to_owned(),
    };
    client.batch_execute(&end).await?;
    failpoint::reach("transaction-sent");
    client.batch_execute("COMMIT").await?;
    failpoint::reach("transaction-committed");
    Ok(())
}
