//! Lowering of sessions.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, UserDefinedLogicalNode};

use super::super::node::{Partitioning, PlanNode, Properties};
use super::super::time::{TimeColumn, without_late};
use super::{Lowering, arrow_schema, lower};
use crate::error::{Error, Result};
use crate::operator::SessionSpec;
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
    let ends = node.edges.iter().enumerate().filter_map(|(i, edge)| {
        let role = match edge {
            WindowEdge::Start => return None,
            WindowEdge::End => TimeRole::WindowEnd,
            WindowEdge::Time => TimeRole::Instant,
        };
        closes.then_some(TimeColumn { column: width + i, role, arrival: None })
    });
    let times = ends.collect();
    let properties = Properties {
        append_only: false,
        key: input.properties.key.clone(),
        partitioning: Partitioning::Hash(keys.clone()),
    };
    let node = PlanNode::operator(Arc::new(spec), vec![input.by(&keys)], properties);
    Ok(PlanNode { times, ..node })
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
