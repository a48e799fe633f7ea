//! The rules of the analyzer, which resolves a plan and coerces its types.

use std::sync::Arc;

use datafusion::optimizer::Analyzer;

use crate::sql::checkpoint::cancelable_analysis;
use crate::sql::pass::{For, Pass, Stage, Step, Use, passes};
use crate::sql::zoned::ClockCasts;

/// All rules of DataFusion's analyzer, which run in its order, and why they are sound for us.
pub(in crate::sql) const RULES: &[Pass] = &[
    sound(
        "resolve_grouping_function",
        "grouping() is computed from the set's number, which is made of the columns in its order",
    ),
    sound(
        "type_coercion",
        "types are coerced as PostgreSQL does ahead of it; it adds casts between numbers where a \
         node asks for them, and gives the inputs of a union one type by place",
    ),
    Pass {
        name: "clock_casts",
        purpose: For::Both,
        why: "a cast between a moment and what clocks show goes by the zone of the session or the \
              definition: behind the coercion, which makes such casts",
        step: Step::Analysis(Use::Added(|_| Arc::new(ClockCasts))),
    },
];

const fn sound(name: &'static str, why: &'static str) -> Pass {
    Pass { name, purpose: For::Both, why, step: Step::Analysis(Use::Theirs) }
}

/// The analyzer.
pub(in crate::sql) fn analyzer() -> Analyzer {
    let mut analyzer = Analyzer::new();
    let listed = |name: &str| {
        passes(Stage::Analysis)
            .any(|pass| matches!(pass.step, Step::Analysis(Use::Theirs)) && pass.name == name)
    };
    analyzer.rules.retain(|rule| listed(rule.name()));
    let added = passes(Stage::Analysis).filter_map(|pass| match pass.step {
        Step::Analysis(Use::Added(made)) => Some(made(true)),
        _ => None,
    });
    analyzer.rules.extend(added);
    analyzer.rules = analyzer.rules.into_iter().map(cancelable_analysis).collect();
    analyzer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_datafusion_is_on_the_list() {
        let theirs = Analyzer::new();
        let theirs: Vec<&str> = theirs.rules.iter().map(|rule| rule.name()).collect();
        let listed = RULES.iter().filter(|p| matches!(p.step, Step::Analysis(Use::Theirs)));
        let listed: Vec<&str> = listed.map(|pass| pass.name).collect();
        assert_eq!(theirs, listed);
        assert!(Analyzer::new().function_rewrites().is_empty());
    }
}
