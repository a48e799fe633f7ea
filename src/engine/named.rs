//! PREPARE, EXECUTE and DEALLOCATE of SQL: statements that the session keeps by name.

use super::outcome::Outcome;
use super::session::Session;
use crate::error::{Error, Result, sqlstate};
use crate::sql;
use crate::sql::statement::{Execute, Prepare};

/// Statements that a session may keep.
const STATEMENTS_MAX: usize = 10_000;

impl Session {
    pub(super) async fn prepare_named(&mut self, prepare: &Prepare) -> Result<Outcome> {
        if self.named.contains_key(&prepare.name) {
            return Err(Error::user(
                "42P05",
                format!("prepared statement \"{}\" already exists", prepare.name),
            ));
        }
        if self.named.len() >= STATEMENTS_MAX {
            return Err(Error::user(
                sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
                format!("more than {STATEMENTS_MAX} prepared statements"),
            )
            .with_hint("DEALLOCATE those that are no longer used."));
        }
        let types: Vec<_> = prepare.types.iter().cloned().map(Some).collect();
        let bind = |session: &mut Self| session.prepare_parsed(&prepare.statement, &types);
        let prepared = self.bind_when_known(bind).await?;
        self.named.insert(prepare.name.clone(), prepared);
        Ok(self.done("PREPARE"))
    }

    pub(super) async fn execute_named(&mut self, execute: &Execute) -> Result<Outcome> {
        let prepared = self.named.get(&execute.name).cloned().ok_or_else(|| none(&execute.name))?;
        let (given, wanted) = (execute.arguments.len(), prepared.parameters.len());
        if given != wanted {
            return Err(Error::user(
                sqlstate::SYNTAX_ERROR,
                format!("wrong number of parameters for prepared statement \"{}\"", execute.name),
            )
            .with_detail(format!("Expected {wanted} parameters but got {given}.")));
        }
        let types = &prepared.parameters;
        let values = sql::evaluate_arguments(&execute.arguments, types, &self.settings())?;
        Box::pin(self.execute_prepared(&prepared, values)).await
    }

    pub(super) fn deallocate(&mut self, name: Option<&str>) -> Result<Outcome> {
        match name {
            None => self.named.clear(),
            Some(name) => {
                self.named.remove(name).ok_or_else(|| none(name))?;
            }
        }
        Ok(self.done(if name.is_none() { "DEALLOCATE ALL" } else { "DEALLOCATE" }))
    }
}

fn none(name: &str) -> Error {
    Error::user(
        sqlstate::INVALID_SQL_STATEMENT_NAME,
        format!("prepared statement \"{name}\" does not exist"),
    )
}
