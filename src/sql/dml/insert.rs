//! INSERT: its target and columns, its rows, ON CONFLICT and RETURNING.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use sqlparser::ast::{self, ConflictTarget, OnConflictAction, OnInsert, SelectItem, SetExpr};
use sqlparser::ast::{DoUpdate, TableObject};

use super::change::assigned;
use super::identities::{identities, without};
use super::rows::{ROWS, RowField, in_hand, number_field, returning, table_fields};
use super::rules::has_subquery;
use super::values::{Cell, Scope};
use super::{
    Change, ROW_NUMBER, append_only, column_of, from_table, is_default, quoted, refused, select,
    target,
};
use crate::catalog::{Catalog, ConflictRule, Relation, RelationId, RelationKind};
use crate::error::{Error, Result, sqlstate};
use crate::sql::binder::plan_query;
use crate::sql::context::Context;
use crate::sql::optimize::analyze;
use crate::sql::parser::{fold, plain_name};
use crate::sql::pass::{Scope as PassScope, Stage, Target, over_plan};
use crate::sql::prepared::Planned;
use crate::sql::statement::{self, Overriding};

/// The name of the rows that an INSERT proposes, in ON CONFLICT DO UPDATE.
const EXCLUDED: &str = "excluded";

/// An INSERT whose values may still be missing.
#[derive(Debug, Clone)]
pub(in crate::sql) struct Insert {
    pub(in crate::sql) relation: Arc<Relation>,
    pub(in crate::sql) rows: Rows,
    pub(in crate::sql) conflict: Conflict,
    pub(in crate::sql) returning: Option<Planned>,
}

/// The rows of an INSERT.
#[derive(Debug, Clone)]
pub(in crate::sql) enum Rows {
    /// VALUES that are nothing but literals.
    Literals(RecordBatch),
    Values(Vec<Vec<Cell>>),
    Query(Box<Planned>),
}

/// ON CONFLICT, or the rule of the table.
#[derive(Debug, Clone)]
pub(in crate::sql) enum Conflict {
    Refuse,
    Ignore,
    Overwrite,
    Update(Box<Planned>),
}

/// Plans an INSERT as far as it can be without values; finds types of parameters.
pub(in crate::sql) fn prepare_insert(
    insert: &statement::Insert,
    parameters: &mut Vec<Option<DataType>>,
    catalog: &Catalog,
    context: &Context<'_>,
) -> Result<Insert> {
    let statement::Insert { insert, overriding } = insert;
    let relation = insert_target(insert, catalog)?;
    let rows = rows((insert, *overriding), &relation, parameters, context)?;
    let alias = insert.table_alias.as_ref();
    let alias = alias.map_or_else(|| relation.local_name().to_owned(), |a| fold(&a.alias));
    let conflict = conflict(insert, &relation, &alias, parameters, context)?;
    let returning = match &insert.returning {
        None => None,
        Some(items) => {
            let fields = table_fields(&relation, &alias);
            Some(Planned::new(returning(items, &fields, context, parameters)?, context))
        }
    };
    Ok(Insert { relation, rows, conflict, returning })
}

/// The table of an INSERT, after a look at its clauses.
fn insert_target(insert: &ast::Insert, catalog: &Catalog) -> Result<Arc<Relation>> {
    let foreign = insert.or.is_some()
        || insert.ignore
        || insert.overwrite
        || insert.partitioned.is_some()
        || insert.replace_into
        || !insert.assignments.is_empty()
        || !insert.after_columns.is_empty()
        || insert.settings.is_some()
        || insert.format_clause.is_some()
        || insert.output.is_some();
    if foreign {
        return Err(refused("this form of INSERT"));
    }
    match &insert.table {
        TableObject::TableName(name) => target(name, catalog, Change::Insert),
        _ => Err(refused("INSERT into a function or query")),
    }
}

/// The indexes of the columns that an INSERT names; all when it names none.
pub(super) fn insert_columns(named: &[ast::ObjectName], relation: &Relation) -> Result<Vec<usize>> {
    if named.is_empty() {
        return Ok((0..relation.schema.fields().len()).collect());
    }
    let names = named.iter().map(plain_name).collect::<Result<Vec<_>>>()?;
    columns_of(relation, &names)
}

/// The table and the columns that COPY FROM fills; all when it names none.
pub fn copy_target(
    table: &str,
    columns: &[String],
    catalog: &Catalog,
) -> Result<(Arc<Relation>, Vec<usize>)> {
    let name = ast::ObjectName(vec![ast::ObjectNamePart::Identifier(quoted(table))]);
    let relation = target(&name, catalog, Change::Copy)?;
    let columns = match columns {
        [] => {
            let computed = &relation.rules.computed;
            (0..relation.schema.fields().len()).filter(|at| !computed.contains_key(at)).collect()
        }
        names => columns_of(&relation, names)?,
    };
    match columns.iter().find(|at| relation.rules.computed.contains_key(at)) {
        None => Ok((relation, columns)),
        Some(at) => Err(Error::user(
            sqlstate::INVALID_COLUMN_REFERENCE,
            format!("column \"{}\" is a generated column", relation.schema.field(*at).name()),
        )
        .with_detail("Generated columns cannot be used in COPY.")),
    }
}

/// The indexes of columns by name, none of them twice.
fn columns_of(relation: &Relation, names: &[String]) -> Result<Vec<usize>> {
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let column = column_of(relation, name)?;
        if columns.contains(&column) {
            return Err(Error::user(
                sqlstate::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        columns.push(column);
    }
    Ok(columns)
}

/// 428C9 for a value of a computed column.
pub(super) fn check_given(relation: &Relation, column: usize) -> Result<()> {
    if !relation.rules.computed.contains_key(&column) {
        return Ok(());
    }
    let name = relation.schema.field(column).name();
    Err(Error::user(
        sqlstate::GENERATED_ALWAYS,
        format!("cannot insert a non-DEFAULT value into column \"{name}\""),
    )
    .with_detail(format!("Column \"{name}\" is a generated column."))
    .with_hint("Name the other columns: INSERT INTO t (a, b) ..."))
}

/// 42601 when rows are not as wide as the list of columns.
pub(super) fn check_width(found: usize, columns: usize, named: bool) -> Result<()> {
    if found > columns {
        return Err(Error::user(
            sqlstate::SYNTAX_ERROR,
            "INSERT has more expressions than target columns",
        ));
    }
    // Without a list of columns, those at the end may be left out.
    if found < columns && named {
        return Err(Error::user(
            sqlstate::SYNTAX_ERROR,
            "INSERT has more target columns than expressions",
        ));
    }
    Ok(())
}

fn rows(
    (insert, overriding): (&ast::Insert, Option<Overriding>),
    relation: &Arc<Relation>,
    parameters: &mut Vec<Option<DataType>>,
    context: &Context<'_>,
) -> Result<Rows> {
    let columns = insert_columns(&insert.columns, relation)?;
    let named = !insert.columns.is_empty();
    let mut scope = Scope::new(relation, context, parameters);
    let Some(source) = &insert.source else {
        // DEFAULT VALUES.
        return Ok(Rows::Values(vec![scope.row(&[], &[])?]));
    };
    let plain = source.with.is_none() && source.order_by.is_none() && source.limit_clause.is_none();
    let mut query = None;
    let identities = identities(relation, &columns, overriding);
    if let (SetExpr::Values(values), true) = (source.body.as_ref(), plain) {
        for row in &values.rows {
            check_width(row.content.len(), columns.len(), named)?;
            for (expr, column) in row.content.iter().zip(&columns) {
                if !is_default(expr) {
                    check_given(relation, *column)?;
                }
            }
        }
        let values = &identities.in_values(values)?;
        if let Some(rows) = scope.literals(&values.rows, &columns)? {
            return Ok(Rows::Literals(rows));
        }
        if !values.rows.iter().flat_map(|r| &r.content).any(has_subquery) {
            let rows = values.rows.iter().map(|row| scope.row(&row.content, &columns));
            return Ok(Rows::Values(rows.collect::<Result<Vec<_>>>()?));
        }
        query = Some(as_selects(values, relation, &columns)?);
    }
    let values = query.is_some();
    let query = query.as_ref().unwrap_or(source);
    let (given, drawn) = match values {
        true => (columns.clone(), Vec::new()),
        false => identities.apart(&columns),
    };
    let target = Target { relation, first: Some(0), columns: &given, fills: true };
    let scope = PassScope::of(context, parameters).to(target);
    let plan = plan_query(query, &scope)?;
    let width = plan.schema().fields().len();
    check_width(width, columns.len(), named)?;
    if !values {
        identities.check_given(&columns[..width.min(columns.len())])?;
    }
    if !values {
        columns.iter().take(width).try_for_each(|column| check_given(relation, *column))?;
    }
    let plan = without(plan, &drawn)?;
    let plan = analyze(over_plan(Stage::Assignment, plan, &scope)?)?;
    Ok(Rows::Query(Box::new(Planned::new(plan, context))))
}

/// VALUES with subqueries inside as SELECTs, which can hold them.
fn as_selects(values: &ast::Values, relation: &Relation, columns: &[usize]) -> Result<ast::Query> {
    let mut all: Option<ast::Query> = None;
    for row in &values.rows {
        let item = |(i, expr): (usize, &ast::Expr)| {
            let expr = match is_default(expr) {
                true => super::rules::default_expr(relation, columns[i])?,
                false => expr.clone(),
            };
            Ok(SelectItem::ExprWithAlias { expr, alias: quoted(&format!("\u{2}value {i}")) })
        };
        let items = row.content.iter().enumerate().map(item).collect::<Result<Vec<_>>>()?;
        let one = select(items, Vec::new(), None)?;
        all = Some(match all {
            None => one,
            Some(mut before) => {
                before.body = Box::new(SetExpr::SetOperation {
                    op: ast::SetOperator::Union,
                    set_quantifier: ast::SetQuantifier::All,
                    left: before.body,
                    right: one.body,
                });
                before
            }
        });
    }
    all.ok_or_else(|| Error::internal("VALUES has a row"))
}

fn conflict(
    insert: &ast::Insert,
    relation: &Relation,
    alias: &str,
    parameters: &mut [Option<DataType>],
    context: &Context<'_>,
) -> Result<Conflict> {
    let clause = match &insert.on {
        None => {
            return Ok(match relation.rules.on_conflict {
                ConflictRule::Refuse => Conflict::Refuse,
                ConflictRule::Overwrite => Conflict::Overwrite,
                ConflictRule::Ignore => Conflict::Ignore,
            });
        }
        Some(OnInsert::OnConflict(clause)) => clause,
        Some(_) => return Err(refused("this form of INSERT")),
    };
    check_conflict_target(clause.conflict_target.as_ref(), relation)?;
    match &clause.action {
        OnConflictAction::DoNothing if relation.key.is_empty() => Ok(Conflict::Refuse),
        OnConflictAction::DoNothing => Ok(Conflict::Ignore),
        OnConflictAction::DoUpdate(_) if clause.conflict_target.is_none() => Err(Error::user(
            sqlstate::SYNTAX_ERROR,
            "ON CONFLICT DO UPDATE requires inference specification or constraint name",
        )
        .with_hint("For example, ON CONFLICT (column_name).")),
        OnConflictAction::DoUpdate(_)
            if matches!(relation.kind, RelationKind::Table { append_only: true }) =>
        {
            Err(append_only(relation, "update", "ON CONFLICT DO UPDATE"))
        }
        OnConflictAction::DoUpdate(update) => {
            do_update(update, relation, alias, parameters, context)
                .map(|update| Conflict::Update(Box::new(update)))
        }
    }
}

/// The columns or the constraint must be those of the primary key.
fn check_conflict_target(target: Option<&ConflictTarget>, relation: &Relation) -> Result<()> {
    match target {
        None => Ok(()),
        Some(ConflictTarget::Columns(names)) => {
            let names: Vec<String> = names.iter().map(fold).collect();
            let mut columns =
                names.iter().map(|n| column_of(relation, n)).collect::<Result<Vec<_>>>()?;
            let mut key = relation.key.clone();
            columns.sort_unstable();
            columns.dedup();
            key.sort_unstable();
            match columns == key {
                true => Ok(()),
                false => Err(Error::user(
                    sqlstate::INVALID_COLUMN_REFERENCE,
                    "there is no unique or exclusion constraint matching the ON CONFLICT \
                     specification",
                )
                .with_hint("Name the columns of the primary key.")),
            }
        }
        Some(ConflictTarget::OnConstraint(name)) => {
            let name = plain_name(name)?;
            match !relation.key.is_empty() && name == format!("{}_pkey", relation.local_name()) {
                true => Ok(()),
                false => Err(Error::user(
                    sqlstate::UNDEFINED_OBJECT,
                    format!(
                        "constraint \"{name}\" for table \"{}\" does not exist",
                        relation.local_name()
                    ),
                )),
            }
        }
    }
}

/// The query of DO UPDATE: from the old row, the one that was to be inserted and its number, to the
/// old row, the new one and the number.
fn do_update(
    update: &DoUpdate,
    relation: &Relation,
    alias: &str,
    parameters: &[Option<DataType>],
    context: &Context<'_>,
) -> Result<Planned> {
    let mut fields: Vec<RowField> = table_fields(relation, alias);
    let width = fields.len();
    fields.extend(table_fields(relation, EXCLUDED));
    fields.push(number_field());
    let mut items: Vec<SelectItem> = relation
        .schema
        .fields()
        .iter()
        .map(|f| super::column_item(alias, f.name(), format!("\u{2}old {}", f.name())))
        .collect();
    items.extend(assigned(&update.assignments, relation, alias)?);
    items.push(SelectItem::UnnamedExpr(ast::Expr::Identifier(quoted(ROW_NUMBER))));
    let query = select(items, vec![from_table(ROWS)?], update.selection.clone())?;
    let context = context.with_planner(in_hand(RelationId::ROWS, ROWS, &fields)?);
    let columns: Vec<usize> = (0..width).collect();
    let target = Target { relation, first: Some(width), columns: &columns, fills: false };
    let scope = PassScope::of(&context, parameters).to(target);
    let plan = over_plan(Stage::Assignment, plan_query(&query, &scope)?, &scope)?;
    Ok(Planned::new(analyze(plan)?, &context))
}
