//! Who names whom in WITH RECURSIVE, and the calls that queries which name themselves become.

use sqlparser::ast::{
    Cte, Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, SetExpr, SetOperator,
    SetQuantifier, TableAlias, TableFactor, Value, Visit, With,
};
use sqlparser::parser::Parser;

use super::form::{check_clauses, check_step, no_form, within_base};
use crate::delta::hash_key;
use crate::error::{Error, Result};
use crate::sql::dialect::DIALECT;
use crate::sql::names::MARK;
use crate::sql::parser::fold;
use crate::sql::visit::{Inspect, Rewrite, Stop, walk, walk_mut};

/// Behind the mark, the name of the function over both terms, and of that which reads the query
/// itself.
pub(super) const RECURSION: &str = "recursion";
pub(super) const WORK_TABLE: &str = "work_table";

/// Whether a function is one of those that queries which name themselves become.
pub(in crate::sql) fn is_recursion(name: &ObjectName) -> bool {
    let [part] = name.0.as_slice() else { return false };
    let name = part.as_ident().and_then(|ident| ident.value.strip_prefix(MARK));
    name.is_some_and(|name| [RECURSION, WORK_TABLE].contains(&name))
}

/// Brings the queries of each WITH RECURSIVE into their order, and those that name themselves into
/// the form of a call.
pub(in crate::sql) fn recursive_queries(query: &mut Query) -> Result<()> {
    walk_mut(query, &mut Rewriter)
}

struct Rewriter;

impl Rewrite for Rewriter {
    fn pre_query(&mut self, query: &mut Query) -> Result<()> {
        let Some(with) = query.with.as_mut().filter(|with| with.recursive) else { return Ok(()) };
        with.recursive = false;
        put_in_order(with)?;
        with.cte_tables.iter_mut().try_for_each(|cte| {
            let name = fold(&cte.alias.name);
            if mentions(cte.query.as_ref(), &name)? == 0 {
                return Ok(());
            }
            call_of(cte, &name)
        })
    }
}

/// With RECURSIVE, a query can name one behind it; those that are named come first.
fn put_in_order(with: &mut With) -> Result<()> {
    let mut waiting = std::mem::take(&mut with.cte_tables);
    while !waiting.is_empty() {
        let names: Vec<String> = waiting.iter().map(|cte| fold(&cte.alias.name)).collect();
        let free = |cte: &Cte| -> Result<bool> {
            let own = fold(&cte.alias.name);
            for name in names.iter().filter(|name| **name != own) {
                if mentions(cte.query.as_ref(), name)? > 0 {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let mut next = None;
        for (at, cte) in waiting.iter().enumerate() {
            if free(cte)? {
                next = Some(at);
                break;
            }
        }
        let Some(next) = next else {
            let message = "mutual recursion between WITH items is not implemented";
            return Err(Error::unsupported(message)
                .with_hint("Write one recursive query with a column that says whose a row is."));
        };
        with.cte_tables.push(waiting.remove(next));
    }
    Ok(())
}

/// Puts the call of the function over both terms in the place of a query that names itself.
fn call_of(cte: &mut Cte, name: &str) -> Result<()> {
    let query = cte.query.as_mut();
    check_clauses(query)?;
    // Those that are inside of one another have one each.
    let id = format!("{name}{MARK}{:016x}", hash_key(query.to_string().as_bytes()));
    let inner = query.with.take();
    let SetExpr::SetOperation { op: SetOperator::Union, set_quantifier, left, right } =
        query.body.as_mut()
    else {
        return Err(no_form(name));
    };
    let distinct = match set_quantifier {
        SetQuantifier::All => false,
        SetQuantifier::None | SetQuantifier::Distinct => true,
        _ => return Err(no_form(name)),
    };
    let text = format!(
        "SELECT * FROM \"{MARK}{RECURSION}\"((SELECT 1), (SELECT 1), {}, {distinct})",
        literal(&id)
    );
    let mut call = parsed(&text)?;
    let term = |body: &mut SetExpr| -> Result<Query> {
        let mut term = parsed("SELECT 1")?;
        term.with = inner.clone();
        std::mem::swap(term.body.as_mut(), body);
        Ok(term)
    };
    let (base, mut step) = (term(left)?, term(right)?);
    if mentions(&base, name)? > 0 {
        return Err(within_base(name));
    }
    check_step(&step, name)?;
    walk_mut(&mut step, &mut SelfReferences { name, id: &id, base: &base, cte, shadows: 0 })?;
    let args = arguments(&mut call).ok_or_else(|| Error::internal("a call has arguments"))?;
    for (arg, query) in args.iter_mut().zip([base, step]) {
        *arg = subquery(query);
    }
    *cte.query = call;
    Ok(())
}

fn parsed(text: &str) -> Result<Query> {
    let parsed = Parser::new(&DIALECT).try_with_sql(text).and_then(|mut p| p.parse_query());
    parsed.map(|query| *query).map_err(|e| Error::internal(e.to_string()))
}

fn subquery(query: Query) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Subquery(Box::new(query))))
}

/// The arguments of the function in FROM.
fn arguments(query: &mut Query) -> Option<&mut Vec<FunctionArg>> {
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    match &mut select.from.first_mut()?.relation {
        TableFactor::Table { args: Some(args), .. } => Some(&mut args.args),
        _ => None,
    }
}

/// Puts the call that reads the query itself in the places of its name.
struct SelfReferences<'a> {
    name: &'a str,
    id: &'a str,
    base: &'a Query,
    cte: &'a Cte,
    /// Queries around with a WITH query of that name.
    shadows: usize,
}

impl Rewrite for SelfReferences<'_> {
    fn pre_query(&mut self, query: &mut Query) -> Result<()> {
        self.shadows += usize::from(declares(query, self.name));
        Ok(())
    }

    fn post_query(&mut self, query: &mut Query) -> Result<()> {
        self.shadows -= usize::from(declares(query, self.name));
        Ok(())
    }

    fn pre_table_factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        if self.shadows > 0 || !names(factor, self.name) {
            return Ok(());
        }
        let text =
            format!("SELECT * FROM \"{MARK}{WORK_TABLE}\"((SELECT 1), {})", literal(self.id));
        let mut call = parsed(&text)?;
        let args = arguments(&mut call).ok_or_else(|| Error::internal("a call has arguments"))?;
        args[0] = subquery(self.base.clone());
        let own = &self.cte.alias;
        let TableFactor::Table { alias, .. } = factor else { return Ok(()) };
        let mut called = alias.take().unwrap_or_else(|| TableAlias {
            explicit: true,
            name: Ident { span: own.name.span, ..own.name.clone() },
            columns: Vec::new(),
            at: None,
        });
        called.columns.extend(own.columns.iter().skip(called.columns.len()).cloned());
        if let SetExpr::Select(select) = *call.body
            && let Some(from) = select.from.into_iter().next()
        {
            *factor = from.relation;
        }
        if let TableFactor::Table { alias, .. } = factor {
            *alias = Some(called);
        }
        Ok(())
    }
}

fn literal(text: &str) -> Value {
    Value::SingleQuotedString(text.to_owned())
}

/// Whether a WITH query of a query has a name.
fn declares(query: &Query, name: &str) -> bool {
    let tables = query.with.iter().flat_map(|with| &with.cte_tables);
    tables.into_iter().any(|cte| fold(&cte.alias.name) == name)
}

/// Whether an item of FROM is a name.
pub(super) fn names(factor: &TableFactor, name: &str) -> bool {
    let TableFactor::Table { name: written, args: None, .. } = factor else { return false };
    let [part] = written.0.as_slice() else { return false };
    part.as_ident().is_some_and(|ident| fold(ident) == name)
}

/// How often a name stands for a query around a part of the syntax tree.
pub(super) fn mentions<T: Visit>(node: &T, name: &str) -> Result<usize> {
    let mut mentions = Mentions { name, shadows: 0, found: 0 };
    walk(node, &mut mentions)?;
    Ok(mentions.found)
}

struct Mentions<'a> {
    name: &'a str,
    shadows: usize,
    found: usize,
}

impl Inspect for Mentions<'_> {
    fn pre_query(&mut self, query: &Query) -> Result<(), Stop> {
        self.shadows += usize::from(declares(query, self.name));
        Ok(())
    }

    fn post_query(&mut self, query: &Query) -> Result<(), Stop> {
        self.shadows -= usize::from(declares(query, self.name));
        Ok(())
    }

    fn pre_table_factor(&mut self, factor: &TableFactor) -> Result<(), Stop> {
        self.found += usize::from(self.shadows == 0 && names(factor, self.name));
        Ok(())
    }
}
