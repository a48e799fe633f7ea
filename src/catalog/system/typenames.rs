//! `pg_type`: the types that columns have and those that clients expect to find.

use super::{Cell, Facts, OWNER_OID, PG_CATALOG, Rows, SystemTable, cells};

pub(super) const TABLES: &[SystemTable] = &[SystemTable {
    schema: "pg_catalog",
    name: "pg_type",
    columns: "oid:i typname:t typnamespace:i typowner:i typlen:s typbyval:b typtype:t \
        typcategory:t typispreferred:b typisdefined:b typdelim:t typrelid:i typsubscript:t \
        typelem:i typarray:i typinput:t typoutput:t typreceive:t typsend:t typmodin:t \
        typmodout:t typanalyze:t typalign:t typstorage:t typnotnull:b typbasetype:i \
        typtypmod:n typndims:n typcollation:i typdefaultbin:t typdefault:t typacl:T",
    rows: pg_type,
}];

/// A type: number, catalog name, length, category, number of its array, name in SQL.
type Type = (i64, &'static str, i64, &'static str, i64, &'static str);

#[rustfmt::skip]
const TYPES: &[Type] = &[
    (16, "bool", 1, "B", 1000, "boolean"),
    (17, "bytea", -1, "U", 1001, "bytea"),
    (18, "char", 1, "Z", 1002, "\"char\""),
    (19, "name", 64, "S", 1003, "name"),
    (20, "int8", 8, "N", 1016, "bigint"),
    (21, "int2", 2, "N", 1005, "smallint"),
    (22, "int2vector", -1, "A", 1006, "int2vector"),
    (23, "int4", 4, "N", 1007, "integer"),
    (24, "regproc", 4, "N", 1008, "regproc"),
    (25, "text", -1, "S", 1009, "text"),
    (26, "oid", 4, "N", 1028, "oid"),
    (30, "oidvector", -1, "A", 1013, "oidvector"),
    (114, "json", -1, "U", 199, "json"),
    (700, "float4", 4, "N", 1021, "real"),
    (701, "float8", 8, "N", 1022, "double precision"),
    (705, "unknown", -2, "X", 0, "unknown"),
    (1042, "bpchar", -1, "S", 1014, "character"),
    (1043, "varchar", -1, "S", 1015, "character varying"),
    (1082, "date", 4, "D", 1182, "date"),
    (1083, "time", 8, "D", 1183, "time without time zone"),
    (1114, "timestamp", 8, "D", 1115, "timestamp without time zone"),
    (1184, "timestamptz", 8, "D", 1185, "timestamp with time zone"),
    (1186, "interval", 16, "T", 1187, "interval"),
    (1700, "numeric", -1, "N", 1231, "numeric"),
    (2205, "regclass", 4, "N", 2210, "regclass"),
    (2206, "regtype", 4, "N", 2211, "regtype"),
    (2249, "record", -1, "P", 2287, "record"),
    (2278, "void", 4, "P", 0, "void"),
    (2950, "uuid", 16, "U", 2951, "uuid"),
    (3802, "jsonb", -1, "U", 3807, "jsonb"),
];

fn pg_type(_: &Facts<'_>) -> Rows {
    let mut rows = Vec::new();
    for (oid, name, length, category, array, _) in TYPES {
        rows.push(row(*oid, name, *length, category, (0, *array)));
        if *array != 0 {
            rows.push(row(*array, &format!("_{name}"), -1, "A", (*oid, 0)));
        }
    }
    rows
}

fn row(
    oid: i64,
    name: &str,
    length: i64,
    category: &str,
    (element, array): (i64, i64),
) -> Vec<Cell> {
    let kind = if category == "P" || category == "X" { "p" } else { "b" };
    let function = |suffix: &str| match element {
        0 => format!("{name}{suffix}"),
        _ => format!("array_{}", suffix.trim_start_matches('_')),
    };
    let preferred = [16, 25, 26, 701, 1184, 1186].contains(&oid);
    cells![
        oid,
        name,
        PG_CATALOG,
        OWNER_OID,
        length,
        length > 0 && length <= 8,
        kind,
        category,
        preferred,
        true,
        ",",
        0,
        Cell::Null,
        element,
        array,
        function("in"),
        function("out"),
        function("recv"),
        function("send"),
        "-",
        "-",
        "-",
        "i",
        if length > 0 { "p" } else { "x" },
        false,
        0,
        -1,
        0,
        if [25, 1042, 1043].contains(&oid) { 100 } else { 0 },
        Cell::Null,
        Cell::Null,
        Cell::Null,
    ]
}

/// The name of a type in SQL, with its modifier: `numeric(10,2)`, `integer[]`.
pub(crate) fn format_type(oid: i64, modifier: Option<i64>) -> String {
    if let Some((_, _, _, _, _, name)) = TYPES.iter().find(|t| t.0 == oid) {
        return match modifier.filter(|m| *m >= 4) {
            Some(m) if oid == 1700 => {
                format!("numeric({},{})", (m - 4) >> 16 & 0xffff, (m - 4) & 0x7ff)
            }
            Some(m) if oid == 1043 || oid == 1042 => format!("{name}({})", m - 4),
            _ => (*name).to_owned(),
        };
    }
    match TYPES.iter().find(|t| t.4 == oid && oid != 0) {
        Some(element) => format!("{}[]", format_type(element.0, modifier)),
        None => "???".to_owned(),
    }
}

/// The number of a type by either of its names.
pub(crate) fn type_by_name(name: &str) -> Option<i64> {
    if let Some(element) = name.strip_suffix("[]") {
        return TYPES.iter().find(|t| t.1 == element || t.5 == element).map(|t| t.4);
    }
    TYPES.iter().find(|t| t.1 == name || t.5 == name).map(|t| t.0)
}

/// The catalog name of a type by number.
pub(crate) fn type_name(oid: i64) -> String {
    if let Some(found) = TYPES.iter().find(|t| t.0 == oid) {
        return found.1.to_owned();
    }
    TYPES.iter().find(|t| t.4 == oid).map_or_else(|| "unknown".into(), |t| format!("_{}", t.1))
}
