//! Prepared statements: bound once, executed with values. When definitions have changed in between,
//! a statement is bound again, without its client noticing.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use super::outcome::{Outcome, Prepared};
use super::session::Session;
use crate::delta::style::TextStyle;
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::{ParsedStatement, Statement};
use crate::sql::{self, BoundStatement};

impl Session {
    /// Parses and binds one statement for repeated execution; `declared` are the types of its
    /// parameters as far as the client says.
    pub async fn prepare(&mut self, text: &str, declared: &[Option<DataType>]) -> Result<Prepared> {
        let cancel = self.begin_statement();
        if let Some(known) = self.known(text, declared) {
            return Ok(known);
        }
        let mut statements = self.parse(text)?;
        if statements.len() > 1 {
            return Err(Error::user(
                sqlstate::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            ));
        }
        let Some(statement) = statements.pop() else {
            return Ok(Prepared {
                statement: None,
                parameters: Arc::default(),
                fields: None,
                bound: None,
                style: TextStyle::DEFAULT,
            });
        };
        let statement = self.in_path(&statement)?;
        let bind = |session: &mut Self| match sql::is_deep(
            &statement,
            &session.engine.core.shared.catalog(),
        ) {
            true => {
                let prepare = || session.prepare_parsed(&statement, declared);
                sql::on_large_stack(Some(&session.cancel), prepare)?
            }
            false => session.prepare_parsed(&statement, declared),
        };
        let point = self.commit_point.clone();
        let prepared = point.within(cancel.deadline(), self.bind_when_known(bind)).await;
        let prepared = prepared.map_err(|e| sql::locate(e, &statement.text, statement.offset))?;
        self.keep(declared, &prepared);
        Ok(prepared)
    }

    /// A statement of a text that was planned before.
    pub(super) fn known(&self, text: &str, declared: &[Option<DataType>]) -> Option<Prepared> {
        // Plans that are not optimised are for comparison, and made anew; so are those with texts
        // in another style than the default.
        let shared = self.optimizes() && self.text_style().is_default();
        let core = shared.then_some(&self.engine.core)?;
        if !self.searches_public() {
            return None;
        }
        let text = text.trim_end_matches(|c: char| c.is_ascii_whitespace() || c == ';');
        core.plans.get(&core.shared.catalog(), text, declared)
    }

    /// Keeps a plan for those who send the same text.
    pub(super) fn keep(&self, declared: &[Option<DataType>], prepared: &Prepared) {
        // Positions of errors are counted from the beginning of the text.
        let shared = self.optimizes() && prepared.style.is_default();
        if shared && prepared.statement.as_ref().is_some_and(|s| s.offset == 0) {
            let core = &self.engine.core;
            core.plans.add(&core.shared.catalog(), declared, prepared);
        }
    }

    pub(super) fn prepare_parsed(
        &self,
        statement: &Arc<ParsedStatement>,
        declared: &[Option<DataType>],
    ) -> Result<Prepared> {
        let catalog = self.engine.core.shared.catalog();
        // A cursor's parameters are those of its query.
        let declared_query = match &statement.statement {
            Statement::Declare(declare) => declare.statement.as_ref(),
            other => other,
        };
        let bindable = matches!(
            declared_query,
            Statement::Query(_)
                | Statement::Insert(_)
                | Statement::Update(_)
                | Statement::Delete(_)
                | Statement::Merge(_)
        );
        if !bindable {
            let fields = self.fields_of(&statement.statement)?;
            return Ok(Prepared {
                statement: Some(Arc::clone(statement)),
                parameters: Arc::default(),
                fields,
                bound: None,
                style: TextStyle::DEFAULT,
            });
        }
        let settings = self.settings();
        let bound = sql::prepare(declared_query, declared, &catalog, &settings)?;
        let opens = matches!(&statement.statement, Statement::Declare(_));
        Ok(Prepared {
            parameters: bound.parameters().into(),
            fields: bound.fields().filter(|_| !opens).cloned(),
            statement: Some(Arc::clone(statement)),
            bound: Some((Arc::new(bound), catalog)),
            style: settings.style,
        })
    }

    /// Runs a prepared statement with values for its parameters.
    pub async fn execute_prepared(
        &mut self,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
    ) -> Result<Outcome> {
        let Some(statement) = &prepared.statement else {
            return Ok(Outcome::Done { tag: String::new(), notices: Vec::new() });
        };
        self.check_snapshot(&statement.statement)?;
        self.check_not_failed(&statement.statement)?;
        let cancel = self.begin_statement();
        let point = self.commit_point.clone();
        let result = match self.execute_at_once(prepared, &parameters) {
            Ok(None) => {
                let deep = sql::is_deep(statement, &self.engine.core.shared.catalog());
                let run = async {
                    match deep {
                        true => self.run_deep(prepared, statement, parameters).await,
                        false => self.run_prepared(prepared, statement, parameters).await,
                    }
                };
                point.within(cancel.deadline(), run).await
            }
            Ok(Some(done)) => Ok(done),
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.set_failed();
        }
        result
    }

    fn run_deep<'a>(
        &'a mut self,
        prepared: &'a Prepared,
        statement: &'a Arc<ParsedStatement>,
        parameters: Vec<ScalarValue>,
    ) -> sql::OnLargeStack<'a, Outcome> {
        let running = Arc::clone(&self.cancel);
        sql::OnLargeStack::new(running, self.run_prepared(prepared, statement, parameters))
    }

    async fn run_prepared(
        &mut self,
        prepared: &Prepared,
        statement: &Arc<ParsedStatement>,
        parameters: Vec<ScalarValue>,
    ) -> Result<Outcome> {
        self.check_modes(&statement.statement)?;
        let Some((bound, catalog)) = &prepared.bound else {
            let ran = self.dispatch(statement).await;
            return ran.map_err(|e| sql::locate(e, &statement.text, statement.offset));
        };
        let parsed = &statement.statement;
        if let Some(done) = self.run_early(statement, Some(prepared), &parameters).await? {
            return Ok(done);
        }
        let settings = self.settings();
        let now = self.engine.core.shared.catalog();
        let bound = if Arc::ptr_eq(&now, catalog) && prepared.style == settings.style {
            bound.bind(&parameters, &settings)?
        } else {
            let types: Vec<_> = prepared.parameters.iter().cloned().map(Some).collect();
            let again = match self.known(&statement.text, &types) {
                Some(again) => again,
                None => {
                    let again = self.prepare_parsed(statement, &types)?;
                    self.keep(&types, &again);
                    again
                }
            };
            match again.bound {
                Some((bound, _)) if again.fields == prepared.fields => {
                    bound.bind(&parameters, &settings)?
                }
                _ => {
                    return Err(Error::unsupported("cached plan must not change result type")
                        .with_hint("Prepare the statement again."));
                }
            }
        };
        match parsed {
            Statement::Declare(declare) => self.declare_bound(declare, bound).await,
            _ => self.run_bound(bound).await,
        }
    }

    /// Runs a bound statement.
    pub(super) async fn run_bound(&mut self, statement: BoundStatement) -> Result<Outcome> {
        match statement {
            BoundStatement::Query(bound) => self.read(bound).await,
            BoundStatement::Insert(bound) => self.run_insert(*bound).await,
            BoundStatement::Update(bound) => self.run_update(bound).await,
            BoundStatement::Delete(bound) => self.run_delete(bound).await,
            BoundStatement::Merge(bound) => self.run_merge(*bound).await,
        }
    }
}
