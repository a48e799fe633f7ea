//! The data directory: who has it open, and whether this program can read it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, Lock, put};
use super::guarded::{Guarded, is_taken_over};
use crate::error::{Error, Result, sqlstate};

/// The version of the layout that this program makes.
const FORMAT: u32 = 1;

/// A file that is given up when the disk is full, in a data directory.
pub(crate) const BALLAST: &str = "ballast";

/// That of a directory with savepoints, of which older programs would remove what these need.
const FORMAT_SAVEPOINTS: u32 = 2;

/// A data directory that this process has to itself.
#[derive(Debug)]
pub struct Directory {
    /// The disk that it is on.
    pub disk: Arc<dyn Disk>,
    /// Where it is.
    pub path: PathBuf,
    /// Its own number, drawn when it was made.
    pub id: u64,
    /// Whether it was there before.
    pub found: Found,
    /// What keeps others out, as long as it is held.
    pub lock: Arc<dyn Lock>,
}

/// Whether a data directory was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It was made now, or it was empty.
    New,
    /// An earlier process has left it.
    Old,
}

impl Directory {
    /// Opens a directory, which is made when it does not exist.
    ///
    /// # Errors
    ///
    /// 55006 when another process has it open, 58030 when the disk fails, XX001 when it
    /// is damaged, 0A000 when it is of a newer program.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let failed = |error: io::Error| disk_error(&error, path);
        disk.make_dir(path).map_err(failed)?;
        let lock_path = path.join("LOCK");
        // Whoever is refused because of us is told who we are.
        let lock = match disk.lock(&lock_path, &format!("{}\n", std::process::id())) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(is_open(disk.as_ref(), path));
            }
            Err(error) => return Err(failed(error)),
        };
        let disk: Arc<dyn Disk> = Arc::new(Guarded::new(disk, Arc::clone(&lock)));
        let names = disk.list(path).map_err(failed)?;
        let (id, found) = match names.iter().any(|name| name == "FORMAT") {
            true => (read_format(disk.as_ref(), path)?.1, Found::Old),
            false => (make(disk.as_ref(), path, &names)?, Found::New),
        };
        disk.make_dir(&path.join("log")).map_err(failed)?;
        disk.sync_dir(path).map_err(failed)?;
        Ok(Self { disk, path: path.to_owned(), id, found, lock })
    }
}

impl Drop for Directory {
    /// Whoever opens it next need not wait for those who still know its disk: they can't write.
    fn drop(&mut self) {
        self.lock.release();
    }
}

/// Makes the `FORMAT` of a new directory.
fn make(disk: &dyn Disk, path: &Path, names: &[String]) -> Result<u64> {
    // Something else that is in the way of nothing (`lost+found`) may be there; a log may not.
    if names.iter().any(|name| name == "log") {
        let shown = path.display();
        return Err(damaged(format!("data directory \"{shown}\" has a log and no FORMAT"))
            .with_hint("Restore the file FORMAT from a backup, or name another directory."));
    }
    let id = getrandom::u64().map_err(|e| Error::internal(e.to_string()))?;
    write_format(disk, path, FORMAT, id)?;
    Ok(id)
}

fn write_format(disk: &dyn Disk, path: &Path, format: u32, id: u64) -> Result<()> {
    let text = format!("headwater data {format}\n{id:016x}\n");
    put(disk, &path.join("FORMAT"), text.as_bytes()).map_err(|e| disk_error(&e, path))
}

/// Keeps programs out that know nothing of savepoints.
pub(crate) fn needs_savepoints(disk: &dyn Disk, path: &Path) -> Result<()> {
    match read_format(disk, path)? {
        (FORMAT_SAVEPOINTS, _) => Ok(()),
        (_, id) => write_format(disk, path, FORMAT_SAVEPOINTS, id),
    }
}

/// The version and the number of a directory.
fn read_format(disk: &dyn Disk, path: &Path) -> Result<(u32, u64)> {
    let file = path.join("FORMAT");
    let bytes = disk.read(&file).map_err(|e| disk_error(&e, &file))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.strip_prefix("headwater data "));
    let version = version.and_then(|v| v.parse::<u32>().ok());
    match (version, lines.next().and_then(|id| u64::from_str_radix(id, 16).ok())) {
        (Some(version @ FORMAT..=FORMAT_SAVEPOINTS), Some(id)) => Ok((version, id)),
        (Some(newer), _) if newer > FORMAT_SAVEPOINTS => Err(Error::unsupported(format!(
            "data directory \"{}\" has format {newer}; this program reads format \
             {FORMAT_SAVEPOINTS}",
            path.display()
        ))
        .with_hint("Use the program that wrote it, or a newer one.")),
        _ => Err(damaged(format!("file \"{}\" is not one of a data directory", file.display()))),
    }
}

fn is_open(disk: &dyn Disk, path: &Path) -> Error {
    let owner = disk.read(&path.join("LOCK")).unwrap_or_default();
    let owner = String::from_utf8_lossy(&owner).trim().to_owned();
    let owner =
        if owner.is_empty() { "another process".to_owned() } else { format!("process {owner}") };
    Error::user(
        sqlstate::OBJECT_IN_USE,
        format!("data directory \"{}\" is open in {owner}", path.display()),
    )
    .with_hint(match disk.local_dir() {
        None => "Stop that process, or name another directory.",
        Some(_) => "Stop that process, end it with --take-over, or name another directory.",
    })
}

/// An error of the disk, with the file that it is about.
pub fn disk_error(error: &io::Error, path: &Path) -> Error {
    if is_taken_over(error) {
        return taken_over();
    }
    if let Some(known) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return known.clone().context(format!("\"{}\"", path.display()));
    }
    let state = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => sqlstate::DISK_FULL,
        _ => sqlstate::IO_ERROR,
    };
    let error = Error::external(state, format!("\"{}\": {error}", path.display()));
    match state {
        sqlstate::DISK_FULL => {
            error.with_hint("Make room on the disk, or DROP what is not needed.")
        }
        _ => error,
    }
}

/// Another process may have the directory.
pub fn taken_over() -> Error {
    Error::external(
        sqlstate::OBJECT_IN_USE,
        "the data directory is not locked by this process any more",
    )
    .permanent()
    .with_detail(
        "Another process has begun a life there, or may have: its LOCK was removed or replaced.",
    )
    .with_hint("Let the other process go on, or stop it and start this one again.")
}

/// What is on the disk is not what was written.
pub fn damaged(message: impl Into<String>) -> Error {
    Error::external(sqlstate::DATA_CORRUPTED, message).permanent()
}
