//! What should happen, computed from the order of rows in each split and from nothing else: which
//! rows are late for which windows, and the rows that count.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::{concat_batches, take, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};

/// Microseconds of a second.
pub const SECOND: i64 = 1_000_000;

/// The rows of one relation, and the order in which they come.
pub struct Stream {
    pub name: &'static str,
    pub rows: RecordBatch,
    /// The column of the event time.
    pub time: usize,
    /// What the watermark lies behind the greatest time, in microseconds.
    pub delay: i64,
    /// For each split its rows in the order of arrival.
    pub splits: Vec<Vec<usize>>,
}

/// Windows of a fixed shape, in seconds.
#[derive(Debug, Clone, Copy)]
pub enum Windows {
    Tumble(i64),
    Hop { slide: i64, size: i64 },
    Cumulate { step: i64, size: i64 },
}

impl Windows {
    /// The table function over a relation.
    pub fn sql(self, relation: &str) -> String {
        match self {
            Self::Tumble(size) => format!("tumble({relation}, ts, INTERVAL '{size} seconds')"),
            Self::Hop { slide, size } => format!(
                "hop({relation}, ts, INTERVAL '{slide} seconds', INTERVAL '{size} seconds')"
            ),
            Self::Cumulate { step, size } => format!(
                "cumulate({relation}, ts, INTERVAL '{step} seconds', INTERVAL '{size} seconds')"
            ),
        }
    }

    /// The windows that a time is in.
    fn of(self, ts: i64) -> Vec<(i64, i64)> {
        match self {
            Self::Tumble(size) => Self::Hop { slide: size, size }.of(ts),
            Self::Hop { slide, size } => {
                let (slide, size) = (slide * SECOND, size * SECOND);
                let last = ts.div_euclid(slide) * slide;
                let starts = (0..).map(|i| last - i * slide).take_while(|start| start + size > ts);
                starts.map(|start| (start, start + size)).collect()
            }
            Self::Cumulate { step, size } => {
                let (step, size) = (step * SECOND, size * SECOND);
                let start = ts.div_euclid(size) * size;
                let ends = (1..=size / step).map(|i| start + i * step).filter(|end| *end > ts);
                ends.map(|end| (start, end)).collect()
            }
        }
    }
}

/// A row that is late: its number, the window that it missed, its split's watermark.
pub type Late = (usize, Option<(i64, i64)>, i64);

impl Stream {
    pub fn times(&self) -> &TimestampMicrosecondArray {
        self.rows.column(self.time).as_primitive::<TimestampMicrosecondType>()
    }

    /// The greatest time of all splits that have rows; the least of them.
    pub fn watermark(&self) -> Option<i64> {
        let times = self.times();
        let greatest = |split: &Vec<usize>| {
            split.iter().filter(|r| times.is_valid(**r)).map(|r| times.value(*r)).max()
        };
        self.splits.iter().map(greatest).min().flatten().map(|t| t - self.delay)
    }

    /// The watermark of its split just before each row.
    fn arrivals(&self) -> Vec<i64> {
        let times = self.times();
        let mut arrivals = vec![i64::MIN; self.rows.num_rows()];
        for split in &self.splits {
            let mut watermark = i64::MIN;
            for row in split {
                arrivals[*row] = watermark;
                if times.is_valid(*row) {
                    watermark = watermark.max(times.value(*row) - self.delay);
                }
            }
        }
        arrivals
    }

    /// The rows with each window that they count for, and those that come too late for one, by more
    /// than so many microseconds.
    pub fn windowed(&self, windows: Windows, lateness: i64) -> (RecordBatch, Vec<Late>) {
        let (times, arrivals) = (self.times(), self.arrivals());
        let mut late = Vec::new();
        let (mut rows, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
            for (start, end) in windows.of(times.value(row)) {
                if end <= arrivals[row].saturating_sub(lateness) {
                    late.push((row, Some((start, end)), arrivals[row]));
                    continue;
                }
                rows.push(row as u64);
                starts.push(start);
                ends.push(end);
            }
        }
        let taken = take_record_batch(&self.rows, &UInt64Array::from(rows)).expect("rows of it");
        let edge = |name: &str| Field::new(name, times_type(), true);
        let fields = taken.schema().fields().iter().map(|f| f.as_ref().clone()).collect::<Vec<_>>();
        let fields = fields.into_iter().chain([edge("window_start"), edge("window_end")]);
        let edges: [ArrayRef; 2] = [
            Arc::new(TimestampMicrosecondArray::from(starts)),
            Arc::new(TimestampMicrosecondArray::from(ends)),
        ];
        let columns = taken.columns().iter().cloned().chain(edges).collect();
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        (RecordBatch::try_new(schema, columns).expect("columns of one length"), late)
    }

    /// The rows that are not behind the watermark of their split by more than so many microseconds,
    /// and the others.
    pub fn on_time(&self, lateness: i64) -> (RecordBatch, Vec<Late>) {
        let (times, arrivals) = (self.times(), self.arrivals());
        let is_late = |row: &usize| {
            let bound = arrivals[*row].saturating_sub(lateness);
            times.is_valid(*row) && times.value(*row) < bound
        };
        let (late, rows): (Vec<usize>, Vec<usize>) = (0..times.len()).partition(is_late);
        let rows = UInt64Array::from_iter_values(rows.into_iter().map(|r| r as u64));
        let rows = take_record_batch(&self.rows, &rows).expect("rows of it");
        (rows, late.into_iter().map(|row| (row, None, arrivals[row])).collect())
    }

    /// The rows of all splits, one split behind the other.
    pub fn in_order(&self) -> RecordBatch {
        let order = self.splits.iter().flatten().map(|row| *row as u64);
        let order = UInt64Array::from_iter_values(order);
        let columns = self.rows.columns().iter();
        let columns = columns.map(|c| take(c, &order, None).expect("rows of it")).collect();
        RecordBatch::try_new(self.rows.schema(), columns).expect("columns of one length")
    }
}

pub fn times_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// Batches of one schema as one.
pub fn joined(batches: &[RecordBatch]) -> RecordBatch {
    concat_batches(&batches[0].schema(), batches).expect("batches of one schema")
}
