//! FETCH FIRST: the standard's spelling of LIMIT, put into that form before a query is planned.

use std::convert::Infallible;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Distinct, Expr, LimitClause, Query, SetExpr, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use sqlparser::tokenizer::Span;

/// The part of a FETCH clause that has no LIMIT, if it has one.
pub(super) fn unsupported_fetch(query: &Query) -> Option<&'static str> {
    let fetch = query.fetch.as_ref()?;
    let limited = matches!(
        &query.limit_clause,
        Some(
            LimitClause::LimitOffset { limit: Some(_), .. } | LimitClause::OffsetCommaLimit { .. }
        )
    );
    match (fetch.with_ties, fetch.percent, limited) {
        (true, ..) => Some("FETCH FIRST .. WITH TIES"),
        (_, true, _) => Some("FETCH FIRST .. PERCENT"),
        (.., true) => Some("FETCH FIRST beside LIMIT"),
        _ => None,
    }
}

/// Writes every FETCH FIRST of a query and of those inside of it as LIMIT.
pub(super) fn fetch_to_limit(query: &mut Query) {
    let _: ControlFlow<Infallible> = query.visit(&mut Fetches);
}

struct Fetches;

impl VisitorMut for Fetches {
    type Break = Infallible;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Infallible> {
        let Some(fetch) = query.fetch.take() else { return ControlFlow::Continue(()) };
        // Without a number it is one row.
        let one = Value::Number("1".into(), false);
        let one = Expr::Value(ValueWithSpan { value: one, span: Span::empty() });
        let limit = Some(fetch.quantity.unwrap_or(one));
        let offset = match query.limit_clause.take() {
            Some(LimitClause::LimitOffset { offset, .. }) => offset,
            _ => None,
        };
        let limit_by = Vec::new();
        query.limit_clause = Some(LimitClause::LimitOffset { limit, offset, limit_by });
        ControlFlow::Continue(())
    }
}

/// Whether ORDER BY decides which rows a query has: with LIMIT, OFFSET or DISTINCT ON.
pub(super) fn order_matters(query: &Query) -> bool {
    let distinct_on = |body: &SetExpr| match body {
        SetExpr::Select(select) => matches!(select.distinct, Some(Distinct::On(_))),
        _ => false,
    };
    query.limit_clause.is_some() || distinct_on(&query.body)
}
