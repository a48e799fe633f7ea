//! The checkpoints of a data directory: writing the next one, deleting what nobody needs, and
//! reading the newest.

use std::borrow::Borrow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::image::Image;
use super::manifest::{Manifest, RunName, SinkMark};
use super::merging::Merging;
use super::outbox::{OutFile, Outboxes};
use super::room::Room;
use super::run::{RunReader, RunWriter};
use super::savepoint::{Savepoint, savepoints};
use crate::error::{Error, Result};
use crate::state::{Ending, Entries, MergeInto, merge, merge_into};
use crate::store::directory::disk_error;
use crate::store::disk::put;
use crate::store::{Disk, failpoint};

/// Manifests that are kept.
pub(super) const KEPT: usize = 3;

/// What a table has logged in one worker between two cuts, in its order.
pub type Part = (u32, Entries);

/// The checkpoints of a directory.
#[derive(Debug)]
pub struct Checkpoints {
    pub(super) disk: Arc<dyn Disk>,
    /// The data directory.
    pub(super) path: PathBuf,
    outboxes: Arc<Outboxes>,
    /// The newest one that is decided.
    pub(super) newest: Option<Manifest>,
    /// The greatest number that a manifest has, which may be of one that can't be read.
    last: u64,
    /// Those that have names, the oldest first.
    pub(super) saved: Vec<Savepoint>,
    /// One that somebody goes back to: what it names stays meanwhile.
    held: Option<Manifest>,
    pub(super) next_run: u64,
    pub(super) merging: Merging,
    pub(super) room: Room,
}

impl Checkpoints {
    /// Opens those of a directory, which may have none.
    ///
    /// # Errors
    ///
    /// XX001 when the newest manifest is damaged or a run that it names is not what it names; 0A000
    /// when a newer program has written it.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let this = Self::opened(disk, path, &|disk, manifests, numbers| {
            let newest = numbers.last().map(|n| Manifest::read(disk, &numbered(manifests, *n)));
            newest.transpose()
        })?;
        if let Some(manifest) = &this.newest {
            manifest.runs.iter().try_for_each(|name| this.run(name).map(drop))?;
            manifest.outbox.iter().try_for_each(|file| this.outboxes.check(file))?;
        }
        // What an earlier life has begun and not decided is nothing.
        this.clean()?;
        Ok(this)
    }

    /// Opens those of a directory whose newest may be damaged: the newest that can be read counts.
    /// Nothing is removed.
    pub fn open_readable(disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        Self::opened(disk, path, &|disk, manifests, numbers| {
            let read = |n: &u64| Manifest::read(disk, &numbered(manifests, *n)).ok();
            Ok(numbers.iter().rev().find_map(read))
        })
    }

    fn opened(disk: Arc<dyn Disk>, path: &Path, newest: &FindNewest<'_>) -> Result<Self> {
        let (runs, manifests) = (path.join("run"), path.join("manifest"));
        for dir in [&runs, &manifests, &path.join("savepoint")] {
            disk.make_dir(dir).map_err(|e| disk_error(&e, dir))?;
        }
        let numbers = numbers(disk.as_ref(), &manifests)?;
        let newest = newest(disk.as_ref(), &manifests, &numbers)?;
        let last = numbers.last().copied().unwrap_or(0);
        let saved = savepoints(disk.as_ref(), path)?;
        let next_run = newest.as_ref().map_or(1, |m| m.next_run.max(1));
        let next_out = newest.as_ref().map_or(1, |m| m.next_out);
        let outboxes = Arc::new(Outboxes::open(Arc::clone(&disk), path, next_out)?);
        disk.sync_dir(path).map_err(|e| disk_error(&e, path))?;
        let (path, merging) = (path.to_owned(), Merging::default());
        let held = None;
        let room = Room::default();
        Ok(Self { disk, path, outboxes, newest, last, saved, held, next_run, merging, room })
    }

    /// The newest one.
    pub fn newest(&self) -> Option<&Manifest> {
        self.newest.as_ref()
    }

    /// The files of messages of sinks.
    pub fn outboxes(&self) -> &Arc<Outboxes> {
        &self.outboxes
    }

    /// The number of the next one.
    pub fn next_number(&self) -> u64 {
        self.newest.as_ref().map_or(0, |m| m.number).max(self.last) + 1
    }

    pub(super) fn numbers(&self) -> Result<Vec<u64>> {
        numbers(self.disk.as_ref(), &self.manifests())
    }

    /// One that is there.
    pub(super) fn read(&self, number: u64) -> Result<Manifest> {
        Manifest::read(self.disk.as_ref(), &manifest_path(&self.path, number))
    }

    fn run_path(&self, id: u64) -> PathBuf {
        run_path(&self.path, id)
    }

    pub(super) fn run(&self, name: &RunName) -> Result<RunReader> {
        open_run(self.disk.as_ref(), &self.path, name)
    }

    /// Why runs are not merged.
    pub fn merge_trouble(&self) -> Option<&Error> {
        self.merging.trouble()
    }

    fn runs(&self) -> PathBuf {
        self.path.join("run")
    }

    fn manifests(&self) -> PathBuf {
        self.path.join("manifest")
    }

    /// Keeps what a checkpoint names, or nothing more.
    pub fn hold(&mut self, manifest: Option<Manifest>) {
        self.held = manifest;
    }

    /// Those that are kept, the oldest first; one that can't be read is left out.
    pub fn kept(&self) -> Result<Vec<Manifest>> {
        Ok(self.numbers()?.into_iter().filter_map(|number| self.read(number).ok()).collect())
    }

    /// Writes a checkpoint: `cuts` is what tables have logged since the one before, cut by cut, the
    /// oldest first; `new` are files with messages of sinks; `manifest` says everything else. When
    /// it returns, it is decided.
    ///
    /// # Errors
    ///
    /// 53100 and 58030: nothing has happened then; the parts may be given again, with more, and
    /// so may files of first rows. Other files have to be written anew.
    pub fn write(
        &mut self,
        mut manifest: Manifest,
        cuts: &[Vec<Part>],
        new: &[OutFile],
    ) -> Result<()> {
        let first = self.next_run;
        let known = self.newest.iter().flat_map(|m| &m.outbox);
        manifest.outbox = undelivered(known.chain(new), &manifest.sinks);
        manifest.next_out = self.outboxes.next();
        let manifest = self.write_runs(manifest, cuts).inspect_err(|_| {
            // Parts of files would take the room that the next try needs.
            for id in first..self.next_run {
                drop(self.disk.remove(&self.run_path(id)));
            }
            new.iter().filter(|file| !file.first).for_each(|f| self.outboxes.remove(f.id));
        })?;
        // Of a manifest that fails nobody knows whether it is there: its runs stay.
        let path = manifest_path(&self.path, manifest.number);
        let written = put(self.disk.as_ref(), &path, &manifest.encode()?);
        written.map_err(|e| disk_error(&e, &path)).inspect_err(|_| {
            new.iter().filter(|file| !file.first).for_each(|f| self.outboxes.let_go(f.id));
        })?;
        failpoint::reach("checkpoint-decided");
        if self.merging.begin(&self.disk, &self.path, &manifest) {
            self.next_run += 1;
        }
        self.newest = Some(manifest);
        new.iter().for_each(|file| self.outboxes.let_go(file.id));
        Ok(())
    }

    fn write_runs(&mut self, mut manifest: Manifest, cuts: &[Vec<Part>]) -> Result<Manifest> {
        manifest.number = self.next_number();
        let older = self.newest.as_ref();
        manifest.runs = older.map(|m| m.runs.clone()).unwrap_or_default();
        // Workers have keys of their own, so the logs of a table in one cut are of one age.
        let mut by_table: BTreeMap<u32, Vec<&Entries>> = BTreeMap::new();
        for parts in cuts.iter().rev() {
            for (table, entries) in parts.iter().filter(|(_, entries)| !entries.is_empty()) {
                let known = manifest.tables.contains_key(table);
                if known {
                    by_table.entry(*table).or_default().push(entries);
                }
            }
        }
        if !by_table.is_empty() {
            let id = self.take_run();
            let mut writer = RunWriter::create(self.disk.as_ref(), &self.run_path(id))?;
            for (table, logs) in by_table {
                let out = &mut |hash: u64, record: &[u8]| writer.push(table, hash, record);
                if let [log] = logs[..] {
                    log.compact_into(out)?;
                    continue;
                }
                let runs = logs.iter().map(|log| log.compact()).collect::<Result<Vec<_>>>()?;
                merge_into(&runs, Ending::Open, out)?;
            }
            manifest.runs.insert(0, RunName::new(id, writer.finish()?));
        }
        self.merging.take(&mut manifest.runs);
        self.leave_out_dead(&mut manifest)?;
        manifest.next_run = self.next_run;
        let runs = self.runs();
        self.disk.sync_dir(&runs).map_err(|e| disk_error(&e, &runs))?;
        Ok(manifest)
    }

    fn take_run(&mut self) -> u64 {
        let id = self.next_run;
        self.next_run += 1;
        id
    }

    /// Deletes older manifests, and the runs that neither a kept one nor a savepoint names. Returns
    /// the first record of the log that a kept one needs.
    pub fn clean(&self) -> Result<u64> {
        let numbers = self.numbers()?;
        let (old, kept) = numbers.split_at(numbers.len().saturating_sub(self.room.keeps(KEPT)));
        for number in old {
            let path = manifest_path(&self.path, *number);
            self.disk.remove(&path).map_err(|e| disk_error(&e, &path))?;
        }
        let (runs, manifests) = (self.runs(), self.manifests());
        self.disk.sync_dir(&manifests).map_err(|e| disk_error(&e, &manifests))?;
        let kept = kept.iter().map(|n| self.read(*n)).collect::<Result<Vec<_>>>()?;
        let saved = || self.saved.iter().map(|saved| &saved.manifest);
        let all = || kept.iter().chain(saved()).chain(&self.held);
        let named = all().flat_map(|m| m.runs.iter().map(|run| run.id));
        let named: BTreeSet<u64> = named.chain(self.merging.writes()).collect();
        let names = self.disk.list(&runs).map_err(|e| disk_error(&e, &runs))?;
        for name in names {
            let id = name.strip_suffix(".run").and_then(|id| u64::from_str_radix(id, 16).ok());
            if id.is_none_or(|id| !named.contains(&id)) {
                let path = runs.join(&name);
                self.disk.remove(&path).map_err(|e| disk_error(&e, &path))?;
            }
        }
        let named = all().flat_map(|m| m.outbox.iter().map(|file| file.id)).collect();
        self.outboxes.clean(&named)?;
        Ok(kept.iter().map(|m| m.lsn).min().unwrap_or(0))
    }

    /// The runs of the newest checkpoint, to be read from.
    pub fn image(&self) -> Result<Image> {
        let Some(manifest) = &self.newest else { return Ok(Image::default()) };
        let runs = manifest.runs.iter().map(|name| self.run(name).map(Arc::new));
        Ok(Image::new(runs.collect::<Result<Vec<_>>>()?, manifest.expired_below.clone()))
    }

    /// The same, to look for keys in; of the runs those that are `open` already are not opened
    /// again, and no others are kept open. The oldest has most keys, so a filter would be no use.
    pub fn image_with(&self, open: &mut BTreeMap<u64, Arc<RunReader>>) -> Result<Image> {
        let Some(manifest) = &self.newest else { return Ok(Image::default()) };
        open.retain(|id, _| manifest.runs.iter().any(|run| run.id == *id));
        for (at, name) in manifest.runs.iter().enumerate() {
            if let Entry::Vacant(place) = open.entry(name.id) {
                let run = self.run(name)?;
                let oldest = at + 1 == manifest.runs.len();
                place.insert(Arc::new(if oldest { run } else { run.with_filter()? }));
            }
        }
        let runs = manifest.runs.iter().filter_map(|name| open.get(&name.id).cloned());
        Ok(Image::new(runs.collect(), manifest.expired_below.clone()))
    }
}

/// What of some files is still to be delivered.
pub(super) fn undelivered<'a>(
    files: impl Iterator<Item = &'a OutFile>,
    sinks: &BTreeMap<u32, SinkMark>,
) -> Vec<OutFile> {
    let mut files: Vec<OutFile> = files.cloned().collect();
    // First rows and changes of one checkpoint are numbered as one.
    let mut messages: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    for file in &files {
        for (sink, section) in &file.sinks {
            *messages.entry((*sink, file.checkpoint)).or_default() += section.messages;
        }
    }
    for OutFile { checkpoint, sinks: sections, .. } in &mut files {
        sections.retain(|sink, section| {
            let all = messages.get(&(*sink, *checkpoint)).copied().unwrap_or(0);
            let mark = sinks.get(sink).filter(|_| section.messages > 0);
            mark.is_some_and(|mark| !mark.is_past(*checkpoint, all))
        });
    }
    files.retain(|file| !file.sinks.is_empty());
    files
}

/// How the newest manifest is found, among those of some numbers in a folder.
type FindNewest<'a> = dyn Fn(&dyn Disk, &Path, &[u64]) -> Result<Option<Manifest>> + 'a;

/// The file of a manifest in a data directory.
pub(super) fn manifest_path(path: &Path, number: u64) -> PathBuf {
    numbered(&path.join("manifest"), number)
}

fn numbered(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}"))
}

/// The file of a run in a data directory.
pub(super) fn run_path(path: &Path, id: u64) -> PathBuf {
    path.join("run").join(format!("{id:016x}.run"))
}

/// Opens a run of a data directory: XX001 when it is not what its name says.
pub(super) fn open_run(disk: &dyn Disk, path: &Path, name: &RunName) -> Result<RunReader> {
    let path = run_path(path, name.id);
    let run = RunReader::open(disk, &path)?;
    name.check(run.info(), &path)?;
    Ok(run)
}

/// The numbers of the manifests in a folder, in order.
pub(super) fn numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>> {
    let names = disk.list(dir).map_err(|e| disk_error(&e, dir))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|n| n.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// What runs hold of some key groups of a table; how many entries they have there.
pub(super) fn merged_into(
    runs: &[impl Borrow<RunReader>],
    table: u32,
    groups: &Range<usize>,
    (expired, ending): (Option<i64>, Ending),
    out: &mut MergeInto<'_>,
) -> Result<usize> {
    let parts =
        runs.iter().map(|run| run.borrow().entries(table, groups)).collect::<Result<Vec<_>>>()?;
    match expired {
        // A row behind the watermark may be below zero: it goes with what it would undo.
        Some(below) => {
            let mut all = merge(&parts, Ending::Open)?;
            all.expire(below)?;
            merge_into([&all], ending, out)?;
        }
        None => merge_into(&parts, ending, out)?,
    }
    Ok(parts.iter().map(Entries::len).sum())
}
