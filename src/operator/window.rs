//! Window: functions over the rows around a row, `sum(x) OVER (PARTITION BY .. ORDER BY ..)`.
//!
//! For every partition that changes in an epoch, `out = -f(old rows) + f(new rows)`, rows that come
//! out equal left out. Where all functions look so far in front of a row and behind it (`lag`,
//! frames with two ends, in ROWS, RANGE or GROUPS), they are evaluated on the rows around a change,
//! so it costs as much as it can change. So are running totals ([`running`]), on the rows behind a
//! change, whose totals it moves, and running minima, maxima and first values, with the one row in
//! front of them that stands for all there. All others are evaluated anew on all rows of the
//! partition. A row of weight n is n rows. Rows are sorted by partition, order and whole row, so
//! that the result depends neither on arrival nor on batches.
//!
//! The input is partitioned by the partition columns (none: one worker). The output retracts.
//! State: one ranked table with all rows; the partitions of a window go when it closes. Watermarks
//! of partition columns pass through.
//!
//! A partition for which a function fails (an overflow) has an error row in place of its rows until
//! it changes.
//!
//! Example, a running sum: `+1 | a | 1`, `+1 | a | 5` gives `+1 | a | 1 | 1`, `+1 | a | 5 | 6`;
//! then `+1 | a | 2` gives `-1 | a | 5 | 6`, `+1 | a | 2 | 3`, `+1 | a | 5 | 8`.

mod running;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{concat, filter_record_batch};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress, error_rows};
use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Order, Weight, batch_of, consolidate};
use crate::error::{Error, Result};
use crate::expr::WindowCalls;
use crate::state::{
    Bound, KeyRequest, Lead, Member, OrderBy, Ranked, RankedSpec, Ranking, Reach, Run, Runs,
    TableId, TableKind, TableSpec, Top,
};
use crate::time::Watermark;

use running::Total;
pub use running::{Running, Totals};

/// Plan constants.
#[derive(Debug, Clone)]
pub struct WindowSpec {
    /// The rows of its input.
    pub input: SchemaRef,
    /// How many of their columns the functions read and the output has; those behind are computed
    /// for partition and order alone.
    pub width: usize,
    /// The columns of PARTITION BY.
    pub partition: Vec<usize>,
    /// ORDER BY.
    pub order: Vec<OrderBy>,
    /// The functions.
    pub calls: WindowCalls,
    /// How far all of them look, where that is known; then none fails.
    pub reach: Option<Reach>,
    /// The functions among them that count the rows up to a row.
    pub numbers: Vec<usize>,
    /// Those that are totals of the rows up to a row.
    pub running: Vec<Running>,
    /// What stands for the rows in front of a run, for those that look at all from the first on.
    pub leads: Vec<Lead>,
    /// The functions, for EXPLAIN.
    pub text: String,
    /// The rows of its output: columns of the input and results.
    pub schema: SchemaRef,
    /// The column of the partition that is the time of a window that closes: no row of a closed
    /// window will come.
    pub closes: Option<usize>,
}

impl OperatorSpec for WindowSpec {
    fn name(&self) -> &'static str {
        "Window"
    }

    fn describe(&self) -> String {
        self.text.clone()
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        false
    }

    fn can_fail(&self) -> bool {
        true
    }

    fn tables(&self) -> Vec<TableSpec> {
        let rows = TableSpec {
            name: "rows",
            version: 1,
            bound: self.closes.map_or(Bound::Unbounded("rows of its input"), Bound::Closes),
            kind: TableKind::Ranked(RankedSpec {
                schema: self.input.clone(),
                partition: self.partition.clone(),
                order: self.order.clone(),
                top: Top { ranking: Ranking::RowNumber, skip: 0, limit: None },
                append_only: false,
                follows: self.reach.is_some(),
            }),
        };
        if self.running.is_empty() {
            return vec![rows];
        }
        let bound = self.closes.map_or(Bound::Unbounded("partitions"), Bound::Closes);
        let by = (&self.input, self.partition.as_slice());
        let totals = running::totals_table(&self.running, by, bound);
        vec![rows, totals]
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        let spec = self.clone();
        Ok(Box::new(Window {
            spec,
            rows: tables[0],
            totals: tables.get(1).copied(),
            touched: Vec::new(),
            closed: i64::MIN,
            next: 0,
            runs: None,
        }))
    }
}

struct Window {
    spec: WindowSpec,
    rows: TableId,
    totals: Option<TableId>,
    /// Totals that have changed in this epoch.
    touched: Vec<u32>,
    /// The watermark of the time column.
    closed: i64,
    /// The partition that is flushed next.
    next: usize,
    /// What is flushed next of what changes by runs.
    runs: Option<Runs>,
}

/// Partitions whose rows are gathered together.
#[derive(Default)]
struct Piece {
    /// The rows, those with a weight above one several times.
    slots: Vec<u32>,
    /// What comes out of them; zero of what is there to be looked at.
    weights: Vec<Weight>,
    /// Where each run of rows of one partition and one moment ends, and what of its partition lies
    /// in front of it.
    ends: Vec<(usize, Ahead)>,
}

/// What lies in front of a run.
#[derive(Debug, Clone, Default)]
struct Ahead {
    rows: Weight,
    /// By running total.
    totals: Vec<Total>,
}

impl Piece {
    fn add(&mut self, members: &[Member], sign: Weight) {
        members.iter().for_each(|member| self.push(member.slot, member.weight, sign));
        self.end(Ahead::default());
    }

    /// The rows of a run as they were and as they are.
    fn add_run(&mut self, run: &Run, totals: Vec<Total>) {
        let ahead = Ahead { rows: run.ahead, totals };
        let weight = |may_differ, sign| if may_differ { sign } else { 0 };
        run.rows.iter().for_each(|row| self.push(row.slot, row.old, weight(row.may_differ, -1)));
        self.end(ahead.clone());
        run.rows.iter().for_each(|row| self.push(row.slot, row.new, weight(row.may_differ, 1)));
        self.end(ahead);
    }

    fn push(&mut self, slot: u32, times: Weight, weight: Weight) {
        for _ in 0..times {
            self.slots.push(slot);
            self.weights.push(weight);
        }
    }

    fn end(&mut self, ahead: Ahead) {
        if self.slots.len() > self.ends.last().map_or(0, |(end, _)| *end) {
            self.ends.push((self.slots.len(), ahead));
        }
    }
}

impl Window {
    /// The rows of a piece with their results; runs that fail are left out and go to the errors.
    fn emit(&self, table: &Ranked, piece: Piece, out: &mut Output) -> Result<()> {
        let width = self.spec.width;
        let columns = (0..width).map(|c| table.gather_column(c, &piece.slots));
        let columns = columns.collect::<Result<_>>()?;
        let columns_only: Vec<usize> = (0..width).collect();
        let schema = Arc::new(self.spec.input.project(&columns_only)?);
        let rows = batch_of(schema, columns, piece.slots.len())?;
        let (mut parts, mut failed) = (Vec::new(), Vec::new());
        let mut weights: Vec<Weight> = Vec::with_capacity(piece.weights.len());
        let mut start = 0;
        for (end, ahead) in piece.ends {
            let run = rows.slice(start, end - start);
            match self.results(&run, &ahead) {
                Ok(results) => {
                    let columns = run.columns().iter().cloned().chain(results).collect();
                    let rows = batch_of(self.spec.schema.clone(), columns, run.num_rows())?;
                    let of = &piece.weights[start..end];
                    if of.contains(&0) {
                        let comes = BooleanArray::from_iter(of.iter().map(|w| Some(*w != 0)));
                        parts.push(filter_record_batch(&rows, &comes)?);
                    } else {
                        parts.push(rows);
                    }
                    weights.extend(of.iter().filter(|weight| **weight != 0));
                }
                Err(error) if self.spec.reach.is_some() => return Err(error),
                Err(error) => failed.push((piece.slots[start], piece.weights[start], error)),
            }
            start = end;
        }
        self.emit_errors(table, failed, out)?;
        if parts.is_empty() {
            return Ok(());
        }
        let columns = (0..self.spec.schema.fields().len()).map(|c| {
            let arrays: Vec<&dyn Array> = parts.iter().map(|p| p.column(c).as_ref()).collect();
            concat(&arrays)
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let rows = batch_of(self.spec.schema.clone(), columns, weights.len())?;
        let delta = DeltaBatch::new(rows, Int64Array::from(weights));
        out.emit(consolidate(&delta, Order::Input)?);
        Ok(())
    }

    fn next_run(&mut self, cx: &mut Context<'_>, reach: Reach) -> Option<Run> {
        cx.state.ranked(self.rows).run(self.runs.as_mut()?, reach, &self.spec.leads)
    }

    /// The totals of what lies in front of a run.
    fn totals_ahead(&self, cx: &mut Context<'_>, run: &Run) -> Result<Vec<Total>> {
        let (Some(totals), Some(first)) = (self.totals, run.rows.first()) else {
            return Ok(Vec::new());
        };
        let (rows, spec) = (cx.state.ranked(self.rows), &self.spec);
        let own = running::of_run(rows, run, &spec.running)?;
        let key = running::key_of(rows, first.slot, (&spec.input, &spec.partition))?;
        Ok(running::ahead(cx.state.groups(totals), &spec.running, &key, &own))
    }

    /// The results for the rows of a run, with what lies in front of it.
    fn results(&self, run: &RecordBatch, ahead: &Ahead) -> Result<Vec<ArrayRef>> {
        let mut results = self.spec.calls.evaluate(run)?;
        for number in self.spec.numbers.iter().filter(|_| ahead.rows > 0) {
            let numbers = results[*number].as_primitive::<Int64Type>();
            let number_of = |number| number + ahead.rows;
            results[*number] = Arc::new(numbers.unary::<_, Int64Type>(number_of));
        }
        for (running, total) in self.spec.running.iter().zip(&ahead.totals) {
            results[running.call] = running::added(&results[running.call], running, *total)?;
        }
        Ok(results)
    }

    /// Error rows of partitions, told by their keys; `failed` has a row of each.
    fn emit_errors(
        &self,
        table: &Ranked,
        failed: Vec<(u32, Weight, Error)>,
        out: &mut Output,
    ) -> Result<()> {
        if failed.is_empty() {
            return Ok(());
        }
        let slots: Vec<u32> = failed.iter().map(|(slot, ..)| *slot).collect();
        let fields: Schema = self.spec.input.project(&self.spec.partition)?;
        let columns = self.spec.partition.iter().map(|c| table.gather_column(*c, &slots));
        let columns = columns.collect::<Result<_>>()?;
        let keys: RecordBatch = batch_of(Arc::new(fields), columns, slots.len())?;
        let rows: Vec<(usize, Weight, &str, String)> = failed
            .iter()
            .enumerate()
            .map(|(i, (_, weight, e))| (i, *weight, e.sqlstate(), e.message().to_owned()))
            .collect();
        let errors = error_rows("Window", &keys, &rows)?;
        let errors = consolidate(&errors, Order::Input)?;
        if !errors.is_empty() {
            out.errors.push(errors);
        }
        Ok(())
    }
}

impl Operator for Window {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        let keys = delta.keys(&self.spec.partition)?;
        request.add(self.rows, keys.hashes());
        if let Some(totals) = self.totals {
            request.add(totals, keys.hashes());
        }
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        _out: &mut Output,
    ) -> Result<Progress> {
        let keys = delta.keys(&self.spec.partition)?;
        cx.state.ranked(self.rows).update(&delta, &keys)?;
        if let Some(totals) = self.totals {
            let (spec, table) = (&self.spec, cx.state.groups(totals));
            let rows = (&delta, keys.as_ref());
            running::add(table, &spec.running, rows, spec.closes, &mut self.touched)?;
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        if Some(column) == self.spec.closes {
            self.closed = w.us();
        }
        if self.spec.partition.contains(&column) && column < self.spec.width {
            out.watermarks.push((column, w));
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        self.next = 0;
        self.runs = self.spec.reach.map(|_| cx.state.ranked(self.rows).runs());
        self.resume(cx, out)
    }

    fn resume(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let mut piece = Piece::default();
        if let Some(reach) = self.spec.reach {
            while let Some(run) = self.next_run(cx, reach) {
                let totals = self.totals_ahead(cx, &run)?;
                piece.add_run(&run, totals);
                if piece.slots.len() >= BATCH_ROWS {
                    self.emit(cx.state.ranked(self.rows), piece, out)?;
                    return Ok(Progress::More);
                }
            }
            self.next = cx.state.ranked(self.rows).touched();
        }
        let table = cx.state.ranked(self.rows);
        let mut after = Vec::new();
        while self.next < table.touched() && piece.slots.len() < BATCH_ROWS {
            after.clear();
            table.after(self.next, &mut after);
            piece.add(table.before(self.next), -1);
            piece.add(&after, 1);
            self.next += 1;
        }
        if !piece.slots.is_empty() {
            self.emit(table, piece, out)?;
        }
        if self.next < table.touched() {
            return Ok(Progress::More);
        }
        table.seal()?;
        table.expire(self.closed);
        if let Some(totals) = self.totals {
            let table = cx.state.groups(totals);
            running::release(table, &mut self.touched);
            table.expire(self.closed);
        }
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::datatypes::DataType;
    use datafusion::common::{DFSchema, ScalarValue};
    use datafusion::functions_aggregate::count::count_udaf;
    use datafusion::functions_aggregate::first_last::first_value_udaf;
    use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
    use datafusion::functions_aggregate::sum::sum_udaf;
    use datafusion::functions_window::lead_lag::{lag_udwf, lead_udwf};
    use datafusion::functions_window::row_number::row_number_udwf;
    use datafusion::logical_expr::expr::WindowFunction;
    use datafusion::logical_expr::{
        AggregateUDF, Expr, WindowFrame, WindowFrameBound, WindowFrameUnits,
        WindowFunctionDefinition, col, lit,
    };
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::operator::testing::{Harness, schema};
    use crate::state::Sides;

    const INPUT: &str = "k:int, o:int, v:int";

    /// lag(v, back), lead(v, ahead), how many rows there are from `back` in front to `ahead`
    /// behind, and how many there are up to a row, or another time the same.
    fn spec((back, ahead): (i64, i64), numbers: bool, reach: bool) -> WindowSpec {
        let input = schema(INPUT);
        let rows = DFSchema::try_from(input.as_ref().clone()).expect("a schema");
        let call = |fun: WindowFunctionDefinition, args: Vec<Expr>| {
            let mut call = WindowFunction::new(fun, args);
            call.params.partition_by = vec![col("k")];
            call.params.order_by = vec![
                col("o").sort(true, false),
                col("k").sort(true, false),
                col("v").sort(true, false),
            ];
            let end = |by: i64| ScalarValue::UInt64(Some(by as u64));
            call.params.window_frame = WindowFrame::new_bounds(
                WindowFrameUnits::Rows,
                WindowFrameBound::Preceding(end(back)),
                WindowFrameBound::Following(end(ahead)),
            );
            Expr::WindowFunction(Box::new(call))
        };
        let shift =
            |fun, by| call(WindowFunctionDefinition::WindowUDF(fun), vec![col("v"), lit(by)]);
        let count = || WindowFunctionDefinition::AggregateUDF(count_udaf());
        let number = match numbers {
            true => call(WindowFunctionDefinition::WindowUDF(row_number_udwf()), Vec::new()),
            false => call(count(), vec![lit(1)]),
        };
        let calls = [
            shift(lag_udwf(), back),
            shift(lead_udwf(), ahead),
            call(count(), vec![lit(1)]),
            number,
        ];
        let results = schema("one:int, two:int, n:bigint, m:bigint");
        let calls = WindowCalls::new(&calls, &rows, results).expect("compiles");
        WindowSpec {
            input,
            width: 3,
            partition: vec![0],
            order: vec![OrderBy { column: 1, descending: false, nulls_first: false }],
            calls,
            reach: reach.then_some(Reach { before: back, after: ahead, numbers, ..Reach::ALONE }),
            numbers: if numbers && reach { vec![3] } else { Vec::new() },
            running: Vec::new(),
            leads: Vec::new(),
            text: String::new(),
            schema: schema("k:int, o:int, v:int, one:int, two:int, n:bigint, m:bigint"),
            closes: None,
        }
    }

    /// count(*), max(v) and sum(v) over a frame in RANGE or GROUPS, down or up.
    fn framed(units: WindowFrameUnits, (back, ahead): (i64, i64), reach: bool) -> WindowSpec {
        let input = schema(INPUT);
        let rows = DFSchema::try_from(input.as_ref().clone()).expect("a schema");
        let descending = (back + ahead) % 2 == 1;
        let call = |fun: Arc<AggregateUDF>| {
            let fun = WindowFunctionDefinition::AggregateUDF(fun);
            let mut call = WindowFunction::new(fun, vec![col("v")]);
            call.params.partition_by = vec![col("k")];
            call.params.order_by = vec![col("o").sort(!descending, false)];
            let end = |by: i64| match units {
                WindowFrameUnits::Range => ScalarValue::Int32(Some(by as i32)),
                _ => ScalarValue::UInt64(Some(by as u64)),
            };
            let (start, end) = match ahead {
                0 => (WindowFrameBound::Preceding(end(back)), WindowFrameBound::CurrentRow),
                _ => {
                    let start = WindowFrameBound::Preceding(end(back));
                    (start, WindowFrameBound::Following(end(ahead)))
                }
            };
            call.params.window_frame = WindowFrame::new_bounds(units, start, end);
            Expr::WindowFunction(Box::new(call))
        };
        let calls = [count_udaf(), max_udaf()].map(call);
        let results = schema("n:bigint, most:int");
        let calls = WindowCalls::new(&calls, &rows, results).expect("compiles");
        let sides = Some(Sides { before: back, after: ahead });
        let reach = reach.then_some(match units {
            WindowFrameUnits::Range => Reach { span: sides, ..Reach::ALONE },
            _ => Reach { groups: sides, ..Reach::ALONE },
        });
        WindowSpec {
            input,
            width: 3,
            partition: vec![0],
            order: vec![OrderBy { column: 1, descending, nulls_first: false }],
            calls,
            reach,
            numbers: Vec::new(),
            running: Vec::new(),
            leads: Vec::new(),
            text: String::new(),
            schema: schema("k:int, o:int, v:int, n:bigint, most:int"),
            closes: None,
        }
    }

    /// Would find a run that is too short, or of which a row does not come out that should.
    #[test]
    fn runs_give_what_whole_partitions_do() {
        for seed in 0..60 {
            let mut random = SmallRng::seed_from_u64(seed);
            let sides = (random.random_range(0..4), random.random_range(0..4));
            let numbers = random.random();
            let specs = [true, false].map(|reach| spec(sides, numbers, reach));
            compare(specs, &mut random, &format!("seed {seed}, {sides:?}"));
        }
    }

    #[test]
    fn runs_by_value_and_by_groups_give_what_whole_partitions_do() {
        for seed in 0..80 {
            let mut random = SmallRng::seed_from_u64(seed);
            let units = [WindowFrameUnits::Range, WindowFrameUnits::Groups];
            let units = units[seed as usize % 2];
            let sides = (random.random_range(0..4), random.random_range(0..4));
            let specs = [true, false].map(|reach| framed(units, sides, reach));
            compare(specs, &mut random, &format!("seed {seed}, {units} {sides:?}"));
        }
    }

    /// sum(o), count(o), count(*), max(o), min(o) and first_value(o) up to a row, or up to the last
    /// one that is equal in the order.
    fn totals(units: WindowFrameUnits, reach: bool) -> WindowSpec {
        let input = schema(INPUT);
        let rows = DFSchema::try_from(input.as_ref().clone()).expect("a schema");
        let call = |fun: Arc<AggregateUDF>, arg: Expr| {
            let fun = WindowFunctionDefinition::AggregateUDF(fun);
            let mut call = WindowFunction::new(fun, vec![arg]);
            call.params.partition_by = vec![col("k")];
            call.params.order_by = match units {
                WindowFrameUnits::Rows => {
                    ["v", "k", "o"].map(|c| col(c).sort(true, false)).to_vec()
                }
                _ => vec![col("v").sort(true, false)],
            };
            call.params.window_frame = WindowFrame::new_bounds(
                units,
                WindowFrameBound::Preceding(match units {
                    WindowFrameUnits::Rows => ScalarValue::UInt64(None),
                    _ => ScalarValue::Null,
                }),
                WindowFrameBound::CurrentRow,
            );
            Expr::WindowFunction(Box::new(call))
        };
        let wide = datafusion::logical_expr::cast(col("o"), DataType::Int64);
        let calls = [
            call(sum_udaf(), wide),
            call(count_udaf(), col("o")),
            call(count_udaf(), lit(1)),
            call(max_udaf(), col("o")),
            call(min_udaf(), col("o")),
            call(first_value_udaf(), col("o")),
        ];
        let results = schema("total:bigint, n:bigint, m:bigint, most:int, least:int, first:int");
        let calls = WindowCalls::new(&calls, &rows, results).expect("compiles");
        let of = |call, argument, total| Running { call, argument, total };
        let running = [
            of(0, Some(1), Totals::Sum),
            of(1, Some(1), Totals::Count),
            of(2, None, Totals::Count),
        ];
        let leads = vec![Lead::Greatest(1), Lead::Least(1), Lead::First];
        let groups = (units != WindowFrameUnits::Rows).then_some(Sides { before: 0, after: 0 });
        WindowSpec {
            input,
            width: 3,
            partition: vec![0],
            order: vec![OrderBy { column: 2, descending: false, nulls_first: false }],
            calls,
            reach: reach.then_some(Reach { numbers: true, groups, ..Reach::ALONE }),
            numbers: Vec::new(),
            running: if reach { running.to_vec() } else { Vec::new() },
            leads: if reach { leads } else { Vec::new() },
            text: String::new(),
            schema: schema(
                "k:int, o:int, v:int, total:bigint, n:bigint, m:bigint, most:int, least:int, \
                 first:int",
            ),
            closes: None,
        }
    }

    #[test]
    fn running_totals_give_what_whole_partitions_do() {
        for seed in 0..60 {
            let mut random = SmallRng::seed_from_u64(seed);
            let units = [WindowFrameUnits::Rows, WindowFrameUnits::Range][seed as usize % 2];
            let specs = [true, false].map(|reach| totals(units, reach));
            compare(specs, &mut random, &format!("seed {seed}, {units}"));
        }
    }

    /// Random changes come out alike by runs and by whole partitions.
    fn compare([by_runs, whole]: [WindowSpec; 2], random: &mut SmallRng, case: &str) {
        let (mut by_runs, mut whole) = (Harness::new(&by_runs), Harness::new(&whole));
        let mut there = BTreeMap::<(i32, i32, i32), i64>::new();
        for epoch in 0..15 {
            let mut lines = Vec::new();
            for _ in 0..random.random_range(0..if epoch == 0 { 60 } else { 8 }) {
                let place = random.random_range(0..42);
                let row = (random.random_range(0..2), place, random.random_range(0..3));
                let weight = there.entry(row).or_default();
                let by = if *weight > 0 && random.random_bool(0.6) { -1 } else { 1 };
                *weight += by;
                let place = if place < 40 { place.to_string() } else { "NULL".to_owned() };
                lines.push(format!("{by:+} | {} | {place} | {}", row.0, row.2));
            }
            if !lines.is_empty() {
                by_runs.input(0, &schema(INPUT), &lines.join("\n"));
                whole.input(0, &schema(INPUT), &lines.join("\n"));
            }
            assert_eq!(by_runs.flush(), whole.flush(), "{case}");
            if random.random_bool(0.2) {
                by_runs.restore();
            }
        }
    }
}
