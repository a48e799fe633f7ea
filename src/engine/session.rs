//! Sessions: settings, the transaction block, and the dispatch of statements.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::Engine;
use super::commit_point::CommitPoint;
use super::cursor::Cursor;
use super::outcome::{Notice, Outcome, Prepared, TransactionStatus};
use super::rights::Who;
use super::sequences::SessionSequences;
use super::settings::SettingValues;
use super::transaction::Transaction;
use super::watermarks::standing;
use crate::cancel::{Cancel, CancelSlot};
use crate::catalog::access::RoleId;
use crate::catalog::{Creation, RelationId};
use crate::delta::style::TextStyle;
use crate::delta::zone::Zone;
use crate::error::{Error, Result, sqlstate};
use crate::runtime::does_not_deliver;
use crate::sql::statement::{ParsedStatement, Savepoint, Statement};
use crate::sql::{self, Sequences, SessionFacts, SessionSettings, Settings};

/// One conversation with an engine. Statements of a session run one after another; sessions are
/// independent.
pub struct Session {
    pub(super) engine: Engine,
    /// The CREATE of an earlier life that is done again.
    pub(super) past: Option<Arc<Creation>>,
    /// The zone of what is made again, which is not the session's.
    pub(super) zone: Option<Zone>,
    /// The numbers that it was given.
    numbers: Arc<SessionSequences>,
    /// What is created stays only if it is said later.
    pub(super) provisional: bool,
    /// What names of others mean in what it makes: see [`Creation::instead`].
    ///
    /// [`Creation::instead`]: crate::catalog::Creation::instead
    pub(super) instead: BTreeMap<String, RelationId>,
    /// Whose rights it has.
    pub(super) who: Who,
    /// The name that its client has given.
    login_name: String,
    /// Whether its plans are optimised.
    optimize: bool,
    /// What it has set.
    pub(super) values: Arc<SettingValues>,
    pub(super) transaction: Option<Transaction>,
    pub(super) failed: bool,
    /// What it says about itself.
    pub(super) facts: Arc<SessionFacts>,
    pub(super) notices: Vec<Notice>,
    /// Statements of PREPARE by name.
    pub(super) named: BTreeMap<String, Prepared>,
    /// Open cursors by name.
    pub(super) cursors: BTreeMap<String, Cursor>,
    /// Whether the statement that runs can still be undone.
    pub(super) commit_point: CommitPoint,
    /// The token of the statement that runs.
    pub(super) cancel: Arc<CancelSlot>,
}

impl Session {
    pub(super) fn new(engine: Engine) -> Self {
        let values = Arc::new(engine.core.session_defaults.of_session());
        let settings: Arc<dyn SessionSettings> = values.clone();
        let watermarks = Some(standing(&engine.core.shared));
        let numbers = SessionSequences::new(&engine.core.sequences, &values);
        let sequences: Option<Arc<dyn Sequences>> = Some(numbers.clone());
        let default = SessionFacts::default();
        Self {
            engine,
            past: None,
            zone: None,
            numbers,
            provisional: false,
            instead: BTreeMap::new(),
            who: Who::default(),
            login_name: SessionFacts::default().user,
            optimize: true,
            values,
            transaction: None,
            failed: false,
            facts: Arc::new(SessionFacts { settings, watermarks, sequences, ..default }),
            notices: Vec::new(),
            named: BTreeMap::new(),
            cursors: BTreeMap::new(),
            commit_point: CommitPoint::default(),
            cancel: Arc::default(),
        }
    }

    /// Goes on with another engine, which has the same definitions, outside of a transaction. For
    /// tests.
    #[doc(hidden)]
    pub fn move_to(&mut self, engine: &Engine) {
        self.engine = engine.clone();
        let watermarks = Some(standing(&engine.core.shared));
        self.numbers = self.numbers.moved(&engine.core.sequences);
        let sequences: Option<Arc<dyn Sequences>> = Some(self.numbers.clone());
        let facts = self.facts.as_ref().clone();
        self.facts = Arc::new(SessionFacts { watermarks, sequences, ..facts });
    }

    /// Says who is there: user, database and the number of the connection.
    pub fn identify(&mut self, user: &str, database: &str, pid: i64) {
        self.values.identify(user);
        user.clone_into(&mut self.login_name);
        let (user, database) = (user.to_owned(), database.to_owned());
        let settings: Arc<dyn SessionSettings> = self.values.clone();
        let (session_user, role) = (user.clone(), None);
        let watermarks = Some(standing(&self.engine.core.shared));
        self.facts = Arc::new(SessionFacts {
            user,
            session_user,
            role,
            database,
            pid,
            settings,
            watermarks,
            sequences: self.facts.sequences.clone(),
        });
    }

    /// Gives it the rights of the role that has its user's name; where there is none, all of them:
    /// who may come without being one is settled before.
    ///
    /// # Errors
    ///
    /// 28000 when nobody can log in as that role.
    pub fn take_role(&mut self) -> Result<()> {
        let catalog = self.engine.core.shared.catalog();
        let user = self.facts.user.clone();
        let Some((id, role)) = catalog.access().find(&user) else { return Ok(()) };
        if !role.login {
            let message = format!("role \"{user}\" is not permitted to log in");
            return Err(Error::user(sqlstate::INVALID_AUTHORIZATION, message));
        }
        for (name, value) in &role.settings {
            self.values.set_at_startup(name, value)?;
        }
        self.become_who(Who { login: Some(id), session: Some(id), current: Some(id) });
        Ok(())
    }

    /// The name of who it is.
    pub(super) fn user(&self) -> &str {
        &self.facts.user
    }

    /// Changes whose rights it has.
    pub(super) fn become_who(&mut self, who: Who) {
        self.who = who;
        let catalog = self.engine.core.shared.catalog();
        let name = |role: Option<RoleId>| role.map(|role| catalog.access().name(role));
        let mut facts = self.facts.as_ref().clone();
        facts.role = who.current;
        facts.session_user = name(who.session).unwrap_or_else(|| self.login_name.clone());
        facts.user = name(who.current).unwrap_or_else(|| facts.session_user.clone());
        self.values.identify(&facts.session_user);
        self.facts = Arc::new(facts);
    }

    /// Whether the plans of reads and of recomputed views are optimised. They are, at first;
    /// without it they have the same rows, from a plan that no rule of the optimiser has seen.
    pub fn set_optimize(&mut self, optimize: bool) {
        self.optimize = optimize;
    }

    /// The statements of a text. A text that is one query and has come before is not read again.
    pub fn parse(&self, text: &str) -> Result<Vec<Arc<ParsedStatement>>> {
        match self.known(text, &[]).and_then(|known| known.statement) {
            Some(statement) => Ok(vec![statement]),
            None => Ok(sql::parse(text)?.into_iter().map(Arc::new).collect()),
        }
    }

    /// Runs all statements of a text, one after another. The first error ends it; what statements
    /// since the last definition have written has then not happened.
    pub async fn execute(&mut self, text: &str) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        let statements = self.parse(text)?;
        for statement in &statements {
            if statements.len() > 1 {
                self.enter_text(&statement.statement).await?;
            }
            outcomes.push(self.run(statement).await?);
        }
        self.end_text().await?;
        Ok(outcomes)
    }

    /// Runs one statement. An error inside a transaction block makes the block fail.
    ///
    /// Dropping the future undoes the statement, unless its change is with the sequencer already:
    /// then it happens all the same.
    pub async fn run(&mut self, statement: &Arc<ParsedStatement>) -> Result<Outcome> {
        let statement = &self.in_path(statement)?;
        self.check_snapshot(&statement.statement)?;
        self.check_not_failed(&statement.statement)?;
        let cancel = self.begin_statement();
        let point = self.commit_point.clone();
        let known = match &statement.statement {
            Statement::Query(_) => self.known(&statement.text, &[]),
            _ => None,
        };
        let known = known.filter(|known| known.parameters.is_empty());
        let result = match known.map_or(Ok(None), |known| self.execute_at_once(&known, &[])) {
            Ok(None) => point.within(cancel.deadline(), self.dispatch(statement)).await,
            Ok(Some(done)) => Ok(done),
            Err(error) => Err(error),
        };
        let result = result.map_err(|e| sql::locate(e, &statement.text, statement.offset));
        if result.is_err() {
            self.set_failed();
        }
        result
    }

    /// A statement begins: it has a token of its own, and `statement_timeout` counts from here.
    pub(super) fn begin_statement(&self) -> Cancel {
        let cancel = Cancel::with_timeout(self.timeout_ms().map(Duration::from_millis));
        self.cancel.begin(cancel.clone());
        self.commit_point.reset();
        cancel
    }

    /// Where the token of the running statement is found, to cancel it from elsewhere.
    pub(crate) fn cancel_slot(&self) -> Arc<CancelSlot> {
        Arc::clone(&self.cancel)
    }

    /// Whether the running statement can still be given up.
    pub(crate) fn commit_point(&self) -> CommitPoint {
        self.commit_point.clone()
    }

    /// Whether a statement may run in the state that its transaction is in.
    pub(super) fn check_not_failed(&self, statement: &Statement) -> Result<()> {
        if self.failed && !ends_failure(statement) {
            return Err(Error::user(
                sqlstate::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        self.values.begin_statement();
        Ok(())
    }

    /// Makes a transaction fail whose epoch was let go (72000).
    pub(super) fn check_snapshot(&mut self, statement: &Statement) -> Result<()> {
        if ends_failure(statement) {
            return Ok(());
        }
        let checked = self.transaction.as_ref().map_or(Ok(()), |t| t.pin.check());
        if checked.is_err() && !self.failed {
            self.set_failed();
            return checked;
        }
        Ok(())
    }

    pub(super) async fn dispatch(&mut self, parsed: &Arc<ParsedStatement>) -> Result<Outcome> {
        if let Some(done) = self.run_early(parsed, None, &[]).await? {
            return Ok(done);
        }
        let done = match sql::is_deep(parsed, &self.engine.core.shared.catalog()) {
            true => self.dispatch_deep(parsed).await?,
            // Whoever waits for a statement does not hold what any of them needs.
            false => Box::pin(self.dispatch_here(parsed)).await?,
        };
        if let Outcome::Done { tag, .. } = &done {
            self.note_definition(&parsed.statement, tag);
        }
        Ok(done)
    }

    fn dispatch_deep<'a>(
        &'a mut self,
        parsed: &'a Arc<ParsedStatement>,
    ) -> sql::OnLargeStack<'a, Outcome> {
        let running = Arc::clone(&self.cancel);
        sql::OnLargeStack::new(running, self.dispatch_here(parsed))
    }

    async fn dispatch_here(&mut self, parsed: &Arc<ParsedStatement>) -> Result<Outcome> {
        // A statement before may have been given up in the middle.
        self.provisional = false;
        if self.past.is_none() {
            self.instead.clear();
        }
        self.check_modes(&parsed.statement)?;
        // What an engine shows that has ended is not what the next one has.
        if let Some(ended) = self.engine.core.shared.failure() {
            return Err(ended);
        }
        self.check_rights(&parsed.statement)?;
        match &parsed.statement {
            Statement::CreateTable(create) => {
                let made = self.create_table(create, &parsed.text).await;
                made.map_err(|error| self.without_secrets(error, &create.secrets))
            }
            Statement::CreateTableAs(create) => self.create_table_as(create).await,
            Statement::CreateView(create) => self.create_view(create, &parsed.text).await,
            Statement::CreateSink(create) => {
                let made = self.create_sink(create, &parsed.text).await;
                made.map_err(|error| self.without_secrets(error, &create.secrets))
            }
            Statement::CreateIndex(create) => self.create_index(create).await,
            Statement::Drop(drop) => self.drop_relations(drop).await,
            Statement::Insert(insert) => self.insert(insert).await,
            Statement::Update(update) => self.update(update).await,
            Statement::Delete(delete) => self.delete(delete).await,
            Statement::Merge(merge) => self.merge(merge).await,
            Statement::Truncate { names, restart } => self.truncate(names, *restart).await,
            Statement::Sequence(statement) => self.change_sequence(statement).await,
            Statement::Begin(modes) => self.begin(modes),
            Statement::Commit { chain } => self.commit(*chain).await,
            Statement::Rollback { chain } => self.rollback(*chain),
            Statement::SetTransaction(modes) => self.set_transaction(modes),
            Statement::SetCharacteristics(modes) => self.set_characteristics(modes),
            Statement::Copy(_) => Err(Error::unsupported("COPY needs a PostgreSQL client")
                .with_hint("Serve with headwater serve, then use psql's \\copy.")),
            Statement::Check(names) => self.check(names).await,
            Statement::CheckStorage => self.check_storage().await,
            Statement::Checkpoint => self.checkpoint().await,
            Statement::SavedState(statement) => self.saved_state(statement).await,
            Statement::Prepare(prepare) => self.prepare_named(prepare).await,
            Statement::Execute(execute) => self.execute_named(execute).await,
            Statement::Deallocate(name) => self.deallocate(name.as_deref()),
            Statement::Reset(name) => self.reset(name),
            Statement::ResetAll => Ok(self.reset_all("RESET")),
            Statement::DiscardAll => self.discard_all(),
            Statement::Declare(declare) => self.declare(declare).await,
            Statement::Fetch(fetch) => self.fetch(fetch).await,
            Statement::Close(name) => self.close(name.as_deref()),
            Statement::Savepoint(savepoint) => self.savepoint(savepoint),
            Statement::Query(query) => self.query(parsed, query).await,
            Statement::Subscribe(subscribe) => self.subscribe(subscribe).await,
            Statement::Show(show) => self.show(show).await,
            Statement::Describe(name) => self.describe(name),
            Statement::Explain(explain) => self.explain(explain).await,
            Statement::Set { name, values, scope } => self.set(name, values.as_deref(), *scope),
            Statement::Clock(clock) => self.move_clock(clock).await,
            Statement::Flush => self.flush().await,
            Statement::Access(statement) => self.change_access(statement).await,
            Statement::NoOp(tag) => Ok(self.done(tag)),
            definition => Box::pin(self.alter(definition)).await,
        }
    }

    /// Changes what is there.
    async fn alter(&mut self, statement: &Statement) -> Result<Outcome> {
        match statement {
            Statement::Rename(rename) => self.rename_relation(rename).await,
            Statement::AlterTable(alter) => self.alter_table(alter).await,
            Statement::AlterSink(alter) => self.alter_sink(alter).await,
            Statement::AlterSource(alter) => self.alter_source(alter).await,
            Statement::AlterFormat(alter) => self.alter_format(alter).await,
            Statement::RetryErrors(name) => self.retry_errors(name).await,
            Statement::ResumeView(resume) => self.resume_view(resume).await,
            Statement::Comment(statement) => self.comment(statement).await,
            _ => Err(Error::internal("a statement that nobody runs")),
        }
    }

    /// Where the session stands.
    pub fn transaction_status(&self) -> TransactionStatus {
        match (&self.transaction, self.failed) {
            (_, true) => TransactionStatus::Failed,
            (Some(_), false) => TransactionStatus::Active,
            (None, false) => TransactionStatus::Idle,
        }
    }

    /// Makes an open transaction block fail, after an error outside of a statement.
    pub fn set_failed(&mut self) {
        if self.transaction.as_ref().is_some_and(|t| t.implicit) {
            self.end_transaction();
            self.close_cursors(false);
        }
        if self.transaction.is_none() {
            self.values.roll_back();
        }
        self.failed = self.transaction.is_some() || self.failed;
    }

    /// Ends the transaction block, whatever its state.
    pub(super) fn end_transaction(&mut self) -> (Option<Transaction>, bool) {
        (self.transaction.take(), std::mem::take(&mut self.failed))
    }

    /// A setting by its name in any case, as SHOW prints it.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.values.get(name)
    }

    /// Messages since the last call that belong to no outcome, down to `client_min_messages`.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.notices.extend(self.values.take_notices());
        match self.notices.is_empty() {
            true => Vec::new(),
            false => self.wanted_notices(),
        }
    }

    /// Whether plans are optimised.
    pub(super) fn optimizes(&self) -> bool {
        self.optimize
    }

    /// What `now()` is.
    pub(super) fn now(&self) -> DateTime<Utc> {
        let began = self.transaction.as_ref().map(|t| t.began);
        began.unwrap_or_else(|| self.engine.core.shared.clock.now())
    }

    pub(super) fn settings(&self) -> Settings {
        let now = self.now();
        let session = Arc::clone(&self.facts);
        let (cancel, optimize) = (self.cancel.current(), self.optimize);
        let memory = Some(self.engine.core.memory.query(self.values.bytes("query_memory_limit")));
        let style = self.text_style();
        let style = TextStyle { zone: self.zone.unwrap_or(style.zone), ..style };
        self.past_settings(Settings {
            session,
            cancel,
            optimize,
            memory,
            style,
            ..Settings::at(now)
        })
    }

    pub(super) fn done(&mut self, tag: &str) -> Outcome {
        Outcome::Done { tag: tag.to_owned(), notices: self.take_notices() }
    }

    /// How texts of values are written and read.
    pub fn text_style(&self) -> TextStyle {
        self.values.text_style()
    }

    /// `statement_timeout` in milliseconds, when there is one.
    pub(super) fn timeout_ms(&self) -> Option<u64> {
        self.values.duration_ms("statement_timeout")
    }

    /// Waits until everything that bounded sources hold is in the answers, and sinks have
    /// delivered.
    async fn flush(&mut self) -> Result<Outcome> {
        let coordinator = self.engine.core.coordinator.clone();
        let (done, flushed) = tokio::sync::oneshot::channel();
        coordinator.call(move |c| c.flush(done)).await?;
        // Nobody answers when the engine stops.
        flushed.await.unwrap_or(Ok(()))?;
        self.engine.deliver().await?;
        Ok(self.done("FLUSH"))
    }
}

impl Engine {
    /// Waits until bounded sources, such as files and standard input, have been read to their end
    /// and views show it; at once when there are none or all have been.
    pub async fn wait_for_bounded_sources(&self) -> Result<()> {
        let coordinator = self.core.coordinator.clone();
        let (done, flushed) = tokio::sync::oneshot::channel();
        let ask = move |c: &mut crate::runtime::Coordinator| {
            if c.reads_bounded() {
                c.flush(done);
            }
        };
        coordinator.call(ask).await?;
        // Nobody answers when there is nothing to wait for.
        flushed.await.unwrap_or(Ok(()))
    }

    /// Waits until sinks have delivered what is queued for them; the error of one that does not.
    pub async fn deliver(&self) -> Result<()> {
        let mut failed = None;
        for (name, sink) in self.core.coordinator.call(|c| c.sinks_flushed()).await? {
            // A sink that is dropped meanwhile tells nothing.
            if let Ok(Err(error)) = sink.await {
                failed.get_or_insert(does_not_deliver(&name, error));
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Whether a statement is taken in a transaction that has failed.
fn ends_failure(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::Savepoint(Savepoint::RollbackTo(_))
    )
}
