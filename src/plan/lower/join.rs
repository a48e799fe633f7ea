//! Joins: keys as columns of both sides, the operator, then what is left of the condition.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::common::NullEquality;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, JoinType, LogicalPlan};

use super::super::node::{Partitioning, PlanNode, Properties};
use super::{
    Lowering, add_filter, add_projection, arrow_schema, lower, not_in_view, select_columns,
};
use crate::error::{Error, Result};
use crate::operator::{JoinInput, JoinSpec};

pub(super) fn lower_join(node: &Join, cx: &Lowering<'_>) -> Result<PlanNode> {
    if node.join_type != JoinType::Inner {
        return Err(not_in_view(&format!("a {} join", node.join_type)));
    }
    if node.null_equality != NullEquality::NullEqualsNothing {
        return Err(not_in_view("a join on IS NOT DISTINCT FROM"));
    }
    if node.on.is_empty() {
        return Err(not_in_view("a join without an equality between columns of both sides"));
    }
    let (left_keys, right_keys): (Vec<Expr>, Vec<Expr>) = node.on.iter().cloned().unzip();
    let left = join_side(&node.left, &left_keys, cx)?;
    let right = join_side(&node.right, &right_keys, cx)?;
    let append_only = left.node.properties.append_only && right.node.properties.append_only;
    let input = |side: &JoinSide| JoinInput {
        schema: side.node.schema.clone(),
        key: side.key.clone(),
        append_only: side.node.properties.append_only,
    };
    let spec = JoinSpec::new(input(&left), input(&right));
    let (left_width, left_all) = (left.width, left.node.schema.fields().len());
    // Two rows of the output differ when either side's rows differ.
    let key = left.node.properties.key.as_ref().zip(right.node.properties.key.as_ref());
    let key = key.map(|(l, r)| l.iter().copied().chain(r.iter().map(|c| left_all + c)).collect());
    let partitioning = Partitioning::Hash(left.key.clone());
    let properties = Properties { append_only, key, partitioning };
    let right_width = right.width;
    let inputs = vec![left.node.by(&left.key), right.node.by(&right.key)];
    let mut joined = PlanNode::operator(Arc::new(spec), inputs, properties);
    // Columns that were computed for keys alone go away again.
    let wanted: Vec<usize> = (0..left_width).chain(left_all..left_all + right_width).collect();
    if wanted.len() != joined.schema.fields().len() {
        joined = select_columns(joined, &wanted, arrow_schema(&node.schema))?;
    } else {
        joined.schema = arrow_schema(&node.schema);
    }
    match &node.filter {
        Some(filter) => add_filter(joined, filter, &node.schema),
        None => Ok(joined),
    }
}

struct JoinSide {
    node: PlanNode,
    key: Vec<usize>,
    /// Columns without those computed for keys.
    width: usize,
}

/// An input of a join with its keys as columns; keys that are expressions are computed behind the
/// others.
fn join_side(plan: &LogicalPlan, keys: &[Expr], cx: &Lowering<'_>) -> Result<JoinSide> {
    let node = lower(plan, cx)?;
    let schema = plan.schema();
    let width = schema.fields().len();
    let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    let mut positions = Vec::new();
    for key in keys {
        let column = match key {
            Expr::Column(c) => schema.maybe_index_of_column(c),
            _ => None,
        };
        positions.push(match column {
            Some(index) => index,
            None => {
                let data_type = key.get_type(schema).map_err(|e| Error::internal(e.to_string()))?;
                fields.push(Field::new(key.to_string(), data_type, true));
                exprs.push(key.clone());
                exprs.len() - 1
            }
        });
    }
    if exprs.len() == width {
        return Ok(JoinSide { node, key: positions, width });
    }
    let node = add_projection(node, &exprs, schema, Arc::new(Schema::new(fields)))?;
    Ok(JoinSide { node, key: positions, width })
}
