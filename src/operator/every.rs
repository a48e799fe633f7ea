//! EmitEvery: holds changes back until the clock passes the next multiple of an interval, then
//! hands out what they come to (EMIT EVERY).
//!
//! `out = the sum of what has come until the last multiple`. Changes that cancel out in between
//! never come out, so who reads a view whose rows change often reads a row of it once an interval.
//! While a view is built all comes out at once. Nothing comes out between two multiples, and what
//! waits comes out behind the next one also after a restart.
//!
//! The input is partitioned by the whole row. State: the weight of each row that waits. Watermarks
//! wait for the rows in front of them.
//!
//! Example, every 10 seconds: `+1 | a | 1` at 00:03 and `-1 | a | 1`, `+1 | a | 2` at 00:07 give
//! `+1 | a | 2` at 00:10.

use std::collections::BTreeMap;

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, SchemaRef};

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Keys, Weight, batch_of};
use crate::error::Result;
use crate::state::{Bound, GroupSpec, KeyRequest, TableId, TableKind, TableSpec};
use crate::time::Watermark;

/// Plan constants.
#[derive(Debug, Clone)]
pub struct EverySpec {
    /// The rows, in and out.
    pub schema: SchemaRef,
    /// The interval, in microseconds.
    pub interval_us: i64,
    /// Whether the input is append-only; then the output is.
    pub append_only: bool,
}

impl EverySpec {
    fn types(&self) -> Vec<DataType> {
        self.schema.fields().iter().map(|f| f.data_type().clone()).collect()
    }
}

impl OperatorSpec for EverySpec {
    fn name(&self) -> &'static str {
        "EmitEvery"
    }

    fn describe(&self) -> String {
        format!("{} s", self.interval_us as f64 / 1e6)
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        self.append_only
    }

    fn follows_clock(&self) -> bool {
        true
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![TableSpec {
            name: "waiting",
            version: 1,
            // Behind all columns: when they come out.
            bound: Bound::Closes(self.schema.fields().len()),
            kind: TableKind::Groups(GroupSpec {
                state_words: 1,
                key_width: Keys::fixed_width(&self.types()),
                ..Default::default()
            }),
        }]
    }

    fn closed_by(&self, _table: &TableSpec) -> Vec<(usize, usize)> {
        // By the clock.
        Vec::new()
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Every {
            types: self.types(),
            waiting: tables[0],
            spec: self.clone(),
            touched: Vec::new(),
            due: Vec::new(),
            watermarks: BTreeMap::new(),
        }))
    }
}

struct Every {
    spec: EverySpec,
    types: Vec<DataType>,
    waiting: TableId,
    /// Rows that changed in this epoch.
    touched: Vec<u32>,
    /// Rows that come out now, those that have not yet.
    due: Vec<u32>,
    /// What has not been passed on.
    watermarks: BTreeMap<usize, Watermark>,
}

impl Operator for Every {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        let keys = delta.keys(&(0..self.types.len()).collect::<Vec<_>>())?;
        request.add(self.waiting, keys.hashes());
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress> {
        if cx.building {
            out.emit(delta);
            return Ok(Progress::Done);
        }
        let keys = delta.keys(&(0..self.types.len()).collect::<Vec<_>>())?;
        let past = cx.now_us.div_euclid(self.spec.interval_us);
        let next = (past + 1).saturating_mul(self.spec.interval_us);
        let (mut slots, mut fresh) = (Vec::new(), Vec::new());
        let table = cx.state.groups(self.waiting);
        table.intern_timed(&keys, |_| next, &mut slots, &mut fresh);
        let slab = table.slab_mut();
        for (row, slot) in slots.iter().enumerate() {
            let word = &mut slab.words_mut(*slot)[0];
            *word = word.wrapping_add(delta.weight(row) as u64);
        }
        self.touched.append(&mut fresh);
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, _out: &mut Output) {
        self.watermarks.insert(column, w);
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let table = cx.state.groups(self.waiting);
        for slot in self.touched.drain(..) {
            let keep = table.slab().words(slot)[0] != 0;
            table.release(slot, keep);
        }
        self.due = table.take_closed(cx.now_us.saturating_add(1));
        self.resume(cx, out)
    }

    fn resume(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let table = cx.state.groups(self.waiting);
        let rest = self.due.split_off(self.due.len().min(BATCH_ROWS));
        let slots = std::mem::replace(&mut self.due, rest);
        if !slots.is_empty() {
            let weight = |slot: &u32| table.slab().words(*slot)[0] as Weight;
            let weights: Vec<Weight> = slots.iter().map(weight).collect();
            let columns = table.key_columns(&slots, &self.types)?;
            let rows = batch_of(self.spec.schema.clone(), columns, slots.len())?;
            out.emit(DeltaBatch::new(rows, Int64Array::from(weights)));
            table.free_closed(&slots);
        }
        if !self.due.is_empty() {
            return Ok(Progress::More);
        }
        if table.groups() == 0 {
            out.watermarks.extend(std::mem::take(&mut self.watermarks));
        }
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::testing::{Harness, schema};

    #[test]
    fn what_cancels_out_in_between_never_comes() {
        let spec =
            EverySpec { schema: schema("k:text, v:int"), interval_us: 10, append_only: false };
        let mut every = Harness::new(&spec);
        every.clock(3);
        every.input(0, &spec.schema, "+1 | a | 1\n+2 | b | 1");
        assert_eq!(every.flush(), "");
        assert_eq!(every.watermark(0, 1, 5), None);
        every.clock(7);
        every.input(0, &spec.schema, "-1 | a | 1\n+1 | a | 2\n-1 | b | 1");
        assert_eq!(every.flush(), "");
        assert_eq!(every.state_rows(), 2);
        every.restore();
        every.clock(9);
        assert_eq!(every.flush(), "");
        every.clock(10);
        every.input(0, &spec.schema, "+1 | c | 3");
        assert_eq!(every.flush(), "+1 | a | 2\n+1 | b | 1");
        every.clock(35);
        every.input(0, &spec.schema, "-1 | c | 3\n-1 | a | 2");
        assert_eq!(every.flush(), "");
        every.clock(40);
        assert_eq!(every.watermark(0, 1, 8), None);
        assert_eq!(every.flush(), "-1 | a | 2");
        assert_eq!(every.last_watermark(), Some((1, 8)));
    }
}
