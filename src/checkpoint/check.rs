//! Checking a data directory while it is used: every file that counts is read to its end.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Manifest;
use super::outbox::out_path;
use super::run::RunReader;
use super::savepoint::{Savepoint, savepoint_path};
use super::store::{manifest_path, numbers, run_path};
use crate::error::{Error, Result};
use crate::store::directory::disk_error;
use crate::store::{Disk, log};

/// How often files that go while they are read are looked for again.
const TRIES: usize = 5;

/// What was found of a file.
#[derive(Debug)]
pub struct Checked {
    /// The file, or the folder of the log.
    pub file: PathBuf,
    /// What is in it: entries of a run, records of the log, runs of a manifest, messages of an
    /// outbox.
    pub items: u64,
    /// What is wrong with it.
    pub error: Option<Error>,
}

/// Reads all manifests and savepoints, the runs and outboxes that they name, and the log.
///
/// # Errors
///
/// 58030 when the directory itself can't be read; what is wrong with a file is in its line.
pub fn check(disk: &dyn Disk, path: &Path) -> Result<Vec<Checked>> {
    let mut checking = Checking { disk, path, all: Vec::new(), seen: Default::default() };
    let mut needed = u64::MAX;
    for number in numbers(disk, &path.join("manifest"))? {
        let file = manifest_path(path, number);
        let manifest = checking.manifest(&file, || Manifest::read(disk, &file));
        needed = manifest.map_or(needed, |m| needed.min(m.lsn));
    }
    let saved = path.join("savepoint");
    // One of an older program has none.
    let saved = if disk.list(&saved).is_ok() { numbers(disk, &saved)? } else { Vec::new() };
    for id in saved {
        let file = savepoint_path(path, id);
        checking.manifest(&file, || Savepoint::read(disk, &file).map(|saved| saved.manifest));
    }
    let needed = if needed == u64::MAX { 0 } else { needed };
    let mut all = checking.all;
    all.push(check_log(disk, &path.join("log"), needed)?);
    Ok(all)
}

/// A directory that is being read.
struct Checking<'a> {
    disk: &'a dyn Disk,
    path: &'a Path,
    all: Vec<Checked>,
    /// Files that were read: several manifests name them.
    seen: BTreeSet<PathBuf>,
}

impl Checking<'_> {
    /// Reads a manifest and what it names.
    fn manifest(
        &mut self,
        file: &Path,
        read: impl FnOnce() -> Result<Manifest>,
    ) -> Option<Manifest> {
        let (disk, path) = (self.disk, self.path);
        let (items, error, manifest) = match present(disk, file, read)? {
            Ok(manifest) => (manifest.runs.len() as u64, None, Some(manifest)),
            Err(error) => (0, Some(error), None),
        };
        self.all.push(Checked { file: file.to_owned(), items, error });
        for name in manifest.iter().flat_map(|m| &m.runs) {
            self.file(run_path(path, name.id), |file| {
                let run = RunReader::open(disk, file)?;
                name.check(run.info(), file)?;
                run.check()
            });
        }
        for out in manifest.iter().flat_map(|m| &m.outbox) {
            self.file(out_path(path, out.id), |file| out.check(disk, file));
        }
        manifest
    }

    /// Reads a file, once.
    fn file(&mut self, file: PathBuf, whole: impl FnOnce(&Path) -> Result<u64>) {
        if !self.seen.insert(file.clone()) {
            return;
        }
        if let Some(read) = present(self.disk, &file, || whole(&file)) {
            let items = *read.as_ref().unwrap_or(&0);
            self.all.push(Checked { file, items, error: read.err() });
        }
    }
}

/// What reading a file gives, unless it went meanwhile.
fn present<T>(disk: &dyn Disk, file: &Path, read: impl FnOnce() -> Result<T>) -> Option<Result<T>> {
    let read = read();
    match read.is_err() && disk.open(file).is_err_and(|e| e.kind() == ErrorKind::NotFound) {
        true => None,
        false => Some(read),
    }
}

fn check_log(disk: &dyn Disk, dir: &Path, needed: u64) -> Result<Checked> {
    let names = || disk.list(dir).map_err(|e| disk_error(&e, dir));
    let mut tries = 0;
    loop {
        let before = names()?;
        let mut items = 0;
        let count = &mut |_: log::Record, _: &log::Position| {
            items += 1;
            Ok(())
        };
        let read = log::read(disk, dir, needed, count);
        tries += 1;
        // Segments go when a checkpoint has them.
        if read.is_err() && tries < TRIES && names()? != before {
            continue;
        }
        return Ok(Checked { file: dir.to_owned(), items, error: read.err() });
    }
}
