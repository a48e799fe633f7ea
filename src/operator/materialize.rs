//! Materialize: keeps the rows of a table or view in its result table, and hands on the changes.
//!
//! `out = in`, consolidated; each epoch's changes get that epoch's number, so that readers of other
//! epochs do not see them. The input is partitioned by the result table's key (or by nothing, when
//! it is append-only). Watermarks pass through.
//!
//! With [`Conflict::Overwrite`] the input is a stream of upserts: weight +1 replaces the row with
//! that key, -1 deletes it; what comes out is `-old +new`. Later rows of an epoch win over earlier
//! ones. Rows with arrivals keep those of the upserts that made the changes.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::delta::{DeltaBatch, Order, Weight, batch_of, concat, consolidate, net};
use crate::error::Result;
use crate::state::{Bound, KeyRequest, ResultTable, TableId, TableKind, TableSpec};
use crate::time::{Epoch, Watermark};

/// What a row does to one with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// There is none: the input says what it retracts.
    Exact,
    /// The same, and each epoch of the input is consolidated.
    Consolidated,
    /// It takes its place (connector tables with a primary key).
    Overwrite,
}

/// Plan constants.
#[derive(Debug, Clone)]
pub struct MaterializeSpec {
    /// The name of the relation, for EXPLAIN.
    pub relation: String,
    /// Where the rows go.
    pub table: Arc<ResultTable>,
    /// The rule for equal keys.
    pub conflict: Conflict,
    /// Whether the input is append-only.
    pub append_only: bool,
}

impl OperatorSpec for MaterializeSpec {
    fn name(&self) -> &'static str {
        "Materialize"
    }

    fn describe(&self) -> String {
        match self.conflict {
            Conflict::Exact | Conflict::Consolidated => self.relation.clone(),
            Conflict::Overwrite => format!("{}, overwriting by key", self.relation),
        }
    }

    fn constants(&self) -> String {
        // Its relation may get another name.
        format!("{:?}", self.conflict)
    }

    fn schema(&self) -> SchemaRef {
        self.table.spec().schema.clone()
    }

    fn append_only(&self) -> bool {
        self.append_only && self.conflict != Conflict::Overwrite
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![TableSpec {
            name: "rows",
            version: 1,
            bound: Bound::Unbounded("rows"),
            kind: TableKind::Result(Arc::clone(&self.table)),
        }]
    }

    fn build(&self, _tables: &[TableId], place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Materialize { spec: self.clone(), shard: place.worker, epoch: Vec::new() }))
    }
}

struct Materialize {
    spec: MaterializeSpec,
    shard: usize,
    /// Deltas of the current epoch, where they have to be seen together.
    epoch: Vec<DeltaBatch>,
}

impl Materialize {
    fn conform(&self, delta: DeltaBatch) -> Result<DeltaBatch> {
        delta.with_schema(self.schema())
    }

    fn schema(&self) -> SchemaRef {
        self.spec.table.spec().schema.clone()
    }

    /// Changes what readers see.
    fn store(&self, changes: &DeltaBatch, epoch: Epoch) -> Result<()> {
        self.spec.table.warm(self.shard, changes)?;
        self.spec.table.write(self.shard).apply(changes, epoch)
    }

    /// Upserts of one epoch as exact changes against the rows that are there: each takes away what
    /// its key had before it, at the time when it arrives itself.
    fn resolve(&self, upserts: &DeltaBatch) -> Result<Option<DeltaBatch>> {
        let key = &self.spec.table.spec().key;
        let columns: Vec<ArrayRef> =
            key.iter().map(|c| upserts.rows().column(*c).clone()).collect();
        let keys = upserts.keys(key)?;
        self.spec.table.warm(self.shard, upserts)?;
        let shard = self.spec.table.read(self.shard);
        let live = shard.live_with_keys(&columns, &keys);
        let old = shard.gather(&live.iter().map(|(_, slot)| *slot).collect::<Vec<_>>())?;
        drop(shard);
        let mut live = live.iter().enumerate().peekable();
        // The row of each key so far: a stored one, or an upsert of this epoch.
        let mut current: HashMap<&[u8], Option<(usize, usize)>> = HashMap::new();
        let mut picks: Vec<((usize, usize), Weight, usize)> = Vec::with_capacity(upserts.len());
        for row in 0..upserts.len() {
            let stored = live.next_if(|(_, (r, _))| *r as usize == row).map(|(i, _)| (0, i));
            let current = current.entry(keys.key(row)).or_insert(stored);
            picks.extend(current.take().map(|before| (before, -1, row)));
            if upserts.weight(row) > 0 {
                picks.push(((1, row), 1, row));
                *current = Some((1, row));
            }
        }
        if picks.is_empty() {
            return Ok(None);
        }
        let places: Vec<(usize, usize)> = picks.iter().map(|p| p.0).collect();
        let columns = old.columns().iter().zip(upserts.rows().columns());
        let columns = columns.map(|(a, b)| interleave(&[a.as_ref(), b.as_ref()], &places));
        let rows = batch_of(self.schema(), columns.collect::<Result<_, _>>()?, picks.len())?;
        let weights = Int64Array::from_iter_values(picks.iter().map(|p| p.1));
        let arrivals = upserts.arrivals();
        let arrivals = arrivals.map(|a| picks.iter().map(|p| a.value(p.2)).collect::<Vec<_>>());
        let changes = DeltaBatch::new(rows, weights).with_arrivals(arrivals.map(Into::into));
        Ok(Some(consolidate(&changes, Order::Input)?))
    }
}

impl Operator for Materialize {
    fn keys(&self, _port: usize, _delta: &DeltaBatch, _request: &mut KeyRequest) -> Result<()> {
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress> {
        let delta = self.conform(delta)?;
        if self.spec.append_only() && delta.is_insert_only() {
            // Nothing of this epoch can retract it: no need to wait for the rest.
            self.store(&delta, cx.epoch)?;
            out.emit(delta);
        } else {
            self.epoch.push(delta);
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        out.watermarks.push((column, w));
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let epoch = std::mem::take(&mut self.epoch);
        let keyed = !self.spec.table.spec().key.is_empty();
        if keyed
            && self.spec.conflict == Conflict::Exact
            && epoch.iter().all(DeltaBatch::is_insert_only)
        {
            // No two rows have one key and none goes: there is nothing to put together.
            for rows in epoch {
                self.store(&rows, cx.epoch)?;
                out.emit(rows);
            }
            return Ok(Progress::Done);
        }
        let Some(all) = concat(&epoch)? else { return Ok(Progress::Done) };
        let changes = match self.spec.conflict {
            Conflict::Exact => Some(consolidate(&all, Order::Input)?),
            Conflict::Consolidated => Some(all),
            Conflict::Overwrite => self.resolve(&all)?,
        };
        if let Some(changes) = changes.filter(|c| !c.is_empty()) {
            // A row that comes and goes in one epoch at different times is told to those behind,
            // who may find it late in one of them; the table has no use for it.
            let stored = match changes.arrivals() {
                Some(_) => net(&changes)?,
                None => changes.clone(),
            };
            self.store(&stored, cx.epoch)?;
            out.emit(changes);
        }
        Ok(Progress::Done)
    }
}
