//! Checking a data directory while it is used: every file that counts is read to its end.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Manifest;
use super::outbox::out_path;
use super::run::RunReader;
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

/// Reads all manifests, the runs and outboxes that they name, and the log.
///
/// # Errors
///
/// 58030 when the directory itself can't be read; what is wrong with a file is in its line.
pub fn check(disk: &dyn Disk, path: &Path) -> Result<Vec<Checked>> {
    let mut all = Vec::new();
    let mut needed = u64::MAX;
    let mut seen = BTreeSet::new();
    let mut read_outboxes = BTreeSet::new();
    for number in numbers(disk, &path.join("manifest"))? {
        let file = manifest_path(path, number);
        let Some(read) = present(disk, &file, || Manifest::read(disk, &file)) else { continue };
        let items = read.as_ref().map_or(0, |m| m.runs.len() as u64);
        let runs = read.as_ref().map_or_else(|_| Vec::new(), |m| m.runs.clone());
        let outboxes = read.as_ref().map_or_else(|_| Vec::new(), |m| m.outbox.clone());
        needed = read.as_ref().map_or(needed, |m| needed.min(m.lsn));
        all.push(Checked { file, items, error: read.err() });
        for name in runs {
            if !seen.insert(name.id) {
                continue;
            }
            let file = run_path(path, name.id);
            let whole = || {
                let run = RunReader::open(disk, &file)?;
                name.check(run.info(), &file)?;
                run.check()
            };
            let Some(read) = present(disk, &file, whole) else { continue };
            let items = *read.as_ref().unwrap_or(&0);
            all.push(Checked { file, items, error: read.err() });
        }
        for out in outboxes.into_iter().filter(|out| read_outboxes.insert(out.id)) {
            let file = out_path(path, out.id);
            let Some(read) = present(disk, &file, || out.check(disk, &file)) else { continue };
            let items = *read.as_ref().unwrap_or(&0);
            all.push(Checked { file, items, error: read.err() });
        }
    }
    let needed = if needed == u64::MAX { 0 } else { needed };
    all.push(check_log(disk, &path.join("log"), needed)?);
    Ok(all)
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
