//! Reads by key on the thread that serves the session: from the bound statement to the index, past
//! the optimiser, the planner of DataFusion and the threads of queries.
//!
//! Whatever is not plain here (own writes of a transaction, an index that is being filled, many
//! rows, an error) takes the way of all reads, which says what is wrong in the same words as ever.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::ScalarValue;

use super::dml::snapshot;
use super::outcome::{Outcome, Prepared, Rows};
use super::point_read::{best_way, product};
use super::provider::expand;
use super::session::Session;
use crate::catalog::RelationId;
use crate::config::{LOOKUP_BYTES_MAX, LOOKUP_ROWS_MAX};
use crate::delta::DeltaBatch;
use crate::error::Result;
use crate::runtime::Pin;
use crate::sql::{self, Given, Lookup, Wanted};
use crate::state::Found;

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
        let pin = self.read_point();
        let Some(rows) = self.look_up_rows(lookup, values, &pin)? else { return Ok(None) };
        self.note_incomplete(bound.depends_on(), &pin);
        let batches = if rows.num_rows() == 0 { Vec::new() } else { vec![rows] };
        let rows = Rows::ready(Arc::clone(lookup.fields()), batches);
        Ok(Some(Outcome::Rows(Rows { notices: self.take_notices(), ..rows })))
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
}

impl Used {
    fn finish(&self, lookup: &Lookup, rows: RecordBatch, given: Given<'_>) -> Result<RecordBatch> {
        let used: Vec<&Wanted> = self.by.iter().map(|at| &self.wanted[*at]).collect();
        lookup.finish(rows, &used, given)
    }
}

/// The rows of a relation with the values that a look-up wants, and the demands that led to them.
fn find(lookup: &Lookup, given: Given<'_>, pin: &Arc<Pin>) -> Result<Option<(DeltaBatch, Used)>> {
    let relation = lookup.relation();
    let Some(wanted) = lookup.wanted(given) else { return Ok(None) };
    // What can't be read is told by the way of all reads.
    let Ok(snapshot) = snapshot(pin, relation.id) else { return Ok(None) };
    let spec = snapshot.table.spec();
    // Of several demands on a column, the one with the fewest values.
    let of = |column: usize| {
        let demands = wanted.iter().enumerate().filter(|(_, w)| w.column == column);
        demands.min_by_key(|(_, w)| w.values.len()).map(|(at, _)| at)
    };
    let count = |column: usize| of(column).map(|at| wanted[at].values.len());
    let Some(way) = best_way(relation.id, &spec.key, &pin.catalog, count) else {
        return Ok(None);
    };
    let by: Vec<usize> = way.columns.iter().filter_map(|c| of(*c)).collect();
    let lists: Vec<&[ScalarValue]> = by.iter().map(|at| wanted[*at].values.as_slice()).collect();
    let values = product(&lists, way.columns, &spec.schema)?;
    let limits = (LOOKUP_ROWS_MAX, LOOKUP_BYTES_MAX);
    let found = snapshot.table.find_within(way.columns, &values, snapshot.epoch, limits)?;
    pin.check()?;
    let Found::Rows(rows) = found else { return Ok(None) };
    // Of rows with weights there are more than meet the eye.
    let few = rows.is_insert_only() && !(lookup.is_single() && rows.len() > 1);
    Ok(few.then_some((rows, Used { wanted, by })))
}

#[cfg(test)]
mod tests;
