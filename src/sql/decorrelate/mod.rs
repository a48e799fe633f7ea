//! Subqueries in expressions, and LATERAL, as joins: for views and ad-hoc reads alike, ahead of
//! type coercion, so that DataFusion's own rules find nothing to do. They lose the NULL of IN, give
//! EXISTS over an aggregate a wrong answer, and leave what is below aggregates and LIMIT.
//!
//! * EXISTS and IN that decide about rows become semi and anti joins, elsewhere columns of mark
//!   joins. `x IN (..)` is true where a value equals x, else NULL where x is NULL and there are
//!   values or where one of them is NULL, else false; where only *true* counts, the first suffices.
//! * A scalar subquery becomes a column of a join with its one row. One that may have more rows is
//!   aggregated to a value and a count, and [`one_row`](crate::expr::one_row) checks the count
//!   where the value is used. Ad hoc, DataFusion runs those that are not correlated.
//! * A correlated subquery becomes a join in one of two ways: [`pull`] moves its conditions on
//!   outer columns into the join; where that can't be done (conditions other than equalities below
//!   an aggregate, LIMIT, set operations, outer joins), it is computed for its *domain*, the
//!   distinct values of the outer columns that it names ([`dependent`]), and joined by these
//!   columns, NULL being equal to NULL (Neumann and Kemper, "Unnesting Arbitrary Queries", BTW
//!   2015).

mod dependent;
mod lateral;
mod outer_join;
mod pull;
mod quantified;
mod scalar;

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::common::{Column, NullEquality, Result as DfResult};
use datafusion::logical_expr::expr::{Alias, BinaryExpr, Exists, InSubquery};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Distinct, Expr, Filter, Join, JoinConstraint, JoinType, LogicalPlan, Operator, SubqueryAlias,
    binary_expr, lit,
};

pub(super) use self::lateral::is_lateral;

use self::dependent::Dependent;
use self::pull::{Need, Pull, Pulled, projection};
use self::scalar::{Rows, rows_of};
use super::binder::Purpose;
use super::checkpoint::checkpoint;
use super::errors::plan_error;
use crate::error::Result;
use crate::expr::{Walk, WalkPlan};

/// Rewrites the subqueries in the expressions of a plan.
pub(super) fn decorrelate(plan: LogicalPlan, purpose: Purpose) -> Result<LogicalPlan> {
    Decorrelator { names: Names::default(), purpose, base: None }.plan(plan).map_err(plan_error)
}

/// Names that no user gives, with a number that makes them unique.
#[derive(Debug, Default)]
struct Names(usize);

impl Names {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("__domain_{}", self.0)
    }

    fn column(&mut self) -> Column {
        self.0 += 1;
        Column::new_unqualified(format!("__outer_{}", self.0))
    }

    fn alias(&mut self) -> String {
        self.0 += 1;
        format!("__subquery_{}", self.0)
    }
}

/// What becomes of a boolean value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// True, false and NULL are told apart.
    Value,
    /// NULL counts as false.
    Truth,
}

#[derive(Debug)]
struct Decorrelator {
    names: Names,
    purpose: Purpose,
    /// What the expressions are over whose subqueries are rewritten.
    base: Option<LogicalPlan>,
}

/// A subquery as one side of a join.
struct Detached {
    /// Its columns, then those that the conditions read.
    plan: LogicalPlan,
    /// The columns of the subquery.
    values: Vec<Column>,
    /// Conditions of the join; without one every row matches.
    on: Vec<Expr>,
    /// What a value is where no row matches, when that is not NULL, with a column that is NULL
    /// there alone.
    otherwise: Option<(Column, Vec<Expr>)>,
}

impl Decorrelator {
    fn plan(&mut self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        checkpoint()?;
        let plan = plan.map_children(|child| self.plan(child).map(Transformed::yes)).data()?;
        match plan {
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Filter(filter) if has_subquery(&filter.predicate) => {
                self.filter(filter.predicate, Arc::unwrap_or_clone(filter.input))
            }
            LogicalPlan::Projection(_)
            | LogicalPlan::Distinct(Distinct::On(_))
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Window(_) => self.node(plan),
            other => Ok(other),
        }
    }

    /// A node over one input: subqueries become columns of the input.
    fn node(&mut self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let exprs = plan.expressions();
        if !exprs.iter().any(has_subquery) {
            return Ok(plan);
        }
        let mut input = plan.inputs()[0].clone();
        let names = NamePreserver::new(&plan);
        let base = input.clone();
        let replaced = self.over(Some(&base), |this| {
            let mut replaced = Vec::with_capacity(exprs.len());
            for expr in exprs {
                let name = names.save(&expr);
                replaced.push(name.restore(this.expr(expr, &mut input, Wanted::Value)?));
            }
            Ok(replaced)
        })?;
        let keeps_names = matches!(
            plan,
            LogicalPlan::Sort(_) | LogicalPlan::Projection(_) | LogicalPlan::Distinct(_)
        );
        if keeps_names {
            let schema = Arc::clone(plan.schema());
            let is_sort = matches!(plan, LogicalPlan::Sort(_));
            let plan = plan.with_new_exprs(replaced, vec![input])?;
            return if is_sort { select(plan, schema.columns()) } else { Ok(plan) };
        }
        let (schema, own) = (Arc::clone(plan.schema()), plan.inputs()[0].schema().columns().len());
        let through = if matches!(plan, LogicalPlan::Window(_)) { own } else { 0 };
        let calls = replaced.into_iter().map(Expr::unalias).collect();
        let plan = plan.with_new_exprs(calls, vec![input])?;
        // What the node computes stands last, under names that may be others now.
        let made = plan.schema().columns();
        let made = &made[made.len() - (schema.fields().len() - through)..];
        let mut columns: Vec<Expr> =
            schema.columns().into_iter().take(through).map(Expr::Column).collect();
        for (column, (qualifier, field)) in made.iter().zip(schema.iter().skip(through)) {
            let column = Expr::Column(column.clone());
            columns.push(column.alias_qualified(qualifier.cloned(), field.name()));
        }
        projection(columns, plan)
    }

    /// Conditions on rows: EXISTS and IN become joins that keep or drop rows.
    fn filter(&mut self, predicate: Expr, mut input: LogicalPlan) -> DfResult<LogicalPlan> {
        let columns = input.schema().columns();
        let (with, without): (Vec<_>, Vec<_>) =
            split_conjunction_owned(predicate).into_iter().partition(has_subquery);
        if let Some(condition) = conjunction(without) {
            input = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(input))?);
        }
        let base = input.clone();
        let rest = self.over(Some(&base), |this| {
            let mut rest = Vec::new();
            for condition in with {
                let condition = plain_form(condition);
                if !this.keep_rows(&condition, &mut input)? {
                    rest.push(this.expr(condition, &mut input, Wanted::Truth)?);
                }
            }
            Ok(rest)
        })?;
        if let Some(condition) = conjunction(rest) {
            input = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(input))?);
        }
        select(input, columns)
    }

    fn join(&mut self, join: Join) -> DfResult<LogicalPlan> {
        let mut join = match self.lateral(join)? {
            LogicalPlan::Join(join) => join,
            other => return Ok(other),
        };
        if !join.filter.as_ref().is_some_and(has_subquery) {
            return Ok(LogicalPlan::Join(join));
        }
        if join.join_type != JoinType::Inner {
            return self.outer_join(join);
        }
        let filter = join.filter.take().unwrap_or_else(|| lit(true));
        self.filter(filter, LogicalPlan::Join(join))
    }

    /// Rewrites expressions over `base`, from which the domains of subqueries are taken: each
    /// subquery adds columns to what it is beside, and a domain of that would double it each time.
    fn over<T>(
        &mut self,
        base: Option<&LogicalPlan>,
        run: impl FnOnce(&mut Self) -> DfResult<T>,
    ) -> DfResult<T> {
        let outside = std::mem::replace(&mut self.base, base.cloned());
        let done = run(self);
        self.base = outside;
        done
    }

    /// Puts columns of `input`, which gets them, in the places of subqueries.
    fn expr(&mut self, expr: Expr, input: &mut LogicalPlan, wanted: Wanted) -> DfResult<Expr> {
        if !has_subquery(&expr) {
            return Ok(expr);
        }
        match plain_form(expr) {
            Expr::BinaryExpr(BinaryExpr { left, op, right })
                if matches!(op, Operator::And | Operator::Or) =>
            {
                let left = self.expr(*left, input, wanted)?;
                Ok(binary_expr(left, op, self.expr(*right, input, wanted)?))
            }
            Expr::Alias(Alias { expr, relation, name, .. }) => {
                Ok(self.expr(*expr, input, wanted)?.alias_qualified(relation, name))
            }
            Expr::ScalarSubquery(s) => self.scalar(s, input),
            Expr::Exists(Exists { subquery, negated }) => {
                let mark = self.mark_of_rows(&subquery, input)?;
                Ok(if negated { Expr::Not(Box::new(mark)) } else { mark })
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let item = self.expr(*expr, input, Wanted::Value)?;
                match (negated, wanted) {
                    (false, Wanted::Truth) => {
                        self.mark_where(&subquery, input, |value| item.eq(value))
                    }
                    (false, Wanted::Value) => self.is_in(item, &subquery, input),
                    (true, _) => Ok(Expr::Not(Box::new(self.is_in(item, &subquery, input)?))),
                }
            }
            Expr::SetComparison(s) => self.set_comparison(s, input, wanted),
            other => {
                let inside = |e| self.expr(e, input, Wanted::Value).map(Transformed::yes);
                other.map_children(inside).data()
            }
        }
    }

    /// A subquery that is joined to `input`.
    fn detach(
        &mut self,
        subquery: &LogicalPlan,
        input: &LogicalPlan,
        need: Need,
    ) -> DfResult<Detached> {
        let outer = outer_columns(subquery, input);
        let values = subquery.schema().columns();
        if outer.is_empty() {
            let plan = subquery.clone();
            return Ok(Detached { plan, values, on: Vec::new(), otherwise: None });
        }
        let mut pull = Pull { names: &mut self.names, outer: &outer, need };
        if let Some(pulled) = pull.plan(subquery)? {
            let Pulled { plan, on, exposed, otherwise, .. } = pulled;
            let bind = |e: Expr| {
                e.transform_up(|e| match e {
                    Expr::OuterReferenceColumn(_, c) if outer.contains(&c) => {
                        Ok(Transformed::yes(Expr::Column(c)))
                    }
                    other => Ok(Transformed::no(other)),
                })
                .data()
            };
            let on = on.into_iter().map(bind).collect::<DfResult<_>>()?;
            let otherwise = exposed.into_iter().next().zip(otherwise);
            return Ok(Detached { plan, values, on, otherwise });
        }
        let has_all = |base: &&LogicalPlan| outer.iter().all(|c| base.schema().has_column(c));
        let base = self.base.as_ref().filter(has_all).unwrap_or(input);
        let mut dependent = Dependent::new(&mut self.names, base, outer.clone());
        let (plan, found) = dependent.plan(subquery)?;
        let not_distinct = |(outer, found): (Column, Column)| {
            binary_expr(Expr::Column(outer), Operator::IsNotDistinctFrom, Expr::Column(found))
        };
        let on = outer.into_iter().zip(found).map(not_distinct).collect();
        Ok(Detached { plan, values, on, otherwise: None })
    }

    /// The same under an alias of its own, with as many of its columns as are asked for.
    fn detach_as(
        &mut self,
        subquery: &LogicalPlan,
        input: &LogicalPlan,
        (need, wanted): (Need, usize),
    ) -> DfResult<(Detached, String)> {
        let found = self.detach(subquery, input, need)?;
        let alias = self.names.alias();
        let theirs: BTreeSet<Column> = {
            let all = found.on.iter().flat_map(Expr::column_refs);
            let schema = found.plan.schema();
            let mine = found.values.iter().collect::<BTreeSet<_>>();
            all.filter(|c| schema.has_column(c) && !input.schema().has_column(c))
                .filter(|c| !mine.contains(c))
                .cloned()
                .collect()
        };
        let named = |i: usize| format!("value_{i}");
        let values = found.values.iter().take(wanted).cloned().map(Expr::Column);
        let mut exprs: Vec<Expr> = values.enumerate().map(|(i, e)| e.alias(named(i))).collect();
        exprs.extend(theirs.iter().cloned().map(|c| {
            let name = c.name.clone();
            Expr::Column(c).alias(name)
        }));
        if exprs.is_empty() {
            exprs.push(lit(true).alias(named(0)));
        }
        let plan = projection(exprs, found.plan)?;
        let plan = SubqueryAlias::try_new(Arc::new(plan), alias.as_str())?;
        let mine = |name: &str| Column::new(Some(alias.as_str()), name);
        let place = |e: Expr| {
            e.transform_up(|e| match e {
                Expr::Column(c) if theirs.contains(&c) => {
                    Ok(Transformed::yes(Expr::Column(mine(&c.name))))
                }
                other => Ok(Transformed::no(other)),
            })
            .data()
        };
        let detached = Detached {
            plan: LogicalPlan::SubqueryAlias(plan),
            values: (0..wanted).map(|i| mine(&named(i))).collect(),
            on: found.on.into_iter().map(place).collect::<DfResult<_>>()?,
            otherwise: found.otherwise.map(|(column, values)| (mine(&column.name), values)),
        };
        Ok((detached, alias))
    }
}

/// `left` joined to a subquery.
fn join_to(
    left: LogicalPlan,
    right: LogicalPlan,
    kind: JoinType,
    on: Vec<Expr>,
) -> DfResult<LogicalPlan> {
    let filter = match (conjunction(on), kind) {
        (None, JoinType::Inner) => None,
        (None, _) => Some(lit(true)),
        (some, _) => some,
    };
    Ok(LogicalPlan::Join(Join::try_new(
        Arc::new(left),
        Arc::new(right),
        Vec::new(),
        filter,
        kind,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    )?))
}

/// Some columns of a plan; the plan itself when they are all.
fn select(plan: LogicalPlan, columns: Vec<Column>) -> DfResult<LogicalPlan> {
    match plan.schema().columns() == columns {
        true => Ok(plan),
        false => projection(columns.into_iter().map(Expr::Column).collect(), plan),
    }
}

/// `NOT (x IN ..)` as `x NOT IN ..`, and a comparison with all or any of one row as one with it.
fn plain_form(expr: Expr) -> Expr {
    match expr {
        Expr::Not(inner) => match *inner {
            Expr::Exists(e) => Expr::Exists(Exists { negated: !e.negated, ..e }),
            Expr::InSubquery(e) => {
                plain_form(Expr::InSubquery(InSubquery { negated: !e.negated, ..e }))
            }
            other => Expr::Not(Box::new(other)),
        },
        Expr::InSubquery(e) if rows_of(&e.subquery.subquery) == Rows::One => {
            let op = if e.negated { Operator::NotEq } else { Operator::Eq };
            binary_expr(*e.expr, op, Expr::ScalarSubquery(e.subquery))
        }
        Expr::SetComparison(s) if rows_of(&s.subquery.subquery) == Rows::One => {
            binary_expr(*s.expr, s.op, Expr::ScalarSubquery(s.subquery))
        }
        other => other,
    }
}

fn has_subquery(expr: &Expr) -> bool {
    let found = expr.exists(|e| {
        Ok(matches!(
            e,
            Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
        ))
    });
    found.unwrap_or(true)
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
pub(super) fn visit_outer(plan: &LogicalPlan, each: &mut impl FnMut(&Column)) {
    let visited = plan.each_node(|node| {
        node.each_expr(|expr| {
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
