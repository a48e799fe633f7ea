//! The outbox: messages of sinks that a checkpoint has decided, in files, until their receivers
//! have them.
//!
//! A file holds the messages of one checkpoint, one sink behind the other, or the first rows of a
//! new sink. It is frames, *chunks*, each with messages of one epoch of one sink:
//!
//! ```text
//! chunk   number of the file u64, sink u32, epoch u64, messages u32,
//!         per message: key and payload, each its length u32 (all ones: there is none) and bytes
//! broken  number of the file u64, sink u32, epoch u64, rows u64, why: changes that could not be
//!         put into messages
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::format::Message;
use crate::store::directory::{damaged, disk_error};
use crate::store::{Appender, Disk, DiskRead, failpoint, frame};

/// Kinds of frames.
const CHUNK: u8 = 3;
const BROKEN: u8 = 4;

/// Bytes of messages in a chunk, about.
const CHUNK_BYTES: usize = 256 << 10;

/// A file of an outbox, as manifests name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutFile {
    /// Its number, which names it.
    pub id: u64,
    /// Its length.
    pub bytes: u64,
    /// The checkpoint whose messages it holds.
    pub checkpoint: u64,
    /// The first rows of a sink, which come before the other messages of their checkpoint.
    pub first: bool,
    /// Where the messages of each sink are.
    pub sinks: BTreeMap<u32, Section>,
}

/// The messages of one sink in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// The byte at which they begin.
    pub from: u64,
    /// The byte behind them.
    pub to: u64,
    /// How many they are; what is broken counts as one.
    pub messages: u64,
    /// The epochs that they are of.
    pub epochs: u64,
    /// The last of them.
    pub last: u64,
}

/// The files of outboxes in a directory.
#[derive(Debug)]
pub struct Outboxes {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    numbers: Mutex<Numbers>,
}

#[derive(Debug)]
struct Numbers {
    next: u64,
    /// Files that no manifest names yet and somebody writes or waits with.
    held: BTreeSet<u64>,
}

impl Outboxes {
    /// Opens those of a directory; no file has had the number `next` or a greater one.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, next: u64) -> Result<Self> {
        let dir = path.join("out");
        disk.make_dir(&dir).map_err(|e| disk_error(&e, &dir))?;
        let numbers = Mutex::new(Numbers { next: next.max(1), held: BTreeSet::new() });
        Ok(Self { disk, dir, numbers })
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_of(&self, id: u64) -> PathBuf {
        self.dir.join(out_name(id))
    }

    /// The first number that no file has had.
    pub(super) fn next(&self) -> u64 {
        self.numbers().next
    }

    /// Begins a file; it stays until it is let go, whether or not a manifest names it.
    pub fn create(&self) -> Result<OutWriter> {
        let id = {
            let mut numbers = self.numbers();
            numbers.next += 1;
            let id = numbers.next - 1;
            numbers.held.insert(id);
            id
        };
        let path = self.path_of(id);
        let file = Appender::create(self.disk.as_ref(), &path);
        let file = file.inspect_err(|_| self.let_go(id))?;
        let (sinks, sink, epoch, chunk, in_chunk) = (BTreeMap::new(), 0, 0, Vec::new(), 0);
        Ok(OutWriter { id, file, sinks, sink, epoch, chunk, in_chunk })
    }

    /// A manifest names the file, or nobody needs it.
    pub fn let_go(&self, id: u64) {
        self.numbers().held.remove(&id);
    }

    /// Removes a file that is of no use.
    pub fn remove(&self, id: u64) {
        // What is left is removed with the next checkpoint.
        drop(self.disk.remove(&self.path_of(id)));
        self.let_go(id);
    }

    /// An error when another process may have the directory.
    pub fn check_ours(&self) -> Result<()> {
        self.disk.check_ours().map_err(|e| disk_error(&e, &self.dir))
    }

    /// Makes the names of files durable.
    pub fn sync(&self) -> Result<()> {
        self.disk.sync_dir(&self.dir).map_err(|e| disk_error(&e, &self.dir))
    }

    /// Looks whether a file is what its manifest says.
    pub(super) fn check(&self, file: &OutFile) -> Result<()> {
        file.check_length(self.disk.as_ref(), &self.path_of(file.id))
    }

    /// Removes the files that no manifest names and nobody waits with.
    pub(super) fn clean(&self, named: &BTreeSet<u64>) -> Result<()> {
        let names = self.disk.list(&self.dir).map_err(|e| disk_error(&e, &self.dir))?;
        for name in names {
            let id = name.strip_suffix(".out").and_then(|id| u64::from_str_radix(id, 16).ok());
            if id.is_none_or(|id| !named.contains(&id) && !self.numbers().held.contains(&id)) {
                let path = self.dir.join(&name);
                self.disk.remove(&path).map_err(|e| disk_error(&e, &path))?;
                failpoint::reach("outbox-removed");
            }
        }
        Ok(())
    }

    /// Reads the messages of a sink in a file.
    pub fn read(&self, file: u64, sink: u32, section: Section) -> Result<OutReader> {
        let path = self.path_of(file);
        let open = self.disk.open(&path).map_err(|e| disk_error(&e, &path))?;
        Ok(OutReader { id: file, path, file: open, sink, at: section.from, to: section.to })
    }
}

fn out_name(id: u64) -> String {
    format!("{id:016x}.out")
}

/// The file of messages in a data directory.
pub(super) fn out_path(path: &Path, id: u64) -> PathBuf {
    path.join("out").join(out_name(id))
}

impl OutFile {
    fn check_length(&self, disk: &dyn Disk, path: &Path) -> Result<()> {
        let open = disk.open(path).map_err(|e| disk_error(&e, path))?;
        let length = open.length().map_err(|e| disk_error(&e, path))?;
        match length == self.bytes {
            true => Ok(()),
            false => Err(damaged(format!("\"{}\" is damaged: its length", path.display()))),
        }
    }

    /// Reads all of it that a manifest names; the messages in it.
    pub(super) fn check(&self, disk: &dyn Disk, path: &Path) -> Result<u64> {
        self.check_length(disk, path)?;
        let mut all = 0;
        for (sink, section) in &self.sinks {
            let file = disk.open(path).map_err(|e| disk_error(&e, path))?;
            let (at, to) = (section.from, section.to);
            let path = path.to_owned();
            let mut reader = OutReader { id: self.id, path, file, sink: *sink, at, to };
            let mut messages = 0;
            while let Some(chunk) = reader.next_chunk()? {
                messages += match chunk.content {
                    Content::Messages(messages) => messages.len() as u64,
                    Content::Broken(..) => 1,
                };
            }
            if messages != section.messages {
                return Err(reader.damaged());
            }
            all += messages;
        }
        Ok(all)
    }
}

/// Writes a file.
#[derive(Debug)]
pub struct OutWriter {
    /// Its number.
    pub id: u64,
    file: Appender,
    sinks: BTreeMap<u32, Section>,
    sink: u32,
    epoch: u64,
    /// Messages of that sink and epoch that are in no chunk yet.
    chunk: Vec<u8>,
    in_chunk: u32,
}

impl OutWriter {
    /// Begins with the messages of a sink; each sink comes once.
    pub fn begin(&mut self, sink: u32) -> Result<()> {
        self.end_chunk()?;
        let at = self.file.place();
        self.sink = sink;
        self.sinks.insert(sink, Section { from: at, to: at, ..Section::default() });
        Ok(())
    }

    /// Begins with an epoch of that sink.
    pub fn epoch(&mut self, epoch: u64) -> Result<()> {
        self.end_chunk()?;
        self.epoch = epoch;
        if let Some(section) = self.sinks.get_mut(&self.sink) {
            section.epochs += 1;
            section.last = epoch;
        }
        Ok(())
    }

    /// Adds a message.
    pub fn push(&mut self, message: &Message) -> Result<()> {
        for part in [&message.key, &message.payload] {
            match part {
                // A value has less than VALUE_BYTES_MAX bytes.
                Some(bytes) => {
                    self.chunk.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                    self.chunk.extend_from_slice(bytes);
                }
                None => self.chunk.extend_from_slice(&u32::MAX.to_le_bytes()),
            }
        }
        self.in_chunk += 1;
        match self.chunk.len() < CHUNK_BYTES {
            true => Ok(()),
            false => self.end_chunk(),
        }
    }

    /// Says that changes could not be put into messages.
    pub fn broken(&mut self, rows: u64, why: &str) -> Result<()> {
        self.end_chunk()?;
        let mut body = self.head();
        body.extend_from_slice(&rows.to_le_bytes());
        body.extend_from_slice(why.as_bytes());
        self.end_frame(BROKEN, &body, 1)
    }

    fn head(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(24 + self.chunk.len());
        body.extend_from_slice(&self.id.to_le_bytes());
        body.extend_from_slice(&self.sink.to_le_bytes());
        body.extend_from_slice(&self.epoch.to_le_bytes());
        body
    }

    fn end_chunk(&mut self) -> Result<()> {
        if self.in_chunk == 0 {
            return Ok(());
        }
        let mut body = self.head();
        body.extend_from_slice(&self.in_chunk.to_le_bytes());
        body.append(&mut self.chunk);
        let messages = std::mem::take(&mut self.in_chunk);
        self.end_frame(CHUNK, &body, messages)
    }

    fn end_frame(&mut self, kind: u8, body: &[u8], messages: u32) -> Result<()> {
        frame::encode(kind, body, &mut self.file.buffer);
        if let Some(section) = self.sinks.get_mut(&self.sink) {
            section.to = self.file.place();
            section.messages += u64::from(messages);
        }
        self.file.settle()
    }

    /// Writes the rest and waits until all of it is on the disk; its name may not be yet.
    pub fn finish(mut self, checkpoint: u64, first: bool) -> Result<OutFile> {
        self.end_chunk()?;
        failpoint::reach("outbox-half-written");
        let Self { id, file, sinks, .. } = self;
        let bytes = file.finish()?;
        Ok(OutFile { id, bytes, checkpoint, first, sinks })
    }
}

/// Reads the messages of a sink.
#[derive(Debug)]
pub struct OutReader {
    id: u64,
    path: PathBuf,
    file: Box<dyn DiskRead>,
    sink: u32,
    at: u64,
    to: u64,
}

/// Messages of one epoch, or part of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The epoch.
    pub epoch: u64,
    /// What is in it.
    pub content: Content,
}

/// What is in a chunk.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// Messages.
    Messages(Vec<Message>),
    /// Changes of so many rows that could not be put into messages, and why.
    Broken(u64, String),
}

impl OutReader {
    /// Whether all chunks have been read.
    pub fn is_at_end(&self) -> bool {
        self.at >= self.to
    }

    /// The next chunk, until there is none.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        if self.is_at_end() {
            return Ok(None);
        }
        let failed = |e: std::io::Error| disk_error(&e, &self.path);
        let mut header = [0; frame::HEADER];
        self.file.read_at(self.at, &mut header).map_err(failed)?;
        let length = frame::whole(&header);
        if self.to - self.at < length as u64 {
            return Err(self.damaged());
        }
        let mut bytes = vec![0; length];
        self.file.read_at(self.at, &mut bytes).map_err(failed)?;
        let (frame, _) = frame::decode(&bytes).map_err(|_| self.damaged())?;
        let chunk = self.decode(frame.kind, frame.body).ok_or_else(|| self.damaged())?;
        self.at += length as u64;
        Ok(Some(chunk))
    }

    fn decode(&self, kind: u8, body: &[u8]) -> Option<Chunk> {
        let (id, rest) = body.split_first_chunk()?;
        let (sink, rest) = rest.split_first_chunk()?;
        let (epoch, mut rest) = rest.split_first_chunk()?;
        let epoch = u64::from_le_bytes(*epoch);
        if u64::from_le_bytes(*id) != self.id || u32::from_le_bytes(*sink) != self.sink {
            return None;
        }
        let content = match kind {
            CHUNK => {
                let count = take_u32(&mut rest)?;
                let mut messages = Vec::new();
                for _ in 0..count {
                    let (key, payload) = (take_part(&mut rest)?, take_part(&mut rest)?);
                    messages.push(Message { key, payload });
                }
                rest.is_empty().then_some(Content::Messages(messages))?
            }
            BROKEN => {
                let (rows, why) = rest.split_first_chunk()?;
                let why = String::from_utf8_lossy(why).into_owned();
                Content::Broken(u64::from_le_bytes(*rows), why)
            }
            _ => return None,
        };
        Some(Chunk { epoch, content })
    }

    fn damaged(&self) -> crate::error::Error {
        damaged(format!("\"{}\" is damaged: chunk at byte {}", self.path.display(), self.at))
    }
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u32::from_le_bytes(*number))
}

/// A key or payload, where there is one.
fn take_part(rest: &mut &[u8]) -> Option<Option<Vec<u8>>> {
    let length = take_u32(rest)?;
    if length == u32::MAX {
        return Some(None);
    }
    let (part, behind) = rest.split_at_checked(length as usize)?;
    *rest = behind;
    Some(Some(part.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OsDisk;

    fn message(key: Option<&str>, payload: Option<&str>) -> Message {
        let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        Message { key: bytes(key), payload: bytes(payload) }
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("headwater-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        path
    }

    fn all(mut reader: OutReader) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        while let Some(chunk) = reader.next_chunk().expect("whole") {
            chunks.push(chunk);
        }
        chunks
    }

    #[test]
    fn messages_come_back_by_sink_and_epoch() {
        let path = scratch("outbox");
        let outboxes = Outboxes::open(Arc::new(OsDisk), &path, 7).expect("opens");
        let mut writer = outboxes.create().expect("creates");
        writer.begin(3).expect("begins");
        writer.epoch(10).expect("begins");
        let two = [message(Some("k"), Some("")), message(None, Some("v"))];
        two.iter().for_each(|m| writer.push(m).expect("writes"));
        writer.epoch(12).expect("begins");
        let large = message(Some("gone"), None);
        let long = message(None, Some(&"x".repeat(CHUNK_BYTES)));
        [&large, &long, &large].iter().for_each(|m| writer.push(m).expect("writes"));
        writer.begin(4).expect("begins");
        writer.epoch(12).expect("begins");
        writer.broken(5, "too wide").expect("writes");
        let file = writer.finish(2, false).expect("ends");
        assert_eq!((file.id, outboxes.next()), (7, 8));
        let of = |sink: u32| file.sinks[&sink];
        assert_eq!((of(3).messages, of(3).epochs, of(3).last), (5, 2, 12));
        let chunks = all(outboxes.read(7, 3, of(3)).expect("opens"));
        let messages = |epoch, messages| Chunk { epoch, content: Content::Messages(messages) };
        let wanted = [
            messages(10, two.to_vec()),
            messages(12, vec![large.clone(), long]),
            messages(12, vec![large]),
        ];
        assert!(chunks == wanted);
        let broken = Chunk { epoch: 12, content: Content::Broken(5, "too wide".into()) };
        assert_eq!(all(outboxes.read(7, 4, of(4)).expect("opens")), [broken]);
        outboxes.check(&file).expect("whole");

        // Each byte counts.
        let name = path.join("out/0000000000000007.out");
        let bytes = std::fs::read(&name).expect("reads");
        for at in (0..of(4).from as usize).step_by(CHUNK_BYTES / 3 + 1) {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            std::fs::write(&name, &bad).expect("writes");
            let mut reader = outboxes.read(7, 3, of(3)).expect("opens");
            let mut failed = None;
            while failed.is_none() {
                match reader.next_chunk() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("byte {at} was not missed"),
                    Err(error) => failed = Some(error),
                }
            }
            assert_eq!(failed.map(|e| e.sqlstate()), Some("XX001"));
        }
        std::fs::write(&name, &bytes[1..]).expect("writes");
        assert!(outboxes.check(&file).is_err());

        // What nobody names or holds goes.
        outboxes.clean(&BTreeSet::new()).expect("cleans");
        assert!(name.exists(), "it is held");
        outboxes.let_go(7);
        outboxes.clean(&BTreeSet::from([7])).expect("cleans");
        assert!(name.exists(), "it is named");
        outboxes.clean(&BTreeSet::new()).expect("cleans");
        assert!(!name.exists());
        drop(std::fs::remove_dir_all(&path));
    }
}
