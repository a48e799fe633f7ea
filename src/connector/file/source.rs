//! Reading files: one split per file, taken in turns so that their watermarks move together.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::io_error;
use super::lines::{Lines, Reading};
use crate::connector::{
    Again, ConnectorSpec, Options, Positions, Read, Rejected, Source, SourceBatch, SplitId,
    SplitReader,
};
use crate::error::{Error, Result, sqlstate};
use crate::format::{Changelog, Changes, FormatSpec, Framing};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Once,
    Follow,
}

pub(super) fn create(spec: &ConnectorSpec) -> Result<Arc<dyn Source>> {
    let mut options = Options::new(spec);
    let path = options.required("path")?.to_owned();
    let modes = [("once", Mode::Once), ("follow", Mode::Follow)];
    let mode = options.one_of("mode", &modes)?.unwrap_or(Mode::Once);
    options.finish()?;
    if spec.format.changelog == Changelog::Upsert {
        return Err(Error::unsupported("connector \"file\" can't read FORMAT UPSERT")
            .with_hint("A line has no key beside its value: use FORMAT PLAIN or DEBEZIUM."));
    }
    let all: Vec<usize> = (0..spec.schema.fields().len()).collect();
    spec.format.changes(&spec.schema, &all, &spec.key)?;
    let framing = spec.format.framing()?;
    Ok(Arc::new(FileSource {
        path,
        mode,
        schema: spec.schema.clone(),
        key: spec.key.clone(),
        format: spec.format.clone(),
        framing,
        files: Mutex::new(None),
    }))
}

struct FileSource {
    path: String,
    mode: Mode,
    schema: arrow::datatypes::SchemaRef,
    key: Vec<usize>,
    format: FormatSpec,
    framing: Framing,
    /// The files, listed once: a number must go on meaning the same file.
    files: Mutex<Option<Arc<[PathBuf]>>>,
}

impl FileSource {
    fn files(&self) -> Result<Arc<[PathBuf]>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = &*files {
            return Ok(files.clone());
        }
        let listed: Arc<[PathBuf]> = list(&self.path)?.into();
        *files = Some(listed.clone());
        Ok(listed)
    }

    fn file(&self, split: SplitId) -> Result<PathBuf> {
        let files = self.files()?;
        let unknown = || Error::internal(format!("split {split} of \"{}\" is unknown", self.path));
        files.get(split as usize).cloned().ok_or_else(unknown)
    }
}

/// The files of a `path` option, sorted.
fn list(path: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for part in path.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let part = Path::new(part);
        let metadata = std::fs::metadata(part).map_err(|e| io_error("open", part, &e))?;
        if !metadata.is_dir() {
            files.push(part.to_path_buf());
            continue;
        }
        let entries = std::fs::read_dir(part).map_err(|e| io_error("list", part, &e))?;
        for entry in entries {
            let entry = entry.map_err(|e| io_error("list", part, &e))?;
            let hidden = entry.file_name().to_string_lossy().starts_with(['.', '_']);
            if !hidden && entry.path().is_file() {
                files.push(entry.path());
            }
        }
    }
    if files.is_empty() {
        return Err(Error::external(sqlstate::IO_ERROR, format!("there is no file in \"{path}\""))
            .permanent());
    }
    files.sort();
    files.dedup();
    Ok(files)
}

impl FileSource {
    /// A file from a position, and what reads it: each file may have a header of its own.
    fn open(
        &self,
        path: &Path,
        from: u64,
        until: Option<u64>,
        columns: &[usize],
    ) -> Result<(Lines, Changes)> {
        let how = Reading { tail_is_line: self.mode == Mode::Once, framing: self.framing };
        let mut changes = self.format.changes(&self.schema, columns, &self.key)?;
        let mut first = from;
        if self.framing.has_header() {
            let mut head = Lines::open(path, 0, u64::MAX, how)?;
            let Some(line) = head.next()? else {
                return match self.mode {
                    Mode::Once => Ok((head, changes)),
                    Mode::Follow => Err(no_header(path)),
                };
            };
            let context = |e: Error| e.context(format!("file \"{}\"", path.display()));
            changes.header(head.bytes(&line)).map_err(context)?;
            first = from.max(head.position());
        }
        Ok((Lines::open(path, first, until.unwrap_or(u64::MAX), how)?, changes))
    }
}

impl Source for FileSource {
    fn start(&self) -> Result<Positions> {
        let files = self.files()?;
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        for file in files.iter() {
            self.open(file, 0, Some(0), &all)?;
        }
        Ok((0..files.len() as SplitId).map(|split| (split, 0)).collect())
    }

    fn reader(
        &self,
        from: &Positions,
        until: Option<&Positions>,
        columns: &[usize],
    ) -> Result<Box<dyn SplitReader>> {
        let mut splits = Vec::with_capacity(from.len());
        for (split, position) in from {
            let path = self.file(*split)?;
            let bound = until.and_then(|until| until.get(split)).copied();
            let bound = bound.map(|bound| bound.max(0) as u64);
            let (lines, changes) = self.open(&path, (*position).max(0) as u64, bound, columns)?;
            splits.push(Split { split: *split, lines, changes, ended: false });
        }
        Ok(Box::new(FileReader { mode: self.mode, splits, turn: 0 }))
    }

    fn is_bounded(&self) -> bool {
        self.mode == Mode::Once
    }

    fn decode_again(&self, split: SplitId, messages: &[Rejected]) -> Result<Again> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let (_, mut changes) = self.open(&self.file(split)?, 0, Some(0), &all)?;
        Again::read(&mut changes, messages, |_| Ok(()))
    }
}

fn no_header(path: &Path) -> Error {
    let message = format!("file \"{}\" has no CSV header yet", path.display());
    Error::external(sqlstate::IO_ERROR, message)
        .permanent()
        .with_hint("Write the header first, or use ENCODE CSV (without_header = true).")
}

/// A file that is read.
pub(super) struct Split {
    pub(super) split: SplitId,
    pub(super) lines: Lines,
    pub(super) changes: Changes,
    pub(super) ended: bool,
}

/// Reads files in turns.
pub(super) struct FileReader {
    mode: Mode,
    splits: Vec<Split>,
    /// The split that is read next.
    turn: usize,
}

impl FileReader {
    /// A reader of one input to its end.
    pub(super) fn once(split: Split) -> Self {
        Self { mode: Mode::Once, splits: vec![split], turn: 0 }
    }
}

impl SplitReader for FileReader {
    fn read(&mut self, max_rows: usize, timeout: Duration) -> Result<Read> {
        for _ in 0..self.splits.len() {
            let turn = self.turn;
            self.turn = (turn + 1) % self.splits.len();
            let Some(split) = self.splits.get_mut(turn).filter(|split| !split.ended) else {
                continue;
            };
            if let Some(batch) = read_split(split, self.mode, max_rows)? {
                return Ok(Read::Batch(batch));
            }
        }
        if self.splits.iter().all(|split| split.ended) {
            return Ok(Read::End);
        }
        std::thread::sleep(timeout.min(FOLLOW_PAUSE));
        Ok(Read::Idle)
    }
}

/// Pause between two looks at a file that is followed.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);

/// Reads lines until `max_rows` are there or a block is used up; `None` at the end.
fn read_split(split: &mut Split, mode: Mode, max_rows: usize) -> Result<Option<SourceBatch>> {
    let changes = &mut split.changes;
    let first = split.lines.position();
    let mut rejected = Vec::new();
    while changes.len() + rejected.len() < max_rows {
        let line = match split.lines.buffered() {
            Some(line) => line,
            // A block is done: hand out what it gave before the next is read.
            None if split.lines.position() > first && !split.lines.at_bound() => break,
            None if !split.lines.at_bound() && split.lines.fill()? => continue,
            None => match split.lines.tail() {
                Some(line) => line,
                None => {
                    split.ended = mode == Mode::Once || split.lines.at_bound();
                    break;
                }
            },
        };
        let bytes = split.lines.bytes(&line);
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        if let Err(e) = changes.read(None, Some(bytes)) {
            rejected.push(Rejected {
                position: line.position as i64,
                payload: Some(bytes.to_vec()),
                key: None,
                column: e.column,
                reason: e.reason,
            });
        }
    }
    if split.lines.position() == first {
        return Ok(None);
    }
    let (rows, deletes) = changes.finish()?;
    Ok(Some(SourceBatch {
        split: split.split,
        rows,
        deletes,
        rejected,
        next: split.lines.position() as i64,
        lag: None,
    }))
}
