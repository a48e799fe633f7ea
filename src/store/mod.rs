//! What outlives the process: a directory with a log of definitions and table writes.
//!
//! Everything here is bytes and files; what they mean is known further up. All numbers are
//! little-endian, every format has a version and checksums, and what is damaged or from a newer
//! program is an error that names the file and the place in it.
//!
//! ```text
//! DIR/LOCK                who has it open: its pid
//! DIR/FORMAT              "headwater data 1", the directory's own id
//! DIR/log/<first lsn>.log definitions and table writes, in the order in which they count
//! ```
//!
//! A *life* is one process that has the directory open; lives are numbered.

mod appender;
mod bytes;
pub mod directory;
pub mod disk;
pub mod failpoint;
pub mod frame;
mod guarded;
pub mod log;
mod object;
mod place;

use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path as Key;

use crate::config::ObjectOptions;
use crate::error::Result;

pub use appender::Appender;
pub use directory::{Directory, Found, taken_over};
pub use disk::{Disk, DiskFile, DiskRead, Lock, OsDisk};
pub use log::{Log, Lsn, Record};
pub use object::{Requests, is_url};
pub use place::{Ancestry, Place, Receipt};

/// The disk that a data directory is on: this machine's, or an object store when it is a URL.
///
/// # Errors
///
/// 22023 when the URL names no store, 58030 when what is kept of it here can't be opened.
pub fn disk_of(path: &Path, options: &ObjectOptions) -> Result<Arc<dyn Disk>> {
    match is_url(path) {
        true => Ok(Arc::new(object::ObjectDisk::open(path, options)?)),
        false => Ok(Arc::new(OsDisk)),
    }
}

/// A data directory in an object store that is at hand. For tests.
#[doc(hidden)]
pub fn disk_on(
    store: Arc<dyn ObjectStore>,
    path: &Path,
    options: &ObjectOptions,
) -> Result<Arc<dyn Disk>> {
    let opened = object::ObjectDisk::on(store, Key::from("data"), path, options);
    Ok(Arc::new(opened.map_err(|e| directory::disk_error(&e, path))?))
}
