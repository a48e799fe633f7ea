//! Correlated subqueries that DataFusion's rules leave as they are: conditions other than
//! equalities below an aggregate, LIMIT, set operations, outer joins.
//!
//! General unnesting (Neumann and Kemper, "Unnesting Arbitrary Queries", BTW 2015): the *domain* is
//! the set of distinct values of the outer columns that the subquery names. The subquery is
//! computed once for every member of the domain ([`dependent`]), and the outer rows are joined to
//! the results by these columns, NULL being equal to NULL. It is done ahead of type coercion, for
//! views and ad-hoc reads alike; what DataFusion's own rules can do stays with them, as their plans
//! need no domain.

mod dependent;

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, NullEquality, Result as DfResult};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Expr, JoinType, LogicalPlan, LogicalPlanBuilder, Subquery, SubqueryAlias,
};
use datafusion::optimizer::decorrelate::PullUpCorrelatedExpr;

use self::dependent::Dependent;
use super::errors::plan_error;
use crate::error::Result;

/// Rewrites the correlated subqueries of a plan that need a domain.
pub(super) fn decorrelate(plan: LogicalPlan) -> Result<LogicalPlan> {
    Decorrelator::default().plan(plan).map_err(plan_error)
}

/// A name that no user gives, with a number that makes it unique.
#[derive(Debug, Default)]
struct Names(usize);

impl Names {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("__domain_{}", self.0)
    }
}

#[derive(Debug, Default)]
struct Decorrelator {
    names: Names,
}

impl Decorrelator {
    fn plan(&mut self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let plan = plan.map_children(|child| self.plan(child).map(Transformed::yes)).data()?;
        let plan = plan.map_subqueries(|sub| self.plan(sub).map(Transformed::yes)).data()?;
        match plan {
            LogicalPlan::Filter(filter) => {
                let input = Arc::unwrap_or_clone(filter.input);
                self.filter(filter.predicate, input)
            }
            LogicalPlan::Projection(node) if has_hard(&node.expr) => {
                let mut input = Arc::unwrap_or_clone(node.input);
                let names = NamePreserver::new_for_projection();
                let mut exprs = Vec::with_capacity(node.expr.len());
                for expr in node.expr {
                    let name = names.save(&expr);
                    exprs.push(name.restore(self.expr(expr, &mut input)?));
                }
                LogicalPlanBuilder::from(input).project(exprs)?.build()
            }
            LogicalPlan::Aggregate(node) if has_hard(&node.aggr_expr) => self.aggregate(node),
            LogicalPlan::Sort(sort) if sort.expr.iter().any(|s| is_hard_in(&s.expr)) => {
                let mut input = Arc::unwrap_or_clone(sort.input);
                let columns = input.schema().columns();
                let mut exprs = Vec::with_capacity(sort.expr.len());
                for mut key in sort.expr {
                    key.expr = self.expr(key.expr, &mut input)?;
                    exprs.push(key);
                }
                let sorted = LogicalPlanBuilder::from(input).sort_with_limit(exprs, sort.fetch)?;
                sorted.project(columns.into_iter().map(Expr::Column))?.build()
            }
            LogicalPlan::Join(join) => self.lateral(LogicalPlan::Join(join)),
            other => Ok(other),
        }
    }

    /// Conditions of a filter: scalar subqueries become columns, EXISTS and IN become joins.
    fn filter(&mut self, predicate: Expr, mut input: LogicalPlan) -> DfResult<LogicalPlan> {
        if !is_hard_in(&predicate) {
            return LogicalPlanBuilder::from(input).filter(predicate)?.build();
        }
        let columns = input.schema().columns();
        let mut rest = Vec::new();
        for condition in split_conjunction_owned(predicate) {
            let semi = match &condition {
                Expr::Exists(e) if is_hard(&e.subquery) => {
                    Some((e.subquery.clone(), e.negated, None))
                }
                Expr::InSubquery(e) if !e.negated && is_hard(&e.subquery) => {
                    Some((e.subquery.clone(), false, Some((*e.expr).clone())))
                }
                _ => None,
            };
            match semi {
                Some((subquery, negated, item)) => {
                    let kind = if negated { JoinType::LeftAnti } else { JoinType::LeftSemi };
                    let (outer, plan, found) = self.unnest(&subquery, &input)?;
                    let first = plan.schema().columns().swap_remove(0);
                    let on = item.map(|item| item.eq(Expr::Column(first)));
                    input = join(input, plan, kind, (outer, found), on)?;
                }
                None => rest.push(self.expr(condition, &mut input)?),
            }
        }
        let mut builder = LogicalPlanBuilder::from(input);
        if let Some(condition) = conjunction(rest) {
            builder = builder.filter(condition)?;
        }
        builder.project(columns.into_iter().map(Expr::Column))?.build()
    }

    fn aggregate(&mut self, node: Aggregate) -> DfResult<LogicalPlan> {
        let mut input = Arc::unwrap_or_clone(node.input);
        let mut aggregates = Vec::with_capacity(node.aggr_expr.len());
        for expr in node.aggr_expr {
            aggregates.push(self.expr(expr, &mut input)?);
        }
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(
            Arc::new(input),
            node.group_expr,
            aggregates,
        )?);
        let renamed = plan.schema().columns().into_iter().zip(node.schema.iter());
        let renamed =
            renamed.map(|(column, (qualifier, field))| match &column.name == field.name() {
                true => Expr::Column(column),
                false => Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()),
            });
        let renamed: Vec<Expr> = renamed.collect();
        LogicalPlanBuilder::from(plan).project(renamed)?.build()
    }

    /// Puts columns of `input`, which gets them, in the places of scalar subqueries.
    fn expr(&mut self, expr: Expr, input: &mut LogicalPlan) -> DfResult<Expr> {
        expr.transform_down(|e| match e {
            Expr::ScalarSubquery(subquery) if is_hard(&subquery) && one_row(&subquery.subquery) => {
                let (outer, plan, found) = self.unnest(&subquery, input)?;
                let value = plan.schema().columns().swap_remove(0);
                *input = join(input.clone(), plan, JoinType::Left, (outer, found), None)?;
                let done = Expr::Column(value);
                Ok(Transformed::new(done, true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    }

    /// The outer columns of a subquery, the subquery for all their values under an alias of its
    /// own, and the columns of it that hold these values.
    fn unnest(
        &mut self,
        subquery: &Subquery,
        input: &LogicalPlan,
    ) -> DfResult<(Vec<Column>, LogicalPlan, Vec<Column>)> {
        let outer = outer_columns(&subquery.subquery, input);
        let alias = self.names.next();
        let mut dependent = Dependent::new(&mut self.names, input, outer.clone());
        let (plan, found) = dependent.plan(&subquery.subquery)?;
        // The columns of the subquery come first, unnamed but for the alias.
        let values = subquery.subquery.schema().columns().into_iter().enumerate();
        let values = values.map(|(i, c)| Expr::Column(c).alias(format!("value_{i}")));
        let exprs: Vec<Expr> = values.chain(found.iter().cloned().map(Expr::Column)).collect();
        let plan = LogicalPlanBuilder::from(plan).project(exprs)?.alias(alias.as_str())?.build()?;
        let found = found.into_iter().map(|c| Column::new(Some(alias.as_str()), c.name));
        Ok((outer, plan, found.collect()))
    }

    /// `left, LATERAL (subquery)`.
    fn lateral(&mut self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let LogicalPlan::Join(node) = &plan else { return Ok(plan) };
        let (subquery, alias) = match node.right.as_ref() {
            LogicalPlan::Subquery(s) => (s, None),
            LogicalPlan::SubqueryAlias(a) => match a.input.as_ref() {
                LogicalPlan::Subquery(s) => (s, Some(a.alias.clone())),
                _ => return Ok(plan),
            },
            _ => return Ok(plan),
        };
        let known = matches!(node.join_type, JoinType::Inner | JoinType::Left);
        if !is_hard(subquery) || !known || !node.on.is_empty() {
            return Ok(plan);
        }
        let left = node.left.as_ref().clone();
        let outer = outer_columns(&subquery.subquery, &left);
        let mut dependent = Dependent::new(&mut self.names, &left, outer.clone());
        let (mut right, mut found) = dependent.plan(&subquery.subquery)?;
        if let Some(alias) = alias {
            found = found.into_iter().map(|c| Column::new(Some(alias.clone()), c.name)).collect();
            let aliased = SubqueryAlias::try_new(Arc::new(right), alias)?;
            right = LogicalPlan::SubqueryAlias(aliased);
        }
        let columns = node.schema.columns();
        let joined = join(left, right, node.join_type, (outer, found), node.filter.clone())?;
        LogicalPlanBuilder::from(joined).project(columns.into_iter().map(Expr::Column))?.build()
    }
}

fn join(
    left: LogicalPlan,
    right: LogicalPlan,
    kind: JoinType,
    on: (Vec<Column>, Vec<Column>),
    filter: Option<Expr>,
) -> DfResult<LogicalPlan> {
    let equal = NullEquality::NullEqualsNull;
    LogicalPlanBuilder::from(left).join_detailed(right, kind, on, filter, equal)?.build()
}

fn has_hard(exprs: &[Expr]) -> bool {
    exprs.iter().any(is_hard_in)
}

fn is_hard_in(expr: &Expr) -> bool {
    let found = expr.exists(|e| {
        Ok(match e {
            Expr::ScalarSubquery(s) => is_hard(s) && one_row(&s.subquery),
            Expr::Exists(e) => is_hard(&e.subquery),
            Expr::InSubquery(e) => is_hard(&e.subquery),
            _ => false,
        })
    });
    found.unwrap_or(false)
}

/// Whether a subquery is correlated in a way that DataFusion's rules do not resolve.
fn is_hard(subquery: &Subquery) -> bool {
    if subquery.outer_ref_columns.is_empty() {
        return false;
    }
    let mut pull_up = PullUpCorrelatedExpr::new().with_need_handle_count_bug(true);
    let pulled = subquery.subquery.as_ref().clone().rewrite(&mut pull_up);
    pulled.is_err() || !pull_up.can_pull_up
}

/// Whether a plan gives at most one row whatever its input: an aggregate without keys, LIMIT 1.
fn one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(a) => a.group_expr.is_empty(),
        LogicalPlan::Projection(p) => one_row(&p.input),
        LogicalPlan::Filter(f) => one_row(&f.input),
        LogicalPlan::Sort(s) => one_row(&s.input),
        LogicalPlan::SubqueryAlias(a) => one_row(&a.input),
        LogicalPlan::Limit(l) => match l.get_fetch_type() {
            Ok(datafusion::logical_expr::FetchType::Literal(Some(n))) => n <= 1,
            _ => false,
        },
        _ => false,
    }
}

/// The columns of `input` that a subquery refers to, its own subqueries included.
fn outer_columns(subquery: &LogicalPlan, input: &LogicalPlan) -> Vec<Column> {
    let mut found = BTreeSet::new();
    let schema = input.schema();
    visit_outer(subquery, &mut |column| {
        if schema.has_column(column) {
            found.insert(column.clone());
        }
    });
    found.into_iter().collect()
}

/// Calls `each` with every outer column in a plan, those in nested subqueries included.
fn visit_outer(plan: &LogicalPlan, each: &mut impl FnMut(&Column)) {
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::OuterReferenceColumn(_, column) = e {
                    each(column);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    debug_assert!(visited.is_ok(), "nothing in the visit fails");
}
