//! Plans: a bound query as a tree of incremental operators with their properties.
//!
//! [`lower`] turns DataFusion's optimised `LogicalPlan` into [`PlanNode`]s, one arm per node kind,
//! and refuses what has no operator. Properties (stream key, changelog mode, partitioning) are
//! inferred on the way and decide where exchanges go. [`explain`] prints the tree.

mod as_sql;
mod explain;
mod explain_json;
mod lower;
mod node;
mod time;
mod waits;

pub use as_sql::as_sql;
pub use explain::{Sharers, explain};
pub use explain_json::{JsonNode, explain_json};
pub use lower::{Lowering, lower, result_key};
pub use node::{
    Exchange, Partitioning, PlanInput, PlanKind, PlanNode, Properties, RelationInfo, StoredAs,
};
pub use time::{TimeColumn, check_lateness, emit_every, emit_on_close};
pub use waits::{Waits, waits, waits_of};
