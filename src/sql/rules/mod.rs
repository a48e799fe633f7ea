//! Every rule of DataFusion's optimisers, and what we make of it.
//!
//! A wrong rule makes wrong rows in views and reads alike, and nothing notices that has gone
//! through the same rules. So each rule is on a list with the reason why it is sound for us, or is
//! left out, or has one of ours in its place. A rule that is on no list is not run, and fails a
//! test. What the lists claim is tested by `sql-tests/postgres`, whose other side are plans that no
//! rule has seen, and a PostgreSQL.

mod analysis;
mod empty;
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

pub(super) use analysis::analyzer;
pub(super) use logical::logical;
pub(super) use physical::physical;
pub(super) use plain::written_out;

/// What we make of a rule.
#[expect(dead_code, reason = "whoever changes a list reads why, and no code does")]
enum Use<R> {
    /// It is sound; why.
    Sound(&'static str),
    /// As before, in ad-hoc plans; why, and why not in views.
    AdHoc(&'static str),
    /// Ours takes its place, or is put around it; why.
    Ours(fn(R) -> R, &'static str),
    /// It is left out; why.
    Out(&'static str),
}
