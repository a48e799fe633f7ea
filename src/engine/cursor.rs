//! Cursors: DECLARE, FETCH, MOVE and CLOSE.
//!
//! A cursor reads its query as it is fetched, at the epoch of its transaction. One that is declared
//! WITH SCROLL has all its rows at hand; one WITH HOLD has from the COMMIT on, so that it pins no
//! epoch after it. A cursor of SUBSCRIBE never ends by itself: FETCH waits for a first change, then
//! takes what is there, or with a timeout waits for as many as it asks for.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, IntervalUnit, SchemaRef};
use datafusion::common::ScalarValue;
use futures::FutureExt;
use tokio::time::{Instant, timeout_at};

use super::outcome::{Outcome, Rows};
use super::row_source::RowSource;
use super::session::Session;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{interval_us, parse_value};
use crate::sql::BoundStatement;
use crate::sql::memory::Reserved;
use crate::sql::statement::{Count, Declare, Direction, Fetch, Statement};

/// Cursors that a session may have open.
const CURSORS_MAX: usize = 1000;

/// An open cursor.
pub(super) struct Cursor {
    schema: SchemaRef,
    hold: bool,
    /// Savepoints of its transaction when it was declared; `None` once it has outlived that.
    depth: Option<usize>,
    rows: Reader,
}

enum Reader {
    Forward(Forward),
    Scroll { rows: RecordBatch, position: usize, _held: Reserved },
}

/// Rows in order, each once.
struct Forward {
    /// `None` at the end. Never locked: a stream of rows is not `Sync`, a session is.
    source: Mutex<Option<RowSource>>,
    /// Read, and not handed out.
    ready: VecDeque<RecordBatch>,
    /// The memory of those.
    held: Reserved,
    /// Rows handed out.
    position: u64,
}

impl Forward {
    fn source(&mut self) -> &mut Option<RowSource> {
        self.source.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until so many rows are at hand, or all.
    async fn fill(&mut self, wanted: Option<u64>, deadline: Option<Instant>) -> Result<()> {
        loop {
            let have = self.ready.iter().map(|b| b.num_rows() as u64).sum::<u64>();
            let Some(source) = self.source() else { return Ok(()) };
            if wanted.is_some_and(|wanted| have >= wanted) {
                return Ok(());
            }
            let next = match (source.is_endless(), source.next().now_or_never()) {
                (_, Some(next)) => next,
                (false, None) => source.next().await,
                (true, None) => match deadline {
                    Some(deadline) => match timeout_at(deadline, source.next()).await {
                        Ok(next) => next,
                        Err(_) => return Ok(()),
                    },
                    None if have > 0 => return Ok(()),
                    None => source.next().await,
                },
            };
            match next.transpose()? {
                Some(batch) => {
                    self.held.grow(batch.get_array_memory_size())?;
                    self.ready.push_back(batch);
                }
                None => *self.source() = None,
            }
        }
    }

    /// Takes rows that are at hand.
    fn take(&mut self, wanted: Option<u64>) -> Vec<RecordBatch> {
        let mut left = wanted.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let mut taken = Vec::new();
        while left > 0 {
            let Some(batch) = self.ready.pop_front() else { break };
            let rows = batch.num_rows().min(left);
            match rows < batch.num_rows() {
                true => self.ready.push_front(batch.slice(rows, batch.num_rows() - rows)),
                false => self.held.shrink(batch.get_array_memory_size()),
            }
            taken.push(batch.slice(0, rows));
            left -= rows;
            self.position += rows as u64;
        }
        taken
    }

    async fn fetch(
        &mut self,
        direction: Direction,
        deadline: Option<Instant>,
    ) -> Result<Vec<RecordBatch>> {
        let backward = || {
            Error::user(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, "cursor can only scan forward")
                .with_hint("Declare it with SCROLL option to enable backward scan.")
        };
        let ahead = match direction {
            Direction::Forward(Count::All) => {
                self.fill(None, deadline).await?;
                return Ok(self.take(None));
            }
            Direction::Forward(Count::Rows(n)) if n > 0 => {
                self.fill(Some(n), deadline).await?;
                return Ok(self.take(Some(n)));
            }
            Direction::Forward(Count::Rows(_)) | Direction::Backward(Count::Rows(0)) => 0,
            Direction::Relative(n) => n,
            Direction::Absolute(n) if n > 0 => {
                n.saturating_sub(i64::try_from(self.position).unwrap_or(i64::MAX))
            }
            Direction::Absolute(_) | Direction::Backward(_) => -1,
        };
        match u64::try_from(ahead) {
            Ok(0) if self.position == 0 => Ok(Vec::new()),
            Ok(n) if n > 0 => {
                self.fill(Some(n), deadline).await?;
                drop(self.take(Some(n - 1)));
                Ok(self.take(Some(1)))
            }
            _ => Err(backward()),
        }
    }
}

/// The rows that a FETCH gives of a cursor with all rows at hand, by their numbers from 0, and
/// where it is then: 0 is before the first row.
fn scroll(direction: Direction, position: usize, rows: usize) -> (Vec<usize>, usize) {
    let end = rows + 1;
    let clipped = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(end);
    let one = |at: usize| ((1..end).contains(&at).then(|| at - 1).into_iter().collect(), at);
    match direction {
        Direction::Forward(Count::Rows(0))
        | Direction::Backward(Count::Rows(0))
        | Direction::Relative(0) => one(position),
        Direction::Forward(count) => {
            let to = match count {
                Count::Rows(n) => position.saturating_add(clipped(n)).min(end),
                Count::All => end,
            };
            ((position + 1..=to.min(rows)).map(|at| at - 1).collect(), to)
        }
        Direction::Backward(count) => {
            let to = match count {
                Count::Rows(n) => position.saturating_sub(clipped(n)),
                Count::All => 0,
            };
            ((to.max(1)..position).rev().map(|at| at - 1).collect(), to)
        }
        Direction::Absolute(n) if n >= 0 => one(clipped(n.unsigned_abs())),
        Direction::Absolute(n) => one(end.saturating_sub(clipped(n.unsigned_abs()))),
        Direction::Relative(n) if n > 0 => {
            one(position.saturating_add(clipped(n.unsigned_abs())).min(end))
        }
        Direction::Relative(n) => one(position.saturating_sub(clipped(n.unsigned_abs()))),
    }
}

impl Session {
    pub(super) async fn declare(&mut self, declare: &Declare) -> Result<Outcome> {
        self.check_declare(declare)?;
        let outcome = match declare.statement.as_ref() {
            Statement::Subscribe(_) if declare.scroll == Some(true) => {
                return Err(Error::unsupported("a cursor of SUBSCRIBE can't SCROLL"));
            }
            Statement::Subscribe(subscribe) => self.subscribe(subscribe).await?,
            Statement::Query(query) => {
                let bound = self.bind_ad_hoc(query)?;
                self.read_without_limit(bound).await?
            }
            _ => return Err(Error::internal("a cursor is of a query")),
        };
        self.open(declare, outcome).await
    }

    /// DECLARE with parameters, which are in the query by now.
    pub(super) async fn declare_bound(
        &mut self,
        declare: &Declare,
        bound: BoundStatement,
    ) -> Result<Outcome> {
        self.check_declare(declare)?;
        let BoundStatement::Query(bound) = bound else {
            return Err(Error::internal("a cursor is of a query"));
        };
        let outcome = self.read_without_limit(bound).await?;
        self.open(declare, outcome).await
    }

    fn check_declare(&self, declare: &Declare) -> Result<()> {
        if self.transaction.is_none() && !declare.hold {
            return Err(Error::user(
                sqlstate::NO_ACTIVE_SQL_TRANSACTION,
                "DECLARE CURSOR can only be used in transaction blocks",
            )
            .with_hint("BEGIN a transaction, or declare the cursor WITH HOLD."));
        }
        if self.cursors.contains_key(&declare.name) {
            let message = format!("cursor \"{}\" already exists", declare.name);
            return Err(Error::user(sqlstate::DUPLICATE_CURSOR, message));
        }
        match self.cursors.len() < CURSORS_MAX {
            true => Ok(()),
            false => Err(Error::user(
                sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
                format!("more than {CURSORS_MAX} cursors"),
            )
            .with_hint("CLOSE those that are no longer used.")),
        }
    }

    async fn open(&mut self, declare: &Declare, outcome: Outcome) -> Result<Outcome> {
        let source = match outcome {
            Outcome::Rows(mut rows) => {
                self.notices.append(&mut rows.notices);
                RowSource::Rows(rows)
            }
            Outcome::Subscription(subscription) => RowSource::changes(subscription),
            Outcome::Done { .. } => return Err(Error::internal("a query has rows")),
        };
        let schema = source.schema();
        let endless = source.is_endless();
        let held = self.engine.core.memory.query(None).reserve("rows of a cursor");
        let (source, ready) = (Mutex::new(Some(source)), VecDeque::new());
        let mut reader = Forward { source, ready, held, position: 0 };
        let at_once = declare.scroll == Some(true) || self.transaction.is_none();
        if at_once && !endless {
            reader.fill(None, None).await?;
        }
        let rows = match declare.scroll {
            Some(true) => {
                let rows = concat_batches(&schema, &reader.take(None))?;
                reader.held.resize(rows.get_array_memory_size())?;
                Reader::Scroll { rows, position: 0, _held: reader.held }
            }
            _ => Reader::Forward(reader),
        };
        let depth = self.transaction.as_ref().map(|t| t.depth());
        let cursor = Cursor { schema, hold: declare.hold, depth, rows };
        self.cursors.insert(declare.name.clone(), cursor);
        Ok(self.done("DECLARE CURSOR"))
    }

    pub(super) async fn fetch(&mut self, fetch: &Fetch) -> Result<Outcome> {
        let deadline = match &fetch.timeout {
            None => None,
            Some(text) => Some(Instant::now() + duration(text)?),
        };
        let cursor = self.cursors.get_mut(&fetch.name).ok_or_else(|| no_cursor(&fetch.name))?;
        let schema = SchemaRef::clone(&cursor.schema);
        let batches = match &mut cursor.rows {
            Reader::Forward(forward) => forward.fetch(fetch.direction, deadline).await,
            Reader::Scroll { rows, position, .. } => {
                let (found, to) = scroll(fetch.direction, *position, rows.num_rows());
                *position = to;
                let indices = UInt32Array::from_iter_values(found.iter().map(|r| *r as u32));
                take_record_batch(rows, &indices).map(|batch| vec![batch]).map_err(Error::from)
            }
        };
        let failed = batches
            .as_ref()
            .is_err_and(|e| e.sqlstate() != sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE);
        if failed {
            self.cursors.remove(&fetch.name);
        }
        let batches = batches?;
        if fetch.moves {
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            return Ok(self.done(&format!("MOVE {rows}")));
        }
        let notices = self.take_notices();
        Ok(Outcome::Rows(Rows { notices, ..Rows::ready(schema, batches) }))
    }

    pub(super) fn close(&mut self, name: Option<&str>) -> Result<Outcome> {
        match name {
            None => self.cursors.clear(),
            Some(name) => {
                self.cursors.remove(name).ok_or_else(|| no_cursor(name))?;
            }
        }
        Ok(self.done(if name.is_none() { "CLOSE CURSOR ALL" } else { "CLOSE CURSOR" }))
    }

    /// The columns of an open cursor.
    pub fn cursor_fields(&self, name: &str) -> Result<SchemaRef> {
        let cursor = self.cursors.get(name).ok_or_else(|| no_cursor(name))?;
        Ok(SchemaRef::clone(&cursor.schema))
    }

    /// Ahead of a COMMIT: reads what cursors WITH HOLD have left.
    pub(super) async fn hold_cursors(&mut self) -> Result<()> {
        for cursor in self.cursors.values_mut().filter(|c| c.hold && c.depth.is_some()) {
            if let Reader::Forward(forward) = &mut cursor.rows
                && forward.source().as_ref().is_some_and(|s| !s.is_endless())
            {
                forward.fill(None, None).await?;
            }
        }
        Ok(())
    }

    /// The transaction has ended: its cursors go with it, after a COMMIT without those WITH HOLD.
    pub(super) fn close_cursors(&mut self, committed: bool) {
        self.cursors.retain(|_, cursor| cursor.depth.is_none() || (committed && cursor.hold));
        self.cursors.values_mut().for_each(|cursor| cursor.depth = None);
    }

    /// ROLLBACK TO: cursors that were declared behind the savepoint are gone.
    pub(super) fn close_cursors_behind(&mut self, savepoint: usize) {
        self.cursors.retain(|_, cursor| cursor.depth.is_none_or(|depth| depth <= savepoint));
    }

    /// RELEASE: cursors belong to what was around the savepoint.
    pub(super) fn release_cursors(&mut self, savepoint: usize) {
        let depths = self.cursors.values_mut().filter_map(|cursor| cursor.depth.as_mut());
        depths.for_each(|depth| *depth = (*depth).min(savepoint));
    }
}

/// An interval as text.
fn duration(text: &str) -> Result<Duration> {
    let value = parse_value(text, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let us = match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => interval_us(interval),
        _ => None,
    };
    us.and_then(|us| u64::try_from(us).ok()).map(Duration::from_micros).ok_or_else(|| {
        let message = format!("invalid timeout \"{text}\"");
        Error::user(sqlstate::INVALID_PARAMETER_VALUE, message)
    })
}

fn no_cursor(name: &str) -> Error {
    Error::user(sqlstate::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_of_a_scroll_cursor() {
        use Direction::{Absolute, Backward, Forward, Relative};
        let rows = Count::Rows;
        // Three rows; what PostgreSQL gives.
        assert_eq!(scroll(Forward(rows(2)), 0, 3), (vec![0, 1], 2));
        assert_eq!(scroll(Forward(rows(2)), 2, 3), (vec![2], 4));
        assert_eq!(scroll(Forward(Count::All), 3, 3), (vec![], 4));
        assert_eq!(scroll(Backward(rows(2)), 4, 3), (vec![2, 1], 2));
        assert_eq!(scroll(Backward(Count::All), 2, 3), (vec![0], 0));
        assert_eq!(scroll(Backward(rows(5)), 0, 3), (vec![], 0));
        assert_eq!(scroll(Absolute(-1), 0, 3), (vec![2], 3));
        assert_eq!(scroll(Absolute(7), 0, 3), (vec![], 4));
        assert_eq!(scroll(Absolute(0), 2, 3), (vec![], 0));
        assert_eq!(scroll(Absolute(-4), 2, 3), (vec![], 0));
        assert_eq!(scroll(Relative(-1), 2, 3), (vec![0], 1));
        assert_eq!(scroll(Relative(0), 2, 3), (vec![1], 2));
        assert_eq!(scroll(Relative(2), 2, 3), (vec![], 4));
        assert_eq!(scroll(Absolute(1), 0, 0), (vec![], 1));
    }
}
