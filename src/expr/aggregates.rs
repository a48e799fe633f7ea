//! `sum` and `avg` with PostgreSQL's result types, for binding and for the batch half. The
//! incremental half has its own state for them and reads only their names and types.
//!
//! | argument | sum | avg |
//! |---|---|---|
//! | smallint, integer | bigint | numeric(38,10) |
//! | bigint | numeric(38,0) | numeric(38,10) |
//! | numeric(p,s) | numeric(38,s) | numeric(38, s, at least 10 and at most 18) |
//! | real | real | double precision |
//! | double precision | double precision | double precision |
//! | interval | interval | interval |
//!
//! Exact sums are kept in 128 bits; float sums as a finite sum and counts of NaN and infinities.
//! What leaves a window frame is taken out of an exact sum; a sum of floats is made anew, as in
//! PostgreSQL: 1e20 + 1 - 1e20 is not 1.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};

use super::arith::out_of_range;
use super::errors::to_datafusion;
use super::interval_total::{INTERVAL_WORDS, IntervalTotal};
use super::numeric::{self, ArithmeticMean};
use crate::delta::text::pg_type_name;
use crate::error::{Error, sqlstate};

/// The type of `sum` over an argument; `None` where there is no such sum.
pub fn sum_result_type(argument: &DataType) -> Option<DataType> {
    Some(match argument {
        DataType::Int16 | DataType::Int32 => DataType::Int64,
        DataType::Int64 => DataType::Decimal128(38, 0),
        DataType::Decimal128(_, s) => DataType::Decimal128(38, *s),
        DataType::Float32 => DataType::Float32,
        DataType::Float64 => DataType::Float64,
        DataType::Interval(IntervalUnit::MonthDayNano) => argument.clone(),
        _ => return None,
    })
}

/// The type of `avg` over an argument; `None` where there is no such average.
pub fn avg_result_type(argument: &DataType) -> Option<DataType> {
    Some(match argument {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => DataType::Decimal128(38, 10),
        DataType::Decimal128(_, s) => DataType::Decimal128(38, (*s).clamp(10, numeric::SCALE_CAP)),
        DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Interval(IntervalUnit::MonthDayNano) => argument.clone(),
        _ => return None,
    })
}

/// `sum`.
pub fn sum_udaf() -> Arc<AggregateUDF> {
    static SUM: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| Total::udaf(Kind::Sum));
    Arc::clone(&SUM)
}

/// `avg`.
pub fn avg_udaf() -> Arc<AggregateUDF> {
    static AVG: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| Total::udaf(Kind::Avg));
    Arc::clone(&AVG)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Sum,
    Avg,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Total {
    kind: Kind,
    signature: Signature,
}

impl Total {
    fn udaf(kind: Kind) -> Arc<AggregateUDF> {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(AggregateUDF::new_from_impl(Total { kind, signature }))
    }

    fn result_type(&self, argument: &DataType) -> Option<DataType> {
        match self.kind {
            Kind::Sum => sum_result_type(argument),
            Kind::Avg => avg_result_type(argument),
        }
    }
}

impl AggregateUDFImpl for Total {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Sum => "sum",
            Kind::Avg => "avg",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let [argument] = types else { return plan_err!("{} takes one argument", self.name()) };
        let coerced = match argument {
            DataType::Null => DataType::Int32,
            DataType::Int8 | DataType::UInt8 => DataType::Int16,
            DataType::UInt16 => DataType::Int32,
            DataType::UInt32 => DataType::Int64,
            DataType::UInt64 => DataType::Decimal128(20, 0),
            other => other.clone(),
        };
        match self.result_type(&coerced) {
            Some(_) => Ok(vec![coerced]),
            None => Err(to_datafusion(
                Error::user(
                    sqlstate::UNDEFINED_FUNCTION,
                    format!("function {}({}) does not exist", self.name(), pg_type_name(argument)),
                )
                .with_hint("Its argument must be a number or an interval."),
            )),
        }
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let coerced = self.coerce_types(types)?;
        match self.result_type(&coerced[0]) {
            Some(result) => Ok(result),
            None => plan_err!("{} has no result type", self.name()),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        let argument = args.expr_fields[0].data_type().clone();
        let inner: Box<dyn Accumulator> = match &argument {
            DataType::Interval(_) => {
                Box::new(Intervals { kind: self.kind, total: IntervalTotal::default() })
            }
            t if t.is_floating() => Box::new(FloatTotal::new(self.kind, args.return_type())),
            t => Box::new(ExactTotal::new(self.kind, t, args.return_type())),
        };
        match args.is_distinct {
            true => Ok(Box::new(Distinct { seen: HashSet::new(), argument, inner })),
            false => Ok(inner),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        match args.expr_fields[0].data_type().is_floating() && !args.is_distinct {
            true => {
                let (kind, result) = (self.kind, args.return_type().clone());
                Ok(Box::new(FloatFrame { kind, result, values: VecDeque::new() }))
            }
            false => self.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        let argument = args.input_fields[0].data_type();
        let field = |name: &str, t: DataType| Arc::new(Field::new(name, t, true));
        if args.is_distinct {
            return Ok(vec![field("values", DataType::new_list(argument.clone(), true))]);
        }
        if matches!(argument, DataType::Interval(_)) {
            let words = ["count", "months", "days", "us"];
            return Ok(words.into_iter().map(|name| field(name, DataType::Int64)).collect());
        }
        Ok(match argument.is_floating() {
            true => ["count", "nan", "plus", "minus"]
                .into_iter()
                .map(|name| field(name, DataType::Int64))
                .chain([field("sum", DataType::Float64)])
                .collect(),
            false => vec![
                field("count", DataType::Int64),
                field("sum", DataType::Decimal128(38, scale_of(argument))),
            ],
        })
    }
}

fn scale_of(argument: &DataType) -> i8 {
    match argument {
        DataType::Decimal128(_, s) => *s,
        _ => 0,
    }
}

/// Sums of integers and decimals.
#[derive(Debug)]
struct ExactTotal {
    kind: Kind,
    result: DataType,
    scale: i8,
    count: i64,
    sum: i128,
}

impl ExactTotal {
    fn new(kind: Kind, argument: &DataType, result: &DataType) -> Self {
        Self { kind, result: result.clone(), scale: scale_of(argument), count: 0, sum: 0 }
    }

    fn add(&mut self, values: &ArrayRef, sign: i64) -> DfResult<()> {
        let mut sum = Some(0i128);
        let mut count = 0;
        each_exact(values, |v| {
            sum = sum.and_then(|s| s.checked_add(v));
            count += 1;
        })?;
        self.count += sign * count;
        let total = sum.and_then(|s| self.sum.checked_add(i128::from(sign) * s));
        self.sum = total.ok_or_else(|| to_datafusion(numeric::overflow()))?;
        Ok(())
    }
}

/// Calls a function for every value that is not NULL.
fn each_exact(values: &ArrayRef, mut f: impl FnMut(i128)) -> DfResult<()> {
    match values.data_type() {
        DataType::Int16 => {
            values.as_primitive::<Int16Type>().iter().flatten().for_each(|v| f(v.into()));
        }
        DataType::Int32 => {
            values.as_primitive::<Int32Type>().iter().flatten().for_each(|v| f(v.into()));
        }
        DataType::Int64 => {
            values.as_primitive::<Int64Type>().iter().flatten().for_each(|v| f(v.into()));
        }
        DataType::Decimal128(..) => {
            values.as_primitive::<Decimal128Type>().iter().flatten().for_each(f);
        }
        other => return plan_err!("no exact sum of {other}"),
    }
    Ok(())
}

impl Accumulator for ExactTotal {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.add(&values[0], 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.add(&values[0], -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        if self.count == 0 {
            return ScalarValue::try_from(&self.result);
        }
        let value = match (&self.kind, &self.result) {
            (Kind::Sum, DataType::Int64) => i64::try_from(self.sum)
                .map(|v| ScalarValue::Int64(Some(v)))
                .map_err(|_| out_of_range(&DataType::Int64)),
            (Kind::Sum, DataType::Decimal128(p, s)) => numeric::rescale(self.sum, *s, *p, *s)
                .map(|v| ScalarValue::Decimal128(Some(v), *p, *s)),
            (Kind::Avg, DataType::Decimal128(p, s)) => {
                let mean = ArithmeticMean { sum: self.sum, scale: self.scale, count: self.count };
                mean.value(*p, *s).map(|v| ScalarValue::Decimal128(Some(v), *p, *s))
            }
            (_, other) => Err(Error::internal(format!("no exact total of type {other}"))),
        };
        value.map_err(to_datafusion)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        Ok(vec![
            ScalarValue::Int64(Some(self.count)),
            ScalarValue::Decimal128(Some(self.sum), 38, self.scale),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        self.count += states[0].as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        let mut sum = Some(self.sum);
        each_exact(&states[1], |v| sum = sum.and_then(|s| s.checked_add(v)))?;
        self.sum = sum.ok_or_else(|| to_datafusion(numeric::overflow()))?;
        Ok(())
    }
}

/// Sums of floats.
#[derive(Debug)]
struct FloatTotal {
    kind: Kind,
    result: DataType,
    count: i64,
    nan: i64,
    plus: i64,
    minus: i64,
    sum: f64,
}

impl FloatTotal {
    fn new(kind: Kind, result: &DataType) -> Self {
        Self { kind, result: result.clone(), count: 0, nan: 0, plus: 0, minus: 0, sum: 0.0 }
    }

    fn add(&mut self, v: f64) {
        self.count += 1;
        if v.is_nan() {
            self.nan += 1;
        } else if v == f64::INFINITY {
            self.plus += 1;
        } else if v == f64::NEG_INFINITY {
            self.minus += 1;
        } else {
            self.sum += v;
        }
    }

    fn total(&self) -> DfResult<f64> {
        if self.nan > 0 || (self.plus > 0 && self.minus > 0) {
            Ok(f64::NAN)
        } else if self.plus > 0 {
            Ok(f64::INFINITY)
        } else if self.minus > 0 {
            Ok(f64::NEG_INFINITY)
        } else if self.sum.is_finite() {
            Ok(self.sum)
        } else {
            Err(float_overflow())
        }
    }
}

fn float_overflow() -> datafusion::error::DataFusionError {
    to_datafusion(Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow"))
}

/// Calls a function for every float that is not NULL.
fn each_float(values: &ArrayRef, f: impl FnMut(f64)) -> DfResult<()> {
    let wide = cast(values, &DataType::Float64)?;
    wide.as_primitive::<Float64Type>().iter().flatten().for_each(f);
    Ok(())
}

impl Accumulator for FloatTotal {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        each_float(&values[0], |v| self.add(v))
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        if self.count == 0 {
            return ScalarValue::try_from(&self.result);
        }
        let total = self.total()?;
        match (self.kind, &self.result) {
            (Kind::Avg, _) => Ok(ScalarValue::Float64(Some(total / self.count as f64))),
            (Kind::Sum, DataType::Float32) => {
                let narrow = total as f32;
                match total.is_finite() && !narrow.is_finite() {
                    true => Err(float_overflow()),
                    false => Ok(ScalarValue::Float32(Some(narrow))),
                }
            }
            (Kind::Sum, _) => Ok(ScalarValue::Float64(Some(total))),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let counts = [self.count, self.nan, self.plus, self.minus];
        let mut state: Vec<_> = counts.into_iter().map(|c| ScalarValue::Int64(Some(c))).collect();
        state.push(ScalarValue::Float64(Some(self.sum)));
        Ok(state)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        let total = |i: usize| states[i].as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        self.count += total(0);
        self.nan += total(1);
        self.plus += total(2);
        self.minus += total(3);
        self.sum += states[4].as_primitive::<Float64Type>().iter().flatten().sum::<f64>();
        Ok(())
    }
}

/// The floats of a frame, which come and go in their order.
#[derive(Debug)]
struct FloatFrame {
    kind: Kind,
    result: DataType,
    values: VecDeque<f64>,
}

impl Accumulator for FloatFrame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        each_float(&values[0], |v| self.values.push_back(v))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        each_float(&values[0], |_| {
            self.values.pop_front();
        })
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let mut total = FloatTotal::new(self.kind, &self.result);
        self.values.iter().for_each(|v| total.add(*v));
        total.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        plan_err!("a frame has no partial state")
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> DfResult<()> {
        plan_err!("a frame has no partial state")
    }
}

/// Sums of intervals.
#[derive(Debug)]
struct Intervals {
    kind: Kind,
    total: IntervalTotal,
}

impl Intervals {
    fn add(&mut self, values: &ArrayRef, weight: i64) {
        let values = values.as_primitive::<IntervalMonthDayNanoType>();
        values.iter().flatten().for_each(|v| self.total.add(v, weight));
    }
}

impl Accumulator for Intervals {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.add(&values[0], 1);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.add(&values[0], -1);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let value = match self.kind {
            Kind::Sum => self.total.sum(),
            Kind::Avg => self.total.mean(),
        };
        value.map(ScalarValue::IntervalMonthDayNano).map_err(to_datafusion)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let mut words = [0; INTERVAL_WORDS];
        self.total.write(&mut words);
        Ok(words.into_iter().map(|word| ScalarValue::Int64(Some(word as i64))).collect())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for row in 0..states[0].len() {
            let part = |s: &ArrayRef| s.as_primitive::<Int64Type>().value(row) as u64;
            let words: Vec<u64> = states.iter().map(part).collect();
            self.total.merge(IntervalTotal::read(&words));
        }
        Ok(())
    }
}

/// `sum(DISTINCT x)`: hands each value on once. Reads of this kind are small and ad hoc, so the
/// values are kept as scalars.
#[derive(Debug)]
struct Distinct {
    seen: HashSet<ScalarValue>,
    argument: DataType,
    inner: Box<dyn Accumulator>,
}

impl Distinct {
    fn add(&mut self, values: &ArrayRef) -> DfResult<()> {
        for row in 0..values.len() {
            if values.is_null(row) {
                continue;
            }
            if self.seen.insert(ScalarValue::try_from_array(values, row)?) {
                self.inner.update_batch(&[values.slice(row, 1)])?;
            }
        }
        Ok(())
    }
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.add(&values[0])
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        self.inner.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.seen.capacity() * size_of::<ScalarValue>()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let values: Vec<_> = self.seen.iter().cloned().collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.argument))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.add(&values))
    }
}
