//! Sums and averages of intervals: months, days and time apart, as PostgreSQL adds them, so that
//! what is taken out again leaves no trace.

use arrow::datatypes::IntervalMonthDayNano;

use super::temporal::{divided, interval_out_of_range};
use crate::delta::Weight;
use crate::error::Result;

/// Words of a total.
pub const INTERVAL_WORDS: usize = 4;

/// The sums of the parts of some intervals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IntervalTotal {
    /// Values that were added.
    pub count: i64,
    months: i64,
    days: i64,
    us: i64,
}

impl IntervalTotal {
    /// Adds a value.
    pub fn add(&mut self, value: IntervalMonthDayNano, weight: Weight) {
        let add = |sum: &mut i64, part: i64| *sum = sum.wrapping_add(part.wrapping_mul(weight));
        add(&mut self.count, 1);
        add(&mut self.months, value.months.into());
        add(&mut self.days, value.days.into());
        add(&mut self.us, value.nanoseconds / 1_000);
    }

    /// The total of both.
    pub fn merge(&mut self, other: Self) {
        self.count = self.count.wrapping_add(other.count);
        self.months = self.months.wrapping_add(other.months);
        self.days = self.days.wrapping_add(other.days);
        self.us = self.us.wrapping_add(other.us);
    }

    /// The total in words.
    pub fn read(words: &[u64]) -> Self {
        let [count, months, days, us] = std::array::from_fn(|i| words[i] as i64);
        Self { count, months, days, us }
    }

    /// Puts it into words.
    pub fn write(self, words: &mut [u64]) {
        for (word, part) in words.iter_mut().zip([self.count, self.months, self.days, self.us]) {
            *word = part as u64;
        }
    }

    /// The sum; NULL of no value.
    pub fn sum(self) -> Result<Option<IntervalMonthDayNano>> {
        if self.count == 0 {
            return Ok(None);
        }
        let parts = (i32::try_from(self.months), i32::try_from(self.days));
        match (parts, self.us.checked_mul(1_000)) {
            ((Ok(months), Ok(days)), Some(ns)) => {
                Ok(Some(IntervalMonthDayNano::new(months, days, ns)))
            }
            _ => Err(interval_out_of_range()),
        }
    }

    /// The average; NULL of no value.
    pub fn mean(self) -> Result<Option<IntervalMonthDayNano>> {
        let Some(sum) = self.sum()? else { return Ok(None) };
        divided(sum, self.count as f64).map(Some)
    }
}
