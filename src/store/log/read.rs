//! Reading a log from its beginning to its end.

use std::path::{Path, PathBuf};

use super::record::Record;
use super::{GROUP, Lsn, segment_name, segment_of};
use crate::error::{Error, Result};
use crate::store::Disk;
use crate::store::bytes::Bytes;
use crate::store::directory::{damaged, disk_error};
use crate::store::frame::{self, Absent, Frame};

/// Where a log ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// The number of the next record.
    pub next: Lsn,
    /// The checksum of the last group; 0 when there is none.
    pub previous: u64,
}

/// Where a record stands, for messages.
#[derive(Debug, Clone)]
pub struct Position {
    /// Its number.
    pub lsn: Lsn,
    /// The file.
    pub file: PathBuf,
    /// Where in it its group begins.
    pub offset: usize,
}

impl Position {
    /// Says of an error where it comes from.
    pub fn locate(&self, error: Error) -> Error {
        let (file, offset) = (self.file.display(), self.offset);
        error.context(format!("log record {} in \"{file}\", byte {offset}", self.lsn))
    }
}

/// Hands every record from `needed` on to `each`, in order.
///
/// # Errors
///
/// XX001 with file and place when the log is damaged: something that is whole stands behind
/// something that is not, or a part is missing. A group at the end that is not whole is no error:
/// nobody was told of it. 0A000 when a newer program has written it, 58030 when it can't be read.
pub fn read(
    disk: &dyn Disk,
    dir: &Path,
    needed: Lsn,
    each: &mut dyn FnMut(Record, &Position) -> Result<()>,
) -> Result<End> {
    let each = &mut |record: Record, position: &Position| match position.lsn < needed {
        true => Ok(()),
        false => each(record, position),
    };
    let names = disk.list(dir).map_err(|e| disk_error(&e, dir))?;
    let mut segments: Vec<(Lsn, String)> =
        names.into_iter().filter_map(|name| Some((segment_of(&name)?, name))).collect();
    segments.sort_unstable();
    // Those whose records are all in a checkpoint may be gone.
    let next = segments.first().map_or(needed, |(first, _)| (*first).min(needed));
    let mut end = End { next, previous: 0 };
    let mut begun = false;
    for (first, name) in segments {
        let path = dir.join(&name);
        let bytes = disk.read(&path).map_err(|e| disk_error(&e, &path))?;
        let empty = matches!(frame::decode(&bytes), Err(Absent::Nothing));
        if empty && frame::find(&bytes, 0).is_none() {
            // Made ahead, and nothing was written into it.
            continue;
        }
        if !begun && first <= needed {
            end.next = first;
        }
        begun = true;
        if first != end.next {
            let (missing, shown) = (segment_name(end.next), path.display());
            return Err(damaged(format!("the log has no record {} before \"{shown}\"", end.next))
                .with_detail(format!("A file \"{missing}\" or the end of the one before is gone."))
                .with_hint("Restore the data directory from a backup."));
        }
        read_segment(&path, &bytes, &mut end, each)?;
    }
    Ok(end)
}

fn read_segment(
    path: &Path,
    bytes: &[u8],
    end: &mut End,
    each: &mut dyn FnMut(Record, &Position) -> Result<()>,
) -> Result<()> {
    let mut offset = 0;
    loop {
        let position = Position { lsn: end.next, file: path.to_owned(), offset };
        match frame::decode(&bytes[offset..]) {
            Ok((frame, used)) => {
                read_group(frame, end, &position, each)?;
                offset += used;
            }
            Err(Absent::Newer(version)) => {
                return Err(Error::unsupported(format!(
                    "\"{}\" was written by a newer program (format {version})",
                    path.display()
                ))
                .with_hint("Use the program that wrote it, or a newer one."));
            }
            Err(Absent::Nothing | Absent::Damaged) => {
                return match frame::find(bytes, offset) {
                    None => Ok(()),
                    Some(_) => Err(bad_group(&position)),
                };
            }
        }
    }
}

fn read_group(
    frame: Frame<'_>,
    end: &mut End,
    position: &Position,
    each: &mut dyn FnMut(Record, &Position) -> Result<()>,
) -> Result<()> {
    let mut rest = Bytes(frame.body);
    let header = (rest.u64(), rest.u64());
    let (Ok(first), Ok(previous)) = header else { return Err(bad_group(position)) };
    if frame.kind != GROUP || first != end.next || (end.previous != 0 && previous != end.previous) {
        return Err(bad_group(position));
    }
    end.previous = frame.checksum;
    while !rest.0.is_empty() {
        let position = Position { lsn: end.next, ..position.clone() };
        let record = Record::decode(&mut rest).map_err(|e| position.locate(e))?;
        each(record, &position).map_err(|e| position.locate(e))?;
        end.next += 1;
    }
    Ok(())
}

fn bad_group(position: &Position) -> Error {
    let (file, offset) = (position.file.display(), position.offset);
    damaged(format!("\"{file}\" is damaged at byte {offset}"))
        .with_detail(format!(
            "Record {} of the log should begin there; records behind it are there.",
            position.lsn
        ))
        .with_hint("Restore the data directory from a backup.")
}
