//! SET, RESET, SHOW of settings, and the modes of transactions.

use super::outcome::{Notice, Outcome, Rows};
use super::session::Session;
use super::settings::{SETTINGS, Setting, find, unknown};
use super::show::{Column, lines, table};
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::{
    ClockStatement, Copy, Drop, Rename, SequenceStatement, SettingScope, Statement,
    TransactionModes,
};

/// Levels of messages, the least important first; INFO is told in any case.
const LEVELS: [&str; 9] =
    ["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error"];

/// The text of a setting's values.
pub(super) fn setting_of(name: &str, values: &[String]) -> Result<String> {
    match (find(name), values) {
        (Some(setting), values) if setting.is_list() => Ok(list_of(setting, values)),
        (_, [value]) => Ok(value.clone()),
        _ => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("SET {name} takes only one argument"),
        )),
    }
}

impl Session {
    pub(super) fn set(
        &mut self,
        name: &str,
        values: Option<&[String]>,
        scope: SettingScope,
    ) -> Result<Outcome> {
        let value = values.map(|values| setting_of(name, values)).transpose()?;
        if scope == SettingScope::Local && self.transaction.is_none() {
            self.warn_outside("SET LOCAL");
        }
        self.values.set(name, value.as_deref(), scope)?;
        Ok(self.done("SET"))
    }

    pub(super) fn reset(&mut self, name: &str) -> Result<Outcome> {
        self.values.set(name, None, SettingScope::Session)?;
        Ok(self.done("RESET"))
    }

    pub(super) fn reset_all(&mut self, tag: &str) -> Outcome {
        self.values.reset_all();
        self.done(tag)
    }

    /// Settings, prepared statements and cursors.
    pub(super) fn discard_all(&mut self) -> Result<Outcome> {
        self.refuse_in_transaction("DISCARD ALL")?;
        self.named.clear();
        self.cursors.clear();
        Ok(self.reset_all("DISCARD ALL"))
    }

    /// A setting that comes with the connection, as a startup parameter or in its options.
    pub fn set_at_startup(&mut self, name: &str, value: &str) -> Result<()> {
        self.values.set_at_startup(name, value)
    }

    /// A duration in milliseconds; `None` when it is off.
    pub fn duration_setting_ms(&self, name: &str) -> Option<u64> {
        self.values.duration_ms(name)
    }

    /// Grows whenever a setting may have changed.
    pub fn settings_version(&self) -> u64 {
        self.values.version()
    }

    /// What was done outside of a transaction block can no longer be undone.
    pub fn settle(&self) {
        self.values.settle();
    }

    /// The names of settings that clients are told of.
    pub fn reported_settings() -> impl Iterator<Item = &'static str> {
        SETTINGS.iter().filter(|s| s.reported).map(|s| s.name)
    }

    pub(super) fn show_setting(&self, name: &str) -> Result<Rows> {
        let value = self.setting(name).ok_or_else(|| unknown(name))?;
        lines(shown_name(name), vec![value])
    }

    pub(super) fn show_settings(&self) -> Result<Rows> {
        let value = |s: &Setting| Some(self.setting(s.name).unwrap_or_default());
        let text = |values: Vec<Option<String>>| Column::Text(values);
        let all = || SETTINGS.iter();
        table(vec![
            ("name", text(all().map(|s| Some(s.name.to_owned())).collect())),
            ("setting", text(all().map(value).collect())),
            ("description", text(all().map(|s| Some(s.means.to_owned())).collect())),
        ])
    }

    pub(super) fn set_transaction(&mut self, modes: &TransactionModes) -> Result<Outcome> {
        if self.transaction.is_none() {
            self.warn_outside("SET TRANSACTION");
        }
        self.values.change_modes(modes)?;
        Ok(self.done("SET"))
    }

    pub(super) fn set_characteristics(&mut self, modes: &TransactionModes) -> Result<Outcome> {
        self.values.change_defaults(modes)?;
        Ok(self.done("SET"))
    }

    fn warn_outside(&mut self, what: &str) {
        self.notices.push(Notice {
            severity: "WARNING",
            sqlstate: sqlstate::NO_ACTIVE_SQL_TRANSACTION,
            message: format!("{what} can only be used in transaction blocks"),
            hint: None,
        });
    }

    /// Takes the notices that `client_min_messages` lets through.
    pub(super) fn wanted_notices(&mut self) -> Vec<Notice> {
        let notices = std::mem::take(&mut self.notices);
        let rank = |name: &str| LEVELS.iter().position(|l| l.eq_ignore_ascii_case(name));
        let least = self.setting("client_min_messages").and_then(|l| rank(&l)).unwrap_or(0);
        let wanted = |n: &Notice| rank(n.severity).is_none_or(|r| r >= least);
        notices.into_iter().filter(wanted).collect()
    }

    /// A read-only transaction refuses what would change something. What reads or writes fixes the
    /// modes of its transaction.
    pub(super) fn check_modes(&self, statement: &Statement) -> Result<()> {
        let written = writes(statement);
        if let Some(what) = written.as_deref().filter(|_| self.values.is_read_only()) {
            return Err(Error::user(
                sqlstate::READ_ONLY_SQL_TRANSACTION,
                format!("cannot execute {what} in a read-only transaction"),
            ));
        }
        let reads = matches!(
            statement,
            Statement::Query(_) | Statement::Copy(_) | Statement::Declare(_) | Statement::Fetch(_)
        );
        if reads || written.is_some() {
            self.values.note_use();
        }
        Ok(())
    }
}

impl Setting {
    fn is_list(&self) -> bool {
        use super::settings::Kind;
        matches!(self.kind, Kind::List(_) | Kind::Amended(_))
    }
}

/// The values of a setting that is a list, as one text. Names are quoted where they have to be.
fn list_of(setting: &Setting, values: &[String]) -> String {
    let plain = |v: &str| {
        v.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && v.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let quoted = |value: &String| match setting.name == "search_path" && !plain(value) {
        true => format!("\"{}\"", value.replace('"', "\"\"")),
        false => value.clone(),
    };
    values.iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// A setting's name as PostgreSQL writes it.
pub(super) fn shown_name(name: &str) -> &str {
    find(name).map_or(name, |s| s.name)
}

/// What a statement that writes is called.
fn writes(statement: &Statement) -> Option<String> {
    let what = match statement {
        Statement::Insert(_) => "INSERT",
        Statement::Update(_) => "UPDATE",
        Statement::Delete(_) => "DELETE",
        Statement::Merge(_) => "MERGE",
        Statement::Truncate { .. } => "TRUNCATE TABLE",
        Statement::Sequence(SequenceStatement::Create(_)) => "CREATE SEQUENCE",
        Statement::Sequence(SequenceStatement::Alter(_)) => "ALTER SEQUENCE",
        Statement::Copy(Copy { from: true, .. }) => "COPY FROM",
        Statement::CreateTable(create) if create.source => "CREATE SOURCE",
        Statement::CreateTable(_) => "CREATE TABLE",
        Statement::CreateTableAs(_) => "CREATE TABLE AS",
        Statement::CreateView(create) if create.materialized => "CREATE MATERIALIZED VIEW",
        Statement::CreateView(_) => "CREATE VIEW",
        Statement::CreateSink(_) => "CREATE SINK",
        Statement::CreateIndex(_) => "CREATE INDEX",
        Statement::Drop(Drop { noun, .. }) => return Some(format!("DROP {}", noun.to_uppercase())),
        Statement::Rename(Rename { noun, .. }) => {
            return Some(format!("ALTER {}", noun.to_uppercase()));
        }
        Statement::Clock(clock) => match clock.as_ref() {
            ClockStatement::System | ClockStatement::Manual(_) => "SET CLOCK",
            ClockStatement::By(_) | ClockStatement::To(_) => "ADVANCE CLOCK",
            ClockStatement::Watermark(..) => "ADVANCE WATERMARK",
        },
        Statement::AlterTable(_) => "ALTER TABLE",
        Statement::AlterSink(_) => "ALTER SINK",
        Statement::AlterSource(alter) if alter.noun == "table" => "ALTER TABLE",
        Statement::AlterSource(_) => "ALTER SOURCE",
        Statement::AlterFormat(_) => "ALTER TABLE",
        Statement::RetryErrors(_) => "RETRY ERRORS",
        Statement::ResumeView(_) => "ALTER MATERIALIZED VIEW",
        Statement::SavedState(statement) => statement.name(),
        Statement::Access(access) => return access.is_kept().then(|| access.tag()),
        Statement::Comment(_) | Statement::NoOp("COMMENT") => "COMMENT",
        // What EXECUTE runs is looked at by itself.
        Statement::Execute(_)
        | Statement::Begin(_)
        | Statement::Commit { .. }
        | Statement::Rollback { .. }
        | Statement::SetTransaction(_)
        | Statement::SetCharacteristics(_)
        | Statement::Copy(_)
        | Statement::Check(_)
        | Statement::Prepare(_)
        | Statement::Deallocate(_)
        | Statement::Declare(_)
        | Statement::Fetch(_)
        | Statement::Close(_)
        | Statement::Savepoint(_)
        | Statement::Query(_)
        | Statement::Subscribe(_)
        | Statement::Show(_)
        | Statement::Describe(_)
        | Statement::Explain(_)
        | Statement::Set { .. }
        | Statement::Reset(_)
        | Statement::ResetAll
        | Statement::DiscardAll
        | Statement::CheckStorage
        | Statement::Checkpoint
        | Statement::Flush
        | Statement::NoOp(_) => return None,
    };
    Some(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_lists_are_quoted_where_they_have_to_be() {
        let values = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        let path = find("search_path").expect("a setting");
        assert_eq!(list_of(path, &values(&["$user", "public"])), "\"$user\", public");
        assert_eq!(list_of(path, &values(&["A\"b", "p_1"])), "\"A\"\"b\", p_1");
        let style = find("datestyle").expect("a setting");
        assert_eq!(list_of(style, &values(&["ISO", "MDY"])), "ISO, MDY");
    }
}
