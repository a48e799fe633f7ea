//! What has happened: the newest events, and a file of them, one JSON object a line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::catalog::system::EventLine;

/// Events that are kept.
const EVENTS_MAX: usize = 10_000;

/// Bytes of a file after which the next one begins; the one before the last is removed.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Failed logins: one is kept in so many microseconds.
const LOGIN: &str = "login";
const LOGIN_PAUSE_US: i64 = 1_000_000;

/// Bytes of what is said of one event.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// It was asked for, or all is well again.
    Info,
    /// Somebody should look at it when there is time.
    Warning,
    /// Something stands still.
    Error,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The events.
#[derive(Debug, Default)]
pub(super) struct Events {
    kept: VecDeque<EventLine>,
    last: i64,
    last_login_us: i64,
    path: Option<PathBuf>,
    /// Whether the last line could not be written, which is said once.
    unwritten: bool,
}

impl Events {
    /// What the files of a folder have; lines that are none are left out.
    pub(super) fn read(folder: &Path) -> Self {
        let path = folder.join("events");
        let mut events = Self::default();
        for path in [older(&path), path.clone()] {
            let Ok(file) = File::open(&path) else { continue };
            for text in BufReader::new(file).lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&text) {
                    events.keep(event);
                }
            }
        }
        super::end_line(&path);
        events.path = Some(path);
        events
    }

    pub(super) fn add(
        &mut self,
        at_us: i64,
        severity: super::Severity,
        kind: &str,
        object: &str,
        message: &str,
    ) {
        // Who guesses passwords must not push out what else has happened.
        if kind == LOGIN && at_us.saturating_sub(self.last_login_us) < LOGIN_PAUSE_US {
            return;
        }
        if kind == LOGIN {
            self.last_login_us = at_us;
        }
        let mut message = message.to_owned();
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
            message.push_str("..");
        }
        let event = EventLine {
            id: self.last + 1,
            at_us,
            severity: severity.word().to_owned(),
            kind: kind.to_owned(),
            object: object.to_owned(),
            message,
        };
        let written = self.path.as_ref().map_or(Ok(()), |path| write(path, &event));
        if let Err(error) = &written
            && !self.unwritten
        {
            tracing::warn!(%error, "events are not written down");
        }
        self.unwritten = written.is_err();
        self.keep(event);
    }

    fn keep(&mut self, event: EventLine) {
        self.last = self.last.max(event.id);
        if self.kept.len() >= EVENTS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
    }

    /// The events, the oldest first.
    pub(super) fn lines(&self) -> Vec<EventLine> {
        self.kept.iter().cloned().collect()
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("1")
}

fn write(path: &Path, event: &EventLine) -> std::io::Result<()> {
    super::append(path, &serde_json::to_string(event)?, FILE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn events_are_there_after_a_restart_but_for_torn_lines() {
        let folder = std::env::temp_dir().join(format!("events-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut events = Events::read(&folder);
        events.add(1, Severity::Info, "server", "", "started");
        events.add(2, Severity::Error, "sink", "s", &"ä".repeat(MESSAGE_BYTES_MAX));
        let mut file = File::options().append(true).open(folder.join("events")).expect("a file");
        write!(file, "{{\"id\": 3, \"at").expect("a torn line");
        let mut again = Events::read(&folder);
        assert_eq!(again.lines(), events.lines());
        assert!(again.lines()[1].message.len() <= MESSAGE_BYTES_MAX + 2);
        again.add(3, Severity::Warning, "source", "t", "away");
        let after = Events::read(&folder);
        assert_eq!(after.lines().last().map(|e| e.id), Some(3));
        std::fs::remove_dir_all(folder).expect("it is there");
    }
}
