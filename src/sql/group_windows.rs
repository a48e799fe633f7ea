//! Windows in GROUP BY, as Flink has had them before its table functions: `TUMBLE(ts, size)`,
//! `HOP(ts, slide, size)`, `SESSION(ts, gap)`, with `TUMBLE_START`, `TUMBLE_END`, `TUMBLE_ROWTIME`
//! and their kin in the select list. Put as grouping by the columns of the table functions.
//!
//! `SELECT k, TUMBLE_START(ts, s) FROM t WHERE c GROUP BY k, TUMBLE(ts, s)` is `SELECT k,
//! window_start FROM TABLE(TUMBLE((SELECT * FROM t WHERE c), DESCRIPTOR(ts), s)) t GROUP BY k,
//! window_start, window_end`. The condition goes inside, since sessions are of the rows that pass.

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Query,
    Select, SelectItem, SetExpr, TableAlias, TableFactor, WildcardAdditionalOptions,
};

use super::parser::fold;
use super::statement::Statement;
use super::tree::call;
use super::visit::{Rewrite, walk_mut};
use crate::error::{Error, Result};

/// The name of a time that is computed.
const TIME: &str = "#time";

/// Rewrites the selects of a query.
pub(super) fn expand_group_windows(query: &mut Query) -> Result<()> {
    walk_mut(query, &mut Expander)
}

struct Expander;

impl Rewrite for Expander {
    fn pre_select(&mut self, select: &mut Select) -> Result<()> {
        expand(select)
    }
}

/// A window of GROUP BY.
struct Window {
    /// `tumble`, `hop` or `session`.
    name: String,
    args: Vec<Expr>,
}

fn window_of(expr: &Expr) -> Option<Window> {
    let Expr::Function(f) = expr else { return None };
    let [part] = f.name.0.as_slice() else { return None };
    let name = fold(part.as_ident()?);
    let args = arguments(f)?;
    let known =
        matches!((name.as_str(), args.len()), ("tumble", 2..=4) | ("hop", 3 | 4) | ("session", 2));
    known.then_some(Window { name, args })
}

fn arguments(f: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &f.args else { return None };
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
        _ => None,
    };
    list.args.iter().map(plain).collect()
}

fn expand(select: &mut Select) -> Result<()> {
    let GroupByExpr::Expressions(groups, _) = &select.group_by else { return Ok(()) };
    let Some((at, window)) = groups.iter().enumerate().find_map(|(i, e)| Some((i, window_of(e)?)))
    else {
        return Ok(());
    };
    let mut keys = groups.clone();
    keys.remove(at);
    if keys.iter().any(|key| window_of(key).is_some()) {
        return Err(Error::unsupported("GROUP BY of two windows is not supported"));
    }
    let alias = match select.from.as_slice() {
        [one] if one.joins.is_empty() => name_of(&one.relation),
        _ => {
            return Err(Error::unsupported(format!(
                "GROUP BY {} over a join is not supported",
                window.name.to_uppercase()
            ))
            .with_hint("Put the join into a subquery: FROM (SELECT .. FROM a JOIN b ..) t."));
        }
    };
    let mut edges = Edges { window: &window, time: false };
    walk_mut(&mut select.projection, &mut edges)?;
    walk_mut(&mut select.having, &mut edges)?;
    let with_time = edges.time;
    let factor = windowed(select, &window, &keys, alias)?;
    if let GroupByExpr::Expressions(groups, _) = &mut select.group_by {
        let columns = ["window_start", "window_end", "window_time"];
        let columns = columns.into_iter().take(if with_time { 3 } else { 2 });
        groups.splice(at..=at, columns.map(column));
    }
    select.selection = None;
    if let Some(from) = select.from.first_mut() {
        from.relation = factor;
    }
    Ok(())
}

fn column(name: &str) -> Expr {
    Expr::Identifier(Ident::with_quote('"', name))
}

/// The name by which columns of a relation can be qualified.
fn name_of(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::TableFunction { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, .. } => name.0.last().and_then(|p| p.as_ident()).cloned(),
        _ => None,
    }
}

/// A column without its relation.
fn unqualified(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Identifier(_) => Some(expr.clone()),
        Expr::CompoundIdentifier(parts) => parts.last().cloned().map(Expr::Identifier),
        Expr::Nested(inner) => unqualified(inner),
        _ => None,
    }
}

/// The table function over what the select reads.
fn windowed(
    select: &Select,
    window: &Window,
    keys: &[Expr],
    alias: Option<Ident>,
) -> Result<TableFactor> {
    let Some((time, intervals)) = window.args.split_first() else {
        return Err(Error::internal("a window without arguments"));
    };
    let mut items = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
    let time = unqualified(time).unwrap_or_else(|| {
        let alias = Ident::with_quote('"', TIME);
        items.push(SelectItem::ExprWithAlias { expr: time.clone(), alias });
        column(TIME)
    });
    let mut args = vec![Expr::Subquery(Box::new(inner(select, items)?)), descriptor(time)];
    if window.name == "session" {
        for key in keys {
            args.push(unqualified(key).ok_or_else(|| {
                Error::unsupported("GROUP BY SESSION beside an expression is not supported")
                    .with_hint("Compute it in a subquery and group by its column.")
            })?);
        }
    }
    args.extend(intervals.iter().cloned());
    let alias = alias.map(|name| TableAlias { explicit: true, name, columns: vec![], at: None });
    Ok(TableFactor::TableFunction { expr: call(&window.name, args), alias })
}

/// What the select reads, with its condition.
fn inner(select: &Select, items: Vec<SelectItem>) -> Result<Query> {
    let mut parsed = super::parser::parse("SELECT 1")?;
    let Some(Statement::Query(mut query)) = parsed.pop().map(|p| p.statement) else {
        return Err(Error::internal("a select is a query"));
    };
    if let SetExpr::Select(body) = query.body.as_mut() {
        body.projection = items;
        body.from = select.from.clone();
        body.selection = select.selection.clone();
    }
    Ok(*query)
}

fn descriptor(time: Expr) -> Expr {
    call("descriptor", vec![time])
}

/// Puts columns in the places of `TUMBLE_START(..)` and its kin.
struct Edges<'a> {
    window: &'a Window,
    /// Whether `window_time` is among them.
    time: bool,
}

impl Rewrite for Edges<'_> {
    fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
        let Expr::Function(f) = &*expr else { return Ok(()) };
        let name = match f.name.0.as_slice() {
            [part] => part.as_ident().map(fold).unwrap_or_default(),
            _ => return Ok(()),
        };
        let edge = match name.strip_prefix(&self.window.name) {
            Some("_start") => "window_start",
            Some("_end") => "window_end",
            Some("_rowtime" | "_proctime") => "window_time",
            _ => return Ok(()),
        };
        let text = |args: &[Expr]| -> Vec<String> {
            args.iter().map(|e| unqualified(e).unwrap_or_else(|| e.clone()).to_string()).collect()
        };
        if arguments(f).map(|args| text(&args)) != Some(text(&self.window.args)) {
            let what = name.to_uppercase();
            return Err(Error::unsupported(format!("{what} of another window is not supported"))
                .with_hint("Write the same arguments as in GROUP BY."));
        }
        self.time |= edge == "window_time";
        *expr = column(edge);
        Ok(())
    }
}
