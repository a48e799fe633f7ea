//! Watermarks: the promise that no row with a smaller value of one column will follow.
//!
//! A watermark belongs to a column; a stream with two time columns has two. It starts at minus
//! infinity, never goes back, and is plus infinity at the end of a bounded input. Values are
//! microseconds since the Unix epoch, as all timestamps in the engine.

use std::fmt;

/// The lower bound of all rows still to come, in one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watermark(i64);

impl Default for Watermark {
    fn default() -> Self {
        Self::MIN
    }
}

impl Watermark {
    /// Nothing is known yet.
    pub const MIN: Watermark = Watermark(i64::MIN);
    /// The input has ended: every window closes.
    pub const MAX: Watermark = Watermark(i64::MAX);

    /// A watermark at a timestamp in microseconds.
    pub fn at_us(us: i64) -> Self {
        Self(us)
    }

    /// The value in microseconds; the ends of the range stand for minus and plus infinity.
    pub fn us(self) -> i64 {
        self.0
    }

    /// Whether it is a timestamp, not one of the infinities.
    pub fn is_finite(self) -> bool {
        self != Self::MIN && self != Self::MAX
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MIN => f.write_str("-infinity"),
            Self::MAX => f.write_str("infinity"),
            Watermark(us) => match chrono::DateTime::from_timestamp_micros(us) {
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
        slot.value = slot.value.max(value);
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
        let low = self.inputs.iter().filter(|i| !i.idle).map(|i| i.value).min()?;
        if low > self.merged {
            self.merged = low;
            return Some(low);
        }
        None
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
}
