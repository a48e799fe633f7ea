//! Sides that a join does not keep: rows of a relation are read where they are stored, by its key
//! or by an index that all who join by the same columns share.
//!
//! What is stored has versions, so it is read as of the epoch before the step that runs
//! ([`Context::before`]): whatever has been written since, in this epoch or in one behind it that
//! has begun already, is not seen. What the epoch itself has brought for the side came through its
//! port and is kept until the epoch ends ([`Fresh`]). Both together are the side as the join has
//! it: everything of earlier epochs, and of this one everything so far.
//!
//! While a view is built, slices of its inputs as of one epoch come in one after the other, and
//! what is stored is read as of that epoch, so as a whole. There the rows of the other side find
//! all pairs; where both sides are stored, those of the left do.
//!
//! Only what is not preserved is read so: what a preserved side has come out with depends on which
//! of its rows have been fed.

use std::sync::{Arc, RwLockReadGuard};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;

use super::kernel::{Join, OUTPUT_ROWS, Pending};
use super::{Closes, JoinSpec, Side};
use crate::delta::{DeltaBatch, Keys, batch_of, concat};
use crate::error::{Error, Result};
use crate::operator::{Context, MapStep, StoredRead};
use crate::state::{
    Arrangement, ArrangementSpec, Cursor, IndexLease, Probe, Probing, ResultShard, ResultTable,
    When,
};
use crate::time::Epoch;

/// Where rows of a side are stored, and what becomes of them on their way to the join.
#[derive(Debug, Clone)]
pub struct StoredSide {
    /// The columns of the relation by which they are found: those that become the key.
    pub key: Vec<usize>,
    /// The columns of the relation that are read.
    pub columns: Vec<usize>,
    /// The same as rows.
    pub schema: SchemaRef,
    /// What becomes of them: filters and projections.
    pub steps: Vec<MapStep>,
    /// What can match on a worker is stored there; else it is anywhere.
    pub here: bool,
    /// They are found by the relation's own key.
    pub own_key: bool,
    /// The index, once it is known where the relation is stored.
    index: Option<Arc<IndexLease>>,
}

impl StoredSide {
    /// Some columns of a relation that are found by others.
    pub fn new(
        (key, own_key): (Vec<usize>, bool),
        (columns, schema): (Vec<usize>, SchemaRef),
        steps: Vec<MapStep>,
        here: bool,
    ) -> Self {
        Self { key, columns, schema, steps, here, own_key, index: None }
    }

    fn index(&self) -> Result<&IndexLease> {
        let index = self.index.as_deref();
        index.ok_or_else(|| Error::internal("a join does not know where its rows are stored"))
    }

    /// The next rows that match, as of the epoch before the step.
    fn read(
        &self,
        probing: Probing<'_>,
        before: Epoch,
        (worker, place): (usize, StoredPlace),
    ) -> Result<(Found, Option<StoredPlace>)> {
        let index = self.index()?;
        let shards = if self.here { worker..worker + 1 } else { 0..index.table().shards() };
        let shard = shards.start + place.shard;
        let (found, at) = within_bytes(|limit| {
            let mut probe = Probe::default();
            let rows = self.resident(index, shard, probing, place.at)?;
            let at = rows.probe(index.columns(), probing, before, (place.at, limit), &mut probe)?;
            let columns = rows.gather_columns(&self.columns, &probe.slots)?;
            drop(rows);
            Ok((self.through_steps(probe, columns)?, at))
        })?;
        let next = match at.position == probing.selection.len() {
            true => StoredPlace { shard: place.shard + 1, at: Cursor::START },
            false => StoredPlace { at, ..place },
        };
        Ok((found, Some(next).filter(|next| shards.start + next.shard < shards.end)))
    }

    /// A shard with the rows in memory that may match from a place on.
    fn resident<'a>(
        &self,
        index: &'a IndexLease,
        shard: usize,
        probing: Probing<'_>,
        from: Cursor,
    ) -> Result<RwLockReadGuard<'a, ResultShard>> {
        let rest = &probing.selection[from.position.min(probing.selection.len())..];
        let hashes = || rest.iter().map(|row| probing.keys.hash(*row as usize)).collect();
        match self.own_key {
            true => index.table().read_keys(shard, hashes),
            // An index by other columns keeps all rows in memory.
            false => Ok(index.table().read(shard)),
        }
    }

    /// What the steps make of rows that were found. A row that fails in one of them was reported
    /// when it came, and is not there.
    fn through_steps(&self, probe: Probe, columns: Vec<ArrayRef>) -> Result<Found> {
        let count = probe.slots.len();
        let rows = batch_of(Arc::clone(&self.schema), columns, count)?;
        if self.steps.is_empty() || count == 0 {
            return Ok(Found::of(probe, rows));
        }
        // In place of weights the rows have their numbers.
        let numbered = DeltaBatch::new(rows, Int64Array::from_iter_values(1..=count as i64));
        let mut done = Vec::new();
        self.steps_from(0, numbered, &mut done)?;
        let Some(rows) = concat(&done)? else { return Ok(Found::default()) };
        let mut kept = Probe::default();
        for row in 0..rows.len() {
            let at = rows.weight(row) as usize - 1;
            kept.rows.push(probe.rows[at]);
            kept.weights.extend(probe.weights.get(at));
        }
        Ok(Found::of(kept, rows.into_parts().0))
    }

    fn steps_from(
        &self,
        from: usize,
        mut rows: DeltaBatch,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<()> {
        for (at, step) in self.steps.iter().enumerate().skip(from) {
            let mut errors = Vec::new();
            let next = match step {
                MapStep::Filter(predicate) => Some(predicate.filter(&rows, &mut errors)?),
                MapStep::Project { projection, .. } => projection.project(&rows, &mut errors)?,
                MapStep::Explode(_) | MapStep::Unnest(_) => {
                    return Err(Error::internal("a join reads through a step that repeats rows"));
                }
            };
            let Some(next) = next else {
                let half = rows.len() / 2;
                self.steps_from(at, rows.slice(0, half), out)?;
                return self.steps_from(at, rows.slice(half, rows.len() - half), out);
            };
            if next.is_empty() {
                return Ok(());
            }
            rows = next;
        }
        out.push(rows);
        Ok(())
    }
}

/// Where looking for rows that are stored goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredPlace {
    /// The shard, counted from the first one that is looked at.
    shard: usize,
    at: Cursor,
}

impl StoredPlace {
    pub(super) const START: Self = Self { shard: 0, at: Cursor::START };
}

/// Matches, with the rows of the other side where these have been read already: then the slots are
/// places in them.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) probe: Probe,
    pub(super) rows: Option<RecordBatch>,
}

impl Found {
    fn of(mut probe: Probe, rows: RecordBatch) -> Self {
        probe.slots = (0..rows.num_rows() as u32).collect();
        Self { probe, rows: Some(rows) }
    }
}

/// Finds as much as fits into one batch: less of it where texts are long.
fn within_bytes<T>(mut find: impl FnMut(usize) -> Result<T>) -> Result<T> {
    let mut limit = OUTPUT_ROWS;
    loop {
        match find(limit) {
            Err(error) if error.is_too_many_bytes() && limit > 1 => limit /= 2,
            found => return found,
        }
    }
}

/// What an epoch has brought for a side that is stored elsewhere. An index of it is made when the
/// first row of the other side asks.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    waiting: Vec<(DeltaBatch, Arc<Keys>, Vec<u32>)>,
    rows: Option<Box<Arrangement>>,
}

impl Fresh {
    pub(super) fn add(&mut self, from: &Pending) {
        let rows = (from.delta.clone(), Arc::clone(&from.keys), from.selection.clone());
        self.waiting.push(rows);
    }

    pub(super) fn clear(&mut self) {
        (self.waiting, self.rows) = (Vec::new(), None);
    }

    fn rows(&mut self, spec: impl FnOnce() -> ArrangementSpec) -> Result<Option<&Arrangement>> {
        if self.waiting.is_empty() && self.rows.is_none() {
            return Ok(None);
        }
        let rows = self.rows.get_or_insert_with(|| Box::new(Arrangement::of_epoch(spec())));
        for (delta, keys, selection) in self.waiting.drain(..) {
            rows.update(&delta, &keys, &selection)?;
        }
        Ok(Some(rows))
    }
}

impl JoinSpec {
    /// Whether rows of a side can be read where they are stored.
    pub fn can_read_stored(&self, side: Side) -> bool {
        self.arranges(side)
            && !self.kind.preserves(side)
            && self.closes == Closes::Never
            && !self.input(side).key.is_empty()
    }

    /// Says where rows of sides are stored, as far as it can read them there.
    #[must_use]
    pub fn reading(self, stored: [Option<StoredSide>; 2]) -> Self {
        let [left, right] = stored;
        let left = left.filter(|_| self.can_read_stored(Side::Left));
        let right = right.filter(|_| self.can_read_stored(Side::Right));
        Self { stored: [left, right], ..self }
    }

    /// The sides that are read where they are stored.
    pub(super) fn reads(&self) -> Vec<StoredRead> {
        let ports = self.stored.iter().enumerate();
        let reads = ports.filter_map(|(port, stored)| {
            let StoredSide { key, own_key, here, .. } = stored.as_ref()?;
            Some(StoredRead { port, key: key.clone(), own_key: *own_key, wide: !here })
        });
        reads.collect()
    }

    /// The same join over the tables where its sides are stored.
    pub(super) fn over(&self, table: &dyn Fn(usize) -> Option<Arc<ResultTable>>) -> Result<Self> {
        let mut bound = self.clone();
        for (port, stored) in bound.stored.iter_mut().enumerate() {
            let Some(stored) = stored else { continue };
            let table = table(port);
            let table = table.ok_or_else(|| Error::internal("a side of a join is not stored"))?;
            stored.index = Some(Arc::new(table.lease(&stored.key)?));
        }
        Ok(bound)
    }
}

impl Join {
    /// Whether the pairs of a side's rows are found by those of the other side alone: while a view
    /// is built.
    pub(super) fn leaves_pairs(&self, side: Side, cx: &Context<'_>) -> bool {
        let stored = |side: Side| self.spec.stored[side.index()].is_some();
        cx.building && stored(side) && !(stored(side.other()) && side == Side::Left)
    }

    /// The next matches of a delta.
    pub(super) fn find(&mut self, cx: &mut Context<'_>, pending: &mut Pending) -> Result<Found> {
        let theirs = pending.side.other();
        let Some(stored) = &self.spec.stored[theirs.index()] else {
            let when = if self.spec.counts() { When::Any } else { When::After };
            let other = cx.state.arrangement(self.tables.rows(theirs)?);
            let mut probe = Probe::default();
            let next = other.probe(pending.probing(), when, pending.next, OUTPUT_ROWS, &mut probe);
            pending.next = next;
            return Ok(Found { probe, rows: None });
        };
        if let Some(place) = pending.stored {
            let place = (self.worker, place);
            let (found, next) = stored.read(pending.probing(), cx.before, place)?;
            pending.stored = next;
            if next.is_none() && cx.building {
                pending.next = pending.end();
            }
            return Ok(found);
        }
        let kept = || self.spec.arrangement_of(theirs);
        let Some(rows) = self.fresh[theirs.index()].rows(kept)? else {
            pending.next = pending.end();
            return Ok(Found::default());
        };
        let width = self.spec.input(theirs).schema.fields().len();
        let (found, next) = within_bytes(|limit| {
            let mut probe = Probe::default();
            let next = rows.probe(pending.probing(), When::After, pending.next, limit, &mut probe);
            let columns = (0..width).map(|c| rows.gather_column(c, &probe.slots));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            let schema = Arc::clone(&self.spec.input(theirs).schema);
            let batch = batch_of(schema, columns, probe.slots.len())?;
            Ok((Found::of(probe, batch), next))
        })?;
        pending.next = next;
        Ok(found)
    }

    /// One column of the other side's rows in some matches.
    pub(super) fn column_of(
        &self,
        cx: &mut Context<'_>,
        (side, column): (Side, usize),
        rows: Option<&RecordBatch>,
        slots: &[u32],
    ) -> Result<ArrayRef> {
        let Some(rows) = rows else {
            return cx.state.arrangement(self.tables.rows(side)?).gather_column(column, slots);
        };
        // Matches are only ever left out.
        if rows.num_rows() == slots.len() {
            return Ok(Arc::clone(rows.column(column)));
        }
        Ok(take(rows.column(column), &UInt32Array::from(slots.to_vec()), None)?)
    }
}
