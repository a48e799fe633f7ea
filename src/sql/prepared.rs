//! Statements with parameters: bound once, then executed with values.
//!
//! Everything that does not depend on the values happens in [`prepare`]; [`Prepared::bind`] puts
//! values and the current time in and optimises. `INSERT .. VALUES` needs no plan at all: its
//! expressions are kept as cells, and literals and parameters go straight into arrays.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};
use sqlparser::ast::{self, SetExpr};

use super::binder::{Bound, Purpose, Settings, finish, output_fields, plan_expr, plan_query};
use super::constant;
use super::context::{Context, nullable};
use super::dml::{
    self, BoundDelete, BoundInsert, BoundUpdate, InsertRows, assign, check_width, conform,
    delete_query, fill, insert_columns, insert_target, update_query,
};
use super::errors::plan_error;
use super::optimize::analyze;
use super::semantics::{rewrite_plan, typed_placeholder};
use super::statement::Statement;
use crate::catalog::{Catalog, Relation, RelationId};
use crate::error::{Error, Result, sqlstate};
use crate::expr::{
    Coercion, assignment_error, can_cast, cast_array, cast_expr, from_datafusion, parse_value,
};

/// A statement that values can be put into. It is of the catalog that it was bound with: prepare it
/// again when that has changed.
#[derive(Debug, Clone)]
pub struct Prepared {
    parameters: Vec<DataType>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Query(Planned),
    InsertValues { relation: Arc<Relation>, rows: Vec<Vec<Cell>> },
    InsertQuery { relation: Arc<Relation>, query: Planned },
    Update { relation: Arc<Relation>, query: Planned },
    Delete { relation: Arc<Relation>, query: Planned },
}

/// An analysed plan.
#[derive(Debug, Clone)]
struct Planned {
    plan: LogicalPlan,
    fields: SchemaRef,
    depends_on: Vec<RelationId>,
}

/// One value of `INSERT .. VALUES`.
#[derive(Debug, Clone)]
enum Cell {
    /// A value of the column's type.
    Value(ScalarValue),
    /// Parameter number, from 0.
    Parameter(usize),
    /// An expression of the column's type.
    Expr(Box<Expr>),
}

/// A statement with its values in it.
#[derive(Debug, Clone)]
pub enum BoundStatement {
    /// A query.
    Query(Bound),
    /// INSERT.
    Insert(BoundInsert),
    /// UPDATE.
    Update(BoundUpdate),
    /// DELETE.
    Delete(BoundDelete),
}

/// Binds a query or DML. `declared` are the types that the client gave to `$1`, `$2`, ..; the
/// others are inferred, and text where nothing tells.
pub fn prepare(
    statement: &Statement,
    declared: &[Option<DataType>],
    catalog: &Catalog,
    settings: &Settings,
) -> Result<Prepared> {
    let statement = match statement {
        Statement::Query(query) => Preparable::Query(query),
        Statement::Insert(insert) => Preparable::Insert(insert),
        Statement::Delete(delete) => Preparable::Delete(delete),
        Statement::Update(update) => Preparable::Update(update),
        _ => return Err(Error::unsupported("this statement can not have parameters")),
    };
    prepare_statement(statement, declared, catalog, settings)
}

/// A statement that is bound to rows.
pub(super) enum Preparable<'a> {
    Query(&'a ast::Query),
    Insert(&'a ast::Insert),
    Delete(&'a ast::Delete),
    Update(&'a ast::Update),
}

/// The same for a part of the syntax tree.
pub(super) fn prepare_statement(
    statement: Preparable<'_>,
    declared: &[Option<DataType>],
    catalog: &Catalog,
    settings: &Settings,
) -> Result<Prepared> {
    let context = Context::new(catalog, Purpose::AdHoc, settings);
    let mut parameters = declared.to_vec();
    let kind = match statement {
        Preparable::Query(query) => {
            let plan = analyze(plan_query(query, &context, declared)?)?;
            Kind::Query(Planned::new(plan, &context))
        }
        Preparable::Insert(insert) => prepare_insert(insert, &mut parameters, catalog, &context)?,
        Preparable::Delete(delete) => {
            let (relation, query) = delete_query(delete, catalog)?;
            let plan = analyze(plan_query(&query, &context, declared)?)?;
            Kind::Delete { relation, query: Planned::new(plan, &context) }
        }
        Preparable::Update(update) => {
            let (relation, query) = update_query(update, catalog)?;
            let plan = plan_changes(&query, &context, declared)?;
            let width = relation.schema.fields().len();
            let targets: Vec<usize> = (0..width).collect();
            let plan = analyze(assign(plan, width, &relation.schema, &targets)?)?;
            Kind::Update { relation, query: Planned::new(plan, &context) }
        }
    };
    kind.collect_parameters(&mut parameters)?;
    let parameters = parameters.into_iter().map(|t| t.unwrap_or(DataType::Utf8)).collect();
    Ok(Prepared { parameters, kind })
}

/// Plans without types for unknown columns: the table's columns give them.
fn plan_changes(
    query: &ast::Query,
    context: &Context<'_>,
    declared: &[Option<DataType>],
) -> Result<LogicalPlan> {
    rewrite_plan(super::binder::plan_raw(query, context, declared)?)
}

fn prepare_insert(
    insert: &ast::Insert,
    parameters: &mut Vec<Option<DataType>>,
    catalog: &Catalog,
    context: &Context<'_>,
) -> Result<Kind> {
    let relation = insert_target(insert, catalog)?;
    let columns = insert_columns(insert, &relation)?;
    let named = !insert.columns.is_empty();
    let Some(source) = &insert.source else {
        // DEFAULT VALUES: one row of NULL.
        let nulls = relation.schema.fields().iter().map(|f| null(f.data_type()).map(Cell::Value));
        let row = nulls.collect::<Result<Vec<_>>>()?;
        return Ok(Kind::InsertValues { relation, rows: vec![row] });
    };
    let plain = source.with.is_none() && source.order_by.is_none() && source.limit_clause.is_none();
    if let (SetExpr::Values(values), true) = (source.body.as_ref(), plain) {
        let mut rows = Vec::with_capacity(values.rows.len());
        let mut scope = Scope { relation: &relation, context, parameters };
        for row in &values.rows {
            check_width(row.content.len(), columns.len(), named)?;
            rows.push(scope.row(&row.content, &columns)?);
        }
        return Ok(Kind::InsertValues { relation, rows });
    }
    let plan = plan_changes(source, context, parameters)?;
    check_width(plan.schema().fields().len(), columns.len(), named)?;
    let plan = assign(plan, 0, &relation.schema, &columns)?;
    let plan = analyze(fill(plan, &relation.schema, &columns)?)?;
    let query = Planned::new(plan, context);
    Ok(Kind::InsertQuery { relation, query })
}

/// What the values of an INSERT are bound in.
struct Scope<'a> {
    relation: &'a Relation,
    context: &'a Context<'a>,
    parameters: &'a mut Vec<Option<DataType>>,
}

impl Scope<'_> {
    /// The cells of a row in the order of the table's columns.
    fn row(&mut self, row: &[ast::Expr], columns: &[usize]) -> Result<Vec<Cell>> {
        let schema = Arc::clone(&self.relation.schema);
        let mut cells = Vec::with_capacity(schema.fields().len());
        for (i, field) in schema.fields().iter().enumerate() {
            let given = columns.iter().position(|c| *c == i).and_then(|at| row.get(at));
            cells.push(match given {
                Some(expr) => self.cell(expr, field.name(), field.data_type())?,
                None => Cell::Value(null(field.data_type())?),
            });
        }
        Ok(cells)
    }

    fn cell(&mut self, expr: &ast::Expr, column: &str, to: &DataType) -> Result<Cell> {
        if dml::is_default(expr) {
            return Ok(Cell::Value(null(to)?));
        }
        if let Some(value) = literal(expr, to) {
            return Ok(Cell::Value(value?));
        }
        let planned = plan_expr(expr, &DFSchema::empty(), self.context, self.parameters)?;
        if let Expr::Placeholder(p) = &planned {
            return self.parameter(p, column, to);
        }
        let from = constant::type_of(&planned, &DFSchema::empty())?;
        let text = matches!(planned, Expr::Literal(ScalarValue::Utf8(_), _));
        if !text && !can_cast(&from, to, Coercion::Assignment) {
            return Err(assignment_error(column, to, &from));
        }
        let cast = cast_expr(planned, &from, to, Coercion::Assignment)?;
        let coerced = constant::coerce(cast, &DFSchema::empty(), None)?;
        if changes(&coerced) {
            return Ok(Cell::Expr(Box::new(coerced)));
        }
        constant::evaluate(&coerced).map(Cell::Value)
    }

    /// A parameter that stands alone takes the type of its column, or is cast to it.
    fn parameter(&mut self, p: &Placeholder, column: &str, to: &DataType) -> Result<Cell> {
        let index = parameter_index(&p.id)?;
        if self.parameters.len() <= index {
            self.parameters.resize(index + 1, None);
        }
        let declared = self.parameters[index].get_or_insert_with(|| to.clone()).clone();
        if declared == *to {
            return Ok(Cell::Parameter(index));
        }
        // A client that declares text for everything means an unknown.
        if declared != DataType::Utf8 && !can_cast(&declared, to, Coercion::Assignment) {
            return Err(assignment_error(column, to, &declared));
        }
        let typed = typed_placeholder(p, &declared);
        let cast = crate::expr::cast_udf(to, Coercion::Assignment).call(vec![typed]);
        Ok(Cell::Expr(Box::new(cast)))
    }
}

fn null(data_type: &DataType) -> Result<ScalarValue> {
    ScalarValue::try_from(data_type).map_err(from_datafusion)
}

/// A literal that is read into the column's type without planning; `None` where that could differ
/// from planning it.
fn literal(expr: &ast::Expr, to: &DataType) -> Option<Result<ScalarValue>> {
    let negated;
    let value = match expr {
        ast::Expr::Value(v) => &v.value,
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match expr.as_ref() {
            ast::Expr::Value(v) => match &v.value {
                ast::Value::Number(n, long) => {
                    negated = ast::Value::Number(format!("-{n}"), *long);
                    &negated
                }
                _ => return None,
            },
            _ => return None,
        },
        _ => return None,
    };
    match value {
        ast::Value::Null => Some(null(to)),
        ast::Value::Boolean(b) if *to == DataType::Boolean => {
            Some(Ok(ScalarValue::Boolean(Some(*b))))
        }
        ast::Value::SingleQuotedString(s) => Some(parse_value(s, to)),
        ast::Value::Number(n, _) if to.is_numeric() => {
            let digits = n.strip_prefix('-').unwrap_or(n);
            let integer = digits.bytes().all(|b| b.is_ascii_digit());
            // What does not fit or must be rounded takes the way of a numeric constant.
            match to.is_integer() && !integer || n.contains('_') {
                true => None,
                false => parse_value(n, to).ok().map(Ok),
            }
        }
        _ => None,
    }
}

/// Whether an expression has another value at another time or with other parameters.
fn changes(expr: &Expr) -> bool {
    expr.exists(|e| {
        Ok(match e {
            Expr::Placeholder(_) => true,
            Expr::ScalarFunction(f) => {
                f.func.signature().volatility != datafusion::logical_expr::Volatility::Immutable
            }
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => true,
            _ => false,
        })
    })
    .unwrap_or(true)
}

fn parameter_index(id: &str) -> Result<usize> {
    let number = id.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
    number.and_then(|n| n.checked_sub(1)).ok_or_else(|| {
        Error::user(sqlstate::UNDEFINED_PARAMETER, format!("there is no parameter {id}"))
    })
}

impl Planned {
    fn new(plan: LogicalPlan, context: &Context<'_>) -> Self {
        Self { fields: output_fields(&plan), plan, depends_on: context.depends_on() }
    }

    fn bind(&self, values: &[ScalarValue], settings: &Settings) -> Result<Bound> {
        let plan = match values {
            [] => self.plan.clone(),
            values => with_values(self.plan.clone(), values)?,
        };
        let catalog = Catalog::default();
        let context = Context::new(&catalog, Purpose::AdHoc, settings);
        let mut bound = finish(plan, &context, settings)?;
        bound.fields = Arc::clone(&self.fields);
        bound.depends_on.clone_from(&self.depends_on);
        Ok(bound)
    }
}

fn with_values(plan: LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        node.map_expressions(|e| {
            let name = names.save(&e);
            Ok(replace(e, values)?.update_data(|e| name.restore(e)))
        })
    });
    replaced.map(|t| t.data).map_err(plan_error)
}

fn replace(expr: Expr, values: &[ScalarValue]) -> datafusion::common::Result<Transformed<Expr>> {
    expr.transform_up(|e| match e {
        Expr::Placeholder(p) => {
            let index = parameter_index(&p.id).map_err(crate::expr::to_datafusion)?;
            match values.get(index) {
                Some(value) => Ok(Transformed::yes(Expr::Literal(value.clone(), None))),
                None => Err(crate::expr::to_datafusion(missing(index))),
            }
        }
        other => Ok(Transformed::no(other)),
    })
}

fn missing(index: usize) -> Error {
    Error::user(
        sqlstate::UNDEFINED_PARAMETER,
        format!("there is no value for parameter ${}", index + 1),
    )
}

impl Kind {
    /// Adds the parameters of plans and cells to those whose types are known.
    fn collect_parameters(&self, types: &mut Vec<Option<DataType>>) -> Result<()> {
        let mut found = |id: &str, data_type: Option<&DataType>| -> Result<()> {
            let index = parameter_index(id)?;
            if types.len() <= index {
                types.resize(index + 1, None);
            }
            if let (slot @ None, Some(t)) = (&mut types[index], data_type) {
                *slot = Some(t.clone());
            }
            Ok(())
        };
        match self {
            Self::InsertValues { rows, .. } => {
                for cell in rows.iter().flatten() {
                    if let Cell::Expr(expr) = cell {
                        for (id, t) in placeholders(expr)? {
                            found(&id, t.as_ref())?;
                        }
                    }
                }
                Ok(())
            }
            Self::Query(q)
            | Self::InsertQuery { query: q, .. }
            | Self::Update { query: q, .. }
            | Self::Delete { query: q, .. } => {
                let parameters = q.plan.get_parameter_types().map_err(plan_error)?;
                parameters.iter().try_for_each(|(id, t)| found(id, t.as_ref()))
            }
        }
    }
}

fn placeholders(expr: &Expr) -> Result<Vec<(String, Option<DataType>)>> {
    let mut out = Vec::new();
    expr.apply(|e| {
        if let Expr::Placeholder(p) = e {
            out.push((p.id.clone(), p.field.as_ref().map(|f| f.data_type().clone())));
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })
    .map_err(plan_error)?;
    Ok(out)
}

impl Prepared {
    /// The types of `$1`, `$2`, ..
    pub fn parameters(&self) -> &[DataType] {
        &self.parameters
    }

    /// The columns of the result; `None` for statements that return no rows.
    pub fn fields(&self) -> Option<&SchemaRef> {
        match &self.kind {
            Kind::Query(planned) => Some(&planned.fields),
            _ => None,
        }
    }

    /// Puts values of the parameters' types in.
    pub fn bind(&self, values: &[ScalarValue], settings: &Settings) -> Result<BoundStatement> {
        if values.len() < self.parameters.len() {
            return Err(missing(values.len()));
        }
        let values = self
            .parameters
            .iter()
            .zip(values)
            .map(|(to, v)| fit(v, to))
            .collect::<Result<Vec<_>>>()?;
        Ok(match &self.kind {
            Kind::Query(planned) => BoundStatement::Query(planned.bind(&values, settings)?),
            Kind::InsertValues { relation, rows } => BoundStatement::Insert(BoundInsert {
                relation: Arc::clone(relation),
                rows: InsertRows::Values(evaluate_rows(relation, rows, &values, settings)?),
            }),
            Kind::InsertQuery { relation, query } => BoundStatement::Insert(BoundInsert {
                relation: Arc::clone(relation),
                rows: InsertRows::Query(query.bind(&values, settings)?),
            }),
            Kind::Update { relation, query } => BoundStatement::Update(BoundUpdate {
                relation: Arc::clone(relation),
                rows: query.bind(&values, settings)?,
            }),
            Kind::Delete { relation, query } => BoundStatement::Delete(BoundDelete {
                relation: Arc::clone(relation),
                rows: query.bind(&values, settings)?,
            }),
        })
    }
}

fn fit(value: &ScalarValue, to: &DataType) -> Result<ScalarValue> {
    if value.data_type() == *to {
        return Ok(value.clone());
    }
    let array = cast_array(&value.to_array_of_size(1).map_err(from_datafusion)?, to)?;
    ScalarValue::try_from_array(&array, 0).map_err(from_datafusion)
}

fn evaluate_rows(
    relation: &Relation,
    rows: &[Vec<Cell>],
    values: &[ScalarValue],
    settings: &Settings,
) -> Result<RecordBatch> {
    let schema = nullable(&relation.schema);
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (i, field) in schema.fields().iter().enumerate() {
        let cells = rows.iter().map(|row| evaluate_cell(&row[i], values, settings));
        let cells = cells.collect::<Result<Vec<_>>>()?;
        let array = ScalarValue::iter_to_array(cells).map_err(from_datafusion)?;
        columns.push(cast_array(&array, field.data_type())?);
    }
    conform(relation, &RecordBatch::try_new(schema, columns)?)
}

fn evaluate_cell(cell: &Cell, values: &[ScalarValue], settings: &Settings) -> Result<ScalarValue> {
    match cell {
        Cell::Value(value) => Ok(value.clone()),
        Cell::Parameter(index) => values.get(*index).cloned().ok_or_else(|| missing(*index)),
        Cell::Expr(expr) => {
            let replaced = replace(expr.as_ref().clone(), values).map_err(plan_error)?.data;
            if replaced.exists(|e| Ok(matches!(e, Expr::ScalarSubquery(_)))).unwrap_or(true) {
                return Err(Error::unsupported("a subquery in VALUES is not supported yet")
                    .with_hint("Use INSERT .. SELECT."));
            }
            let coerced = constant::coerce(replaced, &DFSchema::empty(), Some(settings.now))?;
            constant::evaluate(&coerced)
        }
    }
}
