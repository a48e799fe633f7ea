//! What lets rows of a join go: the watermarks of both sides.
//!
//! A row may go when nothing that is still to come can be a pair with it. Rows that are late were
//! put aside in front of the join, retractions like inserts, so what comes on a side is at or above
//! that side's watermark. Then a change still finds all that it matches: with `r BETWEEN l AND l +
//! 10`, `l` goes when the right watermark is past `l + 10`, and a change of `r` at or above it has
//! no pair with `l`. A row that comes when it could go already finds its matches, comes out like
//! any other, and is not kept beyond the epoch.
//!
//! Pairs of keys that carry a watermark on both sides pass the lesser one on. Of an interval, rows
//! kept come out again with later rows of the other side, so a side's watermark passes as far back
//! as that reaches.

use std::collections::BTreeMap;

use super::{JoinSpec, Side};
use crate::time::{Watermark, WatermarkMerge};

/// What lets rows of a join go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closes {
    /// Nothing.
    Never,
    /// This pair of keys, the time of a window: no row of a window below both watermarks will come.
    Pair(usize),
    /// Rows match within an interval of time alone.
    Within(Within),
}

/// Times of both sides that a pair has within an interval of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within {
    /// The column of the time, by side.
    pub columns: [usize; 2],
    /// By side: rows whose time is below the other side's watermark plus these microseconds match
    /// nothing that is to come.
    pub offsets: [Option<i64>; 2],
}

impl Within {
    /// The rule for rows of a side in words; `names` are those of the columns.
    pub(super) fn text(&self, side: Side, names: [&str; 2]) -> Option<String> {
        let offset = self.offsets[side.index()]?;
        let (own, other) = (names[side.index()], names[side.other().index()]);
        let sign = if offset > 0 { '-' } else { '+' };
        let distance = match offset.unsigned_abs() {
            0 => String::new(),
            us => format!(" {sign} {}", clock_text(us)),
        };
        let whose = ["right", "left"][side.index()];
        Some(format!("when the {whose} side's watermark of {other} is past {own}{distance}"))
    }
}

impl JoinSpec {
    /// By side: the column whose watermark that of an output column waits for, and by how many
    /// microseconds it has to be past it.
    pub fn waits_of(&self, column: usize) -> [Option<(usize, i64)>; 2] {
        let sides = [Side::Left, Side::Right];
        match self.closes {
            Closes::Never => [None; 2],
            Closes::Pair(_) => {
                let is = |pair: &usize| {
                    let key = |side| self.output(side, self.input(side).key[*pair]);
                    sides.into_iter().any(|side| key(side) == Some(column))
                };
                let pair = (0..self.inputs[0].key.len()).find(is);
                sides.map(|side| Some((self.input(side).key[pair?], 0)))
            }
            Closes::Within(Within { columns, offsets }) => {
                let is = |side: &Side| self.output(*side, columns[side.index()]) == Some(column);
                let own = sides.into_iter().find(is);
                sides.map(|side| {
                    let kept = if own? == side { 0 } else { -offsets[own?.index()]? };
                    Some((columns[side.index()], kept))
                })
            }
        }
    }
}

/// Microseconds as hours, minutes and seconds.
fn clock_text(us: u64) -> String {
    let (seconds, rest) = (us / 1_000_000, us % 1_000_000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let fraction = if rest == 0 { String::new() } else { format!(".{rest:06}") };
    format!("{hours:02}:{minutes:02}:{:02}{fraction}", seconds % 60)
}

/// Where the watermarks of a join stand.
#[derive(Debug)]
pub(super) struct Marks {
    /// Of pairs of keys, over both sides.
    pairs: BTreeMap<usize, WatermarkMerge>,
    /// Of the times of an interval, by side.
    seen: [Watermark; 2],
    /// The times below which rows go, by side.
    closed: [i64; 2],
    /// The time below which keys go.
    pub(super) keys_closed: i64,
}

impl Marks {
    pub(super) fn new() -> Self {
        Self {
            pairs: BTreeMap::new(),
            seen: [Watermark::MIN; 2],
            closed: [i64::MIN; 2],
            keys_closed: i64::MIN,
        }
    }

    /// The time below which rows of a side go.
    pub(super) fn closed(&self, side: Side) -> i64 {
        self.closed[side.index()]
    }

    /// Takes the watermark of a side's column; those of output columns that follow go to `out`.
    pub(super) fn advance(
        &mut self,
        spec: &JoinSpec,
        (side, column): (Side, usize),
        w: Watermark,
        out: &mut Vec<(usize, Watermark)>,
    ) {
        if let Closes::Within(within) = spec.closes
            && within.columns[side.index()] == column
        {
            self.advance_within(spec, within, side, w, out);
        }
        let key = &spec.input(side).key;
        for pair in (0..key.len()).filter(|pair| key[*pair] == column) {
            let merge = self.pairs.entry(pair).or_insert_with(|| WatermarkMerge::new(2));
            let Some(w) = merge.advance(side.index(), w) else { continue };
            if spec.closes == Closes::Pair(pair) {
                self.closed = [w.us(); 2];
                self.keys_closed = w.us();
            }
            for side in [Side::Left, Side::Right] {
                out.extend(spec.output(side, spec.input(side).key[pair]).map(|c| (c, w)));
            }
        }
    }

    fn advance_within(
        &mut self,
        spec: &JoinSpec,
        within: Within,
        side: Side,
        w: Watermark,
        out: &mut Vec<(usize, Watermark)>,
    ) {
        self.seen[side.index()] = w;
        let other = side.other();
        let behind = |side: Side| {
            let offset = within.offsets[side.index()]?;
            Some(shifted(self.seen[side.other().index()], offset))
        };
        if let Some(w) = behind(other) {
            self.closed[other.index()] = w.us();
        }
        // New rows of a side are as late as its own watermark, those kept as the other one lets
        // them be.
        let both = [Side::Left, Side::Right].map(|s| Some((s, behind(s)?)));
        if let [Some(left), Some(right)] = both {
            for (side, kept) in [left, right] {
                let w = kept.meet(self.seen[side.index()]);
                let column = spec.output(side, within.columns[side.index()]);
                out.extend(column.filter(|_| w != Watermark::MIN).map(|c| (c, w)));
            }
        }
    }
}

/// A watermark moved by some microseconds; the infinities stay.
fn shifted(w: Watermark, us: i64) -> Watermark {
    w.map_us(|at| if w.is_finite() { at.saturating_add(us) } else { at })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::datatypes::IntervalMonthDayNano;
    use datafusion::common::{DFSchema, ScalarValue};
    use datafusion::logical_expr::{Expr, col, lit};
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::expr::{ArithOp, Predicate, arith};
    use crate::operator::testing::{Harness, schema};
    use crate::operator::{JoinCondition, JoinInput, JoinKind, NullKeys, OperatorSpec};
    use crate::state::Bound;

    const KINDS: [JoinKind; 10] = [
        JoinKind::Inner,
        JoinKind::Left,
        JoinKind::Right,
        JoinKind::Full,
        JoinKind::LeftSemi,
        JoinKind::RightSemi,
        JoinKind::LeftAnti,
        JoinKind::RightAnti,
        JoinKind::LeftMark,
        JoinKind::RightMark,
    ];

    /// The right time is at most 3 us before the left one and 5 us behind it.
    const SPAN: (i64, i64) = (-3, 5);

    fn condition() -> JoinCondition {
        let schema = schema("t:timestamp, u:timestamp");
        let input = DFSchema::try_from(schema.clone()).expect("a schema");
        let us = |us: i64| -> Expr {
            let v = IntervalMonthDayNano::new(0, 0, us * 1_000);
            lit(ScalarValue::IntervalMonthDayNano(Some(v)))
        };
        let low = col("u").gt_eq(arith(ArithOp::Add, col("t"), us(SPAN.0)));
        let high = col("u").lt_eq(arith(ArithOp::Add, col("t"), us(SPAN.1)));
        let predicate = Arc::new(Predicate::new(&low.and(high), &input).expect("compiles"));
        let columns = vec![(Side::Left, 1), (Side::Right, 1)];
        JoinCondition { columns, schema, predicate, text: "near".into() }
    }

    fn joins(kind: JoinKind, seed: u64) -> [JoinSpec; 2] {
        let pair = seed.is_multiple_of(3);
        let input = |text| JoinInput {
            schema: schema(text),
            key: if pair { vec![0, 1] } else { vec![0] },
            append_only: false,
        };
        let inputs = [input("k:int, t:timestamp"), input("k:int, u:timestamp")];
        let condition = (!pair || seed.is_multiple_of(2)).then(condition);
        let spec = JoinSpec::new(kind, inputs, NullKeys::MatchNothing, condition);
        let closes = match pair {
            true => Closes::Pair(1),
            false => {
                let offsets = match seed % 5 {
                    0 => [None, Some(SPAN.0)],
                    1 => [Some(-SPAN.1), None],
                    _ => [Some(-SPAN.1), Some(SPAN.0)],
                };
                Closes::Within(Within { columns: [1, 1], offsets })
            }
        };
        [spec.clone().closing(closes), spec]
    }

    fn text(time: Option<i64>) -> String {
        time.map_or("NULL".into(), |us| format!("1970-01-01T00:00:00.{us:06}"))
    }

    /// Changes of one epoch that are not late, by side.
    fn changes(
        random: &mut SmallRng,
        rows: &mut BTreeMap<(i32, Option<i64>), i64>,
        watermark: i64,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..random.random_range(0..7) {
            let open = |row: &(i32, Option<i64>)| row.1.is_none_or(|t| t >= watermark);
            let there: Vec<_> = rows.iter().filter(|(row, w)| **w > 0 && open(row)).collect();
            let gone = random.random_bool(0.4) && !there.is_empty();
            let row = match gone {
                true => *there[random.random_range(0..there.len())].0,
                false => {
                    let time = watermark.max(0) + random.random_range(0..14);
                    (random.random_range(0..3), random.random_bool(0.9).then_some(time))
                }
            };
            let weight = if gone { -1 } else { 1 };
            *rows.entry(row).or_default() += weight;
            let key = if row.0 == 2 { "NULL".into() } else { row.0.to_string() };
            lines.push(format!("{weight:+} | {key} | {}", text(row.1)));
        }
        lines
    }

    /// The least time that lines of output have in a column.
    fn least(lines: &str, column: usize) -> i64 {
        let times = lines.lines().filter_map(|line| {
            let value = line.split(" | ").nth(column + 1)?;
            let micros = value.split_once(':').map(|_| value.rsplit_once('.').map_or("0", |v| v.1));
            micros.and_then(|digits| format!("{digits:0<6}").parse().ok())
        });
        times.min().unwrap_or(i64::MAX)
    }

    #[test]
    fn what_is_freed_changes_nothing() {
        for (seed, kind) in (0..30).flat_map(|seed| KINDS.map(|kind| (seed, kind))) {
            let mut random = SmallRng::seed_from_u64(seed);
            let specs = joins(kind, seed);
            let mut runs = [Harness::new(&specs[0]), Harness::new(&specs[1])];
            let mut rows = [BTreeMap::new(), BTreeMap::new()];
            let mut watermarks = [i64::MIN; 2];
            let mut promised: BTreeMap<usize, i64> = BTreeMap::new();
            for epoch in 0..20 {
                for side in [0, 1] {
                    let lines = changes(&mut random, &mut rows[side], watermarks[side]);
                    if !lines.is_empty() {
                        let input = &specs[0].inputs[side].schema;
                        runs.iter_mut().for_each(|r| r.input(side, input, &lines.join("\n")));
                    }
                }
                let mut told = Vec::new();
                for side in [0, 1] {
                    if random.random_bool(0.6) {
                        let w = watermarks[side].max(0) + random.random_range(0..6);
                        watermarks[side] = w;
                        told.extend(runs[0].watermarks(side, 1, w));
                    }
                }
                let [out, expected] = [runs[0].flush(), runs[1].flush()];
                assert_eq!(out, expected, "seed {seed}, {kind:?}, epoch {epoch}");
                for (column, w) in &promised {
                    assert!(least(&out, *column) >= *w, "seed {seed}, {kind:?}, epoch {epoch}");
                }
                promised.extend(told);
                if random.random_bool(0.2) {
                    runs.iter_mut().for_each(Harness::restore);
                    // What has come is told again.
                    (0..2).for_each(|side| drop(runs[0].watermarks(side, 1, watermarks[side])));
                }
            }
            let freed = seed.is_multiple_of(3) || seed % 5 > 1;
            if freed && specs[0].tables().iter().all(|t| !matches!(t.bound, Bound::Unbounded(_))) {
                (0..2).for_each(|side| drop(runs[0].watermarks(side, 1, i64::MAX)));
                assert_eq!(runs[0].flush(), "");
                assert_eq!(runs[0].state_rows(), 0, "seed {seed}, {kind:?}");
            }
        }
    }
}
