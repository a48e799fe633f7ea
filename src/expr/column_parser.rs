//! A column of values from their texts, one after another: what COPY reads into, and the one way
//! from texts to arrays.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder,
    LargeStringBuilder, PrimitiveBuilder, StringArray, StringBuilder,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};

use super::parse::{
    boolean, date, decimal, float4, float8, integer, parse_bytea, parse_styled, time, timestamp_us,
    uuid,
};
use super::parse_array::parse_lists;
use super::parse_interval::styled_interval;
use crate::delta::jsonb;
use crate::delta::style::TextStyle;
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result};

/// A column of values from their texts; NULL stays NULL.
pub(super) fn parse_column(
    texts: &StringArray,
    data_type: &DataType,
    style: TextStyle,
) -> Result<ArrayRef> {
    match data_type {
        DataType::Utf8 => Ok(Arc::new(texts.clone())),
        DataType::List(field) => parse_lists(texts, field, style),
        _ => {
            let mut parser = ColumnParser::new(data_type, style)?;
            texts.iter().try_for_each(|text| parser.push(text))?;
            parser.finish()
        }
    }
}

/// Values of one type under construction.
#[derive(Debug)]
pub struct ColumnParser {
    data_type: DataType,
    style: TextStyle,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Boolean(BooleanBuilder),
    Int16(PrimitiveBuilder<Int16Type>),
    Int32(PrimitiveBuilder<Int32Type>),
    Int64(PrimitiveBuilder<Int64Type>),
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(PrimitiveBuilder<Float64Type>),
    Numeric(PrimitiveBuilder<Decimal128Type>, (u8, i8)),
    Date(PrimitiveBuilder<Date32Type>),
    Time(PrimitiveBuilder<Time64MicrosecondType>),
    Timestamp(PrimitiveBuilder<TimestampMicrosecondType>, bool),
    Interval(PrimitiveBuilder<IntervalMonthDayNanoType>),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Jsonb(LargeStringBuilder),
    Uuid(FixedSizeBinaryBuilder),
    /// Texts of arrays, each of which can be read.
    Lists(StringBuilder),
}

impl ColumnParser {
    /// An empty column, whose texts are in a style; 0A000 for a type that has no texts.
    pub fn new(data_type: &DataType, style: TextStyle) -> Result<Self> {
        use Values as V;
        let values = match data_type {
            DataType::Boolean => V::Boolean(BooleanBuilder::new()),
            DataType::Int16 => V::Int16(PrimitiveBuilder::new()),
            DataType::Int32 => V::Int32(PrimitiveBuilder::new()),
            DataType::Int64 => V::Int64(PrimitiveBuilder::new()),
            DataType::Float32 => V::Float32(PrimitiveBuilder::new()),
            DataType::Float64 => V::Float64(PrimitiveBuilder::new()),
            DataType::Decimal128(p, s) => {
                let values = PrimitiveBuilder::new().with_data_type(data_type.clone());
                V::Numeric(values, (*p, *s))
            }
            DataType::Date32 => V::Date(PrimitiveBuilder::new()),
            DataType::Time64(TimeUnit::Microsecond) => V::Time(PrimitiveBuilder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                let values = PrimitiveBuilder::new().with_data_type(data_type.clone());
                V::Timestamp(values, zone.is_some())
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => V::Interval(PrimitiveBuilder::new()),
            DataType::Utf8 => V::Text(StringBuilder::new()),
            DataType::Binary => V::Bytes(BinaryBuilder::new()),
            DataType::LargeUtf8 => V::Jsonb(LargeStringBuilder::new()),
            DataType::FixedSizeBinary(16) => V::Uuid(FixedSizeBinaryBuilder::new(16)),
            DataType::List(_) => V::Lists(StringBuilder::new()),
            other => {
                let name = pg_type_name(other);
                return Err(Error::unsupported(format!("text can not be read as {name}")));
            }
        };
        Ok(Self { data_type: data_type.clone(), style, values })
    }

    /// Adds the value of a text; NULL where there is none.
    pub fn push(&mut self, text: Option<&str>) -> Result<()> {
        use Values as V;
        let (to, style) = (&self.data_type, self.style);
        match &mut self.values {
            V::Boolean(out) => out.append_option(text.map(boolean).transpose()?),
            V::Int16(out) => put(out, text, |t| integer(t, to))?,
            V::Int32(out) => put(out, text, |t| integer(t, to))?,
            V::Int64(out) => put(out, text, |t| integer(t, to))?,
            V::Float32(out) => put(out, text, float4)?,
            V::Float64(out) => put(out, text, float8)?,
            V::Numeric(out, (p, s)) => put(out, text, |t| decimal(t, *p, *s))?,
            V::Date(out) => put(out, text, |t| date(t, style.order))?,
            V::Time(out) => put(out, text, |t| time(t, to, style.order))?,
            V::Timestamp(out, zoned) => {
                put(out, text, |t| timestamp_us(t, *zoned, to, style))?;
            }
            V::Interval(out) => put(out, text, |t| styled_interval(t, style.intervals))?,
            V::Text(out) => out.append_option(text),
            V::Bytes(out) => out.append_option(text.map(parse_bytea).transpose()?),
            V::Jsonb(out) => out.append_option(text.map(jsonb::canonical).transpose()?),
            V::Uuid(out) => match text {
                Some(text) => out.append_value(uuid(text)?)?,
                None => out.append_null(),
            },
            V::Lists(out) => {
                // Elements are read as columns, all together; what is wrong is said here.
                text.map(|t| parse_styled(t, to, style)).transpose()?;
                out.append_option(text);
            }
        }
        Ok(())
    }

    /// Takes the values; the column is empty afterwards.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        use Values as V;
        Ok(match &mut self.values {
            V::Boolean(out) => Arc::new(out.finish()),
            V::Int16(out) => Arc::new(out.finish()),
            V::Int32(out) => Arc::new(out.finish()),
            V::Int64(out) => Arc::new(out.finish()),
            V::Float32(out) => Arc::new(out.finish()),
            V::Float64(out) => Arc::new(out.finish()),
            V::Numeric(out, _) => Arc::new(out.finish()),
            V::Date(out) => Arc::new(out.finish()),
            V::Time(out) => Arc::new(out.finish()),
            V::Timestamp(out, _) => Arc::new(out.finish()),
            V::Interval(out) => Arc::new(out.finish()),
            V::Text(out) => Arc::new(out.finish()),
            V::Bytes(out) => Arc::new(out.finish()),
            V::Jsonb(out) => Arc::new(out.finish()),
            V::Uuid(out) => Arc::new(out.finish()),
            V::Lists(out) => parse_column(&out.finish(), &self.data_type, self.style)?,
        })
    }
}

fn put<T: ArrowPrimitiveType>(
    out: &mut PrimitiveBuilder<T>,
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<T::Native>,
) -> Result<()> {
    match text {
        Some(text) => out.append_value(parse(text)?),
        None => out.append_null(),
    }
    Ok(())
}
