//! What the planner looks up by name, made once of the [library](crate::library): functions of
//! DataFusion's that mean what PostgreSQL's do, and ours in place of those that do not.

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
use crate::expr::{functions, signed, stand_in};
use crate::library::{self, AGGREGATES, Form, SCALARS};

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

pub(super) static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let options = super::optimize::options();
    let mut expr_planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(Operators)];
    expr_planners.extend(SessionStateDefaults::default_expr_planners());
    let mut window = HashMap::new();
    for f in SessionStateDefaults::default_window_functions() {
        let result = library::window(f.name()).and_then(|entry| entry.result.clone());
        let f = match result {
            Some(result) => signed(f, result),
            None => f,
        };
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
    for entry in SCALARS {
        let body = match &entry.form {
            Form::Theirs => all.get(entry.name).cloned(),
            Form::Unifying => all.get(entry.name).cloned().map(stand_in),
            Form::Made(body) => body(entry.name),
            Form::Ours => None,
        };
        if let Some(f) = body {
            for name in entry.aliases.iter().chain([&entry.name]) {
                known.insert((*name).to_owned(), Arc::clone(&f));
            }
        }
    }
    known.extend(functions().map(|(name, f)| (name.to_string(), Arc::clone(f))));
    known.extend([with_ties_udf(), asof_match_udf()]);
    known.insert("pg_named_row".to_string(), named_struct());
    known
}

fn aggregate() -> HashMap<String, Arc<AggregateUDF>> {
    let mut known: HashMap<String, Arc<AggregateUDF>> = HashMap::new();
    for entry in AGGREGATES {
        if let Some(f) = entry.batch_form() {
            for name in entry.aliases.iter().chain([&entry.name]) {
                known.insert((*name).to_owned(), Arc::clone(&f));
            }
        }
    }
    known
}
