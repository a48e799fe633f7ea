//! Expressions over deltas: DataFusion's `PhysicalExpr` compiled once, evaluated per batch, and the
//! one place that decides what a row error does. Also the scalar and aggregate functions that carry
//! PostgreSQL's arithmetic, casts and result types, shared by views and ad-hoc reads.
//!
//! A row whose expression fails is left out and reported as a [`RowError`]; its neighbours go on.
//! Nothing here reads a clock.

mod aggregates;
mod arith;
mod batch_aggregate;
mod cast;
mod clock;
mod column_parser;
mod date_template;
mod datetime;
mod errors;
mod eval;
mod float_extreme;
mod function;
mod gaps;
mod hyperloglog;
mod interval_total;
mod json_agg;
mod mean;
mod moments;
mod numeric;
mod ordered;
mod ordered_set;
mod parse;
mod parse_array;
mod parse_datetime;
mod parse_interval;
pub mod pattern;
mod ranking;
mod rounding;
mod session;
mod single_value;
mod size;
mod sketch;
mod sliding;
mod statistics;
mod string_agg;
mod temporal;
mod tumble;
mod typed;
mod unknown;
mod walk;
mod window;
mod windows;
mod wrapped;

pub use crate::time::WindowEdge;
pub use aggregates::{avg_result_type, avg_udaf, sum_result_type, sum_udaf};
pub use arith::{ArithOp, arith, arith_udf, negate};
pub(crate) use arith::{arith_op, typing as arith_typing};
pub use batch_aggregate::BatchAggregate;
pub use cast::{
    Coercion, can_cast, cast_array, cast_expr, cast_styled, cast_udf, in_style, moments_in_json,
};
pub(crate) use cast::{assignment_error, is_zoned};
pub use clock::{
    ClockBound, at_time, clock_timestamp_udf, is_now, is_proctime, now_udf, proctime_type,
    proctime_udf, reads_clock, reads_proctime,
};
pub use column_parser::ColumnParser;
pub use datetime::{date_part_udf, extract_udf};
pub use errors::from_datafusion;
pub(crate) use errors::{
    first_line, lower_first, not_implemented, out_of_memory, show_bytes, to_datafusion,
};
pub use eval::{Predicate, Projection, RowError, compile};
pub(crate) use eval::{guard_condition, guard_values, is_guarded};
pub use float_extreme::float_extreme;
pub use function::lists::ListSource;
pub(crate) use function::lists::Pieces;
pub(crate) use function::time_zone;
pub(crate) use function::{argument_types, call, common_type, functions};
pub use gaps::{gap_steps, gap_time, interpolated};
pub use hyperloglog::approx_count_distinct_udaf;
pub use interval_total::{INTERVAL_WORDS, IntervalTotal};
pub use json_agg::json_udaf;
pub use mean::mean_expr;
pub use moments::{Moments, PAIR_WORDS, Statistic, VARIANCE_WORDS, Variance};
pub use ordered::{RowOrder, ordered_call};
pub use ordered_set::ordered_set_udaf;
pub(crate) use parse::parse_bytea;
pub use parse::{parse_styled, parse_value, uuid as parse_uuid};
pub use parse_interval::interval as parse_interval;
pub use ranking::signed;
pub use rounding::{rounding_to_any_digits, rounding_udf};
pub use session::session_edge;
pub use single_value::{one_row, single_value_udaf};
pub(crate) use size::{
    folding, in_slices, in_slices_of, is_batch_too_large, is_overflow, spread, widest_row,
};
pub use sketch::{RANK_MAX, estimate, register_of};
pub use sliding::sliding;
pub use statistics::{exact_scale, exact_values, statistic_named, statistic_udaf};
pub use string_agg::string_agg_udaf;
pub use temporal::interval_us;
pub use tumble::{TUMBLE_END, TUMBLE_START, TUMBLE_TIME, as_tumble, tumble_expr, window_error};
pub use typed::{operand_name, operand_of, operand_udf};
pub use unknown::{behind_stand_in, stand_in};
pub(crate) use walk::{Walk, WalkPlan};
pub use window::WindowCalls;
pub use windows::{Exploded, explode, window_list, window_time};
pub use wrapped::{Wrap, wrapped};
