//! SetOp: INTERSECT and EXCEPT, with and without ALL, of Z-sets.
//!
//! The input is both sides, with a last column that is true in rows of the left one. With `l` and
//! `r` copies of a row, `out` has max(l - r, 0) of EXCEPT ALL, min(l, r) of INTERSECT ALL, and at
//! most one without ALL: where l > 0 and r = 0, or both are positive. Rows are equal as keys are:
//! NULL equals NULL.
//!
//! The input is partitioned by the row. The output retracts but for an INTERSECT over append-only
//! input. State: one table that grows with distinct rows of both sides, two words each; the rows of
//! a window go when it closes. A watermark passes through.
//!
//! Example, EXCEPT ALL: `+2 | a | left`, `+1 | a | right` gives `+1 | a`.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, SchemaRef};

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::delta::{DeltaBatch, Keys, Weight, batch_of};
use crate::error::Result;
use crate::state::{Bound, GroupSpec, KeyRequest, TableId, TableKind, TableSpec, negative_weight};
use crate::time::{Watermark, event_times};

/// Which rows of two sides a set operation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SetRule {
    /// EXCEPT; otherwise INTERSECT.
    pub except: bool,
    /// Copies count.
    pub all: bool,
}

impl SetRule {
    /// How often the result has a row.
    fn copies(self, words: &[u64]) -> i64 {
        let [left, right] = [words[0] as i64, words[1] as i64].map(|n| n.max(0));
        match (self.except, self.all) {
            (true, true) => (left - right).max(0),
            (true, false) => i64::from(left > 0 && right == 0),
            (false, true) => left.min(right),
            (false, false) => left.min(right).min(1),
        }
    }

    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match (self.except, self.all) {
            (true, true) => "EXCEPT ALL",
            (true, false) => "EXCEPT",
            (false, true) => "INTERSECT ALL",
            (false, false) => "INTERSECT",
        }
    }
}

/// Plan constants.
#[derive(Debug, Clone)]
pub struct SetOpSpec {
    /// The rows that go out: the input's without the last column.
    pub schema: SchemaRef,
    /// The operation.
    pub rule: SetRule,
    /// Whether the input is append-only.
    pub append_only: bool,
    /// The column that is the time of a window that closes: no row of a closed window will come.
    pub closes: Option<usize>,
}

impl SetOpSpec {
    fn types(&self) -> Vec<DataType> {
        self.schema.fields().iter().map(|f| f.data_type().clone()).collect()
    }
}

impl OperatorSpec for SetOpSpec {
    fn name(&self) -> &'static str {
        "SetOp"
    }

    fn describe(&self) -> String {
        self.rule.name().to_lowercase()
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        self.append_only && !self.rule.except
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![TableSpec {
            name: "rows",
            version: 1,
            bound: match self.closes {
                Some(column) => Bound::Closes(column),
                None => Bound::Unbounded("distinct rows of both sides"),
            },
            kind: TableKind::Groups(GroupSpec {
                state_words: 2,
                key_width: Keys::fixed_width(&self.types()),
                ..Default::default()
            }),
        }]
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(SetOp {
            types: self.types(),
            rows: tables[0],
            spec: self.clone(),
            touched: Vec::new(),
            closed: i64::MIN,
            slots: Vec::new(),
        }))
    }
}

struct SetOp {
    // Plan.
    spec: SetOpSpec,
    types: Vec<DataType>,
    rows: TableId,
    // The current epoch.
    /// Rows that changed, in order of their first change, and how often each was there before.
    touched: Vec<(u32, i64)>,
    /// The watermark of the time column.
    closed: i64,
    // Buffers.
    slots: Vec<u32>,
}

impl SetOp {
    fn keys_of(&self, delta: &DeltaBatch) -> Result<Arc<Keys>> {
        delta.keys(&(0..self.types.len()).collect::<Vec<_>>())
    }
}

impl Operator for SetOp {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        request.add(self.rows, self.keys_of(delta)?.hashes());
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        _out: &mut Output,
    ) -> Result<Progress> {
        let keys = self.keys_of(&delta)?;
        let table = cx.state.groups(self.rows);
        let mut fresh = Vec::new();
        match self.spec.closes.and_then(|c| event_times(delta.rows().column(c))) {
            Some(times) => table.intern_timed(&keys, times, &mut self.slots, &mut fresh),
            None => table.intern(&keys, &mut self.slots, &mut fresh),
        }
        let slab = table.slab_mut();
        let rule = self.spec.rule;
        self.touched.extend(fresh.iter().map(|slot| (*slot, rule.copies(slab.words(*slot)))));
        let left = delta.rows().column(self.types.len()).as_boolean();
        for (row, slot) in self.slots.iter().enumerate() {
            let word = &mut slab.words_mut(*slot)[usize::from(!left.value(row))];
            *word = word.wrapping_add(delta.weight(row) as u64);
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        if Some(column) == self.spec.closes {
            self.closed = w.us();
        }
        if column < self.types.len() {
            out.watermarks.push((column, w));
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let table = cx.state.groups(self.rows);
        let touched = std::mem::take(&mut self.touched);
        let copies = |slot: u32| self.spec.rule.copies(table.slab().words(slot));
        let changes = touched.iter().map(|(slot, before)| (*slot, copies(*slot) - before));
        let (slots, weights): (Vec<u32>, Vec<Weight>) =
            changes.filter(|(_, weight)| *weight != 0).unzip();
        if !slots.is_empty() {
            let columns = table.key_columns(&slots, &self.types)?;
            let rows = batch_of(self.spec.schema.clone(), columns, slots.len())?;
            out.emit(DeltaBatch::new(rows, Int64Array::from(weights)));
        }
        for (slot, _) in touched {
            let sides = table.slab().words(slot);
            let least = (sides[0] as Weight).min(sides[1] as Weight);
            // Of a window that has closed a row may be gone that is retracted now.
            if least < 0 && self.spec.closes.is_none() {
                return Err(negative_weight("rows", least));
            }
            let keep = sides[..2] != [0, 0];
            table.release(slot, keep);
        }
        table.expire(self.closed);
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::testing::{Harness, schema};

    fn output(except: bool, all: bool) -> Vec<String> {
        let rule = SetRule { except, all };
        let spec = SetOpSpec { schema: schema("k:text"), rule, append_only: false, closes: None };
        let mut op = Harness::new(&spec);
        let input = schema("k:text, left:bool");
        op.input(0, &input, "+3 | a | t\n+1 | a | f\n+1 | b | t\n+2 | NULL | f\n+1 | NULL | t");
        let first = op.flush();
        op.restore();
        op.input(0, &input, "-1 | a | f\n+1 | b | f\n-1 | NULL | t");
        vec![first, op.flush()]
    }

    #[test]
    fn copies_follow_both_sides() {
        assert_eq!(output(true, true), ["+2 | a\n+1 | b", "-1 | b\n+1 | a"]);
        assert_eq!(output(true, false), ["+1 | b", "-1 | b\n+1 | a"]);
        assert_eq!(output(false, true), ["+1 | a\n+1 | NULL", "-1 | a\n-1 | NULL\n+1 | b"]);
        assert_eq!(output(false, false), ["+1 | a\n+1 | NULL", "-1 | a\n-1 | NULL\n+1 | b"]);
    }
}
