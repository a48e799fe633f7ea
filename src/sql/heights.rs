//! How deep the expressions of a statement are, and where deep ones are cut in pieces.
//!
//! The cuts are put into the syntax tree, so that they are the same for every kind of expression:
//! an operator that nobody can write stands around a part, and becomes an
//! [outline](super::outline) when the part is planned.

use std::collections::HashSet;

use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::Expr;
use sqlparser::ast::{self, BinaryOperator, GroupByExpr, Query, Select, Value, VisitMut};

use super::outline::outline;
use super::visit::{Rewrite, walk_mut};
use crate::error::Result;

/// Statements with expressions up to this height are planned as they are.
const HEIGHT_PLAIN: usize = 24;

/// The height of a piece.
const HEIGHT_PIECE: usize = 8;

/// The name of what GROUP BY names, inside of other expressions. No identifier contains it.
pub(super) const KEEP: &str = "\u{1}group";

const CUT_OPERATOR: &str = "\u{1}cut";
const KEEP_OPERATOR: &str = "\u{1}keep";

/// Marks where the deep expressions of a query or an expression are to be cut.
pub(super) fn mark<T: VisitMut>(node: &mut T) -> Result<()> {
    let mut heights = Heights::default();
    walk_mut(node, &mut heights)?;
    match heights.greatest > HEIGHT_PLAIN {
        true => walk_mut(node, &mut Heights { cuts: true, ..Heights::default() }),
        false => Ok(()),
    }
}

/// What becomes of a marked expression; nothing for other operators.
pub(super) fn planned_mark(
    op: &BinaryOperator,
    part: &Expr,
    schema: &DFSchema,
) -> DfResult<Option<Expr>> {
    match op {
        BinaryOperator::Custom(name) if name == CUT_OPERATOR => {
            outline(part.clone(), schema).map(Some)
        }
        BinaryOperator::Custom(name) if name == KEEP_OPERATOR => Ok(Some(part.clone().alias(KEEP))),
        _ => Ok(None),
    }
}

/// Heights of the expressions that are being visited: levels since the last cut.
#[derive(Default)]
struct Heights {
    cuts: bool,
    greatest: usize,
    /// For each expression or query around, the height of the highest part so far.
    open: Vec<usize>,
    /// For each query around, what its GROUP BY names that is more than a column.
    groups: Vec<Vec<ast::Expr>>,
    /// Where these stand in GROUP BY itself.
    named: HashSet<*const ast::Expr>,
    /// Where they stand elsewhere.
    kept: Vec<*const ast::Expr>,
}

impl Rewrite for Heights {
    fn pre_query(&mut self, _query: &mut Query) -> Result<()> {
        self.open.push(0);
        self.groups.push(Vec::new());
        Ok(())
    }

    fn post_query(&mut self, _query: &mut Query) -> Result<()> {
        self.open.pop();
        self.groups.pop();
        Ok(())
    }

    fn pre_select(&mut self, select: &mut Select) -> Result<()> {
        if self.cuts
            && let GroupByExpr::Expressions(exprs, _) = &select.group_by
        {
            for expr in exprs {
                self.name_group(expr);
            }
        }
        Ok(())
    }

    fn pre_expr(&mut self, expr: &mut ast::Expr) -> Result<()> {
        self.open.push(0);
        // Expressions stay where they are while they are visited, so an address is one of them.
        let at = std::ptr::from_ref(expr);
        if let Some(groups) = self.groups.last()
            && !self.named.contains(&at)
            && groups.contains(expr)
        {
            self.kept.push(at);
        }
        Ok(())
    }

    fn post_expr(&mut self, expr: &mut ast::Expr) -> Result<()> {
        let mut height = self.open.pop().unwrap_or_default() + 1;
        self.greatest = self.greatest.max(height);
        if self.cuts && height >= HEIGHT_PIECE && can_be_cut(expr) {
            wrap(expr, CUT_OPERATOR);
            height = 1;
        }
        if self.kept.last() == Some(&std::ptr::from_ref(expr)) {
            self.kept.pop();
            wrap(expr, KEEP_OPERATOR);
            height = 1;
        }
        if let Some(parent) = self.open.last_mut() {
            *parent = (*parent).max(height);
        }
        Ok(())
    }
}

impl Heights {
    /// Notes an item of GROUP BY, or those in its lists.
    fn name_group(&mut self, expr: &ast::Expr) {
        match expr {
            ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) | ast::Expr::Value(_) => {}
            ast::Expr::Rollup(sets) | ast::Expr::Cube(sets) | ast::Expr::GroupingSets(sets) => {
                sets.iter().flatten().for_each(|e| self.name_group(e));
            }
            ast::Expr::Tuple(exprs) => exprs.iter().for_each(|e| self.name_group(e)),
            other => {
                self.named.insert(std::ptr::from_ref(other));
                if let Some(groups) = self.groups.last_mut() {
                    groups.push(other.clone());
                }
            }
        }
    }
}

fn wrap(expr: &mut ast::Expr, operator: &str) {
    let nothing = || ast::Expr::value(Value::Null);
    let left = Box::new(std::mem::replace(expr, nothing()));
    let op = BinaryOperator::Custom(operator.into());
    *expr = ast::Expr::BinaryOp { left, op, right: Box::new(nothing()) };
}

/// Whether an expression is a value on its own that is no list of conditions: those stay in sight
/// of the optimiser, and are balanced trees anyway.
fn can_be_cut(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::BinaryOp { op, .. } => !matches!(op, BinaryOperator::And | BinaryOperator::Or),
        ast::Expr::UnaryOp { op, .. } => !matches!(op, ast::UnaryOperator::Not),
        ast::Expr::Function(f) => f.over.is_none(),
        ast::Expr::Cast { .. }
        | ast::Expr::Case { .. }
        | ast::Expr::CompoundFieldAccess { .. }
        | ast::Expr::JsonAccess { .. }
        | ast::Expr::AtTimeZone { .. }
        | ast::Expr::Extract { .. }
        | ast::Expr::Ceil { .. }
        | ast::Expr::Floor { .. }
        | ast::Expr::Position { .. }
        | ast::Expr::Substring { .. }
        | ast::Expr::Trim { .. }
        | ast::Expr::Overlay { .. }
        | ast::Expr::IsNull(_)
        | ast::Expr::IsNotNull(_)
        | ast::Expr::IsTrue(_)
        | ast::Expr::IsFalse(_)
        | ast::Expr::IsUnknown(_)
        | ast::Expr::IsNotTrue(_)
        | ast::Expr::IsNotFalse(_)
        | ast::Expr::IsNotUnknown(_)
        | ast::Expr::IsDistinctFrom(..)
        | ast::Expr::IsNotDistinctFrom(..)
        | ast::Expr::Between { .. }
        | ast::Expr::Like { .. }
        | ast::Expr::ILike { .. }
        | ast::Expr::SimilarTo { .. }
        | ast::Expr::InList { .. } => true,
        _ => false,
    }
}
