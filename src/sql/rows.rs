//! Comparisons of rows of expressions, `(a, b) < (c, d)` and `(a, b) IN (SELECT ..)`, put down to
//! comparisons of their fields.

use sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Query, SetExpr,
    TableFactor,
};
use sqlparser::parser::Parser;

use super::desugar::negated_if;
use super::dialect::DIALECT;
use super::names::MARK;
use super::parser::fold;
use super::tree::call;
use crate::error::{Error, Result, sqlstate};

/// The fields of `(a, b)` and `ROW (a, b)`.
fn fields(expr: &Expr) -> Option<Vec<Expr>> {
    let field = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(field)) => Some(field.clone()),
        _ => None,
    };
    match expr {
        Expr::Tuple(fields) => Some(fields.clone()),
        Expr::Nested(inner) => fields(inner),
        Expr::Function(f) => match (&f.args, f.name.0.as_slice()) {
            (FunctionArguments::List(list), [name])
                if name.as_ident().is_some_and(|name| fold(name) == "row") =>
            {
                // `ROW (t.*)` has fields that are not known here.
                list.args.iter().map(field).collect::<Option<Vec<_>>>().filter(|f| !f.is_empty())
            }
            _ => None,
        },
        _ => None,
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    let nested = |e| Expr::Nested(Box::new(e));
    nested(Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) })
}

/// `(a, b) < (c, d)` field by field.
pub(super) fn rows_compared(left: Expr, op: BinaryOperator, right: Expr) -> Result<Expr> {
    let (Some(l), Some(r)) = (fields(&left), fields(&right)) else {
        return Ok(Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) });
    };
    if op == BinaryOperator::Overlaps
        && let ([a, b], [c, d]) = (l.as_slice(), r.as_slice())
    {
        return Ok(call("overlaps", vec![a.clone(), b.clone(), c.clone(), d.clone()]));
    }
    if l.len() != r.len() || l.is_empty() {
        return Err(Error::user(
            sqlstate::SYNTAX_ERROR,
            "unequal number of entries in row expressions",
        ));
    }
    let pairs: Vec<(Expr, Expr)> = l.into_iter().zip(r).collect();
    let all = |op: BinaryOperator, join: BinaryOperator| {
        let each = pairs.iter().map(|(l, r)| binary(l.clone(), op.clone(), r.clone()));
        each.reduce(|a, b| binary(a, join.clone(), b))
    };
    let compared = match op {
        BinaryOperator::Eq => all(BinaryOperator::Eq, BinaryOperator::And),
        BinaryOperator::NotEq => all(BinaryOperator::NotEq, BinaryOperator::Or),
        BinaryOperator::Lt | BinaryOperator::LtEq | BinaryOperator::Gt | BinaryOperator::GtEq => {
            let strict = match op {
                BinaryOperator::Lt | BinaryOperator::LtEq => BinaryOperator::Lt,
                _ => BinaryOperator::Gt,
            };
            let mut pairs = pairs.into_iter().rev();
            let last = pairs.next().map(|(l, r)| binary(l, op.clone(), r));
            pairs.fold(last, |rest, (l, r)| {
                let before = binary(l.clone(), strict.clone(), r.clone());
                let tie = binary(binary(l, BinaryOperator::Eq, r), BinaryOperator::And, rest?);
                Some(binary(before, BinaryOperator::Or, tie))
            })
        }
        _ => None,
    };
    compared.ok_or_else(|| Error::unsupported(format!("operator {op} of rows is not supported")))
}

/// `(a, b) IN ((1, 2), (3, 4))` as comparisons.
pub(super) fn row_in_list(expr: Expr, list: Vec<Expr>, negated: bool) -> Result<Expr> {
    if fields(&expr).is_none() {
        return Ok(Expr::InList { expr: Box::new(expr), list, negated });
    }
    let mut any = None;
    for item in list {
        let same = rows_compared(expr.clone(), BinaryOperator::Eq, item)?;
        any = Some(match any {
            None => same,
            Some(before) => binary(before, BinaryOperator::Or, same),
        });
    }
    any.map(|any| negated_if(negated, any)).ok_or_else(|| Error::internal("an IN list has an item"))
}

/// `(a, b) IN (query)` where a condition stands, and NULL is as good as false.
pub(super) fn row_in_filter(row: &Expr, query: &Query, negated: bool) -> Option<Expr> {
    // Under NOT a row that might be the same is enough.
    let test = if negated { "IS NOT FALSE" } else { "" };
    exists(&fields(row)?, query, test).map(|found| negated_if(negated, found))
}

/// The same as a value, which may be NULL.
pub(super) fn row_in_value(row: &Expr, query: &Query, negated: bool) -> Option<Expr> {
    let fields = fields(row)?;
    let same = exists(&fields, query, "")?;
    let maybe = exists(&fields, query, "IS NOT FALSE")?;
    let text = "CASE WHEN found THEN TRUE WHEN maybe THEN NULL ELSE FALSE END";
    let mut case = parsed(text)?;
    if let Expr::Case { conditions, .. } = &mut case {
        for (when, condition) in conditions.iter_mut().zip([same, maybe]) {
            when.condition = condition;
        }
    }
    Some(negated_if(negated, case))
}

/// Whether a query has a row whose columns are equal to the fields, or pass another test.
fn exists(fields: &[Expr], query: &Query, test: &str) -> Option<Expr> {
    let table = format!("\"{MARK}rows\"");
    let columns: Vec<String> = (0..fields.len()).map(|i| format!("\"{MARK}{i}\"")).collect();
    let equal: Vec<String> = columns.iter().map(|c| format!("{table}.{c} = 0")).collect();
    let text = format!(
        "EXISTS (SELECT 1 FROM (SELECT 1) AS {table} ({}) WHERE ({}) {test})",
        columns.join(", "),
        equal.join(" AND ")
    );
    let mut exists = parsed(&text)?;
    let Expr::Exists { subquery, .. } = &mut exists else { return None };
    let SetExpr::Select(select) = subquery.body.as_mut() else { return None };
    if let TableFactor::Derived { subquery, .. } = &mut select.from.first_mut()?.relation {
        **subquery = query.clone();
    }
    put(select.selection.as_mut()?, &mut fields.iter().rev());
    Some(exists)
}

/// Puts the fields in place of the zeros, from the last one on.
fn put<'f>(expr: &mut Expr, fields: &mut impl Iterator<Item = &'f Expr>) {
    match expr {
        Expr::Nested(inner) | Expr::IsNotFalse(inner) => put(inner, fields),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            put(right, fields);
            put(left, fields);
        }
        Expr::BinaryOp { right, .. } => {
            if let Some(field) = fields.next() {
                **right = Expr::Nested(Box::new(field.clone()));
            }
        }
        _ => {}
    }
}

fn parsed(text: &str) -> Option<Expr> {
    Parser::new(&DIALECT).try_with_sql(text).and_then(|mut p| p.parse_expr()).ok()
}
