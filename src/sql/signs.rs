//! Operators in front of operators: `- -x` is written `--x` by the syntax tree, which is a comment.
//! Definitions are kept as text, so the inner one gets parentheses.

use sqlparser::ast::{Expr, VisitMut};

use super::visit::{Rewrite, walk_mut};
use crate::error::Result;

/// Puts parentheses where the text of a tree would be another one.
pub(super) fn separate_signs<T: VisitMut>(node: &mut T) {
    // It never fails.
    let _done = walk_mut(node, &mut Signs);
}

struct Signs;

impl Rewrite for Signs {
    fn pre_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Expr::UnaryOp { expr: operand, .. } = expr
            && let Expr::UnaryOp { .. } = operand.as_ref()
        {
            let inner = operand.as_ref().clone();
            **operand = Expr::Nested(Box::new(inner));
        }
        Ok(())
    }
}
