//! Columns of a query in its own LIMIT and OFFSET, which can't be: there is no row yet.
//!
//! The planner looks for them in the queries around, where a column of the same name may be, and
//! says otherwise that there is none.

use sqlparser::ast::{Expr, Ident, LimitClause, Query, Select, SetExpr, TableFactor};

use super::parser::fold;
use super::scopes::{Scopes, names_in};
use super::visit::{Inspect, Stop, walk};
use crate::error::{Error, Result, sqlstate};

/// Refuses columns of the items of FROM in a query's LIMIT and OFFSET. `columns` gives the names of
/// the columns of such items, as far as they can be known.
pub(super) fn check_limit(
    query: &Query,
    columns: &mut dyn FnMut(&[TableFactor]) -> Option<Vec<String>>,
) -> Result<()> {
    let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause else {
        return Ok(());
    };
    let clauses = [("LIMIT", limit.as_ref()), ("OFFSET", offset.as_ref().map(|o| &o.value))];
    for (clause, expr) in clauses {
        let Some(expr) = expr else { continue };
        let mut found = Found { columns: Vec::new(), scopes: Scopes::default() };
        walk(expr, &mut found)?;
        if found.columns.is_empty() {
            continue;
        }
        let factors = match query.body.as_ref() {
            SetExpr::Select(select) => factors_of(select),
            _ => continue,
        };
        let tables = names_in(query);
        let mut own = None;
        for (table, column) in found.columns {
            let is_own = match table {
                Some(table) => tables.contains(&fold(&table)),
                None => {
                    let own = own.get_or_insert_with(|| columns(&factors).unwrap_or_default());
                    own.contains(&fold(&column))
                }
            };
            if is_own {
                let message = format!("argument of {clause} must not contain variables");
                let error = Error::user(sqlstate::INVALID_COLUMN_REFERENCE, message);
                return Err(match column.span.start.column {
                    0 => error,
                    at => error.with_position(at as usize),
                });
            }
        }
    }
    Ok(())
}

fn factors_of(select: &Select) -> Vec<TableFactor> {
    let joined = |table: &sqlparser::ast::TableWithJoins| {
        let joins = table.joins.iter().map(|join| join.relation.clone());
        std::iter::once(table.relation.clone()).chain(joins).collect::<Vec<_>>()
    };
    select.from.iter().flat_map(joined).collect()
}

/// The columns that an expression names outside of the queries in it, or that can't be theirs.
struct Found {
    /// Each with the name of its table.
    columns: Vec<(Option<Ident>, Ident)>,
    /// The names in FROM of the queries around, the innermost last.
    scopes: Scopes,
}

impl Inspect for Found {
    fn pre_query(&mut self, query: &Query) -> Result<(), Stop> {
        self.scopes.enter(query);
        Ok(())
    }

    fn post_query(&mut self, _query: &Query) -> Result<(), Stop> {
        self.scopes.leave();
        Ok(())
    }

    fn pre_select(&mut self, select: &Select) -> Result<(), Stop> {
        self.scopes.add(select);
        Ok(())
    }

    fn pre_expr(&mut self, expr: &Expr) -> Result<(), Stop> {
        match expr {
            // A query with tables may have the column itself.
            Expr::Identifier(column) if self.scopes.is_bare() => {
                self.columns.push((None, column.clone()));
            }
            Expr::CompoundIdentifier(parts) => {
                if let [table, column] = parts.as_slice()
                    && !self.scopes.has(&fold(table))
                {
                    self.columns.push((Some(table.clone()), column.clone()));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
