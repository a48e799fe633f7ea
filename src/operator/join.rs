//! Inner join on equal keys.
//!
//! `d(L ⋈ R) = dL ⋈ R + L' ⋈ dR`: each delta is added to its own side's arrangement and then probes
//! the other side as it stands (everything of the epoch so far), so every pair is found exactly
//! once, whatever the order of arrival. Weights multiply. Rows whose key has a NULL match nothing
//! and are not kept. Any further condition of the join is a filter behind it.
//!
//! Both inputs are partitioned by the key. State: one arrangement per side, which grows with the
//! rows of that side. The output is append-only when both inputs are. No watermark passes: a row
//! that was kept comes out again with every later match.
//!
//! A key with many matches on both sides makes an output much larger than its input; it is handed
//! out in pieces of [`OUTPUT_ROWS`] through `resume`.
//!
//! Example, key = first column: left `+1 | 1 | a`, then right `+1 | 1 | x` gives `+1 | 1 | a | 1 |
//! x`; left `-1 | 1 | a` then gives `-1 | 1 | a | 1 | x`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Keys, batch_of};
use crate::error::Result;
use crate::state::{
    ArrangementSpec, Bound, KeyRequest, Probe, StateStore, TableId, TableKind, TableSpec, When,
};
use crate::time::Watermark;

/// Rows of one piece of output, more or less: a probe ends with a whole chain.
const OUTPUT_ROWS: usize = BATCH_ROWS * 2;

/// An input of the join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Port 0.
    Left,
    /// Port 1.
    Right,
}

impl Side {
    fn of(port: usize) -> Self {
        if port == 0 { Self::Left } else { Self::Right }
    }

    fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// Plan constants of one input.
#[derive(Debug, Clone)]
pub struct JoinInput {
    /// Its rows.
    pub schema: SchemaRef,
    /// Its key columns.
    pub key: Vec<usize>,
    /// Whether it is append-only.
    pub append_only: bool,
}

/// Plan constants.
#[derive(Debug, Clone)]
pub struct JoinSpec {
    inputs: [JoinInput; 2],
    schema: SchemaRef,
}

impl JoinSpec {
    /// A join of two inputs; its rows are the columns of the left, then those of the right.
    pub fn new(left: JoinInput, right: JoinInput) -> Self {
        let fields = left.schema.fields().iter().chain(right.schema.fields()).cloned();
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Self { inputs: [left, right], schema }
    }

    /// The constants of an input.
    pub fn input(&self, side: Side) -> &JoinInput {
        &self.inputs[side.index()]
    }
}

impl OperatorSpec for JoinSpec {
    fn name(&self) -> &'static str {
        "Join"
    }

    fn describe(&self) -> String {
        let name = |side: Side, c: &usize| self.input(side).schema.field(*c).name().clone();
        let pairs = self.inputs[0].key.iter().zip(&self.inputs[1].key);
        let text: Vec<String> = pairs
            .map(|(l, r)| format!("{} = {}", name(Side::Left, l), name(Side::Right, r)))
            .collect();
        format!("inner, on {}", text.join(" and "))
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        self.inputs.iter().all(|i| i.append_only)
    }

    fn tables(&self) -> Vec<TableSpec> {
        let names = ["left", "right"];
        let table = |(name, input): (&&'static str, &JoinInput)| TableSpec {
            name,
            version: 1,
            bound: Bound::Unbounded("rows of its side"),
            kind: TableKind::Arrangement(ArrangementSpec {
                schema: input.schema.clone(),
                key: input.key.clone(),
                append_only: input.append_only,
            }),
        };
        names.iter().zip(&self.inputs).map(table).collect()
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Join { spec: self.clone(), tables: [tables[0], tables[1]], pending: None }))
    }
}

struct Join {
    spec: JoinSpec,
    tables: [TableId; 2],
    pending: Option<Pending>,
}

/// A delta whose matches are being handed out.
struct Pending {
    side: Side,
    delta: DeltaBatch,
    keys: Keys,
    key_columns: Vec<ArrayRef>,
    /// Rows whose key has no NULL.
    selection: Vec<u32>,
    next: usize,
}

impl Join {
    fn prepare(&self, side: Side, delta: DeltaBatch) -> Result<Pending> {
        let key_columns: Vec<ArrayRef> =
            self.spec.input(side).key.iter().map(|c| delta.rows().column(*c).clone()).collect();
        let keys = Keys::encode(&key_columns, delta.len())?;
        let nulls: Vec<_> = key_columns.iter().filter_map(|c| c.logical_nulls()).collect();
        let selection = (0..delta.len() as u32)
            .filter(|row| nulls.iter().all(|n| n.is_valid(*row as usize)))
            .collect();
        Ok(Pending { side, delta, keys, key_columns, selection, next: 0 })
    }

    /// Hands out one piece of the pending delta's matches.
    fn step(&mut self, state: &mut StateStore, out: &mut Output) -> Result<Progress> {
        let Some(mut pending) = self.pending.take() else { return Ok(Progress::Done) };
        let other = state.arrangement(self.tables[pending.side.other().index()]);
        let mut probe = Probe::default();
        pending.next = other.probe(
            &pending.keys,
            &pending.key_columns,
            &pending.selection,
            When::After,
            (pending.next, OUTPUT_ROWS),
            &mut probe,
        );
        if !probe.slots.is_empty() {
            let columns = self.spec.input(pending.side.other()).schema.fields().len();
            let theirs = (0..columns).map(|c| other.gather_column(c, &probe.slots));
            out.emit(self.combine(&pending, theirs.collect(), probe)?);
        }
        if pending.next == pending.selection.len() {
            return Ok(Progress::Done);
        }
        self.pending = Some(pending);
        Ok(Progress::More)
    }

    fn combine(&self, from: &Pending, theirs: Vec<ArrayRef>, probe: Probe) -> Result<DeltaBatch> {
        let weights = if from.delta.is_insert_only() && probe.weights.is_empty() {
            None
        } else {
            let weight = |(i, row): (usize, &u32)| {
                from.delta.weight(*row as usize) * probe.weights.get(i).copied().unwrap_or(1)
            };
            Some(Int64Array::from_iter_values(probe.rows.iter().enumerate().map(weight)))
        };
        let count = probe.rows.len();
        let rows = UInt32Array::from(probe.rows);
        let mut columns = Vec::with_capacity(self.spec.schema.fields().len());
        let mine = from.delta.rows().columns().iter().map(|c| take(c, &rows, None));
        let mine = mine.collect::<Result<Vec<_>, _>>()?;
        match from.side {
            Side::Left => {
                columns.extend(mine);
                columns.extend(theirs);
            }
            Side::Right => {
                columns.extend(theirs);
                columns.extend(mine);
            }
        }
        let rows = batch_of(self.spec.schema.clone(), columns, count)?;
        Ok(DeltaBatch::with_weights(rows, weights))
    }
}

impl Operator for Join {
    fn keys(&self, port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        let pending = self.prepare(Side::of(port), delta.clone())?;
        self.tables.iter().for_each(|table| request.add(*table, pending.keys.hashes()));
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        port: usize,
        delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress> {
        let side = Side::of(port);
        let pending = self.prepare(side, delta)?;
        let mine = cx.state.arrangement(self.tables[side.index()]);
        mine.update(&pending.delta, &pending.keys, &pending.selection)?;
        self.pending = Some(pending);
        self.step(cx.state, out)
    }

    fn resume(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        self.step(cx.state, out)
    }

    /// Nothing: a row kept on one side can come out again with any later row of the other, so
    /// neither side's watermark holds for the output.
    fn on_watermark(&mut self, _port: usize, _column: usize, _w: Watermark, _out: &mut Output) {}

    fn flush(&mut self, cx: &mut Context<'_>, _out: &mut Output) -> Result<()> {
        self.tables.iter().for_each(|table| cx.state.arrangement(*table).seal());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::testing::{Harness, schema};

    fn spec(append_only: bool) -> JoinSpec {
        let input = |text| JoinInput { schema: schema(text), key: vec![0], append_only };
        JoinSpec::new(input("k:int, a:text"), input("k:int, b:text"))
    }

    #[test]
    fn pairs_come_and_go_with_either_side() {
        let spec = spec(false);
        let mut join = Harness::new(&spec);
        join.input(0, &spec.inputs[0].schema, "+1 | 1 | a\n+1 | 2 | b\n+1 | NULL | n");
        join.input(1, &spec.inputs[1].schema, "+1 | 1 | x\n+2 | 1 | y\n+1 | NULL | m");
        assert_eq!(join.flush(), "+1 | 1 | a | 1 | x\n+2 | 1 | a | 1 | y");
        join.restore();
        join.input(0, &spec.inputs[0].schema, "-1 | 1 | a\n+1 | 1 | c");
        join.input(1, &spec.inputs[1].schema, "-1 | 1 | x");
        assert_eq!(join.flush(), "-1 | 1 | a | 1 | x\n-2 | 1 | a | 1 | y\n+2 | 1 | c | 1 | y");
    }

    #[test]
    fn a_retraction_may_come_before_its_insert() {
        let spec = spec(false);
        let mut join = Harness::new(&spec);
        join.input(1, &spec.inputs[1].schema, "+1 | 1 | x");
        join.input(0, &spec.inputs[0].schema, "-1 | 1 | a");
        join.input(0, &spec.inputs[0].schema, "+1 | 1 | a");
        assert_eq!(join.flush(), "");
        assert_eq!(join.state_rows(), 1);
    }

    #[test]
    fn an_exploding_output_comes_in_pieces() {
        let spec = spec(true);
        let mut join = Harness::new(&spec);
        let many = |c: char| vec![format!("+1 | 1 | {c}"); 300].join("\n");
        join.input(0, &spec.inputs[0].schema, &many('l'));
        join.input(1, &spec.inputs[1].schema, &many('r'));
        assert_eq!(join.flush(), "+90000 | 1 | l | 1 | r");
        assert!(join.batches() > 2, "{} batches", join.batches());
    }
}
