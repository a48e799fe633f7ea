//! Copies of a data directory, taken while it is used: what the newest checkpoint and the
//! savepoints name, and the log behind them.
//!
//! Files that a manifest names are never changed, so a copy that is there is not made again, and
//! what goes in the meantime is of an older checkpoint: then the newer one is looked at. The
//! manifest comes last, so that an earlier copy stays whole until there is a later one.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use super::outbox::out_path;
use super::savepoint::{Savepoint, savepoint_path};
use super::store::{manifest_path, numbers, run_path};
use crate::error::{Error, Result, sqlstate};
use crate::store::directory::disk_error;
use crate::store::disk::put;
use crate::store::{Disk, OsDisk, log};

/// How often a newer checkpoint is looked at because files of the last one have gone.
const TRIES: usize = 10;

/// What a backup has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    /// The checkpoint.
    pub checkpoint: u64,
    /// Savepoints.
    pub savepoints: usize,
    /// Files that it needs, besides the log.
    pub files: usize,
    /// Those that had to be copied.
    pub copied: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Records of the log behind the checkpoint.
    pub records: u64,
}

/// Copies a data directory, of which a process may have it open, into another one on this machine;
/// what an earlier backup there has is not copied again.
///
/// # Errors
///
/// 55000 when there is no data directory or no checkpoint in it, 22023 when the target is something
/// else, 58030 and 53100.
pub fn back_up(there: &dyn Disk, from: &Path, to: &Path) -> Result<BackedUp> {
    let disk = OsDisk;
    let format = there.read(&from.join("FORMAT"));
    let format = format.map_err(|e| no_directory(&e, from))?;
    match std::fs::read(to.join("FORMAT")) {
        Ok(there) if id_of(&there) == id_of(&format) => {}
        Err(e) if e.kind() == ErrorKind::NotFound && is_empty(&disk, to)? => {}
        _ => {
            let (from, to) = (from.display(), to.display());
            return Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("\"{to}\" is not a backup of \"{from}\""),
            )
            .with_hint("Name a directory that is empty, or does not exist."));
        }
    }
    for name in ["run", "out", "manifest", "savepoint", "log"] {
        let dir = to.join(name);
        disk.make_dir(&dir).map_err(|e| disk_error(&e, &dir))?;
    }
    let mut tries = 0;
    loop {
        let copied = Copying { there, disk, from, to, seen: BTreeSet::new() }.all(&format);
        tries += 1;
        match copied {
            Ok(Some(done)) => return Ok(done),
            Ok(None) if tries < TRIES => {}
            Ok(None) => {
                return Err(Error::external(
                    sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "checkpoints come faster than they can be copied",
                ));
            }
            Err(error) => return Err(error),
        }
    }
}

fn no_directory(error: &std::io::Error, path: &Path) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::user(
            sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("\"{}\" is not a data directory", path.display()),
        ),
        _ => disk_error(error, path),
    }
}

/// The number of a directory, in its FORMAT.
fn id_of(format: &[u8]) -> Option<&[u8]> {
    format.split(|byte| *byte == b'\n').nth(1)
}

fn is_empty(disk: &dyn Disk, path: &Path) -> Result<bool> {
    match disk.list(path) {
        Ok(names) => Ok(names.iter().all(|name| !["log", "run"].contains(&name.as_str()))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
        Err(e) => Err(disk_error(&e, path)),
    }
}

struct Copying<'a> {
    there: &'a dyn Disk,
    disk: OsDisk,
    from: &'a Path,
    to: &'a Path,
    /// Files that the copy needs.
    seen: BTreeSet<PathBuf>,
}

impl Copying<'_> {
    /// `None`: files have gone meanwhile.
    fn all(mut self, format: &[u8]) -> Result<Option<BackedUp>> {
        let newest = numbers(self.there, &self.from.join("manifest"))?.pop().ok_or_else(|| {
            Error::user(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("\"{}\" has no checkpoint yet", self.from.display()),
            )
            .with_hint("CHECKPOINT; makes one.")
        })?;
        let Some(manifest) = self.present(manifest_path(self.from, newest), Manifest::read)? else {
            return Ok(None);
        };
        let mut done = BackedUp {
            checkpoint: newest,
            savepoints: 0,
            files: 0,
            copied: 0,
            bytes: 0,
            records: 0,
        };
        let mut saved = Vec::new();
        let dir = self.from.join("savepoint");
        let ids =
            if self.there.list(&dir).is_ok() { numbers(self.there, &dir)? } else { Vec::new() };
        for id in ids {
            let Some(one) = self.present(savepoint_path(self.from, id), Savepoint::read)? else {
                return Ok(None);
            };
            saved.push(one);
        }
        done.savepoints = saved.len();
        for manifest in saved.iter().map(|saved| &saved.manifest).chain([&manifest]) {
            let runs = manifest.runs.iter().map(|run| (run_path(self.from, run.id), run.bytes));
            let outs = manifest.outbox.iter().map(|out| (out_path(self.from, out.id), out.bytes));
            for (file, bytes) in runs.chain(outs) {
                if !self.file(&file, Some(bytes), &mut done)? {
                    return Ok(None);
                }
            }
        }
        for saved in &saved {
            if !self.file(&savepoint_path(self.from, saved.id), None, &mut done)? {
                return Ok(None);
            }
        }
        let Some(records) = self.log(manifest.lsn)? else { return Ok(None) };
        done.records = records;
        for name in ["run", "out", "savepoint", "log"] {
            let dir = self.to.join(name);
            self.disk.sync_dir(&dir).map_err(|e| disk_error(&e, &dir))?;
        }
        let path = manifest_path(self.to, newest);
        put(&self.disk, &path, &manifest.encode()?).map_err(|e| disk_error(&e, &path))?;
        let path = self.to.join("FORMAT");
        put(&self.disk, &path, format).map_err(|e| disk_error(&e, &path))?;
        self.seen.insert(manifest_path(self.to, newest));
        self.tidy()?;
        Ok(Some(done))
    }

    /// What reading a file gives; `None` when it has gone.
    fn present<T>(
        &self,
        file: PathBuf,
        read: impl FnOnce(&dyn Disk, &Path) -> Result<T>,
    ) -> Result<Option<T>> {
        match read(self.there, &file) {
            Err(_) if self.is_gone(&file) => Ok(None),
            read => read.map(Some),
        }
    }

    fn is_gone(&self, file: &Path) -> bool {
        self.there.open(file).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    fn target(&self, file: &Path) -> PathBuf {
        self.to.join(file.strip_prefix(self.from).unwrap_or(file))
    }

    /// Copies a file that is not there with the length that it should have; false when it has gone.
    fn file(&mut self, file: &Path, bytes: Option<u64>, done: &mut BackedUp) -> Result<bool> {
        let target = self.target(file);
        if !self.seen.insert(target.clone()) {
            return Ok(true);
        }
        done.files += 1;
        let there = std::fs::metadata(&target).ok().map(|m| m.len());
        if there.is_some() && there == bytes {
            return Ok(true);
        }
        match copy(self.there, file, &target) {
            Ok(bytes) => {
                done.copied += 1;
                done.bytes += bytes;
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::NotFound && self.is_gone(file) => Ok(false),
            Err(e) => Err(disk_error(&e, &target)),
        }
    }

    /// Copies the log from a record on: its records behind it; `None` when it has moved on.
    fn log(&mut self, needed: u64) -> Result<Option<u64>> {
        let dir = self.from.join("log");
        let names = self.there.list(&dir).map_err(|e| disk_error(&e, &dir))?;
        for name in &names {
            let (file, target) = (dir.join(name), self.to.join("log").join(name));
            match copy(self.there, &file, &target) {
                Ok(_) => drop(self.seen.insert(target)),
                Err(e) if e.kind() == ErrorKind::NotFound && self.is_gone(&file) => {
                    return Ok(None);
                }
                Err(e) => return Err(disk_error(&e, &target)),
            }
        }
        self.remove_unseen("log")?;
        let mut records = 0;
        let count = &mut |_: log::Record, _: &log::Position| {
            records += 1;
            Ok(())
        };
        // A segment that was given a new name while it was copied is not what it was.
        let whole = log::read(&self.disk, &self.to.join("log"), needed, count).is_ok();
        Ok(whole.then_some(records))
    }

    /// Removes what an earlier copy needed and this one does not.
    fn tidy(&self) -> Result<()> {
        ["manifest", "savepoint", "run", "out"].iter().try_for_each(|dir| self.remove_unseen(dir))
    }

    fn remove_unseen(&self, dir: &str) -> Result<()> {
        let dir = self.to.join(dir);
        for name in self.disk.list(&dir).map_err(|e| disk_error(&e, &dir))? {
            let file = dir.join(name);
            if !self.seen.contains(&file) {
                self.disk.remove(&file).map_err(|e| disk_error(&e, &file))?;
            }
        }
        self.disk.sync_dir(&dir).map_err(|e| disk_error(&e, &dir))
    }
}

/// Bytes that are copied at once.
const COPY_BYTES: u64 = 4 << 20;

/// Copies a file under another name first, so that what has the name is whole and on the disk.
fn copy(disk: &dyn Disk, from: &Path, to: &Path) -> std::io::Result<u64> {
    let part = to.with_extension("part");
    match std::fs::remove_file(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (source, mut target) = (disk.open(from)?, OsDisk.create(&part)?);
    let length = source.length()?;
    let mut buffer = Vec::new();
    for at in (0..length).step_by(COPY_BYTES as usize) {
        buffer.resize(COPY_BYTES.min(length - at) as usize, 0);
        source.read_at(at, &mut buffer)?;
        target.write_at(at, &buffer)?;
    }
    target.sync()?;
    std::fs::rename(&part, to)?;
    Ok(length)
}
