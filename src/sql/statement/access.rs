//! Statements about roles and what they may do.

use crate::catalog::access::{Privileges, SecretValue, Verifier};

/// A statement about roles and what they may do.
#[derive(Debug, Clone)]
pub enum AccessStatement {
    /// CREATE ROLE | USER.
    CreateRole {
        /// The folded name.
        name: String,
        /// What it is like.
        options: RoleOptions,
    },
    /// ALTER ROLE | USER.
    AlterRole {
        /// Which one.
        role: RoleName,
        /// What becomes of it.
        options: RoleOptions,
    },
    /// ALTER ROLE .. SET and RESET: what its sessions begin with.
    RoleSetting {
        /// Which one.
        role: RoleName,
        /// The folded name of the setting; all of them where there is none.
        name: Option<String>,
        /// The values as texts; none for RESET and DEFAULT.
        values: Option<Vec<String>>,
    },
    /// ALTER ROLE .. RENAME TO.
    RenameRole {
        /// The folded name.
        name: String,
        /// The new one.
        to: String,
    },
    /// DROP ROLE | USER.
    DropRole {
        /// The folded names.
        names: Vec<String>,
        /// IF EXISTS.
        if_exists: bool,
    },
    /// GRANT and REVOKE of privileges.
    Grant(Grant),
    /// GRANT and REVOKE of memberships.
    Membership {
        /// The folded names of the roles whose rights are given.
        roles: Vec<String>,
        /// Who gets or loses them.
        members: Vec<RoleName>,
        /// REVOKE.
        revoke: bool,
    },
    /// ALTER DEFAULT PRIVILEGES.
    Defaults {
        /// Whose; the one that runs it where there is none.
        of: Vec<RoleName>,
        /// IN SCHEMA: the folded names; in all where there is none.
        schemas: Vec<String>,
        /// What is granted or revoked.
        privileges: Privileges,
        /// Who gets or loses it.
        roles: Vec<RoleName>,
        /// REVOKE.
        revoke: bool,
    },
    /// ALTER .. OWNER TO.
    Owner {
        /// The kind that was written.
        noun: &'static str,
        /// The folded name of the relation.
        name: String,
        /// The new owner.
        to: RoleName,
    },
    /// CREATE SCHEMA.
    CreateSchema {
        /// The folded name; that of the owner where there is none.
        name: Option<String>,
        /// IF NOT EXISTS.
        if_not_exists: bool,
        /// AUTHORIZATION.
        owner: Option<RoleName>,
    },
    /// ALTER SCHEMA .. OWNER TO.
    SchemaOwner {
        /// The folded name.
        name: String,
        /// The new owner.
        to: RoleName,
    },
    /// CREATE SECRET.
    CreateSecret {
        /// The folded name.
        name: String,
        /// IF NOT EXISTS.
        if_not_exists: bool,
        /// Where the value is.
        value: SecretValue,
    },
    /// DROP SECRET.
    DropSecret {
        /// The folded name.
        name: String,
        /// IF EXISTS.
        if_exists: bool,
    },
    /// SET ROLE; `None` for NONE.
    SetRole(Option<String>),
    /// SET SESSION AUTHORIZATION; `None` for DEFAULT.
    SetSession(Option<String>),
}

/// A role, as it is named where one is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleName {
    /// Its folded name.
    Named(String),
    /// CURRENT_USER, CURRENT_ROLE.
    Current,
    /// SESSION_USER.
    Session,
    /// PUBLIC.
    Public,
}

/// GRANT and REVOKE of privileges.
#[derive(Debug, Clone)]
pub struct Grant {
    /// What; for ALL everything that the object has.
    pub privileges: Privileges,
    /// On what.
    pub on: GrantObject,
    /// Who gets or loses them.
    pub roles: Vec<RoleName>,
    /// REVOKE.
    pub revoke: bool,
}

/// What privileges are of.
#[derive(Debug, Clone)]
pub enum GrantObject {
    /// SEQUENCE s, ..
    Sequences(Vec<String>),
    /// ALL SEQUENCES IN SCHEMA s, ..
    AllSequences(Vec<String>),
    /// Relations, by their folded names.
    Relations(Vec<String>),
    /// ALL TABLES IN SCHEMA, by the folded names of schemas.
    All(Vec<String>),
    /// SCHEMA, by the folded names.
    Schemas(Vec<String>),
}

/// The options of CREATE and ALTER ROLE that are written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RoleOptions {
    /// SUPERUSER, NOSUPERUSER.
    pub superuser: Option<bool>,
    /// CREATEROLE, NOCREATEROLE.
    pub create_role: Option<bool>,
    /// LOGIN, NOLOGIN.
    pub login: Option<bool>,
    /// PASSWORD; the inner `None` takes it away.
    pub password: Option<Option<Verifier>>,
    /// CONNECTION LIMIT; the inner `None` is no limit.
    pub connections_max: Option<Option<u32>>,
    /// VALID UNTIL: the text of the time.
    pub valid_until: Option<String>,
    /// IN ROLE: the folded names.
    pub in_roles: Vec<String>,
    /// ROLE: the folded names of members.
    pub members: Vec<String>,
}

impl AccessStatement {
    /// Whether it changes what is kept, and not the session alone.
    pub fn is_kept(&self) -> bool {
        !matches!(self, Self::SetRole(_) | Self::SetSession(_))
    }

    /// What the statement is called.
    pub fn tag(&self) -> String {
        let word = |revoke: bool| if revoke { "REVOKE" } else { "GRANT" };
        match self {
            Self::CreateRole { .. } => "CREATE ROLE".into(),
            Self::AlterRole { .. } | Self::RoleSetting { .. } | Self::RenameRole { .. } => {
                "ALTER ROLE".into()
            }
            Self::DropRole { .. } => "DROP ROLE".into(),
            Self::Grant(grant) => word(grant.revoke).into(),
            Self::Membership { revoke, .. } => format!("{} ROLE", word(*revoke)),
            Self::Defaults { .. } => "ALTER DEFAULT PRIVILEGES".into(),
            Self::CreateSchema { .. } => "CREATE SCHEMA".into(),
            Self::SchemaOwner { .. } => "ALTER SCHEMA".into(),
            Self::CreateSecret { .. } => "CREATE SECRET".into(),
            Self::DropSecret { .. } => "DROP SECRET".into(),
            Self::Owner { noun, .. } => format!("ALTER {}", noun.to_uppercase()),
            Self::SetRole(_) | Self::SetSession(_) => "SET".into(),
        }
    }
}
