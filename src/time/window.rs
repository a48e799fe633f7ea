//! Window arithmetic: windows are `[start, end)`, aligned to the Unix epoch (plus an offset), with
//! `start = ts - (ts - offset) mod size` for timestamps before 1970 too.
//!
//! A timestamp is in one window of [`Tumble`], and in any number of those of [`Windows`]: hopping
//! windows overlap, cumulating windows are nested. All boundaries of such windows are boundaries
//! of their *panes*, tumbling windows so narrow that all timestamps of a pane are in the same
//! windows. So rows can be aggregated by pane, and panes by window.

use std::fmt;

/// Why a window can't be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowError {
    /// The size is zero or negative.
    SizeNotPositive,
    /// The slide or step is zero or negative.
    SlideNotPositive,
    /// The size of cumulating windows is no multiple of their step.
    NotMultiple,
    /// A timestamp would be in more windows than allowed.
    TooMany,
    /// The window of this timestamp begins or ends outside of the range of timestamps.
    OutOfRange,
}

/// Tumbling windows of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tumble {
    size_us: i64,
    offset_us: i64,
}

impl Tumble {
    /// Windows of `size_us` microseconds, shifted by `offset_us`.
    pub fn new(size_us: i64, offset_us: i64) -> Result<Self, WindowError> {
        if size_us <= 0 {
            return Err(WindowError::SizeNotPositive);
        }
        Ok(Self { size_us, offset_us: offset_us.rem_euclid(size_us) })
    }

    /// The size in microseconds.
    pub fn size_us(self) -> i64 {
        self.size_us
    }

    /// The offset in microseconds, in `0..size`.
    pub fn offset_us(self) -> i64 {
        self.offset_us
    }

    /// The window of a timestamp, as start and end.
    #[inline]
    pub fn window_of(self, ts_us: i64) -> Result<(i64, i64), WindowError> {
        let shifted = ts_us.checked_sub(self.offset_us).ok_or(WindowError::OutOfRange)?;
        let start =
            ts_us.checked_sub(shifted.rem_euclid(self.size_us)).ok_or(WindowError::OutOfRange)?;
        let end = start.checked_add(self.size_us).ok_or(WindowError::OutOfRange)?;
        Ok((start, end))
    }
}

/// Windows of which a timestamp can be in several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Windows {
    /// Windows of one size that begin at every slide. With a slide greater than the size there are
    /// gaps between them.
    Hop(Overlap),
    /// Windows that begin where tumbling windows of the size do, and end at every step up to it.
    Cumulate(Overlap),
}

/// Size, slide or step, and offset of overlapping windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Overlap {
    size_us: i64,
    step_us: i64,
    offset_us: i64,
}

impl Windows {
    /// Hopping windows; a timestamp may be in at most `limit` of them.
    pub fn hop(
        slide_us: i64,
        size_us: i64,
        offset_us: i64,
        limit: usize,
    ) -> Result<Self, WindowError> {
        Overlap::new(size_us, slide_us, offset_us.rem_euclid(slide_us.max(1)), limit).map(Self::Hop)
    }

    /// Cumulating windows; a timestamp may be in at most `limit` of them.
    pub fn cumulate(
        step_us: i64,
        size_us: i64,
        offset_us: i64,
        limit: usize,
    ) -> Result<Self, WindowError> {
        let windows = Overlap::new(size_us, step_us, offset_us.rem_euclid(size_us.max(1)), limit)?;
        if size_us % step_us != 0 {
            return Err(WindowError::NotMultiple);
        }
        Ok(Self::Cumulate(windows))
    }

    /// Calls `each(start, end)` for the windows of a timestamp, ascending.
    #[inline]
    pub fn each(self, ts_us: i64, mut each: impl FnMut(i64, i64)) -> Result<(), WindowError> {
        let out_of_range = WindowError::OutOfRange;
        match self {
            Self::Hop(w) => {
                let low = ts_us.checked_sub(w.size_us).ok_or(out_of_range)?;
                // The first start above `low`.
                let mut start = w.grid().window_of(low)?.1;
                w.size_us.checked_add(ts_us).ok_or(out_of_range)?;
                while start <= ts_us {
                    each(start, start + w.size_us);
                    start = start.checked_add(w.step_us).ok_or(out_of_range)?;
                }
            }
            Self::Cumulate(w) => {
                let (start, last) =
                    Tumble { size_us: w.size_us, offset_us: w.offset_us }.window_of(ts_us)?;
                let mut end = start + ((ts_us - start) / w.step_us + 1) * w.step_us;
                while end <= last {
                    each(start, end);
                    match end.checked_add(w.step_us) {
                        Some(next) => end = next,
                        None => break,
                    }
                }
            }
        }
        Ok(())
    }

    /// The window with the least end among those of `ts_us` and all later timestamps, and the
    /// least start among them.
    pub fn first_from(self, ts_us: i64) -> Result<(i64, i64), WindowError> {
        let out_of_range = WindowError::OutOfRange;
        match self {
            Self::Hop(w) => {
                let low = ts_us.checked_sub(w.size_us).ok_or(out_of_range)?;
                let start = w.grid().window_of(low)?.1;
                Ok((start, start.checked_add(w.size_us).ok_or(out_of_range)?))
            }
            Self::Cumulate(w) => {
                let start =
                    Tumble { size_us: w.size_us, offset_us: w.offset_us }.window_of(ts_us)?.0;
                Ok((start, start + ((ts_us - start) / w.step_us + 1) * w.step_us))
            }
        }
    }

    /// The panes: all timestamps of one are in the same windows.
    pub fn panes(self) -> Tumble {
        let (w, width) = match self {
            Self::Hop(w) => (w, gcd(w.size_us, w.step_us)),
            Self::Cumulate(w) => (w, w.step_us),
        };
        Tumble { size_us: width, offset_us: w.offset_us.rem_euclid(width) }
    }

    /// The windows that a timestamp is in at most.
    pub fn per_row_max(self) -> usize {
        let [size, step, _] = self.parameters();
        usize::try_from(size / step.max(1)).unwrap_or(usize::MAX).saturating_add(1)
    }

    /// Size, slide or step, and offset, in microseconds.
    pub fn parameters(self) -> [i64; 3] {
        let (Self::Hop(w) | Self::Cumulate(w)) = self;
        [w.size_us, w.step_us, w.offset_us]
    }
}

impl Overlap {
    fn new(size_us: i64, step_us: i64, offset_us: i64, limit: usize) -> Result<Self, WindowError> {
        if size_us <= 0 {
            return Err(WindowError::SizeNotPositive);
        }
        if step_us <= 0 {
            return Err(WindowError::SlideNotPositive);
        }
        if size_us / step_us >= limit as i64 {
            return Err(WindowError::TooMany);
        }
        Ok(Self { size_us, step_us, offset_us })
    }

    /// The tumbling windows that begin where hopping windows do.
    fn grid(self) -> Tumble {
        Tumble { size_us: self.step_us, offset_us: self.offset_us }
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [size, step, offset] = self.parameters();
        let seconds = |us: i64| format!("{} s", us as f64 / 1e6);
        match self {
            Self::Hop(_) => write!(f, "hop {} of {}", seconds(step), seconds(size))?,
            Self::Cumulate(_) => write!(f, "cumulate {} to {}", seconds(step), seconds(size))?,
        }
        if offset != 0 {
            write!(f, " offset {}", seconds(offset))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_and_half_open() {
        let w = Tumble::new(10, 0).expect("positive");
        assert_eq!(w.window_of(0), Ok((0, 10)));
        assert_eq!(w.window_of(9), Ok((0, 10)));
        assert_eq!(w.window_of(10), Ok((10, 20)));
        assert_eq!(w.window_of(-1), Ok((-10, 0)));
        let shifted = Tumble::new(10, 3).expect("positive");
        assert_eq!(shifted.window_of(2), Ok((-7, 3)));
        assert_eq!(shifted.window_of(3), Ok((3, 13)));
        assert_eq!(w.window_of(i64::MIN), Err(WindowError::OutOfRange));
    }

    fn of(windows: Windows, ts: i64) -> Vec<(i64, i64)> {
        let mut found = Vec::new();
        windows.each(ts, |start, end| found.push((start, end))).expect("in range");
        found
    }

    #[test]
    fn a_timestamp_is_in_size_over_slide_hopping_windows() {
        let w = Windows::hop(5, 10, 0, 100).expect("valid");
        assert_eq!(of(w, 0), [(-5, 5), (0, 10)]);
        assert_eq!(of(w, 4), [(-5, 5), (0, 10)]);
        assert_eq!(of(w, 5), [(0, 10), (5, 15)]);
        assert_eq!(of(w, -1), [(-10, 0), (-5, 5)]);
        // With an offset; with a slide that does not divide the size; with gaps.
        assert_eq!(of(Windows::hop(5, 10, 2, 100).expect("valid"), 1), [(-8, 2), (-3, 7)]);
        let uneven = Windows::hop(4, 10, 0, 100).expect("valid");
        assert_eq!(of(uneven, 9), [(0, 10), (4, 14), (8, 18)]);
        assert_eq!(of(uneven, 10), [(4, 14), (8, 18)]);
        let gaps = Windows::hop(10, 3, 0, 100).expect("valid");
        assert_eq!(of(gaps, 12), [(10, 13)]);
        assert_eq!(of(gaps, 13), []);
        assert_eq!(w.each(i64::MIN, |_, _| {}), Err(WindowError::OutOfRange));
        assert_eq!(w.each(i64::MAX, |_, _| {}), Err(WindowError::OutOfRange));
        assert_eq!(Windows::hop(1, 100, 0, 100), Err(WindowError::TooMany));
    }

    #[test]
    fn cumulating_windows_begin_together() {
        let w = Windows::cumulate(5, 15, 0, 100).expect("valid");
        assert_eq!(of(w, 0), [(0, 5), (0, 10), (0, 15)]);
        assert_eq!(of(w, 5), [(0, 10), (0, 15)]);
        assert_eq!(of(w, 14), [(0, 15)]);
        assert_eq!(of(w, -1), [(-15, 0)]);
        assert_eq!(Windows::cumulate(4, 10, 0, 100), Err(WindowError::NotMultiple));
    }

    /// Every window of a later timestamp starts and ends there or later, and a pane's timestamps
    /// are in the same windows.
    #[test]
    fn first_window_and_panes_hold_for_all_timestamps() {
        let hops = [(5, 10, 0), (4, 10, 3), (10, 3, 1), (6, 9, 2), (7, 7, 0)];
        let hops = hops.map(|(slide, size, offset)| Windows::hop(slide, size, offset, 100));
        let cumulates = [(5, 15, 0), (2, 8, 3), (4, 4, 1)];
        let cumulates = cumulates.map(|(s, size, offset)| Windows::cumulate(s, size, offset, 100));
        for windows in hops.into_iter().chain(cumulates).map(|w| w.expect("valid")) {
            for ts in -40..40 {
                let later: Vec<_> = (ts..ts + 40).flat_map(|t| of(windows, t)).collect();
                let start = later.iter().map(|w| w.0).min().expect("some");
                let end = later.iter().map(|w| w.1).min().expect("some");
                let first = windows.first_from(ts).expect("in range");
                assert!(first.0 <= start && first.1 <= end, "{windows} {ts}");
                assert_eq!(first.1, end, "{windows} {ts}");
                let pane = windows.panes().window_of(ts).expect("in range").0;
                assert_eq!(of(windows, pane), of(windows, ts), "{windows} {ts}");
            }
        }
    }
}
