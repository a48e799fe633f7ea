//! Running the list: each function takes the passes of a stage in their order, as far as they have
//! a form for what is given and are for the purpose.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::{Expr, LogicalPlan};
use sqlparser::ast;

use super::trace::{begins, changed};
use super::{Binding, LIST, Operators, Scope, Settings, Stage, Step, Widths, passes};
use crate::error::{Error, Result};

/// A statement as it was read.
pub(in crate::sql) fn over_parsed_statement(statement: &mut ast::Statement) -> Result<()> {
    for pass in passes(Stage::Parse) {
        if let Step::Parsed { statement: Some(step), .. } = pass.step {
            step(statement)?;
        }
    }
    Ok(())
}

/// A query as it was read.
pub(in crate::sql) fn over_parsed_query(query: &mut ast::Query) -> Result<()> {
    for pass in passes(Stage::Parse) {
        if let Step::Parsed { query: step, .. } = pass.step {
            step(query)?;
        }
    }
    Ok(())
}

/// An expression of a definition as it was read.
pub(in crate::sql) fn over_parsed_expr(expr: &mut ast::Expr) -> Result<()> {
    for pass in passes(Stage::Parse) {
        if let Step::Parsed { expr: Some(step), .. } = pass.step {
            step(expr)?;
        }
    }
    Ok(())
}

/// The syntax of a query.
pub(in crate::sql) fn over_query(
    stage: Stage,
    query: &mut ast::Query,
    scope: &Scope<'_, '_>,
) -> Result<()> {
    begins(|| query.to_string());
    for pass in passes(stage).filter(|pass| pass.purpose.serves(scope.purpose())) {
        if let Step::Syntax { query: Some(step), .. } = pass.step {
            step(query, scope)?;
            changed(pass, || query.to_string());
        }
    }
    Ok(())
}

/// The plan of a query, whose columns are named.
pub(in crate::sql) fn over_named(query: ast::Query, scope: &Scope<'_, '_>) -> Result<LogicalPlan> {
    let (mut named, mut planned) = (Some(query), None);
    for pass in passes(Stage::Planning).filter(|pass| pass.purpose.serves(scope.purpose())) {
        planned = match (&pass.step, named.take(), planned) {
            (Step::Plan { query: step, .. }, Some(query), _) => Some(step(query, scope)?),
            (Step::Planned { plan: Some(step), .. }, _, Some(plan)) => Some(step(plan, scope)?),
            (_, query, planned) => {
                named = query;
                planned
            }
        };
        if let Some(plan) = &planned {
            changed(pass, || text(plan));
        }
    }
    planned.ok_or_else(|| Error::internal("the list of passes plans a query"))
}

/// What is to be done about a query that could not be planned.
pub(in crate::sql) enum Repaired {
    /// Nothing.
    No,
    /// It may work now.
    Yes,
    /// It works now, or not at all.
    OrElse,
}

/// Takes the reason away for which planning has failed.
pub(in crate::sql) fn over_failed(
    query: &mut ast::Query,
    error: &Error,
    scope: &Scope<'_, '_>,
) -> Result<Repaired> {
    begins(|| query.to_string());
    for pass in passes(Stage::Repair) {
        if let Step::Repair { query: step, last } = pass.step
            && step(query, error, scope)?
        {
            changed(pass, || query.to_string());
            return Ok(if last { Repaired::OrElse } else { Repaired::Yes });
        }
    }
    Ok(Repaired::No)
}

/// A plan at a stage.
pub(in crate::sql) fn over_plan(
    stage: Stage,
    mut plan: LogicalPlan,
    scope: &Scope<'_, '_>,
) -> Result<LogicalPlan> {
    begins(|| text(&plan));
    for pass in passes(stage).filter(|pass| pass.purpose.serves(scope.purpose())) {
        if let Step::Planned { plan: Some(step), .. } = pass.step {
            plan = step(plan, scope)?;
            changed(pass, || text(&plan));
        }
    }
    Ok(plan)
}

/// An expression that stands alone, from its syntax to its meaning over a schema.
pub(in crate::sql) fn over_expr(
    mut expr: ast::Expr,
    schema: &DFSchema,
    scope: &Scope<'_, '_>,
) -> Result<Expr> {
    let all = || LIST.iter().flat_map(|(_, passes)| *passes);
    let mut planned = None;
    for pass in all().filter(|pass| pass.purpose.serves(scope.purpose())) {
        planned = match (&pass.step, planned) {
            (Step::Syntax { expr: Some(step), .. }, None) => {
                step(&mut expr)?;
                None
            }
            (Step::Plan { expr: step, .. }, None) => Some(step(expr.clone(), schema, scope)?),
            (Step::Planned { expr: Some(step), .. }, Some(expr)) => {
                Some(step(expr, schema, scope)?)
            }
            (_, planned) => planned,
        };
    }
    planned.ok_or_else(|| Error::internal("the list of passes plans an expression"))
}

/// An expression that is about to be evaluated: its types, and where it is given the time.
pub(in crate::sql) fn over_constant(
    mut expr: Expr,
    schema: &DFSchema,
    now: Option<DateTime<Utc>>,
) -> Result<Expr> {
    for pass in passes(Stage::Analysis) {
        if let Step::Constant(step) = pass.step {
            expr = step(expr, schema, now)?;
        }
    }
    Ok(expr)
}

/// A plan with its rows, about to be run.
pub(in crate::sql) fn over_bound(
    mut plan: LogicalPlan,
    binding: &Binding<'_>,
) -> Result<LogicalPlan> {
    begins(|| text(&plan));
    for pass in passes(Stage::Execution) {
        if let Step::Bound(step) = pass.step {
            plan = step(plan, binding)?;
            changed(pass, || text(&plan));
        }
    }
    Ok(plan)
}

/// What is put around the operators of a physical plan.
pub(in crate::sql) fn over_operators(
    mut plan: Operators,
    settings: &Settings,
    widths: &Arc<Widths>,
) -> DfResult<Operators> {
    for pass in passes(Stage::Physical) {
        if let Step::Operators(step) = pass.step {
            plan = step(plan, settings, widths)?;
        }
    }
    Ok(plan)
}

/// A plan as EXPLAIN shows it.
pub(in crate::sql) fn text(plan: &LogicalPlan) -> String {
    plan.display_indent().to_string()
}
