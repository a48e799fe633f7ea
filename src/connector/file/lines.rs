//! Records of a file with their positions, read in large blocks and handed out without a copy.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::io_error;
use crate::error::{Error, Result, sqlstate};
use crate::format::Framing;

/// Bytes asked of the system at once.
const BLOCK_BYTES: usize = 1 << 20;

/// The longest line; a file with longer ones is not made of lines.
const LINE_BYTES_MAX: usize = 256 << 20;

/// Reads one file forward from a position.
pub(super) struct Lines {
    path: PathBuf,
    input: Box<dyn Read + Send>,
    /// The file, where it is one whose size can be asked for.
    file: Option<File>,
    /// Bytes read and not yet handed out are `buffer[unread]`; `position` is that of the first.
    buffer: Vec<u8>,
    unread: Range<usize>,
    position: u64,
    /// Where to stop; the end of the file when it is larger.
    until: u64,
    /// Whether a last line without a line end is one.
    tail_is_line: bool,
    framing: Framing,
}

/// How a file is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Whether a last line without a line end is one.
    pub(super) tail_is_line: bool,
    pub(super) framing: Framing,
}

/// A line without its end, as a range of the buffer.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) position: u64,
    pub(super) bytes: Range<usize>,
}

impl Lines {
    pub(super) fn open(path: &Path, from: u64, until: u64, how: Reading) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| io_error("open", path, &e))?;
        let size = file.metadata().map_err(|e| io_error("examine", path, &e))?.len();
        if from > size {
            return Err(shrunk(path, from, size));
        }
        file.seek(SeekFrom::Start(from)).map_err(|e| io_error("read", path, &e))?;
        let input = file.try_clone().map_err(|e| io_error("open", path, &e))?;
        let lines = Self::new(path, input, how);
        Ok(Self { file: Some(file), position: from, until, ..lines })
    }

    /// Of anything that can be read, to its end; `path` is for messages.
    pub(super) fn new(path: &Path, input: impl Read + Send + 'static, how: Reading) -> Self {
        Self {
            path: path.into(),
            input: Box::new(input),
            file: None,
            buffer: Vec::new(),
            unread: 0..0,
            position: 0,
            until: u64::MAX,
            tail_is_line: how.tail_is_line,
            framing: how.framing,
        }
    }

    /// The position of the next line.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Whether the bound is reached.
    pub(super) fn at_bound(&self) -> bool {
        self.position >= self.until
    }

    pub(super) fn bytes(&self, line: &Line) -> &[u8] {
        self.buffer.get(line.bytes.clone()).unwrap_or_default()
    }

    /// The next line that lies in the buffer as a whole.
    pub(super) fn buffered(&mut self) -> Option<Line> {
        if self.at_bound() {
            return None;
        }
        let unread = self.buffer.get(self.unread.clone())?;
        let length = self.framing.end_of_record(unread)?;
        Some(self.take(length, 1))
    }

    /// The next line, read when it is not in the buffer yet; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Line>> {
        loop {
            if let Some(line) = self.buffered() {
                return Ok(Some(line));
            }
            if !self.fill()? {
                return Ok(self.tail());
            }
        }
    }

    fn take(&mut self, length: usize, line_end: usize) -> Line {
        let start = self.unread.start;
        let line = Line { position: self.position, bytes: start..start + length };
        self.unread.start += length + line_end;
        self.position += (length + line_end) as u64;
        line
    }

    /// Reads another block behind what is unread. False at the end of the file.
    pub(super) fn fill(&mut self) -> Result<bool> {
        let room = BLOCK_BYTES.max(self.unread.len());
        if self.unread.len() >= LINE_BYTES_MAX {
            let (path, position) = (self.path.display(), self.position);
            return Err(Error::external(
                sqlstate::IO_ERROR,
                format!("line at byte {position} of \"{path}\" is too long"),
            )
            .permanent()
            .with_detail(format!("A line has at most {} MiB.", LINE_BYTES_MAX >> 20)));
        }
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        self.buffer.resize(self.unread.end + room, 0);
        let free = self.buffer.get_mut(self.unread.end..).unwrap_or_default();
        let read = self.input.read(free).map_err(|e| io_error("read", &self.path, &e))?;
        self.unread.end += read;
        if read == 0 {
            self.check_size()?;
        }
        Ok(read > 0)
    }

    /// The line at the end of the file without a line end, once [`Lines::fill`] has returned false.
    pub(super) fn tail(&mut self) -> Option<Line> {
        let rest = self.buffer.get(self.unread.clone()).unwrap_or_default();
        if !self.tail_is_line || rest.is_empty() || self.at_bound() {
            return None;
        }
        // A quote that nobody closed: the lines behind it are records all the same.
        Some(match Framing::Lines.end_of_record(rest) {
            Some(length) => self.take(length, 1),
            None => self.take(rest.len(), 0),
        })
    }

    fn check_size(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let metadata = file.metadata().map_err(|e| io_error("examine", &self.path, &e))?;
        let read = self.position + self.unread.len() as u64;
        if metadata.is_file() && metadata.len() < read {
            return Err(shrunk(&self.path, read, metadata.len()));
        }
        Ok(())
    }
}

fn shrunk(path: &Path, position: u64, size: u64) -> Error {
    Error::external(
        sqlstate::IO_ERROR,
        format!("file \"{}\" has been cut below the position that was read", path.display()),
    )
    .permanent()
    .with_detail(format!("The position is byte {position}, the file has {size} bytes."))
    .with_hint("Append to the file, or put new rows into a new one; then create the source again.")
}
