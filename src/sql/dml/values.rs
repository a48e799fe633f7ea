//! `INSERT .. VALUES` needs no plan: its expressions are kept as cells, and literals and parameters
//! go straight into arrays.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::Placeholder;
use sqlparser::ast;

use super::assign::typed;
use super::is_default;
use super::rules::{default_expr, repeat};
use crate::catalog::Relation;
use crate::delta::style::TextStyle;
use crate::delta::text::has_styles;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{
    Coercion, ColumnParser, Walk, assignment_error, can_cast, cast_array, from_datafusion,
    parse_styled,
};
use crate::sql::binder::{Settings, plan_expr};
use crate::sql::comparable::typed_placeholder;
use crate::sql::constant;
use crate::sql::context::{Context, nullable};
use crate::sql::errors::plan_error;
use crate::sql::pass::over_constant;

/// One value of `INSERT .. VALUES`.
#[derive(Debug, Clone)]
pub(in crate::sql) enum Cell {
    /// A value of the column's type.
    Value(ScalarValue),
    /// Parameter number, from 0.
    Parameter(usize),
    /// An expression of the column's type; the DEFAULT of a column is one for all its rows.
    Expr(Arc<Expr>),
}

/// What the values of an INSERT are bound in.
pub(super) struct Scope<'a, 'c> {
    relation: &'a Relation,
    context: &'a Context<'c>,
    parameters: &'a mut Vec<Option<DataType>>,
    /// The DEFAULTs that were asked for, by column.
    defaults: HashMap<usize, Cell>,
}

impl<'a, 'c> Scope<'a, 'c> {
    pub(super) fn new(
        relation: &'a Relation,
        context: &'a Context<'c>,
        parameters: &'a mut Vec<Option<DataType>>,
    ) -> Self {
        Self { relation, context, parameters, defaults: HashMap::new() }
    }

    /// The cells of a row in the order of the table's columns.
    pub(super) fn row(&mut self, row: &[ast::Expr], columns: &[usize]) -> Result<Vec<Cell>> {
        let schema = Arc::clone(&self.relation.schema);
        let mut cells = Vec::with_capacity(schema.fields().len());
        for (i, field) in schema.fields().iter().enumerate() {
            let given = columns.iter().position(|c| *c == i).and_then(|at| row.get(at));
            cells.push(match given {
                Some(expr) if !is_default(expr) => self.cell(expr, i, field.data_type())?,
                _ => self.default(i, field.data_type())?,
            });
        }
        Ok(cells)
    }

    /// The rows of VALUES as columns, if they are nothing but literals and defaults that are.
    pub(super) fn literals(
        &self,
        rows: &[ast::Parens<Vec<ast::Expr>>],
        columns: &[usize],
    ) -> Result<Option<RecordBatch>> {
        let style = TextStyle::current();
        let schema = nullable(&self.relation.schema);
        let (mut parsers, mut given) = (Vec::new(), Vec::new());
        for (i, field) in schema.fields().iter().enumerate() {
            parsers.push(ColumnParser::new(field.data_type(), style)?);
            let at = columns.iter().position(|c| *c == i);
            let default = default_expr(self.relation, i)?;
            if is_string(&default) && !style.is_default() && has_styles(field.data_type()) {
                // It is in another style.
                return Ok(None);
            }
            given.push((at, default));
        }
        for row in rows {
            for (i, (at, default)) in given.iter().enumerate() {
                let expr = at.and_then(|at| row.content.get(at)).filter(|e| !is_default(e));
                let expr = expr.unwrap_or(default);
                let Some(text) = literal(expr, schema.field(i).data_type()) else {
                    return Ok(None);
                };
                match (parsers[i].push(text.as_deref()), is_string(expr)) {
                    (Ok(()), _) => {}
                    (Err(error), true) => return Err(error),
                    // What does not fit takes the way of a numeric constant.
                    (Err(_), false) => return Ok(None),
                }
            }
        }
        let columns = parsers.iter_mut().map(ColumnParser::finish).collect::<Result<_>>()?;
        Ok(Some(RecordBatch::try_new(schema, columns)?))
    }

    fn default(&mut self, column: usize, to: &DataType) -> Result<Cell> {
        if let Some(known) = self.defaults.get(&column) {
            return Ok(known.clone());
        }
        let expr = default_expr(self.relation, column)?;
        let cell = self.relation.style().under(|| self.cell(&expr, column, to))?;
        self.defaults.insert(column, cell.clone());
        Ok(cell)
    }

    fn cell(&mut self, expr: &ast::Expr, column: usize, to: &DataType) -> Result<Cell> {
        match literal(expr, to) {
            None => {}
            Some(None) => return Ok(Cell::Value(null(to)?)),
            Some(Some(text)) => {
                match (parse_styled(&text, to, TextStyle::current()), is_string(expr)) {
                    (Ok(value), _) => return Ok(Cell::Value(value)),
                    (Err(error), true) => return Err(error),
                    // What does not fit takes the way of a numeric constant.
                    (Err(_), false) => {}
                }
            }
        }
        let planned = plan_expr(expr, &DFSchema::empty(), self.context, self.parameters)?;
        if let Expr::Placeholder(p) = &planned {
            return self.parameter(p, column, to);
        }
        let cast = typed(planned, self.relation, column, to)?;
        let coerced = over_constant(cast, &DFSchema::empty(), None)?;
        if changes(&coerced) {
            return Ok(Cell::Expr(Arc::new(coerced)));
        }
        constant::evaluate(&coerced).map(Cell::Value)
    }

    /// A parameter that stands alone takes the type of its column, or is cast to it.
    fn parameter(&mut self, p: &Placeholder, column: usize, to: &DataType) -> Result<Cell> {
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
            let name = self.relation.schema.field(column).name();
            return Err(assignment_error(name, to, &declared));
        }
        let typed = typed_placeholder(p, &declared);
        let cast = crate::expr::cast_udf(to, Coercion::Assignment).call(vec![typed]);
        Ok(Cell::Expr(Arc::new(cast)))
    }
}

fn null(data_type: &DataType) -> Result<ScalarValue> {
    ScalarValue::try_from(data_type).map_err(from_datafusion)
}

/// The text of a literal that is read into the column's type without planning, of NULL none;
/// `None` where that could differ from planning it.
fn literal<'e>(expr: &'e ast::Expr, to: &DataType) -> Option<Option<Cow<'e, str>>> {
    let (value, negative) = match expr {
        ast::Expr::Value(v) => (&v.value, false),
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match expr.as_ref() {
            ast::Expr::Value(v) if matches!(v.value, ast::Value::Number(..)) => (&v.value, true),
            _ => return None,
        },
        _ => return None,
    };
    match value {
        ast::Value::Null => Some(None),
        ast::Value::Boolean(b) if *to == DataType::Boolean => {
            Some(Some(Cow::Borrowed(if *b { "true" } else { "false" })))
        }
        ast::Value::SingleQuotedString(s) => Some(Some(Cow::Borrowed(s))),
        ast::Value::Number(n, _) if to.is_numeric() => {
            let integer = n.bytes().all(|b| b.is_ascii_digit());
            // What must be rounded takes the way of a numeric constant.
            match to.is_integer() && !integer || n.contains('_') {
                true => None,
                false if negative => Some(Some(Cow::Owned(format!("-{n}")))),
                false => Some(Some(Cow::Borrowed(n))),
            }
        }
        _ => None,
    }
}

/// Whether a literal is of unknown type: what is wrong with it is wrong with its type's input.
fn is_string(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Value(v) if matches!(v.value, ast::Value::SingleQuotedString(_)))
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

pub(in crate::sql) fn parameter_index(id: &str) -> Result<usize> {
    let number = id.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
    number.and_then(|n| n.checked_sub(1)).ok_or_else(|| {
        Error::user(sqlstate::UNDEFINED_PARAMETER, format!("there is no parameter {id}"))
    })
}

pub(in crate::sql) fn replace(
    expr: Expr,
    values: &[ScalarValue],
) -> datafusion::common::Result<Transformed<Expr>> {
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

pub(in crate::sql) fn missing(index: usize) -> Error {
    Error::user(
        sqlstate::UNDEFINED_PARAMETER,
        format!("there is no value for parameter ${}", index + 1),
    )
}

pub(in crate::sql) fn placeholders(expr: &Expr) -> Result<Vec<(String, Option<DataType>)>> {
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

/// The rows of VALUES, with values for the parameters.
pub(in crate::sql) fn evaluate_rows(
    relation: &Relation,
    rows: &[Vec<Cell>],
    values: &[ScalarValue],
    settings: &Settings,
) -> Result<RecordBatch> {
    let schema = nullable(&relation.schema);
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (i, field) in schema.fields().iter().enumerate() {
        if let Some(expr) = same_expression(rows, i) {
            columns.push(repeat(expr, rows.len(), settings)?);
            continue;
        }
        let cells = rows.iter().map(|row| evaluate_cell(&row[i], values, settings));
        let cells = cells.collect::<Result<Vec<_>>>()?;
        let array = ScalarValue::iter_to_array(cells).map_err(from_datafusion)?;
        columns.push(cast_array(&array, field.data_type())?);
    }
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The arguments of EXECUTE as values of the parameters' types.
pub fn evaluate_arguments(
    arguments: &[ast::Expr],
    types: &[DataType],
    settings: &Settings,
) -> Result<Vec<ScalarValue>> {
    let catalog = crate::catalog::Catalog::default();
    let context = Context::new(&catalog, crate::sql::binder::Purpose::AdHoc, settings);
    let value = |(expr, to): (&ast::Expr, &DataType)| {
        let planned = plan_expr(expr, &DFSchema::empty(), &context, &[])?;
        let from = constant::type_of(&planned, &DFSchema::empty())?;
        let cast = crate::expr::cast_expr(planned, &from, to, Coercion::Explicit)?;
        let coerced = over_constant(cast, &DFSchema::empty(), Some(settings.now))?;
        constant::evaluate(&coerced)
    };
    settings.style.under(|| arguments.iter().zip(types).map(value).collect())
}

/// The expression that all rows have in a column, as they have where a DEFAULT is taken.
fn same_expression(rows: &[Vec<Cell>], column: usize) -> Option<&Expr> {
    let Cell::Expr(first) = &rows.first()?[column] else { return None };
    let same = |row: &Vec<Cell>| matches!(&row[column], Cell::Expr(e) if Arc::ptr_eq(e, first));
    let known = !first.exists(|e| Ok(matches!(e, Expr::Placeholder(_)))).unwrap_or(true);
    (known && rows.iter().all(same)).then_some(first.as_ref())
}

fn evaluate_cell(cell: &Cell, values: &[ScalarValue], settings: &Settings) -> Result<ScalarValue> {
    match cell {
        Cell::Value(value) => Ok(value.clone()),
        Cell::Parameter(index) => values.get(*index).cloned().ok_or_else(|| missing(*index)),
        Cell::Expr(expr) => {
            let replaced = replace(expr.as_ref().clone(), values).map_err(plan_error)?.data;
            let coerced = over_constant(replaced, &DFSchema::empty(), Some(settings.now))?;
            constant::evaluate(&coerced)
        }
    }
}
