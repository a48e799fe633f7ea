//! Arguments by name, `make_interval(days => 3)`, put into their places: what is not given is zero.

use sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value};

use super::parser::fold;
use crate::error::{Error, Result, sqlstate};

const MAKE_INTERVAL: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];

/// A call with arguments in their places.
pub(super) fn by_place(mut f: Function) -> Result<Function> {
    let name = f.name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
    let FunctionArguments::List(list) = &mut f.args else { return Ok(f) };
    let is_named = |arg: &FunctionArg| matches!(arg, FunctionArg::Named { .. });
    if name != "make_interval" || !list.args.iter().any(is_named) {
        return Ok(f);
    }
    let mut places: [Option<FunctionArgExpr>; 7] = Default::default();
    for (i, arg) in std::mem::take(&mut list.args).into_iter().enumerate() {
        let (place, value) = match arg {
            FunctionArg::Named { name, arg, .. } => {
                let name = fold(&name);
                (MAKE_INTERVAL.iter().position(|known| *known == name), arg)
            }
            FunctionArg::Unnamed(arg) => (Some(i), arg),
            FunctionArg::ExprNamed { arg, .. } => (None, arg),
        };
        match place.and_then(|place| places.get_mut(place)) {
            Some(free @ None) => *free = Some(value),
            _ => {
                return Err(Error::user(
                    sqlstate::UNDEFINED_FUNCTION,
                    format!("function {name} has no such argument, or it was given twice"),
                ));
            }
        }
    }
    let zero = || FunctionArgExpr::Expr(Expr::value(Value::Number("0".into(), false)));
    let args = places.into_iter().map(|arg| FunctionArg::Unnamed(arg.unwrap_or_else(zero)));
    list.args = args.collect();
    Ok(f)
}
