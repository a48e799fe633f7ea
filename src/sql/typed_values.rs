//! Text literals of VALUES beside values of a type that the planner does not take text for:
//! `VALUES (timestamptz '2024-01-01'), ('2024-01-02')`. They are of the type of the others. And
//! rows with a subquery or a column of an outer query, of which DataFusion has none in VALUES: they
//! are a SELECT each.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::logical_expr::ExprSchemable;
use sqlparser::ast::{
    self, Expr, Ident, Parens, Query, SelectItem, SetExpr, SetOperator, SetQuantifier, Value,
    Values,
};
use sqlparser::parser::Parser;

use super::binder::plan_expr;
use super::context::Context;
use super::dialect::DIALECT;
use super::tree::{call, cast};
use super::visit::{Rewrite, any_expr, walk_mut};
use crate::delta::text::pg_type_name;
use crate::error::Result;

/// Gives the text literals in the VALUES of a query the types of their columns.
pub(super) fn type_values(
    query: &mut Query,
    context: &Context<'_>,
    parameters: &[Option<DataType>],
) -> Result<()> {
    walk_mut(query, &mut Types { context, parameters })
}

struct Types<'a> {
    context: &'a Context<'a>,
    parameters: &'a [Option<DataType>],
}

impl Rewrite for Types<'_> {
    fn post_query(&mut self, query: &mut Query) -> Result<()> {
        self.set(&mut query.body);
        Ok(())
    }
}

impl Types<'_> {
    fn set(&self, body: &mut SetExpr) {
        match body {
            SetExpr::Values(values) => {
                self.values(values);
                if let Some(selects) = as_selects(values) {
                    *body = selects;
                }
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.set(left);
                self.set(right);
            }
            _ => {}
        }
    }

    fn values(&self, values: &mut Values) {
        // What the user has cast stays apart from what the planner casts to fit its guess.
        for cell in values.rows.iter_mut().flat_map(|row| &mut row.content) {
            if is_cast_constant(cell) {
                let written = std::mem::replace(cell, Expr::value(Value::Null));
                *cell = call("pg_same", vec![written]);
            }
        }
        let columns = values.rows.iter().map(|row| row.content.len()).min().unwrap_or_default();
        for column in 0..columns {
            let mut cells = values.rows.iter().map(|row| &row.content[column]);
            if !cells.clone().any(is_text) {
                continue;
            }
            let typed = cells.find(|cell| !is_text(cell) && !is_null(cell));
            let Some(to) = typed.and_then(|cell| self.type_of(cell)) else { continue };
            for cell in values.rows.iter_mut().map(|row| &mut row.content[column]) {
                if is_text(cell) {
                    let text = std::mem::replace(cell, Expr::value(Value::Null));
                    *cell = cast(text, to.clone());
                }
            }
        }
    }

    /// The type of a value that is no number and no text; those the planner mixes with text.
    fn type_of(&self, cell: &Expr) -> Option<ast::DataType> {
        let schema = DFSchema::empty();
        let planned = plan_expr(cell, &schema, self.context, self.parameters).ok()?;
        let data_type = planned.get_type(&schema).ok()?;
        if data_type.is_numeric() || matches!(data_type, DataType::Utf8 | DataType::Null) {
            return None;
        }
        let name = pg_type_name(&data_type);
        Parser::new(&DIALECT).try_with_sql(name).and_then(|mut p| p.parse_data_type()).ok()
    }
}

/// Rows of which some have such a thing: a SELECT for each, since NULL in VALUES would be text to
/// the others.
fn as_selects(values: &Values) -> Option<SetExpr> {
    let needs_select = |row: &Parens<Vec<Expr>>| any_expr(&row.content, &is_of_select);
    match values.rows.iter().any(needs_select) {
        true => union_of(&values.rows),
        false => None,
    }
}

/// UNION ALL of rows, no deeper than it has to be.
fn union_of(rows: &[Parens<Vec<Expr>>]) -> Option<SetExpr> {
    if let [row] = rows {
        return select_of(&row.content);
    }
    let (left, right) = rows.split_at(rows.len() / 2);
    Some(SetExpr::SetOperation {
        op: SetOperator::Union,
        set_quantifier: SetQuantifier::All,
        left: Box::new(union_of(left)?),
        right: Box::new(union_of(right)?),
    })
}

/// SELECT of a row, its columns named as those of VALUES are.
fn select_of(row: &[Expr]) -> Option<SetExpr> {
    let parsed = Parser::new(&DIALECT).try_with_sql("SELECT 1").and_then(|mut p| p.parse_query());
    let mut body = *parsed.ok()?.body;
    let SetExpr::Select(select) = &mut body else { return None };
    let named = row.iter().zip(1..).map(|(cell, number)| SelectItem::ExprWithAlias {
        expr: cell.clone(),
        alias: Ident::new(format!("column{number}")),
    });
    select.projection = named.collect();
    Some(body)
}

/// A subquery, or a column, which can only be one of an outer query.
fn is_of_select(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::Subquery(_)
            | Expr::Exists { .. }
            | Expr::InSubquery { .. }
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. }
    )
}

fn is_text(cell: &Expr) -> bool {
    match cell {
        Expr::Value(value) => matches!(value.value, Value::SingleQuotedString(_)),
        Expr::Nested(inner) => is_text(inner),
        _ => false,
    }
}

fn is_cast_constant(cell: &Expr) -> bool {
    match cell {
        Expr::Cast { expr, .. } => match expr.as_ref() {
            Expr::Value(_) => !is_text(expr),
            Expr::UnaryOp { expr, .. } => matches!(expr.as_ref(), Expr::Value(_)),
            _ => false,
        },
        Expr::Nested(inner) => is_cast_constant(inner),
        _ => false,
    }
}

fn is_null(cell: &Expr) -> bool {
    matches!(cell, Expr::Value(value) if value.value == Value::Null)
}
