//! The rules over physical plans, which ad-hoc reads and recomputations go through.

use std::sync::Arc;

use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

use super::Use::{self, AdHoc, Ours, Out, Sound};
use super::projections::embedded;
use super::unordered::ForgetProperties;

pub(super) type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// All rules of DataFusion's physical optimiser in its order; some run more than once.
const RULES: &[(&str, Use<Rule>)] = &[
    (
        "OutputRequirements",
        Sound("it remembers the order that the query asks for, and forgets it at the end"),
    ),
    (
        "aggregate_statistics",
        Out("it answers some aggregates of a node from statistics and loses the columns of the \
             others; our scans have no statistics to gain from"),
    ),
    (
        "join_selection",
        Sound("the sides of a join change places together with its kind, keys and condition"),
    ),
    (
        "LimitedDistinctAggregation",
        Sound("as many groups of an aggregate without values suffice as its LIMIT asks for"),
    ),
    (
        "FilterPushdown",
        Out("it takes a column for another one of an outer join whose keys are expressions; the \
             logical rules have pushed filters down already"),
    ),
    ("FilterPushdown(Post)", Out("the same rule, again")),
    ("WindowTopN", Out("it is off unless it is asked for")),
    (
        "EnsureRequirements",
        Sound(
            "it leaves out sorts of what is sorted or constant, which is right where properties \
             are; those of joins, unions and grouping sets, which are not, are forgotten ahead of \
             it. It moves a sort below an OFFSET, from which those are kept away, too",
        ),
    ),
    (
        "CombinePartialFinalAggregate",
        Sound("two halves of one aggregate without an exchange between them are the whole"),
    ),
    (
        "OptimizeAggregateOrder",
        Sound(
            "first_value and its like read rows as they come if those are ordered; the aggregates \
             whose order is given order their own input",
        ),
    ),
    (
        "ProjectionPushdown",
        Ours(
            embedded,
            "it computes parts of a join's condition for rows that a CASE keeps from them, and \
             takes columns for others below a filter that leaves some out",
        ),
    ),
    ("LimitAggregation", Out("it makes room for as many groups as LIMIT says, which may be 2^60")),
    (
        "LimitPushPastWindows",
        Out("it trusts what functions say about the rows that they look ahead for"),
    ),
    ("HashJoinBuffering", Out("it is off unless it is asked for")),
    (
        "LimitPushdown",
        Sound("a LIMIT goes below what gives as many rows as it takes, or into what takes one"),
    ),
    ("TopKRepartition", Sound("the first rows of all are among the first rows of every part")),
    ("PushdownSort", Out("our scans have no order")),
    ("EnsureCooperative", Sound("it adds places at which a read yields, and no rows")),
    ("SanityCheckPlan", Sound("it changes nothing")),
];

/// What a plan can't run without: the order and the exchanges that its nodes ask for.
const NEEDED: &[&str] = &["OutputRequirements", "EnsureRequirements"];

/// The rules; ours come first. A plan that is not to be optimised goes through what makes it
/// executable, and nothing in it is taken for sorted that a sort right below has not sorted.
pub(in crate::sql) fn physical(optimize: bool) -> Vec<Rule> {
    let chosen = |rule: Rule| -> Option<Rule> {
        let (_, made) = RULES.iter().find(|(name, _)| *name == rule.name())?;
        match made {
            Sound(_) | AdHoc(_) => (optimize || NEEDED.contains(&rule.name())).then_some(rule),
            Ours(ours, _) => optimize.then(|| ours(rule)),
            Out(_) => None,
        }
    };
    let forget: Rule = Arc::new(ForgetProperties { everywhere: !optimize });
    let theirs = PhysicalOptimizer::new().rules.into_iter();
    std::iter::once(forget).chain(theirs.filter_map(chosen)).collect()
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
        let listed: BTreeSet<String> = RULES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(theirs, listed);
    }
}
