//! CREATE TABLE .. AS: a table with the columns of a query, filled with its rows once.

use arrow::datatypes::{DataType, FieldRef};

use super::outcome::Outcome;
use super::session::Session;
use crate::catalog::{ConflictRule, written_in_full};
use crate::delta::text::pg_type_declared;
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::{ColumnDef, CreateTable, CreateTableAs};
use crate::sql::{self, BoundConflict, BoundInsert, InsertRows, Purpose};

impl Session {
    pub(super) async fn create_table_as(&mut self, create: &CreateTableAs) -> Result<Outcome> {
        let catalog = self.engine.core.shared.catalog();
        let query = &create.query;
        let bound = sql::bind_query(query, &catalog, Purpose::AdHoc, &self.settings())?;
        sql::refuse_records(&bound.fields)?;
        let columns = columns(create, bound.fields.fields())?;
        let existed = catalog.find(&create.name).is_some();
        let text = definition(&create.name, &columns);
        let table = CreateTable {
            name: create.name.clone(),
            source: false,
            if_not_exists: create.if_not_exists,
            columns,
            primary_key: Vec::new(),
            watermark: None,
            append_only: false,
            checks: Vec::new(),
            on_conflict: ConflictRule::Refuse,
            options: std::collections::BTreeMap::new(),
            secrets: std::collections::BTreeMap::new(),
            format: None,
            include: Vec::new(),
        };
        self.provisional = create.with_data && !existed;
        let created = self.create_table(&table, &text).await;
        self.provisional = false;
        created?;
        if existed || !create.with_data {
            return Ok(self.done("CREATE TABLE AS"));
        }
        let relation = self.engine.core.shared.catalog().get(&create.name)?.clone();
        // Without its rows there is no table either.
        let mut guard = self.drop_unless_built([Some(relation.as_ref())]);
        self.commit_point.reset();
        let rows = InsertRows::Query(bound);
        let (conflict, returning) = (BoundConflict::Refuse, None);
        let id = relation.id;
        let mut inserted =
            self.run_insert(BoundInsert { relation, rows, conflict, returning }).await;
        if inserted.is_ok()
            && let Err(error) = self.keep_created(id).await
        {
            inserted = Err(error);
        }
        guard.armed = inserted.is_err();
        drop(guard);
        self.commit_point.settle().await;
        match inserted? {
            Outcome::Done { tag, notices } => {
                let tag = tag.replace("INSERT 0", "SELECT");
                Ok(Outcome::Done { tag, notices })
            }
            _ => Err(Error::internal("an INSERT without RETURNING has no rows")),
        }
    }
}

fn columns(create: &CreateTableAs, fields: &[FieldRef]) -> Result<Vec<ColumnDef>> {
    if create.columns.len() > fields.len() {
        return Err(Error::user(
            sqlstate::SYNTAX_ERROR,
            "CREATE TABLE AS specifies too many column names",
        ));
    }
    let mut columns: Vec<ColumnDef> = Vec::with_capacity(fields.len());
    for (i, field) in fields.iter().enumerate() {
        let name = create.columns.get(i).unwrap_or(field.name()).clone();
        if columns.iter().any(|c| c.name == name) {
            return Err(Error::user(
                sqlstate::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            )
            .with_hint("Give the columns different names with AS."));
        }
        let data_type = match field.data_type() {
            DataType::Null => DataType::Utf8,
            other => other.clone(),
        };
        columns.push(ColumnDef {
            name,
            data_type,
            nullable: true,
            default: None,
            sequence: None,
            identity: None,
            length: None,
            computed: None,
            record: None,
        });
    }
    Ok(columns)
}

/// The CREATE TABLE that makes the same columns.
fn definition(name: &str, columns: &[ColumnDef]) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let column = |c: &ColumnDef| format!("{} {}", quoted(&c.name), pg_type_declared(&c.data_type));
    let columns: Vec<String> = columns.iter().map(column).collect();
    format!("CREATE TABLE {} ({})", written_in_full(name), columns.join(", "))
}
