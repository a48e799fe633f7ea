//! Statements about roles and what they may do: from what is said to what is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;

use super::outcome::{Notice, Outcome};
use super::rights::{Who, acl_of};
use super::schemas::schema_change;
use super::session::Session;
use super::set::setting_of;
use crate::catalog::access::{Access, AccessChange, Acl, OWNER, Role, RoleId, Verifier};
use crate::catalog::{
    Catalog, Definition, PUBLIC_SCHEMA, Relation, RelationId, RelationKind, written,
};
use crate::error::{Error, Result, sqlstate};
use crate::runtime::Coordinator;
use crate::sql::statement::{AccessStatement, Grant, GrantObject, RoleName, RoleOptions};

fn denied(what: impl Into<String>) -> Error {
    Error::user(sqlstate::INSUFFICIENT_PRIVILEGE, what)
}

impl Session {
    pub(super) async fn change_access(&mut self, statement: &AccessStatement) -> Result<Outcome> {
        match statement {
            AccessStatement::SetRole(role) => return self.set_role(role.as_deref()),
            AccessStatement::SetSession(role) => {
                return self.set_session_authorization(role.as_deref());
            }
            _ => {}
        }
        let tag = statement.tag();
        self.refuse_in_transaction(&tag)?;
        let core = self.engine.core.clone();
        let _one_at_a_time = self.turn(core.ddl.lock()).await?;
        let catalog = core.shared.catalog();
        let mut changes = self.changes_of(statement, &catalog)?;
        changes.extend(decoy_for(&catalog, &changes)?);
        if !changes.is_empty() {
            self.keep_changes(changes).await?;
        }
        self.warn_of_lock_out(&catalog, &core.shared.catalog());
        Ok(self.done(&tag))
    }

    /// Keeps changes, and makes them.
    pub(super) async fn keep_changes(&self, changes: Vec<AccessChange>) -> Result<()> {
        self.commit_point.pass();
        self.engine.core.coordinator.call(move |c| keep(c, changes)).await?
    }

    fn changes_of(
        &mut self,
        statement: &AccessStatement,
        catalog: &Catalog,
    ) -> Result<Vec<AccessChange>> {
        let access = catalog.access();
        match statement {
            AccessStatement::CreateRole { name, options } => {
                self.check_may_make_roles(access, options.superuser == Some(true))?;
                if access.find(name).is_some() {
                    let message = format!("role \"{name}\" already exists");
                    return Err(Error::user(sqlstate::DUPLICATE_OBJECT, message));
                }
                let id = access.next_id();
                let role = Role { name: name.clone(), ..Role::default() };
                self.role_changes(access, id, role, options)
            }
            AccessStatement::AlterRole { role, options } => {
                let (id, role) = self.role_named(access, role)?;
                let own = self.role() == Some(id) && only_password(options);
                if !own {
                    self.check_may_change(access, role)?;
                    self.check_may_make_roles(access, options.superuser.is_some())?;
                }
                self.role_changes(access, id, role.clone(), options)
            }
            AccessStatement::RoleSetting { role, name, values } => {
                let (id, role) = self.role_named(access, role)?;
                if self.role() != Some(id) {
                    self.check_may_change(access, role)?;
                }
                let change = self.role_setting(role.clone(), name.as_deref(), values.as_deref())?;
                Ok(vec![put(id, change)])
            }
            AccessStatement::RenameRole { name, to } => self.renamed_role(access, name, to),
            AccessStatement::DropRole { names, if_exists } => {
                self.dropped_roles(catalog, names, *if_exists)
            }
            AccessStatement::Grant(grant) => self.granted(catalog, grant),
            AccessStatement::Membership { roles, members, revoke } => {
                self.memberships(access, roles, members, *revoke)
            }
            AccessStatement::Defaults { of, schemas, privileges, roles, revoke } => {
                let change = |acl: &mut Acl, to| match revoke {
                    true => acl.revoke(to, *privileges),
                    false => acl.grant(to, *privileges),
                };
                self.default_changes(access, (of, schemas), roles, change)
            }
            AccessStatement::CreateSchema { name, if_not_exists, owner } => {
                self.created_schema(catalog, name.as_deref(), *if_not_exists, owner.as_ref())
            }
            AccessStatement::SchemaOwner { name, to } => self.schema_owner(access, name, to),
            AccessStatement::CreateSecret { name, if_not_exists, value } => {
                self.created_secret(catalog, (name, *if_not_exists), value)
            }
            AccessStatement::DropSecret { name, if_exists } => {
                self.dropped_secret(catalog, name, *if_exists)
            }
            AccessStatement::Owner { name, to, .. } => self.owner_changes(catalog, name, to),
            AccessStatement::SetRole(_) | AccessStatement::SetSession(_) => Ok(Vec::new()),
        }
    }

    fn renamed_role(&self, access: &Access, name: &str, to: &String) -> Result<Vec<AccessChange>> {
        let (id, role) = access.get(name)?;
        self.check_may_change(access, role)?;
        if access.find(to).is_some() {
            let message = format!("role \"{to}\" already exists");
            return Err(Error::user(sqlstate::DUPLICATE_OBJECT, message));
        }
        if id == RoleId::OWNER {
            return Err(Error::unsupported(format!("role \"{OWNER}\" keeps its name")));
        }
        Ok(vec![put(id, Role { name: to.clone(), ..role.clone() })])
    }

    /// What changes of the rights that others get to what some roles will make.
    fn default_changes(
        &self,
        access: &Access,
        (of, schemas): (&[RoleName], &[String]),
        to: &[RoleName],
        change: impl Fn(&mut Acl, RoleId),
    ) -> Result<Vec<AccessChange>> {
        let of = if of.is_empty() { &[RoleName::Current] } else { of };
        let mut changes = Vec::new();
        for name in of {
            let (id, role) = self.role_named(access, name)?;
            self.check_has_role(access, id)?;
            let (to, mut role) = (self.grantees(access, to)?, role.clone());
            let changed = |grants| {
                let mut acl = Acl { owner: id, grants };
                to.iter().for_each(|to| change(&mut acl, *to));
                acl.grants
            };
            if schemas.is_empty() {
                role.defaults = changed(role.defaults);
            }
            for schema in schemas {
                access.get_schema(schema)?;
                let grants = role.schema_defaults.remove(schema).unwrap_or_default();
                let grants = changed(grants);
                if !grants.is_empty() {
                    role.schema_defaults.insert(schema.clone(), grants);
                }
            }
            changes.push(put(id, role));
        }
        Ok(changes)
    }

    fn role_changes(
        &self,
        access: &Access,
        id: RoleId,
        mut role: Role,
        options: &RoleOptions,
    ) -> Result<Vec<AccessChange>> {
        role.superuser = options.superuser.unwrap_or(role.superuser);
        role.create_role = options.create_role.unwrap_or(role.create_role);
        role.login = options.login.unwrap_or(role.login);
        if id == RoleId::OWNER && !(role.superuser && role.login) {
            let message = format!("role \"{OWNER}\" is always a superuser that can log in");
            return Err(Error::user(sqlstate::DEPENDENT_OBJECTS_STILL_EXIST, message));
        }
        if let Some(password) = &options.password {
            role.verifier.clone_from(password);
        }
        role.connections_max = options.connections_max.unwrap_or(role.connections_max);
        if let Some(until) = &options.valid_until {
            role.valid_until_us = match until.to_ascii_lowercase().as_str() {
                "infinity" => None,
                _ => Some(moment(until)?),
            };
        }
        for name in &options.in_roles {
            let (group, other) = access.get(name)?;
            self.check_may_change(access, other)?;
            role.member_of.insert(group);
        }
        let mut changes = vec![put(id, role)];
        for name in &options.members {
            let (member, role) = access.get(name)?;
            self.check_may_change(access, role)?;
            if access.is_member(id, member) {
                return Err(circle(&access.name(id), name));
            }
            let mut role = role.clone();
            role.member_of.insert(id);
            changes.push(put(member, role));
        }
        Ok(changes)
    }

    /// A role whose sessions begin with another value, with the default, or with all of them.
    fn role_setting(
        &self,
        mut role: Role,
        name: Option<&str>,
        values: Option<&[String]>,
    ) -> Result<Role> {
        match (name, values) {
            (None, _) => role.settings.clear(),
            (Some(name), None) => drop(role.settings.remove(&name.to_lowercase())),
            (Some(name), Some(values)) => {
                let value = setting_of(name, values)?;
                // What a session could not begin with is refused now.
                self.values.of_session().set_at_startup(name, &value)?;
                role.settings.insert(name.to_lowercase(), value);
            }
        }
        Ok(role)
    }

    fn dropped_roles(
        &mut self,
        catalog: &Catalog,
        names: &[String],
        if_exists: bool,
    ) -> Result<Vec<AccessChange>> {
        let access = catalog.access();
        let mut changes = Vec::new();
        for name in names {
            let Some((id, role)) = access.find(name) else {
                if !if_exists {
                    access.get(name)?;
                }
                let text = format!("role \"{name}\" does not exist, skipping");
                self.notices.push(Notice::new(text));
                continue;
            };
            self.check_may_change(access, role)?;
            if [self.who.login, self.who.session, self.who.current].contains(&Some(id)) {
                let message = "current user cannot be dropped";
                return Err(Error::user(sqlstate::OBJECT_IN_USE, message));
            }
            if id == RoleId::OWNER {
                return Err(still_needed(name, vec!["it is there for every engine".into()]));
            }
            let needed = needed_by(catalog, id);
            if !needed.is_empty() {
                return Err(still_needed(name, needed));
            }
            changes.push(AccessChange::Role { id, role: None });
        }
        Ok(changes)
    }

    fn granted(&mut self, catalog: &Catalog, grant: &Grant) -> Result<Vec<AccessChange>> {
        let access = catalog.access();
        let to = self.grantees(access, &grant.roles)?;
        let changed = |acl: &Acl| {
            let mut acl = acl.clone();
            for role in &to {
                match grant.revoke {
                    true => acl.revoke(*role, grant.privileges),
                    false => acl.grant(*role, grant.privileges),
                }
            }
            acl
        };
        let relations: Vec<Arc<Relation>> = match &grant.on {
            GrantObject::Schemas(names) => {
                let of = |name: &String| {
                    self.check_owns_schema(access, name)?;
                    Ok(schema_change(access, name, changed(access.get_schema(name)?)))
                };
                return names.iter().map(of).collect();
            }
            GrantObject::All(schemas) | GrantObject::AllSequences(schemas) => {
                schemas.iter().try_for_each(|name| access.get_schema(name).map(drop))?;
                let inside = |r: &&Arc<Relation>| {
                    !r.kind.is_part() && schemas.iter().any(|name| name == r.schema_name())
                };
                let of_kind = |r: &&Arc<Relation>| {
                    let sequences = matches!(grant.on, GrantObject::AllSequences(_));
                    inside(r) && sequences == (r.kind == RelationKind::Sequence)
                };
                catalog.relations().filter(of_kind).cloned().collect()
            }
            GrantObject::Relations(names) | GrantObject::Sequences(names) => {
                let of = |name: &String| catalog.get(name).cloned();
                names.iter().map(of).collect::<Result<_>>()?
            }
        };
        let mut changes = Vec::new();
        for relation in relations {
            if relation.kind.is_part() {
                return Err(Error::user(
                    sqlstate::WRONG_OBJECT_TYPE,
                    format!("\"{}\" has the privileges of what it belongs to", relation.name),
                ));
            }
            if self.role().is_some_and(|role| !access.owns(role, &relation.acl)) {
                let (noun, name) = (relation.kind.noun(), &relation.name);
                return Err(denied(format!("permission denied for {noun} {name}")));
            }
            let acl = changed(&relation.acl);
            if acl != relation.acl {
                changes.push(AccessChange::Acl { on: relation.id, acl });
            }
        }
        Ok(changes)
    }

    fn memberships(
        &mut self,
        access: &Access,
        roles: &[String],
        members: &[RoleName],
        revoke: bool,
    ) -> Result<Vec<AccessChange>> {
        let groups: BTreeSet<RoleId> =
            roles.iter().map(|name| access.get(name).map(|(id, _)| id)).collect::<Result<_>>()?;
        for name in roles {
            self.check_may_change(access, access.get(name)?.1)?;
        }
        let mut changes = Vec::new();
        for name in members {
            let (id, role) = self.role_named(access, name)?;
            let mut role = role.clone();
            for group in &groups {
                if revoke {
                    role.member_of.remove(group);
                    continue;
                }
                if access.is_member(*group, id) {
                    return Err(circle(&access.name(*group), &role.name));
                }
                role.member_of.insert(*group);
            }
            changes.push(put(id, role));
        }
        Ok(changes)
    }

    fn owner_changes(
        &self,
        catalog: &Catalog,
        name: &str,
        to: &RoleName,
    ) -> Result<Vec<AccessChange>> {
        let relation = catalog.get(name)?;
        self.check_owner(name)?;
        let access = catalog.access();
        let (owner, _) = self.role_named(access, to)?;
        self.check_has_role(access, owner)?;
        if relation.kind.is_part() {
            let message = format!("cannot change the owner of \"{name}\": it belongs to another");
            return Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, message));
        }
        let mut acl = relation.acl.clone();
        acl.owner = owner;
        Ok(vec![AccessChange::Acl { on: relation.id, acl }])
    }

    pub(super) fn role_named<'a>(
        &self,
        access: &'a Access,
        name: &RoleName,
    ) -> Result<(RoleId, &'a Role)> {
        let id = match name {
            RoleName::Named(name) => return access.get(name),
            RoleName::Public => return access.get("public"),
            RoleName::Current => self.who.current,
            RoleName::Session => self.who.session,
        };
        let id = id.unwrap_or(RoleId::OWNER);
        let gone = || denied("the role of the session was dropped");
        access.role(id).map(|role| (id, role)).ok_or_else(gone)
    }

    fn grantees(&self, access: &Access, names: &[RoleName]) -> Result<Vec<RoleId>> {
        let of = |name: &RoleName| match name {
            RoleName::Public => Ok(RoleId::PUBLIC),
            name => self.role_named(access, name).map(|(id, _)| id),
        };
        names.iter().map(of).collect()
    }

    fn check_may_make_roles(&self, access: &Access, superuser: bool) -> Result<()> {
        let Some(id) = self.role() else { return Ok(()) };
        let role = access.role(id);
        if role.is_some_and(|role| role.superuser) {
            return Ok(());
        }
        if superuser {
            return Err(denied("must be superuser to change superuser attribute"));
        }
        match role.is_some_and(|role| role.create_role) {
            true => Ok(()),
            false => Err(denied("permission denied to create or alter roles")
                .with_detail("Only roles with the CREATEROLE attribute may.")),
        }
    }

    /// Whether the session may change a role, or make somebody a member of it.
    fn check_may_change(&self, access: &Access, role: &Role) -> Result<()> {
        self.check_may_make_roles(access, false)?;
        let own = self.role().is_none_or(|id| access.is_superuser(id));
        match own || !access.leads_to_superuser(role) {
            true => Ok(()),
            false => Err(denied("must be superuser to alter superusers")),
        }
    }

    pub(super) fn check_has_role(&self, access: &Access, id: RoleId) -> Result<()> {
        match self.role().is_none_or(|own| access.has_role(own, id)) {
            true => Ok(()),
            false => Err(denied(format!("must be member of role \"{}\"", access.name(id)))),
        }
    }

    fn set_role(&mut self, name: Option<&str>) -> Result<Outcome> {
        let catalog = self.engine.core.shared.catalog();
        let access = catalog.access();
        let role = match name {
            None => self.who.session,
            Some(name) => {
                let (id, _) = access.get(name)?;
                let may = self.who.session.is_none_or(|own| access.has_role(own, id));
                if !may {
                    return Err(denied(format!("permission denied to set role \"{name}\"")));
                }
                Some(id)
            }
        };
        self.become_who(Who { current: role, ..self.who });
        Ok(self.done("SET"))
    }

    fn set_session_authorization(&mut self, name: Option<&str>) -> Result<Outcome> {
        let catalog = self.engine.core.shared.catalog();
        let access = catalog.access();
        let role = match name {
            None => self.who.login,
            Some(name) => {
                let (id, _) = access.get(name)?;
                let own = self.who.login;
                if own.is_some_and(|own| own != id && !access.is_superuser(own)) {
                    let message =
                        format!("permission denied to set session authorization \"{name}\"");
                    return Err(denied(message));
                }
                Some(id)
            }
        };
        self.become_who(Who { session: role, current: role, ..self.who });
        Ok(self.done("SET"))
    }

    /// The first password is asked of everybody from then on, also of who wants to administrate.
    fn warn_of_lock_out(&mut self, before: &Catalog, after: &Catalog) {
        let administrates =
            |(_, role): (RoleId, &Role)| role.superuser && role.login && role.verifier.is_some();
        let (before, after) = (before.access(), after.access());
        if !before.authenticates() && after.authenticates() && !after.roles().any(administrates) {
            self.notices.push(Notice {
                severity: "WARNING",
                sqlstate: sqlstate::WARNING,
                message: "everybody who connects is asked for a password from here on, and no \
                          superuser has one"
                    .into(),
                hint: Some(format!("ALTER ROLE {OWNER} PASSWORD '..';")),
            });
        }
    }
}

/// Keeps changes, and makes them.
fn keep(c: &mut Coordinator, changes: Vec<AccessChange>) -> Result<()> {
    let on = |change: &AccessChange| match change {
        AccessChange::Acl { on, .. } => Some(*on),
        _ => None,
    };
    let relations: Vec<RelationId> = changes.iter().filter_map(on).collect();
    let record = Definition::Access(changes.clone());
    c.define(&record, &relations, |catalog| {
        catalog.change_access(&changes);
        Ok(())
    })
}

impl super::Engine {
    /// Whether those who connect have to say a password.
    pub fn authenticates(&self) -> bool {
        self.core.shared.catalog().access().authenticates()
    }

    /// What a client's password is compared with, and whether there is any that is right: who is
    /// not there looks like who is.
    pub(crate) fn verifier(&self, user: &str) -> (Verifier, bool) {
        // Passwords end by the clock on the wall, whatever that of the engine says.
        let now_us = chrono::Utc::now().timestamp_micros();
        self.core.shared.catalog().access().verifier(user, now_us)
    }

    /// How many sessions may log in as a role; superusers have no limit.
    pub(crate) fn connections_max(&self, user: &str) -> Option<u32> {
        let catalog = self.core.shared.catalog();
        let (_, role) = catalog.access().find(user)?;
        role.connections_max.filter(|_| !role.superuser)
    }

    /// Gives the owner a password, at the first start of an engine that wants one of everybody.
    ///
    /// # Errors
    ///
    /// 22023 when it is none, and those of writing it down.
    pub async fn set_owner_password(&self, password: &str) -> Result<()> {
        let options = RoleOptions {
            password: Some(Some(Verifier::of_password(password)?)),
            ..RoleOptions::default()
        };
        let role = RoleName::Named(OWNER.to_owned());
        let statement = AccessStatement::AlterRole { role, options };
        self.session().change_access(&statement).await.map(drop)
    }
}

/// The microseconds since 1970 of a time that is written as text.
fn moment(text: &str) -> Result<i64> {
    let data_type = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    match crate::expr::parse_value(text, &data_type)? {
        ScalarValue::TimestampMicrosecond(Some(us), _) => Ok(us),
        _ => Err(Error::internal("a time is none")),
    }
}

fn put(id: RoleId, role: Role) -> AccessChange {
    AccessChange::Role { id, role: Some(Box::new(role)) }
}

/// With the first password there is something that salts are made of.
fn decoy_for(catalog: &Catalog, changes: &[AccessChange]) -> Result<Option<AccessChange>> {
    let with_password = |change: &AccessChange| match change {
        AccessChange::Role { role: Some(role), .. } => role.verifier.is_some(),
        _ => false,
    };
    if catalog.access().has_decoy() || !changes.iter().any(with_password) {
        return Ok(None);
    }
    let random = || getrandom::u64().map_err(|e| Error::internal(e.to_string()));
    let (a, b) = (random()?, random()?);
    Ok(Some(AccessChange::Decoy(format!("{a:016x}{b:016x}"))))
}

fn only_password(options: &RoleOptions) -> bool {
    let password = options.password.clone();
    password.is_some() && *options == RoleOptions { password, ..RoleOptions::default() }
}

fn circle(role: &str, member: &str) -> Error {
    let message = format!("role \"{role}\" is a member of role \"{member}\"");
    Error::user(sqlstate::INVALID_GRANT_OPERATION, message)
}

fn still_needed(name: &str, needed: Vec<String>) -> Error {
    let message = format!("role \"{name}\" cannot be dropped because some objects depend on it");
    Error::user(sqlstate::DEPENDENT_OBJECTS_STILL_EXIST, message).with_detail(needed.join("\n"))
}

/// What a role owns, or has been granted something on.
fn needed_by(catalog: &Catalog, id: RoleId) -> Vec<String> {
    let mut needed = Vec::new();
    let access = catalog.access();
    let named = access.schemas().iter().map(|(name, schema)| (name.as_str(), &schema.acl));
    for (name, acl) in
        access.schema(PUBLIC_SCHEMA).map(|acl| (PUBLIC_SCHEMA, acl)).into_iter().chain(named)
    {
        if name != PUBLIC_SCHEMA && acl.owner == id {
            needed.push(format!("owner of schema {name}"));
        } else if acl.mentions(id) {
            needed.push(format!("privileges for schema {name}"));
        }
    }
    let own = catalog.access().secrets().filter(|(_, secret)| secret.owner == id);
    needed.extend(own.map(|(name, _)| format!("owner of secret {name}")));
    for relation in catalog.relations().filter(|r| !r.kind.is_part()) {
        let what = format!("{} {}", relation.kind.noun(), written(&relation.name));
        let acl = acl_of(catalog, relation);
        if acl.owner == id {
            needed.push(format!("owner of {what}"));
        } else if acl.mentions(id) {
            needed.push(format!("privileges for {what}"));
        }
    }
    needed
}
