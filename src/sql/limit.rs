//! FETCH FIRST: the standard's spelling of LIMIT, put into that form before a query is planned. The
//! planner has no place for WITH TIES, so its number travels as the argument of a function that
//! `ties` looks for.

use std::sync::Arc;

use datafusion::logical_expr as df;
use sqlparser::ast::{Distinct, Expr, Fetch, LimitClause, Query, SetExpr, Value, ValueWithSpan};
use sqlparser::tokenizer::Span;

use super::tree::call;
use super::visit::{Rewrite, walk_mut};
use crate::error::{Error, Result, sqlstate};

/// Refuses a FETCH clause that would count ties of no order.
pub(super) fn check_fetch(query: &Query) -> Result<()> {
    let Some(Fetch { with_ties: true, quantity, .. }) = &query.fetch else { return Ok(()) };
    if query.order_by.is_none() {
        let message = "WITH TIES cannot be specified without ORDER BY clause";
        return Err(Error::user(sqlstate::SYNTAX_ERROR, message));
    }
    if quantity.as_ref().is_some_and(is_null) {
        let message = "row count cannot be null in FETCH FIRST ... WITH TIES clause";
        return Err(Error::user(sqlstate::INVALID_ROW_COUNT_IN_LIMIT_CLAUSE, message));
    }
    Ok(())
}

fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_null(inner),
        Expr::Value(ValueWithSpan { value: Value::Null, .. }) => true,
        _ => false,
    }
}

/// Counts of rows at most: sums of a few of them fit in 64 bits, and no query has as many rows.
const ROWS_MAX: i64 = i64::MAX / 8;

/// A count of the text that is larger becomes [`ROWS_MAX`].
fn bounded(count: &mut Expr) {
    if let Expr::Value(ValueWithSpan { value: Value::Number(n, _), .. }) = count
        && n.parse::<i64>().is_ok_and(|n| n > ROWS_MAX)
    {
        *n = ROWS_MAX.to_string();
    }
}

/// Writes every FETCH FIRST of a query and of those inside of it as LIMIT.
pub(super) fn fetch_to_limit(query: &mut Query) {
    let _done = walk_mut(query, &mut Fetches);
}

struct Fetches;

impl Rewrite for Fetches {
    fn pre_query(&mut self, query: &mut Query) -> Result<()> {
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
            limit.iter_mut().chain(offset.as_mut().map(|o| &mut o.value)).for_each(bounded);
        }
        let Some(fetch) = query.fetch.take() else { return Ok(()) };
        // Without a number it is one row.
        let one = Value::Number("1".into(), false);
        let one = Expr::Value(ValueWithSpan { value: one, span: Span::empty() });
        let mut count = fetch.quantity.unwrap_or(one);
        if fetch.with_ties {
            count = with_ties(count);
        }
        let limit = Some(count);
        let offset = match query.limit_clause.take() {
            Some(LimitClause::LimitOffset { offset, .. }) => offset,
            _ => None,
        };
        let limit_by = Vec::new();
        query.limit_clause = Some(LimitClause::LimitOffset { limit, offset, limit_by });
        Ok(())
    }
}

const WITH_TIES: &str = "#with_ties";

/// A number of rows WITH TIES, as the syntax tree has it.
fn with_ties(count: Expr) -> Expr {
    call(WITH_TIES, vec![count])
}

/// The number of rows of a LIMIT that stands for FETCH FIRST .. WITH TIES.
pub(super) fn with_ties_count(fetch: &df::Expr) -> Option<&df::Expr> {
    let mut fetch = fetch;
    while let df::Expr::Cast(cast) = fetch {
        fetch = &cast.expr;
    }
    match fetch {
        df::Expr::ScalarFunction(f) if f.func.name() == WITH_TIES => f.args.first(),
        _ => None,
    }
}

/// The LIMIT that stands for a number of rows WITH TIES.
pub(super) fn counting_ties(count: df::Expr) -> df::Expr {
    with_ties_udf().1.call(vec![count])
}

/// The function that marks a number of rows WITH TIES: the number itself.
pub(super) fn with_ties_udf() -> (String, Arc<df::ScalarUDF>) {
    let same = df::create_udf(
        WITH_TIES,
        vec![arrow::datatypes::DataType::Int64],
        arrow::datatypes::DataType::Int64,
        df::Volatility::Immutable,
        Arc::new(|args: &[df::ColumnarValue]| Ok(args[0].clone())),
    );
    (WITH_TIES.to_owned(), Arc::new(same))
}

/// Whether ORDER BY decides which rows a query has: with LIMIT, OFFSET or DISTINCT ON.
pub(super) fn order_matters(query: &Query) -> bool {
    let distinct_on = |body: &SetExpr| match body {
        SetExpr::Select(select) => matches!(select.distinct, Some(Distinct::On(_))),
        _ => false,
    };
    query.limit_clause.is_some() || distinct_on(&query.body)
}
