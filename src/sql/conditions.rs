//! Literals that stand where a condition does: `WHERE 'true'`, `'off' IS FALSE`. They are booleans.

use std::ops::ControlFlow;

use sqlparser::ast::{
    self, BinaryOperator, Expr, JoinConstraint, JoinOperator, Select, UnaryOperator, Value,
    VisitorMut,
};

/// Makes the literals among conditions booleans.
pub(super) struct Conditions;

impl VisitorMut for Conditions {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        select.selection.iter_mut().chain(&mut select.having).for_each(condition);
        for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
            if let Some(JoinConstraint::On(on)) = constraint(&mut join.join_operator) {
                condition(on);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
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
            Expr::Case { operand: None, conditions, .. } => {
                conditions.iter_mut().for_each(|when| condition(&mut when.condition));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn constraint(join: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match join {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c) => Some(c),
        _ => None,
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
    *expr = Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(inner),
        data_type: ast::DataType::Boolean,
        array: false,
        format: None,
    };
}
