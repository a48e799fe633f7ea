//! Aggregates over the rows that a match has given to a variable: arguments by the expression
//! engine, values by the batch half's functions.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Accumulator, Expr, ExprSchemable};
use datafusion::physical_expr::PhysicalExpr;

use super::super::batch_aggregate::BatchAggregate;
use super::super::errors::from_datafusion;
use super::super::eval::compile;
use super::super::float_extreme::float_extreme;
use super::super::size::spread;
use crate::error::Result;

/// An aggregate function over rows of the input, compiled.
#[derive(Debug, Clone)]
pub struct MatchAggregate {
    function: BatchAggregate,
    /// The arguments that are no constants.
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    /// The type of its value.
    pub result: DataType,
    /// The rows that it takes: the columns of the input under the names of the call.
    rows: SchemaRef,
}

impl MatchAggregate {
    /// Compiles a call over the columns of `input`.
    pub fn new(call: &AggregateFunction, input: &DFSchema, result: DataType) -> Result<Self> {
        let mut call = call.clone();
        let types = call.params.args.iter().map(|a| a.get_type(input));
        let types = types.collect::<Result<Vec<_>, _>>().map_err(from_datafusion)?;
        if let ([float], Some(extreme)) = (types.as_slice(), float_extreme(call.func.name()))
            && float.is_floating()
        {
            call.func = extreme;
        }
        let function = BatchAggregate::new(&call, &types)?;
        let taken = call.params.args.iter().enumerate().filter(|(i, _)| function.takes(*i));
        let arguments = taken.map(|(_, a)| compile(a, input)).collect::<Result<_>>()?;
        let filter = call.params.filter.as_deref().map(|f: &Expr| compile(f, input)).transpose()?;
        let fields = input.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
        let rows = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
        Ok(Self { function, arguments, filter, result, rows })
    }

    /// What it takes of some rows of the input.
    fn values(&self, rows: &RecordBatch) -> Result<(Vec<ArrayRef>, usize)> {
        let count = rows.num_rows();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let columns = rows.columns().to_vec();
        let rows = RecordBatch::try_new_with_options(self.rows.clone(), columns, &options)?;
        let evaluate = |e: &Arc<dyn PhysicalExpr>, rows: &RecordBatch| {
            spread(e.evaluate(rows).map_err(from_datafusion)?, rows.num_rows())
        };
        let rows = match &self.filter {
            None => rows,
            Some(condition) => {
                let mask = evaluate(condition, &rows)?;
                let mask: BooleanArray = mask.as_boolean().clone();
                let columns = rows.columns().iter().map(|c| filter(c, &mask));
                let columns = columns.collect::<Result<Vec<_>, _>>()?;
                let kept = mask.iter().filter(|m| *m == Some(true)).count();
                let options = RecordBatchOptions::new().with_row_count(Some(kept));
                RecordBatch::try_new_with_options(self.rows.clone(), columns, &options)?
            }
        };
        let values = self.arguments.iter().map(|e| evaluate(e, &rows)).collect::<Result<_>>()?;
        Ok((values, rows.num_rows()))
    }

    /// The value over some rows, in their order.
    pub fn value(&self, rows: &RecordBatch) -> Result<ScalarValue> {
        let (values, count) = self.values(rows)?;
        let value = self.function.value(&values, count)?;
        value.cast_to(&self.result).map_err(from_datafusion)
    }
}

/// The value of an aggregate over rows that come one after the other.
pub struct Running {
    aggregate: MatchAggregate,
    state: Box<dyn Accumulator>,
    /// The rows that are in the state.
    taken: Vec<u32>,
    /// Its value, once it is known.
    value: Option<ScalarValue>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("taken", &self.taken.len()).finish_non_exhaustive()
    }
}

impl Running {
    /// The state of no rows.
    pub fn new(aggregate: &MatchAggregate) -> Result<Self> {
        let state = aggregate.function.accumulator()?;
        Ok(Self { aggregate: aggregate.clone(), state, taken: Vec::new(), value: None })
    }

    /// Forgets the rows: they are of another batch from here on.
    pub fn clear(&mut self) -> Result<()> {
        if !self.taken.is_empty() {
            self.state = self.aggregate.function.accumulator()?;
            self.taken.clear();
        }
        self.value = None;
        Ok(())
    }

    /// The value over some rows of a batch: those that it has had already are not taken again.
    pub fn over(
        &mut self,
        wanted: &[u32],
        batch: &dyn Fn(&[u32]) -> Result<RecordBatch>,
    ) -> Result<ScalarValue> {
        if !wanted.starts_with(&self.taken) {
            self.clear()?;
        }
        if let (true, Some(value)) = (wanted.len() == self.taken.len(), &self.value) {
            return Ok(value.clone());
        }
        let new = wanted[self.taken.len()..].to_vec();
        let (values, count) = self.aggregate.values(&batch(&new)?)?;
        // A state that has failed is not used again.
        self.taken.extend_from_slice(&new);
        let taken = self.aggregate.function.take(self.state.as_mut(), &values, count);
        if taken.is_err() {
            self.clear()?;
        }
        taken?;
        let value = self.state.evaluate().map_err(from_datafusion)?;
        let value = value.cast_to(&self.aggregate.result).map_err(from_datafusion)?;
        self.value = Some(value.clone());
        Ok(value)
    }
}
