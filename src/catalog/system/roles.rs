//! Roles: `pg_roles` and its relatives, `pg_auth_members`. Nobody is shown what is kept of a
//! password.

use super::{Facts, Rows, SystemTable, cells};
use crate::catalog::access::{Role, RoleId};

const OF_ROLES: &str = "oid:i rolname:t rolsuper:b rolinherit:b rolcreaterole:b rolcreatedb:b \
    rolcanlogin:b rolreplication:b rolconnlimit:n rolpassword:t rolvaliduntil:t rolbypassrls:b \
    rolconfig:T";

pub(super) const TABLES: &[SystemTable] = &[
    SystemTable { schema: "pg_catalog", name: "pg_roles", columns: OF_ROLES, rows: pg_roles },
    SystemTable { schema: "pg_catalog", name: "pg_authid", columns: OF_ROLES, rows: pg_roles },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_user",
        columns: "usename:t usesysid:i usecreatedb:b usesuper:b userepl:b usebypassrls:b \
            passwd:t valuntil:t useconfig:T",
        rows: pg_user,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_db_role_setting",
        columns: "setdatabase:i setrole:i setconfig:T",
        rows: pg_db_role_setting,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_group",
        columns: "groname:t grosysid:i grolist:I",
        rows: pg_group,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_auth_members",
        columns: "oid:i roleid:i member:i grantor:i admin_option:b",
        rows: pg_auth_members,
    },
];

/// The number of a role.
pub(super) fn role_oid(id: RoleId) -> i64 {
    i64::from(id.0)
}

/// What stands for a password.
fn password(role: &Role) -> Option<&'static str> {
    role.verifier.as_ref().map(|_| "********")
}

/// As a `timestamptz` is printed.
fn valid_until(role: &Role) -> Option<String> {
    let until = chrono::DateTime::from_timestamp_micros(role.valid_until_us?)?;
    Some(until.format("%F %T%.f+00").to_string())
}

/// What its sessions begin with.
fn settings(role: &Role) -> Option<Vec<String>> {
    let pairs = role.settings.iter().map(|(name, value)| format!("{name}={value}"));
    Some(pairs.collect()).filter(|pairs: &Vec<String>| !pairs.is_empty())
}

fn pg_db_role_setting(facts: &Facts<'_>) -> Rows {
    let row = |(id, role): (RoleId, &Role)| Some(cells![0, role_oid(id), settings(role)?]);
    facts.catalog.access().roles().filter_map(row).collect()
}

fn pg_roles(facts: &Facts<'_>) -> Rows {
    let row = |(id, role): (RoleId, &Role)| {
        cells![
            role_oid(id),
            role.name.as_str(),
            role.superuser,
            true,
            role.create_role || role.superuser,
            role.superuser,
            role.login,
            false,
            role.connections_max.map_or(-1, i64::from),
            password(role),
            valid_until(role),
            role.superuser,
            settings(role)
        ]
    };
    facts.catalog.access().roles().map(row).collect()
}

fn pg_user(facts: &Facts<'_>) -> Rows {
    let row = |(id, role): (RoleId, &Role)| {
        cells![
            role.name.as_str(),
            role_oid(id),
            role.superuser,
            role.superuser,
            false,
            role.superuser,
            password(role),
            valid_until(role),
            settings(role)
        ]
    };
    facts.catalog.access().roles().filter(|(_, role)| role.login).map(row).collect()
}

fn pg_group(facts: &Facts<'_>) -> Rows {
    let access = facts.catalog.access();
    let row = |(id, role): (RoleId, &Role)| {
        let members = access.roles().filter(|(_, member)| member.member_of.contains(&id));
        let members: Vec<i64> = members.map(|(id, _)| role_oid(id)).collect();
        cells![role.name.as_str(), role_oid(id), members]
    };
    access.roles().filter(|(_, role)| !role.login).map(row).collect()
}

fn pg_auth_members(facts: &Facts<'_>) -> Rows {
    let mut rows = Vec::new();
    for (member, role) in facts.catalog.access().roles() {
        for group in &role.member_of {
            let number = rows.len() as i64 + 1;
            rows.push(cells![
                number,
                role_oid(*group),
                role_oid(member),
                role_oid(RoleId::OWNER),
                false
            ]);
        }
    }
    rows
}
