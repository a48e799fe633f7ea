//! Subqueries in ON of outer joins.
//!
//! One that reads columns of one side is a column of that side. Where one reads both, a LEFT JOIN
//! is LATERAL: for each row of the left, the rows of the right that meet the condition. A RIGHT
//! JOIN is a LEFT JOIN with its sides in the other places, and a FULL JOIN is the LEFT JOIN and the
//! rows of the right for which no row of the left meets the condition.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::common::{
    Column, DFSchema, NullEquality, Result as DfResult, ScalarValue, Spans, not_impl_err,
};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, Filter, Join, JoinConstraint, JoinType, LogicalPlan, Operator, Subquery, Union,
    binary_expr, lit,
};

use super::pull::projection;
use super::{Decorrelator, Wanted, has_subquery, outer_columns, select};
use crate::expr::Walk;

/// The sides of a join that the subqueries of a condition read.
#[derive(Debug, Clone, Copy, Default)]
struct Sides {
    left: bool,
    right: bool,
}

impl Decorrelator {
    /// An outer join by a condition with subqueries, as one without.
    pub(super) fn outer_join(&mut self, join: Join) -> DfResult<LogicalPlan> {
        let conditions = join.filter.clone().map(split_conjunction_owned).unwrap_or_default();
        let sides = |condition: &Expr| sides_of(condition, &join.left, &join.right);
        let sides = conditions.iter().map(sides).collect::<DfResult<Vec<Sides>>>()?;
        let columns = join.schema.columns();
        if !sides.iter().any(|sides| sides.left && sides.right) {
            let (mut left, mut right) = (join.left.as_ref().clone(), join.right.as_ref().clone());
            let mut all = Vec::with_capacity(conditions.len());
            for (condition, sides) in conditions.into_iter().zip(sides) {
                let input = if sides.right { &mut right } else { &mut left };
                let base = input.clone();
                let placed =
                    self.over(Some(&base), |this| this.expr(condition, input, Wanted::Value));
                all.push(placed?);
            }
            let (left, right) = (Arc::new(left), Arc::new(right));
            let joined = Join { left, right, filter: conjunction(all), ..join };
            return select(with_schema(joined)?, columns);
        }
        match join.join_type {
            JoinType::Left => self.for_each_left(join),
            JoinType::Right => {
                let turned = turned(join)?;
                select(self.for_each_left(turned)?, columns)
            }
            JoinType::Full => self.both_sides(join),
            _ => not_impl_err!("a subquery in ON of this kind of join is not supported"),
        }
    }

    /// A LEFT JOIN as one with what is LATERAL.
    fn for_each_left(&mut self, join: Join) -> DfResult<LogicalPlan> {
        let conditions = conditions_of(&join, join.left.schema())?;
        let right = self.filter(conditions, join.right.as_ref().clone())?;
        self.beside(Join { on: Vec::new(), filter: None, ..join }, &right)
    }

    fn both_sides(&mut self, join: Join) -> DfResult<LogicalPlan> {
        let (left, right) = (Arc::clone(&join.left), Arc::clone(&join.right));
        let columns = join.schema.columns();
        let found = Filter::try_new(conditions_of(&join, right.schema())?, Arc::clone(&left))?;
        let found = LogicalPlan::Filter(found);
        let outer_ref_columns = found.all_out_ref_exprs();
        let found = Subquery { subquery: Arc::new(found), outer_ref_columns, spans: Spans::new() };
        let missing = Expr::Exists(Exists { subquery: found, negated: true });
        let missing = self.filter(missing, right.as_ref().clone())?;
        let mut exprs = Vec::with_capacity(columns.len());
        for (qualifier, field) in left.schema().iter() {
            let null = lit(ScalarValue::try_from(field.data_type())?);
            exprs.push(null.alias_qualified(qualifier.cloned(), field.name()));
        }
        exprs.extend(right.schema().columns().into_iter().map(Expr::Column));
        let missing = projection(exprs, missing)?;
        let matched = self.for_each_left(with_kind(join, JoinType::Left)?)?;
        let both = vec![Arc::new(matched), Arc::new(missing)];
        let union = LogicalPlan::Union(Union::try_new_with_loose_types(both)?);
        let places = union.schema().columns().into_iter().zip(columns);
        let named = places.map(|(place, column)| {
            Expr::Column(place).alias_qualified(column.relation, column.name)
        });
        projection(named.collect(), union)
    }
}

/// All conditions of a join, over one side of it: columns of the other, `outer`, are outer ones.
fn conditions_of(join: &Join, outer: &DFSchema) -> DfResult<Expr> {
    let op = match join.null_equality {
        NullEquality::NullEqualsNothing => Operator::Eq,
        NullEquality::NullEqualsNull => Operator::IsNotDistinctFrom,
    };
    let keys = join.on.iter().cloned().map(|(l, r)| binary_expr(l, op, r));
    let all = conjunction(keys.chain(join.filter.clone())).unwrap_or_else(|| lit(true));
    let turned = all.transform_down(|e| match e {
        Expr::Column(column) if outer.has_column(&column) => {
            let field = Arc::clone(outer.qualified_field_from_column(&column)?.1);
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
        }
        other => Ok(Transformed::no(other)),
    });
    turned.data()
}

/// A RIGHT JOIN as a LEFT JOIN, whose columns stand in other places.
fn turned(join: Join) -> DfResult<Join> {
    let on = join.on.into_iter().map(|(l, r)| (r, l)).collect();
    Join::try_new(
        join.right,
        join.left,
        on,
        join.filter,
        JoinType::Left,
        JoinConstraint::On,
        join.null_equality,
        false,
    )
}

fn with_kind(join: Join, kind: JoinType) -> DfResult<Join> {
    let Join { left, right, on, filter, join_constraint, null_equality, null_aware, .. } = join;
    Join::try_new(left, right, on, filter, kind, join_constraint, null_equality, null_aware)
}

fn with_schema(join: Join) -> DfResult<LogicalPlan> {
    let kind = join.join_type;
    Ok(LogicalPlan::Join(with_kind(join, kind)?))
}

/// The sides that the subqueries of a condition read, with what they are compared with.
fn sides_of(condition: &Expr, left: &LogicalPlan, right: &LogicalPlan) -> DfResult<Sides> {
    let mut sides = Sides::default();
    let mut read = |item: Option<&Expr>, subquery: &Subquery| {
        let is_of = |side: &LogicalPlan| {
            let named = |column: &&Column| side.schema().has_column(column);
            item.is_some_and(|item| item.column_refs().iter().any(named))
                || !outer_columns(&subquery.subquery, side).is_empty()
        };
        sides.left |= is_of(left);
        sides.right |= is_of(right);
    };
    condition.apply(|e| {
        match e {
            Expr::ScalarSubquery(subquery) => read(None, subquery),
            Expr::Exists(Exists { subquery, .. }) => read(None, subquery),
            Expr::InSubquery(InSubquery { expr, subquery, .. })
            | Expr::SetComparison(SetComparison { expr, subquery, .. }) => {
                read(Some(expr), subquery);
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    // A CASE or OR around it is computed where its subqueries are.
    debug_assert!(has_subquery(condition) || !sides.left && !sides.right);
    Ok(sides)
}
