//! CREATE INDEX: an index is a definition of the catalog and, unless its columns are the key that
//! the rows are stored by, an index of the relation's result table.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::outcome::{Notice, Outcome};
use super::session::Session;
use crate::cancel::Cancel;
use crate::catalog::{Catalog, Relation, RelationId, RelationKind, WriteRules, system};
use crate::error::{Error, Result, sqlstate};
use crate::plan::PlanNode;
use crate::runtime::{Coordinator, Shared};
use crate::sql::statement::CreateIndex;
use crate::state::{IndexLease, ResultTable};

/// The name of what is built beside something.
type Beside = fn(&str) -> String;

impl Session {
    pub(super) async fn create_index(&mut self, create: &CreateIndex) -> Result<Outcome> {
        self.refuse_in_transaction("CREATE INDEX")?;
        let core = self.engine.core.clone();
        let _one_at_a_time = self.turn(core.ddl.lock()).await?;
        let catalog = core.shared.catalog();
        let relation = catalog.get(&create.relation)?.clone();
        if let Some(name) = create.name.as_ref().filter(|name| catalog.find(name).is_some()) {
            if !create.if_not_exists {
                catalog.check_name_is_free(name)?;
            }
            let text = format!("relation \"{name}\" already exists, skipping");
            self.notices.push(Notice::new(text));
            return Ok(self.done("CREATE INDEX"));
        }
        let table = table_of(&core.shared, &relation)?;
        let columns = positions(create, &relation)?;
        if create.unique {
            check_unique(&relation, &table, &columns)?;
        }
        let name = create.name.clone().unwrap_or_else(|| free_name(&catalog, &relation, &columns));
        let unique = create.unique;
        self.add_index((name, unique), &relation, columns, table).await?;
        Ok(self.done("CREATE INDEX"))
    }

    /// Builds an index and puts it into the catalog.
    async fn add_index(
        &self,
        (name, unique): (String, bool),
        relation: &Relation,
        columns: Vec<usize>,
        table: Arc<ResultTable>,
    ) -> Result<()> {
        let fields: Vec<_> = columns.iter().map(|c| relation.schema.field(*c).clone()).collect();
        let comments = self.comments_of_new(&name);
        let mut index = Relation {
            id: self.allocate(),
            name,
            kind: RelationKind::Index { unique },
            schema: Arc::new(Schema::new(fields)),
            key: columns.clone(),
            watermark: None,
            rules: WriteRules::default(),
            connector: None,
            definition: String::new(),
            query: None,
            zone: None,
            sequence: None,
            depends_on: vec![relation.id],
            acl: relation.acl.clone(),
            comments,
        };
        index.definition = system::index_text(relation, &index);
        let shared = &self.engine.core.shared;
        let record = self.creation(&index, (None, None), None);
        let add = move |c: &mut Coordinator| {
            let add = |catalog: &mut Catalog| catalog.add(index.clone()).map(drop);
            c.define(&record, &index.depends_on, add)
        };
        let coordinator = &self.engine.core.coordinator;
        if table.spec().key == columns {
            self.commit_point.pass();
            return coordinator.call(add).await?;
        }
        let shares = shared.catalog().indexes(relation.id).any(|other| other.key == columns);
        let given_up = Cancel::default();
        let mut guard = (!shares).then(|| ForgetIndex {
            given_up: given_up.clone(),
            table: Arc::clone(&table),
            columns: columns.clone(),
            armed: true,
        });
        let build = tokio::task::spawn_blocking(move || {
            let built = table.add_index(&columns);
            if given_up.is_canceled() {
                table.drop_index(&columns);
            }
            built
        });
        build.await.map_err(|e| Error::internal(e.to_string()))??;
        self.commit_point.pass();
        let result = coordinator.call(add).await?;
        if let Some(guard) = guard.as_mut() {
            guard.armed = result.is_err();
        }
        result
    }

    /// Gives a relation the indexes that another one has, as far as it has their columns, under
    /// other names; `renamed` says what columns are called there that have another name: what they
    /// are and what they are to be called.
    pub(super) async fn copy_indexes(
        &self,
        of: &Relation,
        to: &Relation,
        (beside, renamed): (Beside, &BTreeMap<String, String>),
    ) -> Result<Vec<(RelationId, String)>> {
        let shared = &self.engine.core.shared;
        let (catalog, table) = (shared.catalog(), table_of(shared, to)?);
        let mut copies = Vec::new();
        for index in catalog.indexes(of.id) {
            let position = |f: &Arc<Field>| {
                let name = renamed.get(f.name()).unwrap_or(f.name());
                to.schema.index_of(name).ok()
            };
            let columns = index.schema.fields().iter().map(position).collect::<Option<Vec<_>>>();
            let Some(columns) = columns else { continue };
            let named = (beside(&index.name), false);
            self.add_index(named.clone(), to, columns, Arc::clone(&table)).await?;
            let made = shared.catalog().get(&named.0)?.id;
            copies.push((made, index.name.clone()));
        }
        Ok(copies)
    }
}

impl Session {
    /// Makes the indexes that a plan reads, which its nodes take over: here they hold up nobody
    /// while they are filled.
    pub(super) async fn lease_indexes(&self, plan: &PlanNode) -> Result<Vec<IndexLease>> {
        let relations = self.engine.core.shared.relations();
        let table = |id: &RelationId| relations.get(id).and_then(|state| state.table.clone());
        let wanted = plan.indexes().into_iter().filter_map(|(id, key)| Some((table(&id)?, key)));
        let wanted: Vec<_> = wanted.collect();
        if wanted.iter().all(|(table, key)| table.spec().key == *key) {
            return Ok(Vec::new());
        }
        let lease = move || wanted.iter().map(|(table, key)| table.lease(key)).collect();
        tokio::task::spawn_blocking(lease).await.map_err(|e| Error::internal(e.to_string()))?
    }
}

/// Removes what a CREATE INDEX that is given up has built; what it still builds removes itself.
struct ForgetIndex {
    given_up: Cancel,
    table: Arc<ResultTable>,
    columns: Vec<usize>,
    armed: bool,
}

impl Drop for ForgetIndex {
    fn drop(&mut self) {
        if self.armed {
            self.given_up.cancel();
            self.table.drop_index(&self.columns);
        }
    }
}

/// Forgets the state of dropped indexes, unless another one of the relation needs it.
pub(super) fn forget_indexes(shared: &Shared, dropped: &[RelationId]) {
    let (catalog, relations) = (shared.catalog(), shared.relations());
    for index in dropped.iter().filter_map(|id| catalog.by_id(*id)) {
        let RelationKind::Index { .. } = index.kind else { continue };
        for of in &index.depends_on {
            let mut others = catalog.indexes(*of).filter(|i| !dropped.contains(&i.id));
            let table = relations.get(of).and_then(|r| r.table.as_ref());
            if let Some(table) = table.filter(|_| others.all(|i| i.key != index.key)) {
                table.drop_index(&index.key);
            }
        }
    }
}

fn table_of(shared: &Shared, relation: &Relation) -> Result<Arc<ResultTable>> {
    let state = shared.relations().get(&relation.id).cloned();
    let indexed =
        matches!(relation.kind, RelationKind::Table { .. } | RelationKind::MaterializedView);
    let table = state.and_then(|s| s.table.clone()).filter(|_| indexed);
    table.ok_or_else(|| {
        let (kind, name) = (relation.kind.noun(), &relation.name);
        Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("cannot create index on relation \"{name}\""),
        )
        .with_detail(format!("This operation is not supported for {kind}s."))
        .with_hint("Index a table or a materialized view.")
    })
}

fn positions(create: &CreateIndex, relation: &Relation) -> Result<Vec<usize>> {
    let position = |name: &String| {
        let at = relation.schema.index_of(name).map_err(|_| {
            let message = format!("column \"{name}\" does not exist");
            Error::user(sqlstate::UNDEFINED_COLUMN, message)
        })?;
        // Values of these types are equal without being the same.
        match relation.schema.field(at).data_type() {
            DataType::LargeUtf8 | DataType::Interval(_) | DataType::List(_) => {
                Err(Error::unsupported(format!(
                    "column \"{name}\" has a type that an index does not support yet"
                ))
                .with_hint("Index what you look for as a column of a materialized view."))
            }
            _ => Ok(at),
        }
    };
    create.columns.iter().map(position).collect()
}

/// A unique index is one over a key, which is unique already.
fn check_unique(relation: &Relation, table: &ResultTable, columns: &[usize]) -> Result<()> {
    let key = &table.spec().key;
    if !key.is_empty() && key.iter().all(|c| columns.contains(c)) {
        return Ok(());
    }
    let hint = match relation.kind {
        RelationKind::MaterializedView => "Leave UNIQUE out: a view has the rows of its query.",
        _ => "Leave UNIQUE out, or make the columns the PRIMARY KEY of the table.",
    };
    Err(Error::unsupported("CREATE UNIQUE INDEX is supported for columns of a key only")
        .with_detail(format!("Nothing keeps rows of \"{}\" unique by these.", relation.name))
        .with_hint(hint))
}

/// `t_a_b_idx`, with a number behind it when that is taken.
fn free_name(catalog: &Catalog, relation: &Relation, columns: &[usize]) -> String {
    let columns: Vec<&str> =
        columns.iter().map(|c| relation.schema.field(*c).name().as_str()).collect();
    let stem = format!("{}_{}_idx", relation.name, columns.join("_"));
    let numbered = (1..).map(|n| format!("{stem}{n}"));
    let mut names = std::iter::once(stem.clone()).chain(numbered);
    names.find(|name| catalog.find(name).is_none()).unwrap_or(stem)
}
