//! How far window functions look: at how many rows in front of a row and behind it, how far by
//! value or over how many groups of equal rows.
//!
//! Known is it of functions whose result for a row is the same whatever lies beyond these, to the
//! last bit, and which never fail: sums of floating point numbers depend on all that was ever in
//! the frame, and a partition in which one row fails has no rows at all.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{Expr, ExprSchemable, WindowFrameBound, WindowFrameUnits};

use crate::delta::Weight;
use crate::expr::interval_us;
use crate::library::{self, Looks};
use crate::operator::{Running, Totals};
use crate::state::{Lead, Reach, Sides};

/// What is known of some calls.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// How far all of them look, where that is known.
    pub(super) reach: Option<Reach>,
    /// Those that count the rows up to a row.
    pub(super) numbers: Vec<usize>,
    /// Those that are totals of the rows up to a row.
    pub(super) running: Vec<Running>,
    /// What the others that look at all rows up to a row have of those in front of a run.
    pub(super) leads: Vec<Lead>,
}

/// How far all of some calls look; `None` where one looks at the whole partition.
pub(super) fn reach(calls: &[Expr], input: &DFSchema) -> Option<Seen> {
    let (mut all, mut seen) = (Reach::ALONE, Seen::default());
    for (at, call) in calls.iter().enumerate() {
        let Expr::WindowFunction(call) = call.clone().unalias_nested().data else { return None };
        if let Some((running, of)) = running(&call, at, input) {
            seen.running.push(running);
            all = all.or(of);
            continue;
        }
        if let Some((lead, of)) = led(&call, input) {
            seen.leads.push(lead);
            all = all.or(of);
            continue;
        }
        let of = reach_of(&call, input)?;
        if of.numbers {
            seen.numbers.push(at);
        }
        all = all.or(of);
    }
    seen.reach = Some(all);
    Some(seen)
}

/// A sum of integers or numerics or a count from the first row of the partition to this one, or to
/// those that are equal to it in the order. A total moves all those behind it.
fn running(call: &WindowFunction, at: usize, input: &DFSchema) -> Option<(Running, Reach)> {
    let WindowFunction { fun, params } = call;
    let reach = from_first(params)?;
    let is_sum = match fun.name() {
        "sum" => true,
        "count" => false,
        _ => return None,
    };
    let argument = match params.args.as_slice() {
        [] if !is_sum => None,
        [Expr::Literal(value, _)] if !is_sum && !value.is_null() => None,
        [Expr::Column(column)] => Some(input.maybe_index_of_column(column)?),
        _ => return None,
    };
    let total = match argument.filter(|_| is_sum) {
        None => Totals::Count,
        Some(argument) => match input.field(argument).data_type() {
            DataType::Int16 | DataType::Int32 => Totals::Sum,
            DataType::Int64 => Totals::WideSum { scale: 0 },
            // Of wider ones so many could be out of range, and one that is fails a partition.
            DataType::Decimal128(precision, scale) if *precision <= SUMMED_DIGITS => {
                Totals::WideSum { scale: *scale }
            }
            _ => return None,
        },
    };
    Some((Running { call: at, argument, total }, reach))
}

/// A first value, a minimum or maximum of the same rows.
fn led(call: &WindowFunction, input: &DFSchema) -> Option<(Lead, Reach)> {
    let WindowFunction { fun, params } = call;
    let [Expr::Column(column)] = params.args.as_slice() else { return None };
    let column = input.maybe_index_of_column(column)?;
    let extreme = |lead| {
        let of = input.field(column).data_type();
        let same = library::aggregate(fun.name()).is_some_and(|f| (f.frames)(Some(of)));
        // Intervals that are equal are written in several ways.
        let same = same && !matches!(of, DataType::Interval(_));
        same.then_some(lead)
    };
    Some(match fun.name() {
        "first_value" => (Lead::First, with_first(params)?),
        "min" => (extreme(Lead::Least(column))?, from_first(params)?),
        "max" => (extreme(Lead::Greatest(column))?, from_first(params)?),
        _ => return None,
    })
}

/// How far a call looks whose frame is all rows from the first one to this one, or to those that
/// are equal to it in the order.
fn from_first(params: &WindowFunctionParams) -> Option<Reach> {
    let reach = with_first(params)?;
    (params.window_frame.end_bound == WindowFrameBound::CurrentRow).then_some(reach)
}

/// The same where the frame may go on behind these.
fn with_first(params: &WindowFunctionParams) -> Option<Reach> {
    let ignores = params.null_treatment == Some(NullTreatment::IgnoreNulls);
    let (start, end) = (&params.window_frame.start_bound, &params.window_frame.end_bound);
    let first = matches!(start, WindowFrameBound::Preceding(by) if by.is_null());
    let to_this = !matches!(end, WindowFrameBound::Preceding(_));
    if params.distinct || params.filter.is_some() || ignores {
        return None;
    }
    if !first || !to_this || params.order_by.is_empty() {
        return None;
    }
    let peers = params.window_frame.units != WindowFrameUnits::Rows;
    let groups = peers.then_some(Sides { before: 0, after: 0 });
    Some(Reach { numbers: true, groups, ..Reach::ALONE })
}

/// Of numerics with so many digits at most as many rows as there can be make no sum of 39.
const SUMMED_DIGITS: u8 = 24;

fn reach_of(call: &WindowFunction, input: &DFSchema) -> Option<Reach> {
    let WindowFunction { fun, params } = call;
    let ignores = params.null_treatment == Some(NullTreatment::IgnoreNulls);
    if params.distinct || params.filter.is_some() || ignores || !params.args.iter().all(is_plain) {
        return None;
    }
    let kind = params.args.first().map(|arg| arg.get_type(input)).transpose().ok()?;
    let Some(function) = library::window(fun.name()) else {
        let known = library::aggregate(fun.name()).is_some_and(|f| (f.frames)(kind.as_ref()));
        return known.then(|| frame(call, input)).flatten();
    };
    match function.looks {
        Looks::Shifted { before } => {
            let by = match params.args.get(1) {
                None => 1,
                Some(Expr::Literal(value, _)) => number(value)?,
                Some(_) => return None,
            };
            let (front, behind) = (by.max(0), (-by).max(0));
            match before {
                true => Some(Reach { before: front, after: behind, ..Reach::ALONE }),
                false => Some(Reach { before: behind, after: front, ..Reach::ALONE }),
            }
        }
        Looks::Numbers => Some(Reach { numbers: true, ..Reach::ALONE }),
        Looks::Frame => frame(call, input),
        Looks::Everywhere => None,
    }
}

/// Whether computing an argument neither fails nor depends on anything else.
fn is_plain(arg: &Expr) -> bool {
    matches!(arg, Expr::Column(_) | Expr::Literal(..))
}

fn number(value: &ScalarValue) -> Option<Weight> {
    match value.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(number) => number.filter(|n| n.unsigned_abs() <= FAR),
        _ => None,
    }
}

/// From so many rows on a partition is as good as a frame.
const FAR: u64 = 100_000;

/// A frame with two ends.
fn frame(call: &WindowFunction, input: &DFSchema) -> Option<Reach> {
    let frame = &call.params.window_frame;
    let by = match call.params.order_by.as_slice() {
        [by] if !matches!(by.expr, Expr::Literal(..)) => by.expr.get_type(input).ok(),
        _ => None,
    };
    let far = |value: &ScalarValue| match (frame.units, &by) {
        (WindowFrameUnits::Range, Some(by)) => distance(value, by),
        (WindowFrameUnits::Range, None) => None,
        (WindowFrameUnits::Rows | WindowFrameUnits::Groups, _) => number(value),
    };
    // How far an end lies behind the row.
    let place = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => Some(0),
        WindowFrameBound::Preceding(by) => far(by).map(|by| -by),
        WindowFrameBound::Following(by) => far(by),
    };
    let (start, end) = (place(&frame.start_bound)?, place(&frame.end_bound)?);
    let (first, last) = (start.min(end).min(0), start.max(end).max(0));
    let sides = Sides { before: -first, after: last };
    match frame.units {
        WindowFrameUnits::Rows => Some(Reach { before: -first, after: last, ..Reach::ALONE }),
        WindowFrameUnits::Range => {
            is_measured(by.as_ref()?).then_some(Reach { span: Some(sides), ..Reach::ALONE })
        }
        WindowFrameUnits::Groups => {
            let ordered = !call.params.order_by.is_empty();
            ordered.then_some(Reach { groups: Some(sides), ..Reach::ALONE })
        }
    }
}

/// Whether the distance of two values is that of the integers that they are kept as.
fn is_measured(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Timestamp(TimeUnit::Microsecond, _)
    )
}

/// A distance of values of a type, as these are kept.
fn distance(value: &ScalarValue, of: &DataType) -> Option<i64> {
    let found = match of {
        DataType::Timestamp(..) => {
            let interval = DataType::Interval(IntervalUnit::MonthDayNano);
            match value.cast_to(&interval).ok()? {
                ScalarValue::IntervalMonthDayNano(interval) => interval_us(interval?)?,
                _ => return None,
            }
        }
        _ => match value.cast_to(&DataType::Int64).ok()? {
            ScalarValue::Int64(number) => number?,
            _ => return None,
        },
    };
    (found >= 0).then_some(found)
}
