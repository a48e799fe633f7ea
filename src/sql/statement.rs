//! The statements that the engine executes, as the parser hands them on: our own syntax tree around
//! sqlparser's. Names are folded already; expressions and queries are sqlparser's own.

mod access;
mod alter_table;
mod dml;
mod sequence;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use sqlparser::ast;

use crate::catalog::{ConflictRule, Identity, TextLimit};
use crate::checkpoint::SinksGo;
use crate::connector::{Edge, Included};
use crate::format::{CopyForm, FormatSpec};

pub use access::{AccessStatement, Grant, GrantObject, RoleName, RoleOptions};
pub use alter_table::{AlterTable, TableAction};
pub use dml::{Delete, Insert, Merge, Overriding, Update};
pub use sequence::{AlterSequence, CreateSequence, NewSequence, SequenceStatement};

/// One parsed statement with the text that it came from.
#[derive(Debug, Clone)]
pub struct ParsedStatement {
    /// What to do.
    pub statement: Statement,
    /// Its text, without the semicolon.
    pub text: String,
    /// Where `text` begins in the whole input, in characters from 0, for error positions.
    pub offset: usize,
}

/// A statement.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "statements are made one by one and seldom moved")]
pub enum Statement {
    /// CREATE TABLE | SOURCE.
    CreateTable(CreateTable),
    /// CREATE TABLE .. AS.
    CreateTableAs(CreateTableAs),
    /// CREATE VIEW | MATERIALIZED VIEW.
    CreateView(CreateView),
    /// CREATE SINK.
    CreateSink(CreateSink),
    /// CREATE INDEX.
    CreateIndex(CreateIndex),
    /// CREATE SEQUENCE, ALTER SEQUENCE.
    Sequence(SequenceStatement),
    /// DROP TABLE | SOURCE | VIEW | MATERIALIZED VIEW | SINK.
    Drop(Drop),
    /// INSERT INTO.
    Insert(Box<Insert>),
    /// UPDATE.
    Update(Box<Update>),
    /// DELETE FROM.
    Delete(Box<Delete>),
    /// MERGE INTO.
    Merge(Box<Merge>),
    /// TRUNCATE.
    Truncate {
        /// The folded names.
        names: Vec<String>,
        /// RESTART IDENTITY.
        restart: bool,
    },
    /// BEGIN, START TRANSACTION.
    Begin(TransactionModes),
    /// COMMIT, END.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SET TRANSACTION: the modes of the transaction that runs.
    SetTransaction(TransactionModes),
    /// SET SESSION CHARACTERISTICS AS TRANSACTION: the modes of transactions to come.
    SetCharacteristics(TransactionModes),
    /// COPY.
    Copy(Copy),
    /// ALTER TABLE of columns and constraints.
    AlterTable(Box<AlterTable>),
    /// ALTER .. RENAME TO.
    Rename(Rename),
    /// ALTER SINK .. SKIP | RESUME.
    AlterSink(AlterSink),
    /// ALTER SOURCE | TABLE .. RESUME.
    AlterSource(AlterSource),
    /// ALTER TABLE .. FORMAT ..
    AlterFormat(AlterFormat),
    /// RETRY ERRORS ON: the folded name.
    RetryErrors(String),
    /// ALTER MATERIALIZED VIEW .. RESUME.
    ResumeView(ResumeView),
    /// CHECK MATERIALIZED VIEW: the folded names; all views when there are none.
    Check(Vec<String>),
    /// CHECK STORAGE.
    CheckStorage,
    /// CHECKPOINT.
    Checkpoint,
    /// CREATE SAVEPOINT, DROP SAVEPOINT, RESTORE FROM.
    SavedState(SavedState),
    /// PREPARE.
    Prepare(Prepare),
    /// EXECUTE.
    Execute(Execute),
    /// DEALLOCATE; `None` for ALL.
    Deallocate(Option<String>),
    /// DECLARE .. CURSOR.
    Declare(Declare),
    /// FETCH and MOVE.
    Fetch(Fetch),
    /// CLOSE; `None` for ALL.
    Close(Option<String>),
    /// SAVEPOINT, RELEASE and ROLLBACK TO of a transaction block.
    Savepoint(Savepoint),
    /// SELECT, VALUES, TABLE, WITH .. SELECT.
    Query(Box<ast::Query>),
    /// SUBSCRIBE TO v [WITH (snapshot, progress)].
    Subscribe(Subscribe),
    /// SHOW of the catalog or of a setting.
    Show(Show),
    /// DESCRIBE r.
    Describe(String),
    /// EXPLAIN of a query, of CREATE MATERIALIZED VIEW .. AS, or of an existing view.
    Explain(Box<Explain>),
    /// SET name = value.
    Set {
        /// The folded name.
        name: String,
        /// The values as texts; `None` for DEFAULT.
        values: Option<Vec<String>>,
        /// SET or SET LOCAL.
        scope: SettingScope,
    },
    /// RESET name.
    Reset(String),
    /// SET CLOCK, ADVANCE CLOCK.
    Clock(Box<ClockStatement>),
    /// RESET ALL.
    ResetAll,
    /// DISCARD ALL: settings and prepared statements.
    DiscardAll,
    /// FLUSH: waits until bounded sources have been read and sinks have delivered.
    Flush,
    /// Roles and what they may do.
    Access(Box<AccessStatement>),
    /// COMMENT ON a relation or a column.
    Comment(Comment),
    /// DISCARD, ANALYZE and other statements without effect here: the tag.
    NoOp(&'static str),
}

/// How long a setting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingScope {
    /// The session.
    Session,
    /// The transaction.
    Local,
}

/// The modes that BEGIN or SET TRANSACTION asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransactionModes {
    /// ISOLATION LEVEL.
    pub isolation: Option<Isolation>,
    /// READ ONLY or READ WRITE.
    pub read_only: Option<bool>,
    /// DEFERRABLE or NOT DEFERRABLE.
    pub deferrable: Option<bool>,
}

/// The isolation that a transaction asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// READ UNCOMMITTED.
    ReadUncommitted,
    /// READ COMMITTED.
    ReadCommitted,
    /// REPEATABLE READ.
    RepeatableRead,
    /// SERIALIZABLE.
    Serializable,
}

impl Isolation {
    const ALL: [Self; 4] =
        [Self::ReadUncommitted, Self::ReadCommitted, Self::RepeatableRead, Self::Serializable];

    /// As settings spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "read uncommitted",
            Self::ReadCommitted => "read committed",
            Self::RepeatableRead => "repeatable read",
            Self::Serializable => "serializable",
        }
    }

    /// The one of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.name() == name)
    }
}

/// COMMENT ON.
#[derive(Debug, Clone)]
pub struct Comment {
    /// The kind that was written, as in [`Drop`]; "column" is of any.
    pub noun: &'static str,
    /// The folded name of the relation.
    pub name: String,
    /// The column.
    pub column: Option<String>,
    /// The text; without one there is none any more.
    pub text: Option<String>,
}

/// ALTER .. RENAME TO.
#[derive(Debug, Clone)]
pub struct Rename {
    /// The kind that was written, as in [`Drop`].
    pub noun: &'static str,
    /// The folded name.
    pub name: String,
    /// The new one.
    pub to: String,
    /// IF EXISTS.
    pub if_exists: bool,
}

/// ALTER SINK .. SKIP | RESUME [AT CHECKPOINT n] | REPUBLISH.
#[derive(Debug, Clone)]
pub struct AlterSink {
    /// The folded name.
    pub name: String,
    /// IF EXISTS.
    pub if_exists: bool,
    /// What it shall do.
    pub action: SinkAction,
}

/// States of the engine that are kept by a name.
#[derive(Debug, Clone)]
pub enum SavedState {
    /// CREATE SAVEPOINT.
    Create {
        /// The folded name.
        name: String,
        /// IF NOT EXISTS.
        if_not_exists: bool,
    },
    /// DROP SAVEPOINT.
    Drop {
        /// The folded name.
        name: String,
        /// IF EXISTS.
        if_exists: bool,
    },
    /// RESTORE FROM.
    Restore(Restore),
}

impl SavedState {
    /// What the statement is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "CREATE SAVEPOINT",
            Self::Drop { .. } => "DROP SAVEPOINT",
            Self::Restore(_) => "RESTORE",
        }
    }
}

/// RESTORE FROM name | CHECKPOINT n [SINKS CONTINUE | REPUBLISH].
#[derive(Debug, Clone)]
pub struct Restore {
    /// What it goes back to.
    pub from: RestoreFrom,
    /// What becomes of sinks that have gone on.
    pub sinks: Option<SinksGo>,
}

/// What RESTORE goes back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreFrom {
    /// The folded name of a savepoint.
    Savepoint(String),
    /// The number of a checkpoint that is kept.
    Checkpoint(u64),
}

/// What a sink that has failed shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkAction {
    /// Leave out what it has failed at, and go on.
    Skip,
    /// Try again.
    Resume,
    /// Go on behind the messages of a checkpoint, whatever the receiver says.
    ResumeAt(u64),
    /// Begin anew with all rows.
    Republish,
}

/// ALTER SOURCE | TABLE name RESUME [AT EARLIEST | LATEST].
#[derive(Debug, Clone)]
pub struct AlterSource {
    /// The folded name.
    pub name: String,
    /// SOURCE or TABLE, as it was written.
    pub noun: &'static str,
    /// IF EXISTS.
    pub if_exists: bool,
    /// Where to go on, where it is said.
    pub at: Option<Edge>,
}

/// ALTER TABLE name FORMAT x ENCODE y (..).
#[derive(Debug, Clone)]
pub struct AlterFormat {
    /// The folded name.
    pub name: String,
    /// IF EXISTS.
    pub if_exists: bool,
    /// The clause.
    pub format: FormatSpec,
    /// Its text.
    pub text: String,
}

/// ALTER MATERIALIZED VIEW name RESUME.
#[derive(Debug, Clone)]
pub struct ResumeView {
    /// The folded name.
    pub name: String,
    /// IF EXISTS.
    pub if_exists: bool,
}

/// PREPARE name AS.
#[derive(Debug, Clone)]
pub struct Prepare {
    /// The folded name.
    pub name: String,
    /// Declared types of parameters.
    pub types: Vec<DataType>,
    /// The statement.
    pub statement: Arc<ParsedStatement>,
}

/// EXECUTE name.
#[derive(Debug, Clone)]
pub struct Execute {
    /// The folded name.
    pub name: String,
    /// The values of parameters.
    pub arguments: Vec<ast::Expr>,
}

/// DECLARE .. CURSOR FOR.
#[derive(Debug, Clone)]
pub struct Declare {
    /// The folded name.
    pub name: String,
    /// SCROLL or NO SCROLL.
    pub scroll: Option<bool>,
    /// WITH HOLD.
    pub hold: bool,
    /// A query or SUBSCRIBE.
    pub statement: Box<Statement>,
}

/// FETCH and MOVE.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// The folded name of the cursor.
    pub name: String,
    /// Which rows.
    pub direction: Direction,
    /// MOVE: the rows are not wanted.
    pub moves: bool,
    /// How long to wait for changes of SUBSCRIBE, as text.
    pub timeout: Option<String>,
}

/// Which rows a FETCH is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The next ones.
    Forward(Count),
    /// The ones before, in reverse.
    Backward(Count),
    /// The row with a number, from 1 or from the end.
    Absolute(i64),
    /// The row at a distance.
    Relative(i64),
}

impl Direction {
    /// The other way.
    pub fn turned(self) -> Self {
        match self {
            Self::Forward(count) => Self::Backward(count),
            Self::Backward(count) => Self::Forward(count),
            other => other,
        }
    }
}

/// How many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many.
    Rows(u64),
    /// ALL.
    All,
}

/// COPY .. FROM STDIN | TO STDOUT.
#[derive(Debug, Clone)]
pub struct Copy {
    /// What is copied.
    pub subject: CopySubject,
    /// FROM STDIN.
    pub from: bool,
    /// How rows are written.
    pub form: CopyForm,
}

/// What COPY copies.
#[derive(Debug, Clone)]
pub enum CopySubject {
    /// A relation.
    Table {
        /// Its folded name.
        name: String,
        /// Folded names of columns; all when there are none.
        columns: Vec<String>,
    },
    /// A query, or SUBSCRIBE.
    Query {
        /// Its text.
        text: String,
        /// Where it begins, in characters from 0.
        offset: usize,
    },
}

/// What to do with a savepoint, by its folded name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Savepoint {
    /// SAVEPOINT name.
    Set(String),
    /// RELEASE [SAVEPOINT] name.
    Release(String),
    /// ROLLBACK TO [SAVEPOINT] name.
    RollbackTo(String),
}

/// CREATE TABLE | SOURCE.
#[derive(Debug, Clone)]
pub struct CreateTable {
    /// The folded name.
    pub name: String,
    /// CREATE SOURCE.
    pub source: bool,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// The columns in order.
    pub columns: Vec<ColumnDef>,
    /// Indexes of the primary key columns; empty without one. They are NOT NULL.
    pub primary_key: Vec<usize>,
    /// WATERMARK FOR column AS expr: the column's index and the clause.
    pub watermark: Option<(usize, WatermarkClause)>,
    /// APPEND ONLY.
    pub append_only: bool,
    /// CHECK constraints with their names.
    pub checks: Vec<(String, ast::Expr)>,
    /// ON CONFLICT OVERWRITE | IGNORE.
    pub on_conflict: ConflictRule,
    /// WITH (..), keys lower case; `connector` among them.
    pub options: BTreeMap<String, String>,
    /// Those of them that are secrets, with the folded names of these.
    pub secrets: BTreeMap<String, String>,
    /// FORMAT .. ENCODE ..; `None` when absent.
    pub format: Option<FormatSpec>,
    /// INCLUDE columns, which are the last of `columns`.
    pub include: Vec<Included>,
}

/// WATERMARK FOR column AS expr [IDLE AFTER interval] [MAX FUTURE SKEW interval].
#[derive(Debug, Clone)]
pub struct WatermarkClause {
    /// The watermark.
    pub expr: ast::Expr,
    /// IDLE AFTER.
    pub idle_after: Option<ast::Expr>,
    /// MAX FUTURE SKEW.
    pub max_future_skew: Option<ast::Expr>,
}

/// SET CLOCK, ADVANCE CLOCK and ADVANCE WATERMARK.
#[derive(Debug, Clone)]
pub enum ClockStatement {
    /// SET CLOCK SYSTEM.
    System,
    /// SET CLOCK MANUAL [AT timestamp].
    Manual(Option<ast::Expr>),
    /// ADVANCE CLOCK BY interval.
    By(ast::Expr),
    /// ADVANCE CLOCK TO timestamp.
    To(ast::Expr),
    /// ADVANCE WATERMARK relation TO timestamp.
    Watermark(String, ast::Expr),
}

/// A column of CREATE TABLE.
#[derive(Debug, Clone)]
pub struct ColumnDef {
    /// The folded name.
    pub name: String,
    /// The Arrow type that stands for the declared type.
    pub data_type: DataType,
    /// False for NOT NULL and primary key columns.
    pub nullable: bool,
    /// DEFAULT.
    pub default: Option<ast::Expr>,
    /// `serial` and identity columns: a sequence is made for it.
    pub sequence: Option<Box<NewSequence>>,
    /// GENERATED .. AS IDENTITY.
    pub identity: Option<Identity>,
    /// The length of `varchar(n)` and `char(n)`.
    pub length: Option<TextLimit>,
    /// What it is computed by. Where no type is written, the type is NULL's until that is bound.
    pub computed: Option<ast::Expr>,
    /// The fields of a `ROW<..>`, as a struct; the type of the column is jsonb's.
    pub record: Option<DataType>,
}

/// CREATE TABLE .. AS.
#[derive(Debug, Clone)]
pub struct CreateTableAs {
    /// The folded name.
    pub name: String,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// Column names in parentheses; empty when absent.
    pub columns: Vec<String>,
    /// The query.
    pub query: Box<ast::Query>,
    /// WITH NO DATA leaves the table empty.
    pub with_data: bool,
}

/// CREATE [MATERIALIZED] VIEW.
#[derive(Debug, Clone)]
pub struct CreateView {
    /// The folded name.
    pub name: String,
    /// OR REPLACE.
    pub or_replace: bool,
    /// MATERIALIZED.
    pub materialized: bool,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// Column names in parentheses; empty when absent.
    pub columns: Vec<String>,
    /// WITH (..).
    pub options: BTreeMap<String, String>,
    /// The query.
    pub query: Box<ast::Query>,
    /// EMIT ..
    pub emit: Emit,
}

/// How the rows of a view or sink come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Emit {
    /// When.
    pub when: EmitWhen,
    /// ALLOWED LATENESS: for how many microseconds of event time late rows are still taken.
    pub lateness_us: Option<i64>,
}

/// When the rows of a view or sink come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EmitWhen {
    /// With each change.
    #[default]
    OnChange,
    /// EMIT ON WINDOW CLOSE.
    OnClose,
    /// EMIT EVERY: at multiples of so many microseconds of the clock.
    Every(i64),
}

/// CREATE SINK.
#[derive(Debug, Clone)]
pub struct CreateSink {
    /// The folded name.
    pub name: String,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// FROM relation or AS query.
    pub input: SinkInput,
    /// WITH (..).
    pub options: BTreeMap<String, String>,
    /// Those of them that are secrets, with the folded names of these.
    pub secrets: BTreeMap<String, String>,
    /// FORMAT .. ENCODE ..; `None` when absent.
    pub format: Option<FormatSpec>,
}

/// CREATE INDEX.
#[derive(Debug, Clone)]
pub struct CreateIndex {
    /// The folded name; one is made up when there is none.
    pub name: Option<String>,
    /// The folded name of the relation.
    pub relation: String,
    /// Folded names of columns.
    pub columns: Vec<String>,
    /// UNIQUE.
    pub unique: bool,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
}

/// What a sink delivers.
#[derive(Debug, Clone)]
pub enum SinkInput {
    /// FROM name.
    Relation(String),
    /// AS query, and the EMIT that follows it.
    Query(Box<ast::Query>, Emit),
}

/// DROP.
#[derive(Debug, Clone)]
pub struct Drop {
    /// The kind that was written, as in messages: "table", "source", "view", "materialized view",
    /// "sink", "index".
    pub noun: &'static str,
    /// The folded names.
    pub names: Vec<String>,
    /// IF EXISTS.
    pub if_exists: bool,
    /// CASCADE.
    pub cascade: bool,
}

/// SUBSCRIBE TO.
#[derive(Debug, Clone)]
pub struct Subscribe {
    /// The relation.
    pub name: String,
    /// Begin with the rows that are there (default true).
    pub snapshot: bool,
    /// Add a row for every finished epoch.
    pub progress: bool,
}

/// SHOW.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Show {
    /// SHOW TABLES.
    Tables,
    /// SHOW SOURCES: with state, positions, lag.
    Sources,
    /// SHOW VIEWS.
    Views,
    /// SHOW MATERIALIZED VIEWS.
    MaterializedViews,
    /// SHOW SINKS: with state.
    Sinks,
    /// SHOW CREATE <kind> name.
    Create(String),
    /// SHOW COLUMNS FROM name.
    Columns(String),
    /// SHOW CHECKPOINTS.
    Checkpoints,
    /// SHOW MEMORY: who holds what.
    Memory,
    /// SHOW BACKPRESSURE: who waits for whom.
    Backpressure,
    /// SHOW RECOVERY: how far a start is.
    Recovery,
    /// SHOW SAVEPOINTS.
    Savepoints,
    /// SHOW SECRETS.
    Secrets,
    /// SHOW GUARANTEES [FOR SINK name].
    Guarantees(Option<String>),
    /// SHOW OFFSETS: where sources stand.
    Offsets,
    /// SHOW WATERMARKS.
    Watermarks,
    /// SHOW LATENESS relation.
    Lateness(String),
    /// SUGGEST WATERMARK FOR relation[.column].
    SuggestWatermark(String, Option<String>),
    /// SHOW ALL.
    All,
    /// SHOW setting.
    Setting(String),
}

/// EXPLAIN.
#[derive(Debug, Clone)]
pub struct Explain {
    /// VERBOSE.
    pub verbose: bool,
    /// PASSES: what becomes of the statement on the way to its plan.
    pub passes: bool,
    /// FORMAT JSON.
    pub json: bool,
    /// What is explained.
    pub target: ExplainTarget,
}

/// What EXPLAIN explains.
#[derive(Debug, Clone)]
pub enum ExplainTarget {
    /// A query, and the EMIT that follows it.
    Query(Box<ast::Query>, Emit),
    /// The same of CREATE MATERIALIZED VIEW.
    Create(CreateView),
    /// The plan of an existing materialized view.
    View(String),
    /// EXPLAIN REPLACE: what CREATE OR REPLACE of a view would do.
    Replace(CreateView),
    /// EXPLAIN RESTORE FROM: what going back would do.
    Restore(RestoreFrom),
    /// EXPLAIN WAIT: what the open windows of a materialized view wait for.
    Wait(String),
    /// ANALYZE: what the operators of an existing materialized view have done.
    Analyze(String),
    /// STATE: what it keeps.
    State(String),
}

impl ExplainTarget {
    /// The query that is explained, and the EMIT that follows it.
    pub fn query(&self) -> Option<(&ast::Query, Emit)> {
        match self {
            Self::Query(query, emit) => Some((query, *emit)),
            Self::Create(view) => Some((&view.query, view.emit)),
            _ => None,
        }
    }
}
