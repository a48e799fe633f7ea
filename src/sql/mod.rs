//! SQL: text to statements, statements to bound plans, and the batch half that runs ad-hoc plans.
//!
//! ```text
//! text --parse--> ParsedStatement --bind_*--> Bound (LogicalPlan, fields, dependencies)
//!                                                |-- views: `plan` lowers it to operators
//!                                                `-- ad hoc: `batch::execute` runs it
//! ```
//!
//! DataFusion plans and optimises; the rules that make the plan PostgreSQL's (literal and result
//! types, arithmetic, casts) are ours and run ahead of its type coercion, so views and ad-hoc reads
//! share one meaning. What is not on the allow list is refused with 0A000 and a reason. Nothing
//! here writes: DML becomes a plan of the rows to insert, delete or replace.

mod aggregates;
mod alter_table;
mod array_query;
mod asof;
pub mod batch;
mod binder;
mod bounded;
mod checkpoint;
mod comparable;
mod computed;
mod conditions;
mod constant;
mod context;
mod counted;
mod current_watermark;
mod decorrelate;
mod depth;
mod derived;
mod desugar;
mod dialect;
mod dml;
mod effort;
mod errors;
mod fields;
mod flink;
mod frames;
mod functions;
mod group_names;
mod group_twice;
mod group_windows;
mod grouping;
mod heights;
mod hidden;
mod interval_literals;
mod intervals;
mod kept_items;
mod lateral;
mod lateral_marks;
mod levels;
mod lifted;
mod limit;
mod limit_columns;
mod limits;
mod lookup;
pub mod memory;
mod messages;
mod missing;
mod misuse;
mod moving;
mod named;
mod names;
mod numbers;
mod operators;
mod optimize;
mod ordered_input;
mod outer_aggregates;
mod outline;
mod parser;
mod parts;
mod pass;
mod patterns;
mod prepared;
mod printed;
mod proctime;
mod records;
mod recordset;
mod recursion;
mod row_compare;
mod row_counts;
mod rows;
mod rules;
mod schemas;
mod scopes;
mod secrets;
mod semantics;
mod sequences;
mod set_keys;
mod set_ops;
mod set_types;
mod sets;
mod settled;
mod shadowed;
mod shifted;
mod signs;
mod slices;
mod stack;
mod stars;
pub mod statement;
mod system;
#[cfg(test)]
mod tests;
mod ties;
mod tree;
mod typed_values;
mod types;
mod using;
mod validate;
mod versions;
mod visit;
mod watch;
mod watermark;
mod whole_rows;
mod widths;
mod window_calls;
mod window_ties;
mod windows;
mod zoned;

pub use alter_table::{Altered, alter_table, table_text};
pub use asof::{AsOfJoin, Nearest};
pub use binder::{
    Bound, Purpose, Settings, bind_query, bind_view, query_of_view, refuse_records, zone_of_view,
};
pub use computed::{computed_columns, with_computed};
pub(crate) use context::nullable as all_nullable;
pub use context::{Read, Reads, RelationSource, relation_name};
pub use dml::{
    BoundConflict, BoundDelete, BoundInsert, BoundMerge, BoundUpdate, InsertRows, Matching,
    MergeDoes, ROW_NUMBER, bind_delete, bind_insert, bind_merge, bind_update, check_rules, conform,
    copy_target, default_values, evaluate_arguments, write_rules,
};
pub use effort::is_deep;
pub use functions::function_names;
pub use grouping::{GroupingSets, grouping_sets};
pub use limits::check_columns;
pub(crate) use lookup::compares_as_bytes;
pub use lookup::{Given, Lookup, Wanted};
pub use moving::MovingFilter;
pub use parser::{is_complete, parse, pieces};
pub(crate) use parser::{locate, with_format, with_name, with_schemas};
pub use parts::{Part, each_node, scanned_part};
pub use pass::explain_passes;
pub use patterns::{MatchOrder, MatchRecognize};
pub use prepared::{BoundStatement, Prepared, Reading, prepare};
pub use proctime::Stamped;
pub use recursion::{Recursion, WorkTable, as_recursion, work_table};
pub use secrets::mask_secrets;
pub use sequences::{nextval_of, sequences_in};
pub use set_ops::{SetOperation, as_set_operation};
pub use stack::{OnLargeStack, on_large_stack};
pub(crate) use system::names_in_list;
pub use system::{Sequences, SessionFacts, SessionSettings, Watermarks};
pub use types::sql_type;
pub use watermark::{bind_interval, bind_watermark, interval, timestamp};
pub use windows::{ExplodeWindows, SessionWindows, reads_versions, versioned};
