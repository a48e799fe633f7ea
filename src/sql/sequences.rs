//! The calls that name sequences, in texts and trees of expressions.

use sqlparser::ast::{self, DataType, Expr, Function, FunctionArg, FunctionArgExpr};
use sqlparser::ast::{FunctionArguments, Value};

use super::dml::parse_expr;
use super::parser::{fold, relation_name};
use super::visit::walk_exprs_mut;
use crate::catalog::written;
use crate::error::Result;

/// The functions whose first argument is a sequence.
const FUNCTIONS: [&str; 3] = ["currval", "nextval", "setval"];

/// The DEFAULT of a column whose numbers a sequence gives.
pub fn nextval_of(name: &str) -> Result<Expr> {
    let name = written(name).replace('\'', "''");
    parse_expr(&format!("nextval('{name}'::regclass)"))
}

/// A DEFAULT as it is kept and shown: sequences are named as PostgreSQL names them, which clients
/// look for.
pub(super) fn written_default(expr: &Expr) -> Result<String> {
    let mut expr = expr.clone();
    plain_sequences(&mut expr)?;
    walk_exprs_mut(&mut expr, &mut |expr| {
        let Expr::Function(f) = expr else { return Ok(()) };
        let Some(name) = named(f).filter(|name| matches!(name, Expr::Value(_))) else {
            return Ok(());
        };
        let inner = std::mem::replace(name, Expr::value(Value::Null));
        *name = Expr::Cast {
            kind: ast::CastKind::DoubleColon,
            expr: Box::new(inner),
            data_type: DataType::Custom(ast::Ident::new("regclass").into(), Vec::new()),
            array: false,
            format: None,
        };
        Ok(())
    })?;
    Ok(expr.to_string())
}

/// The sequences that an expression names.
pub fn sequences_in(text: &str) -> Result<Vec<String>> {
    let (mut expr, mut found) = (parse_expr(text)?, Vec::new());
    walk_exprs_mut(&mut expr, &mut |expr| {
        let Expr::Function(f) = expr else { return Ok(()) };
        plain_sequence(f);
        let Some(Expr::Value(value)) = named(f) else { return Ok(()) };
        if let Value::SingleQuotedString(name) = &value.value
            && let Ok(Expr::Identifier(_) | Expr::CompoundIdentifier(_)) = parse_expr(name)
        {
            let parts = match parse_expr(name)? {
                Expr::Identifier(name) => vec![name],
                Expr::CompoundIdentifier(parts) => parts,
                _ => Vec::new(),
            };
            let parts = parts.into_iter().map(ast::ObjectNamePart::Identifier).collect();
            found.extend(relation_name(&ast::ObjectName(parts)).ok());
        }
        Ok(())
    })?;
    Ok(found)
}

/// Takes the cast to `regclass` off the name of a sequence: the function looks it up when it runs.
pub(super) fn plain_sequence(f: &mut Function) {
    if let Some(arg) = named(f)
        && let Expr::Cast { expr, data_type: DataType::Regclass, .. } = arg
    {
        let inner = std::mem::replace(expr.as_mut(), Expr::value(Value::Null));
        *arg = inner;
    }
}

/// The same of all calls in an expression.
pub(super) fn plain_sequences(expr: &mut Expr) -> Result<()> {
    walk_exprs_mut(expr, &mut |expr| {
        if let Expr::Function(f) = expr {
            plain_sequence(f);
        }
        Ok(())
    })
}

/// The argument that names a sequence.
fn named(f: &mut Function) -> Option<&mut Expr> {
    let name = f.name.0.last()?.as_ident().map(fold)?;
    let FunctionArguments::List(list) = &mut f.args else { return None };
    match list.args.first_mut()? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) if FUNCTIONS.contains(&name.as_str()) => {
            Some(arg)
        }
        _ => None,
    }
}
