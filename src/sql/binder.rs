//! Queries to bound plans: check, name, plan, rewrite to PostgreSQL's meaning, coerce, optimise,
//! check again.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono::{DateTime, Utc};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use sqlparser::ast;

use super::context::Reads;
use super::context::{Context, config};
use super::errors::plan_error;
use super::limits::check_columns;
use super::memory::QueryMemory;
use super::names::{check_unique, unmarked};
use super::optimize::{analyze, optimize};
use super::parser::parse;
use super::parts::map_plans;
use super::pass::{self, Repaired, Scope, Stage};
use super::scopes::declares;
use super::statement::{CreateView, Statement};
use super::system::SessionFacts;
use crate::cancel::{Cancel, under};
use crate::catalog::{Catalog, Relation, RelationId};
use crate::delta::style::TextStyle;
use crate::delta::text::pg_type_name;
use crate::delta::zone::Zone;
use crate::error::{Error, Result, sqlstate};

/// What a plan is for, which decides what it may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A materialized view or a sink's query: kept up to date by operators.
    View,
    /// Run once by the batch half.
    AdHoc,
}

/// What a session gives to binding and execution.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The time that `now()` stands for in ad-hoc statements: the start of the transaction.
    pub now: DateTime<Utc>,
    /// Partitions of the batch half.
    pub target_partitions: usize,
    /// Whether plans are optimised. One that is not gives the same rows, and takes longer.
    pub optimize: bool,
    /// What the session says about itself.
    pub session: Arc<SessionFacts>,
    /// The token of the statement: planning and operators of reads look at it.
    pub cancel: Cancel,
    /// The memory of the query; without it there is no limit.
    pub memory: Option<QueryMemory>,
    /// How texts of values are written and read; definitions have the zone of it alone.
    pub style: TextStyle,
}

impl Settings {
    /// The settings of a session that has set nothing, at a time.
    pub fn at(now: DateTime<Utc>) -> Self {
        let (session, cancel) = (Arc::default(), Cancel::default());
        let style = TextStyle::DEFAULT;
        Self { now, target_partitions: 1, optimize: true, session, cancel, memory: None, style }
    }
}

/// A query, ready to be lowered or run.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The optimised plan. Its columns are those of `fields`, by position; scans are of
    /// [`RelationSource`](super::RelationSource).
    pub plan: LogicalPlan,
    /// Names and types of the result, as the user sees them.
    pub fields: SchemaRef,
    /// The relations that it reads, plain views and what is behind them included, ascending.
    pub depends_on: Vec<RelationId>,
    /// What somebody has to be allowed to read.
    pub reads: Reads,
}

/// Binds a query. A top-level ORDER BY means nothing in a view and is left out.
pub fn bind_query(
    query: &ast::Query,
    catalog: &Catalog,
    purpose: Purpose,
    settings: &Settings,
) -> Result<Bound> {
    let context = Context::new(catalog, purpose, settings);
    let style = match purpose {
        Purpose::AdHoc => settings.style,
        Purpose::View => TextStyle::of_zone(settings.style.zone),
    };
    let bound = style.under(|| {
        let scope = Scope::of(&context, &[]);
        finish(analyze(plan_query(query, &scope)?)?, &scope)
    })?;
    if purpose == Purpose::View {
        check_unique(bound.plan.schema().fields().iter().map(|f| f.name().as_str()))?;
    }
    Ok(bound)
}

/// Binds the query of CREATE VIEW or CREATE MATERIALIZED VIEW and gives its columns the names in
/// parentheses. The query of a plain view may be anything that can be read ad hoc.
pub fn bind_view(view: &CreateView, catalog: &Catalog, settings: &Settings) -> Result<Bound> {
    TextStyle::of_zone(settings.style.zone).under(|| bind_in_zone(view, catalog, settings))
}

/// The zone that the plan of a view hangs on. That of a materialized view, which nobody expands, is
/// only looked for where it would not be taken for granted.
pub fn zone_of_view(
    view: &CreateView,
    bound: &Bound,
    catalog: &Catalog,
    settings: &Settings,
) -> Option<Zone> {
    let zone = settings.style.zone;
    if view.materialized && zone.is_utc() {
        return Some(zone);
    }
    let other = TextStyle::of_zone(other_zone(zone));
    match other.under(|| bind_in_zone(view, catalog, settings)) {
        Ok(other) if other.plan == bound.plan => None,
        _ => Some(zone),
    }
}

/// A zone whose clocks show something else.
pub(super) fn other_zone(zone: Zone) -> Zone {
    if zone.is_utc() { Zone::Fixed(3_600) } else { Zone::UTC }
}

fn bind_in_zone(view: &CreateView, catalog: &Catalog, settings: &Settings) -> Result<Bound> {
    let purpose = if view.materialized { Purpose::View } else { Purpose::AdHoc };
    let context = Context::for_definition(catalog, purpose, settings);
    let scope = Scope::of(&context, &[]);
    let mut bound = finish(analyze(plan_query(&view.query, &scope)?)?, &scope)?;
    refuse_records(&bound.fields)?;
    let given = &view.columns;
    let names: Vec<String> =
        bound.plan.schema().fields().iter().map(|f| f.name().clone()).collect();
    if given.len() > names.len() {
        return Err(Error::user(
            sqlstate::SYNTAX_ERROR,
            "CREATE VIEW specifies more column names than columns",
        ));
    }
    let rest = names.iter().skip(given.len()).map(|name| unmarked(name).to_string());
    let names: Vec<String> = given.iter().cloned().chain(rest).collect();
    check_unique(names.iter().map(String::as_str))?;
    check_columns(names.len())?;
    let fields: Vec<Field> = bound
        .fields
        .fields()
        .iter()
        .zip(&names)
        .map(|(f, name)| f.as_ref().clone().with_name(name))
        .collect();
    bound.fields = Arc::new(Schema::new(fields));
    Ok(bound)
}

/// A row of expressions has no type that a column could have.
pub fn refuse_records(fields: &Schema) -> Result<()> {
    let is_record = |t: &DataType| match t {
        DataType::Struct(_) => true,
        DataType::List(field) => matches!(field.data_type(), DataType::Struct(_)),
        _ => false,
    };
    match fields.fields().iter().find(|f| is_record(f.data_type())) {
        None => Ok(()),
        Some(field) => Err(Error::user(
            sqlstate::INVALID_TABLE_DEFINITION,
            format!(
                "column \"{}\" has pseudo-type {}",
                field.name(),
                pg_type_name(field.data_type())
            ),
        )
        .with_hint(format!("Cast it: \"{}\"::text.", field.name()))),
    }
}

/// Optimises an analysed plan and checks it. A plain view keeps its query's text: its plan is only
/// looked at.
pub(super) fn finish(plan: LogicalPlan, scope: &Scope<'_, '_>) -> Result<Bound> {
    let fields = output_fields(&plan);
    let cancel = scope.context.cancel();
    let plan = under(cancel, || map_plans(plan, &mut |plan| optimize(plan, scope)))?;
    let (depends_on, reads) = (scope.context.depends_on(), scope.context.reads());
    Ok(Bound { plan, fields, depends_on, reads })
}

/// Names and types of a plan's output; all nullable, because a plan may prove what data does not
/// keep.
pub(super) fn output_fields(plan: &LogicalPlan) -> SchemaRef {
    let fields: Vec<Field> = plan
        .schema()
        .fields()
        .iter()
        .map(|f| Field::new(unmarked(f.name()), f.data_type().clone(), true))
        .collect();
    Arc::new(Schema::new(fields))
}

/// Plans a query and puts PostgreSQL's meaning into it; types are not coerced yet.
pub(super) fn plan_query(query: &ast::Query, scope: &Scope<'_, '_>) -> Result<LogicalPlan> {
    with_meaning(plan_raw(query, scope.context, scope.parameters)?, scope)
}

/// Puts PostgreSQL's meaning into a plan.
fn with_meaning(plan: LogicalPlan, scope: &Scope<'_, '_>) -> Result<LogicalPlan> {
    under(scope.context.cancel(), || pass::over_plan(Stage::Meaning, plan, scope))
}

/// The plan of a query that others read by name, as far as it goes without knowing them.
pub(super) fn plan_part(query: &ast::Query, context: &Context<'_>) -> Result<LogicalPlan> {
    finish_part(plan_raw(query, context, &[])?, context)
}

/// The same for what has been planned already.
pub(super) fn finish_part(plan: LogicalPlan, context: &Context<'_>) -> Result<LogicalPlan> {
    analyze(with_meaning(plan, &Scope::of(context, &[]))?)
}

/// Plans a query as it was written.
pub(super) fn plan_raw(
    query: &ast::Query,
    context: &Context<'_>,
    parameters: &[Option<DataType>],
) -> Result<LogicalPlan> {
    let (mut query, scope) = (query.clone(), Scope::of(context, parameters));
    pass::over_query(Stage::Syntax, &mut query, &scope)?;
    let mut begun = pass::mark();
    let mut planned = plan_named(query.clone(), &scope);
    loop {
        let Err(error) = planned else { return planned };
        pass::back_to(begun);
        match pass::over_failed(&mut query, &error, &scope)? {
            Repaired::No => return Err(unreachable_query(error, &query)),
            Repaired::OrElse => return plan_named(query, &scope).map_err(|_| error),
            Repaired::Yes => {
                begun = pass::mark();
                planned = plan_named(query.clone(), &scope);
            }
        }
    }
}

/// 42P01 of what a WITH query is called that can't be named where it is.
fn unreachable_query(error: Error, query: &ast::Query) -> Error {
    let Some(name) = error.message().strip_prefix("relation \"").and_then(|m| m.split('"').next())
    else {
        return error;
    };
    if error.sqlstate() != sqlstate::UNDEFINED_TABLE || !declares(query, name) {
        return error;
    }
    let detail = format!(
        "There is a WITH item named \"{name}\", but it cannot be referenced from this part of the \
         query."
    );
    error
        .with_detail(detail)
        .with_hint("Use WITH RECURSIVE, or re-order the WITH items to remove forward references.")
}

/// Names the columns of a query, rewrites what DataFusion has no words for, and plans it.
fn plan_named(mut query: ast::Query, scope: &Scope<'_, '_>) -> Result<LogicalPlan> {
    pass::over_query(Stage::Naming, &mut query, scope)?;
    pass::over_named(query, scope)
}

/// The query of a view.
pub fn query_of_view(view: &Relation) -> Result<ast::Query> {
    let text = view.query.as_deref().unwrap_or_default();
    let mut statements = parse(text)?;
    match (statements.pop().map(|one| one.statement), statements.is_empty()) {
        (Some(Statement::Query(query)), true) => Ok(*query),
        _ => Err(Error::internal(format!("view \"{}\" has no query", view.name))),
    }
}

/// The plan of a plain view, with the names of its columns, for the query that reads it.
pub(super) fn plan_view(view: &Relation, context: &Context<'_>) -> Result<LogicalPlan> {
    let mentions = context.mentions();
    let plan = match mentions.as_ref().and_then(|m| m.query(view.id)) {
        Some(query) => plan_raw(query, context, &[])?,
        None => plan_raw(&query_of_view(view)?, context, &[])?,
    };
    let columns = plan.schema().columns();
    let named = columns
        .into_iter()
        .zip(view.schema.fields())
        .map(|(column, field)| Expr::Column(column).alias(field.name()));
    LogicalPlanBuilder::from(plan)
        .project(named)
        .and_then(LogicalPlanBuilder::build)
        .map_err(plan_error)
}

pub(super) fn planner<'a>(context: &'a Context<'a>) -> SqlToRel<'a, Context<'a>> {
    SqlToRel::new_with_options(context, ParserOptions::from(&config().sql_parser))
}

/// The planner's context with the declared types of `$1`, `$2`, ..
pub(super) fn planner_context(parameters: &[Option<DataType>]) -> PlannerContext {
    let fields = parameters
        .iter()
        .map(|t| t.as_ref().map(|t| Arc::new(Field::new("", t.clone(), true))))
        .collect();
    PlannerContext::new().with_prepare_param_data_types(fields)
}

/// Plans and rewrites an expression over the columns of a schema; types are not coerced.
pub(super) fn plan_expr(
    expr: &ast::Expr,
    schema: &DFSchema,
    context: &Context<'_>,
    parameters: &[Option<DataType>],
) -> Result<Expr> {
    pass::over_expr(expr.clone(), schema, &Scope::of(context, parameters))
}
