//! SQL type names to Arrow types: one table for column definitions, casts and parameters.
//!
//! `json` and `jsonb` are one type, the latter. `numeric` without a declaration is
//! Decimal128(38,10), `varchar(n)` and `char(n)` are `text` with a length that writing statements
//! enforce, every timestamp has microseconds whatever its declared precision, and `timestamp with
//! time zone` is kept in UTC.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use sqlparser::ast::{self, ArrayElemTypeDef, ExactNumberInfo, TimezoneInfo};

use crate::catalog::TextLimit;
use crate::delta::text::{NUMERIC_PRECISION, NUMERIC_SCALE, UTC};
use crate::error::{Error, Result, sqlstate};

/// `timestamp without time zone`.
pub(crate) const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// `timestamp with time zone`.
pub(crate) fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

/// The Arrow type that stands for a declared SQL type.
pub fn sql_type(sql: &ast::DataType) -> Result<DataType> {
    use ast::DataType as Sql;
    Ok(match sql {
        Sql::Bool | Sql::Boolean => DataType::Boolean,
        Sql::SmallInt(None) | Sql::Int2(None) => DataType::Int16,
        Sql::Int(None) | Sql::Integer(None) | Sql::Int4(None) => DataType::Int32,
        Sql::BigInt(None) | Sql::Int8(None) => DataType::Int64,
        Sql::Real | Sql::Float4 => DataType::Float32,
        Sql::Float8 | Sql::DoublePrecision | Sql::Double(ExactNumberInfo::None) => {
            DataType::Float64
        }
        Sql::Float(info) => float_of_bits(info)?,
        Sql::Numeric(info) | Sql::Decimal(info) | Sql::Dec(info) => numeric(info)?,
        Sql::Text
        | Sql::String(None)
        | Sql::Varchar(_)
        | Sql::CharacterVarying(_)
        | Sql::CharVarying(_)
        | Sql::Char(_)
        | Sql::Character(_) => DataType::Utf8,
        Sql::Bytea | Sql::Bytes(None) => DataType::Binary,
        Sql::JSON | Sql::JSONB => DataType::LargeUtf8,
        Sql::Uuid => DataType::FixedSizeBinary(16),
        Sql::Date => DataType::Date32,
        Sql::Time(p, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            check_time_precision(*p)?;
            DataType::Time64(TimeUnit::Microsecond)
        }
        Sql::Timestamp(p, zone) => {
            check_time_precision(*p)?;
            match zone {
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => TIMESTAMP,
                TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => timestamptz(),
            }
        }
        Sql::Interval { fields: None, precision: None } => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        Sql::Array(ArrayElemTypeDef::SquareBracket(inner, None)) => {
            DataType::new_list(sql_type(inner)?, true)
        }
        Sql::Custom(name, arguments) => return custom(&name.to_string(), arguments),
        other => return Err(unknown(&other.to_string())),
    })
}

/// The type of a cast. A length or precision that a column may carry unenforced would change the
/// value here, so it is refused.
pub(crate) fn cast_type(sql: &ast::DataType) -> Result<DataType> {
    use ast::DataType as Sql;
    match sql {
        Sql::Varchar(Some(_))
        | Sql::CharacterVarying(Some(_))
        | Sql::CharVarying(Some(_))
        | Sql::Char(_)
        | Sql::Character(_) => Err(Error::unsupported(format!(
            "a cast to {} is not supported",
            sql.to_string().to_lowercase()
        ))
        .with_hint("Cast to text, and cut it with left(value, length).")),
        Sql::Timestamp(Some(0..=5), _) | Sql::Time(Some(0..=5), _) => Err(Error::unsupported(
            format!("a cast to {} is not supported", sql.to_string().to_lowercase()),
        )
        .with_hint("Leave the precision out, or use date_trunc.")),
        _ => sql_type(sql),
    }
}

/// The length of `varchar(n)` and `char(n)`.
pub(crate) fn text_limit(sql: &ast::DataType) -> Result<Option<TextLimit>> {
    use ast::DataType as Sql;
    let of = |length: &Option<ast::CharacterLength>| match length {
        Some(ast::CharacterLength::IntegerLength { length, .. }) => Some(*length),
        _ => None,
    };
    let (length, blanks) = match sql {
        Sql::Varchar(n) | Sql::CharacterVarying(n) | Sql::CharVarying(n) => (of(n), false),
        Sql::Char(n) | Sql::Character(n) => (Some(of(n).unwrap_or(1)), true),
        _ => (None, false),
    };
    let Some(length) = length else { return Ok(None) };
    let wrong = |bound: &str| {
        let name = if blanks { "char" } else { "varchar" };
        Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("length for type {name} {bound}"),
        ))
    };
    match u32::try_from(length) {
        Ok(0) => wrong("must be at least 1"),
        Ok(characters) if characters <= 10_485_760 => Ok(Some(TextLimit { characters, blanks })),
        _ => wrong("cannot exceed 10485760"),
    }
}

/// Refuses types that values may have inside a query but a column may not.
pub(crate) fn check_column_type(data_type: &DataType) -> Result<()> {
    match data_type {
        DataType::List(element) if matches!(element.data_type(), DataType::List(_)) => {
            Err(Error::unsupported("columns of arrays of arrays are not supported"))
        }
        _ => Ok(()),
    }
}

fn custom(name: &str, arguments: &[String]) -> Result<DataType> {
    match (name.to_lowercase().as_str(), arguments) {
        ("timestamptz", []) => Ok(timestamptz()),
        ("bpchar" | "jsonpath" | "name" | "string", []) => Ok(DataType::Utf8),
        _ => Err(unknown(name)),
    }
}

/// Types of PostgreSQL's that the engine does not have; any other name is of none.
const REFUSED: &[&str] = &[
    "aclitem",
    "bit",
    "bit varying",
    "varbit",
    "box",
    "char",
    "cid",
    "cidr",
    "circle",
    "citext",
    "daterange",
    "hstore",
    "inet",
    "int4range",
    "int8range",
    "json",
    "jsonpath",
    "line",
    "lseg",
    "ltree",
    "macaddr",
    "macaddr8",
    "money",
    "numrange",
    "oid",
    "path",
    "pg_lsn",
    "point",
    "polygon",
    "refcursor",
    "regclass",
    "regtype",
    "serial",
    "bigserial",
    "smallserial",
    "time",
    "timetz",
    "tsquery",
    "tsrange",
    "tstzrange",
    "tsvector",
    "vector",
    "xid",
    "xml",
];

fn unknown(name: &str) -> Error {
    let word = name.to_lowercase();
    let word = word.split('(').next().unwrap_or_default().trim();
    let plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain && !REFUSED.contains(&word) {
        let message = format!("type \"{word}\" does not exist");
        return Error::user(sqlstate::UNDEFINED_OBJECT, message);
    }
    Error::unsupported(format!("type \"{}\" is not supported", name.to_lowercase())).with_hint(
        "Types are boolean, smallint, integer, bigint, real, double precision, numeric, text, \
         bytea, date, time, timestamp, timestamp with time zone, interval, uuid, jsonb and arrays \
         of them.",
    )
}

/// `float(n)` counts binary digits: up to 24 are a real.
fn float_of_bits(info: &ExactNumberInfo) -> Result<DataType> {
    match info {
        ExactNumberInfo::None | ExactNumberInfo::Precision(25..=53) => Ok(DataType::Float64),
        ExactNumberInfo::Precision(1..=24) => Ok(DataType::Float32),
        _ => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            "precision for type float must be between 1 and 53 bits",
        )),
    }
}

fn numeric(info: &ExactNumberInfo) -> Result<DataType> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => {
            return Ok(DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE));
        }
        ExactNumberInfo::Precision(p) => (p, 0),
        ExactNumberInfo::PrecisionAndScale(p, s) => (p, s),
    };
    if precision == 0 || precision > u64::from(NUMERIC_PRECISION) {
        return Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("NUMERIC precision {precision} must be between 1 and {NUMERIC_PRECISION}"),
        ));
    }
    if scale < 0 || scale > precision as i64 {
        return Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("NUMERIC scale {scale} must be between 0 and precision {precision}"),
        ));
    }
    Ok(DataType::Decimal128(precision as u8, scale as i8))
}

fn check_time_precision(precision: Option<u64>) -> Result<()> {
    match precision {
        // Values keep their microseconds: a smaller precision is accepted and not enforced.
        None | Some(0..=6) => Ok(()),
        Some(p) => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("time precision {p} must be between 0 and 6"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlparser::parser::Parser;

    fn parse(text: &str) -> Result<DataType> {
        let sql = Parser::new(&crate::sql::dialect::DIALECT)
            .try_with_sql(text)
            .expect("tokens")
            .parse_data_type()
            .expect("a type");
        sql_type(&sql)
    }

    #[test]
    fn type_names() {
        for (text, expected) in [
            ("boolean", DataType::Boolean),
            ("smallint", DataType::Int16),
            ("int", DataType::Int32),
            ("integer", DataType::Int32),
            ("int8", DataType::Int64),
            ("real", DataType::Float32),
            ("float", DataType::Float64),
            ("float(24)", DataType::Float32),
            ("double precision", DataType::Float64),
            ("double", DataType::Float64),
            ("numeric", DataType::Decimal128(38, 10)),
            ("numeric(10)", DataType::Decimal128(10, 0)),
            ("decimal(10, 2)", DataType::Decimal128(10, 2)),
            ("varchar", DataType::Utf8),
            ("character varying(20)", DataType::Utf8),
            ("bytea", DataType::Binary),
            ("date", DataType::Date32),
            ("time", DataType::Time64(TimeUnit::Microsecond)),
            ("timestamp", TIMESTAMP),
            ("timestamp without time zone", TIMESTAMP),
            ("timestamptz", timestamptz()),
            ("timestamp with time zone", timestamptz()),
            ("interval", DataType::Interval(IntervalUnit::MonthDayNano)),
            ("jsonb", DataType::LargeUtf8),
            ("uuid", DataType::FixedSizeBinary(16)),
            ("int[]", DataType::new_list(DataType::Int32, true)),
        ] {
            assert_eq!(parse(text).expect(text), expected, "{text}");
        }
        for text in ["numeric(39)", "numeric(5,6)", "timestamp(7)", "xml", "time with time zone"] {
            parse(text).expect_err(text);
        }
    }
}
