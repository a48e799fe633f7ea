//! A data directory in an object store: S3, Google Cloud Storage, Azure.
//!
//! ```text
//! PREFIX/journal/<number>   what was changed in the directory, in one sequence over all lives
//! PREFIX/file/<life>-<n>    the content of a file that is not small, never changed
//! PREFIX/LOCK               who has it open, and that it lives
//! ```
//!
//! To those above, it is a disk like another: files are made, written, synced and named. A small
//! file lies in the journal itself, and so does the log: what is synced is one new object. A large
//! one is written on this machine, and sent when its directory is synced and nobody writes it any
//! more: unlike one of a real disk, it has no name before it is whole. The next object of the
//! journal is made only if there is none, so that of two processes one finds out that it has the
//! directory no more before anybody hears of what it has written.
//!
//! What is read of large files is kept on this machine, up to a limit.

mod cache;
mod entry;
mod files;
mod journal;
mod lease;
mod node;
mod opened;
mod place;
mod remote;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use object_store::ObjectStore;
use object_store::path::Path as Key;
use xxhash_rust::xxh3::xxh3_64;

use cache::{Cache, object_name};
use entry::Change;
use files::{Files, Stored};
use journal::Journal;
use node::{Content, Node, Place};
use opened::{ObjectFile, ObjectRead};
use remote::Remote;

use super::disk::{Disk, DiskFile, DiskRead, Lock};
use crate::config::ObjectOptions;
use crate::error::Result;

pub use place::is_url;
pub use remote::Requests;

/// Bytes up to which a file lies in the journal.
const INLINE_BYTES: usize = 256 << 10;

/// A data directory in an object store.
#[derive(Debug, Clone)]
pub struct ObjectDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    remote: Remote,
    cache: Cache,
    take_over: bool,
    standby: Option<Arc<AtomicBool>>,
    // Held for a look or a change; never while the store is asked, but for loading.
    state: Mutex<State>,
    // Held while an entry is written: the next one takes all that has come meanwhile.
    turn: Mutex<Turn>,
    /// It is ours.
    held: AtomicBool,
    garbage: Arc<Mutex<Vec<String>>>,
}

#[derive(Debug, Default)]
struct State {
    loaded: bool,
    nodes: BTreeMap<String, Arc<Node>>,
    dirs: BTreeSet<String>,
    /// What the journal is to be told next, and how much it was ever told.
    pending: Vec<Change>,
    pushed: u64,
    /// Numbers of objects and of temporary files.
    drawn: u64,
}

#[derive(Debug, Default)]
struct Turn {
    journal: Journal,
    /// How much of what was pushed is in the journal.
    done: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ObjectDisk {
    /// The store that a URL names; the environment says how to get in (`AWS_ACCESS_KEY_ID`,
    /// `AWS_ENDPOINT`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_KEY`, .., as the crate
    /// `object_store` reads it). It is not asked anything yet.
    ///
    /// # Errors
    ///
    /// 22023 when the URL names no store, 58030 when the cache can't be opened.
    pub(super) fn open(url: &Path, options: &ObjectOptions) -> Result<Self> {
        let (store, prefix) = place::open(url)?;
        let opened = Self::on(store, prefix, url, options);
        opened.map_err(|e| super::directory::disk_error(&e, &options.cache))
    }

    /// The same on a store that is at hand.
    pub(super) fn on(
        store: Arc<dyn ObjectStore>,
        prefix: Key,
        root: &Path,
        options: &ObjectOptions,
    ) -> io::Result<Self> {
        let name = format!("{:016x}", xxh3_64(root.to_string_lossy().as_bytes()));
        let shared = Shared {
            root: root.to_owned(),
            remote: Remote::new(store, prefix)?,
            cache: Cache::open(&options.cache, &name, options.cache_bytes)?,
            take_over: options.take_over,
            standby: options.standby.clone(),
            state: Mutex::default(),
            turn: Mutex::default(),
            held: AtomicBool::new(false),
            garbage: Arc::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Shared {
    /// The name of a file in the journal.
    fn name(&self, path: &Path) -> io::Result<String> {
        let inner = path.strip_prefix(&self.root).map_err(io::Error::other)?;
        let parts = inner.components().map(|part| part.as_os_str().to_string_lossy());
        Ok(parts.collect::<Vec<_>>().join("/"))
    }

    /// What is there; whoever does not have it to himself looks whether there is something new.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        if !self.held.load(Ordering::SeqCst) {
            self.look()?;
        }
        Ok(lock(&self.state))
    }

    /// Reads what others have written.
    fn look(&self) -> io::Result<()> {
        let mut turn = lock(&self.turn);
        let mut state = lock(&self.state);
        if state.loaded {
            let (mut files, mut changed) = (Files(state.stored()), false);
            let mut journal = turn.journal.clone();
            let known = journal::follow(&self.remote, &mut journal, &mut |change| {
                changed = true;
                files.apply(change)
            })?;
            if known {
                turn.journal = journal;
                if changed {
                    state.replace(files, &self.garbage);
                }
                return Ok(());
            }
        }
        let (journal, files) = journal::load(&self.remote)?;
        turn.journal = journal;
        state.replace(files, &self.garbage);
        state.loaded = true;
        Ok(())
    }

    fn node(&self, path: &Path) -> io::Result<Arc<Node>> {
        let name = self.name(path)?;
        let state = self.state()?;
        state.nodes.get(&name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Returns when the journal has what was pushed up to here.
    fn commit(&self, pushed: u64) -> io::Result<()> {
        let mut turn = lock(&self.turn);
        if turn.done >= pushed {
            return Ok(());
        }
        let (changes, upto, dead) = {
            let mut state = lock(&self.state);
            // What is gone is so by a change that is pending, or was before.
            let dead = std::mem::take(&mut *lock(&self.garbage));
            (std::mem::take(&mut state.pending), state.pushed, dead)
        };
        if !changes.is_empty() {
            self.write(&mut turn.journal, changes)?;
        }
        turn.done = upto;
        dead.iter().for_each(|name| self.cache.forget(name));
        let dead: Vec<String> = dead.iter().map(|name| object_name(name)).collect();
        self.remote.remove_behind(&dead);
        if turn.journal.is_long() {
            self.write_whole(&mut turn)?;
        }
        Ok(())
    }

    fn write(&self, journal: &mut Journal, changes: Vec<Change>) -> io::Result<()> {
        let held = || self.held.load(Ordering::SeqCst);
        if !held() {
            return Err(super::guarded::taken_over());
        }
        journal.write(&self.remote, changes, &held).inspect_err(|_| {
            // What was to be written is lost to everybody else.
            self.held.store(false, Ordering::SeqCst);
        })
    }

    /// Says everything anew, so that what was said before can go.
    fn write_whole(&self, turn: &mut Turn) -> io::Result<()> {
        let (changes, upto) = {
            let mut state = lock(&self.state);
            state.pending.clear();
            let nodes = state.nodes.iter();
            let puts = nodes.filter_map(|(name, node)| {
                let mut content = node.lock();
                let named = content.named;
                named.then(|| content.store()).flatten().map(|s| Change::Put(name.clone(), s))
            });
            let puts: Vec<Change> = std::iter::once(Change::Anew).chain(puts).collect();
            // Whoever syncs what is in it has to wait for it.
            state.pushed += 1;
            (puts, state.pushed)
        };
        self.write(&mut turn.journal, changes)?;
        turn.done = upto;
        self.remote.remove_behind(&turn.journal.take_old());
        Ok(())
    }

    /// Sends a file that was written here, so that it can be given a name.
    fn send(&self, node: &Node) -> io::Result<()> {
        let (file, path, length) = match &node.lock().place {
            Place::Local { file, path, length } => (Arc::clone(file), path.clone(), *length),
            _ => return Ok(()),
        };
        let number = lock(&self.state).draw();
        let life = lock(&self.turn).journal.life;
        let name = format!("{life}-{number}");
        self.remote.upload(&object_name(&name), &file, length)?;
        node.lock().place = Place::Object { name: name.clone(), length };
        self.cache.adopt(&name, &path, &file, length);
        Ok(())
    }

    /// Gets the files that a start would read, as far as there is room for them.
    fn warm(&self) -> io::Result<()> {
        let files: Vec<(String, u64)> = lock(&self.state).objects().into_iter().collect();
        self.cache.retain(&|name| files.iter().any(|(known, _)| known == name));
        files.iter().try_for_each(|(name, length)| self.cache.fetch(&self.remote, (name, *length)))
    }

    /// Removes what lives before this one have sent and never named.
    fn remove_orphans(&self) -> io::Result<()> {
        let life = lock(&self.turn).journal.life;
        let named = lock(&self.state).objects();
        let earlier = |name: &str| {
            let number = name.split('-').next().and_then(|life| life.parse::<u64>().ok());
            number.is_some_and(|number| number < life)
        };
        let all = self.remote.list("file")?;
        let orphans = all.into_iter().filter(|name| earlier(name) && !named.contains_key(name));
        let orphans: Vec<String> = orphans.map(|name| object_name(&name)).collect();
        self.remote.remove_behind(&orphans);
        self.cache.retain(&|name| named.contains_key(name));
        Ok(())
    }
}

impl State {
    /// Notes a change for the journal.
    fn push(&mut self, change: Change) -> u64 {
        self.pending.push(change);
        self.pushed += 1;
        self.pushed
    }

    /// A number that no other file of this life has.
    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    /// What the journal has, for those who only read.
    fn stored(&self) -> BTreeMap<String, Stored> {
        let stored =
            |(name, node): (&String, &Arc<Node>)| Some((name.clone(), node.lock().store()?));
        self.nodes.iter().filter_map(stored).collect()
    }

    fn replace(&mut self, files: Files, garbage: &Arc<Mutex<Vec<String>>>) {
        let node = |(name, stored): (String, Stored)| {
            let node = Node::new(name.clone(), Some(stored), garbage);
            (name, Arc::new(node))
        };
        self.nodes = files.0.into_iter().map(node).collect();
    }

    /// The objects of files, and their lengths.
    fn objects(&self) -> BTreeMap<String, u64> {
        let object = |node: &Arc<Node>| match &node.lock().place {
            Place::Object { name, length } => Some((name.clone(), *length)),
            _ => None,
        };
        self.nodes.values().filter_map(object).collect()
    }

    /// Takes a file's name away.
    fn take(&mut self, name: &str) -> Option<Arc<Node>> {
        let node = self.nodes.remove(name)?;
        node.lock().gone = true;
        Some(node)
    }

    /// Gives a file that the journal does not have its name there.
    fn name(&mut self, content: &mut Content) -> Option<u64> {
        let stored = content.store()?;
        let name = content.name.clone();
        Some(self.push(Change::Put(name, stored)))
    }
}

impl Disk for ObjectDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let name = self.shared.name(path)?;
        lock(&self.shared.state).dirs.insert(name);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let folder = self.shared.name(path)?;
        let new: Vec<Arc<Node>> = {
            let state = self.shared.state()?;
            let here = state.nodes.iter().filter(|(name, _)| parent(name) == folder);
            here.map(|(_, node)| Arc::clone(node)).filter(|node| node.lock().is_ready()).collect()
        };
        new.iter().try_for_each(|node| self.shared.send(node))?;
        let pushed = {
            let mut state = lock(&self.shared.state);
            for node in &new {
                let mut content = node.lock();
                if !content.named && !content.gone {
                    state.name(&mut content);
                }
            }
            state.pushed
        };
        self.shared.commit(pushed)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let name = self.shared.name(path)?;
        let mut state = self.shared.state()?;
        if state.nodes.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = Arc::new(Node::new(name.clone(), None, &self.shared.garbage));
        state.nodes.insert(name, Arc::clone(&node));
        Ok(Box::new(ObjectFile::new(Arc::clone(&self.shared), node)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        let node = self.shared.node(path)?;
        Ok(Box::new(ObjectRead { shared: Arc::clone(&self.shared), node }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path.file_name().is_some_and(|name| name == LOCK) {
            let lease = lease::Lease::read(&self.shared.remote)?;
            return Ok(lease.map(|lease| lease.to_string()).unwrap_or_default().into_bytes());
        }
        let read = self.open(path)?;
        let mut bytes = vec![0; read.length()? as usize];
        read.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.shared.name(from)?, self.shared.name(to)?);
        let node = self.shared.state()?.nodes.get(&from).cloned();
        let node = node.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        // What is there in its place counts until the journal has both.
        self.shared.send(&node)?;
        let mut state = self.shared.state()?;
        drop(state.take(&to));
        state.nodes.remove(&from);
        let mut content = node.lock();
        content.name.clone_from(&to);
        match content.named {
            true => drop(state.push(Change::Rename(from, to.clone()))),
            false => drop(state.name(&mut content)),
        }
        drop(content);
        state.nodes.insert(to, node);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let name = self.shared.name(path)?;
        let mut state = self.shared.state()?;
        let node = state.take(&name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        if node.lock().named {
            state.push(Change::Remove(name));
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let folder = self.shared.name(path)?;
        let state = self.shared.state()?;
        let all = state.nodes.keys().chain(&state.dirs);
        let inner = all.filter_map(|name| match folder.is_empty() {
            true => Some(name.as_str()),
            false => name.strip_prefix(&folder)?.strip_prefix('/'),
        });
        let names = inner.filter(|name| !name.is_empty());
        let names: BTreeSet<&str> =
            names.map(|name| name.split('/').next().unwrap_or(name)).collect();
        match names.is_empty() && !folder.is_empty() && !state.dirs.contains(&folder) {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(names.into_iter().map(str::to_owned).collect()),
        }
    }

    fn lock(&self, _path: &Path, _owner: &str) -> io::Result<Arc<dyn Lock>> {
        opened::claim(&self.shared)
    }

    fn can_fill(&self) -> bool {
        false
    }

    fn requests(&self) -> Option<Arc<Requests>> {
        Some(Arc::clone(self.shared.remote.requests()))
    }

    fn local_dir(&self) -> Option<PathBuf> {
        Some(self.shared.cache.dir().to_owned())
    }
}

/// What the guard of a directory is called.
const LOCK: &str = "LOCK";

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}
