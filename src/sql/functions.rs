//! The functions of SQL by name, made once: those of DataFusion's that mean what PostgreSQL's do,
//! under PostgreSQL's names, and ours in place of those that do not.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion::common::config::ConfigOptions;
use datafusion::execution::SessionStateDefaults;
use datafusion::functions::core::named_struct;
use datafusion::logical_expr::planner::{ExprPlanner, RelationPlanner};
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, WindowUDF};

use super::asof::asof_match_udf;
use super::limit::with_ties_udf;
use super::semantics::Operators;
use super::windows::StreamRelations;
use crate::expr::{
    ArithOp, approx_count_distinct_udaf, arith_udf, avg_udaf, clock_timestamp_udf, date_part_udf,
    functions, json_udafs, now_udf, ordered_set_udafs, proctime_udf, rounding_udfs, stand_in,
    statistics_udafs, string_agg_udaf, sum_udaf, with_signed_result,
};

/// What the planner looks up.
pub(super) struct Functions {
    pub(super) scalar: HashMap<String, Arc<ScalarUDF>>,
    pub(super) higher_order: HashMap<String, Arc<HigherOrderUDF>>,
    pub(super) aggregate: HashMap<String, Arc<AggregateUDF>>,
    pub(super) window: HashMap<String, Arc<WindowUDF>>,
    pub(super) expr_planners: Vec<Arc<dyn ExprPlanner>>,
    pub(super) relation_planners: Vec<Arc<dyn RelationPlanner>>,
    pub(super) options: ConfigOptions,
}

/// Scalar functions of DataFusion that are taken as they are. Not here: those whose meaning is
/// another (`to_timestamp`, `to_date`), those of other dialects, and those that show insides.
#[rustfmt::skip]
const SCALAR: &[&str] = &[
    // Numbers.
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh",
    "cot", "degrees", "exp", "gcd", "lcm", "ln", "log", "log10", "pi", "pow", "power", "radians",
    "random", "signum", "sin", "sinh", "sqrt", "tan", "tanh", "to_hex",
    // Text and bytes.
    "ascii", "bit_length", "btrim", "char_length", "character_length", "chr", "concat",
    "concat_ws", "decode", "encode", "initcap", "left", "length", "lower", "lpad",
    "ltrim", "octet_length", "overlay", "position", "regexp_count", "regexp_like",
    "regexp_match", "regexp_replace", "repeat", "replace", "right", "rpad", "rtrim",
    "split_part", "starts_with",
    "strpos", "substr", "substring", "translate", "trim", "upper", "uuid",
    // Arrays and rows.
    "row", "struct",
];

/// Functions whose arguments are of one type.
const UNIFYING: &[&str] = &["coalesce", "nullif", "greatest", "least"];

/// PostgreSQL's names of functions that DataFusion has under others.
const ALIASES: &[(&str, &str)] = &[("gen_random_uuid", "uuid"), ("sign", "signum")];

/// Aggregates under another name of PostgreSQL's.
const AGGREGATE_ALIASES: &[(&str, &str)] = &[("every", "bool_and")];

pub(super) static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let options = super::optimize::options();
    let mut expr_planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(Operators)];
    expr_planners.extend(SessionStateDefaults::default_expr_planners());
    let mut window = HashMap::new();
    for f in SessionStateDefaults::default_window_functions() {
        let f = with_signed_result(f);
        for name in f.aliases().iter().cloned().chain([f.name().to_string()]) {
            window.insert(name, Arc::clone(&f));
        }
    }
    Functions {
        scalar: scalar(&options),
        // Lambdas are no SQL of PostgreSQL.
        higher_order: HashMap::new(),
        aggregate: aggregate(),
        window,
        expr_planners,
        relation_planners: vec![Arc::new(StreamRelations)],
        options,
    }
});

/// The names of all functions and aggregates, sorted.
pub fn function_names() -> Vec<String> {
    let mut names: Vec<String> =
        FUNCTIONS.scalar.keys().chain(FUNCTIONS.aggregate.keys()).cloned().collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn scalar(options: &ConfigOptions) -> HashMap<String, Arc<ScalarUDF>> {
    let mut all = HashMap::new();
    for f in SessionStateDefaults::default_scalar_functions() {
        let f = f.inner().with_updated_config(options).map_or(f, Arc::new);
        for name in f.aliases().iter().cloned().chain([f.name().to_string()]) {
            all.insert(name, Arc::clone(&f));
        }
    }
    let mut known: HashMap<String, Arc<ScalarUDF>> = HashMap::new();
    for name in SCALAR {
        if let Some(f) = all.get(*name) {
            known.insert((*name).to_string(), Arc::clone(f));
        }
    }
    for name in UNIFYING {
        if let Some(f) = all.remove(*name) {
            known.insert((*name).to_string(), stand_in(f));
        }
    }
    for (alias, name) in ALIASES {
        if let Some(f) = known.get(*name).cloned() {
            known.insert((*alias).to_string(), f);
        }
    }
    known.extend(rounding_udfs().into_iter().map(|(name, f)| (name.to_string(), f)));
    for name in ["current_timestamp", "now", "statement_timestamp", "transaction_timestamp"] {
        known.insert(name.to_string(), now_udf());
    }
    known.insert("clock_timestamp".to_string(), clock_timestamp_udf());
    known.insert("proctime".to_string(), proctime_udf());
    known.insert("date_part".to_string(), date_part_udf());
    known.insert("mod".to_string(), Arc::new(arith_udf(ArithOp::Rem)));
    known.extend(functions().map(|(name, f)| (name.to_string(), Arc::clone(f))));
    known.extend([with_ties_udf(), asof_match_udf()]);
    known.insert("pg_named_row".to_string(), named_struct());
    known
}

fn aggregate() -> HashMap<String, Arc<AggregateUDF>> {
    let mut known = HashMap::new();
    let ours = [sum_udaf(), avg_udaf(), string_agg_udaf(), approx_count_distinct_udaf()];
    let ours = ours.into_iter().chain(statistics_udafs()).chain(ordered_set_udafs());
    let ours = ours.chain(json_udafs());
    for f in SessionStateDefaults::default_aggregate_functions().into_iter().chain(ours) {
        for name in f.aliases().iter().cloned().chain([f.name().to_string()]) {
            known.insert(name, Arc::clone(&f));
        }
    }
    for (alias, name) in AGGREGATE_ALIASES {
        if let Some(f) = known.get(*name).cloned() {
            known.insert((*alias).to_string(), f);
        }
    }
    known
}
