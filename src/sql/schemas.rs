//! Schemas in the names of a query. `FROM s.t` is called `t`; and `s.t.a`, where the query has
//! `s.t`, becomes `t.a`: what follows knows the items of FROM by one name each. Where something
//! else is called `t`, too, the relation is called by both of its names. Doing it twice does no
//! more.

use std::collections::BTreeMap;

use sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableWithJoins,
};
use sqlparser::parser::Parser;

use super::dialect::DIALECT;
use super::parser::fold;
use super::scopes::name_of_factor;
use super::visit::{Rewrite, walk_mut};
use crate::catalog::PUBLIC_SCHEMA;
use crate::catalog::access::SYSTEM_SCHEMAS;
use crate::catalog::system::quoted;
use crate::error::{Error, Result, sqlstate};

/// Puts the names of relations in a query as the catalog has them; `database` is the one that the
/// session has named.
pub(super) fn plain_names(query: &mut Query, database: &str) -> Result<()> {
    let mut calls = Calls::default();
    walk_mut(query, &mut calls)?;
    match calls.needed {
        false => Ok(()),
        true => {
            let Calls { times, with, .. } = calls;
            walk_mut(query, &mut Names { database, times, with, scopes: Vec::new() })
        }
    }
}

/// What the items of FROM are called.
#[derive(Default)]
struct Calls {
    times: BTreeMap<String, usize>,
    /// The names of WITH queries.
    with: Vec<String>,
    /// Some name has something to be put.
    needed: bool,
}

impl Rewrite for Calls {
    fn pre_query(&mut self, query: &mut Query) -> Result<()> {
        let with = query.with.iter().flat_map(|with| &with.cte_tables);
        self.with.extend(with.map(|cte| fold(&cte.alias.name)));
        written_out(&mut query.body)
    }

    fn pre_table_factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        if let Some(name) = name_of_factor(factor) {
            *self.times.entry(name).or_default() += 1;
        }
        if let TableFactor::Table { name, args: None, .. } = factor {
            let dotted = |part: &ObjectNamePart| {
                part.as_ident().is_some_and(|ident| ident.value.contains('.'))
            };
            self.needed |= name.0.len() > 1 || name.0.iter().any(dotted);
        }
        Ok(())
    }
}

/// `TABLE s.t` in a query as a SELECT, which has an item of FROM.
fn written_out(body: &mut SetExpr) -> Result<()> {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            written_out(left)?;
            written_out(right)
        }
        SetExpr::Table(table) => {
            let (Some(schema), Some(name)) = (&table.schema_name, &table.table_name) else {
                return Ok(());
            };
            let text = format!("SELECT * FROM {}.{}", quoted(schema), quoted(name));
            let parsed =
                Parser::new(&DIALECT).try_with_sql(&text).and_then(|mut p| p.parse_query());
            *body = *parsed.map_err(|e| Error::internal(e.to_string()))?.body;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// An item of FROM that had a schema and no alias.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    schema: String,
    name: String,
    /// What it is called now.
    called: String,
}

/// The items of FROM of a query.
#[derive(Debug, Default)]
struct Scope {
    items: Vec<Item>,
    /// What the others are called.
    others: Vec<String>,
}

struct Names<'a> {
    database: &'a str,
    /// How often something is called by a name.
    times: BTreeMap<String, usize>,
    with: Vec<String>,
    /// Those of the innermost query last.
    scopes: Vec<Scope>,
}

impl Names<'_> {
    fn table(&mut self, table: &mut TableWithJoins) -> Result<()> {
        let joined = table.joins.iter_mut().map(|join| &mut join.relation);
        std::iter::once(&mut table.relation).chain(joined).try_for_each(|f| self.factor(f))
    }

    fn factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        if let TableFactor::NestedJoin { table_with_joins, alias: None, .. } = factor {
            return self.table(table_with_joins);
        }
        let item = self.put(factor)?;
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        match item {
            Some(item) => scope.items.push(item),
            None => scope.others.extend(name_of_factor(factor)),
        }
        Ok(())
    }

    /// Puts the name of a table as the catalog has it.
    fn put(&self, factor: &mut TableFactor) -> Result<Option<Item>> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return Ok(None) };
        let Some((schema, own)) = self.written(name)? else { return Ok(None) };
        let written = fold(&own);
        *name = ObjectName::from(vec![Ident::with_quote('"', &schema), own.clone()]);
        if alias.is_some() {
            return Ok(None);
        }
        let shared = self.times.get(&written).is_some_and(|times| *times > 1);
        let called = if shared { format!("{schema}.{written}") } else { written.clone() };
        // The planner knows a table of these by its name, with its schema and without.
        let known = SYSTEM_SCHEMAS.contains(&schema.as_str()) || schema == PUBLIC_SCHEMA;
        if shared || !known {
            let name = if shared { Ident::with_quote('"', &called) } else { own };
            *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
        }
        Ok(Some(Item { schema, name: written, called }))
    }

    /// The schema and the own name of a table, unless it is a plain name.
    fn written(&self, name: &ObjectName) -> Result<Option<(String, Ident)>> {
        let parts: Vec<Ident> =
            name.0.iter().filter_map(ObjectNamePart::as_ident).cloned().collect();
        match parts.as_slice() {
            [own] if own.value.contains('.') && !self.with.contains(&fold(own)) => {
                Ok(Some((PUBLIC_SCHEMA.to_owned(), own.clone())))
            }
            [database, _, _] if fold(database) != self.database => {
                let names: Vec<String> = parts.iter().map(fold).collect();
                Err(Error::unsupported(format!(
                    "cross-database references are not implemented: \"{}\"",
                    names.join(".")
                )))
            }
            [.., schema, own] => Ok(Some((fold(schema), own.clone()))),
            _ => Ok(None),
        }
    }

    /// What a table is called now that was written with a schema or without one.
    fn called(&self, schema: Option<&Ident>, table: &Ident) -> Result<Option<&str>> {
        let (schema, table) = (schema.map(fold), fold(table));
        for scope in self.scopes.iter().rev() {
            let is = |item: &&Item| {
                item.name == table && schema.as_ref().is_none_or(|schema| *schema == item.schema)
            };
            let mut items = scope.items.iter().filter(is);
            let other = schema.is_none() && scope.others.contains(&table);
            match (items.next(), items.next()) {
                (Some(_), Some(_)) => return Err(ambiguous(&table)),
                (Some(_), None) if other => return Err(ambiguous(&table)),
                (Some(item), None) => return Ok(Some(&item.called)),
                (None, _) if other => return Ok(None),
                (None, _) => {}
            }
        }
        Ok(None)
    }
}

fn ambiguous(table: &str) -> Error {
    Error::user(sqlstate::AMBIGUOUS_ALIAS, format!("table reference \"{table}\" is ambiguous"))
}

impl Rewrite for Names<'_> {
    fn pre_query(&mut self, _query: &mut Query) -> Result<()> {
        self.scopes.push(Scope::default());
        Ok(())
    }

    fn post_query(&mut self, _query: &mut Query) -> Result<()> {
        self.scopes.pop();
        Ok(())
    }

    fn pre_select(&mut self, select: &mut Select) -> Result<()> {
        self.scopes.push(Scope::default());
        select.from.iter_mut().try_for_each(|table| self.table(table))?;
        for item in &mut select.projection {
            if let SelectItem::QualifiedWildcard(kind, _) = item
                && let SelectItemQualifiedWildcardKind::ObjectName(name) = kind
            {
                let parts: Vec<Ident> =
                    name.0.iter().filter_map(ObjectNamePart::as_ident).cloned().collect();
                let called = match parts.as_slice() {
                    [table] => self.called(None, table)?,
                    [.., schema, table] => self.called(Some(schema), table)?,
                    [] => None,
                };
                if let Some(called) = called {
                    *name = ObjectName::from(vec![Ident::with_quote('"', called)]);
                }
            }
        }
        Ok(())
    }

    fn post_select(&mut self, _select: &mut Select) -> Result<()> {
        // Clauses around the SELECT, such as ORDER BY, can use its names.
        let own = self.scopes.pop().unwrap_or_default();
        if let Some(scope) = self.scopes.last_mut() {
            let new = own.items.into_iter().filter(|item| !scope.items.contains(item));
            let new: Vec<Item> = new.collect();
            scope.items.extend(new);
            scope.others.extend(own.others);
        }
        Ok(())
    }

    fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
        let Expr::CompoundIdentifier(parts) = expr else { return Ok(()) };
        let called = match parts.as_slice() {
            [table, _] => self.called(None, table)?,
            [.., schema, table, _] => self.called(Some(schema), table)?,
            _ => None,
        };
        if let Some(called) = called {
            let called = Ident::with_quote('"', called);
            let kept = parts.len() - 1;
            parts.splice(..kept, [called]);
        }
        Ok(())
    }
}
