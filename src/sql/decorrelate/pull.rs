//! A correlated subquery as a join: its conditions on outer columns are pulled to the top.
//!
//! What such a condition reads of the subquery is *exposed*: carried to the top under a name of its
//! own. An equality with an outer value exposes its inner side, which then can be a key: of an
//! aggregate (the value for every key is computed, also for those that no outer row asks for) and
//! of the join. A subquery that is not of this shape gives nothing here; it needs a domain.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, FetchType, Filter, Join, JoinType, LogicalPlan,
    Operator, Projection, SkipType, SubqueryAlias,
};

use super::dependent::distinct;
use super::{Names, has_subquery, visit_outer};
use crate::expr::Walk;

/// What is asked of a subquery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Whether there are rows.
    Rows,
    /// Which values there are.
    Set,
    /// Its one row.
    OneRow,
    /// Its rows, each as often as it is there.
    Bag,
}

/// A subquery without its conditions on outer columns.
pub(super) struct Pulled {
    /// The columns of the subquery, then the exposed ones.
    pub(super) plan: LogicalPlan,
    /// Conditions over exposed columns and outer columns.
    pub(super) on: Vec<Expr>,
    /// The exposed columns.
    pub(super) exposed: Vec<Column>,
    /// All conditions are equalities of exposed columns.
    keyed: bool,
    /// What the columns of the subquery are where no row is found: it is an aggregate without keys.
    pub(super) otherwise: Option<Vec<Expr>>,
}

impl Pulled {
    fn new(plan: LogicalPlan) -> Self {
        Self { plan, on: Vec::new(), exposed: Vec::new(), keyed: true, otherwise: None }
    }
}

pub(super) struct Pull<'a> {
    pub(super) names: &'a mut Names,
    pub(super) outer: &'a [Column],
    pub(super) need: Need,
}

impl Pull<'_> {
    pub(super) fn plan(&mut self, plan: &LogicalPlan) -> DfResult<Option<Pulled>> {
        if !self.depends(plan) {
            return Ok(Some(Pulled::new(plan.clone())));
        }
        match plan {
            LogicalPlan::Filter(node) => self.filter(node),
            LogicalPlan::Projection(node) => self.projection(node),
            LogicalPlan::SubqueryAlias(node) => self.alias(node),
            LogicalPlan::Aggregate(node) => self.aggregate(node),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input),
            LogicalPlan::Sort(node) if node.fetch.is_none() => self.plan(&node.input),
            LogicalPlan::Subquery(node) => self.plan(&node.subquery),
            LogicalPlan::Limit(node) => {
                let all = matches!(node.get_skip_type()?, SkipType::Literal(0));
                let some = matches!(node.get_fetch_type()?, FetchType::Literal(Some(n)) if n > 0);
                match self.need == Need::Rows && all && some {
                    true => self.plan(&node.input),
                    false => Ok(None),
                }
            }
            LogicalPlan::Join(node) => self.join(node),
            _ => Ok(None),
        }
    }

    fn depends(&self, plan: &LogicalPlan) -> bool {
        let mut found = false;
        visit_outer(plan, &mut |column| found |= self.outer.contains(column));
        found
    }

    fn depends_in(&self, expr: &Expr) -> bool {
        let found = expr.exists(|e| {
            Ok(match e {
                Expr::OuterReferenceColumn(_, c) => self.outer.contains(c),
                Expr::ScalarSubquery(s) => self.depends(&s.subquery),
                Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => true,
                _ => false,
            })
        });
        found.unwrap_or(true)
    }

    fn filter(&mut self, node: &Filter) -> DfResult<Option<Pulled>> {
        let Some(pulled) = self.plan(&node.input)? else { return Ok(None) };
        // A condition on the one row of an aggregate without keys: the row is not always there.
        if pulled.otherwise.is_some() {
            return Ok(None);
        }
        self.conditions(pulled, split_conjunction_owned(node.predicate.clone()))
    }

    /// Puts conditions on the plan, or pulls them.
    fn conditions(&mut self, mut pulled: Pulled, all: Vec<Expr>) -> DfResult<Option<Pulled>> {
        let (outer, local): (Vec<_>, Vec<_>) = all.into_iter().partition(|e| self.depends_in(e));
        if outer.iter().any(has_subquery) {
            return Ok(None);
        }
        if let Some(condition) = conjunction(local) {
            let filter = Filter::try_new(condition, Arc::new(pulled.plan))?;
            pulled.plan = LogicalPlan::Filter(filter);
        }
        let mut exposed: Vec<(Expr, Column)> = Vec::new();
        for condition in outer {
            let condition = match self.key(&condition) {
                Some((inner, outer)) => {
                    let column = self.names.column();
                    exposed.push((inner, column.clone()));
                    Expr::Column(column).eq(outer)
                }
                None => {
                    pulled.keyed = false;
                    self.expose(condition, &mut exposed)?
                }
            };
            pulled.on.push(condition);
        }
        if !exposed.is_empty() {
            let mut exprs: Vec<Expr> =
                pulled.plan.schema().columns().into_iter().map(Expr::Column).collect();
            exprs.extend(exposed.iter().map(|(e, c)| e.clone().alias(&c.name)));
            pulled.plan = projection(exprs, pulled.plan)?;
            pulled.exposed.extend(exposed.into_iter().map(|(_, c)| c));
        }
        Ok(Some(pulled))
    }

    /// The sides of `inner = outer`.
    fn key(&self, condition: &Expr) -> Option<(Expr, Expr)> {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else {
            return None;
        };
        let is_inner = |e: &Expr| e.any_column_refs() && !e.contains_outer();
        let is_outer = |e: &Expr| !e.any_column_refs() && e.contains_outer();
        match (left.as_ref(), right.as_ref()) {
            (inner, outer) | (outer, inner) if is_inner(inner) && is_outer(outer) => {
                Some((inner.clone(), outer.clone()))
            }
            _ => None,
        }
    }

    /// Exposes the columns that a condition reads.
    fn expose(&mut self, condition: Expr, exposed: &mut Vec<(Expr, Column)>) -> DfResult<Expr> {
        condition
            .transform_up(|e| {
                let Expr::Column(_) = &e else { return Ok(Transformed::no(e)) };
                let column = match exposed.iter().find(|(have, _)| *have == e) {
                    Some((_, column)) => column.clone(),
                    None => {
                        let column = self.names.column();
                        exposed.push((e, column.clone()));
                        column
                    }
                };
                Ok(Transformed::yes(Expr::Column(column)))
            })
            .data()
    }

    fn projection(&mut self, node: &Projection) -> DfResult<Option<Pulled>> {
        if node.expr.iter().any(|e| self.depends_in(e)) {
            return Ok(None);
        }
        let Some(mut pulled) = self.plan(&node.input)? else { return Ok(None) };
        if let Some(otherwise) = &pulled.otherwise {
            let schema = Arc::clone(pulled.plan.schema());
            let place = |e: Expr| match &e {
                Expr::Column(c) => match schema.maybe_index_of_column(c) {
                    Some(i) if i < otherwise.len() => Ok(Transformed::yes(otherwise[i].clone())),
                    _ => Ok(Transformed::no(e)),
                },
                _ => Ok(Transformed::no(e)),
            };
            let exprs = node.expr.iter().map(|e| e.clone().unalias().transform_up(place).data());
            pulled.otherwise = Some(exprs.collect::<DfResult<_>>()?);
        }
        let exposed = pulled.exposed.iter().cloned().map(Expr::Column);
        let exprs = node.expr.iter().cloned().chain(exposed).collect();
        pulled.plan = projection(exprs, pulled.plan)?;
        Ok(Some(pulled))
    }

    fn alias(&mut self, node: &SubqueryAlias) -> DfResult<Option<Pulled>> {
        let Some(mut pulled) = self.plan(&node.input)? else { return Ok(None) };
        let alias = node.alias.clone();
        let plan = SubqueryAlias::try_new(Arc::new(pulled.plan), alias.clone())?;
        let plan = LogicalPlan::SubqueryAlias(plan);
        let own = node.schema.columns().into_iter().map(Expr::Column);
        let exposed = pulled
            .exposed
            .iter()
            .map(|c| Expr::Column(Column::new(Some(alias.clone()), c.name.clone())).alias(&c.name));
        pulled.plan = projection(own.chain(exposed).collect(), plan)?;
        Ok(Some(pulled))
    }

    fn aggregate(&mut self, node: &Aggregate) -> DfResult<Option<Pulled>> {
        let global = node.group_expr.is_empty();
        let exprs = || node.group_expr.iter().chain(&node.aggr_expr);
        let sets = node.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)));
        if sets || exprs().any(|e| self.depends_in(e)) || global && self.need != Need::OneRow {
            return Ok(None);
        }
        let Some(mut pulled) = self.plan(&node.input)? else { return Ok(None) };
        if !pulled.keyed || pulled.otherwise.is_some() {
            return Ok(None);
        }
        if global {
            let defaults = node.aggr_expr.iter().map(|call| default_of(call, &node.input));
            pulled.otherwise = Some(defaults.collect::<DfResult<_>>()?);
        }
        let exposed: Vec<Expr> = pulled.exposed.iter().cloned().map(Expr::Column).collect();
        let groups = node.group_expr.iter().cloned().chain(exposed.clone()).collect();
        let plan = Aggregate::try_new(Arc::new(pulled.plan), groups, node.aggr_expr.clone())?;
        let own = node.schema.columns().into_iter().map(Expr::Column);
        pulled.plan = projection(own.chain(exposed).collect(), LogicalPlan::Aggregate(plan))?;
        Ok(Some(pulled))
    }

    fn distinct(&mut self, input: &LogicalPlan) -> DfResult<Option<Pulled>> {
        let Some(mut pulled) = self.plan(input)? else { return Ok(None) };
        match self.need {
            Need::Rows | Need::Set => Ok(Some(pulled)),
            _ if !pulled.keyed || pulled.otherwise.is_some() => Ok(None),
            _ => {
                pulled.plan = distinct(pulled.plan)?;
                Ok(Some(pulled))
            }
        }
    }

    fn join(&mut self, node: &Join) -> DfResult<Option<Pulled>> {
        let keys = node.on.iter().flat_map(|(l, r)| [l, r]);
        let inner = node.join_type == JoinType::Inner;
        let left_alone = matches!(
            node.join_type,
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
        ) && !self.depends(&node.right)
            && !node.filter.as_ref().is_some_and(|e| self.depends_in(e));
        if keys.into_iter().any(|e| self.depends_in(e)) || !(inner || left_alone) {
            return Ok(None);
        }
        let (Some(left), Some(right)) = (self.plan(&node.left)?, self.plan(&node.right)?) else {
            return Ok(None);
        };
        if left.otherwise.is_some() || right.otherwise.is_some() {
            return Ok(None);
        }
        let all = node.filter.clone().map(split_conjunction_owned).unwrap_or_default();
        let (pulled_up, local): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|e| inner && self.depends_in(e));
        let plan = LogicalPlan::Join(Join::try_new(
            Arc::new(left.plan),
            Arc::new(right.plan),
            node.on.clone(),
            conjunction(local),
            node.join_type,
            node.join_constraint,
            node.null_equality,
            node.null_aware,
        )?);
        let mut pulled = Pulled::new(plan);
        pulled.keyed = left.keyed && right.keyed;
        pulled.on = left.on.into_iter().chain(right.on).collect();
        pulled.exposed = left.exposed.into_iter().chain(right.exposed).collect();
        if !pulled.exposed.is_empty() {
            let all = node.schema.columns().into_iter().chain(pulled.exposed.iter().cloned());
            pulled.plan = projection(all.map(Expr::Column).collect(), pulled.plan)?;
        }
        self.conditions(pulled, pulled_up)
    }
}

pub(super) fn projection(exprs: Vec<Expr>, input: LogicalPlan) -> DfResult<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
}

/// What an aggregate gives over no rows.
fn default_of(call: &Expr, input: &LogicalPlan) -> DfResult<Expr> {
    let plain = call.clone().unalias();
    let data_type = plain.get_type(input.schema())?;
    let value = match &plain {
        Expr::AggregateFunction(f) => f.func.default_value(&data_type)?,
        _ => ScalarValue::try_from(&data_type)?,
    };
    Ok(Expr::Literal(value, None))
}
