//! Every limit and default of the engine in one place, with its unit in the name and the reason
//! beside it. What a user may change is a field of [`Config`]; the rest are constants.

use std::ops::RangeInclusive;
use std::time::Duration;

mod machine;
mod object;

pub use machine::{available, memory as machine_memory_bytes, parse_bytes};
pub use object::ObjectOptions;

/// Values that a query may look up by an index; for more of them the relation is scanned, which
/// then costs about the same.
pub const POINT_READ_KEYS_MAX: usize = 10_000;

/// Plans of statements that are kept: as many as the applications of a server have statements.
pub const PLANS_MAX: usize = 1_024;

/// Bytes of all of them, about; one takes a few tens of kilobytes.
pub const PLANS_BYTES_MAX: usize = 64 << 20;

/// Rows that are looked up on the thread that serves a connection, and the bytes of their texts:
/// what takes less time than waking another thread.
pub const LOOKUP_ROWS_MAX: usize = 256;
/// See [`LOOKUP_ROWS_MAX`].
pub const LOOKUP_BYTES_MAX: usize = 256 << 10;

/// Keys that a statement reads from the files of a checkpoint, while the state is being loaded.
/// Each takes a block of each run, some 0.1 ms where that has to come from the disk.
pub const EARLY_READ_KEYS_MAX: usize = 64;

/// Bytes of writes behind a checkpoint that are kept for such reads; where there are more, what is
/// written waits for the end of recovery.
pub const EARLY_WRITES_BYTES_MAX: usize = 64 << 20;

/// Sessions at the same time, unless a program says something else; each costs a few tens of
/// kilobytes and its statements.
pub const CONNECTIONS_MAX: usize = 1_000;

/// Rows in a batch handed from a source to the workers. Vectorised kernels reach their speed above
/// a few hundred rows; much larger batches leave the second-level cache.
pub const BATCH_ROWS: usize = 8_192;

/// Groups or rows that an operator flushes in one piece: some ten milliseconds. Between two pieces
/// others' steps get their time.
pub const FLUSH_ROWS: usize = 4 * BATCH_ROWS;

/// Rows that one epoch takes at most from all its inputs together: the upper limit of the adaptive
/// epoch, so that a backlog cannot grow an epoch without bound.
pub const EPOCH_ROWS_MAX: usize = 1 << 20;

/// Bytes of the memory limit for each row that an epoch may take: its own and those of the keys
/// that it brings into memory, of several views, are a small part of all then.
pub const EPOCH_BYTES_PER_ROW: usize = 2_048;

/// Measuring takes at most one part in this many of the time.
pub const STATE_CHECK_SHARE: u32 = 50;

/// Step time that the size of an epoch is steered to while somebody waits for a write or a read.
pub const EPOCH_TARGET_INTERACTIVE: Duration = Duration::from_millis(20);

/// The slice of time that a step gets before others have their turn, while somebody waits for a
/// write: what they may be delayed by a step that does not concern them.
pub const STEP_SLICE: Duration = Duration::from_millis(10);

/// The same while nobody waits. Workers meet at the end of a slice, which costs some 20 us.
pub const STEP_SLICE_BULK: Duration = Duration::from_millis(50);

/// Epochs that are under way on the same nodes at most: the one that runs, and one behind it, so
/// that no worker is idle while another one is not done.
pub const EPOCHS_AHEAD: usize = 2;

/// Rows and bytes of an epoch that may lie in front of a worker before those who send to it take no
/// more of its rows in: some ten milliseconds of work.
pub const EXCHANGE_ROWS_MAX: usize = 64 * BATCH_ROWS;
/// See [`EXCHANGE_ROWS_MAX`].
pub const EXCHANGE_BYTES_MAX: usize = 64 << 20;

/// Row versions that are given back in one piece: a millisecond, in which their table is not read.
pub const VACUUM_ROWS: usize = 8_192;

/// Rows of an epoch after which folding them ahead of an exchange has to have paid off: half of
/// them are gone.
pub const FOLD_ROWS_MIN: usize = BATCH_ROWS / 2;

/// Epochs in which rows are not folded any more when it has not.
pub const FOLD_PAUSE: u32 = 32;

/// How long a worker whose receivers are full waits before it looks again.
pub const EXCHANGE_PAUSE: Duration = Duration::from_micros(200);

/// How often the state of views is measured, between steps and in one that lasts.
pub const STATE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Step time that the size of an epoch is steered to while nobody waits.
pub const EPOCH_TARGET_BULK: Duration = Duration::from_millis(200);

/// Batches that may wait between one source reader and the coordinator. With [`BATCH_ROWS`] it
/// bounds what a source holds in memory ahead of the engine.
pub const SOURCE_QUEUE_BATCHES: usize = 16;

/// Rows of a snapshot that one backfill slice feeds between two epochs.
pub const BACKFILL_SLICE_ROWS: usize = 65_536;

/// Changes that may wait for one subscriber before it is cut off (53400).
pub const SUBSCRIBER_QUEUE_ROWS: usize = 1 << 20;

/// How long a receiver may be away before FLUSH and those who ask tell instead of waiting: about as
/// long as a broker takes to be started again.
pub const SINK_PATIENCE: Duration = Duration::from_secs(5);

/// How long a receiver that answers may acknowledge nothing before it is taken for stuck.
pub const SINK_STALL: Duration = Duration::from_secs(30);

/// Bytes of changes that may wait for one subscriber: rows may be wide.
pub const SUBSCRIBER_QUEUE_BYTES: usize = 256 << 20;

/// Everything together may hold this many hundredths of the machine's memory.
pub const MEMORY_PART: usize = 70;

/// With a limit of its own, what waits for one sink may be this part of it.
pub const SINK_QUEUE_PART: usize = 16;

/// All reads together may hold one part in so many of the memory: the rest is for state, which
/// nothing but DROP gives back.
pub const READ_MEMORY_PART: usize = 4;

/// One read may hold one part in so many of the memory: two large ones fit beside each other.
pub const QUERY_MEMORY_PART: usize = 8;

/// Old row versions may hold one part in so many of the memory.
pub const OLD_VERSIONS_PART: usize = 8;

/// How often it is measured how many bytes they hold.
pub const OLD_VERSIONS_INTERVAL: Duration = Duration::from_millis(100);

/// Temporary files of sorts and groups.
pub const SPILL_BYTES: usize = 16 << 30;

/// The largest value, as PostgreSQL has it: one that would be larger is refused with 54000 before
/// it is made.
pub const VALUE_BYTES_MAX: usize = (1 << 30) - 1;

/// The most bytes of a constant that is computed while a statement is planned, and of what it is
/// computed from: plans are copied often. Larger ones are computed when the statement runs.
pub const FOLDED_BYTES_MAX: usize = 16 << 10;

/// From so many bytes on a function looks whether there is memory for its result.
pub const LARGE_VALUE_BYTES: usize = 32 << 20;

/// Bytes of results that an expression may make of one batch. Where more would come out the batch
/// is cut in halves, down to one row.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// How often a checkpoint is made. What it takes is proportional to what has changed; what a new
/// life reads of the log and of topics again is what came since.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of changes for which a checkpoint is made earlier: sorting more at once costs more cache
/// misses, and they are memory.
pub const CHECKPOINT_BUFFER_BYTES: usize = 64 << 20;

/// At most this part of the machine's memory.
pub const CHECKPOINT_BUFFER_PART: usize = 32;

/// Bytes of a file of the log. It is filled with zeros ahead, which takes as long as 2,000 syncs;
/// one that is not full when the process ends is lost room.
pub const LOG_SEGMENT_BYTES: usize = 16 << 20;

/// Bytes of records that are written and synced together at most; one record may be larger.
pub const LOG_GROUP_BYTES: usize = 4 << 20;

/// Bytes of the writes of one statement or transaction that are one record of the log; one with
/// more has several, so that it is never in memory as a whole in this form.
pub const LOG_PART_BYTES: usize = 8 << 20;

/// Bytes of messages that a sink delivers in one step: one transaction of Kafka, where the sink is
/// behind or a checkpoint has many.
pub const LOAD_BYTES: usize = 32 << 20;

/// Bytes of a file that is given up when the disk is full: as much as a checkpoint needs that lets
/// go what nobody needs.
pub const BALLAST_BYTES: usize = 8 << 20;

/// Bytes of the log that only statements that make room may take.
pub const LOG_HELD_BYTES: usize = 64 << 10;

/// Bytes of messages of all sinks that may wait on the disk, unless the program is told otherwise.
pub const OUTBOX_BYTES: u64 = 4 << 30;

/// Rejected messages kept in the `$errors` of a source unless it says something else; older ones
/// leave it, the counter goes on.
pub const ERROR_ROWS_KEPT: usize = 100_000;

/// Their bytes, unless the source says something else.
pub const ERROR_BYTES_KEPT: usize = 64 << 20;

/// How long a rejected message stays there at most, unless its source says something else.
pub const ERROR_TIME_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// First and longest pause before an external system is tried again.
pub const RETRY_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(10));

/// Rows in a page of a row store: slots are addressed as page and offset.
pub const PAGE_ROWS: usize = 4_096;

/// Windows of one `hop` or `cumulate` that a row may be in: each is a row of its own, so a slide
/// mistaken for a size would fill the memory.
pub const WINDOWS_PER_ROW_MAX: usize = 10_000;

/// How far the clock moves on at most before views that follow it are looked at, in microseconds.
/// A row of a moving filter comes or goes no later than this after its time; nothing is due in most
/// of these epochs, which cost some microseconds then.
pub const CLOCK_TICK_US: i64 = 500_000;

/// Where the clock may be set to, in microseconds since 1970: the years 1 to 9999. What a view adds
/// to `now()` stays a timestamp from there, so no view fails by the clock.
pub const CLOCK_US: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// Random cuts of inputs, for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchCuts {
    /// The seed; the same one cuts in the same places.
    pub seed: u64,
    /// Rows in a piece at most.
    pub rows_max: usize,
}

/// Levels of an expression or of set operations: what the stacks below have room for, several times
/// over, with unoptimised code too.
pub const EXPRESSION_DEPTH_MAX: usize = 1_200;

/// Bytes of a text of statements. Tokens, trees and plans take ten times that and more.
pub const STATEMENT_BYTES_MAX: usize = 64 << 20;

/// Words, numbers, signs and spaces of such a text, each of which takes 150 bytes while it is read.
pub const STATEMENT_TOKENS_MAX: usize = 4 << 20;

/// Open parentheses and brackets, which the parser refuses much earlier: what a text is looked at
/// for before memory is spent on it.
pub const PARENTHESES_MAX: usize = 1_000;

/// Entries of a SELECT list: PostgreSQL's limit.
pub const SELECT_LIST_MAX: usize = 1_664;

/// Columns of a relation: PostgreSQL's limit.
pub const COLUMNS_MAX: usize = 1_600;

/// Steps of the search for one match of a row pattern. Conditions that look at rows of the match so
/// far can leave more ways to try than there is time for; ten million take about a second.
pub const PATTERN_STEPS_MAX: u64 = 10_000_000;

/// Steps more for each row that is there.
pub const PATTERN_STEPS_PER_ROW: u64 = 1_000;

/// As so many steps a condition counts that is computed for one row.
pub const PATTERN_STEPS_OF_CONDITION: u64 = 100;

/// Rows that `gap_fill` puts between two: a step that is too small by far is an error and not a
/// full disk.
pub const GAP_ROWS_MAX: i64 = 10_000_000;

/// Parts of a row pattern when its counts and permutations are written out.
pub const PATTERN_PARTS_MAX: usize = 10_000;

/// Arguments of a function: PostgreSQL's limit.
pub const ARGUMENTS_MAX: usize = 100;

/// Elements of CUBE: PostgreSQL's limit.
pub const CUBE_MAX: usize = 12;

/// Grouping sets of a SELECT: PostgreSQL's limit.
pub const GROUPING_SETS_MAX: usize = 4_096;

/// Relations that a statement names: each join carries the columns of all before it.
pub const RELATIONS_MAX: usize = 1_000;

/// Relations in one FROM clause: what is known of the columns of a join is known anew for each.
pub const JOINED_MAX: usize = 200;

/// Plain views that are made of one another.
pub const VIEW_DEPTH_MAX: usize = 200;

/// Statements with a longer text are run on a thread with a large stack. A thread costs 30 us, the
/// planning of such a text much more.
pub const LONG_STATEMENT_BYTES: usize = 300;

/// Relations and queries in a statement up to which it is planned where it comes in.
pub const PLANNED_AT_ONCE: usize = 4;

/// The stack of that thread. Only what is used takes memory.
pub const STATEMENT_STACK_BYTES: usize = 256 << 20;

/// The stacks of the threads that evaluate expressions: workers and ad-hoc queries.
pub const EVALUATION_STACK_BYTES: usize = 64 << 20;

/// How long is waited for the threads of an engine that nobody has any more: each ends with what it
/// is at.
pub const THREADS_END_WITHIN: Duration = Duration::from_secs(60);

/// What may wait for one sink before the inputs of what it delivers wait for it. One epoch may be
/// larger: what counts is what it is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkLimits {
    /// Rows.
    pub rows: usize,
    /// Bytes of their values.
    pub bytes: usize,
}

impl Default for SinkLimits {
    fn default() -> Self {
        Self { rows: 1 << 20, bytes: 256 << 20 }
    }
}

/// What a program that opens an engine may choose.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory that definitions and tables are kept in; without one everything ends with the
    /// process.
    pub data: Option<std::path::PathBuf>,
    /// How it is used when it is in an object store.
    pub object: ObjectOptions,
    /// Settings that a session has where neither its role nor itself sets them, by name.
    pub settings: Vec<(String, String)>,
    /// Clients at the same time.
    pub connections_max: usize,
    /// Whether whoever runs the engine starts another one when it ends with 57P01 by itself, having
    /// gone back to an older state.
    pub begins_again: bool,
    /// How often a checkpoint of the state is made there, when anything has changed.
    pub checkpoint_interval: Duration,
    /// Bytes of changes for which one is made earlier; when there are four times as many that are
    /// not on the disk yet, rows wait.
    pub checkpoint_buffer_bytes: usize,
    /// Worker threads of the incremental half; each owns a range of the key groups.
    pub workers: usize,
    /// Checks of every operator contract (schema, weights, epochs, residency). On in debug builds.
    pub check_contracts: bool,
    /// After each epoch every key leaves memory that can: a test of what brings them back. Only
    /// where contracts are checked.
    pub evicts_always: bool,
    /// Threads that ad-hoc queries run on.
    pub query_threads: usize,
    /// Cuts every input into small pieces at random: a test of independence from batches.
    pub cuts: Option<BatchCuts>,
    /// Rows of a worker's stored rows that a new view is fed between two epochs.
    pub slice_rows: usize,
    /// What may wait for one sink in memory.
    pub sink_limits: SinkLimits,
    /// Bytes of messages of all sinks that may wait in the data directory.
    pub outbox_bytes: u64,
    /// How long taking in one change may take. What holds it up for longer is quarantined; nobody
    /// else waits for it.
    pub step_timeout: Duration,
    /// Bytes that everything together may hold: tables, views, queues and reads; by default
    /// [`MEMORY_PART`] of the machine. Near it sources wait, and rows that are added are refused.
    pub memory_limit_bytes: usize,
    /// Bytes that one view may hold, its operators' state and its rows; measured while a step of it
    /// lasts.
    pub state_limit_bytes: usize,
    /// Bytes of changes that an input of a view may hold back while that is being built; beyond it
    /// rows wait in front of the engine.
    pub held_back_bytes: usize,
    /// Bytes that all reads together may hold; by default [`READ_MEMORY_PART`] of the machine.
    pub read_memory_bytes: usize,
    /// Bytes that one read may hold, unless its session says something else.
    pub query_memory_bytes: usize,
    /// Bytes of temporary files that sorts and groups may fill.
    pub spill_bytes: usize,
    /// Bytes of changes that may wait for one subscriber before it is cut off (53400).
    pub subscriber_queue_bytes: usize,
    /// Bytes of old row versions that readers may hold back before the oldest of them is cut off
    /// (72000).
    pub old_versions_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = machine_memory_bytes();
        Self {
            data: None,
            object: ObjectOptions::default(),
            settings: Vec::new(),
            connections_max: CONNECTIONS_MAX,
            begins_again: false,
            checkpoint_interval: CHECKPOINT_INTERVAL,
            checkpoint_buffer_bytes: CHECKPOINT_BUFFER_BYTES.min(memory / CHECKPOINT_BUFFER_PART),
            workers: cores,
            check_contracts: cfg!(debug_assertions),
            evicts_always: false,
            query_threads: cores,
            cuts: None,
            slice_rows: BACKFILL_SLICE_ROWS,
            sink_limits: SinkLimits::default(),
            outbox_bytes: OUTBOX_BYTES,
            step_timeout: Duration::from_secs(300),
            memory_limit_bytes: memory / 100 * MEMORY_PART,
            state_limit_bytes: memory / 2,
            held_back_bytes: SinkLimits::default().bytes,
            read_memory_bytes: memory / READ_MEMORY_PART,
            query_memory_bytes: memory / QUERY_MEMORY_PART,
            spill_bytes: SPILL_BYTES,
            subscriber_queue_bytes: SUBSCRIBER_QUEUE_BYTES,
            old_versions_bytes: memory / OLD_VERSIONS_PART,
        }
    }
}

impl Config {
    /// The default configuration with a chosen number of workers (at least one).
    pub fn with_workers(workers: usize) -> Self {
        Self { workers: workers.max(1), ..Self::default() }
    }

    /// Sets the limit of everything, and those of its parts in proportion. A view has no other one
    /// then: where keys leave memory it may hold more for the length of a step.
    pub fn limit_memory(&mut self, bytes: usize) {
        self.memory_limit_bytes = bytes;
        self.state_limit_bytes = usize::MAX;
        self.read_memory_bytes = bytes / READ_MEMORY_PART;
        self.query_memory_bytes = bytes / QUERY_MEMORY_PART;
        self.old_versions_bytes = bytes / OLD_VERSIONS_PART;
        let buffer = self.checkpoint_buffer_bytes;
        self.checkpoint_buffer_bytes = buffer.min(bytes / CHECKPOINT_BUFFER_PART);
        self.sink_limits.bytes = self.sink_limits.bytes.min(bytes / SINK_QUEUE_PART);
        self.held_back_bytes = self.sink_limits.bytes;
    }
}
