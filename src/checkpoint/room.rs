//! Room on a full disk: what is given up so that a checkpoint can be written that lets go what
//! nobody needs.
//!
//! A checkpoint needs room before it gives any back. So there is a *ballast*, a file with nothing
//! in it that counts, which is removed when a checkpoint finds no room, and made again when there
//! is some. Until then only the newest checkpoint is kept, with what it names and the log behind
//! it; and where that does not do, what is being merged is begun anew later. In this order, as what
//! goes first is missed least.
//!
//! The ballast is no zeros: a file system that packs its files would keep no room with them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::manifest::Manifest;
use super::store::Checkpoints;
use crate::config::BALLAST_BYTES;
use crate::error::Result;
use crate::store::Disk;
use crate::store::directory::BALLAST;

/// What can be given up, and whether it was.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// There may be a ballast on the disk.
    ballast: bool,
    /// When the disk was last full: only the newest checkpoint is kept for a while.
    full: Option<Instant>,
}

/// How long after the disk was full only the newest checkpoint is kept, at least: what is dropped
/// then gives its room back at once.
const SHORT: Duration = Duration::from_secs(60);

impl Room {
    /// How many checkpoints are kept, of so many where there is room.
    pub(super) fn keeps(&self, most: usize) -> usize {
        if self.full.is_some() { 1 } else { most }
    }
}

impl Checkpoints {
    fn ballast(&self) -> PathBuf {
        self.path.join(BALLAST)
    }

    /// From here on only the newest checkpoint is kept, until one was written and there is room.
    pub fn press(&mut self) {
        self.room.full = Some(Instant::now());
    }

    /// Gives something up after a checkpoint has found no room; false when there is nothing more.
    /// The next try may find some.
    pub fn make_room(&mut self) -> bool {
        // An earlier life may have left one.
        self.room.ballast = false;
        if self.disk.remove(&self.ballast()).is_ok() {
            tracing::warn!("the disk is full: the ballast of the data directory is given up");
            return true;
        }
        if self.room.full.replace(Instant::now()).is_none() {
            tracing::warn!("the disk is full: only the newest checkpoint is kept");
            return true;
        }
        self.merging.give_up()
    }

    /// Makes the ballast again, and keeps older checkpoints again, where there is room. It is
    /// called when a checkpoint was written, and what it does not need has been removed.
    pub fn regain_room(&mut self) {
        if !self.disk.can_fill() {
            self.room.ballast = true;
        }
        if !self.room.ballast {
            let made = make(self.disk.as_ref(), &self.ballast());
            if let Err(error) = &made {
                tracing::debug!(%error, "there is no room for a ballast");
                drop(self.disk.remove(&self.ballast()));
            }
            self.room.ballast = made.is_ok();
        }
        if self.room.ballast {
            self.room.full.take_if(|at| at.elapsed() >= SHORT);
        } else {
            self.press();
        }
    }

    /// Tells somebody, on a thread of its own, when the next checkpoint would let runs go since
    /// they have been merged, or begin to merge them.
    pub fn on_merged(&mut self, tell: impl Fn() + Send + Sync + 'static) {
        self.merging.tell(std::sync::Arc::new(tell));
    }

    /// Whether there is no room for the ballast.
    pub fn is_short(&self) -> bool {
        !self.room.ballast
    }

    /// Leaves out the runs that have nothing of a table that is still defined: they need not be
    /// merged to go. Those that have little are written anew soon.
    pub(super) fn leave_out_dead(&mut self, manifest: &mut Manifest) -> Result<()> {
        let before = self.newest.iter().flat_map(|m| m.tables.keys());
        let gone: BTreeSet<u32> =
            before.filter(|table| !manifest.tables.contains_key(table)).copied().collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mut runs = Vec::with_capacity(manifest.runs.len());
        for name in std::mem::take(&mut manifest.runs) {
            let run = self.run(&name)?;
            let lives = |(table, _): &&(u32, u64)| manifest.tables.contains_key(table);
            let live = run.tables().iter().filter(lives);
            let entries: u64 = live.clone().map(|(_, entries)| entries).sum();
            if entries < name.entries / 2 {
                self.merging.rewrite(name.id);
            }
            if live.count() > 0 {
                runs.push(name);
            }
        }
        manifest.runs = runs;
        Ok(())
    }
}

/// Makes a file that is as large on the disk as it looks.
fn make(disk: &dyn Disk, path: &std::path::Path) -> std::io::Result<()> {
    match disk.create(path) {
        Ok(mut file) => {
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            let words = std::iter::repeat_with(|| {
                // As random as a packer can tell (xorshift, Marsaglia 2003).
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            });
            let bytes: Vec<u8> = words.take(BALLAST_BYTES / 8).flat_map(u64::to_le_bytes).collect();
            file.write_at(0, &bytes)?;
            file.sync()?;
            path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
        }
        // Of an earlier life.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
