//! Aggregates as window functions of a read: they look whether the statement is to end, and their
//! values are counted.
//!
//! The library computes a column for all rows of a batch or of a partition at once. A value that
//! grows with its frame, such as that of `array_agg`, is there once per row then, and neither the
//! token of the statement nor its memory is looked at meanwhile.

use arrow::array::{Array, ArrayRef};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDF, Expr, Window, WindowFunctionDefinition};

use super::counted;
use crate::cancel::checkpoint;
use crate::expr::{Wrap, sliding, to_datafusion, wrapped};

/// Values that take less are not worth counting.
const SMALL_BYTES: usize = 64;

/// A window of a plan that is about to be run.
pub(super) fn run_window(node: Window) -> DfResult<Window> {
    let exprs = node.window_expr.into_iter().map(run_call).collect();
    Ok(Window { window_expr: exprs, ..node })
}

fn run_call(expr: Expr) -> Expr {
    match expr {
        Expr::Alias(mut alias) => {
            alias.expr = Box::new(run_call(*alias.expr));
            Expr::Alias(alias)
        }
        Expr::WindowFunction(mut call) => {
            if let WindowFunctionDefinition::AggregateUDF(function) = &call.fun {
                let counted = wrapped(function, Counted(shown_by(&call.params)));
                call.fun = WindowFunctionDefinition::AggregateUDF(counted);
            }
            Expr::WindowFunction(call)
        }
        other => other,
    }
}

/// How many rows a value is copied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Shown {
    /// The row whose frame it is of.
    Once,
    /// All rows of the partition: those that the function has seen.
    Seen,
    /// All rows of the partition, of which the function has not seen those that FILTER left out:
    /// at most those that the operator holds.
    Held,
}

fn shown_by(params: &WindowFunctionParams) -> Shown {
    let frame = &params.window_frame;
    let whole = frame.start_bound.is_unbounded()
        && (frame.end_bound.is_unbounded() || params.order_by.is_empty());
    match (whole, &params.filter) {
        (false, _) => Shown::Once,
        (true, None) => Shown::Seen,
        (true, Some(_)) => Shown::Held,
    }
}

/// The values of a function are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Counted(Shown);

impl Counted {
    fn watched(&self, inner: Box<dyn Accumulator>) -> Box<dyn Accumulator> {
        Box::new(Watched { inner, shown: self.0, seen: 0 })
    }
}

impl Wrap for Counted {
    fn growing(&self, f: &AggregateUDF, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        Ok(self.watched(f.accumulator(args)?))
    }

    fn sliding(&self, f: &AggregateUDF, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        Ok(self.watched(sliding(f, args)?))
    }
}

/// What a copy of a value takes in a column; an array shares what it is a part of.
fn copied(value: &ScalarValue) -> usize {
    match value {
        ScalarValue::Utf8(Some(text)) => text.len(),
        ScalarValue::Binary(Some(bytes)) => bytes.len(),
        // Without a size it has only just been made, which has succeeded.
        ScalarValue::List(list) => list.to_data().get_slice_memory_size().unwrap_or_default(),
        ScalarValue::Struct(row) => row.to_data().get_slice_memory_size().unwrap_or_default(),
        _ => 0,
    }
}

#[derive(Debug)]
struct Watched {
    inner: Box<dyn Accumulator>,
    shown: Shown,
    /// Rows that it was given.
    seen: usize,
}

impl Accumulator for Watched {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.seen += values.first().map_or(0, |v| v.len());
        self.inner.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        checkpoint().map_err(to_datafusion)?;
        let value = self.inner.evaluate()?;
        let bytes = copied(&value);
        if bytes > SMALL_BYTES {
            counted::values(bytes, |held| match self.shown {
                // Once among the values of a batch, once in the column that they become.
                Shown::Once => 2,
                Shown::Seen => self.seen,
                Shown::Held => held,
            })?;
        }
        Ok(value)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        self.inner.merge_batch(states)
    }
}
