//! A file that is written from its beginning to its end, in large pieces.

use std::path::{Path, PathBuf};

use super::directory::disk_error;
use super::disk::{Disk, DiskFile};
use crate::error::Result;

/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// What is written before it is synced: the syncs of others wait for what is not.
const SYNC_BYTES: u64 = 8 << 20;

/// A new file.
#[derive(Debug)]
pub struct Appender {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    /// What is in the file, and what of that is on the disk.
    written: u64,
    synced: u64,
    /// What is to be written next; whoever adds to it calls [`Self::settle`] then.
    pub buffer: Vec<u8>,
}

impl Appender {
    /// Makes the file.
    pub fn create(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let file = disk.create(path).map_err(|e| disk_error(&e, path))?;
        Ok(Self { path: path.to_owned(), file, written: 0, synced: 0, buffer: Vec::new() })
    }

    /// Where the next byte comes.
    pub fn place(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Writes what is gathered when it is much.
    pub fn settle(&mut self) -> Result<()> {
        match self.buffer.len() < WRITE_BYTES {
            true => Ok(()),
            false => self.write(),
        }
    }

    fn write(&mut self) -> Result<()> {
        let written = self.file.write_at(self.written, &self.buffer);
        written.map_err(|e| disk_error(&e, &self.path))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        match self.written - self.synced < SYNC_BYTES {
            true => Ok(()),
            false => self.sync(),
        }
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync().map_err(|e| disk_error(&e, &self.path))?;
        self.synced = self.written;
        Ok(())
    }

    /// Writes the rest and waits until all of it is on the disk; its name may not be yet. Its
    /// length.
    pub fn finish(mut self) -> Result<u64> {
        self.write()?;
        self.sync()?;
        Ok(self.written)
    }
}
