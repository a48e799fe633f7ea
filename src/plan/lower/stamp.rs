//! Lowering of `proctime()`.

use std::sync::Arc;

use datafusion::logical_expr::UserDefinedLogicalNode;

use super::super::node::PlanNode;
use super::super::time::TimeColumn;
use super::{Lowering, arrow_schema, lower};
use crate::error::{Error, Result};
use crate::operator::StampSpec;
use crate::sql::Stamped;
use crate::time::TimeRole;

pub(super) fn lower_stamped(node: &Stamped, cx: &Lowering<'_>) -> Result<PlanNode> {
    let input = lower(&node.input, cx)?;
    if !input.properties.append_only {
        return Err(Error::unsupported(
            "proctime() over rows that can be retracted is not supported in a materialized view",
        )
        .with_detail("A row that is retracted would have another time than when it came.")
        .with_hint(
            "Store the time with the row: CREATE TABLE t (.., p timestamptz DEFAULT now()).",
        ));
    }
    let column = input.schema.fields().len();
    // No row is stamped with a time that has been promised to be over.
    let stamp = TimeColumn { column, role: TimeRole::Instant, arrival: None, optional: false };
    let times = input.times.iter().cloned().chain([stamp]).collect();
    let properties = input.properties.clone();
    let schema = arrow_schema(UserDefinedLogicalNode::schema(node));
    let spec = Arc::new(StampSpec { schema });
    Ok(PlanNode { times, ..PlanNode::operator(spec, vec![input.here()], properties) })
}
