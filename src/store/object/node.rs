//! A file of a directory in an object store, while this process has it open.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::files::{Stored, overwrite};

/// Where the content of a file is.
#[derive(Debug)]
pub(super) enum Place {
    /// In memory; what is named is in the journal, too. Behind its bytes there are zeros up to the
    /// length.
    Memory { bytes: Vec<u8>, length: u64 },
    /// In a file of this machine: it is written, and has no name in the journal yet.
    Local { file: Arc<File>, path: PathBuf, length: u64 },
    /// In an object, which is never changed.
    Object { name: String, length: u64 },
}

impl Place {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Memory { length, .. } | Self::Local { length, .. } => *length,
            Self::Object { length, .. } => *length,
        }
    }
}

/// What is known of a file.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) place: Place,
    /// Its name in the journal, or the one that it is to have.
    pub(super) name: String,
    /// The journal has it, or what waits to be written to it does.
    pub(super) named: bool,
    /// Nobody has it as a file any more.
    pub(super) gone: bool,
    /// It was written to since it was last synced.
    pub(super) unsynced: bool,
    /// Who writes it.
    pub(super) writers: usize,
    /// What the journal does not have of a named one: places in its bytes, and its length.
    dirty: Vec<(usize, usize)>,
    grown: bool,
}

/// A file.
#[derive(Debug)]
pub(super) struct Node {
    content: Mutex<Content>,
    /// Objects whose files are gone.
    garbage: Arc<Mutex<Vec<String>>>,
}

impl Node {
    pub(super) fn new(
        name: String,
        stored: Option<Stored>,
        garbage: &Arc<Mutex<Vec<String>>>,
    ) -> Self {
        let mut content = Content::new(name);
        content.named = stored.is_some();
        match stored {
            None => {}
            Some(Stored::Inline { bytes, length }) => {
                content.place = Place::Memory { bytes, length };
            }
            Some(Stored::Object { name, length }) => content.place = Place::Object { name, length },
        }
        Self { content: Mutex::new(content), garbage: Arc::clone(garbage) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    pub(super) fn new(name: String) -> Self {
        Self {
            place: Place::Memory { bytes: Vec::new(), length: 0 },
            name,
            named: false,
            gone: false,
            unsynced: false,
            writers: 0,
            dirty: Vec::new(),
            grown: false,
        }
    }

    /// Whether it is to have its name now: nobody is in the middle of writing it.
    pub(super) fn is_ready(&self) -> bool {
        let done = match self.place {
            Place::Local { .. } => self.writers == 0,
            _ => self.writers == 0 || !self.unsynced,
        };
        done && !self.named
    }

    /// Writes into memory. Zeros at the end of what is written are length alone.
    pub(super) fn write(&mut self, offset: u64, written: &[u8]) {
        let Place::Memory { bytes, length } = &mut self.place else { return };
        let offset = offset as usize;
        let filled = filled(written).max(written.len().min(bytes.len().saturating_sub(offset)));
        overwrite(bytes, offset, &written[..filled]);
        self.unsynced = true;
        let end = (offset + written.len()) as u64;
        if end > *length {
            (*length, self.grown) = (end, true);
        }
        match self.dirty.last_mut() {
            _ if filled == 0 || !self.named => {}
            Some(last) if last.0 + last.1 == offset => last.1 += filled,
            _ => self.dirty.push((offset, filled)),
        }
    }

    /// What the journal does not have: pieces with their offsets, at least one when it has grown.
    pub(super) fn take_dirty(&mut self) -> Vec<(u64, Vec<u8>)> {
        let (dirty, grown) = (std::mem::take(&mut self.dirty), std::mem::take(&mut self.grown));
        let Place::Memory { bytes, length } = &self.place else { return Vec::new() };
        let piece = |(at, count): (usize, usize)| (at as u64, bytes[at..at + count].to_vec());
        let mut pieces: Vec<_> = dirty.into_iter().map(piece).collect();
        if grown && pieces.is_empty() {
            pieces.push((*length, Vec::new()));
        }
        pieces
    }

    /// Its content for the journal, from which on the journal has it; `None` while it is local.
    pub(super) fn store(&mut self) -> Option<Stored> {
        let stored = match &self.place {
            Place::Memory { bytes, length } => {
                Stored::Inline { bytes: bytes.clone(), length: *length }
            }
            Place::Object { name, length } => {
                Stored::Object { name: name.clone(), length: *length }
            }
            Place::Local { .. } => return None,
        };
        self.dirty.clear();
        self.grown = false;
        self.named = true;
        Some(stored)
    }
}

/// How many bytes there are without the zeros at the end.
pub(super) fn filled(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

impl Drop for Node {
    fn drop(&mut self) {
        let content = self.content.get_mut().unwrap_or_else(PoisonError::into_inner);
        match &content.place {
            Place::Local { path, .. } => drop(std::fs::remove_file(path)),
            Place::Object { name, .. } if content.gone => {
                let mut garbage = self.garbage.lock().unwrap_or_else(PoisonError::into_inner);
                garbage.push(name.clone());
            }
            _ => {}
        }
    }
}
