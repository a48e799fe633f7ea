//! Distinct: every row once (DISTINCT, UNION, GROUP BY without an aggregate); the row is there
//! while the sum of its weights is positive.
//!
//! The input is partitioned by the whole row. Over input that is never retracted, a row goes out
//! when it comes for the first time, and the output is never retracted either; otherwise what came
//! and went goes out at the end of the epoch. State: one table that grows with distinct rows, the
//! key and one word each; the rows of a window go when it closes. Watermarks pass through.
//!
//! Rows come out of their keys, so that `-0.0` is `0.0` whichever came first.
//!
//! Example: `+1 | a`, `+1 | a` gives `+1 | a`; then `-1 | a` gives nothing, `-1 | a` gives
//! `-1 | a`.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, SchemaRef};

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::delta::{DeltaBatch, Keys, Weight, batch_of};
use crate::error::Result;
use crate::state::{
    Bound, GroupSpec, GroupTable, KeyRequest, TableId, TableKind, TableSpec, negative_weight,
};
use crate::time::{Watermark, event_times};

/// Plan constants.
#[derive(Debug, Clone)]
pub struct DistinctSpec {
    /// The rows, in and out.
    pub schema: SchemaRef,
    /// Whether the input is never retracted.
    pub append_only: bool,
    /// The column that is the time of a window that closes: no row of a closed window will come.
    pub closes: Option<usize>,
}

impl DistinctSpec {
    fn types(&self) -> Vec<DataType> {
        self.schema.fields().iter().map(|f| f.data_type().clone()).collect()
    }
}

impl OperatorSpec for DistinctSpec {
    fn name(&self) -> &'static str {
        "Distinct"
    }

    fn describe(&self) -> String {
        String::new()
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        self.append_only
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![TableSpec {
            name: "rows",
            version: 1,
            bound: self.closes.map_or(Bound::Unbounded("distinct rows"), Bound::Closes),
            kind: TableKind::Groups(GroupSpec {
                state_words: 1,
                key_width: Keys::fixed_width(&self.types()),
                ..Default::default()
            }),
        }]
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Distinct {
            types: self.types(),
            rows: tables[0],
            spec: self.clone(),
            touched: Vec::new(),
            closed: i64::MIN,
            slots: Vec::new(),
        }))
    }
}

struct Distinct {
    // Plan.
    spec: DistinctSpec,
    types: Vec<DataType>,
    rows: TableId,
    // The current epoch.
    /// Rows that changed, in order of their first change, and whether each was there before.
    touched: Vec<(u32, bool)>,
    /// The watermark of the time column.
    closed: i64,
    // Buffers.
    slots: Vec<u32>,
}

impl Distinct {
    fn keys_of(&self, delta: &DeltaBatch) -> Result<Arc<Keys>> {
        delta.keys(&(0..self.types.len()).collect::<Vec<_>>())
    }

    /// The rows of slots.
    fn emit(
        &self,
        table: &GroupTable,
        slots: &[u32],
        weights: Option<Vec<Weight>>,
        out: &mut Output,
    ) -> Result<()> {
        let columns = table.key_columns(slots, &self.types)?;
        let rows = batch_of(self.spec.schema.clone(), columns, slots.len())?;
        out.emit(DeltaBatch::with_weights(rows, weights.map(Int64Array::from)));
        Ok(())
    }

    /// Hands out rows that were not there.
    fn first_ones(
        &mut self,
        table: &mut GroupTable,
        fresh: &[u32],
        out: &mut Output,
    ) -> Result<()> {
        let mut new = Vec::new();
        for slot in fresh {
            let word = &mut table.slab_mut().words_mut(*slot)[0];
            if *word != 0 {
                table.release_unchanged(*slot);
                continue;
            }
            *word = 1;
            new.push(*slot);
            table.release(*slot, true);
        }
        if new.is_empty() {
            return Ok(());
        }
        self.emit(table, &new, None, out)
    }
}

impl Operator for Distinct {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        let keys = self.keys_of(delta)?;
        request.add(self.rows, keys.hashes());
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress> {
        let keys = self.keys_of(&delta)?;
        let table = cx.state.groups(self.rows);
        let mut fresh = Vec::new();
        let mut slots = std::mem::take(&mut self.slots);
        match self.spec.closes.and_then(|c| event_times(delta.rows().column(c))) {
            Some(times) => table.intern_timed(&keys, times, &mut slots, &mut fresh),
            None => table.intern(&keys, &mut slots, &mut fresh),
        }
        if self.spec.append_only {
            self.first_ones(table, &fresh, out)?;
        } else {
            let slab = table.slab_mut();
            let there = |slot: &u32| slab.words(*slot)[0] as i64 > 0;
            self.touched.extend(fresh.iter().map(|slot| (*slot, there(slot))));
            for (row, slot) in slots.iter().enumerate() {
                let word = &mut slab.words_mut(*slot)[0];
                *word = word.wrapping_add(delta.weight(row) as u64);
            }
        }
        self.slots = slots;
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        if Some(column) == self.spec.closes {
            self.closed = w.us();
        }
        out.watermarks.push((column, w));
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let table = cx.state.groups(self.rows);
        if self.touched.is_empty() {
            table.expire(self.closed);
            return Ok(Progress::Done);
        }
        let touched = std::mem::take(&mut self.touched);
        let is = |slot: u32| table.slab().words(slot)[0] as i64 > 0;
        let changed = touched.iter().filter(|(slot, was)| is(*slot) != *was);
        let (slots, weights): (Vec<u32>, Vec<Weight>) =
            changed.map(|(slot, was)| (*slot, if *was { -1 } else { 1 })).unzip();
        if !slots.is_empty() {
            self.emit(table, &slots, Some(weights), out)?;
        }
        for (slot, _) in touched {
            let weight = table.slab().words(slot)[0] as Weight;
            // Of a window that has closed a row may be gone that is retracted now.
            if weight < 0 && self.spec.closes.is_none() {
                return Err(negative_weight("rows", weight));
            }
            table.release(slot, weight != 0);
        }
        table.expire(self.closed);
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::testing::{Harness, schema};

    #[test]
    fn a_row_is_there_while_its_weight_is_positive() {
        let spec =
            DistinctSpec { schema: schema("k:text, v:int"), append_only: false, closes: None };
        let mut distinct = Harness::new(&spec);
        distinct.input(0, &spec.schema, "+1 | a | 1\n+2 | a | 1\n+1 | NULL | NULL");
        assert_eq!(distinct.flush(), "+1 | a | 1\n+1 | NULL | NULL");
        distinct.restore();
        distinct.input(0, &spec.schema, "-1 | a | 1\n+1 | b | 2\n-1 | b | 2");
        assert_eq!(distinct.flush(), "");
        distinct.input(0, &spec.schema, "-2 | a | 1");
        assert_eq!(distinct.flush(), "-1 | a | 1");
        assert_eq!(distinct.state_rows(), 1);
    }

    #[test]
    fn append_only_rows_go_out_once_and_at_once() {
        let spec = DistinctSpec { schema: schema("v:double"), append_only: true, closes: None };
        let mut distinct = Harness::new(&spec);
        distinct.input(0, &spec.schema, "+1 | -0.0\n+1 | 0.0\n+1 | 2.5");
        assert_eq!(distinct.flush(), "+1 | 0\n+1 | 2.5");
        distinct.restore();
        distinct.input(0, &spec.schema, "+1 | 2.5\n+1 | 3");
        distinct.input(0, &spec.schema, "+1 | 3\n+1 | 0");
        assert_eq!(distinct.flush(), "+1 | 3");
    }
}
