//! What the program does with a data directory that it does not run: restoring, checking, copying.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::{self, SinksGo};
use crate::engine::offline::{self, OlderState};
use crate::error::Result;
use crate::sql::statement::RestoreFrom;
use crate::store::Disk;

/// Makes an older state of a directory the one that the next process begins with; without one that
/// is named, prints those that there are.
pub fn restore(
    (disk, path): (&Arc<dyn Disk>, &Path),
    from: Option<&RestoreFrom>,
    sinks: Option<SinksGo>,
    with_log: bool,
) -> Result<()> {
    let mut out = io::stdout().lock();
    let Some(from) = from else {
        let states = offline::older_states(disk, path)?;
        if states.is_empty() {
            writeln!(out, "\"{}\" has no checkpoint", path.display())?;
        }
        return states.iter().try_for_each(|state| Ok(writeln!(out, "{}", line(state))?));
    };
    let number = offline::restore((disk, path), from, sinks, with_log)?;
    writeln!(out, "restored as checkpoint {number}: the next start begins with it")?;
    Ok(())
}

fn line(state: &OlderState) -> String {
    let at = chrono::DateTime::from_timestamp_micros(state.now_us).unwrap_or_default();
    let (number, bytes, at) = (state.checkpoint, state.bytes, at.format("%F %T%.3f UTC"));
    let name = match &state.savepoint {
        Some(name) => format!("savepoint {name}"),
        None => format!("checkpoint {number}"),
    };
    format!("{name:<32} {at}  checkpoint {number}, {bytes} bytes")
}

/// Reads every file of a directory that counts, and says what is wrong with it. Whether nothing is.
pub fn check(disk: &dyn Disk, path: &Path) -> Result<bool> {
    let checked = checkpoint::check(disk, path)?;
    let mut out = io::stdout().lock();
    let mut whole = true;
    for file in &checked {
        let name = file.file.strip_prefix(path).unwrap_or(&file.file).display();
        match &file.error {
            None => writeln!(out, "{name}: whole, {} items", file.items)?,
            Some(error) => {
                whole = false;
                writeln!(out, "{name}: damaged: {error}")?;
            }
        }
    }
    Ok(whole)
}

/// Copies a directory, which may be in use, into another one on this machine.
pub fn back_up(disk: &dyn Disk, from: &Path, to: &Path) -> Result<()> {
    let done = checkpoint::back_up(disk, from, to)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "checkpoint {} with {} savepoints and {} records of the log: {} files, {} of them copied \
         now ({} bytes)",
        done.checkpoint, done.savepoints, done.records, done.files, done.copied, done.bytes
    )?;
    Ok(())
}
