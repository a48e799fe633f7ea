//! ASOF join: each row of the left with the one row of the right that is nearest to it in an order:
//! of its key the last at or ahead of a value of the left row.
//!
//! `out(l) = l, last(right rows of l's key with time <= l.time)`. Rows of either side that change
//! cost a search and what comes out differently: a row of the right holds for a stretch of the
//! order, up to the next one; where stretches end or begin, the rows of the left that lie in them
//! come out anew. At the end of an epoch the rows that the left had meet the changed stretches,
//! then what has come on the left meets the right as it is.
//!
//! A further condition says of a row and its nearest one whether they match; it looks for no other.
//! Of several rows of the right at one place the last by the whole row is the nearest.
//!
//! Both inputs are partitioned by the key. State: the rows of both sides, in their order. The
//! output retracts: what comes late on the right changes what has come out. Keys and times that are
//! NULL match nothing.
//!
//! Example, the price at the time of a trade: prices `+1 | a | 10:00 | 7`, a trade `+1 | a | 10:05`
//! gives `+1 | a | 10:05 | a | 10:00 | 7`; then a price `+1 | a | 10:03 | 8` gives
//! `-1 | a | 10:05 | a | 10:00 | 7`, `+1 | a | 10:05 | a | 10:03 | 8`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::kernel::OUTPUT_ROWS;
use super::{JoinCondition, JoinInput, Side};
use crate::delta::{DeltaBatch, Keys, Order, Weight, batch_of, consolidate};
use crate::error::Result;
use crate::operator::{Context, Operator, OperatorSpec, Output, Placement, Progress, error_rows};
use crate::state::{
    Bound, KeyRequest, OrderBy, RankedSpec, Ranking, TableId, TableKind, TableSpec, Top,
};
use crate::time::Watermark;

/// Plan constants.
#[derive(Debug, Clone)]
pub struct AsOfJoinSpec {
    /// Both inputs: their key, and behind it in `times` the column that orders them.
    pub inputs: [JoinInput; 2],
    /// The columns that are compared, of one type.
    pub times: [usize; 2],
    /// The nearest row is at or behind the row of the left, not at or ahead of it.
    pub forward: bool,
    /// One at the very place matches.
    pub at_it: bool,
    /// Rows of the left without a match come out with NULLs.
    pub outer: bool,
    /// Whether a row and its nearest match.
    pub condition: Option<JoinCondition>,
}

impl AsOfJoinSpec {
    fn input(&self, side: Side) -> &JoinInput {
        &self.inputs[side.index()]
    }

    fn table(&self, name: &'static str, side: Side) -> TableSpec {
        let order = OrderBy {
            column: self.times[side.index()],
            descending: self.forward,
            nulls_first: false,
        };
        TableSpec {
            name,
            version: 1,
            bound: Bound::Unbounded("rows of its inputs"),
            kind: TableKind::Ranked(RankedSpec {
                schema: self.input(side).schema.clone(),
                partition: self.input(side).key.clone(),
                order: vec![order],
                top: Top { ranking: Ranking::RowNumber, skip: 0, limit: None },
                append_only: false,
                follows: true,
            }),
        }
    }
}

impl OperatorSpec for AsOfJoinSpec {
    fn name(&self) -> &'static str {
        "AsOfJoin"
    }

    fn describe(&self) -> String {
        let name = |side: Side, column: usize| self.input(side).schema.field(column).name().clone();
        let pairs = self.input(Side::Left).key.iter().zip(&self.input(Side::Right).key);
        let keys =
            pairs.map(|(l, r)| format!("{} = {}", name(Side::Left, *l), name(Side::Right, *r)));
        let [left, right] = self.times;
        let sign = match (self.forward, self.at_it) {
            (false, true) => ">=",
            (false, false) => ">",
            (true, true) => "<=",
            (true, false) => "<",
        };
        let nearest =
            format!("nearest {} {sign} {}", name(Side::Left, left), name(Side::Right, right));
        let kind = if self.outer { "left" } else { "inner" };
        let mut parts = vec![kind.to_owned()];
        let keys: Vec<String> = keys.collect();
        if !keys.is_empty() {
            parts.push(format!("on {}", keys.join(" and ")));
        }
        parts.push(nearest);
        parts.extend(self.condition.iter().map(|c| format!("if {}", c.text)));
        parts.join(", ")
    }

    fn schema(&self) -> SchemaRef {
        let [left, right] = &self.inputs;
        let there = left.schema.fields().iter().map(|f| f.as_ref().clone());
        let nearest = right.schema.fields().iter().map(|f| {
            let field: Field = f.as_ref().clone();
            field.with_nullable(self.outer || f.is_nullable())
        });
        Arc::new(Schema::new(there.chain(nearest).collect::<Vec<_>>()))
    }

    fn append_only(&self) -> bool {
        false
    }

    fn can_fail(&self) -> bool {
        self.condition.is_some()
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![self.table("left", Side::Left), self.table("right", Side::Right)]
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        let spec = self.clone();
        let schema = self.schema();
        let (left, right) = (tables[0], tables[1]);
        Ok(Box::new(AsOfJoin { spec, schema, left, right, held: Vec::new() }))
    }
}

struct AsOfJoin {
    spec: AsOfJoinSpec,
    schema: SchemaRef,
    left: TableId,
    right: TableId,
    /// What this epoch has brought on the left.
    held: Vec<DeltaBatch>,
}

/// A row of the left with its nearest, by slots or by the row of a batch.
#[derive(Debug, Clone, Copy)]
struct Pair {
    left: u32,
    right: Option<u32>,
    weight: Weight,
}

impl AsOfJoin {
    /// The rows that can match: key and time are there.
    fn selected(&self, side: Side, delta: &DeltaBatch) -> Vec<bool> {
        let input = self.spec.input(side);
        let time = &self.spec.times[side.index()];
        let columns = input.key.iter().chain([time]).map(|c| delta.rows().column(*c));
        let nulls: Vec<_> = columns.filter_map(|c| c.logical_nulls()).collect();
        (0..delta.len()).map(|row| nulls.iter().all(|n| n.is_valid(row))).collect()
    }

    /// Adds the rows that can match to a side's table.
    fn store(
        &self,
        cx: &mut Context<'_>,
        side: Side,
        delta: &DeltaBatch,
        selected: &[bool],
    ) -> Result<()> {
        let id = if side == Side::Left { self.left } else { self.right };
        let key = &self.spec.input(side).key;
        if selected.iter().all(|s| *s) {
            return cx.state.ranked(id).update(delta, &*delta.keys(key)?);
        }
        let rows = (0_u32..).zip(selected).filter(|(_, s)| **s).map(|(row, _)| row);
        let delta = delta.take(&UInt32Array::from_iter_values(rows))?;
        cx.state.ranked(id).update(&delta, &*delta.keys(key)?)
    }

    /// The rows that the left had, in stretches of the right that have ended or begun.
    fn restretched(&self, cx: &mut Context<'_>) -> Result<Vec<Pair>> {
        let right = cx.state.ranked(self.right);
        let mut stretches = right.stretches();
        if !self.spec.outer {
            stretches.retain(|stretch| stretch.row.is_some());
        }
        let witnesses: Vec<u32> = stretches.iter().map(|s| s.witness).collect();
        let key = self.spec.input(Side::Right).key.iter();
        let key = key.map(|c| right.gather_column(*c, &witnesses)).collect::<Result<Vec<_>>>()?;
        let keys = Keys::encode(&key, witnesses.len())?;
        let left = cx.state.ranked(self.left);
        let (mut pairs, mut found) = (Vec::new(), Vec::new());
        for (at, stretch) in stretches.iter().enumerate() {
            let Some(partition) = left.partition_of(keys.key(at), keys.hash(at)) else { continue };
            found.clear();
            left.within(partition, stretch, self.spec.at_it, &mut found);
            pairs.extend(found.iter().map(|(slot, weight)| Pair {
                left: *slot,
                right: stretch.row,
                weight: weight * stretch.sign,
            }));
        }
        Ok(pairs)
    }

    /// Rows of the right, NULLs where there is none.
    fn nearest(&self, cx: &mut Context<'_>, pairs: &[Pair]) -> Result<Vec<ArrayRef>> {
        let slots: Vec<u32> = pairs.iter().filter_map(|pair| pair.right).collect();
        let fields = self.spec.input(Side::Right).schema.fields();
        if slots.is_empty() {
            return Ok(fields.iter().map(|f| new_null_array(f.data_type(), pairs.len())).collect());
        }
        let mut next = 0_u32..;
        let places: UInt32Array =
            pairs.iter().map(|pair| pair.right.and_then(|_| next.next())).collect();
        let right = cx.state.ranked(self.right);
        let column = |c: usize| -> Result<ArrayRef> {
            Ok(take(&right.gather_column(c, &slots)?, &places, None)?)
        };
        (0..fields.len()).map(column).collect()
    }

    /// Hands pairs out; `left` has the columns of their rows of the left.
    fn emit(
        &self,
        cx: &mut Context<'_>,
        left: Vec<ArrayRef>,
        mut pairs: Vec<Pair>,
        out: &mut Output,
    ) -> Result<()> {
        if let Some(condition) = &self.spec.condition {
            let right = self.nearest(cx, &pairs)?;
            self.judge(condition, (&left, &right), &mut pairs, out)?;
        }
        let comes = |pair: &Pair| pair.weight != 0 && (self.spec.outer || pair.right.is_some());
        let mut left = left;
        if !pairs.iter().all(comes) {
            let coming = (0_u32..).zip(&pairs).filter(|(_, pair)| comes(pair)).map(|(row, _)| row);
            let rows = UInt32Array::from_iter_values(coming);
            left = left.iter().map(|c| take(c, &rows, None)).collect::<Result<_, _>>()?;
            pairs.retain(comes);
        }
        let columns = left.into_iter().chain(self.nearest(cx, &pairs)?).collect();
        let weights: Vec<Weight> = pairs.iter().map(|pair| pair.weight).collect();
        let rows = batch_of(self.schema.clone(), columns, pairs.len())?;
        let delta = DeltaBatch::new(rows, Int64Array::from(weights));
        out.emit(consolidate(&delta, Order::Input)?);
        Ok(())
    }

    /// Takes the nearest rows away from those that do not match.
    fn judge(
        &self,
        condition: &JoinCondition,
        (left, right): (&[ArrayRef], &[ArrayRef]),
        pairs: &mut [Pair],
        out: &mut Output,
    ) -> Result<()> {
        let there: Vec<u32> = (0_u32..)
            .zip(pairs.iter())
            .filter(|(_, pair)| pair.right.is_some())
            .map(|(row, _)| row)
            .collect();
        let rows = UInt32Array::from(there.clone());
        let column = |(side, column): &(Side, usize)| -> Result<ArrayRef> {
            let of = if *side == Side::Left { left } else { right };
            Ok(take(&of[*column], &rows, None)?)
        };
        let columns = condition.columns.iter().map(column).collect::<Result<_>>()?;
        let batch = batch_of(condition.schema.clone(), columns, there.len())?;
        let mut errors = Vec::new();
        let mask = condition.predicate.mask(&batch, &mut errors)?;
        let mut failed = Vec::with_capacity(errors.len());
        for error in errors {
            let pair = &mut pairs[there[error.row] as usize];
            failed.push((error.row, pair.weight, error.sqlstate, error.reason));
            // Neither the pair nor the row alone comes out.
            pair.weight = 0;
        }
        if !failed.is_empty() {
            out.errors.push(consolidate(&error_rows("AsOfJoin", &batch, &failed)?, Order::Input)?);
        }
        for (row, pair) in there.iter().enumerate() {
            if !mask.value(row) {
                pairs[*pair as usize].right = None;
            }
        }
        Ok(())
    }
}

impl Operator for AsOfJoin {
    fn keys(&self, port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        let keys = delta.keys(&self.spec.input(Side::of(port)).key)?;
        request.add(self.left, keys.hashes());
        request.add(self.right, keys.hashes());
        Ok(())
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
                let selected = self.selected(Side::Right, &delta);
                self.store(cx, Side::Right, &delta, &selected)?;
            }
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, _column: usize, _w: Watermark, _out: &mut Output) {}

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let width = self.spec.input(Side::Left).schema.fields().len();
        for pairs in self.restretched(cx)?.chunks(OUTPUT_ROWS) {
            let slots: Vec<u32> = pairs.iter().map(|pair| pair.left).collect();
            let left = cx.state.ranked(self.left);
            let columns = (0..width).map(|c| left.gather_column(c, &slots));
            let columns = columns.collect::<Result<_>>()?;
            self.emit(cx, columns, pairs.to_vec(), out)?;
        }
        for delta in std::mem::take(&mut self.held) {
            let selected = self.selected(Side::Left, &delta);
            let keys = delta.keys(&self.spec.input(Side::Left).key)?;
            let times = delta.rows().column(self.spec.times[Side::Left.index()]);
            let right = cx.state.ranked(self.right);
            let nearest = right.last_before(&keys, times, self.spec.at_it, |row| selected[row]);
            let pair = |(row, right): (u32, Option<u32>)| {
                let weight = delta.weight(row as usize);
                Pair { left: row, right, weight }
            };
            let pairs = (0_u32..).zip(nearest).map(pair).collect();
            self.emit(cx, delta.rows().columns().to_vec(), pairs, out)?;
            self.store(cx, Side::Left, &delta, &selected)?;
        }
        cx.state.ranked(self.right).seal()?;
        cx.state.ranked(self.left).seal()?;
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::operator::testing::{Harness, schema};

    fn spec(forward: bool, at_it: bool, outer: bool) -> AsOfJoinSpec {
        let input = |text| JoinInput { schema: schema(text), key: vec![0], append_only: false };
        let inputs = [input("k:int, t:int, a:text"), input("k:int, t:int, b:text")];
        AsOfJoinSpec { inputs, times: [1, 1], forward, at_it, outer, condition: None }
    }

    #[test]
    fn what_comes_on_the_right_moves_the_left() {
        let spec = spec(false, true, true);
        let [left, right] = [0, 1].map(|i| spec.inputs[i].schema.clone());
        let mut run = Harness::new(&spec);
        run.input(1, &right, "+1 | 1 | 10 | x");
        run.input(0, &left, "+1 | 1 | 9 | a\n+2 | 1 | 15 | b\n+1 | NULL | 1 | n");
        assert_eq!(
            run.flush(),
            "+1 | 1 | 9 | a | NULL | NULL | NULL\n+2 | 1 | 15 | b | 1 | 10 | x\n\
             +1 | NULL | 1 | n | NULL | NULL | NULL"
        );
        run.restore();
        run.input(1, &right, "+1 | 1 | 12 | y\n+1 | 1 | 20 | z");
        assert_eq!(run.flush(), "-2 | 1 | 15 | b | 1 | 10 | x\n+2 | 1 | 15 | b | 1 | 12 | y");
        run.input(1, &right, "-1 | 1 | 10 | x\n-1 | 1 | 12 | y\n+1 | 1 | 8 | w");
        assert_eq!(
            run.flush(),
            "-1 | 1 | 9 | a | NULL | NULL | NULL\n-2 | 1 | 15 | b | 1 | 12 | y\n\
             +1 | 1 | 9 | a | 1 | 8 | w\n+2 | 1 | 15 | b | 1 | 8 | w"
        );
        run.input(0, &left, "-1 | 1 | 15 | b");
        assert_eq!(run.flush(), "-1 | 1 | 15 | b | 1 | 8 | w");
        assert_eq!(run.state_rows(), 4);
    }

    /// Rows and their weights.
    type Twin = std::collections::BTreeMap<(i32, i32, u8), i64>;

    /// A change of some rows, as text; what is there is right afterwards.
    fn change(random: &mut SmallRng, twin: &mut Twin) -> String {
        let mut lines = Vec::new();
        for _ in 0..random.random_range(0..6) {
            let key = (random.random_range(0..2), random.random_range(0..30));
            let row = (key.0, key.1, random.random_range(b'a'..b'd'));
            let weight = twin.entry(row).or_default();
            let by = if *weight > 0 && random.random_bool(0.6) { -1 } else { 1 };
            *weight += by;
            lines.push(format!("{by:+} | {} | {} | {}", row.0, row.1, row.2 as char));
        }
        twin.retain(|_, weight| *weight > 0);
        lines.join("\n")
    }

    fn answer(spec: &AsOfJoinSpec, left: &Twin, right: &Twin) -> String {
        let mut lines = Vec::new();
        for ((k, t, a), weight) in left {
            let near = right.keys().filter(|(of, at, _)| {
                let order = if spec.forward { t.cmp(at).reverse() } else { t.cmp(at) };
                of == k && (order.is_gt() || spec.at_it && order.is_eq())
            });
            let found = match spec.forward {
                true => near.max_by_key(|(_, at, b)| (std::cmp::Reverse(*at), *b)),
                false => near.max_by_key(|(_, at, b)| (*at, *b)),
            };
            let a = *a as char;
            match found {
                Some((_, at, b)) => {
                    lines.push(format!(
                        "{weight:+} | {k} | {t} | {a} | {k} | {at} | {}",
                        *b as char
                    ));
                }
                None if spec.outer => {
                    lines.push(format!("{weight:+} | {k} | {t} | {a} | NULL | NULL | NULL"));
                }
                None => {}
            }
        }
        lines.sort();
        lines.join("\n")
    }

    /// Would find a stretch that is too long or too short, and a row that keeps what it had.
    #[test]
    fn equals_the_nearest_of_all_rows_after_every_change() {
        for seed in 0..40 {
            let mut random = SmallRng::seed_from_u64(seed);
            let spec = spec(random.random(), random.random(), random.random());
            let schemas = [0, 1].map(|i| spec.inputs[i].schema.clone());
            let mut run = Harness::new(&spec);
            let mut twins = [Twin::new(), Twin::new()];
            let mut out = std::collections::BTreeMap::<String, i64>::new();
            for _ in 0..25 {
                for side in [1, 0, 1] {
                    let text = change(&mut random, &mut twins[side]);
                    if !text.is_empty() {
                        run.input(side, &schemas[side], &text);
                    }
                }
                for line in run.flush().lines() {
                    let (weight, row) = line.split_once(" | ").expect("a weight and a row");
                    *out.entry(row.to_owned()).or_default() += weight.parse::<i64>().expect("one");
                }
                out.retain(|_, weight| *weight != 0);
                let mut now: Vec<String> =
                    out.iter().map(|(row, weight)| format!("{weight:+} | {row}")).collect();
                now.sort();
                assert_eq!(now.join("\n"), answer(&spec, &twins[0], &twins[1]), "seed {seed}");
                if random.random_bool(0.2) {
                    run.restore();
                }
            }
        }
    }
}
