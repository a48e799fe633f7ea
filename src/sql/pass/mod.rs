//! The passes: every step that rewrites a statement, over its syntax or its plan, in the order in
//! which they run.
//!
//! [`LIST`] is what runs: there is no other place that calls a pass. Views, reads, the queries of
//! DML, DEFAULT, CHECK and statements with parameters go through the same stages of it; a pass
//! says whether it is of views, of reads or of both, and why it stands where it stands. A pass has
//! a form for queries, one for expressions alone, or both. The rules of DataFusion's analyser and
//! optimisers are passes, too (`sql/rules`). `EXPLAIN (PASSES)` shows what each of them has
//! changed, and `docs/passes.md` is the list as text.
//!
//! To add one: a file with a function, and an entry at its place in `list.rs`.

mod list;
mod run;
mod show;
mod trace;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::DataType;
use chrono::{DateTime, Utc};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::{AnalyzerRule, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use sqlparser::ast;

use super::batch::Binding;
use super::binder::{Purpose, Settings};
use super::context::Context;
use super::widths::Widths;
use crate::catalog::Relation;
use crate::error::{Error, Result};

pub(super) use list::LIST;
pub(super) use run::{
    Repaired, over_bound, over_constant, over_expr, over_failed, over_named, over_operators,
    over_parsed_expr, over_parsed_query, over_parsed_statement, over_plan, over_query, text,
};
pub use show::explain_passes;
pub(super) use trace::{apart, back_to, begins, changed, mark, quietly};

/// Whose plans a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// Views and reads: both have the same meaning.
    Both,
    /// Views, which operators keep up to date.
    Views,
    /// Reads, which the batch half runs, recomputations among them.
    Reads,
    /// Nobody: a rule of DataFusion that is left out.
    Nobody,
}

impl For {
    /// Whether it is run for a purpose.
    pub(super) fn serves(self, purpose: Purpose) -> bool {
        match self {
            Self::Both => true,
            Self::Views => purpose == Purpose::View,
            Self::Reads => purpose == Purpose::AdHoc,
            Self::Nobody => false,
        }
    }
}

impl fmt::Display for For {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Both => "views and reads",
            Self::Views => "views",
            Self::Reads => "reads",
            Self::Nobody => "left out",
        })
    }
}

/// The stages of a statement, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// A statement as it was read.
    Parse,
    /// The syntax of a query, once.
    Syntax,
    /// The syntax of a query with names for its columns; again where planning has failed.
    Naming,
    /// Where planning has failed for a reason that a pass can take away.
    Repair,
    /// From syntax to a plan, and what is of its form alone.
    Planning,
    /// PostgreSQL's meaning in the plan.
    Meaning,
    /// Rows of a query in the columns of the table that they are written to.
    Assignment,
    /// DataFusion's analyser.
    Analysis,
    /// What the optimiser must find done.
    Ordering,
    /// DataFusion's optimiser over logical plans.
    Optimisation,
    /// What is made of the optimised plan.
    Completion,
    /// A plan of a read with its rows.
    Execution,
    /// DataFusion's optimiser over physical plans, and what is put around it.
    Physical,
}

impl Stage {
    /// What it is called in the documentation.
    #[cfg(test)]
    fn title(self) -> &'static str {
        match self {
            Self::Parse => "What was read",
            Self::Syntax => "The syntax of a query",
            Self::Naming => "The syntax, with names for columns",
            Self::Repair => "Where planning has failed",
            Self::Planning => "From syntax to a plan",
            Self::Meaning => "PostgreSQL's meaning",
            Self::Assignment => "Rows that are written",
            Self::Analysis => "DataFusion's analyser",
            Self::Ordering => "Ahead of the optimiser",
            Self::Optimisation => "DataFusion's optimiser",
            Self::Completion => "Behind the optimiser",
            Self::Execution => "A read with its rows",
            Self::Physical => "The operators of a read",
        }
    }
}

/// A step that rewrites, or refuses.
pub(super) struct Pass {
    /// What it is called.
    pub(super) name: &'static str,
    /// Whose plans it is for.
    pub(super) purpose: For,
    /// What it does, and why here.
    pub(super) why: &'static str,
    /// The step.
    pub(super) step: Step,
}

type OverStatement = fn(&mut ast::Statement) -> Result<()>;
type OverParsed = fn(&mut ast::Query) -> Result<()>;
type OverExpr = fn(&mut ast::Expr) -> Result<()>;
type OverQuery = fn(&mut ast::Query, &Scope<'_, '_>) -> Result<()>;
type AfterError = fn(&mut ast::Query, &Error, &Scope<'_, '_>) -> Result<bool>;
type Planner = fn(ast::Query, &Scope<'_, '_>) -> Result<LogicalPlan>;
type ExprPlanner = fn(ast::Expr, &DFSchema, &Scope<'_, '_>) -> Result<Expr>;
type OverPlan = fn(LogicalPlan, &Scope<'_, '_>) -> Result<LogicalPlan>;
type OverPlanned = fn(Expr, &DFSchema, &Scope<'_, '_>) -> Result<Expr>;
type OverConstant = fn(Expr, &DFSchema, Option<DateTime<Utc>>) -> Result<Expr>;
type OverBound = fn(LogicalPlan, &Binding<'_>) -> Result<LogicalPlan>;
type OverOperators = fn(Operators, &Settings, &Arc<Widths>) -> DfResult<Operators>;

/// A physical plan.
pub(super) type Operators = Arc<dyn ExecutionPlan>;
/// A rule of the analyser.
pub(super) type AnalysisRule = Arc<dyn AnalyzerRule + Send + Sync>;
/// A rule of the optimiser.
pub(super) type LogicalRule = Arc<dyn OptimizerRule + Send + Sync>;
/// A rule of the optimiser of physical plans.
pub(super) type PhysicalRule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// What a pass works on. A form that it does not have has nothing to rewrite.
pub(super) enum Step {
    /// The syntax that was read: of a statement, of a query, of an expression.
    Parsed { statement: Option<OverStatement>, query: OverParsed, expr: Option<OverExpr> },
    /// The syntax of a query, or of an expression alone.
    Syntax { query: Option<OverQuery>, expr: Option<OverExpr> },
    /// The syntax of a query that could not be planned; whether it is worth another try, and
    /// whether that is the last one.
    Repair { query: AfterError, last: bool },
    /// From syntax to a plan.
    Plan { query: Planner, expr: ExprPlanner },
    /// A plan, or an expression over a schema.
    Planned { plan: Option<OverPlan>, expr: Option<OverPlanned> },
    /// An expression that is about to be evaluated, and the time that it is given.
    Constant(OverConstant),
    /// A rule of DataFusion's analyser.
    Analysis(Use<AnalysisRule>),
    /// A rule of its optimiser.
    Logical(Use<LogicalRule>),
    /// A plan whose rows are known.
    Bound(OverBound),
    /// A rule of the optimiser of physical plans.
    Physical(Use<PhysicalRule>),
    /// Operators put around those of a physical plan.
    Operators(OverOperators),
}

/// What becomes of a rule of DataFusion.
pub(super) enum Use<R> {
    /// It is run, as it is sound.
    Theirs,
    /// It is run, also in plans that are not to be optimised: they can't be executed without.
    Needed,
    /// Ours takes its place, or is put around it.
    Ours(fn(R) -> R),
    /// One that DataFusion does not have; whether everything else is optimised.
    Added(fn(optimize: bool) -> R),
    /// It is left out.
    Out,
}

/// What a pass may know.
pub(super) struct Scope<'s, 'c> {
    /// Catalog, purpose and settings.
    pub(super) context: &'s Context<'c>,
    /// The declared types of `$1`, `$2`, ..
    pub(super) parameters: &'s [Option<DataType>],
    /// The values of parameters, when they are known.
    pub(super) values: &'s [ScalarValue],
    /// Where the rows of the query go, when that gives them their types.
    pub(super) target: Option<Target<'s>>,
}

/// The table that rows are written to.
#[derive(Clone, Copy)]
pub(super) struct Target<'s> {
    /// The table.
    pub(super) relation: &'s Relation,
    /// The first column of the query that is assigned; those before it are as they are.
    pub(super) first: Option<usize>,
    /// The columns that are assigned, in the order of the query's.
    pub(super) columns: &'s [usize],
    /// Whether the others take their DEFAULT.
    pub(super) fills: bool,
}

impl<'s, 'c> Scope<'s, 'c> {
    /// The scope of a query that is not written anywhere.
    pub(super) fn of(context: &'s Context<'c>, parameters: &'s [Option<DataType>]) -> Self {
        Self { context, parameters, values: &[], target: None }
    }

    /// The same for a query whose rows go to a table.
    pub(super) fn to(self, target: Target<'s>) -> Self {
        Self { target: Some(target), ..self }
    }

    fn purpose(&self) -> Purpose {
        self.context.purpose()
    }
}

/// The passes of a stage.
pub(super) fn passes(stage: Stage) -> impl Iterator<Item = &'static Pass> {
    LIST.iter().filter(move |(of, _)| *of == stage).flat_map(|(_, passes)| *passes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A name tells a pass, and no pass is without a reason.
    #[test]
    fn a_pass_has_a_name_of_its_own_and_a_reason() {
        let mut names = BTreeSet::new();
        for pass in LIST.iter().flat_map(|(_, passes)| *passes) {
            assert!(names.insert(pass.name), "\"{}\" is there twice", pass.name);
            assert!(pass.why.len() > 10, "\"{}\" has no reason", pass.name);
            let out = matches!(
                pass.step,
                Step::Analysis(Use::Out) | Step::Logical(Use::Out) | Step::Physical(Use::Out)
            );
            assert_eq!(out, pass.purpose == For::Nobody, "\"{}\"", pass.name);
        }
    }

    #[test]
    fn stages_are_in_their_order() {
        let stages: Vec<u8> = LIST.iter().map(|(stage, _)| *stage as u8).collect();
        assert!(stages.is_sorted());
    }
}
