//! Tests of the join by kind, and all kinds against a plain recomputation.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::logical_expr::col;

use super::*;
use crate::delta::{Order, consolidate};
use crate::operator::testing::{Harness, parse, schema};
use crate::state::{ResultSpec, ResultTable};
use crate::time::Epoch;

const LEFT: &str = "k:int, a:int";
const RIGHT: &str = "k:int, b:int";

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

fn inputs(append_only: bool) -> [JoinInput; 2] {
    let input = |text| JoinInput { schema: schema(text), key: vec![0], append_only };
    [input(LEFT), input(RIGHT)]
}

fn join(kind: JoinKind) -> JoinSpec {
    JoinSpec::new(kind, inputs(false), NullKeys::MatchNothing, None)
}

/// `a < b`, and 10 / b fails when b is zero.
fn less() -> Option<JoinCondition> {
    let schema = schema("a:int, b:int");
    let input = DFSchema::try_from(schema.clone()).expect("a schema");
    let ten = datafusion::logical_expr::lit(10i32);
    let quotient = crate::expr::arith(crate::expr::ArithOp::Div, ten, col("b"));
    let condition = col("a").lt(col("b")).or(quotient.gt(datafusion::logical_expr::lit(100i32)));
    let predicate = Arc::new(Predicate::new(&condition, &input).expect("compiles"));
    let columns = vec![(Side::Left, 1), (Side::Right, 1)];
    Some(JoinCondition { columns, schema, predicate, text: "a < b".into() })
}

struct Run<'a> {
    spec: &'a JoinSpec,
    harness: Harness<'a>,
}

impl<'a> Run<'a> {
    fn new(spec: &'a JoinSpec) -> Self {
        Self { spec, harness: Harness::new(spec) }
    }

    fn left(&mut self, text: &str) {
        self.harness.input(0, &self.spec.inputs[0].schema, text);
    }

    fn right(&mut self, text: &str) {
        self.harness.input(1, &self.spec.inputs[1].schema, text);
    }
}

/// Left rows of three keys (one NULL), then a right row comes and goes; what each epoch says.
fn come_and_go(spec: &JoinSpec) -> [String; 3] {
    let mut run = Run::new(spec);
    run.left("+1 | 1 | 5\n+2 | 2 | 6\n+1 | NULL | 7");
    let first = run.harness.flush();
    run.harness.restore();
    run.right("+1 | 1 | 9\n+1 | NULL | 8\n+1 | 3 | 9");
    let second = run.harness.flush();
    run.harness.restore();
    run.right("-1 | 1 | 9");
    [first, second, run.harness.flush()]
}

#[test]
fn left_rows_lose_their_nulls_while_something_matches() {
    let [first, second, third] = come_and_go(&join(JoinKind::Left));
    assert_eq!(
        first,
        "+1 | 1 | 5 | NULL | NULL\n+2 | 2 | 6 | NULL | NULL\n+1 | NULL | 7 | NULL | NULL"
    );
    assert_eq!(second, "-1 | 1 | 5 | NULL | NULL\n+1 | 1 | 5 | 1 | 9");
    assert_eq!(third, "-1 | 1 | 5 | 1 | 9\n+1 | 1 | 5 | NULL | NULL");
}

#[test]
fn right_and_full_joins_keep_rows_of_the_right() {
    let [first, second, third] = come_and_go(&join(JoinKind::Right));
    assert_eq!(first, "");
    assert_eq!(second, "+1 | 1 | 5 | 1 | 9\n+1 | NULL | NULL | 3 | 9\n+1 | NULL | NULL | NULL | 8");
    assert_eq!(third, "-1 | 1 | 5 | 1 | 9");
    let [_, second, third] = come_and_go(&join(JoinKind::Full));
    assert_eq!(
        second,
        "-1 | 1 | 5 | NULL | NULL\n+1 | 1 | 5 | 1 | 9\n+1 | NULL | NULL | 3 | 9\n\
         +1 | NULL | NULL | NULL | 8"
    );
    assert_eq!(third, "-1 | 1 | 5 | 1 | 9\n+1 | 1 | 5 | NULL | NULL");
}

#[test]
fn semi_anti_and_mark_joins_show_rows_by_existence() {
    let [first, second, third] = come_and_go(&join(JoinKind::LeftSemi));
    assert_eq!([first, second, third], ["", "+1 | 1 | 5", "-1 | 1 | 5"]);
    let [first, second, third] = come_and_go(&join(JoinKind::LeftAnti));
    assert_eq!(first, "+1 | 1 | 5\n+2 | 2 | 6\n+1 | NULL | 7");
    assert_eq!([second, third], ["-1 | 1 | 5", "+1 | 1 | 5"]);
    let [first, second, third] = come_and_go(&join(JoinKind::LeftMark));
    assert_eq!(first, "+1 | 1 | 5 | f\n+2 | 2 | 6 | f\n+1 | NULL | 7 | f");
    assert_eq!(second, "-1 | 1 | 5 | f\n+1 | 1 | 5 | t");
    assert_eq!(third, "-1 | 1 | 5 | t\n+1 | 1 | 5 | f");
}

#[test]
fn nulls_match_where_the_join_says_so() {
    let spec = JoinSpec::new(JoinKind::LeftAnti, inputs(false), NullKeys::Match, None);
    let [first, second, _] = come_and_go(&spec);
    assert_eq!(first, "+1 | 1 | 5\n+2 | 2 | 6\n+1 | NULL | 7");
    assert_eq!(second, "-1 | 1 | 5\n-1 | NULL | 7");
}

#[test]
fn a_condition_decides_by_row() {
    let spec = JoinSpec::new(JoinKind::Left, inputs(false), NullKeys::MatchNothing, less());
    let mut run = Run::new(&spec);
    run.right("+1 | 1 | 4\n+1 | 1 | 6");
    run.left("+1 | 1 | 5\n+1 | 1 | 7\n+1 | NULL | 1");
    assert_eq!(
        run.harness.flush(),
        "+1 | 1 | 5 | 1 | 6\n+1 | 1 | 7 | NULL | NULL\n+1 | NULL | 1 | NULL | NULL"
    );
    run.harness.restore();
    run.right("-1 | 1 | 6\n+3 | 1 | 8");
    assert_eq!(
        run.harness.flush(),
        "-1 | 1 | 5 | 1 | 6\n-1 | 1 | 7 | NULL | NULL\n+3 | 1 | 5 | 1 | 8\n+3 | 1 | 7 | 1 | 8"
    );
    // Another copy of a row, and the first one goes; then everything that matches goes.
    run.left("+1 | 1 | 5\n-1 | 1 | 7");
    assert_eq!(run.harness.flush(), "-3 | 1 | 7 | 1 | 8\n+3 | 1 | 5 | 1 | 8");
    run.right("-3 | 1 | 8");
    assert_eq!(run.harness.flush(), "-6 | 1 | 5 | 1 | 8\n+2 | 1 | 5 | NULL | NULL");
}

#[test]
fn a_condition_that_fails_makes_an_error_of_the_pair() {
    let spec = JoinSpec::new(JoinKind::LeftSemi, inputs(false), NullKeys::MatchNothing, less());
    let mut run = Run::new(&spec);
    run.left("+1 | 1 | 5\n+1 | 1 | -1");
    run.right("+1 | 1 | 0");
    assert_eq!(run.harness.flush(), "+1 | 1 | -1");
    let errors = run.harness.errors();
    assert_eq!(errors, "+1 | Join | 22012 | division by zero | (5,0)");
    run.left("-1 | 1 | 5");
    assert_eq!(run.harness.flush(), "");
    assert_eq!(run.harness.errors(), "-1 | Join | 22012 | division by zero | (5,0)");
}

#[test]
fn a_retraction_may_come_before_its_insert() {
    for condition in [None, less()] {
        for kind in KINDS {
            let nulls = NullKeys::MatchNothing;
            let spec = JoinSpec::new(kind, inputs(false), nulls, condition.clone());
            let mut run = Run::new(&spec);
            run.right("-1 | 1 | 9");
            run.left("-1 | 1 | 5");
            run.right("+1 | 1 | 9");
            run.left("+1 | 1 | 5");
            assert_eq!(run.harness.flush(), "", "{kind:?}");
            assert_eq!(run.harness.state_rows(), 0, "{kind:?}");
        }
    }
}

#[test]
fn an_exploding_output_comes_in_pieces() {
    let spec = JoinSpec::new(JoinKind::Inner, inputs(true), NullKeys::MatchNothing, None);
    let mut run = Run::new(&spec);
    let many = |c: u32| vec![format!("+1 | 1 | {c}"); 300].join("\n");
    run.left(&many(1));
    run.right(&many(2));
    assert_eq!(run.harness.flush(), "+90000 | 1 | 1 | 1 | 2");
    assert!(run.harness.batches() > 2, "{} batches", run.harness.batches());
}

#[test]
fn a_hot_key_is_read_only_when_it_comes_or_goes() {
    let spec = join(JoinKind::LeftAnti);
    let mut run = Run::new(&spec);
    let many: Vec<String> = (0..20_000).map(|i| format!("+1 | 1 | {i}")).collect();
    run.left(&many.join("\n"));
    run.right("+1 | 1 | 1");
    assert_eq!(run.harness.flush(), "");
    run.right("+1 | 1 | 2");
    assert_eq!((run.harness.flush(), run.harness.batches()), (String::new(), 0));
    run.right("-1 | 1 | 1\n-1 | 1 | 2");
    assert_eq!(run.harness.flush().lines().count(), 20_000);
}

// ---------------------------------------------------------------------------------- the twin

type Row = (Option<i32>, Option<i32>);
/// Rows of a side with their weights.
type Side2 = std::collections::BTreeMap<Row, i64>;

fn cell(v: Option<i32>) -> String {
    v.map_or("NULL".into(), |v| v.to_string())
}

fn text((k, v): Row) -> String {
    format!("{} | {}", cell(k), cell(v))
}

/// The whole join in the plainest way, as `row text -> weight`.
fn recompute(spec: &JoinSpec, sides: &[Side2; 2]) -> std::collections::BTreeMap<String, i64> {
    let matches = |l: &Row, r: &Row| {
        let keys = match spec.nulls {
            NullKeys::Match => l.0 == r.0,
            NullKeys::MatchNothing => l.0.is_some() && l.0 == r.0,
        };
        let keys = keys || spec.inputs[0].key.is_empty();
        keys && (spec.condition.is_none() || l.1.zip(r.1).is_some_and(|(a, b)| a < b))
    };
    let mut all = std::collections::BTreeMap::new();
    let mut add = |text: String, weight: i64| *all.entry(text).or_insert(0) += weight;
    if spec.kind.has_pairs() {
        for (l, lw) in &sides[0] {
            for (r, rw) in sides[1].iter().filter(|(r, _)| matches(l, r)) {
                add(format!("{} | {}", text(*l), text(*r)), lw * rw);
            }
        }
    }
    for side in [Side::Left, Side::Right].into_iter().filter(|s| spec.kind.preserves(*s)) {
        for (row, weight) in &sides[side.index()] {
            let matched = sides[side.other().index()].keys().any(|other| match side {
                Side::Left => matches(row, other),
                Side::Right => matches(other, row),
            });
            if !spec.kind.shows(matched) {
                continue;
            }
            let row = text(*row);
            match (spec.kind.has_pairs(), side) {
                (true, Side::Left) => add(format!("{row} | NULL | NULL"), *weight),
                (true, Side::Right) => add(format!("NULL | NULL | {row}"), *weight),
                _ if spec.kind.has_mark() => {
                    add(format!("{row} | {}", if matched { "t" } else { "f" }), *weight);
                }
                _ => add(row, *weight),
            }
        }
    }
    all.retain(|_, weight| *weight != 0);
    all
}

fn random_twin(spec: &JoinSpec, seed: u64) {
    use rand::{Rng, SeedableRng};
    let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
    let mut run = Run::new(spec);
    let mut sides = [Side2::new(), Side2::new()];
    let mut output = std::collections::BTreeMap::<String, i64>::new();
    for epoch in 0..25 {
        for _ in 0..rng.random_range(1..5) {
            let port = rng.random_range(0..2);
            let mut lines = Vec::new();
            for _ in 0..rng.random_range(1..6) {
                let k = Some(rng.random_range(0..3)).filter(|_| rng.random_bool(0.9));
                let v = Some(rng.random_range(1..5)).filter(|_| rng.random_bool(0.9));
                let weight: i64 = rng.random_range(-2..=2);
                let there = sides[port].entry((k, v)).or_insert(0);
                let weight = weight.max(-*there);
                if weight == 0 {
                    continue;
                }
                // Now and then the change comes in two, the first of which goes too far.
                if weight > 0 && rng.random_bool(0.2) {
                    lines.push(format!("-1 | {}", text((k, v))));
                    lines.push(format!("{:+} | {}", weight + 1, text((k, v))));
                } else {
                    lines.push(format!("{weight:+} | {}", text((k, v))));
                }
                *there += weight;
            }
            sides[port].retain(|_, weight| *weight != 0);
            if !lines.is_empty() {
                run.harness.input(port, &spec.inputs[port].schema, &lines.join("\n"));
            }
        }
        for line in run.harness.flush().lines() {
            let (weight, row) = line.split_once(" | ").expect("a weight and a row");
            *output.entry(row.to_owned()).or_insert(0) += weight.parse::<i64>().expect("a weight");
        }
        output.retain(|_, weight| *weight != 0);
        assert_eq!(output, recompute(spec, &sides), "seed {seed}, epoch {epoch}: {spec:?}");
        if rng.random_bool(0.3) {
            run.harness.restore();
        }
    }
}

#[test]
fn random_changes_equal_the_recomputed_join() {
    let mut seed = 0;
    for kind in KINDS {
        for nulls in [NullKeys::MatchNothing, NullKeys::Match] {
            for condition in [None, less()] {
                for key in [vec![0], vec![]] {
                    let inputs = inputs(false).map(|i| JoinInput { key: key.clone(), ..i });
                    let spec = JoinSpec::new(kind, inputs, nulls, condition.clone());
                    for _ in 0..4 {
                        seed += 1;
                        random_twin(&spec, seed);
                    }
                }
            }
        }
    }
}

#[test]
fn append_only_inputs_make_an_append_only_semi_join() {
    for condition in [None, less()] {
        let nulls = NullKeys::MatchNothing;
        let spec = JoinSpec::new(JoinKind::LeftSemi, inputs(true), nulls, condition);
        assert!(spec.append_only());
        let mut run = Run::new(&spec);
        run.left("+1 | 1 | 5\n+1 | 1 | 6");
        assert_eq!(run.harness.flush(), "");
        run.harness.restore();
        run.right("+1 | 1 | 9");
        assert_eq!(run.harness.flush(), "+1 | 1 | 5\n+1 | 1 | 6");
        run.right("+1 | 1 | 10");
        run.left("+1 | 1 | 7");
        assert_eq!(run.harness.flush(), "+1 | 1 | 7");
    }
}

#[test]
fn fields_of_a_side_that_may_be_missing_are_nullable() {
    let strict = |text: &str| {
        let nullable = schema(text);
        let fields = nullable.fields().iter().map(|f| f.as_ref().clone().with_nullable(false));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    };
    let input = |text| JoinInput { schema: strict(text), key: vec![0], append_only: false };
    let inputs = [input(LEFT), input(RIGHT)];
    let spec = JoinSpec::new(JoinKind::Left, inputs, NullKeys::MatchNothing, None);
    let mut run = Run::new(&spec);
    let row = parse(&spec.inputs[0].schema, "+1 | 1 | 5");
    assert_eq!(row.len(), 1);
    run.left("+1 | 1 | 5");
    assert_eq!(run.harness.flush(), "+1 | 1 | 5 | NULL | NULL");
}

/// Texts of 100 MB where a column of a batch has 64 (in tests).
#[test]
fn pairs_with_more_text_than_fits_in_a_batch_are_several_batches() {
    let mut inputs = inputs(true);
    inputs[1].schema = schema("k:int, b:text");
    let spec = JoinSpec::new(JoinKind::Inner, inputs, NullKeys::MatchNothing, None);
    let mut run = Run::new(&spec);
    run.right(&format!("+1 | 1 | {}", "x".repeat(1 << 20)));
    run.harness.flush();
    let rows: Vec<String> = (0..100).map(|i| format!("+1 | 1 | {i}")).collect();
    run.left(&rows.join("\n"));
    let pairs = run.harness.flush();
    assert_eq!(pairs.lines().count(), 100);
    assert!(pairs.lines().all(|pair| pair.len() > 1 << 20), "whole texts");
    assert_eq!(run.harness.batches(), 2);
}

/// An epoch's changes of an input.
type Changes = Vec<Change>;

/// A row of two columns, and its weight.
type Change = ((Option<i32>, Option<i32>), i64);

fn lines_of(changes: &[Change]) -> String {
    let line =
        |(row, weight): &((Option<i32>, Option<i32>), i64)| format!("{weight:+} | {}", text(*row));
    changes.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Some changes that leave no row there less than never.
fn some_changes(rng: &mut rand::rngs::SmallRng, side: &mut Side2) -> Changes {
    use rand::Rng;
    let mut changes = Changes::new();
    for _ in 0..rng.random_range(0..6) {
        let k = Some(rng.random_range(0..3)).filter(|_| rng.random_bool(0.9));
        let row = (k, Some(rng.random_range(1..5)).filter(|_| rng.random_bool(0.9)));
        let there = side.entry(row).or_insert(0);
        let weight = rng.random_range(-2..=2).max(-*there);
        *there += weight;
        changes.push((row, weight));
    }
    changes.retain(|(_, weight)| *weight != 0);
    side.retain(|_, weight| *weight != 0);
    changes
}

/// A join that reads some of its sides where they are stored, on one worker: it is built in slices
/// as of epoch 30 while later epochs are written, attached behind epoch 50, and then follows, with
/// the epoch behind each one written before it runs.
struct StoredRun<'a> {
    run: Run<'a>,
    tables: [Arc<ResultTable>; 2],
    rng: rand::rngs::SmallRng,
    output: std::collections::BTreeMap<String, i64>,
}

/// Epochs by number, those of both inputs.
type History = Vec<([Changes; 2], [Side2; 2])>;

impl StoredRun<'_> {
    fn write(&self, port: usize, epoch: usize, changes: &Changes) {
        let schema = &self.run.spec.inputs[port].schema;
        let delta = consolidate(&parse(schema, &lines_of(changes)), Order::Input);
        let epoch = Epoch(epoch as u64 * 10);
        self.tables[port].write(0).apply(&delta.expect("net"), epoch).expect("applies");
    }

    /// Changes of both inputs, in pieces, in any order.
    fn feed(&mut self, changes: &[Changes; 2]) {
        use rand::seq::SliceRandom;
        let pieces = |port: usize| changes[port].chunks(2).map(move |piece| (port, piece));
        let mut all: Vec<_> = pieces(0).chain(pieces(1)).collect();
        all.shuffle(&mut self.rng);
        for (port, piece) in all {
            self.run.harness.input(port, &self.run.spec.inputs[port].schema, &lines_of(piece));
        }
    }

    fn flush(&mut self) {
        for line in self.run.harness.flush().lines() {
            let (weight, row) = line.split_once(" | ").expect("a weight and a row");
            let weight = weight.parse::<i64>().expect("a weight");
            *self.output.entry(row.to_owned()).or_insert(0) += weight;
        }
        self.output.retain(|_, weight| *weight != 0);
    }

    fn build(&mut self, history: &History) {
        let pinned = Epoch(30);
        (1..=3).for_each(|e| (0..2).for_each(|port| self.write(port, e, &history[e].0[port])));
        let there = |side: &Side2| side.iter().map(|(row, w)| (*row, *w)).collect::<Changes>();
        let rows = [0, 1].map(|port| there(&history[3].1[port]));
        for part in 0..3 {
            let slice = |rows: &Changes| rows.iter().skip(part).step_by(3).copied().collect();
            self.run.harness.at(Epoch(31 + part as u64), Some((pinned, true)));
            self.feed(&[slice(&rows[0]), slice(&rows[1])]);
            self.flush();
            // Who builds is not waited for.
            let ahead = 4 + part;
            (0..2).for_each(|port| self.write(port, ahead, &history[ahead].0[port]));
        }
        self.run.harness.at(Epoch(55), Some((pinned, false)));
        let held = |port: usize| [&history[4].0[port][..], &history[5].0[port]].concat();
        self.feed(&[held(0), held(1)]);
        self.flush();
    }
}

fn stored_twin(spec: &JoinSpec, seed: u64) {
    use rand::{Rng, SeedableRng};
    let tables = [0, 1].map(|port: usize| {
        let schema = spec.inputs[port].schema.clone();
        let spec = ResultSpec { schema, key: vec![], keyed_placement: true, arrivals: false };
        ResultTable::new(spec, 1)
    });
    let bound = spec.over(&|port| Some(tables[port].clone())).expect("the tables are there");
    let rng = rand::rngs::SmallRng::seed_from_u64(seed);
    let (run, output) = (Run::new(&bound), Default::default());
    let mut all = StoredRun { run, tables, rng, output };
    let mut sides = [Side2::new(), Side2::new()];
    let mut history: History = vec![Default::default()];
    for _ in 1..20 {
        let changes = [0, 1].map(|port| some_changes(&mut all.rng, &mut sides[port]));
        history.push((changes, sides.clone()));
    }
    all.build(&history);
    for epoch in 5..19 {
        if epoch > 5 {
            all.run.harness.at(Epoch(epoch as u64 * 10), None);
            (0..2).for_each(|port| all.write(port, epoch + 1, &history[epoch + 1].0[port]));
            all.feed(&history[epoch].0);
            all.flush();
        }
        let expected = recompute(spec, &history[epoch].1);
        assert_eq!(all.output, expected, "seed {seed}, epoch {epoch}: {spec:?}");
        let oldest = Epoch(epoch as u64 * 10);
        for table in &all.tables {
            table.write(0).vacuum(oldest, 100).expect("vacuums");
        }
        if all.rng.random_bool(0.3) {
            all.run.harness.restore();
        }
    }
}

/// Would find a side that is read as of another epoch than the one before, also while the next
/// epoch is written already; pairs that are found twice or never while a view is built; and a match
/// that is not counted.
#[test]
fn sides_that_are_stored_join_as_those_that_are_kept() {
    let mut seed = 0;
    for kind in KINDS {
        for nulls in [NullKeys::MatchNothing, NullKeys::Match] {
            for condition in [None, less()] {
                for sides in [[true, false], [false, true], [true, true]] {
                    let stored = [0, 1].map(|port| {
                        let schema = inputs(false)[port].schema.clone();
                        let (key, columns) = ((vec![0], false), (vec![0, 1], schema));
                        sides[port].then(|| StoredSide::new(key, columns, Vec::new(), true))
                    });
                    let spec = JoinSpec::new(kind, inputs(false), nulls, condition.clone());
                    let spec = spec.reading(stored);
                    let reads = [Side::Left, Side::Right].map(|s| spec.can_read_stored(s));
                    assert_eq!(
                        spec.reads().len(),
                        (0..2).filter(|p| sides[*p] && reads[*p]).count()
                    );
                    for _ in 0..4 {
                        seed += 1;
                        stored_twin(&spec, seed);
                    }
                }
            }
        }
    }
}
