//! Lowering of MATCH_RECOGNIZE.

use std::sync::Arc;

use super::super::node::{Partitioning, PlanNode, Properties};
use super::super::time::passing;
use super::{Lowering, add_projection, lower};
use crate::error::Result;
use crate::operator::PatternSpec;
use crate::sql::MatchRecognize;
use crate::state::{OrderBy, check_storable};

pub(super) fn lower_pattern(node: &MatchRecognize, cx: &Lowering<'_>) -> Result<PlanNode> {
    let input = lower(&node.input, cx)?;
    let rows = node.rows()?;
    let input = add_projection(input, &node.columns, node.input.schema(), rows.clone())?;
    check_storable(&rows)?;
    let by = Arc::new(node.compiled()?);
    let partition = node.partition.clone();
    let order = node.order.iter().map(|by| OrderBy {
        column: by.column,
        descending: by.descending,
        nulls_first: by.nulls_first,
    });
    let place = |column: &usize| by.rule.kept.iter().position(|c| c == column);
    let places: Vec<usize> = partition.iter().filter_map(place).collect();
    let times = passing(&input.times, |c| partition.contains(&c));
    let times = times.into_iter().filter_map(|t| Some(t.at(place(&t.column)?))).collect();
    let properties =
        Properties { append_only: false, key: None, partitioning: Partitioning::Hash(places) };
    let spec =
        PatternSpec { by: Arc::clone(&by), partition: partition.clone(), order: order.collect() };
    let node = PlanNode::operator(Arc::new(spec), vec![input.by(&partition)], properties);
    Ok(PlanNode { times, ..node })
}
