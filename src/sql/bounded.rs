//! The last rule of the batch half: operators that could take any amount of memory get one that
//! takes a bounded one, or are counted.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use super::counted::counted;
use super::slices::SlicedProjection;
use crate::error::Result;
use crate::expr::{Walk, from_datafusion, in_slices, is_batch_too_large, to_datafusion};

/// The rule.
#[derive(Debug)]
pub(super) struct Bounded;

impl PhysicalOptimizerRule for Bounded {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
                return in_pieces(unnest);
            }
            if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
                let exprs: Vec<_> = projection.expr().iter().map(|e| Arc::clone(&e.expr)).collect();
                if exprs.iter().all(|e| e.downcast_ref::<Column>().is_some()) {
                    return Ok(Transformed::no(node));
                }
                let input = Arc::clone(projection.input());
                let sliced = SlicedProjection::new(input, exprs, &[], projection);
                return Ok(Transformed::yes(Arc::new(sliced) as Arc<dyn ExecutionPlan>));
            }
            if let Some(filter) = node.downcast_ref::<FilterExec>() {
                return sliced_filter(filter);
            }
            match node.is::<WindowAggExec>() || node.is::<BoundedWindowAggExec>() {
                true => counted(node).map(Transformed::yes),
                false => Ok(Transformed::no(node)),
            }
        })
        .map(|t| t.data)
    }

    fn name(&self) -> &str {
        "bounded_memory"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// UNNEST over a projection that hands the lists on in pieces.
fn in_pieces(unnest: &UnnestExec) -> DfResult<Transformed<Arc<dyn ExecutionPlan>>> {
    let lists = unnest.list_column_indices();
    let plain = lists.iter().all(|list| list.depth == 1);
    let node = || Arc::new(unnest.clone()) as Arc<dyn ExecutionPlan>;
    if lists.is_empty() || !plain || !unnest.struct_column_indices().is_empty() {
        return Ok(Transformed::no(node()));
    }
    let lists: Vec<usize> = lists.iter().map(|list| list.index_in_input_schema).collect();
    let input = unnest.input();
    let fields = input.schema().fields().clone();
    if lists.iter().any(|i| !matches!(fields[*i].data_type(), DataType::List(_))) {
        return Ok(Transformed::no(node()));
    }
    let pieces = match input.downcast_ref::<SlicedProjection>() {
        Some(projection) => projection.with_lists(&lists)?,
        None => {
            let column = |(i, field): (usize, &FieldRef)| {
                Arc::new(Column::new(field.name(), i)) as Arc<dyn PhysicalExpr>
            };
            let columns = fields.iter().enumerate().map(column).collect();
            SlicedProjection::new(Arc::clone(input), columns, &lists, input.as_ref())
        }
    };
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
    node().replace_children(vec![Arc::new(pieces)], options).map(Transformed::yes)
}

fn sliced_filter(filter: &FilterExec) -> DfResult<Transformed<Arc<dyn ExecutionPlan>>> {
    let predicate = Arc::clone(filter.predicate());
    let calls = predicate.exists(|e| Ok(e.downcast_ref::<ScalarFunctionExpr>().is_some()))?;
    let builder = FilterExecBuilder::from(filter);
    let filter = match calls {
        true => builder.with_predicate(Arc::new(SlicedCondition(predicate))).build()?,
        false => return Ok(Transformed::no(Arc::new(builder.build()?))),
    };
    Ok(Transformed::yes(Arc::new(filter)))
}

/// A condition that is computed over parts of a batch where its operands would be too large.
#[derive(Debug, Clone, Eq)]
struct SlicedCondition(Arc<dyn PhysicalExpr>);

impl PartialEq for SlicedCondition {
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

impl Hash for SlicedCondition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl SlicedCondition {
    fn parts(&self, batch: &RecordBatch, parts: &mut Vec<BooleanArray>) -> Result<()> {
        let rows = batch.num_rows();
        let whole = in_slices(rows, || {
            let value = self.0.evaluate(batch).map_err(from_datafusion)?;
            value.into_array(rows).map_err(from_datafusion)
        });
        match whole {
            Ok(mask) => parts.push(mask.as_boolean().clone()),
            Err(error) if is_batch_too_large(&error) && rows > 1 => {
                self.parts(&batch.slice(0, rows / 2), parts)?;
                self.parts(&batch.slice(rows / 2, rows - rows / 2), parts)?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl fmt::Display for SlicedCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PhysicalExpr for SlicedCondition {
    fn data_type(&self, schema: &Schema) -> DfResult<DataType> {
        self.0.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> DfResult<bool> {
        self.0.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> DfResult<FieldRef> {
        self.0.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        let mut parts = Vec::new();
        self.parts(batch, &mut parts).map_err(to_datafusion)?;
        if let [_] = parts.as_slice() {
            return Ok(ColumnarValue::Array(Arc::new(parts.swap_remove(0))));
        }
        let arrays: Vec<&dyn Array> = parts.iter().map(|part| part as &dyn Array).collect();
        Ok(ColumnarValue::Array(concat(&arrays)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> DfResult<Arc<dyn PhysicalExpr>> {
        match (children.pop(), children.is_empty()) {
            (Some(inner), true) => Ok(Arc::new(Self(inner))),
            _ => internal_err!("a condition has one expression"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}
