//! Top-N: the first rows of each partition in an order. LIMIT and OFFSET (one partition),
//! DISTINCT ON and deduplication (one row each), `row_number`, `rank` or `dense_rank() <= k`.
//!
//! For every partition whose top could have moved in an epoch, `out = -old top + new top`; rows
//! that are in both are not emitted. With the number as a column a row that only shifts is `-` with
//! its old number and `+` with its new one. Ties are broken by the whole row where rows are counted
//! one by one, and peers come and go together where they are not.
//!
//! The input is partitioned by the partition columns (none: one worker). The output retracts.
//! State: one ranked table; of an append-only input it keeps what is in the top, else all rows; the
//! partitions of a window go when it closes. Watermarks of partition columns pass through: no row
//! behind them comes or changes any more.
//!
//! Example, the greatest of each key: `+1 | a | 1`, then `+1 | a | 3` gives `-1 | a | 1`,
//! `+1 | a | 3`.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, new_null_array};
use arrow::datatypes::{DataType, Schema, SchemaRef};

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::config::{BATCH_ROWS, FLUSH_ROWS};
use crate::delta::{DeltaBatch, Weight, batch_of};
use crate::error::Result;
use crate::state::{
    Bound, KeyRequest, Member, OrderBy, Ranked, RankedSpec, Ranking, TableId, TableKind, TableSpec,
    Top,
};
use crate::time::Watermark;

/// What becomes of the numbers of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// The output has no column for them.
    Absent,
    /// It has, but nobody reads it: it is NULL, and rows that only shift are not emitted.
    Unread,
    /// It is the last column.
    Column,
}

/// Plan constants.
#[derive(Debug, Clone)]
pub struct TopNSpec {
    input: SchemaRef,
    append_only: bool,
    partition: Vec<usize>,
    order: Vec<OrderBy>,
    top: Top,
    number: Number,
    schema: SchemaRef,
    closes: Option<usize>,
}

impl TopNSpec {
    /// The top of `input` (with whether it is append-only) by partition and order; `schema` has
    /// the column of numbers behind the others if there is one.
    pub fn new(
        input: (SchemaRef, bool),
        partition: Vec<usize>,
        order: Vec<OrderBy>,
        top: Top,
        number: Number,
        schema: SchemaRef,
    ) -> Self {
        let (input, append_only) = input;
        Self { input, append_only, partition, order, top, number, schema, closes: None }
    }

    /// Says which column of the partition is the time of a window that closes: no row of a closed
    /// window will come.
    #[must_use]
    pub fn closing(self, column: Option<usize>) -> Self {
        Self { closes: column, ..self }
    }
}

impl OperatorSpec for TopNSpec {
    fn name(&self) -> &'static str {
        "TopN"
    }

    fn describe(&self) -> String {
        let name = |c: usize| self.input.field(c).name().as_str();
        let mut parts = Vec::new();
        if !self.partition.is_empty() {
            let names: Vec<&str> = self.partition.iter().map(|c| name(*c)).collect();
            parts.push(format!("by {}", names.join(", ")));
        }
        if !self.order.is_empty() {
            let text = |by: &OrderBy| match by.descending {
                true => format!("{} DESC", name(by.column)),
                false => name(by.column).to_owned(),
            };
            let keys: Vec<String> = self.order.iter().map(text).collect();
            parts.push(format!("order {}", keys.join(", ")));
        }
        let counted = match self.top.ranking {
            Ranking::RowNumber => "rows",
            Ranking::Rank => "rank",
            Ranking::DenseRank => "dense_rank",
        };
        if let Some(limit) = self.top.limit {
            parts.push(format!("{counted} {limit}"));
        }
        if self.top.skip > 0 {
            parts.push(format!("offset {}", self.top.skip));
        }
        parts.join("; ")
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        false
    }

    fn net_columns(&self, _inputs: &[Option<Vec<usize>>]) -> Option<Vec<usize>> {
        // A number is NULL where nobody reads it, and does not tell rows apart.
        let rows = match self.number {
            Number::Column => &self.schema,
            Number::Absent | Number::Unread => &self.input,
        };
        Some((0..rows.fields().len()).collect())
    }

    fn tables(&self) -> Vec<TableSpec> {
        let kept = self.append_only && self.top.limit.is_some();
        let bound = match (kept, self.partition.is_empty()) {
            _ if self.closes.is_some() => self.closes.map_or(Bound::Constant, Bound::Closes),
            (true, true) if self.top.ranking == Ranking::RowNumber => Bound::Constant,
            (true, true) => Bound::Unbounded("ties of the last row"),
            (true, false) => Bound::Unbounded("distinct keys"),
            (false, _) => Bound::Unbounded("rows of its input"),
        };
        vec![TableSpec {
            name: "rows",
            version: 1,
            bound,
            kind: TableKind::Ranked(RankedSpec {
                schema: self.input.clone(),
                partition: self.partition.clone(),
                order: self.order.clone(),
                top: self.top,
                append_only: self.append_only,
                follows: false,
            }),
        }]
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        let (rows, changes) = (tables[0], Changes::default());
        Ok(Box::new(TopN { spec: self.clone(), rows, closed: i64::MIN, next: 0, changes }))
    }
}

struct TopN {
    spec: TopNSpec,
    rows: TableId,
    /// The watermark of the time column.
    closed: i64,
    /// The partition that is flushed next.
    next: usize,
    // Buffers.
    changes: Changes,
}

/// Rows to be emitted.
#[derive(Default)]
struct Changes {
    slots: Vec<u32>,
    weights: Vec<Weight>,
    numbers: Vec<i64>,
}

impl Changes {
    fn push(&mut self, slot: u32, weight: Weight, number: i64) {
        self.slots.push(slot);
        self.weights.push(weight);
        self.numbers.push(number);
    }

    /// The difference of two tops in which a row's number is not looked at.
    fn of_rows(&mut self, table: &Ranked, old: &[Member], new: &[Member]) {
        self.merge(table, old, new, |_, _| true);
    }

    /// The difference of two tops whose members have one number each.
    fn of_ranks(&mut self, table: &Ranked, old: &[Member], new: &[Member]) {
        self.merge(table, old, new, |old, new| old.number == new.number);
    }

    fn merge(
        &mut self,
        table: &Ranked,
        old: &[Member],
        new: &[Member],
        alike: impl Fn(&Member, &Member) -> bool,
    ) {
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(o), Some(n)) => table.compare(o, n),
            };
            let gone = if order.is_le() { old.next() } else { None };
            let come = if order.is_ge() { new.next() } else { None };
            if let (Some(o), Some(n)) = (gone, come)
                && alike(o, n)
            {
                if o.weight != n.weight {
                    self.push(n.slot, n.weight - o.weight, n.number);
                }
                continue;
            }
            gone.into_iter().for_each(|o| self.push(o.slot, -o.weight, o.number));
            come.into_iter().for_each(|n| self.push(n.slot, n.weight, n.number));
        }
    }

    /// The difference of two tops in which every row has its own number: position by position.
    fn of_numbers(&mut self, table: &Ranked, old: &[Member], new: &[Member]) {
        let position = |members: &[Member]| members.first().map_or(i64::MAX, |m| m.number);
        let mut at = position(old).min(position(new));
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        let has = |m: &&&Member, at: i64| m.number <= at;
        loop {
            let (o, n) = (old.peek().copied(), new.peek().copied());
            if o.is_none() && n.is_none() {
                return;
            }
            let (o, n) = (o.filter(|m| has(&m, at)), n.filter(|m| has(&m, at)));
            let same = o.zip(n).is_some_and(|(o, n)| table.compare(o, n).is_eq());
            if !same {
                o.into_iter().for_each(|o| self.push(o.slot, -1, at));
                n.into_iter().for_each(|n| self.push(n.slot, 1, at));
            }
            at += 1;
            old.next_if(|m| m.number + m.weight <= at);
            new.next_if(|m| m.number + m.weight <= at);
        }
    }
}

impl TopN {
    /// Hands out what has gathered.
    fn emit(&mut self, table: &Ranked, out: &mut Output) -> Result<()> {
        let Changes { slots, weights, numbers } = std::mem::take(&mut self.changes);
        let count = slots.len();
        let columns = 0..self.spec.input.fields().len();
        let columns = columns.map(|c| table.gather_column(c, &slots));
        let mut columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        match self.spec.number {
            Number::Absent => {}
            Number::Unread => columns.push(new_null_array(&DataType::Int64, count)),
            Number::Column => columns.push(Arc::new(Int64Array::from(numbers))),
        }
        let rows = batch_of(self.spec.schema.clone(), columns, count)?;
        out.emit(DeltaBatch::new(rows, Int64Array::from(weights)));
        Ok(())
    }
}

impl Operator for TopN {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        let keys = delta.keys(&self.spec.partition)?;
        request.add(self.rows, keys.hashes());
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        _out: &mut Output,
    ) -> Result<Progress> {
        if self.spec.top.limit == Some(0) {
            return Ok(Progress::Done);
        }
        let keys = delta.keys(&self.spec.partition)?;
        cx.state.ranked(self.rows).update(&delta, &keys)?;
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        if Some(column) == self.spec.closes {
            self.closed = w.us();
        }
        if self.spec.partition.contains(&column) {
            out.watermarks.push((column, w));
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        self.next = 0;
        self.resume(cx, out)
    }

    fn resume(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let table = cx.state.ranked(self.rows);
        let mut after = Vec::new();
        let mut looked_at = 0;
        while self.next < table.touched() {
            if looked_at >= FLUSH_ROWS {
                return Ok(Progress::More);
            }
            after.clear();
            table.after(self.next, &mut after);
            let before = table.before(self.next);
            looked_at += 1 + before.len() + after.len();
            match (self.spec.number, self.spec.top.ranking) {
                (Number::Column, Ranking::RowNumber) => {
                    self.changes.of_numbers(table, before, &after);
                }
                (Number::Column, _) => self.changes.of_ranks(table, before, &after),
                _ => self.changes.of_rows(table, before, &after),
            }
            self.next += 1;
            if self.changes.slots.len() >= BATCH_ROWS {
                self.emit(table, out)?;
            }
        }
        if !self.changes.slots.is_empty() {
            self.emit(table, out)?;
        }
        table.seal()?;
        table.expire(self.closed);
        Ok(Progress::Done)
    }
}

/// The schema of a top-N's output whose numbers are a column.
pub fn with_number(input: &SchemaRef, name: &str) -> SchemaRef {
    let mut fields: Vec<_> = input.fields().iter().cloned().collect();
    fields.push(Arc::new(arrow::datatypes::Field::new(name, DataType::Int64, true)));
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::operator::testing::{Harness, schema};

    const INPUT: &str = "k:text, v:int, s:text";

    fn by(column: usize, descending: bool) -> OrderBy {
        OrderBy { column, descending, nulls_first: descending }
    }

    fn spec(
        append_only: bool,
        partition: Vec<usize>,
        order: Vec<OrderBy>,
        (ranking, skip, limit): (Ranking, u64, Option<u64>),
        number: Number,
    ) -> TopNSpec {
        let input = schema(INPUT);
        let output = match number {
            Number::Absent => input.clone(),
            _ => with_number(&input, "n"),
        };
        let top = Top { ranking, skip, limit };
        TopNSpec::new((input, append_only), partition, order, top, number, output)
    }

    #[test]
    fn the_first_of_each_partition_is_replaced_and_comes_back() {
        let top = (Ranking::RowNumber, 0, Some(1));
        let spec = spec(false, vec![0], vec![by(1, true)], top, Number::Absent);
        let mut op = Harness::new(&spec);
        op.input(0, &spec.input, "+1 | a | 1 | x\n+1 | a | 3 | y\n+1 | b | 2 | z");
        assert_eq!(op.flush(), "+1 | a | 3 | y\n+1 | b | 2 | z");
        op.restore();
        op.input(0, &spec.input, "+1 | a | 2 | w\n-1 | b | 2 | z");
        assert_eq!(op.flush(), "-1 | b | 2 | z");
        op.input(0, &spec.input, "-1 | a | 3 | y");
        assert_eq!(op.flush(), "-1 | a | 3 | y\n+1 | a | 2 | w");
        assert_eq!(op.state_rows(), 2);
    }

    #[test]
    fn ties_are_broken_by_the_whole_row_not_by_arrival() {
        let top = (Ranking::RowNumber, 0, Some(2));
        for lines in [["d", "b", "c", "a"], ["a", "b", "c", "d"], ["c", "a", "d", "b"]] {
            let spec = spec(true, vec![], vec![by(1, false)], top, Number::Absent);
            let mut op = Harness::new(&spec);
            for s in lines {
                op.input(0, &spec.input, &format!("+1 | k | 1 | {s}"));
            }
            assert_eq!(op.flush(), "+1 | k | 1 | a\n+1 | k | 1 | b");
            assert_eq!(op.state_rows(), 2);
        }
    }

    #[test]
    fn rows_that_shift_change_their_number() {
        let top = (Ranking::RowNumber, 0, Some(3));
        let spec = spec(true, vec![0], vec![by(1, true)], top, Number::Column);
        let mut op = Harness::new(&spec);
        op.input(0, &spec.input, "+1 | a | 1 | x\n+1 | a | 3 | y\n+1 | a | NULL | n");
        assert_eq!(op.flush(), "+1 | a | 1 | x | 3\n+1 | a | 3 | y | 2\n+1 | a | NULL | n | 1");
        op.input(0, &spec.input, "+1 | a | 2 | w");
        assert_eq!(op.flush(), "-1 | a | 1 | x | 3\n+1 | a | 2 | w | 3");
        op.restore();
        op.input(0, &spec.input, "+1 | a | 3 | a");
        assert_eq!(
            op.flush(),
            "-1 | a | 2 | w | 3\n-1 | a | 3 | y | 2\n+1 | a | 3 | a | 2\n+1 | a | 3 | y | 3"
        );
    }

    #[test]
    fn peers_share_a_rank() {
        let top = (Ranking::Rank, 0, Some(2));
        let ranked = spec(true, vec![0], vec![by(1, false)], top, Number::Column);
        let mut op = Harness::new(&ranked);
        op.input(
            0,
            &ranked.input,
            "+1 | a | 1 | x\n+2 | a | 2 | y\n+1 | a | 2 | z\n+1 | a | 3 | w",
        );
        assert_eq!(op.flush(), "+1 | a | 1 | x | 1\n+2 | a | 2 | y | 2\n+1 | a | 2 | z | 2");
        op.input(0, &ranked.input, "+1 | a | 0 | v");
        assert_eq!(
            op.flush(),
            "-1 | a | 1 | x | 1\n-2 | a | 2 | y | 2\n-1 | a | 2 | z | 2\n\
             +1 | a | 0 | v | 1\n+1 | a | 1 | x | 2"
        );
        assert_eq!(op.state_rows(), 2);
        let top = (Ranking::DenseRank, 0, Some(2));
        let dense = spec(false, vec![0], vec![by(1, false)], top, Number::Column);
        let mut op = Harness::new(&dense);
        op.input(0, &dense.input, "+1 | a | 1 | x\n+2 | a | 2 | y\n+1 | a | 3 | w");
        assert_eq!(op.flush(), "+1 | a | 1 | x | 1\n+2 | a | 2 | y | 2");
        op.input(0, &dense.input, "-2 | a | 2 | y");
        assert_eq!(op.flush(), "-2 | a | 2 | y | 2\n+1 | a | 3 | w | 2");
    }

    #[test]
    fn an_offset_skips_duplicates_one_by_one() {
        let top = (Ranking::RowNumber, 1, Some(2));
        let spec = spec(false, vec![], vec![by(1, false)], top, Number::Absent);
        let mut op = Harness::new(&spec);
        op.input(0, &spec.input, "+3 | a | 1 | x\n+1 | a | 2 | y");
        assert_eq!(op.flush(), "+2 | a | 1 | x");
        op.input(0, &spec.input, "-2 | a | 1 | x");
        assert_eq!(op.flush(), "-2 | a | 1 | x\n+1 | a | 2 | y");
        op.input(0, &spec.input, "-1 | a | 1 | x\n+1 | a | 1 | x");
        assert_eq!(op.flush(), "");
    }

    #[test]
    fn the_partitions_of_a_window_go_when_it_closes() {
        let input = schema("e:timestamp, v:int");
        let top = Top { ranking: Ranking::RowNumber, skip: 0, limit: Some(1) };
        let order = vec![by(1, true)];
        let rows = (input.clone(), false);
        let spec = TopNSpec::new(rows, vec![0], order, top, Number::Absent, input);
        let spec = spec.closing(Some(0));
        let time = |us: i64| format!("1970-01-01T00:00:00.{us:06}");
        let mut op = Harness::new(&spec);
        let rows = format!("+1 | {0} | 1\n+1 | {0} | 2\n+1 | {1} | 3", time(10), time(20));
        op.input(0, &spec.input, &format!("{rows}\n+1 | NULL | 4"));
        assert_eq!(op.watermark(0, 0, 10), Some(10));
        assert_eq!(op.flush().lines().count(), 3);
        assert_eq!(op.state_rows(), 4);
        op.restore();
        // The epoch that changes a window can close it.
        op.input(0, &spec.input, &format!("-1 | {} | 2", time(10)));
        op.watermark(0, 0, 11);
        assert_eq!(op.flush().lines().count(), 2);
        assert_eq!(op.state_rows(), 2);
        // What is freed is used again.
        op.input(0, &spec.input, &format!("+1 | {} | 5\n+1 | {} | 6", time(30), time(20)));
        op.watermark(0, 0, 21);
        assert_eq!(op.flush().lines().count(), 3);
        assert_eq!(op.state_rows(), 2);
        op.watermark(0, 0, i64::MAX);
        assert_eq!(op.flush(), "");
        assert_eq!(op.state_rows(), 1);
    }

    #[test]
    fn a_retraction_may_come_before_its_insert() {
        let top = (Ranking::RowNumber, 0, Some(1));
        let spec = spec(false, vec![0], vec![by(1, false)], top, Number::Absent);
        let mut op = Harness::new(&spec);
        op.input(0, &spec.input, "+1 | a | 2 | x");
        op.flush();
        op.input(0, &spec.input, "-1 | a | 1 | y");
        op.input(0, &spec.input, "+1 | a | 1 | y");
        assert_eq!(op.flush(), "");
        assert_eq!(op.state_rows(), 1);
    }

    /// The top by definition: all rows sorted and counted.
    fn naive(rows: &BTreeMap<Row, i64>, top: (Ranking, u64, Option<u64>)) -> Vec<(Row, i64)> {
        let mut partitions: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for (row, weight) in rows {
            for _ in 0..*weight {
                partitions.entry(row.0.as_str()).or_default().push(row);
            }
        }
        let mut found = Vec::new();
        for rows in partitions.values_mut() {
            // Descending values, then the rest of the row.
            rows.sort_by_key(|r| (std::cmp::Reverse(r.1), r.2.clone()));
            let (mut rank, mut dense) = (0, 0);
            for (i, row) in rows.iter().enumerate() {
                if i == 0 || rows[i - 1].1 != row.1 {
                    (rank, dense) = (i as i64 + 1, dense + 1);
                }
                let number = match top.0 {
                    Ranking::RowNumber => i as i64 + 1,
                    Ranking::Rank => rank,
                    Ranking::DenseRank => dense,
                };
                let end = top.2.map_or(i64::MAX, |l| (top.1 + l) as i64);
                if number > top.1 as i64 && number <= end {
                    found.push(((*row).clone(), number));
                }
            }
        }
        found
    }

    type Row = (String, i32, String);

    #[test]
    fn random_changes_equal_sorting_and_counting() {
        for seed in 0..60 {
            let mut random = SmallRng::seed_from_u64(seed);
            let append_only = random.random_bool(0.4);
            let ranking = [Ranking::RowNumber, Ranking::Rank, Ranking::DenseRank]
                [random.random_range(0..3_usize)];
            let skip = if ranking == Ranking::RowNumber { random.random_range(0..3) } else { 0 };
            let limit = random.random_bool(0.9).then(|| random.random_range(1..5_u64));
            let top = (ranking, skip, limit);
            let number = if random.random_bool(0.5) { Number::Column } else { Number::Absent };
            let spec = spec(append_only, vec![0], vec![by(1, true)], top, number);
            let mut op = Harness::new(&spec);
            let mut rows: BTreeMap<Row, i64> = BTreeMap::new();
            let mut held: BTreeMap<String, i64> = BTreeMap::new();
            let values = if seed % 10 == 0 { 1_000 } else { 6 };
            for epoch in 0..12 {
                let mut lines = Vec::new();
                for _ in 0..random.random_range(1..if values > 100 { 200 } else { 12 }) {
                    let some = rows.iter().filter(|(_, w)| **w > 0).nth(random.random_range(0..9));
                    let row = match some.map(|(row, _)| row.clone()) {
                        Some(row) if random.random_bool(0.4) => row,
                        _ => (
                            ["a", "b"][random.random_range(0..2_usize)].to_owned(),
                            random.random_range(0..values),
                            ["x", "y", "z"][random.random_range(0..3_usize)].to_owned(),
                        ),
                    };
                    let weight = rows.entry(row.clone()).or_default();
                    let change = match append_only || *weight == 0 || random.random_bool(0.4) {
                        true => 1,
                        false => -1,
                    };
                    *weight += change;
                    lines.push(format!("{change:+} | {} | {} | {}", row.0, row.1, row.2));
                }
                for batch in lines.chunks(5) {
                    op.input(0, &spec.input, &batch.join("\n"));
                }
                for line in op.flush().lines() {
                    let (weight, row) = line.split_once(" | ").expect("a weight and a row");
                    *held.entry(row.to_owned()).or_default() += weight.parse::<i64>().expect("int");
                }
                held.retain(|_, w| *w != 0);
                let mut expected: BTreeMap<String, i64> = BTreeMap::new();
                for (row, n) in naive(&rows, top) {
                    let mut text = format!("{} | {} | {}", row.0, row.1, row.2);
                    if number == Number::Column {
                        text += &format!(" | {n}");
                    }
                    *expected.entry(text).or_default() += 1;
                }
                assert_eq!(held, expected, "seed {seed}, epoch {epoch}, {top:?}");
                if random.random_bool(0.2) {
                    op.restore();
                }
            }
        }
    }
}
