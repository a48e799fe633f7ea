//! INSERT, UPDATE and DELETE as plans of rows. DataFusion never runs them: it would lose filters of
//! DELETE, and it does not know the old row of an UPDATE.
//!
//! INSERT makes rows with exactly the columns of the table, DELETE the rows to delete, UPDATE the
//! old columns followed by the new ones. Values are cast as PostgreSQL casts in assignments; a
//! column that is not named takes its DEFAULT. What comes after (ON CONFLICT DO UPDATE, RETURNING)
//! is a query over the rows in hand, see `rows.rs`.

mod assign;
mod change;
mod identities;
mod insert;
mod lengths;
mod merge;
mod rows;
mod rules;
mod values;

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use sqlparser::ast::{self, Ident, SelectItem, SetExpr, TableWithJoins};
use sqlparser::parser::Parser;

use super::binder::{Bound, Settings};
use super::computed::compute_rows;
use super::dialect::DIALECT;
use super::parser::{fold, relation_name};
use super::prepared::{BoundStatement, Preparable, Reading, prepare_statement};
use super::statement;
use crate::catalog::{Catalog, Relation, RelationKind};
use crate::delta::text::display_value;
use crate::error::{About, Error, Result, sqlstate};

pub(super) use assign::{assign, fill};
pub(super) use change::{ChangeQuery, delete_query, update_query};
pub use insert::copy_target;
pub(super) use insert::{Conflict, Insert, Rows, prepare_insert};
use lengths::limit_lengths;
pub(super) use merge::prepare_merge;
pub use merge::{BoundMerge, Matching, MergeDoes, MergeOf};
pub(super) use rows::{RowField, returning};
pub use rules::{check_rows, check_rules, default_values, write_rules};
pub(super) use rules::{has_subquery, parse_expr};
pub use values::evaluate_arguments;
pub(super) use values::{Cell, evaluate_rows, missing, parameter_index, placeholders, replace};

/// The name of the number of a row of the table that a statement changes.
pub const ROW_NUMBER: &str = "\u{2}row";

/// A bound INSERT.
#[derive(Debug, Clone)]
pub struct BoundInsert {
    /// The table.
    pub relation: Arc<Relation>,
    /// Its new rows.
    pub rows: InsertRows,
    /// What a row with the key of an old one does.
    pub conflict: BoundConflict,
    /// RETURNING: a query over the new rows.
    pub returning: Option<Bound>,
}

/// The rows of an INSERT.
#[derive(Debug, Clone)]
pub enum InsertRows {
    /// VALUES, evaluated: the columns of the table, NOT NULL and CHECK not looked at yet.
    Values(RecordBatch),
    /// A query that makes the columns of the table.
    Query(Bound),
}

/// What a row with the key of an old one does.
#[derive(Debug, Clone)]
pub enum BoundConflict {
    /// 23505.
    Refuse,
    /// It is left out.
    Ignore,
    /// It replaces the old one.
    Overwrite,
    /// DO UPDATE: a query over rows of old columns, new columns and a number, which makes the same
    /// with the columns that replace the old ones in place of the new.
    Update(Box<Bound>),
}

/// A bound DELETE.
#[derive(Debug, Clone)]
pub struct BoundDelete {
    /// The table.
    pub relation: Arc<Relation>,
    /// The rows to delete, in the first columns.
    pub rows: Reading,
    /// The statement joins: the first column is the number of a row of the table, which counts
    /// once.
    pub joined: bool,
    /// RETURNING: a query over the deleted rows and the columns behind them.
    pub returning: Option<Bound>,
}

/// A bound UPDATE.
#[derive(Debug, Clone)]
pub struct BoundUpdate {
    /// The table.
    pub relation: Arc<Relation>,
    /// The old columns of the rows to replace, followed by as many new ones; pass the new ones
    /// through [`conform`].
    pub rows: Reading,
    /// As in [`BoundDelete`].
    pub joined: bool,
    /// RETURNING: a query over the new rows and the columns behind them.
    pub returning: Option<Bound>,
}

/// Binds an INSERT without parameters.
pub fn bind_insert(
    insert: &statement::Insert,
    catalog: &Catalog,
    settings: &Settings,
) -> Result<BoundInsert> {
    let preparable = Preparable::Insert(insert);
    let bound = settings.style.under(|| prepare_statement(preparable, &[], catalog, settings));
    match bound?.bind(&[], settings)? {
        BoundStatement::Insert(bound) => Ok(*bound),
        _ => Err(Error::internal("an INSERT is bound as one")),
    }
}

/// Binds a DELETE without parameters.
pub fn bind_delete(
    delete: &statement::Delete,
    catalog: &Catalog,
    settings: &Settings,
) -> Result<BoundDelete> {
    let preparable = Preparable::Delete(delete);
    let bound = settings.style.under(|| prepare_statement(preparable, &[], catalog, settings));
    match bound?.bind(&[], settings)? {
        BoundStatement::Delete(bound) => Ok(bound),
        _ => Err(Error::internal("a DELETE is bound as one")),
    }
}

/// Binds an UPDATE without parameters.
pub fn bind_update(
    update: &statement::Update,
    catalog: &Catalog,
    settings: &Settings,
) -> Result<BoundUpdate> {
    let preparable = Preparable::Update(update);
    let bound = settings.style.under(|| prepare_statement(preparable, &[], catalog, settings));
    match bound?.bind(&[], settings)? {
        BoundStatement::Update(bound) => Ok(bound),
        _ => Err(Error::internal("an UPDATE is bound as one")),
    }
}

/// Binds a MERGE without parameters.
pub fn bind_merge(
    merge: &statement::Merge,
    catalog: &Catalog,
    settings: &Settings,
) -> Result<BoundMerge> {
    let preparable = Preparable::Merge(merge);
    let bound = settings.style.under(|| prepare_statement(preparable, &[], catalog, settings));
    match bound?.bind(&[], settings)? {
        BoundStatement::Merge(bound) => Ok(*bound),
        _ => Err(Error::internal("a MERGE is bound as one")),
    }
}

/// Gives rows the table's own schema, computes what is computed, and checks NOT NULL (23502),
/// lengths of text (22001) and CHECK (23514).
pub fn conform(
    relation: &Relation,
    rows: &RecordBatch,
    settings: &Settings,
) -> Result<RecordBatch> {
    let rows = &compute_rows(relation, rows, settings)?;
    for (field, column) in relation.schema.fields().iter().zip(rows.columns()) {
        if field.is_nullable() || column.null_count() == 0 {
            continue;
        }
        let row = (0..column.len()).find(|row| column.is_null(*row)).unwrap_or_default();
        return Err(Error::user(
            sqlstate::NOT_NULL_VIOLATION,
            format!(
                "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                field.name(),
                relation.local_name()
            ),
        )
        .with_detail(failing_row(rows, row))
        .with_about(About {
            relation: Some(relation.name.clone()),
            column: Some(field.name().clone()),
            constraint: None,
        }));
    }
    let rows = RecordBatch::try_new(Arc::clone(&relation.schema), rows.columns().to_vec())?;
    let rows = limit_lengths(relation, &rows)?;
    check_rows(relation, &rows, settings)?;
    Ok(rows)
}

/// The DETAIL of a row that breaks a constraint.
fn failing_row(rows: &RecordBatch, row: usize) -> String {
    let value = |column| display_value(column, row).unwrap_or_else(|| "null".into());
    let values: Vec<String> = rows.columns().iter().map(|c| value(c)).collect();
    format!("Failing row contains ({}).", values.join(", "))
}

/// What a statement wants to do to its table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Insert,
    Copy,
    Update,
    Delete,
    Merge,
}

impl Change {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Insert => ("insert into", "INSERT"),
            Self::Copy => ("copy to", "COPY"),
            Self::Update => ("update", "UPDATE"),
            Self::Delete => ("delete from", "DELETE"),
            Self::Merge => ("merge into", "MERGE"),
        }
    }
}

/// Looks a table up for a change, or says why it can't be changed.
fn target(name: &ast::ObjectName, catalog: &Catalog, change: Change) -> Result<Arc<Relation>> {
    let relation = catalog.get(&relation_name(name)?)?;
    let (verb, statement) = change.words();
    match relation.kind {
        RelationKind::Table { append_only: true }
            if matches!(change, Change::Update | Change::Delete) =>
        {
            Err(append_only(relation, verb, statement))
        }
        RelationKind::Table { .. } => Ok(Arc::clone(relation)),
        RelationKind::Sequence => Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("cannot change sequence \"{}\"", relation.local_name()),
        )),
        kind => Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("cannot {verb} {} \"{}\"", kind.noun(), relation.name),
        )),
    }
}

fn append_only(relation: &Relation, verb: &str, statement: &str) -> Error {
    Error::user(
        sqlstate::WRONG_OBJECT_TYPE,
        format!("cannot {verb} append-only table \"{}\"", relation.name),
    )
    .with_detail(format!("{statement} is refused because its views rely on APPEND ONLY."))
}

/// 428C9 of a column that takes no value of a statement.
fn generated_always(column: &str, message: String) -> Error {
    Error::user(sqlstate::GENERATED_ALWAYS, message).with_detail(format!(
        "Column \"{column}\" is an identity column defined as GENERATED ALWAYS."
    ))
}

fn refused(what: &str) -> Error {
    Error::unsupported(format!("{what} is not supported yet"))
}

fn column_of(relation: &Relation, name: &str) -> Result<usize> {
    relation.schema.index_of(name).map_err(|_| {
        Error::user(
            sqlstate::UNDEFINED_COLUMN,
            format!("column \"{name}\" of relation \"{}\" does not exist", relation.local_name()),
        )
        .with_about(About {
            relation: Some(relation.name.clone()),
            column: Some(name.to_owned()),
            constraint: None,
        })
    })
}

/// Whether an expression is the word DEFAULT.
pub(super) fn is_default(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(i) if i.quote_style.is_none() && fold(i) == "default")
}

/// A column under an alias that no user can write.
fn column_item(table: &str, column: &str, alias: String) -> SelectItem {
    let expr = ast::Expr::CompoundIdentifier(vec![quoted(table), quoted(column)]);
    SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', alias) }
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

/// `SELECT items FROM from WHERE condition`, built from a parsed frame, so that no clause is
/// forgotten. Without items it is `SELECT *`.
fn select(
    items: Vec<SelectItem>,
    from: Vec<TableWithJoins>,
    condition: Option<ast::Expr>,
) -> Result<ast::Query> {
    let mut query = parsed("SELECT * FROM t")?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(Error::internal("a SELECT is parsed as one"));
    };
    if !items.is_empty() {
        select.projection = items;
    }
    select.selection = condition;
    select.from = from;
    Ok(query)
}

/// A query of our own.
fn parsed(text: &str) -> Result<ast::Query> {
    let query = Parser::new(&DIALECT).try_with_sql(text).and_then(|mut p| p.parse_query());
    query.map(|q| *q).map_err(|e| Error::internal(e.to_string()))
}

/// A table as an item of FROM.
fn from_table(name: &str) -> Result<TableWithJoins> {
    let query = parsed(&format!("SELECT * FROM \"{}\"", name.replace('"', "\"\"")))?;
    match *query.body {
        SetExpr::Select(mut select) if select.from.len() == 1 => Ok(select.from.remove(0)),
        _ => Err(Error::internal("a SELECT FROM t has one relation")),
    }
}
