//! `lag` and `lead` with a default that is computed per row, which DataFusion takes as a constant
//! only: whether there is such a row is asked by the same call over a constant.

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value,
};

use super::parser::fold;

/// The call as a CASE, if its default is no constant.
pub(super) fn with_default(f: &Function) -> Option<Expr> {
    let name = fold(f.name.0.last()?.as_ident()?);
    if f.over.is_none() || f.null_treatment.is_some() || !matches!(&*name, "lag" | "lead") {
        return None;
    }
    let FunctionArguments::List(list) = &f.args else { return None };
    let [_, _, FunctionArg::Unnamed(FunctionArgExpr::Expr(default))] = &*list.args else {
        return None;
    };
    if matches!(default, Expr::Value(_)) {
        return None;
    }
    let shifted = |first: Option<Expr>| {
        let mut shifted = f.clone();
        if let FunctionArguments::List(list) = &mut shifted.args {
            list.args.truncate(2);
            if let (Some(slot), Some(first)) = (list.args.first_mut(), first) {
                *slot = FunctionArg::Unnamed(FunctionArgExpr::Expr(first));
            }
        }
        Expr::Function(shifted)
    };
    let there = Expr::value(Value::Boolean(true));
    let when = CaseWhen {
        condition: Expr::IsNull(Box::new(shifted(Some(there)))),
        result: default.clone(),
    };
    Some(Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![when],
        else_result: Some(Box::new(shifted(None))),
    })
}
