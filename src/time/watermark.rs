//! Watermarks: the promise that no row with a smaller value of one column will follow.
//!
//! A watermark belongs to a column; a stream with two time columns has two. It starts at minus
//! infinity, never goes back, and is plus infinity at the end of a bounded input. Values are
//! microseconds since the Unix epoch, as all timestamps in the engine.
//!
//! Under ALLOWED LATENESS it has a second bound, ahead of the first: rows below that one are late,
//! but still taken.

use std::fmt;

/// The lower bound of all rows still to come, in one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watermark {
    us: i64,
    /// Never behind `us`.
    early_us: i64,
}

impl Default for Watermark {
    fn default() -> Self {
        Self::MIN
    }
}

impl Watermark {
    /// Nothing is known yet.
    pub const MIN: Watermark = Watermark::at_us(i64::MIN);
    /// The input has ended: every window closes.
    pub const MAX: Watermark = Watermark::at_us(i64::MAX);

    /// A watermark at a timestamp in microseconds.
    pub const fn at_us(us: i64) -> Self {
        Self { us, early_us: us }
    }

    /// The same for a monotone function of the column, which `f` is of its values.
    #[must_use]
    pub fn map_us(self, f: impl Fn(i64) -> i64) -> Self {
        let us = f(self.us);
        let early_us = if self.early_us == self.us { us } else { f(self.early_us).max(us) };
        Self { us, early_us }
    }

    /// The same with rows up to `us` microseconds behind it still taken.
    #[must_use]
    pub fn with_lateness(self, us: i64) -> Self {
        match self.is_finite() {
            true => Self { us: self.us.saturating_sub(us).max(i64::MIN + 1), early_us: self.us },
            false => Self::at_us(self.us),
        }
    }

    /// The value in microseconds; the ends of the range stand for minus and plus infinity.
    pub fn us(self) -> i64 {
        self.us
    }

    /// Where windows come out for the first time, if before they are closed for good.
    pub fn early_us(self) -> i64 {
        self.early_us
    }

    /// The bound of rows that fulfil either.
    #[must_use]
    pub fn meet(self, other: Self) -> Self {
        Self { us: self.us.min(other.us), early_us: self.early_us.min(other.early_us) }
    }

    /// The bound of rows that fulfil both.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self { us: self.us.max(other.us), early_us: self.early_us.max(other.early_us) }
    }

    /// Whether it is a timestamp, not one of the infinities.
    pub fn is_finite(self) -> bool {
        self.us != i64::MIN && self.us != i64::MAX
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.us {
            i64::MIN => f.write_str("-infinity"),
            i64::MAX => f.write_str("infinity"),
            us => match chrono::DateTime::from_timestamp_micros(us) {
                Some(t) => write!(f, "{}", t.naive_utc()),
                None => write!(f, "{us} us"),
            },
        }
    }
}

/// The watermark of one column over several inputs: the minimum over those that are not idle.
///
/// An idle input does not hold the others back; when all are idle the last value stays. The merged
/// value never goes back, even when an input returns from idle with an older value.
#[derive(Debug, Clone)]
pub struct WatermarkMerge {
    inputs: Vec<Input>,
    merged: Watermark,
}

#[derive(Debug, Clone, Copy)]
struct Input {
    value: Watermark,
    idle: bool,
}

impl WatermarkMerge {
    /// A merge over `inputs` inputs, all at minus infinity.
    pub fn new(inputs: usize) -> Self {
        let input = Input { value: Watermark::MIN, idle: false };
        Self { inputs: vec![input; inputs], merged: Watermark::MIN }
    }

    /// Advances one input; a smaller value than before is ignored. Returns the merged value when
    /// it has advanced.
    pub fn advance(&mut self, input: usize, value: Watermark) -> Option<Watermark> {
        let slot = &mut self.inputs[input];
        slot.value = slot.value.join(value);
        slot.idle = false;
        self.update()
    }

    /// Takes an input out of the minimum until its next row.
    pub fn set_idle(&mut self, input: usize) -> Option<Watermark> {
        self.inputs[input].idle = true;
        self.update()
    }

    /// The merged value.
    pub fn merged(&self) -> Watermark {
        self.merged
    }

    fn update(&mut self) -> Option<Watermark> {
        let awake = self.inputs.iter().filter(|i| !i.idle).map(|i| i.value);
        let low = awake.reduce(Watermark::meet)?.join(self.merged);
        (low != self.merged).then(|| {
            self.merged = low;
            low
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_is_the_minimum_of_inputs_that_are_not_idle() {
        let mut merge = WatermarkMerge::new(2);
        assert_eq!(merge.advance(0, Watermark::at_us(10)), None);
        assert_eq!(merge.advance(1, Watermark::at_us(5)), Some(Watermark::at_us(5)));
        assert_eq!(merge.set_idle(1), Some(Watermark::at_us(10)));
        // It returns with an old value: the merged watermark stays.
        assert_eq!(merge.advance(1, Watermark::at_us(7)), None);
        assert_eq!(merge.merged(), Watermark::at_us(10));
    }

    #[test]
    fn both_bounds_are_merged_by_themselves() {
        let late = |us: i64, lateness: i64| Watermark::at_us(us).with_lateness(lateness);
        let mut merge = WatermarkMerge::new(2);
        merge.advance(0, late(30, 20));
        let merged = merge.advance(1, late(20, 5)).expect("both have said something");
        assert_eq!((merged.us(), merged.early_us()), (10, 20));
        // The second bound alone moves.
        let merged = merge.advance(1, late(25, 5)).expect("it moves");
        assert_eq!((merged.us(), merged.early_us()), (10, 25));
        assert_eq!(Watermark::MAX.with_lateness(5), Watermark::MAX);
        assert_eq!(late(30, 20).map_us(|us| us / 20 * 20).early_us(), 20);
    }
}
