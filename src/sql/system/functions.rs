//! Functions that look at the catalog or the session: `format_type`, `pg_get_viewdef`,
//! `current_user`, .. They are made for one statement, over its catalog.

mod privileges;
mod sequences;

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};

use super::{SessionFacts, find_in_path};
use crate::cancel::checkpoint;
use crate::catalog::system::{self as catalog, Cell};
use crate::catalog::{Catalog, Relation, RelationKind};
use crate::error::{Error, sqlstate};
use crate::expr::to_datafusion;

/// What a function looks at.
struct Facts {
    catalog: Catalog,
    session: Arc<SessionFacts>,
}

impl Facts {
    /// The schemas that are searched for names without one.
    fn path(&self) -> Vec<String> {
        self.session.search_path(&self.catalog)
    }

    /// Whether a relation can be named without its schema.
    fn sees(&self, relation: &Relation) -> bool {
        let found = find_in_path(&self.catalog, &self.path(), relation.local_name());
        found.is_some_and(|found| found.id == relation.id)
    }
}

type Call = fn(&Facts, &[Cell]) -> Result<Cell, Error>;

/// What a function returns.
#[derive(Clone, Copy)]
enum Returns {
    Text,
    Bool,
    Number,
    Texts,
    Numbers,
}

use Returns::{Bool, Number, Numbers, Text, Texts};

#[rustfmt::skip]
const FUNCTIONS: &[(&str, Returns, Call)] = &[
    ("array_lower_bound", Number, |_, _| Ok(Cell::Number(1))),
    ("col_description", Text, column_comment),
    ("current_catalog", Text, |f, _| Ok(f.session.database.as_str().into())),
    ("current_database", Text, |f, _| Ok(f.session.database.as_str().into())),
    ("current_role", Text, |f, _| Ok(f.session.user.as_str().into())),
    ("current_schema", Text, |f, _| Ok(f.path().into_iter().next().into())),
    ("current_schemas", Texts, current_schemas),
    ("current_setting", Text, current_setting),
    ("current_user", Text, |f, _| Ok(f.session.user.as_str().into())),
    ("current_watermark", Text, current_watermark),
    ("currval", Number, sequences::currval),
    ("format_type", Text, format_type),
    ("getdatabaseencoding", Text, |_, _| Ok("UTF8".into())),
    ("has_any_column_privilege", Bool, privileges::on_some_column),
    ("has_column_privilege", Bool, privileges::on_column),
    ("has_database_privilege", Bool, privileges::on_database),
    ("has_function_privilege", Bool, privileges::on_function),
    ("has_schema_privilege", Bool, privileges::on_schema),
    ("has_sequence_privilege", Bool, privileges::on_sequence),
    ("has_table_privilege", Bool, privileges::on_relation),
    ("inet_client_addr", Text, |_, _| Ok(Cell::Null)),
    ("inet_server_addr", Text, |_, _| Ok(Cell::Null)),
    ("inet_server_port", Number, |_, _| Ok(Cell::Null)),
    ("lastval", Number, sequences::lastval),
    ("nextval", Number, sequences::nextval),
    ("obj_description", Text, comment),
    ("pg_advisory_unlock_all", Text, |_, _| Ok("".into())),
    ("pg_backend_pid", Number, |f, _| Ok(f.session.pid.into())),
    ("pg_char_to_encoding", Number, |_, _| Ok(Cell::Number(6))),
    ("pg_database_size", Number, |_, _| Ok(Cell::Number(0))),
    ("pg_encoding_to_char", Text, |_, _| Ok("UTF8".into())),
    ("pg_get_constraintdef", Text, constraint_text),
    ("pg_get_expr", Text, |_, a| Ok(first(a))),
    ("pg_get_function_arguments", Text, |_, _| Ok(Cell::Null)),
    ("pg_get_function_identity_arguments", Text, |_, _| Ok(Cell::Null)),
    ("pg_get_function_result", Text, |_, _| Ok(Cell::Null)),
    ("pg_get_functiondef", Text, |_, _| Ok(Cell::Null)),
    ("pg_get_indexdef", Text, index_text),
    ("pg_get_partition_constraintdef", Text, |_, _| Ok(Cell::Null)),
    ("pg_get_partkeydef", Text, |_, _| Ok(Cell::Null)),
    ("pg_get_ruledef", Text, |_, _| Ok(Cell::Null)),
    ("pg_get_serial_sequence", Text, sequences::of_column),
    ("pg_get_statisticsobjdef_columns", Text, |_, _| Ok(Cell::Null)),
    ("pg_get_triggerdef", Text, |_, _| Ok(Cell::Null)),
    ("pg_get_userbyid", Text, privileges::role_name),
    ("pg_get_viewdef", Text, view_text),
    ("pg_has_role", Bool, privileges::has_role),
    ("pg_index_column_has_property", Bool, |_, _| Ok(Cell::Null)),
    ("pg_indexam_has_property", Bool, |_, _| Ok(Cell::Null)),
    ("pg_indexes_size", Number, |_, _| Ok(Cell::Number(0))),
    ("pg_is_in_recovery", Bool, |_, _| Ok(false.into())),
    ("pg_is_other_temp_schema", Bool, |_, _| Ok(false.into())),
    ("pg_my_temp_schema", Number, |_, _| Ok(Cell::Number(0))),
    ("pg_relation_is_publishable", Bool, |_, _| Ok(false.into())),
    ("pg_relation_size", Number, |_, _| Ok(Cell::Number(0))),
    ("pg_sequence_last_value", Number, sequences::last_value),
    ("pg_size_pretty", Text, |_, a| Ok(number(a, 0).map(size_pretty).into())),
    ("pg_sleep", Text, sleep),
    ("pg_table_is_visible", Bool, is_visible),
    ("pg_table_size", Number, |_, _| Ok(Cell::Number(0))),
    ("pg_tablespace_location", Text, |_, _| Ok("".into())),
    ("pg_total_relation_size", Number, |_, _| Ok(Cell::Number(0))),
    ("regclass", Text, class_name),
    ("regclassin", Number, class_number),
    ("regnamespace", Text, |f, a| Ok(number(a, 0).map(|n| schema_name(f, n)).into())),
    ("session_user", Text, |f, _| Ok(f.session.session_user.as_str().into())),
    ("set_config", Text, set_config),
    ("setval", Number, sequences::setval),
    ("shobj_description", Text, |_, _| Ok(Cell::Null)),
    ("subscripts_of_vector", Numbers, |_, a| Ok(subscripts(a))),
    ("to_regclass", Number, to_class),
    ("to_regtype", Number, |_, a| Ok(text(a, 0).and_then(catalog::type_by_name).into())),
    ("txid_current", Number, |_, _| Ok(Cell::Number(0))),
    ("user", Text, |f, _| Ok(f.session.user.as_str().into())),
    ("version", Text, |_, _| Ok(VERSION.into())),
];

const VERSION: &str = concat!("PostgreSQL 15.0 (Headwater ", env!("CARGO_PKG_VERSION"), ")");

/// Whether a function is one of the system catalog.
pub(in crate::sql) fn is_function(name: &str) -> bool {
    FUNCTIONS.iter().any(|f| f.0 == name)
}

/// A function of the system catalog by name.
pub(in crate::sql) fn function(
    name: &str,
    catalog: &Catalog,
    session: &Arc<SessionFacts>,
) -> Option<Arc<ScalarUDF>> {
    // Other objects are all of `pg_catalog`.
    let visible = name.starts_with("pg_") && name.ends_with("_is_visible");
    let name = if visible { "pg_table_is_visible" } else { name };
    let (name, returns, call) = FUNCTIONS.iter().find(|f| f.0 == name)?;
    let returns = match returns {
        Text => DataType::Utf8,
        Bool => DataType::Boolean,
        Number => DataType::Int64,
        Texts => DataType::new_list(DataType::Utf8, true),
        Numbers => DataType::new_list(DataType::Int64, true),
    };
    let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
    let signature = match *name {
        // What it does is done once, when the query runs.
        "set_config" => {
            let types = vec![DataType::Utf8, DataType::Utf8, DataType::Boolean];
            Signature::exact(types, Volatility::Volatile)
        }
        "currval" | "lastval" | "nextval" | "setval" => {
            Signature::one_of(any, Volatility::Volatile)
        }
        "pg_sleep" => Signature::exact(vec![DataType::Float64], Volatility::Volatile),
        _ => Signature::one_of(any, Volatility::Stable),
    };
    let function = SystemFunction {
        name,
        signature,
        returns,
        facts: Arc::new(Facts { catalog: catalog.clone(), session: Arc::clone(session) }),
        call: *call,
    };
    Some(Arc::new(ScalarUDF::from(function)))
}

/// Whether a function looks at the session that it was made for.
pub(in crate::sql) fn is_of_session(f: &ScalarUDF) -> bool {
    f.inner().downcast_ref::<SystemFunction>().is_some()
}

struct SystemFunction {
    name: &'static str,
    signature: Signature,
    returns: DataType,
    facts: Arc<Facts>,
    call: Call,
}

impl std::fmt::Debug for SystemFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for SystemFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for SystemFunction {}

impl Hash for SystemFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for SystemFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.returns.clone())
    }

    /// Row by row: these are called for tens of rows, by clients that draw a table.
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let columns: Vec<ArrayRef> = args
            .args
            .into_iter()
            .map(|a| a.into_array(rows).and_then(readable))
            .collect::<DfResult<_>>()?;
        let mut cells = Vec::with_capacity(rows);
        for row in 0..rows {
            let values: Vec<Cell> = columns.iter().map(|c| cell(c, row)).collect();
            cells.push((self.call)(&self.facts, &values).map_err(to_datafusion)?);
        }
        Ok(ColumnarValue::Array(catalog::array(&self.returns, cells.iter())))
    }
}

/// Numbers as `bigint`, text as `text`.
fn readable(column: ArrayRef) -> DfResult<ArrayRef> {
    Ok(match column.data_type() {
        t if t.is_integer() => cast(&column, &DataType::Int64)?,
        DataType::Utf8View | DataType::LargeUtf8 => cast(&column, &DataType::Utf8)?,
        _ => column,
    })
}

fn cell(column: &ArrayRef, row: usize) -> Cell {
    if column.is_null(row) {
        return Cell::Null;
    }
    match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string().into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::List(field) if field.data_type() == &DataType::Int64 => {
            let list = column.as_list::<i32>().value(row);
            Cell::Numbers(list.as_primitive::<Int64Type>().values().to_vec())
        }
        _ => Cell::Null,
    }
}

/// The subscripts of a vector, which begin at 0.
fn subscripts(args: &[Cell]) -> Cell {
    match args.first() {
        Some(Cell::Numbers(values)) => Cell::Numbers((0..).take(values.len()).collect()),
        _ => Cell::Null,
    }
}

fn first(args: &[Cell]) -> Cell {
    args.first().cloned().unwrap_or(Cell::Null)
}

fn number(args: &[Cell], at: usize) -> Option<i64> {
    match args.get(at)? {
        Cell::Number(n) => Some(*n),
        Cell::Text(t) => t.parse().ok(),
        _ => None,
    }
}

fn text(args: &[Cell], at: usize) -> Option<&str> {
    match args.get(at)? {
        Cell::Text(t) => Some(t),
        _ => None,
    }
}

/// Waits for some seconds, or until the statement is to end.
fn sleep(_: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    const LOOK: Duration = Duration::from_millis(10);
    let Some(seconds) = text(args, 0).and_then(|t| t.parse::<f64>().ok()) else {
        return Ok(Cell::Null);
    };
    // Anything longer outlasts us.
    let seconds = if seconds > 0.0 { seconds.min(1e9) } else { 0.0 };
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    loop {
        checkpoint()?;
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Ok("".into());
        }
        std::thread::sleep(rest.min(LOOK));
    }
}

/// What can be named without its schema.
fn is_visible(facts: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    if let Some(relation) = number(args, 0).and_then(|n| catalog::relation(&facts.catalog, n)) {
        return Ok(facts.sees(relation).into());
    }
    let hidden = |n: i64| {
        let known = catalog::tables().iter().find(|k| catalog::system_oid(k) == n);
        known.is_some_and(|k| k.table.schema != "pg_catalog")
    };
    Ok((!number(args, 0).is_some_and(hidden)).into())
}

fn current_schemas(facts: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    let mut schemas = facts.path();
    if matches!(args.first(), Some(Cell::Bool(true))) {
        schemas.insert(0, "pg_catalog".to_owned());
    }
    Ok(Cell::Texts(schemas))
}

/// `current_watermark(relation, column)` as a text that a timestamp is read from.
fn current_watermark(facts: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    let (Some(name), Some(column)) = (text(args, 0), text(args, 1)) else { return Ok(Cell::Null) };
    let relation = facts.catalog.get(name)?;
    let place = relation.schema.fields().iter().position(|f| f.name() == column);
    let place = place.ok_or_else(|| {
        let message = format!("column \"{column}\" of relation \"{name}\" does not exist");
        Error::user(sqlstate::UNDEFINED_COLUMN, message)
    })?;
    let declared = relation.watermark.as_ref().is_some_and(|def| def.column == place);
    let stands = facts.session.watermarks.as_ref().and_then(|w| w.of(relation.id, place));
    match stands {
        Some(w) if w.is_finite() => Ok(w.to_string().into()),
        None if !declared => {
            let message = format!("column \"{column}\" of relation \"{name}\" has no watermark");
            Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, message)
                .with_hint("SHOW WATERMARKS; tells which columns have one."))
        }
        _ => Ok(Cell::Null),
    }
}

fn current_setting(facts: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    let Some(name) = text(args, 0) else { return Ok(Cell::Null) };
    match (facts.session.settings.get(name), args.get(1)) {
        (Some(value), _) => Ok(value.into()),
        (None, Some(Cell::Bool(true))) => Ok(Cell::Null),
        (None, _) => Err(Error::user(
            sqlstate::UNDEFINED_OBJECT,
            format!("unrecognized configuration parameter \"{name}\""),
        )),
    }
}

/// `set_config(name, value, is_local)`: the new value.
fn set_config(facts: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    let name = text(args, 0).ok_or_else(|| {
        Error::user(sqlstate::NULL_VALUE_NOT_ALLOWED, "SET requires parameter name")
    })?;
    let local = matches!(args.get(2), Some(Cell::Bool(true)));
    facts.session.settings.set(name, text(args, 1), local).map(Cell::Text)
}

fn format_type(_: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    Ok(number(args, 0).map(|oid| catalog::format_type(oid, number(args, 1))).into())
}

/// A relation by number or name.
fn relation<'a>(facts: &'a Facts, args: &[Cell]) -> Option<&'a Arc<Relation>> {
    if let Some(number) = number(args, 0) {
        return catalog::relation(&facts.catalog, number);
    }
    let number = super::rewrite::class_of(&facts.catalog, &facts.path(), text(args, 0)?).ok()?;
    catalog::relation(&facts.catalog, number)
}

/// `obj_description(number [, catalog])`: only relations have comments.
fn comment(facts: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    if text(args, 1).is_some_and(|catalog| catalog != "pg_class") {
        return Ok(Cell::Null);
    }
    Ok(relation(facts, args).and_then(|r| r.comments.get("")).map(String::as_str).into())
}

/// `col_description(number of a relation, number of a column)`.
fn column_comment(facts: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    let at = number(args, 1).and_then(|n| usize::try_from(n - 1).ok());
    let (Some(r), Some(at)) = (relation(facts, args), at) else { return Ok(Cell::Null) };
    let column = r.schema.fields().get(at).and_then(|field| r.comments.get(field.name()));
    Ok(column.map(String::as_str).into())
}

fn view_text(facts: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    let view = relation(facts, args)
        .filter(|r| matches!(r.kind, RelationKind::View | RelationKind::MaterializedView));
    Ok(view.and_then(|r| r.query.as_ref()).map(|q| format!(" {q};")).into())
}

fn constraint_text(facts: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    let owner = number(args, 0).and_then(|n| catalog::constraint_owner(&facts.catalog, n));
    Ok(match owner {
        Some((r, 0)) => catalog::key_constraint_text(r).into(),
        Some((r, at)) => catalog::check_constraint_text(r, at - 1).into(),
        None => Cell::Null,
    })
}

/// The whole definition, or the column with a number.
fn index_text(facts: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    let Some(index) = number(args, 0) else { return Ok(Cell::Null) };
    let key = catalog::key_of_index(&facts.catalog, index);
    let made = catalog::index_with_number(&facts.catalog, index);
    let (owner, columns, text) = match (key, made) {
        (Some(owner), _) => (owner, &owner.key, catalog::key_index_text(owner)),
        (None, Some((owner, index))) => (owner, &index.key, catalog::index_text(owner, index)),
        (None, None) => return Ok(Cell::Null),
    };
    match number(args, 1).filter(|n| *n > 0) {
        None => Ok(text.into()),
        Some(n) => {
            let column = usize::try_from(n - 1).ok().and_then(|i| columns.get(i));
            Ok(column.map(|c| catalog::quoted(owner.schema.field(*c).name())).into())
        }
    }
}

fn class_name(facts: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    let seen = |relation: &Relation| facts.sees(relation);
    let name =
        |n: i64| catalog::name_of_oid(&facts.catalog, n, &seen).unwrap_or_else(|| n.to_string());
    Ok(match args.first() {
        Some(Cell::Text(name)) => name.as_str().into(),
        _ => number(args, 0).map(name).into(),
    })
}

fn class_number(facts: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    match args.first() {
        Some(Cell::Text(name)) => {
            super::rewrite::class_of(&facts.catalog, &facts.path(), name).map(Cell::Number)
        }
        Some(Cell::Number(n)) => Ok(Cell::Number(*n)),
        _ => Ok(Cell::Null),
    }
}

fn to_class(facts: &Facts, args: &[Cell]) -> Result<Cell, Error> {
    Ok(text(args, 0)
        .and_then(|n| super::rewrite::class_of(&facts.catalog, &facts.path(), n).ok())
        .into())
}

fn schema_name(facts: &Facts, number: i64) -> String {
    let all = catalog::schemas(&facts.catalog);
    let found = all.into_iter().find(|(oid, _)| *oid == number);
    found.map_or_else(|| number.to_string(), |(_, name)| name)
}

/// A size in the largest unit of which it has ten or more, rounded half away from zero.
fn size_pretty(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes.unsigned_abs() < 10 * 1024 {
        return format!("{bytes} bytes");
    }
    // Twice the size, so that its last bit decides the rounding.
    let mut twice = bytes / 512;
    let mut units = UNITS.iter().peekable();
    while let Some(unit) = units.next() {
        if twice.unsigned_abs() < 20 * 1024 - 1 || units.peek().is_none() {
            return format!("{} {unit}", (twice + twice.signum()) / 2);
        }
        twice /= 1024;
    }
    format!("{bytes} bytes")
}
