//! COMMENT ON relations and columns: what is said of them is kept with them.

use super::outcome::Outcome;
use super::replacement::BESIDE;
use super::session::Session;
use crate::catalog::{Comments, Definition, RelationId};
use crate::error::{About, Error, Result, sqlstate};
use crate::runtime::Coordinator;
use crate::sql::statement::Comment;

impl Session {
    pub(super) async fn comment(&mut self, statement: &Comment) -> Result<Outcome> {
        const TAG: &str = "COMMENT";
        self.refuse_in_transaction(TAG)?;
        let core = self.engine.core.clone();
        let _one_at_a_time = self.turn(core.ddl.lock()).await?;
        let catalog = core.shared.catalog();
        let relation = catalog.get(&statement.name)?;
        let (name, noun) = (relation.local_name(), statement.noun);
        if noun != "column" && relation.kind.noun() != noun {
            let article = if noun == "index" { "an" } else { "a" };
            return Err(Error::user(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("\"{name}\" is not {article} {noun}"),
            ));
        }
        let column = statement.column.clone().unwrap_or_default();
        if statement.column.is_some() && relation.schema.index_of(&column).is_err() {
            return Err(Error::user(
                sqlstate::UNDEFINED_COLUMN,
                format!("column \"{column}\" of relation \"{name}\" does not exist"),
            )
            .with_about(About {
                relation: Some(relation.name.clone()),
                column: Some(column),
                constraint: None,
            }));
        }
        self.put_comment(relation.id, column, statement.text.clone()).await?;
        Ok(self.done(TAG))
    }

    pub(super) async fn put_comment(
        &self,
        of: RelationId,
        column: String,
        text: Option<String>,
    ) -> Result<()> {
        self.commit_point.pass();
        let change = move |c: &mut Coordinator| comment(c, of, &column, text.as_deref());
        self.engine.core.coordinator.call(change).await?
    }

    /// What is said of something new: in another life what was, and of what is built beside
    /// something to take its place what is said of that.
    pub(super) fn comments_of_new(&self, name: &str) -> Comments {
        if let Some(past) = &self.past {
            return past.comments.clone();
        }
        let old = name.strip_suffix(BESIDE).filter(|_| self.provisional);
        let catalog = self.engine.core.shared.catalog();
        old.and_then(|old| catalog.find(old)).map_or_else(Comments::new, |old| old.comments.clone())
    }
}

/// Keeps a comment.
pub(super) fn comment(
    c: &mut Coordinator,
    of: RelationId,
    column: &str,
    text: Option<&str>,
) -> Result<()> {
    let text = text.map(str::to_owned);
    let record = Definition::Comment { of, column: column.to_owned(), text: text.clone() };
    c.define(&record, &[], |catalog| {
        catalog.comment(of, column, text.as_deref());
        Ok(())
    })
}
