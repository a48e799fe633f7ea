//! Rows of tables as values: `count(x.*)`, `json_agg(x.*)` and `SELECT x FROM t x`.
//!
//! Of the missing side of an outer join there is no row, though the join has one. Columns can't
//! tell, as all of them may be NULL in a row that is there: so such a side gets a column more,
//! which `*` does not show, and that is counted.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlparser::ast::{
    DataType, DuplicateTreatment, ExcludeSelectItem, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, GroupByExpr, Ident, JoinOperator, ObjectName, OrderBy, OrderByExpr,
    OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableAlias,
    TableFactor, TableWithJoins, Value, WildcardAdditionalOptions, WindowType,
};
use sqlparser::parser::Parser;

use super::dialect::DIALECT;
use super::levels::with_names;
use super::parser::fold;
use super::scopes::{name_of_factor, names_of};
use super::tree::{call, cast};
use super::visit::{Rewrite, walk_mut};
use crate::catalog::{Catalog, Relation};
use crate::error::{Error, Result};

/// Begins the name of the column that says that a row is there.
pub(super) const THERE: &str = "\u{1}there_";

/// Takes a name that is no column's for the row of a table with that name; false where there is
/// none.
pub(super) fn name_rows(query: &mut Query, error: &Error, catalog: &Catalog) -> Result<bool> {
    let quoted = error.message().strip_prefix("column \"").and_then(|m| m.split_once('"'));
    let Some((table, " does not exist")) = quoted else { return Ok(false) };
    let with = with_names(query)?;
    let mut rows = NamedRows { table, catalog, with, scopes: Vec::new(), found: false };
    walk_mut(query, &mut rows)?;
    Ok(rows.found)
}

struct NamedRows<'a> {
    table: &'a str,
    catalog: &'a Catalog,
    with: BTreeSet<String>,
    /// Whether the table is in FROM, and what it is where that is of the catalog; of the innermost
    /// query last.
    scopes: Vec<(bool, Option<Arc<Relation>>)>,
    found: bool,
}

impl NamedRows<'_> {
    fn enter(&mut self, from: &[TableWithJoins]) {
        let there = names_of(from).iter().any(|name| name == self.table);
        let relation = relation_in(from, self.table, self.catalog);
        self.scopes.push((there, relation.filter(|r| !self.with.contains(&r.name))));
    }

    /// Orders by a row are those by its columns.
    fn order_by_columns(&mut self, orders: &mut Vec<OrderByExpr>) {
        let Some((true, Some(relation))) = self.scopes.last() else { return };
        for order in std::mem::take(orders) {
            if !self.is_row(&order.expr) {
                orders.push(order);
                continue;
            }
            self.found = true;
            orders.extend(relation.schema.fields().iter().map(|field| {
                let table = Ident::with_quote('"', self.table);
                let column = Ident::with_quote('"', field.name());
                OrderByExpr { expr: Expr::CompoundIdentifier(vec![table, column]), ..order.clone() }
            }));
        }
    }

    /// The row of the table: of one of a query around as its columns, by which it is found there.
    fn row(&self) -> Expr {
        match self.scopes.iter().rev().find(|(there, _)| *there) {
            Some((_, Some(relation))) if !self.scopes.last().is_some_and(|(there, _)| *there) => {
                named_row(relation, self.table)
            }
            _ => of_row("pg_same", self.table),
        }
    }

    fn is_row(&self, expr: &Expr) -> bool {
        matches!(expr, Expr::Identifier(name) if fold(name) == self.table)
    }
}

/// The relation that an item of FROM with a name reads, with the columns that it has by itself.
pub(super) fn relation_in(
    from: &[TableWithJoins],
    wanted: &str,
    catalog: &Catalog,
) -> Option<Arc<Relation>> {
    let factors = from.iter().flat_map(|item| {
        std::iter::once(&item.relation).chain(item.joins.iter().map(|join| &join.relation))
    });
    let is_wanted = |factor: &&TableFactor| name_of_factor(factor).as_deref() == Some(wanted);
    match factors.into_iter().find(is_wanted)? {
        TableFactor::Table { name, alias, args: None, .. }
            if alias.as_ref().is_none_or(|alias| alias.columns.is_empty()) =>
        {
            let name = name.0.last()?.as_ident().map(fold)?;
            catalog.find(&name).cloned()
        }
        _ => None,
    }
}

/// The place of the entry of a list that has a name.
fn place_of(select: &Select, wanted: &str) -> Option<usize> {
    let is_named = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => fold(name) == wanted,
        SelectItem::ExprWithAlias { alias, .. } => fold(alias) == wanted,
        _ => false,
    };
    select.projection.iter().position(is_named)
}

impl Rewrite for NamedRows<'_> {
    fn pre_query(&mut self, query: &mut Query) -> Result<()> {
        let SetExpr::Select(select) = query.body.as_ref() else {
            self.enter(&[]);
            return Ok(());
        };
        self.enter(&select.from);
        let listed = place_of(select, self.table).map(|at| at + 1);
        // The row itself may be the key.
        let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty());
        let Some(OrderBy { kind: OrderByKind::Expressions(orders), .. }) = &mut query.order_by
        else {
            return Ok(());
        };
        match listed {
            Some(number) => {
                for order in orders {
                    if self.is_row(&order.expr) {
                        order.expr = Expr::value(Value::Number(number.to_string(), false));
                        self.found = true;
                    }
                }
            }
            None if grouped => {}
            None => self.order_by_columns(orders),
        }
        Ok(())
    }

    fn post_query(&mut self, _query: &mut Query) -> Result<()> {
        self.scopes.pop();
        Ok(())
    }

    fn pre_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Expr::Function(f) = expr
            && let Some(WindowType::WindowSpec(window)) = &mut f.over
        {
            self.order_by_columns(&mut window.order_by);
        }
        Ok(())
    }

    fn pre_select(&mut self, select: &mut Select) -> Result<()> {
        self.enter(&select.from);
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(Expr::Identifier(name)) = item
                && fold(name) == self.table
            {
                let (expr, alias) = (Expr::Identifier(name.clone()), name.clone());
                *item = SelectItem::ExprWithAlias { expr, alias };
            }
        }
        Ok(())
    }

    fn post_select(&mut self, _select: &mut Select) -> Result<()> {
        self.scopes.pop();
        Ok(())
    }

    fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Expr::Identifier(name) = expr
            && fold(name) == self.table
            && self.scopes.iter().any(|(there, _)| *there)
        {
            *expr = self.row();
            self.found = true;
        }
        Ok(())
    }
}

/// Rewrites the counts of rows in a query.
pub(super) fn count_rows(query: &mut Query) -> Result<()> {
    struct Rows;
    impl Rewrite for Rows {
        fn pre_query(&mut self, query: &mut Query) -> Result<()> {
            if let SetExpr::Select(select) = query.body.as_mut() {
                let missing = missing_sides(&select.from);
                let mut counts = Counts { missing: &missing, found: Vec::new() };
                walk_mut(&mut query.order_by, &mut counts)?;
                let found = counts.found;
                rewrite(select, &missing, found)?;
            }
            Ok(())
        }

        fn pre_select(&mut self, select: &mut Select) -> Result<()> {
            let missing = missing_sides(&select.from);
            rewrite(select, &missing, Vec::new())
        }
    }
    walk_mut(query, &mut Rows)
}

fn rewrite(select: &mut Select, missing: &[String], found: Vec<String>) -> Result<()> {
    let mut counts = Counts { missing, found };
    walk_mut(&mut select.projection, &mut counts)?;
    walk_mut(&mut select.having, &mut counts)?;
    walk_mut(&mut select.selection, &mut counts)?;
    let found = counts.found;
    if found.is_empty() {
        return Ok(());
    }
    for table in &mut select.from {
        mark(table, &found)?;
    }
    for item in &mut select.projection {
        hide(item, &found);
    }
    Ok(())
}

/// Tables of which a row of the joins may have none.
fn missing_sides(from: &[TableWithJoins]) -> Vec<String> {
    let mut missing = Vec::new();
    for table in from {
        sides(table, &mut missing);
    }
    missing
}

/// Adds the tables of a chain of joins that may be missing; gives all of them.
fn sides(table: &TableWithJoins, missing: &mut Vec<String>) -> Vec<String> {
    let mut all = factor_sides(&table.relation, missing);
    for join in &table.joins {
        let right = factor_sides(&join.relation, missing);
        let (left_kept, right_kept) = match &join.join_operator {
            JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => (true, false),
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => (false, true),
            JoinOperator::FullOuter(_) => (false, false),
            _ => (true, true),
        };
        if !left_kept {
            missing.extend(all.iter().cloned());
        }
        if !right_kept {
            missing.extend(right.iter().cloned());
        }
        all.extend(right);
    }
    all
}

fn factor_sides(factor: &TableFactor, missing: &mut Vec<String>) -> Vec<String> {
    match factor {
        TableFactor::NestedJoin { table_with_joins, alias: None } => {
            sides(table_with_joins, missing)
        }
        other => name_of_factor(other).into_iter().collect(),
    }
}

/// Replaces counts of rows, outside of subqueries, and notes of which tables.
struct Counts<'a> {
    missing: &'a [String],
    found: Vec<String>,
}

impl Rewrite for Counts<'_> {
    fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
        let Expr::Function(f) = expr else { return Ok(()) };
        if let Some(table) = table_of(f, "pg_same").filter(|table| self.missing.contains(table)) {
            // By another name, as a SELECT is visited twice.
            *expr = self.unless_missing(&table, of_row("pg_row", &table))?;
            return Ok(());
        }
        let Some(table) = table_of(f, "count") else { return self.rows_as_values(f) };
        let FunctionArguments::List(list) = &mut f.args else { return Ok(()) };
        let missing = self.missing.contains(&table);
        let row = match (list.duplicate_treatment, missing) {
            // Rows are told apart by their text: a view has no keys of rows.
            (Some(DuplicateTreatment::Distinct), false) => text_of_row(&table),
            (Some(DuplicateTreatment::Distinct), true) => {
                self.unless_missing(&table, text_of_row(&table))?
            }
            (_, true) => self.there(&table),
            (_, false) => return Ok(()),
        };
        list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(row))];
        Ok(())
    }
}

impl Counts<'_> {
    /// `f(x.*)` is `f(x)`, but for what is around columns.
    fn rows_as_values(&mut self, call: &mut Function) -> Result<()> {
        let name = call.name.0.last().and_then(|part| part.as_ident()).map(fold);
        let of_columns = |name: &String| {
            matches!(name.as_str(), "count" | "row" | "struct") || name.starts_with("pg_")
        };
        if name.as_ref().is_none_or(of_columns) {
            return Ok(());
        }
        let FunctionArguments::List(list) = &mut call.args else { return Ok(()) };
        for arg in &mut list.args {
            if let FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(table)) = arg
                && let Some(table) = table.0.last().and_then(|part| part.as_ident()).map(fold)
            {
                let row = match self.missing.contains(&table) {
                    true => self.unless_missing(&table, of_row("pg_row", &table))?,
                    false => of_row("pg_same", &table),
                };
                *arg = FunctionArg::Unnamed(FunctionArgExpr::Expr(row));
            }
        }
        Ok(())
    }

    /// The column that says that a row of a table is there.
    fn there(&mut self, table: &str) -> Expr {
        if !self.found.iter().any(|found| found == table) {
            self.found.push(table.to_owned());
        }
        Expr::CompoundIdentifier(vec![
            Ident::with_quote('"', table),
            Ident::with_quote('"', format!("{THERE}{table}")),
        ])
    }

    /// A value of a row, which is NULL where the row is missing.
    fn unless_missing(&mut self, table: &str, value: Expr) -> Result<Expr> {
        let mut case = parsed("CASE WHEN there THEN 0 END")?;
        if let Expr::Case { conditions, .. } = &mut case
            && let Some(when) = conditions.first_mut()
        {
            when.condition = self.there(table);
            when.result = value;
        }
        Ok(case)
    }
}

fn text_of_row(table: &str) -> Expr {
    cast(of_row("struct", table), DataType::Text)
}

/// `x` of `f(x.*)`.
fn table_of(f: &Function, wanted: &str) -> Option<String> {
    let name = f.name.0.last()?.as_ident().map(fold)?;
    let FunctionArguments::List(list) = &f.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(table))] if name == wanted => {
            table.0.last()?.as_ident().map(fold)
        }
        _ => None,
    }
}

/// The row of a relation by its columns.
pub(super) fn named_row(relation: &Relation, table: &str) -> Expr {
    let ident = |name: &str| Ident::with_quote('"', name);
    let fields = relation.schema.fields().iter().flat_map(|field| {
        let name = Expr::value(Value::SingleQuotedString(field.name().clone()));
        [name, Expr::CompoundIdentifier(vec![ident(table), ident(field.name())])]
    });
    call("pg_named_row", fields.collect())
}

/// The table of which a call has the row.
pub(super) fn table_of_row(f: &Function) -> Option<String> {
    ["pg_same", "pg_row"].into_iter().find_map(|name| table_of(f, name))
}

/// A call with the columns of a table.
pub(super) fn of_row(function: &str, table: &str) -> Expr {
    let mut row = call(function, Vec::new());
    if let Expr::Function(f) = &mut row
        && let FunctionArguments::List(list) = &mut f.args
    {
        let name = ObjectName::from(vec![Ident::with_quote('"', table)]);
        list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(name))];
    }
    row
}

fn parsed(text: &str) -> Result<Expr> {
    let parsed = Parser::new(&DIALECT).try_with_sql(text).and_then(|mut p| p.parse_expr());
    parsed.map_err(|e| Error::internal(e.to_string()))
}

/// Gives the tables that are counted their column.
fn mark(table: &mut TableWithJoins, counted: &[String]) -> Result<()> {
    let joined = table.joins.iter_mut().map(|join| &mut join.relation);
    for factor in std::iter::once(&mut table.relation).chain(joined) {
        match factor {
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                mark(table_with_joins, counted)?;
            }
            other => {
                if let Some(name) = name_of_factor(other).filter(|name| counted.contains(name)) {
                    mark_factor(other, &name)?;
                }
            }
        }
    }
    Ok(())
}

fn mark_factor(factor: &mut TableFactor, name: &str) -> Result<()> {
    let column = format!("{THERE}{}", name.replace('"', "\"\""));
    let text = format!("SELECT *, TRUE AS \"{column}\" FROM x");
    let query = Parser::new(&DIALECT).try_with_sql(&text).and_then(|mut p| p.parse_query());
    let mut query = query.map_err(|e| Error::internal(e.to_string()))?;
    let lateral = matches!(
        factor,
        TableFactor::Derived { lateral: true, .. }
            | TableFactor::Function { .. }
            | TableFactor::UNNEST { .. }
    );
    let SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    let Some(inner) = select.from.first_mut() else { return Ok(()) };
    std::mem::swap(&mut inner.relation, factor);
    let name = Ident::with_quote('"', name);
    let alias = TableAlias { explicit: true, name, columns: Vec::new(), at: None };
    *factor = TableFactor::Derived { lateral, subquery: query, alias: Some(alias), sample: None };
    Ok(())
}

/// Keeps the columns out of `*`.
fn hide(item: &mut SelectItem, counted: &[String]) {
    let columns = |tables: &[String]| {
        let name = |table: &String| Ident::with_quote('"', format!("{THERE}{table}"));
        let names = tables.iter().map(|table| ObjectName::from(vec![name(table)]));
        Some(ExcludeSelectItem::Multiple(names.collect()))
    };
    let set = |options: &mut WildcardAdditionalOptions, tables: &[String]| {
        options.opt_exclude = columns(tables);
    };
    match item {
        SelectItem::Wildcard(options) => set(options, counted),
        SelectItem::QualifiedWildcard(
            SelectItemQualifiedWildcardKind::ObjectName(table),
            options,
        ) => {
            let table = table.0.last().and_then(|part| part.as_ident()).map(fold);
            if let Some(table) = table.filter(|table| counted.contains(table)) {
                set(options, &[table]);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::names::MARK;

    #[test]
    fn the_mark_is_one_that_no_identifier_has() {
        assert!(THERE.starts_with(MARK));
    }
}
