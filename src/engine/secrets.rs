//! CREATE SECRET, DROP SECRET, and the values of secrets in the options of connectors. A value is
//! in the connector that it is for, and nowhere that anybody is shown.

use std::collections::{BTreeMap, BTreeSet};

use super::outcome::{Notice, Rows};
use super::seal::DirectoryKey;
use super::session::Session;
use super::show::{Column, table};
use crate::catalog::access::{AccessChange, RoleId, Seal, Secret, SecretValue};
use crate::catalog::{Catalog, PUBLIC_SCHEMA, Relation};
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::Statement;

/// The columns of SHOW SECRETS.
pub(super) const SECRET_COLUMNS: [&str; 3] = ["name", "owner", "value"];

impl Session {
    fn seal(&self) -> Option<DirectoryKey> {
        self.engine.core.kept.as_ref().map(|kept| DirectoryKey::of(&kept.disk, &kept.path))
    }

    pub(super) fn created_secret(
        &mut self,
        catalog: &Catalog,
        (name, if_not_exists): (&str, bool),
        value: &SecretValue,
    ) -> Result<Vec<AccessChange>> {
        if catalog.access().secret(name).is_ok() {
            let text = format!("secret \"{name}\" already exists");
            if if_not_exists {
                self.notices.push(Notice::new(format!("{text}, skipping")));
                return Ok(Vec::new());
            }
            return Err(Error::user(sqlstate::DUPLICATE_OBJECT, text));
        }
        match value {
            SecretValue::Env(_) => self.check_superuser("name variables of the environment")?,
            SecretValue::File(_) => self.check_superuser("name files of the machine")?,
            SecretValue::Sealed(_) | SecretValue::Held(_) => self.check_create(PUBLIC_SCHEMA)?,
        }
        let seal = self.seal();
        let value = match (value, &seal) {
            (SecretValue::Held(value), Some(seal)) => SecretValue::Sealed(seal.seal(name, value)?),
            (value, _) => value.clone(),
        };
        value.find(name, seal.as_ref().map(|seal| seal as &dyn Seal))?;
        let owner = self.role().unwrap_or(RoleId::OWNER);
        let secret = Some(Secret { owner, value });
        Ok(vec![AccessChange::Secret { name: name.to_owned(), secret }])
    }

    pub(super) fn dropped_secret(
        &mut self,
        catalog: &Catalog,
        name: &str,
        if_exists: bool,
    ) -> Result<Vec<AccessChange>> {
        let secret = match catalog.access().secret(name) {
            Err(_) if if_exists => {
                let text = format!("secret \"{name}\" does not exist, skipping");
                self.notices.push(Notice::new(text));
                return Ok(Vec::new());
            }
            secret => secret?,
        };
        self.check_secret(catalog, name, secret)?;
        let uses = |relation: &&std::sync::Arc<Relation>| self.names_secret(relation, name);
        let users: Vec<String> = catalog
            .relations()
            .filter(uses)
            .map(|r| format!("{} {} depends on secret {name}", r.kind.noun(), r.name))
            .collect();
        if !users.is_empty() {
            let message = format!("cannot drop secret {name} because other objects depend on it");
            return Err(Error::user(sqlstate::DEPENDENT_OBJECTS_STILL_EXIST, message)
                .with_detail(users.join("\n"))
                .with_hint("Drop them first."));
        }
        Ok(vec![AccessChange::Secret { name: name.to_owned(), secret: None }])
    }

    /// Whether the definition of a relation names a secret.
    fn names_secret(&self, relation: &Relation, name: &str) -> bool {
        if relation.connector.is_none() {
            return false;
        }
        let parsed = self.parse(&relation.definition).unwrap_or_default();
        parsed.iter().any(|parsed| {
            let secrets = match &parsed.statement {
                Statement::CreateTable(create) => &create.secrets,
                Statement::CreateSink(create) => &create.secrets,
                _ => return false,
            };
            secrets.values().any(|secret| secret == name)
        })
    }

    fn check_secret(&self, catalog: &Catalog, name: &str, secret: &Secret) -> Result<()> {
        match self.role().is_none_or(|role| catalog.access().has_role(role, secret.owner)) {
            true => Ok(()),
            false => Err(Error::user(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!("permission denied for secret {name}"),
            )),
        }
    }

    /// The options of a connector with the values of those that are secrets.
    pub(super) fn with_secrets(
        &self,
        options: &BTreeMap<String, String>,
        secrets: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>> {
        let catalog = self.engine.core.shared.catalog();
        let seal = self.seal();
        let mut options = options.clone();
        // Who may use a connector is asked by its name.
        if secrets.contains_key("connector") {
            return Err(Error::unsupported("the name of a connector can't be a secret"));
        }
        for (option, name) in secrets {
            let secret = catalog.access().secret(name)?;
            self.check_secret(&catalog, name, secret)?;
            let found = secret.value.find(name, seal.as_ref().map(|seal| seal as &dyn Seal));
            let value = match (found, &self.past) {
                (Ok(value), _) => value,
                // A start goes on without: the other side says that it is not the right one.
                (Err(error), Some(_)) => {
                    tracing::warn!(%error, "a connector begins without a secret");
                    String::new()
                }
                (Err(error), None) => return Err(error),
            };
            options.insert(option.clone(), value);
        }
        Ok(options)
    }

    /// An error without the values of secrets that the statement has named.
    pub(super) fn without_secrets(
        &self,
        error: Error,
        secrets: &BTreeMap<String, String>,
    ) -> Error {
        if secrets.is_empty() {
            return error;
        }
        let values = self.with_secrets(&BTreeMap::new(), secrets).unwrap_or_default();
        let values: BTreeSet<&String> = values.values().filter(|v| !v.is_empty()).collect();
        values.into_iter().fold(error, |error, value| error.masking(value))
    }

    /// SHOW SECRETS: what there is, without the values.
    pub(super) fn show_secrets(&self) -> Result<Rows> {
        let catalog = self.engine.core.shared.catalog();
        let access = catalog.access();
        let column = |of: &dyn Fn(&String, &Secret) -> String| {
            Column::Text(access.secrets().map(|(name, secret)| Some(of(name, secret))).collect())
        };
        let [name, owner, value] = SECRET_COLUMNS;
        table(vec![
            (name, column(&|name, _| name.clone())),
            (owner, column(&|_, secret| access.name(secret.owner))),
            (value, column(&|_, secret| secret.value.place())),
        ])
    }
}
