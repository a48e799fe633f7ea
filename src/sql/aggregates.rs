//! Aggregate calls with PostgreSQL's meaning: what they refuse, and an ORDER BY that leaves nothing
//! to chance.
//!
//! The value of `array_agg`, `string_agg` and the like depends on the order of rows. PostgreSQL
//! takes them as they come; a view has no such order. So rows that ORDER BY leaves equal, all of
//! them without one, are taken in the order of the arguments, in views and ad hoc.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{
    AggregateFunction, AggregateFunctionParams, NullTreatment, Sort,
};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Projection, when};

use super::grouping::{grouping_sets, run_grouping_sets};
use super::intervals::sort_by_length;
use crate::error::{Error, sqlstate};
use crate::expr::{Walk, float_extreme, ordered_call, to_datafusion};
use crate::library::{self, Distinct, Order, Trait, has_trait};

/// An aggregate of a plan that the batch half runs: calls with an ORDER BY or DISTINCT of their own
/// become functions that sort, and what is distinct is told as keys are.
pub(super) fn run_aggregate(node: Aggregate) -> DfResult<Transformed<LogicalPlan>> {
    if let Some(sets) = grouping_sets(&node)? {
        // Its parts are aggregates to be run in their turn.
        let plan = run_grouping_sets(node, sets)?;
        return plan.transform_down(|part| match part {
            LogicalPlan::Aggregate(part) => {
                let mut part = run_aggregate(part)?;
                part.tnr = TreeNodeRecursion::Jump;
                Ok(part)
            }
            other => Ok(Transformed::no(other)),
        });
    }
    let schema = Arc::clone(node.input.schema());
    let mut changed = false;
    let mut calls = Vec::with_capacity(node.aggr_expr.len());
    for expr in &node.aggr_expr {
        let name = expr.qualified_name();
        let Expr::AggregateFunction(call) = expr.clone().unalias() else {
            calls.push(expr.clone());
            continue;
        };
        let rewritten = run_call(call, &schema)?;
        changed |= rewritten.is_some();
        calls.push(rewritten.map_or_else(|| expr.clone(), |e| e.alias_qualified(name.0, name.1)));
    }
    let mut keys = node.group_expr.clone();
    let (input, sliced) = computed_below(&node.input, &mut keys, &mut calls)?;
    if !changed && !sliced {
        return Ok(Transformed::no(LogicalPlan::Aggregate(node)));
    }
    let schema = Arc::clone(&node.schema);
    let node = Aggregate::try_new_with_schema(input, keys, calls, schema)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(node)))
}

/// Puts keys and arguments that may grow into a projection below, which cuts batches where they do.
fn computed_below(
    input: &Arc<LogicalPlan>,
    keys: &mut [Expr],
    calls: &mut [Expr],
) -> DfResult<(Arc<LogicalPlan>, bool)> {
    let mut below: Vec<Expr> = Vec::new();
    let growing = |e: &Expr| match e {
        Expr::ScalarFunction(f) => Ok(has_trait(f.name(), Trait::Grows)),
        _ => Ok(false),
    };
    for key in keys.iter_mut().filter(|key| !matches!(key, Expr::GroupingSet(_))) {
        if key.exists(growing)? {
            let (qualifier, name) = key.qualified_name();
            let column = put_below(std::mem::take(key).unalias(), &mut below);
            *key = column.alias_qualified(qualifier, name);
        }
    }
    for expr in calls.iter_mut() {
        let (name, before) = (expr.qualified_name(), below.len());
        let call = match &mut *expr {
            Expr::Alias(alias) => alias.expr.as_mut(),
            other => other,
        };
        let Expr::AggregateFunction(call) = call else { continue };
        for arg in &mut call.params.args {
            if arg.exists(growing)? {
                *arg = put_below(std::mem::take(arg), &mut below);
            }
        }
        // Those above know it by the name that it had.
        if below.len() > before && !matches!(expr, Expr::Alias(_)) {
            *expr = std::mem::take(expr).alias_qualified(name.0, name.1);
        }
    }
    if below.is_empty() {
        return Ok((Arc::clone(input), false));
    }
    let columns = input.schema().columns().into_iter().map(Expr::Column);
    let projection = Projection::try_new(columns.chain(below).collect(), Arc::clone(input))?;
    Ok((Arc::new(LogicalPlan::Projection(projection)), true))
}

/// The column of an expression that is computed below.
fn put_below(expr: Expr, below: &mut Vec<Expr>) -> Expr {
    let name = format!("#sliced{}", below.len());
    below.push(expr.alias(&name));
    Expr::Column(Column::new_unqualified(name))
}

fn run_call(mut call: AggregateFunction, schema: &DFSchema) -> DfResult<Option<Expr>> {
    let params = &call.params;
    let sorted = params.distinct || !params.order_by.is_empty();
    let entry = library::aggregate(call.func.name());
    if sorted
        && entry.is_some_and(|f| f.is_recomputed())
        && !call.func.supports_within_group_clause()
    {
        return ordered_call(&call, schema);
    }
    let [argument] = params.args.as_slice() else { return Ok(None) };
    if !argument.get_type(schema)?.is_floating() {
        return Ok(None);
    }
    if let Some(extreme) = float_extreme(call.func.name()) {
        call.func = extreme;
        return Ok(Some(Expr::AggregateFunction(call)));
    }
    if !params.distinct {
        return Ok(None);
    }
    // -0 and 0 are one value; their sum is 0.
    let zero = ScalarValue::new_zero(&argument.get_type(schema)?)?;
    call.params.args = vec![argument.clone() + Expr::Literal(zero, None)];
    Ok(Some(Expr::AggregateFunction(call)))
}

/// DISTINCT as the GROUP BY that DataFusion runs.
pub(super) fn run_distinct(input: Arc<LogicalPlan>) -> DfResult<LogicalPlan> {
    let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(input, columns, Vec::new())?))
}

/// Leaves out the names that parts of a call had before they were rewritten: two are the same that
/// compute the same.
pub(super) fn forget_names(params: &mut AggregateFunctionParams) {
    let sorts = params.order_by.iter_mut().map(|sort| &mut sort.expr);
    for expr in params.args.iter_mut().chain(sorts) {
        *expr = std::mem::take(expr).unalias();
    }
}

/// Rewrites a call.
pub(super) fn rewrite_call(mut call: AggregateFunction, schema: &DFSchema) -> DfResult<Expr> {
    if call.func.name() == "any_value" {
        // Any value will do: the least.
        call.func = first_value_udaf();
        call.params.null_treatment = Some(NullTreatment::IgnoreNulls);
        call.params.order_by.clear();
    }
    if call.params.distinct {
        check_distinct(&call)?;
    }
    let entry = library::aggregate(call.func.name());
    if entry.is_some_and(|f| f.distinct == Distinct::Blind) {
        call.params.distinct = false;
    }
    let ordered = entry.is_some_and(|f| f.order != Order::Blind);
    if !ordered && !call.func.supports_within_group_clause() {
        call.params.order_by.clear();
    }
    if ordered {
        for (i, argument) in call.params.args.iter().enumerate() {
            let constant = i > 0 && matches!(argument, Expr::Literal(..));
            let there = call.params.order_by.iter().any(|sort| sort.expr == *argument);
            if !constant && !there {
                call.params.order_by.push(Sort::new(argument.clone(), true, false));
            }
        }
        let order = std::mem::take(&mut call.params.order_by).into_iter();
        call.params.order_by = order.map(|s| sort_by_length(s, schema)).collect::<DfResult<_>>()?;
    }
    Ok(Expr::AggregateFunction(call))
}

/// What a FILTER keeps out is not computed: `sum(x / y) FILTER (WHERE y <> 0)`.
pub(super) fn guard_by_filter<'e>(
    filter: Option<&Expr>,
    computed: impl Iterator<Item = &'e mut Expr>,
) -> DfResult<()> {
    let Some(filter) = filter else { return Ok(()) };
    for expr in computed {
        if !matches!(expr, Expr::Column(_) | Expr::Literal(..)) {
            *expr = when(filter.clone(), expr.clone()).end()?;
        }
    }
    Ok(())
}

fn check_distinct(call: &AggregateFunction) -> DfResult<()> {
    let params = &call.params;
    if params.order_by.iter().all(|sort| params.args.contains(&sort.expr)) {
        return Ok(());
    }
    Err(to_datafusion(Error::user(
        sqlstate::INVALID_COLUMN_REFERENCE,
        "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
    )))
}
