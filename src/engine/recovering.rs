//! While an earlier life is begun again: sessions are there, and what each statement does then.
//!
//! A read by key is answered from the checkpoint where that is exact ([`Early`]). What concerns the
//! session alone, or the definitions where these are complete, runs as ever. All else waits until
//! everything is as it was: `statement_timeout` counts, and a cancel request ends it. To refuse it
//! instead (57P03) would make every client try again in a loop of its own, and the connections that
//! pools hold would be lost to those reads that could be answered.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use tokio::sync::watch;

use super::Engine;
use super::early::Early;
use super::outcome::{Outcome, Prepared, Rows};
use super::session::Session;
use super::show::{Column, table};
use crate::error::{Error, Result, sqlstate};
use crate::sql;
use crate::sql::statement::{ParsedStatement, Show, Statement};

/// The columns of SHOW RECOVERY.
pub(super) const RECOVERY_COLUMNS: [&str; 6] =
    ["state", "relations", "readable", "entries", "entries_read", "seconds"];

/// How far a new life is.
#[derive(Debug)]
pub(crate) struct Recovering {
    /// It is over: the one thing that statements look at.
    over: AtomicBool,
    phase: watch::Sender<Phase>,
    stage: AtomicU8,
    began: Instant,
    took: Mutex<Option<Duration>>,
}

#[derive(Debug, Clone)]
enum Phase {
    /// Definitions are being made.
    Defining,
    /// All that the checkpoint has are there.
    Named(Arc<Early>),
    /// All is as it was.
    Over,
    /// It will not be.
    Failed(Error),
}

/// What is being done, for those who ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Defining,
    Loading,
    Replaying,
}

/// How far a start is.
#[derive(Debug, Clone)]
pub struct RecoveryProgress {
    /// `defining`, `loading`, `replaying`, `complete`, `failed`.
    pub state: &'static str,
    /// Entries of the checkpoint, and how many of them were read.
    pub entries: Option<(u64, u64)>,
    /// Since the engine is there; until it was complete, when it is.
    pub time: Duration,
}

impl Recovering {
    /// Of an engine that begins with nothing.
    pub(super) fn over() -> Arc<Self> {
        Self::new(Phase::Over)
    }

    /// Of one that begins with what an earlier life has left.
    pub(super) fn begun() -> Arc<Self> {
        Self::new(Phase::Defining)
    }

    fn new(phase: Phase) -> Arc<Self> {
        let over = matches!(phase, Phase::Over);
        Arc::new(Self {
            over: AtomicBool::new(over),
            phase: watch::Sender::new(phase),
            stage: AtomicU8::new(Stage::Defining as u8),
            began: Instant::now(),
            took: Mutex::new(over.then_some(Duration::ZERO)),
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// The definitions of the checkpoint are there.
    pub(super) fn name(&self, early: Early) {
        self.reach(Stage::Loading);
        self.phase.send_replace(Phase::Named(Arc::new(early)));
    }

    pub(super) fn reach(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// All is as it was.
    pub(super) fn end(&self) {
        *self.took() = Some(self.began.elapsed());
        self.over.store(true, Ordering::Release);
        self.phase.send_replace(Phase::Over);
    }

    /// It will not be as it was: who waits for that is told why.
    pub(super) fn fail(&self, error: Error) {
        self.phase.send_if_modified(|phase| {
            let open = !matches!(phase, Phase::Over | Phase::Failed(_));
            if open {
                *phase = Phase::Failed(error);
            }
            open
        });
    }

    /// Whoever loads tables may stop.
    pub(super) fn give_up(&self) {
        if let Phase::Named(early) = &*self.phase.borrow() {
            early.readable().image.give_up();
        }
    }

    /// What can be read by now, where that is not all.
    pub(super) fn early(&self) -> Option<Arc<Early>> {
        match &*self.phase.borrow() {
            Phase::Named(early) => Some(Arc::clone(early)),
            _ => None,
        }
    }

    /// Waits until definitions are there.
    async fn named(&self) {
        // The sender is ours.
        drop(self.phase.subscribe().wait_for(|phase| !matches!(phase, Phase::Defining)).await);
    }

    /// Waits until all is as it was; fails when it will not be.
    pub(super) async fn wait(&self) -> Result<()> {
        let done = |phase: &Phase| matches!(phase, Phase::Over | Phase::Failed(_));
        match self.phase.subscribe().wait_for(done).await.as_deref() {
            Ok(Phase::Failed(error)) => {
                let text = "the data directory could not be read";
                Err(Error::external(sqlstate::CANNOT_CONNECT_NOW, text)
                    .with_detail(error.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn took(&self) -> std::sync::MutexGuard<'_, Option<Duration>> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> RecoveryProgress {
        let early = self.early();
        let readable = early.as_ref().map(|early| early.readable());
        let state = match (&*self.phase.borrow(), self.stage.load(Ordering::Relaxed)) {
            (Phase::Over, _) => "complete",
            (Phase::Failed(_), _) => "failed",
            (_, stage) if stage == Stage::Defining as u8 => "defining",
            (_, stage) if stage == Stage::Loading as u8 => "loading",
            _ => "replaying",
        };
        RecoveryProgress {
            state,
            entries: readable.map(|r| (r.entries, r.image.read().min(r.entries))),
            time: self.took().unwrap_or_else(|| self.began.elapsed()),
        }
    }
}

impl Engine {
    /// How far a start on a data directory is.
    pub fn recovery_progress(&self) -> RecoveryProgress {
        self.core.recovering.progress()
    }
}

impl Session {
    /// What can be read by key, while that is not all: `Some(None)` is nothing yet.
    pub(super) fn early(&self) -> Option<Option<Arc<Early>>> {
        let recovering = &self.engine.core.recovering;
        match recovering.is_over() || self.past.is_some() {
            true => None,
            false => Some(recovering.early().filter(|early| early.has_names())),
        }
    }

    /// Waits until an earlier life goes on, within `statement_timeout`.
    pub async fn wait_for_recovery(&mut self) -> Result<()> {
        if self.early().is_none() {
            return Ok(());
        }
        let (cancel, point) = (self.begin_statement(), self.commit_point.clone());
        let recovering = Arc::clone(&self.engine.core.recovering);
        point.within(cancel.deadline(), recovering.wait()).await
    }

    /// The answer to a statement that need not wait for an earlier life to go on; `None` when it
    /// goes on, or when the statement does not need it. `types` and `values` are of parameters.
    pub(super) async fn run_early(
        &mut self,
        parsed: &Arc<ParsedStatement>,
        prepared: Option<&Prepared>,
        values: &[ScalarValue],
    ) -> Result<Option<Outcome>> {
        if self.early().is_none() || is_of_session(&parsed.statement) {
            return Ok(None);
        }
        let recovering = Arc::clone(&self.engine.core.recovering);
        recovering.named().await;
        let query = matches!(parsed.statement, Statement::Query(_)) && self.transaction.is_none();
        if let Some(Some(early)) = self.early().filter(|_| query) {
            let types: Vec<Option<DataType>> = prepared
                .map_or_else(Vec::new, |p| p.parameters.iter().cloned().map(Some).collect());
            // What can't be bound yet may be later.
            let deep = sql::is_deep(parsed, &self.engine.core.shared.catalog());
            let bound = (!deep).then(|| self.prepare_parsed(parsed, &types));
            if let Some(Ok(again)) = bound
                && prepared.is_none_or(|p| p.fields == again.fields)
                && again.parameters.len() == values.len()
                && let Some((bound, _)) = &again.bound
            {
                if let Ok(values) = bound.fit(values)
                    && let Some(done) = self.look_up_bound(bound, &values)?
                {
                    return Ok(Some(done));
                }
                if bound.depends_on().is_empty() && early.has_all_names() {
                    return Ok(None);
                }
            }
        }
        recovering.wait().await?;
        Ok(None)
    }

    /// Whether a statement can be bound now: while an earlier life is begun again, when what it
    /// names is there. `bind` tries; what fails may not fail later.
    pub(super) async fn bind_when_known<T>(
        &mut self,
        mut bind: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<T> {
        if self.early().is_some() {
            let recovering = Arc::clone(&self.engine.core.recovering);
            recovering.named().await;
            if let Some(Some(_)) = self.early()
                && let Ok(bound) = bind(self)
            {
                return Ok(bound);
            }
            recovering.wait().await?;
        }
        bind(self)
    }

    /// How far a start is.
    pub(super) fn show_recovery(&self) -> Result<Rows> {
        let progress = self.engine.recovery_progress();
        let early = self.engine.core.recovering.early();
        let readable = early.map(|early| early.readable().relations.len() as i64);
        let relations = self.engine.core.shared.relations().len() as i64;
        let [state, of, by_key, entries, read, seconds] = RECOVERY_COLUMNS;
        let number = |n: Option<u64>| Column::Number(vec![n.map(|n| n as i64)]);
        table(vec![
            (state, Column::Text(vec![Some(progress.state.to_owned())])),
            (of, Column::Number(vec![Some(relations)])),
            (by_key, Column::Number(vec![readable])),
            (entries, number(progress.entries.map(|(all, _)| all))),
            (read, number(progress.entries.map(|(_, read)| read))),
            (seconds, Column::Seconds(vec![Some(progress.time.as_secs_f64())])),
        ])
    }
}

/// Whether a statement is about the session alone, or waits by itself for what it needs. There is
/// no transaction, since that would have pinned what is there.
fn is_of_session(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Set { .. }
            | Statement::Reset(_)
            | Statement::ResetAll
            | Statement::SetCharacteristics(_)
            | Statement::Deallocate(_)
            | Statement::DiscardAll
            | Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::NoOp(_)
            | Statement::Prepare(_)
            | Statement::Execute(_)
            | Statement::Show(Show::Setting(_) | Show::All | Show::Recovery)
    )
}
