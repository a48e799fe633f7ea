//! The `file` connector: one message per line (with ENCODE JSON: NDJSON), or per CSV record. Empty
//! lines are skipped.
//!
//! Source options:
//!
//! | option | meaning |
//! |---|---|
//! | `path` | a file, a comma list of files, or a directory |
//! | `mode` | `once` (default): the source ends where the files end; `follow`: it waits for more |
//!
//! Of a directory the files are taken, but no subdirectories and no names that begin with `.` or
//! `_`; the list is read once. Each file is a split, numbered in the order of the paths; a position
//! is the byte where the next line begins. A file that shrinks is an error: positions would lie.
//!
//! Sink options: `path`, a file that is created, or emptied when the sink is made, and
//! `primary_key` as for a topic. A line per message; messages without a value are left out, and
//! FORMAT UPSERT, which lives by them, is refused. After a failed write the file is cut back to the
//! last whole epoch.

mod carrier;
mod lines;
mod sink;
mod source;
pub mod stdin;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::{SinkConnector, SourceConnector};
use crate::error::{Error, sqlstate};

/// The entry in the registry of sources.
pub const SOURCE: SourceConnector =
    SourceConnector { name: "file", create: source::create, metadata: false, replays: true };

/// The entry in the registry of sinks.
pub const SINK: SinkConnector = SinkConnector {
    name: "file",
    mode: sink::mode,
    create: sink::create,
    keep: Some(carrier::keep),
    formats: true,
};

/// An error of the file system, with the path and what was tried.
fn io_error(verb: &str, path: &Path, e: &std::io::Error) -> Error {
    let path = path.display();
    let error = Error::external(sqlstate::IO_ERROR, format!("could not {verb} \"{path}\": {e}"));
    match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
            error.permanent().with_hint("Check the option path: it is a path on the server.")
        }
        _ => error,
    }
}
