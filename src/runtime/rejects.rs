//! `<source>$errors`: messages that could not be decoded, as rows. So many of the newest are kept,
//! of so many bytes, and for so long, so that a broken producer can't fill the memory; the counter
//! of SHOW SOURCES goes on. RETRY ERRORS decodes them again.
//!
//! The rows are state like any other. When they came is not in them: marks say how far each split
//! had been read at some times, and go into checkpoints.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};

use crate::config::{BATCH_ROWS, ERROR_BYTES_KEPT, ERROR_ROWS_KEPT, ERROR_TIME_KEPT};
use crate::connector::{Again, Positions, Rejected, SplitId};
use crate::delta::{DeltaBatch, concat};
use crate::error::Result;
use crate::state::ResultTable;
use crate::time::Epoch;

/// Into how many spans of time the time is divided for which messages are kept: they stay for as
/// much longer at most.
const SPANS: i64 = 64;

/// What is counted of a message beside its key and value.
const MESSAGE_BYTES: usize = 64;

/// The columns of a source's `$errors`.
pub fn schema() -> SchemaRef {
    let field = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("partition", DataType::Int32),
        field("offset", DataType::Int64),
        field("key", DataType::Binary),
        field("payload", DataType::Binary),
        field("column_name", DataType::Utf8),
        field("reason", DataType::Utf8),
    ]))
}

/// How many rejected messages are kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The newest, so many.
    pub rows: usize,
    /// The newest, of so many bytes.
    pub bytes: usize,
    /// Since they came.
    pub time: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { rows: ERROR_ROWS_KEPT, bytes: ERROR_BYTES_KEPT, time: ERROR_TIME_KEPT }
    }
}

/// When messages came: below these positions by this time, in microseconds.
pub type RejectMark = (i64, Positions);

/// Messages of one split that came together, and are kept still.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The number of the first; the last stays the last while older ones go.
    first: u64,
    at_us: i64,
    split: SplitId,
    rows: DeltaBatch,
}

impl Kept {
    fn end(&self) -> u64 {
        self.first + self.rows.len() as u64
    }

    /// The split that they are from.
    pub fn split(&self) -> SplitId {
        self.split
    }

    /// The messages.
    pub fn messages(&self) -> Vec<Rejected> {
        let columns = self.rows.rows().columns();
        let offsets = columns[1].as_primitive::<Int64Type>();
        let (keys, payloads) = (columns[2].as_binary::<i32>(), columns[3].as_binary::<i32>());
        let (names, reasons) = (columns[4].as_string::<i32>(), columns[5].as_string::<i32>());
        let bytes = |of: &BinaryArray, row| of.is_valid(row).then(|| of.value(row).to_vec());
        let message = |row| Rejected {
            position: offsets.value(row),
            payload: bytes(payloads, row),
            key: bytes(keys, row),
            column: names.is_valid(row).then(|| names.value(row).to_owned()),
            reason: reasons.value(row).to_owned(),
        };
        (0..self.rows.len()).map(message).collect()
    }

    fn bytes(&self) -> usize {
        (0..self.rows.len()).map(|row| message_bytes(&self.rows, row)).sum()
    }
}

fn message_bytes(rows: &DeltaBatch, row: usize) -> usize {
    let columns = rows.rows().columns();
    let length = |column: usize| columns[column].as_binary::<i32>().value_length(row) as usize;
    MESSAGE_BYTES + length(2) + length(3)
}

/// What some messages have become that were decoded again.
#[derive(Debug)]
pub struct Retried {
    /// The messages.
    pub kept: Kept,
    /// What became of them.
    pub again: Again,
}

/// The rows that an `$errors` relation holds.
#[derive(Debug, Default)]
pub struct Rejects {
    /// The oldest first.
    kept: VecDeque<Kept>,
    rows: usize,
    bytes: usize,
    /// The number of the next message.
    next: u64,
    retention: Retention,
    /// When they came, with the beginning of each span of time.
    marks: VecDeque<(i64, RejectMark)>,
}

impl Rejects {
    /// None yet.
    pub fn new(retention: Retention) -> Self {
        Self { retention, ..Self::default() }
    }

    /// None of them any more.
    pub fn forget(&mut self) {
        *self = Self::new(self.retention);
    }

    /// When they came, as far as the next life needs to know.
    pub fn marks(&self) -> Vec<RejectMark> {
        self.marks.iter().map(|(_, mark)| mark.clone()).collect()
    }

    /// Says when they came, before they are taken from their table.
    pub fn put_marks(&mut self, marks: Vec<RejectMark>) {
        self.marks = marks.into_iter().map(|mark| (mark.0, mark)).collect();
    }

    /// Takes what a table of `$errors` holds; `marks` say when it came, else that counts as now.
    pub fn take_from(
        &mut self,
        table: &Arc<ResultTable>,
        epoch: Epoch,
        marks: Vec<RejectMark>,
        now_us: i64,
    ) -> Result<()> {
        self.forget();
        let came = |split, offset| {
            let mut of = marks.iter().filter(|(_, to)| to.get(&split).is_some_and(|t| *t > offset));
            of.next().map_or(now_us, |(at, _)| *at)
        };
        let mut held = Vec::new();
        let mut stored = table.rows(epoch);
        while let Some(rows) = stored.next(BATCH_ROWS)? {
            let splits = rows.rows().column(0).as_primitive::<Int32Type>().clone();
            let offsets = rows.rows().column(1).as_primitive::<Int64Type>().clone();
            held.extend((0..rows.len()).map(|row| {
                let (split, offset) = (splits.value(row) as SplitId, offsets.value(row));
                ((came(split, offset), split, offset), rows.slice(row, 1))
            }));
        }
        held.sort_by_key(|(place, _)| *place);
        let together = |a: &((i64, SplitId, i64), _), b: &((i64, SplitId, i64), _)| {
            (a.0.0, a.0.1) == (b.0.0, b.0.1)
        };
        for group in held.chunk_by(together) {
            for some in group.chunks(BATCH_ROWS) {
                let rows: Vec<DeltaBatch> = some.iter().map(|(_, row)| row.clone()).collect();
                if let (Some(rows), Some(((at_us, split, _), _))) = (concat(&rows)?, some.first()) {
                    self.push(*split, rows, *at_us);
                }
            }
        }
        self.put_marks(marks);
        Ok(())
    }

    fn push(&mut self, split: SplitId, rows: DeltaBatch, at_us: i64) {
        let kept = Kept { first: self.next, at_us, split, rows };
        self.next = kept.end();
        self.rows += kept.rows.len();
        self.bytes += kept.bytes();
        self.kept.push_back(kept);
    }

    /// Adds rejected messages: the changes of the relation, what is too much among them.
    pub fn add(
        &mut self,
        split: SplitId,
        rejected: &[Rejected],
        now_us: i64,
    ) -> Result<Vec<DeltaBatch>> {
        let added = rows_of(split, rejected)?;
        self.mark(split, rejected, now_us);
        self.push(split, added.clone(), now_us);
        let mut changes = vec![added];
        while self.rows > self.retention.rows || self.bytes > self.retention.bytes {
            let Some(mut oldest) = self.kept.pop_front() else { break };
            // Of a batch its newest rows stay.
            let (mut over, all) = (0, oldest.rows.len());
            while over < all
                && (self.rows > self.retention.rows || self.bytes > self.retention.bytes)
            {
                self.rows -= 1;
                self.bytes -= message_bytes(&oldest.rows, over);
                over += 1;
            }
            changes.push(oldest.rows.slice(0, over).negate());
            if over < all {
                oldest.first += over as u64;
                oldest.rows = oldest.rows.slice(over, all - over);
                self.kept.push_front(oldest);
            }
        }
        Ok(changes)
    }

    fn mark(&mut self, split: SplitId, rejected: &[Rejected], now_us: i64) {
        let Some(behind) = rejected.iter().map(|r| r.position.saturating_add(1)).max() else {
            return;
        };
        let span = i64::try_from(self.retention.time.as_micros()).unwrap_or(i64::MAX) / SPANS;
        match self.marks.back_mut() {
            Some((from, (at, to))) if now_us.saturating_sub(*from) <= span => {
                *at = now_us.max(*at);
                let known = to.entry(split).or_insert(behind);
                *known = behind.max(*known);
            }
            _ => self.marks.push_back((now_us, (now_us, [(split, behind)].into()))),
        }
    }

    /// Whether some have been kept for long enough.
    pub fn is_due(&self, now_us: i64) -> bool {
        self.kept.front().is_some_and(|kept| self.is_old(kept.at_us, now_us))
    }

    /// Lets those go that have been kept for long enough: the changes of the relation.
    pub fn expire(&mut self, now_us: i64) -> Vec<DeltaBatch> {
        let mut changes = Vec::new();
        while self.is_due(now_us) {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.rows -= oldest.rows.len();
            self.bytes -= oldest.bytes();
            changes.push(oldest.rows.negate());
        }
        while self.marks.front().is_some_and(|(_, (at, _))| self.is_old(*at, now_us)) {
            self.marks.pop_front();
        }
        changes
    }

    fn is_old(&self, at_us: i64, now_us: i64) -> bool {
        let age = u128::try_from(now_us.saturating_sub(at_us)).unwrap_or(0);
        age >= self.retention.time.as_micros()
    }

    /// What is kept, to be decoded again.
    pub fn kept(&self) -> Vec<Kept> {
        self.kept.iter().cloned().collect()
    }

    /// Takes messages that were decoded again, as far as they are kept still: the changes of the
    /// relation, and the rows that they have become.
    pub fn retried(&mut self, retried: Retried) -> Result<(Vec<DeltaBatch>, RecordBatch)> {
        let Retried { kept: of, again: Again { rows, mut rejected } } = retried;
        let end = of.end();
        let Some(kept) = self.kept.iter_mut().find(|kept| kept.end() == end) else {
            return Ok((Vec::new(), rows.slice(0, 0)));
        };
        // The oldest may have gone meanwhile.
        let gone = of.rows.len().saturating_sub(kept.rows.len());
        let failed = rejected.iter().take_while(|(place, _)| *place < gone).count();
        rejected.drain(..failed);
        let rejected: Vec<Rejected> = rejected.into_iter().map(|(_, message)| message).collect();
        let rows = rows.slice(gone - failed, rows.num_rows() - (gone - failed));
        let left = rows_of(kept.split, &rejected)?;
        let changes = vec![kept.rows.negate(), left.clone()];
        (self.rows, self.bytes) = (self.rows - kept.rows.len(), self.bytes - kept.bytes());
        kept.first = end - left.len() as u64;
        kept.rows = left;
        (self.rows, self.bytes) = (self.rows + kept.rows.len(), self.bytes + kept.bytes());
        self.kept.retain(|kept| !kept.rows.is_empty());
        Ok((changes, rows))
    }

    /// Forgets messages that will be read again: the changes of the relation.
    pub fn forget_from(&mut self, at: &Positions) -> Vec<DeltaBatch> {
        let mut changes = Vec::new();
        for kept in std::mem::take(&mut self.kept) {
            let from = at.get(&kept.split).copied().unwrap_or(i64::MAX);
            let offsets = kept.rows.rows().column(1).as_primitive::<Int64Type>().clone();
            let again: Vec<usize> =
                (0..kept.rows.len()).filter(|row| offsets.value(*row) >= from).collect();
            if again.is_empty() {
                self.kept.push_back(kept);
                continue;
            }
            for row in 0..kept.rows.len() {
                let one = kept.rows.slice(row, 1);
                match again.binary_search(&row).is_ok() {
                    true => {
                        self.rows -= 1;
                        self.bytes -= message_bytes(&one, 0);
                        changes.push(one.negate());
                    }
                    false => {
                        let first = kept.first + row as u64;
                        self.kept.push_back(Kept { first, rows: one, ..kept.clone() });
                    }
                }
            }
        }
        changes
    }
}

/// Rejected messages of a split as rows.
fn rows_of(split: SplitId, rejected: &[Rejected]) -> Result<DeltaBatch> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_value(split as i32, rejected.len())),
        Arc::new(Int64Array::from_iter_values(rejected.iter().map(|r| r.position))),
        Arc::new(rejected.iter().map(|r| r.key.as_deref()).collect::<BinaryArray>()),
        Arc::new(rejected.iter().map(|r| r.payload.as_deref()).collect::<BinaryArray>()),
        Arc::new(rejected.iter().map(|r| r.column.as_deref()).collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(rejected.iter().map(|r| &r.reason))),
    ];
    Ok(DeltaBatch::inserts(RecordBatch::try_new(schema(), columns)?))
}

#[cfg(test)]
#[path = "rejects/tests.rs"]
mod tests;
