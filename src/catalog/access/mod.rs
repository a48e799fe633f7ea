//! Who there is and what they may do: roles, who is a member of what, and what is granted on
//! objects. It means what PostgreSQL means by it, with one database.
//!
//! A role is known by its number, never by its name. Its password is kept as a [`Verifier`], from
//! which nobody finds the password and with which nobody logs in. What is granted on a relation is
//! kept with the relation, as an [`Acl`].
//!
//! There is always the role [`OWNER`]: whoever comes while nobody has a password is that one.

mod acl;
mod schema;
mod secret;
mod verifier;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use acl::{Acl, Privilege, Privileges};
pub use schema::NamedSchema;
pub(crate) use schema::{SYSTEM_SCHEMAS, no_schema};
pub use secret::{Seal, Secret, SecretValue};
pub use verifier::{Proof, Verifier};

use crate::error::{Error, Result, sqlstate};

/// The name of the role that there always is; it may do everything.
pub const OWNER: &str = "headwater";

/// The first number that a role of a user has.
const FIRST_ROLE: u32 = 16_384;

/// The identity of a role; never used twice while the engine runs.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RoleId(pub u32);

impl RoleId {
    /// Everybody: what is granted to PUBLIC.
    pub const PUBLIC: Self = Self(0);
    /// The role that there always is.
    pub const OWNER: Self = Self(10);
}

/// A role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Its folded name.
    pub name: String,
    /// Nothing is refused to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub superuser: bool,
    /// It may make, change and drop roles that are no superusers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create_role: bool,
    /// One can connect as it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub login: bool,
    /// What its password is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifier: Option<Verifier>,
    /// When its password ends, in microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until_us: Option<i64>,
    /// What its sessions begin with: settings by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Sessions at the same time that log in as it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_max: Option<u32>,
    /// The roles whose rights it has, too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub member_of: BTreeSet<RoleId>,
    /// What others get on the tables, views and sources that it will make.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub defaults: BTreeMap<RoleId, Privileges>,
    /// The same by schemas, for what it will make in one of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub schema_defaults: BTreeMap<String, BTreeMap<RoleId, Privileges>>,
}

/// A change of who there is and what they may do, as it is kept: each says what is there from then
/// on, so that doing it again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AccessChange {
    /// A role is as it says, or gone.
    Role {
        /// Which one.
        id: RoleId,
        /// What it is like.
        role: Option<Box<Role>>,
    },
    /// What is granted on a relation.
    Acl {
        /// Which one.
        on: super::RelationId,
        /// What is granted.
        acl: Acl,
    },
    /// What is granted on the schema `public`.
    Schema(Acl),
    /// Another schema is as it says, or gone.
    NamedSchema {
        /// Its folded name.
        name: String,
        /// What it is.
        schema: Option<NamedSchema>,
    },
    /// A secret is as it says, or gone.
    Secret {
        /// Its folded name.
        name: String,
        /// What it is.
        secret: Option<Secret>,
    },
    /// What the salts of roles are made of that do not exist, so that nobody learns from a salt
    /// whether one does.
    Decoy(String),
}

/// Who there is.
#[derive(Debug, Clone)]
pub struct Access {
    roles: BTreeMap<RoleId, Role>,
    names: BTreeMap<String, RoleId>,
    next: u32,
    schema: Acl,
    schemas: BTreeMap<String, NamedSchema>,
    secrets: BTreeMap<String, Secret>,
    decoy: String,
}

impl Default for Access {
    fn default() -> Self {
        let owner = Role {
            name: OWNER.to_owned(),
            superuser: true,
            create_role: true,
            login: true,
            ..Role::default()
        };
        let mut access = Self {
            roles: BTreeMap::new(),
            names: BTreeMap::new(),
            next: FIRST_ROLE,
            schema: Acl::of_schema(),
            schemas: BTreeMap::new(),
            secrets: BTreeMap::new(),
            decoy: String::new(),
        };
        access.put(RoleId::OWNER, Some(owner));
        access
    }
}

impl Access {
    /// Takes a change in. Those of relations are the catalog's.
    pub fn apply(&mut self, change: &AccessChange) {
        match change {
            AccessChange::Role { id, role } => self.put(*id, role.as_deref().cloned()),
            AccessChange::Schema(acl) => self.schema = acl.clone(),
            AccessChange::NamedSchema { name, schema: Some(schema) } => {
                self.schemas.insert(name.clone(), schema.clone());
            }
            AccessChange::NamedSchema { name, schema: None } => {
                self.schemas.remove(name);
                let roles = self.roles.values_mut();
                roles.for_each(|role| drop(role.schema_defaults.remove(name)));
            }
            AccessChange::Decoy(decoy) => self.decoy.clone_from(decoy),
            AccessChange::Secret { name, secret: Some(secret) } => {
                self.secrets.insert(name.clone(), secret.clone());
            }
            AccessChange::Secret { name, secret: None } => drop(self.secrets.remove(name)),
            AccessChange::Acl { .. } => {}
        }
    }

    fn put(&mut self, id: RoleId, role: Option<Role>) {
        self.next = self.next.max(id.0 + 1);
        if let Some(old) = self.roles.remove(&id) {
            self.names.remove(&old.name);
        }
        match role {
            Some(role) => {
                self.names.insert(role.name.clone(), id);
                self.roles.insert(id, role);
            }
            // Who were its members are not any more.
            None => self.roles.values_mut().for_each(|role| {
                role.member_of.remove(&id);
                role.defaults.remove(&id);
                role.schema_defaults.values_mut().for_each(|to| {
                    to.remove(&id);
                });
            }),
        }
    }

    /// What makes all of it anew; nothing where nobody has changed anything.
    pub fn changes(&self) -> Vec<AccessChange> {
        let new = Self::default();
        let role = |(id, role): (&RoleId, &Role)| AccessChange::Role {
            id: *id,
            role: Some(Box::new(role.clone())),
        };
        let same = |id: &RoleId, role: &Role| new.roles.get(id) == Some(role);
        let roles = self.roles.iter().filter(|(id, role)| !same(id, role)).map(role);
        let schema = (self.schema != new.schema).then(|| AccessChange::Schema(self.schema.clone()));
        let decoy = (!self.decoy.is_empty()).then(|| AccessChange::Decoy(self.decoy.clone()));
        let secret = |(name, secret): (&String, &Secret)| AccessChange::Secret {
            name: name.clone(),
            secret: Some(secret.clone()),
        };
        let secrets = self.secrets.iter().map(secret);
        let named = |(name, schema): (&String, &NamedSchema)| AccessChange::NamedSchema {
            name: name.clone(),
            schema: Some(schema.clone()),
        };
        let schemas = self.schemas.iter().map(named);
        decoy.into_iter().chain(schema).chain(schemas).chain(roles).chain(secrets).collect()
    }

    /// The number that a new role gets.
    pub fn next_id(&self) -> RoleId {
        RoleId(self.next)
    }

    /// All roles in order of their numbers.
    pub fn roles(&self) -> impl Iterator<Item = (RoleId, &Role)> {
        self.roles.iter().map(|(id, role)| (*id, role))
    }

    /// A role by its number.
    pub fn role(&self, id: RoleId) -> Option<&Role> {
        self.roles.get(&id)
    }

    /// A role by its folded name.
    pub fn find(&self, name: &str) -> Option<(RoleId, &Role)> {
        let id = *self.names.get(name)?;
        self.roles.get(&id).map(|role| (id, role))
    }

    /// A role by its folded name, or 42704.
    pub fn get(&self, name: &str) -> Result<(RoleId, &Role)> {
        self.find(name).ok_or_else(|| {
            let message = format!("role \"{name}\" does not exist");
            Error::user(sqlstate::UNDEFINED_OBJECT, message)
        })
    }

    /// The name of a role, or its number when it is gone.
    pub fn name(&self, id: RoleId) -> String {
        self.role(id).map_or_else(|| id.0.to_string(), |role| role.name.clone())
    }

    /// All secrets by name.
    pub fn secrets(&self) -> impl Iterator<Item = (&String, &Secret)> {
        self.secrets.iter()
    }

    /// A secret by its folded name, or 42704.
    pub fn secret(&self, name: &str) -> Result<&Secret> {
        self.secrets.get(name).ok_or_else(|| {
            let message = format!("secret \"{name}\" does not exist");
            Error::user(sqlstate::UNDEFINED_OBJECT, message)
        })
    }

    /// Whether somebody can log in by a password; from then on everybody has to.
    pub fn authenticates(&self) -> bool {
        self.roles.values().any(|role| role.login && role.verifier.is_some())
    }

    /// Whether there is something to make salts of.
    pub fn has_decoy(&self) -> bool {
        !self.decoy.is_empty()
    }

    /// What the password of a role is compared with, and whether there is any that is right.
    pub fn verifier(&self, name: &str, now_us: i64) -> (Verifier, bool) {
        let role = self.find(name).map(|(_, role)| role);
        let valid = |role: &&Role| role.valid_until_us.is_none_or(|until| now_us < until);
        match role.and_then(|role| role.verifier.clone()) {
            Some(verifier) => (verifier, role.is_some_and(|role| valid(&role))),
            None => (Verifier::decoy(&self.decoy, name), false),
        }
    }

    /// Whether nothing is refused to a role.
    pub fn is_superuser(&self, id: RoleId) -> bool {
        self.role(id).is_some_and(|role| role.superuser)
    }

    /// Whether somebody who is a role can become a superuser by SET ROLE.
    pub fn leads_to_superuser(&self, role: &Role) -> bool {
        let reached = role.member_of.iter().flat_map(|group| self.rights_of(*group));
        role.superuser || reached.into_iter().any(|id| self.is_superuser(id))
    }

    /// Whether a role has the rights of another: it is that one, a member of it, or a superuser.
    pub fn has_role(&self, id: RoleId, other: RoleId) -> bool {
        self.is_superuser(id) || self.is_member(id, other)
    }

    /// Whether a role is another or a member of it, over others perhaps.
    pub fn is_member(&self, id: RoleId, of: RoleId) -> bool {
        self.rights_of(id).contains(&of)
    }

    /// A role and all that it is a member of.
    fn rights_of(&self, id: RoleId) -> BTreeSet<RoleId> {
        let (mut all, mut todo) = (BTreeSet::new(), vec![id]);
        while let Some(id) = todo.pop() {
            if let Some(role) = self.role(id).filter(|_| all.insert(id)) {
                todo.extend(role.member_of.iter().copied());
            }
        }
        all
    }

    /// Whether a role has a privilege on what an [`Acl`] is of.
    pub fn may(&self, id: RoleId, acl: &Acl, privilege: Privilege) -> bool {
        if self.role(id).is_none_or(|role| role.superuser) {
            return self.is_superuser(id);
        }
        if acl.grants.get(&RoleId::PUBLIC).is_some_and(|all| all.has(privilege)) {
            return true;
        }
        let rights = self.rights_of(id);
        let granted = |id: &RoleId| acl.grants.get(id).is_some_and(|some| some.has(privilege));
        rights.contains(&acl.owner) || rights.iter().any(granted)
    }

    /// Whether a role owns what an [`Acl`] is of, or may do as if it did.
    pub fn owns(&self, id: RoleId, acl: &Acl) -> bool {
        self.has_role(id, acl.owner)
    }
}

#[cfg(test)]
mod tests;
