//! INCLUDE columns: what is known of a message beside its value.

use std::ffi::CString;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field};

use super::consume::Messages;
use crate::connector::{Included, Metadata};
use crate::delta::text::UTC;
use crate::error::{Error, Result};
use crate::format::DecodeError;

/// The wanted columns of a reader, in the order of the schema.
pub(super) struct IncludeColumns {
    columns: Vec<Column>,
}

struct Column {
    name: String,
    nullable: bool,
    values: Values,
}

enum Values {
    Partition(Vec<i32>),
    Offset(Vec<i64>),
    Timestamp(Vec<Option<i64>>),
    Bytes(Bytes, BinaryBuilder),
    Text(Bytes, StringBuilder),
}

/// Where the bytes of a column are in a message.
enum Bytes {
    Key,
    Header(CString),
}

impl Bytes {
    fn of<'a>(&self, messages: &'a Messages<'_>, index: usize) -> Option<&'a [u8]> {
        match self {
            Self::Key => messages.get(index).key,
            Self::Header(name) => messages.header(index, name),
        }
    }
}

impl IncludeColumns {
    /// Of columns with their fields.
    pub(super) fn new<'a>(wanted: impl Iterator<Item = (&'a Included, &'a Field)>) -> Result<Self> {
        let columns = wanted.map(|(included, field)| Column::new(included, field));
        Ok(Self { columns: columns.collect::<Result<_>>()? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Whether a message has values that the columns can take.
    pub(super) fn check(
        &self,
        messages: &Messages<'_>,
        index: usize,
    ) -> std::result::Result<(), DecodeError> {
        for column in &self.columns {
            let (bytes, text) = match &column.values {
                Values::Bytes(bytes, _) => (bytes, false),
                Values::Text(bytes, _) => (bytes, true),
                _ => continue,
            };
            let name = &column.name;
            let bad = |reason| Err(DecodeError { column: Some(name.clone()), reason });
            match bytes.of(messages, index) {
                None if !column.nullable => {
                    return bad(format!(
                        "null value in column \"{name}\" violates not-null constraint"
                    ));
                }
                Some(value) if text && !is_text(value) => {
                    return bad("invalid byte sequence for encoding \"UTF8\"".into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Appends the values of a message that has become `rows` rows.
    pub(super) fn append(&mut self, messages: &Messages<'_>, index: usize, rows: usize) {
        let message = messages.get(index);
        for column in &mut self.columns {
            for _ in 0..rows {
                match &mut column.values {
                    Values::Partition(v) => v.push(message.partition),
                    Values::Offset(v) => v.push(message.offset),
                    Values::Timestamp(v) => {
                        v.push(messages.timestamp_ms(index).and_then(|ms| ms.checked_mul(1000)));
                    }
                    Values::Bytes(bytes, v) => v.append_option(bytes.of(messages, index)),
                    Values::Text(bytes, v) => {
                        let value = bytes.of(messages, index).map(std::str::from_utf8);
                        v.append_option(value.and_then(std::result::Result::ok));
                    }
                }
            }
        }
    }

    /// Takes the columns.
    pub(super) fn finish(&mut self) -> impl Iterator<Item = ArrayRef> {
        self.columns.iter_mut().map(|column| -> ArrayRef {
            match &mut column.values {
                Values::Partition(v) => Arc::new(Int32Array::from(std::mem::take(v))),
                Values::Offset(v) => Arc::new(Int64Array::from(std::mem::take(v))),
                Values::Timestamp(v) => {
                    Arc::new(TimestampMicrosecondArray::from(std::mem::take(v)).with_timezone(UTC))
                }
                Values::Bytes(_, v) => Arc::new(v.finish()),
                Values::Text(_, v) => Arc::new(v.finish()),
            }
        })
    }
}

impl Column {
    fn new(included: &Included, field: &Field) -> Result<Self> {
        let bytes = |bytes| match field.data_type() {
            DataType::Utf8 => Values::Text(bytes, StringBuilder::new()),
            _ => Values::Bytes(bytes, BinaryBuilder::new()),
        };
        let values = match &included.what {
            Metadata::Partition => Values::Partition(Vec::new()),
            Metadata::Offset => Values::Offset(Vec::new()),
            Metadata::Timestamp => Values::Timestamp(Vec::new()),
            Metadata::Key => bytes(Bytes::Key),
            Metadata::Header(name) => {
                let name = CString::new(name.as_str());
                bytes(Bytes::Header(name.map_err(|_| Error::internal("a zero byte in a name"))?))
            }
        };
        Ok(Self { name: field.name().clone(), nullable: field.is_nullable(), values })
    }
}

fn is_text(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| !text.contains('\0'))
}
