//! Aggregates over windows as one thing: what stands between the two is written away.

use crate::expr::Walk;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};

/// An aggregate over a node with nothing but projections, filters and names between them, in terms
/// of the node's columns.
pub(super) struct Over<'a, N> {
    pub node: &'a N,
    pub keys: Vec<Expr>,
    pub calls: Vec<AggregateFunction>,
    /// Conditions between the node and the aggregate.
    pub conditions: Vec<Expr>,
}

impl<'a, N: 'static> Over<'a, N> {
    pub(super) fn of(node: &'a Aggregate) -> Option<Self> {
        let mut exprs = node.group_expr.clone();
        let keys = exprs.len();
        exprs.extend(node.aggr_expr.iter().cloned());
        let mut input = node.input.as_ref();
        let found = loop {
            // `exprs` are over the columns of `input`.
            let below: (&LogicalPlan, Vec<Expr>) = match input {
                LogicalPlan::Filter(filter) => {
                    exprs.push(filter.predicate.clone());
                    input = &filter.input;
                    continue;
                }
                LogicalPlan::Projection(node) => (&node.input, node.expr.clone()),
                LogicalPlan::SubqueryAlias(node) => {
                    let columns = node.input.schema().columns();
                    (&node.input, columns.into_iter().map(Expr::Column).collect())
                }
                LogicalPlan::Extension(e) => break e.node.as_ref().as_any().downcast_ref()?,
                _ => return None,
            };
            for e in &mut exprs {
                *e = substitute(e.clone(), input.schema(), &below.1).ok()?;
            }
            input = below.0;
        };
        let conditions = exprs.split_off(keys + node.aggr_expr.len());
        let calls = exprs.split_off(keys).into_iter().map(|e| match e.unalias() {
            Expr::AggregateFunction(call) => Some(call),
            _ => None,
        });
        let calls = calls.collect::<Option<Vec<_>>>()?;
        Some(Self { node: found, keys: exprs, calls, conditions })
    }
}

/// An expression with columns of `schema` replaced by what they are computed from.
fn substitute(e: Expr, schema: &DFSchema, by: &[Expr]) -> DfResult<Expr> {
    let replaced = e.transform_up(|e| match &e {
        Expr::Column(column) => match schema.maybe_index_of_column(column) {
            Some(i) => Ok(Transformed::yes(by[i].clone().unalias_nested().data)),
            None => Ok(Transformed::no(e)),
        },
        _ => Ok(Transformed::no(e)),
    });
    replaced.map(|t| t.data)
}
