//! Row patterns (MATCH_RECOGNIZE): what a pattern is, what its conditions and measures ask of a
//! match, and these compiled.
//!
//! Conditions and measures are expressions over *slots*: the value of a column at a place of the
//! match (`PREV(LAST(A.price), 2)`), the name of the variable of such a row, an aggregate over the
//! rows of a variable. So the whole of SQL around them is the expression engine's. Two matchers
//! find the matches: the [reference] of the batch half, plain backtracking over the pattern as it
//! was written, and the operator's.

mod aggregates;
mod reference;

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;

pub use aggregates::{MatchAggregate, Running};
pub use reference::{match_field, match_rows};

use super::eval::Predicate;
use crate::error::{Error, Result, sqlstate};

/// Variables of a pattern as bits.
pub type Variables = u64;

/// Variables that a pattern can have.
pub const VARIABLES_MAX: usize = 64;

/// A pattern of rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// `()`: no row.
    Empty,
    /// A row that fits a variable.
    Variable(u32),
    /// One after the other.
    Concat(Vec<Pattern>),
    /// The first of these that leads to a match.
    Choice(Vec<Pattern>),
    /// A pattern several times.
    Repeat {
        /// What is repeated.
        inner: Box<Pattern>,
        /// So often at least.
        min: u32,
        /// So often at most.
        max: Option<u32>,
        /// Rather more often than less.
        greedy: bool,
    },
    /// `{- -}`: rows that ALL ROWS PER MATCH leaves out.
    Exclude(Box<Pattern>),
    /// `^`: ahead of the first row of the partition.
    Begin,
    /// `$`: behind its last row.
    End,
}

/// A row as a match sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Among the rows of these variables,
    pub of: Variables,
    /// counted from the last one, or from the first one,
    pub last: bool,
    /// the one so many further on;
    pub offset: u32,
    /// and from there so many rows of the partition further behind, or ahead.
    pub shift: i64,
    /// Among all rows of the match (FINAL), not those up to the current row.
    pub whole: bool,
}

/// What a condition or measure asks of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// A column of a row.
    Column(Place, usize),
    /// Whether there is such a row.
    There(Place),
    /// The name of the variable of a row of the match.
    Classifier(Place),
    /// The number of the match in its partition.
    Number,
    /// The value of an aggregate, over the rows up to the current one or all of the match.
    Aggregate {
        /// Its number.
        call: usize,
        /// FINAL.
        whole: bool,
    },
    /// Whether the row belongs to a match.
    Matched,
    /// When the match is decided: the time of its first row, and WITHIN.
    Deadline,
}

/// Which matches have rows that ALL ROWS PER MATCH shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shown {
    /// Matches, empty ones too.
    All,
    /// Matches that are not empty.
    NotEmpty,
    /// Matches, and rows of none.
    Unmatched,
}

/// The rows that a match makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowsPerMatch {
    /// One for each match.
    One,
    /// One for each of its rows.
    All(Shown),
}

/// Where the search goes on behind a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Skip {
    /// Behind its last row.
    PastLast,
    /// Behind its first row.
    ToNext,
    /// At its first row of these variables.
    ToFirst(Variables),
    /// At its last row of these variables.
    ToLast(Variables),
}

/// The bound of a match in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Within {
    /// The column of the time, the first of ORDER BY.
    pub column: usize,
    /// Rows of a match are less than this behind its first row.
    pub us: i64,
}

/// All of a MATCH_RECOGNIZE clause that is no expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The pattern.
    pub pattern: Pattern,
    /// The names of its variables.
    pub variables: Vec<String>,
    /// The rows that come out.
    pub rows: RowsPerMatch,
    /// Where the search goes on.
    pub skip: Skip,
    /// The bound in time.
    pub within: Option<Within>,
    /// What comes out are the matches that were begun and not completed within the bound.
    pub timeouts: bool,
    /// For each variable the slots of its condition.
    pub conditions: Vec<Vec<Slot>>,
    /// The slots of the measures.
    pub measures: Vec<Slot>,
    /// For each aggregate the variables whose rows it is over.
    pub aggregates: Vec<Variables>,
    /// The columns of the input ahead of the measures, in the output.
    pub kept: Vec<usize>,
    /// The pattern as it was written, for EXPLAIN.
    pub text: String,
}

impl Rule {
    /// The type of a slot over rows of the input.
    pub fn slot_type(&self, slot: Slot, input: &Schema, aggregates: &[DataType]) -> DataType {
        match slot {
            Slot::Column(_, column) => input.field(column).data_type().clone(),
            Slot::There(_) | Slot::Matched => DataType::Boolean,
            Slot::Classifier(_) => DataType::Utf8,
            Slot::Number => DataType::Int64,
            Slot::Aggregate { call, .. } => aggregates[call].clone(),
            Slot::Deadline => match self.within {
                Some(within) => input.field(within.column).data_type().clone(),
                None => DataType::Null,
            },
        }
    }
}

/// The name of the column of a slot.
pub fn slot_name(slot: usize) -> String {
    format!("#{slot}")
}

/// A condition of DEFINE over its slots.
#[derive(Debug, Clone)]
pub struct Condition {
    /// What it asks, one column each.
    pub slots: Vec<Slot>,
    schema: SchemaRef,
    predicate: Predicate,
}

impl Condition {
    /// Compiles a condition over slots of the given types.
    pub fn new(expr: &Expr, slots: &[Slot], types: Vec<DataType>) -> Result<Self> {
        let fields = types.into_iter().enumerate();
        let fields: Vec<Field> = fields.map(|(i, t)| Field::new(slot_name(i), t, true)).collect();
        let schema = Schema::new(fields);
        let columns = DFSchema::try_from(schema.clone());
        let columns = columns.map_err(|e| Error::internal(e.to_string()))?;
        let predicate = Predicate::new(expr, &columns)?;
        Ok(Self { slots: slots.to_vec(), schema: Arc::new(schema), predicate })
    }

    /// Whether it holds for one row.
    pub fn holds(&self, values: Vec<ArrayRef>) -> Result<bool> {
        let mut failed = Vec::new();
        let mask = self.mask(values, 1, &mut failed)?;
        match failed.pop() {
            None => Ok(mask.value(0)),
            Some((_, error)) => Err(error),
        }
    }

    /// The rows for which it holds; those for which it fails, with the reason.
    pub fn mask(
        &self,
        values: Vec<ArrayRef>,
        rows: usize,
        failed: &mut Vec<(usize, Error)>,
    ) -> Result<BooleanArray> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), values, &options)?;
        let mut errors = Vec::new();
        let mask = self.predicate.mask(&rows, &mut errors)?;
        let error = |e: super::RowError| (e.row, Error::user(e.sqlstate, e.reason));
        failed.extend(errors.into_iter().map(error));
        Ok(mask)
    }
}

/// A rule with everything compiled.
#[derive(Debug, Clone)]
pub struct Recognizer {
    /// The rule.
    pub rule: Arc<Rule>,
    /// The rows that it reads.
    pub input: SchemaRef,
    /// For each variable its condition; without one every row fits.
    pub conditions: Vec<Option<Condition>>,
    /// The aggregates.
    pub aggregates: Vec<MatchAggregate>,
    /// The rows that it makes.
    pub output: SchemaRef,
}

/// The search for one match takes too many steps.
pub fn too_complex() -> Error {
    Error::user(sqlstate::STATEMENT_TOO_COMPLEX, "the row pattern takes too many steps to match")
        .with_detail("Conditions on rows of other variables leave too many ways to try.")
        .with_hint("Make the conditions of repeated variables exclude one another, or use WITHIN.")
}

/// AFTER MATCH SKIP TO a variable without rows.
pub fn skip_to_nothing(rule: &Rule, of: Variables) -> Error {
    let name = of.trailing_zeros() as usize;
    let name = rule.variables.get(name).map_or("?", String::as_str);
    Error::user(
        sqlstate::SKIP_TO_NONEXISTENT_ROW,
        format!("AFTER MATCH SKIP TO \"{name}\": the match has no row of it"),
    )
}

/// AFTER MATCH SKIP TO the row at which the match begins.
pub fn skip_to_first() -> Error {
    Error::user(sqlstate::SKIP_TO_FIRST_ROW, "AFTER MATCH SKIP goes to the first row of the match")
        .with_detail("The same match would be found again, without end.")
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A time column's values in microseconds.
pub fn times_us(column: &ArrayRef) -> Result<Vec<Option<i64>>> {
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampMicrosecondType;
    let column = column
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::internal("WITHIN is of timestamps in microseconds"))?;
    Ok((0..column.len()).map(|i| column.is_valid(i).then(|| column.value(i))).collect())
}
