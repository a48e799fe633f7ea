//! The rules over logical plans.

use std::sync::Arc;

use datafusion::optimizer::Optimizer;

use super::empty::PropagateEmpty;
use super::join_order::JoinOrder;
use super::keys::JoinKeys;
use super::push_down::PushDown;
use super::unions::Unions;
use super::zones::apart;
use crate::sql::binder::Purpose;
use crate::sql::pass::{For, LogicalRule as Rule, Pass, Stage, Step, Use, passes};

/// All rules of DataFusion's optimiser in its order.
pub(in crate::sql) const RULES: &[Pass] = &[
    out("rewrite_set_comparison", "ANY and ALL are rewritten with the other subqueries, by ours"),
    ours(
        "optimize_unions",
        |_| Arc::new(Unions),
        "it takes columns of a union's inputs by the names of the first; else the inputs of a \
         union of unions are all its inputs, and UNION does without the DISTINCT of an input",
    ),
    out(
        "unions_to_filter",
        "it takes the projections off what it merges, also those that compute something",
    ),
    sound(
        "simplify_expressions",
        "constants are folded by what evaluates them in a row; identities keep NULL (`c = c` is \
         NULL for NULL), but in filters, where it counts as false; that a column is not NULL is \
         concluded from schemas, all of whose relations may be. now() is a constant in ad-hoc \
         plans, and kept in those of views",
    ),
    reads(
        "replace_distinct_aggregate",
        "DISTINCT is GROUP BY all columns, or one row where there are none; DISTINCT ON is \
         window functions by then. A view keeps its node, which has less state",
    ),
    out("eliminate_join", "it trusts keys that are declared; an input may break them for a while"),
    out("decorrelate_predicate_subquery", "subqueries are joins by then; it loses the NULL of IN"),
    out("scalar_subquery_to_join", "subqueries are joins by then; it does not see a second row"),
    out("decorrelate_lateral_join", "LATERAL is a join by then"),
    ours(
        "extract_equijoin_predicate",
        |_| Arc::new(JoinKeys),
        "it adds keys of `=` to a join whose NULLs are equal",
    ),
    sound(
        "eliminate_duplicated_expr",
        "a second key of a sort or group that is the first one again decides nothing; what a \
         group's columns determine is forgotten by schemas at outer joins and unions",
    ),
    sound("eliminate_filter", "false and NULL keep no row, true all of them"),
    ours(
        "eliminate_cross_join",
        |_| Arc::new(JoinOrder),
        "it mixes the NULLs of joins, and loses keys for which its order has no place",
    ),
    sound("eliminate_limit", "LIMIT 0 has no rows; OFFSET 0 without LIMIT has all"),
    ours(
        "propagate_empty_relation",
        |_| Arc::new(PropagateEmpty::default()),
        "it takes the columns of the last input of a union by the names of another one; else an \
         aggregate without groups or with the empty grouping set stays, and of an outer join \
         the other side, with NULL beside it",
    ),
    sound(
        "filter_null_join_keys",
        "a side of which unmatched rows are not kept needs no NULL in a key of `=`",
    ),
    sound(
        "eliminate_outer_join",
        "a filter that is NULL or false for a row filled with NULL, by operators that give NULL \
         for NULL, keeps no such row; functions of ours do not say that they do",
    ),
    reads(
        "push_down_limit",
        "as many rows of an input suffice where each gives at least one. In a view a LIMIT is a \
         node with state, of which one is enough",
    ),
    ours(
        "push_down_filter",
        |_| Arc::new(PushDown::default()),
        "it pushes conditions without columns below aggregates that have a row for no rows; ours \
         also moves semijoins and antijoins below joins",
    ),
    out(
        "single_distinct_aggregation_to_group_by",
        "a sum of sums has another type than the sum, and a view would have two nodes",
    ),
    out(
        "eliminate_group_by_constant",
        "it takes f(a) beside a for decided by a, which 0.0 and -0.0 are not",
    ),
    ours(
        "common_sub_expression_eliminate",
        apart,
        "it takes a moment with a time zone for one without, and puts a window function that is \
         called twice below the node that computes it; else what is computed twice in one row \
         is computed once, but what a CASE, AND or OR may not come to",
    ),
    out(
        "extract_leaf_expressions",
        "fields of composite values are cheap, and the projections that it adds are not",
    ),
    out("push_down_leaf_projections", "it moves what the rule before it has made"),
    sound(
        "optimize_projections",
        "columns that nobody reads go; an aggregate without groups of which nobody reads a \
         column stays one row; a column of a group goes if the others determine it",
    ),
];

const fn rule(name: &'static str, purpose: For, why: &'static str, made: Use<Rule>) -> Pass {
    Pass { name, purpose, why, step: Step::Logical(made) }
}

/// A rule that is sound, for why.
const fn sound(name: &'static str, why: &'static str) -> Pass {
    rule(name, For::Both, why, Use::Theirs)
}

/// One that is, in reads; why, and why not in views.
const fn reads(name: &'static str, why: &'static str) -> Pass {
    rule(name, For::Reads, why, Use::Theirs)
}

/// One that has ours in its place, or around it; why.
const fn ours(name: &'static str, ours: fn(Rule) -> Rule, why: &'static str) -> Pass {
    rule(name, For::Both, why, Use::Ours(ours))
}

/// One that is left out; why.
const fn out(name: &'static str, why: &'static str) -> Pass {
    rule(name, For::Nobody, why, Use::Out)
}

/// The rules for a plan and the passes that they are, but those of `without`.
pub(in crate::sql) fn logical(purpose: Purpose, without: &[&str]) -> Vec<(&'static Pass, Rule)> {
    let chosen = |rule: Rule| -> Option<(&'static Pass, Rule)> {
        let pass = passes(Stage::Optimisation).find(|pass| pass.name == rule.name())?;
        if !pass.purpose.serves(purpose) || without.contains(&pass.name) {
            return None;
        }
        match &pass.step {
            Step::Logical(Use::Theirs) => Some((pass, rule)),
            Step::Logical(Use::Ours(ours)) => Some((pass, ours(rule))),
            _ => None,
        }
    };
    Optimizer::new().rules.into_iter().filter_map(chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_datafusion_is_on_the_list() {
        let theirs = Optimizer::new();
        let theirs: Vec<&str> = theirs.rules.iter().map(|rule| rule.name()).collect();
        let listed: Vec<&str> = RULES.iter().map(|pass| pass.name).collect();
        assert_eq!(theirs, listed);
    }

    #[test]
    fn a_rule_is_left_out_by_its_name() {
        let named = |purpose, without: &[&str], name: &str| {
            logical(purpose, without).iter().any(|(_, rule)| rule.name() == name)
        };
        assert!(named(Purpose::View, &[], "join_keys"));
        assert!(!named(Purpose::View, &["extract_equijoin_predicate"], "join_keys"));
        assert!(!named(Purpose::View, &[], "push_down_limit"));
        assert!(named(Purpose::AdHoc, &[], "push_down_limit"));
        assert!(!named(Purpose::AdHoc, &[], "extract_equijoin_predicate"));
    }
}
