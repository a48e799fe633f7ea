//! `information_schema`.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};

use super::typenames::{format_type, type_name};
use crate::catalog::access::OWNER;

use super::{Cell, Facts, Rows, SystemTable, cells, schemas, visible};
use crate::catalog::sequence::Sequence;
use crate::catalog::types::{limited_oid, type_oid};
use crate::catalog::{Catalog, Relation, RelationKind};
use crate::delta::text::{NUMERIC_PRECISION, NUMERIC_SCALE};

const fn table(
    name: &'static str,
    columns: &'static str,
    rows: fn(&Facts<'_>) -> Rows,
) -> SystemTable {
    SystemTable { schema: "information_schema", name, columns, rows }
}

pub(super) const TABLES: &[SystemTable] = &[
    table(
        "tables",
        "table_catalog:t table_schema:t table_name:t table_type:t \
         self_referencing_column_name:t reference_generation:t user_defined_type_catalog:t \
         user_defined_type_schema:t user_defined_type_name:t is_insertable_into:t is_typed:t \
         commit_action:t",
        tables,
    ),
    table(
        "columns",
        "table_catalog:t table_schema:t table_name:t column_name:t ordinal_position:n \
         column_default:t is_nullable:t data_type:t character_maximum_length:n \
         character_octet_length:n numeric_precision:n numeric_precision_radix:n \
         numeric_scale:n datetime_precision:n interval_type:t interval_precision:n \
         character_set_catalog:t character_set_schema:t character_set_name:t \
         collation_catalog:t collation_schema:t collation_name:t domain_catalog:t \
         domain_schema:t domain_name:t udt_catalog:t udt_schema:t udt_name:t scope_catalog:t \
         scope_schema:t scope_name:t maximum_cardinality:n dtd_identifier:t \
         is_self_referencing:t is_identity:t identity_generation:t identity_start:t \
         identity_increment:t identity_maximum:t identity_minimum:t identity_cycle:t \
         is_generated:t generation_expression:t is_updatable:t",
        columns,
    ),
    table(
        "views",
        "table_catalog:t table_schema:t table_name:t view_definition:t check_option:t \
         is_updatable:t is_insertable_into:t is_trigger_updatable:t is_trigger_deletable:t \
         is_trigger_insertable_into:t",
        views,
    ),
    table(
        "schemata",
        "catalog_name:t schema_name:t schema_owner:t default_character_set_catalog:t \
         default_character_set_schema:t default_character_set_name:t sql_path:t",
        schemata,
    ),
    table(
        "table_constraints",
        "constraint_catalog:t constraint_schema:t constraint_name:t table_catalog:t \
         table_schema:t table_name:t constraint_type:t is_deferrable:t initially_deferred:t \
         enforced:t nulls_distinct:t",
        table_constraints,
    ),
    table(
        "key_column_usage",
        "constraint_catalog:t constraint_schema:t constraint_name:t table_catalog:t \
         table_schema:t table_name:t column_name:t ordinal_position:n \
         position_in_unique_constraint:n",
        key_column_usage,
    ),
    table(
        "constraint_column_usage",
        "table_catalog:t table_schema:t table_name:t column_name:t constraint_catalog:t \
         constraint_schema:t constraint_name:t",
        constraint_column_usage,
    ),
    table(
        "check_constraints",
        "constraint_catalog:t constraint_schema:t constraint_name:t check_clause:t",
        check_constraints,
    ),
];

fn tables(facts: &Facts<'_>) -> Rows {
    let mut rows = Vec::new();
    // A materialized view is in no view of the standard; PostgreSQL leaves it out, too.
    let hidden = [RelationKind::MaterializedView, RelationKind::Sequence];
    for r in visible(facts.catalog).filter(|r| !hidden.contains(&r.kind)) {
        let (kind, insertable) = match r.kind {
            RelationKind::Table { .. } => ("BASE TABLE", "YES"),
            RelationKind::View => ("VIEW", "NO"),
            _ => ("FOREIGN", "NO"),
        };
        let null = Cell::Null;
        rows.push(cells![
            facts.database,
            r.schema_name(),
            r.local_name(),
            kind,
            null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
            insertable,
            "NO",
            Cell::Null,
        ]);
    }
    rows
}

fn columns(facts: &Facts<'_>) -> Rows {
    let mut rows = Vec::new();
    for r in visible(facts.catalog) {
        for i in 0..r.schema.fields().len() {
            rows.push(column(facts, r, i));
        }
    }
    rows
}

/// Precision, radix and scale of a number, and precision of a time.
fn precisions(data_type: &DataType) -> (Cell, Cell, Cell, Cell) {
    let null = || Cell::Null;
    let integer = |bits: i64| (Cell::from(bits), Cell::from(2), Cell::from(0), null());
    let float = |bits: i64| (Cell::from(bits), Cell::from(2), null(), null());
    match data_type {
        DataType::Int16 => integer(16),
        DataType::Int32 => integer(32),
        DataType::Int64 => integer(64),
        DataType::Float32 => float(24),
        DataType::Float64 => float(53),
        DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE) => {
            (null(), Cell::from(10), null(), null())
        }
        DataType::Decimal128(p, s) => {
            (Cell::from(i64::from(*p)), Cell::from(10), Cell::from(i64::from(*s)), null())
        }
        DataType::Date32 => (null(), null(), null(), Cell::from(0)),
        DataType::Timestamp(TimeUnit::Microsecond, _)
        | DataType::Time64(_)
        | DataType::Interval(_) => (null(), null(), null(), Cell::from(6)),
        _ => (null(), null(), null(), null()),
    }
}

fn column(facts: &Facts<'_>, relation: &Relation, at: usize) -> Vec<Cell> {
    let database = facts.database;
    let identity = relation.rules.identities.get(&at);
    let field = relation.schema.field(at);
    let limit = relation.rules.lengths.get(&at);
    let oid = limit.map_or_else(|| type_oid(field.data_type()), limited_oid);
    let oid = i64::from(oid);
    let nullable = field.is_nullable() && !relation.key.contains(&at);
    let sql = match field.data_type() {
        DataType::List(_) => "ARRAY".to_owned(),
        _ => format_type(oid, None),
    };
    let (precision, radix, scale, time) = precisions(field.data_type());
    let number = at as i64 + 1;
    let updatable = matches!(relation.kind, RelationKind::Table { .. });
    let mut row = cells![
        database,
        relation.schema_name(),
        relation.local_name(),
        field.name().as_str(),
        number,
        relation.rules.defaults.get(&at).filter(|_| identity.is_none()).cloned(),
        if nullable { "YES" } else { "NO" },
        sql,
        limit.map(|l| i64::from(l.characters)),
        if limit.is_some() || oid == 25 { Cell::from(1_073_741_824) } else { Cell::Null },
        precision,
        radix,
        scale,
        time,
    ];
    // Interval, character set, collation and domain.
    row.extend(std::iter::repeat_n(Cell::Null, 11));
    row.extend(cells![database, "pg_catalog", type_name(oid)]);
    row.extend(std::iter::repeat_n(Cell::Null, 4));
    row.extend(cells![number.to_string(), "NO"]);
    row.extend(identity_cells(facts.catalog, relation, at));
    let (generated, expression) = match relation.rules.computed.get(&at) {
        Some(rule) => ("ALWAYS", Cell::from(rule.text())),
        None => ("NEVER", Cell::Null),
    };
    row.extend(cells![generated, expression]);
    row.push(Cell::from(if updatable { "YES" } else { "NO" }));
    row
}

/// `is_identity` and what follows it up to `identity_cycle`.
fn identity_cells(catalog: &Catalog, relation: &Relation, at: usize) -> Vec<Cell> {
    let column = relation.schema.field(at).name();
    let of_column =
        |sequence: &Sequence| sequence.owner.as_ref().is_some_and(|owner| owner.column == *column);
    let identity = relation.rules.identities.get(&at);
    let mut owned = catalog.sequences_of(relation.id).filter_map(|r| r.sequence.as_ref());
    match (identity, owned.find(|sequence| of_column(sequence))) {
        (Some(identity), Some(Sequence { def, .. })) => cells![
            "YES",
            identity.to_string(),
            def.start.to_string(),
            def.increment.to_string(),
            def.max.to_string(),
            def.min.to_string(),
            if def.cycle { "YES" } else { "NO" },
        ],
        _ => {
            let null = || Cell::Null;
            cells!["NO", null(), null(), null(), null(), null(), "NO"]
        }
    }
}

fn views(facts: &Facts<'_>) -> Rows {
    let views = visible(facts.catalog).filter(|r| r.kind == RelationKind::View);
    let row = |r: &Arc<Relation>| {
        let (schema, name, query) = (r.schema_name(), r.local_name(), r.query.clone());
        cells![facts.database, schema, name, query, "NONE", "NO", "NO", "NO", "NO", "NO"]
    };
    views.map(row).collect()
}

fn schemata(facts: &Facts<'_>) -> Rows {
    let access = facts.catalog.access();
    let row = |(_, name): (i64, String)| {
        let owner = access.schema(&name).map_or_else(|| OWNER.into(), |acl| access.name(acl.owner));
        cells![facts.database, name, owner, Cell::Null, Cell::Null, Cell::Null, Cell::Null]
    };
    schemas(facts.catalog).into_iter().map(row).collect()
}

fn table_constraints(facts: &Facts<'_>) -> Rows {
    let mut rows = Vec::new();
    for r in visible(facts.catalog) {
        let (db, schema, table) = (facts.database, r.schema_name(), r.local_name());
        let row = |name: &str, kind: &str| {
            cells![db, schema, name, db, schema, table, kind, "NO", "NO", "YES", Cell::Null]
        };
        if !r.key.is_empty() {
            rows.push(row(&format!("{table}_pkey"), "PRIMARY KEY"));
        }
        rows.extend(r.rules.checks.iter().map(|check| row(&check.name, "CHECK")));
    }
    rows
}

/// The columns of all keys: relation, name of the constraint, column, place.
fn keys<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = (&'a Relation, String, &'a str, i64)> {
    visible(facts.catalog).flat_map(|r| {
        let column = move |(i, c): (usize, &usize)| {
            let name = format!("{}_pkey", r.local_name());
            (r.as_ref(), name, r.schema.field(*c).name().as_str(), i as i64 + 1)
        };
        r.key.iter().enumerate().map(column)
    })
}

fn key_column_usage(facts: &Facts<'_>) -> Rows {
    let db = facts.database;
    let row = |(r, name, column, at): (&Relation, String, &str, i64)| {
        let (schema, table) = (r.schema_name(), r.local_name());
        cells![db, schema, name, db, schema, table, column, at, Cell::Null]
    };
    keys(facts).map(row).collect()
}

fn constraint_column_usage(facts: &Facts<'_>) -> Rows {
    let db = facts.database;
    let row = |(r, name, column, _): (&Relation, String, &str, i64)| {
        let (schema, table) = (r.schema_name(), r.local_name());
        cells![db, schema, table, column, db, schema, name]
    };
    keys(facts).map(row).collect()
}

fn check_constraints(facts: &Facts<'_>) -> Rows {
    let mut rows = Vec::new();
    for r in visible(facts.catalog) {
        for check in &r.rules.checks {
            let clause = format!("({})", check.condition);
            rows.push(cells![facts.database, r.schema_name(), check.name.as_str(), clause]);
        }
    }
    rows
}
