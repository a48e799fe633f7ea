//! CREATE SAVEPOINT, DROP SAVEPOINT, SHOW SAVEPOINTS, RESTORE FROM and EXPLAIN RESTORE: states that
//! are kept by their name, and going back to one.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::outcome::{Notice, Outcome, Rows};
use super::session::Session;
use crate::catalog::Definition;
use crate::checkpoint::{Checkpoints, Manifest, Savepoint, SinksGo};
use crate::delta::text::UTC;
use crate::error::{Error, Result, sqlstate};
use crate::runtime::{CoordinatorHandle, definition_of};
use crate::sql::statement::{Restore, RestoreFrom, SavedState};

/// What is left behind is kept under a name that begins so.
const BEFORE: &str = "before_restore_";

impl Session {
    pub(super) async fn saved_state(&mut self, statement: &SavedState) -> Result<Outcome> {
        let what = statement.name();
        self.refuse_in_transaction(what)?;
        if self.engine.core.kept.is_none() {
            return Err(nothing_is_kept());
        }
        match statement {
            SavedState::Create { name, if_not_exists } => {
                let known = name.clone();
                let exists = move |c: &mut Checkpoints| c.savepoint(&known).is_ok();
                if *if_not_exists && self.with_checkpoints(exists).await? {
                    let text = format!("savepoint \"{name}\" already exists, skipping");
                    self.notices.push(Notice::new(text));
                    return Ok(self.done(what));
                }
                self.engine.checkpoint().await?;
                self.save_newest(name).await?;
            }
            SavedState::Drop { name, if_exists } => {
                let known = name.clone();
                let exists = move |c: &mut Checkpoints| c.savepoint(&known).is_ok();
                if *if_exists && !self.with_checkpoints(exists).await? {
                    let text = format!("savepoint \"{name}\" does not exist, skipping");
                    self.notices.push(Notice::new(text));
                    return Ok(self.done(what));
                }
                let name = name.clone();
                self.with_checkpoints(move |c| c.forget(&name)).await??;
            }
            SavedState::Restore(restore) => self.go_back(restore).await?,
        }
        Ok(self.done(what))
    }

    async fn with_checkpoints<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Checkpoints) -> T + Send + 'static,
    ) -> Result<T> {
        let coordinator = &self.engine.core.coordinator;
        let result = coordinator.call(move |c| c.with_checkpoints(call)).await?;
        result.await.map_err(|_| nothing_is_kept())
    }

    async fn save_newest(&self, name: &str) -> Result<()> {
        let (name, now) = (name.to_owned(), self.engine.core.shared.clock.now_us());
        self.with_checkpoints(move |c| c.save(&name, now)).await?
    }

    /// Goes back to an older state. The engine ends with it; whoever runs it begins anew.
    async fn go_back(&mut self, restore: &Restore) -> Result<()> {
        if !self.engine.core.begins_again {
            return Err(Error::unsupported("RESTORE FROM needs a server that begins again")
                .with_hint("Serve with headwater serve, or run headwater restore --data DIR."));
        }
        let (from, sinks) = (restore.from.clone(), restore.sinks);
        // It is looked for before the next one is made, which would let the oldest go.
        let held = self.with_checkpoints(move |c| {
            let older = find(c, &from)?;
            c.hold(Some(older.clone()));
            Ok::<_, Error>(older)
        });
        let older = held.await??;
        let went = self.leave_for(older, sinks).await;
        if went.is_err() {
            self.with_checkpoints(|c| c.hold(None)).await?;
        }
        went
    }

    /// Keeps what there is under a name, and goes back.
    async fn leave_for(&mut self, older: Manifest, sinks: Option<SinksGo>) -> Result<()> {
        let core = self.engine.core.clone();
        let _one_at_a_time = self.turn(core.ddl.lock()).await?;
        let _sealed = Sealed::new(&core.coordinator).await?;
        self.engine.checkpoint().await?;
        let number = self.with_checkpoints(|c| c.next_number() - 1).await?;
        let before = format!("{BEFORE}{number}");
        self.save_newest(&before).await?;
        let went = core.coordinator.call(move |c| c.go_back(older, sinks)).await?;
        if went.is_err() {
            let name = before.clone();
            self.with_checkpoints(move |c| c.forget(&name)).await??;
        }
        went?;
        let text = format!("what was there until now is savepoint \"{before}\"");
        self.notices.push(Notice::new(text));
        Ok(())
    }

    /// The savepoints, the newest first.
    pub(super) async fn show_savepoints(&mut self) -> Result<Rows> {
        let shown = |c: &mut Checkpoints| -> Result<Vec<(Savepoint, i64)>> {
            let kept = c.kept()?;
            let own = |saved: &Savepoint| own_bytes(saved, c.savepoints(), &kept);
            Ok(c.savepoints().iter().rev().map(|s| (s.clone(), own(s))).collect())
        };
        let saved = match self.engine.core.kept.is_some() {
            true => self.with_checkpoints(shown).await??,
            false => Vec::new(),
        };
        let number = |of: fn(&Manifest) -> u64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(
                saved.iter().map(|(s, _)| of(&s.manifest) as i64),
            ))
        };
        let at = |of: fn(&Savepoint) -> i64| -> ArrayRef {
            let times = saved.iter().map(|(s, _)| Some(of(s)));
            Arc::new(TimestampMicrosecondArray::from_iter(times).with_timezone(UTC))
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(saved.iter().map(|(s, _)| &s.name))),
            number(|m| m.number),
            number(|m| m.epoch),
            at(|s| s.manifest.now_us),
            at(|s| s.made_us),
            number(|m| m.runs.iter().map(|run| run.entries).sum()),
            number(|m| m.runs.iter().map(|run| run.bytes).sum()),
            Arc::new(Int64Array::from_iter_values(saved.iter().map(|(_, own)| *own))),
        ];
        let batch = RecordBatch::try_new(savepoint_fields(), columns)?;
        Ok(Rows::ready(savepoint_fields(), vec![batch]))
    }

    /// What RESTORE FROM would do.
    pub(super) async fn explain_restore(&self, from: &RestoreFrom) -> Result<Vec<String>> {
        if self.engine.core.kept.is_none() {
            return Err(nothing_is_kept());
        }
        // What the newest state has is in a checkpoint then.
        self.engine.checkpoint().await?;
        let looked_for = from.clone();
        let found = self.with_checkpoints(move |c| -> Result<_> {
            Ok((find(c, &looked_for)?, c.newest().cloned().unwrap_or_default()))
        });
        let (older, newest) = found.await??;
        let catalog = self.engine.core.shared.catalog();
        let at = chrono::DateTime::from_timestamp_micros(older.now_us).unwrap_or_default();
        let mut lines =
            vec![format!("restore of checkpoint {}, {}", older.number, at.format("%F %T%.3f UTC"))];
        let mut known = BTreeSet::new();
        let ahead = older.sinks_ahead(&newest);
        for definition in &older.definitions {
            let Definition::Create(creation) = definition_of(definition)? else { continue };
            let id = creation.ids.relation;
            known.extend(creation.ids.iter());
            let name = &creation.name;
            let fate = match catalog.by_id(id) {
                _ if ahead.contains(&id.0) => {
                    "has delivered what is not of that state: SINKS CONTINUE or SINKS REPUBLISH"
                }
                Some(now) if now.name == *name => "goes back",
                Some(_) => "goes back, with this name",
                None => "comes back",
            };
            lines.push(format!("  \"{name}\": {fate}"));
        }
        let newer = catalog.relations().filter(|r| !r.kind.is_part() && !known.contains(&r.id));
        lines.extend(newer.map(|r| format!("  \"{}\": goes away", r.name)));
        Ok(lines)
    }
}

/// Commits wait as long as this is there.
struct Sealed(CoordinatorHandle);

impl Sealed {
    async fn new(coordinator: &CoordinatorHandle) -> Result<Self> {
        // Also when whoever asked is gone before it has the answer.
        let sealed = Self(coordinator.clone());
        coordinator.call(|c| c.seal(true)).await?;
        Ok(sealed)
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.0.send(|c| c.seal(false));
    }
}

/// The checkpoint that is meant.
pub(super) fn find(checkpoints: &Checkpoints, from: &RestoreFrom) -> Result<Manifest> {
    match from {
        RestoreFrom::Savepoint(name) => Ok(checkpoints.savepoint(name)?.manifest.clone()),
        RestoreFrom::Checkpoint(number) => checkpoints.numbered(*number),
    }
}

/// Bytes of runs that are there because of a savepoint alone.
fn own_bytes(saved: &Savepoint, all: &[Savepoint], kept: &[Manifest]) -> i64 {
    let others = all.iter().filter(|other| other.id != saved.id).map(|other| &other.manifest);
    let named = others.chain(kept).flat_map(|m| m.runs.iter().map(|run| run.id));
    let named: BTreeSet<u64> = named.collect();
    let own = saved.manifest.runs.iter().filter(|run| !named.contains(&run.id));
    own.map(|run| run.bytes as i64).sum()
}

fn nothing_is_kept() -> Error {
    Error::user(
        sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "there is no data directory: nothing is kept",
    )
    .with_hint("Start with --data DIR.")
}

/// The columns of SHOW SAVEPOINTS.
pub(super) fn savepoint_fields() -> SchemaRef {
    let at = || DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
    let column = |(name, data_type): (&str, DataType)| Field::new(name, data_type, true);
    let columns = [
        ("name", DataType::Utf8),
        ("checkpoint", DataType::Int64),
        ("epoch", DataType::Int64),
        ("clock", at()),
        ("made_at", at()),
        ("entries", DataType::Int64),
        ("bytes", DataType::Int64),
        ("own_bytes", DataType::Int64),
    ];
    Arc::new(Schema::new(columns.map(column).to_vec()))
}
