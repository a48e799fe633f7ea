//! `percentile_cont`, `percentile_disc` and `mode`, with `WITHIN GROUP (ORDER BY ..)`, as
//! PostgreSQL has them: over double precision and intervals, over any ordered type, and over any
//! ordered type. NULLs do not count; the fraction may be an array, which gives an array.
//!
//! They keep their values and sort them in the end; a view computes a changed group anew.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array, new_empty_array};
use arrow::compute::{SortOptions, cast, concat, take};
use arrow::datatypes::{
    DataType, Field, FieldRef, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalUnit,
};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};

use super::errors::{from_datafusion, to_datafusion};
use super::temporal::{interval_order, interval_scaled};
use crate::cancel::sort_by;
use crate::delta::Keys;
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};

/// The ordered-set aggregate of a name.
pub fn ordered_set_udaf(name: &str) -> Option<Arc<AggregateUDF>> {
    static ALL: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
        let make = |function| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(AggregateUDF::new_from_impl(OrderedSet { function, signature }))
        };
        [Function::Continuous, Function::Discrete, Function::Mode].into_iter().map(make).collect()
    });
    ALL.iter().find(|f| f.name() == name).cloned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Function {
    Continuous,
    Discrete,
    Mode,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OrderedSet {
    function: Function,
    signature: Signature,
}

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

impl OrderedSet {
    /// The type of the values, as the function takes them.
    fn values(&self, data_type: &DataType) -> Option<DataType> {
        Some(match (self.function, data_type) {
            (Function::Continuous, DataType::Interval(_)) => INTERVAL,
            (Function::Continuous, t) if t.is_numeric() || t.is_null() => DataType::Float64,
            (Function::Continuous, _) => return None,
            (_, DataType::Null | DataType::Utf8View) => DataType::Utf8,
            (_, DataType::Float16) => DataType::Float32,
            (_, DataType::Int8 | DataType::UInt8) => DataType::Int16,
            (_, DataType::UInt16) => DataType::Int32,
            (_, DataType::UInt32 | DataType::UInt64) => DataType::Int64,
            (_, t) => t.clone(),
        })
    }
}

impl AggregateUDFImpl for OrderedSet {
    fn name(&self) -> &str {
        match self.function {
            Function::Continuous => "percentile_cont",
            Function::Discrete => "percentile_disc",
            Function::Mode => "mode",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let coerced = match (self.function, types) {
            (Function::Mode, [value]) => self.values(value).map(|t| vec![t]),
            (Function::Continuous | Function::Discrete, [value, fraction]) => {
                let fraction = match fraction {
                    DataType::List(item) if item.data_type().is_numeric() => {
                        Some(DataType::new_list(DataType::Float64, true))
                    }
                    t if t.is_numeric() || t.is_null() => Some(DataType::Float64),
                    _ => None,
                };
                self.values(value).zip(fraction).map(|(value, fraction)| vec![value, fraction])
            }
            _ => None,
        };
        coerced.ok_or_else(|| {
            // As they are written: the fraction in front of what is ordered.
            let names: Vec<&str> =
                types.iter().skip(1).chain(types.first()).map(pg_type_name).collect();
            let error = Error::user(
                sqlstate::UNDEFINED_FUNCTION,
                format!("function {}({}) does not exist", self.name(), names.join(", ")),
            );
            to_datafusion(error.with_hint(
                "Write percentile_cont(0.5) WITHIN GROUP (ORDER BY x), mode() WITHIN GROUP (ORDER \
                 BY x).",
            ))
        })
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let coerced = self.coerce_types(types)?;
        Ok(match coerced.get(1) {
            Some(DataType::List(_)) => DataType::new_list(coerced[0].clone(), true),
            _ => coerced[0].clone(),
        })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        let options = args.order_bys.first().map_or_else(SortOptions::default, |s| s.options);
        Ok(Box::new(Kept {
            function: self.function,
            descending: options.descending,
            values: Vec::new(),
            value_type: args.expr_fields[0].data_type().clone(),
            fraction: None,
            fraction_type: args
                .expr_fields
                .get(1)
                .map_or(DataType::Null, |f| f.data_type().clone()),
            result: args.return_type().clone(),
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        let value = args.input_fields[0].data_type().clone();
        let field = |name: &str, t: DataType| Arc::new(Field::new(name, t, true));
        let values = field("values", DataType::new_list(value, true));
        let fraction = args.input_fields.get(1).map(|f| field("fraction", f.data_type().clone()));
        Ok(std::iter::once(values).chain(fraction).collect())
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The values so far.
#[derive(Debug)]
struct Kept {
    function: Function,
    descending: bool,
    values: Vec<ArrayRef>,
    value_type: DataType,
    /// That of the first row, as a column of one row.
    fraction: Option<ArrayRef>,
    fraction_type: DataType,
    result: DataType,
}

impl Kept {
    /// The values that count, in their order.
    fn sorted(&self) -> Result<ArrayRef> {
        let parts: Vec<&dyn Array> = self.values.iter().map(AsRef::as_ref).collect();
        if parts.is_empty() {
            return Ok(new_empty_array(&self.value_type));
        }
        let all = concat(&parts)?;
        let keys = order_keys(&all)?;
        let nulls = all.logical_nulls();
        let valid = |row: &u32| nulls.as_ref().is_none_or(|n| n.is_valid(*row as usize));
        let mut rows: Vec<u32> = (0..all.len() as u32).filter(valid).collect();
        sort_by(&mut rows, |a, b| {
            let order = keys.key(*a as usize).cmp(keys.key(*b as usize));
            let order = if self.descending { order.reverse() } else { order };
            order.then(a.cmp(b))
        })?;
        Ok(take(&all, &UInt32Array::from(rows), None)?)
    }

    fn value(&self) -> Result<ScalarValue> {
        let null = || ScalarValue::try_from(&self.result).map_err(from_datafusion);
        let sorted = self.sorted()?;
        if sorted.is_empty() {
            return null();
        }
        let picked = match (&self.fraction, self.function) {
            (_, Function::Mode) => ScalarValue::try_from_array(&sorted, most_frequent(&sorted)?),
            (Some(fraction), _) if fraction.is_null(0) => return null(),
            (Some(fraction), _) => match fraction.as_list_opt::<i32>() {
                None => {
                    return self
                        .percentile(&sorted, fraction.as_primitive::<Float64Type>().value(0));
                }
                Some(list) => {
                    let fractions = list.value(0);
                    let fractions = fractions.as_primitive::<Float64Type>().iter();
                    let values = fractions.map(|fraction| match fraction {
                        Some(fraction) => self.percentile(&sorted, fraction),
                        None => ScalarValue::try_from(&self.value_type).map_err(from_datafusion),
                    });
                    let values = values.collect::<Result<Vec<_>>>()?;
                    let list = ScalarValue::new_list_nullable(&values, &self.value_type);
                    Ok(ScalarValue::List(list))
                }
            },
            (None, _) => return null(),
        };
        picked.map_err(from_datafusion)
    }

    /// The percentile of values in their order, at least one.
    fn percentile(&self, sorted: &ArrayRef, fraction: f64) -> Result<ScalarValue> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(Error::user(
                sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("percentile value {fraction} is not between 0 and 1"),
            ));
        }
        let at = |row: usize| ScalarValue::try_from_array(sorted, row).map_err(from_datafusion);
        if self.function == Function::Discrete {
            let row = (fraction * sorted.len() as f64).ceil().max(1.0) as usize;
            return at(row.min(sorted.len()) - 1);
        }
        let place = fraction * (sorted.len() - 1) as f64;
        let (low, share) = (place.floor() as usize, place - place.floor());
        let high = place.ceil() as usize;
        if low == high || share == 0.0 {
            return at(low);
        }
        match sorted.data_type() {
            DataType::Interval(_) => {
                let values = sorted.as_primitive::<IntervalMonthDayNanoType>();
                let value = between(values.value(low), values.value(high), share)?;
                Ok(ScalarValue::IntervalMonthDayNano(Some(value)))
            }
            _ => {
                let values = cast(sorted, &DataType::Float64)?;
                let values = values.as_primitive::<Float64Type>();
                let (low, high) = (values.value(low), values.value(high));
                Ok(ScalarValue::Float64(Some(low + share * (high - low))))
            }
        }
    }
}

/// Keys in the order of values; equal intervals after one another.
fn order_keys(values: &ArrayRef) -> Result<Keys> {
    match values.as_primitive_opt::<IntervalMonthDayNanoType>() {
        Some(intervals) => {
            let lengths: ArrayRef = Arc::new(interval_order(intervals));
            Keys::encode(&[lengths, Arc::clone(values)], values.len())
        }
        None => Keys::encode(std::slice::from_ref(values), values.len()),
    }
}

/// The first of the value that is there most often; the values are in order.
fn most_frequent(sorted: &ArrayRef) -> Result<usize> {
    let same: ArrayRef = match sorted.as_primitive_opt::<IntervalMonthDayNanoType>() {
        Some(intervals) => Arc::new(interval_order(intervals)),
        None => Arc::clone(sorted),
    };
    let keys = Keys::encode(&[same], sorted.len())?;
    let (mut best, mut times, mut first) = (0, 0, 0);
    for row in 0..sorted.len() {
        if keys.key(row).cmp(keys.key(first)) != Ordering::Equal {
            first = row;
        }
        if row + 1 - first > times {
            (best, times) = (first, row + 1 - first);
        }
    }
    Ok(best)
}

fn between(
    low: IntervalMonthDayNano,
    high: IntervalMonthDayNano,
    share: f64,
) -> Result<IntervalMonthDayNano> {
    let months = high.months.wrapping_sub(low.months);
    let days = high.days.wrapping_sub(low.days);
    let ns = high.nanoseconds.wrapping_sub(low.nanoseconds);
    let step = interval_scaled(IntervalMonthDayNano::new(months, days, ns), share)?;
    Ok(IntervalMonthDayNano::new(
        low.months.wrapping_add(step.months),
        low.days.wrapping_add(step.days),
        low.nanoseconds.wrapping_add(step.nanoseconds),
    ))
}

impl Accumulator for Kept {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> DfResult<()> {
        if columns[0].is_empty() {
            return Ok(());
        }
        self.values.push(Arc::clone(&columns[0]));
        if let (None, Some(fraction)) = (&self.fraction, columns.get(1)) {
            self.fraction = Some(fraction.slice(0, 1));
        }
        Ok(())
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        self.value().map_err(to_datafusion)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.iter().map(Array::get_array_memory_size).sum::<usize>()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let values = self.sorted().map_err(to_datafusion)?;
        let list = datafusion::common::utils::SingleRowListArrayBuilder::new(values);
        let mut state = vec![ScalarValue::List(Arc::new(list.build_list_array()))];
        if self.function != Function::Mode {
            state.push(match &self.fraction {
                Some(fraction) => ScalarValue::try_from_array(fraction, 0)?,
                None => ScalarValue::try_from(&self.fraction_type)?,
            });
        }
        Ok(state)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        self.values.extend(states[0].as_list::<i32>().iter().flatten().filter(|v| !v.is_empty()));
        // A part without rows has no fraction.
        if let (None, Some(fraction)) = (&self.fraction, states.get(1))
            && let Some(row) = (0..fraction.len()).find(|row| fraction.is_valid(*row))
        {
            self.fraction = Some(fraction.slice(row, 1));
        }
        Ok(())
    }
}
