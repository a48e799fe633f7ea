//! The log: definitions and table writes in the order in which they count, kept before anybody is
//! told that they happened.
//!
//! Records have running numbers, their LSNs. What is written and synced together is one frame, a
//! *group*: since a group is written only after the one before it is on the disk, a group that is
//! not whole is the end of the log if no whole one follows, and damage otherwise. A group carries
//! the checksum of the one before it, so that nothing stale is ever taken for a record.
//!
//! A group's body: LSN of its first record (u64), checksum of the group before (u64), then the
//! records, each with kind (u8), length (u32) and bytes.
//!
//! Segments are files of zeros that are made ahead, because overwriting is the cheapest thing to
//! sync. A life never writes into a segment of an earlier one.

mod clean;
mod read;
mod record;
mod write;

pub use clean::clean;
pub use read::{End, Position, read};
pub use record::{Commit, Life, Part, Record, Write};
pub use write::Log;

/// The number of a record of the log.
pub type Lsn = u64;

/// The kind of a frame that is a group.
const GROUP: u8 = 1;

/// The name of a segment whose first record has this number.
fn segment_name(first: Lsn) -> String {
    format!("{first:020}.log")
}

/// The number in a segment's name.
fn segment_of(name: &str) -> Option<Lsn> {
    name.strip_suffix(".log")?.parse().ok()
}
