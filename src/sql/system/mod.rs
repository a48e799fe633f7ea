//! The system catalog in queries: PostgreSQL's spellings that only clients use (`pg_catalog.f(..)`,
//! `'t'::regclass`, `OPERATOR(pg_catalog.~)`), its functions, and the tables of
//! [`crate::catalog::system`]. Only ad-hoc queries may use them: a view would not see them change.

mod functions;
mod rewrite;

pub(super) use functions::function;
pub(super) use rewrite::rewrite;

/// What a session says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    /// The name that the client has given.
    pub user: String,
    /// The database that it has named; there is one, under any name.
    pub database: String,
    /// The number of the connection.
    pub pid: i64,
    /// Settings with their values.
    pub settings: Vec<(String, String)>,
}

impl Default for SessionFacts {
    fn default() -> Self {
        let name = crate::catalog::system::OWNER;
        Self { user: name.into(), database: name.into(), pid: 0, settings: Vec::new() }
    }
}
