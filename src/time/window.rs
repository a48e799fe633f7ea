//! Window arithmetic: windows are `[start, end)`, aligned to the Unix epoch (plus an offset), with
//! `start = ts - (ts - offset) mod size` for timestamps before 1970 too.

/// Why a window can't be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowError {
    /// The size is zero or negative.
    SizeNotPositive,
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
}
