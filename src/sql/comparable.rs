//! What PostgreSQL says about types: which are compared, which are the same in the engine, and the
//! errors where there is no operator, function or common type.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, Operator};

use super::types::{TIMESTAMP, timestamptz};
use crate::delta::text::{UTC, pg_type_name};
use crate::error::{Error, Result, sqlstate};
use crate::expr::to_datafusion;
use crate::library;

pub(super) fn is_text_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(_), _))
}

/// A parameter of a type.
pub(super) fn typed_placeholder(p: &Placeholder, data_type: &DataType) -> Expr {
    let field = Arc::new(Field::new("", data_type.clone(), true));
    Expr::Placeholder(Placeholder::new_with_field(p.id.clone(), Some(field)))
}

pub(super) fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::Utf8View)
}

pub(super) fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

pub(super) fn no_function(name: &str, arguments: &[Arc<Field>]) -> Error {
    let types: Vec<_> = arguments.iter().map(|f| pg_type_name(f.data_type())).collect();
    Error::user(
        sqlstate::UNDEFINED_FUNCTION,
        format!("function {name}({}) does not exist", types.join(", ")),
    )
    .with_hint(
        "No function matches the given name and argument types. You might need to add explicit \
         type casts.",
    )
}

/// 42883 for a window function with more or fewer arguments than it has.
pub(super) fn check_window_arity(name: &str, arguments: &[Arc<Field>]) -> Result<()> {
    let Some(function) = library::window(name) else { return Ok(()) };
    match function.arguments.contains(&arguments.len()) {
        true => Ok(()),
        false => Err(no_function(name, arguments)),
    }
}

pub(super) fn cannot_be_matched(what: &str, a: &DataType, b: &DataType) -> Error {
    Error::user(
        sqlstate::DATATYPE_MISMATCH,
        format!("{what} types {} and {} cannot be matched", pg_type_name(a), pg_type_name(b)),
    )
}

/// 42804 for what must be boolean and is not.
pub(super) fn check_boolean(what: &str, expr: &Expr, found: &DataType) -> DfResult<()> {
    match found {
        DataType::Boolean | DataType::Null => Ok(()),
        DataType::Utf8 if is_text_literal(expr) => Ok(()),
        _ => Err(to_datafusion(Error::user(
            sqlstate::DATATYPE_MISMATCH,
            format!("argument of {what} must be type boolean, not type {}", pg_type_name(found)),
        ))),
    }
}

/// 42883 for a comparison that PostgreSQL does not have.
pub(super) fn check_comparable(op: Operator, l: &DataType, r: &DataType) -> DfResult<()> {
    if comparable(l, r) {
        return Ok(());
    }
    Err(to_datafusion(
        Error::user(
            sqlstate::UNDEFINED_FUNCTION,
            format!("operator does not exist: {} {op} {}", pg_type_name(l), pg_type_name(r)),
        )
        .with_hint(
            "No operator matches the given name and argument types. You might need to add \
             explicit type casts.",
        ),
    ))
}

/// Whether values of two types can be results of one expression.
pub(super) fn same_kind(a: &DataType, b: &DataType) -> bool {
    let kind = |t: &DataType| match t {
        t if is_text(t) => 0,
        t if t.is_numeric() => 1,
        DataType::Boolean => 2,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => 3,
        DataType::Time32(_) | DataType::Time64(_) => 4,
        DataType::Interval(_) | DataType::Duration(_) => 5,
        DataType::LargeUtf8 => 6,
        DataType::FixedSizeBinary(16) => 7,
        DataType::List(_) | DataType::LargeList(_) => 8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => 9,
        _ => 10,
    };
    kind(a) == kind(b)
}

/// The type of numbers of several types where one of them is a float: that one, where DataFusion
/// would take `numeric`, which has neither their range nor infinity.
pub(super) fn common_float(
    types: impl Iterator<Item = DfResult<DataType>>,
) -> DfResult<Option<DataType>> {
    let (mut float, mut other) = (None, false);
    for data_type in types {
        match data_type? {
            DataType::Float64 => float = Some(DataType::Float64),
            DataType::Float32 => float = float.or(Some(DataType::Float32)),
            t => other |= t.is_numeric(),
        }
    }
    Ok(float.filter(|_| other))
}

/// Whether PostgreSQL compares two types.
fn comparable(l: &DataType, r: &DataType) -> bool {
    use DataType::{Date32, Interval, Null, Time64, Timestamp};
    let binary =
        |t: &DataType| matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
    match (l, r) {
        (Null, _) | (_, Null) => true,
        (l, r) if l == r => true,
        (l, r) if is_text(l) && is_text(r) => true,
        (l, r) if l.is_numeric() && r.is_numeric() => true,
        (l, r) if binary(l) && binary(r) => true,
        (Timestamp(..) | Date32, Timestamp(..) | Date32) => true,
        (Interval(_), Interval(_)) | (Time64(_), Time64(_)) => true,
        (DataType::List(_), DataType::List(_)) | (DataType::Struct(_), DataType::Struct(_)) => true,
        _ => false,
    }
}

/// The type that stands for one that only library functions have.
pub(super) fn normal_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Utf8View | DataType::Null => DataType::Utf8,
        DataType::FixedSizeBinary(16) => return None,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => return None,
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if **zone == *UTC => {
            return None;
        }
        DataType::Timestamp(_, None) => TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => timestamptz(),
        DataType::Time32(_) | DataType::Time64(TimeUnit::Nanosecond) => {
            DataType::Time64(TimeUnit::Microsecond)
        }
        DataType::Date64 => DataType::Date32,
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        DataType::Interval(IntervalUnit::YearMonth | IntervalUnit::DayTime)
        | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Dictionary(_, values) => match normal_type(values) {
            Some(t) => t,
            None => values.as_ref().clone(),
        },
        _ => return None,
    })
}

/// Whether the type of an expression is still open: a text literal, NULL, a parameter.
pub(super) fn is_unknown(expr: &Expr, data_type: &DataType) -> bool {
    let open = matches!(expr, Expr::Placeholder(p) if p.field.is_none());
    open || is_text_literal(expr) || *data_type == DataType::Null
}
