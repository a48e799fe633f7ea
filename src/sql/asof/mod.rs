//! ASOF joins: of each row of the left the nearest row of the right.
//!
//! `t ASOF JOIN q ON t.k = q.k AND t.ts >= q.ts`: of the rows of `q` that fulfil the condition that
//! with the greatest `ts` (the least, where it is at or behind `t.ts`). The condition is equalities
//! between the sides, one inequality between them, conditions on the right alone, and how far the
//! nearest may be away: all of which say of which rows the nearest is wanted, or whether it is near
//! enough.
//!
//! The parser marks such joins by a call of [`ASOF_MATCH`] in their condition; here they become
//! nodes, ahead of the optimiser, which knows no such join.

mod node;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType, Result as DfResult};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    self as df, BinaryExpr, ColumnarValue, Expr, ExprSchemable, Filter, Join, LogicalPlan,
    Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

pub use self::node::{AsOfJoin, Nearest};
use super::errors::plan_error;
use super::parser::ASOF_MATCH;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{Walk, WalkPlan, to_datafusion};

/// The function that marks the condition of an ASOF join.
pub(super) fn asof_match_udf() -> (String, Arc<ScalarUDF>) {
    let signature = Signature::one_of(
        vec![df::TypeSignature::Nullary, df::TypeSignature::Exact(vec![DataType::Boolean])],
        Volatility::Immutable,
    );
    (ASOF_MATCH.to_owned(), Arc::new(ScalarUDF::new_from_impl(AsOfMatch { signature })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AsOfMatch {
    signature: Signature,
}

impl ScalarUDFImpl for AsOfMatch {
    fn name(&self) -> &str {
        ASOF_MATCH
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(to_datafusion(misplaced()))
    }
}

fn misplaced() -> Error {
    Error::unsupported(format!("{ASOF_MATCH}() is supported in the condition of a join alone"))
        .with_hint("Write t ASOF JOIN q ON t.symbol = q.symbol AND t.ts >= q.ts.")
}

fn is_mark(e: &Expr) -> bool {
    matches!(e, Expr::ScalarFunction(f) if f.func.inner().is::<AsOfMatch>())
}

fn has_mark(e: &Expr) -> bool {
    e.exists(|e| Ok(is_mark(e))).unwrap_or(true)
}

/// Makes nodes of the joins that are marked.
pub(super) fn asof_joins(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut found = false;
    let visited = plan.each_node(|node| {
        node.each_expr(|e| {
            found |= has_mark(e);
            Ok(TreeNodeRecursion::Continue)
        })
    });
    visited.map_err(plan_error)?;
    if !found {
        return Ok(plan);
    }
    let plan = plan.map_nodes_up(|node| match node {
        LogicalPlan::Join(join) if join.filter.as_ref().is_some_and(has_mark) => {
            made(join).map(Transformed::yes).map_err(to_datafusion)
        }
        other => {
            other.each_expr(|e| match has_mark(e) {
                true => Err(to_datafusion(misplaced())),
                false => Ok(TreeNodeRecursion::Continue),
            })?;
            Ok(Transformed::no(other))
        }
    });
    plan.map(|t| t.data).map_err(plan_error)
}

/// The inputs that an expression reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    Nothing,
    Left,
    Right,
    Both,
}

struct Sides<'a> {
    left: &'a DFSchema,
    right: &'a DFSchema,
}

impl Sides<'_> {
    fn of(&self, e: &Expr) -> Reads {
        let refs = e.column_refs();
        let left = refs.iter().any(|c| self.left.maybe_index_of_column(c).is_some());
        let right = refs.iter().any(|c| self.right.maybe_index_of_column(c).is_some());
        match (left, right) {
            (false, false) => Reads::Nothing,
            (true, false) => Reads::Left,
            (false, true) => Reads::Right,
            (true, true) => Reads::Both,
        }
    }

    /// A comparison with the left on its left.
    fn comparison(&self, e: &Expr) -> Option<(Expr, Operator, Expr)> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = e else { return None };
        match (self.of(left), self.of(right)) {
            (Reads::Left, Reads::Right) => Some((*left.clone(), *op, *right.clone())),
            (Reads::Right, Reads::Left) => Some((*right.clone(), op.swap()?, *left.clone())),
            _ => None,
        }
    }

    /// How the nearest row is told by a comparison.
    fn nearest(&self, e: &Expr) -> Option<Nearest> {
        let (left, op, right) = self.comparison(e)?;
        let (forward, at_it) = match op {
            Operator::GtEq => (false, true),
            Operator::Gt => (false, false),
            Operator::LtEq => (true, true),
            Operator::Lt => (true, false),
            _ => return None,
        };
        Some(Nearest { left, right, forward, at_it })
    }
}

fn is_column(e: &Expr) -> bool {
    match e {
        Expr::Column(_) => true,
        Expr::Cast(cast) => is_column(&cast.expr),
        _ => false,
    }
}

/// What the condition of a join says.
struct Parts {
    keys: Vec<(Expr, Expr)>,
    nearest: Nearest,
    /// Of the right alone.
    right: Vec<Expr>,
    /// Of a row and its nearest.
    rest: Vec<Expr>,
}

fn made(join: Join) -> Result<LogicalPlan> {
    let outer = match join.join_type {
        JoinType::Inner => false,
        JoinType::Left => true,
        _ => return Err(misplaced()),
    };
    let sides = Sides { left: join.left.schema(), right: join.right.schema() };
    let parts = parts(join.filter.clone(), join.on.clone(), &sides)?;
    let types = [
        parts.nearest.left.get_type(sides.left).map_err(plan_error)?,
        parts.nearest.right.get_type(sides.right).map_err(plan_error)?,
    ];
    check_types(&types)?;
    let mut right = join.right;
    if let Some(filter) = conjunction(parts.right) {
        right = Arc::new(LogicalPlan::Filter(Filter::try_new(filter, right).map_err(plan_error)?));
    }
    let inputs = [Arc::unwrap_or_clone(join.left), Arc::unwrap_or_clone(right)];
    let node = AsOfJoin::new(inputs, parts.keys, parts.nearest, outer, conjunction(parts.rest));
    Ok(node.map_err(plan_error)?.plan())
}

fn parts(filter: Option<Expr>, on: Vec<(Expr, Expr)>, sides: &Sides<'_>) -> Result<Parts> {
    let (mut keys, mut mark, mut between) = (on, None, Vec::new());
    let (mut right, mut rest) = (Vec::new(), Vec::new());
    for conjunct in filter.into_iter().flat_map(split_conjunction_owned) {
        if let Expr::ScalarFunction(f) = &conjunct
            && is_mark(&conjunct)
        {
            mark = f.args.first().cloned();
        } else if has_mark(&conjunct) {
            return Err(Error::unsupported("the condition of an ASOF JOIN is joined by AND alone")
                .with_hint("Put what is joined by OR into parentheses."));
        } else if let Some((l, Operator::Eq, r)) = sides.comparison(&conjunct) {
            keys.push((l, r));
        } else {
            match sides.of(&conjunct) {
                Reads::Right => right.push(conjunct),
                Reads::Both => between.push(conjunct),
                Reads::Left | Reads::Nothing => rest.push(conjunct),
            }
        }
    }
    let nearest = match mark {
        Some(condition) => sides.nearest(&condition).ok_or_else(|| no_inequality(&condition))?,
        None => inequality(&mut between, sides)?,
    };
    let times: Vec<_> =
        [&nearest.left, &nearest.right].into_iter().flat_map(|e| e.column_refs()).collect();
    for conjunct in between {
        if conjunct.column_refs().iter().any(|c| !times.contains(c)) {
            let message = format!("an ASOF JOIN with a condition on both sides: {conjunct}");
            return Err(Error::unsupported(message).with_detail(
                "Beside equalities and one inequality it may say how far the nearest row is away.",
            ));
        }
        rest.push(conjunct);
    }
    Ok(Parts { keys, nearest, right, rest })
}

/// Takes the inequality between two columns, or else the only one there is.
fn inequality(between: &mut Vec<Expr>, sides: &Sides<'_>) -> Result<Nearest> {
    let found: Vec<(usize, Nearest)> =
        between.iter().enumerate().filter_map(|(at, e)| Some((at, sides.nearest(e)?))).collect();
    let plain = found.iter().filter(|(_, n)| is_column(&n.left) && is_column(&n.right));
    let plain: Vec<(usize, Nearest)> = plain.cloned().collect();
    let (at, nearest) = match (plain.as_slice(), found.as_slice()) {
        ([one], _) | ([], [one]) => (one.0, one.1.clone()),
        ([], []) => {
            return Err(Error::user(sqlstate::SYNTAX_ERROR, "an ASOF JOIN needs an inequality")
                .with_hint("Add one between the two sides, such as t.ts >= q.ts."));
        }
        _ => {
            let message = "an ASOF JOIN has several inequalities";
            return Err(Error::user(sqlstate::SYNTAX_ERROR, message).with_hint(
                "Say which one tells the nearest: MATCH_CONDITION (t.ts >= q.ts) ON ..",
            ));
        }
    };
    between.remove(at);
    Ok(nearest)
}

fn no_inequality(condition: &Expr) -> Error {
    let message = format!("MATCH_CONDITION is no inequality between the two sides: {condition}");
    Error::user(sqlstate::SYNTAX_ERROR, message)
        .with_hint("Write <, <=, > or >= between a value of the left and one of the right.")
}

/// Refuses what has no order that the operator keeps as a number.
fn check_types([left, right]: &[DataType; 2]) -> Result<()> {
    let known = matches!(
        left,
        DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Date32
            | DataType::Time64(_)
            | DataType::Timestamp(..)
    );
    if known && left == right {
        return Ok(());
    }
    let message = "an ASOF JOIN by values other than times, integers and floating point numbers";
    Err(Error::unsupported(message).with_hint("Cast both sides to one such type."))
}
