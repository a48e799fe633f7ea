//! A disk in memory that remembers what was synced. It can stop at any operation, as a machine does
//! whose power goes; what is found afterwards is what was synced, and a random part of the rest:
//! sectors of 512 bytes and the first so many changes of names. It can be full, and it can fail.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater::store::{Disk, DiskFile, DiskRead, Lock};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const SECTOR: usize = 512;

/// What goes wrong, and at which operation that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Nothing is done any more from this one on.
    Stop(usize),
    /// This sync fails.
    FailSync(usize),
    /// There is no room for longer files.
    Full,
}

#[derive(Debug, Clone)]
pub struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    files: Vec<File>,
    /// The files by name, as programs see them.
    names: BTreeMap<PathBuf, usize>,
    /// Changes of names that no sync of their directory has made durable.
    unsynced: Vec<NameChange>,
    synced_names: BTreeMap<PathBuf, usize>,
    fault: Fault,
    /// Bytes that all files may have together.
    room: usize,
    operations: usize,
    /// What happened in each operation, for messages.
    log: Vec<String>,
}

#[derive(Debug, Default, Clone)]
struct File {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Places that were written since the last sync.
    dirty: Vec<(usize, usize)>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(PathBuf, usize),
    Remove(PathBuf),
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Set(path, file) => drop(names.insert(path.clone(), *file)),
        NameChange::Remove(path) => drop(names.remove(path)),
    }
}

impl MemoryDisk {
    pub fn new(fault: Fault) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            unsynced: Vec::new(),
            synced_names: BTreeMap::new(),
            fault,
            room: usize::MAX,
            operations: 0,
            log: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operations so far that changed something.
    pub fn operations(&self) -> usize {
        self.state().operations
    }

    /// The last operations, for messages.
    pub fn last_operations(&self) -> Vec<String> {
        let state = self.state();
        state.log[state.log.len().saturating_sub(5)..].to_vec()
    }

    /// There is no room any more.
    pub fn fill(&self) {
        self.state().fault = Fault::Full;
    }

    /// So many bytes have room from now on.
    pub fn limit(&self, bytes: usize) {
        self.state().room = bytes;
    }

    /// Bytes of the files that have names.
    pub fn used(&self) -> usize {
        self.state().used()
    }

    /// Nothing goes wrong from now on: somebody has made room.
    pub fn mend(&self) {
        self.state().fault = Fault::None;
    }

    /// The files with what is in them.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.state();
        let files = state.names.iter();
        files.map(|(path, file)| (path.clone(), state.files[*file].bytes.clone())).collect()
    }

    /// A file that is on the disk.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(File { synced: bytes.clone(), bytes, dirty: Vec::new() });
        state.names.insert(path.to_owned(), file);
        state.synced_names.insert(path.to_owned(), file);
    }

    /// Changes one byte of a file.
    pub fn flip(&self, path: &Path, at: usize, bits: u8) {
        let mut state = self.state();
        let file = state.names[path];
        let File { bytes, synced, dirty } = &mut state.files[file];
        bytes[at] ^= bits;
        // As it is on the disk.
        synced.clone_from(bytes);
        dirty.clear();
    }

    /// What is found when the machine has power again.
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let state = self.state();
        let mut names = state.synced_names.clone();
        let kept = random.random_range(0..=state.unsynced.len());
        state.unsynced[..kept].iter().for_each(|change| apply(&mut names, change));
        let files = state.files.iter().map(|file| {
            let mut bytes = file.synced.clone();
            for (from, to) in &file.dirty {
                for sector in (from / SECTOR)..to.div_ceil(SECTOR) {
                    if random.random_bool(0.5) {
                        let range = sector * SECTOR..((sector + 1) * SECTOR).min(file.bytes.len());
                        bytes.resize(bytes.len().max(range.end), 0);
                        bytes[range.clone()].copy_from_slice(&file.bytes[range]);
                    }
                }
            }
            File { synced: bytes.clone(), bytes, dirty: Vec::new() }
        });
        Self(Arc::new(Mutex::new(State {
            files: files.collect(),
            synced_names: names.clone(),
            names,
            unsynced: Vec::new(),
            fault: Fault::None,
            room: usize::MAX,
            operations: 0,
            log: Vec::new(),
        })))
    }
}

fn stopped() -> io::Error {
    io::Error::other("the machine has no power")
}

impl State {
    /// Begins an operation that changes something.
    fn operation(&mut self, what: String) -> io::Result<usize> {
        let number = self.operations;
        if let Fault::Stop(at) = self.fault
            && number >= at
        {
            return Err(stopped());
        }
        self.operations += 1;
        self.log.push(format!("{number}: {what}"));
        Ok(number)
    }

    fn rename(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.unsynced.push(change);
    }

    fn used(&self) -> usize {
        self.names.values().map(|file| self.files[*file].bytes.len()).sum()
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[derive(Debug)]
struct Handle {
    disk: MemoryDisk,
    file: usize,
}

impl DiskFile for Handle {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation(format!("write {} bytes at {offset}", bytes.len()))?;
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        let length = state.files[self.file].bytes.len();
        let longer = to > length;
        let limited = state.room != usize::MAX;
        let over = limited && longer && state.used() + to - length > state.room;
        if (state.fault == Fault::Full || over) && longer {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = &mut state.files[self.file];
        if longer {
            file.bytes.resize(to, 0);
        }
        file.bytes[from..to].copy_from_slice(bytes);
        file.dirty.push((from, to));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let number = state.operation("sync".into())?;
        if matches!(state.fault, Fault::FailSync(at) if number == at) {
            return Err(io::Error::other("the disk has failed"));
        }
        let file = &mut state.files[self.file];
        file.synced.resize(file.bytes.len(), 0);
        for (from, to) in std::mem::take(&mut file.dirty) {
            file.synced[from..to].copy_from_slice(&file.bytes[from..to]);
        }
        Ok(())
    }
}

impl DiskRead for Handle {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        let from = offset as usize;
        let found = state.files[self.file].bytes.get(from..from + bytes.len());
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].bytes.len() as u64)
    }
}

impl Disk for MemoryDisk {
    fn make_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation(format!("sync directory {}", path.display()))?;
        let State { unsynced, synced_names, .. } = &mut *state;
        unsynced.retain(|change| {
            let (NameChange::Set(name, _) | NameChange::Remove(name)) = change;
            let here = name.parent() == Some(path);
            if here {
                apply(synced_names, change);
            }
            !here
        });
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.operation(format!("create {}", path.display()))?;
        let file = state.files.len();
        state.files.push(File::default());
        state.rename(NameChange::Set(path.to_owned(), file));
        Ok(Box::new(Handle { disk: self.clone(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        let file = self.state().find(path)?;
        Ok(Box::new(Handle { disk: self.clone(), file }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        Ok(state.files[state.find(path)?].bytes.clone())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let file = state.find(from)?;
        state.operation(format!("rename to {}", to.display()))?;
        state.rename(NameChange::Set(to.to_owned(), file));
        state.rename(NameChange::Remove(from.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.find(path)?;
        state.operation(format!("remove {}", path.display()))?;
        state.rename(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state.names.keys().filter_map(|name| name.strip_prefix(path).ok());
        let mut names: Vec<String> = inside
            .filter_map(|rest| rest.components().next())
            .map(|first| first.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn lock(&self, _: &Path, _: &str) -> io::Result<Arc<dyn Lock>> {
        Ok(Arc::new(()))
    }
}
