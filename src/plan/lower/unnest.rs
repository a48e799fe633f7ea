//! Lowering of UNNEST: a step of the map over its input.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, NullHandling, Result as DfResult};
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, Projection, Unnest as UnnestNode,
};

use super::super::node::{PlanNode, Properties, project};
use super::{Lowering, add_projection, add_step, arrow_schema, lower};
use crate::error::{Error, Result};
use crate::expr::{ListSource, Walk, compile, from_datafusion};
use crate::operator::{MapStep, Unnest, Unnested};
use crate::time::Carry;

pub(super) fn lower_unnest(node: &UnnestNode, cx: &Lowering<'_>) -> Result<PlanNode> {
    let lists = &node.list_type_columns;
    if !node.struct_type_columns.is_empty() || lists.iter().any(|(_, list)| list.depth != 1) {
        return Err(Error::unsupported(
            "UNNEST of records or of arrays of arrays is not supported in a materialized view",
        ));
    }
    let outer = match node.options.null_handling {
        NullHandling::Drop => false,
        NullHandling::PreserveAndExpandEmpty => true,
        NullHandling::Preserve => {
            return Err(Error::internal("UNNEST keeps rows without arrays or does not"));
        }
    };
    let schema = arrow_schema(&node.schema);
    let names: Vec<String> = node.exec_columns.iter().map(ToString::to_string).collect();
    let list = |i: usize| lists.iter().any(|(column, _)| *column == i);
    let (input, kept, sources) = match node.input.as_ref() {
        LogicalPlan::Projection(projection) => made(projection, &list, cx)?,
        other => {
            let width = other.schema().fields().len();
            let sources = (0..width).filter(|i| list(*i)).map(ListSource::column).collect();
            (lower(other, cx)?, (0..width).collect(), sources)
        }
    };
    let number = |i: usize| (0..i).filter(|before| list(*before)).count();
    let columns = node.dependency_indices.iter().map(|i| match list(*i) {
        true => Unnested::List(number(*i)),
        false => Unnested::Kept(kept[*i]),
    });
    let step = Unnest { columns: columns.collect(), lists: sources, outer, schema: schema.clone() };
    Ok(add_step(input, MapStep::Unnest(step), schema, format!("unnest {}", names.join(", "))))
}

/// The input of the step, where each column of the projection is in it, and the lists, those of
/// series without their elements: it has the arguments of the series instead.
type Made = (PlanNode, Vec<usize>, Vec<ListSource>);

fn made(node: &Projection, list: &dyn Fn(usize) -> bool, cx: &Lowering<'_>) -> Result<Made> {
    let node = &spelled_in_place(node)?;
    let (mut exprs, mut kept, mut sources) = (Vec::new(), Vec::new(), Vec::new());
    for (i, expr) in node.expr.iter().enumerate() {
        kept.push(exprs.len());
        match list(i) {
            true => sources.push(spelled_out(expr, &mut exprs)?),
            false => exprs.push(expr.clone()),
        }
    }
    let inner = node.input.schema();
    let fields = exprs.iter().enumerate().map(|(i, expr)| {
        let (_, field) = expr.to_field(inner).map_err(from_datafusion)?;
        Ok(field.as_ref().clone().with_name(format!("#{i}")).with_nullable(true))
    });
    let fields = fields.collect::<Result<Vec<_>>>()?;
    let wide = Arc::new(Schema::new(fields));
    let input = add_projection(lower(&node.input, cx)?, &exprs, inner, Arc::clone(&wide))?;
    let wide = DFSchema::try_from(wide).map_err(from_datafusion)?;
    let source = |e: &Expr| Ok(ListSource::of(&compile(e, &wide)?));
    let sources = sources.iter().map(source).collect::<Result<_>>()?;
    Ok((input, kept, sources))
}

/// A series that stands in a projection of its own, for it is used twice, in its places again.
fn spelled_in_place(node: &Projection) -> Result<Projection> {
    let LogicalPlan::Projection(below) = node.input.as_ref() else { return Ok(node.clone()) };
    let is_series = |e: &Expr| match e.clone().unalias() {
        Expr::ScalarFunction(call) => call.name() == "generate_series",
        _ => false,
    };
    if !below.expr.iter().any(is_series) {
        return Ok(node.clone());
    }
    let spelled = |expr: &Expr| {
        let spelled = expr.clone().transform_up(|e| {
            let place = match &e {
                Expr::Column(column) => below.schema.maybe_index_of_column(column),
                _ => None,
            };
            Ok(match place.and_then(|i| below.expr.get(i)) {
                Some(whole) => Transformed::yes(whole.clone().unalias()),
                None => Transformed::no(e),
            })
        });
        spelled.map(|t| t.data)
    };
    let exprs = node.expr.iter().map(spelled).collect::<DfResult<Vec<_>>>();
    let exprs = exprs.map_err(from_datafusion)?;
    let schema = Arc::clone(&node.schema);
    let input = Arc::clone(&below.input);
    Projection::try_new_with_schema(exprs, input, schema).map_err(from_datafusion)
}

/// An expression for lists over columns `#0`, `#1`, .., which are those of `exprs`.
fn spelled_out(expr: &Expr, exprs: &mut Vec<Expr>) -> Result<Expr> {
    let plain = expr.clone().unalias();
    let Expr::ScalarFunction(call) = &plain else { return Ok(column_of(plain, exprs)) };
    let args = match call.name() {
        "generate_series" => {
            call.args.iter().map(|arg| Ok(column_of(arg.clone(), exprs))).collect::<Result<_>>()
        }
        "pg_ordinality" => call.args.iter().map(|arg| spelled_out(arg, exprs)).collect(),
        _ => return Ok(column_of(plain, exprs)),
    };
    Ok(call.func.call(args?))
}

/// The column of an expression, which is added unless it is there.
fn column_of(expr: Expr, exprs: &mut Vec<Expr>) -> Expr {
    let known = exprs.iter().position(|e| *e == expr);
    let place = known.unwrap_or_else(|| {
        exprs.push(expr);
        exprs.len() - 1
    });
    Expr::Column(Column::new_unqualified(format!("#{place}")))
}

/// Rows are told apart by nothing that could be named: elements may be equal.
pub(super) fn properties(input: &Properties, step: &Unnest) -> Properties {
    let sources: Vec<Option<usize>> = step.columns.iter().map(|c| kept(*c)).collect();
    Properties { key: None, ..project(input, &sources) }
}

/// How the columns behind the step carry the watermarks of those in front of it.
pub(super) fn carries(step: &Unnest) -> Vec<Option<(usize, Carry)>> {
    step.columns.iter().map(|c| kept(*c).map(|i| (i, Carry::Same))).collect()
}

fn kept(column: Unnested) -> Option<usize> {
    match column {
        Unnested::Kept(i) => Some(i),
        Unnested::List(_) => None,
    }
}
