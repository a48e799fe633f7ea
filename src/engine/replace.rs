//! ALTER .. RENAME TO, and what becomes of names when objects get others.

use std::sync::Arc;

use super::outcome::{Notice, Outcome};
use super::sequences::check_unused;
use super::session::Session;
use crate::catalog::{
    Catalog, Definition, Relation, RelationId, RelationKind, qualified, schema_and_name, system,
};
use crate::error::{Error, Result, sqlstate};
use crate::runtime::Coordinator;
use crate::sql::statement::Rename;
use crate::sql::with_name;

impl Session {
    pub(super) async fn rename_relation(&mut self, request: &Rename) -> Result<Outcome> {
        let tag = format!("ALTER {}", request.noun.to_uppercase());
        let core = self.engine.core.clone();
        let _one_at_a_time = self.turn(core.ddl.lock()).await?;
        let catalog = core.shared.catalog();
        let Some(relation) = catalog.find(&request.name) else {
            if request.if_exists {
                let text = format!("relation \"{}\" does not exist, skipping", request.name);
                self.notices.push(Notice::new(text));
                return Ok(self.done(&tag));
            }
            return Err(catalog
                .get(&request.name)
                .err()
                .unwrap_or_else(|| Error::internal("a relation is there and is not")));
        };
        // As in PostgreSQL, ALTER TABLE takes whatever has columns.
        if relation.kind.noun() != request.noun && request.noun != "table" {
            let article = if request.noun == "index" { "an" } else { "a" };
            return Err(Error::user(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not {article} {}", request.name, request.noun),
            ));
        }
        if relation.kind == RelationKind::System {
            return Err(Error::user(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("cannot rename \"{}\": it belongs to another relation", relation.name),
            ));
        }
        self.check_new_name(&catalog, &request.to)?;
        check_independent(&catalog, relation)?;
        if relation.kind == RelationKind::Sequence {
            check_unused(&catalog, relation, "rename")?;
        }
        let (id, to) = (relation.id, request.to.clone());
        self.commit_point.pass();
        let change = move |c: &mut Coordinator| {
            let record = Definition::Rename { id, to: to.clone() };
            c.define(&record, &[], |catalog| rename(catalog, id, &to))
        };
        core.coordinator.call(change).await??;
        Ok(self.done(&tag))
    }
}

/// A new object takes the name of an old one, which goes with its parts: `old`, those that depend
/// on others first. Logs of earlier programs have it; now it is a [`Swap`](crate::runtime::Swap).
pub(super) fn replace(
    c: &mut Coordinator,
    old: Vec<RelationId>,
    new: RelationId,
    name: String,
) -> Result<()> {
    let from = *old.last().ok_or_else(|| Error::internal("nothing is replaced"))?;
    let record = Definition::Replace { old: old.clone(), new, name: name.clone() };
    c.define(&record, &[new], |catalog| {
        rename(catalog, from, &format!("{name}$replaced"))?;
        rename(catalog, new, &name)
    })?;
    c.remove_relations(&old);
    Ok(())
}

/// Gives a relation and what belongs to it another name.
pub(super) fn rename(catalog: &mut Catalog, id: RelationId, to: &str) -> Result<()> {
    let Some(old) = catalog.by_id(id).cloned() else { return Ok(()) };
    let own = catalog.dependants(id).into_iter().filter(|r| r.kind == RelationKind::System);
    for system in own.collect::<Vec<_>>() {
        if let Some(suffix) = system.name.strip_prefix(old.name.as_str()) {
            catalog.rename(system.id, &format!("{to}{suffix}"), &system.definition)?;
        }
    }
    catalog.rename(id, to, &with_name(&old.definition, to))?;
    // An index is in the schema of its relation.
    let schema = schema_and_name(to).0;
    for index in catalog.indexes(id).cloned().collect::<Vec<_>>() {
        if index.schema_name() != schema {
            let to = qualified(schema, index.local_name());
            catalog.rename(index.id, &to, &index.definition)?;
        }
    }
    // The text of an index has its own name and that of its relation.
    let renamed = catalog.by_id(id).cloned().into_iter();
    let own = renamed.filter(|r| matches!(r.kind, RelationKind::Index { .. }));
    for index in own.chain(catalog.indexes(id).cloned().collect::<Vec<_>>()) {
        let of = index.depends_on.first().and_then(|of| catalog.by_id(*of)).cloned();
        if let Some(of) = of {
            catalog.redefine(index.id, system::index_text(&of, &index));
        }
    }
    Ok(())
}

/// Others keep the name in their texts, so that it can't change under them.
fn check_independent(catalog: &Catalog, relation: &Relation) -> Result<()> {
    let others: Vec<Arc<Relation>> =
        catalog.dependants(relation.id).into_iter().filter(|r| !r.kind.is_part()).collect();
    if others.is_empty() {
        return Ok(());
    }
    let what = format!("{} {}", relation.kind.noun(), relation.name);
    let detail: Vec<String> =
        others.iter().map(|r| format!("{} {} depends on {what}", r.kind.noun(), r.name)).collect();
    Err(Error::user(
        sqlstate::DEPENDENT_OBJECTS_STILL_EXIST,
        format!("cannot rename {what} because other objects depend on it"),
    )
    .with_detail(detail.join("\n"))
    .with_hint("Drop the dependent objects first, and create them again afterwards."))
}
