//! Aggregates over frames which rows leave: `bool_and(x) OVER (.. ROWS 2 PRECEDING)`.
//!
//! A function that can take no row back has the rows of its frame kept, and is computed anew from
//! them for each row; what is true is counted.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::concat;
use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::{Result as DfResult, ScalarValue, internal_err};
use datafusion::logical_expr::expr::{Expr, WindowFunctionDefinition};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDF};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

use super::wrapped::{Wrap, wrapped};

/// A call of a window function, which is computed for every frame.
pub(super) fn slide(call: Expr) -> Expr {
    match call {
        Expr::Alias(mut alias) => {
            alias.expr = Box::new(slide(*alias.expr));
            Expr::Alias(alias)
        }
        Expr::WindowFunction(mut call) => {
            if let WindowFunctionDefinition::AggregateUDF(function) = &call.fun {
                call.fun = WindowFunctionDefinition::AggregateUDF(wrapped(function, Slide));
            }
            Expr::WindowFunction(call)
        }
        other => other,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Slide;

impl Wrap for Slide {
    fn sliding(&self, f: &AggregateUDF, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        sliding(f, args)
    }
}

/// An accumulator from which rows can be taken, in the order in which they came.
pub fn sliding(f: &AggregateUDF, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
    let own = f.create_sliding_accumulator(args.clone())?;
    if own.supports_retract_batch() {
        return Ok(own);
    }
    Ok(match f.name() {
        "bool_and" => Box::new(Truth { wanted: true, counts: [0; 2] }),
        "bool_or" => Box::new(Truth { wanted: false, counts: [0; 2] }),
        _ => Box::new(Kept { call: Call::new(f, args), frame: VecDeque::new(), gone: 0 }),
    })
}

/// How many rows are false and true: of them all or of any.
#[derive(Debug)]
struct Truth {
    /// The value that all rows must have, or else it is the other one.
    wanted: bool,
    counts: [usize; 2],
}

impl Truth {
    fn count(values: &[ArrayRef]) -> [usize; 2] {
        let Some(values) = values.first().and_then(|v| v.as_boolean_opt()) else { return [0; 2] };
        [values.false_count(), values.true_count()]
    }
}

impl Accumulator for Truth {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let more = Self::count(values);
        self.counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let less = Self::count(values);
        self.counts.iter_mut().zip(less).for_each(|(count, less)| *count -= less);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let [others, wanted] = match self.wanted {
            true => self.counts,
            false => [self.counts[1], self.counts[0]],
        };
        Ok(ScalarValue::Boolean(match (others, wanted) {
            (0, 0) => None,
            (0, _) => Some(self.wanted),
            _ => Some(!self.wanted),
        }))
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        internal_err!("a frame has no partial state")
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> DfResult<()> {
        internal_err!("a frame has no partial state")
    }
}

/// What accumulators are made from.
#[derive(Debug)]
struct Call {
    function: AggregateUDF,
    return_field: FieldRef,
    schema: Schema,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    is_distinct: bool,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

impl Call {
    fn new(function: &AggregateUDF, args: AccumulatorArgs) -> Self {
        Self {
            function: function.clone(),
            return_field: args.return_field,
            schema: args.schema.clone(),
            ignore_nulls: args.ignore_nulls,
            order_bys: args.order_bys.to_vec(),
            is_reversed: args.is_reversed,
            name: args.name.to_owned(),
            is_distinct: args.is_distinct,
            exprs: args.exprs.to_vec(),
            expr_fields: args.expr_fields.to_vec(),
        }
    }

    fn accumulator(&self) -> DfResult<Box<dyn Accumulator>> {
        self.function.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&self.return_field),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &self.order_bys,
            is_reversed: self.is_reversed,
            name: &self.name,
            is_distinct: self.is_distinct,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        })
    }
}

/// The rows of a frame, the oldest first.
#[derive(Debug)]
struct Kept {
    call: Call,
    /// Columns of equal length: the arguments of rows.
    frame: VecDeque<Vec<ArrayRef>>,
    /// Rows of the first of them that have left.
    gone: usize,
}

impl Kept {
    /// Makes one batch of all rows.
    fn gather(&mut self) -> DfResult<()> {
        if self.gone == 0 && self.frame.len() < 2 {
            return Ok(());
        }
        let (mut batches, gone) = (std::mem::take(&mut self.frame), self.gone);
        self.gone = 0;
        if let Some(first) = batches.front_mut() {
            first.iter_mut().for_each(|c| *c = c.slice(gone, c.len() - gone));
        }
        let columns = batches.front().map_or(0, Vec::len);
        let column = |i: usize| {
            let parts: Vec<&dyn Array> = batches.iter().map(|b| b[i].as_ref()).collect();
            Ok(concat(&parts)?)
        };
        self.frame.push_back((0..columns).map(column).collect::<DfResult<_>>()?);
        Ok(())
    }
}

fn rows(columns: &[ArrayRef]) -> usize {
    columns.first().map_or(0, |c| c.len())
}

impl Accumulator for Kept {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        if rows(values) > 0 {
            self.frame.push_back(values.to_vec());
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.gone += rows(values);
        while let Some(first) = self.frame.front().map(|first| rows(first))
            && self.gone >= first
        {
            self.gone -= first;
            self.frame.pop_front();
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        self.gather()?;
        let mut accumulator = self.call.accumulator()?;
        if let Some(values) = self.frame.front() {
            accumulator.update_batch(values)?;
        }
        accumulator.evaluate()
    }

    fn size(&self) -> usize {
        let arrays = self.frame.iter().flatten();
        size_of::<Self>() + arrays.map(|a| a.get_array_memory_size()).sum::<usize>()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        internal_err!("a frame has no partial state")
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> DfResult<()> {
        internal_err!("a frame has no partial state")
    }
}
