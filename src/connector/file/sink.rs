//! Appending rows to a file, one line each.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::io_error;
use crate::connector::{ConnectorSpec, Options, Sink, SinkMode, sink_key};
use crate::delta::DeltaBatch;
use crate::error::{Error, Result};
use crate::format::{Changelog, Message, Outgoing};
use crate::time::Epoch;

/// Bytes gathered before they go to the system.
const BLOCK_BYTES: usize = 1 << 20;

fn read_options(spec: &ConnectorSpec) -> Result<(PathBuf, Outgoing)> {
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
    let mut sink = FileSink { path, file, outgoing, length: 0, messages: Vec::new() };
    if let Some(header) = sink.outgoing.header().map(<[u8]>::to_vec) {
        sink.messages.push(Message { key: None, payload: Some(header) });
        sink.write_messages()?;
    }
    Ok(Box::new(sink))
}

struct FileSink {
    path: PathBuf,
    file: File,
    outgoing: Outgoing,
    /// The length of the file after the last whole epoch.
    length: u64,
    messages: Vec<Message>,
}

impl FileSink {
    /// Writes one line per message, all or nothing.
    fn write_messages(&mut self) -> Result<()> {
        match self.append() {
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

    /// Returns the bytes written.
    fn append(&mut self) -> std::io::Result<u64> {
        let mut block = Vec::new();
        let mut written = 0;
        for payload in self.messages.iter().filter_map(|message| message.payload.as_ref()) {
            block.extend_from_slice(payload);
            block.push(b'\n');
            if block.len() >= BLOCK_BYTES {
                self.file.write_all(&block)?;
                written += block.len() as u64;
                block.clear();
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
    fn write(&mut self, epoch: Epoch, changes: &DeltaBatch) -> Result<()> {
        self.messages.clear();
        self.outgoing.write(epoch.0, changes, &mut self.messages)?;
        self.write_messages()
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
