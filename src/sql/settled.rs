//! The type that an operand will have, while its query is being planned.
//!
//! The planner takes each whole number of the text for a bigint until the plan is whole and gets
//! PostgreSQL's types. An operator is chosen earlier, by what its operands will be: `mod(i, 3)` is
//! an integer then.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::ScalarFunction;

use super::outline::{is_outline, type_of};
use super::semantics::plain_literal;
use crate::expr::{Walk, arith_op};

/// The type of an expression when its literals have theirs.
pub(super) fn settled_type(expr: &Expr, schema: &DFSchema) -> DfResult<DataType> {
    let open = match expr {
        Expr::ScalarFunction(f) => !is_operator(f),
        Expr::AggregateFunction(_) | Expr::WindowFunction(_) | Expr::Case(_) => true,
        // A function that is planned as an operator: `mod(7, 3)`.
        Expr::Alias(_) => true,
        _ => false,
    };
    if !open {
        return type_of(expr, schema);
    }
    let mut named = false;
    let settled = expr.clone().transform_down(|e| {
        let call = std::mem::replace(&mut named, matches!(e, Expr::Alias(_)));
        match &e {
            Expr::Literal(..) => plain_literal(e).map(Transformed::yes),
            // An operator below was planned before this one, of operands with their types.
            Expr::BinaryExpr(_) if !call => Ok(jump(e)),
            Expr::ScalarFunction(f) if !call && is_operator(f) => Ok(jump(e)),
            _ => Ok(Transformed::no(e)),
        }
    })?;
    type_of(&settled.data, schema)
}

fn jump(expr: Expr) -> Transformed<Expr> {
    Transformed::new(expr, false, TreeNodeRecursion::Jump)
}

fn is_operator(f: &ScalarFunction) -> bool {
    arith_op(f).is_some() || is_outline(&f.func)
}
