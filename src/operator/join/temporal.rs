//! Temporal join: each row of the left meets the right side as it is when the row arrives.
//!
//! The left side is append-only and not kept; the right side is an arrangement. What the right side
//! does later changes nothing of what came out, so the output is append-only, and is not what a
//! recomputation gives. "When the row arrives" is the end of its epoch: within one, nothing is
//! earlier than anything else. So rows of the left are held for the epoch and joined at its end.
//!
//! Both inputs are partitioned by the key. State grows with the rows of the right side. Watermarks
//! of the left side pass.

use std::sync::Arc;

use arrow::array::{BooleanArray, UInt32Array};

use super::kernel::{Join, Pending, Tables};
use super::{JoinKind, JoinSpec, Side};
use crate::delta::DeltaBatch;
use crate::error::{Error, Result};
use crate::operator::{
    Context, Operator, OperatorSpec, Output, Placement, Progress, Stored, StoredRead,
};
use crate::state::{KeyRequest, TableId, TableSpec};
use crate::time::Watermark;

/// Plan constants: those of an inner or a left join.
#[derive(Debug, Clone)]
pub struct TemporalJoinSpec {
    join: JoinSpec,
}

impl TemporalJoinSpec {
    /// A temporal join of the kind of another join; its left side is append-only.
    pub fn new(join: JoinSpec) -> Result<Self> {
        let known = matches!(join.kind, JoinKind::Inner | JoinKind::Left);
        match known && join.input(Side::Left).append_only {
            true => Ok(Self { join }),
            false => Err(Error::internal("a temporal join of this kind")),
        }
    }
}

impl OperatorSpec for TemporalJoinSpec {
    fn name(&self) -> &'static str {
        "TemporalJoin"
    }

    fn describe(&self) -> String {
        format!("{}, with the right side at arrival", self.join.describe())
    }

    fn schema(&self) -> arrow::datatypes::SchemaRef {
        self.join.schema()
    }

    fn append_only(&self) -> bool {
        true
    }

    fn can_fail(&self) -> bool {
        self.join.can_fail()
    }

    fn tables(&self) -> Vec<TableSpec> {
        if !self.join.keeps(Side::Right) {
            return Vec::new();
        }
        let mut table = self.join.arrangement(Side::Right);
        if let crate::state::TableKind::Arrangement(spec) = &mut table.kind {
            spec.counted = false;
        }
        vec![table]
    }

    fn stored_reads(&self) -> Vec<StoredRead> {
        self.join.reads()
    }

    fn bind(&self, table: Stored<'_>) -> Result<Option<Arc<dyn OperatorSpec>>> {
        Ok(Some(Arc::new(Self { join: self.join.over(table)? })))
    }

    fn build(&self, tables: &[TableId], place: Placement) -> Result<Box<dyn Operator>> {
        let tables = Tables { rows: [None, tables.first().copied()], keys: [None, None] };
        let join = Join::new(self.join.clone(), tables, place);
        Ok(Box::new(TemporalJoin { join, held: Vec::new() }))
    }
}

struct TemporalJoin {
    join: Join,
    /// The epoch's rows of the left.
    held: Vec<DeltaBatch>,
}

impl TemporalJoin {
    fn emit(&mut self, cx: &mut Context<'_>, delta: DeltaBatch, out: &mut Output) -> Result<()> {
        let mut pending = self.join.prepare(Side::Left, delta)?;
        let mut matched = vec![false; pending.delta.len()];
        while !pending.is_done() {
            let mut found = self.join.find(cx, &mut pending)?;
            if self.join.spec.condition.is_some() {
                found = self.join.passing(cx, &pending, found, out)?;
            }
            found.probe.rows.iter().for_each(|row| matched[*row as usize] = true);
            if !found.probe.slots.is_empty() {
                self.join.emit_pairs(cx, &pending, found, out)?;
            }
        }
        if self.join.spec.kind == JoinKind::Left {
            self.emit_alone(&mut pending, &matched, out)?;
        }
        Ok(())
    }

    fn emit_alone(&self, from: &mut Pending, matched: &[bool], out: &mut Output) -> Result<()> {
        let alone = (0..matched.len() as u32).filter(|row| !matched[*row as usize]);
        let rows = from.delta.take(&UInt32Array::from_iter_values(alone))?;
        if rows.is_empty() {
            return Ok(());
        }
        let marks = BooleanArray::from(vec![false; rows.len()]);
        let (batch, weights) = rows.into_parts();
        out.emit(self.join.alone(Side::Left, batch.columns().to_vec(), weights, &marks)?);
        Ok(())
    }
}

impl Operator for TemporalJoin {
    fn keys(&self, port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        self.join.keys(port, delta, request)
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        port: usize,
        delta: DeltaBatch,
        _out: &mut Output,
    ) -> Result<Progress> {
        match Side::of(port) {
            Side::Left => self.held.push(delta),
            Side::Right => {
                let pending = self.join.prepare(Side::Right, delta)?;
                if self.join.spec.keeps(Side::Right) {
                    let rows = cx.state.arrangement(self.join.tables.rows(Side::Right)?);
                    rows.update(&pending.delta, &pending.keys, &pending.selection)?;
                } else if !cx.building {
                    self.join.fresh[Side::Right.index()].add(&pending);
                }
            }
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, port: usize, column: usize, w: Watermark, out: &mut Output) {
        if Side::of(port) == Side::Left {
            out.watermarks.push((column, w));
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        for delta in std::mem::take(&mut self.held) {
            self.emit(cx, delta, out)?;
        }
        self.join.fresh[Side::Right.index()].clear();
        if self.join.spec.keeps(Side::Right) {
            cx.state.arrangement(self.join.tables.rows(Side::Right)?).seal()?;
        }
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{JoinInput, NullKeys};
    use super::*;
    use crate::operator::testing::{Harness, schema};

    #[test]
    fn a_row_keeps_what_it_met() {
        let input =
            |text, append_only| JoinInput { schema: schema(text), key: vec![0], append_only };
        let inputs = [input("k:int, a:text", true), input("k:int, b:text", false)];
        let (left, right) = (inputs[0].schema.clone(), inputs[1].schema.clone());
        let join = JoinSpec::new(JoinKind::Left, inputs, NullKeys::MatchNothing, None);
        let spec = TemporalJoinSpec::new(join).expect("a left join");
        let mut run = Harness::new(&spec);
        run.input(0, &left, "+1 | 1 | a\n+1 | NULL | n");
        // In the same epoch: there when the row arrives.
        run.input(1, &right, "+1 | 1 | x");
        assert_eq!(run.flush(), "+1 | 1 | a | 1 | x\n+1 | NULL | n | NULL | NULL");
        run.restore();
        run.input(1, &right, "-1 | 1 | x\n+1 | 1 | y");
        assert_eq!(run.flush(), "");
        run.input(0, &left, "+1 | 1 | b\n+1 | 2 | c");
        assert_eq!(run.flush(), "+1 | 1 | b | 1 | y\n+1 | 2 | c | NULL | NULL");
        assert_eq!(run.state_rows(), 1);
    }
}
