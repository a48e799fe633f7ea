//! What hangs on the zone of a session, or of a definition: what clocks show, the days of a moment,
//! and moments that are some days apart.
//!
//! It is put into the plan as an argument or as the style of a cast, so that nobody behind asks
//! which session it was. Where clocks show UTC nothing is put in: that is what functions take for
//! granted. A cast that the analyser has made is looked at behind it.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, lit};
use datafusion::optimizer::AnalyzerRule;

use super::outline::type_of;
use super::types::timestamptz;
use crate::delta::style::TextStyle;
use crate::expr::{
    ArithOp, Coercion, Walk, WalkPlan, call, cast_expr, cast_udf, is_zoned, parse_interval,
    to_datafusion,
};

const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The zone as an argument; `None` where clocks show UTC.
fn zone() -> Option<Expr> {
    let zone = TextStyle::current().zone;
    (!zone.is_utc()).then(|| lit(zone.to_string()))
}

/// A call whose arguments have their types, by the clocks of the session.
pub(super) fn zoned_call(mut f: ScalarFunction, schema: &DFSchema) -> DfResult<Expr> {
    let Some(zone) = zone() else { return Ok(Expr::ScalarFunction(f)) };
    let mut moments = Vec::with_capacity(f.args.len());
    for arg in &f.args {
        moments.push(matches!(type_of(arg, schema)?, DataType::Timestamp(_, Some(_))));
    }
    match (f.func.name(), moments.as_slice()) {
        ("date_trunc" | "extract" | "date_part", [_, true])
        | ("date_add" | "date_subtract", [true, _])
        | ("generate_series", [true, ..])
            if f.args.len() < 4 =>
        {
            f.args.push(zone);
        }
        ("make_timestamptz", moments) if moments.len() == 6 => f.args.push(zone),
        ("to_char", [true, _]) => {
            f.args.push(zone);
            return call("pg_to_char", f.args);
        }
        ("age", [true, true]) => {
            let shown = |arg| cast_udf(&TIMESTAMP, Coercion::Explicit).call(vec![arg]);
            f.args = f.args.into_iter().map(shown).collect();
        }
        // What was read is what a clock has shown.
        ("to_timestamp", [false, false]) => {
            let shown = call("timezone", vec![lit("UTC"), Expr::ScalarFunction(f)])?;
            return call("timezone", vec![zone, shown]);
        }
        ("overlaps", [true, false, true, false]) => {
            if let [a, b, c, d] = f.args.as_mut_slice() {
                *b = call("date_add", vec![a.clone(), b.clone(), zone.clone()])?;
                *d = call("date_add", vec![c.clone(), d.clone(), zone])?;
            }
        }
        _ => {}
    }
    Ok(Expr::ScalarFunction(f))
}

/// What becomes of the operands of an operator.
pub(super) enum Zoned {
    /// They stay.
    Operands(Expr, Expr),
    /// Another expression is in the place of the operation.
    Whole(Expr),
}

/// Arithmetic by the clocks of the session.
pub(super) fn zoned_arithmetic(
    op: ArithOp,
    (left, right): (Expr, Expr),
    schema: &DFSchema,
) -> DfResult<Zoned> {
    let Some(zone) = zone() else { return Ok(Zoned::Operands(left, right)) };
    let (l, r) = (type_of(&left, schema)?, type_of(&right, schema)?);
    let moment = |t: &DataType| matches!(t, DataType::Timestamp(_, Some(_)));
    let shown = |t: &DataType| matches!(t, DataType::Timestamp(_, None) | DataType::Date32);
    let days = |e: &Expr, t: &DataType| matches!(t, DataType::Interval(_)) && has_days(e);
    let read = |e, t| cast_expr(e, t, &timestamptz(), Coercion::Explicit).map_err(to_datafusion);
    Ok(match op {
        ArithOp::Add if moment(&l) && days(&right, &r) => {
            Zoned::Whole(call("date_add", vec![left, right, zone])?)
        }
        ArithOp::Add if days(&left, &l) && moment(&r) => {
            Zoned::Whole(call("date_add", vec![right, left, zone])?)
        }
        ArithOp::Sub if moment(&l) && days(&right, &r) => {
            Zoned::Whole(call("date_subtract", vec![left, right, zone])?)
        }
        ArithOp::Sub if moment(&l) && shown(&r) => Zoned::Operands(left, read(right, &r)?),
        ArithOp::Sub if shown(&l) && moment(&r) => Zoned::Operands(read(left, &l)?, right),
        _ => Zoned::Operands(left, right),
    })
}

/// Whether an interval may have days or months: a literal without them is a time like any other.
fn has_days(interval: &Expr) -> bool {
    let literal = match interval {
        Expr::Cast(cast) => cast.expr.as_ref(),
        Expr::ScalarFunction(cast) if cast.func.name() == "pg_cast" => match cast.args.as_slice() {
            [literal] => literal,
            _ => return true,
        },
        literal => literal,
    };
    let value = match literal {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(v)), _) => Some(*v),
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => parse_interval(text).ok(),
        _ => None,
    };
    value.is_none_or(|v| v.months != 0 || v.days != 0)
}

/// Casts between moments and what clocks show, in an expression over a schema.
pub(super) fn clock_casts(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    if TextStyle::current().zone.is_utc() {
        return Ok(Transformed::no(expr));
    }
    expr.transform_up(|expr| match expr {
        Expr::Cast(cast) => {
            let (from, to) = (type_of(&cast.expr, schema)?, cast.field.data_type().clone());
            Ok(match from != DataType::Null && is_zoned(&from) != is_zoned(&to) {
                true => Transformed::yes(cast_udf(&to, Coercion::Explicit).call(vec![*cast.expr])),
                false => Transformed::no(Expr::Cast(cast)),
            })
        }
        other => Ok(Transformed::no(other)),
    })
}

/// The rule that looks at what the analyser has made.
#[derive(Debug)]
pub(super) struct ClockCasts;

impl AnalyzerRule for ClockCasts {
    fn name(&self) -> &str {
        "clock_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        if TextStyle::current().zone.is_utc() {
            return Ok(plan);
        }
        let cast = |node: LogicalPlan| {
            let mut schema = merge_schema(&node.inputs());
            if let LogicalPlan::TableScan(scan) = &node {
                schema.merge(&scan.projected_schema);
            }
            let names = NamePreserver::new(&node);
            node.map_exprs(|expr| {
                let name = names.save(&expr);
                Ok(clock_casts(expr, &schema)?.update_data(|expr| name.restore(expr)))
            })
        };
        Ok(plan.map_nodes_up(cast)?.data)
    }
}
