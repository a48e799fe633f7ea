//! Which tables a name can mean: the items of FROM by their names, and columns that are found by
//! the name of a table of another query.
//!
//! The planner takes `o.k` for the field `k` of a column `o` where the query has such a column,
//! ahead of a look at the queries around it. Columns here have no fields: what is not a table of
//! the query itself gets its schema, and is a column of a table then, or of none.

use sqlparser::ast::{
    AccessExpr, Expr, Ident, Query, Select, SetExpr, TableFactor, TableWithJoins,
};

use super::parser::fold;
use super::visit::{Rewrite, walk_mut};
use crate::error::Result;

/// The name of an item of FROM.
pub(super) fn name_of_factor(factor: &TableFactor) -> Option<String> {
    let (alias, own) = match factor {
        TableFactor::Table { name, alias, .. } => (alias, Some(name)),
        TableFactor::Function { name, alias, .. } => (alias, Some(name)),
        TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::NestedJoin { alias, .. } => (alias, None),
        _ => return None,
    };
    match alias {
        Some(alias) => Some(fold(&alias.name)),
        None => own?.0.last()?.as_ident().map(fold),
    }
}

/// The names of all items of FROM, those inside of joins in parentheses included.
pub(super) fn names_of(from: &[TableWithJoins]) -> Vec<String> {
    let mut names = Vec::new();
    for table in from {
        let joined = table.joins.iter().map(|join| &join.relation);
        for factor in std::iter::once(&table.relation).chain(joined) {
            names.extend(name_of_factor(factor));
            if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
                names.extend(names_of(std::slice::from_ref(table_with_joins)));
            }
        }
    }
    names
}

/// Whether a query, or one in its WITH, has a WITH query of a name.
pub(super) fn declares(query: &Query, name: &str) -> bool {
    let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
    ctes.into_iter().any(|cte| fold(&cte.alias.name) == name || declares(&cte.query, name))
}

/// The names that the clauses around a SELECT, such as ORDER BY, can use.
pub(super) fn names_in(query: &Query) -> Vec<String> {
    match query.body.as_ref() {
        SetExpr::Select(select) => names_of(&select.from),
        _ => Vec::new(),
    }
}

/// The names in FROM of the queries that are inside of an expression and around a place in it.
#[derive(Debug, Default)]
pub(super) struct Scopes(Vec<Vec<String>>);

impl Scopes {
    /// A query begins.
    pub(super) fn enter(&mut self, query: &Query) {
        self.0.push(names_in(query));
    }

    /// It ends.
    pub(super) fn leave(&mut self) {
        self.0.pop();
    }

    /// A SELECT of it begins, which may be one of a set operation.
    pub(super) fn add(&mut self, select: &Select) {
        if let Some(names) = self.0.last_mut() {
            names.extend(names_of(&select.from));
        }
    }

    /// Whether no query is around the place.
    pub(super) fn is_outside(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether none of those around it has anything in FROM.
    pub(super) fn is_bare(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    /// Whether one of them has an item of this name.
    pub(super) fn has(&self, table: &str) -> bool {
        self.0.iter().flatten().any(|name| name == table)
    }
}

/// Gives columns of tables that are not of the query itself a name that can only be theirs.
pub(super) fn qualify_outer(query: &mut Query) -> Result<()> {
    walk_mut(query, &mut Qualify { scopes: Vec::new() })
}

struct Qualify {
    /// Names in FROM, of the innermost query last.
    scopes: Vec<Vec<String>>,
}

impl Qualify {
    /// `(x).a`, the column `a` of the table `x`, or the field `a` of a column.
    fn field_of_row(expr: &Expr) -> Option<Expr> {
        let Expr::CompoundFieldAccess { root, access_chain } = expr else { return None };
        let Expr::Nested(inner) = root.as_ref() else { return None };
        let mut names = match inner.as_ref() {
            Expr::Identifier(name) => vec![name.clone()],
            Expr::CompoundIdentifier(names) => names.clone(),
            _ => return None,
        };
        for access in access_chain {
            let AccessExpr::Dot(Expr::Identifier(name)) = access else { return None };
            names.push(name.clone());
        }
        Some(Expr::CompoundIdentifier(names))
    }

    fn is_known(&self, table: &str) -> bool {
        self.scopes.iter().flatten().any(|name| name == table)
    }
}

impl Rewrite for Qualify {
    fn pre_query(&mut self, query: &mut Query) -> Result<()> {
        self.scopes.push(names_in(query));
        Ok(())
    }

    fn post_query(&mut self, _query: &mut Query) -> Result<()> {
        self.scopes.pop();
        Ok(())
    }

    fn pre_select(&mut self, select: &mut Select) -> Result<()> {
        self.scopes.push(names_of(&select.from));
        Ok(())
    }

    fn post_select(&mut self, _select: &mut Select) -> Result<()> {
        self.scopes.pop();
        Ok(())
    }

    fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Some(column) = Self::field_of_row(expr) {
            *expr = column;
        }
        if let Expr::CompoundIdentifier(parts) = expr
            && let [table, _] = parts.as_slice()
        {
            let table = fold(table);
            let own = self.scopes.last().is_none_or(|names| names.contains(&table));
            // System tables are of another schema.
            if !own && self.is_known(&table) && !table.starts_with("pg_") {
                parts.insert(0, Ident::new("public"));
            }
        }
        Ok(())
    }
}
