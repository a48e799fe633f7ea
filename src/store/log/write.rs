//! Writing the log: one thread that gathers what waits, writes it as one group, and syncs it.
//!
//! The sequencer appends, goes on with its work, and waits for the sync before it publishes. Room
//! is made sure of ahead ([`Log::reserve`]), so that a full disk refuses a commit before it has an
//! effect; a write or sync that fails all the same leaves nobody knowing what is on the disk, and
//! ends the log.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::read::End;
use super::record::Record;
use super::{GROUP, Lsn, segment_name};
use crate::config::{LOG_GROUP_BYTES, LOG_HELD_BYTES, LOG_SEGMENT_BYTES};
use crate::error::{Error, Result, sqlstate};
use crate::store::directory::{BALLAST, disk_error, taken_over};
use crate::store::frame;
use crate::store::guarded::is_taken_over;
use crate::store::{Disk, DiskFile};

/// Zeros are written in pieces of this many bytes.
const ZEROS: usize = 1 << 20;

/// The log of a life, for its one writer. Dropping it ends the thread when all is written.
#[derive(Debug)]
pub struct Log {
    requests: Option<Sender<Request>>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
    next: Lsn,
    /// Bytes that are sure to find room.
    reserved: usize,
}

#[derive(Debug)]
enum Request {
    Append(Lsn, Vec<Record>),
    Reserve(usize, SyncSender<Result<usize>>),
}

/// How far the log is.
#[derive(Debug, Default)]
struct State {
    // Held for a look or a change of a number.
    synced: Mutex<Synced>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Synced {
    /// All records below this one are on the disk.
    below: Lsn,
    failed: Option<Error>,
}

impl Log {
    /// Begins the log of a life behind the end of the one before.
    pub fn start(disk: Arc<dyn Disk>, dir: PathBuf, end: &End) -> Result<Self> {
        let (requests, inbox) = channel();
        let state = Arc::new(State::default());
        lock(&state.synced).below = end.next;
        let mut writer = Writer {
            spare: Spare::None,
            disk,
            dir,
            state: Arc::clone(&state),
            previous: end.previous,
            current: None,
        };
        let current = writer.make_first(end.next)?;
        // It is empty; groups have heads, which nobody counts.
        let reserved = current.bytes / 2;
        writer.current = Some(current);
        let run = move || writer.run(&inbox);
        let thread = std::thread::Builder::new().name("log".into()).spawn(run)?;
        let (requests, thread) = (Some(requests), Some(thread));
        Ok(Self { requests, state, thread, next: end.next, reserved })
    }

    /// The number of the next record.
    pub fn next(&self) -> Lsn {
        self.next
    }

    /// Makes sure that so many bytes of records find room: 53100 when they don't.
    pub fn reserve(&mut self, bytes: usize) -> Result<()> {
        if bytes <= self.reserved {
            return Ok(());
        }
        let (answer, told) = sync_channel(1);
        self.send(Request::Reserve(bytes, answer))?;
        self.reserved = told.recv().map_err(|_| self.failure())??;
        Ok(())
    }

    /// Appends records, for which there is room; the number that [`Log::wait`] is to be given.
    pub fn append(&mut self, records: Vec<Record>) -> Result<Lsn> {
        let bytes = records.iter().map(Record::bytes).sum();
        self.reserve(bytes)?;
        self.reserved -= bytes;
        let first = self.next;
        self.next += records.len() as Lsn;
        self.send(Request::Append(first, records))?;
        Ok(self.next)
    }

    fn send(&self, request: Request) -> Result<()> {
        let requests = self.requests.as_ref().ok_or_else(|| self.failure())?;
        requests.send(request).map_err(|_| self.failure())
    }

    /// Returns when all records below this number are on the disk.
    pub fn wait(&self, below: Lsn) -> Result<()> {
        let mut synced = lock(&self.state.synced);
        loop {
            if synced.below >= below {
                return Ok(());
            }
            if let Some(error) = &synced.failed {
                return Err(error.clone());
            }
            synced = self.state.moved.wait(synced).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Why the log has ended.
    fn failure(&self) -> Error {
        let failed = lock(&self.state.synced).failed.clone();
        failed.unwrap_or_else(|| Error::internal("the log has ended"))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // What it could not write, it has told those who waited for it.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file of zeros that groups are written into.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    offset: usize,
    bytes: usize,
}

/// The segment that comes behind the current one.
#[derive(Debug)]
enum Spare {
    None,
    Ready(Segment),
    /// A thread of its own makes it, which takes a while.
    Coming(JoinHandle<io::Result<Segment>>),
}

struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    state: Arc<State>,
    previous: u64,
    current: Option<Segment>,
    spare: Spare,
}

impl Writer {
    fn run(&mut self, inbox: &Receiver<Request>) {
        let mut held = None;
        while let Some(request) = held.take().or_else(|| inbox.recv().ok()) {
            match request {
                Request::Reserve(bytes, answer) => {
                    // Whoever asked waits for it.
                    let _ = answer.send(self.reserve(bytes));
                }
                Request::Append(first, mut records) => {
                    let mut bytes: usize = records.iter().map(Record::bytes).sum();
                    // All that has come meanwhile is one group.
                    while bytes < LOG_GROUP_BYTES {
                        match inbox.try_recv() {
                            Ok(Request::Append(_, more)) => {
                                bytes += more.iter().map(Record::bytes).sum::<usize>();
                                records.extend(more);
                            }
                            Ok(other) => {
                                held = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    if let Err(error) = self.write(first, &records) {
                        self.fail(error);
                        return;
                    }
                    let below = first + records.len() as Lsn;
                    lock(&self.state.synced).below = below;
                    self.state.moved.notify_all();
                }
            }
        }
    }

    fn fail(&self, error: Error) {
        tracing::error!(%error, "the log has failed");
        lock(&self.state.synced).failed = Some(error);
        self.state.moved.notify_all();
    }

    fn write(&mut self, first: Lsn, records: &[Record]) -> Result<()> {
        let mut body = first.to_le_bytes().to_vec();
        body.extend_from_slice(&self.previous.to_le_bytes());
        records.iter().for_each(|record| record.encode(&mut body));
        let mut bytes = Vec::with_capacity(body.len() + frame::OVERHEAD);
        let checksum = frame::encode(GROUP, &body, &mut bytes);
        let full = self.current.as_ref().is_none_or(|s| s.bytes - s.offset < bytes.len());
        if full {
            self.change_segment(first, bytes.len())?;
        }
        let segment = self.current.as_mut().ok_or_else(|| Error::internal("no segment"))?;
        let written = segment.file.write_at(segment.offset as u64, &bytes);
        written.and_then(|()| segment.file.sync()).map_err(|e| lost(&e, segment))?;
        segment.offset += bytes.len();
        self.previous = checksum;
        Ok(())
    }

    fn change_segment(&mut self, first: Lsn, bytes: usize) -> Result<()> {
        let spare = match std::mem::replace(&mut self.spare, Spare::None) {
            Spare::None => None,
            Spare::Ready(segment) => Some(segment),
            Spare::Coming(thread) => join(thread).ok(),
        };
        let fits = spare.filter(|segment| segment.bytes >= bytes);
        let mut segment = match fits {
            Some(segment) => segment,
            None => make(self.disk.as_ref(), self.dir.join("next"), bytes.max(LOG_SEGMENT_BYTES))
                .map_err(|e| disk_error(&e, &self.dir))?,
        };
        let path = self.dir.join(segment_name(first));
        let renamed = self.disk.rename(&segment.path, &path);
        renamed.and_then(|()| self.disk.sync_dir(&self.dir)).map_err(|e| disk_error(&e, &path))?;
        segment.path = path;
        self.current = Some(segment);
        let (disk, path) = (Arc::clone(&self.disk), self.dir.join("next"));
        let make = move || make(disk.as_ref(), path, LOG_SEGMENT_BYTES);
        let thread = std::thread::Builder::new().name("log-segment".into()).spawn(make);
        self.spare = thread.map_or(Spare::None, Spare::Coming);
        Ok(())
    }

    /// Makes sure of a spare segment with room for so many bytes; the bytes that it has room for.
    fn reserve(&mut self, bytes: usize) -> Result<usize> {
        let wanted = (bytes + bytes / 8 + LOG_GROUP_BYTES / 8).max(LOG_SEGMENT_BYTES);
        let spare = match std::mem::replace(&mut self.spare, Spare::None) {
            Spare::None => None,
            Spare::Ready(segment) => Some(segment),
            Spare::Coming(thread) => join(thread).ok(),
        };
        let segment = match spare.filter(|segment| segment.bytes >= wanted) {
            Some(segment) => segment,
            None => make(self.disk.as_ref(), self.dir.join("next"), wanted)
                .map_err(|e| disk_error(&e, &self.dir))?,
        };
        // Groups have a head, and records are counted generously.
        let room = segment.bytes - frame::OVERHEAD - 16;
        self.spare = Spare::Ready(segment);
        Ok(room.max(bytes))
    }

    /// The first segment of a life, as large as there is room for: on a full disk somebody has to
    /// get in to make some. What the life before has left as a spare one is in nobody's use.
    fn make_first(&self, first: Lsn) -> Result<Segment> {
        let next = self.dir.join("next");
        remove(self.disk.as_ref(), &next).map_err(|e| disk_error(&e, &next))?;
        let ballast = self.dir.parent().map(|dir| dir.join(BALLAST));
        let mut given_up = false;
        loop {
            let mut bytes = LOG_SEGMENT_BYTES;
            let error = loop {
                match self.make(first, bytes) {
                    Err(error) if error.sqlstate() != sqlstate::DISK_FULL => return Err(error),
                    Err(error) if bytes <= 2 * LOG_HELD_BYTES => break error,
                    Err(_) => bytes /= 4,
                    made => return made,
                }
            };
            let removed = ballast.as_ref().map(|ballast| self.disk.remove(ballast).is_ok());
            if given_up || removed != Some(true) {
                return Err(error);
            }
            tracing::warn!("the disk is full: the ballast of the data directory is given up");
            given_up = true;
        }
    }

    /// A segment that begins with a record.
    fn make(&self, first: Lsn, bytes: usize) -> Result<Segment> {
        let path = self.dir.join(segment_name(first));
        // One that nothing was written into may have the name.
        let made = remove(self.disk.as_ref(), &path)
            .and_then(|()| make(self.disk.as_ref(), path.clone(), bytes))
            .and_then(|segment| self.disk.sync_dir(&self.dir).map(|()| segment));
        made.map_err(|e| disk_error(&e, &path))
    }
}

fn join(thread: JoinHandle<io::Result<Segment>>) -> io::Result<Segment> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread ended")))
}

fn remove(disk: &dyn Disk, path: &std::path::Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a file of zeros that are on the disk.
fn make(disk: &dyn Disk, path: PathBuf, bytes: usize) -> io::Result<Segment> {
    remove(disk, &path)?;
    let mut file = disk.create(&path)?;
    fill(file.as_mut(), bytes).inspect_err(|_| {
        // On a full disk a part of a segment would take the room that a checkpoint needs.
        drop(disk.remove(&path));
    })?;
    Ok(Segment { path, file, offset: 0, bytes })
}

fn fill(file: &mut dyn DiskFile, bytes: usize) -> io::Result<()> {
    let zeros = vec![0; ZEROS.min(bytes)];
    let mut offset = 0;
    while offset < bytes {
        let piece = zeros.len().min(bytes - offset);
        file.write_at(offset as u64, &zeros[..piece])?;
        offset += piece;
    }
    file.sync()
}

fn lost(error: &io::Error, segment: &Segment) -> Error {
    if is_taken_over(error) {
        return taken_over();
    }
    let path = segment.path.display();
    Error::external(sqlstate::IO_ERROR, format!("could not write the log to \"{path}\": {error}"))
        .with_detail("Nobody knows what of the last writes is on the disk.")
        .with_hint("Mend the disk and start again; what was acknowledged is there.")
        .permanent()
}
