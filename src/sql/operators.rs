//! Operators and subscripts that are functions under their own spelling.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::planner::{PlannerResult, RawFieldAccessExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, GetFieldAccess, lit};
use sqlparser::ast::BinaryOperator;

use super::outline::type_of;
use super::semantics::plain_literal;
use crate::delta::text::pg_type_name;
use crate::error::{Error, sqlstate};
use crate::expr::{call, parse_value, to_datafusion};

/// The function that an operator is.
pub(super) fn function_of(op: &BinaryOperator) -> Option<&'static str> {
    Some(match op {
        BinaryOperator::Arrow => "->",
        BinaryOperator::LongArrow => "->>",
        BinaryOperator::HashArrow => "#>",
        BinaryOperator::HashLongArrow => "#>>",
        BinaryOperator::HashMinus => "#-",
        BinaryOperator::AtArrow => "@>",
        BinaryOperator::AtQuestion => "@?",
        BinaryOperator::AtAt => "@@",
        BinaryOperator::ArrowAt => "<@",
        BinaryOperator::Question => "?",
        BinaryOperator::QuestionPipe => "?|",
        BinaryOperator::QuestionAnd => "?&",
        BinaryOperator::PGOverlap => "&&",
        BinaryOperator::PGStartsWith => "^@",
        BinaryOperator::PGRegexMatch => "~",
        BinaryOperator::PGRegexIMatch => "~*",
        BinaryOperator::PGRegexNotMatch => "!~",
        BinaryOperator::PGRegexNotIMatch => "!~*",
        BinaryOperator::PGExp => "power",
        BinaryOperator::BitwiseAnd => "&",
        BinaryOperator::BitwiseOr => "|",
        BinaryOperator::PGBitwiseXor => "#",
        BinaryOperator::PGBitwiseShiftLeft => "<<",
        BinaryOperator::PGBitwiseShiftRight => ">>",
        _ => return None,
    })
}

/// Integers and texts are the subscripts of jsonb.
fn check_key(key: &DataType) -> DfResult<()> {
    match key {
        DataType::Int16 | DataType::Int32 | DataType::Null => Ok(()),
        DataType::Utf8 | DataType::Utf8View => Ok(()),
        other => Err(to_datafusion(Error::user(
            sqlstate::DATATYPE_MISMATCH,
            format!("subscript type {} is not supported", pg_type_name(other)),
        ))),
    }
}

/// `a[1]`, `a[1:2]`, `j['key']`.
pub(super) fn subscript(
    raw: RawFieldAccessExpr,
    schema: &DFSchema,
) -> DfResult<PlannerResult<RawFieldAccessExpr>> {
    let found = type_of(&raw.expr, schema).ok();
    let jsonb = found == Some(DataType::LargeUtf8);
    let planned = match raw.field_access {
        GetFieldAccess::NamedStructField { name: ScalarValue::Utf8(Some(key)) } if jsonb => {
            call("jsonb_subscript", vec![raw.expr, lit(key)])?
        }
        GetFieldAccess::ListIndex { key } if jsonb => {
            let key = plain_literal(*key)?;
            check_key(&key.get_type(schema)?)?;
            call("jsonb_subscript", vec![raw.expr, key])?
        }
        GetFieldAccess::ListRange { .. } if jsonb => {
            let message = "jsonb subscript does not support slices";
            return Err(to_datafusion(Error::user(sqlstate::DATATYPE_MISMATCH, message)));
        }
        // A text that stands for the number of an element.
        GetFieldAccess::NamedStructField { name: ScalarValue::Utf8(Some(key)) }
            if matches!(found, Some(DataType::List(_))) =>
        {
            let index = parse_value(&key, &DataType::Int32).map_err(to_datafusion)?;
            call("subscript", vec![raw.expr, Expr::Literal(index, None)])?
        }
        GetFieldAccess::ListIndex { .. } | GetFieldAccess::ListRange { .. }
            if found.as_ref().is_some_and(|t| !matches!(t, DataType::List(_) | DataType::Null)) =>
        {
            let found = found.as_ref().map(pg_type_name).unwrap_or_default();
            return Err(to_datafusion(Error::user(
                sqlstate::DATATYPE_MISMATCH,
                format!("cannot subscript type {found} because it does not support subscripting"),
            )));
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
