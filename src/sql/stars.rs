//! `t.*` where a value stands: `t.* IS NULL`, `t.* = u.*`, `(t.*, 1)`, `VALUES (t.*)`. It is the
//! row of the table, and its columns between the parentheses of a row.

use std::collections::BTreeSet;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query,
    Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableWithJoins, Values,
    WildcardAdditionalOptions,
};

use super::levels::with_names;
use super::parser::fold;
use super::scopes::names_of;
use super::tree::call;
use super::visit::{Inspect, Rewrite, Stop, walk, walk_mut};
use super::whole_rows::{named_row, of_row, relation_in};
use crate::catalog::{Catalog, Relation};
use crate::error::{Error, Result};

/// Puts the rows of tables where their stars stand in expressions.
pub(super) fn rows_as_values(query: &mut Query, catalog: &Catalog) -> Result<()> {
    if !walk(query, &mut Search)? {
        return Ok(());
    }
    let with = with_names(query)?;
    walk_mut(query, &mut Stars { catalog, with, scopes: Vec::new() })
}

fn is_star(expr: &Expr) -> bool {
    matches!(expr, Expr::QualifiedWildcard(..))
}

fn star_of(expr: &Expr) -> Option<(&ObjectName, String)> {
    let Expr::QualifiedWildcard(name, _) = expr else { return None };
    Some((name, last(name)?))
}

fn last(name: &ObjectName) -> Option<String> {
    name.0.last()?.as_ident().map(fold)
}

/// The table of `t.*` in a list, where it is one of a query around.
fn outer_star(item: &SelectItem, from: &[TableWithJoins]) -> Option<String> {
    let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(table), _) = item
    else {
        return None;
    };
    last(table).filter(|table| !names_of(from).contains(table))
}

/// Finds stars that stand for values or for a query around.
struct Search;

impl Inspect for Search {
    fn pre_select(&mut self, select: &Select) -> Result<(), Stop> {
        match select.projection.iter().any(|item| outer_star(item, &select.from).is_some()) {
            true => Err(Stop::Found),
            false => Ok(()),
        }
    }

    fn pre_expr(&mut self, expr: &Expr) -> Result<(), Stop> {
        if is_star(expr) { Err(Stop::Found) } else { Ok(()) }
    }
}

struct Stars<'a> {
    catalog: &'a Catalog,
    with: BTreeSet<String>,
    /// What the queries around have in FROM, the innermost last.
    scopes: Vec<Vec<TableWithJoins>>,
}

impl Stars<'_> {
    /// The relation that a name of a query around stands for, where it is of the catalog.
    fn relation(&self, table: &str) -> Option<std::sync::Arc<Relation>> {
        let is_there = |from: &&Vec<TableWithJoins>| names_of(from).iter().any(|n| n == table);
        let from = self.scopes.iter().rev().find(is_there)?;
        relation_in(from, table, self.catalog).filter(|r| !self.with.contains(&r.name))
    }

    /// The row of a table: of one of a query around as its columns, by which it is found there.
    fn row(&self, table: &str) -> Expr {
        let own = self.scopes.last().is_none_or(|from| names_of(from).iter().any(|n| n == table));
        match self.relation(table) {
            Some(relation) if !own => named_row(&relation, table),
            _ => of_row("pg_same", table),
        }
    }

    fn each_values(&self, body: &mut SetExpr) -> Result<()> {
        match body {
            SetExpr::Values(values) => self.values(values),
            SetExpr::SetOperation { left, right, .. } => {
                self.each_values(left)?;
                self.each_values(right)
            }
            _ => Ok(()),
        }
    }

    /// The columns of the tables in the rows of VALUES.
    fn values(&self, values: &mut Values) -> Result<()> {
        for row in &mut values.rows {
            if !row.content.iter().any(is_star) {
                continue;
            }
            for cell in std::mem::take(&mut row.content) {
                let Some((_, table)) = star_of(&cell) else {
                    row.content.push(cell);
                    continue;
                };
                let relation = self.relation(&table).ok_or_else(|| {
                    let message = format!("{table}.* of this table is not supported in VALUES");
                    Error::unsupported(message).with_hint("Name its columns.")
                })?;
                row.content.extend(columns_of(&relation, &table));
            }
        }
        Ok(())
    }

    /// Writes the columns of tables of a query around out.
    fn list(&self, select: &mut Select) {
        for item in std::mem::take(&mut select.projection) {
            let table = outer_star(&item, &select.from);
            match table.as_ref().and_then(|table| self.relation(table)) {
                Some(relation) => {
                    let columns = columns_of(&relation, table.as_deref().unwrap_or_default());
                    let fields = relation.schema.fields().iter();
                    select.projection.extend(columns.zip(fields).map(|(expr, field)| {
                        let alias = Ident::with_quote('"', field.name());
                        SelectItem::ExprWithAlias { expr, alias }
                    }));
                }
                None => select.projection.push(item),
            }
        }
    }
}

fn columns_of<'r>(relation: &'r Relation, table: &'r str) -> impl Iterator<Item = Expr> + 'r {
    let name = |name: &str| Ident::with_quote('"', name);
    let fields = relation.schema.fields().iter();
    fields.map(move |field| Expr::CompoundIdentifier(vec![name(table), name(field.name())]))
}

/// `t` of `(t.*)`, which in a list is `t.*`.
fn in_parentheses(expr: &Expr) -> Option<&ObjectName> {
    match expr {
        Expr::Nested(inner) => in_parentheses(inner),
        Expr::QualifiedWildcard(table, _) => Some(table),
        _ => None,
    }
}

/// `(t.*, 1)` as a call of ROW, whose arguments stars can be.
fn as_call(fields: &[Expr]) -> Expr {
    let field = |e: &Expr| {
        FunctionArg::Unnamed(match star_of(e) {
            Some((name, _)) => FunctionArgExpr::QualifiedWildcard(name.clone()),
            None => FunctionArgExpr::Expr(e.clone()),
        })
    };
    let mut row = call("row", Vec::new());
    if let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut row {
        list.args = fields.iter().map(field).collect();
    }
    row
}

impl Rewrite for Stars<'_> {
    fn pre_query(&mut self, query: &mut Query) -> Result<()> {
        self.each_values(&mut query.body)?;
        self.scopes.push(match query.body.as_ref() {
            SetExpr::Select(select) => select.from.clone(),
            _ => Vec::new(),
        });
        Ok(())
    }

    fn post_query(&mut self, _query: &mut Query) -> Result<()> {
        self.scopes.pop();
        Ok(())
    }

    fn pre_select(&mut self, select: &mut Select) -> Result<()> {
        self.scopes.push(select.from.clone());
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr @ Expr::Nested(_)) = item
                && let Some(table) = in_parentheses(expr)
            {
                let table = SelectItemQualifiedWildcardKind::ObjectName(table.clone());
                *item = SelectItem::QualifiedWildcard(table, WildcardAdditionalOptions::default());
            }
        }
        self.list(select);
        Ok(())
    }

    fn post_select(&mut self, _select: &mut Select) -> Result<()> {
        self.scopes.pop();
        Ok(())
    }

    fn pre_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Expr::Tuple(fields) = expr
            && fields.iter().any(is_star)
        {
            *expr = as_call(fields);
        }
        // `(t.*).a` is `(t).a`.
        if let Expr::CompoundFieldAccess { root, .. } = expr
            && let Some(table) = in_parentheses(root).and_then(last)
        {
            **root = Expr::Nested(Box::new(Expr::Identifier(Ident::with_quote('"', table))));
        }
        Ok(())
    }

    fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Some((_, table)) = star_of(expr) {
            *expr = self.row(&table);
        }
        Ok(())
    }
}
