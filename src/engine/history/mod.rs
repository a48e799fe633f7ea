//! What has happened and what was measured: the relations `headwater.events` and
//! `headwater.metrics`. With a data directory both are kept in its folder `history`, apart from
//! everything that counts: a file there that can't be read or written costs the past alone.
//!
//! Statements and logins say themselves what they have done ([`History::note`]); what relations,
//! sources and sinks come to is seen by [`Engine::watch`], which a server runs.
//!
//! [`Engine::watch`]: super::Engine::watch

mod definitions;
mod events;
mod metrics;
mod slow;
mod watch;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use events::Events;
use metrics::Metrics;

use crate::catalog::system::{EventLine, MetricLine, Past};

pub(crate) use events::Severity;

/// The folder in a data directory.
const FOLDER: &str = "history";

/// What is kept of the past.
#[derive(Debug, Default)]
pub(crate) struct History {
    // Plain mutexes: each is held for one look or one line, and never across an await.
    events: Mutex<Events>,
    metrics: Mutex<Metrics>,
}

impl History {
    /// Begins with what an earlier life has kept in a data directory, and keeps there what comes.
    pub(super) fn keep_in(&self, directory: &Path) {
        let folder = directory.join(FOLDER);
        if let Err(error) = std::fs::create_dir_all(&folder) {
            tracing::warn!(%error, "the past is not kept");
            return;
        }
        *whole(&self.events) = Events::read(&folder);
        *whole(&self.metrics) = Metrics::read(&folder);
    }

    /// Keeps what has happened to an object, and says it in the log.
    pub(crate) fn note(&self, severity: Severity, kind: &'static str, object: &str, message: &str) {
        match severity {
            Severity::Info => tracing::info!(kind, object, "{message}"),
            Severity::Warning => tracing::warn!(kind, object, "{message}"),
            Severity::Error => tracing::error!(kind, object, "{message}"),
        }
        let now_us = chrono::Utc::now().timestamp_micros();
        whole(&self.events).add(now_us, severity, kind, object, message);
    }
}

impl Past for History {
    fn events(&self) -> Vec<EventLine> {
        whole(&self.events).lines()
    }

    fn metrics(&self) -> Vec<MetricLine> {
        whole(&self.metrics).lines()
    }
}

/// What a mutex guards: each change is one push, so that it is whole after a panic, too.
fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Appends a line to a file; where that has become larger than it may it is the older one from now
/// on, in the place of the one that was.
fn append(path: &Path, line: &str, bytes_max: u64) -> std::io::Result<()> {
    use std::io::Write;
    if std::fs::metadata(path).is_ok_and(|file| file.len() > bytes_max) {
        std::fs::rename(path, path.with_extension("1"))?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}

/// Ends the last line of a file that was torn in the middle of it.
fn end_line(path: &Path) {
    let torn = std::fs::read(path).is_ok_and(|bytes| bytes.last().is_some_and(|b| *b != b'\n'));
    if torn && let Err(error) = append(path, "", u64::MAX) {
        tracing::warn!(%error, "a torn line stays");
    }
}
