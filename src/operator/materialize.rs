//! Materialize: keeps the rows of a table or view in its result table, and hands on the changes.
//!
//! `out = in`, consolidated; each epoch's changes get that epoch's number, so that readers of other
//! epochs do not see them. The input is partitioned by the result table's key (or by nothing, when
//! it is append-only). Watermarks pass through.
//!
//! With [`Conflict::Overwrite`] the input is a stream of upserts: weight +1 replaces the row with
//! that key, -1 deletes it; what comes out is `-old +new`. Later rows of an epoch win over earlier
//! ones.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::delta::{DeltaBatch, Keys, Order, batch_of, concat, consolidate};
use crate::error::Result;
use crate::state::{KeyRequest, ResultTable, TableId, TableSpec};
use crate::time::Watermark;

/// What a row does to one with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// There is none: the input says what it retracts.
    Exact,
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
            Conflict::Exact => self.relation.clone(),
            Conflict::Overwrite => format!("{}, overwriting by key", self.relation),
        }
    }

    fn schema(&self) -> SchemaRef {
        self.table.spec().schema.clone()
    }

    fn append_only(&self) -> bool {
        self.append_only && self.conflict == Conflict::Exact
    }

    fn tables(&self) -> Vec<TableSpec> {
        Vec::new()
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
        let (rows, weights) = delta.into_parts();
        let rows = batch_of(self.schema(), rows.columns().to_vec(), rows.num_rows())?;
        Ok(DeltaBatch::with_weights(rows, weights))
    }

    fn schema(&self) -> SchemaRef {
        self.spec.table.spec().schema.clone()
    }

    /// Upserts of one epoch as exact changes against the rows that are there.
    fn resolve(&self, upserts: &DeltaBatch) -> Result<Option<DeltaBatch>> {
        let key = &self.spec.table.spec().key;
        let columns: Vec<ArrayRef> =
            key.iter().map(|c| upserts.rows().column(*c).clone()).collect();
        let keys = Keys::encode(&columns, upserts.len())?;
        // The last row of a key decides; the order of keys is that of their last rows.
        let mut last: HashMap<&[u8], usize> = HashMap::new();
        for row in 0..upserts.len() {
            last.insert(keys.key(row), row);
        }
        let decides = |row: usize| last.get(keys.key(row)) == Some(&row);
        let decided = upserts.filter(&(0..upserts.len()).map(|r| Some(decides(r))).collect())?;
        let columns: Vec<ArrayRef> =
            key.iter().map(|c| decided.rows().column(*c).clone()).collect();
        let keys = Keys::encode(&columns, decided.len())?;
        let shard = self.spec.table.read(self.shard);
        let live = shard.live_with_keys(&columns, &keys);
        let slots: Vec<u32> = live.iter().map(|(_, slot)| *slot).collect();
        let old = DeltaBatch::retractions(shard.gather(&slots)?);
        let kept: BooleanArray = (0..decided.len()).map(|r| Some(decided.weight(r) > 0)).collect();
        let (new, _) = decided.filter(&kept)?.into_parts();
        let all = concat(&[old, DeltaBatch::inserts(new)])?;
        all.map(|delta| consolidate(&delta, Order::Input)).transpose()
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
            self.spec.table.write(self.shard).apply(&delta, cx.epoch)?;
            out.emit(delta);
        } else {
            self.epoch.push(delta);
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        out.watermarks.push((column, w));
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<()> {
        let Some(all) = concat(&std::mem::take(&mut self.epoch))? else { return Ok(()) };
        let changes = match self.spec.conflict {
            Conflict::Exact => Some(consolidate(&all, Order::Input)?),
            Conflict::Overwrite => self.resolve(&all)?,
        };
        if let Some(changes) = changes.filter(|c| !c.is_empty()) {
            self.spec.table.write(self.shard).apply(&changes, cx.epoch)?;
            out.emit(changes);
        }
        Ok(())
    }
}
