//! Types of the columns that several rows or branches make: VALUES and UNION. A text literal takes
//! the type of the others; text and another type do not mix.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Projection, Union, Values};

use super::comparable::{cannot_be_matched, common_float, is_text, is_text_literal, normal_type};
use super::semantics::rewrite_in;
use crate::expr::{ArithOp, Coercion, arith_typing, cast_expr, to_datafusion};

/// UNION: a text literal of one branch takes the type of the others; text and another type do not
/// mix.
pub(super) fn rewrite_union(mut union: Union) -> DfResult<LogicalPlan> {
    let width = union.inputs.iter().map(|i| i.schema().fields().len()).min().unwrap_or(0);
    for column in 0..width {
        let mut known = DataType::Null;
        for input in &union.inputs {
            let data_type = input.schema().field(column).data_type();
            if *data_type == DataType::Null || is_unknown_column(input, column) {
                continue;
            }
            if known != DataType::Null && is_text(&known) != is_text(data_type) {
                return Err(to_datafusion(cannot_be_matched("UNION", &known, data_type)));
            }
            known = data_type.clone();
        }
        if known == DataType::Null || is_text(&known) {
            continue;
        }
        let types = union.inputs.iter().map(|i| Ok(i.schema().field(column).data_type().clone()));
        if let Some(float) = common_float(types)? {
            for input in &mut union.inputs {
                *input = Arc::new(cast_column(Arc::clone(input), column, &float)?);
            }
            known = float;
        }
        for input in &mut union.inputs {
            if is_unknown_column(input, column) {
                let plan = type_column(Arc::unwrap_or_clone(Arc::clone(input)), column, &known)?;
                *input = Arc::new(plan);
            }
        }
    }
    Union::try_new_with_loose_types(union.inputs).map(LogicalPlan::Union)
}

/// A plan with a number of it as a float.
fn cast_column(input: Arc<LogicalPlan>, column: usize, to: &DataType) -> DfResult<LogicalPlan> {
    let from = input.schema().field(column).data_type();
    if !from.is_numeric() || from == to {
        return Ok(Arc::unwrap_or_clone(input));
    }
    let mut exprs: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let (qualifier, name) = exprs[column].qualified_name();
    let plain = std::mem::replace(&mut exprs[column], Expr::Literal(ScalarValue::Null, None));
    let cast = cast_expr(plain, from, to, Coercion::Explicit).map_err(to_datafusion)?;
    exprs[column] = cast.alias_qualified(qualifier, name);
    Projection::try_new(exprs, input).map(LogicalPlan::Projection)
}

pub(super) fn is_unknown_column(plan: &LogicalPlan, column: usize) -> bool {
    let LogicalPlan::Projection(p) = plan else { return false };
    p.expr.get(column).is_some_and(|e| is_text_literal(&e.clone().unalias()))
}

pub(super) fn type_column(
    plan: LogicalPlan,
    column: usize,
    to: &DataType,
) -> DfResult<LogicalPlan> {
    let LogicalPlan::Projection(mut p) = plan else { return Ok(plan) };
    let (qualifier, name) = p.expr[column].qualified_name();
    let literal = p.expr[column].clone().unalias();
    let cast =
        cast_expr(literal, &DataType::Utf8, to, Coercion::Explicit).map_err(to_datafusion)?;
    p.expr[column] = cast.alias_qualified(qualifier, name);
    Projection::try_new(p.expr, p.input).map(LogicalPlan::Projection)
}

/// VALUES: the type of a column is the common type of its values.
pub(super) fn rewrite_values(values: Values, outer: &DFSchema) -> DfResult<LogicalPlan> {
    let mut rows = Vec::with_capacity(values.values.len());
    for row in values.values {
        let row: DfResult<Vec<Expr>> =
            row.into_iter().map(|e| rewrite_in(plain_null(e), outer)).collect();
        rows.push(row?);
    }
    let mut fields = Vec::new();
    for (i, (qualifier, field)) in values.schema.iter().enumerate() {
        let mut common = DataType::Null;
        for row in &rows {
            common = common_type(&common, &row[i], outer)?;
        }
        let data_type = normal_type(&common).unwrap_or(common);
        for row in &mut rows {
            let expr = std::mem::replace(&mut row[i], Expr::Literal(ScalarValue::Null, None));
            let from = expr.get_type(outer)?;
            row[i] =
                cast_expr(expr, &from, &data_type, Coercion::Explicit).map_err(to_datafusion)?;
        }
        let field = Field::new(field.name(), data_type, true);
        fields.push((qualifier.cloned(), Arc::new(field)));
    }
    let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
    Ok(LogicalPlan::Values(Values { schema, values: rows }))
}

/// The planner types a NULL after its first guess of the column.
fn plain_null(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(value, _) if value.is_null() => Expr::Literal(ScalarValue::Null, None),
        Expr::Cast(cast) => match *cast.expr {
            // A cast that the planner put around a value to fit its guess is made again here.
            inner @ Expr::Literal(..) if !is_text_literal(&inner) => inner,
            Expr::ScalarFunction(f) if f.func.name() == "pg_same" => Expr::ScalarFunction(f),
            other => Expr::Cast(datafusion::logical_expr::Cast { expr: Box::new(other), ..cast }),
        },
        other => other,
    }
}

fn common_type(common: &DataType, expr: &Expr, schema: &DFSchema) -> DfResult<DataType> {
    let next = expr.get_type(schema)?;
    if is_text_literal(expr) && *common != DataType::Null {
        return Ok(common.clone());
    }
    if let Some(float) = common_float([common, &next].into_iter().cloned().map(Ok))? {
        return Ok(float);
    }
    Ok(match (common, &next) {
        (DataType::Null, t) | (t, DataType::Null) => t.clone(),
        (a, b) if a == b => a.clone(),
        (DataType::Utf8, b) => b.clone(),
        (a, b) if a.is_numeric() && b.is_numeric() => arith_typing(ArithOp::Rem, a, b)
            .or_else(|_| arith_typing(ArithOp::Sub, a, b))
            .map(|t| widest(a, b, t.result))
            .map_err(to_datafusion)?,
        (DataType::Date32, b @ DataType::Timestamp(..)) => b.clone(),
        (a @ DataType::Timestamp(..), DataType::Date32) => a.clone(),
        (a, b) => {
            return Err(to_datafusion(cannot_be_matched("VALUES", a, b)));
        }
    })
}

/// Room for the digits of both; the result of a remainder keeps those of the smaller only.
fn widest(a: &DataType, b: &DataType, result: DataType) -> DataType {
    let digits = |t: &DataType| match t {
        DataType::Decimal128(p, s) => Some((i16::from(*p) - i16::from(*s), *s)),
        DataType::Int16 => Some((5, 0)),
        DataType::Int32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        _ => None,
    };
    match (result, digits(a), digits(b)) {
        (DataType::Decimal128(..), Some((aw, a_s)), Some((bw, b_s))) => {
            let scale = a_s.max(b_s);
            let precision = (aw.max(bw) + i16::from(scale)).clamp(1, 38);
            DataType::Decimal128(precision as u8, scale)
        }
        (other, ..) => other,
    }
}

/// `t[]` as the type of arrays of arrays where such are cast: no name of a type counts dimensions.
pub(super) fn as_deep(from: &DataType, to: DataType) -> DataType {
    match (from, &to) {
        (DataType::List(inner), DataType::List(element))
            if matches!(inner.data_type(), DataType::List(_))
                && !matches!(element.data_type(), DataType::List(_)) =>
        {
            DataType::List(Arc::new(Field::new_list_field(as_deep(inner.data_type(), to), true)))
        }
        _ => to,
    }
}
