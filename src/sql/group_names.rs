//! `SELECT x AS a, x AS b .. GROUP BY a, ROLLUP (b)`: two keys with one expression, of which one
//! may be NULL for a set where the other is not. The planner would take them for one: the second
//! becomes a call that gives what it is given.

use std::collections::HashSet;

use sqlparser::ast::{Expr, GroupByExpr, Query, Select, SelectItem, Value};

use super::parser::fold;
use super::tree::call;
use super::visit::{Rewrite, walk_mut};
use crate::error::Result;

/// Keeps the keys of grouping sets apart that have one expression.
pub(super) fn keep_keys_apart(query: &mut Query) -> Result<()> {
    struct Apart;
    impl Rewrite for Apart {
        fn pre_select(&mut self, select: &mut Select) -> Result<()> {
            apart(select);
            Ok(())
        }
    }
    walk_mut(query, &mut Apart)
}

fn apart(select: &mut Select) {
    let GroupByExpr::Expressions(keys, _) = &mut select.group_by else { return };
    let has_sets = |e: &Expr| matches!(e, Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_));
    if !keys.iter().any(has_sets) {
        return;
    }
    let (mut places, mut names) = (HashSet::new(), HashSet::new());
    keys.iter_mut().for_each(|key| {
        each_key(key, &mut |key| {
            places.extend(place_of(key));
            if let Expr::Identifier(name) = key {
                names.insert(fold(name));
            }
        });
    });
    let mut seen: Vec<Expr> = Vec::new();
    for (place, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::ExprWithAlias { expr, alias } = item else { continue };
        if !places.contains(&place) && !names.contains(&fold(alias)) {
            continue;
        }
        match seen.contains(expr) {
            true => *expr = call("pg_same", vec![expr.clone()]),
            false => seen.push(expr.clone()),
        }
    }
    // The planner knows places outside of sets alone.
    let list = &select.projection;
    let expression = |place: usize| match list.get(place) {
        Some(SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr)) => Some(expr),
        _ => None,
    };
    keys.iter_mut().filter(|key| has_sets(key)).for_each(|key| {
        each_key(key, &mut |key| {
            if let Some(expr) = place_of(key).and_then(expression) {
                *key = expr.clone();
            }
        });
    });
}

/// The keys of an item of GROUP BY.
fn each_key(item: &mut Expr, each: &mut dyn FnMut(&mut Expr)) {
    match item {
        Expr::Rollup(lists) | Expr::Cube(lists) | Expr::GroupingSets(lists) => {
            lists.iter_mut().flatten().for_each(|key| each_key(key, each));
        }
        Expr::Tuple(keys) => keys.iter_mut().for_each(|key| each_key(key, each)),
        Expr::Nested(inner) => each_key(inner, each),
        key => each(key),
    }
}

/// The place in the list that a number stands for, from 0.
fn place_of(key: &Expr) -> Option<usize> {
    let Expr::Value(value) = key else { return None };
    let Value::Number(number, _) = &value.value else { return None };
    number.parse::<usize>().ok()?.checked_sub(1)
}
