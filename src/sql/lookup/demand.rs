//! What a condition demands of a column: that it has one of some values.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use super::Given;
use super::compute::{is_open, value_of};
use crate::config::POINT_READ_KEYS_MAX;
use crate::expr::Walk;

/// `column = v`, `column IN (v, ..)`, and such conditions on one column with OR between them.
#[derive(Debug)]
pub(super) struct Demand {
    column: usize,
    data_type: DataType,
    any_of: Vec<Operand>,
}

#[derive(Debug)]
enum Operand {
    Value(ScalarValue),
    /// With parameters or the clock in it.
    Open(Expr),
}

impl Demand {
    /// What a condition over a schema demands; `column` finds the column of the relation.
    pub(super) fn of(
        condition: &Expr,
        schema: &DFSchema,
        column: &impl Fn(usize) -> Option<usize>,
    ) -> Option<Self> {
        let (at, operands) = one_of(condition, schema)?;
        let data_type = schema.field(at).data_type().clone();
        if !compares_as_bytes(&data_type) || operands.len() > POINT_READ_KEYS_MAX {
            return None;
        }
        let any_of = operands.into_iter().map(|e| match is_open(e) {
            true => Some(Operand::Open(e.clone())),
            false => {
                let none = Given { values: &[], now: chrono::DateTime::UNIX_EPOCH };
                value_of(e, none).ok().map(Operand::Value)
            }
        });
        Some(Self { column: column(at)?, any_of: any_of.collect::<Option<_>>()?, data_type })
    }

    pub(super) fn column(&self) -> usize {
        self.column
    }

    /// Whether all rows with these values meet the condition: of floating-point numbers two that
    /// have one key may differ.
    pub(super) fn is_exact(&self) -> bool {
        !self.data_type.is_floating()
    }

    /// The values. NULL equals nothing, so it is left out. `None` when one can't be computed.
    pub(super) fn values(&self, given: Given<'_>) -> Option<Vec<ScalarValue>> {
        let mut values = Vec::with_capacity(self.any_of.len());
        for operand in &self.any_of {
            let value = match operand {
                Operand::Value(value) => value.clone(),
                Operand::Open(expr) => value_of(expr, given).ok()?,
            };
            if !value.is_null() {
                values.extend(self.as_column(value)?);
            }
        }
        Some(values)
    }

    /// A value in the column's type: nothing when it is an integer that the column can't hold, and
    /// `None` when it is of another type, which would compare in ways that key bytes do not.
    fn as_column(&self, value: ScalarValue) -> Option<Option<ScalarValue>> {
        if value.data_type() == self.data_type {
            return Some(Some(value));
        }
        let wide = match value {
            ScalarValue::Int16(v) => i64::from(v?),
            ScalarValue::Int32(v) => i64::from(v?),
            ScalarValue::Int64(v) => v?,
            _ => return None,
        };
        match self.data_type {
            DataType::Int16 => Some(i16::try_from(wide).ok().map(|v| ScalarValue::Int16(Some(v)))),
            DataType::Int32 => Some(i32::try_from(wide).ok().map(|v| ScalarValue::Int32(Some(v)))),
            DataType::Int64 => Some(Some(ScalarValue::Int64(Some(wide)))),
            _ => None,
        }
    }
}

/// Values of these types can be equal without being the same.
pub(crate) fn compares_as_bytes(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::LargeUtf8 | DataType::Interval(_) | DataType::List(_))
}

fn one_of<'e>(expr: &'e Expr, schema: &DFSchema) -> Option<(usize, Vec<&'e Expr>)> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let ((column, mut values), (other, more)) =
                (one_of(left, schema)?, one_of(right, schema)?);
            values.extend(more);
            (column == other).then_some((column, values))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let pair = |column: &Expr, value: &'e Expr| {
                Some((column_of(column, schema)?, vec![constant(value)?]))
            };
            pair(left, right).or_else(|| pair(right, left))
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let column = column_of(expr, schema)?;
            Some((column, list.iter().map(constant).collect::<Option<_>>()?))
        }
        _ => None,
    }
}

/// The column behind an expression, under a cast that makes an integer wider, if any.
fn column_of(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Cast(cast) => {
            let at = column_of(&cast.expr, schema)?;
            let (from, to) = (schema.field(at).data_type(), cast.field.data_type());
            let wider = matches!(
                (from, to),
                (DataType::Int16, DataType::Int32 | DataType::Int64)
                    | (DataType::Int32, DataType::Int64)
            );
            wider.then_some(at)
        }
        _ => None,
    }
}

/// An expression without columns.
fn constant(expr: &Expr) -> Option<&Expr> {
    let columns = expr.exists(|e| Ok(matches!(e, Expr::Column(_))));
    (!columns.unwrap_or(true)).then_some(expr)
}
