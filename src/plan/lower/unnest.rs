//! Lowering of UNNEST: a step of the map over its input.

use datafusion::common::NullHandling;
use datafusion::logical_expr::Unnest as UnnestNode;

use super::super::node::{PlanNode, Properties, project};
use super::{Lowering, add_step, arrow_schema, lower};
use crate::error::{Error, Result};
use crate::operator::{MapStep, Unnest};
use crate::time::Carry;

pub(super) fn lower_unnest(node: &UnnestNode, cx: &Lowering<'_>) -> Result<PlanNode> {
    let input = lower(&node.input, cx)?;
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
    let list = |input: &usize| lists.iter().any(|(i, _)| i == input);
    let columns = node.dependency_indices.iter().map(|i| (*i, list(i))).collect();
    let names: Vec<String> = node.exec_columns.iter().map(ToString::to_string).collect();
    let step = Unnest { columns, outer, schema: schema.clone() };
    Ok(add_step(input, MapStep::Unnest(step), schema, format!("unnest {}", names.join(", "))))
}

/// Rows are told apart by nothing that could be named: elements may be equal.
pub(super) fn properties(input: &Properties, step: &Unnest) -> Properties {
    let sources: Vec<Option<usize>> =
        step.columns.iter().map(|(i, list)| (!list).then_some(*i)).collect();
    Properties { key: None, ..project(input, &sources) }
}

/// How the columns behind the step carry the watermarks of those in front of it.
pub(super) fn carries(step: &Unnest) -> Vec<Option<(usize, Carry)>> {
    step.columns.iter().map(|(i, list)| (!list).then_some((*i, Carry::Same))).collect()
}
