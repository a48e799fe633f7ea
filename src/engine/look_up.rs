//! Reads by key on the thread that serves the session: from the bound statement to the index, past
//! the optimiser, the planner of DataFusion and the threads of queries.
//!
//! Whatever is not plain here (own writes of a transaction, an index that is being filled, many
//! rows, an error) takes the way of all reads, which says what is wrong in the same words as ever.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use datafusion::common::ScalarValue;

use super::dml::snapshot;
use super::early::Early;
use super::heavy::heavy;
use super::outcome::{Outcome, Prepared, Rows};
use super::point_read::{best_way, product};
use super::provider::expand;
use super::session::Session;
use crate::catalog::{Catalog, RelationId};
use crate::config::{LOOKUP_BYTES_MAX, LOOKUP_ROWS_MAX};
use crate::delta::DeltaBatch;
use crate::error::Result;
use crate::runtime::Pin;
use crate::sql::{self, Given, Lookup, Wanted};
use crate::state::{Found, ResultSpec};

impl Session {
    /// Executes a prepared statement if it is a read by key; `None` when it has not been run.
    pub(super) fn execute_at_once(
        &mut self,
        prepared: &Prepared,
        values: &[ScalarValue],
    ) -> Result<Option<Outcome>> {
        let (Some(statement), Some((bound, catalog))) = (&prepared.statement, &prepared.bound)
        else {
            return Ok(None);
        };
        let current =
            self.engine.core.shared.is_catalog(catalog) && prepared.style == self.text_style();
        // A cursor is read later.
        let query = matches!(statement.statement, sql::statement::Statement::Query(_));
        if bound.lookup().is_none() || !current || !query {
            return Ok(None);
        }
        self.check_modes(&statement.statement)?;
        self.look_up_bound(bound, &bound.fit(values)?)
    }

    /// Reads by key, if a bound query does that and it can be done at once.
    pub(super) fn look_up_bound(
        &mut self,
        bound: &sql::Prepared,
        values: &[ScalarValue],
    ) -> Result<Option<Outcome>> {
        let Some(lookup) = bound.lookup() else { return Ok(None) };
        self.check_reads(bound.reads())?;
        if let Some(early) = self.early() {
            let rows = early.map(|early| self.look_up_early(lookup, values, &early));
            return Ok(rows.transpose()?.flatten().map(|rows| found(lookup, rows)));
        }
        let pin = self.read_point();
        let Some(rows) = self.look_up_rows(lookup, values, &pin)? else { return Ok(None) };
        self.note_incomplete(bound.depends_on(), &pin);
        let Outcome::Rows(rows) = found(lookup, rows) else { return Ok(None) };
        Ok(Some(Outcome::Rows(Rows { notices: self.take_notices(), ..rows })))
    }

    /// The same while an earlier life is begun again: from its checkpoint, where that is exact.
    fn look_up_early(
        &self,
        lookup: &Lookup,
        values: &[ScalarValue],
        early: &Early,
    ) -> Result<Option<RecordBatch>> {
        if !self.optimizes() || self.transaction.is_some() {
            return Ok(None);
        }
        let given = Given { values, now: self.now() };
        let relation = lookup.relation().id;
        let Some(spec) = early.spec(relation) else { return Ok(None) };
        let catalog = self.engine.core.shared.catalog();
        let Some((key, used)) = chosen(lookup, given, spec, &catalog)? else { return Ok(None) };
        self.cancel.current().check()?;
        if used.columns != spec.key {
            return Ok(None);
        }
        // What can't be read here ends the start, which says so. The disk may be slow.
        let many = key.first().map_or(0, |values| values.len()).saturating_mul(1_000);
        let found = heavy(many, || early.find(relation, &key));
        let Ok(Some(rows)) = found else { return Ok(None) };
        let few = !(lookup.is_single() && rows.len() > 1);
        let rows = few.then(|| expand(&rows).and_then(|rows| used.finish(lookup, rows, given)));
        Ok(rows.and_then(Result::ok))
    }

    /// The result of a read by key at a pinned epoch, if it can be had at once.
    pub(super) fn look_up_rows(
        &self,
        lookup: &Lookup,
        values: &[ScalarValue],
        pin: &Arc<Pin>,
    ) -> Result<Option<RecordBatch>> {
        if !self.optimizes() || !self.is_unwritten(lookup.relation().id) {
            return Ok(None);
        }
        let given = Given { values, now: self.now() };
        let Some((rows, used)) = find(lookup, given, pin)? else { return Ok(None) };
        self.cancel.current().check()?;
        // What fails here fails there with the words and in the order of that way.
        Ok(expand(&rows).and_then(|rows| used.finish(lookup, rows, given)).ok())
    }

    /// Whether what is published of a relation is what the session sees.
    fn is_unwritten(&self, relation: RelationId) -> bool {
        match &self.transaction {
            None => true,
            Some(transaction) if transaction.implicit => transaction.writes.is_empty(),
            Some(transaction) => !transaction.writes.contains_key(&relation),
        }
    }
}

/// The demands that a look-up has gone by.
struct Used {
    wanted: Vec<Wanted>,
    /// Those of them that the values came from.
    by: Vec<usize>,
    /// The columns.
    columns: Vec<usize>,
}

impl Used {
    fn finish(&self, lookup: &Lookup, rows: RecordBatch, given: Given<'_>) -> Result<RecordBatch> {
        let used: Vec<&Wanted> = self.by.iter().map(|at| &self.wanted[*at]).collect();
        lookup.finish(rows, &used, given)
    }
}

/// What a look-up says.
fn found(lookup: &Lookup, rows: RecordBatch) -> Outcome {
    let batches = if rows.num_rows() == 0 { Vec::new() } else { vec![rows] };
    Outcome::Rows(Rows::ready(Arc::clone(lookup.fields()), batches))
}

/// The rows of a relation with the values that a look-up wants, and the demands that led to them.
fn find(lookup: &Lookup, given: Given<'_>, pin: &Arc<Pin>) -> Result<Option<(DeltaBatch, Used)>> {
    let relation = lookup.relation();
    // What can't be read is told by the way of all reads.
    let Ok(snapshot) = snapshot(pin, relation.id) else { return Ok(None) };
    let Some((values, used)) = chosen(lookup, given, snapshot.table.spec(), &pin.catalog)? else {
        return Ok(None);
    };
    let limits = (LOOKUP_ROWS_MAX, LOOKUP_BYTES_MAX);
    let found = snapshot.table.find_within(&used.columns, &values, snapshot.epoch, limits)?;
    pin.check()?;
    let Found::Rows(rows) = found else { return Ok(None) };
    // Of rows with weights there are more than meet the eye.
    let few = rows.is_insert_only() && !(lookup.is_single() && rows.len() > 1);
    Ok(few.then_some((rows, used)))
}

/// The values to look for, an array per column, and the demands that they come from.
fn chosen(
    lookup: &Lookup,
    given: Given<'_>,
    spec: &ResultSpec,
    catalog: &Catalog,
) -> Result<Option<(Vec<ArrayRef>, Used)>> {
    let Some(wanted) = lookup.wanted(given) else { return Ok(None) };
    // Of several demands on a column, the one with the fewest values.
    let of = |column: usize| {
        let demands = wanted.iter().enumerate().filter(|(_, w)| w.column == column);
        demands.min_by_key(|(_, w)| w.values.len()).map(|(at, _)| at)
    };
    let count = |column: usize| of(column).map(|at| wanted[at].values.len());
    let relation = lookup.relation().id;
    let Some(way) = best_way(relation, &spec.key, catalog, count) else { return Ok(None) };
    let by: Vec<usize> = way.columns.iter().filter_map(|c| of(*c)).collect();
    let lists: Vec<&[ScalarValue]> = by.iter().map(|at| wanted[*at].values.as_slice()).collect();
    let values = product(&lists, way.columns, &spec.schema)?;
    let columns = way.columns.to_vec();
    Ok(Some((values, Used { wanted, by, columns })))
}

#[cfg(test)]
mod tests;
