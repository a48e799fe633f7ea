//! The memory of an engine, which is counted and bounded; and that of reads in it: one pool for all
//! of them, and a limit for each.
//!
//! What tables, views and queues hold is counted by the coordinator (`runtime/memory.rs`) and noted
//! here. Near the limit the engine is *full*: sources wait, and rows that are added are refused.
//! Reads get what is left of it, and never less than half of their own limit, so that one can look
//! and delete.
//!
//! Whatever a read keeps between two batches is reserved here first: sorts, groups, the build sides
//! of joins, rows that wait for their reader, rows that a write has found. A request that does not
//! fit is refused; sorts and groups then go to temporary files, everything else fails with 53200.
//! Batches under way are not counted: they are bounded in rows and bytes, and few.
//!
//! Inside of a query, operators that can go to files share evenly what the others leave, so that
//! one of them does not starve the rest.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use datafusion::common::Result as DfResult;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionState;

use crate::config::Config;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{from_datafusion, out_of_memory, show_bytes};

/// A sort keeps this part of its query's limit for merging, unless the library's default is less.
const MERGE_PART: usize = 16;

/// What helps when there is no room.
const SHOW_MEMORY: &str =
    "SHOW MEMORY; says by whom. DELETE or DROP something, or raise --memory-limit.";

/// The engine is full from this many hundredths of the limit on, and has room again below these.
const FULL: usize = 90;
const ROOM: usize = 85;
/// How long a write waits for room while keys leave memory, and how often it looks.
const ROOM_PATIENCE: Duration = Duration::from_secs(30);
const ROOM_PAUSE: Duration = Duration::from_millis(5);
/// It is looked at more often.
const NEAR: usize = 60;

/// The memory of an engine.
pub struct Memory {
    /// Of everything.
    whole_limit: usize,
    /// What tables, views and queues hold.
    engine: AtomicUsize,
    full: AtomicBool,
    /// What is full may have room again soon: keys can leave memory.
    evicts: AtomicBool,
    /// Of all reads.
    limit: usize,
    query_limit: usize,
    used: AtomicUsize,
    environment: RuntimeEnv,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (used, limit) = (self.used(), self.limit);
        write!(f, "Memory({} of {})", show_bytes(used), show_bytes(limit))
    }
}

impl Memory {
    /// The pool that a configuration asks for.
    pub fn new(config: &Config) -> Result<Arc<Self>> {
        let spill = u64::try_from(config.spill_bytes).unwrap_or(u64::MAX);
        let disk = DiskManagerBuilder::default().with_max_temp_directory_size(spill);
        let builder = RuntimeEnvBuilder::new().with_disk_manager_builder(disk);
        let limit = config.read_memory_bytes;
        Ok(Arc::new(Self {
            whole_limit: config.memory_limit_bytes,
            engine: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            evicts: AtomicBool::new(false),
            limit,
            query_limit: config.query_memory_bytes.min(limit),
            used: AtomicUsize::new(0),
            environment: builder.build().map_err(from_datafusion)?,
        }))
    }

    /// The bytes that reads hold now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// What tables, views and queues hold from now on.
    pub fn note_engine(&self, bytes: usize) {
        self.engine.store(bytes, Ordering::Relaxed);
        let full = match self.is_full() {
            true => self.is_above(ROOM),
            false => self.is_above(FULL),
        };
        self.full.store(full, Ordering::Relaxed);
    }

    /// The bytes that are held by all.
    pub fn total(&self) -> usize {
        self.engine.load(Ordering::Relaxed).saturating_add(self.used())
    }

    /// The bytes that may be.
    pub fn whole_limit(&self) -> usize {
        self.whole_limit
    }

    /// Whether nothing should be added. It is so until there is some room.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Keys can leave memory when it gets scarce. It is said before it is: one step can fill what
    /// was half empty, and whoever writes next may look before the coordinator does.
    pub fn evicts(&self) {
        self.evicts.store(true, Ordering::Relaxed);
    }

    /// Waits until there is room, as long as it can be hoped for; false when there is none.
    pub async fn wait_for_room(&self) -> bool {
        let patience = tokio::time::Instant::now() + ROOM_PATIENCE;
        while self.is_full() && self.evicts.load(Ordering::Relaxed) {
            if tokio::time::Instant::now() > patience {
                break;
            }
            tokio::time::sleep(ROOM_PAUSE).await;
        }
        !self.is_full()
    }

    /// Whether more is held than may be.
    pub fn is_exceeded(&self) -> bool {
        self.engine.load(Ordering::Relaxed) > self.whole_limit
    }

    /// Whether it may soon be full.
    pub fn is_near(&self) -> bool {
        self.is_above(NEAR)
    }

    fn is_above(&self, hundredths: usize) -> bool {
        self.engine.load(Ordering::Relaxed) > self.whole_limit / 100 * hundredths
    }

    /// What a query may hold at most when its session says nothing.
    pub fn query_limit(&self) -> usize {
        self.query_limit
    }

    /// The memory of a query that begins; the limit of its session is honoured up to that of all.
    pub fn query(self: &Arc<Self>, limit: Option<usize>) -> QueryMemory {
        let limit = limit.unwrap_or(self.query_limit).min(self.limit);
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool {
            reads: Arc::clone(self),
            limit,
            shares: Mutex::new(Shares::default()),
        });
        QueryMemory { pool, reads: Arc::clone(self), limit }
    }

    /// What all reads together may hold: what the engine leaves of everything, up to their limit,
    /// and always half of that.
    fn left(&self) -> usize {
        let left = self.whole_limit.saturating_sub(self.engine.load(Ordering::Relaxed));
        left.clamp(self.limit / 2, self.limit)
    }

    fn take(&self, bytes: usize) -> bool {
        let limit = self.left();
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

/// The memory of one query; clones share it.
#[derive(Debug, Clone)]
pub struct QueryMemory {
    pool: Arc<dyn MemoryPool>,
    reads: Arc<Memory>,
    limit: usize,
}

impl QueryMemory {
    /// What the query may hold.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Memory for something that the query keeps outside of its plan.
    pub fn reserve(&self, what: &str) -> Reserved {
        Reserved(MemoryConsumer::new(what).register(&self.pool))
    }

    /// What the plan of the query runs in.
    pub(super) fn task(&self, state: &SessionState) -> Arc<TaskContext> {
        let base = &self.reads.environment;
        let environment = RuntimeEnv {
            memory_pool: Arc::clone(&self.pool),
            disk_manager: Arc::clone(&base.disk_manager),
            cache_manager: Arc::clone(&base.cache_manager),
            object_store_registry: Arc::clone(&base.object_store_registry),
        };
        let task = TaskContext::from(state).with_runtime(Arc::new(environment));
        let merge = self.limit / MERGE_PART;
        let known = task.session_config().options().execution.sort_spill_reservation_bytes;
        if merge >= known {
            return Arc::new(task);
        }
        let mut session = task.session_config().clone();
        let execution = &mut session.options_mut().execution;
        execution.sort_spill_reservation_bytes = merge;
        execution.sort_in_place_threshold_bytes = merge;
        Arc::new(task.with_session_config(session))
    }
}

/// The error of who has to wait for room, and can't.
pub fn memory_is_full(what: &str, memory: &Memory) -> Error {
    let (held, limit) = (show_bytes(memory.total()), show_bytes(memory.whole_limit()));
    Error::user(sqlstate::OUT_OF_MEMORY, format!("{what}: the memory limit is reached"))
        .with_detail(format!("{held} of {limit} are held."))
        .with_hint(SHOW_MEMORY)
}

/// Reserved memory; dropping it gives it back.
#[derive(Debug)]
pub struct Reserved(MemoryReservation);

impl Reserved {
    /// Takes more; refused with 53200 when it does not fit.
    pub fn grow(&self, bytes: usize) -> Result<()> {
        self.0.try_grow(bytes).map_err(from_datafusion)
    }

    /// Gives some back.
    pub fn shrink(&self, bytes: usize) {
        self.0.shrink(bytes.min(self.0.size()));
    }

    /// Holds so much from now on; refused with 53200 when it does not fit.
    pub fn resize(&self, bytes: usize) -> Result<()> {
        self.0.try_resize(bytes).map_err(from_datafusion)
    }
}

/// What the operators of a query hold.
#[derive(Debug, Default)]
struct Shares {
    /// Operators that can go to files.
    spilling: usize,
    /// What they hold together.
    in_spilling: usize,
    /// What the others hold.
    in_others: usize,
}

/// What an operator does with what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It can go to files.
    Spills,
    /// It merges the batches of a sort, which has reserved each of them twice: for its sorted copy,
    /// too. The merge counts these copies again, and so may have as much.
    MergesSorted,
    Keeps,
}

impl Kind {
    fn of(consumer: &MemoryConsumer) -> Self {
        match consumer.can_spill() {
            true => Self::Spills,
            false if consumer.name().starts_with("ExternalSorterMerge") => Self::MergesSorted,
            false => Self::Keeps,
        }
    }
}

/// The pool of one query.
#[derive(Debug)]
struct QueryPool {
    reads: Arc<Memory>,
    limit: usize,
    shares: Mutex<Shares>,
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a query's {} of {:?}", show_bytes(self.limit), self.reads)
    }
}

impl QueryPool {
    /// Plain numbers, whole at every moment: poisoning says nothing about them.
    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, reservation: &MemoryReservation, bytes: usize) {
        let mut shares = self.shares();
        match reservation.consumer().can_spill() {
            true => shares.in_spilling += bytes,
            false => shares.in_others += bytes,
        }
    }

    fn refuse(&self, reservation: &MemoryReservation, bytes: usize, own: bool) -> DataFusionError {
        let what = purpose(reservation.consumer().name());
        let engine = !own && self.reads.left() < self.reads.limit;
        let (whose, held, limit) = match own {
            true => ("the query holds", self.reserved(), self.limit),
            false if engine => ("everything holds", self.reads.total(), self.reads.whole_limit),
            false => ("all reads together hold", self.reads.used(), self.reads.limit),
        };
        let detail = format!(
            "Failed on request of {} for {what}: {whose} {} of at most {}.",
            show_bytes(bytes),
            show_bytes(held),
            show_bytes(limit)
        );
        let larger = self.limit.saturating_mul(2).min(self.reads.limit);
        let hint = match own {
            true if larger > self.limit => {
                format!("SET query_memory_limit = '{}MB';", larger >> 20)
            }
            true => "Make the query smaller: all reads together may not hold more.".to_owned(),
            false if engine => SHOW_MEMORY.to_owned(),
            false => "Run it again when other queries have ended.".to_owned(),
        };
        out_of_memory(&detail, &hint)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.shares().spilling += 1;
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            let mut shares = self.shares();
            shares.spilling = shares.spilling.saturating_sub(1);
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.reads.used.fetch_add(additional, Ordering::Relaxed);
        self.add(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.reads.used.fetch_sub(shrink, Ordering::Relaxed);
        let mut shares = self.shares();
        match reservation.consumer().can_spill() {
            true => shares.in_spilling -= shrink,
            false => shares.in_others -= shrink,
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        let fits = {
            let shares = self.shares();
            let free = self.limit.saturating_sub(shares.in_others);
            match Kind::of(reservation.consumer()) {
                Kind::Spills => {
                    let share = free.checked_div(shares.spilling).unwrap_or(free);
                    reservation.size().saturating_add(additional) <= share
                }
                Kind::MergesSorted => additional <= free,
                Kind::Keeps => shares.in_spilling.saturating_add(additional) <= free,
            }
        };
        if !fits {
            return Err(self.refuse(reservation, additional, true));
        }
        if !self.reads.take(additional) {
            return Err(self.refuse(reservation, additional, false));
        }
        self.add(reservation, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        let shares = self.shares();
        shares.in_spilling + shares.in_others
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

/// What an operator of the library takes memory for, in words of SQL.
fn purpose(consumer: &str) -> &str {
    const KNOWN: &[(&str, &str)] = &[
        ("ExternalSorter", "a sort"),
        ("TopK", "a sort with a limit"),
        ("SortPreservingMerge", "a merge of sorted rows"),
        ("HashJoin", "the smaller side of a join"),
        ("NestedLoopJoin", "one side of a join"),
        ("CrossJoin", "one side of a cross join"),
        ("SMJStream", "a merge join"),
        ("PartitionedTopK", "a sort with a limit"),
    ];
    if consumer.contains("Aggregate") || consumer.contains("GroupedHash") {
        return "GROUP BY and its aggregates";
    }
    let known = KNOWN.iter().find(|(name, _)| consumer.starts_with(name));
    known.map_or(consumer, |(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(all: usize, each: usize) -> Arc<Memory> {
        let config =
            Config { read_memory_bytes: all, query_memory_bytes: each, ..Config::default() };
        Memory::new(&config).expect("a pool")
    }

    #[test]
    fn a_query_is_refused_at_its_limit_and_all_at_theirs() {
        let reads = memory(100 << 20, 60 << 20);
        let (a, b) = (reads.query(None), reads.query(None));
        let (one, two) = (a.reserve("rows"), b.reserve("rows"));
        one.grow(50 << 20).expect("fits");
        let refused = one.grow(20 << 20).expect_err("is beyond the query's limit");
        assert_eq!((refused.sqlstate(), refused.message()), ("53200", "out of memory"));
        assert_eq!(
            refused.detail(),
            Some("Failed on request of 20 MB for rows: the query holds 50 MB of at most 60 MB.")
        );
        assert_eq!(refused.hint(), Some("SET query_memory_limit = '100MB';"));
        two.grow(50 << 20).expect("fits");
        let refused = two.grow(1 << 20).expect_err("is beyond what all may hold");
        assert!(refused.detail().is_some_and(|d| d.contains("all reads together hold 100 MB")));
        drop(one);
        two.grow(10 << 20).expect("fits again");
        drop(two);
        assert_eq!(reads.used(), 0);
    }

    #[test]
    fn operators_that_spill_share_what_others_leave() {
        let reads = memory(100, 100);
        let query = reads.query(None);
        let sort =
            |name: &str| MemoryConsumer::new(name).with_can_spill(true).register(&query.pool);
        let (a, b) = (sort("ExternalSorter[0]"), sort("ExternalSorter[1]"));
        assert!(a.try_grow(50).is_ok() && a.try_grow(1).is_err());
        drop(b);
        assert!(a.try_grow(30).is_ok());
        let join = query.reserve("HashJoinInput");
        assert!(join.grow(20).is_ok() && join.grow(1).is_err());
    }

    /// Would find sorts of wide rows that fail where they could go to files.
    #[test]
    fn a_merge_of_what_a_sort_holds_is_not_counted_beside_it() {
        let reads = memory(300, 100);
        let query = reads.query(None);
        let sort = MemoryConsumer::new("ExternalSorter[0]").with_can_spill(true);
        let sort = sort.register(&query.pool);
        let merge = MemoryConsumer::new("ExternalSorterMerge[0]").register(&query.pool);
        assert!(sort.try_grow(90).is_ok());
        assert!(merge.try_grow(100).is_ok() && merge.try_grow(1).is_err());
        assert!(query.reserve("HashJoinInput").grow(1).is_err());
        drop(merge);
        assert!(query.reserve("HashJoinInput").grow(10).is_ok());
    }

    /// Would find an engine that goes to and fro at its limit, and reads that get nothing in a full
    /// one.
    #[test]
    fn a_full_engine_has_room_again_when_something_has_gone() {
        let (mb, mut config) = (1 << 20, Config::default());
        config.limit_memory(100 * mb);
        let memory = Memory::new(&config).expect("a pool");
        let full = [89, 91, 89, 86, 84, 89].map(|held| {
            memory.note_engine(held * mb);
            memory.is_full()
        });
        assert_eq!(full, [false, true, true, true, false, false]);
        memory.note_engine(95 * mb);
        let reads = memory.query(None).reserve("rows");
        reads.grow(12 * mb).expect("half of what reads may hold");
        let others = memory.query(None).reserve("rows");
        let refused = others.grow(mb).expect_err("no more");
        assert_eq!(refused.sqlstate(), sqlstate::OUT_OF_MEMORY);
        assert!(!memory.is_exceeded());
        assert_eq!(memory.total(), 107 * mb);
    }
}
