//! Aggregate functions.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::AggregateUDF;

use super::is_named;
use crate::aggregate::{Aggregate, Signature, by_rows, forms};
use crate::error::{Error, Result};
use crate::expr::{
    approx_count_distinct_udaf, avg_udaf, json_udaf, ordered_set_udaf, single_value_udaf,
    statistic_udaf, string_agg_udaf, sum_udaf,
};

/// An aggregate function.
pub struct AggregateFunction {
    /// The name by which plans call it.
    pub name: &'static str,
    /// Other names that SQL has for it.
    pub aliases: &'static [&'static str],
    /// How the batch half runs it.
    pub batch: Batch,
    /// How a view keeps it up to date.
    pub incremental: Incremental,
    /// What DISTINCT does to it.
    pub distinct: Distinct,
    /// What the order of rows does to it.
    pub order: Order,
    /// What becomes of its state when a row goes.
    pub retraction: &'static str,
    /// How far its value may be from the exact one; `None` when it is exact.
    pub error: Option<&'static str>,
    /// Its parts over the panes of overlapping windows; none where windows can't be put together
    /// from panes.
    pub panes: &'static [Pane],
    /// Whether its result is JSON, in which rows are objects.
    pub json: bool,
    /// Arguments over which it depends on the rows of a frame alone, to the last bit, and never
    /// fails; of no argument (`count(*)`) it is asked, too.
    pub frames: fn(Option<&DataType>) -> bool,
}

/// How the batch half runs an aggregate.
pub enum Batch {
    /// DataFusion's function of the name.
    Theirs,
    /// Ours, of that name.
    Ours(fn(&'static str) -> Option<Arc<AggregateUDF>>),
}

type Create = fn(&Signature) -> Result<Box<dyn Aggregate>>;

/// How a view keeps an aggregate up to date.
pub enum Incremental {
    /// By a state that takes rows with weights.
    State(Create),
    /// By a state; of types that it has none for, and of rows that DISTINCT or ORDER BY choose, by
    /// the rows of the group, over which the batch form is computed anew.
    StateOrRows(Create),
    /// By the rows of the group, over which the batch form is computed anew.
    Rows,
    /// Not at all: it is refused in views.
    None,
}

/// What DISTINCT does to an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distinct {
    /// Nothing: it is the same over distinct values.
    Blind,
    /// Values are told apart ahead of the state, which then takes each once.
    Ahead,
    /// Its rows are kept, and each value is taken once of them.
    Rows,
}

/// What the order of rows does to an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Nothing, so ORDER BY in a call is left out.
    Blind,
    /// It decides which row the value is of.
    Chooses,
    /// The value is a list of all rows in their order.
    Lists,
}

/// A part of an aggregate over a pane, and the aggregate that puts those parts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pane {
    /// The aggregate over the rows of a pane.
    pub part: &'static str,
    /// The aggregate over the parts of a window.
    pub merged_by: &'static str,
    /// Whether the sum of parts is the sum of floats with fewer digits than it has.
    pub loses_float4: bool,
}

const fn pane(part: &'static str, merged_by: &'static str) -> Pane {
    Pane { part, merged_by, loses_float4: false }
}

const fn sum_pane(part: &'static str) -> Pane {
    Pane { part, merged_by: "sum", loses_float4: true }
}

const UNDONE: &str = "its value is taken out of the words of the group again";
const COUNTED: &str = "values are kept with their weights, and one goes with its last row";
const REMADE: &str = "its row is taken out of those of the group, which is computed anew";
const NO_VIEW: &str = "reads take no rows out";

impl AggregateFunction {
    /// An aggregate of DataFusion's that no view has.
    const fn theirs(name: &'static str) -> Self {
        Self {
            name,
            aliases: &[],
            batch: Batch::Theirs,
            incremental: Incremental::None,
            distinct: Distinct::Rows,
            order: Order::Blind,
            retraction: NO_VIEW,
            error: None,
            panes: &[],
            json: false,
            frames: |_| false,
        }
    }

    /// The same with a body of ours.
    const fn ours(name: &'static str, body: fn(&'static str) -> Option<Arc<AggregateUDF>>) -> Self {
        Self { batch: Batch::Ours(body), ..Self::theirs(name) }
    }

    const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    const fn state(self, create: Create, retraction: &'static str) -> Self {
        Self { incremental: Incremental::State(create), retraction, ..self }
    }

    const fn state_or_rows(self, create: Create, retraction: &'static str) -> Self {
        Self { incremental: Incremental::StateOrRows(create), retraction, ..self }
    }

    const fn rows(self) -> Self {
        Self { incremental: Incremental::Rows, retraction: REMADE, ..self }
    }

    const fn distinct(self, distinct: Distinct) -> Self {
        Self { distinct, ..self }
    }

    const fn order(self, order: Order) -> Self {
        Self { order, ..self }
    }

    const fn panes(self, panes: &'static [Pane]) -> Self {
        Self { panes, ..self }
    }

    const fn json(self) -> Self {
        Self { json: true, ..self }
    }

    const fn frames(self, frames: fn(Option<&DataType>) -> bool) -> Self {
        Self { frames, ..self }
    }

    const fn error(self, error: &'static str) -> Self {
        Self { error: Some(error), ..self }
    }

    /// A statistic of one or two columns.
    const fn statistic(name: &'static str, create: Create) -> Self {
        Self::ours(name, statistic_udaf).state_or_rows(create, UNDONE)
    }

    /// The function that the batch half runs.
    pub fn batch_form(&self) -> Option<Arc<AggregateUDF>> {
        static THEIRS: LazyLock<Vec<Arc<AggregateUDF>>> =
            LazyLock::new(SessionStateDefaults::default_aggregate_functions);
        match &self.batch {
            Batch::Theirs => THEIRS.iter().find(|f| f.name() == self.name).cloned(),
            Batch::Ours(body) => body(self.name),
        }
    }

    /// Whether a view can compute it over the rows of a group.
    pub fn is_recomputed(&self) -> bool {
        matches!(self.incremental, Incremental::Rows | Incremental::StateOrRows(_))
    }

    /// Whether DISTINCT values are told apart ahead of its state.
    pub fn takes_distinct(&self, signature: &Signature) -> bool {
        signature.order.is_empty() && self.distinct == Distinct::Ahead
    }
}

fn is_integer(argument: Option<&DataType>) -> bool {
    argument.is_some_and(DataType::is_integer)
}

/// Whether values of a type that are equal are the same.
fn is_one_order(argument: Option<&DataType>) -> bool {
    !argument.is_some_and(|t| t.is_floating() || t.is_nested())
}

type F = AggregateFunction;

/// Every aggregate function, sorted by name.
#[rustfmt::skip]
pub static AGGREGATES: &[AggregateFunction] = &[
    // The least value of the group, which is what `first_value` is of it.
    F::theirs("any_value").rows(),
    F::ours("approx_count_distinct", |_| Some(approx_count_distinct_udaf()))
        .aliases(&["approx_distinct"])
        .state(
            forms::approx_count_distinct,
            "registers count what they met, and forget a rank with its last value: what is left \
             is the sketch of the other rows",
        )
        .distinct(Distinct::Blind)
        .error("standard error 0.8 %"),
    F::theirs("approx_median"),
    F::theirs("approx_percentile_cont"),
    F::theirs("approx_percentile_cont_with_weight"),
    F::theirs("array_agg").rows().order(Order::Lists),
    F::ours("avg", |_| Some(avg_udaf()))
        .aliases(&["mean"])
        .state(forms::avg, UNDONE)
        .distinct(Distinct::Ahead)
        .panes(&[sum_pane("sum"), pane("count", "sum")])
        .frames(is_integer),
    F::theirs("bit_and").rows().distinct(Distinct::Blind),
    F::theirs("bit_or").rows().distinct(Distinct::Blind),
    F::theirs("bit_xor").rows(),
    F::theirs("bool_and")
        .aliases(&["every"])
        .state(forms::bool_and, UNDONE)
        .distinct(Distinct::Blind)
        .panes(&[pane("bool_and", "bool_and")])
        .frames(|_| true),
    F::theirs("bool_or")
        .state(forms::bool_or, UNDONE)
        .distinct(Distinct::Blind)
        .panes(&[pane("bool_or", "bool_or")])
        .frames(|_| true),
    F::statistic("corr", |s| forms::moments("corr", s)),
    F::theirs("count")
        .state(forms::count, UNDONE)
        .distinct(Distinct::Ahead)
        .panes(&[pane("count", "sum")])
        .frames(|_| true),
    F::statistic("covar_pop", |s| forms::moments("covar_pop", s)),
    F::statistic("covar_samp", |s| forms::moments("covar_samp", s)).aliases(&["covar"]),
    F::theirs("first_value").rows().order(Order::Chooses).frames(|_| true),
    F::theirs("grouping"),
    F::ours("jsonb_agg", json_udaf).aliases(&["json_agg"]).rows().order(Order::Lists).json(),
    F::ours("jsonb_object_agg", json_udaf)
        .aliases(&["json_object_agg"])
        .rows()
        .order(Order::Lists)
        .json(),
    F::theirs("last_value").rows().order(Order::Chooses).frames(|_| true),
    F::theirs("max")
        .state_or_rows(forms::max, COUNTED)
        .distinct(Distinct::Blind)
        .panes(&[pane("max", "max")])
        .frames(is_one_order),
    F::theirs("median").rows(),
    F::theirs("min")
        .state_or_rows(forms::min, COUNTED)
        .distinct(Distinct::Blind)
        .panes(&[pane("min", "min")])
        .frames(is_one_order),
    F::ours("mode", ordered_set_udaf).rows(),
    F::theirs("nth_value"),
    F::ours("percentile_cont", ordered_set_udaf).aliases(&["quantile_cont"]).rows(),
    F::ours("percentile_disc", ordered_set_udaf).rows(),
    F::statistic("regr_avgx", |s| forms::moments("regr_avgx", s)),
    F::statistic("regr_avgy", |s| forms::moments("regr_avgy", s)),
    F::statistic("regr_count", |s| forms::moments("regr_count", s)),
    F::statistic("regr_intercept", |s| forms::moments("regr_intercept", s)),
    F::statistic("regr_r2", |s| forms::moments("regr_r2", s)),
    F::statistic("regr_slope", |s| forms::moments("regr_slope", s)),
    F::statistic("regr_sxx", |s| forms::moments("regr_sxx", s)),
    F::statistic("regr_sxy", |s| forms::moments("regr_sxy", s)),
    F::statistic("regr_syy", |s| forms::moments("regr_syy", s)),
    F::ours("single_value", |_| Some(single_value_udaf())).state(forms::single_value, COUNTED),
    F::statistic("stddev", |s| forms::moments("stddev", s)).aliases(&["stddev_samp"]),
    F::statistic("stddev_pop", |s| forms::moments("stddev_pop", s)),
    F::ours("string_agg", |_| Some(string_agg_udaf())).rows().order(Order::Lists),
    F::ours("sum", |_| Some(sum_udaf()))
        .state(forms::sum, UNDONE)
        .distinct(Distinct::Ahead)
        .panes(&[sum_pane("sum")])
        .frames(is_integer),
    F::statistic("var", |s| forms::moments("var", s))
        .aliases(&["var_samp", "var_sample", "variance"]),
    F::statistic("var_pop", |s| forms::moments("var_pop", s)).aliases(&["var_population"]),
];

/// The entry of an aggregate by one of its names.
pub fn aggregate(name: &str) -> Option<&'static AggregateFunction> {
    AGGREGATES.iter().find(|f| is_named(name, f.name, f.aliases))
}

/// Makes the form of an aggregate that a view keeps up to date.
pub fn incremental(name: &str, signature: &Signature) -> Result<Box<dyn Aggregate>> {
    let refused = || {
        Error::unsupported(format!(
            "aggregate function {name} is not supported in a materialized view"
        ))
    };
    let function = aggregate(name).ok_or_else(refused)?;
    let by_state =
        signature.order.is_empty() && (!signature.distinct || function.distinct != Distinct::Rows);
    match &function.incremental {
        Incremental::State(create) if by_state => create(signature),
        Incremental::StateOrRows(create) if by_state => match create(signature) {
            Err(_) if signature.batch.is_some() => by_rows(name, signature),
            made => made,
        },
        Incremental::StateOrRows(_) | Incremental::Rows => by_rows(name, signature),
        Incremental::State(_) | Incremental::None => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_aggregate_of_datafusion_has_an_entry() {
        for theirs in SessionStateDefaults::default_aggregate_functions() {
            for name in theirs.aliases().iter().map(String::as_str).chain([theirs.name()]) {
                assert!(aggregate(name).is_some(), "\"{name}\" is not in the library");
            }
        }
    }

    #[test]
    fn entries_are_sorted_and_names_are_of_one() {
        assert!(AGGREGATES.is_sorted_by(|a, b| a.name < b.name));
        let mut names = BTreeSet::new();
        for name in AGGREGATES.iter().flat_map(|f| f.aliases.iter().chain([&f.name])) {
            assert!(names.insert(*name), "\"{name}\" is there twice");
        }
    }

    #[test]
    fn bodies_are_called_as_their_entries() {
        for function in AGGREGATES {
            let body = function.batch_form().map(|f| f.name().to_owned());
            assert_eq!(body.as_deref(), Some(function.name));
        }
    }

    /// A view that puts windows together from panes knows the parts.
    #[test]
    fn parts_of_panes_have_states() {
        for pane in AGGREGATES.iter().flat_map(|f| f.panes) {
            for name in [pane.part, pane.merged_by] {
                let found = aggregate(name).map(|f| !matches!(f.incremental, Incremental::None));
                assert_eq!(found, Some(true), "{name}");
            }
        }
    }
}
