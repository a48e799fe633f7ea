//! Arrivals: the watermark that a split had just before each of its rows.
//!
//! It is a function of the split's rows in their order and of nothing else, so that lateness does
//! not depend on batches, epochs, workers or the interleaving of splits. A replay of the split
//! computes it again.

use arrow::array::{Array, AsArray, Int64Array};
use arrow::datatypes::TimestampMicrosecondType;

use crate::catalog::WatermarkDef;
use crate::delta::DeltaBatch;
use crate::time::{Lateness, Watermark};

/// The event time of one split.
#[derive(Debug, Clone, Copy)]
pub struct SplitTime {
    /// The greatest value that moves the watermark seen, in microseconds.
    greatest: i64,
    /// The greatest time seen.
    latest: i64,
}

impl SplitTime {
    /// A split without rows.
    pub const NEW: SplitTime = SplitTime { greatest: i64::MIN, latest: i64::MIN };

    /// A split that goes on from a watermark.
    pub fn at(watermark: Watermark, def: &WatermarkDef) -> Self {
        let delay_us = if watermark.is_finite() { def.delay_us } else { 0 };
        let greatest = watermark.us().saturating_add(delay_us);
        Self { greatest, latest: greatest }
    }

    /// The same where rows up to a time have been seen.
    #[must_use]
    pub fn behind(self, latest: i64) -> Self {
        Self { latest: self.latest.max(latest), ..self }
    }

    /// The greatest time seen.
    pub fn latest(self) -> i64 {
        self.latest
    }

    /// The split's watermark.
    pub fn watermark(self, def: &WatermarkDef) -> Watermark {
        match self.greatest {
            i64::MIN | i64::MAX => Watermark::at_us(self.greatest),
            // Minus infinity is not for a split that has rows.
            us => Watermark::at_us(us.saturating_sub(def.delay_us).max(i64::MIN + 1)),
        }
    }

    /// Takes rows in their order at a time of the clock; `column` is the place of the time column
    /// in them. Rows that are taken away, or lie further in the future than allowed, move no
    /// watermark. How far the rows are behind goes to `lateness`.
    pub fn take(
        &mut self,
        rows: &DeltaBatch,
        column: usize,
        def: &WatermarkDef,
        now: i64,
        lateness: &mut Lateness,
    ) -> Int64Array {
        let most = def.skew_us.map_or(i64::MAX, |skew| now.saturating_add(skew));
        let times = rows.rows().column(column).as_primitive_opt::<TimestampMicrosecondType>();
        let Some(times) = times else {
            return Int64Array::from_value(self.watermark(def).us(), rows.len());
        };
        let markers = def.marker.as_ref().map(|marker| marker.values(rows));
        let mut before = self.watermark(def).us();
        let arrivals = (0..rows.len()).map(|row| {
            let arrival = before;
            if rows.weight(row) <= 0 {
                return arrival;
            }
            let time = times.is_valid(row).then(|| times.value(row)).filter(|time| *time <= most);
            if let Some(time) = time {
                lateness.add(self.latest.saturating_sub(time));
                self.latest = self.latest.max(time);
            }
            let value = markers.as_ref().map_or(time, |m| m[row].filter(|time| *time <= most));
            if let Some(value) = value.filter(|value| *value > self.greatest) {
                self.greatest = value;
                before = self.watermark(def).us();
            }
            arrival
        });
        Int64Array::from_iter_values(arrivals)
    }
}

/// Rows of a split that was not waited for: nothing of them came before the merged watermark.
pub fn not_before(rows: DeltaBatch, merged: Watermark) -> DeltaBatch {
    // Arrivals ascend within a split: the first says whether there is anything to do.
    let raised = match rows.arrivals() {
        Some(arrivals) if !arrivals.is_empty() && arrivals.value(0) < merged.us() => {
            Some(arrivals.unary(|us| us.max(merged.us())))
        }
        _ => None,
    };
    match raised {
        Some(arrivals) => rows.with_arrivals(Some(arrivals)),
        None => rows,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};

    use super::*;

    fn rows(times: &[Option<i64>]) -> DeltaBatch {
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times.to_vec()));
        DeltaBatch::inserts(RecordBatch::try_from_iter([("ts", times)]).expect("one column"))
    }

    #[test]
    fn a_row_arrives_at_the_watermark_before_it_whatever_the_cuts() {
        let def = WatermarkDef { delay_us: 5, ..WatermarkDef::default() };
        let times = [Some(10), None, Some(3), Some(30), Some(20), Some(40)];
        let mut whole = SplitTime::NEW;
        let all = whole.take(&rows(&times), 0, &def, 0, &mut Lateness::default());
        assert_eq!(all.values().to_vec(), [i64::MIN, 5, 5, 5, 25, 25]);
        for cut in 1..times.len() {
            let mut split = SplitTime::NEW;
            let mut pieces = split
                .take(&rows(&times[..cut]), 0, &def, 0, &mut Lateness::default())
                .values()
                .to_vec();
            split = SplitTime::at(split.watermark(&def), &def);
            pieces.extend(
                split.take(&rows(&times[cut..]), 0, &def, 0, &mut Lateness::default()).values(),
            );
            assert_eq!(pieces, all.values().to_vec());
        }
    }

    #[test]
    fn a_row_of_the_far_future_moves_nothing() {
        let def = WatermarkDef { skew_us: Some(10), ..WatermarkDef::default() };
        let mut split = SplitTime::NEW;
        let mut lateness = Lateness::default();
        let arrivals = split.take(
            &rows(&[Some(105), Some(111), Some(110), Some(1)]),
            0,
            &def,
            100,
            &mut lateness,
        );
        assert_eq!(arrivals.values().to_vec(), [i64::MIN, 105, 105, 110]);
    }

    #[test]
    fn a_split_that_joins_is_not_older_than_the_others() {
        let delta = rows(&[Some(1), Some(2)]).with_arrivals(Some(vec![i64::MIN, 7].into()));
        let raised = not_before(delta, Watermark::at_us(5));
        assert_eq!(raised.arrivals().map(|a| a.values().to_vec()), Some(vec![5, 7]));
    }
}
