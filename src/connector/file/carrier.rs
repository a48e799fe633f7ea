//! Appending messages that are kept on the disk to a file, a line each, exactly once.
//!
//! How long the file is behind a load is noted in the data directory, beside the place among the
//! messages. What is in the file behind that when another life begins is what that life appends
//! next, as far as it was written: so it is compared, kept as far as it is the same, and the rest
//! is cut off. A reader that follows the file sees each line once.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::io_error;
use super::sink::read_options;
use crate::connector::{
    Account, Carrier, ConnectorSpec, Failure, Guarantee, KeptSink, Load, Receiver, SinkId, Watch,
};
use crate::error::{Error, Result, sqlstate};
use crate::store::failpoint;

/// Bytes that are compared at a time.
const BLOCK_BYTES: usize = 1 << 16;

pub(super) fn keep(
    spec: &ConnectorSpec,
    _id: SinkId,
    wanted: Option<Guarantee>,
) -> Result<Option<KeptSink>> {
    let (path, _) = read_options(spec)?;
    // Of a pipe or a device nothing can be cut off or read again.
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        return Ok(None);
    }
    if wanted == Some(Guarantee::AtLeastOnce) {
        return Err(Error::unsupported("connector \"file\" delivers exactly once, never less")
            .with_hint("Leave the option delivery out."));
    }
    let spec = spec.clone();
    let make = move || {
        let (path, outgoing) = read_options(&spec)?;
        let header = outgoing.header().map(|header| [header, b"\n"].concat());
        let carrier = FileCarrier { path, header: header.unwrap_or_default(), file: None };
        Ok((outgoing, Box::new(carrier) as Box<dyn Carrier>))
    };
    Ok(Some(KeptSink { guarantee: Guarantee::ExactlyOnce, make: Arc::new(make) }))
}

struct FileCarrier {
    path: PathBuf,
    /// What stands in front of the first line.
    header: Vec<u8>,
    /// With its length behind the last load; `None`: what is in it has to be compared.
    file: Option<(File, u64)>,
}

impl Carrier for FileCarrier {
    fn try_out(&mut self) -> Result<()> {
        // Emptied, as a file that a sink begins with is.
        let file = File::create(&self.path).map_err(|e| io_error("create", &self.path, &e))?;
        self.file = None;
        drop(file);
        Ok(())
    }

    fn settle(&mut self, _watch: Watch<'_>) -> Result<Account, Failure> {
        self.file = None;
        Ok(Account::None)
    }

    fn deliver(&mut self, load: &Load<'_>, _watch: Watch<'_>) -> Result<u64, Failure> {
        let mut bytes = if load.length == 0 { self.header.clone() } else { Vec::new() };
        for payload in load.messages.iter().filter_map(|message| message.payload.as_ref()) {
            bytes.extend_from_slice(payload);
            bytes.push(b'\n');
        }
        let length = load.length + bytes.len() as u64;
        let failed = |verb: &str, e: &std::io::Error| io_error(verb, &self.path, e);
        let mut at = load.length;
        let mut file = match self.file.take() {
            Some((file, known)) if known == load.length => file,
            _ => {
                let mut file = self.open(load.length)?;
                at += same(&mut file, load.length, &bytes).map_err(|e| failed("read", &e))?;
                if at < length {
                    file.set_len(at).map_err(|e| failed("write", &e))?;
                }
                file
            }
        };
        let rest = bytes.get((at - load.length) as usize..).unwrap_or_default();
        file.seek(SeekFrom::Start(at)).map_err(|e| failed("write", &e))?;
        let (half, other) = rest.split_at(rest.len() / 2);
        file.write_all(half).map_err(|e| failed("write", &e))?;
        failpoint::reach("transaction-sent");
        file.write_all(other).map_err(|e| failed("write", &e))?;
        match file.sync_data() {
            // A pipe or a device has nothing to sync.
            Err(e) if e.kind() != ErrorKind::InvalidInput => return Err(failed("sync", &e).into()),
            _ => {}
        }
        failpoint::reach("transaction-committed");
        // There may be more behind it that is to be compared.
        let whole = file.metadata().is_ok_and(|m| m.len() == length);
        self.file = whole.then_some((file, length));
        Ok(length)
    }

    fn receiver(&mut self) -> Receiver {
        Receiver::Local
    }
}

impl FileCarrier {
    fn open(&self, length: u64) -> Result<File, Failure> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(length == 0).truncate(false);
        let file = options.open(&self.path).map_err(|e| io_error("open", &self.path, &e))?;
        let found = file.metadata().map_err(|e| io_error("read", &self.path, &e))?.len();
        if found < length {
            let path = self.path.display();
            let message =
                format!("file \"{path}\" has {found} bytes, where {length} were delivered");
            return Err(Error::external(sqlstate::DATA_CORRUPTED, message)
                .permanent()
                .with_detail("Somebody has shortened or replaced it.")
                .with_hint(
                    "Put it back and ALTER SINK .. RESUME, or begin it anew with all rows by \
                     ALTER SINK .. REPUBLISH.",
                )
                .into());
        }
        Ok(file)
    }
}

/// How many bytes of a file behind a place are the same as some others.
fn same(file: &mut File, from: u64, bytes: &[u8]) -> std::io::Result<u64> {
    file.seek(SeekFrom::Start(from))?;
    let mut found = vec![0; BLOCK_BYTES];
    let mut at = 0;
    while let Some(wanted) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let count = file.read(&mut found)?;
        let equal = found[..count].iter().zip(wanted).take_while(|(a, b)| a == b).count();
        at += equal;
        if equal == 0 || equal < count {
            break;
        }
    }
    Ok(at as u64)
}
