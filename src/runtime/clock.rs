//! The clock: the one place where the engine asks what time it is.
//!
//! Tests and sessions can take it in hand (`SET CLOCK MANUAL`, `ADVANCE CLOCK ..`); then it stands
//! still between two statements. Operators never see it: what depends on time reaches them as
//! watermarks and inputs of an epoch.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use chrono::{DateTime, Utc};

use super::coordinator::Coordinator;
use super::shared::lock;
use crate::error::{Error, Result, sqlstate};

/// Not in hand.
const SYSTEM: i64 = i64::MIN;

/// The engine's clock, in microseconds since the Unix epoch.
#[derive(Debug)]
pub struct Clock {
    manual: AtomicI64,
    /// Taken in hand and not moved yet: it may be set to any time.
    fresh: AtomicBool,
}

impl Default for Clock {
    fn default() -> Self {
        Self { manual: AtomicI64::new(SYSTEM), fresh: AtomicBool::new(false) }
    }
}

/// What a statement does to the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockMove {
    /// It follows the system's.
    System,
    /// It stands still, at a time or at the present one.
    Manual(Option<i64>),
    /// It moves on by so many microseconds.
    By(i64),
    /// It moves on to a time.
    To(i64),
}

impl Clock {
    /// The time in microseconds.
    pub fn now_us(&self) -> i64 {
        match self.manual.load(Ordering::Relaxed) {
            SYSTEM => Utc::now().timestamp_micros(),
            us => us,
        }
    }

    /// The time.
    pub fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.now_us()).unwrap_or_else(Utc::now)
    }

    fn change(&self, change: ClockMove) -> Result<()> {
        let manual = self.manual.load(Ordering::Relaxed);
        let fresh = self.fresh.swap(false, Ordering::Relaxed);
        let to = match change {
            ClockMove::System => SYSTEM,
            ClockMove::Manual(at) => {
                self.fresh.store(at.is_none(), Ordering::Relaxed);
                at.unwrap_or_else(|| self.now_us())
            }
            ClockMove::By(_) | ClockMove::To(_) if manual == SYSTEM => {
                return Err(Error::user(
                    sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "the clock moves by itself",
                )
                .with_hint("SET CLOCK MANUAL; takes it in hand."));
            }
            ClockMove::By(us) => manual.saturating_add(us),
            ClockMove::To(us) => us,
        };
        let back = matches!(change, ClockMove::By(_) | ClockMove::To(_)) && to < manual;
        if back && !(fresh && matches!(change, ClockMove::To(_))) {
            return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, "the clock can't go back")
                .with_hint("SET CLOCK MANUAL AT TIMESTAMP '..'; begins again at any time."));
        }
        self.manual.store(to, Ordering::Relaxed);
        Ok(())
    }
}

impl Coordinator {
    /// Moves the clock, and with it what depends on it.
    pub fn move_clock(&mut self, change: ClockMove) -> Result<()> {
        self.shared.clock.change(change)?;
        let now = self.shared.clock.now_us();
        if matches!(change, ClockMove::System | ClockMove::Manual(_)) {
            self.inputs.values_mut().for_each(|route| route.start_again(now));
        }
        self.check_clock();
        Ok(())
    }

    /// Lets splits that have been silent for too long go, and the watermarks that they held.
    pub(super) fn check_clock(&mut self) {
        let now = self.shared.clock.now_us();
        let full = self.sinks_full();
        for (id, route) in self.inputs.iter_mut().filter(|(_, r)| r.can_idle()) {
            // Rows that wait for us are no silence, nor is a system that can't be reached.
            let waiting = full || self.feeds.iter().any(|feed| feed.relation == *id);
            let away = self.sources.get(id).is_some_and(|s| {
                matches!(lock(&s.state).state.as_str(), "unavailable" | "failed" | "starting")
            });
            if waiting || away {
                continue;
            }
            if let Some((column, w)) = route.tick(now) {
                self.watermarks.push((route.node, column, w));
            }
        }
    }

    /// Whether some input has to be looked at when its time has come.
    pub(super) fn watches_clock(&self) -> bool {
        self.inputs.values().any(|route| route.can_idle())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_hand_stands_still_and_never_goes_back() {
        let clock = Clock::default();
        assert!(clock.change(ClockMove::By(1)).is_err());
        clock.change(ClockMove::Manual(None)).expect("in hand");
        clock.change(ClockMove::To(100)).expect("the first time is free");
        clock.change(ClockMove::By(5)).expect("forward");
        assert_eq!(clock.now_us(), 105);
        assert!(clock.change(ClockMove::To(104)).is_err());
        clock.change(ClockMove::System).expect("let go");
        assert!(clock.now_us() > 1_000_000_000_000_000);
    }
}
