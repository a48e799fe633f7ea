//! What an INSERT gives to identity columns: nothing, or what OVERRIDING says.

use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast::{self, Ident};

use super::{generated_always, is_default};
use crate::catalog::{Identity, Relation};
use crate::error::{Error, Result};
use crate::sql::errors::plan_error;
use crate::sql::statement::Overriding;

/// The identity columns among those that an INSERT names.
pub(super) struct Identities<'a> {
    relation: &'a Relation,
    /// What is given to them is passed over: their places among the columns of the statement.
    drawn: Vec<usize>,
    /// What is given to them is refused, in the same way.
    refused: Vec<usize>,
    columns: &'a [usize],
}

/// The identity columns among some of a table.
pub(super) fn identities<'a>(
    relation: &'a Relation,
    columns: &'a [usize],
    overriding: Option<Overriding>,
) -> Identities<'a> {
    let places = |wanted: &dyn Fn(Identity) -> bool| {
        let of = |column: &usize| relation.rules.identities.get(column).copied();
        let all = columns.iter().enumerate();
        all.filter(|(_, column)| of(column).is_some_and(wanted)).map(|(at, _)| at).collect()
    };
    let (drawn, refused) = match overriding {
        Some(Overriding::System) => (Vec::new(), Vec::new()),
        Some(Overriding::User) => (places(&|_| true), Vec::new()),
        None => (Vec::new(), places(&|identity| identity == Identity::Always)),
    };
    Identities { relation, drawn, refused, columns }
}

impl Identities<'_> {
    fn refusal(&self, at: usize) -> Error {
        let name = self.relation.schema.field(self.columns[at]).name();
        let message = format!("cannot insert a non-DEFAULT value into column \"{name}\"");
        generated_always(name, message).with_hint("Use OVERRIDING SYSTEM VALUE to override.")
    }

    /// The rows of VALUES with DEFAULT where a sequence gives the value.
    pub(super) fn in_values(&self, values: &ast::Values) -> Result<ast::Values> {
        let mut values = values.clone();
        for row in &mut values.rows {
            let given = |at: &&usize| row.content.get(**at).is_some_and(|e| !is_default(e));
            if let Some(at) = self.refused.iter().find(given) {
                return Err(self.refusal(*at));
            }
            for at in &self.drawn {
                if let Some(expr) = row.content.get_mut(*at) {
                    *expr = ast::Expr::Identifier(Ident::new("DEFAULT"));
                }
            }
        }
        Ok(values)
    }

    /// 428C9 where a query gives values to columns that take none.
    pub(super) fn check_given(&self, given: &[usize]) -> Result<()> {
        match self.refused.iter().find(|at| **at < given.len()) {
            Some(at) => Err(self.refusal(*at)),
            None => Ok(()),
        }
    }

    /// The columns that take what a query gives, and the places of what it gives for nothing.
    pub(super) fn apart(&self, columns: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let taken = columns.iter().enumerate().filter(|(at, _)| !self.drawn.contains(at));
        (taken.map(|(_, column)| *column).collect(), self.drawn.clone())
    }
}

/// A plan without some of its columns.
pub(super) fn without(plan: LogicalPlan, places: &[usize]) -> Result<LogicalPlan> {
    if places.is_empty() {
        return Ok(plan);
    }
    let kept = plan.schema().iter().enumerate().filter(|(at, _)| !places.contains(at));
    let kept: Vec<Expr> = kept.map(|(_, column)| Expr::from(column)).collect();
    LogicalPlanBuilder::from(plan)
        .project(kept)
        .and_then(LogicalPlanBuilder::build)
        .map_err(plan_error)
}
