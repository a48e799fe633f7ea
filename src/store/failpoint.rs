//! Places at which a test can have the process end at once, as `kill -9` would.
//!
//! `HEADWATER_FAILPOINT=name:n` ends it when the place of that name is reached for the n-th time.
//! At others it can be kept for a while. There are none in a release build.

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

/// A place at which a test can keep the process for as long as a file is there:
/// `HEADWATER_HOLD=name:path`.
#[cfg(debug_assertions)]
pub async fn pause(name: &str) {
    let wanted = std::env::var("HEADWATER_HOLD").ok();
    let Some((place, path)) = wanted.as_deref().and_then(|text| text.split_once(':')) else {
        return;
    };
    while place == name && std::path::Path::new(path).exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A place at which a test can keep the process.
#[cfg(not(debug_assertions))]
#[inline]
pub async fn pause(_name: &str) {}

/// A place that is reached.
#[cfg(not(debug_assertions))]
#[inline]
pub fn reach(_name: &str) {}
