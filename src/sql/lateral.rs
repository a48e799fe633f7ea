//! UNNEST of columns of the relations beside it in FROM, and what else LATERAL does to one row at a
//! time.
//!
//! The planner leaves `FROM t, UNNEST(t.a) AS u(x)` as a join with a lateral subquery. It is a
//! projection of the left rows and the arrays, unnested: no join at all. So is a subquery over
//! several sets with conditions and expressions.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, NullHandling, Result as DfResult, TableReference};
use datafusion::logical_expr::builder::unnest_with_options;
use datafusion::logical_expr::{
    Expr, Filter, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Unnest, lit, when,
};

use super::binder::Purpose;
use super::errors::plan_error;
use super::functions::FUNCTIONS;
use super::lateral_marks::mark_laterals;
use crate::error::Result;
use crate::expr::{Walk, WalkPlan};

/// The column that has a value where there is a row of the right side.
const THERE: &str = "\u{1}there";

/// Rewrites a plan that the SQL planner made.
///
/// What refers to nothing beside it is joined like any other relation in a read, where a condition
/// can then be met by hashing; a view keeps no rows for it that way.
pub(super) fn unnest_laterals(plan: LogicalPlan, purpose: Purpose) -> Result<LogicalPlan> {
    let marked = mark_laterals(plan);
    let rewritten = marked.and_then(|plan| {
        plan.map_nodes_up(|node| match node {
            LogicalPlan::Join(join) => match lateral(&join, purpose)? {
                Some(plan) => Ok(Transformed::yes(plan)),
                None => Ok(Transformed::no(LogicalPlan::Join(join))),
            },
            other => Ok(Transformed::no(other)),
        })
    });
    rewritten.map(|t| t.data).map_err(plan_error)
}

/// The same join without LATERAL, which its right side does not need.
fn apart(join: &Join) -> DfResult<Option<LogicalPlan>> {
    let right = Arc::unwrap_or_clone(Arc::clone(&join.right));
    let right = right.transform_down(|node| match node {
        LogicalPlan::Subquery(node) => Ok(Transformed::yes(Arc::unwrap_or_clone(node.subquery))),
        other => Ok(Transformed::no(other)),
    })?;
    let right = Arc::new(right.data);
    Ok(Some(LogicalPlan::Join(Join { right, ..join.clone() })))
}

/// The right side of such a join, taken apart.
struct Side {
    /// What is done to the row of the left side, the first step first.
    steps: Vec<Step>,
}

enum Step {
    /// Columns, each with the name that they are known by above.
    Project(Option<TableReference>, Vec<Expr>),
    Unnest(Unnest),
    Keep(Expr),
}

fn lateral(join: &Join, purpose: Purpose) -> DfResult<Option<LogicalPlan>> {
    let on_true = join.filter.as_ref().is_none_or(|f| *f == lit(true));
    let outer = match join.join_type {
        JoinType::Inner => false,
        JoinType::Left if on_true && join.on.is_empty() => true,
        _ => return Ok(None),
    };
    let Some(side) = side_of(&join.right) else { return Ok(None) };
    if side.is_independent() {
        return match side.unnests() {
            0 => Ok(None),
            _ if purpose == Purpose::AdHoc => apart(join),
            _ => side.beside(join, outer),
        };
    }
    side.beside(join, outer)
}

impl Side {
    fn unnests(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Unnest(_))).count()
    }

    /// Whether nothing refers to a column of another plan.
    fn is_independent(&self) -> bool {
        let is_outer = |e: &Expr| Ok(matches!(e, Expr::OuterReferenceColumn(..)));
        let has_outer = |e: &Expr| e.exists(is_outer).unwrap_or(true);
        !self.steps.iter().any(|step| match step {
            Step::Project(_, exprs) => exprs.iter().any(has_outer),
            Step::Keep(condition) => has_outer(condition),
            Step::Unnest(_) => false,
        })
    }

    /// The steps over the rows of the left side; `None` where only a join can say it.
    fn beside(&self, join: &Join, outer: bool) -> DfResult<Option<LogicalPlan>> {
        let left = Arc::unwrap_or_clone(Arc::clone(&join.left));
        let kept = left.schema().columns();
        let there = match self.there(outer) {
            Ok(there) => there,
            Err(NoWay) => return Ok(None),
        };
        if self.names_again(&left) {
            return Ok(None);
        }
        let mut plan = left.clone();
        let mut marked = false;
        for (i, step) in self.steps.iter().enumerate() {
            let last = i + 1 == self.steps.len();
            plan = match step {
                Step::Keep(condition) => {
                    let condition = local(condition.clone(), &left)?;
                    LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?)
                }
                Step::Unnest(unnest) => {
                    let mut options = unnest.options.clone();
                    let mut columns = unnest.exec_columns.clone();
                    if outer {
                        options.null_handling = NullHandling::PreserveAndExpandEmpty;
                    }
                    if there.is_some() {
                        columns.push(Column::from_name(THERE));
                        marked = true;
                    }
                    unnest_with_options(plan, columns, options)?
                }
                Step::Project(alias, exprs) => {
                    let mut all: Vec<Expr> = kept.iter().cloned().map(Expr::Column).collect();
                    for e in exprs {
                        let e = local(e.clone(), &left)?;
                        let (qualifier, name) = e.qualified_name();
                        let mut value = e.unalias();
                        if last && marked {
                            value = when(col_of(THERE).is_not_null(), value).end()?;
                        }
                        let qualifier = alias.clone().or(qualifier);
                        all.push(value.alias_qualified(qualifier, name));
                    }
                    match (&there, marked) {
                        (Some(list), false) => all.push(local(list.clone(), &left)?.alias(THERE)),
                        (Some(_), true) if !last => all.push(col_of(THERE)),
                        _ => {}
                    }
                    LogicalPlanBuilder::from(plan).project(all)?.build()?
                }
            };
        }
        for (l, r) in &join.on {
            plan = LogicalPlan::Filter(Filter::try_new(l.clone().eq(r.clone()), Arc::new(plan))?);
        }
        match &join.filter {
            Some(filter) if *filter != lit(true) => {
                Ok(Some(LogicalPlan::Filter(Filter::try_new(filter.clone(), Arc::new(plan))?)))
            }
            _ => Ok(Some(plan)),
        }
    }

    /// What says, where rows without a match are kept, that there is one.
    fn there(&self, outer: bool) -> std::result::Result<Option<Expr>, NoWay> {
        let computes = |steps: &[Step]| steps.iter().all(|s| matches!(s, Step::Project(..)));
        match self.steps.as_slice() {
            _ if !outer => Ok(None),
            [Step::Project(_, lists), Step::Unnest(_), above @ ..] => row_is_there(lists, above),
            steps if computes(steps) => Ok(None),
            _ => Err(NoWay),
        }
    }

    /// Whether a step gives a column that is called like one of the left side.
    fn names_again(&self, left: &LogicalPlan) -> bool {
        let schema = left.schema();
        // A bare name beside the same one with a table is ambiguous, either way.
        let known = |column: &Column| match &column.relation {
            Some(_) => {
                let bare = schema.qualified_fields_with_unqualified_name(&column.name);
                schema.has_column(column) || bare.iter().any(|(table, _)| table.is_none())
            }
            None => schema.has_column(column),
        };
        self.steps.iter().any(|step| match step {
            Step::Project(alias, exprs) => exprs.iter().any(|e| {
                let (qualifier, name) = match e {
                    Expr::OuterReferenceColumn(_, column) => {
                        (column.relation.clone(), column.name.clone())
                    }
                    other => other.qualified_name(),
                };
                known(&Column::new(alias.clone().or(qualifier), name))
            }),
            _ => false,
        })
    }
}

/// The steps need a join.
struct NoWay;

/// A list with an element for each row, unless all columns are without a value anyway where
/// there is no row.
fn row_is_there(lists: &[Expr], above: &[Step]) -> std::result::Result<Option<Expr>, NoWay> {
    let mut computed = false;
    for step in above {
        match step {
            Step::Project(_, exprs) => {
                computed |= !exprs.iter().all(|e| matches!(e.clone().unalias(), Expr::Column(_)));
            }
            _ => return Err(NoWay),
        }
    }
    match (computed, FUNCTIONS.scalar.get("pg_ordinality")) {
        (false, _) => Ok(None),
        (true, Some(f)) => Ok(Some(f.call(lists.iter().map(|l| l.clone().unalias()).collect()))),
        (true, None) => Err(NoWay),
    }
}

/// An expression of the right side over rows that have the columns of the left; a column of
/// neither stays one of a query around.
fn local(e: Expr, left: &LogicalPlan) -> DfResult<Expr> {
    let local = e.transform_up(|e| match e {
        Expr::OuterReferenceColumn(_, column) if left.schema().has_column(&column) => {
            Ok(Transformed::yes(Expr::Column(column)))
        }
        other => Ok(Transformed::no(other)),
    });
    local.map(|t| t.data)
}

fn col_of(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

/// A query that does something to one row at a time: it unnests, computes and leaves rows out.
fn side_of(plan: &LogicalPlan) -> Option<Side> {
    let (mut alias, mut steps) = (None, Vec::new());
    let mut at = plan;
    loop {
        match at {
            LogicalPlan::SubqueryAlias(node) => {
                alias = alias.take().or_else(|| Some(node.alias.clone()));
                at = &node.input;
            }
            LogicalPlan::Subquery(node) => at = &node.subquery,
            LogicalPlan::Projection(node) => {
                steps.push(Step::Project(alias.take(), node.expr.clone()));
                at = &node.input;
            }
            // Only a projection has a place for the alias.
            _ if alias.is_some() || steps.is_empty() => return None,
            LogicalPlan::Unnest(node) => {
                steps.push(Step::Unnest(node.clone()));
                at = &node.input;
            }
            LogicalPlan::Filter(node) => {
                steps.push(Step::Keep(node.predicate.clone()));
                at = &node.input;
            }
            LogicalPlan::EmptyRelation(node) if node.produce_one_row => break,
            _ => return None,
        }
    }
    steps.reverse();
    Some(Side { steps })
}
