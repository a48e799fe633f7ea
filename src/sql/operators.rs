//! Operators and subscripts that are functions under their own spelling.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::planner::{PlannerResult, RawFieldAccessExpr};
use datafusion::logical_expr::{ExprSchemable, GetFieldAccess, lit};
use sqlparser::ast::BinaryOperator;

use super::semantics::plain_literal;
use crate::expr::call;

/// The function that an operator is.
pub(super) fn function_of(op: &BinaryOperator) -> Option<&'static str> {
    Some(match op {
        BinaryOperator::Arrow => "->",
        BinaryOperator::LongArrow => "->>",
        BinaryOperator::HashArrow => "#>",
        BinaryOperator::HashLongArrow => "#>>",
        BinaryOperator::HashMinus => "#-",
        BinaryOperator::AtArrow => "@>",
        BinaryOperator::ArrowAt => "<@",
        BinaryOperator::Question => "?",
        BinaryOperator::QuestionPipe => "?|",
        BinaryOperator::QuestionAnd => "?&",
        BinaryOperator::PGOverlap => "&&",
        BinaryOperator::PGStartsWith => "^@",
        BinaryOperator::PGExp => "power",
        _ => return None,
    })
}

/// `a[1]`, `a[1:2]`, `j['key']`.
pub(super) fn subscript(
    raw: RawFieldAccessExpr,
    schema: &DFSchema,
) -> DfResult<PlannerResult<RawFieldAccessExpr>> {
    let jsonb = raw.expr.get_type(schema).is_ok_and(|t| t == DataType::LargeUtf8);
    let planned = match raw.field_access {
        GetFieldAccess::NamedStructField { name: ScalarValue::Utf8(Some(key)) } if jsonb => {
            call("->", vec![raw.expr, lit(key)])?
        }
        GetFieldAccess::ListIndex { key } if jsonb => {
            call("->", vec![raw.expr, plain_literal(*key)?])?
        }
        GetFieldAccess::ListIndex { key } => {
            call("subscript", vec![raw.expr, plain_literal(*key)?])?
        }
        GetFieldAccess::ListRange { start, stop, .. } => {
            call("slice", vec![raw.expr, plain_literal(*start)?, plain_literal(*stop)?])?
        }
        field_access => {
            return Ok(PlannerResult::Original(RawFieldAccessExpr { field_access, ..raw }));
        }
    };
    Ok(PlannerResult::Planned(planned))
}
