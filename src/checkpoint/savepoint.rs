//! Savepoints: checkpoints with a name, kept until they are dropped, and going back to one.
//!
//! A savepoint is a manifest in a file of its own. What it names stays, so making one copies
//! nothing. Going back is a new checkpoint with the content of an older one: it is decided like
//! any other, and whoever opens the directory next begins with it. The log up to it is not done
//! again.
//!
//! Sinks do not go back: what a receiver has, it has. So where one stands is taken from the newest
//! checkpoint; of the messages that the older one had waiting those count that have not arrived.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::store::{Checkpoints, manifest_path, numbers, undelivered};
use crate::error::{Error, Result, sqlstate};
use crate::store::directory::{damaged, disk_error, needs_savepoints};
use crate::store::disk::put;
use crate::store::{Disk, frame};

/// The kind of a frame that is a savepoint.
const KIND: u8 = 3;

/// The version of its form, the newest that this program reads.
const VERSION: u32 = 1;

/// Why a sink has lost its place that is to begin anew after going back.
pub const BEGINS_ANEW: &str = "the state was restored, and all rows are to be delivered again";

/// A checkpoint with a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Savepoint {
    version: u32,
    /// Its number, which names its file.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// When it was made, in microseconds since 1970.
    pub made_us: i64,
    /// The checkpoint.
    pub manifest: Manifest,
}

/// What becomes of sinks that have delivered messages of what is left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinksGo {
    /// They deliver what changes from here on.
    Continue,
    /// They begin anew, with all rows.
    Republish,
}

/// Where the log stands when an older checkpoint becomes the newest.
#[derive(Debug, Clone, Copy)]
pub struct LogEnd {
    /// The first record that is not in it: none before is done again.
    pub lsn: u64,
    /// The last life.
    pub life: u64,
    /// The first epoch that no life has used.
    pub epochs: u64,
    /// The greatest number of a relation that was ever given.
    pub greatest_relation: u32,
}

impl Savepoint {
    fn encode(&self) -> Result<Vec<u8>> {
        let body = serde_json::to_vec(self).map_err(|e| Error::internal(e.to_string()))?;
        let mut out = Vec::new();
        frame::encode(KIND, &body, &mut out);
        Ok(out)
    }

    /// Reads a file: 0A000 when a newer program has written it, XX001 when it is damaged.
    pub(super) fn read(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let bytes = disk.read(path).map_err(|e| disk_error(&e, path))?;
        let shown = path.display();
        let bad = |why: &str| {
            damaged(format!("savepoint \"{shown}\" is damaged: {why}"))
                .with_hint("Remove the file to go on without this savepoint.")
        };
        let body = match frame::decode(&bytes) {
            Ok((frame, used)) if frame.kind == KIND && used == bytes.len() => frame.body,
            _ => return Err(bad("it is not whole")),
        };
        let read: Self = serde_json::from_slice(body).map_err(|e| bad(&e.to_string()))?;
        match read.version == VERSION {
            true => Ok(read),
            false => {
                Err(Error::unsupported(format!("savepoint \"{shown}\" is of a newer program"))
                    .with_hint("Use the program that wrote it, or a newer one."))
            }
        }
    }
}

impl Manifest {
    /// The sinks that have messages, delivered or waiting, which are not of this checkpoint, as the
    /// newest one knows them.
    pub fn sinks_ahead(&self, newest: &Manifest) -> Vec<u32> {
        let ahead = |sink: &u32| {
            let delivered = newest.sinks.get(sink).and_then(|mark| mark.delivered);
            let waits = newest.outbox.iter().filter(|file| file.checkpoint > self.number);
            delivered.is_some_and(|place| place.checkpoint > self.number)
                || waits.flat_map(|file| file.sinks.keys()).any(|waiting| waiting == sink)
                // One that has been dropped may have delivered anything.
                || !newest.sinks.contains_key(sink)
        };
        self.sinks.keys().copied().filter(ahead).collect()
    }
}

/// The file of a savepoint in a data directory.
pub(super) fn savepoint_path(path: &Path, id: u64) -> PathBuf {
    path.join("savepoint").join(format!("{id:020}"))
}

/// The savepoints of a directory, the oldest first.
pub(super) fn savepoints(disk: &dyn Disk, path: &Path) -> Result<Vec<Savepoint>> {
    let dir = path.join("savepoint");
    let ids = numbers(disk, &dir)?;
    ids.into_iter().map(|id| Savepoint::read(disk, &savepoint_path(path, id))).collect()
}

impl Checkpoints {
    /// The savepoints, the oldest first.
    pub fn savepoints(&self) -> &[Savepoint] {
        &self.saved
    }

    /// One of them: 3B001 when there is none of that name.
    pub fn savepoint(&self, name: &str) -> Result<&Savepoint> {
        self.saved.iter().find(|saved| saved.name == name).ok_or_else(|| {
            Error::user(sqlstate::INVALID_SAVEPOINT, format!("savepoint \"{name}\" does not exist"))
                .with_hint("SHOW SAVEPOINTS;")
        })
    }

    /// A checkpoint that is kept: 22023 when there is none of that number.
    pub fn numbered(&self, number: u64) -> Result<Manifest> {
        let kept = self.numbers()?;
        if !kept.contains(&number) {
            return Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("checkpoint {number} is not kept"),
            )
            .with_hint("SHOW CHECKPOINTS; lists those that are."));
        }
        self.read(number)
    }

    /// Gives the newest checkpoint a name. When it returns, it is kept.
    ///
    /// # Errors
    ///
    /// 42710 when there is one of that name, 55000 when there is no checkpoint, 53100 and 58030.
    pub fn save(&mut self, name: &str, now_us: i64) -> Result<()> {
        if self.saved.iter().any(|saved| saved.name == name) {
            return Err(Error::user(
                sqlstate::DUPLICATE_OBJECT,
                format!("savepoint \"{name}\" already exists"),
            )
            .with_hint(format!("DROP SAVEPOINT \"{name}\"; or take another name.")));
        }
        let manifest = self.newest.clone().ok_or_else(|| {
            Error::user(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "there is no checkpoint that could have a name",
            )
        })?;
        let id = self.saved.iter().map(|saved| saved.id).max().unwrap_or(0) + 1;
        let (version, name) = (VERSION, name.to_owned());
        let saved = Savepoint { version, id, name, made_us: now_us, manifest };
        needs_savepoints(self.disk.as_ref(), &self.path)?;
        let path = savepoint_path(&self.path, id);
        let written = put(self.disk.as_ref(), &path, &saved.encode()?);
        written.map_err(|e| disk_error(&e, &path))?;
        self.saved.push(saved);
        Ok(())
    }

    /// Lets a savepoint go; what only it has is removed.
    pub fn forget(&mut self, name: &str) -> Result<()> {
        let id = self.savepoint(name)?.id;
        let path = savepoint_path(&self.path, id);
        self.disk.remove(&path).map_err(|e| disk_error(&e, &path))?;
        let dir = self.path.join("savepoint");
        self.disk.sync_dir(&dir).map_err(|e| disk_error(&e, &dir))?;
        self.saved.retain(|saved| saved.id != id);
        self.clean().map(drop)
    }

    /// Removes the manifests that nobody can read.
    pub fn remove_unreadable(&self) -> Result<()> {
        for number in self.numbers()? {
            if self.read(number).is_err() {
                let path = manifest_path(&self.path, number);
                self.disk.remove(&path).map_err(|e| disk_error(&e, &path))?;
            }
        }
        let dir = self.path.join("manifest");
        self.disk.sync_dir(&dir).map_err(|e| disk_error(&e, &dir))
    }

    /// Makes an older checkpoint the newest, in a new one.
    ///
    /// # Errors
    ///
    /// 55000 when sinks have delivered what is not of it and nobody says what becomes of them.
    pub fn restore(
        &mut self,
        older: &Manifest,
        sinks: Option<SinksGo>,
        end: LogEnd,
    ) -> Result<u64> {
        let newest = self.newest.clone();
        let ahead = newest.as_ref().map_or_else(Vec::new, |newest| older.sinks_ahead(newest));
        if sinks.is_none() && !ahead.is_empty() {
            return Err(sinks_have_gone_on());
        }
        for name in &older.runs {
            self.run(name)?;
        }
        let mut manifest = Manifest {
            number: self.next_number(),
            life: end.life,
            epochs: end.epochs,
            lsn: end.lsn,
            greatest_relation: older.greatest_relation.max(end.greatest_relation),
            ..older.clone()
        };
        if let Some(newest) = newest {
            manifest.next_run = manifest.next_run.max(newest.next_run);
            manifest.next_out = manifest.next_out.max(newest.next_out);
            manifest.next_table = manifest.next_table.max(newest.next_table);
            manifest.ancestry = newest.ancestry;
            for (sink, mark) in &mut manifest.sinks {
                if let Some(now) = newest.sinks.get(sink) {
                    *mark = now.clone();
                }
            }
        }
        manifest.next_run = manifest.next_run.max(self.next_run);
        manifest.next_out = manifest.next_out.max(self.outboxes().next());
        if sinks == Some(SinksGo::Republish) {
            for sink in ahead {
                let mark = manifest.sinks.get_mut(&sink);
                mark.into_iter().for_each(|mark| mark.lost = Some(BEGINS_ANEW.to_owned()));
            }
        }
        manifest.outbox = undelivered(older.outbox.iter(), &manifest.sinks);
        let path = manifest_path(&self.path, manifest.number);
        put(self.disk.as_ref(), &path, &manifest.encode()?).map_err(|e| disk_error(&e, &path))?;
        let number = manifest.number;
        self.newest = Some(manifest);
        Ok(number)
    }
}

fn sinks_have_gone_on() -> Error {
    Error::user(
        sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "sinks have delivered changes that the restored state does not have",
    )
    .with_hint(
        "SINKS CONTINUE goes on with what changes from there; SINKS REPUBLISH begins anew with \
         all rows. EXPLAIN RESTORE names the sinks.",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::manifest::SinkMark;
    use super::*;
    use crate::store::Place;

    fn with_sink(number: u64, delivered: Option<u64>) -> Manifest {
        let delivered = delivered.map(Place::behind);
        let mark = SinkMark { begins: 1, delivered, ..SinkMark::default() };
        Manifest { number, sinks: BTreeMap::from([(7, mark)]), ..Manifest::default() }
    }

    #[test]
    fn a_sink_is_ahead_when_it_has_delivered_or_was_dropped() {
        let older = with_sink(5, Some(5));
        let ahead = |newest: Manifest| older.sinks_ahead(&newest);
        assert_eq!(ahead(with_sink(9, Some(5))), Vec::<u32>::new());
        assert_eq!(ahead(with_sink(9, None)), Vec::<u32>::new());
        assert_eq!(ahead(with_sink(9, Some(6))), [7]);
        assert_eq!(ahead(Manifest { number: 9, ..Manifest::default() }), [7]);
    }
}
