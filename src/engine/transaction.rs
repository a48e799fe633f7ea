//! Transaction blocks: BEGIN pins an epoch, writes are collected and seen by the transaction's own
//! reads, COMMIT makes all of them visible in one epoch.
//!
//! Isolation is snapshot isolation with first committer wins, row by row, as PostgreSQL's
//! repeatable read: when a row that the transaction updates or deletes has changed since its
//! snapshot, COMMIT fails with 40001; when a key that it inserts is there by now, with 23505.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::outcome::{Notice, Outcome};
use super::session::Session;
use super::unique::check_keys;
use crate::catalog::RelationId;
use crate::delta::{DeltaBatch, Order, concat, consolidate};
use crate::error::{Error, Result, sqlstate};
use crate::runtime::Pin;
use crate::sql::memory::Reserved;
use crate::sql::statement::{Savepoint, TransactionModes};

/// An open transaction block.
pub(crate) struct Transaction {
    /// What it reads.
    pub(super) pin: Arc<Pin>,
    /// Its own writes, by table, in order.
    pub(super) writes: BTreeMap<RelationId, Vec<DeltaBatch>>,
    /// The memory of those.
    held: Reserved,
    /// Tables that it has read in order to write.
    pub(super) read: BTreeSet<RelationId>,
    /// When it began: what `now()` is in it.
    pub(super) began: DateTime<Utc>,
    /// Begun by a text of several statements, and not by BEGIN.
    pub(super) implicit: bool,
    /// Its savepoints, the oldest first.
    savepoints: Vec<Mark>,
}

/// How far a transaction was when a savepoint was set.
struct Mark {
    name: String,
    /// Writes of each table.
    writes: BTreeMap<RelationId, usize>,
    read: BTreeSet<RelationId>,
}

impl Transaction {
    /// Adds a change of a table (53200 when it does not fit into memory).
    pub(super) fn add(&mut self, table: RelationId, delta: DeltaBatch) -> Result<()> {
        self.held.grow(delta.rows().get_array_memory_size())?;
        self.writes.entry(table).or_default().push(delta);
        Ok(())
    }

    /// How many savepoints it has.
    pub(super) fn depth(&self) -> usize {
        self.savepoints.len()
    }
}

impl Session {
    pub(super) fn begin(&mut self, modes: &TransactionModes) -> Result<Outcome> {
        if let Some(transaction) = self.transaction.as_mut().filter(|t| t.implicit) {
            transaction.implicit = false;
            self.values.change_modes(modes)?;
            return Ok(self.done("BEGIN"));
        }
        if self.transaction.is_some() {
            self.values.change_modes(modes)?;
            self.notices.push(Notice {
                severity: "WARNING",
                sqlstate: sqlstate::ACTIVE_SQL_TRANSACTION,
                message: "there is already a transaction in progress".into(),
                hint: None,
            });
            return Ok(self.done("BEGIN"));
        }
        self.begin_transaction(false);
        if let Err(error) = self.values.change_modes(modes) {
            self.end_transaction();
            self.values.roll_back();
            return Err(error);
        }
        Ok(self.done("BEGIN"))
    }

    pub(super) fn begin_transaction(&mut self, implicit: bool) {
        self.values.begin();
        self.transaction = Some(Transaction {
            pin: Arc::new(self.engine.core.shared.pin()),
            writes: BTreeMap::new(),
            held: self.engine.core.memory.query(None).reserve("writes of a transaction"),
            read: BTreeSet::new(),
            began: self.engine.core.shared.clock.now(),
            implicit,
            savepoints: Vec::new(),
        });
    }

    pub(super) fn rollback(&mut self, chain: bool) -> Result<Outcome> {
        let modes = self.chained_modes("ROLLBACK", chain)?;
        if self.end_transaction().0.is_none_or(|t| t.implicit) {
            self.warn_no_transaction();
        }
        self.close_cursors(false);
        self.values.roll_back();
        self.begin_chained(modes)?;
        Ok(self.done("ROLLBACK"))
    }

    /// AND CHAIN: the modes of the transaction that follows this one.
    fn chained_modes(&self, verb: &str, chain: bool) -> Result<Option<TransactionModes>> {
        if chain && self.transaction.as_ref().is_none_or(|t| t.implicit) {
            return Err(Error::user(
                sqlstate::NO_ACTIVE_SQL_TRANSACTION,
                format!("{verb} AND CHAIN can only be used in transaction blocks"),
            ));
        }
        Ok(chain.then(|| self.values.modes()))
    }

    fn begin_chained(&mut self, modes: Option<TransactionModes>) -> Result<()> {
        let Some(modes) = modes else { return Ok(()) };
        self.begin_transaction(false);
        self.values.change_modes(&modes)
    }

    fn warn_no_transaction(&mut self) {
        self.notices.push(Notice {
            severity: "WARNING",
            sqlstate: sqlstate::NO_ACTIVE_SQL_TRANSACTION,
            message: "there is no transaction in progress".into(),
            hint: None,
        });
    }

    pub(super) async fn commit(&mut self, chain: bool) -> Result<Outcome> {
        let modes = self.chained_modes("COMMIT", chain)?;
        if self.transaction.as_ref().is_none_or(|t| t.implicit) {
            self.warn_no_transaction();
        }
        let tag = if self.failed { "ROLLBACK" } else { "COMMIT" };
        self.commit_transaction().await?;
        self.begin_chained(modes)?;
        Ok(self.done(tag))
    }

    /// Ends the transaction, if there is one; its writes become visible unless it has failed.
    pub(super) async fn commit_transaction(&mut self) -> Result<()> {
        let held = match self.failed {
            true => Ok(()),
            false => self.hold_cursors().await,
        };
        let result = match (self.end_transaction(), held) {
            ((_, true) | (None, _), _) => Ok(false),
            (_, Err(error)) => Err(error),
            ((Some(transaction), false), Ok(())) => {
                self.commit_writes(transaction).await.map(|()| true)
            }
        };
        self.close_cursors(matches!(result, Ok(true)));
        match result {
            Ok(true) => self.values.commit(),
            _ => self.values.roll_back(),
        }
        result.map(drop)
    }

    pub(super) fn savepoint(&mut self, savepoint: &Savepoint) -> Result<Outcome> {
        let (tag, name) = match savepoint {
            Savepoint::Set(name) => ("SAVEPOINT", name),
            Savepoint::Release(name) => ("RELEASE", name),
            Savepoint::RollbackTo(name) => ("ROLLBACK", name),
        };
        let verb = if tag == "ROLLBACK" { "ROLLBACK TO SAVEPOINT" } else { tag };
        let Some(transaction) = self.transaction.as_mut().filter(|t| !t.implicit) else {
            let verb = if tag == "RELEASE" { "RELEASE SAVEPOINT" } else { verb };
            return Err(Error::user(
                sqlstate::NO_ACTIVE_SQL_TRANSACTION,
                format!("{verb} can only be used in transaction blocks"),
            ));
        };
        let found = transaction.savepoints.iter().rposition(|s| s.name == *name);
        match (savepoint, found) {
            (Savepoint::Set(_), _) => {
                let writes = transaction.writes.iter().map(|(id, w)| (*id, w.len())).collect();
                let read = transaction.read.clone();
                transaction.savepoints.push(Mark { name: name.clone(), writes, read });
                self.values.savepoint();
            }
            (_, None) => {
                return Err(Error::user(
                    sqlstate::INVALID_SAVEPOINT,
                    format!("savepoint \"{name}\" does not exist"),
                ));
            }
            (Savepoint::Release(_), Some(at)) => {
                transaction.savepoints.truncate(at);
                self.values.release(at);
                self.release_cursors(at);
            }
            (Savepoint::RollbackTo(_), Some(at)) => {
                transaction.savepoints.truncate(at + 1);
                let mark = &transaction.savepoints[at];
                for (id, writes) in &mut transaction.writes {
                    let kept = mark.writes.get(id).copied().unwrap_or(0);
                    for gone in writes.drain(kept.min(writes.len())..) {
                        transaction.held.shrink(gone.rows().get_array_memory_size());
                    }
                }
                transaction.read.clone_from(&mark.read);
                self.failed = false;
                self.values.roll_back_to(at);
                self.close_cursors_behind(at);
            }
        }
        Ok(self.done(tag))
    }

    async fn commit_writes(&self, transaction: Transaction) -> Result<()> {
        let mut writes = Vec::new();
        for (id, deltas) in &transaction.writes {
            if let Some(all) = concat(deltas)? {
                let all = consolidate(&all, Order::Input)?;
                if !all.is_empty() {
                    writes.push((*id, all));
                }
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        // In order of their ids, so that two transactions never wait for each other.
        let shared = &self.engine.core.shared;
        let mut tickets = Vec::new();
        for id in &transaction.read {
            tickets.push(self.turn(shared.ticket(*id).lock_owned()).await?);
        }
        let now = shared.pin();
        for (id, change) in writes.iter().filter(|(id, _)| transaction.read.contains(id)) {
            check_unchanged(*id, change, &transaction.pin, &now)?;
        }
        drop(now);
        self.hand_over(writes, tickets).await
    }
}

/// The rows that a change takes away must still be there, and no key may be there twice.
fn check_unchanged(id: RelationId, change: &DeltaBatch, then: &Pin, now: &Pin) -> Result<()> {
    let conflict = || {
        Error::user(
            sqlstate::SERIALIZATION_FAILURE,
            "could not serialize access due to concurrent update",
        )
        .with_hint("Run the transaction again.")
    };
    let state = now.relations.get(&id).ok_or_else(conflict)?;
    if state.last_change() <= then.epoch {
        return Ok(());
    }
    let table = state.table.as_ref().ok_or_else(conflict)?;
    if !table.holds(change, now.epoch_of(id))? {
        return Err(conflict());
    }
    let relation = now.catalog.by_id(id).ok_or_else(conflict)?;
    match relation.key.is_empty() {
        true => Ok(()),
        false => check_keys(relation, state, now, &[], std::slice::from_ref(change)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::config::Config;
    use crate::engine::{Engine, Outcome, Session};
    use crate::error::Result;

    async fn count(session: &mut Session) -> Result<usize> {
        let mut outcomes = session.execute("SELECT id FROM t").await?;
        let Some(Outcome::Rows(rows)) = outcomes.pop() else { return Ok(0) };
        Ok(rows.collect().await?.iter().map(|batch| batch.num_rows()).sum())
    }

    /// An idle transaction and a cursor hold back row versions up to the limit and are cut off
    /// then; the versions go, and what is read from then on is whole.
    #[tokio::test(flavor = "multi_thread")]
    async fn who_holds_back_too_many_row_versions_is_cut_off() {
        let config = Config { old_versions_bytes: 1 << 20, ..Config::with_workers(2) };
        let engine = Engine::open(config).expect("opens");
        let (mut writer, mut idle) = (engine.session(), engine.session());
        writer.execute("CREATE TABLE t (id int PRIMARY KEY, s text)").await.expect("creates");
        let insert = "INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 400) g";
        writer.execute(insert).await.expect("inserts");
        idle.execute("BEGIN").await.expect("begins");
        assert_eq!(count(&mut idle).await.expect("reads"), 400);
        let pin = idle.transaction.as_ref().map(|t| t.pin.clone()).expect("is in a transaction");
        let begun = Instant::now();
        for text in ["a", "b"].into_iter().cycle().take_while(|_| pin.check().is_ok()) {
            assert!(begun.elapsed() < Duration::from_secs(60), "is never cut off");
            let update = format!("UPDATE t SET s = repeat('{text}', 1000)");
            writer.execute(&update).await.expect("updates");
        }
        let held = || {
            let relations = engine.core.shared.relations();
            relations.values().filter_map(|r| r.table.as_ref()).map(|t| t.ended_bytes()).sum()
        };
        let held: usize = held();
        assert!(held <= 2 << 20, "{held} bytes of row versions are still there");
        let error = count(&mut idle).await.expect_err("its epoch is gone");
        assert_eq!((error.sqlstate(), error.message()), ("72000", "snapshot too old"));
        let next = idle.execute("SELECT 1").await.map(drop).expect_err("has failed");
        assert_eq!(next.sqlstate(), "25P02");
        idle.execute("ROLLBACK").await.expect("rolls back");
        assert_eq!(count(&mut idle).await.expect("reads anew"), 400);
        engine.shutdown().await.expect("stops");
    }
}
