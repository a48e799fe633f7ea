//! `nextval` and its kin: which sequence is meant, and whether the role may.

use std::sync::Arc;

use super::{Cell, Facts, number, text};
use crate::catalog::access::Privilege;
use crate::catalog::system as catalog;
use crate::catalog::{Relation, RelationKind};
use crate::error::{Error, Result, sqlstate};
use crate::sql::system::Sequences;
use crate::sql::system::rewrite::class_of;

/// The sequence that the first argument names, or has the number of; none for NULL. Any of some
/// privileges will do.
fn sequence<'a>(
    facts: &'a Facts,
    args: &[Cell],
    privileges: &[Privilege],
) -> Result<Option<(Arc<Relation>, &'a dyn Sequences)>> {
    let name = match args.first() {
        None | Some(Cell::Null) => return Ok(None),
        Some(Cell::Number(number)) => number.to_string(),
        _ => text(args, 0).unwrap_or_default().to_owned(),
    };
    let Some(sequences) = facts.session.sequences.as_deref() else {
        return Err(Error::unsupported("nothing gives numbers here"));
    };
    // A DEFAULT is bound without definitions, and those of the plan may be older.
    let now = sequences.catalog();
    let path = facts.session.search_path(&now);
    let found = class_of(&now, &path, &name).map(|oid| catalog::relation(&now, oid))?;
    let found = found.cloned().ok_or_else(|| {
        let message = format!("relation \"{name}\" does not exist");
        Error::user(sqlstate::UNDEFINED_TABLE, message)
    })?;
    if found.kind != RelationKind::Sequence {
        let message = format!("\"{}\" is not a sequence", found.local_name());
        return Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, message));
    }
    let may = |role| privileges.iter().any(|p| now.access().may(role, &found.acl, *p));
    if facts.session.role.is_some_and(|role| !may(role)) {
        let message = format!("permission denied for sequence {}", found.local_name());
        return Err(Error::user(sqlstate::INSUFFICIENT_PRIVILEGE, message));
    }
    Ok(Some((found, sequences)))
}

pub(super) fn nextval(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let found = sequence(facts, args, &[Privilege::Usage, Privilege::Update])?;
    let value = found.map(|(sequence, sequences)| sequences.next(&sequence));
    Ok(value.transpose()?.into())
}

pub(super) fn currval(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let found = sequence(facts, args, &[Privilege::Usage, Privilege::Select])?;
    let value = found.map(|(sequence, sequences)| sequences.current(&sequence));
    Ok(value.transpose()?.into())
}

pub(super) fn lastval(facts: &Facts, _: &[Cell]) -> Result<Cell> {
    let value = facts.session.sequences.as_deref().map(Sequences::last);
    Ok(value.transpose()?.into())
}

/// `setval(sequence, value [, is_called])`: the value.
pub(super) fn setval(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let Some((sequence, sequences)) = sequence(facts, args, &[Privilege::Update])? else {
        return Ok(Cell::Null);
    };
    let called = match args.get(2) {
        None => true,
        Some(Cell::Bool(called)) => *called,
        _ => return Ok(Cell::Null),
    };
    let Some(value) = number(args, 1) else { return Ok(Cell::Null) };
    sequences.set(&sequence, value, called)?;
    Ok(Cell::Number(value))
}

/// `pg_sequence_last_value(oid)`.
pub(super) fn last_value(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let found = sequence(facts, args, &[Privilege::Usage, Privilege::Select])?;
    let at = found.and_then(|(sequence, sequences)| sequences.standing(&sequence));
    Ok(at.filter(|at| at.called).map(|at| at.value).into())
}

/// `pg_get_serial_sequence(table, column)`: the name of the sequence that belongs to it.
pub(super) fn of_column(facts: &Facts, args: &[Cell]) -> Result<Cell> {
    let (Some(table), Some(column)) = (text(args, 0), text(args, 1)) else {
        return Ok(Cell::Null);
    };
    let oid = class_of(&facts.catalog, &facts.path(), table)?;
    let Some(table) = catalog::relation(&facts.catalog, oid) else { return Ok(Cell::Null) };
    if table.schema.index_of(column).is_err() {
        let message =
            format!("column \"{column}\" of relation \"{}\" does not exist", table.local_name());
        return Err(Error::user(sqlstate::UNDEFINED_COLUMN, message));
    }
    let owns = |r: &&Arc<Relation>| {
        let owner = r.sequence.as_ref().and_then(|sequence| sequence.owner.as_ref());
        owner.is_some_and(|owner| owner.column == column)
    };
    let found = facts.catalog.sequences_of(table.id).find(owns);
    let name = |r: &Arc<Relation>| {
        format!("{}.{}", catalog::quoted(r.schema_name()), catalog::quoted(r.local_name()))
    };
    Ok(found.map(name).into())
}
