//! What stands around relations: schemas, the database, settings, access methods.

use chrono::{Offset, TimeZone};
use chrono_tz::{OffsetComponents, OffsetName};

use crate::catalog::access::Privileges;

use super::roles::role_oid;
use super::{Cell, Facts, OWNER_OID, Rows, SystemTable, cells, schemas};

pub(super) const TABLES: &[SystemTable] = &[
    SystemTable {
        schema: "pg_catalog",
        name: "pg_timezone_names",
        columns: "name:t abbrev:t utc_offset:t is_dst:b",
        rows: pg_timezone_names,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_namespace",
        columns: "oid:i nspname:t nspowner:i nspacl:T",
        rows: pg_namespace,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_database",
        columns: "oid:i datname:t datdba:i encoding:n datlocprovider:t datistemplate:b \
            datallowconn:b datconnlimit:n datfrozenxid:i datminmxid:i dattablespace:i \
            datcollate:t datctype:t daticulocale:t datcollversion:t datacl:T",
        rows: pg_database,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_settings",
        columns: "name:t setting:t unit:t category:t short_desc:t extra_desc:t context:t \
            vartype:t source:t min_val:t max_val:t enumvals:T boot_val:t reset_val:t \
            sourcefile:t sourceline:n pending_restart:b",
        rows: pg_settings,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_am",
        columns: "oid:i amname:t amhandler:t amtype:t",
        rows: pg_am,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_tablespace",
        columns: "oid:i spcname:t spcowner:i spcacl:T spcoptions:T",
        rows: pg_tablespace,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_language",
        columns: "oid:i lanname:t lanowner:i lanispl:b lanpltrusted:b lanplcallfoid:i \
            laninline:i lanvalidator:i lanacl:T",
        rows: pg_language,
    },
];

/// The zones that have names, as they are at present.
fn pg_timezone_names(_: &Facts<'_>) -> Rows {
    let now = chrono::Utc::now().naive_utc();
    let row = |zone: &chrono_tz::Tz| {
        let offset = zone.offset_from_utc_datetime(&now);
        let seconds = offset.fix().local_minus_utc();
        let (sign, size) = if seconds < 0 { ("-", -seconds) } else { ("", seconds) };
        let (hours, minutes) = (size / 3_600, size / 60 % 60);
        cells![
            zone.name(),
            offset.abbreviation().unwrap_or_default(),
            format!("{sign}{hours:02}:{minutes:02}:{:02}", size % 60),
            offset.dst_offset() != chrono::TimeDelta::zero()
        ]
    };
    chrono_tz::TZ_VARIANTS.iter().map(row).collect()
}

fn pg_namespace(facts: &Facts<'_>) -> Rows {
    let access = facts.catalog.access();
    let row = |(oid, name): (i64, String)| {
        let acl = access.schema(&name);
        let owner = acl.map_or(OWNER_OID, |acl| role_oid(acl.owner));
        cells![oid, name, owner, acl.and_then(|acl| acl.items(access, &Privileges::SCHEMA))]
    };
    schemas(facts.catalog).into_iter().map(row).collect()
}

fn pg_database(facts: &Facts<'_>) -> Rows {
    vec![cells![
        5,
        facts.database,
        OWNER_OID,
        6,
        "c",
        false,
        true,
        -1,
        0,
        0,
        1663,
        "C",
        "C",
        Cell::Null,
        Cell::Null,
        Cell::Null
    ]]
}

/// A setting with its value.
#[derive(Debug, Clone, Default)]
pub struct SettingLine {
    /// Its name.
    pub name: String,
    /// Its value; an integer in the setting's own unit.
    pub value: String,
    /// Its value as SHOW prints it.
    pub shown: String,
    /// What it means.
    pub description: &'static str,
    /// `bool`, `integer`, `enum` or `string`.
    pub kind: &'static str,
    /// Who may change it.
    pub context: &'static str,
    /// Who has set it.
    pub source: &'static str,
    /// The value that it has after RESET.
    pub reset: String,
    /// The value that it has when nobody sets it.
    pub boot: &'static str,
    /// The unit of an integer.
    pub unit: Option<&'static str>,
    /// The least and the greatest integer.
    pub range: Option<(i64, i64)>,
    /// The words that it may be.
    pub words: Option<&'static [&'static str]>,
}

fn pg_settings(facts: &Facts<'_>) -> Rows {
    let row = |line: SettingLine| {
        let words = line.words.map(|words| words.iter().map(|w| (*w).to_owned()).collect());
        cells![
            line.name,
            line.value,
            line.unit,
            "Client Connection Defaults",
            line.description,
            Cell::Null,
            line.context,
            line.kind,
            line.source,
            line.range.map(|(min, _)| min.to_string()),
            line.range.map(|(_, max)| max.to_string()),
            words.map_or(Cell::Null, Cell::Texts),
            line.boot,
            line.reset,
            Cell::Null,
            Cell::Null,
            false,
        ]
    };
    (facts.settings)().into_iter().map(row).collect()
}

fn pg_am(_: &Facts<'_>) -> Rows {
    vec![cells![2, "heap", "heap_tableam_handler", "t"], cells![403, "hash", "hashhandler", "i"]]
}

fn pg_tablespace(_: &Facts<'_>) -> Rows {
    vec![cells![1663, "pg_default", OWNER_OID, Cell::Null, Cell::Null]]
}

fn pg_language(_: &Facts<'_>) -> Rows {
    vec![cells![14, "sql", OWNER_OID, false, true, 0, 0, 0, Cell::Null]]
}
