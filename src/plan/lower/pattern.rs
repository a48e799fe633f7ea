//! Lowering of MATCH_RECOGNIZE.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::Expr;

use super::super::node::{Partitioning, PlanNode, Properties};
use super::super::time::{TimeColumn, passing, without_late};
use super::{Lowering, add_projection, lower};
use crate::error::Result;
use crate::operator::PatternSpec;
use crate::sql::MatchRecognize;
use crate::state::{OrderBy, check_storable};
use crate::time::TimeRole;

pub(super) fn lower_pattern(node: &MatchRecognize, cx: &Lowering<'_>) -> Result<PlanNode> {
    let input = lower(&node.input, cx)?;
    let rows = named(node)?;
    let input = add_projection(input, &node.columns, node.input.schema(), rows.clone())?;
    check_storable(&rows)?;
    let by = Arc::new(node.compiled()?);
    let partition = node.partition.clone();
    let time = node.order.first().filter(|by| !by.descending).map(|by| by.column);
    let time = time.filter(|time| input.times.iter().any(|t| t.column == *time));
    let name = time.map(|time| rows.field(time).name().clone());
    let input = match time {
        Some(time) => without_late(input, time),
        None => input,
    };
    let order = node.order.iter().map(|by| OrderBy {
        column: by.column,
        descending: by.descending,
        nulls_first: by.nulls_first,
    });
    let place = |column: &usize| by.rule.kept.iter().position(|c| c == column);
    let places: Vec<usize> = partition.iter().filter_map(place).collect();
    let times = passing(&input.times, |c| partition.contains(&c));
    let times: Vec<_> = times.into_iter().filter_map(|t| Some(t.at(place(&t.column)?))).collect();
    let properties =
        Properties { append_only: false, key: None, partitioning: Partitioning::Hash(places) };
    let spec = PatternSpec {
        by: Arc::clone(&by),
        partition: partition.clone(),
        order: order.collect(),
        closes: name,
    };
    let deadline =
        |column| TimeColumn { column, role: TimeRole::WindowEnd, arrival: None, optional: false };
    let deadlines = spec.deadlines().into_iter().map(deadline);
    let times = times.into_iter().chain(deadlines).collect();
    let node = PlanNode::operator(Arc::new(spec), vec![input.by(&partition)], properties);
    Ok(PlanNode { times, ..node })
}

/// The columns that are read, by the names that they have in the input.
fn named(node: &MatchRecognize) -> Result<SchemaRef> {
    let rows = node.rows()?;
    let fields = rows.fields().iter().zip(&node.columns).map(|(field, column)| match column {
        Expr::Column(column) => field.as_ref().clone().with_name(&column.name),
        _ => field.as_ref().clone(),
    });
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}
