//! Casts of rows to the columns of a table, as PostgreSQL casts in assignments.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection, lit};

use super::rules::default_expr;
use crate::catalog::Relation;
use crate::delta::jsonb::write_string;
use crate::error::Result;
use crate::expr::{Coercion, assignment_error, call, can_cast, cast_expr, from_datafusion};
use crate::sql::binder::plan_expr;
use crate::sql::comparable::typed_placeholder;
use crate::sql::constant;
use crate::sql::context::Context;
use crate::sql::errors::plan_error;

/// Casts the columns of a plan from `first` on to the types of a table, as assignments; `targets`
/// are the table's columns in the order of the plan's.
pub(in crate::sql) fn assign(
    plan: LogicalPlan,
    first: usize,
    relation: &Relation,
    targets: &[usize],
) -> Result<LogicalPlan> {
    let schema = &relation.schema;
    let plan = type_unknowns(plan, first, schema, targets)?;
    let input = Arc::clone(plan.schema());
    let mut exprs = Vec::new();
    for (i, (qualifier, field)) in input.iter().enumerate() {
        let column = Expr::from((qualifier, field));
        let Some(&target) = i.checked_sub(first).and_then(|i| targets.get(i)) else {
            exprs.push(column);
            continue;
        };
        let (to, from) = (schema.field(target), field.data_type());
        let record = relation.rules.records.get(&target);
        if let Some(template) = record.and_then(|record| names_of(record, from)) {
            let named =
                call("record_json", vec![column, lit(template)]).map_err(from_datafusion)?;
            exprs.push(named.alias_qualified(qualifier.cloned(), field.name()));
            continue;
        }
        if !can_cast(from, to.data_type(), Coercion::Assignment) {
            return Err(assignment_error(to.name(), to.data_type(), from));
        }
        let cast = cast_expr(column, from, to.data_type(), Coercion::Assignment)?;
        exprs.push(cast.alias_qualified(qualifier.cloned(), field.name()));
    }
    LogicalPlanBuilder::from(plan)
        .project(exprs)
        .and_then(LogicalPlanBuilder::build)
        .map_err(plan_error)
}

/// The names of the fields of a `ROW<..>` column for a row that is assigned to it, as a JSON list
/// of `[name]` and `[name, names inside]`; `None` for what is no row of as many fields that fit.
fn names_of(record: &DataType, row: &DataType) -> Option<String> {
    let (DataType::Struct(fields), DataType::Struct(given)) = (record, row) else { return None };
    if fields.len() != given.len() {
        return None;
    }
    let mut names = String::from("[");
    for (at, (field, value)) in fields.iter().zip(given).enumerate() {
        names.push_str(if at > 0 { ", [" } else { "[" });
        write_string(field.name(), &mut names);
        match field.data_type() {
            inner @ DataType::Struct(_) if *value.data_type() != DataType::Null => {
                names.push_str(", ");
                names.push_str(&names_of(inner, value.data_type())?);
            }
            to if !can_cast(value.data_type(), to, Coercion::Explicit) => return None,
            _ => {}
        }
        names.push(']');
    }
    names.push(']');
    Some(names)
}

/// Text literals and parameters at the top of a query take the type of the column they go to.
fn type_unknowns(
    plan: LogicalPlan,
    first: usize,
    schema: &SchemaRef,
    targets: &[usize],
) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(Projection { expr, input, .. }) = plan else { return Ok(plan) };
    let mut exprs = Vec::with_capacity(expr.len());
    for (i, expr) in expr.into_iter().enumerate() {
        let target = i.checked_sub(first).and_then(|i| targets.get(i));
        let Some(to) = target.map(|t| schema.field(*t).data_type()) else {
            exprs.push(expr);
            continue;
        };
        let name = expr.qualified_name();
        let typed = match expr.unalias() {
            Expr::Placeholder(p) if p.field.is_none() => typed_placeholder(&p, to),
            e @ Expr::Literal(ScalarValue::Utf8(_), _) => {
                cast_expr(e, &DataType::Utf8, to, Coercion::Explicit)?
            }
            other => other,
        };
        exprs.push(typed.alias_qualified(name.0, name.1));
    }
    Projection::try_new(exprs, input).map(LogicalPlan::Projection).map_err(plan_error)
}

/// A plan with all columns of a table in their order, the DEFAULT for those that `columns` does not
/// name.
pub(in crate::sql) fn fill(
    plan: LogicalPlan,
    relation: &Relation,
    columns: &[usize],
    context: &Context<'_>,
) -> Result<LogicalPlan> {
    let input = Arc::clone(plan.schema());
    let given = input.fields().len().min(columns.len());
    let all = relation.schema.fields().iter().enumerate().map(|(target, field)| {
        match columns[..given].iter().position(|c| *c == target) {
            Some(i) => Ok(Expr::from(input.qualified_field(i)).alias(field.name())),
            None => default_column(relation, target, context).map(|e| e.alias(field.name())),
        }
    });
    let exprs = all.collect::<Result<Vec<_>>>()?;
    LogicalPlanBuilder::from(plan)
        .project(exprs)
        .and_then(LogicalPlanBuilder::build)
        .map_err(plan_error)
}

/// The DEFAULT of a column as an expression of the column's type.
pub(super) fn default_column(
    relation: &Relation,
    column: usize,
    context: &Context<'_>,
) -> Result<Expr> {
    let to = relation.schema.field(column).data_type();
    let expr = default_expr(relation, column)?;
    typed(plan_expr(&expr, &DFSchema::empty(), context, &[])?, relation, column, to)
}

/// An expression without columns, cast to the type of a table's column.
pub(super) fn typed(
    planned: Expr,
    relation: &Relation,
    column: usize,
    to: &DataType,
) -> Result<Expr> {
    let from = constant::type_of(&planned, &DFSchema::empty())?;
    let record = relation.rules.records.get(&column);
    if let Some(template) = record.and_then(|record| names_of(record, &from)) {
        return call("record_json", vec![planned, lit(template)]).map_err(from_datafusion);
    }
    let text = matches!(planned, Expr::Literal(ScalarValue::Utf8(_), _));
    if !text && !can_cast(&from, to, Coercion::Assignment) {
        return Err(assignment_error(relation.schema.field(column).name(), to, &from));
    }
    let coercion = if text { Coercion::Explicit } else { Coercion::Assignment };
    cast_expr(planned, &from, to, coercion)
}
