//! What stands where a condition does: literals, which are booleans (`WHERE 'true'`, `'off' IS
//! FALSE`), rows IN a query, and EXISTS of one that selects nothing.

use sqlparser::ast::{
    self, BinaryOperator, Expr, JoinConstraint, Select, SelectItem, SetExpr, UnaryOperator, Value,
};

use super::rows::{row_in_filter, row_in_value};
use super::tree::cast;
use super::using::constraint;
use super::visit::Rewrite;
use crate::error::Result;

/// Makes the literals among conditions booleans, and takes comparisons of rows with queries apart.
pub(super) struct Conditions;

impl Rewrite for Conditions {
    fn pre_select(&mut self, select: &mut Select) -> Result<()> {
        for filter in select.selection.iter_mut().chain(&mut select.having) {
            rows_in_filter(filter);
            condition(filter);
        }
        for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
            if let Some(JoinConstraint::On(on)) = constraint(&mut join.join_operator) {
                rows_in_filter(on);
                condition(on);
            }
        }
        Ok(())
    }

    fn pre_expr(&mut self, expr: &mut Expr) -> Result<()> {
        match expr {
            Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
                condition(left);
                condition(right);
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr }
            | Expr::IsTrue(expr)
            | Expr::IsNotTrue(expr)
            | Expr::IsFalse(expr)
            | Expr::IsNotFalse(expr)
            | Expr::IsUnknown(expr)
            | Expr::IsNotUnknown(expr) => condition(expr),
            Expr::InSubquery { expr: row, subquery, negated } => {
                if let Some(value) = row_in_value(row, subquery, *negated) {
                    *expr = value;
                }
            }
            Expr::Case { operand: None, conditions, .. } => {
                conditions.iter_mut().for_each(|when| condition(&mut when.condition));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Gives `EXISTS (SELECT FROM ..)` something to select: whether there is a row does not depend on
/// its columns.
pub(super) struct AnyColumn;

impl Rewrite for AnyColumn {
    fn pre_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Expr::Exists { subquery, .. } = expr
            && let SetExpr::Select(select) = subquery.body.as_mut()
            && select.projection.is_empty()
        {
            select.projection.push(SelectItem::UnnamedExpr(Expr::value(Value::Null)));
        }
        Ok(())
    }
}

/// `(a, b) IN (SELECT ..)` among the parts of a filter.
fn rows_in_filter(expr: &mut Expr) {
    match expr {
        Expr::Nested(inner) => rows_in_filter(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            rows_in_filter(left);
            rows_in_filter(right);
        }
        Expr::InSubquery { expr: row, subquery, negated } => {
            if let Some(filter) = row_in_filter(row, subquery, *negated) {
                *expr = filter;
            }
        }
        _ => {}
    }
}

fn condition(expr: &mut Expr) {
    let inner = match expr {
        Expr::Nested(inner) => return condition(inner),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(_) | Value::Null => expr.clone(),
            _ => return,
        },
        _ => return,
    };
    *expr = cast(inner, ast::DataType::Boolean);
}
