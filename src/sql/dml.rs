//! INSERT, UPDATE and DELETE as plans of rows. DataFusion never runs them: it would lose filters of
//! DELETE, and it does not know the old row of an UPDATE.
//!
//! INSERT makes rows with exactly the columns of the table, DELETE the rows to delete, UPDATE the
//! old columns followed by the new ones. Values are cast as PostgreSQL casts in assignments; a
//! column that is not named becomes NULL.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection};
use sqlparser::ast::{
    self, AssignmentTarget, FromTable, Ident, SelectItem, SetExpr, TableFactor, TableObject,
};
use sqlparser::parser::Parser;

use super::binder::{Bound, Settings};
use super::dialect::DIALECT;
use super::errors::plan_error;
use super::parser::{fold, relation_name};
use super::prepared::{BoundStatement, Preparable, prepare_statement};
use super::semantics::typed_placeholder;
use crate::catalog::{Catalog, Relation, RelationKind};
use crate::error::{Error, Result, sqlstate};
use crate::expr::{Coercion, assignment_error, can_cast, cast_expr};

/// A bound INSERT.
#[derive(Debug, Clone)]
pub struct BoundInsert {
    /// The table.
    pub relation: Arc<Relation>,
    /// Its new rows.
    pub rows: InsertRows,
}

/// The rows of an INSERT.
#[derive(Debug, Clone)]
pub enum InsertRows {
    /// VALUES, evaluated: the columns of the table, NOT NULL checked.
    Values(RecordBatch),
    /// A query that makes the columns of the table; pass what it gives through [`conform`].
    Query(Bound),
}

/// A bound DELETE.
#[derive(Debug, Clone)]
pub struct BoundDelete {
    /// The table.
    pub relation: Arc<Relation>,
    /// The rows to delete.
    pub rows: Bound,
}

/// A bound UPDATE.
#[derive(Debug, Clone)]
pub struct BoundUpdate {
    /// The table.
    pub relation: Arc<Relation>,
    /// The old columns of the rows to replace, followed by as many new ones; pass the new ones
    /// through [`conform`].
    pub rows: Bound,
}

/// Binds an INSERT without parameters.
pub fn bind_insert(
    insert: &ast::Insert,
    catalog: &Catalog,
    settings: &Settings,
) -> Result<BoundInsert> {
    let statement = Preparable::Insert(insert);
    match prepare_statement(statement, &[], catalog, settings)?.bind(&[], settings)? {
        BoundStatement::Insert(bound) => Ok(bound),
        _ => Err(Error::internal("an INSERT is bound as one")),
    }
}

/// Binds a DELETE without parameters.
pub fn bind_delete(
    delete: &ast::Delete,
    catalog: &Catalog,
    settings: &Settings,
) -> Result<BoundDelete> {
    let statement = Preparable::Delete(delete);
    match prepare_statement(statement, &[], catalog, settings)?.bind(&[], settings)? {
        BoundStatement::Delete(bound) => Ok(bound),
        _ => Err(Error::internal("a DELETE is bound as one")),
    }
}

/// Binds an UPDATE without parameters.
pub fn bind_update(
    update: &ast::Update,
    catalog: &Catalog,
    settings: &Settings,
) -> Result<BoundUpdate> {
    let statement = Preparable::Update(update);
    match prepare_statement(statement, &[], catalog, settings)?.bind(&[], settings)? {
        BoundStatement::Update(bound) => Ok(bound),
        _ => Err(Error::internal("an UPDATE is bound as one")),
    }
}

/// Gives rows the table's own schema and checks NOT NULL (23502).
pub fn conform(relation: &Relation, rows: &RecordBatch) -> Result<RecordBatch> {
    for (field, column) in relation.schema.fields().iter().zip(rows.columns()) {
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(Error::user(
                sqlstate::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    field.name(),
                    relation.name
                ),
            ));
        }
    }
    Ok(RecordBatch::try_new(Arc::clone(&relation.schema), rows.columns().to_vec())?)
}

/// What a statement wants to do to its table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Insert,
    Update,
    Delete,
}

impl Change {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Insert => ("insert into", "INSERT"),
            Self::Update => ("update", "UPDATE"),
            Self::Delete => ("delete from", "DELETE"),
        }
    }
}

/// Looks a table up for a change, or says why it can't be changed.
pub(super) fn target(
    name: &ast::ObjectName,
    catalog: &Catalog,
    change: Change,
) -> Result<Arc<Relation>> {
    let relation = catalog.get(&relation_name(name)?)?;
    let (verb, statement) = change.words();
    match relation.kind {
        RelationKind::Table { append_only: true } if change != Change::Insert => Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("cannot {verb} append-only table \"{}\"", relation.name),
        )
        .with_detail(format!("{statement} is refused because its views rely on APPEND ONLY."))),
        RelationKind::Table { .. } => Ok(Arc::clone(relation)),
        kind => Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("cannot {verb} {} \"{}\"", kind.noun(), relation.name),
        )),
    }
}

fn refused(what: &str) -> Error {
    Error::unsupported(format!("{what} is not supported yet"))
}

/// The indexes of the columns that an INSERT names; all when it names none.
pub(super) fn insert_columns(insert: &ast::Insert, relation: &Relation) -> Result<Vec<usize>> {
    if insert.columns.is_empty() {
        return Ok((0..relation.schema.fields().len()).collect());
    }
    let mut columns = Vec::with_capacity(insert.columns.len());
    for name in &insert.columns {
        let name = relation_name(name)?;
        let column = column_of(relation, &name)?;
        if columns.contains(&column) {
            return Err(Error::user(
                sqlstate::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        columns.push(column);
    }
    Ok(columns)
}

fn column_of(relation: &Relation, name: &str) -> Result<usize> {
    relation.schema.index_of(name).map_err(|_| {
        Error::user(
            sqlstate::UNDEFINED_COLUMN,
            format!("column \"{name}\" of relation \"{}\" does not exist", relation.name),
        )
    })
}

/// The table of an INSERT, after a look at its clauses.
pub(super) fn insert_target(insert: &ast::Insert, catalog: &Catalog) -> Result<Arc<Relation>> {
    if insert.on.is_some() {
        return Err(refused("INSERT .. ON CONFLICT"));
    }
    if insert.returning.is_some() {
        return Err(refused("INSERT .. RETURNING"));
    }
    let foreign = insert.or.is_some()
        || insert.ignore
        || insert.overwrite
        || insert.partitioned.is_some()
        || insert.replace_into
        || !insert.assignments.is_empty()
        || !insert.after_columns.is_empty()
        || insert.settings.is_some()
        || insert.format_clause.is_some();
    if foreign {
        return Err(refused("this form of INSERT"));
    }
    match &insert.table {
        TableObject::TableName(name) => target(name, catalog, Change::Insert),
        _ => Err(refused("INSERT into a function or query")),
    }
}

/// 42601 when rows are not as wide as the list of columns.
pub(super) fn check_width(found: usize, columns: usize, named: bool) -> Result<()> {
    if found > columns {
        return Err(Error::user(
            sqlstate::SYNTAX_ERROR,
            "INSERT has more expressions than target columns",
        ));
    }
    // Without a list of columns, those at the end may be left out.
    if found < columns && named {
        return Err(Error::user(
            sqlstate::SYNTAX_ERROR,
            "INSERT has more target columns than expressions",
        ));
    }
    Ok(())
}

/// `SELECT * FROM table WHERE ..` of a DELETE.
pub(super) fn delete_query(
    delete: &ast::Delete,
    catalog: &Catalog,
) -> Result<(Arc<Relation>, ast::Query)> {
    if delete.returning.is_some() {
        return Err(refused("DELETE .. RETURNING"));
    }
    if delete.using.is_some() {
        return Err(refused("DELETE .. USING").with_hint("Use WHERE .. IN (SELECT ..)."));
    }
    if !delete.order_by.is_empty() || delete.limit.is_some() || !delete.tables.is_empty() {
        return Err(refused("this form of DELETE"));
    }
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let [table] = from.as_slice() else { return Err(refused("DELETE from several tables")) };
    let (relation, factor) = only_table(table, catalog, Change::Delete)?;
    Ok((relation, select(factor, Vec::new(), delete.selection.clone())?))
}

/// `SELECT t.*, new values FROM table WHERE ..` of an UPDATE.
pub(super) fn update_query(
    update: &ast::Update,
    catalog: &Catalog,
) -> Result<(Arc<Relation>, ast::Query)> {
    if update.returning.is_some() {
        return Err(refused("UPDATE .. RETURNING"));
    }
    if update.from.is_some() {
        return Err(refused("UPDATE .. FROM"));
    }
    if !update.order_by.is_empty() || update.limit.is_some() || update.or.is_some() {
        return Err(refused("this form of UPDATE"));
    }
    let (relation, factor) = only_table(&update.table, catalog, Change::Update)?;
    let mut values: Vec<ast::Expr> = relation
        .schema
        .fields()
        .iter()
        .map(|f| ast::Expr::Identifier(Ident::with_quote('"', f.name())))
        .collect();
    let mut assigned = vec![false; values.len()];
    for assignment in &update.assignments {
        let AssignmentTarget::ColumnName(name) = &assignment.target else {
            return Err(refused("UPDATE SET (a, b) = .."));
        };
        let name = relation_name(name)?;
        let column = column_of(&relation, &name)?;
        if std::mem::replace(&mut assigned[column], true) {
            return Err(Error::user(
                sqlstate::SYNTAX_ERROR,
                format!("multiple assignments to same column \"{name}\""),
            ));
        }
        values[column] = match is_default(&assignment.value) {
            true => ast::Expr::value(ast::Value::Null),
            false => assignment.value.clone(),
        };
    }
    let items = values
        .into_iter()
        .zip(relation.schema.fields())
        .map(|(expr, f)| SelectItem::ExprWithAlias {
            expr,
            alias: Ident::with_quote('"', format!("\u{2}{}", f.name())),
        })
        .collect();
    Ok((relation, select(factor, items, update.selection.clone())?))
}

/// Whether an expression is the word DEFAULT.
pub(super) fn is_default(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(i) if i.quote_style.is_none() && fold(i) == "default")
}

fn only_table(
    table: &ast::TableWithJoins,
    catalog: &Catalog,
    change: Change,
) -> Result<(Arc<Relation>, TableFactor)> {
    match &table.relation {
        TableFactor::Table { name, args: None, .. } if table.joins.is_empty() => {
            Ok((target(name, catalog, change)?, table.relation.clone()))
        }
        _ => Err(refused("a change of something other than one table")),
    }
}

/// Builds the query from a parsed frame, so that no clause is forgotten.
fn select(
    factor: TableFactor,
    items: Vec<SelectItem>,
    condition: Option<ast::Expr>,
) -> Result<ast::Query> {
    let frame = Parser::new(&DIALECT)
        .try_with_sql("SELECT * FROM t")
        .and_then(|mut p| p.parse_query())
        .map_err(|e| Error::internal(e.to_string()))?;
    let mut query = *frame;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(Error::internal("a SELECT is parsed as one"));
    };
    select.projection.extend(items);
    select.selection = condition;
    match select.from.as_mut_slice() {
        [from] => from.relation = factor,
        _ => return Err(Error::internal("a SELECT FROM t has one relation")),
    }
    Ok(query)
}

/// Casts the columns of a plan from `first` on to the types of a table, as assignments; `targets`
/// are the table's columns in the order of the plan's.
pub(super) fn assign(
    plan: LogicalPlan,
    first: usize,
    schema: &SchemaRef,
    targets: &[usize],
) -> Result<LogicalPlan> {
    let plan = type_unknowns(plan, first, schema, targets)?;
    let input = Arc::clone(plan.schema());
    let mut exprs = Vec::new();
    for (i, (qualifier, field)) in input.iter().enumerate() {
        let column = Expr::from((qualifier, field));
        let Some(&target) = i.checked_sub(first).and_then(|i| targets.get(i)) else {
            exprs.push(column);
            continue;
        };
        let (to, from) = (schema.field(target), field.data_type());
        if !can_cast(from, to.data_type(), Coercion::Assignment) {
            return Err(assignment_error(to.name(), to.data_type(), from));
        }
        let cast = cast_expr(column, from, to.data_type(), Coercion::Assignment)?;
        exprs.push(cast.alias_qualified(qualifier.cloned(), field.name()));
    }
    LogicalPlanBuilder::from(plan)
        .project(exprs)
        .and_then(LogicalPlanBuilder::build)
        .map_err(plan_error)
}

/// Text literals and parameters at the top of a query take the type of the column they go to.
fn type_unknowns(
    plan: LogicalPlan,
    first: usize,
    schema: &SchemaRef,
    targets: &[usize],
) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(Projection { expr, input, .. }) = plan else { return Ok(plan) };
    let mut exprs = Vec::with_capacity(expr.len());
    for (i, expr) in expr.into_iter().enumerate() {
        let target = i.checked_sub(first).and_then(|i| targets.get(i));
        let Some(to) = target.map(|t| schema.field(*t).data_type()) else {
            exprs.push(expr);
            continue;
        };
        let name = expr.qualified_name();
        let typed = match expr.unalias() {
            Expr::Placeholder(p) if p.field.is_none() => typed_placeholder(&p, to),
            e @ Expr::Literal(ScalarValue::Utf8(_), _) => {
                cast_expr(e, &DataType::Utf8, to, Coercion::Explicit)?
            }
            other => other,
        };
        exprs.push(typed.alias_qualified(name.0, name.1));
    }
    Projection::try_new(exprs, input).map(LogicalPlan::Projection).map_err(plan_error)
}

/// A plan with all columns of a table in their order, NULL for those that `columns` does not name.
pub(super) fn fill(
    plan: LogicalPlan,
    schema: &SchemaRef,
    columns: &[usize],
) -> Result<LogicalPlan> {
    let input = Arc::clone(plan.schema());
    let given = input.fields().len();
    let all = schema.fields().iter().enumerate().map(|(target, field)| {
        match columns[..given.min(columns.len())].iter().position(|c| *c == target) {
            Some(i) => Ok(Expr::from(input.qualified_field(i)).alias(field.name())),
            None => Expr::Literal(ScalarValue::Null, None)
                .cast_to(field.data_type(), input.as_ref())
                .map(|e| e.alias(field.name())),
        }
    });
    let exprs = all.collect::<Result<Vec<_>, _>>().map_err(plan_error)?;
    LogicalPlanBuilder::from(plan)
        .project(exprs)
        .and_then(LogicalPlanBuilder::build)
        .map_err(plan_error)
}
