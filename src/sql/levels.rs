//! Columns without the name of a table in aggregates of subqueries: `SELECT (SELECT sum(x) FROM i)
//! FROM o`, where `i` has no `x`. Whose they are decides which query computes the aggregate, so
//! those of a query around get the name of their table, as far as the tables are of the catalog.

use std::collections::BTreeSet;

use sqlparser::ast::{Expr, Function, Ident, Query, Select, TableFactor, TableWithJoins};

use super::lifted::is_aggregate;
use super::parser::fold;
use super::scopes::name_of_factor;
use super::visit::{Inspect, Rewrite, Stop, any_expr, walk, walk_mut, walk_own_exprs_mut};
use crate::catalog::Catalog;
use crate::error::Result;

/// Names the tables of columns in aggregates, where these are of a query around.
pub(super) fn name_levels(query: &mut Query, catalog: &Catalog) -> Result<()> {
    let is_subquery =
        |e: &Expr| matches!(e, Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. });
    if !any_expr(query, &is_subquery) {
        return Ok(());
    }
    let with = with_names(query)?;
    walk_mut(query, &mut Levels { catalog, with, scopes: Vec::new() })
}

/// The names of all WITH queries: a relation of such a name is none of the catalog.
pub(super) fn with_names(query: &Query) -> Result<BTreeSet<String>> {
    let mut with = WithNames::default();
    walk(query, &mut with)?;
    Ok(with.0)
}

#[derive(Default)]
struct WithNames(BTreeSet<String>);

impl Inspect for WithNames {
    fn pre_query(&mut self, query: &Query) -> Result<(), Stop> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.0.extend(tables.map(|cte| fold(&cte.alias.name)));
        Ok(())
    }
}

/// A table in FROM, and its columns.
struct Table {
    name: Ident,
    columns: BTreeSet<String>,
}

struct Levels<'a> {
    catalog: &'a Catalog,
    with: BTreeSet<String>,
    /// The tables of the SELECTs around, the innermost last; `None` where one is not known.
    scopes: Vec<Option<Vec<Table>>>,
}

impl Levels<'_> {
    fn tables(&self, from: &[TableWithJoins]) -> Option<Vec<Table>> {
        let mut tables = Vec::new();
        for item in from {
            let joined = item.joins.iter().map(|join| &join.relation);
            for factor in std::iter::once(&item.relation).chain(joined) {
                tables.push(self.table(factor)?);
            }
        }
        Some(tables)
    }

    fn table(&self, factor: &TableFactor) -> Option<Table> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
        if alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
            return None;
        }
        let relation = name.0.last()?.as_ident().map(fold)?;
        let relation = self.catalog.find(&relation).filter(|_| !self.with.contains(&relation))?;
        let columns = relation.schema.fields().iter().map(|field| field.name().clone()).collect();
        Some(Table { name: Ident::with_quote('"', name_of_factor(factor)?), columns })
    }

    /// The table of a query around that a column is of.
    fn outer_table(&self, column: &Ident) -> Option<Ident> {
        let column = fold(column);
        for (level, scope) in self.scopes.iter().rev().enumerate() {
            let mut having = scope.as_ref()?.iter().filter(|t| t.columns.contains(&column));
            match (having.next(), having.next()) {
                (None, _) => {}
                (Some(table), None) if level > 0 => return Some(table.name.clone()),
                _ => return None,
            }
        }
        None
    }

    /// Names the tables of the columns in an argument, but not in queries inside of it.
    fn name_columns(&self, call: &mut Function) -> Result<()> {
        let mut name = |expr: &mut Expr| {
            if let Expr::Identifier(column) = expr
                && let Some(table) = self.outer_table(column)
            {
                *expr = Expr::CompoundIdentifier(vec![table, column.clone()]);
            }
            Ok(())
        };
        walk_own_exprs_mut(&mut call.args, &mut name)?;
        walk_own_exprs_mut(&mut call.filter, &mut name)
    }
}

impl Rewrite for Levels<'_> {
    fn pre_select(&mut self, select: &mut Select) -> Result<()> {
        self.scopes.push(self.tables(&select.from));
        Ok(())
    }

    fn post_select(&mut self, _select: &mut Select) -> Result<()> {
        self.scopes.pop();
        Ok(())
    }

    fn pre_expr(&mut self, expr: &mut Expr) -> Result<()> {
        match expr {
            Expr::Function(call) if self.scopes.len() > 1 && is_aggregate(call) => {
                self.name_columns(call)
            }
            _ => Ok(()),
        }
    }
}
