//! Unions of unions as one, in place of DataFusion's `optimize_unions`.
//!
//! Its rule moves a projection over a union to the inputs of the union by the names of columns, of
//! which only the first input has those of the union: `SELECT x, y FROM (SELECT 1 AS x, 2 AS y
//! UNION ALL SELECT 3 AS y, 4 AS x) s UNION ALL ..` had 4 and 3 in its second row. It also flattens
//! a chain from its bottom, which takes time with the square of its length. Here columns are taken
//! by their places, and a chain from its top.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::logical_expr::expr_rewriter::coerce_plan_expr_for_schema;
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, LogicalPlan, Projection, Union};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::expr::Walk;

/// Makes one union of unions in unions.
#[derive(Debug)]
pub(super) struct Unions;

impl OptimizerRule for Unions {
    fn name(&self) -> &str {
        "unions"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> DfResult<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Union(union) => flat(union, false).map(Transformed::yes),
            LogicalPlan::Distinct(Distinct::All(input)) => match Arc::unwrap_or_clone(input) {
                LogicalPlan::Union(union) => {
                    let union = Arc::new(flat(union, true)?);
                    Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::All(union))))
                }
                other => {
                    let plan = LogicalPlan::Distinct(Distinct::All(Arc::new(other)));
                    Ok(Transformed::no(plan))
                }
            },
            other => Ok(Transformed::no(other)),
        }
    }
}

/// A union without unions among its inputs; of one that is `distinct` its inputs need not be.
fn flat(Union { inputs, schema }: Union, distinct: bool) -> DfResult<LogicalPlan> {
    let mut flat = Vec::with_capacity(inputs.len());
    // In the order of the inputs, the next one last.
    let mut waiting: Vec<Arc<LogicalPlan>> = inputs.into_iter().rev().collect();
    while let Some(input) = waiting.pop() {
        match Arc::unwrap_or_clone(input) {
            LogicalPlan::Union(inner) => waiting.extend(inner.inputs.into_iter().rev()),
            LogicalPlan::Distinct(Distinct::All(inner)) if distinct => waiting.push(inner),
            LogicalPlan::Projection(projection) => match projection.input.as_ref() {
                LogicalPlan::Union(inner) => {
                    for input in inner.inputs.iter().rev() {
                        let moved = over_input(&projection.expr, &inner.schema, input)?;
                        waiting.push(Arc::new(moved));
                    }
                }
                _ => flat.push(LogicalPlan::Projection(projection)),
            },
            other => flat.push(other),
        }
    }
    let same_types = |plan: &LogicalPlan| {
        let types = plan.schema().fields().iter().zip(schema.fields());
        types.into_iter().all(|(a, b)| a.data_type() == b.data_type())
    };
    let inputs = flat.into_iter().map(|plan| match same_types(&plan) {
        true => Ok(Arc::new(plan)),
        false => coerce_plan_expr_for_schema(plan, &schema).map(Arc::new),
    });
    let inputs = inputs.collect::<DfResult<Vec<_>>>()?;
    Ok(LogicalPlan::Union(Union { inputs, schema }))
}

/// Expressions over a union as expressions over one of its inputs.
fn over_input(exprs: &[Expr], union: &DFSchema, input: &Arc<LogicalPlan>) -> DfResult<LogicalPlan> {
    let of_input = |column: &Column| -> DfResult<Expr> {
        let place = union.index_of_column(column)?;
        let column = Column::from(input.schema().qualified_field(place));
        // The union may have another type, with more digits.
        let (own, wanted) = (input.schema().field(place), union.field(place));
        match own.data_type() == wanted.data_type() {
            true => Ok(Expr::Column(column)),
            false => Expr::Column(column).cast_to(wanted.data_type(), input.schema()),
        }
    };
    let moved = exprs.iter().map(|expr| {
        let (qualifier, name) = expr.qualified_name();
        let moved = expr.clone().transform_up(|e| match e {
            Expr::Column(column) => of_input(&column).map(Transformed::yes),
            other => Ok(Transformed::no(other)),
        });
        let moved = moved.data()?;
        Ok(match moved.qualified_name() == (qualifier.clone(), name.clone()) {
            true => moved,
            false => moved.unalias().alias_qualified(qualifier, name),
        })
    });
    let moved = moved.collect::<DfResult<Vec<Expr>>>()?;
    Projection::try_new(moved, Arc::clone(input)).map(LogicalPlan::Projection)
}
