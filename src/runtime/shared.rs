//! What sessions and the coordinator share: the published epoch with its catalog, pins, and the
//! state of every relation.
//!
//! Locks here are `std` ones and held for a few instructions; none is held across an await.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock::Clock;
use crate::catalog::{Catalog, RelationId};
use crate::error::{Error, Result, sqlstate};
use crate::operator::RetainLimit;
use crate::plan::{PlanNode, Properties, TimeColumn};
use crate::state::ResultTable;
use crate::time::{Epoch, Watermark};

/// Takes a lock whose data is consistent even when a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The write ticket of a table, while a write holds it.
pub type WriteTicket = tokio::sync::OwnedMutexGuard<()>;

/// Where a relation stands.
#[derive(Debug, Clone)]
pub enum RelationStatus {
    /// Being built from its inputs; not readable yet.
    Building,
    /// Up to date.
    Running,
    /// Its dataflow has failed; it keeps the answer of this epoch.
    Quarantined(Epoch, Error),
    /// The same, and it is built anew.
    Rebuilding(Epoch, Error),
}

/// The moving part of a relation.
#[derive(Debug)]
pub struct Progress {
    /// Where it stands.
    pub status: RelationStatus,
    /// Watermarks by column.
    pub watermarks: BTreeMap<usize, Watermark>,
    /// When an epoch last changed it.
    pub updated: Option<Instant>,
    /// The last epoch that changed it.
    pub changed: Epoch,
    /// The first epoch at which it can be read.
    pub since: Epoch,
}

/// How much is kept of the rows that a view puts aside: all of it where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Aside {
    /// Of those that have failed, in its `$errors`.
    pub errors: Option<RetainLimit>,
    /// Of those that came late, in its `$late`.
    pub late: Option<RetainLimit>,
}

/// One relation as the runtime has it.
#[derive(Debug)]
pub struct RelationState {
    /// Its identity.
    pub id: RelationId,
    /// Its rows, where it stores them.
    pub table: Option<Arc<ResultTable>>,
    /// What plans over it may rely on.
    pub properties: Properties,
    /// Its columns that carry a watermark.
    pub times: Vec<TimeColumn>,
    /// Its plan, for views.
    pub plan: Option<PlanNode>,
    /// How much is kept of what a view puts aside.
    pub aside: Aside,
    /// What moves.
    pub progress: Mutex<Progress>,
}

impl RelationState {
    /// A relation that runs (or is being built).
    pub fn new(
        id: RelationId,
        table: Option<Arc<ResultTable>>,
        (properties, times, aside): (Properties, Vec<TimeColumn>, Aside),
        plan: Option<PlanNode>,
        status: RelationStatus,
    ) -> Arc<Self> {
        let progress = Progress {
            status,
            watermarks: BTreeMap::new(),
            updated: None,
            changed: Epoch::ZERO,
            since: Epoch::ZERO,
        };
        Arc::new(Self { id, table, properties, times, plan, aside, progress: Mutex::new(progress) })
    }

    /// The same relation with its rows elsewhere.
    pub(super) fn with_table(&self, table: Arc<ResultTable>) -> Arc<Self> {
        let old = lock(&self.progress);
        let progress = Progress {
            status: old.status.clone(),
            watermarks: old.watermarks.clone(),
            updated: old.updated,
            changed: old.changed,
            since: old.since,
        };
        Arc::new(Self {
            id: self.id,
            table: Some(table),
            properties: self.properties.clone(),
            times: self.times.clone(),
            plan: self.plan.clone(),
            aside: self.aside,
            progress: Mutex::new(progress),
        })
    }

    /// Where it stands.
    pub fn status(&self) -> RelationStatus {
        lock(&self.progress).status.clone()
    }

    /// The last epoch that changed it.
    pub fn last_change(&self) -> Epoch {
        lock(&self.progress).changed
    }

    /// The first epoch at which it can be read.
    pub fn since(&self) -> Epoch {
        lock(&self.progress).since
    }

    /// Its watermarks by column.
    pub fn watermarks(&self) -> BTreeMap<usize, Watermark> {
        lock(&self.progress).watermarks.clone()
    }

    /// The least of its watermarks, and when an epoch last changed it.
    pub fn pulse(&self) -> (Option<Watermark>, Option<Instant>) {
        let progress = lock(&self.progress);
        (progress.watermarks.values().copied().min(), progress.updated)
    }
}

#[derive(Debug)]
struct Versions {
    published: Epoch,
    now_us: i64,
    catalog: Arc<Catalog>,
    relations: Arc<BTreeMap<RelationId, Arc<RelationState>>>,
    /// Relations that a step in flight may change, with the epoch that is read of them.
    behind: Arc<BTreeMap<RelationId, Epoch>>,
    /// Readers by the oldest epoch that they may look at.
    pins: BTreeMap<Epoch, Pinned>,
}

/// The readers of an epoch.
#[derive(Debug, Default)]
struct Pinned {
    count: usize,
    /// Those who may not be cut off: views that are being built, sinks that begin.
    firm: usize,
    /// What tells the others that they are.
    cut: Arc<AtomicBool>,
}

/// The shared state of an engine.
#[derive(Debug)]
pub struct Shared {
    versions: Mutex<Versions>,
    tickets: Mutex<BTreeMap<RelationId, Arc<tokio::sync::Mutex<()>>>>,
    /// Relations that nobody should write to for now.
    held: tokio::sync::watch::Sender<BTreeSet<RelationId>>,
    /// Why sources are not read from any more.
    failed_sources: Mutex<BTreeMap<RelationId, Error>>,
    /// Why the engine has ended, when it has failed.
    failure: tokio::sync::watch::Sender<Option<Error>>,
    /// Rows taken from all inputs.
    pub rows_in: AtomicU64,
    /// Microseconds from the cut of epochs until they were published, of all together.
    epoch_us: AtomicU64,
    /// The clock.
    pub clock: Arc<Clock>,
    /// The number of workers.
    pub workers: usize,
}

/// A moment that can be read: everything in it is of one epoch, which stays readable while it
/// lives.
#[derive(Debug)]
pub struct Pin {
    /// The epoch.
    pub epoch: Epoch,
    /// Its clock, in microseconds: what `now()` is in the views of this epoch.
    pub now_us: i64,
    /// The definitions at that epoch.
    pub catalog: Arc<Catalog>,
    /// The relations at that epoch.
    pub relations: Arc<BTreeMap<RelationId, Arc<RelationState>>>,
    behind: Arc<BTreeMap<RelationId, Epoch>>,
    oldest: Epoch,
    shared: Arc<Shared>,
    cut: Arc<AtomicBool>,
    firm: bool,
}

impl Pin {
    /// 72000 when its epoch is not kept any more. Whoever reads rows looks after it has them: rows
    /// that were read before the epoch was let go are right.
    pub fn check(&self) -> Result<()> {
        match self.cut.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Error::user(sqlstate::SNAPSHOT_TOO_OLD, "snapshot too old")
                .with_detail(format!(
                    "Epoch {} was let go: row versions that it held back took too much memory.",
                    self.epoch
                ))
                .with_hint("Run it again; end transactions and read cursors without long pauses.")),
        }
    }

    /// The epoch at which a relation is read: an older one while a step is in flight that may
    /// change it.
    pub fn epoch_of(&self, id: RelationId) -> Epoch {
        self.behind.get(&id).copied().unwrap_or(self.epoch)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut versions = lock(&self.shared.versions);
        let Some(pinned) = versions.pins.get_mut(&self.oldest) else { return };
        // Another pin of the epoch may have come after this one was cut off.
        if !Arc::ptr_eq(&pinned.cut, &self.cut) {
            return;
        }
        pinned.count -= 1;
        pinned.firm -= usize::from(self.firm);
        if pinned.count == 0 {
            versions.pins.remove(&self.oldest);
        }
    }
}

impl Shared {
    /// The shared state of an empty engine.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            versions: Mutex::new(Versions {
                published: Epoch::ZERO,
                now_us: 0,
                catalog: Arc::default(),
                relations: Arc::default(),
                behind: Arc::default(),
                pins: BTreeMap::new(),
            }),
            tickets: Mutex::default(),
            held: tokio::sync::watch::Sender::default(),
            failed_sources: Mutex::default(),
            failure: tokio::sync::watch::Sender::default(),
            rows_in: AtomicU64::new(0),
            epoch_us: AtomicU64::new(0),
            clock: Arc::default(),
            workers,
        })
    }

    /// Pins the published epoch.
    pub fn pin(self: &Arc<Self>) -> Pin {
        self.pin_as(false)
    }

    /// The same for who must not be cut off.
    pub fn pin_firmly(self: &Arc<Self>) -> Pin {
        self.pin_as(true)
    }

    fn pin_as(self: &Arc<Self>, firm: bool) -> Pin {
        let mut versions = lock(&self.versions);
        let epoch = versions.published;
        let oldest = versions.behind.values().copied().fold(epoch, Epoch::min);
        let pinned = versions.pins.entry(oldest).or_default();
        pinned.count += 1;
        pinned.firm += usize::from(firm);
        let cut = Arc::clone(&pinned.cut);
        Pin {
            cut,
            firm,
            epoch,
            oldest,
            behind: versions.behind.clone(),
            now_us: versions.now_us,
            catalog: versions.catalog.clone(),
            relations: versions.relations.clone(),
            shared: self.clone(),
        }
    }

    /// The published epoch.
    pub fn published(&self) -> Epoch {
        lock(&self.versions).published
    }

    /// The current definitions.
    pub fn catalog(&self) -> Arc<Catalog> {
        lock(&self.versions).catalog.clone()
    }

    /// Whether these are the current definitions.
    pub fn is_catalog(&self, catalog: &Arc<Catalog>) -> bool {
        Arc::ptr_eq(&lock(&self.versions).catalog, catalog)
    }

    /// The current relations.
    pub fn relations(&self) -> Arc<BTreeMap<RelationId, Arc<RelationState>>> {
        lock(&self.versions).relations.clone()
    }

    /// Relations that a step in flight may change are read as they are now, until it has been
    /// published.
    pub fn fall_behind(&self, relations: &BTreeSet<RelationId>) {
        let mut versions = lock(&self.versions);
        let published = versions.published;
        let mut behind = versions.behind.as_ref().clone();
        for id in relations {
            behind.entry(*id).or_insert(published);
        }
        versions.behind = Arc::new(behind);
    }

    /// Makes an epoch of some relations and its clock visible; those of `behind` only up to another
    /// one, since later steps change them already. Returns the oldest epoch that anybody may still
    /// read of them.
    pub fn publish(
        &self,
        epoch: Epoch,
        now_us: i64,
        of: &BTreeSet<RelationId>,
        behind: &BTreeMap<RelationId, Epoch>,
    ) -> Epoch {
        let mut versions = lock(&self.versions);
        versions.published = versions.published.max(epoch);
        versions.now_us = versions.now_us.max(now_us);
        if !behind.is_empty() || versions.behind.keys().any(|id| of.contains(id)) {
            let mut now = versions.behind.as_ref().clone();
            now.retain(|id, _| !of.contains(id));
            now.extend(behind);
            versions.behind = Arc::new(now);
        }
        let pinned = versions.pins.first_key_value().map(|(pinned, _)| *pinned);
        behind.values().copied().chain(pinned).fold(epoch, Epoch::min)
    }

    /// The oldest epoch that anybody may read.
    pub fn oldest(&self) -> Epoch {
        let versions = lock(&self.versions);
        let pinned = versions.pins.first_key_value().map(|(pinned, _)| *pinned);
        versions.behind.values().copied().chain(pinned).fold(versions.published, Epoch::min)
    }

    /// Cuts off the readers of the oldest epoch that is pinned, unless it is `newest`, or one that
    /// must not be let go; the oldest epoch that anybody may read from then on.
    pub fn cut_off_oldest(&self, newest: Epoch) -> Option<Epoch> {
        let mut versions = lock(&self.versions);
        // Who comes now reads at it, too.
        let newest = versions.behind.values().copied().fold(newest, Epoch::min);
        let (epoch, pinned) = versions.pins.first_key_value()?;
        if *epoch >= newest || pinned.firm > 0 {
            return None;
        }
        let (epoch, pinned) = (*epoch, Arc::clone(&pinned.cut));
        pinned.store(true, Ordering::Release);
        versions.pins.remove(&epoch);
        Some(versions.pins.first_key_value().map_or(newest, |(pinned, _)| *pinned))
    }

    /// Changes definitions and relations in one step.
    pub fn change(
        &self,
        change: impl FnOnce(&mut Catalog, &mut BTreeMap<RelationId, Arc<RelationState>>),
    ) {
        let mut versions = lock(&self.versions);
        let mut catalog = versions.catalog.as_ref().clone();
        let mut relations = versions.relations.as_ref().clone();
        change(&mut catalog, &mut relations);
        versions.catalog = Arc::new(catalog);
        versions.relations = Arc::new(relations);
    }

    /// The write ticket of a table.
    pub fn ticket(&self, table: RelationId) -> Arc<tokio::sync::Mutex<()>> {
        lock(&self.tickets).entry(table).or_default().clone()
    }

    /// Says which relations nobody should write to for now.
    pub fn hold(&self, relations: BTreeSet<RelationId>) {
        self.held.send_replace(relations);
    }

    /// Waits until some relations can be written to. All who wait go on at once: the rows of each
    /// are in memory already.
    pub async fn wait_for_room(&self, relations: impl Fn(&RelationId) -> bool) {
        let free = |held: &BTreeSet<RelationId>| !held.iter().any(&relations);
        let mut told = self.held.subscribe();
        // The sender lives as long as we do.
        let _ = told.wait_for(free).await;
    }

    /// Says that a source has failed for good, and why; `None`: that it is read again or gone.
    pub fn note_failed_source(&self, source: RelationId, error: Option<Error>) {
        let mut failed = lock(&self.failed_sources);
        match error {
            Some(error) => failed.insert(source, error),
            None => failed.remove(&source),
        };
    }

    /// The sources that have failed for good.
    pub fn failed_sources(&self) -> BTreeMap<RelationId, Error> {
        lock(&self.failed_sources).clone()
    }

    /// The engine ends: it can't keep what it is told.
    pub fn fail(&self, error: &Error) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert_with(|| error.clone());
            first
        });
    }

    /// Why the engine has ended, when it has failed.
    pub fn failure(&self) -> Option<Error> {
        self.failure.borrow().clone()
    }

    /// Returns when the engine has failed, with the reason.
    pub async fn failed(&self) -> Error {
        let mut told = self.failure.subscribe();
        // The sender lives as long as we do.
        let failure = told.wait_for(Option::is_some).await.ok().and_then(|f| f.clone());
        failure.unwrap_or_else(|| Error::internal("the engine has ended"))
    }

    /// Counts rows taken from inputs.
    pub fn count_rows_in(&self, rows: usize) {
        self.rows_in.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Counts the time of an epoch that is published.
    pub fn count_epoch(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.epoch_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The time from the cut of epochs until they were published, of all together.
    pub fn epoch_time(&self) -> Duration {
        Duration::from_micros(self.epoch_us.load(Ordering::Relaxed))
    }
}
