//! What a process may say of a data directory in an object store.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Bytes of objects that are kept on this machine at most, unless somebody says something else.
const CACHE_BYTES: u64 = 16 << 30;

/// How a data directory in an object store is used.
#[derive(Debug, Clone)]
pub struct ObjectOptions {
    /// The folder for what is kept of objects on this machine.
    pub cache: PathBuf,
    /// Its bytes at most.
    pub cache_bytes: u64,
    /// Open it, whoever has it open: that process ends.
    pub take_over: bool,
    /// Wait until nobody has it open any more, or until somebody sets this.
    pub standby: Option<Arc<AtomicBool>>,
}

impl Default for ObjectOptions {
    /// The folder is the one that the environment names for caches.
    fn default() -> Self {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let caches = folder("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let caches = caches.or_else(|| folder("HOME").map(|home| home.join(".cache")));
        let cache = caches.unwrap_or_else(std::env::temp_dir).join("headwater");
        Self { cache, cache_bytes: CACHE_BYTES, take_over: false, standby: None }
    }
}
