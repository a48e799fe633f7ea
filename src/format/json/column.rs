//! One column of the rows under construction: plain vectors that can be cut back to a row, which is
//! how a bad message leaves no trace. They become Arrow arrays without a copy.
//!
//! Invariant: a buffer holds one slot per row, whether the row is NULL there or not; `nulls` names
//! the rows that are, ascending, so that a column without NULLs pays nothing for them.

use std::mem::take;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array,
    FixedSizeBinaryArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    IntervalMonthDayNanoArray, LargeStringArray, ListArray, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNano, IntervalUnit, TimeUnit};

use super::datetime;
use super::reading::{self, Kind, Reading, UNAVAILABLE, Unit};
use super::scalar::{self, Invalid};
use super::scan::{Scanner, Token, unescape};
use super::spelled;
use crate::delta::jsonb;
use crate::error::{Error, Result};

/// Values of variable length.
#[derive(Debug)]
pub(super) struct Bytes {
    /// Where each value begins, and the end of the last.
    offsets: Vec<i32>,
    data: Vec<u8>,
}

impl Bytes {
    fn new() -> Self {
        Self { offsets: vec![0], data: Vec::new() }
    }

    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    fn get(&self, row: usize) -> Option<&[u8]> {
        let (from, to) = (*self.offsets.get(row)?, *self.offsets.get(row + 1)?);
        self.data.get(from as usize..to as usize)
    }

    fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        let end = self.offsets.last().map_or(0, |end| *end as usize);
        self.data.truncate(end);
    }

    /// Ends the value whose bytes were just appended to `data`.
    #[inline]
    fn close(&mut self) -> Result<(), Invalid> {
        self.offsets.push(i32::try_from(self.data.len()).map_err(|_| Invalid::Range)?);
        Ok(())
    }

    #[inline]
    fn push(&mut self, value: &[u8]) -> Result<(), Invalid> {
        self.data.extend_from_slice(value);
        self.close()
    }

    /// Takes offsets and data; room for as much again stays.
    fn finish(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let mut fresh = Self {
            offsets: Vec::with_capacity(self.offsets.len()),
            data: Vec::with_capacity(self.data.len()),
        };
        fresh.offsets.push(0);
        let full = std::mem::replace(self, fresh);
        (OffsetBuffer::new(ScalarBuffer::from(full.offsets)), Buffer::from_vec(full.data))
    }
}

/// The values, by type.
#[derive(Debug)]
pub(super) enum Values {
    Bool(Vec<bool>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>, u8, i8),
    Date(Vec<i32>),
    Time(Vec<i64>),
    /// With the zone of the Arrow type; values are in UTC.
    Timestamp(Vec<i64>, Option<Arc<str>>),
    Interval(Vec<IntervalMonthDayNano>),
    Text(Bytes),
    Binary(Bytes),
    /// Canonical texts.
    Jsonb(Bytes),
    Uuid(Vec<[u8; 16]>),
    List(Box<Lists>),
}

/// Arrays: the elements of all rows in one column.
#[derive(Debug)]
pub(super) struct Lists {
    /// Where each array begins, and the end of the last.
    offsets: Vec<i32>,
    elements: Column,
    field: FieldRef,
}

impl Lists {
    fn new(field: &FieldRef) -> Result<Self> {
        Ok(Self { offsets: vec![0], elements: Column::new(field)?, field: FieldRef::clone(field) })
    }

    /// Appends the array of a JSON text.
    fn push(&mut self, text: &[u8]) -> Result<(), Invalid> {
        let mut scan = Scanner::new(text).map_err(|_| Invalid::Syntax)?;
        if !scan.take(b'[') {
            return Err(Invalid::Syntax);
        }
        scan.space();
        while !scan.take(b']') {
            scan.take(b',');
            scan.space();
            let token = scan.value().map_err(|_| Invalid::Syntax)?;
            self.elements.push(token)?;
            scan.space();
        }
        self.close()
    }

    fn same(&self, a: usize, b: usize) -> bool {
        let range = |row: usize| Some(*self.offsets.get(row)?..*self.offsets.get(row + 1)?);
        let (Some(a), Some(b)) = (range(a), range(b)) else { return false };
        a.len() == b.len() && a.zip(b).all(|(a, b)| self.elements.same(a as usize, b as usize))
    }

    fn close(&mut self) -> Result<(), Invalid> {
        self.offsets.push(i32::try_from(self.elements.len()).map_err(|_| Invalid::Range)?);
        Ok(())
    }

    fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.elements.truncate(self.offsets.last().map_or(0, |end| *end as usize));
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let (field, elements) = (FieldRef::clone(&self.field), self.elements.finish()?);
        Ok(Arc::new(ListArray::try_new(field, offsets, elements, nulls)?))
    }
}

/// Runs `$fixed` with the vector of a fixed-width type as `$v`, `$bytes` with the bytes of another,
/// `$lists` with lists.
macro_rules! each {
    ($values:expr, $v:ident => $fixed:expr, $b:ident => $bytes:expr, $l:ident => $lists:expr) => {
        match $values {
            Values::Bool($v) => $fixed,
            Values::Int16($v) => $fixed,
            Values::Int32($v) | Values::Date($v) => $fixed,
            Values::Int64($v) | Values::Time($v) | Values::Timestamp($v, _) => $fixed,
            Values::Float32($v) => $fixed,
            Values::Float64($v) => $fixed,
            Values::Decimal($v, _, _) => $fixed,
            Values::Interval($v) => $fixed,
            Values::Text($b) | Values::Binary($b) | Values::Jsonb($b) => $bytes,
            Values::Uuid($v) => $fixed,
            Values::List($l) => $lists,
        }
    };
}

/// A column under construction.
#[derive(Debug)]
pub(in crate::format) struct Column {
    pub(in crate::format) name: String,
    pub(in crate::format) nullable: bool,
    /// Whether the value of the current row came from a field of exactly this name.
    pub(in crate::format) exact: bool,
    /// What values mean that could mean several things.
    pub(in crate::format) reading: Reading,
    /// What numbers of a timestamp column are.
    pub(in crate::format) unit: Unit,
    values: Values,
    nulls: Vec<u32>,
}

impl Column {
    pub(in crate::format) fn new(field: &Field) -> Result<Self> {
        let values = match field.data_type() {
            DataType::Boolean => Values::Bool(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) => {
                Values::Decimal(Vec::new(), *precision, *scale)
            }
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Time64(TimeUnit::Microsecond) => Values::Time(Vec::new()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                Values::Timestamp(Vec::new(), zone.clone())
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => Values::Interval(Vec::new()),
            DataType::Utf8 => Values::Text(Bytes::new()),
            DataType::Binary => Values::Binary(Bytes::new()),
            DataType::LargeUtf8 => Values::Jsonb(Bytes::new()),
            DataType::FixedSizeBinary(16) => Values::Uuid(Vec::new()),
            DataType::List(element) => Values::List(Box::new(Lists::new(element)?)),
            other => {
                let name = field.name();
                return Err(Error::unsupported(format!(
                    "column \"{name}\" of type {other} can't be read from messages"
                )));
            }
        };
        let (name, nullable) = (field.name().clone(), field.is_nullable());
        let (reading, unit) = (Reading::Plain, Unit::default());
        Ok(Self { name, nullable, exact: false, reading, unit, values, nulls: Vec::new() })
    }

    /// The number of rows, the current one included once it has a value here.
    #[inline]
    pub(in crate::format) fn len(&self) -> usize {
        each!(&self.values, v => v.len(), b => b.len(), l => l.offsets.len() - 1)
    }

    /// Forgets all but the first `rows` rows.
    pub(in crate::format) fn truncate(&mut self, rows: usize) {
        each!(
            &mut self.values,
            v => v.truncate(rows),
            b => b.truncate(rows),
            l => l.truncate(rows)
        );
        while self.nulls.last().is_some_and(|row| *row as usize >= rows) {
            self.nulls.pop();
        }
    }

    /// Whether the newest row is NULL.
    pub(in crate::format) fn last_is_null(&self) -> bool {
        self.nulls.last().is_some_and(|row| *row as usize + 1 == self.len())
    }

    pub(in crate::format) fn push_null(&mut self) {
        self.nulls.push(self.len() as u32);
        self.push_zero();
    }

    /// A value that means nothing, for a NOT NULL column of a row that only stands for its key.
    pub(in crate::format) fn push_zero(&mut self) {
        each!(&mut self.values, v => v.push(Default::default()), b => {
            let end = b.offsets.last().copied().unwrap_or(0);
            b.offsets.push(end);
        }, l => {
            let end = l.offsets.last().copied().unwrap_or(0);
            l.offsets.push(end);
        });
    }

    /// Appends the value of the current row. After an error the caller cuts the row off.
    #[inline]
    pub(in crate::format) fn push(&mut self, token: Token<'_>) -> Result<(), Invalid> {
        if let Values::Jsonb(bytes) = &mut self.values
            && token != Token::Null
        {
            return match (token, self.reading) {
                (Token::Text(_) | Token::Escaped(_), reading) if reading != Reading::Plain => {
                    self.push_jsonb_text(token)
                }
                _ => push_jsonb(token, bytes),
            };
        }
        match token {
            Token::Text(text) if self.reading != Reading::Plain => self.push_encoded(text),
            Token::Text(text) => self.push_text(text),
            Token::Int(int, text) => match &mut self.values {
                Values::Int64(v) => push(v, int),
                Values::Int32(v) => push(v, int.try_into().map_err(|_| Invalid::Range)?),
                Values::Int16(v) => push(v, int.try_into().map_err(|_| Invalid::Range)?),
                // The nearest float, as when the text is read.
                Values::Float64(v) => push(v, int as f64),
                Values::Timestamp(v, _) if self.reading == Reading::Plain => {
                    push(v, self.unit.timestamp(int)?)
                }
                Values::Timestamp(v, _) => push(v, self.reading.timestamp(int)?),
                Values::Date(v) if self.reading != Reading::Plain => {
                    push(v, self.reading.date(int)?)
                }
                Values::Time(v) if self.reading != Reading::Plain => {
                    push(v, self.reading.time(int)?)
                }
                _ => self.push_text(text),
            },
            Token::Number(text) => match &mut self.values {
                Values::Timestamp(v, _) if self.reading == Reading::Plain => {
                    push(v, self.unit.timestamp_of_number(text)?)
                }
                // Nanoseconds have more digits than [`Token::Int`].
                Values::Timestamp(v, _) => push(v, self.reading.timestamp(scalar::integer(text)?)?),
                _ => self.push_text(text),
            },
            Token::Null => {
                self.push_null();
                Ok(())
            }
            Token::Bool(value) => match &mut self.values {
                Values::Bool(v) => push(v, value),
                _ => self.push_text(if value { b"true" } else { b"false" }),
            },
            Token::Escaped(raw) => match unescape(raw) {
                Ok(text) if text.contains('\0') => Err(Invalid::Escape),
                Ok(text) => self.push(Token::Text(text.as_bytes())),
                Err(_) => Err(Invalid::Escape),
            },
            Token::Nested(text) => match &mut self.values {
                Values::Text(bytes) => bytes.push(text),
                Values::List(lists) => lists.push(text),
                Values::Decimal(v, precision, scale) if self.reading != Reading::Plain => {
                    push(v, reading::variable_scale(text, *precision, *scale)?)
                }
                _ => Err(Invalid::Syntax),
            },
        }
    }

    /// Appends a string of a change event, where it may be the encoding of a value.
    fn push_encoded(&mut self, text: &[u8]) -> Result<(), Invalid> {
        match (&mut self.values, self.reading) {
            (Values::Decimal(v, precision, scale), Reading::Unscaled(from)) => {
                push(v, reading::unscaled(text, from, *precision, *scale)?)
            }
            (Values::Binary(bytes), Reading::Base64) => {
                reading::base64(text, &mut bytes.data)?;
                bytes.close()
            }
            (Values::Text(_), _) if text == UNAVAILABLE => Err(Invalid::Unavailable),
            _ => self.push_text(text),
        }
    }

    /// Appends a `jsonb` that is given as a string, as change events do.
    fn push_jsonb_text(&mut self, token: Token<'_>) -> Result<(), Invalid> {
        match token {
            Token::Escaped(raw) => {
                let text = unescape(raw).map_err(|_| Invalid::Escape)?;
                self.push_text(text.as_bytes())
            }
            Token::Text(text) if text == UNAVAILABLE => Err(Invalid::Unavailable),
            Token::Text(text) => self.push_text(text),
            _ => Err(Invalid::Syntax),
        }
    }

    /// Appends a value given as text: what a cast of the text gives. Nearly all texts are in the
    /// plain form of their type, which is read at once; the others are left to the cast.
    #[inline]
    pub(in crate::format) fn push_text(&mut self, text: &[u8]) -> Result<(), Invalid> {
        match self.push_plain(text) {
            Err(Invalid::Syntax) => spelled::push(&mut self.values, text),
            done => done,
        }
    }

    #[inline]
    fn push_plain(&mut self, text: &[u8]) -> Result<(), Invalid> {
        match &mut self.values {
            Values::Text(bytes) => bytes.push(text)?,
            Values::Int64(v) => v.push(scalar::integer(text)?),
            Values::Timestamp(v, zone) => v.push(datetime::timestamp(text, zone.is_some())?),
            Values::Bool(v) => v.push(scalar::boolean(text)?),
            Values::Int16(v) => v.push(scalar::integer(text)?),
            Values::Int32(v) => v.push(scalar::integer(text)?),
            Values::Float32(v) => v.push(scalar::real(text)?),
            Values::Float64(v) => v.push(scalar::double(text)?),
            Values::Decimal(v, precision, scale) => {
                v.push(scalar::decimal(text, *precision, *scale)?);
            }
            Values::Date(v) => v.push(datetime::date(text)?),
            Values::Time(v) => v.push(datetime::time(text)?),
            Values::Binary(bytes) => {
                scalar::bytea(text, &mut bytes.data)?;
                bytes.close()?;
            }
            Values::Jsonb(bytes) => {
                let text = std::str::from_utf8(text).map_err(|_| Invalid::Syntax)?;
                let canonical = jsonb::canonical(text).map_err(|_| Invalid::Syntax)?;
                bytes.push(canonical.as_bytes())?;
            }
            Values::Uuid(_) | Values::Interval(_) | Values::List(_) => {
                return Err(Invalid::Syntax);
            }
        }
        Ok(())
    }

    /// Whether two rows have the same value here, bit by bit.
    pub(in crate::format) fn same(&self, a: usize, b: usize) -> bool {
        let null = |row: usize| self.nulls.binary_search(&(row as u32)).is_ok();
        null(a) == null(b)
            && each!(&self.values, v => v.get(a) == v.get(b), bytes => {
                bytes.get(a) == bytes.get(b)
            }, lists => lists.same(a, b))
    }

    /// What a [`Reading`] can apply to.
    pub(in crate::format) fn kind(&self) -> Kind {
        match self.values {
            Values::Date(_) => Kind::Date,
            Values::Time(_) | Values::Timestamp(..) => Kind::Clock,
            Values::Decimal(_, _, scale) => Kind::Decimal(scale),
            Values::Binary(_) => Kind::Binary,
            _ => Kind::Other,
        }
    }

    /// Whether any text at all is a value of this column.
    pub(in crate::format) fn is_text(&self) -> bool {
        matches!(self.values, Values::Text(_))
    }

    /// The name of the type in error messages.
    fn type_name(&self) -> &'static str {
        match &self.values {
            Values::Bool(_) => "boolean",
            Values::Int16(_) => "smallint",
            Values::Int32(_) => "integer",
            Values::Int64(_) => "bigint",
            Values::Float32(_) => "real",
            Values::Float64(_) => "double precision",
            Values::Decimal(..) => "numeric",
            Values::Date(_) => "date",
            Values::Time(_) => "time",
            Values::Timestamp(_, None) => "timestamp",
            Values::Timestamp(_, Some(_)) => "timestamp with time zone",
            Values::Interval(_) => "interval",
            Values::Text(_) => "text",
            Values::Binary(_) => "bytea",
            Values::Jsonb(_) => "jsonb",
            Values::Uuid(_) => "uuid",
            Values::List(_) => "array",
        }
    }

    /// PostgreSQL's words for a value that this column can't take.
    pub(in crate::format) fn reason(&self, invalid: Invalid, text: &str) -> String {
        let name = self.type_name();
        match (invalid, &self.values) {
            (Invalid::Syntax, _) => format!("invalid input syntax for type {name}: \"{text}\""),
            (Invalid::Unit, _) => format!(
                "integer {text} for type {name} has no unit: add timestamp.handling.mode = \
                 'milli' or 'micro' to ENCODE JSON (..), or send messages with their schema"
            ),
            (Invalid::Unavailable, _) => "the event lacks the value of a large column that did \
                 not change: set REPLICA IDENTITY FULL on the table that it is from"
                .into(),
            (Invalid::Escape, _) => format!("unsupported Unicode escape sequence in {text}"),
            (_, Values::Decimal(_, precision, scale)) => format!(
                "numeric field overflow: \"{text}\" does not fit in numeric({precision},{scale})"
            ),
            (_, Values::Date(_) | Values::Time(_) | Values::Timestamp(..)) => {
                format!("date/time field value out of range: \"{text}\"")
            }
            (_, Values::Float32(_) | Values::Float64(_)) => {
                format!("\"{text}\" is out of range for type {name}")
            }
            (_, _) => format!("value \"{text}\" is out of range for type {name}"),
        }
    }

    /// Takes the array of all rows.
    pub(in crate::format) fn finish(&mut self) -> Result<ArrayRef> {
        let nulls = self.null_buffer();
        Ok(match &mut self.values {
            Values::Bool(v) => Arc::new(BooleanArray::new(renew(v).into(), nulls)),
            Values::Int16(v) => Arc::new(Int16Array::new(renew(v).into(), nulls)),
            Values::Int32(v) => Arc::new(Int32Array::new(renew(v).into(), nulls)),
            Values::Int64(v) => Arc::new(Int64Array::new(renew(v).into(), nulls)),
            Values::Float32(v) => Arc::new(Float32Array::new(renew(v).into(), nulls)),
            Values::Float64(v) => Arc::new(Float64Array::new(renew(v).into(), nulls)),
            Values::Decimal(v, precision, scale) => Arc::new(
                Decimal128Array::new(renew(v).into(), nulls)
                    .with_precision_and_scale(*precision, *scale)?,
            ),
            Values::Date(v) => Arc::new(Date32Array::new(renew(v).into(), nulls)),
            Values::Time(v) => Arc::new(Time64MicrosecondArray::new(renew(v).into(), nulls)),
            Values::Timestamp(v, zone) => Arc::new(
                TimestampMicrosecondArray::new(renew(v).into(), nulls)
                    .with_timezone_opt(zone.clone()),
            ),
            Values::Interval(v) => Arc::new(IntervalMonthDayNanoArray::new(renew(v).into(), nulls)),
            Values::Text(bytes) => {
                let (offsets, data) = bytes.finish();
                Arc::new(StringArray::try_new(offsets, data, nulls)?)
            }
            Values::Binary(bytes) => {
                let (offsets, data) = bytes.finish();
                Arc::new(BinaryArray::try_new(offsets, data, nulls)?)
            }
            Values::Jsonb(bytes) => {
                let (offsets, data) = bytes.finish();
                let offsets = offsets.iter().map(|o| i64::from(*o)).collect::<Vec<_>>();
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(LargeStringArray::try_new(offsets, data, nulls)?)
            }
            Values::Uuid(v) => {
                let bytes = renew(v).concat();
                Arc::new(FixedSizeBinaryArray::try_new(16, bytes.into(), nulls)?)
            }
            Values::List(lists) => lists.finish(nulls)?,
        })
    }

    fn null_buffer(&mut self) -> Option<NullBuffer> {
        if self.nulls.is_empty() {
            return None;
        }
        let rows = self.len();
        let mut valid = BooleanBufferBuilder::new(rows);
        valid.append_n(rows, true);
        for row in take(&mut self.nulls) {
            valid.set_bit(row as usize, false);
        }
        Some(NullBuffer::new(valid.finish()))
    }
}

/// A value as it is: a string is a JSON string, an object that object.
fn push_jsonb(token: Token<'_>, bytes: &mut Bytes) -> Result<(), Invalid> {
    let plain = |text| std::str::from_utf8(text).map_err(|_| Invalid::Syntax);
    let quoted;
    let text = match token {
        Token::Null => "null",
        Token::Bool(true) => "true",
        Token::Bool(false) => "false",
        Token::Int(_, text) | Token::Number(text) => plain(text)?,
        Token::Escaped(text) | Token::Nested(text) => plain(text)?,
        Token::Text(text) => {
            let mut out = String::with_capacity(text.len() + 2);
            jsonb::write_string(plain(text)?, &mut out);
            quoted = out;
            &quoted
        }
    };
    let canonical = jsonb::canonical(text).map_err(|e| match e.sqlstate() {
        "22P05" => Invalid::Escape,
        _ => Invalid::Syntax,
    })?;
    bytes.push(canonical.as_bytes())
}

#[inline]
fn push<T>(values: &mut Vec<T>, value: T) -> Result<(), Invalid> {
    values.push(value);
    Ok(())
}

/// Takes the values and leaves room for as many again.
fn renew<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = values.len();
    std::mem::replace(values, Vec::with_capacity(room))
}
