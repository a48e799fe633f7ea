//! `GROUP BY ROLLUP (a + 1)`: the keys of grouping sets are columns of a projection below.
//!
//! A rule that rewrites an expression of an aggregate gives it back the name that it had. Of a list
//! of sets the whole would be renamed, and neither DataFusion nor we know a list with a name; its
//! keys would be lost or, over no rows, the row of the empty set. Columns are not rewritten.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchemaRef, Result as DfResult};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan, Projection};

use super::errors::plan_error;
use crate::error::Result;
use crate::expr::WalkPlan;

/// Computes the keys of grouping sets below their aggregates.
pub(super) fn compute_set_keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    let computed = plan.map_nodes_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) => compute(aggregate),
        other => Ok(Transformed::no(other)),
    });
    computed.map(|t| t.data).map_err(plan_error)
}

fn compute(aggregate: Aggregate) -> DfResult<Transformed<LogicalPlan>> {
    let Aggregate { input, mut group_expr, mut aggr_expr, schema, .. } = aggregate;
    if let [Expr::GroupingSet(set)] = group_expr.as_mut_slice() {
        let sets = [Expr::GroupingSet(set.clone())];
        let keys = grouping_set_to_exprlist(&sets)?;
        let mut computed: Vec<(Expr, Column)> = Vec::new();
        for key in keys.into_iter().filter(|key| !matches!(key, Expr::Column(_))) {
            let column = Column::new_unqualified(key.schema_name().to_string());
            // What has that name already is what it says, or not to be told apart from it.
            if input.schema().has_column_with_unqualified_name(&column.name) {
                continue;
            }
            computed.push((key.clone(), column));
        }
        if !computed.is_empty() {
            keys_of(set).chain(groupings(&mut aggr_expr)).for_each(|key| {
                if let Some((_, column)) = computed.iter().find(|(computed, _)| computed == key) {
                    *key = Expr::Column(column.clone());
                }
            });
            let rows = input.schema().columns().into_iter().map(Expr::Column);
            let keys = computed.into_iter().map(|(key, column)| key.alias(column.name));
            let input = Projection::try_new(rows.chain(keys).collect(), input)?;
            let input = Arc::new(LogicalPlan::Projection(input));
            let plan = Aggregate::try_new(input, group_expr, aggr_expr)?;
            return named(LogicalPlan::Aggregate(plan), &schema).map(Transformed::yes);
        }
    }
    let plan = Aggregate::try_new_with_schema(input, group_expr, aggr_expr, schema)?;
    Ok(Transformed::no(LogicalPlan::Aggregate(plan)))
}

/// The keys of all sets, one after the other.
fn keys_of(set: &mut GroupingSet) -> Box<dyn Iterator<Item = &mut Expr> + '_> {
    match set {
        GroupingSet::Rollup(keys) | GroupingSet::Cube(keys) => Box::new(keys.iter_mut()),
        GroupingSet::GroupingSets(sets) => Box::new(sets.iter_mut().flatten()),
    }
}

/// The arguments of calls of `grouping()`, which are keys.
fn groupings(calls: &mut [Expr]) -> impl Iterator<Item = &mut Expr> {
    let of_grouping = calls.iter_mut().filter_map(|call| match call {
        Expr::AggregateFunction(f) if f.func.name() == "grouping" => Some(&mut f.params.args),
        _ => None,
    });
    of_grouping.flatten()
}

/// The columns of a plan by the names of a schema.
fn named(plan: LogicalPlan, schema: &DFSchemaRef) -> DfResult<LogicalPlan> {
    if plan.schema() == schema {
        return Ok(plan);
    }
    let columns = plan.schema().columns().into_iter().map(Expr::Column);
    let columns = columns.zip(schema.iter());
    let columns = columns.map(|(c, (q, field))| c.alias_qualified(q.cloned(), field.name()));
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(plan))?))
}
