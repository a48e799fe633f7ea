//! Lowering of sessions: by row, and grouped where an aggregate takes whole sessions of rows that
//! are never taken back.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{
    Aggregate, EmptyRelation, Expr, LogicalPlan, UserDefinedLogicalNode,
};

use super::super::node::{Partitioning, PlanNode, Properties};
use super::super::time::{TimeColumn, without_late};
use super::aggregate::keyed;
use super::over::Over;
use super::{Lowering, arrow_schema, lower};
use crate::error::{Error, Result};
use crate::operator::{AggregateSpec, SessionAggregateSpec, SessionColumn, SessionSpec};
use crate::sql::SessionWindows;
use crate::time::{TimeRole, WindowEdge};

pub(super) fn lower_session(node: &SessionWindows, cx: &Lowering<'_>) -> Result<PlanNode> {
    let input = lower(&node.input, cx)?;
    let columns = node.input.schema();
    let time = column(&node.time, columns)?;
    let keys = node.keys.iter().map(|k| column(k, columns)).collect::<Result<Vec<_>>>()?;
    let closes = input.times.iter().any(|t| t.column == time);
    let input = if closes { without_late(input, time) } else { input };
    let spec = SessionSpec {
        input: input.schema.clone(),
        schema: arrow_schema(UserDefinedLogicalNode::schema(node)),
        keys: keys.clone(),
        time,
        gap_us: node.gap_us,
        edges: node.edges.clone(),
        closes,
    };
    let width = columns.fields().len();
    let edges = node.edges.iter().enumerate();
    let times = edges.filter_map(|(i, e)| time_of(*e, width + i)).filter(|_| closes).collect();
    let properties = Properties {
        append_only: false,
        key: input.properties.key.clone(),
        partitioning: Partitioning::Hash(keys.clone()),
    };
    let node = PlanNode::operator(Arc::new(spec), vec![input.by(&keys)], properties);
    Ok(PlanNode { times, ..node })
}

/// An edge of sessions that close, as a time column.
fn time_of(edge: WindowEdge, column: usize) -> Option<TimeColumn> {
    let role = match edge {
        WindowEdge::Start => return None,
        WindowEdge::End => TimeRole::WindowEnd,
        WindowEdge::Time => TimeRole::Instant,
    };
    Some(TimeColumn { column, role, arrival: None, optional: false })
}

/// An aggregate that takes sessions as they are; `None` when it has another form.
pub(super) fn lower_grouped(node: &Aggregate, cx: &Lowering<'_>) -> Result<Option<PlanNode>> {
    let Some(found) = Over::<SessionWindows>::of(node) else { return Ok(None) };
    let session = found.node;
    let columns = session.input.schema();
    let time = column(&session.time, columns)?;
    let keys = session.keys.iter().map(|k| column(k, columns)).collect::<Result<Vec<_>>>()?;
    let Some(from) = whole_sessions(&found, &keys) else { return Ok(None) };
    let input = lower(&session.input, cx)?;
    if !input.properties.append_only {
        return Ok(None);
    }
    let closes = input.times.iter().any(|t| t.column == time);
    let input = if closes { without_late(input, time) } else { input };
    let by_mark = by_mark(&found)?;
    let (input, calls) = keyed(&by_mark, by_mark.group_expr.clone(), input)?;
    let inner_keys = (0..=keys.len()).collect();
    let groups = arrow_schema(&by_mark.schema);
    let inner = AggregateSpec::new((input.schema.clone(), true), inner_keys, calls, groups)?;
    if !inner.merges() {
        return Ok(None);
    }
    let edge = |(i, from): (usize, &SessionColumn)| match from {
        SessionColumn::Edge(edge) => time_of(*edge, i).filter(|_| closes),
        _ => None,
    };
    let times = from.iter().enumerate().filter_map(edge).collect();
    let place = |key| from.iter().position(|f| *f == SessionColumn::Key(key));
    let properties = Properties {
        append_only: false,
        key: Some((0..node.group_expr.len()).collect()),
        partitioning: Partitioning::Hash((0..keys.len()).filter_map(place).collect()),
    };
    let schema = arrow_schema(&node.schema);
    let (keys, gap_us) = (keys.len(), session.gap_us);
    let spec = SessionAggregateSpec { inner, keys, gap_us, columns: from, schema, closes };
    let input = input.by(&(0..keys).collect::<Vec<_>>());
    let node = PlanNode::operator(Arc::new(spec), vec![input], properties);
    Ok(Some(PlanNode { times, ..node }))
}

/// Where the columns of an aggregate come from whose groups are sessions, each with all its rows.
fn whole_sessions(found: &Over<'_, SessionWindows>, keys: &[usize]) -> Option<Vec<SessionColumn>> {
    let session = found.node;
    let (schema, width) =
        (UserDefinedLogicalNode::schema(session), session.input.schema().fields().len());
    let index = |e: &Expr| match e {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        _ => None,
    };
    let key = |e: &Expr| {
        let index = index(&e.clone().unalias_nested().data)?;
        let key = || keys.iter().position(|k| *k == index).map(SessionColumn::Key);
        let edge = session.edges.get(index.wrapping_sub(width)).copied();
        edge.map(SessionColumn::Edge).or_else(key)
    };
    let mut from = found.keys.iter().map(key).collect::<Option<Vec<_>>>()?;
    let by_key = |key| from.contains(&SessionColumn::Key(key));
    let by_edge = from.iter().any(|f| matches!(f, SessionColumn::Edge(_)));
    let of_rows = |call: &AggregateFunction| {
        let refs = Expr::AggregateFunction(call.clone());
        let mut refs = refs.column_refs().into_iter().map(|c| schema.maybe_index_of_column(c));
        refs.all(|index| index.is_some_and(|i| i < width))
    };
    let whole = found.conditions.is_empty()
        && by_edge
        && (0..keys.len()).all(by_key)
        && found.calls.iter().all(of_rows);
    from.extend((0..found.calls.len()).map(SessionColumn::Result));
    whole.then_some(from)
}

/// The aggregate by keys and the mark of a session, with the times of its first and last row.
fn by_mark(found: &Over<'_, SessionWindows>) -> Result<Aggregate> {
    let session = found.node;
    let rows = EmptyRelation { produce_one_row: false, schema: session.input.schema().clone() };
    let keys = session.keys.iter().chain([&session.time]);
    let keys = keys.enumerate().map(|(i, key)| key.clone().alias(format!("key {i}")));
    let edges = [min_udaf(), max_udaf()].map(|of| of.call(vec![session.time.clone()]));
    let calls = found.calls.iter().cloned().map(Expr::AggregateFunction).chain(edges);
    let calls = calls.enumerate().map(|(i, call)| call.alias(format!("result {i}")));
    let rows = Arc::new(LogicalPlan::EmptyRelation(rows));
    let made = Aggregate::try_new(rows, keys.collect(), calls.collect());
    made.map_err(|e| Error::internal(e.to_string()))
}

fn column(e: &Expr, columns: &DFSchema) -> Result<usize> {
    let index = match e {
        Expr::Column(column) => columns.maybe_index_of_column(column),
        _ => None,
    };
    index.ok_or_else(|| {
        Error::unsupported(format!("sessions by {e} are not supported in a materialized view"))
            .with_hint("Compute it in a subquery.")
    })
}
