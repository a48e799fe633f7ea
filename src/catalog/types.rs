//! PostgreSQL's numbers for our types, both ways. A type that PostgreSQL does not have travels as
//! the nearest one that can hold all its values (see `encode.rs`), or as text.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};

use super::TextLimit;
use crate::delta::text::{NUMERIC_PRECISION, NUMERIC_SCALE, UTC};

/// The type numbers in use, from PostgreSQL's catalog `pg_type`.
pub(crate) mod oid {
    pub(crate) const BOOL: u32 = 16;
    pub(crate) const BYTEA: u32 = 17;
    pub(crate) const CHAR: u32 = 18;
    pub(crate) const NAME: u32 = 19;
    pub(crate) const INT8: u32 = 20;
    pub(crate) const INT2: u32 = 21;
    pub(crate) const INT4: u32 = 23;
    pub(crate) const TEXT: u32 = 25;
    pub(crate) const JSON: u32 = 114;
    pub(crate) const FLOAT4: u32 = 700;
    pub(crate) const FLOAT8: u32 = 701;
    pub(crate) const BPCHAR: u32 = 1042;
    pub(crate) const VARCHAR: u32 = 1043;
    pub(crate) const DATE: u32 = 1082;
    pub(crate) const TIME: u32 = 1083;
    pub(crate) const TIMESTAMP: u32 = 1114;
    pub(crate) const TIMESTAMPTZ: u32 = 1184;
    pub(crate) const INTERVAL: u32 = 1186;
    pub(crate) const NUMERIC: u32 = 1700;
    pub(crate) const RECORD: u32 = 2249;
    pub(crate) const UUID: u32 = 2950;
    pub(crate) const JSONB: u32 = 3802;
}

/// Element type number and the number of its array type.
const ARRAYS: &[(u32, u32)] = &[
    (oid::BOOL, 1000),
    (oid::BYTEA, 1001),
    (oid::INT2, 1005),
    (oid::INT4, 1007),
    (oid::TEXT, 1009),
    (oid::INT8, 1016),
    (oid::FLOAT4, 1021),
    (oid::FLOAT8, 1022),
    (oid::TIMESTAMP, 1115),
    (oid::DATE, 1182),
    (oid::TIME, 1183),
    (oid::TIMESTAMPTZ, 1185),
    (oid::INTERVAL, 1187),
    (oid::NUMERIC, 1231),
    (oid::RECORD, 2287),
    (oid::UUID, 2951),
    (oid::JSONB, 3807),
];

/// The number of the type that values of `data_type` are sent as.
pub(crate) fn type_oid(data_type: &DataType) -> u32 {
    match data_type {
        DataType::Boolean => oid::BOOL,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => oid::INT2,
        DataType::UInt16 | DataType::Int32 => oid::INT4,
        DataType::UInt32 | DataType::Int64 => oid::INT8,
        DataType::Float16 | DataType::Float32 => oid::FLOAT4,
        DataType::Float64 => oid::FLOAT8,
        DataType::UInt64 | DataType::Decimal128(..) => oid::NUMERIC,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => oid::BYTEA,
        DataType::LargeUtf8 => oid::JSONB,
        DataType::FixedSizeBinary(16) => oid::UUID,
        DataType::Date32 | DataType::Date64 => oid::DATE,
        DataType::Time32(_) | DataType::Time64(_) => oid::TIME,
        DataType::Timestamp(_, None) => oid::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => oid::TIMESTAMPTZ,
        DataType::Interval(_) => oid::INTERVAL,
        DataType::Dictionary(_, values) => type_oid(values),
        DataType::Struct(_) => oid::RECORD,
        DataType::List(field) => {
            let element = type_oid(field.data_type());
            ARRAYS.iter().find(|(e, _)| *e == element).map_or(oid::TEXT, |(_, array)| *array)
        }
        _ => oid::TEXT,
    }
}

/// The number of the type of a column with a length.
pub(crate) fn limited_oid(limit: &TextLimit) -> u32 {
    if limit.blanks { oid::BPCHAR } else { oid::VARCHAR }
}

/// The `typlen` of a type number: bytes, or -1 for a type of variable length.
pub(crate) fn type_size(oid: u32) -> i16 {
    match oid {
        oid::BOOL => 1,
        oid::INT2 => 2,
        oid::INT4 | oid::FLOAT4 | oid::DATE => 4,
        oid::INT8 | oid::FLOAT8 | oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ => 8,
        oid::INTERVAL | oid::UUID => 16,
        _ => -1,
    }
}

/// The type modifier as clients print it: precision and scale of a declared `numeric`.
pub(crate) fn type_modifier(data_type: &DataType) -> i32 {
    match data_type {
        DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE) => -1,
        DataType::Decimal128(precision, scale) if *scale >= 0 => {
            ((i32::from(*precision) << 16) | i32::from(*scale)) + 4
        }
        _ => -1,
    }
}

/// The type that a client declares for a parameter; `None` for `unknown`, for 0 and for types that
/// we do not have: the statement then decides.
pub(crate) fn declared_type(oid: u32) -> Option<DataType> {
    let data_type = match oid {
        oid::BOOL => DataType::Boolean,
        oid::INT2 => DataType::Int16,
        oid::INT4 => DataType::Int32,
        oid::INT8 => DataType::Int64,
        oid::FLOAT4 => DataType::Float32,
        oid::FLOAT8 => DataType::Float64,
        oid::NUMERIC => DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE),
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::CHAR => DataType::Utf8,
        oid::JSON | oid::JSONB => DataType::LargeUtf8,
        oid::UUID => DataType::FixedSizeBinary(16),
        oid::BYTEA => DataType::Binary,
        oid::DATE => DataType::Date32,
        oid::TIME => DataType::Time64(TimeUnit::Microsecond),
        oid::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        oid::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        oid::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        array => {
            let element = ARRAYS.iter().find(|(_, a)| *a == array).map(|(element, _)| *element);
            return Some(DataType::new_list(declared_type(element?)?, true));
        }
    };
    Some(data_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_type_is_reported_under_its_own_number() {
        let numbers = [
            oid::BOOL,
            oid::INT2,
            oid::INT4,
            oid::INT8,
            oid::FLOAT4,
            oid::FLOAT8,
            oid::NUMERIC,
            oid::TEXT,
            oid::BYTEA,
            oid::DATE,
            oid::TIME,
            oid::TIMESTAMP,
            oid::TIMESTAMPTZ,
            oid::INTERVAL,
            oid::UUID,
            oid::JSONB,
            1007,
            1009,
        ];
        for number in numbers {
            assert_eq!(declared_type(number).map(|t| type_oid(&t)), Some(number));
        }
        assert_eq!(declared_type(0), None);
        assert_eq!(type_modifier(&DataType::Decimal128(10, 2)), 655_366);
    }
}
