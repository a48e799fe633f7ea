//! Coercion and optimisation: the stages of the [passes](super::pass) that DataFusion's rules are.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::common::Result as DfResult;
use datafusion::common::alias::AliasGenerator;
use datafusion::common::config::ConfigOptions;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{Optimizer, OptimizerConfig, OptimizerContext, OptimizerRule};

use super::batch::session;
use super::binder::{Purpose, Settings};
use super::checkpoint::cancelable;
use super::context::config;
use super::errors::plan_error;
use super::moving::plan_reads_clock;
use super::pass::{self, Pass, Scope, Stage};
use super::rules;
use crate::config::BATCH_ROWS;
use crate::delta::text::UTC;
use crate::error::{Error, Result};
use crate::expr::folding;

/// It would put `now()` into a projection of its own, away from the condition that it is part of.
const NOT_WITH_CLOCK: &[&str] = &["common_sub_expression_eliminate"];

/// The optimiser's configuration with the functions that its rules make use of.
struct WithFunctions {
    context: OptimizerContext,
    functions: Arc<SessionState>,
}

impl OptimizerConfig for WithFunctions {
    fn query_execution_start_time(&self) -> Option<DateTime<Utc>> {
        self.context.query_execution_start_time()
    }

    fn alias_generator(&self) -> &Arc<AliasGenerator> {
        self.context.alias_generator()
    }

    fn options(&self) -> Arc<ConfigOptions> {
        self.context.options()
    }

    fn function_registry(&self) -> Option<&dyn FunctionRegistry> {
        Some(self.functions.as_ref())
    }
}

/// The options of planning, optimising and execution.
pub(crate) fn options() -> ConfigOptions {
    let mut options = ConfigOptions::default();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.collect_spans = true;
    options.optimizer.filter_null_join_keys = true;
    options.optimizer.skip_failed_rules = false;
    // It makes room for as many groups as LIMIT says, which may be 2^60.
    options.optimizer.enable_topk_aggregation = false;
    // A union of inputs that are partitioned alike would become a node that breaks as soon as a
    // later rule touches one of them.
    options.optimizer.prefer_existing_union = true;
    options.execution.target_partitions = 1;
    options.execution.time_zone = Some(UTC.into());
    options
}

/// Resolves grouping functions and coerces types.
pub(crate) fn analyze(plan: LogicalPlan) -> Result<LogicalPlan> {
    guarded(|| {
        rules::analyzer().execute_and_check(plan, config(), |plan, rule| {
            if let Some(pass) = pass::passes(Stage::Analysis).find(|p| p.name == rule.name()) {
                pass::changed(pass, || pass::text(plan));
            }
        })
    })
}

/// What becomes of an analysed plan: values in it, ties broken, optimised, completed, checked.
/// `now()` becomes a constant in ad-hoc plans alone. A plan that is not to be optimised is still
/// what a read can run.
pub(crate) fn optimize(plan: LogicalPlan, scope: &Scope<'_, '_>) -> Result<LogicalPlan> {
    let (purpose, settings) = (scope.context.purpose(), scope.context.settings());
    let mut plan = pass::over_plan(Stage::Ordering, plan, scope)?;
    if settings.optimize {
        plan = by_rules(plan, purpose, settings)?;
    }
    pass::over_plan(Stage::Completion, plan, scope)
}

/// Takes a plan through the rules of the optimiser.
fn by_rules(plan: LogicalPlan, purpose: Purpose, settings: &Settings) -> Result<LogicalPlan> {
    let without = match purpose == Purpose::View && plan_reads_clock(&plan) {
        true => NOT_WITH_CLOCK,
        false => &[],
    };
    let context = OptimizerContext::new_with_config_options(Arc::new(config().clone()));
    let context = match purpose {
        Purpose::View => context.without_query_execution_start_time(),
        Purpose::AdHoc => context.with_query_execution_start_time(settings.now),
    };
    let context = WithFunctions { context, functions: session(1, true, BATCH_ROWS) };
    let rules = rules::logical(purpose, without);
    let passes: Vec<(String, &'static Pass)> =
        rules.iter().map(|(pass, rule)| (rule.name().to_owned(), *pass)).collect();
    let rules = rules.into_iter().map(|(_, rule)| cancelable(rule));
    let optimizer = Optimizer::with_rules(rules.collect());
    let note = |plan: &LogicalPlan, rule: &dyn OptimizerRule| {
        if let Some((_, pass)) = passes.iter().find(|(name, _)| name == rule.name()) {
            pass::changed(pass, || pass::text(plan));
        }
    };
    guarded(|| folding(|| optimizer.optimize(plan, &context, note)))
}

/// Runs rules over a plan. A rule that panics, as some do where they take a plan for impossible,
/// has changed nothing: it is an error of the statement, and no end of the session.
fn guarded(run: impl FnOnce() -> DfResult<LogicalPlan>) -> Result<LogicalPlan> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(plan) => plan.map_err(plan_error),
        Err(_) => Err(Error::internal("the statement could not be planned")
            .with_hint("This is a bug; the server's log has the place.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_panics_is_an_error() {
        let failed = guarded(|| panic!("entered unreachable code"));
        assert_eq!(failed.map_err(|e| e.sqlstate()).err(), Some("XX000"));
    }
}
