//! A disk that is written to only as long as the lock of the data directory is ours.
//!
//! The system keeps the lock while the process lives, but somebody can remove or replace its file,
//! and on some network file systems a lock is lost while its process stands still. Then another
//! process may have the directory: what this one writes would go into files that the other has
//! read, or takes for its own. So ahead of what changes names or bytes, and behind what says that
//! something is on the disk, it is looked whether the file of the lock is still the one that was
//! locked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskFile, DiskRead, Lock};

/// The other process's.
#[derive(Debug)]
struct TakenOver;

impl std::fmt::Display for TakenOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the data directory is not locked by this process any more")
    }
}

impl std::error::Error for TakenOver {}

/// Whether an error says that the lock is gone.
pub(crate) fn is_taken_over(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TakenOver>())
}

/// The error that says so.
pub(crate) fn taken_over() -> io::Error {
    io::Error::other(TakenOver)
}

/// A disk and its lock.
#[derive(Debug, Clone)]
pub(crate) struct Guarded {
    disk: Arc<dyn Disk>,
    lock: Arc<dyn Lock>,
}

impl Guarded {
    pub(crate) fn new(disk: Arc<dyn Disk>, lock: Arc<dyn Lock>) -> Self {
        Self { disk, lock }
    }
}

/// An error when the lock is gone.
fn check(lock: &dyn Lock) -> io::Result<()> {
    match lock.is_held()? {
        true => Ok(()),
        false => Err(taken_over()),
    }
}

impl Disk for Guarded {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        check(self.lock.as_ref())?;
        self.disk.make_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)?;
        check(self.lock.as_ref())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        check(self.lock.as_ref())?;
        let file = self.disk.create(path)?;
        Ok(Box::new(GuardedFile { file, lock: Arc::clone(&self.lock) }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        self.disk.open(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        check(self.lock.as_ref())?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        check(self.lock.as_ref())?;
        self.disk.remove(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Arc<dyn Lock>> {
        self.disk.lock(path, owner)
    }

    fn can_fill(&self) -> bool {
        self.disk.can_fill()
    }

    fn requests(&self) -> Option<Arc<super::Requests>> {
        self.disk.requests()
    }

    fn local_dir(&self) -> Option<PathBuf> {
        self.disk.local_dir()
    }

    fn check_ours(&self) -> io::Result<()> {
        check(self.lock.as_ref())
    }
}

#[derive(Debug)]
struct GuardedFile {
    file: Box<dyn DiskFile>,
    lock: Arc<dyn Lock>,
}

impl DiskFile for GuardedFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        check(self.lock.as_ref())?;
        self.file.write_at(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        // What the other has not read does not count, and what it has read it has read whole.
        check(self.lock.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OsDisk;

    #[test]
    fn nothing_is_written_when_the_lock_is_gone() {
        let path = std::env::temp_dir().join(format!("headwater-guard-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        OsDisk.make_dir(&path).expect("made");
        let lock = OsDisk.lock(&path.join("LOCK"), "1").expect("locked");
        let disk = Guarded::new(Arc::new(OsDisk), lock);
        let mut file = disk.create(&path.join("a")).expect("created");
        file.write_at(0, b"x").expect("written");
        file.sync().expect("synced");
        std::fs::remove_file(path.join("LOCK")).expect("removed");
        let other = OsDisk.lock(&path.join("LOCK"), "2").expect("it is another file");
        let taken = |result: io::Result<()>| is_taken_over(&result.expect_err("it is not ours"));
        assert!(taken(file.write_at(1, b"y")));
        assert!(taken(file.sync()));
        assert!(taken(disk.rename(&path.join("a"), &path.join("b"))));
        assert!(taken(disk.create(&path.join("c")).map(drop)));
        assert_eq!(disk.read(&path.join("a")).expect("read"), b"x");
        drop(other);
        drop(std::fs::remove_dir_all(&path));
    }
}
