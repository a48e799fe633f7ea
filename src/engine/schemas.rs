//! CREATE, ALTER and DROP SCHEMA, and the schemas that names without one are looked up in.

use super::outcome::{Notice, Outcome};
use super::session::Session;
use crate::catalog::access::{Access, AccessChange, Acl, NamedSchema, Privilege, RoleId};
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::{Catalog, PUBLIC_SCHEMA, Relation, RelationId, schema_and_name, system};
use crate::error::{Error, Result, sqlstate};
use crate::sql;
use crate::sql::statement::{Drop, ParsedStatement, RoleName};

impl Session {
    pub(super) fn created_schema(
        &mut self,
        catalog: &Catalog,
        name: Option<&str>,
        if_not_exists: bool,
        owner: Option<&RoleName>,
    ) -> Result<Vec<AccessChange>> {
        let access = catalog.access();
        self.check_superuser("make schemas")?;
        let owner = match owner {
            Some(role) => self.role_named(access, role)?.0,
            None => self.role().unwrap_or(RoleId::OWNER),
        };
        let name = name.map_or_else(|| access.name(owner), str::to_owned);
        if access.has_schema(&name) {
            let message = format!("schema \"{name}\" already exists");
            if !if_not_exists {
                return Err(Error::user(sqlstate::DUPLICATE_SCHEMA, message));
            }
            self.notices.push(Notice::new(format!("{message}, skipping")));
            return Ok(Vec::new());
        }
        let acl = Acl { owner, ..Acl::default() };
        let schema = Some(NamedSchema { id: self.allocate(), acl });
        Ok(vec![AccessChange::NamedSchema { name, schema }])
    }

    pub(super) fn schema_owner(
        &self,
        access: &Access,
        name: &str,
        to: &RoleName,
    ) -> Result<Vec<AccessChange>> {
        let mut acl = access.get_schema(name)?.clone();
        self.check_owns_schema(access, name)?;
        acl.owner = self.role_named(access, to)?.0;
        self.check_has_role(access, acl.owner)?;
        Ok(vec![schema_change(access, name, acl)])
    }

    pub(super) fn check_owns_schema(&self, access: &Access, name: &str) -> Result<()> {
        let acl = access.get_schema(name)?;
        match self.role().is_none_or(|role| access.owns(role, acl)) {
            true => Ok(()),
            false => Err(Error::user(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!("must be owner of schema {name}"),
            )),
        }
    }

    /// Fails unless the session's role may name what is in the schema of a relation.
    pub(super) fn check_usage(&self, catalog: &Catalog, relation: &Relation) -> Result<()> {
        let Some(role) = self.role() else { return Ok(()) };
        let schema = relation.schema_name();
        check_usage(catalog.access(), role, schema)
    }

    pub(super) async fn drop_schemas(&mut self, drop: &Drop) -> Result<Outcome> {
        self.refuse_in_transaction("DROP SCHEMA")?;
        let catalog = self.engine.core.shared.catalog();
        let access = catalog.access();
        let mut doomed = Vec::new();
        for name in &drop.names {
            if !access.has_schema(name) && drop.if_exists {
                let text = format!("schema \"{name}\" does not exist, skipping");
                self.notices.push(Notice::new(text));
                continue;
            }
            if name == PUBLIC_SCHEMA || access.schema(name).is_none() && access.has_schema(name) {
                return Err(Error::user(
                    sqlstate::DEPENDENT_OBJECTS_STILL_EXIST,
                    format!(
                        "cannot drop schema {name} because it is required by the database system"
                    ),
                ));
            }
            self.check_owns_schema(access, name)?;
            doomed.push(name.clone());
        }
        let inside = relations_of(&catalog, &doomed);
        if !inside.is_empty() && !drop.cascade {
            return Err(not_empty(&doomed, &inside));
        }
        if !inside.is_empty() {
            for relation in &inside {
                let (kind, name) = (relation.kind.noun(), &relation.name);
                self.notices.push(Notice::new(format!("drop cascades to {kind} {name}")));
            }
            let ids: BTreeSet<RelationId> = inside.iter().map(|r| r.id).collect();
            self.drop_ids(ids, true).await?;
        }
        let gone = |name| AccessChange::NamedSchema { name, schema: None };
        self.keep_changes(doomed.into_iter().map(gone).collect()).await?;
        Ok(self.done("DROP SCHEMA"))
    }

    /// 42P07 when the name of something new is taken, 3F000 when there is no such schema.
    pub(super) fn check_new_name(&self, catalog: &Catalog, name: &str) -> Result<()> {
        // What is made again may have left its schema since, which then is gone.
        if self.past.is_none() {
            catalog.access().check_schema(schema_and_name(name).0)?;
        }
        catalog.check_name_is_free(name)
    }

    /// Whether names without a schema mean what is in `public`, and nothing else.
    pub(super) fn searches_public(&self) -> bool {
        let catalog = self.engine.core.shared.catalog();
        self.facts.search_path(&catalog) == [PUBLIC_SCHEMA]
    }

    /// A statement with the schemas of its names, as the session's `search_path` finds them.
    pub(super) fn in_path(&self, statement: &Arc<ParsedStatement>) -> Result<Arc<ParsedStatement>> {
        // A definition that is made again has its schemas.
        if self.past.is_some() {
            return Ok(Arc::clone(statement));
        }
        let catalog = self.engine.core.shared.catalog();
        let path = self.facts.search_path(&catalog);
        let found = sql::with_schemas(statement, &path, &catalog)?;
        Ok(found.map_or_else(|| Arc::clone(statement), Arc::new))
    }
}

/// What is granted on a schema, as it is kept.
pub(super) fn schema_change(access: &Access, name: &str, acl: Acl) -> AccessChange {
    match access.schemas().get(name) {
        None => AccessChange::Schema(acl),
        Some(old) => {
            let schema = Some(NamedSchema { acl, ..old.clone() });
            AccessChange::NamedSchema { name: name.to_owned(), schema }
        }
    }
}

/// 42501 unless a role may name what is in a schema.
pub(super) fn check_usage(access: &Access, role: RoleId, schema: &str) -> Result<()> {
    let may = access.schema(schema).is_none_or(|acl| access.may(role, acl, Privilege::Usage));
    match may {
        true => Ok(()),
        false => Err(Error::user(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            format!("permission denied for schema {schema}"),
        )
        .with_hint(format!(
            "GRANT USAGE ON SCHEMA {} TO {};",
            system::quoted(schema),
            system::quoted(&access.name(role))
        ))),
    }
}

/// What is in some schemas, but for parts.
fn relations_of<'a>(catalog: &'a Catalog, schemas: &[String]) -> Vec<&'a Relation> {
    let inside = |r: &&Arc<Relation>| {
        !r.kind.is_part() && schemas.iter().any(|schema| schema == r.schema_name())
    };
    catalog.relations().filter(inside).map(AsRef::as_ref).collect()
}

fn not_empty(schemas: &[String], inside: &[&Relation]) -> Error {
    let detail: Vec<String> = inside
        .iter()
        .map(|r| format!("{} {} depends on schema {}", r.kind.noun(), r.name, r.schema_name()))
        .collect();
    Error::user(
        sqlstate::DEPENDENT_OBJECTS_STILL_EXIST,
        format!("cannot drop schema {} because other objects depend on it", schemas.join(", ")),
    )
    .with_detail(detail.join("\n"))
    .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}
