//! Appending rows to a file, one line each.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::io_error;
use crate::connector::{ConnectorSpec, Options, Sink, SinkMode};
use crate::delta::DeltaBatch;
use crate::error::{Error, Result};
use crate::format::{Changelog, Encoder};
use crate::time::Epoch;

/// Bytes gathered before they go to the system.
const BLOCK_BYTES: usize = 1 << 20;

fn path(spec: &ConnectorSpec) -> Result<PathBuf> {
    let mut options = Options::new(spec);
    let path = PathBuf::from(options.required("path")?);
    options.finish()?;
    if spec.format.changelog != Changelog::Plain {
        return Err(Error::unsupported("connector \"file\" writes FORMAT PLAIN alone"));
    }
    Ok(path)
}

pub(super) fn mode(spec: &ConnectorSpec) -> Result<SinkMode> {
    path(spec)?;
    Ok(SinkMode::AppendOnly)
}

pub(super) fn create(spec: &ConnectorSpec) -> Result<Box<dyn Sink>> {
    let path = path(spec)?;
    let encoder = spec.format.encoder(spec.schema.clone())?;
    let file = File::create(&path).map_err(|e| io_error("create", &path, &e))?;
    Ok(Box::new(FileSink { path, file, encoder, length: 0, payloads: Vec::new() }))
}

struct FileSink {
    path: PathBuf,
    file: File,
    encoder: Box<dyn Encoder>,
    /// The length of the file after the last whole epoch.
    length: u64,
    payloads: Vec<Vec<u8>>,
}

impl FileSink {
    /// Writes one line per payload and copy; returns the bytes written.
    fn append(&mut self, changes: &DeltaBatch) -> std::io::Result<u64> {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let mut written = 0;
        for (row, payload) in self.payloads.iter().enumerate() {
            for _ in 0..changes.weight(row) {
                block.extend_from_slice(payload);
                block.push(b'\n');
                if block.len() >= BLOCK_BYTES {
                    self.file.write_all(&block)?;
                    written += block.len() as u64;
                    block.clear();
                }
            }
        }
        self.file.write_all(&block)?;
        Ok(written + block.len() as u64)
    }

    /// Cuts off what a failed epoch has left, so that its repetition does not double rows.
    fn rewind(&mut self) {
        let cut = self
            .file
            .set_len(self.length)
            .and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
        if let Err(e) = cut {
            tracing::warn!(path = %self.path.display(), error = %e, "could not cut a file back");
        }
    }
}

impl Sink for FileSink {
    fn write(&mut self, _epoch: Epoch, changes: &DeltaBatch) -> Result<()> {
        if (0..changes.len()).any(|row| changes.weight(row) < 0) {
            return Err(Error::internal("a retraction reached an append-only sink"));
        }
        self.payloads.clear();
        self.encoder.encode(changes.rows(), &mut self.payloads)?;
        match self.append(changes) {
            Ok(written) => {
                self.length += written;
                Ok(())
            }
            Err(e) => {
                self.rewind();
                Err(io_error("write", &self.path, &e))
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self.file.sync_data() {
            // A pipe or a device has nothing to sync.
            Err(e) if e.kind() != std::io::ErrorKind::InvalidInput => {
                Err(io_error("sync", &self.path, &e))
            }
            _ => Ok(()),
        }
    }
}
