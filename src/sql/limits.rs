//! Limits of a statement that PostgreSQL has, with its codes and words.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan};
use sqlparser::ast::{
    Expr, Function, FunctionArguments, GroupByExpr, SelectItem, TableFactor, TableWithJoins, Value,
};

use super::group_twice::inner_sets;
use crate::config::{
    ARGUMENTS_MAX, COLUMNS_MAX, CUBE_MAX, GROUPING_SETS_MAX, JOINED_MAX, SELECT_LIST_MAX,
};
use crate::error::{Error, Result, sqlstate};
use crate::expr::{WalkPlan, from_datafusion, to_datafusion};
use crate::library::{Trait, has_trait};

/// A relation with this many columns.
pub fn check_columns(count: usize) -> Result<()> {
    limited(count, COLUMNS_MAX, || {
        too_many(format!("tables can have at most {COLUMNS_MAX} columns"))
            .with_hint("Put the columns into several tables, or into one of type jsonb.")
    })
}

/// A SELECT list with this many entries.
pub(super) fn check_select_list(count: usize) -> Result<()> {
    limited(count, SELECT_LIST_MAX, || {
        too_many(format!("target lists can have at most {SELECT_LIST_MAX} entries"))
            .with_hint("Name the columns that you need.")
    })
}

/// Whether an entry is one that an UPDATE or INSERT has put there: old values and new ones of the
/// widest table are more than a list of a user may have.
pub(super) fn is_of_a_change(item: &SelectItem) -> bool {
    matches!(item, SelectItem::ExprWithAlias { alias, .. } if is_ours(&alias.value))
}

fn is_ours(name: &str) -> bool {
    name.starts_with('\u{2}')
}

/// The SELECT lists of a plan, once `*` is what it stands for.
pub(super) fn check_select_lists(plan: &LogicalPlan) -> Result<()> {
    let visited = plan.each_node(|node| {
        if let LogicalPlan::Projection(node) = node {
            let ours = |e: &&PlanExpr| matches!(e, PlanExpr::Alias(a) if is_ours(&a.name));
            let count = node.expr.len() - node.expr.iter().filter(ours).count();
            check_select_list(count).map_err(to_datafusion)?;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.map(|_| ()).map_err(from_datafusion)
}

/// The relations that a FROM clause joins.
pub(super) fn check_joined(from: &[TableWithJoins]) -> Result<()> {
    limited(from.iter().map(joined).sum(), JOINED_MAX, || {
        Error::user(sqlstate::STATEMENT_TOO_COMPLEX, "too many relations are joined")
            .with_detail(format!("A FROM clause can have {JOINED_MAX} relations."))
            .with_hint("Join some of them in a subquery.")
    })
}

fn joined(table: &TableWithJoins) -> usize {
    let factor = |factor: &TableFactor| match factor {
        TableFactor::NestedJoin { table_with_joins, .. } => joined(table_with_joins),
        _ => 1,
    };
    let joins = table.joins.iter().map(|join| factor(&join.relation));
    joins.sum::<usize>().saturating_add(factor(&table.relation))
}

/// The arguments of a call.
pub(super) fn check_arguments(f: &Function, name: &str) -> Result<()> {
    let FunctionArguments::List(list) = &f.args else { return Ok(()) };
    if has_trait(name, Trait::Grammar) {
        return check_select_list(list.args.len());
    }
    limited(list.args.len(), ARGUMENTS_MAX, || {
        Error::user(
            sqlstate::TOO_MANY_ARGUMENTS,
            format!("cannot pass more than {ARGUMENTS_MAX} arguments to a function"),
        )
    })
}

/// The grouping sets of a SELECT.
pub(super) fn check_group_by(group_by: &GroupByExpr) -> Result<()> {
    let GroupByExpr::Expressions(items, _) = group_by else { return Ok(()) };
    check_select_list(items.len())?;
    let mut all = 1_usize;
    for item in items {
        check_position(item, "GROUP BY")?;
        all = all.saturating_mul(grouping_sets(item)?);
    }
    limited(all, GROUPING_SETS_MAX, || {
        Error::user(
            sqlstate::STATEMENT_TOO_COMPLEX,
            format!("too many grouping sets present (maximum {GROUPING_SETS_MAX})"),
        )
    })
}

/// 42601 of an item of ORDER BY, GROUP BY or DISTINCT ON that is a constant and no position.
pub(super) fn check_position(item: &Expr, clause: &str) -> Result<()> {
    let Expr::Value(constant) = item else { return Ok(()) };
    match &constant.value {
        Value::Placeholder(_) => return Ok(()),
        Value::Number(digits, _) if digits.bytes().all(|b| b.is_ascii_digit()) => return Ok(()),
        _ => {}
    }
    let message = format!("non-integer constant in {clause}");
    let column = usize::try_from(constant.span.start.column).unwrap_or(0);
    Err(Error::user(sqlstate::SYNTAX_ERROR, message).with_position(column))
}

/// The sets that an item of GROUP BY stands for.
fn grouping_sets(item: &Expr) -> Result<usize> {
    Ok(match item {
        Expr::Rollup(lists) => lists.len().saturating_add(1),
        Expr::Cube(lists) => {
            limited(lists.len(), CUBE_MAX, || {
                too_many(format!("CUBE is limited to {CUBE_MAX} elements"))
            })?;
            1 << lists.len()
        }
        Expr::GroupingSets(lists) => {
            let mut sum = 0_usize;
            for list in lists {
                let one = match inner_sets(list) {
                    Some(inner) => grouping_sets(&inner)?,
                    None => 1,
                };
                sum = sum.saturating_add(one);
            }
            sum
        }
        _ => 1,
    })
}

fn limited(count: usize, most: usize, error: impl FnOnce() -> Error) -> Result<()> {
    if count > most { Err(error()) } else { Ok(()) }
}

fn too_many(message: String) -> Error {
    Error::user(sqlstate::TOO_MANY_COLUMNS, message)
}
