//! Aggregates of an outer query inside of subqueries with FROM: `SELECT (SELECT max(o.v) + i.x FROM
//! i) FROM o`, and in HAVING `EXISTS (SELECT 1 FROM i WHERE i.k = max(o.v))`.
//!
//! An aggregate is of the innermost query whose columns are in its arguments. Such a query is taken
//! apart: it is grouped in FROM, where its keys and all of its aggregates become columns, and its
//! SELECT list and HAVING, with the subqueries in them, read those; so does what GROUPING tells of
//! grouping sets. Columns are told by the names of tables in front of them (see `levels`); an
//! aggregate of columns without such names counts as the subquery's own.

use sqlparser::ast::{
    Distinct, Expr, Function, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr, TableAlias,
    TableFactor, TableWithJoins, Value,
};
use sqlparser::parser::Parser;

use super::dialect::DIALECT;
use super::functions::FUNCTIONS;
use super::names::MARK;
use super::parser::fold;
use super::scopes::{Scopes, names_of};
use super::visit::{Inspect, Rewrite, Stop, walk, walk_mut};
use crate::error::{Error, Result, sqlstate};

/// The name of the grouped query in FROM; no identifier that is read contains its mark.
fn grouped_name() -> String {
    format!("{MARK}grouped")
}

/// Takes the SELECTs of a query apart whose aggregates stand in subqueries.
pub(super) fn lift_outer_aggregates(query: &mut Query) -> Result<()> {
    walk_mut(query, &mut Lift { left: None })
}

struct Lift {
    /// What became of the SELECT that was left last.
    left: Option<Grouped>,
}

impl Rewrite for Lift {
    fn post_select(&mut self, select: &mut Select) -> Result<()> {
        self.left = take_apart(select)?;
        Ok(())
    }

    fn post_query(&mut self, query: &mut Query) -> Result<()> {
        let left = self.left.take();
        if let (Some(grouped), SetExpr::Select(_)) = (left, query.body.as_ref()) {
            grouped.place(&mut query.order_by)?;
        }
        Ok(())
    }
}

/// A grouped query, and what its columns stand for.
struct Grouped {
    /// The tables in its FROM.
    tables: Vec<String>,
    keys: Vec<Expr>,
    /// The keys as they were written, grouping sets among them.
    group_by: Vec<Expr>,
    calls: Vec<Expr>,
}

fn take_apart(select: &mut Select) -> Result<Option<Grouped>> {
    let tables = names_of(&select.from);
    let inside = Calls::of(select, &tables, Where::Subqueries)?;
    let GroupByExpr::Expressions(written, modifiers) = &select.group_by else { return Ok(None) };
    if inside.is_empty() || !modifiers.is_empty() {
        return Ok(None);
    }
    let group_by = written.iter().map(|key| items_of(select, key)).collect::<Vec<Expr>>();
    let mut keys = Vec::new();
    group_by.iter().for_each(|key| add_keys(key, &mut keys));
    keep_names(&mut select.projection);
    let mut calls = Calls::of(select, &tables, Where::Outside)?;
    calls.extend(inside.into_iter().filter(|call| !calls.contains(call)).collect::<Vec<_>>());
    let grouped = Grouped { tables, keys, group_by, calls };
    grouped.place(&mut select.projection)?;
    grouped.place(&mut select.having)?;
    if let Some(Distinct::On(exprs)) = &mut select.distinct {
        grouped.place(exprs)?;
    }
    let mut inner = grouped.query()?;
    if let SetExpr::Select(inside) = inner.body.as_mut() {
        inside.from = std::mem::take(&mut select.from);
        inside.selection = select.selection.take();
    }
    select.selection = select.having.take();
    select.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
    let name = Ident::with_quote('"', grouped_name());
    let alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
    let subquery = Box::new(inner);
    let relation = TableFactor::Derived { lateral: false, subquery, alias, sample: None };
    select.from = vec![TableWithJoins { relation, joins: Vec::new() }];
    Ok(Some(grouped))
}

/// A key, or grouping sets of keys, with expressions in the places of numbers.
fn items_of(select: &Select, key: &Expr) -> Expr {
    let all = |sets: &[Vec<Expr>]| {
        let set = |set: &Vec<Expr>| set.iter().map(|key| items_of(select, key)).collect();
        sets.iter().map(set).collect()
    };
    match key {
        Expr::Rollup(sets) => Expr::Rollup(all(sets)),
        Expr::Cube(sets) => Expr::Cube(all(sets)),
        Expr::GroupingSets(sets) => Expr::GroupingSets(all(sets)),
        key => item_of(select, key),
    }
}

/// Adds the keys of which grouping sets are made, each once.
fn add_keys(key: &Expr, keys: &mut Vec<Expr>) {
    match key {
        Expr::Rollup(sets) | Expr::Cube(sets) | Expr::GroupingSets(sets) => {
            sets.iter().flatten().for_each(|key| add_keys(key, keys));
        }
        Expr::Tuple(several) => several.iter().for_each(|key| add_keys(key, keys)),
        key if keys.contains(key) => {}
        key => keys.push(key.clone()),
    }
}

/// Columns of the list keep the names that they have by themselves.
fn keep_names(list: &mut [SelectItem]) {
    for item in list {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let name = match expr {
            Expr::Identifier(name) => Some(name.clone()),
            Expr::CompoundIdentifier(parts) => parts.last().cloned(),
            _ => None,
        };
        if let Some(alias) = name {
            let expr = std::mem::replace(expr, Expr::value(Value::Null));
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
}

/// The expression of a key, which may be the number of an entry.
fn item_of(select: &Select, key: &Expr) -> Expr {
    let number = match key {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.parse::<usize>().ok(),
            _ => None,
        },
        _ => None,
    };
    let item = number.and_then(|n| select.projection.get(n.checked_sub(1)?));
    match item {
        Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => {
            expr.clone()
        }
        _ => key.clone(),
    }
}

impl Grouped {
    /// `SELECT keys, calls GROUP BY keys`.
    fn query(&self) -> Result<Query> {
        let parsed = Parser::new(&DIALECT).try_with_sql("SELECT 1");
        let parsed = parsed.and_then(|mut p| p.parse_query());
        let mut query = *parsed.map_err(|e| Error::internal(e.to_string()))?;
        if let SetExpr::Select(select) = query.body.as_mut() {
            let named = |(i, expr): (usize, &Expr)| SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: Ident::with_quote('"', column_name(i)),
            };
            select.projection =
                self.keys.iter().chain(&self.calls).enumerate().map(named).collect();
            select.group_by = GroupByExpr::Expressions(self.group_by.clone(), Vec::new());
        }
        Ok(query)
    }

    /// Puts the columns of the grouped query in the places of what they stand for.
    fn place<T: sqlparser::ast::VisitMut>(&self, node: &mut T) -> Result<()> {
        walk_mut(node, &mut Place { grouped: self, scopes: Scopes::default() })
    }

    /// The column that an expression is, in a query in `scopes`.
    fn column_of(&self, expr: &Expr, scopes: &Scopes) -> Option<Expr> {
        let inside = !scopes.is_outside();
        let found = match expr {
            Expr::Function(f) if is_aggregate(f) => {
                let mine = !inside || is_of(f, &self.tables, scopes);
                let call = self.calls.iter().position(|call| call == expr);
                call.filter(|_| mine).map(|call| call + self.keys.len())
            }
            Expr::CompoundIdentifier(parts) if !self.names_own(parts, scopes) => None,
            Expr::Identifier(_) if inside => None,
            _ => self.keys.iter().position(|key| key == expr || is_same_column(key, expr)),
        };
        let name = Ident::with_quote('"', column_name(found?));
        let table = Ident::with_quote('"', grouped_name());
        Some(Expr::CompoundIdentifier(vec![table, name]))
    }

    fn names_own(&self, parts: &[Ident], scopes: &Scopes) -> bool {
        let table = parts.iter().rev().nth(1).map(fold);
        table.is_some_and(|table| self.tables.contains(&table) && !scopes.has(&table))
    }
}

fn column_name(i: usize) -> String {
    format!("{MARK}{i}")
}

/// `k` and `t.k`.
fn is_same_column(key: &Expr, expr: &Expr) -> bool {
    let last = |expr: &Expr| match expr {
        Expr::Identifier(name) => Some((fold(name), false)),
        Expr::CompoundIdentifier(parts) => parts.last().map(|name| (fold(name), true)),
        _ => None,
    };
    match (last(key), last(expr)) {
        (Some((a, qualified)), Some((b, also))) => a == b && qualified != also,
        _ => false,
    }
}

/// Keeps the names of the queries around that are inside of the one that is looked at.
struct Place<'a> {
    grouped: &'a Grouped,
    scopes: Scopes,
}

impl Rewrite for Place<'_> {
    fn pre_query(&mut self, query: &mut Query) -> Result<()> {
        self.scopes.enter(query);
        Ok(())
    }

    fn post_query(&mut self, _query: &mut Query) -> Result<()> {
        self.scopes.leave();
        Ok(())
    }

    fn pre_select(&mut self, select: &mut Select) -> Result<()> {
        self.scopes.add(select);
        Ok(())
    }

    fn pre_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Some(column) = self.grouped.column_of(expr, &self.scopes) {
            *expr = column;
        } else if let Expr::CompoundIdentifier(parts) = expr
            && self.grouped.names_own(parts, &self.scopes)
        {
            let name: Vec<String> = parts.iter().map(fold).collect();
            let name = name.join(".");
            let message = match self.scopes.is_outside() {
                true => format!(
                    "column \"{name}\" must appear in the GROUP BY clause or be used in an \
                     aggregate function"
                ),
                false => format!("subquery uses ungrouped column \"{name}\" from outer query"),
            };
            return Err(Error::user(sqlstate::GROUPING_ERROR, message));
        }
        Ok(())
    }
}

/// Whether a call is of a group, as GROUPING is, too.
pub(super) fn is_aggregate(f: &Function) -> bool {
    let name = f.name.0.last().and_then(|part| part.as_ident()).map(fold);
    let of_group = |name: String| name == "grouping" || FUNCTIONS.aggregate.contains_key(&name);
    f.over.is_none() && name.is_some_and(of_group)
}

/// Whether a call inside of queries in `scopes` is of the query whose `tables` these are.
fn is_of(f: &Function, tables: &[String], scopes: &Scopes) -> bool {
    let mut columns = Columns { tables, scopes, own: false };
    let other = matches!(walk(&f.args, &mut columns), Ok(true))
        || matches!(walk(&f.filter, &mut columns), Ok(true));
    columns.own && !other
}

/// Looks for columns of the query, and stops at what may be one of a query inside.
struct Columns<'a> {
    tables: &'a [String],
    scopes: &'a Scopes,
    own: bool,
}

impl Inspect for Columns<'_> {
    fn pre_query(&mut self, _query: &Query) -> Result<(), Stop> {
        Err(Stop::Found)
    }

    fn pre_expr(&mut self, expr: &Expr) -> Result<(), Stop> {
        match expr {
            Expr::Identifier(_) => Err(Stop::Found),
            Expr::CompoundIdentifier(parts) => {
                let table = parts.iter().rev().nth(1).map(fold).unwrap_or_default();
                if self.scopes.has(&table) {
                    return Err(Stop::Found);
                }
                self.own |= self.tables.contains(&table);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Where aggregates are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Outside,
    Subqueries,
}

/// Finds the aggregates of a SELECT, each once.
struct Calls<'a> {
    tables: &'a [String],
    place: Where,
    scopes: Scopes,
    found: Vec<Expr>,
}

impl<'a> Calls<'a> {
    fn of(select: &Select, tables: &'a [String], place: Where) -> Result<Vec<Expr>> {
        let mut calls = Calls { tables, place, scopes: Scopes::default(), found: Vec::new() };
        walk(&select.projection, &mut calls)?;
        walk(&select.having, &mut calls)?;
        Ok(calls.found)
    }
}

impl Inspect for Calls<'_> {
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
        if let Expr::Function(f) = expr
            && is_aggregate(f)
        {
            let wanted = match self.place {
                Where::Outside => self.scopes.is_outside(),
                Where::Subqueries => {
                    !self.scopes.is_outside() && is_of(f, self.tables, &self.scopes)
                }
            };
            if wanted && !self.found.contains(expr) {
                self.found.push(expr.clone());
            }
        }
        Ok(())
    }
}
