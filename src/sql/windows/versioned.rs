//! `t FOR SYSTEM_TIME AS OF PROCTIME()`: the table as it is when a row of the other side of the
//! join arrives. Ad hoc, that is the table as it is.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, DFSchemaRef, Result as DfResult, plan_err};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use sqlparser::ast::{self, TableFactor, TableVersion};

use crate::error::{Error, Result};
use crate::expr::{WalkPlan, to_datafusion};
use crate::sql::parser::fold;
use crate::sql::proctime::Stamped;

/// A table in its version of the moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Versioned {
    /// The table.
    pub input: LogicalPlan,
    /// The column that says as of when; `None` for `PROCTIME()` itself. Where it is no time of
    /// arrival, the node goes ahead of the optimiser.
    time: Option<Column>,
}

/// Plans a table factor with a version.
pub(super) fn plan_versioned(
    mut factor: TableFactor,
    context: &mut dyn RelationPlannerContext,
) -> DfResult<RelationPlanning> {
    let (mut named, mut time) = (None, None);
    if let TableFactor::Table { version, alias, .. } = &mut factor {
        if let Some(version) = version.take() {
            time = time_of(&version).map_err(to_datafusion)?;
        }
        named = alias.take();
    }
    let node = Arc::new(Versioned { input: context.plan(factor)?, time });
    let plan = LogicalPlan::Extension(Extension { node });
    Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, named))))
}

/// The column of `AS OF b.p`; whether it is one of `PROCTIME()` is seen in the plan.
fn time_of(version: &TableVersion) -> Result<Option<Column>> {
    match version {
        TableVersion::ForSystemTimeAsOf(ast::Expr::Function(f)) => {
            let name = f.name.0.last().and_then(|p| p.as_ident());
            match name.is_some_and(|name| fold(name) == "proctime") {
                true => Ok(None),
                false => Err(not_as_of_proctime()),
            }
        }
        TableVersion::ForSystemTimeAsOf(ast::Expr::Identifier(name)) => {
            Ok(Some(Column::new_unqualified(fold(name))))
        }
        TableVersion::ForSystemTimeAsOf(ast::Expr::CompoundIdentifier(parts)) => {
            match parts.as_slice() {
                // With the schema of a table that is of the query around.
                [of, name] | [_, of, name] => Ok(Some(Column::new(Some(fold(of)), fold(name)))),
                _ => Err(not_as_of_proctime()),
            }
        }
        _ => Err(not_as_of_proctime()),
    }
}

/// 0A000 for the version of another time.
fn not_as_of_proctime() -> Error {
    Error::unsupported("FOR SYSTEM_TIME AS OF what is no column is not supported")
        .with_hint("Write FOR SYSTEM_TIME AS OF PROCTIME(), or AS OF a time of the other side.")
}

/// The column as of which a side of a join is read.
pub(in crate::sql) fn as_of(plan: &LogicalPlan) -> Option<&Column> {
    match (versioned(plan), plan.inputs().as_slice()) {
        (Some(version), _) => version.time.as_ref(),
        (None, [input]) => as_of(input),
        _ => None,
    }
}

/// Whether what comes out of a plan depends on when rows came: it reads a table in its version of
/// the moment, or the time of arrival.
pub fn reads_versions(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let visited = plan.each_node(|node| {
        found |= versioned(node).is_some() || is_stamped(node);
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "nothing in the visit fails");
    found
}

fn is_stamped(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Extension(e) if e.node.as_ref().as_any().is::<Stamped>())
}

/// The node, if it is one.
pub fn versioned(plan: &LogicalPlan) -> Option<&Versioned> {
    match plan {
        LogicalPlan::Extension(e) => e.node.as_ref().as_any().downcast_ref(),
        _ => None,
    }
}

impl PartialOrd for Versioned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Versioned {
    fn name(&self) -> &str {
        "FOR SYSTEM_TIME AS OF PROCTIME()"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Versioned")
    }

    fn with_exprs_and_inputs(
        &self,
        _exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DfResult<Self> {
        match inputs.pop() {
            Some(input) => Ok(Self { input, time: self.time.clone() }),
            None => plan_err!("a version has an input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }
}
