//! The system catalog: `pg_catalog` and `information_schema` as relations whose rows are made of
//! the catalog when they are read.
//!
//! A table is a name, its columns in a short form (`oid:i relname:t`) and a function that makes its
//! rows; those that describe what is not here (policies, triggers, ..) have columns and no rows.
//! Numbers of objects: a relation's id above [`FIRST_OID`], its primary key's index and constraint
//! at fixed distances from it.

mod classes;
mod cluster;
mod empty;
mod history;
mod information;
mod roles;
mod sequences;
mod typenames;

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    Int64Builder, ListBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::access::{Acl, SYSTEM_SCHEMAS};
use super::sequence::SequenceAt;
use super::{
    Catalog, Comments, PUBLIC_SCHEMA, Relation, RelationId, RelationKind, WriteRules, qualified,
};
use crate::error::Result;

pub(crate) use classes::{
    check_constraint_text, constraint_owner, index_text, index_with_number, key_constraint_text,
    key_index_text, key_of_index,
};
pub use cluster::SettingLine;
pub use history::{EventLine, MetricLine, Past};
pub(crate) use typenames::{format_type, type_by_name};

/// The first number that an object of a user has.
pub(crate) const FIRST_OID: i64 = 16_384;
/// The index of a relation's primary key.
pub(crate) const KEY_INDEX: i64 = 1 << 29;
/// The constraint of a relation's primary key; CHECK constraints follow it.
pub(crate) const CONSTRAINT: i64 = 1 << 30;
/// The schemas.
pub(crate) const PG_CATALOG: i64 = 11;
pub(crate) const PUBLIC: i64 = 2200;
pub(crate) const INFORMATION_SCHEMA: i64 = 13_000;
pub(crate) const HEADWATER: i64 = 13_001;
/// The owner of what nobody has made.
pub(crate) const OWNER_OID: i64 = 10;

/// What rows are made of.
pub(crate) struct Facts<'a> {
    /// The definitions.
    pub(crate) catalog: &'a Catalog,
    /// The database that the client has named.
    pub(crate) database: &'a str,
    /// Settings with their values.
    pub(crate) settings: &'a dyn Fn() -> Vec<SettingLine>,
    /// Where a sequence stands.
    pub(crate) standing: &'a dyn Fn(&Relation) -> Option<SequenceAt>,
    /// What has happened before.
    pub(crate) past: &'a dyn Past,
}

/// A value of a system table.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Null,
    Bool(bool),
    Number(i64),
    Real(f32),
    Double(f64),
    /// Microseconds since 1970.
    Time(i64),
    Text(String),
    Numbers(Vec<i64>),
    Texts(Vec<String>),
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Number(value)
    }
}

impl From<f32> for Cell {
    fn from(value: f32) -> Self {
        Self::Real(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<i64>> for Cell {
    fn from(value: Vec<i64>) -> Self {
        Self::Numbers(value)
    }
}

impl From<Vec<String>> for Cell {
    fn from(value: Vec<String>) -> Self {
        Self::Texts(value)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A row of cells.
macro_rules! cells {
    ($($cell:expr),* $(,)?) => { vec![$($crate::catalog::system::Cell::from($cell)),*] };
}
use cells;

type Rows = Vec<Vec<Cell>>;

/// A system table.
pub(crate) struct SystemTable {
    /// `pg_catalog` or `information_schema`.
    pub(crate) schema: &'static str,
    /// Its name.
    pub(crate) name: &'static str,
    columns: &'static str,
    rows: fn(&Facts<'_>) -> Rows,
}

/// A table as planning sees it.
pub(crate) struct Known {
    /// The table.
    pub(crate) table: &'static SystemTable,
    /// The relation that stands for it; not of the catalog.
    pub(crate) relation: Arc<Relation>,
}

impl SystemTable {
    /// Whether it never has rows.
    pub(crate) fn is_empty(&self) -> bool {
        std::ptr::fn_addr_eq(self.rows, empty::none as fn(&Facts<'_>) -> Rows)
    }

    fn schema(&self) -> SchemaRef {
        let field = |column: &str| {
            let (name, kind) = column.split_once(':').unwrap_or((column, "t"));
            Field::new(name, data_type(kind), true)
        };
        let fields: Vec<Field> = self.columns.split_whitespace().map(field).collect();
        Arc::new(Schema::new(fields))
    }

    /// Its rows.
    pub(crate) fn read(&self, facts: &Facts<'_>) -> Result<RecordBatch> {
        let schema = self.schema();
        let rows = (self.rows)(facts);
        let column = |i: usize| array(schema.field(i).data_type(), rows.iter().map(|r| &r[i]));
        let columns = (0..schema.fields().len()).map(column).collect();
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

fn data_type(kind: &str) -> DataType {
    match kind {
        "b" => DataType::Boolean,
        "i" => DataType::Int64,
        "n" => DataType::Int32,
        "s" => DataType::Int16,
        "f" => DataType::Float32,
        "d" => DataType::Float64,
        "z" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "I" => DataType::new_list(DataType::Int64, true),
        "T" => DataType::new_list(DataType::Utf8, true),
        _ => DataType::Utf8,
    }
}

pub(crate) fn array<'a>(data_type: &DataType, cells: impl Iterator<Item = &'a Cell>) -> ArrayRef {
    let number = |c: &Cell| if let Cell::Number(n) = c { Some(*n) } else { None };
    match data_type {
        DataType::Boolean => Arc::new(BooleanArray::from_iter(
            cells.map(|c| if let Cell::Bool(b) = c { Some(*b) } else { None }),
        )),
        DataType::Int64 => Arc::new(Int64Array::from_iter(cells.map(number))),
        DataType::Int32 => {
            Arc::new(Int32Array::from_iter(cells.map(|c| number(c).map(|n| n as i32))))
        }
        DataType::Int16 => {
            Arc::new(Int16Array::from_iter(cells.map(|c| number(c).map(|n| n as i16))))
        }
        DataType::Float32 => Arc::new(Float32Array::from_iter(
            cells.map(|c| if let Cell::Real(f) = c { Some(*f) } else { None }),
        )),
        DataType::Float64 => Arc::new(Float64Array::from_iter(
            cells.map(|c| if let Cell::Double(f) = c { Some(*f) } else { None }),
        )),
        DataType::Timestamp(..) => {
            let time = |c: &Cell| if let Cell::Time(us) = c { Some(*us) } else { None };
            let times = TimestampMicrosecondArray::from_iter(cells.map(time));
            Arc::new(times.with_timezone("UTC"))
        }
        DataType::List(field) if field.data_type() == &DataType::Int64 => {
            let mut list = ListBuilder::new(Int64Builder::new());
            for cell in cells {
                if let Cell::Numbers(numbers) = cell {
                    list.values().append_slice(numbers);
                }
                list.append(matches!(cell, Cell::Numbers(_)));
            }
            Arc::new(list.finish())
        }
        DataType::List(_) => {
            let mut list = ListBuilder::new(StringBuilder::new());
            for cell in cells {
                if let Cell::Texts(texts) = cell {
                    texts.iter().for_each(|t| list.values().append_value(t));
                }
                list.append(matches!(cell, Cell::Texts(_)));
            }
            Arc::new(list.finish())
        }
        _ => Arc::new(StringArray::from_iter(
            cells.map(|c| if let Cell::Text(t) = c { Some(t.as_str()) } else { None }),
        )),
    }
}

/// The ids of system tables end here.
const LAST_ID: u32 = u32::MAX - 16;

/// All system tables with the relations that stand for them.
static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let parts = [
        classes::TABLES,
        cluster::TABLES,
        history::TABLES,
        information::TABLES,
        roles::TABLES,
        sequences::TABLES,
        typenames::TABLES,
    ];
    let all = parts.into_iter().flatten().chain(empty::TABLES);
    let known = |(i, table): (usize, &'static SystemTable)| Known {
        table,
        relation: Arc::new(Relation {
            id: RelationId(LAST_ID - i as u32),
            name: table.name.to_owned(),
            kind: RelationKind::System,
            schema: table.schema(),
            key: Vec::new(),
            watermark: None,
            rules: WriteRules::default(),
            connector: None,
            definition: format!("-- {}.{}", table.schema, table.name),
            query: None,
            zone: None,
            sequence: None,
            depends_on: Vec::new(),
            acl: Acl::default(),
            comments: Comments::new(),
        }),
    };
    all.enumerate().map(known).collect()
});

/// All system tables.
pub(crate) fn tables() -> &'static [Known] {
    &KNOWN
}

/// A system table by name; without a schema, of `pg_catalog`.
pub(crate) fn find(schema: Option<&str>, name: &str) -> Option<&'static Known> {
    let schema = schema.unwrap_or("pg_catalog");
    KNOWN.iter().find(|k| k.table.name == name && k.table.schema == schema)
}

/// A system table by the id of the relation that stands for it.
pub(crate) fn by_id(id: RelationId) -> Option<&'static Known> {
    KNOWN.get((LAST_ID.checked_sub(id.0)?) as usize)
}

/// The number of a relation.
pub(crate) fn oid(id: RelationId) -> i64 {
    FIRST_OID + i64::from(id.0)
}

/// The relation with a number.
pub(crate) fn relation(catalog: &Catalog, oid: i64) -> Option<&Arc<Relation>> {
    let id = u32::try_from(oid.checked_sub(FIRST_OID)?).ok()?;
    catalog.by_id(RelationId(id))
}

/// The number of a system table, with PostgreSQL's number where clients know it by heart.
pub(crate) fn system_oid(known: &Known) -> i64 {
    let fixed = [
        ("pg_class", 1259),
        ("pg_type", 1247),
        ("pg_attribute", 1249),
        ("pg_proc", 1255),
        ("pg_database", 1262),
        ("pg_namespace", 2615),
        ("pg_constraint", 2606),
        ("pg_attrdef", 2604),
        ("pg_index", 2610),
    ];
    let here = fixed.iter().find(|(name, _)| *name == known.table.name);
    here.map_or_else(|| 12_000 + i64::from(LAST_ID - known.relation.id.0), |(_, oid)| *oid)
}

/// The relations that clients see: not those that belong to others.
pub(crate) fn visible(catalog: &Catalog) -> impl Iterator<Item = &Arc<Relation>> {
    let seen = |r: &&Arc<Relation>| r.kind != RelationKind::Sink && !r.kind.is_part();
    catalog.relations().filter(seen)
}

/// The number of a relation, its key's index or a system table by name.
pub(crate) fn oid_of_name(catalog: &Catalog, schema: Option<&str>, name: &str) -> Option<i64> {
    let known = qualified(schema.unwrap_or(PUBLIC_SCHEMA), name);
    if let Some(relation) = catalog.find(&known) {
        return Some(oid(relation.id));
    }
    let key = known.strip_suffix("_pkey").and_then(|table| catalog.find(table));
    if let Some(relation) = key.filter(|r| !r.key.is_empty()) {
        return Some(oid(relation.id) + KEY_INDEX);
    }
    find(schema, name).map(system_oid)
}

/// The number of a schema.
pub(crate) fn schema_oid(catalog: &Catalog, schema: &str) -> Option<i64> {
    Some(match schema {
        PUBLIC_SCHEMA => PUBLIC,
        "pg_catalog" => PG_CATALOG,
        "information_schema" => INFORMATION_SCHEMA,
        "headwater" => HEADWATER,
        schema => oid(catalog.access().schemas().get(schema)?.id),
    })
}

/// All schemas by number.
pub(crate) fn schemas(catalog: &Catalog) -> Vec<(i64, String)> {
    let made = catalog.access().schemas().iter();
    let mut all: Vec<_> = made.map(|(name, schema)| (oid(schema.id), name.clone())).collect();
    let always = SYSTEM_SCHEMAS.into_iter().chain([PUBLIC_SCHEMA]);
    let known = |name: &str| schema_oid(catalog, name).map(|number| (number, name.to_owned()));
    all.extend(always.filter_map(known));
    all.sort_unstable();
    all
}

/// The name of what a number is of, as `regclass` shows it; `seen` says whether a relation can be
/// named without its schema.
pub(crate) fn name_of_oid(
    catalog: &Catalog,
    number: i64,
    seen: &dyn Fn(&Relation) -> bool,
) -> Option<String> {
    let key = || key_of_index(catalog, number).map(|r| (r, "_pkey"));
    if let Some((relation, suffix)) = relation(catalog, number).map(|r| (r, "")).or_else(key) {
        let name = quoted(&format!("{}{suffix}", relation.local_name()));
        return Some(match seen(relation) {
            true => name,
            false => format!("{}.{name}", quoted(relation.schema_name())),
        });
    }
    let known = KNOWN.iter().find(|k| system_oid(k) == number)?;
    Some(match known.table.schema {
        "pg_catalog" => known.table.name.to_owned(),
        schema => format!("{schema}.{}", known.table.name),
    })
}

/// A name as it must be written.
pub(crate) fn quoted(name: &str) -> String {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_';
    let begins = name.as_bytes().first().is_some_and(|b| !b.is_ascii_digit());
    match begins && name.as_bytes().iter().all(plain) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}
