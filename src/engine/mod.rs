//! The engine as a program uses it: open it, make sessions, execute SQL, subscribe to changes.
//!
//! ```no_run
//! # async fn run() -> headwater::Result<()> {
//! let engine = headwater::Engine::open(headwater::Config::default())?;
//! let mut session = engine.session();
//! session.execute("CREATE TABLE t (k int, v int)").await?;
//! session.execute("CREATE MATERIALIZED VIEW s AS SELECT k, sum(v) FROM t GROUP BY k").await?;
//! session.execute("INSERT INTO t VALUES (1, 2), (1, 3)").await?;
//! # Ok(()) }
//! ```
//!
//! This module is the only facade: `server` and `shell` use nothing below it but values.

mod access;
mod alter_sink;
mod alter_source;
mod alter_table;
mod analyze;
mod backpressure;
mod comments;
mod commit_point;
mod conflict;
mod copy;
mod create_as;
mod create_sink;
mod cursor;
mod ddl;
mod dml;
mod early;
mod explain;
mod explain_replace;
mod figures;
mod guarantees;
mod heavy;
mod history;
mod implicit;
mod index;
mod lateness;
mod lock_wait;
mod look_up;
mod memory;
mod merge;
mod named;
pub mod offline;
mod oracle;
pub mod outcome;
pub(crate) mod picture;
mod plan_cache;
mod point_read;
mod prepared;
mod provider;
mod query;
mod record;
mod recover;
mod recovering;
mod replace;
mod replacement;
mod resume_view;
mod retry;
mod rights;
pub(crate) mod row_source;
mod running;
mod savepoint;
mod schemas;
mod seal;
mod secrets;
mod sequences;
mod session;
mod set;
mod settings;
mod show;
mod status;
mod storage;
mod transaction;
mod unique;
mod view_options;
mod watermarks;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use tokio::runtime::Runtime;

use crate::config::{Config, EVALUATION_STACK_BYTES, THREADS_END_WITHIN};
use crate::error::{Error, Result};
use crate::runtime::{Coordinator, CoordinatorHandle, Needs, Shared};
use crate::sql::memory::Memory;
use crate::store::{Disk, Found};

use self::history::History;
use self::plan_cache::PlanCache;
use self::recovering::Recovering;
use self::settings::SettingValues;

pub(crate) use commit_point::CommitPoint;
pub use copy::CopyIn;
pub use figures::Figures;
pub(crate) use history::Severity;
pub use oracle::Verdict;
pub use outcome::{
    Notice, Outcome, Prepared, Rows, Subscription, SubscriptionEvent, TransactionStatus,
};
pub use recover::Recovery;
pub use recovering::RecoveryProgress;
pub use session::Session;
pub use status::{EngineStatus, RelationStatusLine};

/// A running engine; clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) core: Arc<Core>,
}

/// What sessions share.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) coordinator: CoordinatorHandle,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// One definition is changed at a time.
    pub(crate) ddl: tokio::sync::Mutex<()>,
    /// The threads of ad-hoc queries.
    pub(crate) queries: Option<tokio::runtime::Runtime>,
    /// The memory of reads.
    pub(crate) memory: Arc<Memory>,
    /// Plans of statements that have come before.
    plans: PlanCache,
    /// How far it is with what an earlier life has left.
    recovering: Arc<Recovering>,
    /// The data directory, when there is one.
    kept: Option<Kept>,
    /// Whoever runs the engine starts another one when it has gone back to an older state.
    begins_again: bool,
    /// Where sequences stand.
    pub(crate) sequences: Arc<sequences::Running>,
    /// What has happened and what was measured.
    pub(crate) history: Arc<History>,
    /// Clients at the same time.
    connections_max: usize,
    /// What a session begins with.
    session_defaults: SettingValues,
}

/// A data directory that is in use.
struct Kept {
    /// What was found in it.
    found: Found,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Its own number.
    id: u64,
}

impl Core {
    /// The number of the data directory, when there is one.
    fn directory(&self) -> Option<u64> {
        self.kept.as_ref().map(|kept| kept.id)
    }
}

impl Engine {
    /// Starts an engine in memory: its workers and its coordinator. [`Engine::start`] is the one
    /// that knows data directories.
    pub fn open(config: Config) -> Result<Self> {
        if config.data.is_some() {
            return Err(Error::internal("an engine with a data directory is started"));
        }
        Self::open_with(config)
    }

    fn open_with(config: Config) -> Result<Self> {
        let session_defaults = SettingValues::of_server(&config)?;
        let shared = Shared::new(config.workers.max(1));
        let memory = Memory::new(&config)?;
        let (coordinator, thread) = Coordinator::start(&config, (shared.clone(), memory.clone()))?;
        let thread = Mutex::new(Some(thread));
        let ddl = tokio::sync::Mutex::new(());
        let queries = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.query_threads.max(1))
            .thread_name("query")
            .thread_stack_size(EVALUATION_STACK_BYTES)
            .build()?;
        let queries = Some(queries);
        let plans = PlanCache::default();
        let begins_again = config.begins_again;
        let recovering = Recovering::over();
        let sequences = sequences::Running::new(&shared, &coordinator, &recovering);
        let core = Core {
            shared,
            coordinator,
            thread,
            ddl,
            queries,
            memory,
            plans,
            recovering,
            kept: None,
            sequences: Arc::new(sequences),
            begins_again,
            history: Arc::default(),
            connections_max: config.connections_max,
            session_defaults,
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// A new session with default settings.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// Stops sources, sinks and workers, and waits for them. Statements that wait for the engine
    /// fail with 57P01.
    pub async fn shutdown(&self) -> Result<()> {
        self.core.recovering.give_up();
        self.core.sequences.settle_all();
        self.core.coordinator.stop();
        let thread =
            self.core.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        match joined {
            Ok(Ok(())) => Ok(()),
            _ => Err(Error::internal("the coordinator thread ended with a panic")),
        }
    }

    /// Writes all state to bytes and goes on with `workers` workers that have read it back: what
    /// recovery and rescaling do, without a store in between. For tests.
    pub async fn restore(&self, workers: usize) -> Result<()> {
        let restore = move |c: &mut Coordinator| c.restore_all(workers);
        self.core.coordinator.call_when_free(Needs::Everything, restore).await?
    }

    /// Keeps what has happened.
    pub(crate) fn note(&self, severity: Severity, kind: &'static str, object: &str, message: &str) {
        self.core.history.note(severity, kind, object, message);
    }

    /// Clients that may be there at the same time.
    pub fn connections_limit(&self) -> usize {
        self.core.connections_max
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.core.shared.workers
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Nobody can wait here, so a thread does: the C library frees the stack of a thread that is
        // let go while it ends under whoever lets it go, where the stack is too large to be kept.
        self.recovering.give_up();
        self.coordinator.stop();
        let thread = self.thread.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (thread, queries) = (thread.take(), self.queries.take());
        let (hand_over, handed) = mpsc::channel::<(Option<JoinHandle<()>>, Option<Runtime>)>();
        let wait = move || {
            let Ok((thread, queries)) = handed.recv() else { return };
            // A panic of the coordinator has been told by itself.
            let _ended = thread.map(JoinHandle::join);
            if let Some(queries) = queries {
                queries.shutdown_timeout(THREADS_END_WITHIN);
            }
        };
        match std::thread::Builder::new().name("closing".into()).spawn(wait) {
            // It is there, and takes what it is given.
            Ok(_) => drop(hand_over.send((thread, queries))),
            Err(_) => {
                if let Some(queries) = queries {
                    queries.shutdown_background();
                }
            }
        }
    }
}
