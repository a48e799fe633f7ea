//! Work of a statement that computes for long without awaiting: it must not hold a thread that
//! other connections are served by.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Rows that are worked on in a few milliseconds.
const LIGHT_ROWS: usize = 4_096;

/// Does work over rows here; where these are many, after the other tasks of this thread have been
/// given to another one (which costs some 20 us).
pub(super) fn heavy<T>(rows: usize, work: impl FnOnce() -> T) -> T {
    let shared = Handle::try_current()
        .is_ok_and(|h| matches!(h.runtime_flavor(), RuntimeFlavor::MultiThread));
    match rows > LIGHT_ROWS && shared {
        true => tokio::task::block_in_place(work),
        false => work(),
    }
}
