//! The rules over logical plans.

use std::sync::Arc;

use datafusion::optimizer::{Optimizer, OptimizerRule};

use super::Use::{self, AdHoc, Ours, Out, Sound};
use super::empty::PropagateEmpty;
use super::join_order::JoinOrder;
use super::keys::JoinKeys;
use super::push_down::PushDown;
use super::unions::Unions;
use super::zones::apart;
use crate::sql::binder::Purpose;

type Rule = Arc<dyn OptimizerRule + Send + Sync>;

/// All rules of DataFusion's optimiser in its order.
const RULES: &[(&str, Use<Rule>)] = &[
    ("rewrite_set_comparison", Out("ANY and ALL are rewritten with the other subqueries, by ours")),
    (
        "optimize_unions",
        Ours(
            |_| Arc::new(Unions),
            "it takes columns of a union's inputs by the names of the first; else the inputs of a \
             union of unions are all its inputs, and UNION does without the DISTINCT of an input",
        ),
    ),
    (
        "unions_to_filter",
        Out("it takes the projections off what it merges, also those that compute something"),
    ),
    (
        "simplify_expressions",
        Sound(
            "constants are folded by what evaluates them in a row; identities keep NULL (`c = c` \
             is NULL for NULL), but in filters, where it counts as false; that a column is not \
             NULL is concluded from schemas, all of whose relations may be. now() is a constant in \
             ad-hoc plans, and kept in those of views",
        ),
    ),
    (
        "replace_distinct_aggregate",
        AdHoc(
            "DISTINCT is GROUP BY all columns, or one row where there are none; DISTINCT ON is \
             window functions by then. A view keeps its node, which has less state",
        ),
    ),
    (
        "eliminate_join",
        Out("it trusts keys that are declared; an input may break them for a while"),
    ),
    (
        "decorrelate_predicate_subquery",
        Out("subqueries are joins by then; it loses the NULL of IN"),
    ),
    ("scalar_subquery_to_join", Out("subqueries are joins by then; it does not see a second row")),
    ("decorrelate_lateral_join", Out("LATERAL is a join by then")),
    (
        "extract_equijoin_predicate",
        Ours(|_| Arc::new(JoinKeys), "it adds keys of `=` to a join whose NULLs are equal"),
    ),
    (
        "eliminate_duplicated_expr",
        Sound(
            "a second key of a sort or group that is the first one again decides nothing; what a \
             group's columns determine is forgotten by schemas at outer joins and unions",
        ),
    ),
    ("eliminate_filter", Sound("false and NULL keep no row, true all of them")),
    (
        "eliminate_cross_join",
        Ours(
            |_| Arc::new(JoinOrder),
            "it mixes the NULLs of joins, and loses keys for which its order has no place",
        ),
    ),
    ("eliminate_limit", Sound("LIMIT 0 has no rows; OFFSET 0 without LIMIT has all")),
    (
        "propagate_empty_relation",
        Ours(
            |_| Arc::new(PropagateEmpty::default()),
            "it takes the columns of the last input of a union by the names of another one; else \
             an aggregate without groups or with the empty grouping set stays, and of an outer \
             join the other side, with NULL beside it",
        ),
    ),
    (
        "filter_null_join_keys",
        Sound("a side of which unmatched rows are not kept needs no NULL in a key of `=`"),
    ),
    (
        "eliminate_outer_join",
        Sound(
            "a filter that is NULL or false for a row filled with NULL, by operators that give \
             NULL for NULL, keeps no such row; functions of ours do not say that they do",
        ),
    ),
    (
        "push_down_limit",
        AdHoc(
            "as many rows of an input suffice where each gives at least one. In a view a LIMIT is \
             a node with state, of which one is enough",
        ),
    ),
    (
        "push_down_filter",
        Ours(
            |_| Arc::new(PushDown::default()),
            "it pushes conditions without columns below aggregates that have a row for no rows",
        ),
    ),
    (
        "single_distinct_aggregation_to_group_by",
        Out("a sum of sums has another type than the sum, and a view would have two nodes"),
    ),
    (
        "eliminate_group_by_constant",
        Out("it takes f(a) beside a for decided by a, which 0.0 and -0.0 are not"),
    ),
    (
        "common_sub_expression_eliminate",
        Ours(
            apart,
            "it takes a moment with a time zone for one without, and puts a window function that \
             is called twice below the node that computes it; else what is computed twice in one \
             row is computed once, but what a CASE, AND or OR may not come to",
        ),
    ),
    (
        "extract_leaf_expressions",
        Out("fields of composite values are cheap, and the projections that it adds are not"),
    ),
    ("push_down_leaf_projections", Out("it moves what the rule before it has made")),
    (
        "optimize_projections",
        Sound(
            "columns that nobody reads go; an aggregate without groups of which nobody reads a \
             column stays one row; a column of a group goes if the others determine it",
        ),
    ),
];

/// The rules for a plan, but those of `without`, which are named as ours.
pub(in crate::sql) fn logical(purpose: Purpose, without: &[&str]) -> Vec<Rule> {
    let chosen = |rule: Rule| -> Option<Rule> {
        let (_, made) = RULES.iter().find(|(name, _)| *name == rule.name())?;
        match made {
            Sound(_) => Some(rule),
            AdHoc(_) => (purpose == Purpose::AdHoc).then_some(rule),
            Ours(ours, _) => Some(ours(rule)),
            Out(_) => None,
        }
    };
    let rules = Optimizer::new().rules.into_iter().filter_map(chosen);
    rules.filter(|rule| !without.contains(&rule.name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_datafusion_is_on_the_list() {
        let theirs = Optimizer::new();
        let theirs: Vec<&str> = theirs.rules.iter().map(|rule| rule.name()).collect();
        let listed: Vec<&str> = RULES.iter().map(|(name, _)| *name).collect();
        assert_eq!(theirs, listed);
    }

    #[test]
    fn a_rule_is_left_out_by_its_name() {
        let named = |rules: &[Rule], name: &str| rules.iter().any(|r| r.name() == name);
        assert!(named(&logical(Purpose::View, &[]), "join_keys"));
        assert!(!named(&logical(Purpose::View, &["join_keys"]), "join_keys"));
        assert!(!named(&logical(Purpose::View, &[]), "push_down_limit"));
        assert!(named(&logical(Purpose::AdHoc, &[]), "push_down_limit"));
        assert!(!named(&logical(Purpose::AdHoc, &[]), "extract_equijoin_predicate"));
    }
}
