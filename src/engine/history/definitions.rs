//! Definitions as events: what was made, changed and dropped, and by whom. Texts of statements are
//! not kept: they may have secrets.

use super::super::session::Session;
use super::Severity;
use crate::sql::statement::{AccessStatement, SavedState, Statement};

impl Session {
    /// Keeps that a definition was changed by a statement with a tag.
    pub(in crate::engine) fn note_definition(&self, statement: &Statement, tag: &str) {
        // What an earlier life has done is not done again.
        if self.past.is_some() {
            return;
        }
        let Some(object) = object_of(statement) else { return };
        let by = format!("{tag}, by {}", self.user());
        self.engine.core.history.note(Severity::Info, "definition", &object, &by);
    }
}

/// The name of what a statement defines; `None` for one that defines nothing.
fn object_of(statement: &Statement) -> Option<String> {
    let name = match statement {
        Statement::CreateTable(create) => &create.name,
        Statement::CreateTableAs(create) => &create.name,
        Statement::CreateView(create) => &create.name,
        Statement::CreateSink(create) => &create.name,
        Statement::CreateIndex(create) => create.name.as_ref().unwrap_or(&create.relation),
        Statement::Drop(drop) => return Some(drop.names.join(", ")),
        Statement::Rename(rename) => &rename.name,
        Statement::AlterSink(alter) => &alter.name,
        Statement::AlterSource(alter) => &alter.name,
        Statement::AlterFormat(alter) => &alter.name,
        Statement::ResumeView(resume) => &resume.name,
        Statement::SavedState(SavedState::Create { name, .. }) => name,
        Statement::SavedState(SavedState::Drop { name, .. }) => name,
        Statement::Access(access) => return object_of_access(access),
        _ => return None,
    };
    Some(name.clone())
}

fn object_of_access(statement: &AccessStatement) -> Option<String> {
    match statement {
        AccessStatement::CreateRole { name, .. }
        | AccessStatement::RenameRole { name, .. }
        | AccessStatement::CreateSecret { name, .. }
        | AccessStatement::DropSecret { name, .. }
        | AccessStatement::Owner { name, .. } => Some(name.clone()),
        AccessStatement::DropRole { names, .. } => Some(names.join(", ")),
        statement if statement.is_kept() => Some(String::new()),
        _ => None,
    }
}
