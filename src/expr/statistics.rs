//! `variance`, `stddev`, `covar_pop`, `corr`, the `regr_` functions and their kin with PostgreSQL's
//! result types, for binding and for the batch half.
//!
//! | arguments | variance and stddev | functions of pairs |
//! |---|---|---|
//! | integers, numeric | numeric, of the type of `avg` | double precision, from exact sums |
//! | real, double precision | double precision | double precision |
//!
//! Exact sums are those of [`super::moments`]. Floats go by the method of Youngs and Cramer, as in
//! PostgreSQL; a frame that moves computes them anew, so that nothing drifts.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Float64Type, Int16Type, Int32Type, Int64Type,
};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};

use super::aggregates::avg_result_type;
use super::errors::to_datafusion;
use super::moments::{Moments, PAIR_WORDS, Pair, Statistic, Variance};
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};

/// The aggregate of a name.
pub fn statistic_udaf(name: &str) -> Option<Arc<AggregateUDF>> {
    static ALL: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
        let make = |(name, function): &(&'static str, Function)| {
            let signature = Signature::user_defined(Volatility::Immutable);
            let function = *function;
            Arc::new(AggregateUDF::new_from_impl(Named { name, function, signature }))
        };
        FUNCTIONS.iter().map(make).collect()
    });
    ALL.iter().find(|f| f.name() == name).cloned()
}

/// The statistic of a name.
pub fn statistic_named(name: &str) -> Option<Statistic> {
    FUNCTIONS.iter().find_map(|(found, function)| match function {
        Function::Pair(statistic) if *found == name => Some(*statistic),
        _ => None,
    })
}

/// Values of a column of integers or numeric as scaled integers; `None` for other columns.
pub fn exact_values(column: &ArrayRef) -> Option<Vec<i128>> {
    macro_rules! widen {
        ($t:ty) => {
            column.as_primitive::<$t>().values().iter().map(|v| i128::from(*v)).collect()
        };
    }
    Some(match column.data_type() {
        DataType::Int16 => widen!(Int16Type),
        DataType::Int32 => widen!(Int32Type),
        DataType::Int64 => widen!(Int64Type),
        DataType::Decimal128(..) => widen!(Decimal128Type),
        _ => return None,
    })
}

/// The digits behind the point of an exact type.
pub fn exact_scale(data_type: &DataType) -> Option<i8> {
    match data_type {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(0),
        DataType::Decimal128(_, scale) => Some(*scale),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Function {
    One(Variance),
    Pair(Statistic),
}

#[rustfmt::skip]
const FUNCTIONS: &[(&str, Function)] = &[
    ("corr", Function::Pair(Statistic::Corr)),
    ("covar_pop", Function::Pair(Statistic::CovarPop)),
    ("covar_samp", Function::Pair(Statistic::CovarSamp)),
    ("regr_avgx", Function::Pair(Statistic::AvgX)),
    ("regr_avgy", Function::Pair(Statistic::AvgY)),
    ("regr_count", Function::Pair(Statistic::Count)),
    ("regr_intercept", Function::Pair(Statistic::Intercept)),
    ("regr_r2", Function::Pair(Statistic::R2)),
    ("regr_slope", Function::Pair(Statistic::Slope)),
    ("regr_sxx", Function::Pair(Statistic::Sxx)),
    ("regr_sxy", Function::Pair(Statistic::Sxy)),
    ("regr_syy", Function::Pair(Statistic::Syy)),
    ("stddev", Function::One(Variance { sample: true, root: true })),
    ("stddev_pop", Function::One(Variance { sample: false, root: true })),
    ("var", Function::One(Variance { sample: true, root: false })),
    ("var_pop", Function::One(Variance { sample: false, root: false })),
];

#[derive(Debug, PartialEq, Eq, Hash)]
struct Named {
    name: &'static str,
    function: Function,
    signature: Signature,
}

impl Named {
    fn refused(&self, types: &[DataType]) -> Error {
        let types: Vec<&str> = types.iter().map(pg_type_name).collect();
        Error::user(
            sqlstate::UNDEFINED_FUNCTION,
            format!("function {}({}) does not exist", self.name, types.join(", ")),
        )
        .with_hint("Its arguments must be numbers.")
    }

    fn sums(&self, args: &AccumulatorArgs, held: bool) -> Box<dyn Accumulator> {
        let types: Vec<DataType> = args.expr_fields.iter().map(|f| f.data_type().clone()).collect();
        let function = Shape {
            function: self.function,
            scales: types.iter().map(exact_scale).collect(),
            result: args.return_type().clone(),
        };
        match (function.is_exact(), held) {
            (true, _) => Box::new(Exact { shape: function, sums: Moments::default() }),
            (_, true) => Box::new(Held { shape: function, rows: VecDeque::new() }),
            _ => Box::new(Float { shape: function, sums: Deviations::default() }),
        }
    }
}

impl AggregateUDFImpl for Named {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let count = if matches!(self.function, Function::One(_)) { 1 } else { 2 };
        let exact = |t: &DataType| {
            Some(match t {
                DataType::Int8 | DataType::UInt8 | DataType::Int16 => DataType::Int16,
                DataType::UInt16 | DataType::Int32 => DataType::Int32,
                DataType::UInt32 | DataType::Int64 => DataType::Int64,
                DataType::UInt64 => DataType::Decimal128(20, 0),
                DataType::Decimal128(..) => t.clone(),
                _ => return None,
            })
        };
        let number = |t: &DataType| t.is_numeric() || *t == DataType::Null;
        if types.len() != count || !types.iter().all(number) {
            return Err(to_datafusion(self.refused(types)));
        }
        let all: Option<Vec<DataType>> = types.iter().map(exact).collect();
        Ok(all.unwrap_or_else(|| vec![DataType::Float64; count]))
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let coerced = self.coerce_types(types)?;
        Ok(match self.function {
            Function::Pair(Statistic::Count) => DataType::Int64,
            Function::Pair(_) => DataType::Float64,
            Function::One(_) => avg_result_type(&coerced[0]).unwrap_or(DataType::Float64),
        })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        Ok(self.sums(&args, false))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        Ok(self.sums(&args, true))
    }

    fn state_fields(&self, _args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new("sums", DataType::Binary, true))])
    }
}

/// What is computed from the sums.
#[derive(Debug)]
struct Shape {
    function: Function,
    /// The scales of the arguments, where they are exact.
    scales: Vec<Option<i8>>,
    result: DataType,
}

impl Shape {
    fn is_exact(&self) -> bool {
        self.scales.iter().all(Option::is_some)
    }

    fn scale(&self, argument: usize) -> i8 {
        self.scales.get(argument).copied().flatten().unwrap_or_default()
    }

    fn statistic(&self, value: Option<f64>) -> DfResult<ScalarValue> {
        match self.result {
            DataType::Int64 => Ok(ScalarValue::Int64(value.map(|v| v as i64))),
            DataType::Float64 => Ok(ScalarValue::Float64(value)),
            _ => plan_err!("a statistic is no {}", self.result),
        }
    }

    fn exact(&self, sums: &Moments) -> DfResult<ScalarValue> {
        let value = match (self.function, &self.result) {
            (Function::One(what), DataType::Decimal128(p, s)) => sums
                .variance(what, self.scale(0), &self.result)
                .map(|v| ScalarValue::Decimal128(v, *p, *s)),
            (Function::Pair(Statistic::Count), _) => Ok(ScalarValue::Int64(Some(sums.count))),
            // PostgreSQL's order of the arguments is y, x.
            (Function::Pair(what), _) => {
                let value = sums.statistic(what, (self.scale(1), self.scale(0)));
                value.map(ScalarValue::Float64)
            }
            (_, other) => Err(Error::internal(format!("no variance of type {other}"))),
        };
        value.map_err(to_datafusion)
    }

    fn float(&self, sums: &Deviations) -> DfResult<ScalarValue> {
        let pair = sums.0;
        let value = match self.function {
            Function::Pair(what) => pair.statistic(what),
            Function::One(Variance { sample, root }) => {
                let rows = if sample { pair.n - 1.0 } else { pair.n };
                let variance = (rows > 0.0).then(|| pair.xx / rows);
                if root { variance.map(f64::sqrt) } else { variance }
            }
        };
        self.statistic(value)
    }
}

/// Calls a function for every row without NULLs; of one column with the value twice.
fn each_row<T: Copy>(
    columns: &[ArrayRef],
    values: &[Vec<T>],
    mut each: impl FnMut(T, T),
) -> DfResult<()> {
    let Some(last) = values.last() else { return Ok(()) };
    for (row, x) in last.iter().enumerate() {
        if columns.iter().all(|c| c.is_valid(row)) {
            each(*x, values[0][row]);
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Exact {
    shape: Shape,
    sums: Moments,
}

impl Exact {
    fn add(&mut self, columns: &[ArrayRef], weight: i64) -> DfResult<()> {
        let values: Option<Vec<Vec<i128>>> = columns.iter().map(exact_values).collect();
        let Some(values) = values else { return plan_err!("no exact sums of these columns") };
        let sums = &mut self.sums;
        match columns {
            [_] => each_row(columns, &values, |x, _| sums.add(x, weight)),
            _ => each_row(columns, &values, |x, y| sums.add_pair(x, y, weight)),
        }
    }
}

impl Accumulator for Exact {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> DfResult<()> {
        self.add(columns, 1)
    }

    fn retract_batch(&mut self, columns: &[ArrayRef]) -> DfResult<()> {
        self.add(columns, -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        self.shape.exact(&self.sums)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let mut words = [0_u64; PAIR_WORDS];
        self.sums.write(&mut words);
        Ok(vec![ScalarValue::Binary(Some(to_bytes(&words)))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for bytes in states[0].as_binary::<i32>().iter().flatten() {
            self.sums.merge(&Moments::read(&from_bytes(bytes)));
        }
        Ok(())
    }
}

fn to_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn from_bytes(bytes: &[u8]) -> [u64; PAIR_WORDS] {
    let mut words = [0; PAIR_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

/// Sums of floats and of their deviations from the mean.
#[derive(Debug, Clone, Copy)]
struct Deviations(Pair);

impl Default for Deviations {
    fn default() -> Self {
        Self(Pair { n: 0.0, x: 0.0, y: 0.0, xx: 0.0, yy: 0.0, xy: 0.0 })
    }
}

impl Deviations {
    fn add(&mut self, x: f64, y: f64) {
        let sums = &mut self.0;
        let before = sums.n;
        sums.n += 1.0;
        sums.x += x;
        sums.y += y;
        if before > 0.0 {
            let (dx, dy) = (x * sums.n - sums.x, y * sums.n - sums.y);
            let share = 1.0 / (before * sums.n);
            sums.xx += dx * dx * share;
            sums.yy += dy * dy * share;
            sums.xy += dx * dy * share;
        }
        if !x.is_finite() {
            (sums.xx, sums.xy) = (f64::NAN, f64::NAN);
        }
        if !y.is_finite() {
            (sums.yy, sums.xy) = (f64::NAN, f64::NAN);
        }
    }

    fn merge(&mut self, other: &Self) {
        let (a, b) = (self.0, other.0);
        if a.n == 0.0 || b.n == 0.0 {
            *self = if a.n == 0.0 { *other } else { *self };
            return;
        }
        let n = a.n + b.n;
        let (dx, dy) = (a.x / a.n - b.x / b.n, a.y / a.n - b.y / b.n);
        let share = a.n * b.n / n;
        self.0 = Pair {
            n,
            x: a.x + b.x,
            y: a.y + b.y,
            xx: a.xx + b.xx + share * dx * dx,
            yy: a.yy + b.yy + share * dy * dy,
            xy: a.xy + b.xy + share * dx * dy,
        };
    }

    /// A finite result of finite values only.
    fn checked(&self) -> Result<()> {
        let Pair { x, y, xx, yy, xy, .. } = self.0;
        match [x, y].iter().all(|v| v.is_finite()) && [xx, yy, xy].iter().any(|v| v.is_infinite()) {
            true => Err(Error::user(
                sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
                "value out of range: overflow",
            )),
            false => Ok(()),
        }
    }
}

fn float_values(columns: &[ArrayRef]) -> DfResult<Vec<Vec<f64>>> {
    let values = columns.iter().map(|c| {
        let wide = cast(c, &DataType::Float64)?;
        Ok(wide.as_primitive::<Float64Type>().values().to_vec())
    });
    values.collect()
}

#[derive(Debug)]
struct Float {
    shape: Shape,
    sums: Deviations,
}

impl Accumulator for Float {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> DfResult<()> {
        each_row(columns, &float_values(columns)?, |x, y| self.sums.add(x, y))
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        self.sums.checked().map_err(to_datafusion)?;
        self.shape.float(&self.sums)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let Pair { n, x, y, xx, yy, xy } = self.sums.0;
        let words = [n, x, y, xx, yy, xy].map(f64::to_bits);
        Ok(vec![ScalarValue::Binary(Some(to_bytes(&words)))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for bytes in states[0].as_binary::<i32>().iter().flatten() {
            let [n, x, y, xx, yy, xy, ..] = from_bytes(bytes).map(f64::from_bits);
            self.sums.merge(&Deviations(Pair { n, x, y, xx, yy, xy }));
        }
        Ok(())
    }
}

/// The rows of a frame, which come and go in their order.
#[derive(Debug)]
struct Held {
    shape: Shape,
    rows: VecDeque<(f64, f64)>,
}

impl Accumulator for Held {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> DfResult<()> {
        each_row(columns, &float_values(columns)?, |x, y| self.rows.push_back((x, y)))
    }

    fn retract_batch(&mut self, columns: &[ArrayRef]) -> DfResult<()> {
        each_row(columns, &float_values(columns)?, |_, _| {
            self.rows.pop_front();
        })
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let mut sums = Deviations::default();
        self.rows.iter().for_each(|(x, y)| sums.add(*x, *y));
        sums.checked().map_err(to_datafusion)?;
        self.shape.float(&sums)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.rows.capacity() * size_of::<(f64, f64)>()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        plan_err!("a frame has no partial state")
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> DfResult<()> {
        plan_err!("a frame has no partial state")
    }
}
