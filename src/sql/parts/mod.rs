//! Parts of a query that it names several times, planned and run once.
//!
//! DataFusion puts the plan of a WITH query or of a plain view wherever its name stands. Where each
//! of 25 WITH queries joins the one before twice that is a plan of 2^25 scans. Here such a query,
//! if it is more than a few relations, is a *part*: it is planned by itself, and its name is the
//! scan of a [`PartSource`]. Reads compute a part once and keep its rows while they run; in a view
//! it is one operator that all its readers are behind.
//!
//! A part is a fence for the optimiser, as a WITH query that is named twice is in PostgreSQL.
//!
//! ```text
//! share   finds the parts of a query in its syntax tree, ahead of planning
//! run     the rows of a part as a table, for reads
//! ```

mod run;
mod share;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::logical_expr::{LogicalPlan, TableScan, TableSource};

use super::pass::apart;
use crate::error::Result;
use crate::expr::{WalkPlan, from_datafusion, to_datafusion};

pub(super) use run::{PartRows, provider};
pub(super) use share::{Mentions, names_in, relation, share, views_of};

/// A query that others read by name.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its number within the statement.
    pub id: usize,
    /// What it is called.
    pub name: String,
    /// Its plan, at the same stage as the plan that reads it.
    pub plan: LogicalPlan,
    /// Its columns.
    pub schema: SchemaRef,
}

/// The scan of a part.
pub struct PartSource {
    /// The part.
    pub part: Arc<Part>,
}

impl fmt::Debug for PartSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartSource({})", self.part.name)
    }
}

impl TableSource for PartSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.part.schema)
    }
}

/// The part behind a scan, if it is of one.
pub fn scanned_part(scan: &TableScan) -> Option<&Arc<Part>> {
    let source = scan.source.as_ref() as &dyn std::any::Any;
    source.downcast_ref::<PartSource>().map(|source| &source.part)
}

/// Visits a plan and the parts that it reads, each once, with what is in their subqueries.
pub fn each_node(
    plan: &LogicalPlan,
    each: &mut dyn FnMut(&LogicalPlan) -> Result<()>,
) -> Result<()> {
    walk_parts(plan, each).map(|_| ())
}

/// The parts that a plan reads, those ahead that others of them read.
pub(super) fn parts_of(plan: &LogicalPlan) -> Result<Vec<Arc<Part>>> {
    Ok(walk_parts(plan, &mut |_| Ok(()))?.into_values().collect())
}

/// The parts whose scans stand in a plan itself.
fn scanned_parts(plan: &LogicalPlan) -> Result<Vec<Arc<Part>>> {
    let mut parts = Vec::new();
    nodes(plan, &mut |_| Ok(()), &mut parts)?;
    Ok(parts)
}

/// A part has a higher number than those that it reads.
fn walk_parts(
    plan: &LogicalPlan,
    each: &mut dyn FnMut(&LogicalPlan) -> Result<()>,
) -> Result<BTreeMap<usize, Arc<Part>>> {
    let mut seen: BTreeMap<usize, Arc<Part>> = BTreeMap::new();
    let mut todo = Vec::new();
    nodes(plan, each, &mut todo)?;
    while let Some(part) = todo.pop() {
        if seen.insert(part.id, Arc::clone(&part)).is_none() {
            nodes(&part.plan, each, &mut todo)?;
        }
    }
    Ok(seen)
}

fn nodes(
    plan: &LogicalPlan,
    each: &mut dyn FnMut(&LogicalPlan) -> Result<()>,
    parts: &mut Vec<Arc<Part>>,
) -> Result<()> {
    let visited = plan.each_node(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            parts.extend(scanned_part(scan).cloned());
        }
        each(node).map_err(to_datafusion)?;
        Ok(TreeNodeRecursion::Continue)
    });
    visited.map(|_| ()).map_err(from_datafusion)
}

/// Rewrites a plan, and each part that it reads, once.
pub(super) fn map_plans(
    plan: LogicalPlan,
    rewrite: &mut dyn FnMut(LogicalPlan) -> Result<LogicalPlan>,
) -> Result<LogicalPlan> {
    let parts = parts_of(&plan)?;
    if parts.is_empty() {
        return rewrite(plan);
    }
    let mut done = HashMap::new();
    for part in parts {
        let plan = apart(&part.name, || rewrite(part.plan.clone()))?;
        let plan = with_parts(plan, &done)?;
        done.insert(part.id, Arc::new(Part { plan, ..part.as_ref().clone() }));
    }
    with_parts(rewrite(plan)?, &done)
}

/// Puts parts in the places of what they were.
fn with_parts(plan: LogicalPlan, parts: &HashMap<usize, Arc<Part>>) -> Result<LogicalPlan> {
    let mapped = plan.map_nodes_up(|node| match node {
        LogicalPlan::TableScan(scan) => {
            let part = scanned_part(&scan).and_then(|part| parts.get(&part.id));
            match part.map(Arc::clone) {
                Some(part) => {
                    let source = Arc::new(PartSource { part });
                    Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
                }
                None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
            }
        }
        other => Ok(Transformed::no(other)),
    });
    mapped.map(|t| t.data).map_err(from_datafusion)
}
