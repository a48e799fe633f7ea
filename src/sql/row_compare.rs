//! Comparisons of rows whose fields only the planner knows: `t.* = u.*`, `ROW (t.*) < ROW (1, 2)`,
//! and those of one value with another that is a row.
//!
//! Two ROWs are compared field by field, as if their fields were written out. All else are values,
//! of which two NULLs in the same place are equal and stand behind everything else.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::{Expr, Operator};

use super::records::with_whole_rows;
use crate::delta::text::pg_type_name;
use crate::error::{Error, sqlstate};
use crate::expr::{call, common_type, to_datafusion};

/// An operand with the fields of the rows in it.
pub(super) fn row_in_place(expr: Expr, schema: &DFSchema) -> Expr {
    match expr {
        Expr::ScalarFunction(f) => Expr::ScalarFunction(with_whole_rows(f, schema)),
        // A call by another name of its function.
        Expr::Alias(alias) if fields(&alias.expr).is_some() => row_in_place(*alias.expr, schema),
        // The row of a table that may be missing.
        Expr::Case(mut case) => {
            for (_, result) in &mut case.when_then_expr {
                **result = row_in_place(std::mem::take(result), schema);
            }
            Expr::Case(case)
        }
        other => other,
    }
}

/// How fields are compared.
pub(super) type Compare<'a> = &'a dyn Fn(Operator, Expr, Expr) -> DfResult<Expr>;

/// The comparison of two ROWs, if both operands are that.
pub(super) fn by_fields(
    op: Operator,
    left: &Expr,
    right: &Expr,
    compare: Compare<'_>,
) -> DfResult<Option<Expr>> {
    let (Some(l), Some(r)) = (fields(left), fields(right)) else { return Ok(None) };
    if l.len() != r.len() || l.is_empty() {
        return Err(to_datafusion(Error::user(
            sqlstate::SYNTAX_ERROR,
            "unequal number of entries in row expressions",
        )));
    }
    let each = |op: Operator| l.iter().zip(r).map(move |(l, r)| compare(op, l.clone(), r.clone()));
    let strict = match op {
        Operator::Eq => return all(each(op), Expr::and),
        Operator::NotEq => return all(each(op), Expr::or),
        Operator::Lt | Operator::LtEq => Operator::Lt,
        Operator::Gt | Operator::GtEq => Operator::Gt,
        _ => return Ok(None),
    };
    let mut pairs = l.iter().zip(r).rev();
    let last = pairs.next().map(|(l, r)| compare(op, l.clone(), r.clone())).transpose()?;
    let with = |rest: Option<Expr>, (l, r): (&Expr, &Expr)| {
        let tie = compare(Operator::Eq, l.clone(), r.clone())?;
        let before = compare(strict, l.clone(), r.clone())?;
        Ok(rest.map(|rest| before.or(tie.and(rest))))
    };
    pairs.try_fold(last, with)
}

fn all(
    mut each: impl Iterator<Item = DfResult<Expr>>,
    join: fn(Expr, Expr) -> Expr,
) -> DfResult<Option<Expr>> {
    let first = each.next().transpose()?;
    each.try_fold(first, |all, one| {
        let one = one?;
        Ok(all.map(|all| join(all, one)))
    })
}

fn fields(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::ScalarFunction(f) if f.func.name() == "struct" => Some(&f.args),
        _ => None,
    }
}

/// How a value becomes one of a type.
pub(super) type Cast<'a> = &'a dyn Fn(Expr, &DataType) -> DfResult<Expr>;

/// Two rows as rows whose fields are of the same types: PostgreSQL compares no others, but a number
/// that is written in a ROW takes the type that it has room in.
pub(super) fn of_same_types(
    op: Operator,
    (left, right): (Expr, Expr),
    (l, r): (&DataType, &DataType),
    cast: Cast<'_>,
) -> DfResult<(Expr, Expr)> {
    let (DataType::Struct(a), DataType::Struct(b)) = (l, r) else { return Ok((left, right)) };
    let wrong = |message| to_datafusion(Error::user(sqlstate::DATATYPE_MISMATCH, message));
    if a.len() != b.len() {
        let message = "cannot compare record types with different numbers of columns";
        return Err(wrong(message.to_owned()));
    }
    let written = (is_written(&left), is_written(&right));
    let mut types = Vec::with_capacity(a.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let (a, b) = (a.data_type(), b.data_type());
        let common = match (a.equals_datatype(b), written) {
            (true, _) => Some(a.clone()),
            (_, (false, false)) => None,
            _ => common_type(a, b),
        };
        // Values of the side that is not written stay what they are.
        let fits = |t: &DataType| (written.0 || t == a) && (written.1 || t == b);
        let common = common.filter(|t| a.equals_datatype(b) || fits(t)).ok_or_else(|| {
            let (a, b, i) = (pg_type_name(a), pg_type_name(b), i + 1);
            wrong(format!(
                "cannot compare dissimilar column types {a} and {b} at record column {i}"
            ))
        })?;
        types.push(common);
    }
    let (left, right) = (as_types(left, &types, cast)?, as_types(right, &types, cast)?);
    let ordered = matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
    // Fields that are called otherwise are the same to the order of rows.
    let called = |row: &DataType| match row {
        DataType::Struct(fields) => fields.iter().map(|f| f.name().clone()).collect(),
        _ => Vec::new(),
    };
    match ordered || called(l) == called(r) {
        true => Ok((left, right)),
        false => Ok((call("pg_row_order", vec![left])?, call("pg_row_order", vec![right])?)),
    }
}

/// Whether a row is written out.
fn is_written(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(f) if f.func.name() == "named_struct")
}

fn as_types(expr: Expr, types: &[DataType], cast: Cast<'_>) -> DfResult<Expr> {
    match expr {
        Expr::ScalarFunction(mut f) if f.func.name() == "named_struct" => {
            // Names and fields in turn.
            for (field, wanted) in f.args.iter_mut().skip(1).step_by(2).zip(types) {
                *field = cast(std::mem::take(field), wanted)?;
            }
            Ok(Expr::ScalarFunction(f))
        }
        other => Ok(other),
    }
}
