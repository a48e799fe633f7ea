//! INSERT, UPDATE, DELETE: the rows that a statement makes, checked against the table, and their
//! commit.
//!
//! A statement that reads in order to write (UPDATE, DELETE, the check of a primary key) holds its
//! table's write ticket from its snapshot to the epoch that makes it visible, so what it has read
//! is still true when it writes. Rows of tables without a key need no ticket: such writes of many
//! sessions share an epoch. In a transaction block rows are collected instead.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef};
use hashbrown::HashSet;

use super::heavy::heavy;
use super::outcome::{Outcome, Rows};
use super::provider::{Snapshot, overlaid, rows_provider};
use super::session::Session;
use super::unique::check_keys;
use crate::catalog::access::Privilege;
use crate::catalog::{Catalog, Relation, RelationId, RelationKind, system};
use crate::delta::{DeltaBatch, Order, batch_of, concat, consolidate};
use crate::error::{Error, Result, sqlstate};
use crate::runtime::{Parts, Pin, RelationState, RelationStatus, WriteTicket};
use crate::sql::memory::memory_is_full;
use crate::sql::statement;
use crate::sql::{
    Bound, BoundConflict, BoundDelete, BoundInsert, BoundUpdate, InsertRows, Reading, bind_delete,
    bind_insert, bind_update, conform,
};

impl Session {
    pub(super) async fn insert(&mut self, insert: &statement::Insert) -> Result<Outcome> {
        let catalog = self.engine.core.shared.catalog();
        let bound = bind_insert(insert, &catalog, &self.settings())?;
        self.run_insert(bound).await
    }

    pub(super) async fn update(&mut self, update: &statement::Update) -> Result<Outcome> {
        let catalog = self.engine.core.shared.catalog();
        let bound = bind_update(update, &catalog, &self.settings())?;
        self.run_update(bound).await
    }

    pub(super) async fn delete(&mut self, delete: &statement::Delete) -> Result<Outcome> {
        let catalog = self.engine.core.shared.catalog();
        let bound = bind_delete(delete, &catalog, &self.settings())?;
        self.run_delete(bound).await
    }

    pub(super) async fn run_insert(&mut self, bound: BoundInsert) -> Result<Outcome> {
        let relation = bound.relation;
        self.check_may(relation.id, Privilege::Insert)?;
        if matches!(bound.conflict, BoundConflict::Update { .. }) {
            self.check_may(relation.id, Privilege::Update)?;
            self.check_may(relation.id, Privilege::Select)?;
        }
        if bound.returning.is_some() {
            self.check_may(relation.id, Privilege::Select)?;
        }
        check_writable(&relation, "insert into")?;
        let keyed = !relation.key.is_empty();
        let ticket = self.ticket(relation.id, keyed).await?;
        let pin = self.read_point();
        let rows = match bound.rows {
            InsertRows::Values(rows) => rows,
            InsertRows::Query(query) => {
                let batches = self.collect(&query, &pin).await?;
                one_batch(&query, &batches)?
            }
        };
        let settings = self.settings();
        let rows = heavy(rows.num_rows(), || conform(&relation, &rows, &settings))?;
        let insert = self.resolve(&relation, rows, &bound.conflict, &pin).await?;
        let returned = self.returned(bound.returning, vec![insert.new.clone()], &pin).await?;
        self.write(&relation, insert.delta, (pin, ticket), keyed).await?;
        Ok(self.changed(&format!("INSERT 0 {}", insert.new.num_rows()), returned))
    }

    pub(super) async fn run_delete(&mut self, bound: BoundDelete) -> Result<Outcome> {
        let relation = bound.relation;
        self.check_may(relation.id, Privilege::Delete)?;
        self.check_may(relation.id, Privilege::Select)?;
        check_writable(&relation, "delete from")?;
        let ticket = self.ticket(relation.id, true).await?;
        let pin = self.read_point();
        let rows = self.found(&relation, &bound.rows, bound.joined, &pin).await?;
        let width = relation.schema.fields().len();
        let old = columns_as(&relation.schema, &rows, 0)?;
        let seen = vec![old.clone(), tail(&rows, width)?];
        let returned = self.returned(bound.returning, seen, &pin).await?;
        let count = old.num_rows();
        self.write(&relation, DeltaBatch::retractions(old), (pin, ticket), true).await?;
        Ok(self.changed(&format!("DELETE {count}"), returned))
    }

    pub(super) async fn run_update(&mut self, bound: BoundUpdate) -> Result<Outcome> {
        let relation = bound.relation;
        self.check_may(relation.id, Privilege::Update)?;
        self.check_may(relation.id, Privilege::Select)?;
        check_writable(&relation, "update")?;
        let ticket = self.ticket(relation.id, true).await?;
        let pin = self.read_point();
        let rows = self.found(&relation, &bound.rows, bound.joined, &pin).await?;
        let width = relation.schema.fields().len();
        let old = columns_as(&relation.schema, &rows, 0)?;
        let new: Vec<usize> = (width..width * 2).collect();
        let new = rows.project(&new)?;
        let settings = self.settings();
        let new = heavy(new.num_rows(), || conform(&relation, &new, &settings))?;
        let seen = vec![new.clone(), tail(&rows, width * 2)?];
        let returned = self.returned(bound.returning, seen, &pin).await?;
        let count = old.num_rows();
        let both = concat(&[DeltaBatch::retractions(old), DeltaBatch::inserts(new)])?;
        let both = both.unwrap_or_else(|| empty(&relation));
        let changes = heavy(both.len(), || consolidate(&both, Order::Input))?;
        self.write(&relation, changes, (pin, ticket), true).await?;
        Ok(self.changed(&format!("UPDATE {count}"), returned))
    }

    pub(super) async fn truncate(&mut self, names: &[String], restart: bool) -> Result<Outcome> {
        let catalog = self.engine.core.shared.catalog();
        let tables = names.iter().map(|name| truncate_target(&catalog, name));
        let mut tables = tables.collect::<Result<Vec<_>>>()?;
        // In order of their ids, so that two statements never wait for each other.
        tables.sort_by_key(|relation| relation.id);
        tables.dedup_by_key(|relation| relation.id);
        let mut tickets = Vec::new();
        for relation in &tables {
            tickets.extend(self.ticket(relation.id, true).await?);
        }
        let pin = self.read_point();
        let mut writes = Vec::new();
        for relation in &tables {
            let mut rows = snapshot(&pin, relation.id)?.deltas().collect::<Result<Vec<_>>>()?;
            rows.extend_from_slice(self.own_writes(relation.id));
            let rows = concat(&rows)?.unwrap_or_else(|| empty(relation));
            let rows = consolidate(&rows, Order::Input)?;
            if !rows.is_empty() {
                writes.push((relation.id, rows.negate()));
            }
        }
        match &mut self.transaction {
            Some(transaction) => {
                for (id, delta) in writes {
                    transaction.add(id, delta)?;
                    transaction.read.insert(id);
                }
            }
            None if writes.is_empty() => {}
            None => {
                drop(pin);
                self.hand_over(writes, tickets).await?;
            }
        }
        if restart {
            self.restart_sequences(&tables)?;
        }
        Ok(self.done("TRUNCATE TABLE"))
    }

    /// The rows that an UPDATE or DELETE has found, each row of the table once.
    async fn found(
        &self,
        relation: &Relation,
        reading: &Reading,
        joined: bool,
        pin: &Arc<Pin>,
    ) -> Result<RecordBatch> {
        if !joined
            && let Some((lookup, values)) = reading.lookup()
            && self.check_reads(reading.reads()).is_ok()
            && let Some(rows) = self.look_up_rows(lookup, values, pin)?
        {
            return Ok(rows);
        }
        let query = &reading.bind(&self.settings())?;
        if !joined {
            return one_batch(query, &self.collect(query, pin).await?);
        }
        let numbered = (RelationId::TARGET, self.numbered(relation, pin)?);
        let cancel = self.cancel.current().child();
        let batches = self.execute_over(query, pin, &[numbered], cancel).await?.collect().await?;
        let rows = one_batch(query, &batches)?;
        let numbers = rows.column(0).as_primitive::<Int64Type>();
        let mut seen = HashSet::new();
        let first: BooleanArray =
            (0..rows.num_rows()).map(|r| Some(seen.insert(numbers.value(r)))).collect();
        let rows = arrow::compute::filter_record_batch(&rows, &first)?;
        tail(&rows, 1)
    }

    /// All rows of a table with a number in front.
    pub(super) fn numbered(&self, relation: &Relation, pin: &Arc<Pin>) -> Result<RecordBatch> {
        let rows = overlaid(&snapshot(pin, relation.id)?, self.own_writes(relation.id))?;
        let rows = arrow::compute::concat_batches(&relaxed(&relation.schema), &rows)?;
        let numbers = Int64Array::from_iter_values(0..rows.num_rows() as i64);
        let mut columns: Vec<ArrayRef> = vec![Arc::new(numbers)];
        columns.extend(rows.columns().iter().cloned());
        in_hand(&columns, rows.num_rows())
    }

    /// Evaluates RETURNING over rows, given as batches side by side.
    pub(super) async fn returned(
        &self,
        query: Option<Bound>,
        seen: Vec<RecordBatch>,
        pin: &Arc<Pin>,
    ) -> Result<Option<Rows>> {
        let Some(query) = query else { return Ok(None) };
        let rows = seen.first().map_or(0, RecordBatch::num_rows);
        let columns: Vec<ArrayRef> =
            seen.iter().flat_map(|b| b.columns().iter().cloned()).collect();
        let batches = self.collect_over(&query, pin, in_hand(&columns, rows)?).await?;
        let named =
            |b: &RecordBatch| RecordBatch::try_new(query.fields.clone(), b.columns().to_vec());
        let batches = batches.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Rows::ready(query.fields, batches)))
    }

    /// Runs a query over rows in hand.
    pub(super) async fn collect_over(
        &self,
        query: &Bound,
        pin: &Arc<Pin>,
        rows: RecordBatch,
    ) -> Result<Vec<RecordBatch>> {
        let cancel = self.cancel.current().child();
        let at_hand = [(RelationId::ROWS, rows)];
        self.execute_over(query, pin, &at_hand, cancel).await?.collect().await
    }

    pub(super) fn changed(&mut self, tag: &str, returned: Option<Rows>) -> Outcome {
        match returned {
            None => self.done(tag),
            Some(rows) => Outcome::Rows(Rows { notices: self.take_notices(), ..rows }),
        }
    }

    /// Takes a table's write ticket, unless a transaction block takes it at its COMMIT.
    pub(super) async fn ticket(
        &self,
        table: RelationId,
        needed: bool,
    ) -> Result<Option<WriteTicket>> {
        if !needed || self.transaction.is_some() {
            return Ok(None);
        }
        let lock = self.engine.core.shared.ticket(table).lock_owned();
        Ok(Some(self.turn(lock).await?))
    }

    /// What a statement reads: the transaction's epoch, or the published one.
    pub(super) fn read_point(&self) -> Arc<Pin> {
        match &self.transaction {
            Some(transaction) => transaction.pin.clone(),
            None => Arc::new(self.engine.core.shared.pin()),
        }
    }

    /// Checks a change of a table and makes it visible, or adds it to the transaction.
    pub(super) async fn write(
        &mut self,
        relation: &Arc<Relation>,
        delta: DeltaBatch,
        held: (Arc<Pin>, Option<WriteTicket>),
        reads: bool,
    ) -> Result<()> {
        self.write_all(relation, vec![delta], held, reads).await
    }

    /// The same for a change in several batches, which become visible together.
    pub(super) async fn write_all(
        &mut self,
        relation: &Arc<Relation>,
        mut deltas: Vec<DeltaBatch>,
        held: (Arc<Pin>, Option<WriteTicket>),
        reads: bool,
    ) -> Result<()> {
        let (pin, ticket) = held;
        deltas.retain(|delta| !delta.is_empty());
        if deltas.is_empty() {
            return Ok(());
        }
        if !relation.key.is_empty() {
            let state = state_of(&pin, relation.id, &relation.name)?;
            let own = self.own_writes(relation.id);
            let rows = deltas.iter().map(DeltaBatch::len).sum();
            heavy(rows, || check_keys(relation, state, &pin, own, &deltas))?;
        }
        match &mut self.transaction {
            Some(transaction) => {
                for delta in deltas {
                    transaction.add(relation.id, delta)?;
                }
                if reads {
                    transaction.read.insert(relation.id);
                }
            }
            None => {
                drop(pin);
                let writes = deltas.into_iter().map(|delta| (relation.id, delta)).collect();
                self.hand_over(writes, ticket.into_iter().collect()).await?;
            }
        }
        Ok(())
    }

    /// Hands writes to the sequencer and waits until they are visible: the commit point.
    pub(super) async fn hand_over(
        &self,
        writes: Vec<(RelationId, DeltaBatch)>,
        tickets: Vec<WriteTicket>,
    ) -> Result<()> {
        let written = |id: &RelationId| writes.iter().any(|(written, _)| written == id);
        let core = &self.engine.core;
        let added = || writes.iter().map(|(_, rows)| rows.net_weight()).sum::<i64>();
        if core.memory.is_full() && added() > 0 && !core.memory.wait_for_room().await {
            return Err(memory_is_full("no rows can be added", &core.memory));
        }
        core.shared.wait_for_room(written).await;
        let rows = writes.iter().map(|(_, rows)| rows.len()).sum();
        let parts = heavy(rows, || Parts::of_writes(&core.shared, &writes))?;
        self.commit_point.pass();
        core.coordinator.commit(writes, parts, tickets).await.map(drop)
    }

    pub(super) fn own_writes(&self, id: RelationId) -> &[DeltaBatch] {
        let transaction = self.transaction.as_ref();
        transaction.and_then(|t| t.writes.get(&id)).map_or(&[], Vec::as_slice)
    }

    /// Runs a plan to its end.
    pub(super) async fn collect(&self, bound: &Bound, pin: &Arc<Pin>) -> Result<Vec<RecordBatch>> {
        let cancel = self.cancel.current().child();
        self.execute_plan(bound, pin, cancel).await?.collect().await
    }

    /// A relation's rows at a pinned epoch, with the transaction's own writes over them.
    pub(super) fn provider(
        &self,
        pin: &Arc<Pin>,
        id: RelationId,
    ) -> Result<Arc<dyn datafusion::catalog::TableProvider>> {
        if let Some(known) = system::by_id(id) {
            let session = &self.settings().session;
            let facts = system::Facts {
                catalog: &pin.catalog,
                database: &session.database,
                settings: &|| session.settings.lines(),
                standing: &|r| session.sequences.as_ref().and_then(|all| all.standing(r)),
                past: self.engine.core.history.as_ref(),
            };
            let rows = known.table.read(&facts)?;
            return rows_provider(rows.schema(), vec![rows]);
        }
        let snapshot = snapshot(pin, id)?;
        let own = self.own_writes(id);
        if own.is_empty() {
            return snapshot.provider();
        }
        let rows = overlaid(&snapshot, own)?;
        rows_provider(snapshot.table.spec().schema.clone(), rows)
    }
}

pub(super) fn empty(relation: &Relation) -> DeltaBatch {
    DeltaBatch::empty(relation.schema.clone())
}

/// The table that TRUNCATE empties.
fn truncate_target(catalog: &Catalog, name: &str) -> Result<Arc<Relation>> {
    let relation = catalog.get(name)?;
    let refuse = |what: String| Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, what));
    match relation.kind {
        RelationKind::Table { append_only: true } => {
            refuse(format!("cannot truncate append-only table \"{name}\""))
        }
        RelationKind::Table { .. } => {
            check_writable(relation, "truncate")?;
            Ok(relation.clone())
        }
        _ => refuse(format!("\"{name}\" is not a table")),
    }
}

/// The columns of a table in rows that have them from `first` on.
pub(super) fn columns_as(
    schema: &SchemaRef,
    rows: &RecordBatch,
    first: usize,
) -> Result<RecordBatch> {
    let columns = rows.columns()[first..first + schema.fields().len()].to_vec();
    batch_of(schema.clone(), columns, rows.num_rows())
}

/// The columns from one on.
pub(super) fn tail(rows: &RecordBatch, first: usize) -> Result<RecordBatch> {
    let columns: Vec<usize> = (first..rows.num_columns()).collect();
    Ok(rows.project(&columns)?)
}

/// Columns as rows in hand are named.
pub(super) fn in_hand(columns: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
    let fields = columns.iter().enumerate();
    let fields = fields.map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    batch_of(schema, columns.to_vec(), rows)
}

fn relaxed(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

pub(super) fn one_batch(bound: &Bound, batches: &[RecordBatch]) -> Result<RecordBatch> {
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
    // Bound before the epoch that is read, and dropped since, or made after a transaction's epoch.
    let relation = pin.catalog.by_id(id).ok_or_else(|| {
        Error::user(sqlstate::UNDEFINED_TABLE, "a relation of the query does not exist")
    })?;
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
        RelationStatus::Running if state.since() > pin.epoch => {
            return Err(Error::user(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{} \"{name}\" is younger than the transaction", relation.kind.noun()),
            )
            .with_hint("COMMIT; and read it in a new transaction."));
        }
        RelationStatus::Running => pin.epoch_of(id),
        RelationStatus::Building => {
            return Err(Error::user(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{} \"{name}\" is still being built", relation.kind.noun()),
            )
            .with_hint("SHOW MATERIALIZED VIEWS; shows when it is ready."));
        }
        RelationStatus::Quarantined(epoch, _) | RelationStatus::Rebuilding(epoch, _) => {
            epoch.min(pin.epoch_of(id))
        }
    };
    Ok(Snapshot { table, epoch, pin: pin.clone() })
}

/// Sources, views and connector tables take no writes.
pub(super) fn check_writable(relation: &Relation, verb: &str) -> Result<()> {
    let name = &relation.name;
    if relation.connector.is_some() && matches!(relation.kind, RelationKind::Table { .. }) {
        return Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("cannot {verb} table \"{name}\": its rows come from a connector"),
        )
        .with_hint(
            "Write to the topic or file that it reads; CREATE SINK s AS SELECT .. WITH \
             (connector = 'kafka', ..) writes the rows of a query, and goes on.",
        ));
    }
    Ok(())
}
