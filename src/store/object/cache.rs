//! What this machine has of the objects: files with the blocks that were read, up to a limit.
//!
//! Objects are never changed, so a file that has a whole one is good for later processes, too. Who
//! reads on and on is read ahead for.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::remote::Remote;
use crate::store::disk::{Disk, OsDisk, private, read_at, write_at};

/// Bytes that are asked for at least.
const BLOCK: u64 = 1 << 20;

/// Blocks that are read ahead at most.
const AHEAD_MAX: u64 = 16;

/// What a file is called that does not have the whole object.
const PART: &str = "part";

/// Files with what was read of objects.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    /// It goes with this: another process has the one that stays.
    passing: bool,
    limit: u64,
    held: Mutex<Held>,
    clock: AtomicU64,
    /// Keeps other processes out.
    _lock: File,
}

#[derive(Debug, Default)]
struct Held {
    entries: HashMap<String, Arc<Entry>>,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    name: String,
    file: File,
    length: u64,
    used: AtomicU64,
    /// Of those that all entries hold; changed where these are.
    bytes: AtomicU64,
    // Held while blocks come, so that nobody asks for them twice.
    blocks: Mutex<Blocks>,
}

#[derive(Debug)]
struct Blocks {
    present: Vec<bool>,
    missing: usize,
    /// Where the last read ended, and how many blocks are asked for when the next goes on there.
    last_end: u64,
    ahead: u64,
}

impl Drop for Cache {
    fn drop(&mut self) {
        if self.passing {
            // Whoever takes a folder of this name next removes what is left.
            drop(std::fs::remove_dir_all(&self.dir));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    /// Opens the files of a store below a folder. Where another process has them, this one begins
    /// with none.
    pub(super) fn open(parent: &Path, store: &str, limit: u64) -> io::Result<Self> {
        let mut taken = Self::take(parent.join(store))?;
        let passing = taken.is_none();
        for n in 1.. {
            let Some((dir, lock)) = taken else {
                taken = Self::take(parent.join(format!("{store}-{n}")))?;
                continue;
            };
            return Self::of(dir, passing, limit, lock);
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn of(dir: PathBuf, passing: bool, limit: u64, lock: File) -> io::Result<Self> {
        let (held, clock) = (Mutex::default(), AtomicU64::new(0));
        let cache = Self { dir, passing, limit, held, clock, _lock: lock };
        cache.find()?;
        Ok(cache)
    }

    fn take(dir: PathBuf) -> io::Result<Option<(PathBuf, File)>> {
        OsDisk.make_dir(&dir)?;
        let lock = private(OpenOptions::new().write(true).create(true)).open(dir.join("LOCK"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some((dir, lock))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes over what an earlier process has left.
    fn find(&self) -> io::Result<()> {
        let mut held = lock(&self.held);
        for found in std::fs::read_dir(&self.dir)? {
            let found = found?;
            let name = found.file_name().to_string_lossy().into_owned();
            let (object, ending) = name.split_once('.').unwrap_or((&name, ""));
            let numbers = object.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
            if !numbers {
                // What else is kept here: who has it, the past, a password.
                continue;
            }
            if !ending.is_empty() {
                std::fs::remove_file(found.path())?;
                continue;
            }
            let file = OpenOptions::new().read(true).write(true).open(found.path())?;
            let length = file.metadata()?.len();
            held.bytes += length;
            let entry = Entry::new(&name, file, length, true);
            held.entries.insert(name, Arc::new(entry));
        }
        Ok(())
    }

    /// Where temporary files and what is not kept in the store may lie.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new file, for what is written.
    pub(super) fn scratch(&self, number: u64) -> io::Result<(PathBuf, File)> {
        let path = self.dir.join(format!("{number}.new"));
        let mut options = OpenOptions::new();
        let file = private(options.read(true).write(true).create(true).truncate(true));
        Ok((path.clone(), file.open(&path)?))
    }

    /// Takes a file over that has a whole object.
    pub(super) fn adopt(&self, name: &str, path: &Path, file: &File, length: u64) {
        let mut held = lock(&self.held);
        // Somebody may have read it meanwhile, from the store.
        self.drop_entry(&mut held, name);
        let adopted = std::fs::rename(path, self.dir.join(name)).and_then(|()| file.try_clone());
        let Ok(file) = adopted else {
            // It is read from the store then.
            drop(std::fs::remove_file(path));
            return;
        };
        let entry = Arc::new(Entry::new(name, file, length, true));
        entry.used.store(self.tick(), Ordering::Relaxed);
        held.bytes += length;
        held.entries.insert(name.to_owned(), entry);
        self.shrink(&mut held, name);
    }

    /// Forgets an object.
    pub(super) fn forget(&self, name: &str) {
        let mut held = lock(&self.held);
        self.drop_entry(&mut held, name);
    }

    /// Forgets all objects but these.
    pub(super) fn retain(&self, keep: &dyn Fn(&str) -> bool) {
        let mut held = lock(&self.held);
        let gone: Vec<String> = held.entries.keys().filter(|name| !keep(name)).cloned().collect();
        gone.iter().for_each(|name| self.drop_entry(&mut held, name));
    }

    /// Fills the buffer from an offset in an object.
    pub(super) fn read_at(
        &self,
        remote: &Remote,
        (name, length): (&str, u64),
        offset: u64,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        if end > length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if buffer.is_empty() {
            return Ok(());
        }
        let Ok(entry) = self.entry(name, length) else {
            // A disk that is full is no reason not to read.
            return fill(buffer, &remote.get_range(&object_name(name), offset..end)?);
        };
        entry.used.store(self.tick(), Ordering::Relaxed);
        let mut blocks = lock(&entry.blocks);
        let missing = blocks.missing(offset..end, length);
        let mut fetched = 0;
        for range in missing {
            let bytes = remote.get_range(&object_name(name), range.clone())?;
            if write_at(&entry.file, range.start, &bytes).is_err() {
                return fill(buffer, &remote.get_range(&object_name(name), offset..end)?);
            }
            blocks.note(&range);
            fetched += range.end - range.start;
        }
        let whole = fetched > 0 && blocks.missing == 0;
        drop(blocks);
        read_at(&entry.file, offset, buffer)?;
        if fetched > 0 {
            self.note(&entry, fetched, whole);
        }
        Ok(())
    }

    /// Counts what has come, unless its file was let go meanwhile.
    fn note(&self, entry: &Arc<Entry>, fetched: u64, whole: bool) {
        let mut held = lock(&self.held);
        if !held.entries.get(&entry.name).is_some_and(|there| Arc::ptr_eq(there, entry)) {
            return;
        }
        held.bytes += fetched;
        entry.bytes.fetch_add(fetched, Ordering::Relaxed);
        if whole {
            // Where that fails a later process reads it again.
            drop(std::fs::rename(self.part(&entry.name), self.dir.join(&entry.name)));
        }
        self.shrink(&mut held, &entry.name);
    }

    /// Gets all of an object, if there is room for it beside what is there.
    pub(super) fn fetch(&self, remote: &Remote, (name, length): (&str, u64)) -> io::Result<()> {
        let (there, free) = {
            let held = lock(&self.held);
            let there = held.entries.get(name).map_or(0, |e| e.bytes.load(Ordering::Relaxed));
            (there, self.limit.saturating_sub(held.bytes))
        };
        if there >= length || length - there > free {
            return Ok(());
        }
        let mut piece = vec![0; (AHEAD_MAX * BLOCK) as usize];
        for from in (0..length).step_by(piece.len()) {
            let piece = &mut piece[..(length - from).min(AHEAD_MAX * BLOCK) as usize];
            self.read_at(remote, (name, length), from, piece)?;
        }
        Ok(())
    }

    fn entry(&self, name: &str, length: u64) -> io::Result<Arc<Entry>> {
        let mut held = lock(&self.held);
        if let Some(entry) = held.entries.get(name).filter(|entry| entry.length == length) {
            return Ok(Arc::clone(entry));
        }
        self.drop_entry(&mut held, name);
        let mut options = OpenOptions::new();
        let options = private(options.read(true).write(true).create(true).truncate(true));
        let file = options.open(self.part(name))?;
        file.set_len(length)?;
        let entry = Arc::new(Entry::new(name, file, length, false));
        held.entries.insert(name.to_owned(), Arc::clone(&entry));
        Ok(entry)
    }

    /// Lets go of what was not read for the longest time, but for one.
    fn shrink(&self, held: &mut Held, but: &str) {
        while held.bytes > self.limit {
            let others = held.entries.values().filter(|entry| entry.name != but);
            let oldest = others.min_by_key(|entry| entry.used.load(Ordering::Relaxed));
            let Some(name) = oldest.map(|entry| entry.name.clone()) else { return };
            self.drop_entry(held, &name);
        }
    }

    fn drop_entry(&self, held: &mut Held, name: &str) {
        let Some(entry) = held.entries.remove(name) else { return };
        // Whoever reads it has it open.
        drop(std::fs::remove_file(self.dir.join(name)));
        drop(std::fs::remove_file(self.part(name)));
        held.bytes = held.bytes.saturating_sub(entry.bytes.load(Ordering::Relaxed));
    }

    fn part(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.{PART}"))
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

impl Entry {
    fn new(name: &str, file: File, length: u64, whole: bool) -> Self {
        let count = length.div_ceil(BLOCK) as usize;
        let missing = if whole { 0 } else { count };
        let blocks = Blocks { present: vec![whole; count], missing, last_end: 0, ahead: 1 };
        Self {
            name: name.to_owned(),
            file,
            length,
            used: AtomicU64::new(0),
            bytes: AtomicU64::new(if whole { length } else { 0 }),
            blocks: Mutex::new(blocks),
        }
    }
}

impl Blocks {
    /// What has to be asked for so that a range can be read, and what is read ahead.
    fn missing(&mut self, range: Range<u64>, length: u64) -> Vec<Range<u64>> {
        let goes_on = range.start == self.last_end;
        self.last_end = range.end;
        self.ahead = if goes_on { self.ahead } else { 1 };
        let (first, mut end) = (range.start / BLOCK, range.end.div_ceil(BLOCK));
        let mut missing = Vec::new();
        if (first..end).any(|block| !self.present[block as usize]) && goes_on {
            self.ahead = (self.ahead * 2).min(AHEAD_MAX);
            end = end.max(first + self.ahead).min(self.present.len() as u64);
        }
        for block in (first..end).filter(|block| !self.present[*block as usize]) {
            let (from, to) = (block * BLOCK, length.min((block + 1) * BLOCK));
            match missing.last_mut() {
                Some(Range { end, .. }) if *end == from => *end = to,
                _ => missing.push(from..to),
            }
        }
        missing
    }

    fn note(&mut self, range: &Range<u64>) {
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            if !std::mem::replace(&mut self.present[block as usize], true) {
                self.missing -= 1;
            }
        }
    }
}

/// The object that a cached file is of.
pub(super) fn object_name(name: &str) -> String {
    format!("file/{name}")
}

fn fill(buffer: &mut [u8], bytes: &[u8]) -> io::Result<()> {
    if bytes.len() != buffer.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.copy_from_slice(bytes);
    Ok(())
}
