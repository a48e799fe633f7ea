//! Text literals of VALUES beside values of a type that the planner does not take text for:
//! `VALUES (timestamptz '2024-01-01'), ('2024-01-02')`. They are of the type of the others.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::logical_expr::ExprSchemable;
use sqlparser::ast::{self, Expr, Query, SetExpr, Value, Values};
use sqlparser::parser::Parser;

use super::binder::plan_expr;
use super::context::Context;
use super::dialect::DIALECT;
use super::tree::{call, cast};
use super::visit::{Rewrite, walk_mut};
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
            SetExpr::Values(values) => self.values(values),
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
