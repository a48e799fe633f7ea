//! Window table functions in FROM, in two spellings: `hop(t, ts, slide, size)`, where `t` is a
//! table, a view or a subquery, and Flink's `TABLE(HOP(TABLE t, DESCRIPTOR(ts), slide, size))`.
//!
//! Each gives every column of its input with `window_start` and `window_end` (and Flink's
//! `window_time`) behind them. Rows without a timestamp belong to no window. A tumbling window is a
//! plain projection; windows of which a row can be in several are a node of their own, which views
//! keep up to date and the batch half unnests ([`executable`]).
//!
//! Where the input has columns of these names already (windows of windows), the new ones take their
//! places.

mod arguments;
mod count;
mod explode;
mod gaps;
mod session;
mod tumble;
mod versioned;

use datafusion::common::Result as DfResult;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan};
use sqlparser::ast::{
    self, Function, FunctionArg, FunctionArguments, ObjectName, ObjectNamePart, TableAlias,
    TableFactor,
};

use arguments::Arguments;
pub use explode::ExplodeWindows;
pub use session::SessionWindows;
pub(super) use versioned::as_of;
pub use versioned::{reads_versions, versioned};

use super::asof::AsOfJoin;
use super::moving::MovingFilter;
use super::parser::fold;
use super::patterns::{self, MatchRecognize};
use super::proctime::Stamped;
use super::recursion::{self, as_recursion};
use super::set_ops;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{WindowEdge, to_datafusion};

/// Plans table factors that DataFusion does not know.
#[derive(Debug)]
pub(super) struct StreamRelations;

impl RelationPlanner for StreamRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        match relation {
            TableFactor::Table { name, alias, args: Some(args), .. } => {
                let function = folded(&name);
                if let Some(plan) = set_ops::plan(&function, &args.args, context) {
                    let planned = PlannedRelation::new(plan.map_err(to_datafusion)?, alias);
                    return Ok(RelationPlanning::Planned(Box::new(planned)));
                }
                if let Some(plan) = recursion::plan(&function, &args.args, context) {
                    let planned = PlannedRelation::new(plan.map_err(to_datafusion)?, alias);
                    return Ok(RelationPlanning::Planned(Box::new(planned)));
                }
                windowed(&function, args.args, alias, context)
            }
            TableFactor::Table { version: Some(_), args: None, .. } => {
                versioned::plan_versioned(relation, context)
            }
            TableFactor::TableFunction { expr: ast::Expr::Function(f), alias } => {
                let function = folded(&f.name);
                windowed(&function, function_args(f), alias, context)
            }
            TableFactor::MatchRecognize { ref alias, .. } => {
                let alias = alias.clone();
                let plan = patterns::plan(relation, context).map_err(to_datafusion)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            TableFactor::TableFunction { .. } => {
                Err(to_datafusion(Error::unsupported("TABLE(..) takes a window function")))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn folded(name: &ObjectName) -> String {
    name.0.last().and_then(ObjectNamePart::as_ident).map(fold).unwrap_or_default()
}

fn function_args(f: Function) -> Vec<FunctionArg> {
    match f.args {
        FunctionArguments::List(list) => list.args,
        _ => Vec::new(),
    }
}

fn windowed(
    function: &str,
    args: Vec<FunctionArg>,
    alias: Option<TableAlias>,
    context: &mut dyn RelationPlannerContext,
) -> DfResult<RelationPlanning> {
    let plan = plan_window(function, args, context).map_err(to_datafusion)?;
    Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
}

fn plan_window(
    function: &str,
    args: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    match function {
        // The subquery in front of MATCH_RECOGNIZE.
        "" => arguments::plan_subquery(args, context),
        "tumble" => tumble::plan(args, context),
        "hop" => explode::plan_hop(Arguments::of(&arguments::HOP, args)?, context),
        "cumulate" => explode::plan_cumulate(Arguments::of(&arguments::CUMULATE, args)?, context),
        "session" => session::plan(Arguments::of(&arguments::SESSION, args)?, context),
        "count_window" => count::plan(args, context),
        "gap_fill" => gaps::plan(args, context),
        _ => Err(Error::user(
            sqlstate::UNDEFINED_FUNCTION,
            format!("function {function} does not exist"),
        )
        .with_hint(
            "Table functions are tumble, hop, cumulate, session, count_window, gap_fill and \
             generate_series.",
        )),
    }
}

/// The column of an edge of a window.
fn column_name(edge: WindowEdge) -> &'static str {
    match edge {
        WindowEdge::Start => "window_start",
        WindowEdge::End => "window_end",
        WindowEdge::Time => "window_time",
    }
}

/// The edges that become columns.
const EDGES: [WindowEdge; 3] = [WindowEdge::Start, WindowEdge::End, WindowEdge::Time];

/// The columns of an input that windows with these edges leave in their places.
fn kept_columns(input: &LogicalPlan, edges: &[WindowEdge]) -> Vec<Expr> {
    let columns = input.schema().columns().into_iter();
    let kept = columns.filter(|c| edges.iter().all(|e| column_name(*e) != c.name));
    kept.map(Expr::Column).collect()
}

/// A node of ours as nodes that DataFusion can run; `None` for nodes of others.
pub(super) fn executable(extension: &Extension) -> Option<DfResult<LogicalPlan>> {
    if let Some(node) = set_ops::as_set_operation(extension) {
        return Some(node.executable());
    }
    if let Some(node) = as_recursion(extension) {
        return Some(node.executable());
    }
    let node = extension.node.as_ref().as_any();
    if let Some(node) = node.downcast_ref::<versioned::Versioned>() {
        return Some(Ok(node.input.clone()));
    }
    if let Some(node) = node.downcast_ref::<MovingFilter>() {
        return Some(node.executable());
    }
    if let Some(node) = node.downcast_ref::<Stamped>() {
        return Some(node.executable());
    }
    if let Some(node) = node.downcast_ref::<MatchRecognize>() {
        return Some(node.executable());
    }
    if let Some(node) = node.downcast_ref::<AsOfJoin>() {
        return Some(node.executable());
    }
    let explode = node.downcast_ref::<ExplodeWindows>().map(ExplodeWindows::executable);
    explode.or_else(|| node.downcast_ref::<SessionWindows>().map(SessionWindows::executable))
}

/// Whether a node of the plan is one of ours.
pub(super) fn is_ours(extension: &Extension) -> bool {
    let node = extension.node.as_ref().as_any();
    set_ops::as_set_operation(extension).is_some()
        || as_recursion(extension).is_some()
        || node.is::<ExplodeWindows>()
        || node.is::<SessionWindows>()
        || node.is::<versioned::Versioned>()
        || node.is::<MatchRecognize>()
        || node.is::<MovingFilter>()
        || node.is::<Stamped>()
        || node.is::<AsOfJoin>()
}
