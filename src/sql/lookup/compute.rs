//! Expressions over the rows that a look-up has found.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, Operator, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;

use super::Given;
use crate::error::{Error, Result};
use crate::expr::{Walk, arith_op, at_time, cast_array, compile, from_datafusion, is_now, spread};
use crate::library::{Trait, has_trait};
use crate::sql::constant;
use crate::sql::dml::replace;
use crate::sql::errors::plan_error;

/// Nodes of an expression that is computed here; longer ones are walked on a stack that is large
/// enough for them.
const NODES_MAX: usize = 64;

/// An expression, compiled as far as it can be without values.
#[derive(Debug)]
pub(super) enum Computed {
    /// A plain column, which costs nothing.
    Column(usize),
    Fixed(Arc<dyn PhysicalExpr>),
    /// With parameters or the clock in it.
    Open(Expr),
}

impl Computed {
    /// `None` for what is not computed here.
    pub(super) fn new(expr: &Expr, input: &DFSchema) -> Option<Self> {
        if !is_cheap(expr) {
            return None;
        }
        if is_open(expr) {
            return Some(Self::Open(expr.clone()));
        }
        let compiled = compile(expr, input).ok()?;
        Some(match compiled.downcast_ref::<Column>() {
            Some(column) => Self::Column(column.index()),
            None => Self::Fixed(compiled),
        })
    }

    /// Its values for some rows.
    pub(super) fn array(
        &self,
        rows: &RecordBatch,
        input: &DFSchema,
        given: Given<'_>,
    ) -> Result<ArrayRef> {
        let values = match self {
            Self::Column(at) => return Ok(Arc::clone(rows.column(*at))),
            // What no row asks for is not computed.
            Self::Fixed(_) | Self::Open(_) if rows.num_rows() == 0 => {
                let data_type = self.data_type(input, rows)?;
                return Ok(arrow::array::new_empty_array(&data_type));
            }
            Self::Fixed(compiled) => compiled.evaluate(rows),
            Self::Open(expr) => compile(&closed(expr, given)?, input)?.evaluate(rows),
        };
        spread(values.map_err(from_datafusion)?, rows.num_rows())
    }

    fn data_type(&self, input: &DFSchema, rows: &RecordBatch) -> Result<DataType> {
        match self {
            Self::Column(at) => Ok(rows.column(*at).data_type().clone()),
            Self::Fixed(compiled) => compiled.data_type(input.as_arrow()).map_err(from_datafusion),
            Self::Open(expr) => constant::type_of(expr, input),
        }
    }
}

/// The value of an expression without columns.
pub(super) fn value_of(expr: &Expr, given: Given<'_>) -> Result<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Ok(value.clone()),
        expr => constant::evaluate(&closed(expr, given)?),
    }
}

/// Whether an expression has another value with other parameters or at another time.
pub(super) fn is_open(expr: &Expr) -> bool {
    expr.exists(|e| Ok(matches!(e, Expr::Placeholder(_)) || is_now(e))).unwrap_or(true)
}

/// An expression with values for its parameters and the clock.
fn closed(expr: &Expr, given: Given<'_>) -> Result<Expr> {
    let replaced = replace(expr.clone(), given.values).map_err(plan_error)?.data;
    Ok(at_time(replaced, given.now).map_err(from_datafusion)?.data)
}

/// Whether an expression takes a few microseconds for a few rows, and no more memory than these.
pub(super) fn is_cheap(expr: &Expr) -> bool {
    let mut nodes = 0;
    let dear = expr.exists(|e| {
        nodes += 1;
        Ok(nodes > NODES_MAX || !is_cheap_node(e))
    });
    !dear.unwrap_or(true)
}

fn is_cheap_node(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(_)
        | Expr::Column(_)
        | Expr::Literal(..)
        | Expr::Placeholder(_)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Negative(_)
        | Expr::Between(_)
        | Expr::Case(_)
        | Expr::Cast(_)
        | Expr::InList(_) => true,
        Expr::BinaryExpr(binary) => is_cheap_operator(binary.op),
        Expr::ScalarFunction(f) => is_now(expr) || is_cheap_function(f),
        _ => false,
    }
}

fn is_cheap_operator(op: Operator) -> bool {
    use Operator as O;
    matches!(
        op,
        O::And
            | O::Or
            | O::Eq
            | O::NotEq
            | O::Lt
            | O::LtEq
            | O::Gt
            | O::GtEq
            | O::IsDistinctFrom
            | O::IsNotDistinctFrom
    )
}

fn is_cheap_function(f: &ScalarFunction) -> bool {
    let immutable = f.func.signature().volatility == Volatility::Immutable;
    immutable && (arith_op(f).is_some() || has_trait(f.func.name(), Trait::Cheap))
}

/// The schema of columns without names.
pub(super) fn schema_of(columns: &[ArrayRef]) -> SchemaRef {
    let field = |c: &ArrayRef| Field::new("", c.data_type().clone(), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// A condition's values.
pub(super) fn as_mask(values: &ArrayRef) -> Result<BooleanArray> {
    match values.data_type() {
        DataType::Boolean => Ok(values.as_boolean().clone()),
        DataType::Null => Ok(cast_array(values, &DataType::Boolean)?.as_boolean().clone()),
        other => Err(Error::internal(format!("a condition of type {other}"))),
    }
}
