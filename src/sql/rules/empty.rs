//! DataFusion's `propagate_empty_relation`, by place where inputs of a union go.
//!
//! Where one input of a union is left, the rule takes its columns by the names that the first input
//! gave to the union: the wrong ones, or none.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchemaRef, Result as DfResult};
use datafusion::logical_expr::{
    EmptyRelation, Expr, ExprSchemable, LogicalPlan, Projection, Union,
};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// Leaves out what is known to be empty.
#[derive(Debug, Default)]
pub(super) struct PropagateEmpty(PropagateEmptyRelation);

impl OptimizerRule for PropagateEmpty {
    fn name(&self) -> &str {
        "propagate_empty"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> DfResult<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Union(union) => without_empty(union),
            other => self.0.rewrite(other, config),
        }
    }
}

fn without_empty(Union { inputs, schema }: Union) -> DfResult<Transformed<LogicalPlan>> {
    let is_empty = |plan: &LogicalPlan| match plan {
        LogicalPlan::EmptyRelation(empty) => !empty.produce_one_row,
        _ => false,
    };
    let all = inputs.len();
    let mut inputs: Vec<_> = inputs.into_iter().filter(|input| !is_empty(input)).collect();
    if inputs.len() == all {
        return Ok(Transformed::no(LogicalPlan::Union(Union { inputs, schema })));
    }
    if inputs.len() > 1 {
        // A union that is made anew is called by the columns of its first input.
        let first = Arc::unwrap_or_clone(std::mem::take(&mut inputs[0]));
        inputs[0] = Arc::new(named(first, &schema)?);
        return Ok(Transformed::yes(LogicalPlan::Union(Union { inputs, schema })));
    }
    let Some(only) = inputs.pop() else {
        let empty = EmptyRelation { produce_one_row: false, schema };
        return Ok(Transformed::yes(LogicalPlan::EmptyRelation(empty)));
    };
    named(Arc::unwrap_or_clone(only), &schema).map(Transformed::yes)
}

/// The columns of a plan, by place, with the names and types of a schema.
fn named(plan: LogicalPlan, schema: &DFSchemaRef) -> DfResult<LogicalPlan> {
    // An input of a union may say that it has the names of the union and have its own.
    let plan = plan.recompute_schema()?;
    if plan.schema() == schema {
        return Ok(plan);
    }
    let columns = plan.schema().iter().map(Column::from).zip(schema.iter());
    let named = columns.map(|(column, (qualifier, field))| {
        let value = Expr::Column(column).cast_to(field.data_type(), plan.schema())?;
        Ok(value.alias_qualified(qualifier.cloned(), field.name()))
    });
    let named = named.collect::<DfResult<Vec<Expr>>>()?;
    let schema = Arc::clone(schema);
    let projection = Projection::try_new_with_schema(named, Arc::new(plan), schema)?;
    Ok(LogicalPlan::Projection(projection))
}
