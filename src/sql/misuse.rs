//! Functions and frames that stand where they can't, which the planner takes for something else or
//! reports in words of its own: window functions without OVER and in WHERE, OVER behind other
//! functions, frames that end before they begin.

use sqlparser::ast::{
    self, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    GroupByExpr, JoinConstraint, JoinOperator, NamedWindowExpr, ObjectName, Select, UnaryOperator,
    WindowFrame, WindowFrameBound, WindowFrameUnits, WindowType,
};

use super::functions::FUNCTIONS;
use super::lifted::is_aggregate;
use super::limits::check_arguments;
use super::parser::fold;
use super::sets::{gives_rows, returns_set};
use super::visit::any_outer_expr;
use crate::error::{Error, Result, sqlstate};
use crate::library::is_unifying;

/// A call of a function: its name, and whether what it is called with is allowed.
pub(super) fn check_function(f: &Function) -> Result<()> {
    let name = f.name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
    check_arguments(f, &name)?;
    check_grammar(f, &name)?;
    let aggregate = FUNCTIONS.aggregate.contains_key(&name);
    let window = FUNCTIONS.window.contains_key(&name);
    if f.over.is_none() && window && !aggregate && !FUNCTIONS.scalar.contains_key(&name) {
        let message = format!("window function {name} requires an OVER clause");
        return Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, message));
    }
    if f.over.is_some() && !window && !aggregate && FUNCTIONS.scalar.contains_key(&name) {
        return Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!(
                "OVER specified, but {name} is not a window function nor an aggregate function"
            ),
        ));
    }
    if let FunctionArguments::List(list) = &f.args
        && list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
        && matches!(list.args.as_slice(), [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)])
    {
        return Err(Error::user(sqlstate::SYNTAX_ERROR, "syntax error at or near \"*\""));
    }
    match &f.over {
        Some(WindowType::WindowSpec(spec)) => spec.window_frame.iter().try_for_each(check_frame),
        _ => Ok(()),
    }
}

/// A function of ROWS FROM.
pub(super) fn check_in_rows_from(arg: &FunctionArg) -> Result<()> {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else { return Ok(()) };
    let f = match expr {
        Expr::Function(f) => f,
        Expr::Named { expr, .. } => match expr.as_ref() {
            Expr::Function(f) => f,
            _ => return Ok(()),
        },
        // As one argument of any function.
        _ => return check_in_from(&ObjectName(Vec::new()), std::slice::from_ref(arg)),
    };
    match &f.args {
        FunctionArguments::List(list) => check_in_from(&f.name, &list.args),
        _ => check_in_from(&f.name, &[]),
    }
}

/// What is called in FROM gives rows, or the value of one row, of what is there ahead of any row.
pub(super) fn check_in_from(name: &ObjectName, args: &[FunctionArg]) -> Result<()> {
    let called = name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
    let own = |e: &Expr| match e {
        Expr::Function(f) => is_aggregate(f) && !any_outer_expr(&f.args, &is_column),
        _ => false,
    };
    let scalar = FUNCTIONS.scalar.contains_key(&called);
    if !scalar && FUNCTIONS.aggregate.contains_key(&called)
        || args.iter().any(|arg| any_outer_expr(arg, &own))
    {
        let message = "aggregate functions are not allowed in functions in FROM";
        return Err(Error::user(sqlstate::GROUPING_ERROR, message));
    }
    let set = |e: &Expr| matches!(e, Expr::Function(f) if returns_set(&f.name));
    if gives_rows(name) && args.iter().any(|arg| any_outer_expr(arg, &set)) {
        let message = "set-returning functions must appear at top level of FROM";
        return Err(Error::unsupported(message)
            .with_hint("Put the inner function into FROM, ahead of the outer one."));
    }
    if !scalar && FUNCTIONS.window.contains_key(&called) {
        let message = format!("window function {called} requires an OVER clause");
        return Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, message));
    }
    Ok(())
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

/// What is a function here is a part of the grammar in PostgreSQL, as are its arguments.
fn check_grammar(f: &Function, name: &str) -> Result<()> {
    let FunctionArguments::List(list) = &f.args else { return Ok(()) };
    let wrong = match (name, list.args.len()) {
        ("nullif", 1) => ")",
        ("nullif", 3..) => ",",
        (name, 0) if is_unifying(name) => ")",
        _ => return Ok(()),
    };
    let message = format!("syntax error at or near \"{wrong}\"");
    let error = Error::user(sqlstate::SYNTAX_ERROR, message);
    let many = if name == "nullif" { "two arguments" } else { "arguments" };
    Err(error.with_detail(format!("{name} takes {many}.")))
}

/// The clauses of a SELECT that take no window functions, and its named windows.
pub(super) fn check_select(select: &Select) -> Result<()> {
    for window in &select.named_window {
        if let NamedWindowExpr::WindowSpec(spec) = &window.1 {
            spec.window_frame.iter().try_for_each(check_frame)?;
        }
    }
    let where_ = select.selection.iter().map(|e| ("WHERE", e));
    let having = select.having.iter().map(|e| ("HAVING", e));
    let grouped = match &select.group_by {
        GroupByExpr::Expressions(list, _) => list.as_slice(),
        GroupByExpr::All(_) => &[],
    };
    let joins = select.from.iter().flat_map(|table| &table.joins);
    let joined = joins.filter_map(|join| condition(&join.join_operator));
    let clauses = where_.chain(having).chain(grouped.iter().map(|e| ("GROUP BY", e)));
    for (clause, expr) in clauses.chain(joined.map(|e| ("JOIN conditions", e))) {
        if has_window(expr) {
            return Err(Error::user(
                sqlstate::WINDOWING_ERROR,
                format!("window functions are not allowed in {clause}"),
            ));
        }
    }
    Ok(())
}

fn condition(join: &JoinOperator) -> Option<&Expr> {
    match join {
        JoinOperator::Join(JoinConstraint::On(e))
        | JoinOperator::Inner(JoinConstraint::On(e))
        | JoinOperator::Left(JoinConstraint::On(e))
        | JoinOperator::LeftOuter(JoinConstraint::On(e))
        | JoinOperator::Right(JoinConstraint::On(e))
        | JoinOperator::RightOuter(JoinConstraint::On(e))
        | JoinOperator::FullOuter(JoinConstraint::On(e)) => Some(e),
        _ => None,
    }
}

/// Whether an expression calls a window function, outside of subqueries in it.
fn has_window(expr: &Expr) -> bool {
    any_outer_expr(expr, &|e| matches!(e, Expr::Function(f) if f.over.is_some()))
}

/// The order of bounds: an offset before, the row itself, an offset behind.
fn rank(bound: &WindowFrameBound) -> u8 {
    match bound {
        WindowFrameBound::Preceding(None) => 0,
        WindowFrameBound::Preceding(Some(_)) => 1,
        WindowFrameBound::CurrentRow => 2,
        WindowFrameBound::Following(Some(_)) => 3,
        WindowFrameBound::Following(None) => 4,
    }
}

fn check_frame(frame: &WindowFrame) -> Result<()> {
    let wrong = |message: &str| Err(Error::user(sqlstate::WINDOWING_ERROR, message));
    let end = frame.end_bound.as_ref().unwrap_or(&WindowFrameBound::CurrentRow);
    match (rank(&frame.start_bound), rank(end)) {
        (4, _) => return wrong("frame start cannot be UNBOUNDED FOLLOWING"),
        (_, 0) => return wrong("frame end cannot be UNBOUNDED PRECEDING"),
        (2, 1) => return wrong("frame starting from current row cannot have preceding rows"),
        (3, 1) => return wrong("frame starting from following row cannot have preceding rows"),
        (3, 2) => return wrong("frame starting from following row cannot end with current row"),
        _ => {}
    }
    for (what, bound) in [("starting", &frame.start_bound), ("ending", end)] {
        if let WindowFrameBound::Preceding(Some(offset))
        | WindowFrameBound::Following(Some(offset)) = bound
        {
            check_offset(frame.units, what, offset)?;
        }
    }
    Ok(())
}

fn check_offset(units: WindowFrameUnits, what: &str, offset: &Expr) -> Result<()> {
    let name = units.to_string();
    let of_type = |found: &str| {
        let message = format!("argument of {name} must be type bigint, not type {found}");
        Err(Error::user(sqlstate::DATATYPE_MISMATCH, message))
    };
    match offset {
        Expr::Nested(inner) => check_offset(units, what, inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, .. } => {
            let message = format!("frame {what} offset must not be negative");
            Err(Error::user("22013", message))
        }
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
            Err(Error::user("42P10", format!("argument of {name} must not contain variables")))
        }
        Expr::Value(value) => match &value.value {
            ast::Value::Null => {
                let message = format!("frame {what} offset must not be null");
                Err(Error::user("22004", message))
            }
            _ if units == WindowFrameUnits::Range => Ok(()),
            ast::Value::Number(digits, _) if digits.contains(['.', 'e', 'E']) => of_type("numeric"),
            ast::Value::Boolean(_) => of_type("boolean"),
            ast::Value::SingleQuotedString(s) if s.trim().parse::<i64>().is_err() => {
                let message = format!("invalid input syntax for type bigint: \"{s}\"");
                Err(Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, message))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}
