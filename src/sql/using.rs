//! JOIN USING and NATURAL JOIN: PostgreSQL has one column for both sides, the left side's, the
//! right side's of a right join and the one that is there of a full join.
//!
//! DataFusion takes the left side's of them all, and finds it ambiguous behind three tables or in
//! WHERE. So such a join gets its condition written out, and the merged column's name and `*` what
//! they stand for, in the syntax tree. The columns of a side are found by planning it alone.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use sqlparser::ast::{
    self, BinaryOperator, Distinct, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, JoinConstraint, JoinOperator,
    ObjectName, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, VisitMut, With,
};
use sqlparser::parser::Parser;

use super::binder::plan_raw;
use super::context::Context;
use super::dialect::DIALECT;
use super::parser::fold;
use super::visit::{Rewrite, walk_mut};
use crate::error::{Error, Result, sqlstate};

/// Writes out the joins of a query that have merged columns.
pub(super) fn expand_using(
    query: &mut ast::Query,
    context: &Context<'_>,
    parameters: &[Option<DataType>],
) -> Result<()> {
    let mut expand = Expand { context, parameters, with: Vec::new(), merged: None };
    walk_mut(query, &mut expand)
}

struct Expand<'a> {
    context: &'a Context<'a>,
    parameters: &'a [Option<DataType>],
    /// WITH clauses around, the outermost first.
    with: Vec<Option<With>>,
    /// Merged columns of the SELECT that was left last.
    merged: Option<BTreeMap<String, Expr>>,
}

impl Rewrite for Expand<'_> {
    fn pre_query(&mut self, query: &mut ast::Query) -> Result<()> {
        self.with.push(query.with.clone());
        Ok(())
    }

    fn post_query(&mut self, query: &mut ast::Query) -> Result<()> {
        self.with.pop();
        let merged = self.merged.take();
        if let (Some(merged), SetExpr::Select(select)) = (merged, query.body.as_ref())
            && let Some(order) = &mut query.order_by
        {
            let mut shown = merged;
            shown.retain(|name, _| !is_shown(select, name));
            place(order, &shown);
        }
        Ok(())
    }

    fn post_select(&mut self, select: &mut Select) -> Result<()> {
        self.merged = None;
        if !select.from.iter().any(merges) {
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
            place(&mut table.relation, &merged(&scope));
            scope.extend(self.table(table, &mut before)?);
        }
        let merged = merged(&scope);
        for item in std::mem::take(&mut select.projection) {
            match item {
                SelectItem::Wildcard(_) => select.projection.extend(scope.iter().map(|v| {
                    let alias = Ident::with_quote('"', v.name.clone());
                    SelectItem::ExprWithAlias { expr: v.expr.clone(), alias }
                })),
                SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                    select.projection.push(match merged.get(&fold(&name)) {
                        Some(expr) => SelectItem::ExprWithAlias { expr: expr.clone(), alias: name },
                        None => SelectItem::UnnamedExpr(Expr::Identifier(name)),
                    });
                }
                mut other => {
                    place(&mut other, &merged);
                    select.projection.push(other);
                }
            }
        }
        place(&mut select.selection, &merged);
        place(&mut select.having, &merged);
        place(&mut select.qualify, &merged);
        place(&mut select.named_window, &merged);
        if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
            place(exprs, &merged);
        }
        if let Some(Distinct::On(exprs)) = &mut select.distinct {
            place(exprs, &merged);
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
        let mut all: Option<With> = None;
        for with in self.with.iter().flatten() {
            match &mut all {
                Some(all) => all.cte_tables.extend(with.cte_tables.iter().cloned()),
                None => all = Some(with.clone()),
            }
        }
        query.with = all;
        let plan = plan_raw(&query, self.context, self.parameters)?;
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
                let common = left.iter().map(|l| l.name.clone());
                common.filter(|name| right.iter().any(|r| r.name == *name)).collect()
            }
            JoinConstraint::On(_) | JoinConstraint::None => {
                if let JoinConstraint::On(condition) = constraint {
                    place(condition, &merged(&left));
                }
                return Ok(left.into_iter().chain(right).collect());
            }
        };
        let (mut scope, mut equal) = (Vec::new(), Vec::new());
        for name in &names {
            let (l, r) = (find(&left, name, "left")?, find(&right, name, "right")?);
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
        let both = |left, right| Expr::BinaryOp {
            left: Box::new(left),
            op: BinaryOperator::And,
            right: Box::new(right),
        };
        let condition = equal.into_iter().reduce(both);
        let condition = condition.unwrap_or_else(|| Expr::value(ast::Value::Boolean(true)));
        *constraint = JoinConstraint::On(condition);
        let rest = left.into_iter().chain(right).filter(|v| !names.contains(&v.name));
        scope.extend(rest);
        Ok(scope)
    }
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

fn find<'a>(side: &'a [Visible], name: &str, which: &str) -> Result<&'a Expr> {
    let mut found = side.iter().filter(|v| v.name == name);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(&one.expr),
        (None, _) => Err(Error::user(
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

/// Puts expressions in the places of names; a nested query has names of its own.
fn place(node: &mut impl VisitMut, names: &BTreeMap<String, Expr>) {
    // It never fails.
    let _done = walk_mut(node, &mut Place { names, depth: 0 });
}

struct Place<'a> {
    names: &'a BTreeMap<String, Expr>,
    depth: usize,
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

    fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if self.depth == 0
            && let Expr::Identifier(name) = expr
            && let Some(meant) = self.names.get(&fold(name))
        {
            *expr = meant.clone();
        }
        Ok(())
    }
}
