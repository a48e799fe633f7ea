//! The journal of a directory in an object store: one sequence of objects over all lives.
//!
//! An entry is an object `journal/<number>` that is made only if there is none of that name. So
//! whoever writes the next one has the directory: a life begins with an entry of its own, and what
//! an earlier one tries to write from there on fails, whether it slept, was cut off, or has never
//! been told. Every now and then an entry says all that there is, and those before it are removed.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::entry::{Change, Entry};
use super::files::Files;
use super::remote::Remote;
use crate::error::Error;
use crate::store::directory::damaged;
use crate::store::guarded::taken_over;

/// Entries behind the last whole one from which on there is another one, when they are as large as
/// that; and however small they are.
const LONG: (u64, u64) = (256, 4096);

/// Pauses between attempts to write an entry.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often somebody is told that the store does not answer.
const COMPLAINT: Duration = Duration::from_secs(10);

/// How far a journal has been read or written.
#[derive(Debug, Default, Clone)]
pub(super) struct Journal {
    /// The number of the next entry.
    pub(super) next: u64,
    /// The oldest one that may be there.
    first: u64,
    /// The last life that has begun.
    pub(super) life: u64,
    /// The last entry that says everything, and its bytes.
    whole: (u64, usize),
    /// Bytes of entries behind it.
    bytes: usize,
}

/// The name of an entry's object.
fn name_of(number: u64) -> String {
    format!("journal/{number:020}")
}

/// How often a journal is read anew of which a part has gone meanwhile: somebody has said
/// everything anew.
const TRIES: usize = 5;

/// What a journal says of the directory.
pub(super) fn load(remote: &Remote) -> io::Result<(Journal, Files)> {
    for _ in 0..TRIES {
        if let Some(loaded) = try_load(remote)? {
            return Ok(loaded);
        }
    }
    Err(io::Error::other(
        damaged("a part of the journal is gone")
            .with_hint("Restore the objects of the directory from a backup."),
    ))
}

/// `None`: what is there does not begin with an entry that says everything, or has a gap behind it.
fn try_load(remote: &Remote) -> io::Result<Option<(Journal, Files)>> {
    let numbers: Vec<u64> =
        remote.list("journal")?.iter().filter_map(|name| name.parse().ok()).collect();
    let entries = remote.get_all(numbers.iter().map(|number| name_of(*number)).collect())?;
    let mut journal = Journal { next: 1, first: 1, ..Journal::default() };
    let mut files = Files::default();
    let Some(first) = numbers.first() else { return Ok(Some((journal, files))) };
    journal.first = *first;
    let mut begun = false;
    for (number, bytes) in numbers.into_iter().zip(entries) {
        let Some(bytes) = bytes else { continue };
        let at = |error: Error| io::Error::other(error.context(name_of(number)));
        let entry = Entry::decode(&bytes).map_err(at)?;
        let anew = entry.changes.first() == Some(&Change::Anew);
        if !anew && (!begun || number != journal.next) {
            // Those in front of a whole one are removed in any order.
            begun = false;
            journal.life = journal.life.max(entry.life);
            continue;
        }
        begun = true;
        journal.next = number;
        journal.take(&entry, bytes.len());
        for change in entry.changes {
            files.apply(change).map_err(at)?;
        }
    }
    Ok(begun.then_some((journal, files)))
}

/// Reads what has come since; false when it is not known from where.
pub(super) fn follow(
    remote: &Remote,
    journal: &mut Journal,
    each: &mut dyn FnMut(Change) -> Result<(), Error>,
) -> io::Result<bool> {
    loop {
        let bytes = match remote.get(&name_of(journal.next)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Either there is none yet, or it has been removed with all before a whole one.
                let names = remote.list("journal")?;
                let numbers = names.iter().filter_map(|name| name.parse::<u64>().ok());
                return Ok(numbers.max().is_none_or(|last| last < journal.next));
            }
            Err(error) => return Err(error),
        };
        let at = |error: Error| io::Error::other(error.context(name_of(journal.next)));
        let entry = Entry::decode(&bytes).map_err(at)?;
        let changes = entry.changes.clone();
        for change in changes {
            each(change).map_err(at)?;
        }
        journal.take(&entry, bytes.len());
    }
}

impl Journal {
    /// Counts the next entry.
    fn take(&mut self, entry: &Entry, bytes: usize) {
        if entry.changes.first() == Some(&Change::Anew) {
            (self.whole, self.bytes) = ((self.next, bytes), 0);
        } else {
            self.bytes += bytes;
        }
        self.life = self.life.max(entry.life);
        self.next += 1;
    }

    /// Whether a life may begin here: it does, unless somebody else has written meanwhile.
    pub(super) fn begin_life(&mut self, remote: &Remote) -> io::Result<bool> {
        let mut changes = vec![Change::Life];
        if self.next == 1 {
            changes.insert(0, Change::Anew);
        }
        let entry = Entry { life: self.life + 1, nonce: draw()?, changes };
        let bytes = entry.encode();
        let begun = self.put(remote, &bytes)?;
        if begun {
            self.take(&entry, bytes.len());
        }
        Ok(begun)
    }

    /// Writes an entry, however long that takes: what it says is there then. An error when somebody
    /// else has begun a life, or `wanted` says that nobody waits any more.
    pub(super) fn write(
        &mut self,
        remote: &Remote,
        changes: Vec<Change>,
        wanted: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        let entry = Entry { life: self.life, nonce: draw()?, changes };
        let bytes = entry.encode();
        let began = Instant::now();
        let (mut pause, mut told) = (BACKOFF.0, began);
        loop {
            match self.put(remote, &bytes) {
                Ok(true) => {
                    self.take(&entry, bytes.len());
                    let requests = remote.requests();
                    requests.entries.fetch_add(1, Ordering::Relaxed);
                    let us = began.elapsed().as_micros() as u64;
                    requests.entry_us.fetch_add(us, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(false) => return Err(taken_over()),
                Err(error) if !wanted() => return Err(error),
                Err(error) => {
                    if told.elapsed() >= COMPLAINT || pause == BACKOFF.0 {
                        tracing::warn!(%error, "the object store does not take what is written");
                        told = Instant::now();
                    }
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// False when somebody else has written the next entry.
    fn put(&self, remote: &Remote, bytes: &Bytes) -> io::Result<bool> {
        let name = name_of(self.next);
        if remote.put_new(&name, bytes.clone())? {
            return Ok(true);
        }
        // It may be ours: the answer of an earlier attempt was lost.
        Ok(remote.get(&name)? == bytes)
    }

    /// Whether the next entry had better say everything.
    pub(super) fn is_long(&self) -> bool {
        let entries = self.next - self.whole.0;
        entries >= LONG.1 || entries >= LONG.0 && self.bytes >= self.whole.1
    }

    /// Names of the objects that are not needed since the last entry says everything.
    pub(super) fn take_old(&mut self) -> Vec<String> {
        let first = std::mem::replace(&mut self.first, self.whole.0);
        (first..self.whole.0).map(name_of).collect()
    }
}

fn draw() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}
