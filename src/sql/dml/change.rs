//! UPDATE and DELETE as queries: the old columns of the rows that change, and the new ones.
//!
//! A statement with FROM or USING may find a row of its table several times, but changes it once.
//! It reads the table with its rows numbered; who runs it keeps the first of each number.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{
    self, Assignment, AssignmentTarget, FromTable, Ident, SelectItem, SetExpr, TableAlias,
    TableFactor, TableWithJoins, UpdateTableFromKind,
};

use super::rows::{TARGET, in_hand, number_field, table_fields};
use super::{
    Change, ROW_NUMBER, column_item, column_of, from_table, generated_always, is_default, quoted,
    refused, select, target,
};
use crate::catalog::{Catalog, Identity, Relation, RelationId};
use crate::error::{Error, Result, sqlstate};
use crate::sql::binder::plan_raw;
use crate::sql::context::Context;
use crate::sql::functions::FUNCTIONS;
use crate::sql::parser::{fold, plain_name};
use crate::sql::statement::{Delete, Update};
use crate::sql::visit::any_expr;

use super::rows::RowField;
use super::rules::{default_expr, parse_expr};

/// A change of rows that are there, as a query.
pub(in crate::sql) struct ChangeQuery {
    pub(in crate::sql) relation: Arc<Relation>,
    pub(in crate::sql) query: ast::Query,
    /// Whether the table's rows are numbered in front.
    pub(in crate::sql) joined: bool,
    /// What RETURNING sees: the columns of the table and of what is joined to it.
    pub(in crate::sql) seen: Vec<RowField>,
}

impl ChangeQuery {
    /// A context in which the query can be planned.
    pub(in crate::sql) fn context<'a>(&self, context: &Context<'a>) -> Result<Context<'a>> {
        let mut fields = vec![number_field()];
        fields.extend(table_fields(&self.relation, TARGET));
        Ok(context.with_planner(in_hand(RelationId::TARGET, TARGET, &fields)?))
    }
}

/// The rows of a DELETE.
pub(in crate::sql) fn delete_query(
    delete: &Delete,
    catalog: &Catalog,
    context: &Context<'_>,
) -> Result<ChangeQuery> {
    let Delete { with, delete } = delete;
    if !delete.order_by.is_empty() || delete.limit.is_some() || !delete.tables.is_empty() {
        return Err(refused("this form of DELETE"));
    }
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let [table] = from.as_slice() else { return Err(refused("DELETE from several tables")) };
    let target = only_table(table, catalog, Change::Delete)?;
    let using = delete.using.as_deref().unwrap_or_default();
    let rest = (with.as_ref(), delete.selection.as_ref(), delete.returning.is_some());
    target.query(Vec::new(), using, rest, context)
}

/// The rows of an UPDATE.
pub(in crate::sql) fn update_query(
    update: &Update,
    catalog: &Catalog,
    context: &Context<'_>,
) -> Result<ChangeQuery> {
    let Update { with, update } = update;
    if !update.order_by.is_empty() || update.limit.is_some() || update.or.is_some() {
        return Err(refused("this form of UPDATE"));
    }
    let target = only_table(&update.table, catalog, Change::Update)?;
    let new = assigned(&update.assignments, &target.relation, &target.alias)?;
    let from = match &update.from {
        None => &[][..],
        Some(UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from)) => from,
    };
    let rest = (with.as_ref(), update.selection.as_ref(), update.returning.is_some());
    target.query(new, from, rest, context)
}

/// The new columns of a row as items of a SELECT: what is assigned, and the old value otherwise.
pub(in crate::sql) fn assigned(
    assignments: &[Assignment],
    relation: &Relation,
    alias: &str,
) -> Result<Vec<SelectItem>> {
    let fields = relation.schema.fields();
    let mut values: Vec<Option<ast::Expr>> = vec![None; fields.len()];
    for (name, value) in single(assignments)? {
        let name = plain_name(&name)?;
        let column = column_of(relation, &name)?;
        let value = match is_default(&value) {
            true => default_expr(relation, column)?,
            false if relation.rules.identities.get(&column) == Some(&Identity::Always) => {
                let message = format!("column \"{name}\" can only be updated to DEFAULT");
                return Err(generated_always(&name, message));
            }
            false if relation.rules.computed.contains_key(&column) => {
                return Err(Error::user(
                    sqlstate::GENERATED_ALWAYS,
                    format!("column \"{name}\" can only be updated to DEFAULT"),
                )
                .with_detail(format!("Column \"{name}\" is a generated column.")));
            }
            false => value,
        };
        if values[column].replace(value).is_some() {
            return Err(Error::user(
                sqlstate::SYNTAX_ERROR,
                format!("multiple assignments to same column \"{name}\""),
            ));
        }
    }
    let items = values.into_iter().zip(fields).map(|(value, field)| {
        let name = format!("\u{2}new {}", field.name());
        match value {
            Some(expr) => SelectItem::ExprWithAlias { expr, alias: quoted(&name) },
            None => column_item(alias, field.name(), name),
        }
    });
    Ok(items.collect())
}

/// Assignments of single columns; `(a, b) = ..` is taken apart.
fn single(assignments: &[Assignment]) -> Result<Vec<(ast::ObjectName, ast::Expr)>> {
    let mut out = Vec::new();
    for Assignment { target, value } in assignments {
        match target {
            AssignmentTarget::ColumnName(name) => out.push((name.clone(), value.clone())),
            AssignmentTarget::Tuple(names) => {
                let values = parts(value, names.len())?;
                if values.len() != names.len() {
                    return Err(Error::user(
                        sqlstate::SYNTAX_ERROR,
                        "number of columns does not match number of values",
                    ));
                }
                out.extend(names.iter().cloned().zip(values));
            }
        }
    }
    Ok(out)
}

/// The values of a row: `(1, 2)`, `ROW(1, 2)` or a subquery of several columns.
fn parts(value: &ast::Expr, columns: usize) -> Result<Vec<ast::Expr>> {
    match value {
        ast::Expr::Tuple(values) => Ok(values.clone()),
        ast::Expr::Nested(inner) if columns == 1 => Ok(vec![inner.as_ref().clone()]),
        ast::Expr::Function(f) if f.name.to_string().eq_ignore_ascii_case("row") => {
            let ast::FunctionArguments::List(list) = &f.args else {
                return Err(refused("this form of UPDATE SET (..) = ROW(..)"));
            };
            let value = |arg: &ast::FunctionArg| match arg {
                ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e)) => Ok(e.clone()),
                _ => Err(refused("this form of UPDATE SET (..) = ROW(..)")),
            };
            list.args.iter().map(value).collect()
        }
        ast::Expr::Subquery(query) => subquery_parts(query),
        _ => Err(Error::unsupported(
            "source for a multiple-column UPDATE item must be a sub-SELECT or ROW() expression",
        )),
    }
}

/// One scalar subquery for each column of a subquery.
fn subquery_parts(query: &ast::Query) -> Result<Vec<ast::Expr>> {
    let plain = |items: &[SelectItem]| {
        items
            .iter()
            .all(|i| matches!(i, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }))
    };
    let SetExpr::Select(body) = query.body.as_ref() else {
        return Err(refused("UPDATE SET (..) = a subquery of this form"));
    };
    if !plain(&body.projection) || body.distinct.is_some() || query.order_by.is_some() {
        return Err(refused("UPDATE SET (..) = a subquery of this form"));
    }
    let aggregated = body.projection.iter().any(has_aggregate);
    let column = |item: &SelectItem| {
        let mut query = query.clone();
        if let SetExpr::Select(body) = query.body.as_mut() {
            let item = item.clone();
            // What stands beside an aggregate is of its one row when it is alone, too.
            let item = if aggregated && !has_aggregate(&item) { of_one_row(item)? } else { item };
            body.projection = vec![item];
        }
        Ok(ast::Expr::Subquery(Box::new(query)))
    };
    body.projection.iter().map(column).collect()
}

fn has_aggregate(item: &SelectItem) -> bool {
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
        return false;
    };
    any_expr(expr, &|e| match e {
        ast::Expr::Function(f) => {
            FUNCTIONS.aggregate.contains_key(&f.name.to_string().to_lowercase())
        }
        _ => false,
    })
}

/// `CASE WHEN count(*) >= 0 THEN item END`.
fn of_one_row(item: SelectItem) -> Result<SelectItem> {
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
        return Ok(item);
    };
    let mut case = parse_expr("CASE WHEN count(*) >= 0 THEN 1 END")?;
    if let ast::Expr::Case { conditions, .. } = &mut case {
        conditions.iter_mut().for_each(|when| when.result = expr.clone());
    }
    Ok(SelectItem::UnnamedExpr(case))
}

/// The table that a statement changes.
pub(super) struct Target {
    pub(super) relation: Arc<Relation>,
    pub(super) alias: String,
    table: TableWithJoins,
}

pub(super) fn only_table(
    table: &TableWithJoins,
    catalog: &Catalog,
    change: Change,
) -> Result<Target> {
    match &table.relation {
        TableFactor::Table { name, args: None, alias, .. } if table.joins.is_empty() => {
            let relation = target(name, catalog, change)?;
            let alias =
                alias.as_ref().map_or_else(|| relation.local_name().to_owned(), |a| fold(&a.name));
            Ok(Target { relation, alias, table: table.clone() })
        }
        _ => Err(refused("a change of something other than one table")),
    }
}

impl Target {
    /// `SELECT [number,] old.., new.., [joined..] FROM table, others WHERE condition`.
    fn query(
        self,
        new: Vec<SelectItem>,
        others: &[TableWithJoins],
        (with, condition, returning): (Option<&ast::With>, Option<&ast::Expr>, bool),
        context: &Context<'_>,
    ) -> Result<ChangeQuery> {
        let joined = !others.is_empty();
        let mut items = Vec::new();
        let mut seen = table_fields(&self.relation, &self.alias);
        if joined {
            items.push(column_item(&self.alias, ROW_NUMBER, ROW_NUMBER.into()));
        }
        for field in self.relation.schema.fields() {
            items.push(column_item(
                &self.alias,
                field.name(),
                format!("\u{2}old {}", field.name()),
            ));
        }
        items.extend(new);
        let mut from = vec![self.table.clone()];
        if joined {
            from[0] = from_table(TARGET)?;
            if let TableFactor::Table { alias, .. } = &mut from[0].relation {
                let name = Ident::with_quote('"', &self.alias);
                *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
            }
            from.extend(others.iter().cloned());
        }
        if joined && returning {
            for (i, field) in joined_fields(with, others, context)?.into_iter().enumerate() {
                let table = field.0.clone().unwrap_or_default();
                items.push(column_item(&table, field.1.name(), format!("\u{2}with {i}")));
                seen.push(field);
            }
        }
        let mut query = select(items, from, condition.cloned())?;
        query.with = with.cloned();
        Ok(ChangeQuery { relation: self.relation, query, joined, seen })
    }
}

/// The columns of what is joined to the table.
pub(super) fn joined_fields(
    with: Option<&ast::With>,
    others: &[TableWithJoins],
    context: &Context<'_>,
) -> Result<Vec<RowField>> {
    let mut query = select(Vec::new(), others.to_vec(), None)?;
    query.with = with.cloned();
    let plan: LogicalPlan = plan_raw(&query, context, &[])?;
    let field = |(table, field): (Option<&datafusion::common::TableReference>, &Arc<_>)| {
        let field: &arrow::datatypes::Field = field;
        (table.map(|t| t.table().to_owned()), field.clone().with_nullable(true))
    };
    Ok(plan.schema().iter().map(field).collect())
}
