//! Source tasks: a thread per reader that reads, decodes and hands batches to the coordinator,
//! within a budget of batches under way.
//!
//! ```text
//!   opening --reader--> reading <--> idle
//!      ^                   |  \--> unavailable (goes on by itself)
//!      |                   v
//!      +---- backoff <-- error (retriable)      error (permanent) --> failed
//!                          end of all splits --> ended
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, new_null_array};
use arrow::datatypes::SchemaRef;
use tokio::sync::oneshot;

use super::arrivals::SplitTime;
use super::clock::Clock;
use super::coordinator::Event;
use super::ingest::Parts;
use super::rejects::Retried;
use super::shared::lock;
use crate::catalog::{RelationId, WatermarkDef};
use crate::config::{BATCH_ROWS, RETRY_BACKOFF, SOURCE_QUEUE_BATCHES};
use crate::connector::{
    Continuation, Edge, Positions, Read, Rejected, Source, SourceBatch, SplitId,
};
use crate::delta::DeltaBatch;
use crate::error::{Error, Result, Retry};
use crate::time::{Lateness, Watermark};

/// How long a reader waits for rows before it looks whether it should stop.
const POLL: Duration = Duration::from_millis(50);

/// How often a system that is away is asked where to go on.
const AWAY_PAUSE: Duration = Duration::from_millis(200);

/// How often the system is told how far its rows have come.
const TELL_PAUSE: Duration = Duration::from_secs(1);

/// How often a reader that has to wait asks where its splits end.
const ENDS_PAUSE: Duration = Duration::from_secs(1);

/// Where a source stands, for SHOW SOURCES.
#[derive(Debug, Clone, Default)]
pub struct SourceState {
    /// `starting`, `running`, `idle`, `waiting`, `unavailable`, `failed`, `ended`.
    pub state: String,
    /// Why, where there is something to say.
    pub detail: Option<String>,
    /// Where splits are known to end, where the system tells.
    pub ends: Positions,
    /// The next position that the engine will take, by split.
    pub positions: Positions,
    /// The same as of the newest checkpoint, where there are checkpoints.
    pub kept: Option<Positions>,
    /// Messages that could not be decoded.
    pub rejected: u64,
}

impl SourceState {
    /// Messages that the engine has not taken, where the system tells.
    pub fn lag(&self) -> Option<i64> {
        let behind = |(split, end): (&SplitId, &i64)| {
            self.positions.get(split).map_or(0, |position| (end - position).max(0))
        };
        (!self.ends.is_empty()).then(|| self.ends.iter().map(behind).sum())
    }
}

/// Rows of a source on their way to the coordinator.
pub struct SourceFeed {
    /// The source.
    pub relation: RelationId,
    /// The task that read them; a newer task of the same source makes older ones stale.
    pub task: u64,
    /// What arrived.
    pub kind: FeedKind,
}

impl SourceFeed {
    /// The rows that it brings.
    pub(super) fn rows(&self) -> usize {
        if let FeedKind::Rows { rows, .. } = &self.kind { rows.len() } else { 0 }
    }
}

/// What a source task sends.
pub enum FeedKind {
    /// Rows and rejected messages of one split.
    Rows {
        /// The split.
        split: SplitId,
        /// The position behind them.
        next: i64,
        /// All columns of the relation; those that nobody wants are NULL. Under FORMAT UPSERT
        /// weight -1 deletes a key. With arrivals where there is a watermark.
        rows: DeltaBatch,
        /// The same by worker, where keys say which.
        parts: Option<Parts>,
        /// Messages that could not be decoded.
        rejected: Vec<Rejected>,
        /// The split's watermark behind them.
        watermark: Option<Watermark>,
        /// How far they were behind.
        lateness: Box<Lateness>,
    },
    /// Where the reader goes on, ahead of what it reads.
    GoesOn(Continuation),
    /// Messages that were rejected and have been decoded again; how many have become rows, and how
    /// many have not, is told.
    Retried(Vec<Retried>, oneshot::Sender<Result<(usize, usize)>>),
    /// Changes of `$errors`: what is read again is not there any more.
    Forgotten(Vec<DeltaBatch>),
    /// All splits have ended.
    End,
    /// The reader has failed for good.
    Failed(Error),
}

/// A running source task.
pub struct SourceTask {
    /// Its number.
    pub number: u64,
    /// The columns that it decodes.
    pub columns: Vec<usize>,
    credits: Arc<Credits>,
    stop: Arc<AtomicBool>,
}

/// What a task is told at its start.
pub struct SourceTaskSpec {
    /// The relation that it reads for.
    pub relation: RelationId,
    /// The number of the task.
    pub number: u64,
    /// Where to read.
    pub source: Arc<dyn Source>,
    /// All columns.
    pub schema: SchemaRef,
    /// The wanted columns, ascending.
    pub columns: Vec<usize>,
    /// Where to begin; `None`: as the source's options say.
    pub from: Option<Positions>,
    /// What `from` are positions of, where that was said.
    pub identity: Option<String>,
    /// Where to end.
    pub until: Option<Positions>,
    /// The event-time column; it is among the wanted ones.
    pub watermark: Option<WatermarkDef>,
    /// The watermarks of the splits at `from`; minus infinity where nothing is said.
    pub watermarks: BTreeMap<SplitId, Watermark>,
    /// The columns that say which of so many workers a row goes to.
    pub spread: Option<(Vec<usize>, usize)>,
    /// The clock.
    pub clock: Arc<Clock>,
    /// Told to everybody who asks.
    pub state: Arc<Mutex<SourceState>>,
    /// The coordinator.
    pub events: Sender<Event>,
}

/// Batches that a task may have under way.
struct Credits {
    free: Mutex<usize>,
    returned: Condvar,
}

impl Credits {
    /// Waits for a credit, for some time; false without one.
    fn take(&self, stop: &AtomicBool, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        let mut free = lock(&self.free);
        while *free == 0 {
            if stop.load(Ordering::Relaxed) || Instant::now() >= until {
                return false;
            }
            let wait = self.returned.wait_timeout(free, POLL);
            free = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        true
    }

    fn give_back(&self) {
        *lock(&self.free) += 1;
        self.returned.notify_one();
    }
}

impl SourceTask {
    /// Starts the thread.
    pub fn start(spec: SourceTaskSpec) -> Result<Self> {
        let credits =
            Arc::new(Credits { free: Mutex::new(SOURCE_QUEUE_BATCHES), returned: Condvar::new() });
        let stop = Arc::new(AtomicBool::new(false));
        let task = Self {
            number: spec.number,
            columns: spec.columns.clone(),
            credits: credits.clone(),
            stop: stop.clone(),
        };
        std::thread::Builder::new().name(format!("source-{}", spec.relation)).spawn(move || {
            let (identity, times) = (spec.identity.clone(), BTreeMap::new());
            let (positions, moved) = (None, None);
            TaskThread { spec, credits, stop, positions, times, identity, moved }.run()
        })?;
        Ok(task)
    }

    /// The coordinator has taken a batch.
    pub fn give_back(&self) {
        self.credits.give_back();
    }
}

impl Drop for SourceTask {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.credits.returned.notify_all();
    }
}

struct TaskThread {
    spec: SourceTaskSpec,
    credits: Arc<Credits>,
    stop: Arc<AtomicBool>,
    /// Where the reader stands.
    positions: Option<Positions>,
    /// Event time, by split.
    times: BTreeMap<SplitId, SplitTime>,
    /// What is read, where that is known.
    identity: Option<String>,
    /// Why it has gone on elsewhere, to be shown.
    moved: Option<String>,
}

impl TaskThread {
    fn run(mut self) {
        let mut pause = RETRY_BACKOFF.0;
        while !self.stopped() {
            match self.read_until_error() {
                Ok(()) => return,
                Err(error) if error.retry() == Retry::Backoff => {
                    self.tell("unavailable", Some(error.to_string()));
                    self.sleep(pause);
                    pause = (pause * 2).min(RETRY_BACKOFF.1);
                }
                Err(error) => {
                    tracing::error!(relation = %self.spec.relation, %error, "source failed");
                    self.tell("failed", Some(error.to_string()));
                    self.feed(FeedKind::Failed(error));
                    return;
                }
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn sleep(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while !self.stopped() && Instant::now() < until {
            std::thread::sleep(POLL.min(pause));
        }
    }

    fn tell(&self, state: &str, detail: Option<String>) {
        let mut told = lock(&self.spec.state);
        if told.state != state || told.detail != detail {
            told.state = state.to_owned();
            told.detail = detail;
        }
    }

    fn read_until_error(&mut self) -> Result<()> {
        let from = match (&self.positions, &self.spec.from) {
            (Some(positions), _) | (None, Some(positions)) => positions.clone(),
            (None, None) => self.spec.source.start()?,
        };
        let from = self.still_there(from)?;
        let from = self.go_on(from)?;
        {
            let mut told = lock(&self.spec.state);
            for (split, position) in &from {
                told.positions.entry(*split).or_insert(*position);
            }
        }
        self.positions = Some(from.clone());
        let until = self.spec.until.as_ref();
        let mut reader = self.spec.source.reader(&from, until, &self.spec.columns)?;
        let mut told = Instant::now();
        while !self.stopped() {
            if self.spec.until.is_none() && told.elapsed() >= TELL_PAUSE {
                told = Instant::now();
                let state = lock(&self.spec.state).clone();
                reader.tell(state.kept.as_ref().unwrap_or(&state.positions));
            }
            if !self.credits.take(&self.stop, ENDS_PAUSE) {
                // Nothing is taken: how much waits by now?
                if let Some(ends) = reader.ends() {
                    lock(&self.spec.state).ends.extend(ends);
                }
                continue;
            }
            match reader.read(BATCH_ROWS, POLL)? {
                Read::Batch(batch) => {
                    self.tell("running", self.moved.clone());
                    self.send(batch)?;
                }
                Read::Idle => {
                    self.tell("idle", self.moved.clone());
                    self.credits.give_back();
                }
                Read::Unavailable(reason) => {
                    self.tell("unavailable", Some(reason));
                    self.credits.give_back();
                }
                Read::End => {
                    self.tell("ended", None);
                    self.feed(FeedKind::End);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A replay begins at the first positions that can still be read.
    fn still_there(&self, mut from: Positions) -> Result<Positions> {
        if self.spec.until.is_none() || self.positions.is_some() {
            return Ok(from);
        }
        let earliest = self.spec.source.edge(Edge::Earliest)?.unwrap_or_default();
        for (split, position) in &mut from {
            let first = earliest.get(split).copied().unwrap_or(*position);
            if first > *position {
                tracing::warn!(
                    relation = %self.spec.relation, split, from = first,
                    "rows before this position are gone: a new view is built without them"
                );
                *position = first;
            }
        }
        Ok(from)
    }

    /// Whether what comes next is there, and where to go on where not; a replay has an end among
    /// what was read, so it is another's concern.
    fn go_on(&mut self, from: Positions) -> Result<Positions> {
        if self.spec.until.is_some() {
            return Ok(from);
        }
        let on = loop {
            match self.spec.source.go_on(&from, self.identity.as_deref()) {
                Ok(on) => break on,
                // A system that is away is asked often: nobody reads until it answers.
                Err(error) if error.retry() == Retry::Backoff && !self.stopped() => {
                    self.tell("unavailable", Some(error.to_string()));
                    self.sleep(AWAY_PAUSE);
                }
                Err(error) => return Err(error),
            }
        };
        if let Some(moved) = &on.moved {
            tracing::warn!(relation = %self.spec.relation, "{moved}");
            self.moved = on.moved.clone();
        }
        if on.moved.is_some() || on.identity != self.identity {
            self.identity.clone_from(&on.identity);
            self.feed(FeedKind::GoesOn(on.clone()));
        }
        Ok(on.from)
    }

    fn send(&mut self, batch: SourceBatch) -> Result<()> {
        let rows = self.widen(&batch)?;
        let mut lateness = Lateness::default();
        let (rows, watermark) = self.arrive(rows, batch.split, &mut lateness);
        if let Some(positions) = &mut self.positions {
            positions.insert(batch.split, batch.next);
        }
        if let Some(lag) = batch.lag {
            let end = batch.next.saturating_add_unsigned(lag);
            lock(&self.spec.state).ends.insert(batch.split, end);
        }
        let SourceBatch { split, next, rejected, .. } = batch;
        let parts = match &self.spec.spread {
            Some((by, workers)) if !rows.is_empty() => Some(Parts::split(&rows, by, *workers)?),
            _ => None,
        };
        self.feed(FeedKind::Rows {
            split,
            next,
            rows,
            parts,
            rejected,
            watermark,
            lateness: Box::new(lateness),
        });
        Ok(())
    }

    fn feed(&self, kind: FeedKind) {
        let feed = SourceFeed { relation: self.spec.relation, task: self.spec.number, kind };
        // Without a coordinator the engine is shutting down, and so will this task.
        drop(self.spec.events.send(Event::Source(feed)));
    }

    /// The rows in the full width of the relation, deletions as weight -1.
    fn widen(&self, batch: &SourceBatch) -> Result<DeltaBatch> {
        let count = batch.rows.num_rows();
        let mut decoded = batch.rows.columns().iter();
        let column = |(i, field): (usize, &Arc<arrow::datatypes::Field>)| -> ArrayRef {
            let wanted = self.spec.columns.binary_search(&i).is_ok();
            let array = if wanted { decoded.next().cloned() } else { None };
            array.unwrap_or_else(|| new_null_array(field.data_type(), count))
        };
        let columns: Vec<ArrayRef> =
            self.spec.schema.fields().iter().enumerate().map(column).collect();
        let rows = RecordBatch::try_new(self.spec.schema.clone(), columns)?;
        let weights = batch.deletes.as_ref().map(|deletes| {
            Int64Array::from_iter_values(
                deletes.iter().map(|d| if d == Some(true) { -1 } else { 1 }),
            )
        });
        Ok(DeltaBatch::with_weights(rows, weights))
    }

    /// Rows with the watermarks that their split had before them, and the one behind them.
    fn arrive(
        &mut self,
        rows: DeltaBatch,
        split: SplitId,
        lateness: &mut Lateness,
    ) -> (DeltaBatch, Option<Watermark>) {
        let Some(def) = &self.spec.watermark else { return (rows, None) };
        let from = || {
            let known = self.spec.watermarks.get(&split);
            known.map_or(SplitTime::NEW, |w| SplitTime::at(*w, def))
        };
        let time = self.times.entry(split).or_insert_with(from);
        let now = self.spec.clock.now_us();
        let arrivals = time.take(&rows, def.column, def, now, lateness);
        (rows.with_arrivals(Some(arrivals)), Some(time.watermark(def)))
    }
}
