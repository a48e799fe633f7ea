//! Intervals that are equal and not the same: `1 mon`, `30 days` and `720:00:00`. They compare by
//! their length, where a month has 30 days; so what groups, sorts, joins or tells apart intervals
//! does so by that length. A group shows the least of its intervals: by months, days and time.
//!
//! Comparisons are rewritten where all others are; here is the rest. Not here: grouping sets,
//! INTERSECT and EXCEPT, which tell equal intervals apart.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{
    AggregateFunction, InSubquery, NullTreatment, ScalarFunction, Sort, WindowFunction,
};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Operator,
    Projection, Subquery, WindowFrame, WindowFrameBound, WindowFrameUnits, lit, when,
};

use crate::error::Error;
use crate::expr::{Coercion, call, cast_expr, to_datafusion};

/// Whether a type is of intervals, or of arrays of them.
fn of_intervals(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(element) => of_intervals(element.data_type()),
        other => matches!(other, DataType::Interval(_)),
    }
}

fn is_interval(expr: &Expr, schema: &DFSchema) -> DfResult<bool> {
    Ok(of_intervals(&expr.get_type(schema)?))
}

/// The length of an interval, or the lengths of an array of them; other expressions as they are.
fn by_length(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    match expr.get_type(schema)? {
        DataType::Interval(_) => call("pg_interval_order", vec![expr]),
        array if of_intervals(&array) => call("pg_array_order", vec![expr]),
        _ => Ok(expr),
    }
}

/// What an expression is sorted by: intervals by their length, jsonb by PostgreSQL's order, arrays
/// and rows with NULL above all other elements.
pub(super) fn sort_by_length(sort: Sort, schema: &DFSchema) -> DfResult<Sort> {
    let expr = match sort.expr.get_type(schema)? {
        DataType::LargeUtf8 => call("pg_jsonb_order", vec![sort.expr])?,
        DataType::List(_) => call("pg_array_order", vec![sort.expr])?,
        DataType::Struct(_) => call("pg_row_order", vec![sort.expr])?,
        _ => by_length(sort.expr, schema)?,
    };
    Ok(Sort { expr, ..sort })
}

/// A node whose intervals are told apart by their length.
pub(super) fn rewrite_intervals(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => group(aggregate),
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let schema = input.schema();
            if !schema.fields().iter().any(|f| of_intervals(f.data_type())) {
                return Ok(LogicalPlan::Distinct(Distinct::All(input)));
            }
            let columns = schema.columns().into_iter().map(Expr::Column).collect();
            group(Aggregate::try_new(input, columns, Vec::new())?)
        }
        LogicalPlan::Sort(mut sort) => {
            let schema = sort.input.schema();
            let keys = sort.expr.into_iter().map(|key| sort_by_length(key, schema));
            sort.expr = keys.collect::<DfResult<_>>()?;
            Ok(LogicalPlan::Sort(sort))
        }
        LogicalPlan::Join(join) => {
            let on = join.on.into_iter().map(|(l, r)| {
                Ok((by_length(l, join.left.schema())?, by_length(r, join.right.schema())?))
            });
            let on = on.collect::<DfResult<_>>()?;
            Ok(LogicalPlan::Join(Join { on, ..join }))
        }
        other => Ok(other),
    }
}

/// GROUP BY the lengths; each group shows one of its intervals.
fn group(aggregate: Aggregate) -> DfResult<LogicalPlan> {
    let input = aggregate.input.schema();
    let sets = aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)));
    let intervals = match sets {
        true => Vec::new(),
        false => {
            let found = aggregate.group_expr.iter().map(|e| is_interval(e, input));
            found.collect::<DfResult<Vec<_>>>()?
        }
    };
    if !intervals.contains(&true) {
        return Ok(LogicalPlan::Aggregate(aggregate));
    }
    let (mut keys, mut calls) = (Vec::new(), aggregate.aggr_expr.clone());
    let mut columns: Vec<Expr> = Vec::new();
    let fields = aggregate.schema.iter().map(|(q, f)| (q.cloned(), f.name().clone()));
    for (i, (qualifier, name)) in fields.enumerate() {
        if intervals.get(i) != Some(&true) {
            keys.extend(aggregate.group_expr.get(i).cloned());
            columns.push(Expr::Column(Column::new(qualifier, name)));
            continue;
        }
        let key = &aggregate.group_expr[i];
        let shown = format!("#interval {i} {name}");
        keys.push(by_length(key.clone(), input)?.alias(format!("#length {i} {name}")));
        calls.push(least(key.clone(), Vec::new()).alias(&shown));
        columns.push(Expr::Column(Column::new_unqualified(shown)).alias_qualified(qualifier, name));
    }
    let grouped = LogicalPlan::Aggregate(Aggregate::try_new(aggregate.input, keys, calls)?);
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(grouped))?))
}

/// The first of some intervals in an order, then by months, days and time.
fn least(interval: Expr, order: Vec<Sort>) -> Expr {
    let descending = order.first().is_some_and(|sort| !sort.asc);
    let rest = Sort::new(interval.clone(), !descending, false);
    let order = order.into_iter().chain([rest]).collect();
    let nulls = Some(NullTreatment::IgnoreNulls);
    let function = first_value_udaf();
    let call = AggregateFunction::new_udf(function, vec![interval], false, None, order, nulls);
    Expr::AggregateFunction(call)
}

/// An aggregate of intervals that compares them.
pub(super) fn aggregate_by_length(
    mut call: AggregateFunction,
    schema: &DFSchema,
) -> DfResult<AggregateFunction> {
    let [argument] = call.params.args.as_slice() else { return Ok(call) };
    let name = call.func.name();
    let counts = name == "count" && call.params.distinct;
    if !(counts || matches!(name, "min" | "max")) || !is_interval(argument, schema)? {
        return Ok(call);
    }
    let length = by_length(argument.clone(), schema)?;
    if counts {
        call.params.args = vec![length];
        return Ok(call);
    }
    let order = vec![Sort::new(length, name == "min", false)];
    let Expr::AggregateFunction(mut first) = least(argument.clone(), order) else {
        return Ok(call);
    };
    first.params.filter = call.params.filter;
    Ok(first)
}

/// Whether values of a type stand in another order than DataFusion's: NULL is the greatest element.
fn has_order(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_) | DataType::LargeUtf8 | DataType::List(_))
}

/// Whether values of a type can be equal without being the same to DataFusion: `1 mon` and
/// `30 days`, `0` and `-0` in arrays.
fn has_likes(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(element) => {
            element.data_type().is_floating() || has_likes(element.data_type())
        }
        other => matches!(other, DataType::Interval(_)),
    }
}

/// What two expressions of one type are compared by, where it is not their values.
pub(super) fn comparable_by(
    op: Operator,
    data_type: &DataType,
    left: &Expr,
    right: &Expr,
) -> DfResult<Option<(Expr, Expr)>> {
    let ordered = matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
    let is_row = matches!(data_type, DataType::Struct(_));
    if !(has_likes(data_type) || ordered && (is_row || has_order(data_type))) {
        return Ok(None);
    }
    let order = |e: &Expr| match data_type {
        DataType::Interval(_) => call("pg_interval_order", vec![e.clone()]),
        DataType::LargeUtf8 => call("pg_jsonb_order", vec![e.clone()]),
        DataType::Struct(_) => call("pg_row_order", vec![e.clone()]),
        _ => call("pg_array_order", vec![e.clone()]),
    };
    Ok(Some((order(left)?, order(right)?)))
}

/// `greatest`, `least` and `nullif` of types with an order of their own.
pub(super) fn choice_by_order(f: &ScalarFunction, schema: &DFSchema) -> DfResult<Option<Expr>> {
    let mut found = None;
    for arg in &f.args {
        match arg.get_type(schema)? {
            DataType::Null => {}
            data_type if has_order(&data_type) => found = Some(data_type),
            _ => return Ok(None),
        }
    }
    let Some(data_type) = found else { return Ok(None) };
    let fold = |name: &str| {
        let mut rest = f.args.iter().cloned();
        let first = rest.next().map(Ok);
        let pair = |a: DfResult<Expr>, b| call(name, vec![a?, b]);
        first.map(|first| rest.fold(first, pair)).transpose()
    };
    match (f.func.name(), f.args.as_slice()) {
        ("greatest", _) => fold("pg_greatest"),
        ("least", _) => fold("pg_least"),
        ("nullif", [a, b]) => {
            let Some((l, r)) = comparable_by(Operator::Eq, &data_type, a, b)? else {
                return Ok(None);
            };
            Ok(Some(when(l.eq(r).is_not_true(), a.clone()).end()?))
        }
        _ => Ok(None),
    }
}

/// What rows of a window are sorted by: frames take no bytes and no times; their text has the same
/// order.
fn sort_of_window(sort: Sort, schema: &DFSchema) -> DfResult<Sort> {
    let expr = match sort.expr.get_type(schema)? {
        DataType::Binary => call("encode", vec![sort.expr, lit("hex")])?,
        from @ (DataType::FixedSizeBinary(_) | DataType::Time64(_)) => {
            cast_expr(sort.expr, &from, &DataType::Utf8, Coercion::Explicit)
                .map_err(to_datafusion)?
        }
        _ => return sort_by_length(sort, schema),
    };
    Ok(Sort { expr, ..sort })
}

/// Whether a RANGE frame can't have an offset over values of a type.
fn has_no_offsets(data_type: &DataType) -> bool {
    of_intervals(data_type) || matches!(data_type, DataType::Time64(_))
}

/// A window function whose partitions and order are of intervals.
pub(super) fn window_by_length(
    mut call: WindowFunction,
    schema: &DFSchema,
) -> DfResult<WindowFunction> {
    let params = &mut call.params;
    let frame = &params.window_frame;
    let offset = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(v) | WindowFrameBound::Following(v) => !v.is_null(),
        WindowFrameBound::CurrentRow => false,
    };
    let offsets = frame.units == WindowFrameUnits::Range
        && (offset(&frame.start_bound) || offset(&frame.end_bound));
    let partition = std::mem::take(&mut params.partition_by).into_iter();
    params.partition_by = partition.map(|e| by_length(e, schema)).collect::<DfResult<_>>()?;
    let mut keys = params.order_by.iter();
    if offsets && keys.any(|key| key.expr.get_type(schema).is_ok_and(|t| has_no_offsets(&t))) {
        return Err(to_datafusion(
            Error::unsupported(
                "a RANGE frame with an offset over intervals or times is not supported",
            )
            .with_hint("Order by extract(epoch from ..)."),
        ));
    }
    if !offsets {
        let order = std::mem::take(&mut params.order_by).into_iter();
        params.order_by = order.map(|key| sort_of_window(key, schema)).collect::<DfResult<_>>()?;
        let is_bytes = |key: &Sort| Ok(key.expr.get_type(schema)? == DataType::Binary);
        let mut bytes = params.order_by.iter().map(is_bytes);
        let by_bytes = bytes
            .try_fold(false, |any, one: DfResult<bool>| Ok::<_, DataFusionError>(any | one?))?;
        // Without offsets both are of peers, and the planner has ranges of numbers and times alone.
        if by_bytes && params.window_frame.units == WindowFrameUnits::Range {
            let WindowFrame { start_bound, end_bound, .. } = params.window_frame.clone();
            params.window_frame =
                WindowFrame::new_bounds(WindowFrameUnits::Groups, start_bound, end_bound);
        }
    }
    Ok(call)
}

/// `interval IN (SELECT interval ..)`.
pub(super) fn in_by_length(item: InSubquery, schema: &DFSchema) -> DfResult<InSubquery> {
    let InSubquery { expr, subquery, negated } = item;
    let inner = subquery.subquery.schema();
    let column = Expr::Column(Column::from(inner.qualified_field(0)));
    if !is_interval(&expr, schema)? || !is_interval(&column, inner)? {
        return Ok(InSubquery { expr, subquery, negated });
    }
    let length = by_length(column, inner)?;
    let plan = LogicalPlanBuilder::from(Arc::unwrap_or_clone(subquery.subquery));
    let plan = Arc::new(plan.project([length])?.build()?);
    let subquery = Subquery { subquery: plan, ..subquery };
    Ok(InSubquery { expr: Box::new(by_length(*expr, schema)?), subquery, negated })
}
