//! The few operations on files that the store needs, as a trait: tests put a disk in its place that
//! forgets what was not synced, fills up and fails.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A file that is written at places and synced.
pub trait DiskFile: Send + Debug {
    /// Writes all bytes at an offset, beyond the end too.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when everything written is on the disk. After an error nobody knows what is.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file that is read at places.
pub trait DiskRead: Send + Sync + Debug {
    /// Fills the buffer from an offset.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// The length of the file.
    fn length(&self) -> io::Result<u64>;
}

/// A disk.
pub trait Disk: Send + Sync + Debug {
    /// Makes a directory and those above it, unless they exist.
    fn make_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes names in a directory durable: of files that were made, renamed or removed.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes a new file that only its owner can read; `AlreadyExists` when there is one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// A file to be read at places; it can be read on when its name is gone.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>>;

    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Gives a file another name, in place of one that had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Names of the files in a directory.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Takes a file for this process alone and writes into it who that is; it is let go with the
    /// guard, or when the process ends, however it does. `WouldBlock` when another process has it.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Arc<dyn Lock>>;

    /// Whether there may be no room some time: then a ballast keeps some.
    fn can_fill(&self) -> bool {
        true
    }

    /// What was asked of the object store that it is in.
    fn requests(&self) -> Option<Arc<super::Requests>> {
        None
    }

    /// Where files may lie that are for this machine alone, when that is not the directory itself.
    fn local_dir(&self) -> Option<PathBuf> {
        None
    }

    /// An error when the disk may be written by somebody else, too.
    fn check_ours(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is taken.
pub trait Lock: Send + Sync + Debug {
    /// Whether it is taken still: what has its name is what was taken.
    fn is_held(&self) -> io::Result<bool>;

    /// Lets it go, though somebody may hold on to this: from here on it is not held.
    fn release(&self) {}
}

/// Of a disk that nobody else has.
impl Lock for () {
    fn is_held(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// The disk of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

#[derive(Debug)]
struct OsFile(File);

/// Writes all bytes at an offset.
pub(super) fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
    }
    #[cfg(not(unix))]
    {
        use std::io::{Seek, SeekFrom, Write};
        let mut file = file;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }
}

/// Fills the buffer from an offset.
pub(super) fn read_at(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
    }
    #[cfg(not(unix))]
    {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = file;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(bytes)
    }
}

impl DiskFile for OsFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_at(&self.0, offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

impl DiskRead for OsFile {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        read_at(&self.0, offset, bytes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// A file that nobody but its owner can read: rows and passwords of connectors are in it.
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

impl Disk for OsDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        #[cfg(unix)]
        File::open(path)?.sync_all()?;
        #[cfg(not(unix))]
        let _ = path;
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = private(options.write(true).create_new(true)).open(path)?;
        Ok(Box::new(OsFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        Ok(Box::new(OsFile(File::open(path)?)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Arc<dyn Lock>> {
        let mut options = OpenOptions::new();
        let options = private(options.read(true).write(true).create(true).truncate(false));
        let mut file = OsFile(options.open(path)?);
        match file.0.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        file.0.set_len(0)?;
        file.write_at(0, owner.as_bytes())?;
        let (path, released) = (path.to_owned(), AtomicBool::new(false));
        Ok(Arc::new(OsLock { file: file.0, path, released }))
    }
}

#[derive(Debug)]
struct OsLock {
    file: File,
    path: PathBuf,
    released: AtomicBool,
}

impl Lock for OsLock {
    fn is_held(&self) -> io::Result<bool> {
        if self.released.load(Ordering::SeqCst) {
            return Ok(false);
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let ours = self.file.metadata()?;
            match std::fs::metadata(&self.path) {
                Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        }
        #[cfg(not(unix))]
        {
            // A file that is open can't be removed there.
            let _ = &self.file;
            self.path.try_exists()
        }
    }

    fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the lock of a data directory is kept until its process ends");
        }
    }
}

/// Writes a small file whole, so that it is there with all of its content or not at all.
pub(crate) fn put(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside: PathBuf = path.with_extension("new");
    match disk.remove(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = disk.create(&beside)?;
    file.write_at(0, bytes).and_then(|()| file.sync()).inspect_err(|_| {
        // A part of a file would take room that others need.
        drop(disk.remove(&beside));
    })?;
    disk.rename(&beside, path)?;
    path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
}
