//! The transaction that the statements of one text share, as in PostgreSQL: when one of them fails,
//! those before it have not happened.
//!
//! Definitions are no part of transactions here, so a statement that defines something ends the one
//! of the text so far. So does a query of a materialized view that follows upon writes: it is to
//! show them, and views change when writes are committed.

use super::session::Session;
use crate::catalog::RelationKind;
use crate::error::Result;
use crate::sql::Bound;
use crate::sql::statement::Statement;

/// What a statement means to the transaction of its text.
enum Part {
    /// It is in it.
    Joins,
    /// It ends it.
    Ends,
    /// It is the same with and without.
    Neutral,
}

fn part(statement: &Statement) -> Part {
    match statement {
        Statement::Query(_)
        | Statement::Insert(_)
        | Statement::Update(_)
        | Statement::Delete(_)
        | Statement::Merge(_)
        | Statement::Truncate { .. }
        | Statement::Copy(_)
        | Statement::Declare(_)
        | Statement::Fetch(_)
        | Statement::Execute(_)
        | Statement::Set { .. }
        | Statement::Reset(_)
        | Statement::ResetAll
        | Statement::SetTransaction(_)
        | Statement::SetCharacteristics(_) => Part::Joins,
        Statement::CreateTable(_)
        | Statement::CreateTableAs(_)
        | Statement::CreateView(_)
        | Statement::CreateSink(_)
        | Statement::CreateIndex(_)
        | Statement::Drop(_)
        | Statement::Rename(_)
        | Statement::Comment(_)
        | Statement::AlterTable(_)
        | Statement::AlterSink(_)
        | Statement::AlterSource(_)
        | Statement::AlterFormat(_)
        | Statement::RetryErrors(_)
        | Statement::ResumeView(_)
        | Statement::Check(_)
        | Statement::Subscribe(_)
        | Statement::Explain(_)
        | Statement::Clock(_)
        | Statement::Checkpoint
        | Statement::SavedState(_)
        | Statement::Flush => Part::Ends,
        Statement::Access(access) if access.is_kept() => Part::Ends,
        _ => Part::Neutral,
    }
}

impl Session {
    /// To be called ahead of each of several statements of one text.
    pub async fn enter_text(&mut self, statement: &Statement) -> Result<()> {
        match part(statement) {
            Part::Joins if self.transaction.is_none() => {
                // It pins what there is.
                self.wait_for_recovery().await?;
                self.begin_transaction(true);
            }
            Part::Ends => self.end_text().await?,
            Part::Joins | Part::Neutral => {}
        }
        Ok(())
    }

    /// To be called behind the last of several statements of one text: commits what they did.
    pub async fn end_text(&mut self) -> Result<()> {
        self.commit_point.reset();
        match self.transaction.as_ref().is_some_and(|t| t.implicit) {
            true => self.commit_transaction().await,
            false => Ok(()),
        }
    }

    /// A query of a materialized view shows what the text has written before it.
    pub(super) async fn show_own_writes(&mut self, bound: &Bound) -> Result<()> {
        let Some(transaction) = self.transaction.as_ref().filter(|t| t.implicit) else {
            return Ok(());
        };
        let catalog = &transaction.pin.catalog;
        let reads_view = bound
            .depends_on
            .iter()
            .any(|id| catalog.by_id(*id).is_some_and(|r| r.kind == RelationKind::MaterializedView));
        if reads_view && !transaction.writes.is_empty() {
            self.commit_transaction().await?;
            // The query itself can be given up.
            self.commit_point.reset();
            self.begin_transaction(true);
        }
        Ok(())
    }
}
