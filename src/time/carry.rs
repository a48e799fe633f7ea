//! How a watermark of one column becomes one of a column computed from it: the monotone functions
//! of event time.
//!
//! A watermark `w` of a column says that rows still to come have values `>= w`, so a carry gives
//! the least value that its function has on timestamps `>= w`. Hence one rule closes windows,
//! whatever the column: a value below its column's watermark is closed. With `[0, 10)` and a
//! watermark of 9 the end column has the watermark 10 and the window is open; with 10 it has 20.

use super::{Tumbling, Watermark, Windows};

/// Which instant of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowEdge {
    /// The first instant.
    Start,
    /// The first instant behind it.
    End,
    /// One millisecond before the end.
    Time,
}

/// A monotone function of a time column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carry {
    /// The column itself.
    Same,
    /// An edge of its tumbling window.
    Tumble(WindowEdge, Tumbling),
    /// An edge of the windows that it is in.
    Windows(WindowEdge, Windows),
    /// The column itself, whose rows are taken for so many microseconds longer: ALLOWED LATENESS.
    Late(i64),
}

impl Carry {
    /// The watermark of the computed column.
    pub fn apply(self, w: Watermark) -> Watermark {
        match self {
            Self::Late(us) => w.with_lateness(us),
            _ => w.map_us(|us| self.apply_us(us)),
        }
    }

    /// The same in microseconds, of the first bound; the ends of the range stand for the infinities
    /// and stay.
    #[inline]
    pub fn apply_us(self, us: i64) -> i64 {
        if us == i64::MIN || us == i64::MAX {
            return us;
        }
        // Rows at `us` or later have windows that start, and end, at this one's edges or later.
        let (edge, window) = match self {
            Self::Same => return us,
            Self::Late(late) => return us.saturating_sub(late).max(i64::MIN + 1),
            Self::Tumble(edge, tumble) => (edge, tumble.window_of(us)),
            Self::Windows(edge, windows) => (edge, windows.first_from(us)),
        };
        // No row has a window outside of the range of timestamps.
        let Ok((start, end)) = window else { return if us < 0 { i64::MIN } else { us } };
        match edge {
            WindowEdge::Start => start,
            WindowEdge::End => end,
            WindowEdge::Time => end - 1_000,
        }
    }

    /// The window that a value of the computed column names, as start and end, where it names one.
    pub fn window(self, value: i64) -> Option<(i64, i64)> {
        let (edge, size) = match self {
            Self::Tumble(edge, tumble) => {
                let within = match edge {
                    WindowEdge::Start => value,
                    WindowEdge::End => value.checked_sub(1)?,
                    WindowEdge::Time => value.checked_add(1_000 - 1)?,
                };
                return tumble.window_of(within).ok();
            }
            Self::Windows(edge, Windows::Hop(w)) => (edge, Windows::Hop(w).parameters()[0]),
            // The start of a cumulating window is that of several.
            Self::Same | Self::Late(_) | Self::Windows(_, Windows::Cumulate(_)) => return None,
        };
        let end = match edge {
            WindowEdge::Start => value.checked_add(size)?,
            WindowEdge::End => value,
            WindowEdge::Time => value.checked_add(1_000)?,
        };
        Some((end.checked_sub(size)?, end))
    }

    /// Whether both name the same window by one of its edges.
    pub fn same_window(self, other: Self) -> bool {
        match (self, other) {
            (Self::Tumble(_, a), Self::Tumble(_, b)) => a == b,
            (Self::Windows(_, a), Self::Windows(_, b)) => a == b,
            _ => false,
        }
    }

    /// What the computed column stands for.
    pub fn role(self) -> TimeRole {
        match self {
            Self::Same | Self::Late(_) => TimeRole::Instant,
            Self::Tumble(edge, _) | Self::Windows(edge, _) => match edge {
                WindowEdge::Start => TimeRole::WindowStart,
                WindowEdge::End => TimeRole::WindowEnd,
                WindowEdge::Time => TimeRole::Instant,
            },
        }
    }
}

/// What a time column stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimeRole {
    /// The first instant of a window, which several windows can have.
    WindowStart,
    /// A point in time.
    Instant,
    /// The first instant behind a window.
    WindowEnd,
}

#[cfg(test)]
mod tests {
    use super::super::Tumble;
    use super::*;

    #[test]
    fn a_window_closes_when_its_end_is_reached() {
        let window = Tumbling::Fixed(Tumble::new(10, 0).expect("positive"));
        let start = Carry::Tumble(WindowEdge::Start, window);
        let end = Carry::Tumble(WindowEdge::End, window);
        // The window [0, 10): open while its end is not below the watermark of ends.
        assert_eq!((start.apply_us(9), end.apply_us(9)), (0, 10));
        assert_eq!((start.apply_us(10), end.apply_us(10)), (10, 20));
        assert_eq!((start.window(0), end.window(10)), (Some((0, 10)), Some((0, 10))));
        assert_eq!(end.apply(Watermark::MAX), Watermark::MAX);
        assert_eq!(end.apply(Watermark::MIN), Watermark::MIN);
    }
}
