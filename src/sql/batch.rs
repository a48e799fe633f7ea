//! The batch half: runs bound plans once, on DataFusion's executor, over providers of rows.
//!
//! Ad-hoc reads come through here, the reading side of DML, and the oracle of tests, which runs a
//! view's own plan over all accepted rows. Nothing but reading is ever executed.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Distinct, Filter, LogicalPlan, TableScan};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream, execute_stream};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;
use futures::{FutureExt, StreamExt};

use super::aggregates::{run_aggregate, run_distinct};
use super::binder::Settings;
use super::checkpoint::cancelable_physical;
use super::context::{RelationSource, config, nullable};
use super::memory::QueryMemory;
use super::parts::{self, Part, PartRows, parts_of, scanned_part};
use super::pass::{apart, over_bound, over_operators};
use super::recursion::work_table;
use super::rules;
use super::widths::{Widths, is_too_wide, rows_too_wide};
use super::window_calls::run_window;
use super::windows;
use crate::catalog::RelationId;
use crate::config::BATCH_ROWS;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{
    WalkPlan, at_time, from_datafusion, guard_condition, guard_values, is_guarded, is_overflow,
    to_datafusion,
};

/// Gives the rows of a relation. All calls for one query must be of one epoch.
pub type Provide<'a> = &'a (dyn Fn(RelationId) -> Result<Arc<dyn TableProvider>> + Sync);

/// Runs a plan. Errors of the stream become ours with
/// [`from_datafusion`](crate::expr::from_datafusion).
pub async fn execute(
    plan: &LogicalPlan,
    provide: Provide<'_>,
    settings: &Settings,
) -> Result<SendableRecordBatchStream> {
    let plan = with_rows(plan, provide, settings)?;
    let settings = settings.clone();
    Run { plan, settings }.start().await
}

/// Runs a plan to its end; its rows count as memory of the query until they are all there.
pub async fn collect(
    plan: &LogicalPlan,
    provide: Provide<'_>,
    settings: &Settings,
) -> Result<Vec<RecordBatch>> {
    let held = settings.memory.as_ref().map(|memory| memory.reserve("rows at hand"));
    let mut stream = execute(plan, provide, settings).await?;
    let mut all = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(from_datafusion)?;
        if let Some(held) = &held {
            held.grow(batch.get_array_memory_size())?;
        }
        all.push(batch);
    }
    Ok(all)
}

/// A plan with its rows, about to be run.
struct Run {
    plan: LogicalPlan,
    settings: Settings,
}

impl Run {
    async fn stream(
        &self,
        batch_rows: usize,
        widths: &Arc<Widths>,
    ) -> Result<SendableRecordBatchStream> {
        let state = session(self.settings.target_partitions, self.settings.optimize, batch_rows);
        let planner = DefaultPhysicalPlanner::default();
        let physical = planner.create_physical_plan(&self.plan, state.as_ref()).await;
        let physical = physical
            .and_then(|plan| over_operators(plan, &self.settings, widths))
            .map_err(from_datafusion)?;
        let task = match &self.settings.memory {
            Some(memory) => memory.task(&state),
            None => state.task_ctx(),
        };
        execute_stream(physical, task).map_err(from_datafusion)
    }

    /// Starts the plan; again with smaller batches where its rows are too wide for those.
    async fn start(self) -> Result<SendableRecordBatchStream> {
        let memory = self.settings.memory.as_ref().map_or(usize::MAX, QueryMemory::limit);
        let widths = Widths::of_batches(BATCH_ROWS, memory);
        let stream = self.stream(BATCH_ROWS, &widths).await?;
        let schema = stream.schema();
        let attempt = Attempt { run: self, stream, widths, begun: false };
        let rows = futures::stream::unfold(Some(attempt), |attempt| async move {
            let mut attempt = attempt?;
            match attempt.next().await {
                Some(Ok(batch)) => Some((Ok(batch), Some(attempt))),
                Some(Err(error)) => Some((Err(error), None)),
                None => None,
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// A run that may have to begin again.
struct Attempt {
    run: Run,
    stream: SendableRecordBatchStream,
    widths: Arc<Widths>,
    /// Rows have gone out.
    begun: bool,
}

impl Attempt {
    async fn next(&mut self) -> Option<DfResult<RecordBatch>> {
        loop {
            // Kernels of the library count the bytes of a column of text with 32 bits and end in a
            // panic, or an error, beyond.
            let error = match AssertUnwindSafe(self.stream.next()).catch_unwind().await {
                Ok(None) => return None,
                Ok(Some(Ok(batch))) => {
                    self.begun = true;
                    self.widths.begin();
                    return Some(Ok(batch));
                }
                Ok(Some(Err(error))) if !is_too_wide(&error) => return Some(Err(error)),
                Ok(Some(Err(_))) => rows_too_wide(),
                Err(panic) if is_overflow(panic.as_ref()) => rows_too_wide(),
                Err(panic) => std::panic::resume_unwind(panic),
            };
            let rows = self.widths.batch_rows();
            if self.begun {
                return Some(Err(error));
            }
            let fewer = self.widths.with_rows(rows);
            if fewer.is_as(&self.widths) {
                return Some(Err(error));
            }
            match self.run.stream(rows, &fewer).await {
                Ok(stream) => (self.stream, self.widths) = (stream, fewer),
                Err(error) => return Some(Err(to_datafusion(error))),
            }
        }
    }
}

/// A plan over the rows that it reads.
fn with_rows(plan: &LogicalPlan, provide: Provide<'_>, settings: &Settings) -> Result<LogicalPlan> {
    let mut binding = Binding { provide, settings, parts: HashMap::new() };
    for part in parts_of(plan)? {
        binding.add(&part)?;
    }
    let plan = binding.plan(plan.clone())?;
    settings.cancel.check()?;
    Ok(plan)
}

/// The physical plan of a bound plan.
pub async fn physical_plan(
    plan: &LogicalPlan,
    provide: Provide<'_>,
    settings: &Settings,
) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = with_rows(plan, provide, settings)?;
    DefaultPhysicalPlanner::default()
        .create_physical_plan(
            &plan,
            session(settings.target_partitions, settings.optimize, BATCH_ROWS).as_ref(),
        )
        .await
        .map_err(from_datafusion)
}

/// Runs a plan to its end on the calling thread, which must not be one of an async runtime.
pub fn execute_collect(
    plan: &LogicalPlan,
    provide: Provide<'_>,
    settings: &Settings,
) -> Result<Vec<RecordBatch>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(collect(plan, provide, settings))
}

/// Rows in memory as a relation.
pub fn memory(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>> {
    let schema = nullable(schema);
    let batches = batches
        .into_iter()
        .map(|b| Ok(RecordBatch::try_new(Arc::clone(&schema), b.columns().to_vec())?))
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(MemTable::try_new(schema, vec![batches]).map_err(from_datafusion)?))
}

/// One session state per number of partitions, with all rules or with what plans can't do without:
/// they are alike for everybody and dear to make.
pub(super) fn session(
    target_partitions: usize,
    optimize: bool,
    batch_rows: usize,
) -> Arc<SessionState> {
    type Sessions = HashMap<(usize, bool, usize), Arc<SessionState>>;
    static SESSIONS: LazyLock<Mutex<Sessions>> = LazyLock::new(Mutex::default);
    // A map whose entries are whole at every moment: poisoning says nothing about it.
    let mut sessions = SESSIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let mut options = config().clone();
        options.execution.target_partitions = target_partitions.max(1);
        // Providers may say NOT NULL where the plan does not.
        options.execution.skip_physical_aggregate_schema_check = true;
        let session = SessionConfig::from(options).with_batch_size(batch_rows.max(1));
        // The optimiser looks up `first_value` for DISTINCT ON.
        let aggregates = SessionStateDefaults::default_aggregate_functions();
        let builder = SessionStateBuilder::new().with_config(session);
        let rules = rules::physical(optimize).into_iter().map(cancelable_physical);
        let rules: Vec<_> = rules.collect();
        let builder = builder.with_physical_optimizer_rules(rules);
        Arc::new(builder.with_aggregate_functions(aggregates).build())
    };
    Arc::clone(sessions.entry((target_partitions, optimize, batch_rows)).or_insert_with(make))
}

/// What is there no more, or not yet, at the epoch that is read.
pub(crate) fn undefined_table(name: &str) -> Error {
    Error::user(sqlstate::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
}

/// Guards values whose parts may fail where they are not asked for; filters have guards of their
/// own.
pub(super) fn guard(plan: LogicalPlan) -> Result<LogicalPlan> {
    let guarded = plan.map_nodes_up(|node| {
        let mut guarded = false;
        node.each_expr(|expr| {
            guarded |= is_guarded(expr)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !guarded || matches!(node, LogicalPlan::Filter(_)) {
            return Ok(Transformed::no(node));
        }
        let names = NamePreserver::new(&node);
        node.map_exprs(|expr| {
            let name = names.save(&expr);
            Ok(guard_values(expr)?.update_data(|expr| name.restore(expr)))
        })
    });
    guarded.map(|t| t.data).map_err(from_datafusion)
}

/// Makes a plan ready to be run.
pub(super) struct Binding<'a> {
    provide: Provide<'a>,
    settings: &'a Settings,
    /// Parts that are ready: all scans of one read the same rows.
    parts: HashMap<usize, Arc<PartRows>>,
}

impl Binding<'_> {
    /// Makes a part ready; those that it reads are.
    fn add(&mut self, part: &Part) -> Result<()> {
        let (partitions, optimize) = (self.settings.target_partitions, self.settings.optimize);
        let session = session(partitions, optimize, BATCH_ROWS);
        let cancel = self.settings.cancel.clone();
        let rows = PartRows::new(part.clone(), session, cancel, &self.parts)?;
        let plan = apart(&part.name, || self.plan(part.plan.clone()))?;
        let rows = rows.with_plan(plan);
        self.parts.insert(part.id, Arc::new(rows));
        Ok(())
    }

    fn plan(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        over_bound(plan, self)
    }

    /// Puts the time in the place of `now()`.
    pub(super) fn tell_time(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let now = self.settings.now;
        let told = plan.map_nodes_up(|node| node.map_exprs(|expr| at_time(expr, now)));
        told.map(|t| t.data).map_err(from_datafusion)
    }

    /// Puts providers in the places of relations, guards filters whose later conditions may fail,
    /// and makes nodes of DataFusion's of ours.
    pub(super) fn executable(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let bound = plan.map_nodes_up(|node| match node {
            LogicalPlan::TableScan(scan) => match self.provider(&scan).map_err(to_datafusion)? {
                Some(provider) => {
                    let source = provider_as_source(provider);
                    Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
                }
                None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
            },
            LogicalPlan::Filter(filter) => {
                let predicate = guard_condition(filter.predicate);
                let filter = Filter::try_new(predicate, filter.input)?;
                Ok(Transformed::yes(LogicalPlan::Filter(filter)))
            }
            LogicalPlan::Aggregate(aggregate) => run_aggregate(aggregate),
            LogicalPlan::Window(window) => {
                run_window(window).map(|w| Transformed::yes(LogicalPlan::Window(w)))
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                run_distinct(input).map(Transformed::yes)
            }
            LogicalPlan::Extension(extension) => match windows::executable(&extension) {
                Some(plan) => plan.map(Transformed::yes),
                None => Ok(Transformed::no(LogicalPlan::Extension(extension))),
            },
            other => Ok(Transformed::no(other)),
        });
        bound.map(|t| t.data).map_err(from_datafusion)
    }

    fn provider(&self, scan: &TableScan) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(table) = work_table(scan) {
            return Ok(Some(Arc::new(table.provider())));
        }
        if let Some(source) = scan.source.downcast_ref::<RelationSource>() {
            let name = &source.relation.name;
            let provider = (self.provide)(source.relation.id).map_err(|e| match e.sqlstate() {
                sqlstate::UNDEFINED_TABLE => undefined_table(name),
                _ => e,
            });
            return provider.map(Some);
        }
        let rows = scanned_part(scan).and_then(|part| self.parts.get(&part.id));
        rows.map(parts::provider).transpose()
    }
}
