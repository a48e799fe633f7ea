//! DEFAULT and CHECK of a table's columns: kept as text, bound where rows are written.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, Volatility};
use sqlparser::ast;
use sqlparser::parser::Parser;

use super::assign::default_column;
use super::failing_row;
use crate::catalog::{Catalog, Check, Relation, WriteRules};
use crate::delta::style::TextStyle;
use crate::delta::text::pg_type_name;
use crate::delta::zone::Zone;
use crate::error::{About, Error, Result, sqlstate};
use crate::expr::{Walk, compile, from_datafusion};
use crate::sql::binder::{Purpose, Settings, other_zone, plan_expr};
use crate::sql::computed::{self, computed_columns};
use crate::sql::constant;
use crate::sql::context::{Context, nullable};
use crate::sql::dialect::DIALECT;
use crate::sql::pass::over_constant;
use crate::sql::sequences::{plain_sequences, written_default};
use crate::sql::statement::CreateTable;
use crate::sql::visit::any_expr;

/// The rules that a CREATE TABLE writes down.
pub fn write_rules(create: &CreateTable) -> Result<WriteRules> {
    let defaults = create.columns.iter().enumerate();
    let defaults = defaults.filter_map(|(i, c)| Some((i, c.default.as_ref()?)));
    let defaults = defaults.map(|(i, default)| Ok((i, written_default(default)?)));
    let lengths = create.columns.iter().enumerate();
    let identities = create.columns.iter().enumerate();
    let records = create.columns.iter().enumerate();
    let checks = create.checks.iter();
    let checks = checks.map(|(name, e)| Check { name: name.clone(), condition: e.to_string() });
    Ok(WriteRules {
        defaults: defaults.collect::<Result<_>>()?,
        checks: checks.collect(),
        on_conflict: create.on_conflict,
        lengths: lengths.filter_map(|(i, c)| Some((i, c.length?))).collect(),
        identities: identities.filter_map(|(i, c)| Some((i, c.identity?))).collect(),
        computed: computed::rules(create).collect(),
        records: records.filter_map(|(i, c)| Some((i, c.record.clone()?))).collect(),
    })
}

/// Binds the rules of a new table, so that a mistake is told by CREATE TABLE; the zone that they
/// hang on.
pub fn check_rules(relation: &Relation, settings: &Settings) -> Result<Option<Zone>> {
    let zone = settings.style.zone;
    let bound = TextStyle::of_zone(zone).under(|| bound_rules(relation, settings))?;
    let other = TextStyle::of_zone(other_zone(zone)).under(|| bound_rules(relation, settings));
    let same = bound.is_empty() || other.is_ok_and(|other| other == bound);
    Ok((!same).then_some(zone))
}

fn bound_rules(relation: &Relation, settings: &Settings) -> Result<Vec<Expr>> {
    let catalog = Catalog::default();
    let context = Context::new(&catalog, Purpose::AdHoc, settings);
    let mut bound = Vec::new();
    for column in relation.rules.defaults.keys() {
        let expr = default_expr(relation, *column)?;
        if any_expr(&expr, &|e| {
            matches!(e, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_))
        }) {
            return Err(Error::unsupported("cannot use column reference in DEFAULT expression"));
        }
        if has_subquery(&expr) {
            return Err(Error::unsupported("cannot use subquery in DEFAULT expression"));
        }
        let expr = default_column(relation, *column, &context)?;
        let expr = over_constant(expr, &DFSchema::empty(), Some(settings.now))?;
        if !is_drawn(&expr)? {
            constant::evaluate(&expr)?;
        }
        bound.push(expr);
    }
    for check in &relation.rules.checks {
        bound.push(condition(relation, check, settings)?);
    }
    bound.extend(computed_columns(relation, settings)?.into_iter().map(|c| c.expr));
    Ok(bound)
}

/// Whether an expression has another value each time: a number of a sequence would be lost.
fn is_drawn(expr: &Expr) -> Result<bool> {
    let drawn = expr.exists(|e| {
        let volatile = |f: &ScalarFunction| f.func.signature().volatility == Volatility::Volatile;
        Ok(matches!(e, Expr::ScalarFunction(f) if volatile(f)))
    });
    drawn.map_err(from_datafusion)
}

/// The DEFAULT of a column as it was written; NULL without one.
pub(super) fn default_expr(relation: &Relation, column: usize) -> Result<ast::Expr> {
    match relation.rules.defaults.get(&column) {
        None => Ok(ast::Expr::value(ast::Value::Null)),
        Some(text) => {
            let mut expr = parse_expr(text)?;
            plain_sequences(&mut expr)?;
            Ok(expr)
        }
    }
}

pub(in crate::sql) fn parse_expr(text: &str) -> Result<ast::Expr> {
    let parsed = Parser::new(&DIALECT).try_with_sql(text).and_then(|mut p| p.parse_expr());
    parsed.map_err(|e| Error::internal(format!("\"{text}\" of a table does not parse: {e}")))
}

/// The values that a column of new rows takes when none is given.
pub fn default_values(
    relation: &Relation,
    column: usize,
    rows: usize,
    settings: &Settings,
) -> Result<ArrayRef> {
    let catalog = Catalog::default();
    let context = Context::new(&catalog, Purpose::AdHoc, settings);
    relation.style().under(|| repeat(&default_column(relation, column, &context)?, rows, settings))
}

/// An expression without columns for a number of rows; what is drawn at random, for each.
pub(super) fn repeat(expr: &Expr, rows: usize, settings: &Settings) -> Result<ArrayRef> {
    let coerced = over_constant(expr.clone(), &DFSchema::empty(), Some(settings.now))?;
    let compiled = compile(&coerced, &DFSchema::empty())?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
    let values = compiled.evaluate(&batch).map_err(from_datafusion)?;
    values.into_array(rows).map_err(from_datafusion)
}

/// Refuses rows for which a CHECK is false (23514). The rows have the columns of the table.
pub fn check_rows(relation: &Relation, rows: &RecordBatch, settings: &Settings) -> Result<()> {
    if relation.rules.checks.is_empty() || rows.num_rows() == 0 {
        return Ok(());
    }
    let schema = columns(relation)?;
    let batch = RecordBatch::try_new(nullable(&relation.schema), rows.columns().to_vec())?;
    for check in &relation.rules.checks {
        let condition = relation.style().under(|| condition(relation, check, settings))?;
        let held = compile(&condition, &schema)?.evaluate(&batch).map_err(from_datafusion)?;
        let held = held.into_array(batch.num_rows()).map_err(from_datafusion)?;
        let held = held.as_boolean();
        if let Some(row) = (0..held.len()).find(|row| held.is_valid(*row) && !held.value(*row)) {
            return Err(Error::user(
                sqlstate::CHECK_VIOLATION,
                format!(
                    "new row for relation \"{}\" violates check constraint \"{}\"",
                    relation.local_name(),
                    check.name
                ),
            )
            .with_detail(failing_row(&batch, row))
            .with_about(About {
                relation: Some(relation.name.clone()),
                column: None,
                constraint: Some(check.name.clone()),
            }));
        }
    }
    Ok(())
}

fn columns(relation: &Relation) -> Result<DFSchema> {
    let schema: SchemaRef = nullable(&relation.schema);
    DFSchema::try_from_qualified_schema(relation.name.as_str(), &schema).map_err(from_datafusion)
}

fn condition(relation: &Relation, check: &Check, settings: &Settings) -> Result<Expr> {
    let catalog = Catalog::default();
    let context = Context::new(&catalog, Purpose::AdHoc, settings);
    let expr = parse_expr(&check.condition)?;
    if has_subquery(&expr) {
        return Err(Error::unsupported("cannot use subquery in check constraint"));
    }
    let schema = columns(relation)?;
    let planned = plan_expr(&expr, &schema, &context, &[])?;
    let planned = over_constant(planned, &schema, Some(settings.now))?;
    match constant::type_of(&planned, &schema)? {
        DataType::Boolean => Ok(planned),
        other => Err(Error::user(
            sqlstate::DATATYPE_MISMATCH,
            format!("argument of CHECK must be type boolean, not type {}", pg_type_name(&other)),
        )),
    }
}

pub(in crate::sql) fn has_subquery(expr: &ast::Expr) -> bool {
    use ast::Expr as E;
    any_expr(expr, &|e| matches!(e, E::Subquery(_) | E::Exists { .. } | E::InSubquery { .. }))
}
