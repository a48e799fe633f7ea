//! `has_table_privilege` and its relatives: what a role may do. Without a role the session's is
//! meant.

use super::{Facts, number, relation, text};
use crate::catalog::access::{Acl, Privilege, Role, RoleId, no_schema};
use crate::catalog::system::{Cell, schemas};
use crate::error::{Error, Result, sqlstate};

/// The role that an argument names by name or number.
fn role_of(facts: &Facts, args: &[Cell]) -> Result<Option<RoleId>> {
    let access = facts.catalog.access();
    match args.first() {
        Some(Cell::Number(number)) => {
            Ok(u32::try_from(*number).ok().map(RoleId).filter(|id| access.role(*id).is_some()))
        }
        Some(Cell::Text(name)) if name == "public" => Ok(Some(RoleId::PUBLIC)),
        // Whoever is trusted with everything has a name that is no role's.
        Some(Cell::Text(name))
            if facts.session.role.is_none() && *name == facts.session.session_user =>
        {
            Ok(Some(RoleId::OWNER))
        }
        Some(Cell::Text(name)) => Ok(Some(access.get(name)?.0)),
        _ => Ok(None),
    }
}

/// The role, and the arguments behind it.
fn who<'a>(facts: &Facts, args: &'a [Cell]) -> Result<Option<(RoleId, &'a [Cell])>> {
    match args.len() {
        0..3 => Ok(Some((facts.session.role.unwrap_or(RoleId::OWNER), args))),
        _ => Ok(role_of(facts, args)?.map(|role| (role, args.get(1..).unwrap_or_default()))),
    }
}

/// Whether a role has one of the privileges of a list, such as `SELECT, INSERT`.
fn has_one(facts: &Facts, role: RoleId, acl: &Acl, list: &str) -> Result<bool> {
    let mut has = false;
    for word in list.split(',') {
        let word = word.trim().to_ascii_uppercase();
        let name = word.strip_suffix(" WITH GRANT OPTION").unwrap_or(&word);
        let with_option = name.len() < word.len();
        let access = facts.catalog.access();
        has |= match Privilege::named(name) {
            Some(_) if with_option => access.owns(role, acl),
            Some(_) if role == RoleId::PUBLIC => {
                let all = acl.grants.get(&role);
                Privilege::named(name).is_some_and(|p| all.is_some_and(|all| all.has(p)))
            }
            Some(privilege) => access.may(role, acl, privilege),
            None if ["REFERENCES", "TRIGGER", "MAINTAIN"].contains(&name) => access.owns(role, acl),
            None => {
                let message = format!("unrecognized privilege type: \"{name}\"");
                return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message));
            }
        };
    }
    Ok(has)
}

/// `has_table_privilege([role,] table, privileges)`.
pub(super) fn on_relation(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let Some((role, args)) = who(facts, args)? else { return Ok(Cell::Null) };
    let Some(list) = text(args, 1) else { return Ok(Cell::Null) };
    let Some(found) = relation(facts, args) else {
        return match args.first() {
            // A number that nothing has, and what describes the definitions.
            Some(Cell::Text(name)) if crate::catalog::system::find(None, name).is_none() => {
                facts.catalog.get(name).map(|_| Cell::Null)
            }
            Some(Cell::Text(_)) => Ok(list.trim().eq_ignore_ascii_case("select").into()),
            _ => Ok(Cell::Null),
        };
    };
    let owner = found.depends_on.first().filter(|_| found.kind.is_part());
    let acl = owner.and_then(|id| facts.catalog.by_id(*id)).map_or(&found.acl, |owner| &owner.acl);
    Ok(has_one(facts, role, acl, list)?.into())
}

/// `has_schema_privilege([role,] schema, privileges)`.
pub(super) fn on_schema(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let Some((role, args)) = who(facts, args)? else { return Ok(Cell::Null) };
    let Some(list) = text(args, 1) else { return Ok(Cell::Null) };
    let access = facts.catalog.access();
    let named = match args.first() {
        Some(Cell::Text(name)) if !access.has_schema(name) => return Err(no_schema(name)),
        Some(Cell::Text(name)) => Some(name.clone()),
        Some(Cell::Number(number)) => {
            let all = schemas(&facts.catalog);
            all.into_iter().find(|(oid, _)| oid == number).map(|(_, name)| name)
        }
        _ => None,
    };
    let Some(name) = named else { return Ok(Cell::Null) };
    match access.schema(&name) {
        Some(acl) => Ok(has_one(facts, role, acl, list)?.into()),
        // Those of the system are there to be looked at.
        None => Ok((list.trim().eq_ignore_ascii_case("usage")
            || has_one(facts, role, &Acl::default(), list)?)
        .into()),
    }
}

/// `pg_has_role([role,] other, 'MEMBER' | 'USAGE')`.
pub(super) fn has_role(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let Some((role, args)) = who(facts, args)? else { return Ok(Cell::Null) };
    let Some(other) = role_of(facts, args)? else { return Ok(Cell::Null) };
    Ok(facts.catalog.access().has_role(role, other).into())
}

/// `pg_get_userbyid(number)`.
pub(super) fn role_name(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let Some(number) = number(args, 0) else { return Ok(Cell::Null) };
    let role: Option<&Role> =
        u32::try_from(number).ok().and_then(|id| facts.catalog.access().role(RoleId(id)));
    Ok(role.map_or_else(|| format!("unknown (OID={number})"), |role| role.name.clone()).into())
}
