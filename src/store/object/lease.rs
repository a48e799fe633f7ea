//! Who has a directory in an object store open: an object that is written again every few seconds.
//!
//! It keeps nobody out, the journal does. It tells a second process, which would end the first one,
//! that there is one.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::remote::Remote;

/// How often it is written.
pub(super) const BEAT: Duration = Duration::from_secs(5);

/// How long it is watched for somebody else's sign of life.
pub(super) const WATCH: Duration = Duration::from_secs(12);

const NAME: &str = "LOCK";

/// Who has it open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    /// The number of the life.
    pub(super) life: u64,
    /// The process, and the machine that it runs on.
    pub(super) pid: u32,
    pub(super) host: String,
    /// How often it was written.
    pub(super) beat: u64,
}

impl Lease {
    /// That of this process.
    pub(super) fn own(life: u64) -> Self {
        Self { life, pid: std::process::id(), host: host(), beat: 0 }
    }

    /// The one that is there.
    pub(super) fn read(remote: &Remote) -> io::Result<Option<Self>> {
        match remote.get(NAME) {
            // One that can't be read is of nobody who is known.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write(&self, remote: &Remote) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        remote.put(NAME, bytes.into())
    }

    /// Says that nobody has it open.
    pub(super) fn remove(remote: &Remote) -> io::Result<()> {
        remote.remove(NAME)
    }

    /// Whether its process is known to have ended, or is this one: of another machine nobody knows.
    pub(super) fn has_ended(&self) -> bool {
        if self.host != host() {
            return false;
        }
        self.pid == std::process::id()
            || cfg!(target_os = "linux")
                && !std::path::Path::new(&format!("/proc/{}", self.pid)).exists()
    }
}

impl std::fmt::Display for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.pid, self.host)
    }
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok());
    name.map_or_else(|| "an unknown host".to_owned(), |name| name.trim().to_owned())
}
