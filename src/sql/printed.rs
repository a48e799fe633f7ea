//! Arguments that functions print by themselves.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};

use super::outline::type_of;
use crate::delta::style::TextStyle;
use crate::expr::{call, in_style, moments_in_json};
use crate::library::{self, Trait, has_trait};

/// Arguments of a function in the style of the session. JSON has a style of its own for days and
/// moments.
pub(super) fn print_in_style(f: &mut ScalarFunction, schema: &DFSchema) -> DfResult<()> {
    let json = has_trait(f.func.name(), Trait::PrintsJson);
    let prints = json || has_trait(f.func.name(), Trait::Prints);
    if !prints || TextStyle::current().is_default() {
        return Ok(());
    }
    for arg in &mut f.args {
        let data_type = type_of(arg, schema)?;
        *arg = match data_type {
            DataType::Interval(_) | DataType::Binary => in_style(take(arg), &data_type),
            _ if json => moments_in_json(take(arg), &data_type),
            _ => in_style(take(arg), &data_type),
        };
    }
    Ok(())
}

/// Rows in an aggregate that gives JSON, as JSON.
pub(super) fn rows_as_json(f: &mut AggregateFunction, schema: &DFSchema) -> DfResult<()> {
    if !library::aggregate(f.func.name()).is_some_and(|entry| entry.json) {
        return Ok(());
    }
    for arg in &mut f.params.args {
        let data_type = type_of(arg, schema)?;
        *arg = moments_in_json(take(arg), &data_type);
        if matches!(data_type, DataType::Struct(_)) {
            *arg = call("to_jsonb", vec![take(arg)])?;
        }
    }
    Ok(())
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Literal(ScalarValue::Null, None))
}
