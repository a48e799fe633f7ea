//! Computed columns of tables and sources: `b AS a + 1`, `b int AS a + 1` and `b int GENERATED
//! ALWAYS AS (a + 1) STORED`.
//!
//! Where a row comes in, its values are made of those of the columns that are not computed, and are
//! kept with it; so a watermark may be for one, and everything behind takes them for columns like
//! others. `proctime()` is not kept: it is put in where a source is named, see [`with_arrivals`].

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, ScalarValue, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource, Volatility};
use sqlparser::ast;

use super::binder::{Purpose, Settings, plan_expr};
use super::constant;
use super::context::{Context, nullable};
use super::dml::{has_subquery, parse_expr};
use super::errors::plan_error;
use super::parser::fold;
use super::pass::over_constant;
use super::statement::{ColumnDef, CreateTable};
use super::types::check_column_type;
use super::visit::any_expr;
use crate::catalog::{Catalog, Computed, Relation, local_name};
use crate::connector::ComputedColumn;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{
    Coercion, Walk, assignment_error, can_cast, cast_array, cast_expr, compile, from_datafusion,
    proctime_type, proctime_udf,
};

/// A table with the types of its computed columns, which are looked at; `None` without any.
pub fn with_computed(create: &CreateTable, settings: &Settings) -> Result<Option<CreateTable>> {
    if create.columns.iter().all(|c| c.computed.is_none()) {
        return Ok(None);
    }
    check_key(create)?;
    let computed = |c: &ColumnDef| c.computed.is_some();
    let given = create.columns.iter().filter(|c| !computed(c));
    let given = given.map(|c| Field::new(&c.name, c.data_type.clone(), true));
    let given: SchemaRef = Arc::new(Schema::new(given.collect::<Vec<_>>()));
    let given = DFSchema::try_from_qualified_schema(local_name(&create.name), &given);
    let given = given.map_err(from_datafusion)?;
    let others: Vec<&str> =
        create.columns.iter().filter(|c| computed(c)).map(|c| c.name.as_str()).collect();
    let mut typed = create.clone();
    for (at, column) in typed.columns.iter_mut().enumerate() {
        let Some(expr) = &column.computed else { continue };
        if is_arrival(expr) {
            check_arrival(create, at)?;
            column.data_type = proctime_type();
            continue;
        }
        let records = create.columns.iter().filter_map(|c| Some((&c.name, c.record.as_ref()?)));
        let bound = bind(expr, (&others, &given), records, settings)?;
        let found = constant::type_of(&bound, &given)?;
        if column.data_type == DataType::Null {
            column.data_type = match found {
                DataType::Null | DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
                found => found,
            };
            check_column_type(&column.data_type)?;
        }
    }
    Ok(Some(typed))
}

/// What is to be kept of the computed columns of a table.
pub(super) fn rules(create: &CreateTable) -> impl Iterator<Item = (usize, Computed)> {
    let computed = create.columns.iter().enumerate();
    computed.filter_map(|(at, column)| {
        let expr = column.computed.as_ref()?;
        Some((
            at,
            if is_arrival(expr) { Computed::Arrival } else { Computed::Stored(expr.to_string()) },
        ))
    })
}

fn is_arrival(expr: &ast::Expr) -> bool {
    let ast::Expr::Function(f) = expr else { return false };
    let none = match &f.args {
        ast::FunctionArguments::None => true,
        ast::FunctionArguments::List(list) => list.args.is_empty(),
        ast::FunctionArguments::Subquery(_) => false,
    };
    let [ast::ObjectNamePart::Identifier(name)] = f.name.0.as_slice() else { return false };
    none && f.over.is_none() && f.filter.is_none() && fold(name) == "proctime"
}

/// A key is that of a row before anything is computed.
fn check_key(create: &CreateTable) -> Result<()> {
    let mut key = create.primary_key.iter().map(|at| &create.columns[*at]);
    match key.find(|c| c.computed.is_some()) {
        None => Ok(()),
        Some(column) => Err(Error::unsupported(format!(
            "a primary key with computed column \"{}\" is not supported",
            column.name
        ))
        .with_hint("Use the columns that it is computed from.")),
    }
}

fn check_arrival(create: &CreateTable, column: usize) -> Result<()> {
    let name = &create.columns[column].name;
    if !create.source {
        return Err(Error::unsupported(format!(
            "column \"{name}\" of a table can't be proctime(): rows that are kept have come"
        ))
        .with_hint(format!(
            "Use CREATE SOURCE, or FROM (SELECT *, proctime() AS {name} FROM {}) r in the view.",
            create.name
        )));
    }
    if create.watermark.as_ref().is_some_and(|(at, _)| *at == column) {
        return Err(Error::user(
            sqlstate::INVALID_TABLE_DEFINITION,
            format!("column \"{name}\" is proctime(), which has no watermark but the clock"),
        )
        .with_hint("Leave WATERMARK FOR out."));
    }
    Ok(())
}

/// The expression of a computed column over the columns that are not.
fn bind<'a>(
    expr: &ast::Expr,
    (computed, given): (&[&str], &DFSchema),
    records: impl Iterator<Item = (&'a String, &'a DataType)>,
    settings: &Settings,
) -> Result<Expr> {
    let records: Vec<(&String, &DataType)> = records.collect();
    let column = |e: &ast::Expr| match e {
        ast::Expr::Identifier(name) => Some(fold(name)),
        // A field of one of the columns.
        ast::Expr::CompoundIdentifier(parts)
            if parts.first().is_some_and(|of| records.iter().any(|(n, _)| **n == fold(of))) =>
        {
            None
        }
        ast::Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        _ => None,
    };
    let is = |e: &ast::Expr, name: &str| column(e).is_some_and(|column| column == name);
    if let Some(name) = computed.iter().find(|name| any_expr(expr, &|e| is(e, name))) {
        return Err(Error::user(
            sqlstate::INVALID_OBJECT_DEFINITION,
            format!("cannot use generated column \"{name}\" in column generation expression"),
        )
        .with_detail("A generated column cannot reference another generated column."));
    }
    if has_subquery(expr) {
        return Err(Error::unsupported("cannot use subquery in column generation expression"));
    }
    let catalog = Catalog::default();
    let context = Context::new(&catalog, Purpose::View, settings);
    records.iter().for_each(|(name, record)| context.records().add_column(name, record));
    let planned = plan_expr(expr, given, &context, &[])?;
    check_plain(&planned)?;
    over_constant(planned, given, Some(settings.now))
}

fn check_plain(planned: &Expr) -> Result<()> {
    let mut wrong = None;
    let mut look = |e: &Expr| {
        let found = match e {
            Expr::AggregateFunction(_) => Some((sqlstate::GROUPING_ERROR, "aggregate functions")),
            Expr::WindowFunction(_) => Some((sqlstate::WINDOWING_ERROR, "window functions")),
            Expr::ScalarFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
                Some((sqlstate::INVALID_OBJECT_DEFINITION, ""))
            }
            _ => None,
        };
        wrong = wrong.take().or(found);
        Ok(TreeNodeRecursion::Continue)
    };
    planned.apply(&mut look).map_err(from_datafusion)?;
    match wrong {
        None => Ok(()),
        Some((state, "")) => Err(Error::user(state, "generation expression is not immutable")
            .with_hint("Compute it in a view, where now() has a meaning.")),
        Some((state, what)) => Err(Error::user(
            state,
            format!("{what} are not allowed in column generation expressions"),
        )),
    }
}

/// The computed columns of a relation that are kept, with expressions of their types over its other
/// columns.
pub fn computed_columns(relation: &Relation, settings: &Settings) -> Result<Vec<ComputedColumn>> {
    let rules = &relation.rules.computed;
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let given = given(relation)?;
    let names: Vec<&str> =
        rules.keys().map(|at| relation.schema.field(*at).name().as_str()).collect();
    let mut columns = Vec::new();
    for (at, rule) in rules {
        let to = relation.schema.field(*at);
        let expr = match rule {
            Computed::Arrival => {
                Expr::Literal(ScalarValue::try_from(to.data_type()).map_err(from_datafusion)?, None)
            }
            Computed::Stored(text) => {
                let records = relation.rules.records.iter();
                let records = records.map(|(at, r)| (relation.schema.field(*at).name(), r));
                let expr = bind(&parse_expr(text)?, (&names, &given), records, settings)?;
                let from = constant::type_of(&expr, &given)?;
                let text = matches!(expr, Expr::Literal(ScalarValue::Utf8(_), _));
                if !text && !can_cast(&from, to.data_type(), Coercion::Assignment) {
                    return Err(assignment_error(to.name(), to.data_type(), &from));
                }
                let how = if text { Coercion::Explicit } else { Coercion::Assignment };
                cast_expr(expr, &from, to.data_type(), how)?
            }
        };
        columns.push(ComputedColumn { column: *at, expr });
    }
    Ok(columns)
}

/// The columns that are not computed.
fn given(relation: &Relation) -> Result<DFSchema> {
    let schema = nullable(&relation.schema);
    let fields = schema.fields().iter().enumerate();
    let fields = fields.filter(|(at, _)| !relation.rules.computed.contains_key(at));
    let fields = fields.map(|(_, field)| field.clone()).collect::<Vec<_>>();
    let schema = Arc::new(Schema::new(fields));
    DFSchema::try_from_qualified_schema(relation.local_name(), &schema).map_err(from_datafusion)
}

/// Rows that a statement writes, with their computed columns in the place of what is there.
pub(super) fn compute_rows(
    relation: &Relation,
    rows: &RecordBatch,
    settings: &Settings,
) -> Result<RecordBatch> {
    if relation.rules.computed.is_empty() || rows.num_rows() == 0 {
        return Ok(rows.clone());
    }
    let compute = || {
        let columns = computed_columns(relation, settings)?;
        let schema = nullable(&relation.schema);
        let input = DFSchema::try_from_qualified_schema(relation.local_name(), &schema);
        let input = input.map_err(from_datafusion)?;
        let given = RecordBatch::try_new(schema.clone(), rows.columns().to_vec())?;
        let mut arrays = rows.columns().to_vec();
        for ComputedColumn { column, expr } in columns {
            let values = compile(&expr, &input)?.evaluate(&given).map_err(from_datafusion)?;
            let values = values.into_array(rows.num_rows()).map_err(from_datafusion)?;
            arrays[column] = cast_array(&values, schema.field(column).data_type())?;
        }
        Ok(RecordBatch::try_new(schema, arrays)?)
    };
    relation.style().under(compute)
}

/// A source whose columns of arrival are `proctime()` where it is named.
pub(super) fn with_arrivals(
    name: &str,
    relation: &Relation,
    source: Arc<dyn TableSource>,
) -> Result<Option<LogicalPlan>> {
    let rules = &relation.rules.computed;
    if !rules.values().any(|rule| *rule == Computed::Arrival) {
        return Ok(None);
    }
    let scan = LogicalPlanBuilder::scan(TableReference::bare(name), source, None);
    let scan = scan.map_err(plan_error)?;
    let column = |(at, (table, field)): (usize, (Option<&TableReference>, &Arc<Field>))| match rules
        .get(&at)
    {
        Some(Computed::Arrival) => proctime_udf().call(vec![]).alias(field.name()),
        _ => Expr::from((table, field)),
    };
    let exprs: Vec<Expr> = scan.schema().iter().enumerate().map(column).collect();
    let plan = scan.project(exprs).and_then(LogicalPlanBuilder::build);
    plan.map(Some).map_err(plan_error)
}
