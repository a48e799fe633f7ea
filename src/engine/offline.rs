//! What is done with a data directory that no process has open: going back to an older state.

use std::path::Path;
use std::sync::Arc;

use super::recover::Survey;
use crate::checkpoint::{Checkpoints, LogEnd, Manifest, SinksGo};
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::RestoreFrom;
use crate::store::{Directory, Disk, log};

/// A state that a directory can go back to.
#[derive(Debug, Clone)]
pub struct OlderState {
    /// The name, where it has one.
    pub savepoint: Option<String>,
    /// The checkpoint.
    pub checkpoint: u64,
    /// The clock of its epoch, in microseconds since 1970.
    pub now_us: i64,
    /// The bytes of its runs.
    pub bytes: u64,
}

impl OlderState {
    fn of(manifest: &Manifest, savepoint: Option<&str>) -> Self {
        Self {
            savepoint: savepoint.map(str::to_owned),
            checkpoint: manifest.number,
            now_us: manifest.now_us,
            bytes: manifest.runs.iter().map(|run| run.bytes).sum(),
        }
    }
}

fn open(disk: &Arc<dyn Disk>, path: &Path) -> Result<(Directory, Checkpoints)> {
    let found = disk.open(&path.join("FORMAT"));
    if found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Err(Error::user(
            sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("\"{}\" is not a data directory", path.display()),
        ));
    }
    let directory = Directory::open(Arc::clone(disk), path)?;
    let checkpoints = Checkpoints::open_readable(Arc::clone(&directory.disk), path)?;
    Ok((directory, checkpoints))
}

/// The states that a directory can go back to, the newest first.
///
/// # Errors
///
/// 55006 when a process has the directory open, and what reading it meets.
pub fn older_states(disk: &Arc<dyn Disk>, path: &Path) -> Result<Vec<OlderState>> {
    let (_directory, checkpoints) = open(disk, path)?;
    let saved = checkpoints.savepoints().iter().map(|s| OlderState::of(&s.manifest, Some(&s.name)));
    let kept = checkpoints.kept()?;
    let mut all: Vec<_> = saved.chain(kept.iter().map(|m| OlderState::of(m, None))).collect();
    all.sort_by(|a, b| b.checkpoint.cmp(&a.checkpoint).then(a.savepoint.cmp(&b.savepoint)));
    Ok(all)
}

/// Makes an older state of a directory the newest: whoever opens it next begins with it.
/// `with_log`: what the log has behind that state is done again, for a directory whose newer
/// checkpoints are damaged. Returns the number of the new checkpoint.
///
/// # Errors
///
/// 55006 when a process has the directory open, 55000 when sinks have gone on and nobody says what
/// becomes of them, and what reading and writing meet.
pub fn restore(
    (disk, path): (&Arc<dyn Disk>, &Path),
    from: &RestoreFrom,
    sinks: Option<SinksGo>,
    with_log: bool,
) -> Result<u64> {
    let (directory, mut checkpoints) = open(disk, path)?;
    let older = super::savepoint::find(&checkpoints, from)?;
    let known = match checkpoints.newest() {
        Some(newest) if newest.lsn >= older.lsn => newest.clone(),
        _ => older.clone(),
    };
    let mut survey = Survey::of(Some(&known))?;
    let take = &mut |record, _: &log::Position| survey.take(record);
    let (disk, dir) = (directory.disk.as_ref(), path.join("log"));
    let end = log::read(disk, &dir, known.lsn, take)?;
    if with_log {
        // What the checkpoint needs of the log has to be there.
        log::read(disk, &dir, older.lsn, &mut |_, _| Ok(()))?;
    }
    let lsn = if with_log { older.lsn } else { end.next };
    let end = LogEnd { lsn, ..survey.end() };
    let number = checkpoints.restore(&older, sinks, end)?;
    checkpoints.remove_unreadable()?;
    Ok(number)
}
