//! Appending rows to a file, one line each.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::io_error;
use crate::connector::delivery::kept;
use crate::connector::{ConnectorSpec, Delivery, Failure, Options, Sink, SinkMode, sink_key};
use crate::error::{Error, Result};
use crate::format::{Changelog, Message, Outgoing};

/// Bytes gathered before they go to the system.
const BLOCK_BYTES: usize = 1 << 20;

pub(super) fn read_options(spec: &ConnectorSpec) -> Result<(PathBuf, Outgoing)> {
    if spec.format.changelog == Changelog::Upsert {
        return Err(Error::unsupported("connector \"file\" can't write FORMAT UPSERT")
            .with_hint(CHANGELOG_HINT));
    }
    let mut options = Options::new(spec);
    let path = PathBuf::from(options.required("path")?);
    let key = sink_key(spec, &mut options)?;
    options.finish()?;
    Ok((path, spec.format.outgoing(&spec.schema, &key, &spec.relation)?))
}

const CHANGELOG_HINT: &str = "A line can't delete another: write the changes, with FORMAT PLAIN \
    ENCODE JSON (op_column = '__op') or FORMAT DEBEZIUM ENCODE JSON.";

pub(super) fn mode(spec: &ConnectorSpec) -> Result<SinkMode> {
    Ok(match read_options(spec)?.1.inserts_only() {
        true => SinkMode::AppendOnly,
        false => SinkMode::Changelog,
    })
}

pub(super) fn create(spec: &ConnectorSpec) -> Result<Box<dyn Sink>> {
    let (path, outgoing) = read_options(spec)?;
    let file = File::create(&path).map_err(|e| io_error("create", &path, &e))?;
    let mut sink = FileSink { path, file, outgoing, synced: 0, written: 0, waiting: 0 };
    if let Some(mut header) = sink.outgoing.header().map(<[u8]>::to_vec) {
        header.push(b'\n');
        sink.append(&header).map_err(|e| io_error("write", &sink.path, &e))?;
        sink.synced = sink.written;
    }
    Ok(Box::new(sink))
}

struct FileSink {
    path: PathBuf,
    file: File,
    outgoing: Outgoing,
    /// The length of the file behind the last delivery that has arrived.
    synced: u64,
    /// The length behind the last one that was written.
    written: u64,
    /// Deliveries that are written and not synced.
    waiting: usize,
}

impl FileSink {
    /// Writes one line per message.
    fn write_messages(&mut self, delivery: &Delivery<'_>, messages: &[Message]) -> Result<()> {
        let mut block = Vec::new();
        for payload in kept(messages, delivery.skip).filter_map(|message| message.payload.as_ref())
        {
            block.extend_from_slice(payload);
            block.push(b'\n');
            if block.len() >= BLOCK_BYTES {
                self.append(&block).map_err(|e| io_error("write", &self.path, &e))?;
                block.clear();
            }
        }
        self.append(&block).map_err(|e| io_error("write", &self.path, &e))
    }

    fn append(&mut self, block: &[u8]) -> std::io::Result<()> {
        self.file.write_all(block)?;
        self.written += block.len() as u64;
        Ok(())
    }
}

impl Sink for FileSink {
    fn write(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure> {
        let mut messages = Vec::new();
        for changes in delivery.changes {
            self.outgoing.write(delivery.epoch.0, changes, &mut messages)?;
        }
        self.write_messages(delivery, &messages)?;
        self.waiting += 1;
        Ok(())
    }

    fn arrived(&mut self, _wait: Duration) -> Result<usize, Failure> {
        if self.waiting == 0 {
            return Ok(0);
        }
        match self.file.sync_data() {
            // A pipe or a device has nothing to sync.
            Err(e) if e.kind() != std::io::ErrorKind::InvalidInput => {
                Err(io_error("sync", &self.path, &e).into())
            }
            _ => {
                self.synced = self.written;
                Ok(std::mem::take(&mut self.waiting))
            }
        }
    }

    /// Cuts off what has not arrived, so that its repetition does not double rows.
    fn restart(&mut self) -> usize {
        let cut = self
            .file
            .set_len(self.synced)
            .and_then(|()| self.file.seek(SeekFrom::Start(self.synced)));
        if let Err(e) = cut {
            tracing::warn!(path = %self.path.display(), error = %e, "could not cut a file back");
        }
        self.written = self.synced;
        self.waiting = 0;
        0
    }
}
