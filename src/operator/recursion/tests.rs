//! Recursions over a step that is a function: edges that are kept beside, by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::delta::DeltaBatch;
use crate::operator::testing::{Harness, schema};

fn spec(distinct: bool) -> RecursionSpec {
    let feedback = FeedbackSpec {
        number: 0,
        name: "r".into(),
        schema: schema("a:int, round:bigint"),
        append_only: false,
    };
    RecursionSpec {
        name: "r".into(),
        schema: schema("a:int"),
        distinct,
        append_only: false,
        feedback: Arc::new(feedback),
    }
}

/// Rows with rounds and weights, as a delta.
fn delta(rows: &[(i32, i64, i64)]) -> DeltaBatch {
    let nodes: ArrayRef = Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.0)));
    let rounds: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1)));
    let batch = RecordBatch::try_new(schema("a:int, round:bigint"), vec![nodes, rounds]);
    let weights = Int64Array::from_iter_values(rows.iter().map(|r| r.2));
    DeltaBatch::new(batch.expect("two columns"), weights)
}

fn rows(delta: &DeltaBatch) -> Vec<(i32, i64, i64)> {
    let column = |i: usize| delta.rows().column(i).as_any();
    let nodes = column(0).downcast_ref::<Int32Array>().expect("nodes");
    let rounds = column(1).downcast_ref::<Int64Array>().expect("rounds");
    (0..delta.len()).map(|i| (nodes.value(i), rounds.value(i), delta.weight(i))).collect()
}

/// A join with edges: what is fed back is kept, so that edges that change meet it.
#[derive(Default)]
struct Step {
    edges: BTreeSet<(i32, i32)>,
    fed: BTreeMap<(i32, i64), i64>,
}

impl Step {
    fn meet(&mut self, fed: &DeltaBatch) -> DeltaBatch {
        let mut out = Vec::new();
        for (node, round, weight) in rows(fed) {
            *self.fed.entry((node, round)).or_default() += weight;
            let ends = self.edges.range((node, i32::MIN)..=(node, i32::MAX));
            out.extend(ends.map(|(_, end)| (*end, round + 1, weight)));
        }
        self.fed.retain(|_, weight| *weight != 0);
        delta(&out)
    }

    /// An edge comes or goes.
    fn change(&mut self, edge: (i32, i32)) -> DeltaBatch {
        let weight = if self.edges.remove(&edge) { -1 } else { 1 };
        if weight > 0 {
            self.edges.insert(edge);
        }
        let from = self.fed.range((edge.0, i64::MIN)..=(edge.0, i64::MAX));
        delta(&from.map(|((_, round), w)| (edge.1, round + 1, w * weight)).collect::<Vec<_>>())
    }

    fn reached(&self, roots: &BTreeSet<i32>) -> BTreeSet<i32> {
        let (mut found, mut todo) = (roots.clone(), roots.iter().copied().collect::<Vec<_>>());
        while let Some(node) = todo.pop() {
            let ends = self.edges.range((node, i32::MIN)..=(node, i32::MAX));
            todo.extend(ends.map(|(_, end)| *end).filter(|end| found.insert(*end)));
        }
        found
    }
}

#[test]
fn what_was_derived_from_itself_goes_with_what_it_came_of() {
    let (spec, mut step) = (spec(true), Step::default());
    let mut recursion = Harness::new(&spec);
    step.edges.extend([(1, 2), (2, 3), (3, 1), (3, 4)]);
    recursion.input(0, &spec.schema, "+1 | 1");
    recursion.rounds(|fed| step.meet(fed));
    assert_eq!(recursion.flush(), "+1 | 1\n+1 | 2\n+1 | 3\n+1 | 4");
    recursion.restore();
    // The way back is longer.
    let gone = step.change((1, 2));
    recursion.delta(1, gone);
    recursion.rounds(|fed| step.meet(fed));
    assert_eq!(recursion.flush(), "-1 | 2\n-1 | 3\n-1 | 4");
    recursion.input(0, &spec.schema, "+1 | 3\n-1 | 1");
    recursion.rounds(|fed| step.meet(fed));
    assert_eq!(recursion.flush(), "+1 | 3\n+1 | 4");
    assert_eq!(step.fed, [((1, 1), 1), ((3, 0), 1), ((4, 1), 1)].into());
}

#[test]
fn each_derivation_is_a_row_of_a_union_all() {
    let (spec, mut step) = (spec(false), Step::default());
    let mut recursion = Harness::new(&spec);
    step.edges.extend([(1, 2), (1, 3), (2, 4), (3, 4), (4, 5)]);
    recursion.input(0, &spec.schema, "+1 | 1");
    recursion.rounds(|fed| step.meet(fed));
    assert_eq!(recursion.flush(), "+1 | 1\n+1 | 2\n+1 | 3\n+2 | 4\n+2 | 5");
    recursion.restore();
    let gone = step.change((2, 4));
    recursion.delta(1, gone);
    recursion.rounds(|fed| step.meet(fed));
    assert_eq!(recursion.flush(), "-1 | 4\n-1 | 5");
}

/// Would find a row that stays without a way to it, one that is missing, one that is emitted twice,
/// and a round in the state that is not the first.
#[test]
fn any_changes_of_a_graph_leave_what_can_be_reached() {
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (spec, mut step) = (spec(true), Step::default());
        let mut recursion = Harness::new(&spec);
        let nodes = random.random_range(2..12);
        let (mut roots, mut shown) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..40 {
            for _ in 0..random.random_range(1..4) {
                let edge = (random.random_range(0..nodes), random.random_range(0..nodes));
                let changed = step.change(edge);
                recursion.delta(1, changed);
            }
            if random.random_bool(0.3) {
                let root = random.random_range(0..nodes);
                let sign = if roots.remove(&root) { "-1" } else { "+1" };
                if sign == "+1" {
                    roots.insert(root);
                }
                recursion.input(0, &spec.schema, &format!("{sign} | {root}"));
            }
            recursion.rounds(|fed| step.meet(fed));
            for line in recursion.flush().lines() {
                let (sign, node) = line.split_once(" | ").expect("a line");
                let node: i32 = node.parse().expect("a node");
                let changed = if sign == "+1" { shown.insert(node) } else { shown.remove(&node) };
                assert!(changed, "seed {seed}: {line}");
            }
            assert_eq!(shown, step.reached(&roots), "seed {seed}");
            let fed: BTreeSet<i32> = step.fed.keys().map(|(node, _)| *node).collect();
            assert_eq!((fed.len(), &fed), (step.fed.len(), &shown), "seed {seed}");
            if random.random_bool(0.2) {
                recursion.restore();
            }
        }
    }
}
