//! Every rule of DataFusion's optimisers, and what we make of it.
//!
//! A wrong rule makes wrong rows in views and reads alike, and nothing notices that has gone
//! through the same rules. So each rule is a pass, with the reason why it is sound for us, or is
//! left out, or has one of ours in its place. A rule that is on no list is not run, and fails a
//! test. What the lists claim is tested by `sql-tests/postgres`, whose other side are plans that no
//! rule has seen, and a PostgreSQL.

mod analysis;
mod empty;
mod existence;
mod join_order;
mod keys;
mod logical;
mod physical;
mod plain;
mod projections;
mod push_down;
mod unions;
mod unordered;
mod zones;

pub(super) use analysis::{RULES as ANALYSIS, analyzer};
pub(super) use logical::{RULES as LOGICAL, logical};
pub(super) use physical::{RULES as PHYSICAL, physical};
pub(super) use plain::written_out;
pub(super) use unordered::ForgetProperties;
