//! Values as text, as PostgreSQL prints them: the form of the shell, of the text protocol, of
//! `$errors` and of tests. NULL has no text here; what stands for it is the caller's choice.
//!
//! Two types of the engine have an Arrow type to themselves: `jsonb` is LargeUtf8 (its canonical
//! text), `uuid` is FixedSizeBinary(16). Types that PostgreSQL does not have (unsigned integers,
//! nanosecond timestamps) appear only in ad-hoc results and print as their nearest PostgreSQL type.
//! `numeric` without declared scale is Decimal128(38,10) and prints without trailing zeros, and so
//! does what is computed from it, whose scale is at least that; a declared scale is kept.

use std::fmt::{self, Write};

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, DurationMicrosecondType, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType,
    IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::style::{ByteaOutput, TextStyle};
use super::time_text::{write_date, write_interval, write_moment, write_time};

/// Precision of `numeric` without a declaration.
pub const NUMERIC_PRECISION: u8 = 38;
/// Scale of `numeric` without a declaration; its text has no trailing zeros.
pub const NUMERIC_SCALE: i8 = 10;
/// The time zone of every `timestamp with time zone`.
pub const UTC: &str = "+00:00";

const SECOND_US: i64 = 1_000_000;

/// The text of one value; `None` for NULL.
pub fn display_value(array: &dyn Array, row: usize) -> Option<String> {
    styled_value(array, row, TextStyle::DEFAULT)
}

/// Appends the text of one value that is not NULL.
pub fn write_value(array: &dyn Array, row: usize, out: &mut String) {
    write_styled(array, row, TextStyle::DEFAULT, out);
}

/// The same in a style.
pub fn write_styled(array: &dyn Array, row: usize, style: TextStyle, out: &mut String) {
    // Writing to a string cannot fail; a value that its type cannot print leaves a mark instead.
    if write(array, row, style, out).is_err() {
        out.push('?');
    }
}

/// Whether the text of a type hangs on the style.
pub fn has_styles(data_type: &DataType) -> bool {
    match data_type {
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => true,
        DataType::Interval(_) | DataType::Duration(_) => true,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        DataType::List(field) => has_styles(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| has_styles(f.data_type())),
        DataType::Dictionary(_, values) => has_styles(values),
        _ => false,
    }
}

fn write(array: &dyn Array, row: usize, style: TextStyle, out: &mut String) -> fmt::Result {
    match array.data_type() {
        DataType::Boolean => out.write_str(if array.as_boolean().value(row) { "t" } else { "f" }),
        DataType::Int8 => write!(out, "{}", array.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => write!(out, "{}", array.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => write!(out, "{}", array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => write!(out, "{}", array.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => write!(out, "{}", array.as_primitive::<UInt8Type>().value(row)),
        DataType::UInt16 => write!(out, "{}", array.as_primitive::<UInt16Type>().value(row)),
        DataType::UInt32 => write!(out, "{}", array.as_primitive::<UInt32Type>().value(row)),
        DataType::UInt64 => write!(out, "{}", array.as_primitive::<UInt64Type>().value(row)),
        DataType::Float32 => write_float4(array.as_primitive::<Float32Type>().value(row), out),
        DataType::Float64 => write_float8(array.as_primitive::<Float64Type>().value(row), out),
        DataType::Decimal128(p, s) => {
            write_decimal(array.as_primitive::<Decimal128Type>().value(row), *p, *s, out)
        }
        DataType::Utf8 => out.write_str(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => out.write_str(array.as_string::<i64>().value(row)),
        DataType::Utf8View => out.write_str(array.as_string_view().value(row)),
        DataType::Binary => write_bytes(array.as_binary::<i32>().value(row), style.bytes, out),
        DataType::LargeBinary => write_bytes(array.as_binary::<i64>().value(row), style.bytes, out),
        DataType::BinaryView => write_bytes(array.as_binary_view().value(row), style.bytes, out),
        DataType::FixedSizeBinary(16) => write_uuid(array.as_fixed_size_binary().value(row), out),
        DataType::List(_) => write_list(&array.as_list::<i32>().value(row), style, out),
        DataType::Struct(_) => write_record(array.as_struct(), row, style, out),
        DataType::Dictionary(_, values) => match arrow::compute::cast(&array.slice(row, 1), values)
        {
            Ok(value) => write(&value, 0, style, out),
            Err(_) => Err(fmt::Error),
        },
        _ => write_temporal(array, row, style, out),
    }
}

fn write_temporal(
    array: &dyn Array,
    row: usize,
    style: TextStyle,
    out: &mut String,
) -> fmt::Result {
    match array.data_type() {
        DataType::Date32 => {
            write_date(i64::from(array.as_primitive::<Date32Type>().value(row)), style, out)
        }
        DataType::Date64 => {
            let day = array.as_primitive::<Date64Type>().value(row).div_euclid(86_400_000);
            write_date(day, style, out)
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            write_time(array.as_primitive::<Time64MicrosecondType>().value(row), out)
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            write_time(array.as_primitive::<Time64NanosecondType>().value(row) / 1_000, out)
        }
        DataType::Timestamp(unit, zone) => {
            let us = timestamp_us(array, row, *unit).ok_or(fmt::Error)?;
            write_moment(us, zone.is_some(), style, out)
        }
        DataType::Interval(unit) => {
            write_interval(interval_parts(array, row, *unit), style.intervals, out)
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            let us = array.as_primitive::<DurationMicrosecondType>().value(row);
            write_interval((0, 0, us), style.intervals, out)
        }
        _ => {
            let text = arrow::util::display::array_value_to_string(array, row);
            out.write_str(&text.map_err(|_| fmt::Error)?)
        }
    }
}

fn timestamp_us(array: &dyn Array, row: usize, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Second => {
            array.as_primitive::<TimestampSecondType>().value(row).checked_mul(SECOND_US)
        }
        TimeUnit::Millisecond => {
            array.as_primitive::<TimestampMillisecondType>().value(row).checked_mul(1_000)
        }
        TimeUnit::Microsecond => Some(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        TimeUnit::Nanosecond => {
            Some(array.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000))
        }
    }
}

fn interval_parts(array: &dyn Array, row: usize, unit: IntervalUnit) -> (i32, i32, i64) {
    match unit {
        IntervalUnit::YearMonth => (array.as_primitive::<IntervalYearMonthType>().value(row), 0, 0),
        IntervalUnit::DayTime => {
            let v = array.as_primitive::<IntervalDayTimeType>().value(row);
            (0, v.days, i64::from(v.milliseconds) * 1_000)
        }
        IntervalUnit::MonthDayNano => {
            let v = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            (v.months, v.days, v.nanoseconds / 1_000)
        }
    }
}

/// Appends a double precision value: the shortest digits that read back as the same value.
pub fn write_float8(value: f64, out: &mut String) -> fmt::Result {
    match special_float(value) {
        Some(text) => out.write_str(text),
        // PostgreSQL changes to the exponent form at 10^15.
        None => write_shortest(&format!("{value:e}"), 15, out),
    }
}

/// Appends a real value.
pub fn write_float4(value: f32, out: &mut String) -> fmt::Result {
    match special_float(f64::from(value)) {
        Some(text) => out.write_str(text),
        None => write_shortest(&format!("{value:e}"), 6, out),
    }
}

fn special_float(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        None
    }
}

/// Rewrites Rust's shortest `d.ddde-x` into PostgreSQL's choice of positional or exponent form.
fn write_shortest(scientific: &str, fixed_below: i32, out: &mut String) -> fmt::Result {
    let (mantissa, exponent) = scientific.split_once('e').ok_or(fmt::Error)?;
    let exponent: i32 = exponent.parse().map_err(|_| fmt::Error)?;
    if exponent < -4 || exponent >= fixed_below {
        let sign = if exponent < 0 { '-' } else { '+' };
        return write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
    }
    let digits = match mantissa.strip_prefix('-') {
        Some(rest) => {
            out.push('-');
            rest
        }
        None => mantissa,
    };
    let digits: String = digits.chars().filter(|c| *c != '.').collect();
    if exponent < 0 {
        let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
        return write!(out, "0.{}{digits}", "0".repeat(zeros));
    }
    let whole = usize::try_from(exponent).unwrap_or(0) + 1;
    match digits.len() > whole {
        true => write!(out, "{}.{}", &digits[..whole], &digits[whole..]),
        false => write!(out, "{digits}{}", "0".repeat(whole - digits.len())),
    }
}

/// Appends a decimal of a scale; undeclared `numeric` loses its trailing zeros.
pub fn write_decimal(value: i128, precision: u8, scale: i8, out: &mut String) -> fmt::Result {
    if value < 0 {
        out.push('-');
    }
    let magnitude = value.unsigned_abs();
    let Some(scale) = u32::try_from(scale).ok().filter(|s| *s > 0) else {
        write!(out, "{magnitude}")?;
        let zeros = if magnitude == 0 { 0 } else { usize::from(scale.unsigned_abs()) };
        return out.write_str(&"0".repeat(zeros));
    };
    let unit = 10u128.pow(scale);
    let (whole, fraction) = (magnitude / unit, magnitude % unit);
    write!(out, "{whole}")?;
    let undeclared = precision == NUMERIC_PRECISION && i128::from(scale) >= NUMERIC_SCALE.into();
    if undeclared && fraction == 0 {
        return Ok(());
    }
    let width = scale as usize;
    write!(out, ".{fraction:0width$}")?;
    if undeclared {
        out.truncate(out.trim_end_matches('0').len());
    }
    Ok(())
}

/// Appends bytes as `\x` and lower-case hexadecimal digits, or as characters where they are some of
/// ASCII's.
fn write_bytes(bytes: &[u8], form: ByteaOutput, out: &mut String) -> fmt::Result {
    if form == ByteaOutput::Escape {
        return bytes.iter().try_for_each(|b| match b {
            b'\\' => out.write_str("\\\\"),
            0x20..=0x7e => out.write_char(char::from(*b)),
            _ => write!(out, "\\{b:03o}"),
        });
    }
    out.push_str("\\x");
    bytes.iter().try_for_each(|b| write!(out, "{b:02x}"))
}

/// Appends the 16 bytes of a uuid in groups of 8, 4, 4, 4 and 12 digits.
fn write_uuid(bytes: &[u8], out: &mut String) -> fmt::Result {
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        write!(out, "{byte:02x}")?;
    }
    Ok(())
}

/// Appends a timestamp in microseconds since 1970; with a zone it is in UTC and ends in `+00`.
pub fn write_timestamp(us: i64, zoned: bool, out: &mut String) -> fmt::Result {
    write_moment(us, zoned, TextStyle::DEFAULT, out)
}

/// The text of one value in a style; `None` for NULL.
pub fn styled_value(array: &dyn Array, row: usize, style: TextStyle) -> Option<String> {
    if array.is_null(row) || array.data_type() == &DataType::Null {
        return None;
    }
    let mut out = String::new();
    write_styled(array, row, style, &mut out);
    Some(out)
}

/// Appends an array as `{a,b,NULL}`, elements quoted where PostgreSQL quotes them.
fn write_list(values: &ArrayRef, style: TextStyle, out: &mut String) -> fmt::Result {
    out.push('{');
    for row in 0..values.len() {
        if row > 0 {
            out.push(',');
        }
        match styled_value(values, row, style) {
            None => out.push_str("NULL"),
            Some(text)
                if needs_quotes(&text) && !matches!(values.data_type(), DataType::List(_)) =>
            {
                out.push('"');
                for c in text.chars() {
                    if matches!(c, '"' | '\\') {
                        out.push('\\');
                    }
                    out.push(c);
                }
                out.push('"');
            }
            Some(text) => out.push_str(&text),
        }
    }
    out.push('}');
    Ok(())
}

/// Appends a row as `(a,"b c",)`: NULL is nothing, quotes and backslashes in quotes are doubled.
fn write_record(rows: &StructArray, row: usize, style: TextStyle, out: &mut String) -> fmt::Result {
    out.push('(');
    for (i, column) in rows.columns().iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let Some(text) = styled_value(column, row, style) else { continue };
        let special = |c: char| {
            c.is_ascii_whitespace() || c == '\u{b}' || matches!(c, '(' | ')' | ',' | '"' | '\\')
        };
        if !text.is_empty() && !text.contains(special) {
            out.push_str(&text);
            continue;
        }
        out.push('"');
        for c in text.chars() {
            if matches!(c, '"' | '\\') {
                out.push(c);
            }
            out.push(c);
        }
        out.push('"');
    }
    out.push(')');
    Ok(())
}

fn needs_quotes(text: &str) -> bool {
    text.is_empty()
        || text.eq_ignore_ascii_case("null")
        || text.contains(|c: char| {
            c.is_ascii_whitespace() || c == '\u{b}' || matches!(c, '{' | '}' | ',' | '"' | '\\')
        })
}

/// The PostgreSQL name of a type, without modifiers, as in error messages.
pub fn pg_type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Int64 | DataType::UInt32 => "bigint",
        DataType::UInt64 => "numeric",
        DataType::Float16 | DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => "numeric",
        DataType::Utf8 | DataType::Utf8View => "text",
        DataType::LargeUtf8 => "jsonb",
        DataType::FixedSizeBinary(16) => "uuid",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytea",
        DataType::FixedSizeBinary(_) => "bytea",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time without time zone",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Interval(_) | DataType::Duration(_) => "interval",
        DataType::Null => "unknown",
        DataType::List(field) => array_type_name(field.data_type()),
        DataType::LargeList(_) | DataType::FixedSizeList(..) => "anyarray",
        DataType::Struct(_) => "record",
        DataType::Dictionary(_, values) => pg_type_name(values),
        _ => "unknown",
    }
}

/// The name of the array type of an element type; PostgreSQL does not count dimensions in it.
fn array_type_name(element: &DataType) -> &'static str {
    match pg_type_name(element) {
        "boolean" => "boolean[]",
        "smallint" => "smallint[]",
        "integer" => "integer[]",
        "bigint" => "bigint[]",
        "real" => "real[]",
        "double precision" => "double precision[]",
        "numeric" => "numeric[]",
        "text" => "text[]",
        "jsonb" => "jsonb[]",
        "uuid" => "uuid[]",
        "bytea" => "bytea[]",
        "date" => "date[]",
        "time without time zone" => "time without time zone[]",
        "timestamp without time zone" => "timestamp without time zone[]",
        "timestamp with time zone" => "timestamp with time zone[]",
        "interval" => "interval[]",
        "record" => "record[]",
        nested if nested.ends_with("[]") => nested,
        _ => "anyarray",
    }
}

/// The PostgreSQL name of a type with its modifiers, as in a column list: `numeric(10,2)`.
pub fn pg_type_declared(data_type: &DataType) -> String {
    match data_type {
        DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE) => "numeric".to_string(),
        DataType::Decimal128(p, s) => format!("numeric({p},{s})"),
        DataType::List(field) => format!("{}[]", pg_type_declared(field.data_type())),
        other => pg_type_name(other).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
        IntervalMonthDayNanoArray, ListArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::IntervalMonthDayNano;

    fn text(array: &dyn Array) -> Vec<String> {
        (0..array.len()).map(|i| display_value(array, i).unwrap_or_else(|| "NULL".into())).collect()
    }

    #[test]
    fn floats_print_as_postgresql_prints_them() {
        let values = [
            0.1,
            1.0,
            -0.0,
            1e14,
            1e15,
            1e20,
            1.5e-4,
            1e-5,
            123456.789,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            1.2345678901234567e17,
            5e-324,
        ];
        assert_eq!(
            text(&Float64Array::from_iter_values(values)),
            [
                "0.1",
                "1",
                "-0",
                "100000000000000",
                "1e+15",
                "1e+20",
                "0.00015",
                "1e-05",
                "123456.789",
                "NaN",
                "Infinity",
                "-Infinity",
                "1.2345678901234566e+17",
                "5e-324",
            ]
        );
        let reals = Float32Array::from(vec![100000.0, 1e6, 0.1, 1.5e-5]);
        assert_eq!(text(&reals), ["100000", "1e+06", "0.1", "1.5e-05"]);
    }

    #[test]
    fn numeric_keeps_a_declared_scale_alone() {
        let array = |p, s, v: Vec<i128>| {
            Decimal128Array::from_iter_values(v).with_precision_and_scale(p, s).expect("in range")
        };
        assert_eq!(text(&array(10, 2, vec![150, -5, 0])), ["1.50", "-0.05", "0.00"]);
        let undeclared = array(38, 10, vec![15_000_000_000, 1, -10_000_000_000, 0]);
        assert_eq!(text(&undeclared), ["1.5", "0.0000000001", "-1", "0"]);
        assert_eq!(text(&array(38, 0, vec![42])), ["42"]);
        // A product of two of them.
        let product = array(38, 18, vec![90_927_624_300_000_000_000_000]);
        assert_eq!(text(&product), ["90927.6243"]);
    }

    #[test]
    fn dates_times_and_timestamps() {
        assert_eq!(
            text(&Date32Array::from(vec![0, 19_723, -719_162, -719_163, 11_016])),
            ["1970-01-01", "2024-01-01", "0001-01-01", "0001-12-31 BC", "2000-02-29"]
        );
        let us = 1_704_067_200_000_000;
        let ts = TimestampMicrosecondArray::from(vec![us, us + 123_000, -1]);
        assert_eq!(
            text(&ts),
            ["2024-01-01 00:00:00", "2024-01-01 00:00:00.123", "1969-12-31 23:59:59.999999"]
        );
        assert_eq!(
            text(&ts.slice(0, 2).with_timezone(UTC)),
            ["2024-01-01 00:00:00+00", "2024-01-01 00:00:00.123+00"]
        );
        let time = Time64MicrosecondArray::from(vec![0, 45_296_500_000]);
        assert_eq!(text(&time), ["00:00:00", "12:34:56.5"]);
    }

    #[test]
    fn intervals() {
        let values = [
            (1, 2, 11_045_500_000_000),
            (0, 0, 0),
            (14, 0, 0),
            (-1, 3, -60_000_000_000),
            (0, -1, 1_000_000_000),
            (0, 0, 90_000_000_000_000),
        ];
        let array = IntervalMonthDayNanoArray::from_iter_values(
            values.map(|(m, d, n)| IntervalMonthDayNano::new(m, d, n)),
        );
        assert_eq!(
            text(&array),
            [
                "1 mon 2 days 03:04:05.5",
                "00:00:00",
                "1 year 2 mons",
                "-1 mons +3 days -00:01:00",
                "-1 days +00:00:01",
                "25:00:00",
            ]
        );
    }

    #[test]
    fn bytes_as_characters() {
        let mut out = String::new();
        write_bytes(b"a\\\x00~\x7f\xff'", ByteaOutput::Escape, &mut out).expect("a string");
        assert_eq!(out, "a\\\\\\000~\\177\\377'");
    }

    #[test]
    fn the_other_types() {
        assert_eq!(
            text(&BooleanArray::from(vec![Some(true), Some(false), None])),
            ["t", "f", "NULL"]
        );
        assert_eq!(text(&BinaryArray::from_vec(vec![b"\x00\xff"])), ["\\x00ff"]);
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]);
        assert_eq!(text(&list), ["{1,NULL}"]);
        assert_eq!(pg_type_declared(&DataType::Decimal128(10, 2)), "numeric(10,2)");
        assert_eq!(pg_type_declared(&DataType::Decimal128(38, 10)), "numeric");
        assert_eq!(pg_type_name(&DataType::Int32), "integer");
    }
}
