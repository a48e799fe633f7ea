//! Files of an object store that are open, and the claim on a directory.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::lease::{BEAT, Lease, WATCH};
use super::node::{Node, Place, filled};
use super::{Change, INLINE_BYTES, Shared, lock};
use crate::store::disk::{DiskFile, DiskRead, Lock, read_at, write_at};

/// A file that is written.
#[derive(Debug)]
pub(super) struct ObjectFile {
    shared: Arc<Shared>,
    node: Arc<Node>,
}

impl ObjectFile {
    pub(super) fn new(shared: Arc<Shared>, node: Arc<Node>) -> Self {
        node.lock().writers += 1;
        Self { shared, node }
    }

    /// Moves what was written from memory into a file of this machine.
    fn spill(&self) -> io::Result<()> {
        let number = lock(&self.shared.state).draw();
        let (path, file) = self.shared.cache.scratch(number)?;
        let mut content = self.node.lock();
        let moved = match &content.place {
            // It may have been given its name meanwhile, and lies in the journal.
            Place::Memory { bytes, length } if !content.named => {
                write_at(&file, 0, bytes).and_then(|()| file.set_len(*length)).map(|()| *length)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        match moved {
            Ok(length) => {
                content.place = Place::Local { file: Arc::new(file), path, length };
                Ok(())
            }
            Err(error) => {
                drop(std::fs::remove_file(path));
                if content.named { Ok(()) } else { Err(error) }
            }
        }
    }
}

impl DiskFile for ObjectFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let large = {
            let content = self.node.lock();
            // Zeros are length alone.
            let filled = filled(bytes);
            let large = filled > 0 && offset as usize + filled > INLINE_BYTES;
            matches!(content.place, Place::Memory { .. }) && !content.named && large
        };
        if large {
            self.spill()?;
        }
        let mut content = self.node.lock();
        content.unsynced = true;
        match &mut content.place {
            Place::Memory { .. } => content.write(offset, bytes),
            Place::Local { file, length, .. } => {
                write_at(file, offset, bytes)?;
                *length = (*length).max(offset + bytes.len() as u64);
            }
            Place::Object { .. } => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "a file in an object store is not changed when it has its name",
                ));
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let pushed = {
            let mut state = lock(&self.shared.state);
            let mut content = self.node.lock();
            content.unsynced = false;
            if !content.named || content.gone {
                return Ok(());
            }
            let (file, length) = (content.name.clone(), content.place.length());
            // What was written may be on its way with what others have pushed.
            let mut pushed = state.pushed;
            for (offset, bytes) in content.take_dirty() {
                pushed = state.push(Change::Write { file: file.clone(), offset, bytes, length });
            }
            pushed
        };
        self.shared.commit(pushed)
    }
}

impl Drop for ObjectFile {
    fn drop(&mut self) {
        self.node.lock().writers -= 1;
    }
}

/// A file that is read.
#[derive(Debug)]
pub(super) struct ObjectRead {
    pub(super) shared: Arc<Shared>,
    pub(super) node: Arc<Node>,
}

impl DiskRead for ObjectRead {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let content = self.node.lock();
        match &content.place {
            Place::Memory { bytes, length } => {
                if offset + buffer.len() as u64 > *length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let from = (offset as usize).min(bytes.len());
                let there = (bytes.len() - from).min(buffer.len());
                buffer[..there].copy_from_slice(&bytes[from..from + there]);
                buffer[there..].fill(0);
                Ok(())
            }
            Place::Local { file, .. } => read_at(file, offset, buffer),
            Place::Object { name, length } => {
                let (name, length) = (name.clone(), *length);
                drop(content);
                let Shared { cache, remote, .. } = &*self.shared;
                cache.read_at(remote, (&name, length), offset, buffer)
            }
        }
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.node.lock().place.length())
    }
}

/// Takes a directory for this process: `WouldBlock` when another one shows that it lives, unless it
/// is to be ended or waited for.
pub(super) fn claim(shared: &Arc<Shared>) -> io::Result<Arc<dyn Lock>> {
    loop {
        if let Some(now) = &shared.standby {
            stand_by(shared, now);
        } else if !shared.take_over && is_alive(shared, &|| false)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        shared.look()?;
        let mut turn = lock(&shared.turn);
        if turn.journal.begin_life(&shared.remote)? {
            break;
        }
        // Somebody has written meanwhile: it may be alive after all.
    }
    shared.held.store(true, Ordering::SeqCst);
    shared.remove_orphans()?;
    let lease = Lease::own(lock(&shared.turn).journal.life);
    lease.write(&shared.remote)?;
    let claim = Arc::new(Claim { shared: Arc::clone(shared), released: AtomicBool::new(false) });
    let beating = Arc::downgrade(&claim);
    std::thread::Builder::new().name("lease".into()).spawn(move || beat(&beating, lease))?;
    Ok(claim)
}

/// Returns when nobody has it open, or when it is to be taken; until then it gets what a start
/// would read.
fn stand_by(shared: &Shared, now: &AtomicBool) {
    let wanted = || now.load(Ordering::SeqCst);
    let mut told = false;
    loop {
        let alive = is_alive(shared, &wanted);
        match alive.and_then(|alive| if alive { shared.look().map(|()| true) } else { Ok(false) }) {
            Ok(false) => return,
            Ok(true) if !told => {
                told = true;
                tracing::info!("standing by: another process has the data directory");
            }
            Ok(true) => {}
            Err(error) => {
                tracing::warn!(%error, "nobody knows who has the data directory");
                std::thread::sleep(BEAT);
            }
        }
        if let Err(error) = shared.warm() {
            tracing::debug!(%error, "a start will read more");
        }
    }
}

/// Watches whether who has it open shows that it lives, unless that is not wanted any more.
fn is_alive(shared: &Shared, given_up: &dyn Fn() -> bool) -> io::Result<bool> {
    let Some(lease) = Lease::read(&shared.remote)? else { return Ok(false) };
    let began = Instant::now();
    while began.elapsed() < WATCH && !given_up() && !lease.has_ended() {
        std::thread::sleep(Duration::from_secs(1));
        match Lease::read(&shared.remote)? {
            None => return Ok(false),
            Some(now) if now != lease => return Ok(true),
            Some(_) if began.elapsed().as_secs() == BEAT.as_secs() => {
                let doubt = "who has the data directory open shows no sign of life";
                tracing::warn!(process = %lease, "{doubt}: waiting for one");
            }
            Some(_) => {}
        }
    }
    Ok(false)
}

/// A directory that this process has.
#[derive(Debug)]
struct Claim {
    shared: Arc<Shared>,
    released: AtomicBool,
}

impl Lock for Claim {
    fn is_held(&self) -> io::Result<bool> {
        Ok(!self.released.load(Ordering::SeqCst) && self.shared.held.load(Ordering::SeqCst))
    }

    fn release(&self) {
        if self.released.swap(true, Ordering::SeqCst) {
            return;
        }
        if self.shared.held.swap(false, Ordering::SeqCst)
            && let Err(error) = Lease::remove(&self.shared.remote)
        {
            tracing::warn!(%error, "the next process will wait for a sign of life of this one");
        }
    }
}

/// Shows that this process lives, and finds out when another one has begun.
fn beat(claim: &Weak<Claim>, mut lease: Lease) {
    loop {
        let next = Instant::now() + BEAT;
        while Instant::now() < next {
            std::thread::sleep(Duration::from_millis(200));
            if claim.upgrade().is_none_or(|claim| !matches!(claim.is_held(), Ok(true))) {
                return;
            }
        }
        let Some(claim) = claim.upgrade() else { return };
        let remote = &claim.shared.remote;
        match Lease::read(remote) {
            Ok(Some(other)) if other.life > lease.life => {
                claim.shared.held.store(false, Ordering::SeqCst);
                return;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "nobody knows who has the data directory");
                continue;
            }
        }
        if matches!(claim.is_held(), Ok(true)) {
            lease.beat += 1;
            drop(lease.write(remote));
        }
    }
}
