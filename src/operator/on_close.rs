//! EmitOnClose: holds the rows of a window back until it closes, then hands them out once (EMIT ON
//! WINDOW CLOSE).
//!
//! `out = the rows of in whose time is below the watermark`. Changes of a window before it closes
//! cancel out in the buffer, and nothing comes for it afterwards, so the output is append-only. A
//! row without a time (NULL) is in no window and never comes out.
//!
//! The input is partitioned by its key, or by the whole row. State: one table of the rows of open
//! windows with their weights. Watermarks pass, behind the rows that they let go.
//!
//! Example, closing by the second column: `+1 | a | 10`, `-1 | a | 10`, `+1 | b | 10` give nothing;
//! the watermark 11 gives `+1 | b | 10`.

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, SchemaRef};

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Keys, Weight, batch_of, decode_keys};
use crate::error::Result;
use crate::state::{Bound, GroupSpec, KeyRequest, TableId, TableKind, TableSpec};
use crate::time::{Watermark, event_times};

/// Plan constants.
#[derive(Debug, Clone)]
pub struct OnCloseSpec {
    /// The rows, in and out.
    pub schema: SchemaRef,
    /// The time column.
    pub column: usize,
}

impl OnCloseSpec {
    fn types(&self) -> Vec<DataType> {
        self.schema.fields().iter().map(|f| f.data_type().clone()).collect()
    }
}

impl OperatorSpec for OnCloseSpec {
    fn name(&self) -> &'static str {
        "EmitOnClose"
    }

    fn describe(&self) -> String {
        format!("by {}", self.schema.field(self.column).name())
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        true
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![TableSpec {
            name: "open",
            version: 1,
            bound: Bound::Closes(self.column),
            kind: TableKind::Groups(GroupSpec {
                state_words: 1,
                key_width: Keys::fixed_width(&self.types()),
                ..Default::default()
            }),
        }]
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(OnClose {
            types: self.types(),
            open: tables[0],
            spec: self.clone(),
            touched: Vec::new(),
            closed: i64::MIN,
            slots: Vec::new(),
        }))
    }
}

struct OnClose {
    // Plan.
    spec: OnCloseSpec,
    types: Vec<DataType>,
    open: TableId,
    // The current epoch.
    touched: Vec<u32>,
    /// The watermark of the time column.
    closed: i64,
    // Buffers.
    slots: Vec<u32>,
}

impl Operator for OnClose {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        let keys = Keys::encode_exact(delta.rows().columns(), delta.len())?;
        request.add(self.open, keys.hashes());
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        _out: &mut Output,
    ) -> Result<Progress> {
        let Some(times) = event_times(delta.rows().column(self.spec.column)) else {
            return Ok(Progress::Done);
        };
        let keys = Keys::encode_exact(delta.rows().columns(), delta.len())?;
        let table = cx.state.groups(self.open);
        let mut fresh = Vec::new();
        table.intern_timed(&keys, times, &mut self.slots, &mut fresh);
        let slab = table.slab_mut();
        for (row, slot) in self.slots.iter().enumerate() {
            let word = &mut slab.words_mut(*slot)[0];
            *word = word.wrapping_add(delta.weight(row) as u64);
        }
        self.touched.append(&mut fresh);
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        if column == self.spec.column {
            self.closed = w.us();
        }
        out.watermarks.push((column, w));
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<()> {
        let table = cx.state.groups(self.open);
        for slot in self.touched.drain(..) {
            let keep = table.slab().words(slot)[0] != 0;
            table.release(slot, keep);
        }
        let closed = table.take_closed(self.closed);
        for slots in closed.chunks(BATCH_ROWS) {
            let keys: Vec<Vec<u8>> = slots.iter().map(|s| table.key(*s)).collect();
            let columns = decode_keys(&self.types, keys.iter().map(Vec::as_slice))?;
            let rows = batch_of(self.spec.schema.clone(), columns, slots.len())?;
            let weight = |slot: &u32| table.slab().words(*slot)[0] as Weight;
            let weights = Int64Array::from_iter_values(slots.iter().map(weight));
            let once = weights.values().iter().all(|w| *w == 1);
            out.emit(DeltaBatch::with_weights(rows, (!once).then_some(weights)));
        }
        closed.iter().for_each(|slot| table.release(*slot, false));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::testing::{Harness, schema};

    #[test]
    fn the_rows_of_a_window_come_out_once_when_it_closes() {
        let spec = OnCloseSpec { schema: schema("k:text, e:timestamp"), column: 1 };
        let mut gate = Harness::new(&spec);
        let ten = "1970-01-01T00:00:00.000010";
        let twenty = "1970-01-01T00:00:00.000020";
        let rows = format!("+1 | a | {ten}\n+2 | b | {ten}\n+1 | c | {twenty}\n+1 | d | NULL");
        gate.input(0, &spec.schema, &rows);
        assert_eq!(gate.watermark(0, 1, 10), Some(10));
        assert_eq!(gate.flush(), "");
        gate.restore();
        gate.input(0, &spec.schema, &format!("-1 | a | {ten}\n+1 | e | {ten}"));
        gate.watermark(0, 1, 11);
        assert_eq!(
            gate.flush(),
            "+2 | b | 1970-01-01 00:00:00.00001\n+1 | e | 1970-01-01 00:00:00.00001"
        );
        assert_eq!(gate.state_rows(), 2);
        gate.watermark(0, 1, i64::MAX);
        assert_eq!(gate.flush(), "+1 | c | 1970-01-01 00:00:00.00002");
        assert_eq!(gate.state_rows(), 1);
    }
}
