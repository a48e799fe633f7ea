//! Operators in front of operators: `- -x` is written `--x` by the syntax tree, which is a comment.
//! Definitions are kept as text, so the inner one gets parentheses.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, VisitMut, VisitorMut};

/// Puts parentheses where the text of a tree would be another one.
pub(super) fn separate_signs<T: VisitMut>(node: &mut T) {
    // The visitor never breaks off.
    let _done: ControlFlow<()> = node.visit(&mut Signs);
}

struct Signs;

impl VisitorMut for Signs {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::UnaryOp { expr: operand, .. } = expr
            && let Expr::UnaryOp { .. } = operand.as_ref()
        {
            let inner = operand.as_ref().clone();
            **operand = Expr::Nested(Box::new(inner));
        }
        ControlFlow::Continue(())
    }
}
