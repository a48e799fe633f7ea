//! Operators: the incremental kernels that a view's plan is made of.
//!
//! An operator is synchronous, single-threaded and deterministic: no clock, no randomness, no
//! locks, no IO, no hash-map order in its output. It knows no tokio, no Kafka, no SQL, no
//! checkpoint file: the run loop in `runtime/` owns alignment, watermarks, snapshots and shutdown.
//!
//! A plan holds an [`OperatorSpec`] (constants); each worker builds an [`Operator`] from it, after
//! the tables that the spec declares were made in the worker's [`StateStore`]. Adding an operator
//! is one file here and one arm in `plan/lower.rs`.

mod aggregate;
mod constant;
mod contract;
mod distinct;
mod errors;
mod every;
mod expand;
mod fold;
mod join;
mod late;
mod late_windows;
mod map;
mod materialize;
mod moving_filter;
mod on_close;
mod pattern;
mod recursion;
mod retain;
mod session;
mod session_aggregate;
mod set_op;
mod stamp;
#[cfg(test)]
mod testing;
mod top_n;
mod union;
mod unnest;
mod window;

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

pub use aggregate::{AggregateCall, AggregateSpec, OrderKey};
pub use constant::ConstantSpec;
pub use contract::Checked;
pub use distinct::DistinctSpec;
pub use errors::{ERROR_COLUMNS, REASON_COLUMN, error_rows, error_schema};
pub use every::EverySpec;
pub use expand::{ExpandSpec, GroupingSet};
pub use fold::{Folded, Folder};
pub use join::{
    AsOfJoinSpec, Closes, JoinCondition, JoinInput, JoinKind, JoinSpec, NullKeys, Side, StoredSide,
    TemporalJoinSpec, Within,
};
pub use late::{LATE_COLUMNS, LATE_ROW_COLUMN, LateSpec, late_schema};
pub use late_windows::LateWindowsSpec;
pub use map::{Explode, MapSpec, MapStep};
pub use materialize::{Conflict, MaterializeSpec};
pub use moving_filter::{MovingFilterSpec, TimeOrder};
pub use on_close::OnCloseSpec;
pub use pattern::PatternSpec;
pub use recursion::{FeedbackSpec, RecursionSpec};
pub use retain::{Limit as RetainLimit, RetainSpec};
pub use session::SessionSpec;
pub use session_aggregate::{SessionAggregateSpec, SessionColumn};
pub use set_op::{SetOpSpec, SetRule};
pub use stamp::StampSpec;
pub use top_n::{Number, TopNSpec, with_number};
pub use union::UnionSpec;
pub use unnest::{Unnest, Unnested};
pub use window::{Running, Totals, WindowSpec};

use crate::delta::{DeltaBatch, hash_key, worker_of};
use crate::error::{Error, Result};
use crate::state::{Bound, KeyRequest, ResultTable, StateStore, TableId, TableSpec};
use crate::time::{Epoch, Watermark};

/// Where an operator puts what it makes. Three ports: rows, errors as data, and rows that came too
/// late.
#[derive(Debug, Default)]
pub struct Output {
    /// Rows for the operators behind.
    pub rows: Vec<DeltaBatch>,
    /// Rows of the view's `$errors` relation, in [`error_schema`].
    pub errors: Vec<DeltaBatch>,
    /// Rows of the view's `$late` relation, in [`late_schema`].
    pub late: Vec<DeltaBatch>,
    /// Rows for the beginning of the step of a recursion.
    pub feedback: Vec<DeltaBatch>,
    /// Watermarks of output columns.
    pub watermarks: Vec<(usize, Watermark)>,
}

impl Output {
    /// Emits rows; a batch without rows is left out.
    pub fn emit(&mut self, delta: DeltaBatch) {
        if !delta.is_empty() {
            self.rows.push(delta);
        }
    }
}

/// What the run loop lends to a verb.
pub struct Context<'a> {
    /// The worker's tables.
    pub state: &'a mut StateStore,
    /// The epoch that runs.
    pub epoch: Epoch,
    /// The clock of the epoch, in microseconds: the same for all operators, and never earlier than
    /// that of the epoch before.
    pub now_us: i64,
    /// What an input has brought before this step is what its relation holds at this epoch: the
    /// one before, or, while a view is built, the one as of which it is built.
    pub before: Epoch,
    /// A view is being built: what comes in are parts of what its inputs hold at `before`, not
    /// changes behind it.
    pub building: bool,
}

/// The tables of relations whose rows come into an operator's ports.
pub type Stored<'a> = &'a dyn Fn(usize) -> Option<Arc<ResultTable>>;

/// An input whose rows an operator reads where they are stored, and does not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRead {
    /// The port.
    pub port: usize,
    /// The columns of the relation by which it finds them.
    pub key: Vec<usize>,
    /// They are the relation's own key.
    pub own_key: bool,
    /// It finds them on any worker, not on its own alone.
    pub wide: bool,
}

/// The worker that an operator is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Its number.
    pub worker: usize,
    /// How many there are.
    pub workers: usize,
}

impl Placement {
    /// Whether this worker owns the empty key, where everything global lives.
    pub fn owns_empty_key(self) -> bool {
        worker_of(hash_key(&[]), self.workers) == self.worker
    }
}

/// Whether a verb has more output waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Everything was handed out.
    Done,
    /// `resume` has to be called.
    More,
}

/// The kernel of one operator on one worker.
///
/// Lifecycle: within an epoch any number of `process` (each followed by `resume` until `Done`) and
/// `on_watermark`, then one `flush`. Between epochs all state is in declared tables. Operators of
/// the step of a recursion have several such rounds in an epoch.
///
/// Contract, checked by [`Checked`] in debug builds and tests:
/// 1. every table key that a verb touches was named by `keys` for the same input;
/// 2. output has the spec's schema, no zero weights, and only +1 when the spec is append-only;
/// 3. output so far equals the operator's query over the input so far, after every `flush`;
/// 4. watermarks never go back.
pub trait Operator: Send {
    /// Names the keys that `process` of this input, and the `flush` after it, will touch.
    fn keys(&self, port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()>;

    /// Takes a delta on an input port.
    fn process(
        &mut self,
        cx: &mut Context<'_>,
        port: usize,
        delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress>;

    /// Takes what a [`Folder`] of the port has made of rows on some worker.
    fn process_folded(
        &mut self,
        _cx: &mut Context<'_>,
        _port: usize,
        _folded: Folded,
    ) -> Result<()> {
        Err(Error::internal("this operator has no folder"))
    }

    /// Hands out the next piece of an output too large for one batch, or goes on with a flush.
    fn resume(&mut self, _cx: &mut Context<'_>, _out: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }

    /// The least round that something waits for, of a recursion alone.
    fn next_round(&self) -> Option<i64> {
        None
    }

    /// Takes what waits for a round that is the least on all workers: all that comes in it has
    /// come. It goes through the step, whose operators are flushed, before the next one is taken.
    fn round(&mut self, _cx: &mut Context<'_>, _round: i64, _out: &mut Output) -> Result<Progress> {
        Err(Error::internal("this operator is no recursion"))
    }

    /// Takes a watermark of an input column.
    fn on_watermark(&mut self, port: usize, column: usize, w: Watermark, out: &mut Output);

    /// Ends the epoch: emits what is still owed and seals the state. What takes long is done in
    /// pieces: the others are for [`Operator::resume`].
    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress>;
}

/// The plan constants of an operator.
pub trait OperatorSpec: Any + Send + Sync + Debug {
    /// The operator's name in EXPLAIN.
    fn name(&self) -> &'static str;
    /// Its constants in EXPLAIN, one line; may be empty.
    fn describe(&self) -> String;
    /// What EXPLAIN says beside them, in lines of their own.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
    /// The constants that tell its state from that of others: those of EXPLAIN, unless they say
    /// too little or too much.
    fn constants(&self) -> String {
        self.describe()
    }
    /// What it is, apart from where it stands: kind, constants, schemas, tables. State is known by
    /// it, so another text is other state.
    fn identity(&self) -> String {
        let types: Vec<String> =
            self.schema().fields().iter().map(|f| f.data_type().to_string()).collect();
        let tables: Vec<String> = self.tables().iter().map(TableSpec::form).collect();
        let [types, tables] = [types.join(", "), tables.join("; ")];
        format!("{}: {} -> {types}: {tables}", self.name(), self.constants())
    }
    /// The rows it emits.
    fn schema(&self) -> SchemaRef;
    /// Whether it never emits a negative weight.
    fn append_only(&self) -> bool;
    /// Whether it can emit error rows.
    fn can_fail(&self) -> bool {
        false
    }
    /// Whether it can put rows aside as late.
    fn finds_late(&self) -> bool {
        false
    }
    /// The columns that tell the rows of an epoch's output apart, when no two of them are equal in
    /// all of these and a change of one key is in one batch: that output is consolidated. `inputs`
    /// are those of the input ports.
    fn net_columns(&self, _inputs: &[Option<Vec<usize>>]) -> Option<Vec<usize>> {
        None
    }
    /// Whether its output can change when nothing but the clock does.
    fn follows_clock(&self) -> bool {
        false
    }
    /// The beginning of its step, of a recursion alone: what it feeds back goes there.
    fn begins_at(&self) -> Option<Arc<dyn OperatorSpec>> {
        None
    }
    /// The tables that it needs, in the order of the handles given to `build`.
    fn tables(&self) -> Vec<TableSpec>;
    /// The columns of input ports whose watermarks, the least of them, close the windows that a
    /// table keeps.
    fn closed_by(&self, table: &TableSpec) -> Vec<(usize, usize)> {
        match table.bound {
            Bound::Closes(column) => vec![(0, column)],
            _ => Vec::new(),
        }
    }
    /// Whether what it keeps goes by the earlier bound of the watermark (ALLOWED LATENESS).
    fn closes_early(&self) -> bool {
        false
    }
    /// What folds rows of an input port by key, where several rows of a key are less when they are
    /// folded: it works ahead of the exchange, on the worker that has the rows. `check`: it folds
    /// some whether or not that is worth its while.
    fn folder(&self, _port: usize, _check: bool) -> Result<Option<Box<dyn Folder>>> {
        Ok(None)
    }
    /// The inputs whose rows it reads where they are stored: relations, through filters and
    /// projections at most.
    fn stored_reads(&self) -> Vec<StoredRead> {
        Vec::new()
    }
    /// The same operator over the tables where those are stored, which has to be known before it is
    /// built.
    fn bind(&self, _table: Stored<'_>) -> Result<Option<Arc<dyn OperatorSpec>>> {
        Ok(None)
    }
    /// The kernel for one worker.
    fn build(&self, tables: &[TableId], place: Placement) -> Result<Box<dyn Operator>>;
}
