//! Relations and what belongs to them: `pg_class`, `pg_attribute`, `pg_index`, `pg_constraint`,
//! `pg_attrdef`, and the views `pg_tables`, `pg_views`, `pg_matviews`, `pg_indexes`.

use std::sync::Arc;

use super::roles::role_oid;
use super::{
    CONSTRAINT, Cell, FIRST_OID, Facts, KEY_INDEX, OWNER_OID, PG_CATALOG, PUBLIC, Rows,
    SystemTable, cells, oid, quoted, relation, schema_oid, system_oid, tables, visible,
};
use crate::catalog::access::Privileges;
use crate::catalog::types::{limited_oid, type_modifier, type_oid, type_size};
use crate::catalog::{Catalog, Identity, Relation, RelationKind, written_in_full};

pub(super) const TABLES: &[SystemTable] = &[
    SystemTable {
        schema: "pg_catalog",
        name: "pg_description",
        columns: "objoid:i classoid:i objsubid:n description:t",
        rows: pg_description,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_class",
        columns: "oid:i relname:t relnamespace:i reltype:i reloftype:i relowner:i relam:i \
            relfilenode:i reltablespace:i relpages:n reltuples:f relallvisible:n reltoastrelid:i \
            relhasindex:b relisshared:b relpersistence:t relkind:t relnatts:s relchecks:s \
            relhasrules:b relhastriggers:b relhassubclass:b relrowsecurity:b \
            relforcerowsecurity:b relispopulated:b relreplident:t relispartition:b relrewrite:i \
            relfrozenxid:i relminmxid:i relacl:T reloptions:T relpartbound:t",
        rows: pg_class,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_attribute",
        columns: "attrelid:i attname:t atttypid:i attstattarget:n attlen:s attnum:s attndims:n \
            attcacheoff:n atttypmod:n attbyval:b attalign:t attstorage:t attcompression:t \
            attnotnull:b atthasdef:b atthasmissing:b attidentity:t attgenerated:t \
            attisdropped:b attislocal:b attinhcount:n attcollation:i attacl:T attoptions:T \
            attfdwoptions:T attmissingval:T",
        rows: pg_attribute,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_attrdef",
        columns: "oid:i adrelid:i adnum:s adbin:t",
        rows: pg_attrdef,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_index",
        columns: "indexrelid:i indrelid:i indnatts:s indnkeyatts:s indisunique:b \
            indnullsnotdistinct:b indisprimary:b indisexclusion:b indimmediate:b \
            indisclustered:b indisvalid:b indcheckxmin:b indisready:b indislive:b \
            indisreplident:b indkey:I indcollation:I indclass:I indoption:I indexprs:t indpred:t",
        rows: pg_index,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_constraint",
        columns: "oid:i conname:t connamespace:i contype:t condeferrable:b condeferred:b \
            convalidated:b conrelid:i contypid:i conindid:i conparentid:i confrelid:i \
            confupdtype:t confdeltype:t confmatchtype:t conislocal:b coninhcount:n \
            connoinherit:b conkey:I confkey:I conpfeqop:I conppeqop:I conffeqop:I \
            confdelsetcols:I conexclop:I conbin:t",
        rows: pg_constraint,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_tables",
        columns: "schemaname:t tablename:t tableowner:t tablespace:t hasindexes:b hasrules:b \
            hastriggers:b rowsecurity:b",
        rows: pg_tables,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_views",
        columns: "schemaname:t viewname:t viewowner:t definition:t",
        rows: pg_views,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_matviews",
        columns: "schemaname:t matviewname:t matviewowner:t tablespace:t hasindexes:b \
            ispopulated:b definition:t",
        rows: pg_matviews,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_indexes",
        columns: "schemaname:t tablename:t indexname:t tablespace:t indexdef:t",
        rows: pg_indexes,
    },
];

/// The letter of a relation's kind. A source is what comes nearest to a foreign table.
fn kind(relation: &Relation) -> &'static str {
    match relation.kind {
        RelationKind::Table { .. } => "r",
        RelationKind::Source | RelationKind::Sink => "f",
        RelationKind::View | RelationKind::System => "v",
        RelationKind::MaterializedView => "m",
        RelationKind::Index { .. } => "i",
        RelationKind::Sequence => "S",
    }
}

/// A row of `pg_class`: number, name, schema, kind, columns, checks, whether it has an index.
fn class(oid: i64, name: &str, schema: i64, kind: &str, sizes: (usize, usize, bool)) -> Vec<Cell> {
    let (columns, checks, index) = sizes;
    let access = match kind {
        "r" | "m" => 2,
        "i" => 403,
        _ => 0,
    };
    cells![
        oid,
        name,
        schema,
        0,
        0,
        OWNER_OID,
        access,
        oid,
        0,
        0,
        -1.0_f32,
        0,
        0,
        index,
        false,
        "p",
        kind,
        columns as i64,
        checks as i64,
        kind == "v",
        false,
        false,
        false,
        false,
        true,
        "d",
        false,
        0,
        0,
        0,
        Cell::Null,
        Cell::Null,
        Cell::Null,
    ]
}

/// The name of the owner of a relation.
fn owner(facts: &Facts<'_>, relation: &Relation) -> String {
    facts.catalog.access().name(relation.acl.owner)
}

fn pg_class(facts: &Facts<'_>) -> Rows {
    let mut rows = Vec::new();
    for known in tables() {
        let schema = schema_oid(facts.catalog, known.table.schema).unwrap_or(PG_CATALOG);
        let columns = known.relation.schema.fields().len();
        let kind = if schema == PG_CATALOG { "r" } else { "v" };
        rows.push(class(system_oid(known), known.table.name, schema, kind, (columns, 0, false)));
    }
    for r in visible(facts.catalog) {
        let (columns, checks) = (r.schema.fields().len(), r.rules.checks.len());
        let sizes = (columns, checks, has_index(facts.catalog, r));
        let granted = r.acl.items(facts.catalog.access(), &Privileges::RELATION);
        let schema = schema_oid(facts.catalog, r.schema_name()).unwrap_or(PUBLIC);
        let mut row = class(oid(r.id), r.local_name(), schema, kind(r), sizes);
        for (column, cell) in [(5, role_oid(r.acl.owner).into()), (30, granted.into())] {
            row[column] = cell;
        }
        rows.push(row);
        if !r.key.is_empty() {
            let (number, name) = (oid(r.id) + KEY_INDEX, format!("{}_pkey", r.local_name()));
            rows.push(class(number, &name, schema, "i", (r.key.len(), 0, false)));
        }
        for index in facts.catalog.indexes(r.id) {
            let sizes = (index.key.len(), 0, false);
            rows.push(class(oid(index.id), index.local_name(), schema, "i", sizes));
        }
    }
    rows
}

fn pg_attribute(facts: &Facts<'_>) -> Rows {
    let mut rows = Vec::new();
    for known in tables() {
        attributes(&known.relation, system_oid(known), &mut rows);
    }
    for r in visible(facts.catalog) {
        attributes(r, oid(r.id), &mut rows);
        for (i, column) in r.key.iter().enumerate() {
            rows.push(attribute(r, oid(r.id) + KEY_INDEX, *column, i));
        }
        for index in facts.catalog.indexes(r.id) {
            attributes(
                &Relation { key: Vec::new(), ..index.as_ref().clone() },
                oid(index.id),
                &mut rows,
            );
        }
    }
    rows
}

fn attributes(relation: &Relation, number: i64, rows: &mut Rows) {
    let fields = relation.schema.fields().len();
    rows.extend((0..fields).map(|i| attribute(relation, number, i, i)));
}

fn attribute(relation: &Relation, number: i64, column: usize, at: usize) -> Vec<Cell> {
    let field = relation.schema.field(column);
    let limit = relation.rules.lengths.get(&column);
    let computed = relation.rules.computed.contains_key(&column);
    let data_type = limit.map_or_else(|| type_oid(field.data_type()), limited_oid);
    let modifier = match limit {
        Some(limit) => i64::from(limit.characters) + 4,
        None => i64::from(type_modifier(field.data_type())),
    };
    let length = type_size(data_type);
    let array = matches!(field.data_type(), arrow::datatypes::DataType::List(_));
    let identity = relation.rules.identities.get(&column);
    let not_null = !field.is_nullable() || relation.key.contains(&column);
    cells![
        number,
        field.name().as_str(),
        i64::from(data_type),
        -1,
        i64::from(length),
        at as i64 + 1,
        i64::from(array),
        -1,
        modifier,
        length > 0 && length <= 8,
        "i",
        if length > 0 { "p" } else { "x" },
        "",
        not_null,
        relation.rules.defaults.contains_key(&column) && identity.is_none() || computed,
        false,
        match identity {
            Some(Identity::Always) => "a",
            Some(Identity::ByDefault) => "d",
            None => "",
        },
        if computed { "s" } else { "" },
        false,
        true,
        0,
        if data_type == crate::catalog::types::oid::TEXT || limit.is_some() { 100 } else { 0 },
        Cell::Null,
        Cell::Null,
        Cell::Null,
        Cell::Null,
    ]
}

/// The number of `pg_class`, which all objects with comments are of.
const PG_CLASS: i64 = 1259;

fn pg_description(facts: &Facts<'_>) -> Rows {
    let of = |r: &Arc<Relation>| {
        let row = |(column, text): (&String, &String)| {
            let at = match column.as_str() {
                "" => 0,
                column => r.schema.index_of(column).ok()? as i64 + 1,
            };
            Some(cells![oid(r.id), PG_CLASS, at, text.as_str()])
        };
        r.comments.iter().filter_map(row).collect::<Vec<_>>()
    };
    facts.catalog.relations().flat_map(of).collect()
}

fn pg_attrdef(facts: &Facts<'_>) -> Rows {
    let of = |r: &Arc<Relation>| {
        let number = oid(r.id);
        let row = move |(column, text): (&usize, &str)| {
            let at = *column as i64 + 1;
            cells![CONSTRAINT + number * 64 + at, number, at, text]
        };
        let own = |(column, _): &(&usize, _)| !r.rules.identities.contains_key(column);
        let defaults = r.rules.defaults.iter().filter(own);
        let defaults = defaults.map(|(column, text)| (column, text.as_str()));
        let computed = r.rules.computed.iter().map(|(column, rule)| (column, rule.text()));
        defaults.chain(computed).map(row).collect::<Vec<_>>()
    };
    visible(facts.catalog).flat_map(of).collect()
}

fn numbers(columns: &[usize]) -> Vec<i64> {
    columns.iter().map(|c| *c as i64 + 1).collect()
}

fn pg_index(facts: &Facts<'_>) -> Rows {
    let row = |(number, of, key, (unique, primary)): (i64, i64, &[usize], (bool, bool))| {
        let n = key.len();
        let zeros = vec![0_i64; n];
        cells![
            number,
            of,
            n as i64,
            n as i64,
            unique,
            false,
            primary,
            false,
            true,
            false,
            true,
            false,
            true,
            true,
            false,
            numbers(key),
            zeros.clone(),
            zeros.clone(),
            zeros,
            Cell::Null,
            Cell::Null,
        ]
    };
    let mut rows = Vec::new();
    for r in visible(facts.catalog) {
        let number = oid(r.id);
        if !r.key.is_empty() {
            rows.push(row((number + KEY_INDEX, number, &r.key, (true, true))));
        }
        for index in facts.catalog.indexes(r.id) {
            let unique = index.kind == RelationKind::Index { unique: true };
            rows.push(row((oid(index.id), number, &index.key, (unique, false))));
        }
    }
    rows
}

fn pg_constraint(facts: &Facts<'_>) -> Rows {
    let mut rows = Vec::new();
    for r in visible(facts.catalog) {
        let number = oid(r.id);
        let of = (number, schema_oid(facts.catalog, r.schema_name()).unwrap_or(PUBLIC));
        if !r.key.is_empty() {
            let (name, index) = (format!("{}_pkey", r.local_name()), number + KEY_INDEX);
            rows.push(constraint(of, 0, &name, "p", (index, numbers(&r.key))));
        }
        for (i, check) in r.rules.checks.iter().enumerate() {
            rows.push(constraint(of, i as i64 + 1, &check.name, "c", (0, Vec::new())));
        }
    }
    rows
}

/// Constraints of one relation have numbers beside each other.
fn constraint_oid(relation: i64, at: i64) -> i64 {
    CONSTRAINT + (relation - FIRST_OID) * 64 + at
}

/// The relation of a constraint and its place: 0 is the primary key.
pub(crate) fn constraint_owner(catalog: &Catalog, number: i64) -> Option<(&Arc<Relation>, usize)> {
    let at = number.checked_sub(CONSTRAINT)?;
    let owner = relation(catalog, FIRST_OID + at.div_euclid(64))?;
    Some((owner, usize::try_from(at.rem_euclid(64)).ok()?))
}

fn constraint(
    (relation, schema): (i64, i64),
    at: i64,
    name: &str,
    kind: &str,
    (index, key): (i64, Vec<i64>),
) -> Vec<Cell> {
    cells![
        constraint_oid(relation, at),
        name,
        schema,
        kind,
        false,
        false,
        true,
        relation,
        0,
        index,
        0,
        0,
        " ",
        " ",
        " ",
        true,
        0,
        true,
        key,
        Cell::Null,
        Cell::Null,
        Cell::Null,
        Cell::Null,
        Cell::Null,
        Cell::Null,
        Cell::Null,
    ]
}

/// The relation whose primary key an index is.
pub(crate) fn key_of_index(catalog: &Catalog, number: i64) -> Option<&Arc<Relation>> {
    relation(catalog, number.checked_sub(KEY_INDEX)?).filter(|r| !r.key.is_empty())
}

/// The index that was created with a number, and its relation.
pub(crate) fn index_with_number(
    catalog: &Catalog,
    number: i64,
) -> Option<(&Arc<Relation>, &Arc<Relation>)> {
    let index = relation(catalog, number)?;
    let made = matches!(index.kind, RelationKind::Index { .. });
    let of = index.depends_on.first().filter(|_| made)?;
    Some((catalog.by_id(*of)?, index))
}

fn has_index(catalog: &Catalog, relation: &Relation) -> bool {
    !relation.key.is_empty() || catalog.indexes(relation.id).next().is_some()
}

fn names_of(relation: &Relation, columns: &[usize]) -> String {
    let name = |c: &usize| quoted(relation.schema.field(*c).name());
    columns.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn key_columns(relation: &Relation) -> String {
    names_of(relation, &relation.key)
}

/// The CREATE INDEX that would make an index again.
pub(crate) fn index_text(of: &Relation, index: &Relation) -> String {
    format!(
        "CREATE {}INDEX {} ON {} USING hash ({})",
        if index.kind == (RelationKind::Index { unique: true }) { "UNIQUE " } else { "" },
        quoted(index.local_name()),
        written_in_full(&of.name),
        names_of(of, &index.key)
    )
}

/// `PRIMARY KEY (a, b)`.
pub(crate) fn key_constraint_text(relation: &Relation) -> String {
    format!("PRIMARY KEY ({})", key_columns(relation))
}

/// `CHECK ((a > 0))`.
pub(crate) fn check_constraint_text(relation: &Relation, at: usize) -> Option<String> {
    relation.rules.checks.get(at).map(|check| format!("CHECK (({}))", check.condition))
}

/// The CREATE INDEX that a primary key stands for.
pub(crate) fn key_index_text(relation: &Relation) -> String {
    format!(
        "CREATE UNIQUE INDEX {} ON {} USING hash ({})",
        quoted(&format!("{}_pkey", relation.local_name())),
        written_in_full(&relation.name),
        key_columns(relation)
    )
}

fn pg_tables(facts: &Facts<'_>) -> Rows {
    let tables = visible(facts.catalog).filter(|r| matches!(r.kind, RelationKind::Table { .. }));
    let row = |r: &Arc<Relation>| {
        let index = has_index(facts.catalog, r);
        cells![
            r.schema_name(),
            r.local_name(),
            owner(facts, r),
            Cell::Null,
            index,
            false,
            false,
            false
        ]
    };
    tables.map(row).collect()
}

fn pg_views(facts: &Facts<'_>) -> Rows {
    let views = visible(facts.catalog).filter(|r| r.kind == RelationKind::View);
    let row = |r: &Arc<Relation>| {
        cells![r.schema_name(), r.local_name(), owner(facts, r), r.query.clone()]
    };
    views.map(row).collect()
}

fn pg_matviews(facts: &Facts<'_>) -> Rows {
    let views = visible(facts.catalog).filter(|r| r.kind == RelationKind::MaterializedView);
    let row = |r: &Arc<Relation>| {
        let index = has_index(facts.catalog, r);
        cells![
            r.schema_name(),
            r.local_name(),
            owner(facts, r),
            Cell::Null,
            index,
            true,
            r.query.clone()
        ]
    };
    views.map(row).collect()
}

fn pg_indexes(facts: &Facts<'_>) -> Rows {
    let row = |r: &Relation, name: &str, text: String| {
        cells![r.schema_name(), r.local_name(), name, Cell::Null, text]
    };
    let mut rows = Vec::new();
    for r in visible(facts.catalog) {
        if !r.key.is_empty() {
            rows.push(row(r, &format!("{}_pkey", r.local_name()), key_index_text(r)));
        }
        for index in facts.catalog.indexes(r.id) {
            rows.push(row(r, index.local_name(), index_text(r, index)));
        }
    }
    rows
}
