//! Rows as values: `ROW (..)` and the columns of a table as one value.

use std::sync::Arc;

use arrow::array::StructArray;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::functions::core::named_struct;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, lit};

use super::whole_rows::THERE;

/// A call whose arguments `x.*` are columns: all of them in ROW, and one value elsewhere.
pub(super) fn with_whole_rows(mut f: ScalarFunction, schema: &DFSchema) -> ScalarFunction {
    if !f.args.iter().any(is_whole_row) {
        return f;
    }
    let row = f.func.name() == "struct";
    let mut args = Vec::with_capacity(f.args.len());
    for arg in f.args {
        match whole_row(&arg, schema) {
            Some(columns) if row => args.extend(columns.into_iter().map(|(_, column)| column)),
            Some(columns) => args.push(named(columns)),
            None => args.push(arg),
        }
    }
    f.args = args;
    f
}

/// What stands for the fields of `ROW ()`; no text that is read begins with its mark.
pub(super) const NO_FIELDS: &str = "\u{1}no fields";

/// `ROW (..)`; its fields are called as PostgreSQL calls them.
pub(super) fn record(args: Vec<Expr>) -> Expr {
    if let [Expr::Literal(ScalarValue::Utf8(Some(text)), _)] = args.as_slice()
        && text == NO_FIELDS
    {
        let empty = StructArray::new_empty_fields(1, None);
        return lit(ScalarValue::Struct(Arc::new(empty)));
    }
    let name = |(i, arg)| (format!("f{}", i + 1), arg);
    named(args.into_iter().enumerate().map(name).collect())
}

fn named(fields: Vec<(String, Expr)>) -> Expr {
    let name = |name: String| lit(ScalarValue::Utf8(Some(name)));
    named_struct().call(fields.into_iter().flat_map(|(n, field)| [name(n), field]).collect())
}

#[expect(deprecated, reason = "what the planner leaves of `x.*` in a call")]
fn is_whole_row(expr: &Expr) -> bool {
    matches!(expr, Expr::Wildcard { .. })
}

/// The names and columns of `x.*`.
#[expect(deprecated, reason = "what the planner leaves of `x.*` in a call")]
fn whole_row(expr: &Expr, schema: &DFSchema) -> Option<Vec<(String, Expr)>> {
    let Expr::Wildcard { qualifier, .. } = expr else { return None };
    let of_table = schema.iter().filter(|(table, field)| {
        let same = match (qualifier, table) {
            (Some(wanted), Some(table)) => wanted.resolved_eq(table),
            (Some(_), None) => false,
            (None, _) => true,
        };
        same && !field.name().starts_with(THERE)
    });
    let column = |(table, field)| {
        let field: &std::sync::Arc<arrow::datatypes::Field> = field;
        (field.name().clone(), Expr::from((table, field)))
    };
    Some(of_table.map(column).collect())
}
