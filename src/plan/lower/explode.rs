//! Lowering of windows of which a row can be in several: a step of the map over their input.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::{Expr, ExprSchemable, Extension};

use super::super::node::{PlanNode, Properties};
use super::aggregate::lower_set_operation;
use super::asof::lower_asof;
use super::moving::lower_moving;
use super::pattern::lower_pattern;
use super::recursion::{lower_feedback, lower_recursion};
use super::session::lower_session;
use super::stamp::lower_stamped;
use super::{Lowering, add_projection, add_step, arrow_schema, lower, not_in_view};
use crate::error::{Error, Result};
use crate::expr::WindowEdge;
use crate::operator::{Explode, MapStep};
use crate::sql::{ExplodeWindows, as_recursion, as_set_operation};
use crate::time::{Carry, Windows};

/// Lowers a node of ours.
pub(super) fn lower_extension(node: &Extension, cx: &Lowering<'_>) -> Result<PlanNode> {
    if let Some(node) = as_set_operation(node) {
        return lower_set_operation(node, cx);
    }
    if let Some(node) = as_recursion(node) {
        return lower_recursion(node, cx);
    }
    let any = node.node.as_ref().as_any();
    if let Some(node) = any.downcast_ref() {
        return Ok(lower_feedback(node));
    }
    if let Some(node) = any.downcast_ref() {
        return lower_moving(node, cx);
    }
    if let Some(node) = any.downcast_ref() {
        return lower_stamped(node, cx);
    }
    if let Some(node) = any.downcast_ref() {
        return lower_pattern(node, cx);
    }
    if let Some(node) = any.downcast_ref() {
        return lower_asof(node, cx);
    }
    match (any.downcast_ref(), any.downcast_ref()) {
        (Some(node), _) => lower_explode(node, cx),
        (_, Some(node)) => lower_session(node, cx),
        _ => Err(not_in_view(node.node.name())),
    }
}

fn lower_explode(node: &ExplodeWindows, cx: &Lowering<'_>) -> Result<PlanNode> {
    let mut input = lower(&node.input, cx)?;
    let schema = node.input.schema();
    let keep = schema.fields().len();
    let time = match &node.time {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        _ => None,
    };
    if time.is_none() {
        // The timestamp is computed behind the other columns.
        let data_type = node.time.get_type(schema).map_err(|e| Error::internal(e.to_string()))?;
        let columns = schema.columns().into_iter().map(Expr::Column);
        let exprs: Vec<Expr> = columns.chain([node.time.clone()]).collect();
        let computed = Arc::new(Field::new(node.time.to_string(), data_type, true));
        let fields: Vec<_> = schema.fields().iter().cloned().chain([computed]).collect();
        input = add_projection(input, &exprs, schema, Arc::new(Schema::new(fields)))?;
    }
    let schema = arrow_schema(datafusion::logical_expr::UserDefinedLogicalNode::schema(node));
    let step = Explode {
        time: time.unwrap_or(keep),
        keep,
        windows: node.windows,
        edges: node.edges.clone(),
        schema: schema.clone(),
    };
    let text = format!("{} by {}", node.windows, node.time);
    Ok(add_step(input, MapStep::Explode(step), schema, text))
}

/// Rows of one row of the input differ in the edge that moves from window to window.
pub(super) fn properties(input: &Properties, step: &Explode) -> Properties {
    let moves = match step.windows {
        Windows::Hop(_) => WindowEdge::Start,
        Windows::Cumulate(_) => WindowEdge::End,
    };
    let edge = step.edges.iter().position(|e| *e == moves).map(|i| step.keep + i);
    let key = input.key.as_ref().zip(edge);
    let key = key.map(|(key, edge)| key.iter().copied().chain([edge]).collect());
    Properties { key, ..input.clone() }
}

/// How the columns behind the step carry the watermarks of those in front of it.
pub(super) fn carries(step: &Explode) -> Vec<Option<(usize, Carry)>> {
    let kept = (0..step.keep).map(|column| Some((column, Carry::Same)));
    let edges = step.edges.iter().map(|e| Some((step.time, Carry::Windows(*e, step.windows))));
    kept.chain(edges).collect()
}
