//! Places at which a test can have the process end at once, as `kill -9` would.
//!
//! `HEADWATER_FAILPOINT=name:n` ends it when the place of that name is reached for the n-th time.
//! There are none in a release build.

/// Names of the places, in the order in which a life, a checkpoint and its messages come to them.
pub const NAMES: [&str; 14] = [
    "checkpoint-restored",
    "log-replayed",
    "life-begun",
    "outbox-half-written",
    "outbox-written",
    "checkpoint-decided",
    "transaction-begun",
    "transaction-sent",
    "transaction-committed",
    "delivery-told",
    "delivery-noted",
    "outbox-removed",
    "run-half-merged",
    "run-merged",
];

/// A place that is reached.
#[cfg(debug_assertions)]
pub fn reach(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    static WANTED: OnceLock<Option<(String, AtomicI64)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("HEADWATER_FAILPOINT").ok()?;
        let (name, times) = text.split_once(':')?;
        Some((name.to_owned(), AtomicI64::new(times.parse().ok()?)))
    });
    if let Some((place, left)) = wanted
        && place == name
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        std::process::abort();
    }
}

/// A place that is reached.
#[cfg(not(debug_assertions))]
#[inline]
pub fn reach(_name: &str) {}
