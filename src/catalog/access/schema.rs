//! Schemas: `public`, which there always is, and those that users make.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Access, Acl};
use crate::catalog::{PUBLIC_SCHEMA, RelationId};
use crate::error::{Error, Result, sqlstate};

/// The schemas of the system catalog.
pub(crate) const SYSTEM_SCHEMAS: [&str; 3] = ["pg_catalog", "information_schema", "headwater"];

/// A schema that a user has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedSchema {
    /// Its number, one of those of relations.
    pub id: RelationId,
    /// Who owns it, and what others may do with it.
    pub acl: Acl,
}

impl Access {
    /// What is granted on a schema that relations can be in.
    pub fn schema(&self, name: &str) -> Option<&Acl> {
        match name {
            PUBLIC_SCHEMA => Some(&self.schema),
            name => self.schemas.get(name).map(|schema| &schema.acl),
        }
    }

    /// The schemas that users have made.
    pub fn schemas(&self) -> &BTreeMap<String, NamedSchema> {
        &self.schemas
    }

    /// Whether there is a schema of a name, of the system catalog perhaps.
    pub fn has_schema(&self, name: &str) -> bool {
        SYSTEM_SCHEMAS.contains(&name) || self.schema(name).is_some()
    }

    /// Fails unless relations can be made in a schema, as far as that is not a matter of rights:
    /// 3F000, and 42501 for those of the system catalog.
    pub fn check_schema(&self, name: &str) -> Result<()> {
        match self.schema(name) {
            Some(_) => Ok(()),
            None if SYSTEM_SCHEMAS.contains(&name) => Err(Error::user(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!("permission denied for schema {name}"),
            )
            .with_detail("System catalog modifications are currently disallowed.")),
            None => Err(no_schema(name)),
        }
    }

    /// What is granted on a schema, or 3F000.
    pub fn get_schema(&self, name: &str) -> Result<&Acl> {
        self.check_schema(name)?;
        self.schema(name).ok_or_else(|| no_schema(name))
    }
}

/// 3F000.
pub(crate) fn no_schema(name: &str) -> Error {
    Error::user(sqlstate::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist"))
}
