//! The clock: the one place where the engine asks what time it is.
//!
//! Tests and sessions can take it in hand (`SET CLOCK MANUAL`, `ADVANCE CLOCK ..`); then it stands
//! still between two statements. Operators never see it: what depends on time reaches them as
//! watermarks and inputs of an epoch, and as the epoch's own time, one for all of them.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use chrono::{DateTime, Utc};

use super::coordinator::Coordinator;
use super::shared::lock;
use crate::catalog::Definition;
use crate::config::{CLOCK_TICK_US, CLOCK_US};
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

    /// Moves it, but not to a time before `floor`.
    fn change(&self, change: ClockMove, floor: i64) -> Result<()> {
        let manual = self.manual.load(Ordering::Relaxed);
        let fresh = self.fresh.load(Ordering::Relaxed);
        let to = match change {
            ClockMove::System => SYSTEM,
            ClockMove::Manual(at) => in_range(at.unwrap_or_else(|| self.now_us()))?,
            ClockMove::By(_) | ClockMove::To(_) if manual == SYSTEM => {
                return Err(Error::user(
                    sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "the clock moves by itself",
                )
                .with_hint("SET CLOCK MANUAL; takes it in hand."));
            }
            ClockMove::By(us) => in_range(manual.saturating_add(us))?,
            ClockMove::To(us) => in_range(us)?,
        };
        let back = matches!(change, ClockMove::By(_) | ClockMove::To(_)) && to < manual;
        if back && !(fresh && matches!(change, ClockMove::To(_))) {
            return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, "the clock can't go back")
                .with_hint("SET CLOCK MANUAL AT TIMESTAMP '..'; begins again at any time."));
        }
        let time = if to == SYSTEM { Utc::now().timestamp_micros() } else { to };
        if time < floor {
            return Err(Error::user(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the clock can't go back while there are materialized views that follow it",
            )
            .with_detail("What has left them by the clock is forgotten.")
            .with_hint("Drop them first, and create them again."));
        }
        self.manual.store(to, Ordering::Relaxed);
        self.fresh.store(change == ClockMove::Manual(None), Ordering::Relaxed);
        Ok(())
    }

    /// The time that it stands at, when it is in hand.
    pub(super) fn manual_us(&self) -> Option<i64> {
        Some(self.manual.load(Ordering::Relaxed)).filter(|us| *us != SYSTEM)
    }

    /// Whether it stands still between statements.
    fn is_manual(&self) -> bool {
        self.manual.load(Ordering::Relaxed) != SYSTEM
    }
}

/// A time that the clock may stand at: far enough from the ends of what a timestamp holds that
/// views can add their intervals and windows to it.
fn in_range(us: i64) -> Result<i64> {
    match CLOCK_US.contains(&us) {
        true => Ok(us),
        false => Err(Error::user(sqlstate::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
            .with_detail("The clock is set from 0001-01-01 to 9999-12-31 23:59:59.999999.")),
    }
}

impl Coordinator {
    /// Moves the clock, and with it what depends on it.
    pub fn move_clock(&mut self, change: ClockMove) -> Result<()> {
        let followed = !self.graph.clocked().is_empty();
        let floor = if followed { self.now_us } else { i64::MIN };
        self.shared.clock.change(change, floor)?;
        self.note(&Definition::Clock(self.shared.clock.manual_us()), &[])?;
        let now = self.shared.clock.now_us();
        if !followed {
            // Nobody remembers what time it was.
            self.now_us = i64::MIN;
        }
        if matches!(change, ClockMove::System | ClockMove::Manual(_)) {
            self.inputs.values_mut().for_each(|route| route.start_again(now));
        }
        self.check_clock();
        Ok(())
    }

    /// Sets the clock as an earlier life has left it: in hand at a time, or moving by itself.
    pub fn set_clock(&mut self, manual_us: Option<i64>) {
        self.shared.clock.manual.store(manual_us.unwrap_or(SYSTEM), Ordering::Relaxed);
        if self.graph.clocked().is_empty() {
            // Nobody remembers what time it was.
            self.now_us = i64::MIN;
        }
        let now = self.shared.clock.now_us();
        self.inputs.values_mut().for_each(|route| route.start_again(now));
        self.check_clock();
    }

    /// Sets the clock of the epoch that begins, and wakes the nodes that follow it: all of an epoch
    /// is of one time, which never goes back.
    pub(super) fn tell_time(&mut self) {
        let now = self.shared.clock.now_us().max(self.now_us);
        if now > self.now_us {
            self.now_us = now;
            self.wake.extend(self.graph.clocked());
        }
    }

    /// Wakes the nodes that follow the clock when it has moved on far enough: at once where it is
    /// moved by hand.
    fn tick(&mut self) {
        let passed = self.shared.clock.now_us().saturating_sub(self.now_us);
        if passed >= CLOCK_TICK_US || (passed > 0 && self.shared.clock.is_manual()) {
            self.wake.extend(self.graph.clocked());
        }
    }

    /// Lets splits that have been silent for too long go, and the watermarks that they held; wakes
    /// what follows the clock.
    pub(super) fn check_clock(&mut self) {
        self.tick();
        let now = self.shared.clock.now_us();
        let held = self.held_nodes();
        for (id, route) in self.inputs.iter_mut().filter(|(_, r)| r.can_idle()) {
            // Rows that wait for us are no silence, nor is a system that can't be reached.
            let waiting =
                held.contains(&route.node) || self.feeds.iter().any(|feed| feed.relation == *id);
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

    /// Whether something has to be looked at when its time has come.
    pub(super) fn watches_clock(&self) -> bool {
        !self.graph.clocked().is_empty() || self.inputs.values().any(|route| route.can_idle())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_hand_stands_still_and_never_goes_back() {
        let clock = Clock::default();
        assert!(clock.change(ClockMove::By(1), 0).is_err());
        clock.change(ClockMove::Manual(None), 0).expect("in hand");
        clock.change(ClockMove::To(100), 0).expect("the first time is free");
        clock.change(ClockMove::By(5), 0).expect("forward");
        assert_eq!(clock.now_us(), 105);
        assert!(clock.change(ClockMove::To(104), 0).is_err());
        assert!(clock.change(ClockMove::Manual(Some(50)), 51).is_err());
        assert_eq!(clock.now_us(), 105);
        for beyond in [i64::MIN, i64::MAX, *CLOCK_US.start() - 1, *CLOCK_US.end() + 1] {
            for change in [ClockMove::Manual(Some(beyond)), ClockMove::To(beyond)] {
                let refused = clock.change(change, i64::MIN).map_err(|e| e.sqlstate());
                assert_eq!(refused, Err("22008"), "{change:?}");
            }
        }
        assert!(clock.change(ClockMove::By(i64::MAX), 0).is_err());
        assert_eq!(clock.now_us(), 105);
        clock.change(ClockMove::To(*CLOCK_US.end()), 0).expect("the last moment");
        assert_eq!(clock.now().to_string(), "9999-12-31 23:59:59.999999 UTC");
        clock.change(ClockMove::Manual(Some(*CLOCK_US.start())), i64::MIN).expect("the first");
        assert_eq!(clock.now().to_string(), "0001-01-01 00:00:00 UTC");
        clock.change(ClockMove::System, 0).expect("let go");
        assert!(clock.now_us() > 1_000_000_000_000_000);
    }
}
