//! Coercion and optimisation: DataFusion's passes in a list of our choosing.
//!
//! For views, rules are left out that split a DISTINCT aggregate or a DISTINCT ON into several
//! stateful nodes or push a LIMIT into scans, and the one that trusts declared keys. Ad-hoc plans
//! run once, so they take the rules that make them executable.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::common::alias::AliasGenerator;
use datafusion::common::config::ConfigOptions;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::analyzer::Analyzer;
use datafusion::optimizer::{Optimizer, OptimizerConfig, OptimizerContext, OptimizerRule};

use super::batch::session;
use super::binder::{Purpose, Settings};
use super::context::config;
use super::errors::plan_error;
use super::moving::plan_reads_clock;
use super::ties::order_limits;
use super::window_ties::order_windows;
use super::zones::apart;
use crate::delta::text::UTC;
use crate::error::Result;

/// Rules that change what state a view keeps, or that rely on keys being unique.
const NOT_FOR_VIEWS: &[&str] = &[
    "push_down_limit",
    "replace_distinct_aggregate",
    "single_distinct_aggregation_to_group_by",
    "eliminate_join",
];

/// Ad-hoc plans need DISTINCT rewritten to run; keys are not declared to the planner, and a sum of
/// partial sums has another type than the sum.
const NOT_AD_HOC: &[&str] = &["eliminate_join", "single_distinct_aggregation_to_group_by"];

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
    options.execution.target_partitions = 1;
    options.execution.time_zone = Some(UTC.into());
    options
}

/// Resolves grouping functions and coerces types.
pub(crate) fn analyze(plan: LogicalPlan) -> Result<LogicalPlan> {
    Analyzer::new().execute_and_check(plan, config(), |_, _| {}).map_err(plan_error)
}

/// Optimises an analysed plan; ties are broken by the whole row. `now()` becomes a constant in
/// ad-hoc plans alone.
pub(crate) fn optimize(
    plan: LogicalPlan,
    purpose: Purpose,
    settings: &Settings,
) -> Result<LogicalPlan> {
    let skipped = match purpose {
        Purpose::View => NOT_FOR_VIEWS,
        Purpose::AdHoc => NOT_AD_HOC,
    };
    let clock = match purpose == Purpose::View && plan_reads_clock(&plan) {
        true => NOT_WITH_CLOCK,
        false => &[],
    };
    let skip = |name: &str| skipped.contains(&name) || clock.contains(&name);
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> =
        Optimizer::new().rules.into_iter().filter(|r| !skip(r.name())).map(apart).collect();
    let context = OptimizerContext::new_with_config_options(Arc::new(config().clone()));
    let context = match purpose {
        Purpose::View => context.without_query_execution_start_time(),
        Purpose::AdHoc => context.with_query_execution_start_time(settings.now),
    };
    let context = WithFunctions { context, functions: session(1) };
    let plan = order_limits(plan, purpose)?;
    let plan = Optimizer::with_rules(rules).optimize(plan, &context, |_, _| {});
    order_windows(plan.map_err(plan_error)?, purpose)
}
