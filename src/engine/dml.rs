//! INSERT, UPDATE, DELETE: the rows that a statement makes, checked against the table, and their
//! commit.
//!
//! A statement that reads in order to write (UPDATE, DELETE, the check of a primary key) holds its
//! table's write ticket from its snapshot to the epoch that makes it visible, so what it has read
//! is still true when it writes. Rows of tables without a key need no ticket: such writes of many
//! sessions share an epoch. In a transaction block rows are collected instead.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use futures::TryStreamExt;
use hashbrown::HashMap;
use sqlparser::ast;

use super::outcome::Outcome;
use super::provider::{Snapshot, overlaid, rows_provider};
use super::session::Session;
use crate::catalog::{Relation, RelationId, RelationKind};
use crate::delta::text::display_value;
use crate::delta::{DeltaBatch, Keys, Order, Weight, concat, consolidate};
use crate::error::{Error, Result, sqlstate};
use crate::expr::from_datafusion;
use crate::runtime::{Pin, RelationState, RelationStatus};
use crate::sql::{
    Bound, BoundDelete, BoundInsert, BoundUpdate, InsertRows, bind_delete, bind_insert,
    bind_update, conform,
};

/// The ticket of a table, while a statement holds it.
type Ticket = Option<tokio::sync::OwnedMutexGuard<()>>;

impl Session {
    pub(super) async fn insert(&mut self, insert: &ast::Insert) -> Result<Outcome> {
        let catalog = self.engine.core.shared.catalog();
        let bound = bind_insert(insert, &catalog, &self.settings())?;
        self.run_insert(bound).await
    }

    pub(super) async fn update(&mut self, update: &ast::Update) -> Result<Outcome> {
        let catalog = self.engine.core.shared.catalog();
        let bound = bind_update(update, &catalog, &self.settings())?;
        self.run_update(bound).await
    }

    pub(super) async fn delete(&mut self, delete: &ast::Delete) -> Result<Outcome> {
        let catalog = self.engine.core.shared.catalog();
        let bound = bind_delete(delete, &catalog, &self.settings())?;
        self.run_delete(bound).await
    }

    pub(super) async fn run_insert(&mut self, bound: BoundInsert) -> Result<Outcome> {
        let relation = bound.relation;
        check_writable(&relation, "insert into")?;
        let reads = !relation.key.is_empty() || matches!(bound.rows, InsertRows::Query(_));
        let ticket = self.ticket(relation.id, !relation.key.is_empty()).await;
        let pin = self.read_point();
        let rows = match bound.rows {
            InsertRows::Values(rows) => rows,
            InsertRows::Query(query) => {
                let batches = self.collect(&query, &pin).await?;
                conform(&relation, &one_batch(&query, &batches)?)?
            }
        };
        let count = rows.num_rows();
        let delta = DeltaBatch::inserts(rows);
        self.write(&relation, delta, (pin, ticket), reads && !relation.key.is_empty()).await?;
        Ok(self.done(&format!("INSERT 0 {count}")))
    }

    pub(super) async fn run_delete(&mut self, bound: BoundDelete) -> Result<Outcome> {
        let relation = bound.relation;
        check_writable(&relation, "delete from")?;
        let ticket = self.ticket(relation.id, true).await;
        let pin = self.read_point();
        let batches = self.collect(&bound.rows, &pin).await?;
        let rows = one_batch(&bound.rows, &batches)?;
        let rows = RecordBatch::try_new(relation.schema.clone(), rows.columns().to_vec())?;
        let count = rows.num_rows();
        self.write(&relation, DeltaBatch::retractions(rows), (pin, ticket), true).await?;
        Ok(self.done(&format!("DELETE {count}")))
    }

    pub(super) async fn run_update(&mut self, bound: BoundUpdate) -> Result<Outcome> {
        let relation = bound.relation;
        check_writable(&relation, "update")?;
        let ticket = self.ticket(relation.id, true).await;
        let pin = self.read_point();
        let batches = self.collect(&bound.rows, &pin).await?;
        let rows = one_batch(&bound.rows, &batches)?;
        let width = relation.schema.fields().len();
        let old = rows.columns()[..width].to_vec();
        let old = RecordBatch::try_new(relation.schema.clone(), old)?;
        let changed: Vec<usize> = (width..width * 2).collect();
        let new = conform(&relation, &rows.project(&changed)?)?;
        let count = old.num_rows();
        let both = concat(&[DeltaBatch::retractions(old), DeltaBatch::inserts(new)])?;
        let changes = consolidate(&both.unwrap_or_else(|| empty(&relation)), Order::Input)?;
        self.write(&relation, changes, (pin, ticket), true).await?;
        Ok(self.done(&format!("UPDATE {count}")))
    }

    /// Takes a table's write ticket, unless a transaction block takes it at its COMMIT.
    async fn ticket(&self, table: RelationId, needed: bool) -> Ticket {
        if !needed || self.transaction.is_some() {
            return None;
        }
        Some(self.engine.core.shared.ticket(table).lock_owned().await)
    }

    /// What a statement reads: the transaction's epoch, or the published one.
    pub(super) fn read_point(&self) -> Arc<Pin> {
        match &self.transaction {
            Some(transaction) => transaction.pin.clone(),
            None => Arc::new(self.engine.core.shared.pin()),
        }
    }

    /// Checks a change of a table and makes it visible, or adds it to the transaction.
    async fn write(
        &mut self,
        relation: &Arc<Relation>,
        delta: DeltaBatch,
        held: (Arc<Pin>, Ticket),
        reads: bool,
    ) -> Result<()> {
        let (pin, ticket) = held;
        if delta.is_empty() {
            return Ok(());
        }
        if !relation.key.is_empty() {
            let state = state_of(&pin, relation.id, &relation.name)?;
            check_keys(relation, state, &pin, self.own_writes(relation.id), &delta)?;
        }
        match &mut self.transaction {
            Some(transaction) => {
                transaction.writes.entry(relation.id).or_default().push(delta);
                if reads {
                    transaction.read.insert(relation.id);
                }
            }
            None => {
                drop(pin);
                let writes = vec![(relation.id, delta)];
                self.engine.core.coordinator.commit(writes).await?;
            }
        }
        drop(ticket);
        Ok(())
    }

    pub(super) fn own_writes(&self, id: RelationId) -> &[DeltaBatch] {
        let transaction = self.transaction.as_ref();
        transaction.and_then(|t| t.writes.get(&id)).map_or(&[], Vec::as_slice)
    }

    /// Runs a plan to its end.
    pub(super) async fn collect(&self, bound: &Bound, pin: &Arc<Pin>) -> Result<Vec<RecordBatch>> {
        let stream = self.execute_plan(bound, pin).await?;
        stream.map_err(from_datafusion).try_collect().await
    }

    /// A relation's rows at a pinned epoch, with the transaction's own writes over them.
    pub(super) fn provider(
        &self,
        pin: &Arc<Pin>,
        id: RelationId,
    ) -> Result<Arc<dyn datafusion::catalog::TableProvider>> {
        let snapshot = snapshot(pin, id)?;
        let own = self.own_writes(id);
        if own.is_empty() {
            return snapshot.provider();
        }
        let rows = overlaid(&snapshot, own)?;
        rows_provider(snapshot.table.spec().schema.clone(), rows)
    }
}

fn empty(relation: &Relation) -> DeltaBatch {
    DeltaBatch::empty(relation.schema.clone())
}

fn one_batch(bound: &Bound, batches: &[RecordBatch]) -> Result<RecordBatch> {
    let schema = match batches.first() {
        Some(batch) => batch.schema(),
        None => bound.fields.clone(),
    };
    Ok(arrow::compute::concat_batches(&schema, batches)?)
}

/// A relation as it runs at a pinned epoch.
pub(super) fn state_of<'a>(pin: &'a Pin, id: RelationId, name: &str) -> Result<&'a RelationState> {
    pin.relations.get(&id).map(Arc::as_ref).ok_or_else(|| {
        Error::user(sqlstate::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
    })
}

/// The readable rows of a relation at a pinned epoch.
pub(super) fn snapshot(pin: &Arc<Pin>, id: RelationId) -> Result<Snapshot> {
    let relation = pin.catalog.by_id(id).ok_or_else(|| Error::internal("a relation is gone"))?;
    let name = &relation.name;
    let state = state_of(pin, id, name)?;
    let Some(table) = state.table.clone() else {
        return Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("cannot read {} \"{name}\": it stores no rows", relation.kind.noun()),
        )
        .with_hint(format!(
            "CREATE MATERIALIZED VIEW v AS SELECT * FROM \"{name}\"; then read v, \
             or create it as a TABLE."
        )));
    };
    let epoch = match state.status() {
        RelationStatus::Running => pin.epoch,
        RelationStatus::Building => {
            return Err(Error::user(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{} \"{name}\" is still being built", relation.kind.noun()),
            )
            .with_hint("SHOW MATERIALIZED VIEWS; shows when it is ready."));
        }
        RelationStatus::Quarantined(..) => {
            let RelationStatus::Quarantined(epoch, _) = state.status() else { unreachable!() };
            epoch.min(pin.epoch)
        }
    };
    Ok(Snapshot { table, epoch, pin: pin.clone() })
}

/// Sources, views and connector tables take no writes.
fn check_writable(relation: &Relation, verb: &str) -> Result<()> {
    let name = &relation.name;
    if relation.connector.is_some() && matches!(relation.kind, RelationKind::Table { .. }) {
        return Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("cannot {verb} table \"{name}\": its rows come from a connector"),
        )
        .with_hint("Write to the topic or file that it reads."));
    }
    Ok(())
}

/// After the change no key may be there twice (23505).
pub(super) fn check_keys(
    relation: &Relation,
    state: &RelationState,
    pin: &Pin,
    own: &[DeltaBatch],
    delta: &DeltaBatch,
) -> Result<()> {
    let Some(table) = &state.table else { return Ok(()) };
    let keys_of = |d: &DeltaBatch| -> Result<(Vec<ArrayRef>, Keys)> {
        let columns: Vec<ArrayRef> =
            relation.key.iter().map(|c| d.rows().column(*c).clone()).collect();
        let keys = Keys::encode(&columns, d.len())?;
        Ok((columns, keys))
    };
    let (columns, keys) = keys_of(delta)?;
    let mut net: HashMap<&[u8], (Weight, usize)> = HashMap::new();
    for row in 0..delta.len() {
        let entry = net.entry(keys.key(row)).or_insert((0, row));
        entry.0 += delta.weight(row);
        if delta.weight(row) > 0 {
            entry.1 = row;
        }
    }
    for earlier in own {
        let (_, keys) = keys_of(earlier)?;
        for row in 0..earlier.len() {
            if let Some(entry) = net.get_mut(keys.key(row)) {
                entry.0 += earlier.weight(row);
            }
        }
    }
    for (key, (weight, row)) in &net {
        let _ = key;
        // Without an insert nothing can be there twice.
        let stored = match weight {
            i64::MIN..=0 => continue,
            _ => table.count_key(&columns, *row, keys.hash(*row), pin.epoch),
        };
        if stored + weight > 1 {
            return Err(duplicate_key(relation, delta, *row));
        }
    }
    Ok(())
}

fn duplicate_key(relation: &Relation, delta: &DeltaBatch, row: usize) -> Error {
    let names: Vec<&str> =
        relation.key.iter().map(|c| relation.schema.field(*c).name().as_str()).collect();
    let values: Vec<String> = relation
        .key
        .iter()
        .map(|c| display_value(delta.rows().column(*c), row).unwrap_or_default())
        .collect();
    Error::user(
        sqlstate::UNIQUE_VIOLATION,
        format!("duplicate key value violates unique constraint \"{}_pkey\"", relation.name),
    )
    .with_detail(format!("Key ({})=({}) already exists.", names.join(", "), values.join(", ")))
}
