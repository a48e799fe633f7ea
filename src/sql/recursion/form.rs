//! What PostgreSQL refuses in a recursive query, in its words: each round of one sees the rows of
//! the last round alone, so that the query must not look for rows that are not there.

use sqlparser::ast::{
    Expr, JoinOperator, LimitClause, Query, Select, SetExpr, SetOperator, SetQuantifier,
    TableFactor, TableWithJoins,
};

use super::syntax::{mentions, names};
use crate::error::{Error, Result, sqlstate};
use crate::sql::lifted::is_aggregate;
use crate::sql::visit::any_outer_expr;

fn invalid(message: String) -> Error {
    Error::user(sqlstate::INVALID_RECURSION, message)
}

pub(super) fn no_form(name: &str) -> Error {
    invalid(format!(
        "recursive query \"{name}\" does not have the form non-recursive-term UNION [ALL] \
         recursive-term"
    ))
}

pub(super) fn within_base(name: &str) -> Error {
    within(name, "its non-recursive term")
}

fn within(name: &str, what: &str) -> Error {
    invalid(format!("recursive reference to query \"{name}\" must not appear within {what}"))
}

/// Refuses clauses of a whole recursive query.
pub(super) fn check_clauses(query: &Query) -> Result<()> {
    let (limit, offset) = match &query.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset, .. }) => (limit.is_some(), offset.is_some()),
        Some(_) => (true, true),
        None => (false, false),
    };
    let clauses = [
        (query.order_by.is_some(), "ORDER BY"),
        (offset, "OFFSET"),
        (limit || query.fetch.is_some(), "LIMIT"),
        (!query.locks.is_empty(), "FOR UPDATE/SHARE"),
    ];
    match clauses.into_iter().find(|(there, _)| *there) {
        Some((_, clause)) => {
            let message = format!("{clause} in a recursive query is not implemented");
            Err(Error::unsupported(message)
                .with_hint("Put it behind the query that reads the recursive one."))
        }
        None => Ok(()),
    }
}

/// Checks the recursive term: it names the query once, where rows of the last round are enough.
pub(super) fn check_step(step: &Query, name: &str) -> Result<()> {
    let mut form = Form { name, found: 0 };
    form.query(step, None)?;
    match form.found {
        1 => Ok(()),
        _ => {
            let message =
                format!("recursive reference to query \"{name}\" must not appear more than once");
            Err(invalid(message))
        }
    }
}

struct Form<'a> {
    name: &'a str,
    /// References so far.
    found: usize,
}

/// What is around a place that lets no reference stand there.
type Place = Option<&'static str>;

const OUTER_JOIN: Place = Some("an outer join");

impl Form<'_> {
    fn query(&mut self, query: &Query, place: Place) -> Result<()> {
        let (before, all) = (self.found, mentions(query, self.name)?);
        if all == 0 {
            return Ok(());
        }
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.query(&cte.query, place)?;
        }
        self.body(&query.body, place)?;
        self.nowhere_else(before, all)
    }

    /// What is not in FROM is in a subquery of an expression.
    fn nowhere_else(&self, before: usize, all: usize) -> Result<()> {
        match self.found - before < all {
            true => Err(within(self.name, "a subquery")),
            false => Ok(()),
        }
    }

    fn body(&mut self, body: &SetExpr, place: Place) -> Result<()> {
        match body {
            SetExpr::Select(select) => self.select(select, place),
            SetExpr::Query(query) => self.query(query, place),
            SetExpr::SetOperation { op, set_quantifier, left, right } => {
                let all = *set_quantifier == SetQuantifier::All;
                let (of_left, of_right) = match op {
                    SetOperator::Union => (place, place),
                    SetOperator::Intersect if all => (Some("INTERSECT"), Some("INTERSECT")),
                    SetOperator::Intersect => (place, place),
                    _ if all => (Some("EXCEPT"), Some("EXCEPT")),
                    _ => (place, Some("EXCEPT")),
                };
                self.body(left, of_left)?;
                self.body(right, of_right)
            }
            _ => Ok(()),
        }
    }

    fn select(&mut self, select: &Select, place: Place) -> Result<()> {
        let (before, all) = (self.found, mentions(select, self.name)?);
        for table in &select.from {
            self.joined(table, place)?;
        }
        self.nowhere_else(before, all)?;
        let aggregate = |e: &Expr| matches!(e, Expr::Function(f) if is_aggregate(f));
        let aggregates = any_outer_expr(&select.projection, &aggregate)
            || any_outer_expr(&select.having, &aggregate);
        if aggregates && select.from.iter().any(|table| self.is_direct(table)) {
            return Err(invalid(
                "aggregate functions are not allowed in a recursive query's recursive term"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether the name itself stands among joined tables.
    fn is_direct(&self, table: &TableWithJoins) -> bool {
        let factors = table.joins.iter().map(|join| &join.relation);
        std::iter::once(&table.relation).chain(factors).any(|factor| match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => self.is_direct(table_with_joins),
            factor => names(factor, self.name),
        })
    }

    fn joined(&mut self, table: &TableWithJoins, place: Place) -> Result<()> {
        let before = self.found;
        self.factor(&table.relation, place)?;
        for join in &table.joins {
            let (left, right) = match &join.join_operator {
                JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => (false, true),
                JoinOperator::Right(_) | JoinOperator::RightOuter(_) => (true, false),
                JoinOperator::FullOuter(_) => (true, true),
                _ => (false, false),
            };
            if left && self.found > before {
                return Err(within(self.name, "an outer join"));
            }
            self.factor(&join.relation, if right { OUTER_JOIN } else { place })?;
        }
        Ok(())
    }

    fn factor(&mut self, factor: &TableFactor, place: Place) -> Result<()> {
        match factor {
            TableFactor::Derived { subquery, .. } => self.query(subquery, place),
            TableFactor::NestedJoin { table_with_joins, .. } => {
                self.joined(table_with_joins, place)
            }
            factor if names(factor, self.name) => {
                self.found += 1;
                place.map_or(Ok(()), |place| Err(within(self.name, place)))
            }
            _ => Ok(()),
        }
    }
}
