//! The system catalog in queries: PostgreSQL's spellings that only clients use (`pg_catalog.f(..)`,
//! `'t'::regclass`, `OPERATOR(pg_catalog.~)`), its functions, and the tables of
//! [`crate::catalog::system`]. Only ad-hoc queries may use them: a view would not see them change.

mod functions;
mod path;
mod rewrite;

use std::fmt::Debug;
use std::sync::Arc;

use crate::catalog::access::{OWNER, RoleId};
use crate::catalog::sequence::SequenceAt;
use crate::catalog::system::SettingLine;
use crate::catalog::{Catalog, Relation, RelationId};
use crate::error::{Error, Result};
use crate::time::Watermark;

pub(super) use functions::{function, is_function, is_of_session};
use path::find_in_path;
pub(crate) use path::names_in_list;
pub(super) use rewrite::rewrite;

/// What a session says about itself.
#[derive(Debug, Clone)]
pub struct SessionFacts {
    /// Whose rights it has: the name that the client has given, or that of SET ROLE.
    pub user: String,
    /// Who it is: the name that the client has given, or that of SET SESSION AUTHORIZATION.
    pub session_user: String,
    /// The role whose rights it has; `None` where nothing is refused.
    pub role: Option<RoleId>,
    /// The database that it has named; there is one, under any name.
    pub database: String,
    /// The number of the connection.
    pub pid: i64,
    /// Its settings.
    pub settings: Arc<dyn SessionSettings>,
    /// Where watermarks stand; `None` where nothing runs.
    pub watermarks: Option<Arc<dyn Watermarks>>,
    /// Where numbers come from; `None` where nothing runs.
    pub sequences: Option<Arc<dyn Sequences>>,
}

/// The sequences of an engine as a session sees them, for `nextval` and its kin.
pub trait Sequences: Debug + Send + Sync {
    /// The definitions as they are now.
    fn catalog(&self) -> Arc<Catalog>;

    /// Gives the next number: 2200H without one.
    fn next(&self, sequence: &Relation) -> Result<i64>;

    /// The number that the session was given last by a sequence: 55000 without one.
    fn current(&self, sequence: &Relation) -> Result<i64>;

    /// The number that the session was given last by any: 55000 without one.
    fn last(&self) -> Result<i64>;

    /// Puts a sequence somewhere.
    fn set(&self, sequence: &Relation, value: i64, called: bool) -> Result<()>;

    /// Where a sequence stands.
    fn standing(&self, sequence: &Relation) -> Option<SequenceAt>;
}

/// Where watermarks stand, for `current_watermark`.
pub trait Watermarks: Debug + Send + Sync {
    /// That of a column of a relation, if it carries one.
    fn of(&self, relation: RelationId, column: usize) -> Option<Watermark>;
}

/// The settings of a session, for `current_setting`, `set_config` and `pg_settings`.
pub trait SessionSettings: Debug + Send + Sync {
    /// A value as SHOW prints it.
    fn get(&self, name: &str) -> Option<String>;

    /// Sets a value, or goes back to the default; the new value.
    fn set(&self, name: &str, value: Option<&str>, local: bool) -> Result<String>;

    /// All of them.
    fn lines(&self) -> Vec<SettingLine>;
}

/// Nobody is there to set anything: what definitions are bound for.
#[derive(Debug)]
struct NoSettings;

impl SessionSettings for NoSettings {
    fn get(&self, _: &str) -> Option<String> {
        None
    }

    fn set(&self, _: &str, _: Option<&str>, _: bool) -> Result<String> {
        Err(Error::unsupported("settings can't be changed here"))
    }

    fn lines(&self) -> Vec<SettingLine> {
        Vec::new()
    }
}

impl Default for SessionFacts {
    fn default() -> Self {
        let name = OWNER;
        Self {
            user: name.into(),
            session_user: name.into(),
            role: None,
            database: name.into(),
            pid: 0,
            settings: Arc::new(NoSettings),
            watermarks: None,
            sequences: None,
        }
    }
}
