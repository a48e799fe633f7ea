//! WITH RECURSIVE: a query that names itself.
//!
//! In the syntax tree `t AS (base UNION step)`, where `step` reads `t`, becomes
//! `t AS (SELECT * FROM f(base, step))` with a function of a private name, and `t` in `step`
//! becomes a call of another one, whose columns are those of `base`: so that what follows sees no
//! name that is not defined yet. The functions are planned as a [`Recursion`] and as the scan of a
//! [`WorkTable`]. Views have an operator for the node (`operator/recursion`), the batch half runs
//! DataFusion's `RecursiveQuery`.
//!
//! ```text
//! syntax   who names whom, and the calls
//! form     what PostgreSQL refuses in a recursive query
//! node     the plan nodes
//! types    the types of the columns, of which the step has to keep those of the base
//! ```

mod form;
mod node;
mod syntax;
mod types;

pub(super) use node::plan;
pub use node::{Recursion, WorkTable, as_recursion, work_table};
pub(super) use syntax::{is_recursion, recursive_queries};
pub(super) use types::typed;
