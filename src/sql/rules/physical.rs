//! The rules over physical plans, which ad-hoc reads and recomputations go through.

use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

use super::projections::embedded;
use crate::sql::pass::{For, Pass, PhysicalRule as Rule, Stage, Step, Use, passes};

/// All rules of DataFusion's physical optimiser in its order; some run more than once.
pub(in crate::sql) const RULES: &[Pass] = &[
    needed(
        "OutputRequirements",
        "it remembers the order that the query asks for, and forgets it at the end",
    ),
    out(
        "aggregate_statistics",
        "it answers some aggregates of a node from statistics and loses the columns of the \
         others; our scans have no statistics to gain from",
    ),
    sound(
        "join_selection",
        "the sides of a join change places together with its kind, keys and condition",
    ),
    sound(
        "LimitedDistinctAggregation",
        "as many groups of an aggregate without values suffice as its LIMIT asks for",
    ),
    out(
        "FilterPushdown",
        "it takes a column for another one of an outer join whose keys are expressions; the \
         logical rules have pushed filters down already",
    ),
    out("FilterPushdown(Post)", "the same rule, again"),
    out("WindowTopN", "it is off unless it is asked for"),
    needed(
        "EnsureRequirements",
        "it leaves out sorts of what is sorted or constant, which is right where properties \
         are; those of joins, unions and grouping sets, which are not, are forgotten ahead of \
         it. It moves a sort below an OFFSET, from which those are kept away, too",
    ),
    sound(
        "CombinePartialFinalAggregate",
        "two halves of one aggregate without an exchange between them are the whole",
    ),
    sound(
        "OptimizeAggregateOrder",
        "first_value and its like read rows as they come if those are ordered; the aggregates \
         whose order is given order their own input",
    ),
    ours(
        "ProjectionPushdown",
        embedded,
        "it computes parts of a join's condition for rows that a CASE keeps from them, and \
         takes columns for others below a filter that leaves some out",
    ),
    out("LimitAggregation", "it makes room for as many groups as LIMIT says, which may be 2^60"),
    out(
        "LimitPushPastWindows",
        "it trusts what functions say about the rows that they look ahead for",
    ),
    out("HashJoinBuffering", "it is off unless it is asked for"),
    sound(
        "LimitPushdown",
        "a LIMIT goes below what gives as many rows as it takes, or into what takes one",
    ),
    sound("TopKRepartition", "the first rows of all are among the first rows of every part"),
    out("PushdownSort", "our scans have no order"),
    sound("EnsureCooperative", "it adds places at which a read yields, and no rows"),
    sound("SanityCheckPlan", "it changes nothing"),
];

const fn rule(name: &'static str, purpose: For, why: &'static str, made: Use<Rule>) -> Pass {
    Pass { name, purpose, why, step: Step::Physical(made) }
}

/// A rule that is sound, for why.
const fn sound(name: &'static str, why: &'static str) -> Pass {
    rule(name, For::Reads, why, Use::Theirs)
}

/// One that is, and without which a plan can't run: it makes the order and the exchanges that
/// nodes ask for.
const fn needed(name: &'static str, why: &'static str) -> Pass {
    rule(name, For::Reads, why, Use::Needed)
}

/// One that has ours in its place, or around it; why.
const fn ours(name: &'static str, ours: fn(Rule) -> Rule, why: &'static str) -> Pass {
    rule(name, For::Reads, why, Use::Ours(ours))
}

/// One that is left out; why.
const fn out(name: &'static str, why: &'static str) -> Pass {
    rule(name, For::Nobody, why, Use::Out)
}

/// The rules and the passes that they are. A plan that is not to be optimised goes through what
/// makes it executable, and nothing in it is taken for sorted that a sort right below has not
/// sorted.
pub(in crate::sql) fn physical(optimize: bool) -> Vec<(&'static Pass, Rule)> {
    let all = || passes(Stage::Physical);
    let chosen = |rule: Rule| -> Option<(&'static Pass, Rule)> {
        let pass = all().find(|pass| pass.name == rule.name())?;
        match &pass.step {
            Step::Physical(Use::Needed) => Some((pass, rule)),
            Step::Physical(Use::Theirs) => optimize.then_some((pass, rule)),
            Step::Physical(Use::Ours(ours)) => optimize.then(|| (pass, ours(rule))),
            _ => None,
        }
    };
    let (mut ahead, mut behind, mut theirs) = (Vec::new(), Vec::new(), false);
    for pass in all() {
        match &pass.step {
            Step::Physical(Use::Added(made)) if theirs => behind.push((pass, made(optimize))),
            Step::Physical(Use::Added(made)) => ahead.push((pass, made(optimize))),
            _ => theirs = true,
        }
    }
    let theirs = PhysicalOptimizer::new().rules.into_iter().filter_map(chosen);
    ahead.into_iter().chain(theirs).chain(behind).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_of_datafusion_is_on_the_list() {
        let theirs = PhysicalOptimizer::new();
        let theirs: BTreeSet<String> =
            theirs.rules.iter().map(|rule| rule.name().to_owned()).collect();
        let listed: BTreeSet<String> = RULES.iter().map(|pass| pass.name.to_owned()).collect();
        assert_eq!(theirs, listed);
    }
}
