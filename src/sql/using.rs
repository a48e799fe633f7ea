//! JOIN USING and NATURAL JOIN: PostgreSQL has one column for both sides, the left side's, the
//! right side's of a right join and the one that is there of a full join.
//!
//! DataFusion takes the left side's of them all, and finds it ambiguous behind three tables or in
//! WHERE. So such a join gets its condition written out, and the merged column's name and `*` what
//! they stand for, in the syntax tree. The columns of a side are found by planning it alone; those
//! that stand in LIMIT, where they can't, are told from a query's around by the same means. So is
//! what `* EXCLUDE (a, t.b)` leaves of a star, with or without such a join.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::datatypes::DataType;
use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    self, BinaryOperator, Cte, Distinct, ExcludeSelectItem, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, JoinConstraint,
    JoinOperator, ObjectName, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TableFactor, TableWithJoins, VisitMut, WildcardAdditionalOptions, With,
};
use sqlparser::parser::Parser;

use super::binder::plan_raw;
use super::context::Context;
use super::depth::balanced;
use super::dialect::DIALECT;
use super::limit_columns::check_limit;
use super::parser::fold;
use super::parts::names_in;
use super::pass::quietly;
use super::visit::{Rewrite, any_expr, walk_mut};
use crate::error::{Error, Result, sqlstate};

/// Writes out the joins of a query that have merged columns.
pub(super) fn expand_using(
    query: &mut ast::Query,
    context: &Context<'_>,
    parameters: &[Option<DataType>],
) -> Result<()> {
    let (visible, open) = (Vec::new(), Vec::new());
    let mut expand = Expand { context, parameters, visible, open, merged: None };
    walk_mut(query, &mut expand)
}

struct Expand<'a> {
    context: &'a Context<'a>,
    parameters: &'a [Option<DataType>],
    /// The WITH queries that can be named, written out, the innermost last.
    visible: Vec<Cte>,
    /// WITH clauses of the queries around, and how many queries were visible ahead of each.
    open: Vec<(Option<With>, usize)>,
    /// Merged columns of the SELECT that was left last.
    merged: Option<BTreeMap<String, Expr>>,
}

impl Rewrite for Expand<'_> {
    /// A WITH query sees those ahead of it, and not itself.
    fn pre_query(&mut self, query: &mut ast::Query) -> Result<()> {
        let outside = self.visible.len();
        let mut with = query.with.take();
        for cte in with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            walk_mut(cte.query.as_mut(), self)?;
            self.visible.push(cte.clone());
        }
        self.open.push((with, outside));
        Ok(())
    }

    fn post_query(&mut self, query: &mut ast::Query) -> Result<()> {
        check_limit(query, &mut |factors| {
            let columns = self.columns(factors).ok()?;
            Some(columns.into_iter().map(|column| column.name).collect())
        })?;
        if let Some((with, outside)) = self.open.pop() {
            query.with = with;
            self.visible.truncate(outside);
        }
        let merged = self.merged.take();
        if let (Some(merged), SetExpr::Select(select)) = (merged, query.body.as_ref())
            && let Some(order) = &mut query.order_by
        {
            let mut shown = merged;
            shown.retain(|name, _| !is_shown(select, name));
            place(order, &shown, None);
        }
        Ok(())
    }

    fn post_select(&mut self, select: &mut Select) -> Result<()> {
        self.merged = None;
        if !select.from.iter().any(merges) && !select.projection.iter().any(excludes) {
            return Ok(());
        }
        self.merged = Some(self.select(select)?);
        Ok(())
    }
}

/// A column that `*` stands for.
#[derive(Clone)]
struct Visible {
    name: String,
    expr: Expr,
    merged: bool,
}

impl Expand<'_> {
    fn select(&self, select: &mut Select) -> Result<BTreeMap<String, Expr>> {
        let (mut scope, mut before) = (Vec::new(), Vec::new());
        for table in &mut select.from {
            let lateral = matches!(table.relation, TableFactor::Derived { lateral: true, .. });
            place(&mut table.relation, &merged(&scope), lateral.then_some(self));
            scope.extend(self.table(table, &mut before)?);
        }
        let merged = merged(&scope);
        for item in std::mem::take(&mut select.projection) {
            match item {
                SelectItem::Wildcard(options) => {
                    select.projection.extend(left_of(&scope, None, options.opt_exclude)?);
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(table),
                    WildcardAdditionalOptions { opt_exclude: Some(excluded), .. },
                ) => select.projection.extend(left_of(&scope, Some(&table), Some(excluded))?),
                SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                    select.projection.push(match merged.get(&fold(&name)) {
                        Some(expr) => SelectItem::ExprWithAlias { expr: expr.clone(), alias: name },
                        None => SelectItem::UnnamedExpr(Expr::Identifier(name)),
                    });
                }
                mut other => {
                    place(&mut other, &merged, Some(self));
                    select.projection.push(other);
                }
            }
        }
        place(&mut select.selection, &merged, Some(self));
        place(&mut select.having, &merged, Some(self));
        place(&mut select.qualify, &merged, Some(self));
        place(&mut select.named_window, &merged, Some(self));
        if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
            place(exprs, &merged, Some(self));
        }
        if let Some(Distinct::On(exprs)) = &mut select.distinct {
            place(exprs, &merged, Some(self));
        }
        Ok(merged)
    }

    /// What is visible of tables and joins, the conditions of which are written out; `before` are
    /// the tables to the left of them.
    fn table(
        &self,
        table: &mut TableWithJoins,
        before: &mut Vec<TableFactor>,
    ) -> Result<Vec<Visible>> {
        let mut left = self.factor(&mut table.relation, before)?;
        for join in &mut table.joins {
            let right = self.factor(&mut join.relation, before)?;
            left = self.join(left, right, &mut join.join_operator)?;
        }
        Ok(left)
    }

    fn factor(
        &self,
        factor: &mut TableFactor,
        before: &mut Vec<TableFactor>,
    ) -> Result<Vec<Visible>> {
        if let TableFactor::NestedJoin { table_with_joins, alias: None } = factor {
            return self.table(table_with_joins, before);
        }
        let visible = match self.columns(std::slice::from_ref(factor)) {
            // It may use columns of those before it.
            Err(_) if !before.is_empty() => {
                let known = self.columns(before)?.len();
                before.push(factor.clone());
                return Ok(self.columns(before)?.split_off(known));
            }
            alone => alone?,
        };
        before.push(factor.clone());
        Ok(visible)
    }

    /// The columns of items of FROM.
    fn columns(&self, factors: &[TableFactor]) -> Result<Vec<Visible>> {
        let parsed = Parser::new(&DIALECT).try_with_sql("SELECT * FROM x");
        let parsed = parsed.and_then(|mut p| p.parse_query());
        let mut query = *parsed.map_err(|e| Error::internal(e.to_string()))?;
        if let SetExpr::Select(select) = query.body.as_mut() {
            let table = |f: &TableFactor| TableWithJoins { relation: f.clone(), joins: Vec::new() };
            select.from = factors.iter().map(table).collect();
        }
        let cte_tables = self.needed(&query)?;
        if !cte_tables.is_empty() {
            let with_token = AttachedToken::empty();
            query.with = Some(With { with_token, recursive: false, cte_tables });
        }
        let plan = quietly(|| plan_raw(&query, self.context, self.parameters))?;
        let quoted = |name: &str| Ident::with_quote('"', name);
        let column = |(qualifier, field): (Option<&datafusion::common::TableReference>, _)| {
            let field: &arrow::datatypes::FieldRef = field;
            let name = field.name().clone();
            let expr = match qualifier {
                Some(q) => Expr::CompoundIdentifier(vec![quoted(q.table()), quoted(&name)]),
                None => Expr::Identifier(quoted(&name)),
            };
            Visible { name, expr, merged: false }
        };
        Ok(plan.schema().iter().map(column).collect())
    }

    /// The WITH queries that a query names, and those that these name.
    fn needed(&self, query: &ast::Query) -> Result<Vec<Cte>> {
        let mut wanted = names_in(query)?;
        let mut needed = Vec::new();
        for cte in self.visible.iter().rev() {
            if wanted.contains(&fold(&cte.alias.name)) {
                wanted.extend(names_in(cte.query.as_ref())?);
                needed.push(cte.clone());
            }
        }
        needed.reverse();
        Ok(needed)
    }

    /// What is visible of a join; its condition is written out.
    fn join(
        &self,
        left: Vec<Visible>,
        right: Vec<Visible>,
        operator: &mut JoinOperator,
    ) -> Result<Vec<Visible>> {
        let kind = Kind::of(operator);
        let Some(constraint) = constraint(operator) else {
            return Ok(left.into_iter().chain(right).collect());
        };
        let names: Vec<String> = match &*constraint {
            JoinConstraint::Using(names) => {
                let last = |n: &ast::ObjectName| n.0.last().and_then(|p| p.as_ident()).map(fold);
                names.iter().filter_map(last).collect()
            }
            JoinConstraint::Natural => {
                let on_the_right: HashSet<&str> = right.iter().map(|r| r.name.as_str()).collect();
                let common = left.iter().map(|l| l.name.clone());
                common.filter(|name| on_the_right.contains(name.as_str())).collect()
            }
            JoinConstraint::On(_) | JoinConstraint::None => {
                if let JoinConstraint::On(condition) = constraint {
                    place(condition, &merged(&left), Some(self));
                }
                return Ok(left.into_iter().chain(right).collect());
            }
        };
        let (mut scope, mut equal) = (Vec::new(), Vec::new());
        let (on_left, on_right) = (by_name(&left), by_name(&right));
        for name in &names {
            let (l, r) = (find(&on_left, name, "left")?, find(&on_right, name, "right")?);
            equal.push(Expr::BinaryOp {
                left: Box::new(l.clone()),
                op: BinaryOperator::Eq,
                right: Box::new(r.clone()),
            });
            let expr = match kind {
                Kind::Left => l.clone(),
                Kind::Right => r.clone(),
                Kind::Full => coalesced(l, r),
            };
            scope.push(Visible { name: name.clone(), expr, merged: true });
        }
        let condition = match equal.is_empty() {
            true => Expr::value(ast::Value::Boolean(true)),
            false => balanced(equal, &BinaryOperator::And),
        };
        *constraint = JoinConstraint::On(condition);
        let names: HashSet<String> = names.into_iter().collect();
        let rest = left.into_iter().chain(right).filter(|v| !names.contains(&v.name));
        scope.extend(rest);
        Ok(scope)
    }
}

/// Whether columns are left out of a star.
fn excludes(item: &SelectItem) -> bool {
    matches!(
        item,
        SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options)
            if options.opt_exclude.is_some()
    )
}

/// What a star, of a table or of all, stands for without the columns that it excludes.
fn left_of(
    scope: &[Visible],
    table: Option<&ObjectName>,
    excluded: Option<ExcludeSelectItem>,
) -> Result<Vec<SelectItem>> {
    let parts = |name: &ObjectName| -> Vec<String> {
        name.0.iter().filter_map(|part| part.as_ident()).map(fold).collect()
    };
    let of = |v: &Visible, table: &str| match &v.expr {
        Expr::CompoundIdentifier(names) => names.first().map(fold).as_deref() == Some(table),
        _ => false,
    };
    let table = table.map(parts).and_then(|mut names| names.pop());
    let all = scope.iter().filter(|v| table.as_ref().is_none_or(|table| of(v, table)));
    let mut left: Vec<&Visible> = all.collect();
    let names = match excluded {
        None => Vec::new(),
        Some(ExcludeSelectItem::Single(name)) => vec![name],
        Some(ExcludeSelectItem::Multiple(names)) => names,
    };
    for name in names {
        let before = left.len();
        match parts(&name).as_slice() {
            [.., table, column] => left.retain(|v| v.name != *column || !of(v, table)),
            names => left.retain(|v| Some(&v.name) != names.first()),
        }
        if left.len() == before {
            let message = format!("column \"{}\" does not exist", parts(&name).join("."));
            return Err(Error::user(sqlstate::UNDEFINED_COLUMN, message));
        }
    }
    let item = |v: &Visible| {
        let alias = Ident::with_quote('"', v.name.clone());
        SelectItem::ExprWithAlias { expr: v.expr.clone(), alias }
    };
    Ok(left.into_iter().map(item).collect())
}

/// Which side's column is the merged one.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Left,
    Right,
    Full,
}

impl Kind {
    fn of(operator: &JoinOperator) -> Self {
        match operator {
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => Self::Right,
            JoinOperator::FullOuter(_) => Self::Full,
            _ => Self::Left,
        }
    }
}

/// The constraint of the joins that have one of SQL's.
pub(super) fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c) => Some(c),
        _ => None,
    }
}

/// Whether some join has merged columns.
fn merges(table: &TableWithJoins) -> bool {
    let nested = |factor: &TableFactor| match factor {
        TableFactor::NestedJoin { table_with_joins, alias: None } => merges(table_with_joins),
        _ => false,
    };
    let mut joins = table.joins.iter();
    nested(&table.relation)
        || joins.any(|join| {
            let constraint = constraint(&mut join.join_operator.clone()).cloned();
            let merges =
                matches!(constraint, Some(JoinConstraint::Using(_) | JoinConstraint::Natural));
            merges || nested(&join.relation)
        })
}

/// The columns of a side by name: wide tables have a thousand.
fn by_name(side: &[Visible]) -> HashMap<&str, Vec<&Expr>> {
    let mut named = HashMap::<&str, Vec<&Expr>>::with_capacity(side.len());
    for column in side {
        named.entry(&column.name).or_default().push(&column.expr);
    }
    named
}

fn find<'a>(side: &HashMap<&str, Vec<&'a Expr>>, name: &str, which: &str) -> Result<&'a Expr> {
    match side.get(name).map(Vec::as_slice) {
        Some(&[one]) => Ok(one),
        None => Err(Error::user(
            sqlstate::UNDEFINED_COLUMN,
            format!("column \"{name}\" specified in USING clause does not exist in {which} table"),
        )),
        _ => Err(Error::user(
            sqlstate::AMBIGUOUS_COLUMN,
            format!("common column name \"{name}\" appears more than once in {which} table"),
        )),
    }
}

/// The merged columns by name, where the name means nothing else too.
fn merged(scope: &[Visible]) -> BTreeMap<String, Expr> {
    let alone = |v: &&Visible| scope.iter().filter(|o| o.name == v.name).count() == 1;
    let found = scope.iter().filter(|v| v.merged).filter(alone);
    found.map(|v| (v.name.clone(), v.expr.clone())).collect()
}

fn is_shown(select: &Select, name: &str) -> bool {
    select.projection.iter().any(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } => fold(alias) == name,
        _ => false,
    })
}

/// The first of both that is there; the merged column of a chain of joins is one call.
fn coalesced(left: &Expr, right: &Expr) -> Expr {
    let argument = |e: &Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(e.clone()));
    if let Expr::Function(call) = left
        && call.name.to_string() == COALESCE
    {
        let mut call = call.clone();
        if let FunctionArguments::List(list) = &mut call.args {
            list.args.push(argument(right));
        }
        return Expr::Function(call);
    }
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(COALESCE)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![argument(left), argument(right)],
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

const COALESCE: &str = "coalesce";

/// Puts expressions in the places of names, in nested queries where a name is no column of theirs,
/// if their columns can be found out.
fn place(node: &mut impl VisitMut, names: &BTreeMap<String, Expr>, nested: Option<&Expand<'_>>) {
    // It never fails.
    let _done = walk_mut(node, &mut Place { names: vec![names.clone()], nested, depth: 0 });
}

struct Place<'a> {
    /// The names and what they stand for, of the innermost SELECT last.
    names: Vec<BTreeMap<String, Expr>>,
    nested: Option<&'a Expand<'a>>,
    /// Queries around.
    depth: usize,
}

impl Place<'_> {
    /// The names that are no columns of a nested SELECT.
    fn left_by(&self, select: &Select) -> BTreeMap<String, Expr> {
        let mut names = self.names.last().cloned().unwrap_or_default();
        let named = |e: &Expr| matches!(e, Expr::Identifier(i) if names.contains_key(&fold(i)));
        let Some(expand) = self.nested.filter(|_| any_expr(select, &named)) else {
            return BTreeMap::new();
        };
        let joined = |table: &TableWithJoins| {
            let joins = table.joins.iter().map(|join| join.relation.clone());
            std::iter::once(table.relation.clone()).chain(joins).collect::<Vec<_>>()
        };
        let factors: Vec<TableFactor> = select.from.iter().flat_map(joined).collect();
        match expand.columns(&factors) {
            Ok(_) if factors.is_empty() => {}
            Ok(columns) => columns.iter().for_each(|column| drop(names.remove(&column.name))),
            Err(_) => names.clear(),
        }
        names
    }
}

impl Rewrite for Place<'_> {
    fn pre_query(&mut self, _query: &mut ast::Query) -> Result<()> {
        self.depth += 1;
        Ok(())
    }

    fn post_query(&mut self, _query: &mut ast::Query) -> Result<()> {
        self.depth -= 1;
        Ok(())
    }

    fn pre_select(&mut self, select: &mut Select) -> Result<()> {
        let names = self.left_by(select);
        self.names.push(names);
        Ok(())
    }

    fn post_select(&mut self, _select: &mut Select) -> Result<()> {
        self.names.pop();
        Ok(())
    }

    fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
        // Not the ORDER BY of a nested query, whose names are of its SELECT list.
        if self.depth + 1 == self.names.len()
            && let Expr::Identifier(name) = expr
            && let Some(meant) = self.names.last().and_then(|names| names.get(&fold(name)))
        {
            *expr = meant.clone();
        }
        Ok(())
    }
}
