//! Times that follow from the clock: `now()`, `proctime()`, bounds computed from the former, and
//! `clock_timestamp()`, which no view has.
//!
//! In the plan of a view `now()` is the clock of an epoch. Operators compute a [`ClockBound`] from
//! it, the batch half puts the time in its place ([`at_time`]).

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue, internal_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;

use super::arith::arith_op;
use super::errors::from_datafusion;
use super::eval::compile;
use super::walk::Walk;
use crate::delta::text::{UTC, display_value};
use crate::error::{Error, Result};

/// The column that stands for the clock in a compiled bound.
const NOW: &str = "now()";

/// `now()`: constant within a statement, and within an epoch.
pub fn now_udf() -> Arc<ScalarUDF> {
    static UDF: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::nullary(Volatility::Stable);
        Arc::new(ScalarUDF::new_from_impl(Now { signature }))
    });
    Arc::clone(&UDF)
}

fn now_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from(UTC)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    signature: Signature,
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        "now"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(now_type())
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> DfResult<ExprSimplifyResult> {
        Ok(match info.query_execution_start_time() {
            Some(now) => ExprSimplifyResult::Simplified(literal(now)),
            None => ExprSimplifyResult::Original(args),
        })
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        // Rules that try a condition out on NULLs learn nothing from it.
        internal_err!("now() is a constant before anything is computed")
    }
}

fn literal(now: DateTime<Utc>) -> Expr {
    let value = Some(now.timestamp_micros());
    Expr::Literal(ScalarValue::TimestampMicrosecond(value, Some(Arc::from(UTC))), None)
}

/// Whether an expression is `now()`.
pub fn is_now(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(f) if f.func.inner().is::<Now>())
}

/// `clock_timestamp()`: the machine's time when it is computed.
pub fn clock_timestamp_udf() -> Arc<ScalarUDF> {
    static UDF: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::nullary(Volatility::Volatile);
        Arc::new(ScalarUDF::new_from_impl(ClockTimestamp { signature }))
    });
    Arc::clone(&UDF)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ClockTimestamp {
    signature: Signature,
}

impl ScalarUDFImpl for ClockTimestamp {
    fn name(&self) -> &str {
        "clock_timestamp"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(now_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let times = (0..args.number_rows).map(|_| Utc::now().timestamp_micros());
        let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone(UTC);
        Ok(ColumnarValue::Array(Arc::new(times)))
    }
}

/// `proctime()`: the time at which a row arrives. No view computes it where it is written.
pub fn proctime_udf() -> Arc<ScalarUDF> {
    static UDF: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::nullary(Volatility::Volatile);
        Arc::new(ScalarUDF::new_from_impl(Proctime { signature }))
    });
    Arc::clone(&UDF)
}

/// The type of `proctime()`.
pub fn proctime_type() -> DataType {
    now_type()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Proctime {
    signature: Signature,
}

impl ScalarUDFImpl for Proctime {
    fn name(&self) -> &str {
        "proctime"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(proctime_type())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        internal_err!("proctime() is a column or now() before anything is computed")
    }
}

/// Whether an expression is `proctime()`.
pub fn is_proctime(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(f) if f.func.inner().is::<Proctime>())
}

/// Whether there is a `proctime()` in an expression.
pub fn reads_proctime(expr: &Expr) -> bool {
    expr.exists(|e| Ok(is_proctime(e))).unwrap_or(true)
}

/// Whether there is a `now()` in an expression.
pub fn reads_clock(expr: &Expr) -> bool {
    // The visit itself can't fail.
    expr.exists(|e| Ok(is_now(e))).unwrap_or(true)
}

/// An expression with a time in the place of `now()`.
pub fn at_time(expr: Expr, now: DateTime<Utc>) -> DfResult<Transformed<Expr>> {
    expr.transform_up(|e| {
        Ok(match is_now(&e) {
            true => Transformed::yes(literal(now)),
            false => Transformed::no(e),
        })
    })
}

/// A time computed from the clock.
#[derive(Debug, Clone)]
pub struct ClockBound {
    expr: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
    text: String,
}

impl ClockBound {
    /// Compiles a timestamp that reads nothing but `now()`.
    pub fn new(expr: &Expr) -> Result<Self> {
        let schema = Arc::new(Schema::new(vec![Field::new(NOW, now_type(), true)]));
        let input = DFSchema::try_from(schema.as_ref().clone()).map_err(from_datafusion)?;
        let column = Expr::Column(Column::new_unqualified(NOW));
        let computed = expr
            .clone()
            .transform_up(|e| {
                Ok(match is_now(&e) {
                    true => Transformed::yes(column.clone()),
                    false => Transformed::no(e),
                })
            })
            .map_err(from_datafusion)?;
        Ok(Self { expr: compile(&computed.data, &input)?, schema, text: text_of(expr) })
    }

    /// The bound in microseconds when the clock stands at a time in microseconds.
    pub fn at(&self, now_us: i64) -> Result<i64> {
        let now = TimestampMicrosecondArray::from(vec![now_us]).with_timezone(UTC);
        let now: ArrayRef = Arc::new(now);
        let row = RecordBatch::try_new(self.schema.clone(), vec![now])?;
        let value = self.expr.evaluate(&row).and_then(|v| v.into_array(1));
        let value = value.map_err(from_datafusion)?;
        let value = cast(&value, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let value = value.as_primitive::<TimestampMicrosecondType>();
        value.iter().next().flatten().ok_or_else(|| Error::internal("a bound of NULL"))
    }
}

/// A bound as a user would write it.
fn text_of(expr: &Expr) -> String {
    match expr {
        Expr::Literal(value, _) => {
            let text = value.to_array().ok().and_then(|array| display_value(&array, 0));
            text.map_or_else(|| "NULL".to_owned(), |text| format!("'{text}'"))
        }
        Expr::Cast(cast) => text_of(&cast.expr),
        Expr::ScalarFunction(f) => {
            let args: Vec<String> = f.args.iter().map(text_of).collect();
            match (arith_op(f), args.as_slice()) {
                (Some(op), [left, right]) => format!("{left} {op} {right}"),
                (None, [operand]) if f.func.name() == "pg_cast" => operand.clone(),
                _ => format!("{}({})", f.func.name(), args.join(", ")),
            }
        }
        other => other.to_string(),
    }
}

impl std::fmt::Display for ClockBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
