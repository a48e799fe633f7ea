//! Removing what no checkpoint needs of the log any more.

use std::path::Path;

use super::{Lsn, segment_of};
use crate::error::Result;
use crate::store::Disk;
use crate::store::directory::disk_error;

/// Removes the segments all of whose records are below a number.
pub fn clean(disk: &dyn Disk, dir: &Path, needed: Lsn) -> Result<()> {
    let names = disk.list(dir).map_err(|e| disk_error(&e, dir))?;
    let mut segments: Vec<(Lsn, String)> =
        names.into_iter().filter_map(|name| Some((segment_of(&name)?, name))).collect();
    segments.sort_unstable();
    // The last one is written into.
    for pair in segments.windows(2).filter(|pair| pair[1].0 <= needed) {
        let path = dir.join(&pair[0].1);
        disk.remove(&path).map_err(|e| disk_error(&e, &path))?;
    }
    Ok(())
}
