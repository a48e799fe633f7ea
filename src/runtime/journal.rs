//! The journal: what the sequencer writes into the log of the data directory, and when it waits.
//!
//! Writes are appended when their epoch is cut, and on the disk before it is published, so nobody
//! reads what could be lost; the sync runs beside the epoch's work. A definition is on the disk
//! before it is there for anybody; a view that its statement waits for, when it is complete.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, SchemaRef};
use tokio::sync::oneshot;

use super::coordinator::{Commit, Coordinator};
use super::definitions::relaxed;
use super::shared::RelationStatus;
use crate::catalog::access::AccessChange;
use crate::catalog::{Catalog, Creation, Definition, RelationId};
use crate::config::{BATCH_ROWS, LOG_HELD_BYTES, LOG_PART_BYTES};
use crate::delta::{DeltaBatch, Keys, batch_of, decode_keys};
use crate::error::{Error, Result, sqlstate};
use crate::store::log::{self, Life, Log, Lsn, Record};
use crate::store::{Directory, taken_over};
use crate::time::Epoch;

/// Epochs that are taken for used at a time; the next ones are, when half of them have been.
const EPOCHS_AHEAD: u64 = 1 << 22;

/// The log of this life.
#[derive(Debug)]
pub struct Journal {
    log: Log,
    /// Epochs below this one are taken for used in the log.
    epochs: u64,
    /// Views that are being built, whose statements wait for them.
    pending: BTreeMap<RelationId, Definition>,
    /// The number of this life.
    life: u64,
    /// What has been created and not dropped.
    live: BTreeMap<RelationId, Creation>,
    /// Let go when nothing is written any more.
    _directory: Directory,
}

impl Journal {
    /// Begins the journal of a life in its directory.
    pub fn start(
        mut log: Log,
        life: Life,
        live: BTreeMap<RelationId, Creation>,
        directory: Directory,
    ) -> Result<Self> {
        let epochs = life.first_epoch + EPOCHS_AHEAD;
        let lsn = log.append(vec![Record::Life(life), Record::Epochs(epochs)])?;
        log.wait(lsn)?;
        let (pending, life) = (BTreeMap::new(), life.number);
        Ok(Self { log, epochs, pending, life, live, _directory: directory })
    }

    /// Makes sure of room for records. What makes no room leaves some for what does.
    fn reserve(&mut self, bytes: usize) -> Result<()> {
        self.log.reserve(bytes + LOG_HELD_BYTES)
    }

    /// Writes a record and waits for it.
    fn write(&mut self, record: Record) -> Result<()> {
        let lsn = self.log.append(vec![record])?;
        self.log.wait(lsn)
    }

    fn define(&mut self, definition: &Definition) -> Result<()> {
        let record = Record::Definition(definition.encode()?);
        if !matches!(definition, Definition::Drop(_)) {
            self.reserve(record.bytes())?;
        }
        self.write(record)?;
        apply(definition, &mut self.live);
        Ok(())
    }

    /// Takes a definition for kept that the next checkpoint decides.
    pub(super) fn expect(&mut self, definition: &Definition) {
        apply(definition, &mut self.live);
    }

    /// The number of this life.
    pub(super) fn life(&self) -> u64 {
        self.life
    }

    /// The first epoch that is not taken for used.
    pub(super) fn epochs(&self) -> u64 {
        self.epochs
    }

    /// The number of the next record.
    pub(super) fn next_lsn(&self) -> Lsn {
        self.log.next()
    }

    /// What has been created and not dropped, in order of its numbers.
    pub(super) fn live(&self) -> impl Iterator<Item = &Creation> {
        self.live.values()
    }

    /// Writes what is pending of some relations, those that they are made of first.
    fn settle(&mut self, ids: &[RelationId], catalog: &Catalog) -> Result<()> {
        for id in ids {
            let Some(definition) = self.pending.remove(id) else { continue };
            let below = catalog.by_id(*id).map(|r| r.depends_on.clone()).unwrap_or_default();
            self.settle(&below, catalog)?;
            self.define(&definition)?;
        }
        Ok(())
    }

    /// The record of a commit; all but the last part of a large one is in the log then, where it
    /// counts for nothing without that record. `ahead`: bytes that are to be appended before it.
    fn record(&mut self, commit: &Commit, now_us: i64, ahead: usize) -> Result<Record> {
        let mut parts = None;
        let mut writes: Vec<log::Write> = Vec::new();
        let mut bytes = 0;
        for (id, rows) in &commit.writes {
            writes.push(log::Write { relation: id.0, rows: Vec::new() });
            let mut from = 0;
            while from < rows.len() {
                if bytes >= LOG_PART_BYTES {
                    let first = *parts.get_or_insert(self.log.next());
                    let part = log::Part { first, writes: std::mem::take(&mut writes) };
                    let part = Record::Part(part);
                    self.reserve(part.bytes())?;
                    self.log.append(vec![part])?;
                    writes.push(log::Write { relation: id.0, rows: Vec::new() });
                    bytes = 0;
                }
                let piece = rows.slice(from, BATCH_ROWS.min(rows.len() - from));
                from += piece.len();
                if let Some(write) = writes.last_mut() {
                    bytes += encode(&piece, write)?;
                }
            }
        }
        let record = Record::Commit(log::Commit { now_us, parts, writes });
        self.reserve(ahead + record.bytes())?;
        Ok(record)
    }
}

/// Takes a definition into what is there; names and texts are those of the beginning.
pub fn apply(definition: &Definition, live: &mut BTreeMap<RelationId, Creation>) {
    match definition {
        Definition::Create(creation) => {
            live.insert(creation.ids.relation, creation.as_ref().clone());
        }
        Definition::Keep(id) => {
            if let Some(creation) = live.get_mut(id) {
                creation.provisional = false;
            }
        }
        Definition::Drop(ids) => live.retain(|id, _| !ids.contains(id)),
        Definition::Replace { old, new, .. } => {
            live.retain(|id, _| !old.contains(id));
            if let Some(creation) = live.get_mut(new) {
                creation.provisional = false;
            }
        }
        Definition::Swap { old, new, .. } => {
            live.retain(|id, _| !old.contains(id));
            for (id, _) in new {
                let Some(creation) = live.get_mut(id) else { continue };
                creation.provisional = false;
                // The names mean these from here on.
                creation.instead.clear();
            }
        }
        Definition::Access(changes) => {
            for change in changes {
                if let AccessChange::Acl { on, acl } = change
                    && let Some(creation) = live.get_mut(on)
                {
                    creation.acl = Some(acl.clone());
                }
            }
        }
        Definition::Sequence { of, text, owned_by } => {
            if let Some(creation) = live.get_mut(of) {
                creation.text.clone_from(text);
                creation.owned_by.clone_from(owned_by);
            }
        }
        Definition::Comment { of, column, text } => {
            if let Some(creation) = live.get_mut(of) {
                match text {
                    Some(text) => drop(creation.comments.insert(column.clone(), text.clone())),
                    None => drop(creation.comments.remove(column)),
                }
            }
        }
        Definition::Rename { .. } | Definition::Clock(_) | Definition::Watermark { .. } => {}
    }
}

/// Appends rows; returns how many bytes they take.
fn encode(rows: &DeltaBatch, write: &mut log::Write) -> Result<usize> {
    let before = write.rows.len();
    let keys = Keys::encode_exact(rows.rows().columns(), rows.len())?;
    (0..rows.len()).for_each(|row| write.push(rows.weight(row), keys.key(row)));
    Ok(write.rows.len() - before)
}

/// The rows of a write to a table with some columns, in batches.
pub fn read_write(schema: &SchemaRef, write: &log::Write) -> Result<Vec<DeltaBatch>> {
    write.rows()?.chunks(BATCH_ROWS).map(|rows| decode(schema.clone(), rows)).collect()
}

fn decode(schema: SchemaRef, rows: &[(i64, &[u8])]) -> Result<DeltaBatch> {
    let types: Vec<DataType> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
    let columns = decode_keys(&types, rows.iter().map(|(_, row)| *row))?;
    let weights: Vec<i64> = rows.iter().map(|(weight, _)| *weight).collect();
    let rows = batch_of(relaxed(&schema), columns, rows.len())?;
    let weights = weights.iter().any(|w| *w != 1).then(|| weights.into());
    Ok(DeltaBatch::with_weights(rows, weights))
}

impl Coordinator {
    /// From here on definitions and writes are kept.
    pub fn keep(&mut self, journal: Journal) {
        self.journal = Some(journal);
    }

    /// Begins behind all epochs that an earlier life may have used.
    pub fn begin_at(&mut self, epoch: u64) {
        self.epoch = Epoch(epoch);
        self.shared.publish(
            self.epoch,
            i64::MIN,
            &std::collections::BTreeSet::new(),
            &std::collections::BTreeMap::new(),
        );
    }

    /// Takes writes of an earlier life.
    pub(super) fn commit_again(
        &mut self,
        commit: log::Commit,
    ) -> Result<oneshot::Receiver<Result<Epoch>>> {
        let catalog = self.shared.catalog();
        let mut writes = Vec::with_capacity(commit.writes.len());
        for write in &commit.writes {
            let id = RelationId(write.relation);
            let relation = catalog.by_id(id).ok_or_else(|| {
                Error::external(sqlstate::DATA_CORRUPTED, format!("there is no relation {id}"))
            })?;
            writes.extend(read_write(&relation.schema, write)?.into_iter().map(|rows| (id, rows)));
        }
        let (done, published) = oneshot::channel();
        let at_us = Some(commit.now_us);
        self.commits.push(Commit { writes, parts: Vec::new(), done, tickets: Vec::new(), at_us });
        Ok(published)
    }

    /// Keeps a definition; those that it is made of are kept before it.
    pub(super) fn note(&mut self, definition: &Definition, made_of: &[RelationId]) -> Result<()> {
        let catalog = self.shared.catalog();
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let noted = journal.settle(made_of, &catalog).and_then(|()| journal.define(definition));
        self.check_log(noted)
    }

    /// Keeps a definition when what it defines is complete.
    pub(super) fn note_later(&mut self, id: RelationId, definition: Definition) {
        if let Some(journal) = &mut self.journal {
            journal.pending.insert(id, definition);
        }
    }

    /// What was to be kept later is complete.
    pub(super) fn note_complete(&mut self, ids: &[RelationId]) -> Result<()> {
        let catalog = self.shared.catalog();
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let noted = journal.settle(ids, &catalog);
        self.check_log(noted)
    }

    /// Keeps that objects are gone, as far as anything was kept of them.
    pub(super) fn note_dropped(&mut self, ids: &[RelationId]) -> Result<()> {
        let catalog = self.shared.catalog();
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let pending = std::mem::take(&mut journal.pending);
        let unknown = |id: &RelationId| {
            let owners = catalog.by_id(*id).into_iter().filter(|r| r.kind.is_part());
            pending.contains_key(id)
                || owners.flat_map(|r| &r.depends_on).any(|owner| pending.contains_key(owner))
        };
        let kept: Vec<RelationId> = ids.iter().copied().filter(|id| !unknown(id)).collect();
        let noted = match kept.is_empty() {
            true => Ok(()),
            false => journal.define(&Definition::Drop(kept)),
        };
        journal.pending = pending;
        if noted.is_ok() {
            ids.iter().for_each(|id| drop(journal.pending.remove(id)));
        }
        self.check_log(noted)
    }

    /// Changes names and texts in the catalog.
    pub fn define(
        &mut self,
        definition: &Definition,
        made_of: &[RelationId],
        change: impl Fn(&mut Catalog) -> Result<()>,
    ) -> Result<()> {
        // What can't be done is not kept.
        change(&mut self.shared.catalog().as_ref().clone())?;
        self.note(definition, made_of)?;
        let mut result = Ok(());
        self.shared.change(|catalog, _| result = change(catalog));
        result
    }

    /// Appends the writes of commits, and refuses those for which there is no room or whose tables
    /// have failed: the others, and what to wait for before their epoch is published.
    pub(super) fn log_commits(&mut self, commits: Vec<Commit>) -> (Vec<Commit>, Option<Lsn>) {
        let now_us = self.shared.clock.now_us();
        let Some(mut journal) = self.journal.take() else { return (commits, None) };
        let (mut logged, mut records) = (Vec::with_capacity(commits.len()), Vec::new());
        let (mut bytes, mut full) = (0, false);
        for commit in commits {
            if commit.writes.iter().all(|(_, rows)| rows.is_empty()) {
                logged.push(commit);
                continue;
            }
            let record = self.check_writable(&commit);
            let record = record.and_then(|()| journal.record(&commit, now_us, bytes));
            match record {
                Ok(record) => {
                    bytes += record.bytes();
                    records.push(record);
                    logged.push(Commit { at_us: Some(now_us), ..commit });
                }
                Err(error) => {
                    full |= error.sqlstate() == sqlstate::DISK_FULL;
                    drop(commit.done.send(Err(error)));
                }
            }
        }
        if full {
            self.press_checkpoint();
        }
        let lsn = match records.is_empty() {
            true => Ok(None),
            false => journal.log.append(records).map(Some),
        };
        self.journal = Some(journal);
        match lsn {
            Ok(lsn) => (logged, lsn),
            Err(error) => {
                // Without room nothing was written, so that nothing has happened.
                if error.sqlstate() != sqlstate::DISK_FULL {
                    self.fail_engine(&error);
                }
                logged.into_iter().for_each(|c| drop(c.done.send(Err(error.clone()))));
                (Vec::new(), None)
            }
        }
    }

    fn check_writable(&self, commit: &Commit) -> Result<()> {
        let relations = self.shared.relations();
        for (id, _) in &commit.writes {
            let status = relations.get(id).map(|r| r.status());
            if let Some(RelationStatus::Quarantined(_, error)) = status {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits until the log is on the disk up to a record.
    pub(super) fn wait_for_log(&mut self, below: Option<Lsn>) -> Result<()> {
        let (Some(below), Some(journal)) = (below, &self.journal) else { return Ok(()) };
        let synced = journal.log.wait(below);
        self.check_log(synced)
    }

    /// Takes the next epochs for used in time.
    pub(super) fn count_epochs(&mut self) {
        let epoch = self.epoch.0;
        let Some(journal) = &mut self.journal else { return };
        if epoch + EPOCHS_AHEAD / 2 >= journal.epochs {
            journal.epochs = epoch + EPOCHS_AHEAD;
            let counted = journal.write(Record::Epochs(journal.epochs));
            // Half of what is taken for used is left: the next one tries again.
            if counted.is_err() {
                journal.epochs = epoch + EPOCHS_AHEAD / 2;
            }
            drop(self.check_log(counted));
        }
    }

    /// After an error of the log nobody knows what is on the disk: the engine ends.
    fn check_log(&mut self, result: Result<()>) -> Result<()> {
        if let Err(error) = &result
            && matches!(error.sqlstate(), sqlstate::IO_ERROR | sqlstate::OBJECT_IN_USE)
        {
            self.fail_engine(&error.clone());
        }
        result
    }

    /// Another process may have the directory: the engine ends.
    pub fn lose_directory(&mut self) {
        self.fail_engine(&taken_over());
    }

    /// Ends the engine.
    pub(super) fn fail_engine(&mut self, error: &Error) {
        self.shared.fail(error);
        self.stopping = true;
    }
}
