//! `GROUP BY CUBE (a, a)`, `a, ROLLUP (a)`: the planner wants a column once in a list of keys.
//! Where one is there twice, the grouping sets are written out, each with its columns once.
//!
//! ```text
//! GROUP BY a, ROLLUP (a, b)    is    GROUP BY GROUPING SETS ((a, b), (a), (a))
//! ```

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, ObjectNamePart, Query,
    Select,
};

use super::parser::fold;
use super::visit::{Rewrite, walk_mut};
use crate::error::Result;

/// Writes out the grouping sets of a query's SELECTs that name a column twice.
pub(super) fn group_once(query: &mut Query) -> Result<()> {
    struct Once;
    impl Rewrite for Once {
        fn pre_select(&mut self, select: &mut Select) -> Result<()> {
            write_out(select);
            Ok(())
        }
    }
    walk_mut(query, &mut Once)
}

fn write_out(select: &mut Select) {
    let GroupByExpr::Expressions(items, _) = &mut select.group_by else { return };
    let has_sets = |e: &Expr| matches!(e, Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_));
    if !items.iter().any(has_sets) {
        return;
    }
    let mut all: Vec<Vec<Expr>> = vec![Vec::new()];
    // The planner has no lists of sets inside of each other either.
    let mut twice = items.iter().any(|item| match item {
        Expr::GroupingSets(lists) => lists.iter().any(|list| inner_sets(list).is_some()),
        _ => false,
    });
    for item in items.iter() {
        let own = sets(item);
        let with_own = |before: &Vec<Expr>| {
            let both = |set: &Vec<Expr>| before.iter().chain(set).cloned().collect::<Vec<_>>();
            own.iter().map(both).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with_own).collect();
    }
    for set in &mut all {
        let mut once: Vec<Expr> = Vec::with_capacity(set.len());
        for key in set.drain(..) {
            match once.iter().any(|other| same(other, &key)) {
                true => twice = true,
                false => once.push(key),
            }
        }
        *set = once;
    }
    if twice {
        *items = vec![Expr::GroupingSets(all)];
    }
}

/// The grouping sets of an item of GROUP BY. Their number has been checked.
fn sets(item: &Expr) -> Vec<Vec<Expr>> {
    match item {
        Expr::Rollup(lists) => (0..=lists.len()).rev().map(|n| lists[..n].concat()).collect(),
        Expr::Cube(lists) => (0..1_usize << lists.len())
            .rev()
            .map(|mask| {
                let last = lists.len().saturating_sub(1);
                let there = lists.iter().enumerate().filter(|(i, _)| mask >> (last - i) & 1 == 1);
                there.flat_map(|(_, list)| list.iter().cloned()).collect()
            })
            .collect(),
        Expr::GroupingSets(lists) => lists
            .iter()
            .flat_map(|list| match inner_sets(list) {
                Some(inner) => sets(&inner),
                None => vec![list.clone()],
            })
            .collect(),
        Expr::Tuple(keys) => vec![keys.clone()],
        Expr::Nested(inner) => sets(inner),
        key => vec![vec![key.clone()]],
    }
}

/// CUBE, ROLLUP or GROUPING SETS as an item of GROUPING SETS, where the parser takes the first two
/// for functions.
pub(super) fn inner_sets(list: &[Expr]) -> Option<Expr> {
    let [item] = list else { return None };
    let f = match item {
        Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_) => return Some(item.clone()),
        Expr::Function(f) => f,
        _ => return None,
    };
    let FunctionArguments::List(arguments) = &f.args else { return None };
    let lists = arguments.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Tuple(keys))) => Some(keys.clone()),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(key)) => Some(vec![key.clone()]),
        _ => None,
    });
    let lists: Vec<Vec<Expr>> = lists.collect::<Option<_>>()?;
    match f.name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] if name.quote_style.is_none() => {
            match name.value.to_ascii_lowercase().as_str() {
                "cube" => Some(Expr::Cube(lists)),
                "rollup" => Some(Expr::Rollup(lists)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether two keys are one: a column may stand with its table and without, since of two columns of
/// one name neither can stand without.
fn same(a: &Expr, b: &Expr) -> bool {
    match (a, b) {
        (Expr::Nested(a), b) | (b, Expr::Nested(a)) => same(a, b),
        (Expr::Identifier(a), Expr::Identifier(b)) => fold(a) == fold(b),
        (Expr::Identifier(a), Expr::CompoundIdentifier(b))
        | (Expr::CompoundIdentifier(b), Expr::Identifier(a)) => {
            b.last().is_some_and(|last| fold(last) == fold(a))
        }
        _ => a == b,
    }
}
