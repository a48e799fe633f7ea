//! Lowering of ASOF joins.

use std::sync::Arc;

use datafusion::logical_expr::{Expr, UserDefinedLogicalNode};

use super::super::node::{Partitioning, PlanNode, Properties};
use super::join::{condition, join_side};
use super::{Lowering, arrow_schema, not_in_view, select_columns};
use crate::error::Result;
use crate::operator::{AsOfJoinSpec, JoinInput};
use crate::sql::AsOfJoin;
use crate::state::check_storable;

pub(super) fn lower_asof(node: &AsOfJoin, cx: &Lowering<'_>) -> Result<PlanNode> {
    let keys = |side: fn(&(Expr, Expr)) -> &Expr, time: &Expr| -> Vec<Expr> {
        node.keys.iter().map(side).chain([time]).cloned().collect()
    };
    let sides = [
        join_side(&node.left, &keys(|k| &k.0, &node.nearest.left), cx)?,
        join_side(&node.right, &keys(|k| &k.1, &node.nearest.right), cx)?,
    ];
    let types = [0, 1].map(|i| {
        let fields = sides[i].node.schema.fields();
        sides[i].key.iter().map(|c| fields[*c].data_type().clone()).collect::<Vec<_>>()
    });
    if types[0] != types[1] {
        return Err(not_in_view("an ASOF JOIN on columns of different types"));
    }
    sides.iter().try_for_each(|side| check_storable(&side.node.schema))?;
    let widths = [0, 1].map(|i| sides[i].width);
    let mut times = [0; 2];
    let sides = [0, 1].map(|i| {
        let (node, mut key) = (sides[i].node.clone(), sides[i].key.clone());
        times[i] = key.pop().unwrap_or_default();
        (node, key)
    });
    let inputs = [0, 1].map(|i| JoinInput {
        schema: sides[i].0.schema.clone(),
        key: sides[i].1.clone(),
        append_only: sides[i].0.properties.append_only,
    });
    let filter = node.filter.as_ref();
    let spec = AsOfJoinSpec {
        inputs,
        times,
        forward: node.nearest.forward,
        at_it: node.nearest.at_it,
        outer: node.outer,
        condition: filter.map(|f| condition(f, (&node.left, &node.right))).transpose()?,
    };
    let [(left, left_key), (right, right_key)] = sides;
    let properties = Properties {
        append_only: false,
        // Each row of the left comes out once at most.
        key: left.properties.key.clone(),
        partitioning: Partitioning::Hash(left_key.clone()),
    };
    let offset = left.schema.fields().len();
    let wanted: Vec<usize> = (0..widths[0]).chain(offset..offset + widths[1]).collect();
    // A row of the left that is there first would come out anew with each piece of the right.
    let inputs = vec![left.by(&left_key), right.read_first().by(&right_key)];
    let joined = PlanNode::operator(Arc::new(spec), inputs, properties);
    let schema = arrow_schema(UserDefinedLogicalNode::schema(node));
    match wanted.len() == joined.schema.fields().len() {
        true => Ok(PlanNode { schema, ..joined }),
        false => select_columns(joined, &wanted, schema),
    }
}
