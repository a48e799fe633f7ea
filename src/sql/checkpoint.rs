//! Where planning looks whether its statement still wants a plan: between passes, at every node
//! that a pass of ours or a rule of the optimiser comes to. The hooks of the planner are given no
//! context, so the token of the statement is the thread's while it plans.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result as DfResult;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{AnalyzerRule, ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::{PhysicalOptimizerContext, PhysicalOptimizerRule};
use datafusion::physical_plan::{ExecutionPlan, displayable};

use super::pass::{self, Pass, PhysicalRule};
use crate::cancel;
use crate::expr::to_datafusion;

/// 57014 when the statement that this thread plans has been canceled.
pub(super) fn checkpoint() -> DfResult<()> {
    cancel::checkpoint().map_err(to_datafusion)
}

/// A rule that ends with its statement.
pub(super) fn cancelable(
    rule: Arc<dyn OptimizerRule + Send + Sync>,
) -> Arc<dyn OptimizerRule + Send + Sync> {
    Arc::new(Cancelable(rule))
}

struct Cancelable(Arc<dyn OptimizerRule + Send + Sync>);

impl fmt::Debug for Cancelable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl OptimizerRule for Cancelable {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> DfResult<Transformed<LogicalPlan>> {
        checkpoint()?;
        self.0.rewrite(plan, config)
    }
}

/// A rule over physical plans that ends with its statement, and the pass that it is.
pub(super) fn cancelable_physical((pass, rule): (&'static Pass, PhysicalRule)) -> PhysicalRule {
    Arc::new(CancelablePhysical { pass, rule })
}

struct CancelablePhysical {
    pass: &'static Pass,
    rule: PhysicalRule,
}

impl fmt::Debug for CancelablePhysical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rule.fmt(f)
    }
}

impl CancelablePhysical {
    fn run(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        rule: impl FnOnce(Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        checkpoint()?;
        let text =
            |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).indent(false).to_string();
        pass::begins(|| text(&plan));
        let plan = rule(plan)?;
        pass::changed(self.pass, || text(&plan));
        Ok(plan)
    }
}

impl PhysicalOptimizerRule for CancelablePhysical {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.run(plan, |plan| self.rule.optimize(plan, config))
    }

    fn optimize_with_context(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &dyn PhysicalOptimizerContext,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.run(plan, |plan| self.rule.optimize_with_context(plan, context))
    }

    fn name(&self) -> &str {
        self.rule.name()
    }

    fn schema_check(&self) -> bool {
        self.rule.schema_check()
    }
}

/// A rule of the analyzer that ends with its statement.
pub(super) fn cancelable_analysis(rule: AnalysisRule) -> AnalysisRule {
    Arc::new(CancelableAnalysis(rule))
}

type AnalysisRule = Arc<dyn AnalyzerRule + Send + Sync>;

#[derive(Debug)]
struct CancelableAnalysis(AnalysisRule);

impl AnalyzerRule for CancelableAnalysis {
    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> DfResult<LogicalPlan> {
        checkpoint()?;
        let plan = self.0.analyze(plan, config);
        checkpoint()?;
        plan
    }

    fn name(&self) -> &str {
        self.0.name()
    }
}
