//! The table that a sink delivers to: whether it takes the sink's rows, and what to change if not.

use arrow::datatypes::{DataType, Field};
use tokio_postgres::{Client, Error as PgError};

use super::settings::{Settings, literal, quoted};
use crate::delta::text::{pg_type_declared, pg_type_name};
use crate::error::{Error, Result, sqlstate};

/// A table that takes the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Its name as statements have it.
    pub(super) table: String,
    /// The sink's columns: their names as statements have them, and their types there.
    pub(super) columns: Vec<(String, String)>,
    /// Indexes of the key's.
    pub(super) key: Vec<usize>,
}

/// What PostgreSQL says of a table.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// `r`: a table, `p`: a partitioned one.
    kind: String,
    columns: Vec<FoundColumn>,
    /// Columns of unique indexes that can tell rows apart, and whether NULLs are equal in them.
    unique: Vec<(Vec<String>, bool)>,
}

#[derive(Debug, Default, Clone)]
struct FoundColumn {
    name: String,
    /// Its type without modifiers, of a domain that below it.
    base: String,
    /// The same as it is declared.
    declared: String,
    /// The type that values are cast to.
    cast: String,
    modifier: i32,
    not_null: bool,
    /// It has a value when nobody gives one.
    filled: bool,
    /// Nobody may give it one.
    generated: bool,
}

const COLUMNS: &str = "\
    SELECT a.attname::text, format_type(b.oid, NULL), \
        format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, NULL), \
        CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END, \
        a.attnotnull OR t.typnotnull, \
        a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL, \
        a.attidentity = 'a' OR COALESCE(to_jsonb(a)->>'attgenerated', '') <> '' \
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
        JOIN pg_type b ON b.oid = COALESCE(NULLIF(t.typbasetype, 0), t.oid) \
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// Those that ON CONFLICT takes: valid, at once, over columns alone and all rows.
const UNIQUE: &str = "\
    SELECT ARRAY(SELECT a.attname::text \
            FROM generate_series(0, i.indnkeyatts - 1) AS k \
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]), \
        COALESCE((to_jsonb(i)->>'indnullsnotdistinct')::boolean, false) \
    FROM pg_index i WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate \
        AND i.indpred IS NULL AND i.indexprs IS NULL";

/// Asks for a table; `None`: there is none.
pub(super) async fn find(client: &Client, settings: &Settings) -> Result<Option<Found>, PgError> {
    let query = format!(
        "SELECT c.oid, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = \
         c.relnamespace WHERE n.nspname = {} AND c.relname = {}",
        literal(&settings.schema),
        literal(&settings.table)
    );
    let Some(row) = client.query_opt(&query, &[]).await? else { return Ok(None) };
    let (id, kind): (u32, String) = (row.try_get(0)?, row.try_get(1)?);
    let mut found = Found { kind, ..Found::default() };
    for row in client.query(COLUMNS, &[&id]).await? {
        found.columns.push(FoundColumn {
            name: row.try_get(0)?,
            base: row.try_get(1)?,
            declared: row.try_get(2)?,
            cast: row.try_get(3)?,
            modifier: row.try_get(4)?,
            not_null: row.try_get(5)?,
            filled: row.try_get(6)?,
            generated: row.try_get(7)?,
        });
    }
    for row in client.query(UNIQUE, &[&id]).await? {
        found.unique.push((row.try_get(0)?, row.try_get(1)?));
    }
    Ok(Some(found))
}

impl Target {
    /// Whether a table takes the sink's rows, and how.
    pub(super) fn of(settings: &Settings, found: Option<&Found>) -> Result<Self> {
        let table = settings.target();
        let Some(found) = found else {
            let message =
                format!("relation {table} does not exist in PostgreSQL {}", settings.place);
            return Err(Error::user(sqlstate::UNDEFINED_TABLE, message)
                .with_hint(format!("In PostgreSQL: {}", definition(settings))));
        };
        if !matches!(found.kind.as_str(), "r" | "p") {
            let message = format!("{table} of PostgreSQL {} is not a table", settings.place);
            return Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, message));
        }
        let mut columns = Vec::new();
        for (at, field) in settings.columns.fields().iter().enumerate() {
            let column = found.columns.iter().find(|column| column.name == *field.name());
            let column = column.ok_or_else(|| {
                let message = format!("column \"{}\" of {table} does not exist", field.name());
                Error::user(sqlstate::UNDEFINED_COLUMN, message).with_hint(format!(
                    "In PostgreSQL: ALTER TABLE {table} ADD COLUMN {} {};",
                    quoted(field.name()),
                    pg_type_declared(field.data_type())
                ))
            })?;
            check_type(&table, field, column, settings.key.contains(&at))?;
            columns.push((quoted(&column.name), column.cast.clone()));
        }
        check_key(settings, found)?;
        check_others(settings, found)?;
        Ok(Self { table, columns, key: settings.key.clone() })
    }

    /// Inserts rows, or puts them in the place of those with their keys.
    pub(super) fn upsert(&self) -> String {
        let names = |columns: &mut dyn Iterator<Item = usize>| {
            let of = |at: usize| self.columns.get(at).map_or("", |(name, _)| name.as_str());
            columns.map(of).collect::<Vec<_>>().join(", ")
        };
        let all = || 0..self.columns.len();
        let values = self.columns.iter().enumerate();
        let values: Vec<_> = values.map(|(at, (_, of))| format!("r.c{at}::{of}")).collect();
        let set: Vec<_> = all()
            .filter(|at| !self.key.contains(at))
            .filter_map(|at| self.columns.get(at))
            .map(|(name, _)| format!("{name} = EXCLUDED.{name}"))
            .collect();
        let action = match set.is_empty() {
            true => "NOTHING".to_owned(),
            false => format!("UPDATE SET {}", set.join(", ")),
        };
        format!(
            "INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT ({}) DO {action}",
            self.table,
            names(&mut all()),
            values.join(", "),
            rows(&all().collect::<Vec<_>>()),
            names(&mut self.key.iter().copied()),
        )
    }

    /// Deletes rows by their keys, some columns of which may be NULL in all of them.
    pub(super) fn delete(&self, nulls: &[bool]) -> String {
        let mut given = Vec::new();
        let mut conditions = Vec::new();
        for (at, column) in self.key.iter().enumerate() {
            let Some((name, of)) = self.columns.get(*column) else { continue };
            if nulls.get(at) == Some(&true) {
                conditions.push(format!("t.{name} IS NULL"));
            } else {
                conditions.push(format!("t.{name} = r.c{at}::{of}"));
                given.push(at);
            }
        }
        let using = match given.is_empty() {
            true => String::new(),
            false => format!(" USING {}", rows(&given)),
        };
        format!("DELETE FROM {} AS t{using} WHERE {}", self.table, conditions.join(" AND "))
    }
}

/// Columns that come as arrays of texts.
fn rows(columns: &[usize]) -> String {
    let arrays: Vec<_> = (1..=columns.len()).map(|n| format!("${n}::text[]")).collect();
    let names: Vec<_> = columns.iter().map(|at| format!("c{at}")).collect();
    format!("unnest({}) AS r({})", arrays.join(", "), names.join(", "))
}

/// The statement that makes a table for the rows.
fn definition(settings: &Settings) -> String {
    let fields = settings.columns.fields();
    let columns: Vec<_> = fields
        .iter()
        .map(|field| format!("{} {}", quoted(field.name()), pg_type_declared(field.data_type())))
        .collect();
    let (table, columns) = (settings.target(), columns.join(", "));
    format!("CREATE TABLE {table} ({columns}, PRIMARY KEY ({}));", key_of(settings))
}

fn key_of(settings: &Settings) -> String {
    let fields = settings.columns.fields();
    let names = settings.key.iter().filter_map(|at| fields.get(*at));
    names.map(|field| quoted(field.name())).collect::<Vec<_>>().join(", ")
}

fn check_type(table: &str, field: &Field, column: &FoundColumn, is_key: bool) -> Result<()> {
    let ours = pg_type_name(field.data_type());
    let name = quoted(&column.name);
    if column.generated {
        let message = format!("column {name} of {table} is generated, and takes no values");
        return Err(Error::user(sqlstate::INVALID_TABLE_DEFINITION, message)
            .with_hint("Leave it out of what the sink delivers."));
    }
    if takes(ours, &column.base, is_key) && keeps_digits(field.data_type(), column) {
        return Ok(());
    }
    let (declared, found) = (pg_type_declared(field.data_type()), &column.declared);
    let message = format!("column {name} of {table} is of type {found}, the sink's is {declared}");
    let error = Error::user(sqlstate::DATATYPE_MISMATCH, message);
    if matches!(ours, "record" | "record[]" | "unknown" | "anyarray") {
        return Err(error.with_hint("Cast it to text in what the sink delivers."));
    }
    Err(error.with_hint(format!(
        "In PostgreSQL: ALTER TABLE {table} ALTER COLUMN {name} TYPE {declared}; or cast it in \
         what the sink delivers."
    )))
}

/// Whether a column takes every value of a type as it is.
fn takes(ours: &str, theirs: &str, is_key: bool) -> bool {
    let known = !matches!(ours, "record" | "record[]" | "unknown" | "anyarray");
    let wider: &[&str] = match ours {
        "smallint" => &["integer", "bigint", "numeric"],
        "integer" => &["bigint", "numeric"],
        "bigint" => &["numeric"],
        "real" => &["double precision"],
        "text" => &["character varying"],
        "text[]" => &["character varying[]"],
        // Without equality it tells no rows apart.
        "jsonb" if !is_key => &["json"],
        _ => &[],
    };
    known && (ours == theirs || wider.contains(&theirs))
}

/// Whether a column's modifiers leave values as they are. What is too long or too large for it is
/// an error of its row; digits behind the point would be rounded off.
fn keeps_digits(ours: &DataType, column: &FoundColumn) -> bool {
    let modifier = column.modifier;
    match column.base.trim_end_matches("[]") {
        _ if modifier < 0 => true,
        "numeric" => {
            // As numeric_typmod_scale has it: eleven bits with a sign.
            let scale = (((modifier - 4) & 0x7ff) ^ 1024) - 1024;
            scale >= scale_of(ours)
        }
        "character varying" => true,
        // Of times: digits of seconds, or fields of an interval.
        _ => modifier == 6,
    }
}

fn scale_of(ours: &DataType) -> i32 {
    match ours {
        DataType::Decimal128(_, scale) => i32::from(*scale),
        DataType::List(element) => scale_of(element.data_type()),
        _ => 0,
    }
}

/// A unique index over exactly the key finds the row that a change is of.
fn check_key(settings: &Settings, found: &Found) -> Result<()> {
    let (table, names) = (settings.target(), key_of(settings));
    let fields = settings.columns.fields();
    let mut key: Vec<&str> = settings
        .key
        .iter()
        .filter_map(|at| fields.get(*at))
        .map(|field| field.name().as_str())
        .collect();
    key.sort_unstable();
    let fits = |columns: &[String]| {
        let mut columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        columns.sort_unstable();
        columns == key
    };
    let mut over = found.unique.iter().filter(|(columns, _)| fits(columns)).peekable();
    if over.peek().is_none() {
        let message = format!("{table} has no unique index over the sink's key ({names})");
        return Err(Error::user(sqlstate::INVALID_COLUMN_REFERENCE, message)
            .with_hint(format!("In PostgreSQL: ALTER TABLE {table} ADD PRIMARY KEY ({names});")));
    }
    // Where NULLs are distinct, a second row of a key with one does not meet the first.
    let nulls_are_equal = over.any(|(_, nulls)| *nulls);
    let nullable = found.columns.iter().find(|c| key.contains(&c.name.as_str()) && !c.not_null);
    match nullable.filter(|_| !nulls_are_equal) {
        None => Ok(()),
        Some(column) => {
            let name = quoted(&column.name);
            let message =
                format!("key column {name} of {table} may be NULL, and NULLs are distinct");
            Err(Error::user(sqlstate::INVALID_COLUMN_REFERENCE, message).with_hint(format!(
                "In PostgreSQL: ALTER TABLE {table} ALTER COLUMN {name} SET NOT NULL; or, from \
                 version 15 on, CREATE UNIQUE INDEX ON {table} ({names}) NULLS NOT DISTINCT;"
            )))
        }
    }
}

/// Columns that the sink does not have are filled by the table.
fn check_others(settings: &Settings, found: &Found) -> Result<()> {
    let is_ours = |column: &FoundColumn| settings.columns.column_with_name(&column.name).is_some();
    let empty = |column: &&FoundColumn| {
        !is_ours(column) && column.not_null && !column.filled && !column.generated
    };
    let Some(column) = found.columns.iter().find(empty) else { return Ok(()) };
    let (table, name) = (settings.target(), quoted(&column.name));
    let message = format!("column {name} of {table} may not be NULL, and the sink has none");
    Err(Error::user(sqlstate::NOT_NULL_VIOLATION, message).with_hint(format!(
        "In PostgreSQL: ALTER TABLE {table} ALTER COLUMN {name} DROP NOT NULL;"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_name_what_they_change() {
        let column = |name: &str, of: &str| (quoted(name), of.to_owned());
        let mut target = Target {
            table: "\"public\".\"t\"".into(),
            columns: vec![column("a\"b", "integer"), column("n", "bigint")],
            key: vec![0],
        };
        assert_eq!(
            target.upsert(),
            "INSERT INTO \"public\".\"t\" (\"a\"\"b\", \"n\") SELECT r.c0::integer, r.c1::bigint \
             FROM unnest($1::text[], $2::text[]) AS r(c0, c1) \
             ON CONFLICT (\"a\"\"b\") DO UPDATE SET \"n\" = EXCLUDED.\"n\""
        );
        assert_eq!(
            target.delete(&[false]),
            "DELETE FROM \"public\".\"t\" AS t USING unnest($1::text[]) AS r(c0) \
             WHERE t.\"a\"\"b\" = r.c0::integer"
        );
        target.key = vec![1, 0];
        assert!(target.upsert().ends_with("ON CONFLICT (\"n\", \"a\"\"b\") DO NOTHING"));
        assert_eq!(
            target.delete(&[true, true]),
            "DELETE FROM \"public\".\"t\" AS t WHERE t.\"n\" IS NULL AND t.\"a\"\"b\" IS NULL"
        );
        assert!(
            target
                .delete(&[true, false])
                .ends_with("t.\"n\" IS NULL AND t.\"a\"\"b\" = r.c1::integer")
        );
    }

    #[test]
    fn a_column_takes_what_it_can_hold() {
        assert!(takes("integer", "bigint", true) && takes("text", "character varying", true));
        assert!(!takes("bigint", "integer", true) && !takes("text", "citext", true));
        assert!(takes("jsonb", "json", false) && !takes("jsonb", "json", true));
        assert!(!takes("record", "record", false));
        let column = |base: &str, modifier| FoundColumn {
            base: base.into(),
            modifier,
            ..FoundColumn::default()
        };
        // numeric(10,2), numeric(10,-2): ((10 << 16) | (scale & 0x7ff)) + 4
        let numeric = |scale: i32| column("numeric", ((10 << 16) | (scale & 0x7ff)) + 4);
        let ours = |scale| DataType::Decimal128(12, scale);
        assert!(keeps_digits(&ours(2), &numeric(2)) && keeps_digits(&ours(0), &numeric(2)));
        assert!(!keeps_digits(&ours(3), &numeric(2)) && !keeps_digits(&ours(0), &numeric(-2)));
        assert!(keeps_digits(&ours(10), &column("numeric", -1)));
        let time = DataType::Date32;
        assert!(keeps_digits(&time, &column("timestamp without time zone", 6)));
        assert!(!keeps_digits(&time, &column("timestamp without time zone", 3)));
        assert!(keeps_digits(&time, &column("character varying", 5 + 4)));
    }
}
