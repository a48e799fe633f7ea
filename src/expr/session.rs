//! Sessions as window functions, for the batch half: the start and the end of the session that a
//! row of a partition is in, in order of time.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, PartitionEvaluator, Signature, Volatility, WindowFunctionDefinition,
    WindowUDF, WindowUDFImpl,
};

use crate::time::WindowEdge;

/// An edge of the session that a row is in, among the rows with the same `keys`: neighbours in time
/// are in one session when they are less than the gap apart. It ends a gap behind its last row.
pub fn session_edge(edge: WindowEdge, time: Expr, keys: Vec<Expr>, gap_us: i64) -> DfResult<Expr> {
    let signature = Signature::user_defined(Volatility::Immutable);
    let function = WindowUDF::new_from_impl(SessionEdge { edge, gap_us, signature });
    let function = WindowFunctionDefinition::WindowUDF(Arc::new(function));
    Expr::from(WindowFunction::new(function, vec![time.clone()]))
        .partition_by(keys)
        .order_by(vec![time.sort(true, false)])
        .build()
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SessionEdge {
    edge: WindowEdge,
    gap_us: i64,
    signature: Signature,
}

impl WindowUDFImpl for SessionEdge {
    fn name(&self) -> &str {
        match self.edge {
            WindowEdge::Start => "session_start",
            WindowEdge::End => "session_end",
            WindowEdge::Time => "session_time",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [ts @ DataType::Timestamp(TimeUnit::Microsecond, _)] => Ok(vec![ts.clone()]),
            _ => plan_err!("sessions are of timestamps"),
        }
    }

    fn partition_evaluator(
        &self,
        _args: PartitionEvaluatorArgs,
    ) -> DfResult<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(self.clone()))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> DfResult<FieldRef> {
        let data_type = match args.input_fields() {
            [time] => time.data_type().clone(),
            _ => return plan_err!("a session has one time"),
        };
        Ok(Arc::new(Field::new(args.name(), data_type, true)))
    }
}

impl PartitionEvaluator for SessionEdge {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> DfResult<ArrayRef> {
        let times = values[0].as_primitive::<TimestampMicrosecondType>();
        let mut out = Vec::with_capacity(rows);
        let mut from = 0;
        for row in 0..rows {
            let last = row + 1 == rows
                || times.value(row + 1).saturating_sub(times.value(row)) >= self.gap_us;
            if last {
                let end = times.value(row).saturating_add(self.gap_us);
                let value = match self.edge {
                    WindowEdge::Start => times.value(from),
                    WindowEdge::End => end,
                    WindowEdge::Time => end.saturating_sub(1_000),
                };
                out.resize(row + 1, value);
                from = row + 1;
            }
        }
        let out = PrimitiveArray::<TimestampMicrosecondType>::from(out);
        Ok(Arc::new(out.with_timezone_opt(times.timezone())))
    }
}
