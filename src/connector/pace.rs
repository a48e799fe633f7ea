//! Rows that are made at a rate: which are due, by the clock.

use std::time::{Duration, Instant};

/// A reader at a rate.
#[derive(Debug)]
pub(super) struct Pace {
    gap: Duration,
    opened: Instant,
    from: u64,
}

impl Pace {
    /// From a position on, which is due now, one every `gap`.
    pub(super) fn new(gap: Duration, from: u64) -> Self {
        Self { gap, opened: Instant::now(), from }
    }

    /// The first position that is not due yet.
    pub(super) fn due(&self) -> u64 {
        let elapsed = self.opened.elapsed().as_nanos() / self.gap.as_nanos().max(1);
        self.from.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// How long it is until a position is due.
    pub(super) fn until(&self, number: u64) -> Duration {
        let events = u32::try_from(number.saturating_sub(self.from)).unwrap_or(u32::MAX);
        self.gap.saturating_mul(events).saturating_sub(self.opened.elapsed())
    }
}
