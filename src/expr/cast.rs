//! Casts with PostgreSQL's meaning and wording, as one array function and one scalar function.
//!
//! Text comes from `delta::text` and goes through [`parse_column`]; floats round half to even and
//! decimals half away from zero on their way to integers; what does not fit is 22003. Arrow's cast
//! truncates there, and its texts of timestamps and floats are not PostgreSQL's.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, LargeStringArray, ListArray, PrimitiveArray,
    StringArray, StringBuilder, StructArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, FieldRef, Float64Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::arith::out_of_range;
use super::column_parser::parse_column;
use super::errors::to_datafusion;
use super::numeric::{digits_of, rescale};
use super::parse::decimal;
use super::temporal::cast_time;
use crate::delta::jsonb;
use crate::delta::style::{DateFormat, TextStyle};
use crate::delta::text::{has_styles, pg_type_name, write_styled};
use crate::delta::zone::Zone;
use crate::error::{Error, Result, sqlstate};

/// Where a cast comes from, which decides what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coercion {
    /// `CAST(x AS t)`, `x::t`.
    Explicit,
    /// INSERT and UPDATE into a column.
    Assignment,
}

/// Whether PostgreSQL casts between two types in a context. Equal types always pass.
pub fn can_cast(from: &DataType, to: &DataType, coercion: Coercion) -> bool {
    use DataType::{Binary, Boolean, Date32, Int32, Interval, Null, Time64, Timestamp, Utf8};
    let text = |t: &DataType| matches!(t, Utf8 | DataType::Utf8View);
    let explicit = coercion == Coercion::Explicit;
    match (from, to) {
        (Null, _) => true,
        (f, t) if f == t => true,
        (f, t) if text(f) => explicit || text(t),
        (DataType::List(f), DataType::List(t)) => can_cast(f.data_type(), t.data_type(), coercion),
        (DataType::List(_) | DataType::Struct(_), t) => text(t),
        (_, t) if text(t) => true,
        (DataType::LargeUtf8, t) => explicit && (t.is_numeric() || *t == Boolean),
        (DataType::FixedSizeBinary(_), Binary) | (Binary, DataType::FixedSizeBinary(16)) => {
            explicit
        }
        (f, t) if f.is_numeric() && t.is_numeric() => true,
        (Int32 | DataType::Int64, Boolean) | (Boolean, Int32) => explicit,
        (Timestamp(..), Timestamp(..) | Date32 | Time64(_)) | (Date32, Timestamp(..)) => true,
        (Interval(_), Interval(_)) | (Time64(_), Time64(_) | Interval(_)) => true,
        (DataType::Duration(_), Interval(_)) | (Interval(_), Time64(_)) => true,
        (DataType::BinaryView | DataType::LargeBinary, Binary) => true,
        (DataType::Date64, Date32 | Timestamp(..)) => true,
        _ => false,
    }
}

/// Casts an array. Types that PostgreSQL does not cast between are 42846.
pub fn cast_array(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    cast_styled(array, to, TextStyle::DEFAULT)
}

/// The same with texts, where there are some, in a style.
pub fn cast_styled(array: &ArrayRef, to: &DataType, style: TextStyle) -> Result<ArrayRef> {
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    if let (DataType::Struct(_), DataType::Struct(fields)) = (from, to) {
        let rows = array.as_struct();
        let columns = rows.columns().iter().zip(fields);
        let columns = columns.map(|(column, to)| cast_styled(column, to.data_type(), style));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let nulls = rows.nulls().cloned();
        let rows = StructArray::try_new_with_length(fields.clone(), columns, nulls, array.len());
        return Ok(Arc::new(rows?));
    }
    if !can_cast(from, to, Coercion::Explicit) {
        return Err(cannot_cast(from, to));
    }
    match (from, to) {
        (DataType::Timestamp(..) | DataType::Date32, DataType::Timestamp(..))
        | (DataType::Timestamp(..), DataType::Date32 | DataType::Time64(_))
            if !style.zone.is_utc() && is_zoned(from) != is_zoned(to) =>
        {
            between_clocks(array, to, style.zone)
        }
        (DataType::Utf8, _) => parse_column(array.as_string(), to, style),
        (DataType::Utf8View, _) => {
            parse_column(arrow_cast(array, &DataType::Utf8)?.as_string(), to, style)
        }
        (DataType::Null, _) => Ok(arrow::array::new_null_array(to, array.len())),
        (DataType::List(_), DataType::List(field)) => {
            let lists = array.as_list::<i32>();
            let values = cast_styled(lists.values(), field.data_type(), style)?;
            let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
            Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, values, nulls)?))
        }
        (DataType::Time64(_), DataType::Interval(_))
        | (DataType::Interval(_), DataType::Time64(_)) => Ok(cast_time(array, to)),
        (DataType::LargeUtf8, t) if *t != DataType::Utf8 => from_jsonb(array.as_string(), to),
        (_, DataType::Utf8) => Ok(Arc::new(to_text(array, style))),
        (_, DataType::Int16) => to_integer::<Int16Type>(array, to),
        (_, DataType::Int32) => to_integer::<Int32Type>(array, to),
        (_, DataType::Int64) => to_integer::<Int64Type>(array, to),
        (_, DataType::Decimal128(p, s)) => to_decimal(array, *p, *s),
        (DataType::Float64, DataType::Float32) => {
            let out = arrow_cast(array, to)?;
            let (wide, narrow) = (array.as_primitive::<Float64Type>(), float4(&out));
            let lost = (0..out.len()).any(|i| {
                out.is_valid(i) && wide.value(i).is_finite() && !narrow.value(i).is_finite()
            });
            match lost {
                true => Err(out_of_range(to)),
                false => Ok(out),
            }
        }
        _ => arrow_cast(array, to),
    }
}

/// Whether values of a type are moments, which clocks show differently.
pub(crate) fn is_zoned(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(_, zone) => zone.is_some(),
        DataType::List(field) => is_zoned(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| is_zoned(field.data_type())),
        _ => false,
    }
}

/// Between a moment and what the clock and the calendar of a zone show then.
fn between_clocks(array: &ArrayRef, to: &DataType, zone: Zone) -> Result<ArrayRef> {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, None);
    let moments = arrow_cast(array, &utc)?;
    let moments = moments.as_primitive::<TimestampMicrosecondType>();
    let moved =
        moments.try_unary::<_, TimestampMicrosecondType, Error>(|us| match is_zoned(to) {
            true => zone.to_utc(us),
            false => zone.to_local(us),
        })?;
    let moved: ArrayRef = Arc::new(moved);
    arrow_cast(&moved, to)
}

/// Numbers and booleans of jsonb as such; everything else can't be cast.
fn from_jsonb(array: &LargeStringArray, to: &DataType) -> Result<ArrayRef> {
    let mut texts = StringBuilder::with_capacity(array.len(), array.len() * 8);
    for json in array {
        let kind = json.map(jsonb::kind);
        match kind {
            None => texts.append_null(),
            Some("boolean") if *to == DataType::Boolean => texts.append_option(json),
            Some("number") if to.is_numeric() => texts.append_option(json),
            Some(kind) => {
                return Err(Error::user(
                    sqlstate::INVALID_PARAMETER_VALUE,
                    format!("cannot cast jsonb {kind} to type {}", pg_type_name(to)),
                ));
            }
        }
    }
    let texts = texts.finish();
    let read = |to| parse_column(&texts, to, TextStyle::DEFAULT);
    match to.is_integer() {
        // Rounded like a numeric.
        true => cast_array(&read(&DataType::Decimal128(38, 10))?, to),
        false => read(to),
    }
}

fn float4(array: &ArrayRef) -> &arrow::array::Float32Array {
    array.as_primitive::<arrow::datatypes::Float32Type>()
}

/// `cannot cast type x to y`.
pub(crate) fn cannot_cast(from: &DataType, to: &DataType) -> Error {
    Error::user("42846", format!("cannot cast type {} to {}", pg_type_name(from), pg_type_name(to)))
}

fn arrow_cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(array, to, &options)?)
}

/// The text of a cast: as printed, but booleans in full.
fn to_text(array: &ArrayRef, style: TextStyle) -> StringArray {
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 8);
    let mut text = String::new();
    for row in 0..array.len() {
        if array.is_null(row) || array.data_type() == &DataType::Null {
            out.append_null();
            continue;
        }
        text.clear();
        match array.as_boolean_opt() {
            Some(b) => text.push_str(if b.value(row) { "true" } else { "false" }),
            None => write_styled(array, row, style, &mut text),
        }
        out.append_value(&text);
    }
    out.finish()
}

fn to_integer<T>(array: &ArrayRef, to: &DataType) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: TryFrom<i64> + TryFrom<i128>,
{
    let convert = |v: i128| T::Native::try_from(v).map_err(|_| out_of_range(to));
    match array.data_type() {
        DataType::Decimal128(_, scale) => {
            let values = array.as_primitive::<Decimal128Type>();
            unary::<Decimal128Type, T>(values, |v| convert(rescale(v, *scale, 38, 0)?))
        }
        DataType::Float32 | DataType::Float64 => {
            let wide = arrow_cast(array, &DataType::Float64)?;
            unary::<Float64Type, T>(wide.as_primitive(), |v| {
                let rounded = v.round_ties_even();
                // The range of i64 as floats: the upper end is not an i64 any more.
                let range = -9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0;
                match range.contains(&rounded) {
                    true => convert(i128::from(rounded as i64)),
                    false => Err(out_of_range(to)),
                }
            })
        }
        from if from.is_integer() => {
            let wide = match from {
                DataType::UInt64 => {
                    let values = array.as_primitive::<arrow::datatypes::UInt64Type>();
                    return unary::<arrow::datatypes::UInt64Type, T>(values, |v| {
                        convert(i128::from(v))
                    });
                }
                _ => arrow_cast(array, &DataType::Int64)?,
            };
            unary::<Int64Type, T>(wide.as_primitive(), |v| convert(i128::from(v)))
        }
        _ => arrow_cast(array, to),
    }
}

fn unary<F: ArrowPrimitiveType, T: ArrowPrimitiveType>(
    array: &PrimitiveArray<F>,
    convert: impl Fn(F::Native) -> Result<T::Native>,
) -> Result<ArrayRef> {
    Ok(Arc::new(array.try_unary::<_, T, Error>(convert)?))
}

fn to_decimal(array: &ArrayRef, precision: u8, scale: i8) -> Result<ArrayRef> {
    let out: Decimal128Array = match array.data_type() {
        DataType::Decimal128(_, from) => array
            .as_primitive::<Decimal128Type>()
            .try_unary::<_, Decimal128Type, Error>(|v| rescale(v, *from, precision, scale))?,
        t if t.is_integer() => {
            let wide = arrow_cast(array, &DataType::Decimal128(20, 0))?;
            wide.as_primitive::<Decimal128Type>()
                .try_unary::<_, Decimal128Type, Error>(|v| rescale(v, 0, precision, scale))?
        }
        DataType::Float32 => {
            let values = float4(array);
            values.try_unary::<_, Decimal128Type, Error>(|v| {
                float_to_decimal(f64::from(v), 5, precision, scale)
            })?
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            values.try_unary::<_, Decimal128Type, Error>(|v| {
                float_to_decimal(v, 14, precision, scale)
            })?
        }
        _ => return arrow_cast(array, &DataType::Decimal128(precision, scale)),
    };
    Ok(Arc::new(out.with_precision_and_scale(precision, scale)?))
}

/// PostgreSQL takes 6 digits of a real and 15 of a double.
fn float_to_decimal(v: f64, digits_behind_first: usize, precision: u8, scale: i8) -> Result<i128> {
    if !v.is_finite() {
        return Err(Error::unsupported("numeric has neither NaN nor infinity"));
    }
    let mut text = String::new();
    let written = write!(text, "{v:.digits_behind_first$e}");
    debug_assert!(written.is_ok(), "writing to a string cannot fail");
    decimal(&text, precision, scale)
}

/// The scalar function of a cast to one type, with texts in the style that this thread plans for.
pub fn cast_udf(to: &DataType, coercion: Coercion) -> ScalarUDF {
    styled_udf(to, coercion, TextStyle::current())
}

fn styled_udf(to: &DataType, coercion: Coercion, style: TextStyle) -> ScalarUDF {
    ScalarUDF::new_from_impl(Cast {
        to: to.clone(),
        coercion,
        style,
        signature: Signature::any(1, Volatility::Immutable),
    })
}

/// The same of a type that is known: a zone that decides nothing is left out, so that a definition
/// that hangs on none is not tied to one.
fn udf_between(from: &DataType, to: &DataType, coercion: Coercion) -> ScalarUDF {
    let style = TextStyle::current();
    match is_zoned(from) || is_zoned(to) {
        true => styled_udf(to, coercion, style),
        false => styled_udf(to, coercion, TextStyle { zone: Zone::UTC, ..style }),
    }
}

/// Casts an expression whose type is known. A cast that arrow does in the same way stays a plain
/// cast, which the optimiser sees through; 42804 or 42846 where PostgreSQL does not cast.
pub fn cast_expr(expr: Expr, from: &DataType, to: &DataType, coercion: Coercion) -> Result<Expr> {
    if from == to {
        return Ok(expr);
    }
    if !can_cast(from, to, coercion) && !matches!(expr, Expr::Literal(..) if is_text(from)) {
        return Err(cannot_cast(from, to));
    }
    Ok(match is_plain(from, to) {
        true => Expr::Cast(datafusion::logical_expr::Cast::new(Box::new(expr), to.clone())),
        false => udf_between(from, to, coercion).call(vec![expr]),
    })
}

/// Whether a cast is between a moment and what clocks show, in a session whose clocks do not show
/// UTC.
fn is_clock_cast(from: &DataType, to: &DataType) -> bool {
    let of_days = |t: &DataType| {
        matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Time64(_))
    };
    is_zoned(from) != is_zoned(to)
        && of_days(from)
        && of_days(to)
        && !TextStyle::current().zone.is_utc()
}

fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::Utf8View)
}

/// Casts that can not fail and that arrow does as PostgreSQL does.
fn is_plain(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Int16, Int32, Int64, Null, Timestamp};
    match (from, to) {
        (Null, _) => true,
        (Int16, Int32 | Int64) | (Int32, Int64) => true,
        (Int16 | Int32 | Int64, DataType::Float64 | DataType::Float32) => true,
        (DataType::Float32, DataType::Float64) => true,
        (DataType::Decimal128(..), DataType::Float64) => true,
        (Int16 | Int32 | Int64, DataType::Decimal128(p, s)) => digits_of(from)
            .is_some_and(|(digits, _)| i16::from(*p) - i16::from(*s) >= i16::from(digits)),
        (Timestamp(..), Timestamp(..)) | (Date32, Timestamp(..)) => !is_clock_cast(from, to),
        (DataType::Utf8View | DataType::LargeUtf8, DataType::Utf8) => true,
        (DataType::BinaryView | DataType::LargeBinary, DataType::Binary) => true,
        _ => false,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Cast {
    to: DataType,
    coercion: Coercion,
    style: TextStyle,
    signature: Signature,
}

impl ScalarUDFImpl for Cast {
    fn name(&self) -> &str {
        "pg_cast"
    }

    fn display_name(&self, args: &[Expr]) -> DfResult<String> {
        let operand = args.first().map(ToString::to_string).unwrap_or_default();
        Ok(format!("CAST({operand} AS {})", crate::delta::text::pg_type_declared(&self.to)))
    }

    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        // With the type: a projection may hold an expression and casts of it.
        let operand = args.first().map(|e| e.schema_name().to_string()).unwrap_or_default();
        Ok(format!("CAST({operand} AS {})", crate::delta::text::pg_type_declared(&self.to)))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Array(array)] => cast_styled(array, &self.to, self.style)
                .map(ColumnarValue::Array)
                .map_err(to_datafusion),
            [ColumnarValue::Scalar(scalar)] => {
                let array = scalar.to_array_of_size(1)?;
                let out = cast_styled(&array, &self.to, self.style).map_err(to_datafusion)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?))
            }
            _ => plan_err!("a cast has one operand"),
        }
    }
}

/// An argument of a function that prints its arguments by itself: what it would print in the
/// default style is text already where another one is wanted.
pub fn in_style(expr: Expr, data_type: &DataType) -> Expr {
    if TextStyle::current().is_default() || !has_styles(data_type) {
        return expr;
    }
    udf_between(data_type, &of_texts(data_type), Coercion::Explicit).call(vec![expr])
}

/// An argument of a function that makes JSON: its moments are texts already where the clocks of the
/// session do not show UTC.
pub fn moments_in_json(expr: Expr, data_type: &DataType) -> Expr {
    let zone = TextStyle::current().zone;
    if zone.is_utc() || !is_zoned(data_type) {
        return expr;
    }
    let style = TextStyle { dates: DateFormat::Xsd, ..TextStyle::of_zone(zone) };
    styled_udf(&moments_as_texts(data_type), Coercion::Explicit, style).call(vec![expr])
}

/// A type with text in the place of moments.
fn moments_as_texts(data_type: &DataType) -> DataType {
    let field = |field: &FieldRef| {
        let texts = moments_as_texts(field.data_type());
        Arc::new(field.as_ref().clone().with_data_type(texts))
    };
    match data_type {
        DataType::Timestamp(_, Some(_)) => DataType::Utf8,
        DataType::List(element) => DataType::List(field(element)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}

/// Text, or arrays of it in the place of arrays.
fn of_texts(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(field) => {
            let texts = of_texts(field.data_type());
            DataType::List(Arc::new(field.as_ref().clone().with_data_type(texts)))
        }
        _ => DataType::Utf8,
    }
}

/// 42804 of an assignment.
pub(crate) fn assignment_error(column: &str, to: &DataType, from: &DataType) -> Error {
    Error::user(
        sqlstate::DATATYPE_MISMATCH,
        format!(
            "column \"{column}\" is of type {} but expression is of type {}",
            pg_type_name(to),
            pg_type_name(from)
        ),
    )
    .with_hint("You will need to rewrite or cast the expression.")
}
