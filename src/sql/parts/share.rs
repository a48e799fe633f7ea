//! Which queries of a statement become parts: those of WITH clauses and of plain views that are
//! named more than once and stand for more than a few relations.

use std::collections::{HashMap, HashSet};

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{Cte, Expr, Query, SetExpr, TableFactor, Value, Visit, With};
use sqlparser::parser::Parser;

use crate::catalog::{Catalog, RelationId, RelationKind};
use crate::config::{RELATIONS_MAX, VIEW_DEPTH_MAX};
use crate::error::{Error, Result, sqlstate};
use crate::sql::binder::query_of_view;
use crate::sql::dialect::DIALECT;
use crate::sql::parser::{fold, relation_name};
use crate::sql::visit::{Inspect, Rewrite, Stop, any_expr, walk, walk_mut};

/// Relations that a query stands for when it is put wherever its name stands. More are a part, so
/// that what a statement grows to is at most this many times what is written.
const INLINE_MAX: usize = 8;

/// How often the relations of a statement are named, in it and in the views behind it.
#[derive(Debug, Default)]
pub(crate) struct Mentions {
    times: HashMap<String, usize>,
    /// What plain views stand for.
    weights: HashMap<String, usize>,
    /// Their queries.
    queries: HashMap<RelationId, Query>,
}

impl Mentions {
    /// Whether a plain view is to be a part.
    pub(crate) fn shares(&self, view: &str) -> bool {
        let times = self.times.get(view).copied().unwrap_or_default();
        times > 1 && self.weights.get(view).is_some_and(|weight| *weight > INLINE_MAX)
    }

    /// The query of a plain view behind the statement.
    pub(crate) fn query(&self, view: RelationId) -> Option<&Query> {
        self.queries.get(&view)
    }

    /// What a name stands for.
    fn weight(&self, name: &str) -> usize {
        match self.shares(name) {
            true => 1,
            false => self.weights.get(name).copied().unwrap_or(1),
        }
    }

    /// Finds out what a view stands for, and those that it is made of.
    fn weigh(
        &mut self,
        view: &str,
        behind: &HashMap<String, HashMap<String, usize>>,
        depth: usize,
    ) -> Result<()> {
        if depth > VIEW_DEPTH_MAX {
            return Err(Error::user(sqlstate::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
                .with_detail(format!(
                    "View \"{view}\" is the {depth}th of views that are made of one another; \
                 {VIEW_DEPTH_MAX} are possible."
                ))
                .with_hint("CREATE MATERIALIZED VIEW of one of them and read that."));
        }
        let Some(names) = behind.get(view).filter(|_| !self.weights.contains_key(view)) else {
            return Ok(());
        };
        for name in names.keys() {
            self.weigh(name, behind, depth + 1)?;
        }
        let weight = names.iter().fold(0_usize, |sum, (name, times)| {
            sum.saturating_add(self.weight(name).saturating_mul(*times))
        });
        self.weights.insert(view.to_owned(), weight);
        Ok(())
    }
}

/// Counts the names in a query and in the plain views behind it.
pub(crate) fn views_of(query: &Query, catalog: &Catalog) -> Result<Mentions> {
    let mut mentions = Mentions::default();
    let mut todo = count(query, &mut mentions.times)?;
    let mut behind: HashMap<String, HashMap<String, usize>> = HashMap::new();
    while let Some(name) = todo.pop() {
        let view = catalog.find(&name).filter(|r| r.kind == RelationKind::View);
        let Some(view) = view.filter(|_| !behind.contains_key(&name)) else { continue };
        let query = query_of_view(view)?;
        let mut names = HashMap::new();
        todo.extend(count(&query, &mut names)?);
        mentions.queries.insert(view.id, query);
        for (name, times) in &names {
            *mentions.times.entry(name.clone()).or_default() += times;
        }
        behind.insert(name, names);
    }
    let names: Vec<String> = behind.keys().cloned().collect();
    for name in names {
        mentions.weigh(&name, &behind, 0)?;
    }
    Ok(mentions)
}

/// Adds the relations that a query names; gives the names that were not there before.
fn count(query: &Query, times: &mut HashMap<String, usize>) -> Result<Vec<String>> {
    let mut new = Vec::new();
    for name in names_in(query)? {
        let before = times.entry(name.clone()).or_default();
        if *before == 0 {
            new.push(name);
        }
        *before += 1;
    }
    Ok(new)
}

/// The relations that stand in FROM, as often as they do.
pub(crate) fn names_in<T: Visit>(node: &T) -> Result<Vec<String>> {
    struct Names(Vec<String>);
    impl Inspect for Names {
        fn pre_table_factor(&mut self, factor: &TableFactor) -> Result<(), Stop> {
            self.0.extend(relation(factor));
            Ok(())
        }
    }
    let mut names = Names(Vec::new());
    walk(node, &mut names)?;
    Ok(names.0)
}

/// The relation that stands in FROM by its name.
pub(crate) fn relation(factor: &TableFactor) -> Option<String> {
    match factor {
        TableFactor::Table { name, args: None, .. } => relation_name(name).ok(),
        _ => None,
    }
}

/// Takes the queries of WITH clauses out of a query that are to be parts, and plans them with
/// `plan`, which is given a query and its name and gives the name of the part.
pub(crate) fn share(
    query: &mut Query,
    mentions: &Mentions,
    plan: &mut dyn FnMut(Query, &str) -> Result<String>,
) -> Result<()> {
    let mut sharing = Sharing { mentions, plan, visible: Vec::new() };
    let weight = sharing.query(query, true)?;
    if weight > RELATIONS_MAX {
        return Err(too_many_relations(weight));
    }
    Ok(())
}

pub(crate) fn too_many_relations(count: usize) -> Error {
    Error::user(sqlstate::STATEMENT_TOO_COMPLEX, "too many range table entries")
        .with_detail(format!(
            "The query reads {count} relations once its views and WITH queries are in their \
             places; {RELATIONS_MAX} are possible."
        ))
        .with_hint("CREATE MATERIALIZED VIEW of a part of it and read that.")
}

struct Sharing<'a> {
    mentions: &'a Mentions,
    plan: &'a mut dyn FnMut(Query, &str) -> Result<String>,
    /// WITH queries that can be named, the innermost last.
    visible: Vec<Visible>,
}

/// A WITH query and what it stands for.
struct Visible {
    name: String,
    weight: usize,
    cte: Cte,
}

impl Sharing<'_> {
    /// The relations that a query stands for. One that may read columns of queries around it is not
    /// `closed`, and none of its parts can be planned alone.
    fn query(&mut self, query: &mut Query, closed: bool) -> Result<usize> {
        let outer = self.visible.len();
        let mut with = query.with.take();
        let recursive = with.as_ref().is_some_and(|with| with.recursive);
        let ctes = with.iter_mut().flat_map(|with| &mut with.cte_tables);
        let ctes: Vec<&mut Cte> = ctes.collect();
        // How often names stand in what follows a WITH query.
        let mut behind = HashMap::new();
        count(query, &mut behind)?;
        for cte in &ctes {
            count(&cte.query, &mut behind)?;
        }
        for cte in ctes {
            let name = fold(&cte.alias.name);
            for own in names_in(cte.query.as_ref())? {
                behind.entry(own).and_modify(|times| *times = times.saturating_sub(1));
            }
            let named = behind.get(&name).copied().unwrap_or_default();
            let mut weight = self.query(&mut cte.query, closed && !recursive)?;
            let shareable = closed && !recursive && weight > INLINE_MAX;
            if shareable && named > 1 && !has_parameters(&cte.query) {
                let part = self.take_out(cte, &name)?;
                *cte.query = select_from(&part, &name)?;
                weight = 1;
            }
            let cte = cte.clone();
            self.visible.push(Visible { name, weight, cte });
        }
        let mut weigh = Weigh { sharing: self, closed, inside: 0, open: 0, weight: 0 };
        walk_mut(query, &mut weigh)?;
        let weight = weigh.weight;
        query.with = with;
        self.visible.truncate(outer);
        Ok(weight)
    }

    /// Plans the query of a WITH clause as a part, and gives the part's name.
    fn take_out(&mut self, cte: &Cte, name: &str) -> Result<String> {
        let mut part = select_from(name, name)?;
        if let SetExpr::Select(select) = part.body.as_mut()
            && let Some(from) = select.from.first_mut()
        {
            let mut alias = cte.alias.clone();
            alias.columns.clear();
            from.relation = TableFactor::Derived {
                lateral: false,
                subquery: cte.query.clone(),
                alias: Some(alias),
                sample: None,
            };
        }
        let cte_tables = self.needed(&part)?;
        if !cte_tables.is_empty() {
            let with_token = AttachedToken::empty();
            part.with = Some(With { with_token, recursive: false, cte_tables });
        }
        (self.plan)(part, name)
    }

    /// The WITH queries around that a query names, and those that these name.
    fn needed(&self, query: &Query) -> Result<Vec<Cte>> {
        let mut wanted: HashSet<String> = names_in(query)?.into_iter().collect();
        let mut needed = Vec::new();
        for visible in self.visible.iter().rev() {
            // Of two with one name the inner one counts.
            if wanted.remove(&visible.name) {
                wanted.extend(names_in(visible.cte.query.as_ref())?);
                needed.push(visible.cte.clone());
            }
        }
        needed.reverse();
        Ok(needed)
    }

    /// What a name stands for.
    fn weight(&self, name: &str) -> usize {
        if let Some(known) = self.visible.iter().rev().find(|v| v.name == name) {
            return known.weight.max(1);
        }
        self.mentions.weight(name)
    }
}

/// Parameters may get their types from the values of an execution, after parts are planned.
fn has_parameters(query: &Query) -> bool {
    any_expr(query, &|e| matches!(e, Expr::Value(v) if matches!(v.value, Value::Placeholder(_))))
}

fn select_from(name: &str, alias: &str) -> Result<Query> {
    let quoted = |name: &str| name.replace('"', "\"\"");
    let text = format!("SELECT * FROM \"{}\" AS \"{}\"", quoted(name), quoted(alias));
    let parsed = Parser::new(&DIALECT).try_with_sql(&text).and_then(|mut p| p.parse_query());
    parsed.map(|query| *query).map_err(|e| Error::internal(e.to_string()))
}

/// Adds up what the relations of a query stand for; nested queries have WITH clauses of their own.
struct Weigh<'a, 'b> {
    sharing: &'a mut Sharing<'b>,
    closed: bool,
    /// Queries with a WITH clause around, which have been weighed, and those in them.
    inside: usize,
    /// Expressions and LATERAL items around: a query in them may read columns from outside.
    open: usize,
    weight: usize,
}

impl Rewrite for Weigh<'_, '_> {
    fn pre_query(&mut self, query: &mut Query) -> Result<()> {
        if self.inside > 0 {
            self.inside += 1;
        } else if query.with.is_some() {
            self.inside = 1;
            let weight = self.sharing.query(query, self.closed && self.open == 0)?;
            self.weight = self.weight.saturating_add(weight);
        }
        Ok(())
    }

    fn post_query(&mut self, _query: &mut Query) -> Result<()> {
        self.inside = self.inside.saturating_sub(1);
        Ok(())
    }

    fn pre_expr(&mut self, _expr: &mut Expr) -> Result<()> {
        self.open += 1;
        Ok(())
    }

    fn post_expr(&mut self, _expr: &mut Expr) -> Result<()> {
        self.open -= 1;
        Ok(())
    }

    fn pre_table_factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        self.open += usize::from(is_lateral(factor));
        if let Some(name) = relation(factor).filter(|_| self.inside == 0) {
            self.weight = self.weight.saturating_add(self.sharing.weight(&name));
        }
        Ok(())
    }

    fn post_table_factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        self.open -= usize::from(is_lateral(factor));
        Ok(())
    }
}

fn is_lateral(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::Derived { lateral: true, .. })
}
