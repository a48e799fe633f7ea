//! Moving filters: conditions between a time of a row and `now()`, in WHERE of a view.
//!
//! `ts > now() - INTERVAL '1 hour'` becomes a [`MovingFilter`] node: operators keep it up to date
//! as the clock moves on, and the batch half runs it as the filter that it is, at the time of its
//! epoch. It is taken out of the optimised plan, so it stands as far down as any other condition.
//!
//! Conditions of this form are made from comparisons (`< <= > >= =`) and BETWEEN with `now()` on
//! one side, joined by AND. The side with `now()` must not read the row and must never go back as
//! the clock moves on, see [`bound`]; the other side may be any time. All other uses of `now()` are
//! left where they are and refused later, by name.

mod bound;
mod node;

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType, Result as DfResult};
use datafusion::logical_expr::expr::Between;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Cast, Expr, ExprSchemable, Filter, Join, LogicalPlan, Operator, binary_expr,
};

use super::errors::plan_error;
use crate::error::Result;
use crate::expr::{Walk, WalkPlan, reads_clock, to_datafusion};
use crate::operator::TimeOrder;
pub(super) use bound::unsupported_now;
pub use node::MovingFilter;

/// Whether a plan reads the clock somewhere.
pub(super) fn plan_reads_clock(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let visited = plan.each_node(|node| {
        node.each_expr(|e| {
            found |= reads_clock(e);
            Ok(TreeNodeRecursion::Continue)
        })
    });
    debug_assert!(visited.is_ok(), "nothing in the visit fails");
    found
}

/// Makes moving filters of the conditions with `now()` in a view's plan.
pub(super) fn moving_filters(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !plan_reads_clock(&plan) {
        return Ok(plan);
    }
    let moved = plan.transform_up(|node| match node {
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => lift(join),
        LogicalPlan::Filter(filter) if reads_clock(&filter.predicate) => {
            split(filter).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    });
    moved.map(|t| t.data).map_err(plan_error)
}

/// The conditions with `now()` of an inner join, behind it.
fn lift(mut join: Join) -> DfResult<Transformed<LogicalPlan>> {
    let Some(filter) = join.filter.take_if(|f| reads_clock(f)) else {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    };
    let (moving, still): (Vec<_>, Vec<_>) =
        split_conjunction_owned(filter).into_iter().partition(reads_clock);
    join.filter = conjunction(still);
    let input = Arc::new(LogicalPlan::Join(join));
    let Some(predicate) = conjunction(moving) else { return Ok(Transformed::no(unwrap(input))) };
    split(Filter::try_new(predicate, input)?).map(Transformed::yes)
}

fn unwrap(plan: Arc<LogicalPlan>) -> LogicalPlan {
    Arc::unwrap_or_clone(plan)
}

/// A time of the row compared with a bound that follows from the clock.
struct Condition {
    time: Expr,
    order: TimeOrder,
    bound: Expr,
}

/// A filter as what does not move, then moving filters: those that let rows come first, so that
/// rows which have not come need not be watched for going.
fn split(filter: Filter) -> DfResult<LogicalPlan> {
    let schema = filter.input.schema().clone();
    let (mut conditions, mut rest) = (Vec::new(), Vec::new());
    let conjuncts = split_conjunction_owned(filter.predicate).into_iter().flat_map(sides);
    for conjunct in conjuncts {
        match reads_clock(&conjunct).then(|| classify(&conjunct, &schema)).transpose()?.flatten() {
            Some(found) => conditions.extend(found),
            // `check_plan` refuses what is left of now().
            None => rest.push(conjunct),
        }
    }
    let mut plan = filter.input;
    if let Some(predicate) = conjunction(rest) {
        plan = Arc::new(LogicalPlan::Filter(Filter::try_new(predicate, plan)?));
    }
    conditions.sort_by_key(|c| !c.order.comes());
    for Condition { time, order, bound } in conditions {
        plan = Arc::new(MovingFilter::plan(unwrap(plan), time, order, bound));
    }
    Ok(unwrap(plan))
}

/// The two comparisons of a BETWEEN with `now()`; anything else as it is.
fn sides(conjunct: Expr) -> Vec<Expr> {
    match conjunct {
        Expr::Between(Between { expr, negated: false, low, high })
            if [&expr, &low, &high].into_iter().any(|e| reads_clock(e)) =>
        {
            let high = binary_expr(expr.as_ref().clone(), Operator::LtEq, *high);
            vec![binary_expr(*expr, Operator::GtEq, *low), high]
        }
        other => vec![other],
    }
}

/// The conditions that a conjunct with `now()` is; `None` when it is of another form.
fn classify(conjunct: &Expr, schema: &DFSchema) -> DfResult<Option<Vec<Condition>>> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = conjunct else { return Ok(None) };
    let (left, op, right) = match (reads_clock(left), reads_clock(right)) {
        (true, false) => match op.swap() {
            Some(op) => (right.as_ref(), op, left.as_ref()),
            None => return Ok(None),
        },
        (false, true) => (left.as_ref(), *op, right.as_ref()),
        _ => return Ok(None),
    };
    if let Some((time, op, bound)) = bound::of_difference(left, op, right, schema) {
        return conditions(time, op, bound, schema).map(Some);
    }
    match bound::never_goes_back(right) {
        false => Ok(None),
        true => conditions(left.clone(), op, right.clone(), schema).map(Some),
    }
}

fn conditions(
    time: Expr,
    op: Operator,
    bound: Expr,
    schema: &DFSchema,
) -> DfResult<Vec<Condition>> {
    let orders: &[TimeOrder] = match op {
        Operator::Lt => &[TimeOrder::Before],
        Operator::LtEq => &[TimeOrder::BeforeOrAt],
        Operator::Gt => &[TimeOrder::After],
        Operator::GtEq => &[TimeOrder::AfterOrAt],
        Operator::Eq => &[TimeOrder::BeforeOrAt, TimeOrder::AfterOrAt],
        _ => {
            return Err(to_datafusion(unsupported_now()));
        }
    };
    let time = in_microseconds(time, schema)?;
    let bound = in_microseconds(bound, &DFSchema::empty())?;
    let condition =
        |order: &TimeOrder| Condition { time: time.clone(), order: *order, bound: bound.clone() };
    Ok(orders.iter().map(condition).collect())
}

/// A date or a timestamp as a timestamp of the engine.
fn in_microseconds(time: Expr, schema: &DFSchema) -> DfResult<Expr> {
    match time.get_type(schema)? {
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(time),
        DataType::Date32 | DataType::Timestamp(..) => {
            let to = DataType::Timestamp(TimeUnit::Microsecond, None);
            Ok(Expr::Cast(Cast::new(Box::new(time), to)))
        }
        _ => Err(to_datafusion(unsupported_now())),
    }
}
