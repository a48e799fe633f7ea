//! `has_table_privilege` and its relatives: what a role may do. Without a role the session's is
//! meant.

use std::sync::Arc;

use super::{Facts, is_function, number, relation, text};
use crate::catalog::RelationKind;
use crate::catalog::access::{Acl, Privilege, Role, RoleId, no_schema};
use crate::catalog::system::{Cell, find, schemas};
use crate::error::{Error, Result, sqlstate};
use crate::sql::functions::FUNCTIONS;
use crate::sql::system::rewrite::class_of;

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
    who_of(facts, args, 2)
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

/// What privileges there are on kinds of objects, as these functions know them.
const ON_RELATION: &[&str] =
    &["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"];
const ON_COLUMN: &[&str] = &["SELECT", "INSERT", "UPDATE", "REFERENCES"];
const ON_SEQUENCE: &[&str] = &["USAGE", "SELECT", "UPDATE"];
const ON_SCHEMA: &[&str] = &["CREATE", "USAGE"];
const ON_DATABASE: &[&str] = &["CREATE", "TEMPORARY", "TEMP", "CONNECT"];
const ON_FUNCTION: &[&str] = &["EXECUTE"];

/// 22023 of a list with a privilege that a kind of objects does not know.
fn check_list(list: &str, known: &[&str]) -> Result<()> {
    for word in list.split(',').map(|word| word.trim().to_ascii_uppercase()) {
        if !known.contains(&word.strip_suffix(" WITH GRANT OPTION").unwrap_or(&word)) {
            let message = format!("unrecognized privilege type: \"{}\"", word.to_lowercase());
            return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message));
        }
    }
    Ok(())
}

/// The role, and the arguments behind it, of a function that takes so many without one.
fn who_of<'a>(
    facts: &Facts,
    args: &'a [Cell],
    without: usize,
) -> Result<Option<(RoleId, &'a [Cell])>> {
    match args.len() <= without {
        true => Ok(Some((facts.session.role.unwrap_or(RoleId::OWNER), args))),
        false => Ok(role_of(facts, args)?.map(|role| (role, args.get(1..).unwrap_or_default()))),
    }
}

/// What a role has on a relation; `None` where a number has none. Relations that describe the
/// definitions are there to be read.
fn on_named(facts: &Facts, role: RoleId, args: &[Cell], list: &str) -> Result<Option<bool>> {
    let Some(found) = relation(facts, args) else {
        return match args.first() {
            Some(Cell::Text(name)) => {
                class_of(&facts.catalog, &facts.path(), name)?;
                let read = list.split(',').any(|word| word.trim().eq_ignore_ascii_case("select"));
                Ok(Some(read || facts.catalog.access().is_superuser(role)))
            }
            _ => Ok(None),
        };
    };
    let owner = found.depends_on.first().filter(|_| found.kind.is_part());
    let acl = owner.and_then(|id| facts.catalog.by_id(*id)).map_or(&found.acl, |owner| &owner.acl);
    has_one(facts, role, acl, list).map(Some)
}

/// `has_table_privilege([role,] relation, privileges)`.
pub(super) fn on_relation(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let Some((role, args)) = who(facts, args)? else { return Ok(Cell::Null) };
    let Some(list) = text(args, 1) else { return Ok(Cell::Null) };
    let has = on_named(facts, role, args, list)?;
    check_list(list, ON_RELATION)?;
    Ok(has.into())
}

/// `has_any_column_privilege([role,] relation, privileges)`: what is granted is of all columns.
pub(super) fn on_some_column(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let Some((role, args)) = who(facts, args)? else { return Ok(Cell::Null) };
    let Some(list) = text(args, 1) else { return Ok(Cell::Null) };
    let has = on_named(facts, role, args, list)?;
    check_list(list, ON_COLUMN)?;
    Ok(has.into())
}

/// `has_column_privilege([role,] relation, column, privileges)`.
pub(super) fn on_column(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let Some((role, args)) = who_of(facts, args, 3)? else { return Ok(Cell::Null) };
    let Some(list) = text(args, 2) else { return Ok(Cell::Null) };
    let has = on_named(facts, role, args, list)?;
    let found = relation(facts, args).map(Arc::as_ref);
    let known = || match args.first() {
        Some(Cell::Text(name)) => find(None, name).map(|known| known.relation.as_ref()),
        _ => None,
    };
    if let Some(relation) = found.or_else(known) {
        let there = match args.get(1) {
            Some(Cell::Text(column)) => relation.schema.index_of(column).is_ok(),
            Some(Cell::Number(at)) => usize::try_from(*at)
                .is_ok_and(|at| (1..=relation.schema.fields().len()).contains(&at)),
            _ => return Ok(Cell::Null),
        };
        match args.get(1) {
            Some(Cell::Text(column)) if !there => {
                let name = relation.local_name();
                return Err(Error::user(
                    sqlstate::UNDEFINED_COLUMN,
                    format!("column \"{column}\" of relation \"{name}\" does not exist"),
                ));
            }
            _ if !there => return Ok(Cell::Null),
            _ => {}
        }
    }
    check_list(list, ON_COLUMN)?;
    Ok(has.into())
}

/// `has_sequence_privilege([role,] sequence, privileges)`.
pub(super) fn on_sequence(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let Some((role, args)) = who(facts, args)? else { return Ok(Cell::Null) };
    let Some(list) = text(args, 1) else { return Ok(Cell::Null) };
    let has = on_named(facts, role, args, list)?;
    let name = match relation(facts, args) {
        Some(found) => Some(found.local_name()).filter(|_| found.kind != RelationKind::Sequence),
        None => text(args, 0),
    };
    if let Some(name) = name {
        let message = format!("\"{name}\" is not a sequence");
        return Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, message));
    }
    check_list(list, ON_SEQUENCE)?;
    Ok(has.into())
}

/// `has_database_privilege([role,] database, privileges)`: nobody is kept from connecting.
pub(super) fn on_database(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let Some((_, args)) = who(facts, args)? else { return Ok(Cell::Null) };
    let Some(list) = text(args, 1) else { return Ok(Cell::Null) };
    if let Some(name) = text(args, 0).filter(|name| *name != facts.session.database) {
        let message = format!("database \"{name}\" does not exist");
        return Err(Error::user("3D000", message));
    }
    check_list(list, ON_DATABASE)?;
    Ok(true.into())
}

/// `has_function_privilege([role,] function, privileges)`: everybody may call all of them.
pub(super) fn on_function(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let Some((_, args)) = who(facts, args)? else { return Ok(Cell::Null) };
    let Some(list) = text(args, 1) else { return Ok(Cell::Null) };
    if let Some(signature) = text(args, 0) {
        let name = signature.split('(').next().unwrap_or_default().trim().to_lowercase();
        let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
        let known = FUNCTIONS.scalar.contains_key(name)
            || FUNCTIONS.aggregate.contains_key(name)
            || FUNCTIONS.window.contains_key(name)
            || is_function(name);
        if !known {
            let message = format!("function \"{signature}\" does not exist");
            return Err(Error::user(sqlstate::UNDEFINED_FUNCTION, message));
        }
    }
    check_list(list, ON_FUNCTION)?;
    Ok(true.into())
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
    check_list(list, ON_SCHEMA)?;
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
