//! Engine time and event time: [`Epoch`], [`Watermark`], the merge of watermarks, and the
//! arithmetic of windows. Knows neither DataFusion nor operators.

mod calendar;
mod carry;
mod lateness;
mod watermark;
mod window;

pub use calendar::{Calendar, CalendarSize, Tumbling};
pub use carry::{Carry, TimeRole, WindowEdge};
pub use lateness::Lateness;
pub use watermark::{Watermark, WatermarkMerge};
pub use window::{Tumble, WindowError, Windows};

use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::TimestampMicrosecondType;

/// The number of a cut through all inputs: the unit in which answers become visible. Epoch 0 is the
/// empty engine; every later epoch is one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The empty engine.
    pub const ZERO: Epoch = Epoch(0);
    /// Later than every epoch: the end of a row that is still there.
    pub const MAX: Epoch = Epoch(u64::MAX);

    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The values of a time column in microseconds by row, [`i64::MAX`] (no time at all) for NULL.
pub fn event_times(column: &ArrayRef) -> Option<impl Fn(usize) -> i64> {
    let times = column.as_primitive_opt::<TimestampMicrosecondType>()?;
    Some(move |row| if times.is_null(row) { i64::MAX } else { times.value(row) })
}
