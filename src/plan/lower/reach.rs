//! How far window functions look: at how many rows in front of a row and behind it.
//!
//! Known is it of functions whose result for a row is the same whatever lies beyond these, to the
//! last bit, and which never fail: sums of floating point numbers depend on all that was ever in
//! the frame, and a partition in which one row fails has no rows at all.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::{Expr, ExprSchemable, WindowFrameBound, WindowFrameUnits};

use crate::delta::Weight;
use crate::library::{self, Looks};
use crate::state::Reach;

/// How far all of some calls look, and which of them count the rows up to a row.
pub(super) fn reach(calls: &[Expr], input: &DFSchema) -> Option<(Reach, Vec<usize>)> {
    let (mut all, mut numbers) = (ROW_ALONE, Vec::new());
    for (at, call) in calls.iter().enumerate() {
        let Expr::WindowFunction(call) = call.clone().unalias_nested().data else { return None };
        let of = reach_of(&call, input)?;
        if of.numbers {
            numbers.push(at);
        }
        all = Reach {
            before: all.before.max(of.before),
            after: all.after.max(of.after),
            numbers: all.numbers || of.numbers,
        };
    }
    Some((all, numbers))
}

const ROW_ALONE: Reach = Reach { before: 0, after: 0, numbers: false };

fn reach_of(call: &WindowFunction, input: &DFSchema) -> Option<Reach> {
    let WindowFunction { fun, params } = call;
    let ignores = params.null_treatment == Some(NullTreatment::IgnoreNulls);
    if params.distinct || params.filter.is_some() || ignores || !params.args.iter().all(is_plain) {
        return None;
    }
    let kind = params.args.first().map(|arg| arg.get_type(input)).transpose().ok()?;
    let Some(function) = library::window(fun.name()) else {
        let known = library::aggregate(fun.name()).is_some_and(|f| (f.frames)(kind.as_ref()));
        return known.then(|| frame(call)).flatten();
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
                true => Some(Reach { before: front, after: behind, ..ROW_ALONE }),
                false => Some(Reach { before: behind, after: front, ..ROW_ALONE }),
            }
        }
        Looks::Numbers => Some(Reach { numbers: true, ..ROW_ALONE }),
        Looks::Frame => frame(call),
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

/// A frame in ROWS with two ends.
fn frame(call: &WindowFunction) -> Option<Reach> {
    let frame = &call.params.window_frame;
    if frame.units != WindowFrameUnits::Rows {
        return None;
    }
    // How far an end lies behind the row.
    let place = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => Some(0),
        WindowFrameBound::Preceding(by) => number(by).map(|by| -by),
        WindowFrameBound::Following(by) => number(by),
    };
    let (start, end) = (place(&frame.start_bound)?, place(&frame.end_bound)?);
    let (first, last) = (start.min(end).min(0), start.max(end).max(0));
    Some(Reach { before: -first, after: last, ..ROW_ALONE })
}
