//! ALTER TABLE of columns and constraints: the table anew beside the old one, with its rows, and
//! behind it each view that reads it; when all are complete they take their places in one step, as
//! what replaces a view does. What fails on the way leaves everything as it was.
//!
//! A view keeps the columns that it has: where its text would have others over the new table, or
//! could not be read at all, the table is not altered.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ddl::DropUnlessBuilt;
use super::outcome::{Notice, Outcome};
use super::replacement::{Affected, Beside, beside, check_sinks};
use super::session::Session;
use crate::catalog::system::quoted;
use crate::catalog::{Relation, RelationKind, written_in_full};
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::{AlterTable, CreateTable, Statement};
use crate::sql::{self, Altered};
use crate::time::Epoch;

impl Session {
    pub(super) async fn alter_table(&mut self, alter: &AlterTable) -> Result<Outcome> {
        self.refuse_in_transaction("ALTER TABLE")?;
        let core = self.engine.core.clone();
        let catalog = core.shared.catalog();
        let Some(old) = catalog.find(&alter.name).cloned() else {
            if !alter.if_exists {
                catalog.get(&alter.name)?;
            }
            let text = format!("relation \"{}\" does not exist, skipping", alter.name);
            self.notices.push(Notice::new(text));
            return Ok(self.done("ALTER TABLE"));
        };
        check_table(&old)?;
        // Nobody changes rows meanwhile; those that are only added are looked for at the end.
        let ticket = self.ticket(old.id, true).await?;
        let altered = sql::alter_table(&self.table_definition(&old)?, alter)?;
        let affected = Affected::by(&core.shared.catalog(), &old);
        check_sinks(&core.shared, &old, &affected)?;
        let mut guard = self.drop_unless_done(Vec::new());
        self.provisional = true;
        let built = self.table_beside(&altered, &old, &affected, &mut guard).await;
        (self.provisional, self.instead) = (false, BTreeMap::new());
        let swapped = match built {
            Ok((beside, rows)) => {
                self.swap(&old, &affected, beside.swap(&affected), Some(rows)).await
            }
            Err(error) => Err(error),
        };
        guard.armed = swapped.is_err();
        drop((guard, ticket));
        self.commit_point.settle().await;
        swapped?;
        self.move_sequences(&old, &altered).await?;
        self.move_comments(&old, &altered).await?;
        altered.notices.iter().for_each(|text| self.notices.push(Notice::new(text.clone())));
        Ok(self.done("ALTER TABLE"))
    }

    /// Columns with other names keep what is said of them.
    async fn move_comments(&self, old: &Relation, altered: &Altered) -> Result<()> {
        let catalog = self.engine.core.shared.catalog();
        let Some(new) = catalog.find(&old.name) else { return Ok(()) };
        for column in new.comments.keys().filter(|column| !column.is_empty()) {
            let gone = new.schema.index_of(column).is_err();
            if gone || altered.renamed.values().any(|now| now == column) {
                self.put_comment(new.id, column.clone(), None).await?;
            }
        }
        for (was, now) in &altered.renamed {
            let text = old.comments.get(was).filter(|_| new.schema.index_of(now).is_ok());
            if let Some(text) = text {
                self.put_comment(new.id, now.clone(), Some(text.clone())).await?;
            }
        }
        Ok(())
    }

    /// The statement that makes a table.
    fn table_definition(&self, table: &Relation) -> Result<CreateTable> {
        match self.parse(&table.definition)?.pop().map(|parsed| parsed.statement.clone()) {
            Some(Statement::CreateTable(create)) => {
                Ok(CreateTable { name: table.name.clone(), if_not_exists: false, ..create })
            }
            _ => Err(Error::internal("the definition of a table creates none")),
        }
    }

    /// The new table with the old rows, its indexes and the views over it, under other names, and
    /// how many rows the old one had. What was made is the guard's.
    async fn table_beside(
        &mut self,
        altered: &Altered,
        old: &Relation,
        affected: &Affected,
        guard: &mut DropUnlessBuilt,
    ) -> Result<(Beside, u64)> {
        let text = sql::table_text(&altered.create);
        let create = CreateTable { name: beside(&old.name), ..altered.create.clone() };
        self.zone = old.zone;
        let made = self.create_table(&create, &text).await;
        self.zone = None;
        made?;
        self.commit_point.reset();
        let made = self.engine.core.shared.catalog().get(&create.name)?.clone();
        guard.ids.insert(0, made.id);
        let catalog = self.engine.core.shared.catalog();
        guard.ids.extend(catalog.sequences_of(made.id).map(|sequence| sequence.id));
        let rows = self.copy_rows(altered, old, &made).await?;
        let copies = self.copy_indexes(old, &made, (beside, &altered.renamed)).await?;
        self.commit_point.reset();
        copies.iter().for_each(|(id, _)| guard.ids.insert(0, *id));
        let mut all = Beside::default();
        all.new.push((made.id, old.name.clone()));
        all.new.extend(copies);
        all.moves.insert(old.id, made.id);
        self.instead.insert(old.name.clone(), made.id);
        self.views_beside(None, old, affected, (guard, &mut all)).await?;
        Ok((all, rows))
    }

    /// Fills the new table; how many rows there were.
    async fn copy_rows(
        &mut self,
        altered: &Altered,
        old: &Relation,
        new: &Relation,
    ) -> Result<u64> {
        let columns: Vec<String> = altered.values.iter().map(|(name, _)| quoted(name)).collect();
        let values: Vec<String> = altered.values.iter().map(|(_, e)| e.to_string()).collect();
        let text = format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}",
            written_in_full(&new.name),
            columns.join(", "),
            values.join(", "),
            written_in_full(&old.name)
        );
        let parsed = self.parse(&text)?.pop();
        let Some(Statement::Insert(insert)) = parsed.map(|parsed| parsed.statement.clone()) else {
            return Err(Error::internal("an INSERT is read as one"));
        };
        let pin = self.read_point();
        let before = self.count_of(old, pin.epoch_of(old.id));
        drop(pin);
        let outcome = self.insert(&insert).await.map_err(|error| of_table(&error, old))?;
        self.commit_point.reset();
        match outcome {
            Outcome::Done { tag, .. } if tag == format!("INSERT 0 {before}") => Ok(before),
            _ => Err(changed_meanwhile(old)),
        }
    }

    /// How many rows a table has at an epoch.
    pub(super) fn count_of(&self, table: &Relation, epoch: Epoch) -> u64 {
        let relations = self.engine.core.shared.relations();
        let rows = relations.get(&table.id).and_then(|state| state.table.clone());
        rows.map_or(0, |rows| rows.count(epoch))
    }
}

pub(super) fn changed_meanwhile(table: &Relation) -> Error {
    Error::user(
        sqlstate::SERIALIZATION_FAILURE,
        format!("rows were added to \"{}\" while it was being altered", table.name),
    )
    .with_hint("Try again.")
}

/// Columns can be altered of tables that statements write.
fn check_table(relation: &Arc<Relation>) -> Result<()> {
    let name = &relation.name;
    match relation.kind {
        RelationKind::Table { .. } if relation.connector.is_none() => Ok(()),
        RelationKind::Table { .. } => Err(Error::unsupported(format!(
            "columns of \"{name}\" can't be altered: its rows come from a connector"
        ))
        .with_hint("Create another table with the columns, and read from the beginning.")),
        kind => Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("ALTER action cannot be performed on relation \"{name}\""),
        )
        .with_detail(format!("This operation is not supported for {}s.", kind.noun()))),
    }
}

/// The column and its type of `column ".." is of type .. but expression is of type ..`.
fn not_assigned(message: &str) -> Option<(&str, &str)> {
    let (column, rest) = message.strip_prefix("column \"")?.split_once("\" is of type ")?;
    Some((column, rest.split_once(" but ")?.0))
}

/// What is wrong with the rows, as PostgreSQL says it of a table.
fn of_table(error: &Error, table: &Relation) -> Error {
    let name = table.local_name();
    let about = error.about();
    let message = match error.sqlstate() {
        sqlstate::NOT_NULL_VIOLATION => {
            let column = about.column.as_deref().unwrap_or("?");
            format!("column \"{column}\" of relation \"{name}\" contains null values")
        }
        sqlstate::CHECK_VIOLATION => {
            let check = about.constraint.as_deref().unwrap_or("?");
            format!("check constraint \"{check}\" of relation \"{name}\" is violated by some row")
        }
        sqlstate::UNIQUE_VIOLATION => format!("could not create unique index \"{name}_pkey\""),
        sqlstate::DATATYPE_MISMATCH => match not_assigned(error.message()) {
            Some((column, to)) => {
                let message =
                    format!("column \"{column}\" cannot be cast automatically to type {to}");
                return Error::user(sqlstate::DATATYPE_MISMATCH, message).with_hint(format!(
                    "You might need to specify \"USING {}::{to}\".",
                    quoted(column)
                ));
            }
            None => return error.clone(),
        },
        _ => return error.clone(),
    };
    let said = Error::user(error.sqlstate(), message);
    match error.detail().filter(|_| error.sqlstate() == sqlstate::UNIQUE_VIOLATION) {
        Some(detail) => said.with_detail(detail.replace("already exists", "is duplicated")),
        None => said,
    }
}
