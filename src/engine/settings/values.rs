//! What a session has set. Values follow transactions: what SET has done is undone when its
//! transaction, or the part of it behind a savepoint, is rolled back; what SET LOCAL has done ends
//! with the transaction in any case.
//!
//! Outside of a block each statement is a transaction of its own. `set_config` changes settings
//! from inside of a query, on a thread of the batch half: so the values are behind a lock, which is
//! held for a look-up and never across anything that waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::kind::{boolean, word_of};
use super::meanings::text_style;
use super::{Change, SETTINGS, Setting, find};
use crate::catalog::system::SettingLine;
use crate::config::Config;
use crate::delta::style::TextStyle;
use crate::engine::outcome::Notice;
use crate::error::{Error, Result, sqlstate};
use crate::sql::SessionSettings;
use crate::sql::statement::{Isolation, SettingScope, TransactionModes};

/// Settings with names of their own that a session may keep.
const CUSTOM_MAX: usize = 1_000;

/// Kept values by name in lower case.
type Values = BTreeMap<String, String>;

/// The settings of one session.
#[derive(Debug, Default)]
pub(crate) struct SettingValues {
    // A plain mutex: see the module's head.
    state: Mutex<State>,
    /// Grows with every change, for who wants to know whether there was one.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// What the client has asked for at its start: what RESET goes back to.
    startup: Values,
    set: Arc<Values>,
    /// SET LOCAL.
    local: Arc<Values>,
    /// Names with a dot that were ever set: after RESET they are empty, not unknown.
    custom: BTreeSet<String>,
    /// The modes of the transaction block.
    modes: Option<Modes>,
    /// The values at the beginning of the transaction or statement, and at its savepoints.
    saved: Vec<Saved>,
    notices: Vec<Notice>,
}

#[derive(Debug, Clone)]
struct Saved {
    set: Arc<Values>,
    local: Arc<Values>,
    modes: Option<Modes>,
}

/// The modes of a transaction.
#[derive(Debug, Clone, Copy)]
struct Modes {
    isolation: Isolation,
    read_only: bool,
    deferrable: bool,
    /// It has read or written: its modes stay as they are.
    used: bool,
}

impl SettingValues {
    /// Values that were set in another session, by their names.
    pub(in crate::engine) fn of(values: BTreeMap<String, String>) -> Self {
        let state = State { set: Arc::new(values), ..State::default() };
        Self { state: Mutex::new(state), ..Self::default() }
    }

    /// What sessions of a server begin with.
    ///
    /// # Errors
    ///
    /// 42704, 22023, 55P02 or 0A000 for a default that a session could not set.
    pub(in crate::engine) fn of_server(config: &Config) -> Result<Self> {
        let values = Self::default();
        for (name, value) in &config.settings {
            let context = || format!("default of the setting \"{name}\"");
            values.set_at_startup(name, value).map_err(|e| e.context(context()))?;
        }
        let limit = config.connections_max.to_string();
        values.state().startup.insert("max_connections".to_owned(), limit);
        Ok(values)
    }

    /// The values of a session that begins.
    pub(in crate::engine) fn of_session(&self) -> Self {
        let startup = self.state().startup.clone();
        let state = State { startup, ..State::default() };
        Self { state: Mutex::new(state), ..Self::default() }
    }

    /// All that is set, by name.
    pub(in crate::engine) fn all(&self) -> BTreeMap<String, String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = state.startup.clone();
        for values in [&state.set, &state.local] {
            all.extend(values.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        all
    }
}

impl State {
    fn value(&self, setting: &Setting) -> String {
        if let (Change::Transaction, Some(modes)) = (setting.change, &self.modes) {
            return match setting.name {
                "transaction_isolation" => modes.isolation.name().to_owned(),
                "transaction_read_only" => word_of(modes.read_only).to_owned(),
                _ => word_of(modes.deferrable).to_owned(),
            };
        }
        // Outside of a block the modes are those of the next transaction.
        let name = match setting.change {
            Change::Transaction => format!("default_{}", setting.name),
            _ => setting.name.to_ascii_lowercase(),
        };
        self.kept(&name).map_or_else(|| setting.default.to_owned(), str::to_owned)
    }

    fn kept(&self, name: &str) -> Option<&str> {
        let places = [self.local.as_ref(), self.set.as_ref(), &self.startup];
        places.into_iter().find_map(|values| values.get(name)).map(String::as_str)
    }

    fn get(&self, name: &str) -> Option<String> {
        match find(name) {
            Some(setting) => Some(setting.kind.shown(&self.value(setting))),
            None => {
                let name = name.to_lowercase();
                let known = || self.custom.contains(&name).then_some("");
                self.kept(&name).or_else(known).map(str::to_owned)
            }
        }
    }

    fn boolean(&self, name: &str) -> bool {
        self.kept(name).and_then(boolean).unwrap_or(false)
    }

    fn modes_of_next(&self) -> Modes {
        let isolation = self.kept("default_transaction_isolation").and_then(Isolation::named);
        Modes {
            isolation: isolation.unwrap_or(Isolation::RepeatableRead),
            read_only: self.boolean("default_transaction_read_only"),
            deferrable: self.boolean("default_transaction_deferrable"),
            used: false,
        }
    }

    fn now(&self) -> Saved {
        Saved { set: self.set.clone(), local: self.local.clone(), modes: self.modes }
    }

    fn go_back(&mut self, to: Saved) {
        (self.set, self.local) = (to.set, to.local);
        let used = self.modes.is_some_and(|m| m.used);
        self.modes = to.modes.map(|modes| Modes { used, ..modes });
    }

    /// Keeps a checked value, or none.
    fn keep(&mut self, name: &str, value: Option<String>, scope: SettingScope) {
        let values = match scope {
            SettingScope::Local => &mut self.local,
            SettingScope::Session => {
                if self.local.contains_key(name) {
                    Arc::make_mut(&mut self.local).remove(name);
                }
                &mut self.set
            }
        };
        match (value, scope) {
            (Some(value), _) => drop(Arc::make_mut(values).insert(name.to_owned(), value)),
            (None, SettingScope::Session) => drop(Arc::make_mut(values).remove(name)),
            (None, SettingScope::Local) => {
                let default = find(name).map_or("", |s| s.default);
                let value = self.startup.get(name).cloned().unwrap_or_else(|| default.to_owned());
                Arc::make_mut(values).insert(name.to_owned(), value);
            }
        }
    }

    fn set_known(
        &mut self,
        setting: &Setting,
        value: Option<&str>,
        scope: SettingScope,
    ) -> Result<()> {
        let name = setting.name;
        let unchangeable =
            |message: String| Err(Error::user(sqlstate::CANT_CHANGE_RUNTIME_PARAM, message));
        match setting.change {
            Change::Never => {
                return unchangeable(format!("parameter \"{name}\" cannot be changed"));
            }
            Change::Restart => {
                return unchangeable(format!(
                    "parameter \"{name}\" cannot be changed without restarting the server"
                ));
            }
            Change::Session | Change::Transaction | Change::Advice => {}
        }
        let current = self.value(setting);
        let value = value.map(|v| setting.kind.check_over(name, v, &current)).transpose()?;
        match (setting.change, value) {
            (Change::Transaction, Some(value)) => {
                let mut modes = TransactionModes::default();
                match name {
                    "transaction_isolation" => modes.isolation = Isolation::named(&value),
                    "transaction_read_only" => modes.read_only = boolean(&value),
                    _ => modes.deferrable = boolean(&value),
                }
                self.change_modes(&modes)
            }
            (Change::Transaction, None) => Err(Error::user(
                sqlstate::FEATURE_NOT_SUPPORTED,
                format!("parameter \"{name}\" cannot be reset"),
            )),
            (change, value) => {
                if change == Change::Advice && value.is_some() {
                    self.notices
                        .push(Notice::new(format!("parameter \"{name}\" has no effect here")));
                }
                self.keep(&name.to_ascii_lowercase(), value, scope);
                Ok(())
            }
        }
    }

    fn set(&mut self, name: &str, value: Option<&str>, scope: SettingScope) -> Result<()> {
        if let Some(setting) = find(name) {
            return self.set_known(setting, value, scope);
        }
        let name = name.to_lowercase();
        check_custom(&name)?;
        if !self.custom.contains(&name) && self.custom.len() >= CUSTOM_MAX {
            return Err(Error::user(
                sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
                format!("more than {CUSTOM_MAX} parameters with names of their own"),
            ));
        }
        self.custom.insert(name.clone());
        self.keep(&name, value.map(str::to_owned), scope);
        Ok(())
    }

    fn change_modes(&mut self, wanted: &TransactionModes) -> Result<()> {
        let Some(modes) = self.modes else { return Ok(()) };
        if let Some(isolation) = wanted.isolation {
            refuse_serializable(isolation)?;
            if isolation != modes.isolation && modes.used {
                return Err(Error::user(
                    sqlstate::ACTIVE_SQL_TRANSACTION,
                    "SET TRANSACTION ISOLATION LEVEL must be called before any query",
                ));
            }
        }
        if wanted.read_only == Some(false) && modes.read_only && modes.used {
            return Err(Error::user(
                sqlstate::ACTIVE_SQL_TRANSACTION,
                "transaction read-write mode must be set before any query",
            ));
        }
        self.modes = Some(Modes {
            isolation: wanted.isolation.unwrap_or(modes.isolation),
            read_only: wanted.read_only.unwrap_or(modes.read_only),
            deferrable: wanted.deferrable.unwrap_or(modes.deferrable),
            used: modes.used,
        });
        Ok(())
    }
}

/// Snapshot isolation lets write skew happen, which SERIALIZABLE must not.
fn refuse_serializable(isolation: Isolation) -> Result<()> {
    match isolation {
        Isolation::Serializable => {
            Err(Error::unsupported("transaction isolation level SERIALIZABLE is not supported")
                .with_detail(
                    "Transactions have snapshot isolation, as PostgreSQL's REPEATABLE READ.",
                )
                .with_hint("BEGIN ISOLATION LEVEL REPEATABLE READ;"))
        }
        _ => Ok(()),
    }
}

/// Names that are not ours are two or more identifiers with dots between them.
fn check_custom(name: &str) -> Result<()> {
    if !name.contains('.') {
        return Err(unknown(name));
    }
    let identifier = |part: &str| {
        let begins = part.starts_with(|c: char| c.is_alphabetic() || c == '_');
        begins && part.chars().all(|c| c.is_alphanumeric() || "_$".contains(c))
    };
    match name.split('.').all(identifier) {
        true => Ok(()),
        false => Err(Error::user(
            "42602",
            format!("invalid configuration parameter name \"{name}\""),
        )
        .with_detail(
            "Custom parameter names must be two or more simple identifiers separated by dots.",
        )),
    }
}

/// There is no setting of this name.
pub(crate) fn unknown(name: &str) -> Error {
    Error::user(
        sqlstate::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    )
}

impl SettingValues {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, to be changed.
    fn change(&self) -> MutexGuard<'_, State> {
        self.version.fetch_add(1, Ordering::Relaxed);
        self.state()
    }

    /// Grows with every change.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// Keeps the name that the client has given.
    pub(crate) fn identify(&self, user: &str) {
        self.change().startup.insert("session_authorization".to_owned(), user.to_owned());
    }

    /// A value as SHOW prints it.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.state().get(name)
    }

    /// A duration in milliseconds; `None` when it is off.
    pub(crate) fn duration_ms(&self, name: &str) -> Option<u64> {
        let state = self.state();
        state.kept(name).and_then(|kept| kept.parse().ok()).filter(|ms| *ms > 0)
    }

    /// An integer in the setting's own unit.
    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        self.state().kept(name).and_then(|kept| kept.parse().ok())
    }

    /// How texts of values are written and read.
    pub(crate) fn text_style(&self) -> TextStyle {
        let state = self.state();
        let kept = |name| state.kept(name);
        text_style(
            (kept("datestyle"), kept("intervalstyle")),
            (kept("bytea_output"), kept("timezone")),
        )
    }

    /// A size of memory in bytes; `None` when it is 0.
    pub(crate) fn bytes(&self, name: &str) -> Option<usize> {
        let state = self.state();
        let kb: usize = state.kept(name).and_then(|kept| kept.parse().ok())?;
        kb.checked_mul(1024).filter(|bytes| *bytes > 0)
    }

    /// SET and RESET of one setting.
    pub(crate) fn set(&self, name: &str, value: Option<&str>, scope: SettingScope) -> Result<()> {
        self.change().set(name, value, scope)
    }

    /// A setting that comes with the connection: RESET goes back to it.
    pub(crate) fn set_at_startup(&self, name: &str, value: &str) -> Result<()> {
        let mut state = self.change();
        let folded = name.to_lowercase();
        // The modes of a transaction are those of all that begin without others.
        let name = match find(name) {
            Some(s) if s.change == Change::Transaction => format!("default_{}", s.name),
            _ => folded,
        };
        state.set(&name, Some(value), SettingScope::Session)?;
        if let Some(kept) = Arc::make_mut(&mut state.set).remove(&name) {
            state.startup.insert(name, kept);
        }
        Ok(())
    }

    /// RESET ALL.
    pub(crate) fn reset_all(&self) {
        let mut state = self.change();
        (state.set, state.local) = (Arc::default(), Arc::default());
    }

    /// What there is to say about settings since the last call.
    pub(crate) fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut self.state().notices)
    }

    /// A statement begins: outside of a block, a transaction of its own.
    pub(crate) fn begin_statement(&self) {
        let mut state = self.state();
        if state.modes.is_none() {
            if !state.local.is_empty() {
                state.local = Arc::default();
            }
            state.saved = vec![state.now()];
        }
    }

    /// What was done outside of a block is done.
    pub(crate) fn settle(&self) {
        let mut state = self.state();
        if state.modes.is_none() && !state.saved.is_empty() {
            state.saved.clear();
            if !state.local.is_empty() {
                state.local = Arc::default();
                drop(state);
                drop(self.change());
            }
        }
    }

    /// A transaction block begins.
    pub(crate) fn begin(&self) {
        let mut state = self.state();
        state.saved = vec![state.now()];
        state.modes = Some(state.modes_of_next());
    }

    /// The modes of the transaction block, to begin the next one with.
    pub(crate) fn modes(&self) -> TransactionModes {
        self.state().modes.map_or_else(TransactionModes::default, |modes| TransactionModes {
            isolation: Some(modes.isolation),
            read_only: Some(modes.read_only),
            deferrable: Some(modes.deferrable),
        })
    }

    /// SET TRANSACTION, and what stands behind BEGIN.
    pub(crate) fn change_modes(&self, modes: &TransactionModes) -> Result<()> {
        self.change().change_modes(modes)
    }

    /// SET SESSION CHARACTERISTICS.
    pub(crate) fn change_defaults(&self, modes: &TransactionModes) -> Result<()> {
        let mut state = self.change();
        if let Some(isolation) = modes.isolation {
            refuse_serializable(isolation)?;
            let name = "default_transaction_isolation";
            state.keep(name, Some(isolation.name().to_owned()), SettingScope::Session);
        }
        let flags = [
            ("default_transaction_read_only", modes.read_only),
            ("default_transaction_deferrable", modes.deferrable),
        ];
        for (name, on) in flags {
            if let Some(on) = on {
                state.keep(name, Some(word_of(on).to_owned()), SettingScope::Session);
            }
        }
        Ok(())
    }

    /// A savepoint is set.
    pub(crate) fn savepoint(&self) {
        let mut state = self.state();
        let now = state.now();
        state.saved.push(now);
    }

    /// The savepoint with a number from 0 goes, with those behind it.
    pub(crate) fn release(&self, savepoint: usize) {
        self.state().saved.truncate(savepoint + 1);
    }

    /// Back to the savepoint with a number from 0.
    pub(crate) fn roll_back_to(&self, savepoint: usize) {
        let mut state = self.change();
        state.saved.truncate(savepoint + 2);
        if let Some(saved) = state.saved.last().cloned() {
            state.go_back(saved);
        }
    }

    /// The transaction block has been committed.
    pub(crate) fn commit(&self) {
        let mut state = self.change();
        state.local = Arc::default();
        state.modes = None;
        state.saved.clear();
    }

    /// The transaction block, or the statement outside of one, has not happened.
    pub(crate) fn roll_back(&self) {
        let mut state = self.change();
        if !state.saved.is_empty() {
            let first = state.saved.swap_remove(0);
            state.go_back(first);
            state.saved.clear();
        }
        state.modes = None;
    }

    /// Whether writes are refused.
    pub(crate) fn is_read_only(&self) -> bool {
        let state = self.state();
        match state.modes {
            Some(modes) => modes.read_only,
            None => state.boolean("default_transaction_read_only"),
        }
    }

    /// The transaction block has read or written.
    pub(crate) fn note_use(&self) {
        if let Some(modes) = &mut self.state().modes {
            modes.used = true;
        }
    }
}

impl SessionSettings for SettingValues {
    fn get(&self, name: &str) -> Option<String> {
        self.get(name)
    }

    fn set(&self, name: &str, value: Option<&str>, local: bool) -> Result<String> {
        let scope = if local { SettingScope::Local } else { SettingScope::Session };
        self.set(name, value, scope)?;
        Ok(self.get(name).unwrap_or_default())
    }

    fn lines(&self) -> Vec<SettingLine> {
        let state = self.state();
        let known = SETTINGS.iter().map(|setting| setting_line(setting, &state));
        let own = state.custom.iter().map(|name| SettingLine {
            name: name.clone(),
            value: state.kept(name).unwrap_or_default().to_owned(),
            shown: state.kept(name).unwrap_or_default().to_owned(),
            kind: "string",
            context: "user",
            source: "session",
            ..SettingLine::default()
        });
        known.chain(own).collect()
    }
}

fn setting_line(setting: &Setting, state: &State) -> SettingLine {
    let name = setting.name.to_ascii_lowercase();
    let value = state.value(setting);
    let reset = state.startup.get(&name).cloned();
    let is_set = state.local.contains_key(&name) || state.set.contains_key(&name);
    SettingLine {
        name: setting.name.to_owned(),
        shown: setting.kind.shown(&value),
        value,
        description: setting.means,
        kind: setting.kind.name(),
        context: setting.change.context(),
        source: match (is_set, &reset) {
            (true, _) => "session",
            (false, Some(_)) => "client",
            (false, None) => "default",
        },
        reset: reset.unwrap_or_else(|| setting.default.to_owned()),
        boot: setting.default,
        unit: setting.kind.unit(),
        range: setting.kind.range(),
        words: setting.kind.words(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: &str = "statement_timeout";

    fn set(values: &SettingValues, value: &str, scope: SettingScope) {
        values.set(TIMEOUT, Some(value), scope).expect("a duration");
    }

    fn shown(values: &SettingValues) -> String {
        values.get(TIMEOUT).expect("a setting")
    }

    #[test]
    fn values_follow_transactions_and_savepoints() {
        let values = SettingValues::default();
        values.set_at_startup(TIMEOUT, "5s").expect("a duration");
        values.begin();
        set(&values, "1s", SettingScope::Session);
        values.savepoint();
        set(&values, "2s", SettingScope::Local);
        values.savepoint();
        set(&values, "3s", SettingScope::Session);
        values.roll_back_to(1);
        assert_eq!(shown(&values), "2s");
        values.roll_back_to(0);
        assert_eq!(shown(&values), "1s");
        set(&values, "4s", SettingScope::Local);
        values.release(0);
        assert_eq!(shown(&values), "4s");
        values.commit();
        assert_eq!(shown(&values), "1s");
        values.begin();
        set(&values, "9s", SettingScope::Session);
        values.roll_back();
        assert_eq!(shown(&values), "1s");
        values.reset_all();
        assert_eq!(shown(&values), "5s");
    }

    #[test]
    fn a_statement_of_its_own_is_a_transaction() {
        let values = SettingValues::default();
        values.begin_statement();
        set(&values, "1s", SettingScope::Session);
        values.settle();
        // An error between two statements undoes nothing.
        values.roll_back();
        assert_eq!(shown(&values), "1s");
        values.begin_statement();
        set(&values, "2s", SettingScope::Session);
        set(&values, "3s", SettingScope::Local);
        values.roll_back();
        assert_eq!(shown(&values), "1s");
        values.begin_statement();
        set(&values, "3s", SettingScope::Local);
        values.begin_statement();
        assert_eq!(shown(&values), "1s");
    }

    #[test]
    fn names_of_ones_own_and_names_of_nobody() {
        let values = SettingValues::default();
        let set = |name: &str| values.set(name, Some("x"), SettingScope::Session);
        assert_eq!(set("nonsense").map_err(|e| e.sqlstate()), Err("42704"));
        assert_eq!(set("a.1").map_err(|e| e.sqlstate()), Err("42602"));
        assert_eq!(set("server_version").map_err(|e| e.sqlstate()), Err("55P02"));
        assert_eq!(values.get("my.user"), None);
        set("My.User").expect("a name of its own");
        assert_eq!(values.get("my.user").as_deref(), Some("x"));
        values.reset_all();
        assert_eq!(values.get("MY.USER").as_deref(), Some(""));
    }
}
